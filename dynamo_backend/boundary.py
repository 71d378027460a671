"""What crosses the boundary of a partition, and what Python does between partitions.

Groups of nodes -> Boundary. A view costs nothing inside a partition, so each partition repeats the views that it reads. Outside,
Python makes a view of the tensor that crossed, except where one reshaped form of a result is all that is seen of it: then
the partition writes that form itself.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping

import sympy
import torch
from torch import fx

from .nodes import is_getitem, tensor_value, written_arguments
from .partition_graph import Dependence, Kind
from .sizes import free_symbols, is_named, symbol_sources

__all__ = ["SERVES_FALLBACKS", "Boundary", "boundary"]

aten = torch.ops.aten

Readers = Mapping[fx.Node, set[int | str]]  # of a node, itself or through views
Places = Mapping[fx.Node, int | fx.Node]
Nodes = tuple[fx.Node, ...]

SERVES_FALLBACKS = "that only fallbacks read"  # how the reason of a free node ends
EAGER, RETURNED = "eager", "returned"  # readers that are no group: fallbacks, and the caller or Python that asks for a size

# Views that keep every element of a dense tensor, each once: their result is dense too.
REARRANGING_VIEWS = {
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.permute.default, aten.t.default, aten.transpose.int,
    aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.alias.default, aten.detach.default,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Boundary:
    """Who holds what.

    Attributes:
        nodes, home, inputs, outputs: per group; see Partition.
        python: nodes that Python runs, in graph order.
        waits: pairs (place, place) for every value that goes from one to the other.
        places: the place of a node that is made in one place: a group's number, or the node itself where Python runs it.
        eager_reasons: native free nodes that count as fallbacks, since nothing but fallbacks reads them.
    """

    nodes: Mapping[int, Nodes]
    home: Mapping[int, Nodes]
    inputs: Mapping[int, Nodes]
    outputs: Mapping[int, Nodes]
    python: Nodes
    waits: tuple[tuple[int | fx.Node, int | fx.Node], ...]
    places: Places
    eager_reasons: Mapping[fx.Node, str]

    def place(self, node: fx.Node) -> int | fx.Node:
        """The group, or the Python step, that makes `node`."""
        return self.places[node]


def boundary(graph: fx.Graph, depends: Dependence, group_of: Mapping[fx.Node, int]) -> Boundary:
    """Settle the boundaries of the groups that `group_of` puts the native computing nodes into."""
    position = {node: index for index, node in enumerate(graph.nodes)}
    readers = _readers(graph, depends, group_of)
    written = _written_views(graph, depends, group_of, readers)
    places = {node: group_of.get(depends.unit(node), node) for node, kind in depends.kinds.items() if kind in (Kind.COMPUTE, Kind.PART)} | written
    nodes = _group_nodes(depends, places, position)
    python = _python_nodes(graph, depends, places)
    places |= {node: node for node in python}
    symbols = symbol_sources(graph)
    inputs = {group: _inputs(inside, symbols, position) for group, inside in nodes.items()}
    outputs = {group: _outputs(group, inside, places, written, readers) for group, inside in nodes.items()}
    home, eager_reasons = _homes(graph, depends, nodes, readers)
    for group in home.keys() - nodes.keys():  # views of inputs and nothing else: a partition without a kernel
        nodes[group] = inputs[group] = outputs[group] = ()
    return Boundary(nodes, home, inputs, outputs, python, _waits(inputs, python, places), places, eager_reasons)


def _readers(graph: fx.Graph, depends: Dependence, group_of: Mapping[fx.Node, int]) -> dict[fx.Node, set[int | str]]:
    """For every node who reads it, itself or through views: groups, EAGER, RETURNED."""
    readers: dict[fx.Node, set[int | str]] = {}
    for node in reversed(graph.nodes):
        found = readers[node] = set()
        for user in node.users:
            kind = depends.kinds[user]
            if kind is Kind.COMPUTE:
                found.add(group_of.get(user, EAGER))
            elif kind in (Kind.OUTPUT, Kind.SIZE):
                found.add(RETURNED)
            else:
                found |= readers[user]
    return readers


def _written_views(graph: fx.Graph, depends: Dependence, group_of: Mapping[fx.Node, int], readers: Readers) -> dict[fx.Node, int]:
    """Views that their base's group writes as a tensor of their own: nothing else of that base is read outside the group."""
    read_directly: dict[fx.Node, tuple[fx.Node, ...]] = {}
    for node in reversed(graph.nodes):
        outside = any(_reads_outside(user, depends, group_of) for user in node.users)
        below = [found for user in node.users if depends.kinds[user] is Kind.VIEW for found in read_directly[user]]
        read_directly[node] = (*([node] if outside else []), *below)[:2]
    written = {}
    for node in graph.nodes:
        group = group_of.get(depends.unit(node)) if depends.kinds[node] in (Kind.COMPUTE, Kind.PART) else None
        if group is None or tensor_value(node) is None or len(read_directly[node]) != 1 or written_arguments(node):
            continue
        (view,) = read_directly[node]
        if view is not node and readers[node] <= {group, EAGER, RETURNED} and _rearranges(view, node):
            written[view] = group
    return written


def _reads_outside(user: fx.Node, depends: Dependence, group_of: Mapping[fx.Node, int]) -> bool:
    """Whether Python hands `user` its arguments."""
    kind = depends.kinds[user]
    return kind in (Kind.OUTPUT, Kind.SIZE) or (kind is Kind.COMPUTE and user not in group_of)


def _rearranges(view: fx.Node, base: fx.Node) -> bool:
    while view is not base:
        if view.target not in REARRANGING_VIEWS:
            return False
        view = view.args[0]
    return True


def _group_nodes(depends: Dependence, places: Places, position: Mapping[fx.Node, int]) -> dict[int, Nodes]:
    """Per group the nodes made there and a copy of every view and constant that they read."""
    groups: dict[int, set[fx.Node]] = defaultdict(set)
    for node, place in places.items():
        if isinstance(place, int):
            groups[place].add(node)
    for group, inside in groups.items():
        pending = list(inside)
        while pending:
            for source in pending.pop().all_input_nodes:
                is_repeated = depends.kinds[source] in (Kind.VIEW, Kind.CONSTANT) and places.get(source, group) == group
                if is_repeated and source not in inside:
                    inside.add(source)
                    pending.append(source)
    return {group: tuple(sorted(groups[group], key=position.__getitem__)) for group in sorted(groups)}


def _python_nodes(graph: fx.Graph, depends: Dependence, places: Places) -> Nodes:
    """Fallbacks with their getitems, and the free nodes that they, the caller or another such node read."""
    run: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        kind = depends.kinds[node]
        if kind in (Kind.COMPUTE, Kind.PART):
            is_run = places[node] is node
        elif kind in (Kind.VIEW, Kind.CONSTANT, Kind.SIZE):
            is_run = node not in places and any(user in run or depends.kinds[user] is Kind.OUTPUT for user in node.users)
            is_run = is_run or (kind is Kind.SIZE and is_named(node.meta.get("val")))
        elif kind is Kind.DRAW:
            is_run = True
        else:
            is_run = False
        if is_run:
            run.add(node)
    return tuple(node for node in graph.nodes if node in run)


def _inputs(inside: Nodes, symbols: Mapping[sympy.Expr, fx.Node], position: Mapping[fx.Node, int]) -> Nodes:
    """Tensors read from outside, then the nodes that carry the sizes, each in graph order."""
    members = set(inside)
    read = {source for node in inside for source in node.all_input_nodes if source not in members}
    tensors = {source for source in read if tensor_value(source) is not None}
    used = set().union(*(free_symbols(node.meta.get("val")) for node in members | read)) if symbols else ()
    sizes = {symbols[symbol] for symbol in used if symbol in symbols}
    return (*sorted(tensors, key=position.__getitem__), *sorted(sizes, key=position.__getitem__))


def _outputs(group: int, inside: Nodes, places: Places, written: Mapping[fx.Node, int], readers: Readers) -> Nodes:
    """Tensors read outside the group, and the arguments that the group writes to."""
    replaced = {_base(view, places) for view, holder in written.items() if holder == group}
    made = [node for node in inside if places.get(node) == group and tensor_value(node) is not None]
    return tuple(node for node in made if node in written or written_arguments(node) or (node not in replaced and readers[node] - {group}))


def _base(view: fx.Node, places: Places) -> fx.Node:
    node = view.args[0]
    while node not in places:
        node = node.args[0]
    return node


def _homes(graph: fx.Graph, depends: Dependence, nodes: Mapping[int, Nodes], readers: Readers) -> tuple[dict[int, Nodes], dict[fx.Node, str]]:
    """Per group the call nodes that count as its own, and the free nodes that count as fallbacks."""
    first_group: dict[fx.Node, int] = {}
    for group in sorted(nodes):
        for node in nodes[group]:
            first_group.setdefault(node, group)
    home: dict[int, list[fx.Node]] = defaultdict(list)
    reasons: dict[fx.Node, str] = {}
    for node in graph.nodes:
        kind = depends.kinds[node]
        if kind is Kind.VIEW and node not in first_group:
            source = node.all_input_nodes[0]
            first_group |= {node: first_group[source]} if source in first_group else {}
        if kind not in (Kind.COMPUTE, Kind.VIEW, Kind.CONSTANT) or is_getitem(node):
            continue
        if node in first_group:
            home[first_group[node]].append(node)
        elif kind is not Kind.COMPUTE and readers[node] == {EAGER}:
            reasons[node] = f"{kind.value} {SERVES_FALLBACKS}"
        elif kind is not Kind.COMPUTE:
            home[max(nodes, default=0)].append(node)
    return {group: tuple(found) for group, found in home.items()}, reasons


def _waits(inputs: Mapping[int, Nodes], python: Iterable[fx.Node], places: Places) -> tuple[tuple[int | fx.Node, int | fx.Node], ...]:
    needs = [(node, node.all_input_nodes) for node in python] + list(inputs.items())
    return tuple((places[source], place) for place, sources in needs for source in sources if source in places)
