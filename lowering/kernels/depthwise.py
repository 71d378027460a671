"""Depthwise convolutions: lanes run along channels, a tile of neighbouring output pixels shares its window's columns in registers.

Windows that reach over the left and right edge are resolved when the kernel is written, rows above and below by the bounds
of the loop over taps: the image needs no frame of zeros where its width is known.
"""

from __future__ import annotations

from ...csrc.machine import Machine
from ..index_expr import Dim, floordiv, maximum, minimum
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..select import wrap
from ..tensor_ir import Template
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .channels_last import Image, Margins, channels_last, three
from .contract import decompose, multiply_add, zero
from .pack import PackedOperand, pack

__all__ = ["depthwise"]


def depthwise(w: KernelWriter, statement: Template, image: Image, margins: Margins, sink: Sink, machine: Machine) -> list[BoundKernel]:
    """Writes the kernel's body; returns the kernels that must run before."""
    params, out, weight = statement.params, statement.outputs[0].buffer, statement.operands[1]
    keeps_margins = isinstance(image.sizes[2], int) and margins.spread == (1, 1, 1)
    image, kernels = channels_last(image, Margins() if keeps_margins else margins, out.dtype, machine.lanes, f"{out.name}_image", statement.origins)
    taps = tuple(zip(params.kernel, weight.strides[3:]))
    packed = pack(weight, machine.lanes, machine.lanes, (), taps, (params.channels, weight.strides[0]), out.dtype, f"{out.name}_panels", statement.origins)
    _DepthwiseKernel(w, statement, image, margins.before if keeps_margins else (0, 0, 0), packed, sink).write()
    return [*kernels, packed.kernel]


class _DepthwiseKernel:
    """Jobs are rows of output pixels; inside, tiles of pixels, and for each tile all channels."""

    MOST_PIXELS = 8

    def __init__(self, w: KernelWriter, statement: Template, image: Image, before: tuple[Dim, ...], packed: PackedOperand, sink: Sink):
        params = statement.params
        self.w, self.image, self.before, self.packed, self.sink = w, image, before, packed, sink
        self.batch, self.channels, *pixels = statement.domain
        self.spatial = len(pixels)
        self.pixels = three(pixels, 1)
        self.kernel, self.stride, self.dilation = three(params.kernel, 1), three(params.stride, 1), three(params.dilation, 1)
        self.tap_strides = three(packed.k_strides, 0)
        self.dtype = statement.outputs[0].buffer.dtype

    def write(self) -> None:
        w = self.w
        sizes = (self.batch, *self.pixels[:2])
        with w.loop("row", 0, self.batch * self.pixels[0] * self.pixels[1], parallel=True) as job:
            self.n, self.z, self.y = decompose(w, job.index, sizes)
            self.base = w.let(self.image.offset + self.n * self.image.batch_stride)
            self.tap_ranges = [self._tap_range(side, index) for side, index in ((0, self.z), (1, self.y))]
            self._tiles()

    def _tap_range(self, side: int, index: Dim) -> tuple[Dim, Dim]:
        """Taps of a side that fall into the image."""
        taps, step, size = self.kernel[side], self.dilation[side], self.image.sizes[side]
        if self.before[side] == 0 and (self.pixels[side] == 1 and taps == 1 or not isinstance(size, int) and False):
            return 0, taps
        start = self.w.let(index * self.stride[side] - self.before[side])
        first = maximum(0, floordiv(maximum(0, -start) + (step - 1), step))
        end = minimum(taps, floordiv(maximum(0, size - start) + (step - 1), step))
        return self.w.let(first), self.w.let(end)

    def _tiles(self) -> None:
        """Tiles along the row: where the width is known, the first and the last see the edges; the middle ones are alike."""
        w, width, most = self.w, self.pixels[2], self.MOST_PIXELS
        if not isinstance(width, int) or not isinstance(self.image.sizes[2], int):
            with w.loop("x", 0, width - (most - 1), most) as loop:
                self._channels(loop.index, most, None)
            with w.loop("x", floordiv(width, most) * most, width) as loop:
                self._channels(loop.index, 1, None)
            return
        tiles = max(1, -(-width // most))
        size = -(-width // tiles)
        starts = list(range(0, width, size))
        middle = [x for x in starts if x + size <= width and self._sees_all(x) and self._sees_all(x + size - 1)]
        for x in starts:
            if x in middle and len(middle) > 1:
                if x == middle[0]:
                    with w.loop("x", x, middle[-1] + 1, size) as loop:
                        self._channels(loop.index, size, None)
                continue
            self._channels(x, min(size, width - x), self.image.sizes[2])

    def _sees_all(self, x: int) -> bool:
        """Whether the window of output pixel x lies inside the row."""
        start = x * self.stride[2] - self.before[2]
        return start >= 0 and start + (self.kernel[2] - 1) * self.dilation[2] < self.image.sizes[2]

    def _channels(self, x: Dim, count: int, edge: int | None) -> None:
        """A tile of `count` pixels from x for all channels; `edge` is the image's width where windows may leave it."""
        w, lanes = self.w, self.w.lanes
        whole = floordiv(self.channels, lanes)
        with w.loop("c", 0, whole) as loop:
            self._tile(x, count, edge, loop.index, None)
        if isinstance(self.channels, int) and self.channels % lanes == 0:
            return
        with w.branch(whole * lanes, "<", self.channels):
            self._tile(x, count, edge, whole, w.op("qtail.q", self.channels - whole * lanes))

    def _tile(self, x: Dim, count: int, edge: int | None, panel: Dim, mask: V | None) -> None:
        w = self.w
        channel = w.let(panel * w.lanes)
        weights = w.let(self.packed.panels.offset + panel * self.packed.panels.panel)
        totals = (zero(w, REGISTER_TYPE[self.dtype]),) * count
        (z_first, z_end), (y_first, y_end) = self.tap_ranges
        with w.loop("tz", z_first, z_end, carried=totals) as tz:
            with w.loop("ty", y_first, y_end, carried=tz.values) as ty:
                place = [(i * s - b + t.index * d) * stride for i, s, b, t, d, stride in
                         zip((self.z, self.y), self.stride, self.before, (tz, ty), self.dilation, self.image.strides)]
                row = w.let(self.base + sum(place) + channel)
                taps = w.let(weights + tz.index * self.tap_strides[0] + ty.index * self.tap_strides[1])
                ty.next = self._row(row, taps, x, count, edge, ty.values, mask)
            tz.next = ty.results
        for i, total in enumerate(tz.results):
            coords = [self.n, channel, *(self.z, self.y, x + i)[3 - self.spatial:]]
            self.sink.put(coords, 1, wrap(w, total, self.dtype), mask)

    def _row(self, row: Dim, taps: Dim, x: Dim, count: int, edge: int | None, totals: tuple[V, ...], mask: V | None) -> tuple[V, ...]:
        """Adds one row of taps; columns of the image that several pixels see are loaded once."""
        w, image, result = self.w, self.image, list(totals)
        memory = MEMORY_TYPE[image.buffer.dtype]
        for tap in range(self.kernel[2]):
            weight = w.op(f"vld.{MEMORY_TYPE[self.packed.panels.buffer.dtype]}", w.addr(self.packed.panels.buffer, taps + tap * self.tap_strides[2]))
            for i in range(count):
                column = (x + i) * self.stride[2] - self.before[2] + tap * self.dilation[2]
                if edge is not None and not 0 <= column < edge:
                    continue
                address = w.addr(image.buffer, row + column * image.strides[2])
                pixel = w.op(f"vld.{memory}", address) if mask is None else w.op(f"vldq.{memory}", mask, address)
                result[i] = multiply_add(w, pixel, weight, result[i])
        return tuple(result)
