"""Merging of a template's dims where its output and its whole epilogue walk them as one."""

from __future__ import annotations

import dataclasses

from ..index_expr import Dim, product
from ..tensor_ir import Map, Target, Template, leaves, restride

__all__ = ["collapse"]


def collapse(statement: Template, epilogue: tuple[Map, ...], dims: tuple[int, ...]) -> tuple[Template, tuple[Map, ...]] | None:
    """The statements with neighbouring walks `dims` (outermost first) merged into one dim, which becomes the first; None where strides forbid it.

    The first output only is kept in step with the domain.
    """
    domain = statement.domain
    merged = [d for d in dims if domain[d] != 1]
    walks = [statement.outputs[0].strides, *(m.target.strides for m in epilogue), *(leaf.strides for m in epilogue for leaf in leaves(m.expr))]
    if not merged or not all(_is_one_walk(domain, strides, merged) for strides in walks):
        return None
    kept = [d for d in range(len(domain)) if d not in dims]
    sizes = (product(domain[d] for d in merged), *(domain[d] for d in kept))

    def change(offset: Dim, strides: tuple[Dim, ...]):
        return offset, (strides[merged[-1]], *(strides[d] for d in kept))

    def moved(target: Target) -> Target:
        return Target(target.buffer, *change(target.offset, target.strides))

    first = moved(statement.outputs[0])
    maps = tuple(dataclasses.replace(m, target=moved(m.target), domain=sizes, expr=restride(m.expr, change)) for m in epilogue)
    return dataclasses.replace(statement, outputs=(first, *statement.outputs[1:]), domain=sizes), maps


def _is_one_walk(domain: tuple[Dim, ...], strides: tuple[Dim, ...], dims: list[int]) -> bool:
    return all(strides[outer] == strides[inner] * domain[inner] for outer, inner in zip(dims, dims[1:]))
