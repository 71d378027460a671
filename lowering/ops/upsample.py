"""Resizing: nearest, linear, bilinear, trilinear, bicubic, and the backwards of those.

Source positions and weights are computed once per dim; outputs gather with them, and backwards scatter.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import torch

from ..index_expr import render
from ..registry import lowering
from ..strides import contiguous_strides
from ..tensor_ir import Target
from ..values import Graph, Unsupported, Value, preferred_strides
from .reduce import FLOATS, opmath, reduce_over
from .scatter import zeros

__all__ = ["chosen_size", "cubic_weights", "given_scales", "source_step", "spatial_sizes"]

aten = torch.ops.aten
_CUBIC = -0.75  # the A of PyTorch's (and OpenCV's) cubic convolution
_MOST_COPIES = 16  # whole factors up to this many copies of each element are copied, not gathered


@dataclasses.dataclass(frozen=True)
class Taps:
    """Along one dim, for every output: the source positions that it mixes and their weights (None: 1), each of sizes [outputs]."""

    positions: tuple[Value, ...]
    weights: tuple[Value | None, ...]


def spatial_sizes(x: Value, n: int, output_size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The last n sizes of x and those asked for; weights are made for known ones."""
    inputs, outputs = x.sizes[x.rank - n:], tuple(output_size)
    if not all(isinstance(s, int) for s in (*inputs, *outputs)):
        raise Unsupported(f"resizing of symbolic sizes [{', '.join(map(render, inputs))}] to [{', '.join(map(render, outputs))}]")
    return inputs, outputs


def source_step(size: int, out: int, align_corners: bool, factor: float | None, dtype: str) -> float:
    """Source step per output, divided in the dtype that eager computes in."""
    wide = torch.float64 if dtype == "f64" else torch.float32
    if align_corners:
        return float(torch.tensor(size - 1, dtype=wide) / (out - 1)) if out > 1 else 0.0
    if factor is not None and factor > 0:
        return float(torch.tensor(1.0 / factor, dtype=wide))
    return float(torch.tensor(size, dtype=wide) / out)


def _source(g: Graph, out: int, scale: float, align_corners: bool, dtype: str) -> Value:
    position = g.cast(g.index((out,), 0), dtype)
    return position * scale if align_corners else (position + 0.5) * scale - 0.5


def _clamped(g: Graph, position: Value, size: int) -> Value:
    return g.map("minimum", g.map("maximum", position, g.constant(0, "i64")), g.constant(size - 1, "i64"))


def _nearest_taps(g: Graph, size: int, out: int, factor: float | None, is_exact: bool, dtype: str) -> Taps:
    position = g.cast(g.index((out,), 0), dtype)
    if is_exact:
        position = position + 0.5
    source = g.map("floor", position * source_step(size, out, False, factor, dtype))
    return Taps((g.realize(_clamped(g, g.cast(source, "i64"), size)),), (None,))


def _linear_taps(g: Graph, size: int, out: int, align_corners: bool, factor: float | None, dtype: str) -> Taps:
    if size == out:
        return Taps((g.index((out,), 0),), (None,))
    source = g.map("maximum", _source(g, out, source_step(size, out, align_corners, factor, dtype), align_corners, dtype), g.constant(0.0, dtype))
    low = g.realize(_clamped(g, g.cast(source, "i64"), size))
    weight = g.map("minimum", g.map("maximum", source - g.cast(low, dtype), g.constant(0.0, dtype)), g.constant(1.0, dtype))
    weight = g.realize(weight)
    return Taps((low, g.realize(_clamped(g, low + 1, size))), (g.realize(1.0 - weight), weight))


def cubic_weights(t: Value) -> tuple[Value, Value, Value, Value]:
    """Weights of the four elements around a point that lies t behind the second of them."""

    def near(x):  # |x| <= 1
        return ((x * (_CUBIC + 2.0)) - (_CUBIC + 3.0)) * x * x + 1.0

    def far(x):  # 1 < |x| < 2
        return ((x * _CUBIC - 5.0 * _CUBIC) * x + 8.0 * _CUBIC) * x - 4.0 * _CUBIC

    rest = 1.0 - t
    return far(t + 1.0), near(t), near(rest), far(rest + 1.0)


def _cubic_taps(g: Graph, size: int, out: int, align_corners: bool, factor: float | None, dtype: str) -> Taps:
    source = g.realize(_source(g, out, source_step(size, out, align_corners, factor, dtype), align_corners, dtype))
    floor = g.realize(g.map("floor", source))
    first = g.cast(floor, "i64")
    positions = tuple(g.realize(_clamped(g, first + offset, size)) for offset in (-1, 0, 1, 2))
    return Taps(positions, tuple(g.realize(w) for w in cubic_weights(source - floor)))


def _lifted(value: Value, dim: int, rank: int) -> Value:
    """A value per output of a dim, over that dim of `rank`."""
    return value.reshape([*value.sizes, *[1] * (rank - dim - 1)])


def _terms(x_rank: int, first: int, taps: Sequence[Taps]):
    """For each combination of taps of the dims from `first` on: (indices per dim, product of weights or None)."""
    for choice in itertools.product(*(range(len(t.positions)) for t in taps)):
        indices = [(first + d, _lifted(t.positions[c], first + d, x_rank)) for d, (t, c) in enumerate(zip(taps, choice))]
        weights = [_lifted(t.weights[c], first + d, x_rank) for d, (t, c) in enumerate(zip(taps, choice)) if t.weights[c] is not None]
        yield indices, functools.reduce(lambda a, b: a * b, weights) if weights else None


def _resized(g: Graph, x: Value, taps: Sequence[Taps], outputs) -> Value:
    """x in its own dtype with the last dims as `taps` mix them: dim by dim as eager does, the last one first.

    All at once where a dim alone would be computed for many elements that nothing reads, or where four whole vectors are read at most.
    """
    n = len(taps)
    is_smaller = any(out < size for out, size in zip(outputs, x.sizes[x.rank - n:]))
    reads_vectors = 1 not in preferred_strides(x)[x.rank - n:] and math.prod(len(t.positions) for t in taps) <= 4
    if is_smaller or reads_vectors:
        return _mixed(g, x, x.rank - n, taps, outputs)
    for d in reversed(range(n)):
        mixed = _mixed(g, x, x.rank - n + d, taps[d:d + 1], outputs[d:d + 1])
        x = g.realize(mixed, _strides_like(x, mixed.sizes)) if d else mixed
    return x


def _mixed(g: Graph, x: Value, first: int, taps: Sequence[Taps], outputs) -> Value:
    """The weighted sum over all combinations of taps of the dims from `first` on."""
    behind = first + len(taps)
    sizes = (*x.sizes[:first], *outputs, *x.sizes[behind:])
    position = [*range(first), *[None] * len(taps), *range(behind, x.rank)]
    total = None
    for indices, weight in _terms(x.rank, first, taps):
        term = g.gather(x, indices, sizes, position)
        term = term if weight is None else term * weight
        total = term if total is None else total + term
    return total


def _strides_like(x: Value, sizes) -> tuple[int, ...]:
    """Dense strides of `sizes` with the dims in the order in which x has them: what is resized keeps its memory format."""
    strides = preferred_strides(x)
    order = sorted(range(x.rank), key=lambda d: (-strides[d], d))
    dense = dict(zip(order, contiguous_strides([sizes[d] for d in order])))
    return tuple(dense[d] for d in range(x.rank))


def _spread(g: Graph, grad: Value, taps: Sequence[Taps], sizes) -> Value:
    """The transpose of _resized: adds every output's share to its sources."""
    n = len(taps)
    base = zeros(g, grad.dtype, sizes)
    strides = (*base.expr.strides[:len(sizes) - n], *[0] * n)
    grad = g.realize(grad)
    for indices, weight in _terms(len(sizes), len(sizes) - n, taps):
        terms = [(index, sizes[d], base.expr.strides[d]) for d, index in indices]
        g.scatter(base.expr.buffer, 0, strides, terms, grad if weight is None else grad * weight, "add")
    return base


def _factors(n: int, scales) -> list[float | None]:
    return [*scales] if scales else [None] * n


def _whole_factors(inputs, outputs, factors) -> tuple[int, ...] | None:
    """Copies of each element along every dim, where nearest repeats all alike."""
    found = tuple(out // size for size, out in zip(inputs, outputs))
    if any(out != size * f for size, out, f in zip(inputs, outputs, found)) or any(given is not None and given != f for given, f in zip(factors, found)):
        return None
    return found


def _nearest(g: Graph, x: Value, output_size, scales, n: int, is_exact: bool) -> Value:
    inputs, outputs = spatial_sizes(x, n, output_size)
    factors = _factors(n, scales)
    sizes = (*x.sizes[:x.rank - n], *outputs)
    if 0 in sizes:
        return g.constant(0, x.dtype, sizes)
    whole = _whole_factors(inputs, outputs, factors)
    if whole is not None and math.prod(whole) <= _MOST_COPIES:
        return _repeated(g, x, whole, sizes)
    dtype = "f64" if x.dtype == "f64" else "f32"
    return _resized(g, x, [_nearest_taps(g, size, out, f, is_exact, dtype) for size, out, f in zip(inputs, outputs, factors)], outputs)


def _repeated(g: Graph, x: Value, factors: tuple[int, ...], sizes) -> Value:
    """Every element copied `factors` times along the last dims."""
    if math.prod(factors) == 1:
        return x
    lead = x.rank - len(factors)
    x, strides = g.realize(x), _strides_like(x, sizes)
    buffer = g.buffer(x.dtype, sizes, strides)
    copies = x.reshape([*x.sizes[:lead], *(d for size in x.sizes[lead:] for d in (size, 1))]).expand([*x.sizes[:lead], *(d for pair in zip(x.sizes[lead:], factors) for d in pair)])
    g.store(copies, Target(buffer, 0, (*strides[:lead], *(d for stride, factor in zip(strides[lead:], factors) for d in (stride * factor, stride)))))
    return g.read(buffer)


def _nearest_backward(g: Graph, grad: Value, input_size, scales, n: int, is_exact: bool) -> Value:
    sizes = tuple(input_size)
    outputs = grad.sizes[grad.rank - n:]
    wide = g.cast(grad, opmath(grad.dtype))
    if 0 in sizes or 0 in grad.sizes:
        return g.constant(0, grad.dtype, sizes)
    factors = _factors(n, scales)
    whole = _whole_factors(sizes[-n:], outputs, factors)
    if whole is not None:
        pairs = [d for pair in zip(sizes[-n:], whole) for d in pair]
        split = wide.reshape([*sizes[:-n], *pairs])
        lead = len(sizes) - n
        return g.cast(reduce_over(g, "sum", split, [lead + 2 * d + 1 for d in range(n)]), grad.dtype)
    taps = [_nearest_taps(g, size, out, f, is_exact, wide.dtype) for size, out, f in zip(sizes[-n:], outputs, factors)]
    return g.cast(_spread(g, wide, taps, sizes), grad.dtype)


def _smooth_taps(g: Graph, inputs, outputs, align_corners: bool, factors, dtype: str, is_cubic: bool) -> list[Taps]:
    make = _cubic_taps if is_cubic else _linear_taps
    return [make(g, size, out, align_corners, f, dtype) for size, out, f in zip(inputs, outputs, factors)]


def _smooth(g: Graph, x: Value, output_size, align_corners: bool, scales, n: int, is_cubic: bool = False) -> Value:
    inputs, outputs = spatial_sizes(x, n, output_size)
    if x.dtype not in FLOATS:
        raise Unsupported(f"interpolation of dtype {x.dtype}")
    sizes = (*x.sizes[:x.rank - n], *outputs)
    if 0 in sizes:
        return g.constant(0, x.dtype, sizes)
    wide = g.cast(x, opmath(x.dtype))
    taps = _smooth_taps(g, inputs, outputs, align_corners, _factors(n, scales), wide.dtype, is_cubic)
    return g.cast(_resized(g, wide, taps, outputs), x.dtype)


def _smooth_backward(g: Graph, grad: Value, input_size, align_corners: bool, scales, n: int, is_cubic: bool = False) -> Value:
    sizes = tuple(input_size)
    inputs, outputs = spatial_sizes(g.constant(0, grad.dtype, sizes), n, grad.sizes[grad.rank - n:])
    if 0 in sizes or 0 in grad.sizes:
        return g.constant(0, grad.dtype, sizes)
    wide = g.cast(grad, opmath(grad.dtype))
    taps = _smooth_taps(g, inputs, outputs, align_corners, _factors(n, scales), wide.dtype, is_cubic)
    return g.cast(_spread(g, wide, taps, sizes), grad.dtype)


def given_scales(scales) -> list[float | None] | None:
    """Factors as a list, None where there is none."""
    return list(scales) if any(s is not None for s in scales) else None


def chosen_size(x: Value, n: int, output_size, factors) -> list[int]:
    """The output size of a .vec overload, which has a size or factors."""
    if output_size is not None:
        return list(output_size)
    sizes = x.sizes[x.rank - n:]
    if not all(isinstance(s, int) for s in sizes):
        raise Unsupported(f"resizing of symbolic sizes [{', '.join(map(render, sizes))}] by factors {list(factors)}")
    return [math.floor(float(s) * f) for s, f in zip(sizes, factors)]


def _register_nearest(n: int, name: str, is_exact: bool) -> None:
    packet, backward = getattr(aten, name), getattr(aten, f"{name}_backward")

    @lowering(packet.default)
    def resize(g, x, output_size, *scales):
        return _nearest(g, x, output_size, given_scales(scales), n, is_exact)

    @lowering(packet.vec)
    def resize_vec(g, x, output_size, scale_factors):
        return _nearest(g, x, chosen_size(x, n, output_size, scale_factors), scale_factors, n, is_exact)

    @lowering(backward.default)
    def resize_backward(g, grad, output_size, input_size, *scales):
        return _nearest_backward(g, grad, input_size, given_scales(scales), n, is_exact)


def _register_smooth(n: int, name: str, is_cubic: bool) -> None:
    packet, backward = getattr(aten, name), getattr(aten, f"{name}_backward")

    @lowering(packet.default)
    def resize(g, x, output_size, align_corners, *scales):
        return _smooth(g, x, output_size, align_corners, given_scales(scales), n, is_cubic)

    @lowering(packet.vec)
    def resize_vec(g, x, output_size, align_corners, scale_factors):
        return _smooth(g, x, chosen_size(x, n, output_size, scale_factors), align_corners, scale_factors, n, is_cubic)

    @lowering(backward.default)
    def resize_backward(g, grad, output_size, input_size, align_corners, *scales):
        return _smooth_backward(g, grad, input_size, align_corners, given_scales(scales), n, is_cubic)


for _n in (1, 2, 3):
    _register_nearest(_n, f"upsample_nearest{_n}d", False)
    _register_nearest(_n, f"_upsample_nearest_exact{_n}d", True)
_register_smooth(1, "upsample_linear1d", False)
_register_smooth(2, "upsample_bilinear2d", False)
_register_smooth(3, "upsample_trilinear3d", False)
_register_smooth(2, "upsample_bicubic2d", True)
