"""Which node of a graph carries the value of each symbolic size."""

from __future__ import annotations

from collections.abc import Iterable

import sympy
import torch
from torch import fx

__all__ = ["bind_symbols", "free_symbols", "symbol_sources"]


def free_symbols(value: object) -> set[sympy.Symbol]:
    """The symbols in a SymInt, or in the sizes, strides and offset of a tensor, or of everything in a list of them."""
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return set(value.node.expr.free_symbols)
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            return free_symbols(list(value.shape))
        return free_symbols([*value.shape, *value.stride(), value.storage_offset()])
    if isinstance(value, (list, tuple)):
        return set().union(*map(free_symbols, value))
    return set()


def symbol_sources(graph: fx.Graph) -> dict[sympy.Symbol, fx.Node]:
    """For every symbol the first node whose value it is."""
    sources: dict[sympy.Symbol, fx.Node] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and isinstance(value.node.expr, sympy.Symbol):
            sources.setdefault(value.node.expr, node)
    return sources


def bind_symbols(graph: fx.Graph) -> None:
    """Read from the inputs' sizes every symbol that no node carries, so that each partition can be handed its sizes."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)]
    unbound = set().union(*(free_symbols(node.meta.get("val")) for node in placeholders)) - symbol_sources(graph).keys()
    if not unbound:
        return
    first = next(node for node in graph.nodes if node.op != "placeholder")
    for node, dim, size in _symbolic_dims(placeholders):
        if size.node.expr in unbound:
            with graph.inserting_before(first):
                read = graph.call_function(torch.ops.aten.sym_size.int, (node, dim))
            read.meta["val"] = size
            unbound.remove(size.node.expr)


def _symbolic_dims(placeholders: Iterable[fx.Node]) -> Iterable[tuple[fx.Node, int, torch.SymInt]]:
    for node in placeholders:
        for dim, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                yield node, dim, size
