"""Which node of a graph carries the value of each symbolic size.

A size is named by a symbol or, where a double rounds on the way to it (`scale_factor=0.6`), by the expression that Python computes.
"""

from __future__ import annotations

from collections.abc import Iterable

import sympy
import torch
from torch import fx
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import OptimizedPythonReferenceAnalysis

from .lowering import named_sizes

__all__ = ["bind_symbols", "free_symbols", "is_named", "symbol_sources"]


def free_symbols(value: object) -> set[sympy.Expr]:
    """The names in a SymInt, or in the sizes, strides and offset of a tensor, or of everything in a list of them."""
    if isinstance(value, torch.SymInt):
        return set(named_sizes(value.node.expr))
    if isinstance(value, (torch.SymFloat, torch.SymBool)):
        return set(value.node.expr.free_symbols)
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            return free_symbols(list(value.shape))
        return free_symbols([*value.shape, *value.stride(), value.storage_offset()])
    if isinstance(value, (list, tuple)):
        return set().union(*map(free_symbols, value))
    return set()


def is_named(value: object) -> bool:
    """Whether a node with this value carries what one name stands for."""
    return isinstance(value, torch.SymInt) and value.node.expr in named_sizes(value.node.expr)


def symbol_sources(graph: fx.Graph) -> dict[sympy.Expr, fx.Node]:
    """For every name the first node whose value it is."""
    sources: dict[sympy.Expr, fx.Node] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if is_named(value):
            sources.setdefault(value.node.expr, node)
    return sources


def bind_symbols(graph: fx.Graph) -> None:
    """Have a node for every name, so that each partition can be handed its sizes: symbols are read from the inputs' sizes, others computed from symbols."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor)]
    unbound = set().union(*(free_symbols(node.meta.get("val")) for node in placeholders)) - symbol_sources(graph).keys()
    first = next(node for node in graph.nodes if node.op != "placeholder")
    for node, dim, size in _named_dims(placeholders) if unbound else ():
        if size.node.expr in unbound:
            with graph.inserting_before(first):
                read = graph.call_function(torch.ops.aten.sym_size.int, (node, dim))
            read.meta["val"] = size
            unbound.remove(size.node.expr)
    _compute_rounded(graph)


def _named_dims(placeholders: Iterable[fx.Node]) -> Iterable[tuple[fx.Node, int, torch.SymInt]]:
    for node in placeholders:
        for dim, size in enumerate(node.meta["val"].shape):
            if is_named(size):
                yield node, dim, size


def _compute_rounded(graph: fx.Graph) -> None:
    """Nodes that compute the names that are no symbols and that no node carries yet."""
    sources = symbol_sources(graph)
    asked = set().union(*(free_symbols(node.meta.get("val")) for node in graph.nodes))
    for expr in sorted((name for name in asked - sources.keys() if not name.is_Symbol), key=str):
        if expr.free_symbols <= sources.keys():
            sources[expr] = _computed(graph, expr, {symbol: sources[symbol] for symbol in expr.free_symbols})


def _computed(graph: fx.Graph, expr: sympy.Expr, sources: dict[sympy.Expr, fx.Node]) -> fx.Node:
    order = {node: position for position, node in enumerate(graph.nodes)}
    last = max(sources.values(), key=order.__getitem__)
    behind = last.next
    while behind.op == "placeholder":
        behind = behind.next
    tracer = fx.proxy.GraphAppendingTracer(graph)
    with graph.inserting_before(behind):
        made = sympy_interp(OptimizedPythonReferenceAnalysis, {symbol: fx.Proxy(node, tracer) for symbol, node in sources.items()}, expr).node
    for node in graph.nodes:
        if node not in order:
            node.meta["val"] = node.target(*fx.map_arg(node.args, lambda source: source.meta["val"]))
    return made
