"""Packing of B into panels: [batch][column panel][k][panel width], zero or repeated values in the columns that do not exist.

Where k is contiguous in memory (a linear layer's weight), blocks of lanes x lanes elements are transposed in
registers by a network of zips. A pack kernel reads B and nothing else: under `freeze` it can run once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..index_expr import Dim, floordiv, maximum, minimum, product
from ..kernel_writer import BoundKernel, KernelWriter
from ..tensor_ir import Buffer, Load
from ..values import Unsupported
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .contract import Panels, decompose

__all__ = ["PackedOperand", "pack", "transpose"]

# Panels that a job of the copying kernel fills side by side, so that it reads some hundred contiguous bytes per row of B.
PANELS_PER_JOB = 4


@dataclasses.dataclass(frozen=True, eq=False)
class PackedOperand:
    """Panels made by a pack kernel: `kernel` fills them; strides in elements for each batch axis and each k axis."""

    panels: Panels
    batch_strides: tuple[Dim, ...]
    k_strides: tuple[Dim, ...]
    kernel: BoundKernel


def transpose(w: KernelWriter, vectors: list[V]) -> list[V]:
    """Column vectors of a square of row vectors: log2(lanes) stages of perfect shuffles."""
    half = len(vectors) // 2
    for _ in range(half.bit_length()):
        vectors = [w.op(f"vzip{part}.{vectors[0].type}", vectors[i], vectors[i + half]) for i in range(half) for part in ("lo", "hi")]
    return vectors


def pack(source: Load, lanes: int, width: int, batch: tuple[tuple[Dim, Dim], ...], k: tuple[tuple[Dim, Dim], ...], column: tuple[Dim, Dim],
         dtype: str, name: str, origins: tuple[str, ...], k_order: tuple[int, ...] | None = None) -> PackedOperand:
    """Packs B; batch, k and column are (size, stride in the source) of its axes.

    Args:
        width: columns of a panel.   dtype: of the panels (halves are widened).
        k_order: the order in which panels hold the k axes, as positions in `k`, outermost first; None keeps it.
    """
    order = tuple(range(len(k))) if k_order is None else k_order
    depth = product(size for size, _ in k)
    is_transposing = _is_contiguous(k) and column[1] != 1
    if is_transposing and not isinstance(depth, int):
        if order != tuple(range(len(k))):
            raise Unsupported("weights of symbolic size are not reordered")
        depth = floordiv(depth + (lanes - 1), lanes) * lanes
    n_panels = floordiv(column[0] + (width - 1), width)
    strides, running = {}, width
    for position in reversed(order):
        strides[position] = running
        running = running * k[position][0]
    # Where a panel is no whole vectors wide, stores reach into the next k, which follows, and behind the last one.
    panel = depth * width + (lanes if width % lanes else 0)
    batch_strides, total = [], n_panels * panel
    for size, _ in reversed(batch):
        batch_strides.insert(0, total)
        total = total * maximum(size, 1)
    buffer = Buffer(name, dtype, (total,), (1,))
    writer = _PackKernel(source, lanes, width, batch, k, column, buffer, panel, tuple(batch_strides), tuple(strides[i] for i in range(len(k))))
    kernel = writer.write(is_transposing, order == tuple(range(len(k))), origins)
    return PackedOperand(Panels(buffer, 0, panel, True), tuple(batch_strides), writer.k_strides, kernel)


def _is_contiguous(k: tuple[tuple[Dim, Dim], ...]) -> bool:
    expected: Dim = 1
    for size, stride in reversed(k):
        if stride != expected and size != 1:
            return False
        expected = expected * size
    return True


class _PackKernel:
    def __init__(self, source: Load, lanes: int, width: int, batch, k, column, target: Buffer, panel: Dim, batch_strides, k_strides):
        self.w = KernelWriter(lanes)
        self.source, self.target = source, target
        self.width, self.batch, self.k = width, batch, k
        self.columns, self.column_stride = column
        self.panel, self.batch_strides, self.k_strides = panel, batch_strides, k_strides
        self.n_panels = floordiv(self.columns + (width - 1), width)
        self.memory = MEMORY_TYPE[source.buffer.dtype]
        self.register_type = REGISTER_TYPE[source.buffer.dtype]

    def write(self, is_transposing: bool, keeps_order: bool, origins: tuple[str, ...]) -> BoundKernel:
        w, n_batch = self.w, product(size for size, _ in self.batch)
        per_job = 1 if is_transposing else PANELS_PER_JOB
        groups = floordiv(self.n_panels + (per_job - 1), per_job)
        with w.loop("job", 0, n_batch * groups, parallel=True) as job:
            flat, group = decompose(w, job.index, (n_batch, groups))
            indices = decompose(w, flat, tuple(size for size, _ in self.batch))
            self.source_base = w.let(self.source.offset + sum(i * stride for i, (_, stride) in zip(indices, self.batch)))
            self.target_base = w.let(sum((i * stride for i, stride in zip(indices, self.batch_strides)), 0))
            if is_transposing:
                self._transpose_panel(group, keeps_order)
            else:
                self._copy_panels(group * per_job, per_job)
        elements = n_batch * self.columns * product(size for size, _ in self.k)
        return w.finish("pack", f"panels of {self.width} columns", "pack", origins, 0, elements * 8)

    # Columns contiguous, or nothing is: k outside, columns inside.

    def _copy_panels(self, first: Dim, count: int) -> None:
        self._k_loops(0, self.source_base, self.target_base, lambda source, target: self._copy_row(source, target, first, count))

    def _k_loops(self, level: int, source: Dim, target: Dim, write: Callable[[Dim, Dim], None]) -> None:
        if level == len(self.k):
            write(source, target)
            return
        size, stride = self.k[level]
        with self.w.loop("k", 0, size) as loop:
            self._k_loops(level + 1, self.w.let(source + loop.index * stride), self.w.let(target + loop.index * self.k_strides[level]), write)

    def _copy_row(self, source: Dim, target: Dim, first: Dim, count: int) -> None:
        """One k of `count` panels from panel `first`; those whose vectors reach beyond the last column load under masks."""
        w, width, lanes = self.w, self.width, self.w.lanes
        span = -(-width // lanes) * lanes
        whole_panels = floordiv(maximum(self.columns - span + width, 0), width)
        with w.loop("p", first, minimum(first + count, whole_panels)) as loop:
            for v in range(0, width, lanes):
                self._store(target + loop.index * self.panel + v, self._load(source, loop.index * width + v, None))
        if whole_panels == self.n_panels:
            return
        with w.loop("p", maximum(first, whole_panels), minimum(first + count, self.n_panels)) as loop:
            for v in range(0, width, lanes):
                mask = w.op("qtail.q", self.columns - loop.index * width - v)
                self._store(target + loop.index * self.panel + v, self._load(source, loop.index * width + v, mask))

    def _load(self, source: Dim, column: Dim, mask: V | None) -> V:
        w, stride = self.w, self.column_stride
        address = w.addr(self.source.buffer, source + column * stride)
        if stride == 1:
            return w.op(f"vld.{self.memory}", address) if mask is None else w.op(f"vldq.{self.memory}", mask, address)
        return w.op(f"vlds.{self.memory}", address, stride) if mask is None else w.op(f"vldsq.{self.memory}", mask, address, stride)

    def _store(self, index: Dim, value: V) -> None:
        self.w.op(f"vst.{MEMORY_TYPE[self.target.dtype]}", self.w.addr(self.target, index, write=True), value)

    # k contiguous: squares of lanes x lanes, transposed in registers; rows beyond the last column repeat it.

    def _transpose_panel(self, panel: Dim, keeps_order: bool) -> None:
        w, lanes = self.w, self.w.lanes
        depth = product(size for size, _ in self.k)
        target = w.let(self.target_base + panel * self.panel)
        with w.loop("k", 0, depth, lanes) as loop, w.loop("v", 0, self.width, lanes) as side:
            column = w.let(panel * self.width + side.index)
            if isinstance(self.columns, int) and self.columns % self.width == 0:
                base = w.let(self.source_base + column * self.column_stride)
                rows = [base + r * self.column_stride for r in range(lanes)]
            else:
                rows = [w.let(self.source_base + minimum(column + r, self.columns - 1) * self.column_stride) for r in range(lanes)]
            self._square(rows, loop.index, depth, target + side.index, keeps_order)

    def _square(self, rows: list[Dim], first: Dim, depth: Dim, target: Dim, keeps_order: bool) -> None:
        """One square from k `first`; where k ends inside it, it starts earlier, or (k unknown or short) loads under a mask."""
        w, lanes = self.w, self.w.lanes
        count: Dim = lanes
        if isinstance(depth, int) and depth >= lanes:
            first = first if depth % lanes == 0 else w.let(minimum(first, depth - lanes))
            vectors = [w.op(f"vld.{self.memory}", w.addr(self.source.buffer, row + first)) for row in rows]
        else:
            mask = w.op("qtail.q", depth - first)
            vectors = [w.op(f"vldq.{self.memory}", mask, w.addr(self.source.buffer, row + first)) for row in rows]
            count = depth if isinstance(depth, int) else lanes
        for i, value in enumerate(transpose(w, vectors)[:count]):
            row = (first + i) * self.width if keeps_order else self._reordered(first + i)
            self._store(target + row, value)

    def _reordered(self, flat: Dim) -> Dim:
        """Offset in a panel of the k whose flat index in the source's order is `flat`."""
        indices = decompose(self.w, self.w.let(flat), tuple(size for size, _ in self.k))
        return self.w.let(sum((i * stride for i, stride in zip(indices, self.k_strides)), 0))
