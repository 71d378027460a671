"""What accel.profile tells: counted runs of partitions -> Profile, plain data that names nodes and the user's lines."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import fx

from .compile_graph import CompiledGraph
from .csrc.machine import Machine
from .explain import name_of
from .report import FallbackReport, GraphBreak, report_graph
from .runtime.profile import ESTIMATES, MODEL_VERSION, CallSpan, KernelProfile, PartitionRun, count_instructions, measure_run, merge
from .source import op_name, source_line

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
        from .profile_text import table

        return table(self)

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
        from .profile_text import trace

        Path(path).write_text(json.dumps(trace(self)))


def kernel_dict(kernel: KernelProfile) -> dict:
    """A kernel as JSON-ready data."""
    names = ("partition", "name", "kind", "title", "nodes", "ops", "sources")
    return {name: getattr(kernel, name) for name in names} | _costs(kernel)


def _costs(kernel: KernelProfile) -> dict:
    names = ("calls", "cycles", "pipelined_cycles", "packets", "energy_pj", "near_bytes", "ddr_bytes", "registers", "n_instructions", "bound_by")
    mappings = ("instructions", "classes", "buckets", "pipelined_buckets")
    return {name: getattr(kernel, name) for name in names} | {name: dict(getattr(kernel, name)) for name in mappings}


def make_profile(
    fn: Callable, machine: Machine, graphs: Sequence[CompiledGraph], runs: Sequence[PartitionRun], graph_breaks: Sequence[GraphBreak], result: object, verify: bool = False
) -> Profile:
    """The profile of a function from the graphs that it was compiled to and the calls of their partitions."""
    owners = {f"{graph.name}_{partition.id}": graph for graph in graphs for partition in graph.compiled}
    parts: dict[tuple[str, int], list[KernelProfile]] = {}
    calls: list[tuple[tuple[str, int], CallSpan]] = []
    now = 0
    for run in runs:
        kernels, spans = measure_run(run, machine)
        for place, kernel in enumerate(kernels):
            if kernel.calls:
                parts.setdefault((run.name, place), []).append(_named(kernel, owners[run.name]))
        calls += [((run.name, span.kernel), dataclasses.replace(span, start=now + span.start)) for span in spans]
        now += sum(span.cycles for span in spans)
    places = {key: place for place, key in enumerate(parts)}
    return Profile(
        name_of(fn), machine, tuple(map(merge, parts.values())),
        tuple(dataclasses.replace(span, kernel=places[key]) for key, span in calls),
        tuple(fallback for graph in graphs for fallback in report_graph(graph).fallbacks), tuple(graph_breaks), _counted(runs) if verify else None, result,
    )  # fmt: skip


def _named(kernel: KernelProfile, graph: CompiledGraph) -> KernelProfile:
    """`kernel` with the operators and the user's lines of its nodes."""
    nodes: dict[str, fx.Node] = {node.name: node for node in graph.graph.nodes}
    own = [nodes[name] for name in kernel.nodes if name in nodes]
    return dataclasses.replace(
        kernel, ops=tuple(dict.fromkeys(map(op_name, own))), sources=tuple(dict.fromkeys(line for node in own if (line := source_line(node))))
    )


def _counted(runs: Sequence[PartitionRun]) -> dict[str, int]:
    """Executed register operations as the intrinsics counted them."""
    found: Counter[str] = Counter()
    for run in runs:
        found.update(run.counted)
    return dict(found)
