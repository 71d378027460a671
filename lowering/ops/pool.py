"""Pooling: maximum and average over windows in one to three dims, adaptive ones, and their backwards.

Small windows are chains of maxima or sums over shifted views, large ones reductions; backwards gather what each element took part in.
"""

from __future__ import annotations

import functools
import math

import torch

from ..index_expr import exact_div, product
from ..registry import lowering
from ..values import Graph, Unsupported, Value
from .reduce import FLOATS, opmath, reduce_over
from .scatter import zeros
from .window import Window, flat_position, gather_back, window_of

aten = torch.ops.aten
_UNROLLED = 49  # windows of at most so many elements are unrolled
_CLASSES = 27  # backwards with more remainders modulo the stride scatter instead
_LOWEST = {"i64": -(2**63), "i32": -(2**31), "i16": -(2**15), "i8": -128, "u8": 0}


def _spatial_dims(x: Value, rank: int) -> list[int]:
    return list(range(x.rank - rank, x.rank))


def _nothing(g: Graph, dtype: str, x: Value, window: Window) -> Value:
    return g.constant(0, dtype, (*x.sizes[:x.rank - window.rank], *window.outputs))


def _max_pool(g: Graph, x: Value, window: Window) -> tuple[Value, Value]:
    """(maximum, its row-major position in the input) of every window; the last NaN or else the first of equals wins."""
    if any(size == 0 for size in (*x.sizes, *window.outputs)):
        return _nothing(g, x.dtype, x, window), _nothing(g, "i64", x, window)
    bordered = g.realize(window.bordered(g, x, _LOWEST.get(x.dtype, -math.inf)))
    if window.n_elements > _UNROLLED:
        return _max_pool_reduced(g, bordered, window)
    values = [window.element(bordered, offset) for offset in window.offsets()]
    largest = functools.reduce(lambda a, b: g.map("maximum", a, b), values)
    best, place = values[0], _first_position(g, values[0].sizes, window)
    for offset, value in list(zip(window.offsets(), values))[1:]:
        wins = (value > best) | value.differs(value) if x.dtype in FLOATS else value > best
        best = value.where(wins, best)
        place = _position_of(g, value.sizes, window, offset).where(wins, place)
    return largest, place


def _position_of(g: Graph, sizes, window: Window, offset) -> Value:
    origin = [k * d - p for k, d, p in zip(offset, window.dilation, window.padding)]
    return flat_position(g, sizes, window, origin, window.stride)


def _first_position(g: Graph, sizes, window: Window) -> Value:
    """The position of a window's first element that is no padding."""
    if not any(window.padding):
        return _position_of(g, sizes, window, (0,) * window.rank)
    total: Value | int = 0
    lead = len(sizes) - window.rank
    for d, (s, p) in enumerate(zip(window.stride, window.padding)):
        index = g.map("maximum", g.index(sizes, lead + d) * s - p, g.constant(0, "i64"))
        total = index * g.constant(product(window.inputs[d + 1:]), "i64") + total
    return total


def _max_pool_reduced(g: Graph, bordered: Value, window: Window) -> tuple[Value, Value]:
    elements = window.elements(bordered)
    dims = _spatial_dims(elements, window.rank)
    winner = g.realize(g.reduce("argmax", elements, dims))
    return g.reduce("max", elements, dims), _window_position(g, winner, window)


def _window_position(g: Graph, winner: Value, window: Window) -> Value:
    """The input position of element `winner` (row-major in the window) of every window."""
    rest, total = winner, g.constant(0, "i64", winner.sizes)
    lead = winner.rank - window.rank
    for d in reversed(range(window.rank)):
        size = g.constant(window.kernel[d], "i64")
        quotient = g.realize(g.map("div_trunc", rest, size))
        inner = rest - quotient * size
        index = g.index(winner.sizes, lead + d) * window.stride[d] - window.padding[d] + inner * window.dilation[d]
        total = total + index * g.constant(product(window.inputs[d + 1:]), "i64")
        rest = quotient
    return total


@lowering(aten.max_pool2d_with_indices.default)
def max_pool2d(g: Graph, x: Value, kernel, stride=(), padding=0, dilation=1, ceil_mode: bool = False) -> tuple[Value, Value]:
    return _max_pool(g, x, window_of(x, 2, kernel, stride, padding, dilation, ceil_mode))


@lowering(aten.max_pool3d_with_indices.default)
def max_pool3d(g: Graph, x: Value, kernel, stride=(), padding=0, dilation=1, ceil_mode: bool = False) -> tuple[Value, Value]:
    return _max_pool(g, x, window_of(x, 3, kernel, stride, padding, dilation, ceil_mode))


def _max_pool_backward(g: Graph, grad: Value, x: Value, window: Window, indices: Value) -> Value:
    if 0 in x.sizes or 0 in grad.sizes:
        return g.constant(0, grad.dtype, x.sizes)
    if any(d != 1 for d in window.dilation) or math.prod(window.stride) > _CLASSES or window.n_elements > _UNROLLED:
        return _scattered_back(g, grad, x, window.rank, indices)
    grad, indices = g.realize(g.cast(grad, opmath(grad.dtype))), g.realize(indices)
    lead = x.sizes[:x.rank - window.rank]

    def contribution(origin, sizes, inside, position):
        start = [0] * len(lead) + list(origin)
        taken, winner = (_read(g, v, inside, start, sizes) for v in (grad, indices))
        return taken.where(winner.equals(position), 0)

    return g.cast(gather_back(g, grad, lead, window, contribution), x.dtype)


def _read(g: Graph, source: Value, inside: Value | None, start, sizes) -> Value:
    """source[start + i], 0 where not `inside`."""
    if inside is not None:
        return g.guarded(source, inside, start, sizes)
    for d, (begin, size) in enumerate(zip(start, sizes)):
        source = source.slice(d, begin, begin + size)
    return source


def _scattered_back(g: Graph, grad: Value, x: Value, rank: int, indices: Value) -> Value:
    """Adds every output's gradient at the input position that its index names."""
    lead = x.sizes[:x.rank - rank]
    base = zeros(g, opmath(grad.dtype), (*lead, product(x.sizes[x.rank - rank:])))
    strides = (*base.expr.strides[:-1], *[0] * rank)
    g.scatter(base.expr.buffer, 0, strides, [(indices, base.sizes[-1], 1)], g.cast(grad, opmath(grad.dtype)), "add")
    return g.cast(base.reshape(x.sizes), grad.dtype)


@lowering(aten.max_pool2d_with_indices_backward.default)
def max_pool2d_backward(g: Graph, grad: Value, x: Value, kernel, stride, padding, dilation, ceil_mode: bool, indices: Value) -> Value:
    return _max_pool_backward(g, grad, x, window_of(x, 2, kernel, stride, padding, dilation, ceil_mode, grad.sizes), indices)


@lowering(aten.max_pool3d_with_indices_backward.default)
def max_pool3d_backward(g: Graph, grad: Value, x: Value, kernel, stride, padding, dilation, ceil_mode: bool, indices: Value) -> Value:
    return _max_pool_backward(g, grad, x, window_of(x, 3, kernel, stride, padding, dilation, ceil_mode, grad.sizes), indices)


def _counts(g: Graph, window: Window, include_pad: bool, dtype: str) -> Value:
    """Elements that every window averages over, as [outputs]: clipped to the padded input, or to the input itself."""
    total = g.constant(1.0, dtype)
    for d, (size, k, s, p) in enumerate(zip(window.inputs, window.kernel, window.stride, window.padding)):
        start = g.index(window.outputs, d) * s - p
        end = g.map("minimum", start + k, g.constant(size + p, "i64"))
        if not include_pad:
            start, end = g.map("maximum", start, g.constant(0, "i64")), g.map("minimum", end, g.constant(size, "i64"))
        total = total * g.cast(end - start, dtype)
    return g.realize(total)


def _is_whole(window: Window, include_pad: bool) -> bool:
    """Whether no window is clipped."""
    if any(window.padding) and not include_pad:
        return False
    ends = [(out - 1) * s + k <= size + 2 * p for out, s, k, size, p in zip(window.outputs, window.stride, window.kernel, window.inputs, window.padding) if isinstance(size, int)]
    return all(ends) and (len(ends) == window.rank or not window.ceil_mode)  # with a symbolic size and no ceil_mode, windows end inside


def _pool_divisor(g: Graph, window: Window, include_pad: bool, override: int | None, dtype: str) -> Value:
    if override is not None:
        return g.constant(float(override), dtype)
    return g.constant(float(window.n_elements), dtype) if _is_whole(window, include_pad) else _counts(g, window, include_pad, dtype)


def _avg_pool(g: Graph, x: Value, window: Window, include_pad: bool, override: int | None) -> Value:
    if any(size == 0 for size in (*x.sizes, *window.outputs)):
        return _nothing(g, x.dtype, x, window)
    bordered = g.cast(window.bordered(g, x, 0), opmath(x.dtype))
    if window.n_elements > _UNROLLED:
        elements = window.elements(bordered)
        total = reduce_over(g, "sum", elements, _spatial_dims(elements, window.rank))
    else:
        total = functools.reduce(lambda a, b: a + b, [window.element(bordered, offset) for offset in window.offsets()])
    count = _pool_divisor(g, window, include_pad, override, "f32" if x.dtype not in FLOATS else total.dtype)
    if x.dtype not in FLOATS:  # eager divides integers as C does
        return g.cast(g.map("div_trunc", total, g.cast(count, total.dtype)), x.dtype)
    return g.cast(total / count, x.dtype)


@lowering(aten.avg_pool1d.default)
def avg_pool1d(g: Graph, x: Value, kernel, stride=(), padding=0, ceil_mode: bool = False, count_include_pad: bool = True) -> Value:
    return _avg_pool(g, x, window_of(x, 1, kernel, stride, padding, 1, ceil_mode), count_include_pad, None)


@lowering(aten.avg_pool2d.default)
def avg_pool2d(g: Graph, x: Value, kernel, stride=(), padding=0, ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Value:
    return _avg_pool(g, x, window_of(x, 2, kernel, stride, padding, 1, ceil_mode), count_include_pad, divisor_override)


@lowering(aten.avg_pool3d.default)
def avg_pool3d(g: Graph, x: Value, kernel, stride=(), padding=0, ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Value:
    return _avg_pool(g, x, window_of(x, 3, kernel, stride, padding, 1, ceil_mode), count_include_pad, divisor_override)


def _avg_pool_backward(g: Graph, grad: Value, x: Value, window: Window, include_pad: bool, override: int | None) -> Value:
    if 0 in x.sizes or 0 in grad.sizes:
        return g.constant(0, grad.dtype, x.sizes)
    if math.prod(window.stride) > _CLASSES**2:
        raise Unsupported(f"backward of average pooling with stride {window.stride}")
    wide = g.cast(grad, opmath(grad.dtype))
    share = g.realize(wide / _pool_divisor(g, window, include_pad, override, wide.dtype))
    lead = x.sizes[:x.rank - window.rank]

    def contribution(origin, sizes, inside, position):
        return _read(g, share, inside, [0] * len(lead) + list(origin), sizes)

    return g.cast(gather_back(g, share, lead, window, contribution), grad.dtype)


@lowering(aten.avg_pool2d_backward.default)
def avg_pool2d_backward(g: Graph, grad: Value, x: Value, kernel, stride, padding, ceil_mode: bool, count_include_pad: bool, divisor_override) -> Value:
    return _avg_pool_backward(g, grad, x, window_of(x, 2, kernel, stride, padding, 1, ceil_mode, grad.sizes), count_include_pad, divisor_override)


@lowering(aten.avg_pool3d_backward.default)
def avg_pool3d_backward(g: Graph, grad: Value, x: Value, kernel, stride, padding, ceil_mode: bool, count_include_pad: bool, divisor_override) -> Value:
    return _avg_pool_backward(g, grad, x, window_of(x, 3, kernel, stride, padding, 1, ceil_mode, grad.sizes), count_include_pad, divisor_override)


@lowering(aten.max_unpool3d.default)
def max_unpool3d(g: Graph, x: Value, indices: Value, output_size, stride, padding) -> Value:
    lead = x.sizes[:x.rank - 3]
    base = zeros(g, x.dtype, (*lead, product(output_size)))
    if 0 not in x.sizes:
        g.scatter(base.expr.buffer, 0, (*base.expr.strides[:-1], 0, 0, 0), [(indices, base.sizes[-1], 1)], x, "set")
    return base.reshape((*lead, *output_size))


def divided(sizes, outputs) -> tuple[int, ...] | None:
    """Kernel sizes where every output size divides its input size, else None."""
    kernel = tuple(exact_div(size, out) if out != 0 else None for size, out in zip(sizes, outputs))
    return kernel if all(isinstance(k, int) and k > 0 for k in kernel) else None


