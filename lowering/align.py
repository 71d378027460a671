"""Matching a statement's index space with a group's: which of its dims are which of the group's axes.

A value produced inside a group can stay in a register only where its reader visits the same element at the same point of the loops.
Dims are identified by their strides in the shared buffer; either side may have to be split into finer dims first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .index_expr import Dim, exact_div, substitute, symbols_of
from .tensor_ir import Map, Reduce, Statement, Target, restride

__all__ = ["Segment", "magnitude", "match_by_size", "match_by_stride", "redomain", "squeeze_domain"]


@dataclasses.dataclass
class Segment:
    """A piece of a dim: `size` steps of `multiplier` within dim `source`; `partner` is the matched segment of the other side."""

    source: int
    size: Dim
    multiplier: Dim = 1
    partner: Segment | None = None

    def split(self, inner_size: Dim, quotient: Dim) -> Segment:
        """Cuts the inner part off: this segment becomes the inner one, the new outer one is returned."""
        outer = Segment(self.source, quotient, self.multiplier * inner_size)
        self.size = inner_size
        return outer


def magnitude(value: Dim) -> int:
    """A number to sort strides by: every unknown size counts as 1021."""
    if isinstance(value, int):
        return value
    number = substitute(value, {name: 1021 for name in symbols_of(value)})
    return number if isinstance(number, int) else 1021


def _insert_outer(segments: list[Segment], inner: Segment, outer: Segment) -> None:
    segments.insert(segments.index(inner), outer)


def match_by_stride(mine: list[Segment], my_strides: Sequence[Dim], theirs: list[Segment], their_strides: Sequence[Dim]) -> bool:
    """Pairs segments that walk the same buffer with the same stride, splitting where one covers several of the other.

    Strides are those of the original dims (`source`). Returns False where the walks differ, or contradict earlier pairs.
    """
    def walked(segments, strides):
        rows = [(strides[s.source] * s.multiplier, s) for s in segments if s.source < len(strides) and strides[s.source] != 0]
        return sorted(rows, key=lambda row: magnitude(row[0]), reverse=True)

    left, right = walked(mine, my_strides), walked(theirs, their_strides)
    while left and right:
        (stride_a, a), (stride_b, b) = left.pop(), right.pop()
        if stride_a != stride_b:
            return False
        if a.size != b.size:
            if (quotient := exact_div(a.size, b.size)) is not None and a.partner is None:
                outer = a.split(b.size, quotient)
                _insert_outer(mine, a, outer)
                left.append((stride_a * b.size, outer))
            elif (quotient := exact_div(b.size, a.size)) is not None and b.partner is None:
                outer = b.split(a.size, quotient)
                _insert_outer(theirs, b, outer)
                right.append((stride_b * a.size, outer))
            else:
                return False
        if a.partner not in (None, b) or b.partner not in (None, a):
            return False
        a.partner, b.partner = b, a
    return not left and not right


def match_by_size(mine: list[Segment], theirs: list[Segment], all_mine: list[Segment], all_theirs: list[Segment]) -> bool:
    """Pairs the unpaired segments of both lists in order, innermost first, splitting where needed."""
    left, right = [s for s in mine if s.partner is None], [s for s in theirs if s.partner is None]
    while left and right:
        a, b = left.pop(), right.pop()
        if a.size != b.size:
            if (quotient := exact_div(a.size, b.size)) is not None:
                outer = a.split(b.size, quotient)
                _insert_outer(all_mine, a, outer)
                left.append(outer)
            elif (quotient := exact_div(b.size, a.size)) is not None:
                outer = b.split(a.size, quotient)
                _insert_outer(all_theirs, b, outer)
                right.append(outer)
            else:
                return False
        a.partner, b.partner = b, a
    return not left and not right


def redomain(statement: Statement, sizes: tuple[Dim, ...], n_outer: int, axes: Sequence[tuple[int, Dim]]) -> Statement:
    """`statement` over new axes: axis j walks its old dim axes[j][0] in steps of axes[j][1].

    `sizes` are the sizes of those axes; a Reduce keeps the first n_outer. The target of a Reduce has outer dims only.
    """

    def change(offset, strides):
        return offset, tuple(strides[source] * multiplier for source, multiplier in axes)

    memo: dict = {}
    if isinstance(statement, Reduce):
        kept = axes[:n_outer]
        target = Target(statement.target.buffer, statement.target.offset, tuple(statement.target.strides[s] * m for s, m in kept))
        return dataclasses.replace(statement, target=target, domain=sizes, n_outer=n_outer, expr=restride(statement.expr, change, memo))
    assert isinstance(statement, Map)
    offset, strides = change(statement.target.offset, statement.target.strides)
    return dataclasses.replace(statement, target=Target(statement.target.buffer, offset, strides), domain=sizes, expr=restride(statement.expr, change, memo))


def squeeze_domain(statement: Map | Reduce) -> Map | Reduce:
    """`statement` without dims of size 1."""
    keep = [d for d, size in enumerate(statement.domain) if size != 1]
    if len(keep) == len(statement.domain):
        return statement
    n_outer = sum(d < statement.n_outer for d in keep) if isinstance(statement, Reduce) else len(keep)
    return redomain(statement, tuple(statement.domain[d] for d in keep), n_outer, [(d, 1) for d in keep])
