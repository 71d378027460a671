"""Counters x block costs -> instructions, cycles, stalls, energy and traffic of every kernel of a run.

What is counted is exact: how often each basic block ran, and so how many register operations of every instruction. What is modelled:
a block's cycles (lowering/cost.py), and memory. The near memory holds whole buffers, least recently used ones leave it; partition
inputs come from DDR when they are not in it, outputs go to DDR, and a kernel's transfers overlap with its own computation. One
context runs. Nothing here knows torch or the lowering.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ..csrc.costs import BUCKETS, SCALAR_ROW, BlockCost, BufferUse, CallCost, KernelCost, PartitionCost
from ..csrc.isa import GROUPS, INSTRUCTIONS
from ..csrc.machine import Machine

__all__ = ["CLASSES", "ESTIMATES", "MODEL_VERSION", "CallSpan", "KernelProfile", "PartitionRun", "count_instructions", "ddr_traffic", "measure_run", "merge"]

MODEL_VERSION = "dvx-model 1"
CLASSES = (*GROUPS, "scalar")

# What a report has to name: constants of the model that no source stands behind.
ESTIMATES = (
    "latencies, occupancies and energies of the instruction table whose row names no source",
    "address slots, pipes, DDR bandwidth, latency and energy, packet energy and static power of the machine",
    "scalar loads: 3 cycles, 10 pJ",
    "near memory: whole buffers, least recently used out first, transfers overlap with computation",
)


@dataclasses.dataclass(frozen=True)
class PartitionRun:
    """One call of a partition that was built with counters.

    Attributes:
        name: the partition's.
        counters: as the build left them: a count per basic block, then (counting builds) one per instruction and for scalar loads.
        symbols: the sizes that it was called with.
    """

    name: str
    cost: PartitionCost
    counters: tuple[int, ...]
    symbols: Mapping[str, int]

    @property
    def counted(self) -> dict[str, int]:
        """Assembly name -> register operations as the intrinsics of a build with -DDVX_COUNT counted them, zeros left out."""
        n_blocks = sum(len(kernel.blocks) for kernel in self.cost.kernels)
        return {text: count for text, count in zip(_TEXTS, self.counters[n_blocks:], strict=True) if count}


@dataclasses.dataclass(frozen=True)
class KernelProfile:
    """A kernel function and all its calls in a run.

    Attributes:
        partition, name, kind, title: where it is, how it is called, what made it, what it computes.
        nodes: names of the FX nodes of all its calls.
        calls: how often it ran.
        instructions: assembly name ("vfadd.sf"; "ld" for scalar loads) -> executed register operations.
        cycles: with blocks as list-scheduled, and waiting for DDR.   buckets: where they go; they sum to `cycles`.
        pipelined_cycles: the lower bound: innermost loops modulo-scheduled at their bound.   pipelined_buckets: they sum to it.
        packets: packets issued, of the list schedules.
        energy_pj: instructions, packets, DDR and static power.
        near_bytes: moved by loads and stores.   ddr_bytes: moved between DDR and the near memory.
        registers: most vector registers that one of its blocks holds.
        ops, sources: operators of `nodes` and the user's lines ("file:line") or modules ("module encoder.0") that they come from,
            where somebody filled them in.
    """

    partition: str
    name: str
    kind: str
    title: str
    nodes: tuple[str, ...]
    calls: int
    instructions: Mapping[str, int]
    cycles: int
    buckets: Mapping[str, int]
    pipelined_cycles: int
    pipelined_buckets: Mapping[str, int]
    packets: int
    energy_pj: float
    near_bytes: int
    ddr_bytes: int
    registers: int
    ops: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def n_instructions(self) -> int:
        """Executed register operations of all instructions, scalar loads included."""
        return sum(self.instructions.values())

    @property
    def classes(self) -> dict[str, int]:
        """Executed register operations by class (CLASSES)."""
        found = dict.fromkeys(CLASSES, 0)
        for text, count in self.instructions.items():
            found[_CLASS_OF[text]] += count
        return found

    @property
    def bound_by(self) -> str:
        """What keeps its pipelined loops from being faster: the largest bucket but `issue`, or that where no other takes a tenth."""
        others = {name: cycles for name, cycles in self.pipelined_buckets.items() if name != "issue"}
        largest = max(others, key=lambda name: others[name], default="issue")
        return largest if 10 * others.get(largest, 0) >= self.pipelined_cycles else "issue"


@dataclasses.dataclass(frozen=True)
class CallSpan:
    """A kernel call on the timeline: `kernel` is an index into the run's kernels; times in cycles."""

    kernel: int
    nodes: tuple[str, ...]
    start: int
    cycles: int
    ddr_bytes: int


_TEXTS = (*(instr.text for instr in INSTRUCTIONS), "ld")
_CLASS_OF = {**{instr.text: instr.row.group for instr in INSTRUCTIONS}, "ld": "scalar"}


def count_instructions(kernels: Sequence[KernelCost], counters: Sequence[int]) -> list[int]:
    """Executed register operations per row of the instruction table, scalar loads last, derived from block counts alone."""
    found = [0] * (SCALAR_ROW + 1)
    blocks = [block for kernel in kernels for block in kernel.blocks]
    for block, executions in zip(blocks, counters):
        for row, operations in block.counts:
            found[row] += executions * operations
    return found


def measure_run(run: PartitionRun, machine: Machine) -> tuple[list[KernelProfile], list[CallSpan]]:
    """The profile of each kernel function of a partition's run, in block-numbering order, and its calls in order of execution."""
    executions = _split_counters(run.cost.kernels, run.counters)
    n_calls = Counter(call.kernel for call in run.cost.calls)
    moved = [_near_bytes(kernel, counts) for kernel, counts in zip(run.cost.kernels, executions)]
    loaded = [{param: total / max(1, n_calls[place]) for param, total in params.items()} for place, params in enumerate(moved)]
    ddr_bytes = ddr_traffic(run.cost.calls, loaded, machine.near_bytes, run.symbols)
    kernels, spans = [], []
    for place, (kernel, counts) in enumerate(zip(run.cost.kernels, executions)):
        calls = [(call, traffic) for call, traffic in zip(run.cost.calls, ddr_bytes) if call.kernel == place]
        kernels.append(_measure_kernel(run.name, kernel, counts, calls, sum(moved[place].values()), machine))
    start = 0
    done: Counter[int] = Counter()
    for call, traffic in zip(run.cost.calls, ddr_bytes):
        kernel = kernels[call.kernel]
        compute = kernel.cycles - kernel.buckets.get("ddr", 0)
        done[call.kernel] += 1
        share = compute * done[call.kernel] // kernel.calls - compute * (done[call.kernel] - 1) // kernel.calls  # the shares sum to `compute`
        cycles = share + _ddr_stall(traffic, compute / kernel.calls, machine)
        spans.append(CallSpan(call.kernel, call.nodes, start, cycles, traffic))
        start += cycles
    return kernels, spans


def _split_counters(kernels: Sequence[KernelCost], counters: Sequence[int]) -> list[Sequence[int]]:
    found, first = [], 0
    for kernel in kernels:
        found.append(counters[first : first + len(kernel.blocks)])
        first += len(kernel.blocks)
    return found


def _near_bytes(kernel: KernelCost, executions: Sequence[int]) -> Counter[str]:
    """Bytes that a kernel's loads and stores moved, by parameter."""
    moved: Counter[str] = Counter()
    for block, n in zip(kernel.blocks, executions):
        for param, bytes_ in block.near_bytes:
            moved[param] += n * bytes_
    return moved


def _measure_kernel(
    partition: str, kernel: KernelCost, executions: Sequence[int], calls: Sequence[tuple[CallCost, int]], near_bytes: int, machine: Machine
) -> KernelProfile:
    n_calls = len(calls)
    buckets: Counter[str] = Counter()
    pipelined: Counter[str] = Counter()
    for block, n in zip(kernel.blocks, executions):
        buckets.update({name: n * cycles for name, cycles in block.buckets})
        pipelined.update(_pipelined(block, n, executions, n_calls))
    for timing in (buckets, pipelined):
        compute = timing.total() / max(1, n_calls)
        timing["ddr"] = sum(_ddr_stall(traffic, compute, machine) for _, traffic in calls)
    counts = count_instructions([kernel], executions)
    ddr_bytes = sum(traffic for _, traffic in calls)
    energy_pj = sum(n * block.energy_pj for block, n in zip(kernel.blocks, executions))
    energy_pj += ddr_bytes * machine.ddr_pj_per_byte + buckets.total() * 1000 * machine.static_mw / machine.clock_mhz
    first = calls[0][0] if calls else None
    return KernelProfile(
        partition, first.name if first else kernel.name, first.kind if first else "prepare", kernel.title,
        tuple(dict.fromkeys(node for call, _ in calls for node in call.nodes)), n_calls,
        {_TEXTS[row]: n for row, n in enumerate(counts) if n}, buckets.total(), _nonzero(buckets), pipelined.total(), _nonzero(pipelined),
        sum(n * block.packets for block, n in zip(kernel.blocks, executions)), energy_pj, near_bytes, ddr_bytes,
        max((block.registers for block in kernel.blocks), default=0),
    )  # fmt: skip


def _pipelined(block: BlockCost, n: int, executions: Sequence[int], n_calls: int) -> dict[str, int]:
    """Cycles of `n` executions of a block where innermost loops overlap their iterations: entries x fill + n x interval."""
    cycles = {name: n * count for name, count in block.interval_buckets}
    if n and block.interval < block.cycles:
        entries = 1
        if block.entries is not None:
            place, factor = block.entries
            entries = factor * (n_calls if place < 0 else executions[place])
        cycles["fill"] = min(n, max(1, entries)) * (block.cycles - block.interval)
    return cycles


def _ddr_stall(ddr_bytes: int, compute_cycles: float, machine: Machine) -> int:
    """Cycles that a call waits for its transfers, which run beside its computation."""
    if not ddr_bytes:
        return 0
    return max(0, math.ceil(machine.ddr_latency_cycles + ddr_bytes / machine.ddr_bytes_per_cycle - compute_cycles))


def _nonzero(buckets: Mapping[str, int]) -> dict[str, int]:
    return {name: buckets[name] for name in BUCKETS if buckets.get(name)}


def ddr_traffic(calls: Sequence[CallCost], loaded: Sequence[Mapping[str, float]], near_bytes: int, symbols: Mapping[str, int]) -> list[int]:
    """Bytes that every call moves between DDR and a near memory of `near_bytes`, which is empty at first.

    Args: loaded: per kernel function, what one call loads and stores through each parameter: a buffer moves no more.
    """
    near = _NearMemory(near_bytes, {buffer.name: place for place, call in enumerate(calls) for buffer in call.buffers})
    return [near.call(place, call.buffers, loaded[call.kernel], symbols) for place, call in enumerate(calls)]


class _NearMemory:
    """Which buffers are near: name -> bytes, least recently used first; `dirty` ones are not in DDR."""

    def __init__(self, capacity: int, last_use: Mapping[str, int]):
        self.capacity = capacity
        self.last_use = last_use
        self.held: dict[str, int] = {}
        self.dirty: set[str] = set()

    def call(self, place: int, buffers: Sequence[BufferUse], loaded: Mapping[str, float], symbols: Mapping[str, int]) -> int:
        """Bytes that the call at `place` moves."""
        moved, own = 0, {buffer.name for buffer in buffers}
        for buffer in buffers:
            size = _evaluate(buffer.bytes, symbols)
            touched = min(size, math.ceil(loaded.get(buffer.param, 0)))
            if buffer.is_read and buffer.name not in self.held:
                moved += touched
            evicted, kept = self._hold(buffer.name, size if touched == size else 0, own)
            moved += evicted
            if buffer.is_written and (buffer.kind != "temp" or not kept):
                moved += touched
            elif buffer.is_written:
                self.dirty.add(buffer.name)
        for name in own:
            if self.last_use[name] == place:
                self.held.pop(name, None)
                self.dirty.discard(name)
        return moved

    def _hold(self, name: str, size: int, own: set[str]) -> tuple[int, bool]:
        """Make room for a buffer: the bytes written back for that, and whether it stays."""
        written = 0
        self.held.pop(name, None)
        for other in [other for other in self.held if other not in own]:
            if sum(self.held.values()) + size <= self.capacity:
                break
            written += self.held[other] if other in self.dirty else 0
            self.dirty.discard(other)
            del self.held[other]
        kept = 0 < size and sum(self.held.values()) + size <= self.capacity
        if kept:
            self.held[name] = size
        else:
            self.dirty.discard(name)
        return written, kept


def _evaluate(size: int | str, symbols: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else int(eval(size, {"__builtins__": {}, "min": min, "max": max}, dict(symbols)))


def merge(parts: Sequence[KernelProfile]) -> KernelProfile:
    """Several runs of one kernel function, or all kernels of a profile, as one."""
    first = parts[0]
    sums = {name: sum(getattr(part, name) for part in parts) for name in ("calls", "cycles", "pipelined_cycles", "packets", "energy_pj", "near_bytes", "ddr_bytes")}
    counters = {name: sum((Counter(getattr(part, name)) for part in parts), Counter()) for name in ("instructions", "buckets", "pipelined_buckets")}
    unions = {name: tuple(dict.fromkeys(item for part in parts for item in getattr(part, name))) for name in ("nodes", "ops", "sources")}
    ordered = {name: _nonzero(counters[name]) for name in ("buckets", "pipelined_buckets")}
    return dataclasses.replace(
        first, registers=max(part.registers for part in parts), instructions=dict(counters["instructions"]), **unions, **ordered, **sums
    )
