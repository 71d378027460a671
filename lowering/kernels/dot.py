"""Contractions whose operands are both contiguous along k: vectors run along k and are added up across lanes at the end.

For few rows this reads B once, in place and at memory speed, where packing it would cost more than the multiplication
(a linear layer on a small batch, a matrix times a vector).
"""

from __future__ import annotations

from ..index_expr import Dim, floordiv, minimum, product
from ..kernel_writer import KernelWriter, Sink
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .contract import Contraction, decompose, multiply_add, row_sink, zero

__all__ = ["add_across", "contract_dot"]


def add_across(w: KernelWriter, vectors: list[V]) -> V:
    """Lane i of the result is the sum of the lanes of vectors[i mod n]; n = len(vectors) is a power of two <= lanes."""
    total, distance = _interleaved_sums(w, vectors), w.lanes // 2
    while distance >= len(vectors):
        total = _add(w, total, w.op(f"vrot.{total.type}", total, distance))
        distance //= 2
    return total


def _interleaved_sums(w: KernelWriter, vectors: list[V]) -> V:
    if len(vectors) == 1:
        return vectors[0]
    even, odd = _interleaved_sums(w, vectors[0::2]), _interleaved_sums(w, vectors[1::2])
    return _add(w, w.op(f"vziplo.{even.type}", even, odd), w.op(f"vziphi.{even.type}", even, odd))


def _add(w: KernelWriter, a: V, b: V) -> V:
    return w.op(f"{'vfadd' if a.type in ('sf', 'df') else 'vadd'}.{a.type}", a, b)


def contract_dot(w: KernelWriter, c: Contraction, column_stride: Dim, shape: tuple[int, int], sink: Sink) -> None:
    """Writes the kernel's body; `c` has one row axis of static size and one k axis, both operands step 1 along k.

    Args: column_stride: elements between B's columns.   shape: rows and columns of a register tile.
    """
    _DotKernel(w, c, column_stride, shape, sink).write()


class _DotKernel:
    """Jobs of (batch, block of columns); inside, column tiles by row tiles, each with vectors along all of k."""

    def __init__(self, w: KernelWriter, c: Contraction, column_stride: Dim, shape: tuple[int, int], sink: Sink):
        self.w, self.c, self.sink = w, c, sink
        self.column_stride, self.shape = column_stride, shape
        self.n_rows, self.depth = c.rows[0].size, c.k[0].size
        self.width = max(w.lanes, 2 * shape[1])
        self.register_type = REGISTER_TYPE[c.dtype]
        # A tile writes a whole vector: the lanes behind its columns are overwritten by the next tile, or are padding.
        self.pitch = self.width + w.lanes
        self.scratch = w.scratch(self.register_type, self.n_rows * self.pitch)

    def write(self) -> None:
        w, c = self.w, self.c
        n_blocks = floordiv(c.columns + (self.width - 1), self.width)
        n_batch = product(axis.size for axis in c.batch)
        with w.loop("job", 0, n_batch * n_blocks, parallel=True) as job:
            flat, block = decompose(w, job.index, (n_batch, n_blocks))
            batch = decompose(w, flat, tuple(axis.size for axis in c.batch))
            self.a_base = w.let(c.a_offset + sum(i * axis.a for i, axis in zip(batch, c.batch)))
            self.b_base = w.let(c.b.offset + sum(i * axis.b for i, axis in zip(batch, c.batch)))
            self.first_column = w.let(block * self.width)
            with w.loop("n", 0, self.width, self.shape[1]) as loop:
                self._row_tiles(loop.index)
            end = c.columns if n_blocks == 1 else w.let(minimum(self.first_column + self.width, c.columns))
            if isinstance(c.columns, int) and c.columns % self.width == 0 and n_blocks != 1:
                end = self.first_column + self.width
            with w.loop("m", 0, self.n_rows) as loop:
                base = w.let(loop.index * self.pitch - self.first_column)
                row_sink(w, self.sink, c.dtype, c.column_dim, lambda n: c.place(batch, loop.index, n), lambda n: self._load(base + n), self.first_column, end)

    def _load(self, index: Dim) -> V:
        return self.w.op(f"vld.{self.register_type}", self.w.addr(self.scratch, index))

    def _row_tiles(self, column: Dim) -> None:
        w, (rows, n_columns) = self.w, self.shape
        columns = [w.let(self.b_base + self._existing(self.first_column + column + i) * self.column_stride) for i in range(n_columns)]
        if self.n_rows >= rows:
            with w.loop("m", 0, self.n_rows - rows + 1, rows) as loop:
                self._tile(loop.index, rows, column, columns)
        if rest := self.n_rows % rows:
            self._tile(self.n_rows - rest, rest, column, columns)

    def _existing(self, column: Dim) -> Dim:
        """Columns of the last block that do not exist repeat the last one."""
        if isinstance(self.c.columns, int) and self.c.columns % self.width == 0:
            return column
        return minimum(column, self.c.columns - 1)

    def _tile(self, row: Dim, n: int, column: Dim, columns: list[Dim]) -> None:
        w, lanes = self.w, self.w.lanes
        rows = [w.let(self.a_base + (row + r) * self.c.rows[0].a) for r in range(n)]
        totals = (zero(w, self.register_type),) * (n * len(columns))
        whole = floordiv(self.depth, lanes) * lanes
        with w.loop("k", 0, whole, lanes, carried=totals, unroll=2) as loop:
            loop.next = self._step(rows, columns, loop.index, loop.values, None)
        totals = loop.results
        if not isinstance(self.depth, int) or self.depth != whole:
            with w.loop("k", whole, self.depth, lanes, carried=totals) as loop:
                loop.next = self._step(rows, columns, loop.index, loop.values, w.op("qtail.q", self.depth - loop.index))
            totals = loop.results
        for r in range(n):
            total = add_across(w, list(totals[r * len(columns):(r + 1) * len(columns)]))
            address = w.addr(self.scratch, (row + r) * self.pitch + column, write=True)
            w.op(f"vst.{self.register_type}", address, total)

    def _step(self, rows: list[Dim], columns: list[Dim], k: Dim, totals: tuple[V, ...], mask: V | None) -> tuple[V, ...]:
        """One vector of k: the rows' vectors are held in registers, the columns' stream."""
        held = [self._operand(self.c.a, offset + k, mask) for offset in rows]
        result = list(totals)
        for j, column in enumerate(columns):
            b = self._operand(self.c.b.buffer, column + k, mask)
            for r, a in enumerate(held):
                result[r * len(columns) + j] = multiply_add(self.w, a, b, result[r * len(columns) + j])
        return tuple(result)

    def _operand(self, buffer, index: Dim, mask: V | None) -> V:
        memory, address = MEMORY_TYPE[buffer.dtype], self.w.addr(buffer, index)
        return self.w.op(f"vld.{memory}", address) if mask is None else self.w.op(f"vldq.{memory}", mask, address)
