"""The dependence graph of a basic block: what is issued, on which pipes, and what waits for what.

Straight-line VectorProgram nodes -> BlockGraph, for lowering/packets.py. Latencies are those of csrc/isa.py: an operand that the
row names as early needs its value one cycle sooner (HVX PRM v65, section 4.6). Within a packet a value is handed on in two ways,
as HVX does it: a load to a late operand of a computation (`.cur`), and a one-cycle computation to a store (`.new`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ..csrc import isa
from .index_expr import symbols_of
from .vector_ir import Addr, Instruction, Let, LoadScalar, V

__all__ = ["SCALAR_LOAD_LATENCY", "BlockGraph", "Edge", "Issue", "block_graph"]

SCALAR_LOAD_LATENCY = 3  # estimate: cycles of a scalar load that hits the first-level cache

_CONTIGUOUS = ("vld", "vldq", "vldx", "vst", "vstq", "vst1")


@dataclasses.dataclass(frozen=True)
class Issue:
    """One instruction as the machine sees it.

    Attributes:
        text: what it is, for people.
        pipes: "LD", "ST", "MPY", "SHF", "PRM", "SCL", or "ANY" for one of MPY, SHF, PRM; all are held at once. A scalar load has none.
        occupancy: cycles for which it holds them.
        latency: cycles until a late operand of another packet may take its result.
        is_memory: it takes an address slot.
    """

    text: str
    pipes: tuple[str, ...]
    occupancy: int = 1
    latency: int = 1
    is_memory: bool = False

    @property
    def cycles(self) -> int:
        """Cycles from its issue until nothing of it is under way."""
        return max(self.latency, self.occupancy)


@dataclasses.dataclass(frozen=True)
class Edge:
    """`producer` (an index) must issue `latency` cycles before; with `forward` ("cur" or "new") the same packet will do, too."""

    producer: int
    latency: int
    forward: str = ""


@dataclasses.dataclass(frozen=True)
class BlockGraph:
    """Instructions in program order; `edges[i]` are those that instruction i waits for, all earlier ones.

    `carried` are the waits across iterations of the loop whose body this is: (producer, consumer, latency).
    """

    issues: tuple[Issue, ...]
    edges: tuple[tuple[Edge, ...], ...]
    carried: tuple[tuple[int, int, int], ...] = ()


def block_graph(nodes: Sequence, lanes: int, carried: Mapping[V, V] | None = None) -> BlockGraph:
    """The graph of a straight-line run of nodes (Instruction, LoadScalar, Let; others are passed over).

    Args: lanes: the machine's.   carried: where the run is a whole loop body, each carried value's `inside` -> its `next`.
    """
    writer = _Writer(lanes)
    for node in nodes:
        if isinstance(node, Let):
            writer.scalar_sources[node.name] = writer.scalar_producers(symbols_of(node.value))
        elif isinstance(node, LoadScalar):
            writer.load_scalar(node)
        elif isinstance(node, Instruction):
            writer.instruction(node)
    return writer.finish(carried or {})


class _Writer:
    """Collects the instructions of a block and finds what each waits for."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        self.issues: list[Issue] = []
        self.edges: list[tuple[Edge, ...]] = []
        self.rows: list[isa.Instr | None] = []
        self.producer: dict[V, int] = {}
        self.scalar_sources: dict[str, frozenset[int]] = {}
        self.same: dict[V, V] = {}  # reinterpretations, which issue nothing
        self.uses: list[tuple[V, int, bool]] = []
        self.memory: list[tuple[int, Instruction, isa.Instr]] = []

    def scalar_producers(self, names) -> frozenset[int]:
        """The instructions that the scalars `names` are computed from."""
        return frozenset().union(*(self.scalar_sources.get(name, ()) for name in names))

    def load_scalar(self, node: LoadScalar) -> None:
        waits = [Edge(p, self.issues[p].latency) for p in sorted(self.scalar_producers(symbols_of(node.address.index)))]
        self.scalar_sources[node.name] = frozenset({len(self.issues)})
        self._append(Issue(str(node), (), latency=SCALAR_LOAD_LATENCY, is_memory=True), waits, None)

    def instruction(self, node: Instruction) -> None:
        row = isa.lookup(node.opcode)
        if not row.registers:
            self.same[node.result] = self._origin(node.operands[0])
            return
        number = len(self.issues)
        names = [operand.name for operand in row.operands if operand.kind != "status"]
        waits = []
        for name, operand in zip(names, node.operands):
            waits += self._waits(row, number, operand, name in row.row.early)
        if row.memory:
            waits += self._memory_waits(number, node, row)
        pipes = tuple(row.row.pipe.split("+"))
        issue = Issue(str(node), pipes, row.occupancy_cycles(self.lanes), row.latency_cycles(self.lanes), row.memory is not None)
        self._append(issue, waits, row)
        if node.result is not None:
            self.producer[node.result] = number
        if node.scalar is not None:
            self.scalar_sources[node.scalar] = frozenset({number})

    def finish(self, carried: Mapping[V, V]) -> BlockGraph:
        across = []
        ends = {self._origin(inside): self._origin(following) for inside, following in carried.items()}
        for value, consumer, is_early in self.uses:
            if (start := self.producer.get(ends.get(value))) is not None:
                across.append((start, consumer, self.issues[start].latency + is_early))
        return BlockGraph(tuple(self.issues), tuple(self.edges), tuple(dict.fromkeys(across)))

    def _append(self, issue: Issue, waits: Sequence[Edge], row: isa.Instr | None) -> None:
        longest: dict[int, Edge] = {}
        for edge in waits:
            known = longest.get(edge.producer)
            if known is None or (edge.latency, not edge.forward) > (known.latency, not known.forward):
                longest[edge.producer] = edge
        self.issues.append(issue)
        self.rows.append(row)
        self.edges.append(tuple(longest.values()))

    def _origin(self, value: V) -> V:
        while value in self.same:
            value = self.same[value]
        return value

    def _waits(self, row: isa.Instr, number: int, operand, is_early: bool) -> list[Edge]:
        if isinstance(operand, V):
            value = self._origin(operand)
            if value not in self.producer:
                self.uses.append((value, number, is_early))
                return []
            start = self.producer[value]
            return [Edge(start, self.issues[start].latency + is_early, "" if is_early else self._forward(start, row))]
        index = operand.index if isinstance(operand, Addr) else operand
        names = () if isinstance(index, float) else symbols_of(index)
        return [Edge(p, self.issues[p].latency) for p in sorted(self.scalar_producers(names))]

    def _forward(self, start: int, row: isa.Instr) -> str:
        """How the result of instruction `start` may reach a late operand of `row` within one packet, "" if not at all."""
        issue, source = self.issues[start], self.rows[start]
        if issue.latency != 1 or issue.occupancy != 1 or source is None:
            return ""
        if row.row.group == "store":
            return "new" if source.row.group != "load" else ""
        return "cur" if source.row.group == "load" and row.memory is None else ""

    def _memory_waits(self, number: int, node: Instruction, row: isa.Instr) -> list[Edge]:
        """Loads and stores of one buffer keep their order, unless both are contiguous and apart."""
        is_store = row.row.group == "store"
        waits = []
        for other, other_node, other_row in self.memory:
            stores = other_row.row.group == "store"
            if (is_store or stores) and not _apart(node, row, other_node, other_row, self.lanes):
                waits.append(Edge(other, self.issues[other].latency if stores else 0))
        self.memory.append((number, node, row))
        return waits


def _address(node: Instruction) -> Addr:
    return next(operand for operand in node.operands if isinstance(operand, Addr))


def _apart(node: Instruction, row: isa.Instr, other: Instruction, other_row: isa.Instr, lanes: int) -> bool:
    """Whether two accesses are known to touch different elements."""
    here, there = _address(node), _address(other)
    if here.base != there.base:
        return True
    distance = here.index - there.index
    contiguous = row.row.mnemonic in _CONTIGUOUS and other_row.row.mnemonic in _CONTIGUOUS
    return contiguous and isinstance(distance, int) and abs(distance) >= lanes
