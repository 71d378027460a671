"""Joining and overwriting: several values stored into slices of one buffer.

cat, stack, slice_scatter and their like -> Maps with targets inside a buffer.
"""

from __future__ import annotations

import functools

import torch

from ..index_expr import Dim, render
from ..registry import lowering
from ..tensor_ir import Load, Target
from ..values import Graph, Unsupported, Value, preferred_strides
from .view import diagonal_of, restrided, slice_bounds, wrap_index

__all__ = ["common_dtype", "concatenate", "copied", "store_view"]

aten = torch.ops.aten
_ORDER = ("bool", "u8", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64")


def concatenate(g: Graph, parts: list[Value], dim: int) -> Value:
    """`parts` one after the other along dim; all of one dtype."""
    dim %= parts[0].rank
    parts = [p for p in parts if p.sizes[dim] != 0] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    total = sum((p.sizes[dim] for p in parts), 0)
    sizes = (*parts[0].sizes[:dim], total, *parts[0].sizes[dim + 1:])
    buffer = g.buffer(parts[0].dtype, sizes, preferred_strides(parts[0]._with(sizes, parts[0].expr)))
    start: Dim = 0
    for part in parts:
        g.store(part, Target(buffer, start * buffer.strides[dim], buffer.strides))
        start = start + part.sizes[dim]
    return g.read(buffer)


@functools.cache
def common_dtype(dtypes: frozenset[str]) -> str:
    """The dtype that torch.cat promotes tensors of these dtypes to."""
    from ..registry import DTYPES, TORCH_DTYPES

    return DTYPES[functools.reduce(torch.promote_types, (TORCH_DTYPES[d] for d in sorted(dtypes, key=_ORDER.index)))]


@lowering(aten.cat.default, aten.concat.default)
def cat(g: Graph, tensors, dim: int = 0) -> Value:
    dtype = common_dtype(frozenset(t.dtype for t in tensors))
    parts = [g.cast(t, dtype) for t in tensors if t.sizes != (0,)]  # torch skips 1-d empty tensors whatever the rank
    return concatenate(g, parts, dim) if parts else g.cast(tensors[0], dtype)


@lowering(aten.stack.default)
def stack(g: Graph, tensors, dim: int = 0) -> Value:
    return cat(g, [t.unsqueeze(dim) for t in tensors], dim)


def copied(g: Graph, x: Value) -> Value:
    """`x` in a buffer of its own, row-major, that may be written to."""
    return g.realize(x, buffer=g.buffer(x.dtype, x.sizes))


def store_view(g: Graph, source: Value, place: Value) -> None:
    """Writes `source` where `place`, a view of a buffer, reads. Where both have a size, they are equal by a guard, however they are written."""
    load = place.expr
    assert isinstance(load, Load) and load.guard is None, "only memory can be written"
    lead = place.rank - source.rank
    sizes = tuple(size if d < lead or source.sizes[d - lead] == 1 else source.sizes[d - lead] for d, size in enumerate(place.sizes))
    value = g.cast(source, load.dtype).expand(sizes)
    g.store(value, Target(load.buffer, load.offset, load.strides))


@lowering(aten.slice_scatter.default)
def slice_scatter(g: Graph, x: Value, source: Value, dim: int = 0, start=None, end=None, step: int = 1) -> Value:
    base = copied(g, x)
    begin, _ = slice_bounds(g, x.sizes[dim], start, end)
    store_view(g, source, base.slice(dim, begin, begin + (source.sizes[dim] - 1) * step + 1, step))
    return base


@lowering(aten.select_scatter.default)
def select_scatter(g: Graph, x: Value, source: Value, dim: int, index: Dim) -> Value:
    base = copied(g, x)
    store_view(g, source, base.select(dim, wrap_index(g, index, x.sizes[dim])))
    return base


@lowering(aten.diagonal_scatter.default)
def diagonal_scatter(g: Graph, x: Value, source: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    base = copied(g, x)
    store_view(g, source, diagonal_of(base, offset, dim1, dim2))
    return base


@lowering(aten.as_strided_scatter.default)
def as_strided_scatter(g: Graph, x: Value, source: Value, sizes, strides, storage_offset: Dim | None = None) -> Value:
    load, offset = restrided(g, x, sizes, strides, storage_offset)
    if load.buffer.n_elements != x.numel:
        raise Unsupported(f"as_strided_scatter into a tensor of sizes [{', '.join(map(render, x.sizes))}] with gaps in its storage")
    base = g.realize(x, buffer=g.buffer(x.dtype, x.sizes, load.strides))
    store_view(g, source, base._with(tuple(sizes), Load(base.expr.buffer, offset, tuple(strides))))
    return base


def _zeros(g: Graph, dtype: str, sizes) -> Value:
    return copied(g, g.constant(0, dtype, sizes))


@lowering(aten.slice_backward.default)
def slice_backward(g: Graph, grad: Value, sizes, dim: int, start: Dim, end: Dim, step: int) -> Value:
    return slice_scatter(g, g.constant(0, grad.dtype, sizes), grad, dim, start, end, step)


@lowering(aten.select_backward.default)
def select_backward(g: Graph, grad: Value, sizes, dim: int, index: Dim) -> Value:
    return select_scatter(g, g.constant(0, grad.dtype, sizes), grad, dim, index)


@lowering(aten.diagonal_backward.default)
def diagonal_backward(g: Graph, grad: Value, sizes, offset: int, dim1: int, dim2: int) -> Value:
    return diagonal_scatter(g, g.constant(0, grad.dtype, sizes), grad, offset, dim1, dim2)


@lowering(aten.block_diag.default)
def block_diag(g: Graph, tensors) -> Value:
    dtype = common_dtype(frozenset(t.dtype for t in tensors))
    blocks = [t.reshape([1] * (2 - t.rank) + list(t.sizes)) if t.rank < 2 else t for t in tensors]
    base = _zeros(g, dtype, (sum((b.sizes[0] for b in blocks), 0), sum((b.sizes[1] for b in blocks), 0)))
    row = column = 0
    for block in blocks:
        height, width = block.sizes
        store_view(g, block, base.slice(0, row, row + height).slice(1, column, column + width))
        row, column = row + height, column + width
    return base
