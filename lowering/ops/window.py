"""Windows that slide over the spatial dims: their arithmetic, their elements as shifted views, and the sum of what each position took part in."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

from ..index_expr import Dim, floordiv
from ..strides import contiguous_strides
from ..tensor_ir import Index, Target
from ..values import Graph, Value, preferred_strides
from .pad import padded

__all__ = ["Window", "flat_position", "gather_back", "window_of"]


@dataclasses.dataclass(frozen=True)
class Window:
    """Sliding windows over the last dims of a tensor; every field has one entry per spatial dim.

    Attributes:
        inputs, outputs: spatial sizes before and after.   kernel, stride, padding, dilation: as torch has them.
        ceil_mode: whether the last window may reach beyond the padding.
    """

    inputs: tuple[Dim, ...]
    outputs: tuple[Dim, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool = False

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def n_elements(self) -> int:
        return math.prod(self.kernel)

    def offsets(self) -> Iterator[tuple[int, ...]]:
        """Every element of a window, in row-major order."""
        return itertools.product(*map(range, self.kernel))

    def bordered(self, g: Graph, x: Value, fill) -> Value:
        """`x` with `fill` wherever a window reaches beyond it."""
        pads: list[tuple[Dim, Dim]] = [(0, 0)] * (x.rank - self.rank)
        for size, out, k, s, p, d in zip(self.inputs, self.outputs, self.kernel, self.stride, self.padding, self.dilation):
            beyond = (out - 1) * s + (k - 1) * d + 1 - p - size
            # with a symbolic size, a window ends within the padding, or in ceil_mode begins there
            pads.append((p, max(beyond, 0) if isinstance(beyond, int) else (k - 1) * d if self.ceil_mode else p))
        return padded(g, x, pads, fill)

    def element(self, bordered: Value, offset: tuple[int, ...]) -> Value:
        """Element `offset` of all windows, as a view of the bordered tensor."""
        lead = bordered.rank - self.rank
        for d, (k, out, s, dilation) in enumerate(zip(offset, self.outputs, self.stride, self.dilation)):
            start = k * dilation
            bordered = bordered.slice(lead + d, start, start + (out - 1) * s + 1, s)
        return bordered

    def elements(self, bordered: Value) -> Value:
        """All windows of the bordered tensor: its leading dims, the outputs, then one dim per dim of the window."""
        lead, n = bordered.rank - self.rank, self.rank
        sizes = (*bordered.sizes[:lead], *self.outputs, *self.kernel)
        matrix = [[int(d == k) for k in range(len(sizes))] for d in range(lead)]
        for d in range(n):
            matrix.append([self.stride[d] if k == lead + d else self.dilation[d] if k == lead + n + d else 0 for k in range(len(sizes))])
        return bordered.substitute_dims(sizes, [0] * bordered.rank, matrix)


def _per_dim(value, rank: int) -> tuple[int, ...]:
    value = [value] if isinstance(value, int) else list(value)
    return tuple(value * rank if len(value) == 1 else value)


def _output_size(size: Dim, k: int, s: int, p: int, d: int, ceil_mode: bool) -> Dim | None:
    """Windows along a dim; None where that depends on whether the last one would begin beyond a symbolic size."""
    reach = size + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return floordiv(reach, s) + 1
    out = floordiv(reach + s - 1, s) + 1
    if not isinstance(out, int):
        return None
    return out - 1 if (out - 1) * s >= size + p else out


def window_of(x: Value, rank: int, kernel, stride, padding, dilation=1, ceil_mode: bool = False, outputs: tuple[Dim, ...] | None = None) -> Window:
    """The windows of a pooling op over the last `rank` dims of `x`; an empty stride is the kernel's size.

    Args: outputs: sizes after pooling where they are known; else those of the node being lowered, by whose guards they are one or the other in ceil_mode.
    """
    kernel, padding, dilation = _per_dim(kernel, rank), _per_dim(padding, rank), _per_dim(dilation, rank)
    stride = _per_dim(stride, rank) if stride is not None and stride != [] and stride != () else kernel
    inputs = x.sizes[x.rank - rank:]
    computed = tuple(_output_size(*row, ceil_mode) for row in zip(inputs, kernel, stride, padding, dilation))
    if None in computed:
        computed = (outputs or x.graph.result_sizes()[0])[-rank:]
    return Window(inputs, computed, kernel, stride, padding, dilation, ceil_mode)


def flat_position(g: Graph, sizes, window: Window, origin, step) -> Value:
    """The row-major position in the window's input of spatial index origin + step * i, over `sizes`."""
    rows = contiguous_strides(window.inputs)
    lead = len(sizes) - window.rank
    offset = sum((o * r for o, r in zip(origin, rows)), 0)
    return Value(g, tuple(sizes), Index(offset, (*[0] * lead, *(s * r for s, r in zip(step, rows)))))


def _classes(window: Window):
    """Input positions by their remainder modulo the stride: every class meets its windows at fixed offsets."""
    return itertools.product(*map(range, window.stride))


def gather_back(g: Graph, grad: Value, lead: tuple[Dim, ...], window: Window, contribution: Callable[[list[Dim], tuple[Dim, ...], Value | None, Value], Value]) -> Value:
    """A tensor of lead + inputs sizes, in the dtype and memory order of the realized `grad`: at every position the sum over the windows it lies in.

    contribution(origin, sizes, inside, position) gives a window's share over `sizes`: it reads its operands at origin + i over the spatial dims,
    where `inside` holds (None: everywhere); `position` is the row-major position of the receiving elements.
    """
    whole, dtype = (*lead, *window.inputs), grad.dtype
    buffer = g.buffer(dtype, whole, preferred_strides(grad._with(whole, grad.expr)))
    spatial = buffer.strides[len(lead):]
    for first in _classes(window):
        counts = [floordiv(size - r + s - 1, s) for size, r, s in zip(window.inputs, first, window.stride)]
        sizes = (*lead, *counts)
        if 0 in sizes or any(isinstance(c, int) and c < 0 for c in counts):
            continue
        position = flat_position(g, sizes, window, first, window.stride)
        total = None
        for origin in _window_origins(window, first):
            share = contribution(origin, sizes, _inside(g, window, sizes, origin), position)
            total = share if total is None else total + share
        strides = (*buffer.strides[:len(lead)], *(s * st for s, st in zip(window.stride, spatial)))
        total = g.constant(0, dtype, sizes) if total is None else total
        g.store(total, Target(buffer, sum((r * st for r, st in zip(first, spatial)), 0), strides))
    return g.read(buffer)


def _window_origins(window: Window, first: tuple[int, ...]):
    """For a class: the window that element 0 of the class lies in, once per offset that it can have in a window."""
    rows = []
    for r, k, s, p in zip(first, window.kernel, window.stride, window.padding):
        shift = r + p
        rows.append([shift // s - t for t in range(-(-(k - shift % s) // s) if shift % s < k else 0)])
    return itertools.product(*rows)


def _inside(g: Graph, window: Window, sizes, origin) -> Value | None:
    """Where origin + i is a window that exists; None if it always is."""
    result = None
    lead = len(sizes) - window.rank
    for d, (start, out) in enumerate(zip(origin, window.outputs)):
        count = sizes[lead + d]
        index = g.index(sizes, lead + d)
        is_static = isinstance(count, int) and isinstance(out, int)
        tests = [index >= -start] if start < 0 else []
        if not is_static or count + start > out:
            tests.append(index < g.constant(out - start, "i64"))
        for test in tests:
            result = test if result is None else result & test
    return result
