"""segment_reduce and its backward: reductions over runs of a dim whose lengths are data.

Every element finds its segment by a binary search among the segments' ends, and is scattered there.
"""

from __future__ import annotations

import math

import torch

from ..index_expr import Dim
from ..registry import lowering
from ..values import Graph, Unsupported, Value
from .index import binary_search, sums_to
from .join import copied
from .pointwise import require
from ...csrc.abi import STATUS_LENGTHS, STATUS_NEGATIVE_LENGTH

aten = torch.ops.aten
_IDENTITY = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf}
_SCATTERS = {"sum": "add", "mean": "add", "prod": "mul", "max": "max", "min": "min"}


class _Segments:
    """The segments of `data` along `axis`; values per segment have n_segments in its place, and leading dims of their own.

    Elements before the first and behind the last segment count as those of one segment more, which nobody sees. With `checks`, lengths that are
    negative or do not sum to the size raise as in eager; offsets are never checked there.
    """

    def __init__(self, g: Graph, data: Value, lengths: Value | None, offsets: Value | None, axis: int, checks: bool = False):
        self.g, self.axis, self.sizes = g, axis % data.rank, data.sizes
        if lengths is None and offsets is None:
            raise Unsupported("segment_reduce by indices: eager has no kernel for it")
        if lengths is not None:
            self.lengths = g.realize(g.cast(lengths, "i64"))
            (ends,) = g.scan("sum", self.lengths, self.axis)
            ends = g.realize(_checked(g, ends, self.lengths, self.axis, data.sizes[self.axis])) if checks else ends
        else:
            offsets, n = g.realize(g.cast(offsets, "i64")), offsets.sizes[self.axis] - 1
            ends = g.realize(offsets.slice(self.axis, 1, n + 1))
            self.lengths = g.realize(ends - offsets.slice(self.axis, 0, n))
        self.n_segments = self.lengths.sizes[self.axis]
        places = g.index(data.sizes[:self.axis + 1], self.axis)
        segment = binary_search(g, ends, places, True)
        if lengths is None:
            segment = g.constant(self.n_segments, "i64").where(places < offsets.slice(self.axis, 0, 1), segment)
        self.segment = g.realize(segment)

    def filled(self, value: float, dtype: str) -> Value:
        """A value per segment, to be scattered into."""
        sizes = (*self.sizes[:self.axis], self.n_segments + 1, *self.sizes[self.axis + 1:])
        return copied(self.g, self.g.constant(value, dtype, sizes))

    def _lifted(self, value: Value) -> Value:
        return value.reshape([*value.sizes, *[1] * (len(self.sizes) - value.rank)])

    def counts(self) -> Value:
        """The lengths, under the dims behind the axis."""
        return self._lifted(self.lengths)

    def spread(self, value: Value) -> Value:
        """For every element the value of its segment, 0 for those in none."""
        position = [None if d == self.axis else d for d in range(len(self.sizes))]
        segment = self._lifted(self.segment)
        return self.g.gather(value, [(self.axis, segment)], self.sizes, position, guard=segment < self.g.constant(self.n_segments, "i64"))

    def scatter(self, base: Value, value: Value, op: str) -> Value:
        """base[segment of every element] op= value; the segments that there are."""
        load, axis = base.expr, self.axis
        strides = [0 if d == axis else s for d, s in enumerate(load.strides)]
        if 0 not in self.sizes:
            self.g.scatter(load.buffer, 0, strides, [(self._lifted(self.segment), self.n_segments + 1, load.strides[axis])], value, op)
        return base.slice(axis, 0, self.n_segments)


def _checked(g: Graph, ends: Value, lengths: Value, axis: int, size: Dim) -> Value:
    """The segments' ends, if they are those of a partition of `size` elements."""
    ends = require(g, ends, lengths >= 0, STATUS_NEGATIVE_LENGTH)
    return require(g, ends, sums_to(g, ends, axis, size), STATUS_LENGTHS)


@lowering(aten.segment_reduce.default)
def segment_reduce(g: Graph, data: Value, reduce: str, *, lengths: Value | None = None, indices: Value | None = None, offsets: Value | None = None, axis: int = 0, unsafe: bool = False, initial=None) -> Value:
    segments = _Segments(g, data, lengths, offsets, axis, checks=not unsafe)
    start = _IDENTITY[reduce] if initial is None else float(initial)
    total = segments.scatter(segments.filled(start, data.dtype), data, _SCATTERS[reduce])
    if reduce != "mean":
        return total
    counts = segments.counts()
    mean = total / g.cast(counts, data.dtype)
    return mean if initial is None else mean.where(counts > 0, total)


@lowering(aten._segment_reduce_backward.default)
def segment_reduce_backward(g: Graph, grad: Value, output: Value, data: Value, reduce: str, *, lengths: Value | None = None, offsets: Value | None = None, axis: int = 0, initial=None) -> Value:
    segments = _Segments(g, data, lengths, offsets, axis)
    if 0 in data.sizes:
        return g.constant(0.0, data.dtype, data.sizes)
    if reduce == "sum":
        return segments.spread(g.realize(grad))
    if reduce == "mean":
        return segments.spread(g.realize(grad / g.cast(segments.counts(), grad.dtype)))
    if reduce == "prod":  # a product without zeros is divided by the element
        return segments.spread(g.realize(grad)) * _product_of_others(g, segments, data, 1.0 if initial is None else float(initial))
    wins = g.realize(data.equals(segments.spread(g.realize(output))) | data.differs(data))
    n_winners = segments.scatter(segments.filled(0.0, data.dtype), g.cast(wins, data.dtype), "add")
    return segments.spread(g.realize(grad / g.map("maximum", n_winners, g.constant(1.0, data.dtype)))).where(wins, 0.0)


def _product_of_others(g: Graph, segments: _Segments, data: Value, initial: float) -> Value:
    """For every element the product of the rest of its segment: zeros are counted apart."""
    is_zero = g.realize(data.equals(0.0))
    n_zeros = segments.scatter(segments.filled(0.0, data.dtype), g.cast(is_zero, data.dtype), "add")
    product = segments.spread(segments.scatter(segments.filled(initial, data.dtype), g.constant(1.0, data.dtype).where(is_zero, data), "mul"))
    zeros_of_others = segments.spread(n_zeros) - g.cast(is_zero, data.dtype)
    return (product / g.constant(1.0, data.dtype).where(is_zero, data)).where(zeros_of_others.equals(0.0), 0.0)
