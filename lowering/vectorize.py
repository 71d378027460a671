"""Schedule -> VectorProgram for groups of Maps and Reduces: loop order, vector axis, phases over a row, tails by predicate.

A group without a row is one loop nest. A group with a row runs phases: each phase is a pass over the row that computes Maps and
accumulates Reduces; what a later phase needs of an earlier one per element is kept in row scratch unless it is stored anyway. The vector axis lies in the
row (lanes are combined at the end of a phase) or among the outer axes (every lane reduces for itself). Maps that read operands across the vector axis
run block by block (transposed_tiles.py).
"""

from __future__ import annotations

import functools

from .accumulate import Accumulator
from .axis_order import collapse, in_memory_order, is_outer_level
from .fuse import Group
from .index_expr import Dim, floordiv, minimum, product
from .kernel_writer import BoundKernel, KernelWriter, PointEmitter, Scratch
from .tensor_ir import Buffer, Gather, Load, Op, Reduce, Statement, leaves, reads, walk
from .transposed_tiles import TileWriter, find_transposed
from .values import EXPENSIVE, length_of
from .vector_ir import MEMORY_TYPE, V
from ..csrc.abi import DTYPE_BYTES

__all__ = ["lower_group"]

UNROLLED_OPERATORS = 24  # a phase with fewer operators is unrolled over independent accumulators
UNROLL = 4
# Columns that a pass over rows takes side by side: short vectors are doubled where few operators leave them the registers. Measured on AVX2:
# column sums of 8192 x 1024 take 1.40 ms instead of 2.24. How few is an estimate.
COLUMNS = 64
FEW_OPERATORS = 12
# Steps of a sum in one accumulator before it is added to that of all: the rounding error grows with the square root of the sum of both numbers.
BLOCK_STEPS = 128
# Elementary functions are long chains of dependent instructions: two vectors side by side hide half of their latency (measured:
# softplus of 1 M elements 0.88 ms instead of 1.17). Bounded for compile time; the bound is an estimate.
CHAINS = 2
MAX_CHAIN_LENGTH = 192


def lower_group(group: Group, name: str, lanes: int) -> BoundKernel:
    """The kernel of a "map" or "rows" group for a machine with `lanes` lanes."""
    return _GroupLowering(collapse(in_memory_order(group)), name, lanes).kernel()


class _GroupLowering:
    """Writes one group; `coords` maps an axis to its scalar index."""

    def __init__(self, group: Group, name: str, lanes: int):
        self.transposed = find_transposed(group, lanes)
        self.group, self.name, self.lanes = self.transposed.group if self.transposed else group, name, lanes
        self.sizes = group.outer + group.row
        self.n_outer = len(group.outer)
        self.w = KernelWriter(lanes)
        self.vector = self.transposed.vector if self.transposed else self._vector_axis()
        self.phase = _phases(self.group)
        self.n_phases = 1 + max(self.phase.values(), default=0)
        self.kept: dict[Buffer, Scratch] = {}
        self.is_parallel_open = True

    # What the kernel is

    def kernel(self) -> BoundKernel:
        order = [a for a in range(self.n_outer) if a != self.vector and not (self.transposed and a == self.transposed.along)]
        if self.transposed:
            self._outer_loops(self._widest_first(order), {}, self._transposed_blocks)
        elif self.vector is not None and self.vector < self.n_outer:
            self._outer_loops(self._widest_first(order), {}, self._vector_points)
        else:
            self._outer_loops(self._widest_first(order), {}, lambda coords: self._rows(coords, {}, None))
        flops, bytes_, work = _work(self.group)
        title = f"{self.group.kind}: {', '.join(self.group.origins)}"
        return self.w.finish(self.name, title, self.group.kind, self.group.origins, flops, bytes_, work)

    def _vector_axis(self) -> int | None:
        """The axis that most accesses walk with stride 1; row axes win ties, the innermost otherwise."""
        candidates = [a for a, size in enumerate(self.sizes) if size != 1]
        if not candidates:
            return None
        score = dict.fromkeys(candidates, 0.0)
        for strides, weight in self._point_accesses():
            for a in candidates:
                if strides[a] == 1:
                    score[a] += weight
        for a in candidates:
            size = self.sizes[a]
            if isinstance(size, int) and size < self.lanes:
                score[a] *= size / self.lanes
        return max(candidates, key=lambda a: (score[a], a))

    def _point_accesses(self) -> list[tuple[tuple[Dim, ...], float]]:
        """The accesses that touch memory at every point of the loops; what a row touches once, or registers hold, decides nothing.

        Tables, which are read again along some axis, count little: they stay near, and lanes that share an element are no loss.
        """
        inside = {t.buffer for s in self.group.statements for t in s.targets()}
        rows = []
        for s in self.group.statements:
            reads = [leaf for leaf in leaves(*s.expressions()) if isinstance(leaf, (Load, Gather)) and leaf.buffer not in inside]
            rows += [(leaf.strides, 0.25 if isinstance(leaf, Load) and self._is_table(leaf.strides) else 1) for leaf in reads]
            rows += [(t.strides, 2) for t in s.targets() if t.buffer in self.group.stored]
        full = [(strides, weight) for strides, weight in rows if len(strides) == len(self.sizes)]
        return [(strides, weight if not self.group.row or any(st != 0 for st in strides[self.n_outer:]) else 0.25) for strides, weight in full]

    def _is_table(self, strides: tuple[Dim, ...]) -> bool:
        return any(stride == 0 and size != 1 for stride, size in zip(strides, self.sizes))

    def _widest_first(self, axes: list[int]) -> list[int]:
        """`axes` with one that has work for every context in front."""
        if axes and isinstance(self.sizes[axes[0]], int) and self.sizes[axes[0]] < 4:
            wide = next((a for a in axes if not isinstance(self.sizes[a], int) or self.sizes[a] >= 4), None)
            if wide is not None:
                return [wide] + [a for a in axes if a != wide]
        return axes

    # Loops

    def _outer_loops(self, axes: list[int], coords: dict[int, Dim], body) -> None:
        if not axes:
            body(coords)
            return
        parallel, self.is_parallel_open = self.is_parallel_open, False
        with self.w.loop("i", 0, self.sizes[axes[0]], parallel=parallel) as scope:
            self._outer_loops(axes[1:], {**coords, axes[0]: scope.index}, body)

    def _vector_points(self, coords: dict[int, Dim]) -> None:
        """The vector axis lies among the outer axes: a vector of points at a time runs the whole row.

        Where its loops are the outermost, each of them is shared among the contexts: a point that two of them computed would be changed twice where
        a kernel writes in place.
        """
        size, unroll = self.sizes[self.vector], self._column_unroll
        parallel, self.is_parallel_open = self.is_parallel_open, False
        begin: Dim = 0
        for count in (unroll, 1) if unroll > 1 else (1,):
            step = count * self.lanes
            end = floordiv(size, step) * step
            if begin != end:
                with self.w.loop("i", begin, end, step, parallel=parallel) as scope:
                    self._rows(coords, {self.vector: scope.index}, None, count)
            begin = end
        if begin != size:
            with self.w.loop("i", begin, size, self.lanes, parallel=parallel) as scope:
                mask = self.w.op("qtail.q", size - scope.index)
                self._rows(coords, {self.vector: scope.index}, mask)

    def _transposed_blocks(self, coords: dict[int, Dim]) -> None:
        """Blocks of the vector axis and the one that transposed operands lie along."""
        parallel, self.is_parallel_open = self.is_parallel_open, False
        tiles = TileWriter(self.w, self.transposed, lambda at, mask, values: self._point(self.group.statements, [], at, mask, values, []))
        tiles.write(coords, parallel)

    @functools.cached_property
    def _column_unroll(self) -> int:
        """Vectors of columns that a pass over the rows takes side by side."""
        if self.vector is None:
            return 1
        size = self.sizes[self.vector]
        if not isinstance(size, int) or size < UNROLL * self.lanes:
            return 1
        if not self.group.row:
            return self._chains(self.group.statements)
        operators = sum(1 for s in self.group.statements for e in walk(*s.expressions()) if isinstance(e, Op))
        if operators <= FEW_OPERATORS and size >= 2 * UNROLL * self.lanes and self.lanes < COLUMNS // UNROLL:
            return 2 * UNROLL
        return UNROLL if operators <= UNROLLED_OPERATORS else 1

    def _chains(self, statements) -> int:
        """Vectors whose elementary functions run side by side."""
        lengths = [length_of(e.name) for s in statements for e in walk(*s.expressions()) if isinstance(e, Op)]
        return CHAINS if max(lengths, default=0) > 1 and sum(lengths) <= MAX_CHAIN_LENGTH else 1

    # Rows

    def _rows(self, coords: dict[int, Dim], vector: dict[int, Dim], mask: V | None, unroll: int = 1) -> None:
        """All phases for one outer point, or for `unroll` vectors of outer points."""
        points = [{**coords, **{a: v + u * self.lanes for a, v in vector.items()}} for u in range(unroll)]
        registers: list[dict[Buffer, V]] = [{} for _ in points]
        for phase in range(self.n_phases):
            self._phase(phase, points, mask, registers)

    def _phase(self, phase: int, points, mask, registers) -> None:
        full = [s for s in self.group.statements if self.phase[s] == phase and not is_outer_level(s, self.group)]
        row_axes = [a for a in range(self.n_outer, len(self.sizes)) if a != self.vector]
        in_row = self.vector is not None and self.vector >= self.n_outer
        reduces = [s for s in full if isinstance(s, Reduce)]
        copies = self._row_unroll(full, bool(reduces)) if in_row else 1
        lanes_of = [Accumulator(self.w, s.op, s.expr.dtype) for s in reduces]
        initial = [[a.initial() for a in lanes_of] for _ in range(max(len(points), copies))]
        carried = tuple(v for group in initial for acc in group for v in acc)

        def at_row(row: dict[int, Dim], values: tuple[V, ...]) -> tuple[V, ...]:
            if in_row:
                return self._row_vectors(full, lanes_of, points[0], row, registers[0], values, copies)
            return self._columns(full, lanes_of, points, row, mask, registers, values)

        finals = self._nest(row_axes, {}, carried, at_row, lanes_of) if full else carried
        self._finish(phase, points, mask, registers, reduces, lanes_of, finals, in_row, copies)

    def _nest(self, axes, row, carried, leaf, accumulators):
        if not axes:
            return leaf(row, carried)

        def inner(index: Dim, values: tuple[V, ...]) -> tuple[V, ...]:
            return self._nest(axes[1:], {**row, axes[0]: index}, values, leaf, accumulators)

        return self._accumulate("r", 0, self.sizes[axes[0]], 1, carried, inner, accumulators)

    def _accumulate(self, name: str, begin: Dim, end: Dim, step: int, carried: tuple[V, ...], body, accumulators) -> tuple[V, ...]:
        """A loop of body(index, values) -> values; long sums run in blocks that start from nothing."""
        length = end - begin
        is_long = isinstance(length, int) and length > 4 * BLOCK_STEPS * step and any(a.rounds for a in accumulators)
        if not is_long:
            with self.w.loop(name, begin, end, step, carried=carried) as scope:
                scope.next = body(scope.index, scope.values)
            return scope.results
        block = BLOCK_STEPS * step
        copies = len(carried) // sum(a.width for a in accumulators)
        fresh = tuple(v for _ in range(copies) for a in accumulators for v in a.initial())
        with self.w.loop("b", begin, end, block, carried=carried) as blocks:
            stop = blocks.index + block if length % block == 0 else self.w.let(minimum(blocks.index + block, end))
            sums = self._accumulate(name, blocks.index, stop, step, fresh, body, ())
            blocks.next = self._merged(accumulators, copies, blocks.values, sums)
        return blocks.results

    def _merged(self, accumulators, copies: int, totals: tuple[V, ...], sums: tuple[V, ...]) -> tuple[V, ...]:
        merged, position = [], 0
        for accumulator in list(accumulators) * copies:
            part = slice(position, position + accumulator.width)
            merged += accumulator.merge(list(totals[part]), list(sums[part]))
            position += accumulator.width
        return tuple(merged)

    def _row_unroll(self, full, has_reduces: bool) -> int:
        size = self.sizes[self.vector]
        if isinstance(size, int) and size < UNROLL * self.lanes:
            return 1
        operators = sum(1 for s in full for e in walk(*s.expressions()) if isinstance(e, Op))
        return UNROLL if has_reduces and operators <= UNROLLED_OPERATORS else self._chains(full)

    def _row_vectors(self, full, accumulators, point, row, registers, values, copies):
        """A pass over the vector axis inside the row: unrolled part, whole vectors, predicated tail."""
        size, lanes = self.sizes[self.vector], self.lanes
        width = sum(a.width for a in accumulators)
        strips = [(floordiv(size, lanes * copies) * lanes * copies, copies)] if copies > 1 else []
        strips.append((floordiv(size, lanes) * lanes, 1))
        begin: Dim = 0
        for end, count in strips:
            if begin == end:
                continue

            def step(index: Dim, given: tuple[V, ...], count=count) -> tuple[V, ...]:
                new = list(given)

                def strand(c: int) -> None:
                    part = slice(c * width, (c + 1) * width)
                    new[part] = self._point(full, accumulators, {**point, **row, self.vector: index + c * lanes}, None, dict(registers), new[part])

                self.w.interleave([functools.partial(strand, c) for c in range(count)])
                return tuple(new)

            values, begin = self._accumulate("j", begin, end, lanes * count, values, step, accumulators), end
        if begin != size:
            with self.w.loop("j", begin, size, lanes, carried=values) as scope:
                new = list(scope.values)
                mask = self.w.op("qtail.q", size - scope.index)
                new[:width] = self._point(full, accumulators, {**point, **row, self.vector: scope.index}, mask, dict(registers), new[:width])
                scope.next = tuple(new)
            values = scope.results
        return values

    def _columns(self, full, accumulators, points, row, mask, registers, values):
        width = sum(a.width for a in accumulators)
        new = list(values)

        def strand(u: int) -> None:
            part = slice(u * width, (u + 1) * width)
            local = registers[u] if not self.group.row else dict(registers[u])
            new[part] = self._point(full, accumulators, {**points[u], **row}, mask, local, new[part], u)

        self.w.interleave([functools.partial(strand, u) for u in range(len(points))])
        return tuple(new)

    def _point(self, full, accumulators, coords, mask, registers, values, column: int = 0) -> list[V]:
        """All full-level statements of a phase at one vector of points, the `column`th of those side by side; returns the new accumulators."""
        where = [coords[a] for a in range(len(self.sizes))]
        point = PointEmitter(self.w, where, self.vector, mask, registers)
        self._recall(full, point, self._row_position(coords, column))
        values, rest, stores = list(values), list(accumulators), []
        position = 0
        for s in full:
            value = point.emit(s.expr)
            if isinstance(s, Reduce):
                accumulator = rest.pop(0)
                part = slice(position, position + accumulator.width)
                values[part] = accumulator.step(values[part], value, mask, point, s)
                position += accumulator.width
            else:
                registers[s.target.buffer] = value
                stores.append((s.target, value))
        for target, value in stores:
            if target.buffer in self.group.stored:
                point.store(target, value)
            elif self._needs_later(target.buffer):
                self._keep(target.buffer, value, self._row_position(coords, column))
        return values

    def _finish(self, phase, points, mask, registers, reduces, accumulators, finals, in_row, copies) -> None:
        """Ends a phase: combines accumulators, stores reductions, and runs the outer-level Maps of the phase."""
        width = sum(a.width for a in accumulators)
        outer_vector = None if in_row else self.vector
        for u, coords in enumerate(points):
            where = [coords[a] for a in range(self.n_outer)]
            point = PointEmitter(self.w, where, outer_vector, mask, registers[u])
            position = u * width
            for s, accumulator in zip(reduces, accumulators):
                parts = [finals[position + c * width:position + c * width + accumulator.width] for c in range(copies if in_row else 1)]
                value = accumulator.final(parts, across_lanes=in_row)
                position += accumulator.width
                registers[u][s.target.buffer] = value
                if s.target.buffer in self.group.stored:
                    point.store(s.target, value)
            for s in self.group.statements:
                if self.phase[s] == phase and is_outer_level(s, self.group):
                    value = registers[u][s.target.buffer] = point.emit(s.expr)
                    if s.target.buffer in self.group.stored:
                        point.store(s.target, value)

    # Values that cross phases

    def _needs_later(self, buffer: Buffer) -> bool:
        mine = next(self.phase[s] for s in self.group.statements if s.target.buffer is buffer)
        return any(self.phase[s] > mine and buffer in reads(s) for s in self.group.statements)

    def _row_position(self, coords, column: int) -> Dim:
        """Where the current row element lies in row scratch: in vectors, one for each column side by side, where the vector axis is outside of the row."""
        position: Dim = 0
        in_row = self.vector is not None and self.vector >= self.n_outer
        axes = [a for a in range(self.n_outer, len(self.sizes)) if a != self.vector] + [self.vector] * in_row
        for a in axes:
            position = position * self.sizes[a] + coords[a]
        return position if in_row else (position * self._column_unroll + column) * self.lanes

    def _keep(self, buffer: Buffer, value: V, position: Dim) -> None:
        if buffer not in self.kept:
            in_row = self.vector is not None and self.vector >= self.n_outer
            elements = product(self.group.row) + self.lanes if in_row else product(self.group.row) * self._column_unroll * self.lanes
            self.kept[buffer] = self.w.scratch(MEMORY_TYPE[buffer.dtype], elements)
        if buffer.dtype == "bool":
            value = self.w.op("vmux.w", value, self.w.op("vsplat.w", 1), self.w.op("vsplat.w", 0))
        self.w.op(f"vst.{MEMORY_TYPE[buffer.dtype]}", self.w.addr(self.kept[buffer], position, write=True), value)

    def _recall(self, full, point: PointEmitter, position: Dim) -> None:
        """Takes values of earlier phases from scratch where this phase reads them."""
        for buffer in [b for b in self.kept if any(b in reads(s) for s in full)]:
            if buffer in point.registers:
                continue
            if any(s.target.buffer is buffer for s in full):
                continue
            value = self.w.op(f"vld.{MEMORY_TYPE[buffer.dtype]}", self.w.addr(self.kept[buffer], position))
            if buffer.dtype == "bool":
                value = self.w.op("vcmpne.w", value, self.w.op("vsplat.w", 0))
            point.registers[buffer] = value


def _phases(group: Group) -> dict[Statement, int]:
    """The pass over the row in which each statement runs: behind every reduction that it reads."""
    ready: dict[Buffer, tuple[int, bool]] = {}
    phase: dict[Statement, int] = {}
    for s in group.statements:
        deps = [ready[b] for b in reads(s) if b in ready]
        if is_outer_level(s, group):
            mine, after = max((p for p, _ in deps), default=0), True
        else:
            mine, after = max((p + behind for p, behind in deps), default=0), isinstance(s, Reduce)
        phase[s] = mine
        ready[s.target.buffer] = (mine, after)
    return phase


def _work(group: Group) -> tuple[Dim, Dim, Dim]:
    """(flops, bytes, work) of one call; see Kernel."""
    flops: Dim = 0
    work: Dim = 0
    bytes_: Dim = 0
    inside = {t.buffer for s in group.statements for t in s.targets()}
    counted: set = set()
    for s in group.statements:
        points = product(s.domain)
        operators = [e for e in walk(*s.expressions()) if isinstance(e, Op) and e.name != "cast"]
        flops = flops + points * (len(operators) + isinstance(s, Reduce))
        work = work + points * (sum(16 if e.name in EXPENSIVE else 1 for e in operators) + isinstance(s, Reduce))
        for leaf in leaves(*s.expressions()):
            if isinstance(leaf, (Load, Gather)) and leaf.buffer not in inside and (leaf.buffer, leaf.strides) not in counted:
                counted.add((leaf.buffer, leaf.strides))
                bytes_ = bytes_ + _footprint(s.domain, leaf.strides) * DTYPE_BYTES[leaf.dtype]
        for t in s.targets():
            if t.buffer in group.stored:
                bytes_ = bytes_ + _footprint(s.domain, t.strides) * DTYPE_BYTES[t.buffer.dtype]
    return flops, bytes_, work + bytes_


def _footprint(domain, strides) -> Dim:
    return product(size for size, stride in zip(domain, strides) if stride != 0)
