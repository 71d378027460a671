"""Matrix products: mm, bmm, addmm and their kin, over the template "gemm"."""

from __future__ import annotations

import torch

from ..kernels.gemm import GemmParams, accumulator_dtype
from ..registry import lowering
from ..values import Graph, Unsupported, Value

__all__ = ["matrix_product"]

aten = torch.ops.aten


def matrix_product(g: Graph, a: Value, b: Value) -> Value:
    """a[batch…, m, k] times b[batch…, k, n], of equal batch sizes; half types give their sums in f32, not yet rounded."""
    if a.dtype == "bool" or a.dtype != b.dtype:
        raise Unsupported(f"matrix products need two operands of one numeric dtype, got {a.dtype} and {b.dtype}")
    sizes, depth, dtype = (*a.sizes[:-1], b.sizes[-1]), a.sizes[-1], accumulator_dtype(a.dtype)
    if depth == 0:
        return g.constant(0, dtype, sizes)
    if depth == 1:
        return g.map("mul", g.cast(a, dtype).expand(sizes), g.cast(b, dtype).expand(sizes))
    return g.template("gemm", [a, b], [(dtype, sizes, None)], GemmParams(depth))[0]


def _scaled(g: Graph, value: Value, factor) -> Value:
    if factor == 1:
        return value
    return g.map("mul", value, g.constant(factor, value.dtype))


def _plus_product(g: Graph, bias: Value, product: Value, beta, alpha) -> Value:
    """beta * bias + alpha * product, rounded to bias's dtype at the end; a bias with beta 0 is not read."""
    result = _scaled(g, product, alpha)
    if beta != 0:
        result = g.map("add", result, _scaled(g, g.cast(bias, product.dtype), beta))
    return g.cast(result, bias.dtype)


@lowering(aten.mm.default, aten.bmm.default)
def mm(g, a, b):
    return g.cast(matrix_product(g, a, b), a.dtype)


@lowering(aten.addmm.default, aten.baddbmm.default)
def addmm(g, bias, a, b, *, beta=1, alpha=1):
    return _plus_product(g, bias, matrix_product(g, a, b), beta, alpha)


@lowering(aten.addbmm.default)
def addbmm(g, bias, a, b, *, beta=1, alpha=1):
    return _plus_product(g, bias, g.reduce("sum", matrix_product(g, a, b), [0]), beta, alpha)


@lowering(aten.mv.default)
def mv(g, a, x):
    return g.cast(matrix_product(g, a, x.unsqueeze(1)).squeeze([1]), a.dtype)


@lowering(aten.addmv.default)
def addmv(g, bias, a, x, *, beta=1, alpha=1):
    return _plus_product(g, bias, matrix_product(g, a, x.unsqueeze(1)).squeeze([1]), beta, alpha)


@lowering(aten.dot.default, aten.vdot.default)
def dot(g, a, b):
    if a.dtype == "bool":
        raise Unsupported("dot products of bool are not defined")
    wide = accumulator_dtype(a.dtype)
    return g.cast(g.reduce("sum", g.map("mul", g.cast(a, wide), g.cast(b, wide)), [0]), a.dtype)
