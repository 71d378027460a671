"""Which nodes are compiled together. fx.Graph + a Verdict per node -> Plan.

Native nodes are grouped by *level*: the largest number of changes from native to eager on any path to them. A path between
two nodes of one level meets no eager node that waits for that level, so groups are convex and acyclic between each other;
every level above 0 has a node that waits for the level below through an eager node, so no two groups could be one. One walk,
linear in nodes and edges. Then nodes sink towards their consumers where fewer bytes cross a boundary, and groups between
fallbacks that do not pay for their boundary return to eager.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Mapping

import networkx as nx
from torch import fx

from .boundary import Boundary, boundary
from .lowering import Verdict
from .nodes import tensor_bytes
from .partition_graph import Dependence, Kind, dependence

__all__ = ["Partition", "Plan", "plan"]

# estimate: what one call of a partition and one op run by eager cost, and what a byte kept in cache saves.
PARTITION_CALL_US = 3.0
EAGER_CALL_US = 2.0
BYTES_PER_US = 8_000

# Words in the names of ops whose kernel is worth a call of its own.
HEAVY_WORDS = frozenset(("mm", "bmm", "addmm", "baddbmm", "convolution", "attention", "lstm", "gru", "rnn"))


@dataclasses.dataclass(frozen=True)
class Partition:
    """Nodes that become one C function.

    Attributes:
        id: position in Plan.partitions, which is an order in which they can run.
        nodes: what is lowered, in graph order; free nodes of other partitions are repeated here where they are read.
        home: the call nodes that count as this partition's own; every native call node is home in one partition.
        inputs: tensors from outside, in graph order.
        outputs: tensors that are read outside, in graph order.
    """

    id: int
    nodes: tuple[fx.Node, ...]
    home: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]

    @property
    def variable(self) -> str:
        """The name of its callable in the text of the runner."""
        return f"partition_{self.id}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a graph runs.

    Attributes:
        partitions: in an order in which they can run.
        fallbacks: call nodes that run in eager, in graph order, with the reason.
        graph: what was partitioned.
        steps: partitions, and nodes that Python runs (fallbacks, views at a boundary, size arithmetic), in running order.
    """

    graph: fx.Graph
    partitions: tuple[Partition, ...]
    fallbacks: Mapping[fx.Node, str]
    steps: tuple[Partition | fx.Node, ...]

    @functools.cached_property
    def digraph(self) -> nx.DiGraph:
        """The fx nodes by name; node attributes `op`, `partition` (id or None), `native` and `reason`."""
        home = {node: partition.id for partition in self.partitions for node in partition.home}
        digraph = nx.DiGraph()
        for node in self.graph.nodes:
            digraph.add_node(node.name, op=str(node.target), partition=home.get(node), native=node in home, reason=self.fallbacks.get(node, ""))
        digraph.add_edges_from((source.name, node.name) for node in self.graph.nodes for source in node.all_input_nodes)
        return digraph


def plan(graph: fx.Graph, verdicts: Mapping[fx.Node, Verdict], min_partition_nodes: int | None = None) -> Plan:
    """Partition `graph`.

    Args: verdicts: of every call_function node.   min_partition_nodes: groups with fewer computing nodes stay in eager;
        None leaves it to the cost model.
    """
    depends = dependence(graph, verdicts)
    native = {node for node in depends.computes if verdicts[node].native}
    fallbacks = {node: verdicts[node].reason for node in depends.computes if node not in native}
    while True:
        levels = _sink(depends, native, _levels(depends, native))
        small = _small_groups(depends, native, levels, min_partition_nodes)
        if not small:
            break
        fallbacks |= small
        native -= small.keys()
    group_of = {node: levels[node] for node in depends.computes if node in native}
    return _assemble(graph, depends, boundary(graph, depends, group_of), fallbacks)


def _levels(depends: Dependence, native: set[fx.Node]) -> dict[fx.Node, int]:
    """For every computing node the most changes from native to eager on any path that ends with it."""
    levels: dict[fx.Node, int] = {}
    for node in depends.computes:
        enters_eager = node not in native
        before = (levels[source] + (enters_eager and source in native) for source in depends.order.predecessors(node))
        levels[node] = max(before, default=0)
    return levels


def _latest(depends: Dependence, native: set[fx.Node], levels: Mapping[fx.Node, int], node: fx.Node) -> int:
    """The last level in which `node` could run, given those of its dependents."""
    after = (levels[user] - (user not in native) for user in depends.order.successors(node))
    return min(after, default=levels[node])


def _sink(depends: Dependence, native: set[fx.Node], levels: dict[fx.Node, int]) -> dict[fx.Node, int]:
    """Move native nodes to the level of their consumers where fewer bytes then cross a boundary."""
    levels = dict(levels)
    is_returned = {root for node, kind in depends.kinds.items() if kind is Kind.OUTPUT for root in depends.roots[node]}
    n_crossing = {
        node: sum(levels[user] != levels[node] or user not in native for user in depends.order.successors(node)) + (node in is_returned)
        for node in depends.computes
    }
    for node in reversed(depends.computes):
        if node not in native:
            continue
        latest = _latest(depends, native, levels, node)
        if latest <= levels[node] or any(levels[user] != latest or user not in native for user in depends.order.successors(node)):
            continue
        sources = [source for source in depends.order.predecessors(node) if source in native]
        newly_crossing = sum(tensor_bytes(source) for source in sources if levels[source] < latest and not n_crossing[source])
        if node in is_returned or newly_crossing >= tensor_bytes(node):
            continue
        for source in sources:
            n_crossing[source] += (levels[source] != latest) - (levels[source] != levels[node])
        levels[node], n_crossing[node] = latest, 0
    return levels


def _small_groups(depends: Dependence, native: set[fx.Node], levels: Mapping[fx.Node, int], min_partition_nodes: int | None) -> dict[fx.Node, str]:
    """The nodes of groups that are not worth a partition, with the reason."""
    groups: dict[int, list[fx.Node]] = defaultdict(list)
    for node in depends.computes:
        if node in native:
            groups[levels[node]].append(node)
    small = {}
    for nodes in groups.values():
        count = f"partition of {len(nodes)} node{'s' if len(nodes) > 1 else ''}"
        if min_partition_nodes is not None:
            reason = f"{count} is too small: min_partition_nodes={min_partition_nodes}" if len(nodes) < min_partition_nodes else None
        else:
            reason = None if _pays(depends, native, nodes) else f"{count} between fallbacks is too small to pay for its boundary"
        if reason is not None:
            small |= dict.fromkeys(nodes, reason)
    return small


def _pays(depends: Dependence, native: set[fx.Node], nodes: list[fx.Node]) -> bool:
    """Whether compiling a group gains more than its boundary costs; only groups between fallbacks are questioned."""
    inside = set(nodes)
    after_eager = any(source not in native for node in nodes for source in depends.order.predecessors(node))
    before_eager = any(user not in native for node in nodes for user in depends.order.successors(node))
    if not (after_eager and before_eager) or any(_is_heavy(node) for node in nodes):
        return True
    kept = (node for node in nodes if depends.order.out_degree(node) and inside.issuperset(depends.order.successors(node)))
    kept_bytes = sum(map(tensor_bytes, kept))
    return (len(nodes) - 1) * EAGER_CALL_US + kept_bytes / BYTES_PER_US > PARTITION_CALL_US


def _is_heavy(node: fx.Node) -> bool:
    name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    return not HEAVY_WORDS.isdisjoint(name.split("_"))


def _assemble(graph: fx.Graph, depends: Dependence, border: Boundary, fallbacks: dict[fx.Node, str]) -> Plan:
    """Number the groups in running order and list what Python has to do between them."""
    position = {node: index for index, node in enumerate(graph.nodes)}
    steps = _running_order(depends, border, position)
    numbers = {group: number for number, group in enumerate(step for step in steps if isinstance(step, int))}
    partitions = {
        group: Partition(number, border.nodes[group], border.home[group], border.inputs[group], border.outputs[group])
        for group, number in numbers.items()
    }
    reasons = {**fallbacks, **border.eager_reasons}
    ordered = {node: reasons[node] for node in sorted(reasons, key=position.__getitem__)}
    return Plan(graph, tuple(partitions.values()), ordered, tuple(partitions[step] if isinstance(step, int) else step for step in steps))


def _running_order(depends: Dependence, border: Boundary, position: Mapping[fx.Node, int]) -> list[int | fx.Node]:
    """Groups and Python nodes, topologically sorted; among those that can run, the first in the graph runs first."""
    contracted = nx.DiGraph()
    contracted.add_nodes_from(border.nodes)
    contracted.add_nodes_from(border.python)
    contracted.add_edges_from(border.waits)
    contracted.add_edges_from((border.place(before), border.place(after)) for before, after in depends.order.edges)
    contracted.remove_edges_from(list(nx.selfloop_edges(contracted)))
    first = {group: min((position[node] for node in nodes), default=0) for group, nodes in border.nodes.items()}
    key = {step: (first[step], 0) if isinstance(step, int) else (position[step], 1) for step in contracted}
    return list(nx.lexicographical_topological_sort(contracted, key=key.__getitem__))
