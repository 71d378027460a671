"""Depthwise convolutions of images whose rows are contiguous: lanes run along a row of pixels, one channel after the other.

Where an image comes channel by channel and its result goes out so, lanes along channels (depthwise.py) would have both copied, and a
picture of three channels would leave most lanes idle. Each job copies some rows of one channel into private memory, with zeros
around them, so that no window has edges; tiles of output rows then share the rows of pixels that they load.
"""

from __future__ import annotations

from ...csrc.abi import DTYPE_BYTES
from ...csrc.machine import Machine
from ..index_expr import Dim, floordiv, minimum, product
from ..kernel_writer import KernelWriter, Sink
from ..select import wrap
from ..tensor_ir import Buffer, Map, Template
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .channels_last import Image, Margins, three
from .contract import decompose, multiply_add, under, zero
from .tile import even_block

__all__ = ["depthwise_rows", "suits_rows"]

# Output rows of a tile: their sums are enough to keep a multiplier of four cycles busy, and a 3 x 3 window loads half as much as row by row.
TILE_ROWS = 4
# Taps of a window up to which a tile is written without loops; estimate, a bound on code size.
MOST_TAPS = 49


def suits_rows(statement: Template, image: Image, margins: Margins, epilogue: tuple[Map, ...], stored: frozenset[Buffer], lanes: int) -> bool:
    """Whether image and results lie along rows of known length, of which half a vector is filled at least, and windows take every pixel."""
    params, rank = statement.params, len(statement.params.kernel)
    sizes = (*image.sizes, *statement.domain[2:], *margins.before, *margins.after)
    if rank > 2 or not all(isinstance(size, int) and size >= 0 for size in sizes):
        return False
    targets = [target for target in (statement.outputs[0], *(s.target for s in epilogue)) if target.buffer in stored]
    is_along_rows = image.strides[2] == 1 and image.channel_stride != 1 and all(target.strides[-1] == 1 for target in targets)
    is_dense = params.stride[-1] == 1 and {*params.spread} == {1}
    return is_along_rows and is_dense and product(params.kernel) <= MOST_TAPS and 2 * statement.domain[-1] >= lanes


def depthwise_rows(w: KernelWriter, statement: Template, image: Image, margins: Margins, sink: Sink, machine: Machine) -> None:
    """Writes the kernel's body."""
    _RowsKernel(w, statement, image, margins, sink, machine).write()


class _RowsKernel:
    """Jobs are blocks of output rows of one channel."""

    def __init__(self, w: KernelWriter, statement: Template, image: Image, margins: Margins, sink: Sink, machine: Machine):
        params, dtype = statement.params, statement.outputs[0].buffer.dtype
        self.w, self.image, self.weight, self.sink, self.dtype = w, image, statement.operands[1], sink, dtype
        self.batch, self.channels, *pixels = statement.domain
        self.rank = len(pixels)
        self.height, self.width = three(pixels, 1)[1:]
        self.kernel, self.stride, self.dilation = (three(of, 1)[1:] for of in (params.kernel, params.stride, params.dilation))
        self.tap_strides = three(self.weight.strides[3:], 0)[1:]
        self.before = margins.before[1:]
        self.register_type = REGISTER_TYPE[dtype]
        self.pitch = -(-self.width // w.lanes) * w.lanes + (self.kernel[1] - 1) * self.dilation[1]
        most_rows = machine.l1_bytes // (self.pitch * max(DTYPE_BYTES[dtype], 4))
        reach = (self.kernel[0] - 1) * self.dilation[0]
        self.block = even_block(self.height, max((most_rows - reach) // self.stride[0], TILE_ROWS), TILE_ROWS)
        # The last vector of a row may reach into the next one, or beyond the last.
        self.scratch = w.scratch(self.register_type, ((self.block - 1) * self.stride[0] + reach + 1) * self.pitch + w.lanes)

    def write(self) -> None:
        w, image = self.w, self.image
        n_blocks = -(-self.height // self.block)
        with w.loop("job", 0, self.batch * self.channels * n_blocks, parallel=True) as job:
            self.n, self.channel, block = decompose(w, job.index, (self.batch, self.channels, n_blocks))
            self.first_row = w.let(block * self.block)
            count = self.block if self.height % self.block == 0 else w.let(minimum(self.block, self.height - self.first_row))
            self._fill(w.let(image.offset + self.n * image.batch_stride + self.channel * image.channel_stride), count)
            start = w.let(self.weight.offset + self.channel * self.weight.strides[0])
            self.taps = {(y, x): self._tap(start + y * self.tap_strides[0] + x * self.tap_strides[1]) for y in range(self.kernel[0]) for x in range(self.kernel[1])}
            with w.loop("y", 0, count - (TILE_ROWS - 1), TILE_ROWS) as y:
                self._row_of_tiles(y.index, TILE_ROWS)
            if not isinstance(count, int) or count % TILE_ROWS:
                with w.loop("y", floordiv(count, TILE_ROWS) * TILE_ROWS, count) as y:
                    self._row_of_tiles(y.index, 1)

    def _tap(self, index: Dim) -> V:
        return self.w.op(f"vldx.{MEMORY_TYPE[self.weight.buffer.dtype]}", self.w.addr(self.weight.buffer, index))

    def _fill(self, source: Dim, count: Dim) -> None:
        """The rows that `count` output rows see, with zeros around the image."""
        w, height = self.w, self.image.sizes[1]
        above = w.let(self.first_row * self.stride[0] - self.before[0])
        with w.loop("row", 0, (count - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1) as row:
            to, y = w.let(row.index * self.pitch), w.let(above + row.index)
            self._zero(to, 0, self.pitch)
            with under(w, y, ">=", 0), under(w, y, "<", height):
                self._copy_row(to + self.before[1], w.let(source + y * self.image.strides[1]))

    def _zero(self, to: Dim, begin: int, end: int) -> None:
        with self.w.loop("x", begin, end, self.w.lanes) as x:
            self._store(to + x.index, zero(self.w, self.register_type))

    def _copy_row(self, to: Dim, source: Dim) -> None:
        w, width, memory = self.w, self.image.sizes[2], MEMORY_TYPE[self.image.buffer.dtype]
        whole = width // w.lanes * w.lanes
        with w.loop("x", 0, whole, w.lanes) as x:
            self._store(to + x.index, w.op(f"vld.{memory}", w.addr(self.image.buffer, source + x.index)))
        if whole < width:
            mask = w.op("qtail.q", width - whole)
            self._store(to + whole, w.op(f"vldq.{memory}", mask, w.addr(self.image.buffer, source + whole)))

    def _store(self, index: Dim, value: V) -> None:
        self.w.op(f"vst.{self.register_type}", self.w.addr(self.scratch, index, write=True), value)

    def _row_of_tiles(self, y: Dim, rows: int) -> None:
        """Output rows y .. y + rows of the block, vector by vector."""
        w = self.w
        whole = self.width // w.lanes * w.lanes
        with w.loop("x", 0, whole, w.lanes) as x:
            self._tile(y, rows, x.index, None)
        if whole < self.width:
            self._tile(y, rows, whole, w.op("qtail.q", self.width - whole))

    def _tile(self, y: Dim, rows: int, x: Dim, mask: V | None) -> None:
        """One vector of each of `rows` output rows; a vector of pixels is loaded once for all windows that see it."""
        w, totals = self.w, [zero(self.w, self.register_type)] * rows
        base = w.let(y * (self.stride[0] * self.pitch) + x)
        seen = {(row * self.stride[0] + tap * self.dilation[0]): [] for row in range(rows) for tap in range(self.kernel[0])}
        for row in range(rows):
            for tap in range(self.kernel[0]):
                seen[row * self.stride[0] + tap * self.dilation[0]].append((row, tap))
        for line in sorted(seen):
            for column in range(self.kernel[1]):
                pixels = w.op(f"vld.{self.register_type}", w.addr(self.scratch, base + (line * self.pitch + column * self.dilation[1])))
                for row, tap in seen[line]:
                    totals[row] = multiply_add(w, pixels, self.taps[tap, column], totals[row])
        for row, total in enumerate(totals):
            position = (w.let(self.first_row + y + row), x)[2 - self.rank:]
            self.sink.put([self.n, self.channel, *position], 1 + self.rank, wrap(w, total, self.dtype), mask)
