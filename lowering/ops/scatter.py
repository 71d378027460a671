"""Writing at computed positions: scatter, index_put, index_add and their like.

ATen -> a copy of the base and Scatter statements on it, in ascending order of the source.
"""

from __future__ import annotations

import torch

from ..index_expr import product, render
from ..registry import lowering
from ..values import Graph, Unsupported, Value, broadcast_sizes
from .index import indexed_dims, ranked
from .join import copied
from .reduce import FLOATS

__all__ = ["zeros"]

aten = torch.ops.aten
_MODES = {"add": "add", "multiply": "mul", "sum": "add", "prod": "mul", "amax": "max", "amin": "min", "mean": "add"}
_LIMITS = {"i64": (-(2**63), 2**63 - 1), "i32": (-(2**31), 2**31 - 1), "i16": (-(2**15), 2**15 - 1), "i8": (-128, 127), "u8": (0, 255), "bool": (False, True)}


def zeros(g: Graph, dtype: str, sizes) -> Value:
    """A buffer of zeros that may be written to."""
    return copied(g, g.constant(0, dtype, sizes))


def _into_dim(g: Graph, base: Value, dim: int, index: Value, source: Value, op: str) -> None:
    """base[…, index[i], …] op= source[i] along dim; index and source cover leading parts of the other dims."""
    load = base.expr
    strides = tuple(0 if d == dim else s for d, s in enumerate(load.strides))
    g.scatter(load.buffer, load.offset, strides, [(index, base.sizes[dim], load.strides[dim])], source, op)


def _leading(x: Value, sizes) -> Value:
    """The corner of x of the given sizes."""
    for dim, size in enumerate(sizes):
        if x.sizes[dim] != size:
            x = x.slice(dim, 0, size)
    return x


def _scattered(g: Graph, x: Value, dim: int, index: Value, source: Value, op: str) -> Value:
    base = copied(g, ranked(x))
    if index.numel != 0:
        index = ranked(index)
        _into_dim(g, base, dim % base.rank, index, _leading(ranked(g.cast(source, x.dtype)), index.sizes), op)
    return base if x.rank else base.reshape(())


@lowering(aten.scatter.src)
def scatter_src(g: Graph, x: Value, dim: int, index: Value, src: Value) -> Value:
    return _scattered(g, x, dim, index, src, "set")


@lowering(aten.scatter.value)
def scatter_value(g: Graph, x: Value, dim: int, index: Value, value) -> Value:
    return _scattered(g, x, dim, index, g.constant(value, x.dtype, index.sizes), "set")


@lowering(aten.scatter.reduce)
def scatter_with(g: Graph, x: Value, dim: int, index: Value, src: Value, *, reduce: str) -> Value:
    return _scattered(g, x, dim, index, src, _MODES[reduce])


@lowering(aten.scatter.value_reduce)
def scatter_value_with(g: Graph, x: Value, dim: int, index: Value, value, *, reduce: str) -> Value:
    return _scattered(g, x, dim, index, g.constant(value, x.dtype, index.sizes), _MODES[reduce])


@lowering(aten.scatter_add.default)
def scatter_add(g: Graph, x: Value, dim: int, index: Value, src: Value) -> Value:
    return _scattered(g, x, dim, index, src, "add")


def _identity(dtype: str, mode: str):
    if mode in ("sum", "mean"):
        return 0
    if mode == "prod":
        return 1
    low, high = _LIMITS.get(dtype, (float("-inf"), float("inf")))
    return low if mode == "amax" else high


def _reduced_into(g: Graph, x: Value, dim: int, index: Value, source: Value, mode: str, include_self: bool) -> Value:
    """scatter_reduce and index_reduce on operands of rank >= 1; index covers all of source."""
    if mode == "mean" and x.dtype == "bool":
        raise Unsupported(f"scatter_reduce mean of dtype {x.dtype}")
    base = copied(g, x)
    if not include_self:
        _into_dim(g, base, dim, index, g.constant(_identity(x.dtype, mode), x.dtype, source.sizes), "set")
    _into_dim(g, base, dim, index, source, _MODES[mode])
    if mode != "mean":
        return base
    count = copied(g, g.constant(int(include_self), x.dtype, x.sizes))
    _into_dim(g, count, dim, index, g.constant(1, x.dtype, source.sizes), "add")
    divisor = g.map("maximum", count, g.constant(1, x.dtype))
    return base / divisor if x.dtype in FLOATS else g.map("div_floor", base, divisor)


@lowering(aten.scatter_reduce.two)
def scatter_reduce(g: Graph, x: Value, dim: int, index: Value, src: Value, reduce: str, *, include_self: bool = True) -> Value:
    if index.numel == 0:
        return x
    index, target = ranked(index), ranked(x)
    result = _reduced_into(g, target, dim % target.rank, index, _leading(ranked(src), index.sizes), reduce, include_self)
    return result.reshape(x.sizes)


def _along(index: Value, dim: int, sizes) -> Value:
    """A 1-d index over the dims of a source."""
    return ranked(index).reshape([-1, *[1] * (len(sizes) - dim - 1)]).expand(sizes)


@lowering(aten.index_reduce.default)
def index_reduce(g: Graph, x: Value, dim: int, index: Value, source: Value, reduce: str, *, include_self: bool = True) -> Value:
    target, source = ranked(x), ranked(source)
    dim %= target.rank
    if source.numel == 0:
        return x
    return _reduced_into(g, target, dim, _along(index, dim, source.sizes), source, reduce, include_self).reshape(x.sizes)


def _index_write(g: Graph, x: Value, dim: int, index: Value, source: Value, op: str) -> Value:
    base, source = copied(g, ranked(x)), ranked(source)
    dim %= base.rank
    if source.numel != 0:
        _into_dim(g, base, dim, _along(index, dim, source.sizes), source, op)
    return base.reshape(x.sizes)


@lowering(aten.index_add.default)
def index_add(g: Graph, x: Value, dim: int, index: Value, source: Value, *, alpha=1) -> Value:
    source = source if alpha == 1 else source * alpha
    return _index_write(g, x, dim, index, source, "add")


@lowering(aten.index_copy.default)
def index_copy(g: Graph, x: Value, dim: int, index: Value, source: Value) -> Value:
    return _index_write(g, x, dim, index, source, "set")


def _index_filled(g: Graph, x: Value, dim: int, index: Value, value: Value) -> Value:
    target = ranked(x)
    count = ranked(index).sizes[0]
    dim %= target.rank
    sizes = (*target.sizes[:dim], count, *target.sizes[dim + 1:])
    return _index_write(g, target, dim, g.from_end(index, target.sizes[dim]), value.expand(sizes), "set").reshape(x.sizes)


@lowering(aten.index_fill.int_Scalar)
def index_fill(g: Graph, x: Value, dim: int, index: Value, value) -> Value:
    return _index_filled(g, x, dim, index, g.constant(value, x.dtype))


@lowering(aten.index_fill.int_Tensor)
def index_fill_tensor(g: Graph, x: Value, dim: int, index: Value, value: Value) -> Value:
    return _index_filled(g, x, dim, index, g.cast(value, x.dtype))


def _masked_put(g: Graph, x: Value, mask: Value, values: Value, accumulate: bool) -> Value:
    """x[mask] = values, where values does not run along the masked elements."""
    rest = x.sizes[mask.rank:]
    if mask.sizes != x.sizes[:mask.rank] or values.rank > len(rest) and values.sizes[0] != 1:
        raise Unsupported(f"data-dependent shape: index_put of {values} at a mask of sizes [{', '.join(map(render, mask.sizes))}]")
    values = values.reshape(values.sizes[1:]) if values.rank > len(rest) else values
    lifted = g.cast(mask, "bool").reshape([*mask.sizes, *[1] * len(rest)])
    values = values.expand(rest)
    return (x + values if accumulate else values.expand(x.sizes)).where(lifted, x)


# A boolean mask only with values that do not run along its true elements.
@lowering(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(g: Graph, x: Value, indices, values: Value, accumulate: bool = False) -> Value:
    chosen = [i for i in indices if i is not None]
    values = g.cast(values, x.dtype)
    if len(chosen) == 1 and indices[0] is not None and chosen[0].dtype in ("bool", "u8"):
        return _masked_put(g, x, chosen[0], values, accumulate)
    if not chosen:
        return x + values if accumulate else values.expand(x.sizes)
    found = indexed_dims(g, x, indices)
    base = copied(g, x)
    strides = [0] * len(found.sizes)
    for d, place in enumerate(found.position):
        if place is not None:
            strides[place] = base.expr.strides[d]
    terms = [(i.expand(found.sizes), x.sizes[d], base.expr.strides[d]) for d, i in found.indices]
    if 0 not in found.sizes:
        g.scatter(base.expr.buffer, 0, strides, terms, values.expand(found.sizes), "add" if accumulate else "set")
    return base


@lowering(aten._unsafe_masked_index_put_accumulate.default)
def masked_index_put_accumulate(g: Graph, x: Value, mask: Value, indices, values: Value) -> Value:
    kept = [None if i is None else g.constant(0, i.dtype).where(~mask, i) for i in indices]
    sizes = broadcast_sizes(values.sizes, mask.sizes)
    return index_put(g, x, kept, g.constant(0, x.dtype).where(~mask, values.expand(sizes)), True)


@lowering(aten.put.default)
def put(g: Graph, x: Value, index: Value, source: Value, accumulate: bool = False) -> Value:
    if index.numel == 0:
        return x
    base = copied(g, x)
    index = g.from_end(index.reshape([index.numel]), x.numel)
    g.scatter(base.expr.buffer, 0, [0], [(index, x.numel, 1)], source.reshape([source.numel]), "add" if accumulate else "set")
    return base


@lowering(aten.masked_scatter.default)
def masked_scatter(g: Graph, x: Value, mask: Value, source: Value) -> Value:
    sizes = broadcast_sizes(x.sizes, mask.sizes)
    flags = g.realize(mask.expand(sizes).reshape([-1]))
    (count,) = g.scan("sum", g.cast(flags, "i64"), 0)
    taken = g.gather(source.reshape([source.numel]), [(0, count - 1)], flags.sizes, [None], guard=flags)
    return taken.reshape(sizes).where(mask, x.expand(sizes))


@lowering(aten.masked_scatter_backward.default)
def masked_scatter_backward(g: Graph, grad: Value, mask: Value, sizes) -> Value:
    """The gradients of the elements that were taken, in order; zeros follow. What was not taken is written behind the end."""
    size = product(sizes)
    flags = g.realize(mask.expand(grad.sizes).reshape([-1]))
    (count,) = g.scan("sum", g.cast(flags, "i64"), 0)
    place = (count - 1).where(flags, g.constant(size, "i64"))
    base = zeros(g, grad.dtype, (size + 1,))
    g.scatter(base.expr.buffer, 0, [0], [(place, size + 1, 1)], g.realize(grad).reshape([-1]), "set")
    return base.slice(0, 0, size).reshape(sizes)


@lowering(aten.nonzero_static.default)
def nonzero_static(g: Graph, x: Value, *, size: Dim, fill_value: int = -1) -> Value:
    """Every non-zero element writes its coordinates to the row of its rank; zeros and what comes too late write to one row more."""
    if x.rank == 0 or x.numel == 0:
        return g.constant(fill_value, "i64", (size, x.rank))
    flags = g.realize(x.differs(0) if x.dtype != "bool" else x)
    (count,) = g.scan("sum", g.cast(flags.reshape([-1]), "i64"), 0)
    place = g.map("minimum", count - 1, g.constant(size, "i64")).reshape(x.sizes)
    row = g.realize(place.where(flags, g.constant(size, "i64")))
    base = copied(g, g.constant(fill_value, "i64", (size + 1, x.rank)))
    for dim in range(x.rank):
        g.scatter(base.expr.buffer, dim, [0] * x.rank, [(row, size + 1, x.rank)], g.index(x.sizes, dim), "set")
    return base.slice(0, 0, size)
