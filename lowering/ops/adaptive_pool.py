"""Adaptive pooling: output o of a dim covers input floor(o·I/O) … ceil((o+1)·I/O) - 1."""

from __future__ import annotations

import itertools
import math

import torch

from ..index_expr import Dim, floordiv, product
from ..registry import lowering
from ..values import Graph, Value
from .pool import _LOWEST, _avg_pool, _avg_pool_backward, _max_pool, _scattered_back, divided
from .reduce import opmath, reduce_over
from .scatter import zeros
from .window import window_of

aten = torch.ops.aten


def _bounds(g: Graph, size: Dim, out: Dim) -> tuple[Value, Value, Dim]:
    """(first input, first input behind) of every output along one dim, and the longest window, or one element more."""
    o, n = g.index((out,), 0), g.constant(size, "i64")
    first = g.realize(g.map("div_trunc", o * n, g.constant(out, "i64")))
    behind = g.realize(g.map("div_trunc", (o + 1) * n + (out - 1), g.constant(out, "i64")))
    if not isinstance(size, int) or not isinstance(out, int):
        return first, behind, floordiv(size + (out - 1), out) + 1
    return first, behind, max(-(-(i + 1) * size // out) - i * size // out for i in range(out))


def _windows(g: Graph, x: Value, outputs) -> tuple[Value, Value, list[Value], tuple[Dim, ...]]:
    """(elements over lead + outputs + window, which of them exist, first input per dim over the outputs, window sizes)."""
    n = len(outputs)
    sizes, exists, indices, starts = _window_places(g, x.sizes, outputs)
    position = [*range(x.rank - n), *[None] * n]
    elements = g.gather(x, indices, sizes, position, guard=exists)
    return elements, exists, starts, sizes[x.rank:]


def _window_places(g: Graph, input_sizes, outputs) -> tuple[tuple[Dim, ...], Value, list[tuple[int, Value]], list[Value]]:
    """(lead + outputs + window sizes; over them: which elements of a window exist, per input dim their index; first input per dim over the outputs)."""
    n = len(outputs)
    lead = input_sizes[:len(input_sizes) - n]
    bounds = [_bounds(g, size, out) for size, out in zip(input_sizes[len(lead):], outputs)]
    sizes = (*lead, *outputs, *(longest for _, _, longest in bounds))
    exists, indices = None, []
    for d, (first, behind, _) in enumerate(bounds):
        shape = [outputs[d], *[1] * (len(sizes) - len(lead) - d - 1)]
        index = first.reshape(shape) + g.index(sizes, len(lead) + n + d)
        test = index < behind.reshape(shape)
        exists = test if exists is None else exists & test
        indices.append((len(lead) + d, index))
    starts = [first.reshape([outputs[d], *[1] * (n - d - 1)]) for d, (first, _, _) in enumerate(bounds)]
    return sizes, exists, indices, starts


def _adaptive_avg(g: Graph, x: Value, outputs) -> Value:
    n, outputs = len(outputs), tuple(outputs)
    inputs = x.sizes[x.rank - n:]
    if 0 in x.sizes or 0 in outputs:
        return g.constant(0, x.dtype, (*x.sizes[:x.rank - n], *outputs))
    if inputs == outputs:
        return x
    if all(out == 1 for out in outputs):
        dims = list(range(x.rank - n, x.rank))
        count = g.cast(g.constant(product(inputs), "i64"), opmath(x.dtype))
        return g.cast(reduce_over(g, "sum", g.cast(x, opmath(x.dtype)), dims, True) / count, x.dtype)
    kernel = divided(inputs, outputs)
    if kernel is not None:
        return _avg_pool(g, x, window_of(x, n, kernel, kernel, 0), True, None)
    elements, exists, _, window = _windows(g, g.cast(x, opmath(x.dtype)), outputs)
    dims = list(range(elements.rank - len(window), elements.rank))
    total = reduce_over(g, "sum", elements, dims)
    return g.cast(total / _window_counts(g, inputs, outputs, total.dtype), x.dtype)


def _window_counts(g: Graph, inputs, outputs, dtype: str) -> Value:
    """Elements in every window, over the outputs."""
    count = g.constant(1.0, dtype)
    for d, (size, out) in enumerate(zip(inputs, outputs)):
        first, behind, _ = _bounds(g, size, out)
        count = count * g.cast(behind - first, dtype).reshape([out, *[1] * (len(outputs) - d - 1)])
    return g.realize(count)


@lowering(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default, aten.adaptive_avg_pool1d.default)
def adaptive_avg_pool(g: Graph, x: Value, output_size) -> Value:
    return _adaptive_avg(g, x, output_size)


@lowering(aten._adaptive_avg_pool2d_backward.default)
def adaptive_avg_pool2d_backward(g: Graph, grad: Value, x: Value) -> Value:
    return _adaptive_avg_backward(g, grad, x, 2)


@lowering(aten._adaptive_avg_pool3d_backward.default)
def adaptive_avg_pool3d_backward(g: Graph, grad: Value, x: Value) -> Value:
    return _adaptive_avg_backward(g, grad, x, 3)


def _adaptive_avg_backward(g: Graph, grad: Value, x: Value, n: int) -> Value:
    inputs, outputs = x.sizes[x.rank - n:], grad.sizes[grad.rank - n:]
    if 0 in x.sizes or 0 in grad.sizes:
        return g.constant(0, grad.dtype, x.sizes)
    if all(out == 1 for out in outputs):
        count = g.cast(g.constant(product(inputs), "i64"), opmath(grad.dtype))
        return g.cast((g.cast(grad, opmath(grad.dtype)) / count).expand(x.sizes), grad.dtype)
    kernel = divided(inputs, outputs)
    if kernel is not None and math.prod(kernel) <= 64:
        return _avg_pool_backward(g, grad, x, window_of(x, n, kernel, kernel, 0), True, None)
    share = g.realize(g.cast(grad, opmath(grad.dtype)) / _window_counts(g, inputs, outputs, opmath(grad.dtype)))
    if not all(isinstance(size, int) for size in inputs + outputs):
        return g.cast(_scattered_shares(g, x, outputs, share), grad.dtype)
    rows = [_covering(g, x, x.rank - n + d, size, out) for d, (size, out) in enumerate(zip(inputs, outputs))]
    total = g.constant(0.0, share.dtype, x.sizes)
    for row in itertools.product(*rows):
        inside = row[0][1]
        for _, test in row[1:]:
            inside = inside & test
        indices = [(x.rank - n + d, index) for d, (index, _) in enumerate(row)]
        total = total + g.gather(share, indices, x.sizes, [*range(x.rank - n), *[None] * n], guard=inside)
    return g.cast(total, grad.dtype)


def _scattered_shares(g: Graph, x: Value, outputs, share: Value) -> Value:
    """Every output's share added to the elements of its window: where sizes do not say how many windows an element is in."""
    sizes, exists, indices, _ = _window_places(g, x.sizes, outputs)
    base = zeros(g, share.dtype, x.sizes)
    strides = (*base.expr.strides[:x.rank - len(outputs)], *[0] * (2 * len(outputs)))
    nowhere = g.constant(0, "i64")
    terms = [(nowhere.where(~exists, index), x.sizes[d], base.expr.strides[d]) for d, index in indices]
    lifted = share.reshape([*share.sizes, *[1] * len(outputs)]).expand(sizes)
    g.scatter(base.expr.buffer, 0, strides, terms, g.constant(0.0, share.dtype).where(~exists, lifted), "add")
    return base


def _covering(g: Graph, x: Value, dim: int, size: int, out: int) -> list[tuple[Value, Value]]:
    """(output, whether it exists) for each of the outputs along dim whose window can hold an element."""
    i = g.index((size,), 0)
    first = g.realize(g.map("div_trunc", i * out, g.constant(size, "i64")))
    last = g.realize(g.map("div_trunc", (i + 1) * out - 1, g.constant(size, "i64")))
    most = max(((p + 1) * out - 1) // size - p * out // size for p in range(size)) + 1
    shape = [size, *[1] * (x.rank - dim - 1)]
    return [((first + t).reshape(shape), (first + t <= last).reshape(shape)) for t in range(most)]


def _adaptive_max(g: Graph, x: Value, outputs) -> tuple[Value, Value]:
    n, outputs = len(outputs), tuple(outputs)
    lead, inputs = x.sizes[:x.rank - n], x.sizes[x.rank - n:]
    if 0 in x.sizes or 0 in outputs:
        return g.constant(0, x.dtype, (*lead, *outputs)), g.constant(0, "i64", (*lead, *outputs))
    if all(out == 1 for out in outputs):
        x, dims = g.realize(x), list(range(x.rank - n, x.rank))
        return g.reduce("max", x, dims, True), g.reduce("argmax", x, dims, True)
    kernel = divided(inputs, outputs)
    if kernel is not None:
        return _max_pool(g, x, window_of(x, n, kernel, kernel, 0))
    elements, exists, starts, window = _windows(g, x, outputs)
    elements = g.realize(elements.where(exists, _LOWEST.get(x.dtype, -math.inf)))
    dims = list(range(elements.rank - n, elements.rank))
    winner = g.realize(g.reduce("argmax", elements, dims))
    return g.reduce("max", elements, dims), _adaptive_position(g, winner, starts, window, inputs)


def _adaptive_position(g: Graph, winner: Value, starts: list[Value], window, inputs: tuple[Dim, ...]) -> Value:
    rest, total = winner, g.constant(0, "i64", winner.sizes)
    for d in reversed(range(len(window))):
        size = g.constant(window[d], "i64")
        quotient = g.realize(g.map("div_trunc", rest, size))
        total = total + (starts[d] + (rest - quotient * size)) * g.constant(product(inputs[d + 1:]), "i64")
        rest = quotient
    return total


@lowering(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default, aten.adaptive_max_pool1d.default)
def adaptive_max_pool(g: Graph, x: Value, output_size) -> tuple[Value, Value]:
    return _adaptive_max(g, x, output_size)


@lowering(aten.adaptive_max_pool2d_backward.default)
def adaptive_max_pool2d_backward(g: Graph, grad: Value, x: Value, indices: Value) -> Value:
    return _scattered_back(g, grad, x, 2, indices)


@lowering(aten.adaptive_max_pool3d_backward.default)
def adaptive_max_pool3d_backward(g: Graph, grad: Value, x: Value, indices: Value) -> Value:
    return _scattered_back(g, grad, x, 3, indices)
