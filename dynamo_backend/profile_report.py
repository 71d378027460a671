"""What accel.profile tells: counted runs of partitions -> Profile, plain data that names nodes and the user's lines."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from torch import fx

from .compile_graph import CompiledGraph
from .csrc.costs import PartitionCost
from .csrc.machine import Machine
from .lowering.cost import partition_cost
from .nodes import is_call
from .profile_compiler import Recording
from .report import FallbackReport, GraphBreak, report_graph
from .runtime.profile import ESTIMATES, MODEL_VERSION, CallSpan, KernelProfile, PartitionRun, measure_run, merge
from .source import module_path, op_name, source_line

__all__ = ["Profile", "make_profile"]


@dataclasses.dataclass(frozen=True)
class Profile:
    """What one run of a function executed on a modelled machine: print it, walk it, or write it as JSON or as a trace.

    Attributes:
        name: the function's.   machine: what it was compiled for.
        kernels: one per kernel function of each partition, in order of first execution; equal layers share a function.
        spans: every kernel call on the timeline, by index into `kernels`.
        eager: nodes that ran in eager, and are not counted.   graph_breaks: likewise the code between graphs.
        counted: executed instructions as the intrinsics counted them; None without `verify`.
        result: what the function returned.
    """

    name: str
    machine: Machine
    kernels: tuple[KernelProfile, ...]
    spans: tuple[CallSpan, ...]
    eager: tuple[FallbackReport, ...]
    graph_breaks: tuple[GraphBreak, ...]
    counted: Mapping[str, int] | None
    result: object = dataclasses.field(repr=False, compare=False)

    @property
    def total(self) -> KernelProfile | None:
        """The sum of all kernels; None where nothing ran natively."""
        return dataclasses.replace(merge(self.kernels), name="total", kind="", title="") if self.kernels else None

    @property
    def instructions(self) -> dict[str, int]:
        """Executed register operations by instruction, derived from blocks x executions."""
        return dict(sum((Counter(kernel.instructions) for kernel in self.kernels), Counter()))

    @property
    def is_exact(self) -> bool | None:
        """Whether the derived instructions equal, one by one, those that the intrinsics counted; None without `verify`."""
        return None if self.counted is None else self.instructions == dict(self.counted)

    def by_source(self) -> dict[tuple[str, ...], KernelProfile]:
        """The same by the user's lines, most cycles first: the lines that a kernel was fused from -> the sum of the kernels of just these."""
        groups: dict[tuple[str, ...], list[KernelProfile]] = {}
        for kernel in self.kernels:
            groups.setdefault(tuple(sorted(kernel.sources)), []).append(kernel)
        sums = {sources: merge(kernels) for sources, kernels in groups.items()}
        return dict(sorted(sums.items(), key=lambda item: -item[1].cycles))

    def __str__(self) -> str:
        return self.table()

    def table(self, top: int | None = 20) -> str:
        """The report as text, with the `top` most costly kernels and source lines; None shows all."""
        from .profile_text import table

        return table(self, top)

    def to_dict(self) -> dict:
        """Everything but the function's result as JSON-ready data; the keys are part of the public interface."""
        return {
            "name": self.name,
            "machine": dataclasses.asdict(self.machine),
            "model": {"version": MODEL_VERSION, "estimates": list(ESTIMATES)},
            "is_exact": self.is_exact,
            "kernels": [kernel_dict(kernel) for kernel in self.kernels],
            "total": kernel_dict(self.total) if self.total else None,
            "by_source": [{"sources": list(sources), **_costs(kernel)} for sources, kernel in self.by_source().items()],
            "eager": [{"node": f.node, "op": f.op, "reason": f.reason, "source": f.source} for f in self.eager],
            "graph_breaks": [dataclasses.asdict(graph_break) for graph_break in self.graph_breaks],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_trace(self, path: str | Path) -> None:
        """Write every kernel call to `path` as a trace that chrome://tracing and Perfetto show; a microsecond there is a cycle."""
        from .profile_trace import trace

        Path(path).write_text(json.dumps(trace(self)))


def kernel_dict(kernel: KernelProfile) -> dict:
    """A kernel as JSON-ready data."""
    names = ("partition", "name", "kind", "title", "nodes", "ops", "sources")
    return {name: getattr(kernel, name) for name in names} | _costs(kernel)


def _costs(kernel: KernelProfile) -> dict:
    names = ("calls", "cycles", "pipelined_cycles", "packets", "energy_pj", "near_bytes", "ddr_bytes", "registers", "n_instructions", "bound_by")
    mappings = ("instructions", "classes", "buckets", "pipelined_buckets")
    return {name: getattr(kernel, name) for name in names} | {name: dict(getattr(kernel, name)) for name in mappings}


def make_profile(recording: Recording, machine: Machine) -> Profile:
    """What a recorded run costs on `machine`, which may differ from the one that it was compiled for in COST_FIELDS."""
    owners = {f"{graph.name}_{partition.id}": graph for graph in recording.graphs for partition in graph.compiled}
    costs: dict[str, PartitionCost] = {}
    parts: dict[tuple[str, int], list[KernelProfile]] = {}
    spans: list[tuple[tuple[str, int], CallSpan]] = []
    counted: Counter[str] = Counter()
    now = 0
    for call in recording.calls:
        lowered, name = call.lowered, call.lowered.source.name
        if name not in costs:
            costs[name] = partition_cost(lowered.distinct, lowered.calls, machine, lowered.output_buffers)
        run = PartitionRun(name, costs[name], call.counters, call.symbols)
        kernels, own_spans = measure_run(run, machine)
        for place, kernel in enumerate(kernels):
            if kernel.calls:
                parts.setdefault((name, place), []).append(_named(kernel, owners[name]))
        spans += [((name, span.kernel), dataclasses.replace(span, start=now + span.start)) for span in own_spans]
        now += sum(span.cycles for span in own_spans)
        counted.update(run.counted)
    places = {key: place for place, key in enumerate(parts)}
    return Profile(
        recording.name, machine, tuple(map(merge, parts.values())),
        tuple(dataclasses.replace(span, kernel=places[key]) for key, span in spans),
        tuple(fallback for graph in recording.graphs for fallback in report_graph(graph).fallbacks),
        recording.graph_breaks, dict(counted) if recording.is_verified else None, recording.result,
    )  # fmt: skip


def _named(kernel: KernelProfile, graph: CompiledGraph) -> KernelProfile:
    """`kernel` with the operators of its nodes and the user's lines; the module where torch's own code called it, as in nn.Sequential."""
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.graph.nodes}
    own = [nodes[name] for name in kernel.nodes if name in nodes and is_call(nodes[name])]
    places = (source_line(node) or f"module {module_path(node)}".removesuffix("module ") for node in own)
    return dataclasses.replace(kernel, ops=tuple(dict.fromkeys(map(op_name, own))), sources=tuple(dict.fromkeys(filter(None, places))))

