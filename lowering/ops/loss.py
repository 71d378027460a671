"""Losses that gather at class indices: negative log likelihood and its backward, and the elementwise losses that stay whole."""

from __future__ import annotations

import torch

from ..index_expr import Dim
from ..registry import lowering
from ..values import Graph, Value
from .reduce import divisor, opmath, reduce_over

aten = torch.ops.aten
_NONE, _MEAN, _SUM = 0, 1, 2  # at::Reduction


def _target_rows(g: Graph, weight: Value | None, target: Value, ignore_index: Dim, dtype: str) -> tuple[Value, Value]:
    """(whether a target counts, its class weight or 0)."""
    counts = target.differs(ignore_index)
    if weight is None:
        return counts, g.cast(counts, dtype)
    return counts, g.gather(g.cast(weight, dtype), [(0, target)], target.sizes, [None], guard=counts)


def _reduced(g: Graph, values: Value, weights: Value, reduction: int) -> tuple[Value, Value]:
    """(loss, total weight) by a Reduction code, over all elements."""
    if reduction == _NONE:
        return values, g.constant(0.0, values.dtype)
    every = list(range(values.rank))
    total = reduce_over(g, "sum", values, every)
    total_weight = reduce_over(g, "sum", weights, every)
    return (total / total_weight if reduction == _MEAN else total), total_weight


@lowering(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
def nll_loss_forward(g: Graph, x: Value, target: Value, weight: Value | None, reduction: int, ignore_index: Dim) -> tuple[Value, Value]:
    channel = 1 if x.rank > 1 else 0
    wide = g.cast(x, opmath(x.dtype))
    target = g.realize(target)
    counts, weights = _target_rows(g, weight, target, ignore_index, wide.dtype)
    position = [None if d == channel else d - (d > channel) for d in range(x.rank)]
    picked = g.gather(wide, [(channel, target)], target.sizes, position, guard=counts)
    loss, total = _reduced(g, g.constant(0.0, wide.dtype) - picked * weights, weights, reduction)
    if reduction == _NONE and x.rank == 1:
        total = weights  # as eager, whose single sample takes the reducing path
    return g.cast(loss, x.dtype), g.cast(total, x.dtype)


@lowering(aten.nll_loss_backward.default, aten.nll_loss2d_backward.default)
def nll_loss_backward(g: Graph, grad: Value, x: Value, target: Value, weight: Value | None, reduction: int, ignore_index: Dim, total_weight: Value) -> Value:
    channel = 1 if x.rank > 1 else 0
    dtype = opmath(x.dtype)
    target, grad = g.realize(target), g.cast(grad, dtype)
    _, weights = _target_rows(g, weight, target, ignore_index, dtype)
    if reduction == _MEAN:
        grad = grad / g.cast(total_weight, dtype)
    slope = g.realize(g.constant(0.0, dtype) - grad * weights)
    hit = g.index(x.sizes, channel).equals(target.unsqueeze(channel)) & target.differs(ignore_index).unsqueeze(channel)
    return g.cast(slope.unsqueeze(channel).where(hit, 0.0), x.dtype)


def _mean_or_sum(g: Graph, values: Value, reduction: int) -> Value:
    if reduction == _NONE:
        return values
    total = reduce_over(g, "sum", values, list(range(values.rank)))
    return total / divisor(g, values.numel, values.dtype) if reduction == _MEAN else total


@lowering(aten.mse_loss.default)
def mse_loss(g: Graph, x: Value, target: Value, reduction: int = _MEAN) -> Value:
    difference = g.cast(x, opmath(x.dtype)) - g.cast(target, opmath(x.dtype))
    return g.cast(_mean_or_sum(g, difference * difference, reduction), x.dtype)


@lowering(aten.smooth_l1_loss.default)
def smooth_l1_loss(g: Graph, x: Value, target: Value, reduction: int = _MEAN, beta: float = 1.0) -> Value:
    distance = g.map("abs", g.cast(x, opmath(x.dtype)) - g.cast(target, opmath(x.dtype)))
    if beta == 0:
        return g.cast(_mean_or_sum(g, distance, reduction), x.dtype)
    values = (distance * distance * 0.5 / float(beta)).where(distance < float(beta), distance - 0.5 * beta)
    return g.cast(_mean_or_sum(g, values, reduction), x.dtype)


@lowering(aten.huber_loss.default)
def huber_loss(g: Graph, x: Value, target: Value, reduction: int = _MEAN, delta: float = 1.0) -> Value:
    distance = g.map("abs", g.cast(x, opmath(x.dtype)) - g.cast(target, opmath(x.dtype)))
    values = (distance * distance * 0.5).where(distance <= float(delta), (distance - 0.5 * delta) * float(delta))
    return g.cast(_mean_or_sum(g, values, reduction), x.dtype)
