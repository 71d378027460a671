"""Explanation -> the table that a person reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from .report import Explanation, FallbackReport, GraphReport, PartitionReport

__all__ = ["aligned", "shown", "table"]

WHAT_WIDTH = 44  # characters of a partition's description
COLUMNS = ("#", "what", "nodes", "kernels", "MFLOP", "in+out KB", "arena KB", "naive KB")


def table(explanation: Explanation) -> str:
    """Graphs, partitions, fallbacks and graph breaks as lines of text."""
    lines = [_headline(explanation)]
    for number, graph in enumerate(explanation.graphs):
        lines += _graph_lines(graph, number if len(explanation.graphs) > 1 else None)
    if explanation.graph_breaks:
        lines.append("graph breaks (Dynamo)")
        lines += [f"  {shown(graph_break.source)}   {graph_break.reason}" for graph_break in explanation.graph_breaks]
    return "\n".join(lines)


def _headline(explanation: Explanation) -> str:
    n_partitions = sum(len(graph.partitions) for graph in explanation.graphs)
    n_fallbacks = sum(len(graph.fallbacks) for graph in explanation.graphs)
    native, total = explanation.native_nodes, explanation.total_nodes
    share = f" ({100 * native / total:.1f} %)" if total else ""
    counts = [_count(len(explanation.graphs), "graph"), _count(n_partitions, "partition"), _count(n_fallbacks, "fallback")]
    counts += [_count(len(explanation.graph_breaks), "graph break")] if explanation.graph_breaks else []
    return f"{explanation.name}   {' · '.join(counts)} · {native} of {_count(total, 'node')} native{share}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _graph_lines(graph: GraphReport, number: int | None) -> list[str]:
    lines = [] if number is None else [f"graph {number}, {graph.kind}: {_count(graph.nodes, 'node')}"]
    if graph.frozen:
        lines.append(f"  frozen: {_count(graph.frozen, 'parameter')} taken as constants; later changes of them need not be seen")
    if graph.partitions:
        lines += aligned([COLUMNS, *map(_partition_row, graph.partitions)])
    if any(partition.tuned for partition in graph.partitions):
        lines.append("tuned: kernels of which several schedules were tried")
        lines += aligned([_tuned_row(tuned) for partition in graph.partitions for tuned in partition.tuned], left=(0, 1, 2))
    if graph.seconds:
        lines.append(f"  seconds: {', '.join(f'{stage} {taken:.2f}' for stage, taken in graph.seconds.items())}")
    if graph.fallbacks:
        lines.append("left in eager")
        lines += aligned([_fallback_row(fallback) for fallback in graph.fallbacks], left=(0, 1, 2, 3, 4))
    return lines


def _partition_row(partition: PartitionReport) -> tuple[str, ...]:
    what = partition.what if len(partition.what) <= WHAT_WIDTH else f"{partition.what[: WHAT_WIDTH - 1]}…"
    megaflop = "dynamic" if partition.flops is None else f"{partition.flops / 1e6:.1f}"
    sizes = (partition.boundary_bytes, partition.arena_bytes, partition.naive_bytes)
    return (str(partition.id), what, str(len(partition.nodes)), str(len(partition.kernels)), megaflop, *map(_kilobytes, sizes))


def _tuned_row(tuned: Mapping[str, object]) -> tuple[str, ...]:
    what = f"{tuned['kind']} {', '.join(tuned['nodes'][:2])}" + (f" and {_count(tuned['calls'] - 1, 'equal kernel')}" if tuned["calls"] > 1 else "")
    if tuned["chosen"] == tuned["default"]:
        return (what, tuned["default"], "as without tuning: nothing else was faster")
    return (what, tuned["chosen"], f"saves {100 * tuned['gain']:.0f} % of {tuned['default']}")


def _kilobytes(n_bytes: int | None) -> str:
    if n_bytes is None:
        return "dynamic"
    return f"{n_bytes / 1024:.0f}" if n_bytes >= 10 * 1024 or n_bytes == 0 else f"{n_bytes / 1024:.1f}"


def _fallback_row(fallback: FallbackReport) -> tuple[str, ...]:
    cost = f"moves {_kilobytes(fallback.moved_bytes)} KB" + (", splits one partition in two" if fallback.splits else "")
    return (fallback.node, fallback.op, shown(fallback.source), fallback.reason, cost)


def shown(source: str) -> str:
    """`source` relative to the current directory, where it lies below it."""
    here = f"{os.getcwd()}{os.sep}"
    return source.removeprefix(here) or "unknown line"


def aligned(rows: Sequence[tuple[str, ...]], left: tuple[int, ...] = (1,)) -> list[str]:
    """Rows as lines, columns padded to one width; those in `left` are flush left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    cells = ((cell.ljust(width) if index in left else cell.rjust(width) for index, (cell, width) in enumerate(zip(row, widths))) for row in rows)
    return [f"  {'  '.join(row)}".rstrip() for row in cells]
