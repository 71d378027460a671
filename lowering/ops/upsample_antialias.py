"""Resizing with antialiasing: every output averages its support with a filter that widens as the image shrinks; forward and backward.

Eager filters dim by dim, the last one first. Weights depend on sizes alone and are computed once per dim.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

from ..registry import lowering
from ..values import Graph, Unsupported, Value
from .reduce import FLOATS, opmath, reduce_over
from .scatter import zeros
from .upsample import chosen_size, given_scales, source_step, spatial_sizes

aten = torch.ops.aten
_CUBIC = -0.5  # the A of Pillow's cubic convolution, which this follows


def _triangle(g: Graph, x: Value) -> Value:
    distance = g.map("abs", x)
    return (1.0 - distance).where(distance < 1.0, 0.0)


def _cubic(g: Graph, x: Value) -> Value:
    d = g.realize(g.map("abs", x))
    near = ((d * (_CUBIC + 2.0)) - (_CUBIC + 3.0)) * d * d + 1.0
    far = (((d - 5.0) * d + 8.0) * d - 4.0) * _CUBIC
    return near.where(d < 1.0, far.where(d < 2.0, 0.0))


@dataclasses.dataclass(frozen=True)
class Filter:
    """A kernel over [-width / 2, width / 2]."""

    width: int
    weight: Callable[[Graph, Value], Value]


BILINEAR, BICUBIC = Filter(2, _triangle), Filter(4, _cubic)


@dataclasses.dataclass(frozen=True)
class Support:
    """Along one dim, as [outputs, taps]: where every output reads, and with which weight (0 behind its support)."""

    positions: Value
    weights: Value


def _support(g: Graph, size: int, out: int, align_corners: bool, factor: float | None, chosen: Filter, dtype: str) -> Support:
    scale = source_step(size, out, align_corners, factor, dtype)
    radius = chosen.width / 2 * max(scale, 1.0)
    taps = math.ceil(radius) * 2 + 1
    center = g.realize((g.cast(g.index((out, 1), 0), dtype) + 0.5) * scale)
    first = g.realize(g.map("maximum", g.cast(center - radius + 0.5, "i64"), g.constant(0, "i64")))
    end = g.map("minimum", g.cast(center + radius + 0.5, "i64"), g.constant(size, "i64"))
    tap = g.index((out, taps), 1)
    place = g.cast(tap + first, dtype) - center + 0.5
    inside = tap < g.map("minimum", end - first, g.constant(taps, "i64"))
    weights = g.realize(chosen.weight(g, place * (1.0 / max(scale, 1.0))).where(inside, 0.0))
    total = g.realize(g.reduce("sum", weights, [1], True))
    positions = g.realize(g.map("minimum", tap + first, g.constant(size - 1, "i64")))
    return Support(positions, g.realize((weights / total).where(total.differs(0.0), weights)))


def _filtered(g: Graph, x: Value, dim: int, support: Support) -> Value:
    """Dim `dim` of x resized."""
    out, taps = support.positions.sizes
    behind = [1] * (x.rank - dim - 1)
    sizes = (*x.sizes[:dim], out, *x.sizes[dim + 1:], taps)
    index, weight = (v.reshape([out, *behind, taps]) for v in (support.positions, support.weights))
    taken = g.gather(x, [(dim, index)], sizes, [None if d == dim else d for d in range(x.rank)])
    return g.realize(reduce_over(g, "sum", taken * weight, [x.rank]))


def _spread(g: Graph, grad: Value, dim: int, support: Support, size: int) -> Value:
    """The transpose of _filtered: adds every output's share to its sources."""
    out, taps = support.positions.sizes
    behind = [1] * (grad.rank - dim - 1)
    base = zeros(g, grad.dtype, (*grad.sizes[:dim], size, *grad.sizes[dim + 1:]))
    strides = [0 if d == dim else s for d, s in enumerate(base.expr.strides)]
    index, weight = (v.reshape([out, *behind, taps]) for v in (support.positions, support.weights))
    shares = grad.unsqueeze(grad.rank).expand((*grad.sizes, taps)) * weight
    g.scatter(base.expr.buffer, 0, [*strides, 0], [(index, size, base.expr.strides[dim])], shares, "add")
    return base


def _checked_dtype(x: Value) -> str:
    if x.dtype not in FLOATS:
        raise Unsupported(f"antialiased interpolation of dtype {x.dtype}: eager computes it in fixed point")
    return opmath(x.dtype)


def _resize(g: Graph, x: Value, output_size, align_corners: bool, scales, chosen: Filter) -> Value:
    dtype = _checked_dtype(x)
    inputs, outputs = spatial_sizes(x, 2, output_size)
    sizes = (*x.sizes[:-2], *outputs)
    if 0 in sizes:
        return g.constant(0, x.dtype, sizes)
    result = g.realize(g.cast(x, dtype))
    for d in (1, 0):
        support = _support(g, inputs[d], outputs[d], align_corners, scales[d] if scales else None, chosen, dtype)
        result = _filtered(g, result, x.rank - 2 + d, support)
    return g.cast(result, x.dtype)


def _resize_backward(g: Graph, grad: Value, input_size, align_corners: bool, scales, chosen: Filter) -> Value:
    dtype, sizes = _checked_dtype(grad), tuple(input_size)
    inputs, outputs = spatial_sizes(g.constant(0, grad.dtype, sizes), 2, grad.sizes[-2:])
    if 0 in sizes or 0 in grad.sizes:
        return g.constant(0, grad.dtype, sizes)
    result = g.realize(g.cast(grad, dtype))
    for d in (0, 1):
        support = _support(g, inputs[d], outputs[d], align_corners, scales[d] if scales else None, chosen, dtype)
        result = _spread(g, result, grad.rank - 2 + d, support, inputs[d])
    return g.cast(result, grad.dtype)


def _register(name: str, chosen: Filter) -> None:
    packet, backward = getattr(aten, name), getattr(aten, f"{name}_backward")

    @lowering(packet.default)
    def resize(g, x, output_size, align_corners, *scales):
        return _resize(g, x, output_size, align_corners, given_scales(scales), chosen)

    @lowering(packet.vec)
    def resize_vec(g, x, output_size, align_corners, scale_factors):
        return _resize(g, x, chosen_size(x, 2, output_size, scale_factors), align_corners, scale_factors, chosen)

    @lowering(backward.default)
    def resize_backward(g, grad, output_size, input_size, align_corners, *scales):
        return _resize_backward(g, grad, input_size, align_corners, given_scales(scales), chosen)


_register("_upsample_bilinear2d_aa", BILINEAR)
_register("_upsample_bicubic2d_aa", BICUBIC)
