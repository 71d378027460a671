"""The pipeline of one partition: FX nodes -> TensorProgram -> Schedule -> VectorProgram -> C, with the text of every stage."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..csrc import isa
from ..csrc.abi import PartitionSource, TensorArg
from ..csrc.machine import Machine
from .emit_c import C_ELEMENT, Call, emit_partition
from .equal_groups import EqualGroups
from .find_attention import find_attention
from .from_fx import Lowered, lower_nodes
from .fuse import Group, Schedule, fuse
from .index_expr import Dim, render
from .inputs_first import inputs_first
from .kernel_writer import BoundKernel, Scratch
from .kernels import TEMPLATES
from .memory import Arena, plan_memory
from .prepare import place_prepared, split_prepared
from .split_depth import split_depth
from .split_keys import split_keys
from .tensor_ir import Buffer, Scan, Scatter, Template, TensorProgram
from .vector_ir import MEMORY_TYPE, Kernel
from .vectorize import lower_group
from .vectorize_indexed import lower_scan, lower_scatter
from .write_in_place import write_in_place

__all__ = ["KernelReport", "LoweredPartition", "ScheduledPartition", "lower_partition", "schedule_partition", "vectorize", "write_partition"]

REWRITES: tuple[tuple[str, Callable[[TensorProgram], TensorProgram], str], ...] = (
    ("find attention", find_attention, "before fusion, which would make softmax an epilogue of the products that it lies between"),
    ("split keys", split_keys, "behind find attention, whose finds it splits, too"),
    ("split depth", split_depth, "behind find attention, which looks for whole products"),
    ("inputs first", inputs_first, "before fusion: an epilogue reads only what was computed before its convolution or matrix product"),
    ("write in place", write_in_place, "before memory is planned: the copy of an input that it takes away would have a place there"),
)


class Texts(Mapping):
    """Stage name -> text, written when it is asked for."""

    def __init__(self, writers: Mapping[str, Callable[[], str]]):
        self._writers = writers

    def __getitem__(self, stage: str) -> str:
        return self._writers[stage]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._writers)

    def __len__(self) -> int:
        return len(self._writers)


@dataclasses.dataclass(frozen=True)
class ScheduledPartition:
    """A partition of which it is known what shares a kernel; groups of `schedule` may be given choices (choices.py) before it is written.

    Attributes:
        machine, max_contexts: as for lower_partition.
        seconds: what "lowering" and "scheduling" took so far.
    """

    lowered: Lowered
    schedule: Schedule
    machine: Machine
    max_contexts: int
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


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
        seconds: what the stages "lowering" (to a TensorProgram) and "scheduling" (to C) took.
        calls: the kernel calls that `kernels` tells of, for the profiler.   output_buffers: what they leave for the caller.
    """

    source: PartitionSource
    kernels: tuple[KernelReport, ...]
    distinct: tuple[Kernel, ...]
    arena_bytes: int | None
    naive_bytes: int | None
    texts: Mapping[str, str]
    calls: tuple[BoundKernel, ...] = ()
    output_buffers: tuple[Buffer, ...] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


def schedule_partition(nodes: Sequence, inputs: Sequence, outputs: Sequence, *, machine: Machine, name: str, max_contexts: int | None = None,
                       constants: frozenset = frozenset(), allows_winograd: bool = True) -> ScheduledPartition:
    """Lowers FX nodes to kernels that are not written yet.

    Args:
        nodes: fx nodes in topological order, each of which `judge` finds native.
        inputs: tensor-valued nodes from outside, then SymInt-valued ones.   outputs: tensor-valued nodes among `nodes`.
        max_contexts: most threads that a call may use; the CPU's count by default.
        constants: the inputs whose tensors never change (freeze): what depends on them alone is computed once.
        allows_winograd: whether convolutions may be computed by Winograd's algorithm, which regroups sums.

    Raises:
        Unsupported: a node cannot be lowered.
    """
    started = time.perf_counter()
    lowered = lower_nodes(name, nodes, inputs, outputs, constants, allows_winograd)
    lowered_at = time.perf_counter()
    lowered = dataclasses.replace(lowered, program=_rewritten(lowered.program))
    schedule = fuse(lowered.program)
    seconds = {"lowering": lowered_at - started, "scheduling": time.perf_counter() - lowered_at}
    return ScheduledPartition(lowered, schedule, machine, max_contexts or machine.n_contexts or os.cpu_count() or 1, seconds)


def write_partition(scheduled: ScheduledPartition) -> LoweredPartition:
    """The kernels of a scheduled partition as C."""
    started = time.perf_counter()
    lowered = scheduled.lowered
    bound = vectorize(scheduled.schedule, scheduled.machine)
    fixed = frozenset(buffer for buffer in lowered.program.inputs if buffer.kind == "const")
    prepare, bound = split_prepared(bound, fixed, frozenset(lowered.output_buffers))
    finished = _finish(lowered, scheduled.schedule, prepare, bound, scheduled.machine, scheduled.max_contexts)
    seconds = scheduled.seconds
    return dataclasses.replace(finished, seconds={**seconds, "scheduling": seconds.get("scheduling", 0.0) + time.perf_counter() - started})


def lower_partition(nodes: Sequence, inputs: Sequence, outputs: Sequence, **options) -> LoweredPartition:
    """Lowers FX nodes to C, every kernel as the analytic model says; arguments and errors are those of schedule_partition."""
    return write_partition(schedule_partition(nodes, inputs, outputs, **options))


def _rewritten(program: TensorProgram) -> TensorProgram:
    for _, rewrite, _ in REWRITES:
        program = rewrite(program)
    return program


def vectorize(schedule: Schedule, machine: Machine) -> list[BoundKernel]:
    """The kernels of a schedule, in execution order."""
    lowered = EqualGroups(lambda group: _group_kernels(group, machine))
    return [kernel for group in schedule.groups for kernel in lowered.kernels(group)]


def _group_kernels(group: Group, machine: Machine) -> list[BoundKernel]:
    first = group.statements[0]
    if isinstance(first, Template):
        chosen = {} if group.choice is None else {"choice": group.choice}
        return TEMPLATES[first.kind](first, group.statements[1:], group.stored, machine, **chosen)
    if isinstance(first, Scan):
        return [lower_scan(first, "scan", machine.lanes)]
    if isinstance(first, Scatter):
        return [lower_scatter(first, "scatter", machine.lanes)]
    return [lower_group(group, group.kind, machine.lanes)]


def _finish(lowered: Lowered, schedule: Schedule, once: list[BoundKernel], bound: list[BoundKernel], machine: Machine, max_contexts: int) -> LoweredPartition:
    name = lowered.program.name
    prepared, prepared_bytes = place_prepared(once, max_contexts)
    arena = plan_memory(bound, max_contexts, frozenset((*lowered.output_buffers, *lowered.program.inputs)) | prepared.keys())
    places, n_buffers = _places(lowered, arena)
    calls = _calls(bound, places | {item: f"((char *)buffers[{n_buffers}] + {offset})" for item, offset in prepared.items()})
    prepare = _calls(once, places | {item: f"(arena + {offset})" for item, offset in prepared.items()})
    units, distinct, n_blocks = emit_partition(name, calls, lowered.symbols, os.cpu_count() or 1, prepare)
    source = PartitionSource(
        name=name, units=units, vlen_bytes=machine.vlen_bytes,
        inputs=tuple(_tensor_arg(b) for b in lowered.program.inputs),
        outputs=tuple(_tensor_arg(b, alias) for b, alias in zip(lowered.output_buffers, lowered.aliases)),
        symbols=lowered.symbols, arena_bytes=_known(arena.size), n_counters=n_blocks + len(isa.INSTRUCTIONS) + 1, n_blocks=n_blocks, max_contexts=max_contexts, prepared_bytes=prepared_bytes,
    )  # fmt: skip
    texts = Texts({
        "tensor": lambda: str(lowered.program), "schedule": lambda: str(schedule),
        "vector": lambda: "\n".join(map(str, distinct)), "c": lambda: "\n".join(text for _, text in units),
    })  # fmt: skip
    reports = tuple(KernelReport(k.kernel.name, k.kind, k.kernel.origins, _int(k.kernel.flops), _int(k.kernel.bytes)) for k in bound)
    return LoweredPartition(source, reports, tuple(distinct), _int(arena.size), _int(arena.naive), texts, tuple(bound), tuple(lowered.output_buffers))


def _calls(kernels: list[BoundKernel], places: dict) -> tuple[Call, ...]:
    return tuple(Call(kernel.kernel, tuple(_c_argument(argument, places) for argument in kernel.arguments)) for kernel in kernels)


def _places(lowered: Lowered, arena: Arena) -> tuple[dict, int]:
    """The C expression of the address of every buffer and scratch, and the number of entries of `buffers` that are taken."""
    places = {buffer: f"buffers[{i}]" for i, buffer in enumerate(lowered.program.inputs)}
    position = len(lowered.program.inputs)
    for buffer, alias in zip(lowered.output_buffers, lowered.aliases):
        if alias is None:
            places[buffer] = f"buffers[{position}]"
            position += 1
    places |= {item: f"(arena + ({render(offset, 'c')}))" for item, offset in arena.offsets.items()}
    return places, position


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
