"""Group -> Group: the axes of a kernel in the order in which its accesses walk memory, and as few of them as possible.

Outer axes stay before the axes of the row. What a statement computes does not change, only the order in which it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set

from .align import magnitude, redomain
from .fuse import Group
from .index_expr import Dim
from .tensor_ir import Buffer, Gather, Load, Map, Statement, leaves

__all__ = ["collapse", "in_memory_order", "is_outer_level"]


def _accesses(statements: Sequence[Statement], near: Set[Buffer]) -> list[tuple[tuple[Dim, ...], int]]:
    """(strides, weight) of every access to memory, where the buffers `near` are not; stores weigh twice."""
    rows = []
    for s in statements:
        rows += [(leaf.strides, 1) for leaf in leaves(*s.expressions()) if isinstance(leaf, (Load, Gather)) and leaf.buffer not in near]
        rows += [(t.strides, 2) for t in s.targets() if t.buffer not in near]
    return rows


def _permuted(group: Group, order: list[int]) -> Group:
    """The group with axis j taken from order[j]; outer axes stay before row axes."""
    sizes = group.outer + group.row
    n_outer = len(group.outer)
    new_sizes = tuple(sizes[a] for a in order)
    statements = []
    for s in group.statements:
        n_axes = n_outer if is_outer_level(s, group) else len(order)
        statements.append(redomain(s, new_sizes[:n_axes], n_outer, [(a, 1) for a in order[:n_axes]]))
    return dataclasses.replace(group, outer=new_sizes[:n_outer], row=new_sizes[n_outer:], statements=tuple(statements))


def is_outer_level(statement: Statement, group: Group) -> bool:
    """Whether a Map of a group with a row is computed once per outer point, not per element of the row."""
    return bool(group.row) and isinstance(statement, Map) and len(statement.domain) == len(group.outer)


def in_memory_order(group: Group) -> Group:
    """Axes sorted so that the accesses that count most walk memory forwards."""
    sizes = group.outer + group.row
    full = [s for s in group.statements if not is_outer_level(s, group)]
    weights: dict[tuple, int] = {}
    near = {t.buffer for s in group.statements for t in s.targets()} - group.stored
    for strides, weight in _accesses(full, near):
        if len(strides) == len(sizes):
            covered = sum(s != 0 for s in strides)
            weights[strides] = weights.get(strides, 0) + weight * (covered if covered < len(sizes) else 4 * covered)
    if not weights or len(sizes) < 2:
        return group
    reference = max(weights, key=weights.get)

    def order(axes):
        return sorted(axes, key=lambda a: -abs(magnitude(reference[a])) if reference[a] != 0 else float("-inf"))

    n_outer = len(group.outer)
    permutation = order(range(n_outer)) + order(range(n_outer, len(sizes)))
    return group if permutation == list(range(len(sizes))) else _permuted(group, permutation)


def collapse(group: Group) -> Group:
    """Adjacent axes of one class that every access walks as one are merged."""
    axis = len(group.outer) + len(group.row) - 1
    while axis > 0:
        n_outer = len(group.outer)
        if axis != n_outer and _is_mergeable(group, axis - 1):
            group = _merged(group, axis - 1)
        axis -= 1
    return group


def _all_strides(statement: Statement) -> list[tuple[Dim, ...]]:
    return [leaf.strides for leaf in leaves(*statement.expressions())] + [t.strides for t in statement.targets()]


def _is_mergeable(group: Group, axis: int) -> bool:
    size = (group.outer + group.row)[axis + 1]
    for s in group.statements:
        for strides in _all_strides(s):
            if len(strides) > axis + 1 and strides[axis] != strides[axis + 1] * size:
                return False
    return True


def _merged(group: Group, axis: int) -> Group:
    sizes = group.outer + group.row
    new_sizes = sizes[:axis] + (sizes[axis] * sizes[axis + 1],) + sizes[axis + 2:]
    n_outer = len(group.outer) - (axis + 1 < len(group.outer))
    statements = []
    for s in group.statements:
        level = len(group.outer) if is_outer_level(s, group) else len(sizes)
        is_touched = level > axis + 1
        walked = [(a, 1) for a in range(level) if a != axis or not is_touched]
        statements.append(redomain(s, new_sizes[:len(walked)], n_outer, walked))
    return dataclasses.replace(group, outer=new_sizes[:n_outer], row=new_sizes[n_outer:], statements=tuple(statements))
