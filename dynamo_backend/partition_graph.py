"""What a node is to the partitioner, and which node must run before which.

fx.Graph + verdicts -> Dependence. Views, constants and size arithmetic are *free*: they never force an order of their
own, so the digraph holds only the nodes that compute, and an edge passes through the free nodes between two of them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping

import networkx as nx
from torch import fx

from .lowering import Verdict
from .nodes import is_draw, is_getitem, is_random, is_size, is_view, storage_key, tensor_value, written_arguments

__all__ = ["Dependence", "Kind", "dependence"]


class Kind(enum.Enum):
    """What a node is to the partitioner."""

    SOURCE = "source"  # placeholder or get_attr: there before anything runs
    COMPUTE = "compute"  # does work, has one place
    PART = "part"  # getitem of a node that computes: goes where that node goes
    VIEW = "view"  # free: other sizes and strides for the same storage
    CONSTANT = "constant"  # free: made from no tensor, read inside the graph only
    SIZE = "size"  # free: an integer made from sizes, computed in Python
    DRAW = "draw"  # free: a seed for random numbers, drawn in Python
    OUTPUT = "output"


@dataclasses.dataclass(frozen=True)
class Dependence:
    """The order that a graph's nodes need.

    Attributes:
        kinds: of every node.
        order: digraph over the COMPUTE nodes; an edge a -> b says that a runs before b, for a value or for a mutation.
        computes: the COMPUTE nodes in graph order.
        roots: for every node the COMPUTE nodes that its value comes from, seen through the free nodes.
    """

    kinds: Mapping[fx.Node, Kind]
    order: nx.DiGraph
    computes: tuple[fx.Node, ...]
    roots: Mapping[fx.Node, frozenset[fx.Node]]

    def unit(self, node: fx.Node) -> fx.Node:
        """The COMPUTE node that `node` belongs to: a getitem belongs to the node it takes from."""
        while self.kinds[node] is Kind.PART:
            node = node.args[0]
        return node


def dependence(graph: fx.Graph, verdicts: Mapping[fx.Node, Verdict]) -> Dependence:
    """Classify every node and order those that compute."""
    kinds = _classify(graph, verdicts)
    computes = tuple(node for node in graph.nodes if kinds[node] is Kind.COMPUTE)
    order = nx.DiGraph()
    order.add_nodes_from(computes)
    roots = _roots(graph, kinds)
    order.add_edges_from((root, node) for node in computes for source in node.all_input_nodes for root in roots[source])
    order.add_edges_from(_mutation_order(computes))
    order.add_edges_from(_effect_order(computes))
    return Dependence(kinds, order, computes, roots)


def _classify(graph: fx.Graph, verdicts: Mapping[fx.Node, Verdict]) -> dict[fx.Node, Kind]:
    written = _written_storages(graph)
    kinds: dict[fx.Node, Kind] = {}
    for node in graph.nodes:
        kinds[node] = _kind(node, kinds, verdicts)
    for node in reversed(graph.nodes):
        # A constant that leaves the graph, or that something writes to, is one tensor and not many equal ones.
        if kinds[node] is Kind.CONSTANT and (_escapes(node, kinds) or storage_key(node) in written):
            kinds[node] = Kind.COMPUTE
    return kinds


def _kind(node: fx.Node, kinds: Mapping[fx.Node, Kind], verdicts: Mapping[fx.Node, Verdict]) -> Kind:
    if node.op in ("placeholder", "get_attr"):
        return Kind.SOURCE
    if node.op == "output":
        return Kind.OUTPUT
    if is_getitem(node):
        taken_from = kinds[node.args[0]]
        return taken_from if taken_from in (Kind.VIEW, Kind.DRAW) else Kind.PART
    if is_draw(node):
        return Kind.DRAW
    if is_size(node):
        return Kind.SIZE
    if not verdicts[node].native:
        return Kind.COMPUTE
    if is_view(node):
        return Kind.VIEW
    return Kind.CONSTANT if _is_constant(node) else Kind.COMPUTE


def _is_constant(node: fx.Node) -> bool:
    return (
        tensor_value(node) is not None
        and not any(tensor_value(source) is not None for source in node.all_input_nodes)
        and not is_random(node)
    )


def _escapes(node: fx.Node, kinds: Mapping[fx.Node, Kind]) -> bool:
    """Whether `node`, or a view of it, is returned by the graph."""
    pending, seen = [node], set()
    while pending:
        for user in pending.pop().users:
            if user.op == "output":
                return True
            if kinds[user] is Kind.VIEW and user not in seen:
                seen.add(user)
                pending.append(user)
    return False


def _roots(graph: fx.Graph, kinds: Mapping[fx.Node, Kind]) -> dict[fx.Node, frozenset[fx.Node]]:
    """For every node the COMPUTE nodes that its value waits for, seen through the free nodes."""
    roots: dict[fx.Node, frozenset[fx.Node]] = {}
    for node in graph.nodes:
        if kinds[node] is Kind.COMPUTE:
            roots[node] = frozenset((node,))
        elif len(node.all_input_nodes) == 1:
            roots[node] = roots[node.all_input_nodes[0]]
        else:
            roots[node] = frozenset().union(*(roots[source] for source in node.all_input_nodes))
    return roots


def _written_storages(graph: fx.Graph) -> set[int | None]:
    return {storage_key(argument) for node in graph.nodes for argument in written_arguments(node)}


def _mutation_order(computes: Iterable[fx.Node]) -> list[tuple[fx.Node, fx.Node]]:
    """Edges that keep every reader of a storage on its side of every writer of it."""
    computes = list(computes)
    writes = {node: {storage_key(argument) for argument in written} for node in computes if (written := written_arguments(node))}
    watched = set().union(*writes.values())
    last_writer: dict[int | None, fx.Node] = {}
    readers: dict[int | None, list[fx.Node]] = defaultdict(list)
    edges = []
    for node in computes if watched else ():
        touched = {storage_key(source) for source in node.all_input_nodes} & watched
        written = writes.get(node, set())
        edges += [(last_writer[key], node) for key in touched | written if key in last_writer]
        for key in touched - written:
            readers[key].append(node)
        for key in written:
            edges += [(reader, node) for reader in readers.pop(key, ())]
            last_writer[key] = node
    return edges


def _effect_order(computes: Iterable[fx.Node]) -> list[tuple[fx.Node, fx.Node]]:
    """Edges that keep draws from the generator, and other side effects, in the order in which eager has them."""
    drawing = [node for node in computes if is_random(node)]
    effects = [node for node in computes if node.is_impure() and not written_arguments(node) and not is_random(node)]
    return [pair for chain in (drawing, effects) for pair in zip(chain, chain[1:])]
