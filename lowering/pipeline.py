"""The pipeline of one partition: FX nodes -> TensorProgram -> Schedule -> VectorProgram -> C, with the text of every stage."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from ..csrc import isa
from ..csrc.abi import PartitionSource, TensorArg
from ..csrc.machine import Machine
from .emit_c import C_ELEMENT, Call, emit_partition
from .from_fx import Lowered, lower_nodes
from .fuse import Group, Schedule, fuse
from .index_expr import Dim, render
from .kernel_writer import BoundKernel, Scratch
from .kernels import TEMPLATES
from .memory import Arena, plan_memory
from .tensor_ir import Buffer, Scan, Scatter, Template
from .vector_ir import MEMORY_TYPE, Kernel
from .vectorize import lower_group
from .vectorize_indexed import lower_scan, lower_scatter

__all__ = ["KernelReport", "LoweredPartition", "lower_partition", "vectorize"]


@dataclasses.dataclass(frozen=True)
class KernelReport:
    """What explain says of a kernel call: FX nodes in it, floating-point operations and bytes moved (None where a size is symbolic)."""

    name: str
    kind: str
    nodes: tuple[str, ...]
    flops: int | None
    bytes: int | None


@dataclasses.dataclass(frozen=True)
class LoweredPartition:
    """A partition as C, and what is known about it.

    Attributes:
        kernels: one report per kernel call, in execution order.
        distinct: the distinct kernels, in the order in which their basic blocks are numbered in the C text (for the profiler).
        arena_bytes, naive_bytes: planned scratch memory, and the sum of all temporaries; None where sizes are symbolic.
        texts: "tensor", "schedule", "vector" and "c".
    """

    source: PartitionSource
    kernels: tuple[KernelReport, ...]
    distinct: tuple[Kernel, ...]
    arena_bytes: int | None
    naive_bytes: int | None
    texts: dict[str, str]


def lower_partition(nodes: Sequence, inputs: Sequence, outputs: Sequence, *, machine: Machine, name: str, max_contexts: int | None = None) -> LoweredPartition:
    """Lowers FX nodes to C.

    Args:
        nodes: fx nodes in topological order, each of which `judge` finds native.
        inputs: tensor-valued nodes from outside, then SymInt-valued ones.   outputs: tensor-valued nodes among `nodes`.
        max_contexts: most threads that a call may use; the CPU's count by default.

    Raises:
        Unsupported: a node cannot be lowered.
    """
    lowered = lower_nodes(name, nodes, inputs, outputs)
    schedule = fuse(lowered.program)
    bound = vectorize(schedule, machine)
    max_contexts = max_contexts or machine.n_contexts or os.cpu_count() or 1
    arena = plan_memory(bound, max_contexts, frozenset(lowered.output_buffers))
    return _finish(name, lowered, schedule, bound, arena, machine, max_contexts)


def vectorize(schedule: Schedule, machine: Machine) -> list[BoundKernel]:
    """The kernels of a schedule, in execution order."""
    kernels: list[BoundKernel] = []
    for group in schedule.groups:
        kernels += _group_kernels(group, machine)
    return kernels


def _group_kernels(group: Group, machine: Machine) -> list[BoundKernel]:
    first = group.statements[0]
    if isinstance(first, Template):
        return TEMPLATES[first.kind](first, group.statements[1:], group.stored, machine)
    if isinstance(first, Scan):
        return [lower_scan(first, "scan", machine.lanes)]
    if isinstance(first, Scatter):
        return [lower_scatter(first, "scatter", machine.lanes)]
    return [lower_group(group, group.kind, machine.lanes)]


def _finish(name: str, lowered: Lowered, schedule: Schedule, bound: list[BoundKernel], arena: Arena, machine: Machine, max_contexts: int) -> LoweredPartition:
    places = _places(lowered, arena)
    calls = tuple(Call(kernel.kernel, tuple(_c_argument(argument, places) for argument in kernel.arguments)) for kernel in bound)
    units, distinct, n_blocks = emit_partition(name, calls, lowered.symbols, os.cpu_count() or 1)
    source = PartitionSource(
        name=name, units=units, vlen_bytes=machine.vlen_bytes,
        inputs=tuple(_tensor_arg(b) for b in lowered.program.inputs),
        outputs=tuple(_tensor_arg(b, alias) for b, alias in zip(lowered.output_buffers, lowered.aliases)),
        symbols=lowered.symbols, arena_bytes=_known(arena.size), n_counters=n_blocks + len(isa.INSTRUCTIONS) + 1, n_blocks=n_blocks, max_contexts=max_contexts,
    )  # fmt: skip
    texts = {"tensor": str(lowered.program), "schedule": str(schedule), "vector": "\n".join(map(str, distinct)), "c": "\n".join(text for _, text in units)}
    reports = tuple(KernelReport(k.kernel.name, k.kind, k.kernel.origins, _int(k.kernel.flops), _int(k.kernel.bytes)) for k in bound)
    return LoweredPartition(source, reports, tuple(distinct), _int(arena.size), _int(arena.naive), texts)


def _places(lowered: Lowered, arena: Arena) -> dict:
    """The C expression of the address of every buffer and scratch."""
    places = {buffer: f"buffers[{i}]" for i, buffer in enumerate(lowered.program.inputs)}
    position = len(lowered.program.inputs)
    for buffer, alias in zip(lowered.output_buffers, lowered.aliases):
        if alias is None:
            places[buffer] = f"buffers[{position}]"
            position += 1
    places |= {item: f"(arena + ({render(offset, 'c')}))" for item, offset in arena.offsets.items()}
    return places


def _c_argument(argument: Buffer | Scratch | Dim, places: dict) -> str:
    if isinstance(argument, Buffer):
        return f"({C_ELEMENT[MEMORY_TYPE[argument.dtype]]} *){places[argument]}"
    if isinstance(argument, Scratch):
        return f"({C_ELEMENT[argument.memory_type]} *){places[argument]}"
    return render(argument, "c")


def _known(value: Dim) -> int | str:
    return value if isinstance(value, int) else render(value)


def _int(value: Dim) -> int | None:
    return value if isinstance(value, int) else None


def _tensor_arg(buffer: Buffer, alias: int | None = None) -> TensorArg:
    return TensorArg(buffer.name, buffer.dtype, tuple(map(_known, buffer.sizes)), tuple(map(_known, buffer.strides)), alias)
