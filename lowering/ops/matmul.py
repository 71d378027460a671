"""Matrix products: mm, bmm, addmm and their kin, over the template "gemm"."""

from __future__ import annotations

import torch

from ..kernels.gemm import GemmParams, accumulator_dtype
from ..registry import lowering
from ..values import Graph, Unsupported, Value

__all__ = ["matrix_product"]

aten = torch.ops.aten


def matrix_product(g: Graph, a: Value, b: Value) -> Value:
    """a[batch…, m, k] times b[batch…, k, n]; the batch sizes are equal."""
    if a.dtype == "bool" or a.dtype != b.dtype:
        raise Unsupported(f"matrix products need two operands of one numeric dtype, got {a.dtype} and {b.dtype}")
    sizes, depth = (*a.sizes[:-1], b.sizes[-1]), a.sizes[-1]
    if depth == 0:
        return g.constant(0, a.dtype, sizes)
    if depth == 1:
        return g.map("mul", a.expand(sizes), b.expand(sizes))
    return g.template("gemm", [a, b], [(a.dtype, sizes, None)], GemmParams(depth))[0]


def _scaled(g: Graph, value: Value, factor) -> Value:
    if factor == 1:
        return value
    return g.map("mul", value, g.constant(factor, value.dtype))


def _plus_product(g: Graph, bias: Value, product: Value, beta, alpha) -> Value:
    """beta * bias + alpha * product, computed in the accumulator's dtype; a bias with beta 0 is not read."""
    dtype, wide = product.dtype, accumulator_dtype(product.dtype)
    result = _scaled(g, g.cast(product, wide), alpha)
    if beta != 0:
        result = g.map("add", result, _scaled(g, g.cast(bias, wide), beta))
    return g.cast(result, dtype)


@lowering(aten.mm.default, aten.bmm.default)
def mm(g, a, b):
    return matrix_product(g, a, b)


@lowering(aten.addmm.default, aten.baddbmm.default)
def addmm(g, bias, a, b, *, beta=1, alpha=1):
    return _plus_product(g, bias, matrix_product(g, a, b), beta, alpha)


@lowering(aten.addbmm.default)
def addbmm(g, bias, a, b, *, beta=1, alpha=1):
    return _plus_product(g, bias, g.reduce("sum", matrix_product(g, a, b), [0]), beta, alpha)


@lowering(aten.mv.default)
def mv(g, a, x):
    return matrix_product(g, a, x.unsqueeze(1)).squeeze([1])


@lowering(aten.addmv.default)
def addmv(g, bias, a, x, *, beta=1, alpha=1):
    return _plus_product(g, bias, matrix_product(g, a, x.unsqueeze(1)).squeeze([1]), beta, alpha)


@lowering(aten.dot.default, aten.vdot.default)
def dot(g, a, b):
    if a.dtype == "bool":
        raise Unsupported("dot products of bool are not defined")
    wide = accumulator_dtype(a.dtype)
    return g.cast(g.reduce("sum", g.map("mul", g.cast(a, wide), g.cast(b, wide)), [0]), a.dtype)
