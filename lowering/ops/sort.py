"""Order along a dim: sort, topk, kthvalue, median, nanmedian, mode.

Elements become 64-bit keys that sort as the elements do, with the position in the low half where it fits, so that equal elements
keep their order and NaN comes last. Where eager's order of equals is not defined (topk, an unstable sort), types in which
equals are common stay in eager, which alone knows its order. A median's position is the first of equals in eager, too.
"""

from __future__ import annotations

import torch

from ..index_expr import Dim, floordiv
from ..kernels.sort import SortParams, TopParams, suits_top
from ..registry import lowering
from ..strides import contiguous_strides
from ..values import Graph, Unsupported, Value
from .reduce import FLOATS, reduce_over

aten = torch.ops.aten
_INSERTION_SORTED = 16  # libstdc++ sorts so few elements by insertion, which is stable
_HEAP_SELECTED = 64  # eager's topk selects by a heap from so many elements per one wanted; a heap of one element keeps the first of equals


def _key(g: Graph, x: Value, descending: bool) -> Value:
    """An integer (i32, or i64 for 64-bit types) that orders as x does, backwards if descending."""
    if x.dtype in FLOATS:
        wide = g.cast(x, "f32") if x.dtype in ("f16", "bf16") else x
        key = g.map("order_key", wide, dtype="i64" if x.dtype == "f64" else "i32")
    else:
        key = x if x.dtype == "i64" else g.cast(x, "i32")
    return ~key if descending else key


def sorted_positions(g: Graph, x: Value, dim: int, descending: bool, count: Dim | None = None) -> Value:
    """Positions along dim in sorted order (the first `count` of them), with dim moved to the end; equal elements keep their order."""
    length = x.sizes[dim]
    if count is not None and isinstance(count, int) and 0 < count and suits_top(length, count) and x.dtype not in ("f64", "i64") and 0 not in x.sizes:
        return _top_positions(g, x, dim, descending, count)
    positions = _all_positions(g, x, dim, descending, length)
    return positions if count is None else positions.slice(-1, 0, count)


def _packed(g: Graph, key: Value) -> Value:
    """Key and position as one i64."""
    packed = g.map("shl", g.cast(key, "i64"), g.constant(32, "i64")) | g.index(key.sizes, -1)
    return g.realize(packed, strides=contiguous_strides(key.sizes))


def _top_positions(g: Graph, x: Value, dim: int, descending: bool, count: int) -> Value:
    moved = x.permute([*(d for d in range(x.rank) if d != dim), dim])
    output = ("i64", (*moved.sizes[:-1], count), None)
    (result,) = g.template("top", [_packed(g, _key(g, moved, descending))], [output], TopParams(moved.sizes[-1], count))
    return result & (2**32 - 1)


def _all_positions(g: Graph, x: Value, dim: int, descending: bool, length: Dim) -> Value:
    order = [*(d for d in range(x.rank) if d != dim), dim]
    moved = x.permute(order)
    if 0 in moved.sizes or length == 1:
        return g.index(moved.sizes, -1) if 0 not in moved.sizes else g.constant(0, "i64", moved.sizes)
    key, position = _key(g, moved, descending), g.index(moved.sizes, -1)
    strides, output = contiguous_strides(moved.sizes), ("i64", moved.sizes, None)
    if key.dtype == "i64":
        operands = [g.realize(v, strides=strides) for v in (key, position)]
        return g.template("sort", operands, [output, output], SortParams(length))[1]
    (result,) = g.template("sort", [_packed(g, key)], [output], SortParams(length))
    return result & (2**32 - 1)


def _taken(g: Graph, x: Value, dim: int, positions: Value) -> tuple[Value, Value]:
    """(elements, positions) for positions whose last dim stands for dim."""
    back = list(range(x.rank - 1))
    back.insert(dim, x.rank - 1)
    index = g.realize(positions).permute(back)
    values = g.gather(x, [(dim, index)], index.sizes, [None if d == dim else d for d in range(x.rank)])
    return values, index


def _sorted(g: Graph, x: Value, dim: int, descending: bool) -> tuple[Value, Value]:
    if x.rank == 0:
        return x, g.constant(0, "i64")
    x, dim = g.realize(x), dim % x.rank
    return _taken(g, x, dim, sorted_positions(g, x, dim, descending))


def _is_short(x: Value, dim: int) -> bool:
    """Whether eager keeps the order of equal elements whatever it is asked for."""
    return x.rank == 0 or isinstance(x.sizes[dim], int) and x.sizes[dim] <= _INSERTION_SORTED


def _refuse_ties(x: Value, what: str) -> None:
    if x.dtype not in ("f32", "f64"):
        raise Unsupported(f"{what} of dtype {x.dtype}: which of equal elements comes first is eager's choice")


@lowering(aten.sort.default)
def sort(g: Graph, x: Value, dim: int = -1, descending: bool = False) -> tuple[Value, Value]:
    return sort_stable(g, x, dim=dim, descending=descending)


@lowering(aten.sort.stable)
def sort_stable(g: Graph, x: Value, *, stable: bool | None = False, dim: int = -1, descending: bool = False) -> tuple[Value, Value]:
    if not stable and not _is_short(x, dim):
        _refuse_ties(x, "an unstable sort")
    return _sorted(g, x, dim, descending)


def _keeps_first(x: Value, k: Dim, dim: int) -> bool:
    """Whether eager's topk takes the first of equals."""
    return k == 1 and x.rank > 0 and isinstance(x.sizes[dim], int) and x.sizes[dim] >= _HEAP_SELECTED


@lowering(aten.topk.default)
def topk(g: Graph, x: Value, k: Dim, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Value, Value]:
    if not _keeps_first(x, k, dim):
        _refuse_ties(x, "topk")
    if not sorted:
        raise Unsupported("topk with sorted=False: the order is eager's choice")
    if x.rank == 0:
        return x.expand([k]).squeeze() if k == 1 else x, g.constant(0, "i64")
    x, dim = g.realize(x), dim % x.rank
    return _taken(g, x, dim, sorted_positions(g, x, dim, largest, k))


def _kept(value: Value, dim: int, keepdim: bool) -> Value:
    return value if keepdim else value.squeeze([dim])


def _one_taken(g: Graph, x: Value, dim: int, positions: Value, keepdim: bool) -> tuple[Value, Value]:
    values, index = _taken(g, x, dim, positions)
    return _kept(values, dim, keepdim), _kept(index, dim, keepdim)


@lowering(aten.kthvalue.default)
def kthvalue(g: Graph, x: Value, k: Dim, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    _refuse_ties(x, "kthvalue")
    if x.rank == 0:
        return x, g.constant(0, "i64")
    x, dim = g.realize(x), dim % x.rank
    return _one_taken(g, x, dim, sorted_positions(g, x, dim, False).slice(-1, k - 1, k), keepdim)


def _middle(g: Graph, x: Value, dim: int, keepdim: bool, ignore_nan: bool) -> tuple[Value, Value]:
    """The lower median and its position; NaN wins unless ignored, then the median is over the numbers."""
    length = x.sizes[dim]
    if length == 0:
        raise Unsupported("median over a dim of size 0")
    positions = g.realize(sorted_positions(g, x, dim, False))
    moved = x.permute([*(d for d in range(x.rank) if d != dim), dim])
    place = g.constant(floordiv(length - 1, 2), "i64", (*positions.sizes[:-1], 1))
    if x.dtype in FLOATS:
        n_nan = g.realize(reduce_over(g, "sum", g.cast(moved.differs(moved), "i64"), [x.rank - 1], True))
        n_numbers = g.constant(length, "i64") - n_nan
        if ignore_nan:
            n_numbers = g.map("maximum", n_numbers, g.constant(1, "i64"))
            place = g.map("div_trunc", n_numbers - 1, g.constant(2, "i64"))
        else:
            # NaN sorts last, so the first of them lies behind the numbers
            place = n_numbers.where(n_nan > 0, place)
    lead = range(x.rank - 1)
    taken = g.gather(positions, [(x.rank - 1, place)], place.sizes, [*lead, None])
    return _one_taken(g, x, dim, taken, keepdim)


def _median_all(g: Graph, x: Value, ignore_nan: bool) -> Value:
    flat = g.realize(x).reshape([x.numel])
    return _middle(g, flat, 0, False, ignore_nan)[0]


def _median_dim(g: Graph, x: Value, dim: int, keepdim: bool, ignore_nan: bool) -> tuple[Value, Value]:
    if x.rank == 0:
        return x, g.constant(0, "i64")
    return _middle(g, g.realize(x), dim % x.rank, keepdim, ignore_nan)


@lowering(aten.median.default)
def median(g: Graph, x: Value) -> Value:
    return _median_all(g, x, False)


@lowering(aten.nanmedian.default)
def nanmedian(g: Graph, x: Value) -> Value:
    return _median_all(g, x, True)


@lowering(aten.median.dim)
def median_dim(g: Graph, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _median_dim(g, x, dim, keepdim, False)


@lowering(aten.nanmedian.dim)
def nanmedian_dim(g: Graph, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _median_dim(g, x, dim, keepdim, True)


# NaN comes last; eager's order of them depends on where they lie.
@lowering(aten.mode.default)
def mode(g: Graph, x: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """The smallest of the commonest values, and where its last copy lies."""
    if x.rank == 0:
        return x, g.constant(0, "i64")
    x, dim = g.realize(x), dim % x.rank
    if not _is_short(x, dim):  # the commonest value has equals by its nature, whatever the dtype
        raise Unsupported(f"mode over more than {_INSERTION_SORTED} elements: which of equal ones comes last is eager's choice")
    positions = g.realize(sorted_positions(g, x, dim, False))
    ordered = g.realize(_taken(g, x, dim, positions)[0].permute([*(d for d in range(x.rank) if d != dim), dim]))
    place = g.realize(g.reduce("argmax", _run_lengths(g, ordered), [x.rank - 1], True))
    taken = g.gather(positions, [(x.rank - 1, place)], place.sizes, [*range(x.rank - 1), None])
    return _one_taken(g, x, dim, taken, keepdim)


def _run_lengths(g: Graph, ordered: Value) -> Value:
    """How many equal elements end at every place of a sorted last dim; no NaN equals another."""
    place = g.index(ordered.sizes, -1)
    length = ordered.sizes[-1]
    if length == 1:
        return g.constant(1, "i64", ordered.sizes)
    before = g.gather(ordered, [(ordered.rank - 1, g.map("maximum", place - 1, g.constant(0, "i64")))], ordered.sizes, [*range(ordered.rank - 1), None])
    is_first = place.equals(0) | ordered.differs(before)
    begin, _ = g.scan("max", g.realize(place.where(is_first, 0)), ordered.rank - 1, n_outputs=2)
    return g.realize(place - begin + 1)
