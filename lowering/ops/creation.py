"""Tensors made from sizes and numbers alone: full, arange, eye and their like; they cost nothing where they are fused."""

from __future__ import annotations

import math

import torch

from ..index_expr import IndexExpr, exact_div, floordiv
from ..registry import dtype_name, lowering
from ..values import Graph, Unsupported, Value

aten = torch.ops.aten


def _dtype_of_number(value) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, IndexExpr)):
        return "i64"
    if isinstance(value, float):
        return dtype_name(torch.get_default_dtype())
    raise Unsupported(f"a fill value of type {type(value).__name__}")


def _filled(g: Graph, sizes, value, dtype) -> Value:
    name = dtype_name(dtype) if dtype is not None else _dtype_of_number(value)
    if name == "bool" and not isinstance(value, (bool, int, float)):
        raise Unsupported("a bool filled with a symbolic size")
    if name not in ("f32", "f64", "f16", "bf16", "bool") and isinstance(value, float):
        if value != value or abs(value) == float("inf"):
            raise Unsupported(f"an integer tensor filled with {value}")
        value = int(value)
    if name in ("i32", "i16", "i8", "u8") and isinstance(value, int):
        bits = {"i32": 32, "i16": 16, "i8": 8, "u8": 8}[name]
        value &= (1 << bits) - 1
        if name != "u8" and value >= 1 << (bits - 1):
            value -= 1 << bits
    if name in ("f16", "bf16") and isinstance(value, (int, float)):
        value = torch.tensor(value, dtype=torch.float16 if name == "f16" else torch.bfloat16).item()
    return g.constant(bool(value) if name == "bool" else value, name, sizes)


@lowering(aten.full.default)
def full(g: Graph, size, fill_value, *, dtype=None, **_) -> Value:
    """Every element is fill_value."""
    return _filled(g, size, fill_value, dtype)


@lowering(aten.scalar_tensor.default)
def scalar_tensor(g: Graph, value, *, dtype=None, **_) -> Value:
    """A 0-dim tensor."""
    return _filled(g, (), value, dtype or torch.get_default_dtype())


def _like(g: Graph, x: Value, value, dtype, sizes=None) -> Value:
    sizes = x.sizes if sizes is None else sizes
    if dtype is not None:
        return _filled(g, sizes, value, dtype)
    from ..registry import TORCH_DTYPES

    return _filled(g, sizes, value, TORCH_DTYPES[x.dtype])


@lowering(aten.full_like.default)
def full_like(g: Graph, x: Value, fill_value, *, dtype=None, **_) -> Value:
    """full with x's sizes and dtype."""
    return _like(g, x, fill_value, dtype)


@lowering(aten.zeros_like.default)
def zeros_like(g: Graph, x: Value, *, dtype=None, **_) -> Value:
    """full of 0."""
    return _like(g, x, 0, dtype)


@lowering(aten.ones_like.default)
def ones_like(g: Graph, x: Value, *, dtype=None, **_) -> Value:
    """full of 1."""
    return _like(g, x, 1, dtype)


@lowering(aten.new_full.default)
def new_full(g: Graph, x: Value, size, fill_value, *, dtype=None, **_) -> Value:
    """full with x's dtype."""
    return _like(g, x, fill_value, dtype, size)


@lowering(aten.new_zeros.default)
def new_zeros(g: Graph, x: Value, size, *, dtype=None, **_) -> Value:
    """full of 0 with x's dtype."""
    return _like(g, x, 0, dtype, size)


@lowering(aten.new_ones.default)
def new_ones(g: Graph, x: Value, size, *, dtype=None, **_) -> Value:
    """full of 1 with x's dtype."""
    return _like(g, x, 1, dtype, size)


@lowering(aten.zeros.default)
def zeros(g: Graph, size, *, dtype=None, **_) -> Value:
    """full of 0."""
    return _filled(g, size, 0, dtype or torch.get_default_dtype())


@lowering(aten.ones.default)
def ones(g: Graph, size, *, dtype=None, **_) -> Value:
    """full of 1."""
    return _filled(g, size, 1, dtype or torch.get_default_dtype())


# Filled with 0.
@lowering(aten.empty.memory_format, aten.empty_strided.default, aten.empty_permuted.default)
def empty(g: Graph, size, *_, dtype=None, **__) -> Value:
    """Memory without a defined value: 0."""
    return _filled(g, size, 0, dtype or torch.get_default_dtype())


# Filled with 0.
@lowering(aten.empty_like.default, aten.new_empty.default, aten.new_empty_strided.default)
def empty_like(g: Graph, x: Value, size=None, *_, dtype=None, **__) -> Value:
    """Memory without a defined value, with x's dtype: 0."""
    return _like(g, x, 0, dtype, size)


@lowering(aten.fill.Scalar, aten.fill.Tensor)
def fill(g: Graph, x: Value, value) -> Value:
    """x's sizes and dtype, every element `value`."""
    return g.cast(value, x.dtype).expand(x.sizes) if isinstance(value, Value) else _like(g, x, value, None)


@lowering(aten.arange.start_step, aten.arange.default, aten.arange.start)
def arange(g: Graph, *bounds, dtype=None, **_) -> Value:
    """start + i * step; computed in double where it is not an integer, as eager does."""
    start, end, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1) if len(bounds) == 2 else bounds
    is_float = any(isinstance(b, float) for b in (start, end, step))
    name = dtype_name(dtype) if dtype is not None else dtype_name(torch.get_default_dtype()) if is_float else "i64"
    length = _arange_length(start, end, step, is_float)
    index = g.index((length,), 0)
    if is_float or name in ("f32", "f64", "f16", "bf16"):
        first, distance = (g.constant(bound if isinstance(bound, IndexExpr) else float(bound), "f64") for bound in (start, step))
        return g.cast(g.map("add", g.map("mul", g.cast(index, "f64"), distance), first), name)
    return g.cast(g.map("add", g.map("mul", index, g.constant(step, "i64")), g.constant(start, "i64")), name)


def _arange_length(start, end, step, is_float: bool):
    if is_float and not any(isinstance(b, IndexExpr) for b in (start, end, step)):
        return max(0, math.ceil((end - start) / step))
    if not all(isinstance(b, IndexExpr) or int(b) == b for b in (start, end, step)):
        raise Unsupported(f"arange from {start} to {end} by {step}: fractions beside a symbolic size")
    start, end, step = (b if isinstance(b, IndexExpr) else int(b) for b in (start, end, step))
    if all(isinstance(b, int) for b in (start, end, step)):
        return max(0, -((start - end) // step))
    length = exact_div(end - start, step)
    if length is not None:
        return length
    if not isinstance(step, int):
        raise Unsupported(f"arange from {start} to {end} by {step}: a step that is symbolic and does not divide the distance")
    return floordiv(end - start + (step - 1), step) if step > 0 else floordiv(start - end - (step + 1), -step)


@lowering(aten.eye.default, aten.eye.m)
def eye(g: Graph, rows, columns=None, *, dtype=None, **_) -> Value:
    """1 on the diagonal."""
    sizes = (rows, rows if columns is None else columns)
    on_diagonal = g.map("eq", g.index(sizes, 0), g.index(sizes, 1), dtype="bool")
    return g.cast(on_diagonal, dtype_name(dtype or torch.get_default_dtype()))


@lowering(torch.ops.prims.iota.default)
def iota(g: Graph, length, *, start, step, dtype, device, requires_grad) -> Value:
    """start + i * step."""
    return arange(g, start, start + length * step, step, dtype=dtype)
