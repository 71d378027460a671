"""What a lowered partition costs on a machine, block by block: LoweredPartition -> PartitionCost (csrc/costs.py).

Every basic block is scheduled once, as if it began with nothing under way and ended when its last result is there; the body of an
innermost loop also gets the bound of its modulo schedules, max(ResMII, RecMII). A real compiler's code lies between the two. Not
modelled: scalar arithmetic of addresses and loops (hardware loops and address generators are assumed), caches and bank conflicts
of the near memory, unaligned accesses, and spills where a block holds more registers than there are (`registers` tells).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

from ..csrc import isa
from ..csrc.abi import DTYPE_BYTES
from ..csrc.costs import BUCKETS, SCALAR_ROW, BlockCost, BufferUse, CallCost, KernelCost, PartitionCost
from ..csrc.machine import Machine
from .dependence import BlockGraph, block_graph
from .emit_c import canonical
from .index_expr import render
from .kernel_writer import BoundKernel
from .packets import recurrence_bound, resource_bounds, schedule_block
from .tensor_ir import Buffer
from .vector_ir import Addr, Barrier, If, Instruction, Kernel, LoadScalar, Loop, V

__all__ = ["SCALAR_LOAD_PJ", "block_cost", "kernel_cost", "partition_cost"]

SCALAR_LOAD_PJ = 10.0  # estimate: 8 bytes of a 32 KB SRAM at 7 nm (8.5 pJ) and its control


@dataclasses.dataclass(frozen=True)
class _Run:
    """A straight-line run of nodes. `loop` is the innermost loop whose whole body it is; `entries` as in BlockCost."""

    nodes: tuple
    loop: Loop | None
    entries: tuple[int, int] | None


def partition_cost(distinct: Sequence[Kernel], calls: Sequence[BoundKernel], machine: Machine, outputs: Sequence[Buffer] = ()) -> PartitionCost:
    """Costs of a partition's kernel functions, and which function each of its calls runs.

    Args: distinct: kernels in block-numbering order.   calls: in execution order.   outputs: buffers that leave the partition.
    """
    places = {canonical(kernel): place for place, kernel in enumerate(distinct)}
    return PartitionCost(
        tuple(kernel_cost(kernel, machine) for kernel in distinct),
        tuple(_call_cost(call, places[canonical(call.kernel)], frozenset(outputs)) for call in calls),
    )


def kernel_cost(kernel: Kernel, machine: Machine) -> KernelCost:
    """Costs of every basic block of a kernel, in the order of `vector_ir.blocks`."""
    return KernelCost(kernel.name, kernel.title, tuple(_run_cost(run, machine) for run in _Walk().runs(kernel.body, (-1, 1))))


def block_cost(graph: BlockGraph, machine: Machine, *, is_loop: bool = False) -> tuple[int, int, int, dict[str, int], dict[str, int]]:
    """(packets, cycles, interval, buckets of cycles, buckets of the interval) of one pass; without `is_loop` the interval is the cycles."""
    schedule = schedule_block(graph, machine)
    bounds = resource_bounds(graph.issues, machine)
    cycles = schedule.cycles
    interval = min(cycles, max(*bounds.values(), recurrence_bound(graph), 1)) if is_loop else cycles
    return len(schedule.packets), cycles, interval, _buckets(bounds, cycles), _buckets(bounds, interval)


def _buckets(bounds: dict[str, int], cycles: int) -> dict[str, int]:
    """`cycles` split: what issue takes, what the busiest resource takes beyond it, and the rest, which waits for results."""
    busiest = max(bounds, key=lambda name: (bounds[name], name == "issue", -list(BUCKETS).index(name)))
    split = {"issue": bounds["issue"]}
    if busiest != "issue":
        split[busiest] = bounds[busiest] - bounds["issue"]
    split["dependency"] = cycles - bounds[busiest]
    return {name: count for name, count in split.items() if count}


def _run_cost(run: _Run, machine: Machine) -> BlockCost:
    carried = {row.inside: row.next for row in run.loop.carried} if run.loop else {}
    graph = block_graph(run.nodes, machine.lanes, carried)
    packets, cycles, interval, buckets, interval_buckets = block_cost(graph, machine, is_loop=run.loop is not None)
    counts: Counter[int] = Counter()
    energy_pj = machine.packet_pj * packets
    near_bytes: Counter[str] = Counter()
    for node in run.nodes:
        if isinstance(node, LoadScalar):
            counts[SCALAR_ROW] += 1
            energy_pj += SCALAR_LOAD_PJ
            near_bytes[node.address.base] += isa.MEMORY_TYPES[node.memory_type][1]
        elif isinstance(node, Instruction):
            row = isa.lookup(node.opcode)
            counts[row.index] += row.registers
            energy_pj += row.energy_pj(machine.vlen_bytes)
            near_bytes += _moved_bytes(node, row, machine.lanes)
    return BlockCost(
        counts=tuple(sorted((row, n) for row, n in counts.items() if n)), packets=packets, cycles=cycles, buckets=tuple(buckets.items()),
        interval=interval, interval_buckets=tuple(interval_buckets.items()), entries=run.entries if run.loop else None,
        energy_pj=energy_pj, near_bytes=tuple(near_bytes.items()), registers=_registers(run),
    )  # fmt: skip


def _moved_bytes(node: Instruction, row: isa.Instr, lanes: int) -> Counter[str]:
    elements = 1 if row.row.mnemonic in ("vldx", "vst1") else lanes
    return Counter({operand.base: elements * isa.MEMORY_TYPES[row.memory][1] for operand in node.operands if isinstance(operand, Addr)})


class _Walk:
    """Finds the basic blocks of a kernel body in the order of `vector_ir.blocks`, numbering them."""

    def __init__(self):
        self.n_blocks = 0

    def runs(self, body: tuple, executions: tuple[int, int] | None, loop: Loop | None = None, entries: tuple[int, int] | None = None) -> Iterator[_Run]:
        """Args: executions: how often the body runs.   loop, entries: the loop whose body it is, and how often that is entered."""
        innermost = loop is not None and not any(isinstance(node, (Loop, If, Barrier)) for node in body)
        run: list = []
        for node in (*body, None):
            if node is not None and not isinstance(node, (Loop, If)):
                run.append(node)
                continue
            if any(isinstance(part, (Instruction, LoadScalar)) for part in run):
                executions = (self.n_blocks, 1)  # a block of this very body counts how often it runs
                self.n_blocks += 1
                yield _Run(tuple(run), loop if innermost else None, entries)
            run = []
            if isinstance(node, Loop):
                yield from self.runs(node.body, _repeated(executions, node), node, executions)
            elif isinstance(node, If):
                yield from self.runs(node.body, None)
                yield from self.runs(node.orelse, None)


def _repeated(executions: tuple[int, int] | None, loop: Loop) -> tuple[int, int] | None:
    if executions is None or not all(isinstance(bound, int) for bound in (loop.begin, loop.end, loop.step)):
        return None
    return executions[0], executions[1] * len(range(loop.begin, loop.end, loop.step))


def _registers(run: _Run) -> int:
    """Most vector registers held at once in program order; predicates are registers of another kind.

    Held are a value from its definition, or the start, to its last use; to the end where later code takes it, and what a loop
    reads anew in every iteration.
    """
    nodes = [node for node in run.nodes if isinstance(node, Instruction)]
    carried = {row.inside: row.next for row in run.loop.carried} if run.loop else {}
    last_use = {operand: place for place, node in enumerate(nodes) for operand in node.operands if isinstance(operand, V)}
    made = {node.result for node in nodes}
    live = set(last_use) - made
    kept = {*(live - carried.keys()), *carried.values()} if run.loop else set()
    most = _register_count(live)
    for place, node in enumerate(nodes):
        live |= {node.result} - {None}
        most = max(most, _register_count(live))
        live = {value for value in live if value in kept or last_use.get(value, len(nodes)) > place}
    return most


def _register_count(values: set[V]) -> int:
    return sum({"df": 2, "d": 2, "q": 0}.get(value.type, 1) for value in values)


def _call_cost(call: BoundKernel, kernel: int, outputs: frozenset[Buffer]) -> CallCost:
    buffers = []
    for param, argument in zip(call.kernel.params, call.arguments):
        if isinstance(argument, Buffer):
            size = argument.n_elements * DTYPE_BYTES[argument.dtype]
            kind = "output" if argument in outputs else argument.kind
            known = size if isinstance(size, int) else render(size)
            buffers.append(BufferUse(param.name, argument.name, known, kind, argument in call.reads, argument in call.writes))
    return CallCost(kernel, call.kernel.name, call.kind, call.kernel.origins, tuple(buffers))
