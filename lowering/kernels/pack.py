"""Packing of B into panels: [batch][column panel][k][panel width], zero or repeated values in the columns that do not exist.

Where k is contiguous in memory (a linear layer's weight), blocks of lanes x lanes elements are transposed in
registers by a network of zips. A pack kernel reads B and nothing else: under `freeze` it can run once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..index_expr import Dim, floordiv, maximum, minimum, product
from ..kernel_writer import BoundKernel, KernelWriter, Scratch
from ..tensor_ir import Buffer, Load
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .contract import Panels, decompose

__all__ = ["PackedOperand", "pack", "pack_panel", "panel_elements", "transpose"]

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
         dtype: str, name: str, origins: tuple[str, ...]) -> PackedOperand:
    """Packs B; batch, k and column are (size, stride in the source) of its axes, k in the order in which panels hold them.

    Args: width: columns of a panel.   dtype: of the panels (halves are widened).
    """
    n_run = _transposed_run(k, column, lanes)
    depth, run = product(size for size, _ in k), product(size for size, _ in k[len(k) - n_run:])
    if n_run and not isinstance(run, int):
        # Loads at the end of a run of unknown length are masked, stores are not: they reach behind the panel's last row.
        depth = depth + lanes
    n_panels = floordiv(column[0] + (width - 1), width)
    k_strides = _row_major(k, width)
    # Where a panel is no whole vectors wide, stores reach into the next k, which follows, and behind the last one.
    panel = depth * width + (lanes if width % lanes else 0)
    batch_strides, total = [], n_panels * panel
    for size, _ in reversed(batch):
        batch_strides.insert(0, total)
        total = total * maximum(size, 1)
    buffer = Buffer(name, dtype, (total,), (1,))
    writer = _PackKernel(KernelWriter(lanes), source, width, batch, k, column, buffer, panel, tuple(batch_strides), k_strides)
    return PackedOperand(Panels(buffer, 0, panel, True), tuple(batch_strides), k_strides, writer.write(n_run, origins))


def panel_elements(depth: Dim, width: int, lanes: int) -> Dim:
    """Elements of private memory that pack_panel needs for a panel of depth x width."""
    return (depth if isinstance(depth, int) else depth + lanes) * width + lanes


def pack_panel(w: KernelWriter, source: Load, start: Dim, k: tuple[tuple[Dim, Dim], ...], column: tuple[Dim, Dim], target: Scratch, width: int, panel: Dim) -> tuple[Dim, ...]:
    """Packs one panel into private memory, within another kernel; returns the strides of its k axes there.

    Args: start: the offset of B.   k, column: (size, stride), as for pack.
    """
    n_run = _transposed_run(k, column, w.lanes)
    strides = _row_major(k, width)
    writer = _PackKernel(w, source, width, (), k, column, target, 0, (), strides)
    if n_run:
        run = product(size for size, _ in k[len(k) - n_run:])
        writer._k_loops(len(k) - n_run, 0, start, 0, lambda s, t: writer._transpose_run(s, t, panel, run))
    else:
        writer._k_loops(len(k), 0, start, 0, lambda s, t: writer._copy_row(s, t, panel, 1))
    return strides


def _row_major(k: tuple[tuple[Dim, Dim], ...], width: int) -> tuple[Dim, ...]:
    """Strides of the k axes within a panel."""
    strides, running = [], width
    for size, _ in reversed(k):
        strides.insert(0, running)
        running = running * size
    return tuple(strides)


def _transposed_run(k: tuple[tuple[Dim, Dim], ...], column: tuple[Dim, Dim], lanes: int) -> int:
    """How many of the last axes of k are transposed in registers as one run: none where columns are contiguous or the run is short."""
    count = _contiguous_run(k) if column[1] != 1 else 0
    run = product(size for size, _ in k[len(k) - count:])
    return 0 if isinstance(run, int) and run < min(4, lanes) else count


def _contiguous_run(k: tuple[tuple[Dim, Dim], ...]) -> int:
    """How many of the last axes of k are one contiguous run of memory."""
    expected, count = 1, 0
    for size, stride in reversed(k):
        if stride != expected and size != 1:
            break
        expected, count = expected * size, count + 1
    return count


class _PackKernel:
    def __init__(self, w: KernelWriter, source: Load, width: int, batch, k, column, target: Buffer | Scratch, panel: Dim, batch_strides, k_strides):
        self.w = w
        self.source, self.target = source, target
        self.width, self.batch, self.k = width, batch, k
        self.columns, self.column_stride = column
        self.panel, self.batch_strides, self.k_strides = panel, batch_strides, k_strides
        self.n_panels = floordiv(self.columns + (width - 1), width)
        self.memory = MEMORY_TYPE[source.buffer.dtype]
        self.register_type = REGISTER_TYPE[source.buffer.dtype]

    def write(self, n_run: int, origins: tuple[str, ...]) -> BoundKernel:
        """The kernel; the last `n_run` axes of k are transposed in registers."""
        w, n_batch = self.w, product(size for size, _ in self.batch)
        per_job = 1 if n_run else PANELS_PER_JOB
        groups = floordiv(self.n_panels + (per_job - 1), per_job)
        with w.loop("job", 0, n_batch * groups, parallel=True) as job:
            flat, group = decompose(w, job.index, (n_batch, groups))
            indices = decompose(w, flat, tuple(size for size, _ in self.batch))
            source = w.let(self.source.offset + sum(i * stride for i, (_, stride) in zip(indices, self.batch)))
            target = w.let(sum((i * stride for i, stride in zip(indices, self.batch_strides)), 0))
            if n_run:
                run = product(size for size, _ in self.k[len(self.k) - n_run:])
                self._k_loops(len(self.k) - n_run, 0, source, target, lambda s, t: self._transpose_run(s, t + group * self.panel, group, run))
            else:
                self._k_loops(len(self.k), 0, source, target, lambda s, t: self._copy_row(s, t, group * per_job, per_job))
        elements = n_batch * self.columns * product(size for size, _ in self.k)
        return w.finish("pack", f"panels of {self.width} columns", "pack", origins, 0, elements * 8)

    def _k_loops(self, n_axes: int, level: int, source: Dim, target: Dim, write: Callable[[Dim, Dim], None]) -> None:
        if level == n_axes:
            write(source, target)
            return
        size, stride = self.k[level]
        with self.w.loop("k", 0, size) as loop:
            self._k_loops(n_axes, level + 1, self.w.let(source + loop.index * stride), self.w.let(target + loop.index * self.k_strides[level]), write)

    # Columns contiguous, or nothing is: k outside, columns inside.

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
        memory = self.target.memory_type if isinstance(self.target, Scratch) else MEMORY_TYPE[self.target.dtype]
        self.w.op(f"vst.{memory}", self.w.addr(self.target, index, write=True), value)

    # k contiguous: squares of lanes x lanes, transposed in registers; columns beyond the last repeat it.

    def _transpose_run(self, source: Dim, target: Dim, panel: Dim, run: Dim) -> None:
        w, lanes = self.w, self.w.lanes
        source, target = w.let(source), w.let(target)
        with w.loop("k", 0, run, lanes) as loop, w.loop("v", 0, self.width, lanes) as side:
            column = w.let(panel * self.width + side.index)
            if isinstance(self.columns, int) and self.columns % self.width == 0:
                base = w.let(source + column * self.column_stride)
                rows = [base + r * self.column_stride for r in range(lanes)]
            else:
                rows = [w.let(source + minimum(column + r, self.columns - 1) * self.column_stride) for r in range(lanes)]
            self._square(rows, loop.index, run, target + side.index)

    def _square(self, rows: list[Dim], first: Dim, run: Dim, target: Dim) -> None:
        """One square from k `first`; where the run ends inside it, it starts earlier, or (run unknown or short) loads under a mask."""
        w, lanes = self.w, self.w.lanes
        count = lanes
        if isinstance(run, int) and run >= lanes:
            first = first if run % lanes == 0 else w.let(minimum(first, run - lanes))
            vectors = [w.op(f"vld.{self.memory}", w.addr(self.source.buffer, row + first)) for row in rows]
        else:
            mask = w.op("qtail.q", run - first)
            vectors = [w.op(f"vldq.{self.memory}", mask, w.addr(self.source.buffer, row + first)) for row in rows]
            count = run if isinstance(run, int) else lanes
        for i, value in enumerate(transpose(w, vectors)[:count]):
            self._store(target + (first + i) * self.width, value)
