"""Depthwise convolutions: lanes run along channels, a tile of neighbouring output pixels shares its window's columns in registers.

Windows that reach over the left and right edge are resolved when the kernel is written, rows above and below by the bounds
of the loop over taps: the image needs no frame of zeros where its width is known. A transposed convolution runs phase by phase.
"""

from __future__ import annotations

import itertools

from ...csrc.machine import Machine
from ..index_expr import Dim, floordiv, maximum, minimum, product
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..select import wrap
from ..tensor_ir import Template
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .channels_last import Image, Margins, channels_last, three
from .contract import decompose, multiply_add, zero
from .conv_phases import Phases
from .pack import PackedOperand, pack

__all__ = ["depthwise"]


def depthwise(w: KernelWriter, statement: Template, image: Image, margins: Margins, phases: tuple[list[Phases], ...], sink: Sink, machine: Machine) -> list[BoundKernel]:
    """Writes the kernel's body, for each of the `phases` of three sides; returns the kernels that must run before."""
    params, out, weight = statement.params, statement.outputs[0].buffer, statement.operands[1]
    has_edges = isinstance(image.sizes[2], int)
    image, kernels = channels_last(image, Margins() if has_edges else margins, out.dtype, machine.lanes, f"{out.name}_image", statement.origins)
    taps = tuple(zip(params.kernel, weight.strides[3:]))
    packed = pack(weight, machine.lanes, machine.lanes, (), taps, (params.channels, weight.strides[0]), out.dtype, f"{out.name}_panels", statement.origins)
    for rows in itertools.product(*phases[:2]):
        _DepthwiseKernel(w, statement, image, margins.before if has_edges else (0, 0, 0), rows, packed, sink).write(phases[2])
    return [*kernels, packed.kernel]


class _DepthwiseKernel:
    """Jobs are rows of output pixels; inside, tiles of pixels, and for each tile all channels."""

    MOST_PIXELS = 8

    def __init__(self, w: KernelWriter, statement: Template, image: Image, margins: tuple[Dim, ...], rows: tuple[Phases, Phases], packed: PackedOperand, sink: Sink):
        """`margins`: zeros before each side of the image that are not in memory.   `rows`: phases of the outer two sides."""
        self.w, self.image, self.margins, self.rows, self.panels, self.sink = w, image, margins, rows, packed.panels, sink
        self.batch, self.channels, *sides = statement.domain
        self.spatial = len(sides)
        self.tap_strides = three(packed.k_strides, 0)
        self.dtype = statement.outputs[0].buffer.dtype

    def write(self, columns: list[Phases]) -> None:
        """`columns`: the phases of the innermost side."""
        w, (z, y) = self.w, self.rows
        sizes = (self.batch, z.n, z.count, y.n, y.count)
        with w.loop("row", 0, product(sizes), parallel=True) as job:
            self.n, *position = decompose(w, job.index, sizes)
            row_phases, self.at = position[0::2], position[1::2]
            self.base = w.let(self.image.offset + self.n * self.image.batch_stride)
            self.tap_ranges = [self._tap_range(side) for side in (0, 1)]
            for self.column in columns:
                with w.loop("phase", 0, self.column.n) as loop:
                    self.phase = (*row_phases, loop.index)
                    self._tiles()

    def _begin(self, side: int) -> Dim:
        """The pixel that the current output row meets with its first tap."""
        phases = self.rows[side]
        return self.at[side] * phases.pixel_step + (phases.pixel - self.margins[side])

    def _tap_range(self, side: int) -> tuple[Dim, Dim]:
        """Taps of an outer side that fall into the image."""
        phases, size = self.rows[side], self.image.sizes[side]
        begin, taps, step = self._begin(side), phases.taps, phases.dilation
        if begin == 0 and taps == 1:
            return 0, taps
        start = self.w.let(begin)
        first = maximum(0, floordiv(maximum(0, -start) + (step - 1), step))
        end = minimum(taps, floordiv(maximum(0, size - start) + (step - 1), step))
        return self.w.let(first), self.w.let(end)

    def _tiles(self) -> None:
        """Tiles along the row: where the width is known, the first and the last see the edges; the middle ones are alike."""
        w, width, most = self.w, self.column.count, self.MOST_PIXELS
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

    def _pixel(self, x: Dim, tap: int) -> Dim:
        """The pixel of the row that output pixel x of the phase meets with a tap."""
        return x * self.column.pixel_step + (self.column.pixel - self.margins[2] + tap * self.column.dilation)

    def _sees_all(self, x: int) -> bool:
        """Whether the window of output pixel x lies inside the row."""
        return self._pixel(x, 0) >= 0 and self._pixel(x, self.column.taps - 1) < self.image.sizes[2]

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
        sides = (*self.rows, self.column)
        first_taps = (side.tap + phase * side.tap_shift for side, phase in zip(sides, self.phase))
        weights = w.let(self.panels.offset + panel * self.panels.panel + sum(tap * stride for tap, stride in zip(first_taps, self.tap_strides)))
        totals = (zero(w, REGISTER_TYPE[self.dtype]),) * count
        (z_first, z_end), (y_first, y_end) = self.tap_ranges
        with w.loop("tz", z_first, z_end, carried=totals) as tz:
            with w.loop("ty", y_first, y_end, carried=tz.values) as ty:
                place = [(self._begin(side) + tap.index * self.rows[side].dilation) * self.image.strides[side] for side, tap in enumerate((tz, ty))]
                row = w.let(self.base + sum(place) + channel)
                taps = w.let(weights + sum(tap.index * (self.rows[side].tap_step * self.tap_strides[side]) for side, tap in enumerate((tz, ty))))
                ty.next = self._row(row, taps, x, count, edge, ty.values, mask)
            tz.next = ty.results
        for i, total in enumerate(tz.results):
            place = [side.first + phase + index * side.step for side, phase, index in zip(sides, self.phase, (*self.at, x + i))]
            self.sink.put([self.n, channel, *place[3 - self.spatial:]], 1, wrap(w, total, self.dtype), mask)

    def _row(self, row: Dim, taps: Dim, x: Dim, count: int, edge: int | None, totals: tuple[V, ...], mask: V | None) -> tuple[V, ...]:
        """Adds one row of taps; columns of the image that several pixels see are loaded once."""
        w, image, result = self.w, self.image, list(totals)
        memory = MEMORY_TYPE[image.buffer.dtype]
        for tap in range(self.column.taps):
            step = self.column.tap_step * self.tap_strides[2]
            weight = w.op(f"vld.{MEMORY_TYPE[self.panels.buffer.dtype]}", w.addr(self.panels.buffer, taps + tap * step))
            for i in range(count):
                column = self._pixel(x + i, tap)
                if edge is not None and not 0 <= column < edge:
                    continue
                address = w.addr(image.buffer, row + column * image.strides[2])
                pixel = w.op(f"vld.{memory}", address) if mask is None else w.op(f"vldq.{memory}", mask, address)
                result[i] = multiply_add(w, pixel, weight, result[i])
        return tuple(result)
