"""Distances between rows: cdist and pdist, forward and backward."""

from __future__ import annotations

import math

import torch

from ..index_expr import render
from ..registry import lowering
from ..values import Graph, Unsupported, Value, broadcast_sizes
from .reduce import norm_over, reduce_over

aten = torch.ops.aten


# Summed directly for every p: no loss of digits by a matrix product.
@lowering(aten._cdist_forward.default)
def cdist(g: Graph, x: Value, y: Value, p: float, compute_mode: int | None = None) -> Value:
    batch = broadcast_sizes(x.sizes[:-2], y.sizes[:-2])
    if x.sizes[-1] == 0:
        return g.constant(0.0, x.dtype, (*batch, x.sizes[-2], y.sizes[-2]))
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    return norm_over(g, difference, float(p), [difference.rank - 1], False)


@lowering(aten._cdist_backward.default)
def cdist_backward(g: Graph, grad: Value, x: Value, y: Value, p: float, distance: Value) -> Value:
    if 0 in grad.sizes or 0 in x.sizes:
        return g.constant(0.0, x.dtype, x.sizes)
    difference = g.realize(x.unsqueeze(-2) - y.unsqueeze(-3))
    grad, distance = grad.unsqueeze(-1), distance.unsqueeze(-1)
    sign = g.cast(difference > 0.0, x.dtype) - g.cast(difference < 0.0, x.dtype)
    nothing = g.constant(0.0, x.dtype)
    if p == 0:
        return g.constant(0.0, x.dtype, (*grad.sizes[:-2], x.sizes[-1]))
    if p == 1:
        share = sign * grad
    elif p == 2:
        share = nothing.where(distance.equals(0.0), difference * grad / distance)
    elif p == math.inf:
        share = (sign * grad).where(g.map("abs", difference).equals(distance), 0.0)
    else:
        powers = g.map("pow", g.map("abs", difference) / distance, g.constant(p - 1.0, x.dtype))
        is_flat = distance.equals(0.0) | difference.equals(0.0) if p < 1 else distance.equals(0.0)
        share = nothing.where(is_flat, sign * powers * grad)
    return reduce_over(g, "sum", share, [share.rank - 2])


@lowering(aten._pdist_forward.default)
def pdist(g: Graph, x: Value, p: float = 2.0) -> Value:
    n, width = x.sizes
    if not isinstance(n, int):
        raise Unsupported(f"pdist of {render(n)} rows")
    count = n * (n - 1) // 2
    if count <= 0 or width == 0:
        return g.constant(0.0, x.dtype, (max(count, 0),))
    # pair k of the upper triangle is (i, j); the square root is exact enough in f64 for any n that fits memory
    k = g.index((count,), 0)
    half = n - 0.5
    root = g.map("sqrt", half * half - 1.0 - 2.0 * g.cast(k, "f64"))
    i = g.realize(g.cast(g.map("floor", half - root), "i64"))
    j = k - i * n + g.map("div_trunc", i * (i + 1), g.constant(2, "i64")) + i + 1
    rows = [g.gather(x, [(0, index.unsqueeze(-1))], (count, width), [None, 1]) for index in (i, g.realize(j))]
    return norm_over(g, rows[0] - rows[1], float(p), [1], False)


@lowering(aten._pdist_backward.default)
def pdist_backward(g: Graph, grad: Value, x: Value, p: float, distance: Value) -> Value:
    """That of cdist of x with itself, for the first operand, from both triangles."""
    n, width = x.sizes
    if not isinstance(n, int):
        raise Unsupported(f"pdist of {render(n)} rows")
    if n < 2 or width == 0:
        return g.constant(0.0, x.dtype, x.sizes)
    row, column = g.index((n, n), 0), g.index((n, n), 1)
    first, second = g.map("minimum", row, column), g.map("maximum", row, column)
    pair = g.realize(first * n - g.map("div_trunc", first * (first + 1), g.constant(2, "i64")) + second - first - 1)
    square = [g.realize(g.gather(v, [(0, pair)], (n, n), [None], guard=row.differs(column))) for v in (grad, distance)]
    return cdist_backward(g, square[0], x, x, float(p), square[1])
