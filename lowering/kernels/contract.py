"""The contraction kernel: out[batch, row, column] = sum over k of A[batch, row, k] * B[batch, k, column], on register tiles.

Columns run along the lanes. B is read as panels of some vectors (packed by pack.py, or in place where its columns are
contiguous); A is broadcast element by element, at any strides, so that rows may be the pixels of an image as well as the rows of
a matrix. Finished tiles pass through a small private scratch, from which whole rows go to the Sink: partial sums never reach
shared memory and epilogues exist once.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from ..index_expr import Dim, floordiv, minimum, mod, product
from ..kernel_writer import KernelWriter, Scratch, Sink
from ..select import wrap
from ..tensor_ir import Buffer, Const, Op, walk
from ..values import EXPENSIVE
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .tile import Tile, even_block

# Instructions of an epilogue that may stand in the code, once for every vector of a tile.
MOST_UNROLLED = 160
# Steps of a short axis (the taps of a window), and multiplies, that may follow each other without a loop. Of more, clang loads so far ahead
# that it spills accumulators (measured: 3 x 3 convolutions with stride 2, nine taps without a loop 178 and one by one 235 of 256 Gflop/s).
MOST_UNROLLED_STEPS = 9
MOST_UNROLLED_MULTIPLIES = 128

__all__ = ["Axis", "Contraction", "Panels", "contract", "decompose", "epilogue_cost", "merged_axes", "multiply_add", "row_sink", "under", "zero"]


@dataclasses.dataclass(frozen=True)
class Axis:
    """A loop of a contraction: its size, and what one step adds to the offsets in A and in B."""

    size: Dim
    a: Dim = 0
    b: Dim = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Panels:
    """Where B is: element (k, column) at offset + steps of the axes + column // width * panel + column % width.

    Where `is_padded`, the last panel may be read whole.
    """

    buffer: Buffer | Scratch
    offset: Dim
    panel: Dim
    is_padded: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Contraction:
    """What is contracted; batch, rows and k are nested axes, the outermost first.

    Attributes:
        place: (batch indices, row, column) -> coordinates in the template's domain; row is the flat index over `rows`.
        column_dim: the dim of the domain that the lanes run along.
        a_panel: elements between A's panels where A is packed, too: panels of as many rows as a register tile, side by side for every k.
        a_stays_near: all of A fits the second level, so that jobs step through A first and every panel of B is read once.
        n_inner: the last axes of `batch` that share A: a block of rows meets all of them in turn.
        fill: writes what packs a panel of B into the private memory that `b` names: (batch indices, panel). Jobs are panels then.
    """

    a: Buffer
    a_offset: Dim
    b: Panels
    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    k: tuple[Axis, ...]
    columns: Dim
    dtype: str
    place: Callable[[list[Dim], Dim, Dim], list[Dim]]
    column_dim: int
    a_panel: Dim | None = None
    a_stays_near: bool = False
    n_inner: int = 0
    fill: Callable[[list[Dim], Dim], None] | None = None


def decompose(w: KernelWriter, flat: Dim, sizes: tuple[Dim, ...]) -> list[Dim]:
    """Indices along nested axes of the flat index, as scalars."""
    result, rest = [], flat
    for size in reversed(sizes[1:]):
        result.append(0 if size == 1 else w.let(mod(rest, size)))
        rest = rest if size == 1 else w.let(floordiv(rest, size))
    return [0 if sizes[0] == 1 else rest, *reversed(result)] if sizes else []


def epilogue_cost(sink: Sink) -> int:
    """Instructions that the epilogue takes for one vector; estimate: 20 for an operator that expands to a polynomial."""
    nodes = [e for s in sink.epilogue for e in walk(s.expr)]
    return sum(20 if isinstance(e, Op) and e.name in EXPENSIVE else 1 for e in nodes if not isinstance(e, Const))


@contextlib.contextmanager
def under(w: KernelWriter, lhs: Dim, relation: str, rhs: Dim):
    """A branch, or what follows as it is where the condition is known to hold."""
    difference = lhs - rhs
    if isinstance(difference, int) and {"<": difference < 0, "<=": difference <= 0, ">": difference > 0, ">=": difference >= 0, "==": difference == 0}[relation]:
        yield
        return
    with w.branch(lhs, relation, rhs):
        yield


def zero(w: KernelWriter, register_type: str) -> V:
    """A vector of zeros."""
    return w.op(f"vsplat.{register_type}", 0.0 if register_type in ("sf", "df") else 0)


def merged_axes(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Neighbouring axes that one axis walks as well are one; at least one axis remains."""
    result: list[Axis] = []
    for axis in axes:
        if result and result[-1].a == axis.size * axis.a and result[-1].b == axis.size * axis.b:
            axis = Axis(result.pop().size * axis.size, axis.a, axis.b)
        result.append(axis)
    return tuple(result) or (Axis(1),)


def multiply_add(w: KernelWriter, a: V, b: V, total: V) -> V:
    """total + a * b; fused for floats."""
    if a.type in ("sf", "df"):
        return w.op(f"vfma.{a.type}", a, b, total)
    return w.op(f"vadd.{a.type}", total, w.op(f"vmul.{a.type}", a, b))


def contract(w: KernelWriter, c: Contraction, tile: Tile, sink: Sink) -> None:
    """Writes the kernel's body."""
    _PanelKernel(w, c, tile, sink).write()


def row_sink(w: KernelWriter, sink: Sink, dtype: str, column_dim: int, place: Callable[[Dim], list[Dim]], source: Callable[[Dim], V], first: Dim, end: Dim) -> None:
    """Hands columns first..end of one finished row to the sink, the last ones under a mask.

    Args: place: column -> coordinates.   source: column -> the vector that starts there.
    """
    lanes = w.lanes
    whole = first + floordiv(end - first, lanes) * lanes
    is_exact = whole == end
    whole = w.let(whole)
    with w.loop("n", first, whole, lanes) as loop:
        sink.put(place(loop.index), column_dim, wrap(w, source(loop.index), dtype))
    if is_exact:
        return
    with w.branch(whole, "<", end):
        sink.put(place(whole), column_dim, wrap(w, source(whole), dtype), w.op("qtail.q", end - whole))


class _PanelKernel:
    """Writes one contraction: jobs of (batch, row block, panel), in which row tiles step through blocks of k."""

    def __init__(self, w: KernelWriter, c: Contraction, tile: Tile, sink: Sink):
        self.w, self.c, self.tile, self.sink = w, c, tile, sink
        self.width = tile.vectors * w.lanes
        self.n_rows = product(axis.size for axis in c.rows)
        # Rows of a tile lie on one run of the innermost row axis: one address serves them all.
        self.stays_in_run = len(c.rows) == 1 or isinstance(c.rows[-1].size, int) and c.rows[-1].size % tile.rows == 0
        self.register_type = REGISTER_TYPE[c.dtype]
        self.outer, self.inner, self.block = self._split_k()
        self.is_blocked = bool(self.outer) or self.block is not None
        self.is_direct = not self.is_blocked and epilogue_cost(sink) * tile.rows * tile.vectors <= MOST_UNROLLED
        self.scratch = w.scratch(self.register_type, (tile.rows if self.is_direct else tile.row_block) * self.width)

    def _split_k(self) -> tuple[tuple[Axis, ...], tuple[Axis, ...], int | None]:
        """(axes around the tiles, axes inside a tile, block of the first inner axis or None)."""
        axes, most = list(self.c.k), self.tile.k_block
        inner, depth = [axes.pop()], 1
        while isinstance(inner[0].size, int) and depth * inner[0].size <= most + most // 4:
            depth *= inner[0].size
            if not axes:
                return (), tuple(inner), None
            inner.insert(0, axes.pop())
        block = even_block(inner[0].size, max(most // depth, 1), 4 if depth == 1 else 1)
        if block == 1 and len(inner) > 1:
            axes.append(inner.pop(0))
            return tuple(a for a in axes if a.size != 1), tuple(inner), None
        return tuple(a for a in axes if a.size != 1), tuple(inner), block

    def write(self) -> None:
        w, c, tile = self.w, self.c, self.tile
        n_panels = floordiv(c.columns + (self.width - 1), self.width)
        n_blocks = floordiv(self.n_rows + (tile.row_block - 1), tile.row_block)
        n_batch = product(axis.size for axis in c.batch[: len(c.batch) - c.n_inner])
        n_inner = product(axis.size for axis in c.batch[len(c.batch) - c.n_inner:])
        if c.fill is not None:
            with w.loop("job", 0, n_batch * n_panels, parallel=True) as job:
                batch, panel = decompose(w, job.index, (n_batch, n_panels))
                self._begin(batch, panel)
                c.fill(self.batch, panel)
                with w.loop("block", 0, n_blocks) as block:
                    self._block(block.index, n_blocks)
            return
        with w.loop("job", 0, n_batch * n_blocks * n_inner * n_panels, parallel=True) as job:
            if c.a_stays_near:
                batch, inner, panel, block = decompose(w, job.index, (n_batch, n_inner, n_panels, n_blocks))
            else:
                batch, block, inner, panel = decompose(w, job.index, (n_batch, n_blocks, n_inner, n_panels))
            self._begin(batch * n_inner + inner, panel)
            self._block(block, n_blocks)

    def _begin(self, batch: Dim, panel: Dim) -> None:
        """Where the operands of a job are."""
        w, c = self.w, self.c
        self.batch = decompose(w, batch, tuple(axis.size for axis in c.batch))
        self.a_base = w.let(c.a_offset + sum(i * axis.a for i, axis in zip(self.batch, c.batch)))
        self.b_base = w.let(c.b.offset + panel * c.b.panel + sum(i * axis.b for i, axis in zip(self.batch, c.batch)))
        self.first_column = w.let(panel * self.width)

    def _block(self, block: Dim, n_blocks: Dim) -> None:
        """One block of rows."""
        w, rows = self.w, self.tile.row_block
        self.first_row = w.let(block * rows)
        self.end_row = self.n_rows if n_blocks == 1 else w.let(minimum(self.first_row + rows, self.n_rows))
        self._multiply()
        if not self.is_direct:
            self._finish(self.first_row, self.end_row)

    def _multiply(self) -> None:
        """All row tiles of the job, for every block of k."""
        c = self.c
        if not self.is_blocked:
            self._panel_cases([(0, axis.size) for axis in self.inner], 0, 0)
            return
        with self.w.loop("r", 0, self.tile.row_block * self.width, self.w.lanes) as loop:
            self._store(loop.index, zero(self.w, self.register_type))
        self._outer_loops(0, 0, 0)

    def _outer_loops(self, level: int, a: Dim, b: Dim) -> None:
        if level < len(self.outer):
            axis = self.outer[level]
            with self.w.loop("kb", 0, axis.size) as loop:
                self._outer_loops(level + 1, self.w.let(a + loop.index * axis.a), self.w.let(b + loop.index * axis.b))
            return
        ranges = [(0, axis.size) for axis in self.inner]
        if self.block is None:
            self._panel_cases(ranges, a, b)
            return
        size = self.inner[0].size
        with self.w.loop("kb", 0, size, self.block) as loop:
            ranges[0] = (loop.index, self.w.let(minimum(loop.index + self.block, size)))
            self._panel_cases(ranges, a, b)

    def _panel_cases(self, ranges, a: Dim, b: Dim) -> None:
        """The row tiles; where B is read in place, the last panel reads under a mask."""
        remaining = self.c.columns - self.first_column
        if self.c.b.is_padded or (isinstance(self.c.columns, int) and self.c.columns % self.width == 0):
            self._row_tiles(ranges, a, b, None)
            return
        if isinstance(remaining, int) and remaining < self.width:
            self._row_tiles(ranges, a, b, remaining)
            return
        with self.w.branch(self.first_column + self.width, "<=", self.c.columns):
            self._row_tiles(ranges, a, b, None)
        with self.w.branch(self.first_column + self.width, ">", self.c.columns):
            self._row_tiles(ranges, a, b, remaining)

    def _row_tiles(self, ranges, a: Dim, b: Dim, remaining: Dim | None) -> None:
        w, rows = self.w, self.tile.rows
        masks = None
        if remaining is not None:
            masks = [w.op("qtail.q", remaining - v * w.lanes) for v in range(self.tile.vectors)]
        if not isinstance(self.n_rows, int) or self.n_rows >= rows:
            with w.loop("m", self.first_row, self.end_row - (rows - 1), rows) as loop:
                self._tile(loop.index, rows, ranges, a, b, masks)
        if isinstance(self.n_rows, int):
            if rest := self.n_rows % rows:
                with under(w, self.end_row, "==", self.n_rows):
                    self._tile(self.n_rows - rest, rest, ranges, a, b, masks)
            return
        start = w.let(self.first_row + floordiv(self.end_row - self.first_row, rows) * rows)
        with w.branch(start, "<", self.end_row):
            self._tile(start, rows, ranges, a, b, masks, is_clamped=True)

    def _tile(self, row: Dim, n: int, ranges, a: Dim, b: Dim, masks, is_clamped: bool = False) -> None:
        """Tile of n rows from `row`: accumulators through the loops over `ranges` of k, then to the sink or to scratch."""
        w, vectors = self.w, self.tile.vectors
        offsets = [self._row_offset(row, r, is_clamped) + a for r in range(n)]
        base = w.let(0 if self.is_direct else (row - self.first_row) * self.width)
        places = [base + (r * self.width + v * w.lanes) for r in range(n) for v in range(vectors)]
        totals = tuple(self._load(p) for p in places) if self.is_blocked else (zero(w, self.register_type),) * (n * vectors)
        totals = self._k_loops(0, ranges, offsets, self.b_base + b, totals, masks)
        if self.is_direct and not is_clamped:
            for v in range(vectors):
                self._put_vector(row, v, totals[v::vectors])
            return
        for place, total in zip(places, totals):
            self._store(place, total)
        if self.is_direct:
            self._finish(row, self.end_row)

    def _put_vector(self, row: Dim, v: int, totals: tuple[V, ...]) -> None:
        """Column vector v of a tile goes to the sink: whole, under a mask, or not at all, as far as there are columns."""
        w, c = self.w, self.c
        column = w.let(self.first_column + v * w.lanes)
        last = self.c.columns % self.width if isinstance(c.columns, int) else None

        def put(mask):
            for r, total in enumerate(totals):
                self.sink.put(c.place(self.batch, row + r, column), c.column_dim, wrap(w, total, c.dtype), mask)

        if last == 0 or last is not None and last >= (v + 1) * w.lanes:
            put(None)
            return
        with under(w, column + w.lanes, "<=", c.columns):
            put(None)
        if last is None or v * w.lanes < last:
            with under(w, column, "<", c.columns), under(w, column + w.lanes, ">", c.columns):
                put(w.op("qtail.q", c.columns - column))

    def _row_offset(self, row: Dim, r: int, is_clamped: bool) -> Dim:
        """Offset in A of row `row` + r; clamped tiles repeat the last row."""
        w, c = self.w, self.c
        if c.a_panel is not None:
            return w.let(self.a_base + floordiv(row, self.tile.rows) * c.a_panel) + r
        if self.stays_in_run and not is_clamped:
            return self._offset_of(row) + r * c.rows[-1].a
        return self._offset_of(w.let(minimum(row + r, self.n_rows - 1) if is_clamped else row + r))

    def _offset_of(self, index: Dim) -> Dim:
        indices = decompose(self.w, index, tuple(axis.size for axis in self.c.rows))
        return self.w.let(self.a_base + sum(i * axis.a for i, axis in zip(indices, self.c.rows)))

    def _k_loops(self, level: int, ranges, a: list[Dim], b: Dim, totals: tuple[V, ...], masks) -> tuple[V, ...]:
        if level == len(ranges):
            return self._step(a, b, totals, masks)
        axis, (begin, end) = self.inner[level], ranges[level]
        unroll = self._unroll(level, len(totals))
        with self.w.loop("k", begin, end, carried=totals, unroll=unroll) as loop:
            loop.next = self._k_loops(level + 1, ranges, [o + loop.index * axis.a for o in a], b + loop.index * axis.b, loop.values, masks)
        return loop.results

    def _unroll(self, level: int, multiplies: int) -> int:
        """Steps of k that follow each other without a loop, `multiplies` in each: all of a small tile's taps, or 4 of a long axis."""
        sizes = [axis.size for axis in self.inner[level:]]
        is_short = all(isinstance(size, int) for size in sizes) and product(sizes) <= MOST_UNROLLED_STEPS
        if is_short:
            return sizes[0] if product(sizes) * multiplies <= MOST_UNROLLED_MULTIPLIES else 1
        return 4 if len(sizes) == 1 else 1

    def _step(self, a: list[Dim], b: Dim, totals: tuple[V, ...], masks) -> tuple[V, ...]:
        """One step of k: the smaller operand of the tile is held in registers, the other streams."""
        vectors, result = self.tile.vectors, list(totals)
        if vectors <= len(a):
            b_vectors = [self._b(b, v, masks) for v in range(vectors)]
            for r, offset in enumerate(a):
                element = self._a(offset)
                for v in range(vectors):
                    result[r * vectors + v] = multiply_add(self.w, element, b_vectors[v], result[r * vectors + v])
            return tuple(result)
        elements = [self._a(offset) for offset in a]
        for v in range(vectors):
            vector = self._b(b, v, masks)
            for r, element in enumerate(elements):
                result[r * vectors + v] = multiply_add(self.w, element, vector, result[r * vectors + v])
        return tuple(result)

    def _a(self, offset: Dim) -> V:
        return self.w.op(f"vldx.{MEMORY_TYPE[self.c.a.dtype]}", self.w.addr(self.c.a, offset))

    def _b(self, offset: Dim, v: int, masks) -> V:
        address = self.w.addr(self.c.b.buffer, offset + v * self.w.lanes)
        memory = self.c.b.buffer.memory_type if isinstance(self.c.b.buffer, Scratch) else MEMORY_TYPE[self.c.b.buffer.dtype]
        return self.w.op(f"vld.{memory}", address) if masks is None else self.w.op(f"vldq.{memory}", masks[v], address)

    def _load(self, index: Dim) -> V:
        return self.w.op(f"vld.{self.register_type}", self.w.addr(self.scratch, index))

    def _store(self, index: Dim, value: V) -> None:
        self.w.op(f"vst.{self.register_type}", self.w.addr(self.scratch, index, write=True), value)

    def _finish(self, first_row: Dim, end_row: Dim) -> None:
        """Finished rows go from scratch, where row `first_row` is at 0, to the sink."""
        w, c = self.w, self.c
        end = w.let(minimum(self.first_column + self.width, c.columns))
        if isinstance(c.columns, int) and c.columns % self.width == 0:
            end = self.first_column + self.width
        with w.loop("m", first_row, end_row) as loop:
            base = w.let((loop.index - first_row) * self.width - self.first_column)
            row_sink(w, self.sink, c.dtype, c.column_dim, lambda n: c.place(self.batch, loop.index, n), lambda n: self._load(base + n), self.first_column, end)
