"""A second opinion on cycles: replays packets on an in-order machine, and walks kernels, from the instruction table alone.

It shares no code with lowering/dependence.py and lowering/packets.py; of those it takes only which instructions form a packet, and in
which order packets issue. When each of them issues, and whether it may, it finds out itself: a packet waits until its operands
are there and its pipes are free.
"""

from __future__ import annotations

from accel.csrc import isa
from accel.csrc.machine import Machine
from accel.lowering.index_expr import substitute, symbols_of
from accel.lowering.vector_ir import Addr, If, Instruction, Let, LoadScalar, Loop, V

__all__ = ["Hazard", "issued", "kernel_cycles", "replay"]

SCALAR_LOAD_CYCLES = 3
CONTIGUOUS = {"vld", "vldq", "vldx", "vst", "vstq", "vst1"}


class Hazard(Exception):
    """Packets that the machine can never issue as they are."""


def issued(nodes) -> list[Instruction | LoadScalar]:
    """The nodes that take a slot: reinterpretations and integer arithmetic take none."""
    return [n for n in nodes if isinstance(n, LoadScalar) or (isinstance(n, Instruction) and isa.lookup(n.opcode).registers)]


class Core:
    """One context of `machine` on a block of `nodes`: who writes what, when each instruction was issued, what every pipe does."""

    def __init__(self, nodes, machine: Machine):
        self.machine = machine
        self.nodes = issued(nodes)
        self.writer: dict[object, list[int]] = {}  # a value, or the name of a scalar -> the instructions that make it
        number = 0
        for node in nodes:
            if isinstance(node, Let):
                self.writer[node.name] = [i for name in symbols_of(node.value) for i in self.writer.get(name, [])]
            elif isinstance(node, Instruction) and not isa.lookup(node.opcode).registers:
                self.writer[node.result] = self.writer.get(node.operands[0], [])
            elif isinstance(node, (Instruction, LoadScalar)):
                made = node.name if isinstance(node, LoadScalar) else node.scalar or node.result
                self.writer.setdefault(made, []).append(number)
                number += 1
        counts = {"LD": "load", "ST": "store", "MPY": "fma", "SHF": "shift", "PRM": "permute", "SCL": "scalar"}
        self.busy_until = {name: [0] * getattr(machine, f"{field}_pipes") for name, field in counts.items()}
        self.start: dict[int, int] = {}

    def row(self, number: int) -> isa.Instr | None:
        """The instruction's row; None for a scalar load."""
        node = self.nodes[number]
        return isa.lookup(node.opcode) if isinstance(node, Instruction) else None

    def latency(self, number: int) -> int:
        row = self.row(number)
        return row.latency_cycles(self.machine.lanes) if row else SCALAR_LOAD_CYCLES

    def occupancy(self, number: int) -> int:
        row = self.row(number)
        return row.occupancy_cycles(self.machine.lanes) if row else 1

    def operands(self, number: int) -> list[tuple[object, bool]]:
        """What an instruction reads: (value or scalar name, whether it is an early register operand)."""
        node, row = self.nodes[number], self.row(number)
        if row is None:
            return [(name, False) for name in symbols_of(node.address.index)]
        found = []
        for operand, given in zip([o for o in row.operands if o.kind != "status"], node.operands):
            if isinstance(given, V):
                found.append((given, operand.name in row.row.early))
            elif not isinstance(given, float):
                found += [(name, False) for name in symbols_of(given.index if isinstance(given, Addr) else given)]
        return found

    def can_issue(self, packet: list[int], cycle: int) -> bool:
        """Whether every instruction of a packet has its operands at `cycle`, in its order, and the pipes are free."""
        handed_on = set()
        for number in packet:
            for value, is_early in self.operands(number):
                for source in self.writer.get(value, []):
                    if source in packet and source in self.start:
                        raise AssertionError("an instruction is issued twice")
                    if source in packet:
                        if is_early or not isinstance(value, V) or not self.hands_on(source, number):
                            raise Hazard(f"{self.nodes[number]} is in one packet with {self.nodes[source]}")
                        handed_on |= {source} if self.row(source).row.group == "load" else set()
                    elif source not in self.start:
                        raise Hazard(f"{self.nodes[number]} before {self.nodes[source]}")
                    elif cycle < self.start[source] + self.latency(source) + is_early:
                        return False
            if not self.memory_is_ready(number, packet, cycle):
                return False
        if len(handed_on) > 1:
            raise Hazard("two loads hand their values on in one packet")
        return self.pipes_of(packet, cycle) is not None

    def hands_on(self, source: int, consumer: int) -> bool:
        """Whether a value reaches an instruction of the same packet: a load's a computation, a one-cycle computation's a store."""
        maker, taker = self.row(source), self.row(consumer)
        if maker is None or taker is None or self.latency(source) != 1 or self.occupancy(source) != 1:
            return False
        return taker.memory is None if maker.row.group == "load" else taker.row.group == "store"

    def memory_is_ready(self, number: int, packet: list[int], cycle: int) -> bool:
        """A load or store comes after the stores before it that may touch its elements, and a store not before such loads."""
        row = self.row(number)
        if row is None or row.memory is None:
            return True
        for other in range(number):
            earlier = self.row(other)
            if earlier is None or earlier.memory is None or "store" not in (row.row.group, earlier.row.group) or self.are_apart(number, other):
                continue
            wait = self.latency(other) if earlier.row.group == "store" else 0
            at = cycle if other in packet else self.start.get(other)
            if at is None or (other in packet and wait):
                raise Hazard(f"{self.nodes[number]} is not behind {self.nodes[other]}")
            if cycle < at + wait:
                return False
        return True

    def are_apart(self, number: int, other: int) -> bool:
        here, there = (next(o for o in self.nodes[n].operands if isinstance(o, Addr)) for n in (number, other))
        if here.base != there.base:
            return True
        distance = here.index - there.index
        plain = {self.row(number).row.mnemonic, self.row(other).row.mnemonic} <= CONTIGUOUS
        return plain and isinstance(distance, int) and abs(distance) >= self.machine.lanes

    def pipes_of(self, packet: list[int], cycle: int) -> list[tuple[str, int, int]] | None:
        """(pipe, its number, cycles) for every pipe that a packet takes; None where one is not free."""
        if len(packet) > self.machine.issue_width:
            raise Hazard(f"{len(packet)} instructions in a packet")
        if sum(self.row(n) is None or self.row(n).memory is not None for n in packet) > self.machine.address_slots:
            raise Hazard("too many loads and stores in a packet")
        wanted = [(pipe, self.occupancy(n)) for n in packet if self.row(n) for pipe in self.row(n).row.pipe.split("+")]
        taken: list[tuple[str, int, int]] = []
        for pipe, cycles in sorted(wanted, key=lambda want: want[0] == "ANY"):
            names = ("SHF", "PRM", "MPY") if pipe == "ANY" else (pipe,)
            free = [(n, i) for n in names for i, until in enumerate(self.busy_until[n]) if until <= cycle and (n, i) not in {t[:2] for t in taken}]
            if not free:
                return None
            taken.append((*free[0], cycles))
        return taken

    def issue(self, packet: list[int], cycle: int) -> None:
        for name, place, cycles in self.pipes_of(packet, cycle):
            self.busy_until[name][place] = cycle + cycles
        self.start |= dict.fromkeys(packet, cycle)


def replay(nodes, packets: list[list[int]], machine: Machine) -> int:
    """Cycles of a block whose packets issue in order, each as soon as nothing hinders it.

    Raises:
        Hazard: the packets break a rule of the machine, or do not hold every instruction once.
    """
    core = Core(nodes, machine)
    if sorted(n for packet in packets for n in packet) != list(range(len(core.nodes))):
        raise Hazard("not every instruction is in one packet")
    cycle = 0
    for packet in packets:
        first = cycle
        while not core.can_issue(packet, cycle):
            cycle += 1
            if cycle > first + 10_000:
                raise Hazard(f"a packet never issues: {[str(core.nodes[n]) for n in packet]}")
        core.issue(packet, cycle)
        cycle += 1
    return max((start + max(core.latency(n), core.occupancy(n)) for n, start in core.start.items()), default=0)


def kernel_cycles(body, machine: Machine, sizes: dict[str, int], packets_of, known: dict | None = None) -> int:
    """Cycles of a kernel whose loops and branches depend on `sizes` alone: every block is replayed where it is executed.

    Args: packets_of: nodes of a block -> its packets.
    """
    known = {} if known is None else known
    total, run = 0, []

    def value(dim) -> int:
        return int(substitute(dim, sizes))

    def finish() -> int:
        nodes, key = tuple(run), tuple(map(id, run))
        run.clear()
        if key not in known:
            known[key] = replay(nodes, packets_of(nodes), machine) if any(isinstance(n, (Instruction, LoadScalar)) for n in nodes) else 0
        return known[key]

    for node in body:
        if isinstance(node, Loop):
            total += finish()
            for index in range(value(node.begin), value(node.end), value(node.step)):
                total += kernel_cycles(node.body, machine, {**sizes, node.var: index}, packets_of, known)
        elif isinstance(node, If):
            total += finish()
            holds = {"<": int.__lt__, "<=": int.__le__, "==": int.__eq__, "!=": int.__ne__, ">": int.__gt__, ">=": int.__ge__}[node.relation]
            branch = node.body if holds(value(node.lhs), value(node.rhs)) else node.orelse
            total += kernel_cycles(branch, machine, sizes, packets_of, known)
        else:
            run.append(node)
            if isinstance(node, Let):
                sizes = {**sizes, node.name: substitute(node.value, sizes)}
    return total + finish()
