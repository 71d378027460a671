"""Strides of sizes: row-major ones, those of a view, and the sizes that two shapes are both merges of; symbolic sizes included.

Where a symbolic size leaves the answer open, it is None: the caller copies, or keeps its dims apart.
"""

from __future__ import annotations

from .index_expr import Dim, exact_div, product

__all__ = ["common_refinement", "contiguous_strides", "view_strides"]


def contiguous_strides(sizes) -> tuple[Dim, ...]:
    """Row-major strides of `sizes`, as torch has them (a size of 0 counts as 1)."""
    strides, running = [], 1
    for size in reversed(sizes):
        strides.append(running)
        running = running * size if size != 0 else running
    return tuple(reversed(strides))


def view_strides(old: tuple[Dim, ...], strides: tuple[Dim, ...], new: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """Strides that address the same elements as (old, strides) under sizes `new` of equal product, or None where no strides can."""
    found = _divided_strides(old, strides, new)
    # symbolic sizes need not divide each other where all elements lie in one row
    is_row = found is None and tuple(strides) == contiguous_strides(old) and product(old) == product(new)
    return contiguous_strides(new) if is_row else found


def _divided_strides(old: tuple[Dim, ...], strides: tuple[Dim, ...], new: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """view_strides where the sizes of one shape divide those of the other, dim by dim."""
    result: list[Dim] = []
    dims = [(size, stride) for size, stride in zip(old, strides) if size != 1]
    remaining = list(reversed(dims))
    targets = list(reversed(new))
    position, chunk, chunk_stride = 0, 1, 1
    for size in targets:
        if size == 1:
            result.append(0)
            continue
        while True:
            if chunk == 1:
                if position == len(remaining):
                    return None
                chunk, chunk_stride = remaining[position]
                position += 1
            quotient = exact_div(chunk, size)
            if quotient is not None:
                break
            if position == len(remaining) or remaining[position][1] != chunk * chunk_stride:
                return None
            chunk = chunk * remaining[position][0]
            position += 1
        result.append(chunk_stride)
        chunk, chunk_stride = quotient, chunk_stride * size
    if position != len(remaining) or chunk != 1:
        return None
    return tuple(reversed(result))


def common_refinement(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """Sizes that both `a` and `b` are merges of, or None. Both must have equal products."""
    left, right, result = [s for s in a if s != 1], [s for s in b if s != 1], []
    while left and right:
        x, y = left.pop(), right.pop()
        if x == y:
            result.append(x)
            continue
        if (quotient := exact_div(x, y)) is not None:
            result.append(y)
            left.append(quotient)
        elif (quotient := exact_div(y, x)) is not None:
            result.append(x)
            right.append(quotient)
        else:
            return None
    return None if left or right else tuple(reversed(result))
