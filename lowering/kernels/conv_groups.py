"""Convolutions of many small groups: lanes run along the output channels of several groups.

A group that has fewer channels than a vector has lanes would leave the others idle. So a vector of output channels covers whole groups, and
for each channel of a group in turn its pixel is brought into all lanes of its group, by a permutation of the image's vector; a tile of
neighbouring output pixels shares the permuted columns of its windows.
"""

from __future__ import annotations

from ...csrc.machine import Machine
from ..index_expr import Dim, floordiv, product
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..tensor_ir import Template
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .channels_last import Image, Margins, channels_last, three
from .contract import decompose, multiply_add, zero
from .pack import PackedOperand, pack
from .tile import even_block

__all__ = ["grouped", "suits_groups"]

# Registers beside the sums: the weights of a row of taps up to 5, a permuted column, its index and the loads ahead.
OTHER_REGISTERS = 10


def suits_groups(statement: Template, lanes: int) -> bool:
    """Whether vectors of output channels cover whole groups, with as many channels of the image."""
    params, weight = statement.params, statement.operands[1]
    columns, channels = statement.domain[1], params.channels
    if params.groups == 1 or {*params.spread} != {1} or REGISTER_TYPE[statement.outputs[0].buffer.dtype] != "sf":
        return False
    size = channels // params.groups
    return channels == columns and 1 < size < lanes and lanes % size == 0 and channels % lanes == 0 and weight.strides[0] == size * weight.strides[1]


def grouped(w: KernelWriter, statement: Template, image: Image, margins: Margins, sink: Sink, machine: Machine) -> list[BoundKernel]:
    """Writes the kernel's body; returns the kernels that frame the image and pack the weight."""
    params, out, weight = statement.params, statement.outputs[0].buffer, statement.operands[1]
    image, kernels = channels_last(image, margins, out.dtype, machine.lanes, f"{out.name}_image", statement.origins, block=machine.lanes)
    size = params.channels // params.groups
    k = ((size, weight.strides[2]), *zip(params.kernel, weight.strides[3:]))
    packed = pack(weight, machine.lanes, machine.lanes, (), k, (params.channels, weight.strides[1]), out.dtype, f"{out.name}_panels", statement.origins)
    most_pixels = machine.n_vregs - OTHER_REGISTERS
    _GroupsKernel(w, statement, image, packed, most_pixels, sink).write()
    return [*kernels, packed.kernel]


class _GroupsKernel:
    """Jobs are rows of output pixels of one vector of channels; inside, tiles of pixels."""

    def __init__(self, w: KernelWriter, statement: Template, image: Image, packed: PackedOperand, most_pixels: int, sink: Sink):
        params = statement.params
        self.w, self.image, self.panels, self.sink = w, image, packed.panels, sink
        self.batch, columns, *sides = statement.domain
        self.n_vectors, self.size, self.spatial = columns // w.lanes, params.channels // params.groups, len(sides)
        self.sides, self.kernel, self.stride, self.dilation = (three(of, 1) for of in (sides, params.kernel, params.stride, params.dilation))
        self.channel_stride, self.tap_strides = packed.k_strides[0], three(packed.k_strides[1:], 0)
        self.block = even_block(self.sides[2], most_pixels)
        self.memory, self.weight_memory = MEMORY_TYPE[image.buffer.dtype], MEMORY_TYPE[self.panels.buffer.dtype]

    def write(self) -> None:
        w, image = self.w, self.image
        self.first_channels = w.op("vand.w", w.op("viota.w"), w.op("vsplat.w", -self.size))
        sizes = (self.batch, self.n_vectors, *self.sides[:2])
        with w.loop("row", 0, product(sizes), parallel=True) as job:
            self.n, self.vector, self.z, self.y = decompose(w, job.index, sizes)
            rows = sum(i * step * stride for i, step, stride in zip((self.z, self.y), self.stride, image.strides))
            self.base = w.let(image.offset + self.n * image.batch_stride + self.vector * image.block_stride + rows)
            self.weights = w.let(self.panels.offset + self.vector * self.panels.panel)
            width = self.sides[2]
            whole = floordiv(width, self.block) * self.block
            with w.loop("x", 0, whole, self.block) as x:
                self._tile(x.index, self.block)
            if whole != width and isinstance(width, int):
                self._tile(whole, width - whole)
            elif whole != width:
                with w.loop("x", whole, width) as x:
                    self._tile(x.index, 1)

    def _tile(self, x: Dim, count: int) -> None:
        """`count` output pixels from x."""
        w = self.w
        start = w.let(self.base + x * (self.stride[2] * self.image.strides[2]))
        totals = (zero(w, "sf"),) * count
        with w.loop("tz", 0, self.kernel[0], carried=totals) as tz:
            with w.loop("ty", 0, self.kernel[1], carried=tz.values) as ty:
                row = w.let(start + sum(tap.index * (d * s) for tap, d, s in zip((tz, ty), self.dilation, self.image.strides)))
                weights = w.let(self.weights + sum(tap.index * s for tap, s in zip((tz, ty), self.tap_strides)))
                with w.loop("c", 0, self.size, carried=(self.first_channels, *ty.values)) as c:
                    index, *sums = c.values
                    c.next = (w.op("vadd.w", index, w.op("vsplat.w", 1)), *self._channel(row, w.let(weights + c.index * self.channel_stride), index, sums))
                ty.next = c.results[1:]
            tz.next = ty.results
        for i, total in enumerate(tz.results):
            self.sink.put([self.n, w.let(self.vector * w.lanes), *(self.z, self.y, x + i)[3 - self.spatial:]], 1, total)

    def _channel(self, row: Dim, weights: Dim, index: V, sums: list[V]) -> list[V]:
        """Adds a row of taps of one channel of every group, column by column of the image."""
        w, taps = self.w, range(self.kernel[2])
        factors = [w.op(f"vld.{self.weight_memory}", w.addr(self.panels.buffer, weights + tap * self.tap_strides[2])) for tap in taps]
        meetings: dict[int, list[tuple[int, int]]] = {}
        for i in range(len(sums)):
            for tap in taps:
                meetings.setdefault(i * self.stride[2] + tap * self.dilation[2], []).append((i, tap))
        for column, pairs in sorted(meetings.items()):
            pixels = w.op("vperm.sf", w.op(f"vld.{self.memory}", w.addr(self.image.buffer, row + column * self.image.strides[2])), index)
            for i, tap in pairs:
                sums[i] = multiply_add(w, pixels, factors[tap], sums[i])
        return sums
