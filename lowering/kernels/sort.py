"""Template "sort": sorts 64-bit keys along the last dim, ascending; a second operand of the same sizes breaks ties and moves along.

A bitonic network: vectors are sorted within registers by permutes, then merged block by block in scratch. Every merge compares
its second half backwards, so all steps order the same way. The steps do not depend on data.

Rows of known length are filled up to a power of two and their stages are written out. Rows of symbolic length end with their last
vector: what would lie behind it sorts last and stays there, so its comparisons are left out; their stages are loops.
"""

from __future__ import annotations

import dataclasses
import itertools

from ...csrc.machine import Machine
from ..build_vector import Builder
from ..index_expr import Dim, floordiv, maximum, minimum, product
from ..kernel_writer import BoundKernel, KernelWriter, PointEmitter, Scratch, Sink
from ..lanes import Lanes
from ..select import expansion
from ..tensor_ir import Buffer, Load, Map, Template
from ..vector_ir import V
from . import template

__all__ = ["SortParams", "TopParams", "suits_top"]

_LAST = 2**63 - 1
_STAGES = 40  # of rows of symbolic length: more vectors than fit any memory


@dataclasses.dataclass(frozen=True)
class SortParams:
    """Arguments of a sort: elements of a row."""

    length: Dim


@dataclasses.dataclass(frozen=True)
class TopParams:
    """Static arguments of a selection: elements of a row, and how many of the smallest are wanted."""

    length: int
    count: int


def suits_top(length: Dim, count: int) -> bool:
    """Whether selecting is better than sorting: the wanted elements are few among many."""
    return isinstance(length, int) and count <= 256 and length >= 16 * max(count, 8)


@expansion("order_key", "sf")
def order_key(b: Builder, x: V, **_) -> V:
    """An i32 that orders as the float does: -0 equals 0, every NaN is the largest."""
    return _order_key(Lanes(b, x), "w", 31)


@expansion("order_key", "df")
def order_key_double(b: Builder, x: V, **_) -> V:
    """An i64 that orders as the float does: -0 equals 0, every NaN is the largest."""
    return _order_key(Lanes(b, x), "d", 63)


def _order_key(x: Lanes, register: str, sign_bit: int) -> V:
    bits = (x + 0.0).bits(register)
    key = bits.op("vxor", bits.op("vsar", sign_bit).op("vand", 2**sign_bit - 1))
    return key.of(2**sign_bit - 1).where(x.b.op(f"vcmpne.{x.type}", x.v, x.v), key).v


@template("sort")
def sort(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine) -> list[BoundKernel]:
    """One kernel that sorts every row; operands are (keys) or (keys, companions)."""
    return [_SortKernel(statement, epilogue, stored, machine.lanes).write()]


class _SortKernel:
    """Writes the kernel; a state is one vector per operand: (keys) or (keys, companions)."""

    def __init__(self, statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], lanes: int):
        self.statement, self.lanes = statement, lanes
        self.w = KernelWriter(lanes)
        self.sink = Sink(self.w, statement, epilogue, stored)
        self.length = statement.params.length
        self.extent = self._extent(self._capacity())
        self.scratch: list[Scratch] = [self.w.scratch("d", self.extent) for _ in statement.operands]

    def _capacity(self) -> Dim:
        """Elements that scratch must hold."""
        return self.length

    def _extent(self, capacity: Dim) -> Dim:
        """Elements that are sorted: `capacity` and what fills it up."""
        if isinstance(capacity, int):
            return max(1 << (capacity - 1).bit_length(), self.lanes)
        return floordiv(capacity, self.lanes) * self.lanes + self.lanes

    def write(self) -> BoundKernel:
        rows = self.statement.domain[:-1]
        self.widths = self._tabulate() if not isinstance(self.extent, int) else None
        self._rows(rows, [])
        n_bits = self.extent.bit_length() if isinstance(self.extent, int) else 10  # estimate: a thousand elements
        points, steps = product(self.statement.domain), n_bits**2 // 2
        n_bytes = points * 16 * len(self.scratch)
        return self.w.finish("sort", f"sort rows of {self.length}", "sort", self.statement.origins, points * steps + self.sink.flops(points), n_bytes, points * steps * 4)

    def _rows(self, sizes: tuple[Dim, ...], coords: list[Dim]) -> None:
        if len(coords) < len(sizes):
            with self.w.loop("i", 0, sizes[len(coords)], parallel=not coords) as scope:
                self._rows(sizes, [*coords, scope.index])
            return
        self._read(coords)
        self._sort_scratch()
        self._write(coords, self.length)

    def _sort_scratch(self) -> None:
        self._sort_vectors()
        if self.widths is not None:
            self._merge_stages()
            return
        block = self.lanes
        while block < self.extent:
            self._merge(block)
            self._clean_from(block // 2)
            block *= 2

    def _merge_stages(self) -> None:
        """The stages of a row of symbolic length."""
        w = self.w
        with w.loop("s", 0, _STAGES) as stage:
            block = self._width(stage.index)
            with w.branch(block, "<", self.extent):
                self._merge(block)
                with w.loop("t", 0, stage.index) as step:
                    self._clean(self._width(stage.index - 1 - step.index))
                self._clean_vectors()

    def _tabulate(self) -> Scratch:
        """The widths of blocks, stage by stage: scalars that double."""
        w, table = self.w, self.w.scratch("d", _STAGES)
        for stage in range(_STAGES):
            w.op("vst1.d", w.addr(table, stage, write=True), w.op("vsplat.d", self.lanes << stage))
        return table

    def _width(self, stage: Dim) -> Dim:
        return self.w.load_scalar(self.w.addr(self.widths, stage), "d")

    # Memory

    def _vectors(self, length: Dim):
        """(first element, lanes that exist or None) of the vectors of a row."""
        whole = floordiv(length, self.lanes) * self.lanes
        return whole, (self.w.op("qtail.q", length - whole) if whole != length else None)

    def _read(self, coords: list[Dim]) -> None:
        """Copies a row into scratch and fills up with keys that sort last."""
        w, (whole, tail) = self.w, self._vectors(self.length)
        last = w.op("vsplat.d", _LAST)
        for operand, scratch in zip(self.statement.operands, self.scratch):
            base = w.let(_row(operand, coords))
            if whole != 0:
                with w.loop("c", 0, whole, self.lanes) as scope:
                    self._store(scratch, scope.index, w.op("vld.d", w.addr(operand.buffer, base + scope.index)))
            if tail is not None:
                value = w.op("vldq.d", tail, w.addr(operand.buffer, base + whole))
                self._store(scratch, whole, w.op("vmux.d", tail, value, last))
            filled = whole + (self.lanes if tail is not None else 0)
            if filled != self.extent:
                with w.loop("c", filled, self.extent, self.lanes) as scope:
                    self._store(scratch, scope.index, last)

    def _write(self, coords: list[Dim], length: Dim) -> None:
        w, (whole, tail) = self.w, self._vectors(length)
        if whole != 0:
            with w.loop("c", 0, whole, self.lanes) as scope:
                self._write_vector(coords, scope.index, None)
        if tail is not None:
            self._write_vector(coords, whole, tail)

    def _write_vector(self, coords: list[Dim], position: Dim, mask: V | None) -> None:
        """The first output goes through the sink, with its epilogue; a second one is stored as it is."""
        where, state = [*coords, position], self._load_state(position)
        self.sink.put(where, len(coords), state[0], mask)
        for target, value in zip(self.statement.outputs[1:], state[1:]):
            PointEmitter(self.w, where, len(coords), mask).store(target, value)

    def _load(self, scratch: Scratch, position: Dim) -> V:
        return self.w.op("vld.d", self.w.addr(scratch, position))

    def _store(self, scratch: Scratch, position: Dim, value: V) -> None:
        self.w.op("vst.d", self.w.addr(scratch, position, write=True), value)

    def _load_state(self, position: Dim) -> list[V]:
        return [self._load(scratch, position) for scratch in self.scratch]

    def _store_state(self, position: Dim, state: list[V]) -> None:
        for scratch, value in zip(self.scratch, state):
            self._store(scratch, position, value)

    # Comparisons

    def _ordered(self, a: list[V], c: list[V]) -> tuple[list[V], list[V]]:
        """(smaller, larger) of two states, lane by lane."""
        w = self.w
        if len(a) == 1:
            return [w.op("vmin.d", a[0], c[0])], [w.op("vmax.d", a[0], c[0])]
        is_less = self._is_less(a, c)
        return [w.op("vmux.d", is_less, x, y) for x, y in zip(a, c)], [w.op("vmux.d", is_less, y, x) for x, y in zip(a, c)]

    def _is_less(self, a: list[V], c: list[V]) -> V:
        w = self.w
        tied = w.op("qand.q", w.op("vcmpeq.d", a[0], c[0]), w.op("vcmple.d", a[1], c[1]))
        return w.op("qor.q", w.op("vcmplt.d", a[0], c[0]), tied)

    def _within(self, state: list[V], partner: int, bit: int) -> list[V]:
        """Orders lanes i and i xor partner: the one without `bit` keeps the smaller."""
        w = self.w
        lane = w.op("viota.w")
        index = w.op("vxor.w", lane, w.op("vsplat.w", partner))
        other = [w.op("vperm.d", value, index) for value in state]
        small, large = self._ordered(state, other)
        is_low = w.op("vcmpeq.w", w.op("vand.w", lane, w.op("vsplat.w", bit)), w.op("vsplat.w", 0))
        return [w.op("vmux.d", is_low, s, g) for s, g in zip(small, large)]

    def _reversed(self, state: list[V]) -> list[V]:
        w = self.w
        index = w.op("vsub.w", w.op("vsplat.w", self.lanes - 1), w.op("viota.w"))
        return [w.op("vperm.d", value, index) for value in state]

    # Stages

    def _halve(self, state: list[V], first: int) -> list[V]:
        """The half-cleaners of distance first, first / 2, … 1 within a vector."""
        distance = first
        while distance:
            state = self._within(state, distance, distance)
            distance //= 2
        return state

    def _sort_vectors(self) -> None:
        """Sorts every vector of the scratch by itself."""
        with self.w.loop("c", 0, self.extent, self.lanes) as scope:
            state = self._load_state(scope.index)
            for bit in itertools.takewhile(lambda b: b < self.lanes, (1 << i for i in itertools.count())):
                state = self._halve(self._within(state, 2 * bit - 1, bit), bit // 2)
            self._store_state(scope.index, state)

    def _merge(self, block: Dim) -> None:
        """Compares pairs of sorted blocks of `block` elements, the second backwards: afterwards no element of the first is larger than one of the second."""
        w = self.w
        with w.loop("b", 0, self.extent, 2 * block) as base:
            with w.loop("c", self._first_compared(base.index, block), block, self.lanes) as scope:
                low, high = base.index + scope.index, base.index + (2 * block - self.lanes) - scope.index
                small, large = self._ordered(self._load_state(low), self._reversed(self._load_state(high)))
                self._store_state(low, small)
                self._store_state(high, self._reversed(large))

    def _first_compared(self, base: Dim, block: Dim) -> Dim:
        """Where the blocks' vectors begin whose partner exists."""
        return 0 if self.widths is None else maximum(base + 2 * block - self.extent, 0)

    def _clean_from(self, distance: int) -> None:
        """All half-cleaners from `distance` down."""
        while distance >= self.lanes:
            self._clean(distance)
            distance //= 2
        self._clean_vectors()

    def _clean_vectors(self) -> None:
        """The half-cleaners within vectors."""
        with self.w.loop("c", 0, self.extent, self.lanes) as scope:
            self._store_state(scope.index, self._halve(self._load_state(scope.index), self.lanes // 2))

    def _clean(self, distance: Dim) -> None:
        w = self.w
        with w.loop("b", 0, self.extent, 2 * distance) as base:
            end = distance if self.widths is None else minimum(distance, self.extent - distance - base.index)
            with w.loop("c", 0, end, self.lanes) as scope:
                low = base.index + scope.index
                small, large = self._ordered(self._load_state(low), self._load_state(low + distance))
                self._store_state(low, small)
                self._store_state(low + distance, large)


@template("top")
def top(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine) -> list[BoundKernel]:
    """One kernel that writes the smallest keys of every row in order; the operand is (keys)."""
    return [_TopKernel(statement, epilogue, stored, machine.lanes).write()]


class _TopKernel(_SortKernel):
    """Keeps the best so far sorted; a block of the row is sorted and merged with them only if it holds a better one."""

    def _capacity(self) -> int:
        return self.statement.params.count

    def _rows(self, sizes: tuple[Dim, ...], coords: list[Dim]) -> None:
        if len(coords) < len(sizes):
            super()._rows(sizes, coords)
            return
        w, count = self.w, self.statement.params.count
        self.block, self.best = self.scratch, [w.scratch("d", self.extent)]
        with w.loop("c", 0, self.extent, self.lanes) as scope:
            self._store(self.best[0], scope.index, w.op("vsplat.d", _LAST))
        (operand,) = self.statement.operands
        base, whole = w.let(_row(operand, coords)), self.length // self.extent * self.extent
        with w.loop("e", 0, whole, self.extent) as scope:
            self._take(operand, base + scope.index, self.extent)
        if whole != self.length:
            self._take(operand, base + whole, self.length - whole)
        self.scratch = self.best
        self._write(coords, count)
        self.scratch = self.block

    def _take(self, operand: Load, first: Dim, length: int) -> None:
        """Copies `length` elements to the block, and merges it if one of them is better than the worst kept."""
        w, (whole, tail) = self.w, self._vectors(length)
        worst = w.op("vldx.d", w.addr(self.best[0], self.statement.params.count - 1))
        is_better = w.op("qfalse.q")
        if whole:
            with w.loop("c", 0, whole, self.lanes, carried=(is_better,)) as scope:
                value = w.op("vld.d", w.addr(operand.buffer, first + scope.index))
                self._store(self.block[0], scope.index, value)
                scope.next = (w.op("qor.q", scope.values[0], w.op("vcmplt.d", value, worst)),)
            is_better = scope.results[0]
        if tail is not None:
            value = w.op("vmux.d", tail, w.op("vldq.d", tail, w.addr(operand.buffer, first + whole)), w.op("vsplat.d", _LAST))
            self._store(self.block[0], whole, value)
            is_better = w.op("qor.q", is_better, w.op("vcmplt.d", value, worst))
        filled = whole + (self.lanes if tail is not None else 0)
        with w.branch(w.any(is_better), "!=", 0):
            if filled < self.extent:
                with w.loop("c", filled, self.extent, self.lanes) as scope:
                    self._store(self.block[0], scope.index, w.op("vsplat.d", _LAST))
            self._merge_block()

    def _merge_block(self) -> None:
        """The best of block and best, sorted."""
        w = self.w
        self.scratch = self.block
        self._sort_scratch()
        with w.loop("c", 0, self.extent, self.lanes) as scope:
            other = self._reversed([self._load(self.block[0], (self.extent - self.lanes) - scope.index)])
            self._store(self.best[0], scope.index, w.op("vmin.d", self._load(self.best[0], scope.index), other[0]))
        self.scratch = self.best
        self._clean_from(self.extent // 2)
        self.scratch = self.block


def _row(place: Load, coords: list[Dim]) -> Dim:
    """Offset of a row; rows are contiguous."""
    assert place.strides[-1] == 1, "rows to sort are contiguous"
    return place.offset + sum((c * s for c, s in zip(coords, place.strides)), 0)
