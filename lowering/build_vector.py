"""Builder: writes the body of a Kernel instruction by instruction, with value numbering inside each region.

Two equal pure instructions in the same or an enclosing region are one; loads are not merged across a store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from ..csrc import isa
from .index_expr import Dim, IndexExpr, symbol, symbols_of
from .vector_ir import Addr, Carried, If, Instruction, Let, LoadScalar, Loop, V

__all__ = ["Builder"]

_READS_MEMORY = ("vld", "vgather")
_IMPURE = ("vst", "vscatter", "qtrap")


class Builder:
    """Collects the nodes of a kernel body; `lanes` is the machine's."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        self._regions: list[list] = [[]]
        self._known: list[dict] = [{}]
        self._count = 0

    @property
    def body(self) -> tuple:
        """What has been written at the outermost level."""
        assert len(self._regions) == 1, "a loop or branch is still open"
        return tuple(self._regions[0])

    def name(self, prefix: str) -> str:
        """A name that no other value of this kernel has, nor a size: those are called s0, u0, … by torch."""
        self._count += 1
        return f"{prefix}_{self._count}" if prefix in ("s", "u") else f"{prefix}{self._count}"

    def op(self, opcode: str, *operands) -> V | None:
        """Appends `opcode operands` and returns its result, or the earlier equal instruction's."""
        row = isa.lookup(opcode)
        pure = not opcode.startswith(_IMPURE)
        key = (opcode, operands)
        if pure:
            for known in self._known:
                if key in known:
                    return known[key]
        result = V(self.name("v"), row.result) if row.result else None
        self._regions[-1].append(Instruction(opcode, operands, result))
        if pure:
            self._known[-1][key] = result
        else:
            self._forget_loads()
        return result

    def _forget_loads(self):
        for known in self._known:
            for key in [k for k in known if k[0].startswith(_READS_MEMORY)]:
                del known[key]

    def let(self, value: Dim, prefix: str = "i") -> Dim:
        """Names a scalar; ints and single names stay as they are."""
        if not isinstance(value, IndexExpr) or (len(value.terms) == 1 and value.terms[0][1] == 1 and len(value.terms[0][0]) == 1 and isinstance(value.terms[0][0][0], str)):
            return value
        for known in self._known:
            if ("let", value) in known:
                return known["let", value]
        name = self.name(prefix)
        self._regions[-1].append(Let(name, value))
        self._known[-1]["let", value] = symbol(name)
        return symbol(name)

    def load_scalar(self, address: Addr, memory_type: str, bound: Dim | None = None, counts_from_end: bool = False) -> Dim:
        """A scalar load of an integer, see LoadScalar."""
        key = ("ld", address, bound, counts_from_end)
        for known in self._known:
            if key in known:
                return known[key]
        name = self.name("s")
        self._regions[-1].append(LoadScalar(name, address, memory_type, bound, counts_from_end))
        self._known[-1][key] = symbol(name)
        return symbol(name)

    def any(self, predicate: V) -> Dim:
        """A scalar: 1 where a lane of `predicate` is set, else 0. As the end of a loop it runs a rare path once or not at all."""
        name = self.name("s")
        self._regions[-1].append(Instruction("qany.q", (predicate,), None, name))
        return symbol(name)

    def interleave(self, strands: Sequence[Callable[[], None]]) -> None:
        """What the strands write, a node of each in turn, so that their chains of instructions wait for operands side by side.

        No strand may read what another one stores. Strands with loops or branches stay one behind the other.
        """
        region = self._regions[-1]
        start, parts = len(region), []
        for strand in strands:
            first = len(region)
            strand()
            parts.append(region[first:])
        if len(parts) > 1 and all(isinstance(node, (Instruction, Let, LoadScalar)) for part in parts for node in part):
            region[start:] = _in_turn(parts)

    def append(self, node) -> None:
        """Appends a node as it is (Barrier)."""
        self._regions[-1].append(node)

    @contextlib.contextmanager
    def region(self):
        """Collects what is written inside into the list that the context gives."""
        collected: list = []
        self._regions.append(collected)
        self._known.append({})
        # A region may run after stores of its own: loads known outside may not be reused in it.
        hidden = [{k: known[k] for k in known if isinstance(k[0], str) and k[0].startswith(_READS_MEMORY)} for known in self._known]
        self._forget_loads()
        try:
            yield collected
        finally:
            self._regions.pop()
            self._known.pop()
            stored = any(isinstance(n, Instruction) and n.opcode.startswith(_IMPURE) for n in _flat(collected))
            if not stored:
                for known, loads in zip(self._known, hidden):
                    known.update(loads)

    @contextlib.contextmanager
    def loop(self, var: str, begin: Dim, end: Dim, step: Dim = 1, *, carried: tuple[V, ...] = (), parallel: bool = False, unroll: int = 1):
        """A loop; gives a LoopScope with `.index` and, for each initial value in `carried`, `.values`; set `.next` before the end.

        After the loop `.results` are the carried values' last state.
        """
        name = self.name(var)
        inside = tuple(V(self.name("a"), v.type) for v in carried)
        scope = LoopScope(symbol(name), inside)
        with self.region() as body:
            yield scope
        assert len(scope.next) == len(carried), "a loop must set .next for what it carries"
        rows = tuple(Carried(i, v, n) for i, v, n in zip(inside, carried, scope.next))
        self._regions[-1].append(Loop(name, begin, end, step, tuple(body), rows, parallel, unroll))

    @contextlib.contextmanager
    def branch(self, lhs: Dim, relation: str, rhs: Dim):
        """The body of an If without else."""
        with self.region() as body:
            yield
        self._regions[-1].append(If(lhs, relation, rhs, tuple(body)))


class LoopScope:
    """What a loop's body sees: `index`, carried `values`; the body sets `next`. `results` are valid after the loop."""

    def __init__(self, index: IndexExpr, values: tuple[V, ...]):
        self.index = index
        self.values = values
        self.next: tuple[V, ...] = ()

    @property
    def results(self) -> tuple[V, ...]:
        return self.values


def _flat(body):
    for node in body:
        yield node
        if isinstance(node, Loop):
            yield from _flat(node.body)
        elif isinstance(node, If):
            yield from _flat(node.body)
            yield from _flat(node.orelse)


def _in_turn(parts: list[list]) -> Iterator:
    """The nodes of the parts in turn; one that needs a value of another part, which value numbering has shared, waits for it."""
    queues = [list(reversed(part)) for part in parts]
    pending = {_defined(node) for part in parts for node in part} - {None}
    while any(queues):
        for queue in queues:
            if queue and not _used(queue[-1]) & pending:
                node = queue.pop()
                pending.discard(_defined(node))
                yield node


def _defined(node: Instruction | Let | LoadScalar) -> str | None:
    if isinstance(node, Instruction):
        return node.result.name if node.result else node.scalar
    return node.name


def _used(node: Instruction | Let | LoadScalar) -> set[str]:
    operands = node.operands if isinstance(node, Instruction) else (node.value,) if isinstance(node, Let) else (node.address, node.bound)
    names: set[str] = set()
    for operand in operands:
        if isinstance(operand, V):
            names.add(operand.name)
        elif isinstance(operand, (Addr, IndexExpr)):
            names |= symbols_of(operand.index if isinstance(operand, Addr) else operand)
    return names
