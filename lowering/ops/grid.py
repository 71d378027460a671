"""grid_sample in two and three dims: reading an image at computed points, and its backward.

Modes: 0 bilinear, 1 nearest, 2 bicubic (2-d only); padding: 0 zeros, 1 border, 2 reflection, as aten.grid_sampler numbers them.
"""

from __future__ import annotations

import functools
import itertools

import torch

from ..index_expr import Dim
from ..registry import lowering
from ..values import Graph, Unsupported, Value
from .join import concatenate
from .reduce import FLOATS, divisor, number_of, opmath, reduce_over
from .scatter import zeros
from .upsample import cubic_weights

aten = torch.ops.aten
_BILINEAR, _NEAREST, _BICUBIC = 0, 1, 2
_ZEROS, _BORDER, _REFLECTION = 0, 1, 2


def _unnormalized(g: Graph, coordinate: Value, size: Dim, align_corners: bool) -> Value:
    """[-1, 1] to pixel positions."""
    if align_corners:
        return (coordinate + 1.0) * (number_of(g, size - 1, coordinate.dtype) / 2.0)
    return ((coordinate + 1.0) * number_of(g, size, coordinate.dtype) - 1.0) * 0.5


def _bound(g: Graph, position: Value, size: Dim) -> Value:
    return g.map("minimum", g.map("maximum", position, g.constant(0.0, position.dtype)), divisor(g, size - 1, position.dtype))


def _reflected(g: Graph, position: Value, twice_low: int, twice_high: Dim) -> Value:
    """Position folded back into [twice_low / 2, twice_high / 2]."""
    if twice_low == twice_high:
        return position * 0.0
    low, span = twice_low / 2.0, number_of(g, twice_high - twice_low, position.dtype) / 2.0
    distance = g.realize(g.map("abs", position - low))
    flips = g.realize(g.map("floor", distance / span))
    rest = distance - flips * span
    half = flips * 0.5
    is_even = g.map("floor", half).equals(half)
    return (rest + low).where(is_even, (span + low) - rest)


def _padded_position(g: Graph, position: Value, size: Dim, padding: int, align_corners: bool) -> Value:
    if padding == _BORDER:
        return _bound(g, position, size)
    if padding == _REFLECTION:
        return _bound(g, _reflected(g, position, *_mirrors(size, align_corners)), size)
    return position


def _mirrors(size: Dim, align_corners: bool) -> tuple[int, Dim]:
    """Twice the positions at which an image is reflected."""
    return (0, 2 * (size - 1)) if align_corners else (-1, 2 * size - 1)


def _positions(g: Graph, grid: Value, inputs, padding: int, align_corners: bool, is_padded: bool = True) -> list[Value]:
    """Pixel positions per spatial dim (outermost first), each over [batch, points…]; the grid's last dim has x first."""
    n, result = len(inputs), []
    for d, size in enumerate(inputs):
        position = _unnormalized(g, grid.select(-1, n - 1 - d), size, align_corners)
        result.append(g.realize(_padded_position(g, position, size, padding, align_corners) if is_padded else position))
    return result


def _is_inside(g: Graph, index: Value, size: Dim) -> Value:
    return (index >= 0.0) & (index < number_of(g, size, index.dtype))


def _pixel(g: Graph, x: Value, indices: list[Value], inside: Value, sizes) -> Value:
    """x[batch, channel, indices…] over [batch, channel, points…], 0 where not inside; indices are whole floats over [batch, points…]."""
    n = len(indices)
    terms = [(2 + d, g.cast(i, "i64").unsqueeze(1)) for d, i in enumerate(indices)]
    return g.gather(x, terms, sizes, [0, 1, *[None] * n], guard=inside.unsqueeze(1))


def _corners(g: Graph, positions: list[Value], inputs):
    """For each corner around the points: (indices, whether it exists, weight), all over [batch, points…]."""
    lows = [g.realize(g.map("floor", p)) for p in positions]
    for choice in itertools.product((0, 1), repeat=len(positions)):
        indices = [low + float(c) for low, c in zip(lows, choice)]
        weights = [position - low if c else (low + 1.0) - position for position, low, c in zip(positions, lows, choice)]
        inside = functools.reduce(lambda a, b: a & b, [_is_inside(g, i, size) for i, size in zip(indices, inputs)])
        yield indices, g.realize(inside), g.realize(functools.reduce(lambda a, b: a * b, weights))


def _sampled(g: Graph, x: Value, grid: Value, mode: int, padding: int, align_corners: bool, n: int) -> Value:
    inputs = x.sizes[2:]
    if x.dtype not in FLOATS or grid.dtype != x.dtype:
        raise Unsupported(f"grid_sample of dtypes {x.dtype} and {grid.dtype}")
    sizes = (x.sizes[0], x.sizes[1], *grid.sizes[1:-1])
    if 0 in sizes or 0 in x.sizes:
        return g.constant(0, x.dtype, sizes)
    wide, grid = g.realize(g.cast(x, opmath(x.dtype))), g.cast(grid, opmath(x.dtype))
    if mode == _BICUBIC:
        return g.cast(_bicubic(g, wide, grid, inputs, sizes, padding, align_corners), x.dtype)
    positions = _positions(g, grid, inputs, padding, align_corners)
    if mode == _NEAREST:
        indices = [g.realize(g.map("round", p)) for p in positions]
        inside = functools.reduce(lambda a, b: a & b, [_is_inside(g, i, size) for i, size in zip(indices, inputs)])
        return g.cast(_pixel(g, wide, indices, g.realize(inside), sizes), x.dtype)
    total = None
    for indices, inside, weight in _corners(g, positions, inputs):
        term = _pixel(g, wide, indices, inside, sizes) * weight.unsqueeze(1)
        total = term if total is None else total + term
    return g.cast(total, x.dtype)


def _bicubic(g: Graph, x: Value, grid: Value, inputs, sizes, padding: int, align_corners: bool) -> Value:
    positions = _positions(g, grid, inputs, padding, align_corners, is_padded=False)
    floors = [g.realize(g.map("floor", p)) for p in positions]
    weights = [[g.realize(w) for w in cubic_weights(p - f)] for p, f in zip(positions, floors)]
    total = None
    for row in range(4):
        line = None
        for column in range(4):
            indices = [g.realize(_padded_position(g, f + float(offset - 1), size, padding, align_corners)) for f, offset, size in zip(floors, (row, column), inputs)]
            inside = _is_inside(g, indices[0], inputs[0]) & _is_inside(g, indices[1], inputs[1])
            term = _pixel(g, x, indices, g.realize(inside), sizes) * weights[1][column].unsqueeze(1)
            line = term if line is None else line + term
        line = line * weights[0][row].unsqueeze(1)
        total = line if total is None else total + line
    return total


@lowering(aten.grid_sampler_2d.default)
def grid_sampler_2d(g: Graph, x: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Value:
    return _sampled(g, x, grid, interpolation_mode, padding_mode, align_corners, 2)


@lowering(aten.grid_sampler_3d.default)
def grid_sampler_3d(g: Graph, x: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Value:
    return _sampled(g, x, grid, interpolation_mode, padding_mode, align_corners, 3)


def _slope(g: Graph, raw: Value, size: Dim, padding: int, align_corners: bool) -> Value | float:
    """d padded position / d grid coordinate along a dim, given the position before padding."""
    factor = divisor(g, size - 1 if align_corners else size, raw.dtype) / 2.0
    if padding == _ZEROS:
        return factor
    slope, position = factor, raw
    if padding == _REFLECTION:
        low, high = _mirrors(size, align_corners)
        if low == high:
            return 0.0
        distance = raw - low / 2.0
        flips = g.map("floor", g.map("abs", distance) / (number_of(g, high - low, raw.dtype) / 2.0))
        is_even = g.map("floor", flips * 0.5).equals(flips * 0.5)
        sign = (0.0 - factor).where(distance < 0.0, factor)
        slope, position = sign.where(is_even, 0.0 - sign), _reflected(g, raw, low, high)
    return g.realize(slope.where((position > 0.0) & (position < number_of(g, size - 1, raw.dtype)), 0.0))


def _sampled_backward(g: Graph, grad: Value, x: Value, grid: Value, mode: int, padding: int, align_corners: bool, output_mask, n: int):
    """Gradients of nearest and bilinear sampling."""
    inputs = x.sizes[2:]
    if mode == _BICUBIC:
        raise Unsupported(f"backward of grid_sample with interpolation mode {mode}")
    wide, image, points = (g.realize(g.cast(v, opmath(v.dtype))) for v in (grad, x, grid))
    base = zeros(g, wide.dtype, x.sizes)
    positions = _positions(g, points, inputs, padding, align_corners)
    if mode == _NEAREST:
        indices = [g.realize(g.map("round", p)) for p in positions]
        inside = functools.reduce(lambda a, b: a & b, [_is_inside(g, i, size) for i, size in zip(indices, inputs)])
        _add_share(g, base, wide, indices, g.realize(inside), None)
        return g.cast(base, x.dtype), g.constant(0.0, grid.dtype, grid.sizes)
    lows = [g.realize(g.map("floor", p)) for p in positions]
    slopes: list = [None] * n
    for choice, (indices, inside, weight) in zip(itertools.product((0, 1), repeat=n), _corners(g, positions, inputs)):
        _add_share(g, base, wide, indices, inside, weight)
        products = g.realize(reduce_over(g, "sum", _pixel(g, image, indices, inside, wide.sizes) * wide, [1]))
        for d in range(n):
            slopes[d] = _add_slope(slopes[d], products, positions, lows, choice, d)
    raw = _positions(g, points, inputs, padding, align_corners, is_padded=False)
    factors = [_slope(g, r, size, padding, align_corners) for r, size in zip(raw, inputs)]
    parts = [(slope * factor).unsqueeze(-1) for slope, factor in zip(slopes, factors)]
    return g.cast(base, x.dtype), g.cast(concatenate(g, parts[::-1], -1), grid.dtype)


def _add_share(g: Graph, base: Value, grad: Value, indices: list[Value], inside: Value, weight: Value | None) -> None:
    """Adds grad * weight to the image's gradient at the pixels that are inside."""
    nothing = g.constant(0.0, grad.dtype)
    strides = base.expr.strides
    terms = [(g.cast(nothing.where(~inside, i), "i64").unsqueeze(1), base.sizes[2 + d], strides[2 + d]) for d, i in enumerate(indices)]
    share = grad if weight is None else grad * weight.unsqueeze(1)
    g.scatter(base.expr.buffer, 0, (*strides[:2], *[0] * len(indices)), terms, nothing.where(~inside.unsqueeze(1), share), "add")


def _add_slope(total: Value | None, products: Value, positions, lows, choice, dim: int) -> Value:
    """The corner's share of d out / d position[dim]: the weights of the other dims, with the sign of the side."""
    term = products
    for d, (position, low, c) in enumerate(zip(positions, lows, choice)):
        if d != dim:
            term = term * (position - low if c else (low + 1.0) - position)
    term = term if choice[dim] else 0.0 - term
    return term if total is None else total + term


@lowering(aten.grid_sampler_2d_backward.default)
def grid_sampler_2d_backward(g: Graph, grad: Value, x: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool, output_mask):
    return _sampled_backward(g, grad, x, grid, interpolation_mode, padding_mode, align_corners, output_mask, 2)


@lowering(aten.grid_sampler_3d_backward.default)
def grid_sampler_3d_backward(g: Graph, grad: Value, x: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool, output_mask):
    return _sampled_backward(g, grad, x, grid, interpolation_mode, padding_mode, align_corners, output_mask, 3)
