"""Histograms: histc, histogram and histogramdd over bins of one width or over given edges.

Every point names its bin along each dim; weights are scattered into the bins, those of points outside into one bin more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..registry import lowering
from ..values import Graph, Unsupported, Value
from .index import binary_search
from .reduce import reduce_over
from .scatter import zeros

aten = torch.ops.aten


def _check(x: Value, what: str) -> None:
    if x.dtype not in ("f32", "f64"):
        raise Unsupported(f"{what} of dtype {x.dtype}: eager has no kernel for it")


def _spread(g: Graph, low: Value, high: Value, widen: float) -> tuple[Value, Value]:
    """Bounds as they are, or apart by `widen` to either side where they are equal."""
    is_point = low.equals(high)
    return g.realize((low - widen).where(is_point, low)), g.realize((high + widen).where(is_point, high))


def _data_bounds(g: Graph, x: Value, widen: float) -> tuple[Value, Value]:
    """The smallest and the largest of `x`; 0 and 1 where there is none."""
    if x.numel == 0:
        return g.constant(0.0, x.dtype), g.constant(1.0, x.dtype)
    return _spread(g, *(reduce_over(g, op, x, [0]) for op in ("min", "max")), widen)


def _given_bounds(g: Graph, low: float, high: float, dtype: str, widen: float) -> tuple[Value, Value]:
    apart = widen if low == high else 0.0
    return g.constant(float(low) - apart, dtype), g.constant(float(high) + apart, dtype)


def _edges(g: Graph, low: Value, high: Value, bins: int) -> Value:
    """bins + 1 edges from low to high, counted from the nearer end as linspace does."""
    step = g.realize((high - low) / float(bins))
    place = g.index((bins + 1,), 0)
    upward = low + step * g.cast(place, low.dtype)
    downward = high - step * g.cast(bins - place, low.dtype)
    return g.realize(upward.where(place < (bins + 1) // 2, downward))


def _even_bins(g: Graph, x: Value, low: Value, high: Value, bins: int, edges: Value | None) -> Value:
    """Bin of every element by its distance from low; with `edges`, set right by those around it. `bins` stands for outside."""
    is_inside = (x >= low) & (x <= high)
    place = g.cast((x - low) * float(bins) / (high - low), "i64")
    place = g.realize(place.where(is_inside, 0))
    if edges is not None:
        place = _settled(g, x, place, edges, bins)
    return g.map("minimum", place, g.constant(bins - 1, "i64")).where(is_inside, bins)


def _settled(g: Graph, x: Value, place: Value, edges: Value, bins: int) -> Value:
    """The last of the edges at place - 1, place and place + 1 that is not above x, or the one before them."""
    first = g.map("maximum", place - 1, g.constant(0, "i64"))
    end = g.map("minimum", place + 2, g.constant(bins + 1, "i64"))
    passed: Value = first
    for offset in range(3):
        at = first + offset
        edge = g.gather(edges, [(0, g.map("minimum", at, g.constant(bins, "i64")))], x.sizes, [None])
        passed = passed + g.cast((at < end) & (edge <= x), "i64")
    return g.realize(passed - 1)


def _edge_bins(g: Graph, x: Value, edges: Value) -> Value:
    """Bin of every element among given edges; the last bin holds its upper edge, and the number of bins stands for outside."""
    bins = edges.sizes[0] - 1
    low, high = edges.select(0, 0), edges.select(0, bins)
    place = g.map("minimum", binary_search(g, edges, x, True) - 1, g.constant(bins - 1, "i64"))
    return place.where((x >= low) & (x <= high), bins)


def _counted(g: Graph, dtype: str, places: Sequence[Value], bins: Sequence[int], weight: Value | None) -> Value:
    """The weights summed per bin, over the dims of `bins`."""
    n_bins = math.prod(bins)
    flat, outside = g.constant(0, "i64"), g.constant(False, "bool")
    for place, size in zip(places, bins):
        flat, outside = flat * size + place, outside | (place >= size)
    flat = g.realize(g.constant(n_bins, "i64").where(outside, flat))
    base = zeros(g, dtype, (n_bins + 1,))
    given = g.constant(1.0, dtype, flat.sizes) if weight is None else weight.reshape([-1])
    if flat.numel != 0:
        g.scatter(base.expr.buffer, 0, [0], [(flat, n_bins + 1, 1)], given, "add")
    return base.slice(0, 0, n_bins).reshape(bins)


def _density(g: Graph, counts: Value, edges: Sequence[Value]) -> Value:
    """Counts over their sum and over the volumes of their bins."""
    counts = g.realize(counts)
    result = counts / g.realize(reduce_over(g, "sum", counts, list(range(counts.rank))))
    for dim, edge in enumerate(edges):
        bins = edge.sizes[0] - 1
        widths = edge.slice(0, 1, bins + 1) - edge.slice(0, 0, bins)
        result = result / widths.reshape([bins, *[1] * (counts.rank - dim - 1)])
    return result


@lowering(aten.histc.default)
def histc(g: Graph, x: Value, bins: int = 100, min: float = 0, max: float = 0) -> Value:  # noqa: A002 (names of the schema)
    _check(x, "histc")
    flat = g.realize(x).reshape([-1])
    low, high = _data_bounds(g, flat, 1.0) if min == max else _given_bounds(g, min, max, x.dtype, 1.0)
    return _counted(g, x.dtype, [_even_bins(g, flat, low, high, bins, None)], [bins], None)


def _dims(x: Value) -> list[Value]:
    """The coordinates of points that lie along the last dim."""
    rows = x.graph.realize(x).reshape([-1, x.sizes[-1]])
    return [rows.select(1, d) for d in range(x.sizes[-1])]


def _bounds(g: Graph, columns: Sequence[Value], limits: Sequence[float] | None) -> list[tuple[Value, Value]]:
    if limits is None:
        return [_data_bounds(g, column, 0.5) for column in columns]
    return [_given_bounds(g, low, high, column.dtype, 0.5) for column, low, high in zip(columns, limits[::2], limits[1::2])]


def _of_counts(g: Graph, columns: Sequence[Value], bins: Sequence[int], limits, weight: Value | None, density: bool) -> tuple[Value, list[Value]]:
    """(histogram, edges) over bins of one width per dim."""
    bounds = _bounds(g, columns, limits)
    edges = [_edges(g, *pair, n) for pair, n in zip(bounds, bins)]
    places = [_even_bins(g, column, *pair, n, edge) for column, pair, n, edge in zip(columns, bounds, bins, edges)]
    counts = _counted(g, columns[0].dtype, places, bins, weight)
    return _density(g, counts, edges) if density else counts, edges


def _of_edges(g: Graph, columns: Sequence[Value], edges: Sequence[Value], weight: Value | None, density: bool) -> Value:
    edges = [g.realize(edge) for edge in edges]
    places = [_edge_bins(g, column, edge) for column, edge in zip(columns, edges)]
    counts = _counted(g, columns[0].dtype, places, [edge.sizes[0] - 1 for edge in edges], weight)
    return _density(g, counts, edges) if density else counts


@lowering(aten.histogram.bin_ct)
def histogram(g: Graph, x: Value, bins: int = 100, *, range=None, weight: Value | None = None, density: bool = False) -> tuple[Value, Value]:  # noqa: A002
    _check(x, "histogram")
    counts, edges = _of_counts(g, [g.realize(x).reshape([-1])], [bins], range, weight, density)
    return counts, edges[0]


@lowering(aten.histogram.bins_tensor)
def histogram_of_edges(g: Graph, x: Value, bins: Value, *, weight: Value | None = None, density: bool = False) -> tuple[Value, Value]:
    _check(x, "histogram")
    return _of_edges(g, [g.realize(x).reshape([-1])], [bins], weight, density), bins


@lowering(aten._histogramdd_bin_edges.default)
def histogramdd_edges(g: Graph, x: Value, bins, *, range=None, weight: Value | None = None, density: bool = False) -> list[Value]:  # noqa: A002
    _check(x, "histogramdd")
    return [_edges(g, *pair, n) for pair, n in zip(_bounds(g, _dims(x), range), bins)]


@lowering(aten._histogramdd_from_bin_cts.default)
def histogramdd(g: Graph, x: Value, bins, *, range=None, weight: Value | None = None, density: bool = False) -> Value:  # noqa: A002
    _check(x, "histogramdd")
    return _of_counts(g, _dims(x), list(bins), range, weight, density)[0]


@lowering(aten._histogramdd_from_bin_tensors.default)
def histogramdd_of_edges(g: Graph, x: Value, bins, *, weight: Value | None = None, density: bool = False) -> Value:
    _check(x, "histogramdd")
    return _of_edges(g, _dims(x), bins, weight, density)
