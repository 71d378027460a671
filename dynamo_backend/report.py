"""What explain tells: CompiledGraphs -> Explanation, plain data that names nodes and holds no tensors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import networkx as nx
from torch import fx

from .compile_graph import CompiledGraph
from .nodes import is_call, tensor_bytes
from .partition import Partition
from .source import module_path, op_name, source_line

__all__ = ["Explanation", "FallbackReport", "GraphBreak", "GraphReport", "PartitionReport", "report_graph"]


@dataclasses.dataclass(frozen=True)
class PartitionReport:
    """One partition.

    Attributes:
        what: its first and last node, by the module that they belong to.
        nodes, ops: names and operators of its call nodes, in graph order.
        kernels: per kernel call "name", "kind", "nodes", "flops" and "bytes"; the latter two are None for symbolic sizes.
        tuned: per distinct kernel that a search timed "kind", "nodes", "calls", "chosen", "default" and "gain"; see tune.TunedKernel.
        boundary_bytes: bytes of the tensors that enter and leave, symbolic sizes as traced.
        arena_bytes, naive_bytes: scratch memory as planned, and what it would take without reuse; None for symbolic sizes.
    """

    id: int
    what: str
    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    kernels: tuple[dict, ...]
    boundary_bytes: int
    arena_bytes: int | None
    naive_bytes: int | None
    tuned: tuple[dict, ...] = ()

    @property
    def flops(self) -> int | None:
        """Floating-point operations of one call; None where one kernel's sizes are symbolic."""
        counts = [kernel["flops"] for kernel in self.kernels]
        return None if None in counts else sum(counts)


@dataclasses.dataclass(frozen=True)
class FallbackReport:
    """A call node that runs in eager: why, and what that costs."""

    node: str
    op: str
    reason: str
    source: str
    moved_bytes: int
    splits: bool


@dataclasses.dataclass(frozen=True)
class GraphBreak:
    """A place where Dynamo ended a graph, with its reason."""

    reason: str
    source: str


@dataclasses.dataclass(frozen=True)
class GraphReport:
    """One ATen graph.

    Attributes:
        name, kind: as in CompiledGraph.
        nodes: number of call nodes; getitem nodes and arithmetic on sizes are not counted.
        digraph: every fx node, with the attributes `op`, `partition` (id or None), `native` and `reason`.
        frozen: number of parameters taken as constants.
        seconds: stage -> what it took; see CompiledGraph.
    """

    name: str
    kind: str
    nodes: int
    partitions: tuple[PartitionReport, ...]
    fallbacks: tuple[FallbackReport, ...]
    digraph: nx.DiGraph
    frozen: int = 0
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def native_nodes(self) -> int:
        """Call nodes that run in partitions."""
        return self.nodes - len(self.fallbacks)

    def to_dict(self) -> dict:
        """The graph as JSON-ready data; `seconds` is left out, so that equal compilations have equal dicts."""
        return {
            "nodes": self.nodes,
            "partitions": [{"id": p.id, "nodes": list(p.nodes), "ops": list(p.ops), "kernels": list(map(dict, p.kernels))} for p in self.partitions],
            "fallbacks": [{"node": f.node, "op": f.op, "reason": f.reason, "source": f.source} for f in self.fallbacks],
        }


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What the backend did with a function: print it, walk it, or write it as JSON, HTML or DOT."""

    name: str
    graphs: tuple[GraphReport, ...]
    graph_breaks: tuple[GraphBreak, ...] = ()

    @property
    def total_nodes(self) -> int:
        """Call nodes of all graphs."""
        return sum(graph.nodes for graph in self.graphs)

    @property
    def native_nodes(self) -> int:
        """Call nodes of all graphs that run in partitions."""
        return sum(graph.native_nodes for graph in self.graphs)

    def __str__(self) -> str:
        from .report_text import table

        return table(self)

    def to_dict(self) -> dict:
        """Everything as JSON-ready data; the keys are part of the public interface."""
        return {
            "graphs": [graph.to_dict() for graph in self.graphs],
            "graph_breaks": [dataclasses.asdict(graph_break) for graph_break in self.graph_breaks],
            "coverage": {"native_nodes": self.native_nodes, "total_nodes": self.total_nodes},
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_dot(self) -> str:
        """The graphs in Graphviz' language, each partition a cluster."""
        from .report_drawing import dot

        return dot(self)

    def to_html(self, path: str | Path) -> None:
        """Write a page that needs no network to `path`."""
        from .report_drawing import html

        Path(path).write_text(html(self))


def report_graph(compiled: CompiledGraph) -> GraphReport:
    """The report of one compiled graph."""
    fallbacks = compiled.fallbacks
    native = {node for node in compiled.graph.nodes if is_call(node) and node not in fallbacks}
    behind = _reached(compiled.graph.nodes, lambda node: node.all_input_nodes, native)
    ahead = _reached(reversed(compiled.graph.nodes), lambda node: node.users, native)
    return GraphReport(
        name=compiled.name,
        kind=compiled.kind,
        nodes=compiled.n_calls,
        partitions=tuple(_report_partition(partition, compiled) for partition in compiled.plan.partitions if partition not in compiled.failures),
        fallbacks=tuple(
            FallbackReport(node.name, op_name(node), reason, source_line(node), _moved_bytes(node), node in behind and node in ahead)
            for node, reason in fallbacks.items()
        ),
        digraph=_digraph(compiled),
        frozen=compiled.n_frozen,
        seconds=compiled.seconds,
    )


def _report_partition(partition: Partition, compiled: CompiledGraph) -> PartitionReport:
    made = compiled.compiled.get(partition)
    kernels = made.kernels if made is not None else ()
    return PartitionReport(
        id=partition.id,
        what=_describe(partition.home),
        nodes=tuple(node.name for node in partition.home),
        ops=tuple(map(op_name, partition.home)),
        kernels=tuple({"name": k.name, "kind": k.kind, "nodes": list(k.nodes), "flops": k.flops, "bytes": k.bytes} for k in kernels),
        boundary_bytes=sum(map(tensor_bytes, (*partition.inputs, *partition.outputs))),
        arena_bytes=made.arena_bytes if made is not None else 0,
        naive_bytes=made.naive_bytes if made is not None else 0,
        tuned=tuple(map(dataclasses.asdict, made.tuned)) if made is not None else (),
    )


def _describe(nodes: Sequence[fx.Node]) -> str:
    """The first and the last of `nodes`, each as "module op"."""
    ends = [nodes[0], nodes[-1]] if len(nodes) > 1 else list(nodes)
    return " … ".join(dict.fromkeys(f"{module_path(node)} {op_name(node).removeprefix('aten.')}".strip() for node in ends))


def _reached(nodes: Iterable[fx.Node], neighbours: Callable[[fx.Node], Iterable[fx.Node]], native: set[fx.Node]) -> set[fx.Node]:
    """The nodes that have a native node somewhere among their neighbours, or theirs; `nodes` come after their neighbours."""
    reached: set[fx.Node] = set()
    for node in nodes:
        if any(other in native or other in reached for other in neighbours(node)):
            reached.add(node)
    return reached


def _moved_bytes(node: fx.Node) -> int:
    return sum(map(tensor_bytes, (*node.all_input_nodes, node)))


def _digraph(compiled: CompiledGraph) -> nx.DiGraph:
    digraph = compiled.plan.digraph.copy()
    for partition, reason in compiled.failures.items():
        for node in partition.home:
            digraph.nodes[node.name].update(partition=None, native=False, reason=reason)
    return digraph
