"""Running results along a dim: cumsum, cumprod, cummax, cummin, logcumsumexp.

Sums and products of float types run in f64, as eager's accumulator does.
"""

from __future__ import annotations

import torch

from ..registry import dtype_name, lowering
from ..values import Graph, Unsupported, Value
from .reduce import FLOATS

aten = torch.ops.aten
_ACCUMULATOR = {"f32": "f64", "f64": "f64", "f16": "f32", "bf16": "f32"}


def _running(g: Graph, op: str, x: Value, dim: int, dtype) -> Value:
    result = dtype_name(dtype) if dtype is not None else x.dtype if x.dtype in FLOATS else "i64"
    x = g.cast(x, result)
    if x.rank == 0 or x.numel == 0:
        return x
    wide = g.cast(x, _ACCUMULATOR.get(result, "i64"))
    return g.scan(op, wide, dim, dtype=result)[0]


@lowering(aten.cumsum.default)
def cumsum(g: Graph, x: Value, dim: int, *, dtype=None) -> Value:
    return _running(g, "sum", x, dim, dtype)


@lowering(aten.cumprod.default)
def cumprod(g: Graph, x: Value, dim: int, *, dtype=None) -> Value:
    return _running(g, "prod", x, dim, dtype)


def _running_winner(g: Graph, op: str, x: Value, dim: int) -> tuple[Value, Value]:
    if x.rank == 0 or x.numel == 0:
        return x, g.constant(0, "i64", x.sizes)
    return g.scan(op, x, dim, n_outputs=2)


@lowering(aten.cummax.default)
def cummax(g: Graph, x: Value, dim: int) -> tuple[Value, Value]:
    return _running_winner(g, "max", x, dim)


@lowering(aten.cummin.default)
def cummin(g: Graph, x: Value, dim: int) -> tuple[Value, Value]:
    return _running_winner(g, "min", x, dim)


@lowering(aten.logcumsumexp.default)
def logcumsumexp(g: Graph, x: Value, dim: int) -> Value:
    if x.dtype not in FLOATS:
        raise Unsupported(f"logcumsumexp of dtype {x.dtype}")
    if x.rank == 0 or x.numel == 0:
        return x
    wide = g.cast(x, "f32" if x.dtype in ("f16", "bf16") else x.dtype)
    return g.scan("logsumexp", wide, dim, dtype=x.dtype)[0]
