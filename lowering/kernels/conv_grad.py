"""Templates for the gradients of convolution weights: contractions over all output pixels.

"conv_weight_grad": out[group, o, tap…, c] = sum over n and pixels of rows[n, group*o, pixel] * image[n, group*c, pixel*stride + tap*dilation - before];
"depthwise_weight_grad": out[tap…, c], the same where every group has one channel on both sides.
"""

from __future__ import annotations

import dataclasses

from ...csrc.abi import DTYPE_BYTES
from ...csrc.machine import Machine
from ..index_expr import Dim, floordiv, product
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..select import wrap
from ..tensor_ir import Buffer, Load, Map, Template
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from . import template
from .channels_last import Image, Margins, channels_last, three
from .collapse import collapse
from .contract import Axis, Contraction, Panels, contract, decompose, merged_axes, multiply_add, zero
from .conv import ConvParams
from .pack import pack
from .tile import choose_tile

__all__ = ["conv_weight_grad", "depthwise_weight_grad"]

# Steps of k between two visits of a tile: the image's pixels lie apart, so that a long panel would not stay near.
K_BLOCK = 512
# How much better the lanes must be filled along the output's channels; estimate: rows of taps are read with fewer addresses.
LEAST_GAIN_ALONG_OUTPUTS = 1.25
# Rows are few there and k is long: so many jobs share them.
ROW_SHARES = 4


def _framed(statement: Template, machine: Machine) -> tuple[Image, list[BoundKernel]]:
    """The image with its margins, and the kernel that makes it."""
    params: ConvParams = statement.params
    data, out = statement.operands[1], statement.outputs[0].buffer
    image = Image(data.buffer, data.offset, params.batch, params.channels, three(params.image, 1), data.strides[0], data.strides[1], three(data.strides[2:], 0))
    margins = Margins(three(params.before, 0), three(params.after, 0))
    return channels_last(image, margins, out.dtype, machine.lanes, f"{out.name}_image", statement.origins)


def _finish(w: KernelWriter, statement: Template, epilogue: tuple[Map, ...], sink: Sink, kind: str) -> BoundKernel:
    params: ConvParams = statement.params
    points, depth = product(statement.domain), params.batch * product(params.pixels)
    origins = tuple(dict.fromkeys((*statement.origins, *(o for s in epilogue for o in s.origins))))
    moved = (points + params.batch * params.channels * (product(params.image) + product(params.pixels))) * DTYPE_BYTES[statement.operands[0].buffer.dtype]
    return w.finish(kind, " + ".join(origins[:4]) or kind, kind, origins, points * depth * 2 + sink.flops(points), moved)


@template("conv_weight_grad")
def conv_weight_grad(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine) -> list[BoundKernel]:
    """Kernels of one weight gradient; see the module's description."""
    params: ConvParams = statement.params
    rank = len(params.kernel)
    image, kernels = _framed(statement, machine)
    w = KernelWriter(machine.lanes)
    if _fills_lanes_better_along_outputs(statement, machine.lanes):
        sink = Sink(w, statement, epilogue, stored)
        _write_along_outputs(w, statement, image, sink, machine)
        return [*kernels, _finish(w, statement, epilogue, sink, "conv_weight_grad")]
    joined = None
    if params.groups == 1 and params.dilation[-1] == 1 and image.strides[2] == params.channels:
        joined = collapse(statement, epilogue, (1 + rank, 2 + rank))
    sink = Sink(w, *(joined or (statement, epilogue)), stored)
    kernels += _write(w, statement, image, sink, machine, joined is not None)
    return [*kernels, _finish(w, statement, epilogue, sink, "conv_weight_grad")]


def _fills_lanes_better_along_outputs(statement: Template, lanes: int) -> bool:
    """Whether the output's channels, side by side in its gradient, fill vectors markedly better than a row of taps does: images of few channels."""
    _, n_outputs, *taps, channels = statement.domain

    def filled(n: int) -> float:
        return n / (-(-n // lanes) * lanes)

    return statement.operands[0].strides[1] == 1 and filled(n_outputs) > LEAST_GAIN_ALONG_OUTPUTS * filled(taps[-1] * channels)


def _write_along_outputs(w: KernelWriter, statement: Template, image: Image, sink: Sink, machine: Machine) -> None:
    """The contraction with taps and channels of the image as rows, and the output's channels along the lanes."""
    params, grad, out = statement.params, statement.operands[0], statement.outputs[0].buffer
    groups, columns, *taps, channels = statement.domain
    outer = 3 - len(taps)
    tap_steps = [d * s for d, s in zip(three(params.dilation, 1), image.strides)][outer:]
    rows = merged_axes([*(Axis(size, step) for size, step in zip(taps, tap_steps)), Axis(channels, 1)])
    pixel_steps = [s * step for s, step in zip(params.stride, image.strides[outer:])]
    k = [Axis(params.batch, image.batch_stride, grad.strides[0]), *(Axis(*a) for a in zip(params.pixels, pixel_steps, grad.strides[2:]))]
    n_rows, depth = product(taps) * channels, params.batch * product(params.pixels)
    tile = choose_tile(machine, REGISTER_TYPE[out.dtype], -(-n_rows // ROW_SHARES), columns, depth, groups)
    tile = dataclasses.replace(tile, k_block=min(tile.k_block, K_BLOCK))
    panels = Panels(grad.buffer, grad.offset, tile.vectors * machine.lanes, False)

    def place(batch: list[Dim], row: Dim, column: Dim) -> list[Dim]:
        return [batch[0], column, *decompose(w, w.let(row), (*taps, channels))]

    batch = (Axis(groups, channels, columns),)
    contract(w, Contraction(image.buffer, image.offset, panels, batch, rows, merged_axes(k), columns, out.dtype, place, 1), tile, sink)


def _write(w: KernelWriter, statement: Template, image: Image, sink: Sink, machine: Machine, is_joined: bool) -> list[BoundKernel]:
    """The contraction; where `is_joined`, a row of taps with its channels is one run of columns."""
    params, rows_load, out = statement.params, statement.operands[0], statement.outputs[0].buffer
    groups, n_rows, *taps, channels = statement.domain
    row_taps = taps.pop() if is_joined else 1
    steps = [d * s for d, s in zip(three(params.dilation, 1), image.strides)][3 - len(params.kernel):]
    batch = (Axis(groups, n_rows * rows_load.strides[1], channels), *(Axis(size, 0, step) for size, step in zip(taps, steps)))
    columns, depth = row_taps * channels, params.batch * product(params.pixels)
    tile = choose_tile(machine, REGISTER_TYPE[out.dtype], n_rows, columns, depth, product(axis.size for axis in batch))
    tile = dataclasses.replace(tile, k_block=min(tile.k_block, K_BLOCK))
    pixel_steps = [s * step for s, step in zip(params.stride, image.strides[3 - len(params.kernel):])]
    k = [Axis(params.batch, rows_load.strides[0], image.batch_stride), *(Axis(*a) for a in zip(params.pixels, rows_load.strides[2:], pixel_steps))]
    panels = Panels(image.buffer, image.offset, tile.vectors * machine.lanes, False)
    place = _placing(len(taps), n_rows, is_joined)
    contraction = Contraction(rows_load.buffer, rows_load.offset, panels, batch, (Axis(n_rows, rows_load.strides[1]),), tuple(k), columns, out.dtype, place, 0 if is_joined else 2 + len(taps))
    kernels = []
    if rows_load.strides[1] == 1:
        contraction, kernel = _pack_rows(contraction, rows_load, tile.rows, machine.lanes, statement)
        kernels.append(kernel)
    contract(w, dataclasses.replace(contraction, k=merged_axes(contraction.k)), tile, sink)
    return kernels


def _placing(n_taps: int, n_rows: Dim, is_joined: bool):
    def place(batch: list[Dim], row: Dim, column: Dim) -> list[Dim]:
        return [column, batch[0], row, *batch[1:]] if is_joined else [batch[0], row, *batch[1:], column]

    return place


def _pack_rows(c: Contraction, rows: Load, height: int, lanes: int, statement: Template) -> tuple[Contraction, BoundKernel]:
    """The contraction with its rows, whose channels are side by side, packed into panels of a tile's rows."""
    name = f"{statement.outputs[0].buffer.name}_row_panels"
    k = tuple((axis.size, axis.a) for axis in c.k)
    packed = pack(rows, lanes, height, ((c.batch[0].size, c.batch[0].a),), k, (c.rows[0].size, 1), c.dtype, name, statement.origins)
    batch = (Axis(c.batch[0].size, packed.batch_strides[0], c.batch[0].b), *c.batch[1:])
    k_axes = tuple(Axis(axis.size, stride, axis.b) for axis, stride in zip(c.k, packed.k_strides))
    return dataclasses.replace(c, a=packed.panels.buffer, a_offset=0, batch=batch, k=k_axes, a_panel=packed.panels.panel), packed.kernel


@template("depthwise_weight_grad")
def depthwise_weight_grad(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine) -> list[BoundKernel]:
    """Kernels of one depthwise weight gradient: jobs of (channels, tap row), in which a tap of every column is a register."""
    params, rows, out = statement.params, statement.operands[0], statement.outputs[0].buffer
    image, kernels = _framed(statement, machine)
    sides = Image(rows.buffer, rows.offset, params.batch, params.channels, three(params.pixels, 1), rows.strides[0], rows.strides[1], three(rows.strides[2:], 0))
    sides, copies = channels_last(sides, Margins(), out.dtype, machine.lanes, f"{out.name}_rows", statement.origins)
    w = KernelWriter(machine.lanes)
    sink = Sink(w, statement, epilogue, stored)
    _DepthwiseWeightGrad(w, statement, sides, image, sink).write()
    return [*kernels, *copies, _finish(w, statement, epilogue, sink, "depthwise_weight_grad")]


class _DepthwiseWeightGrad:
    def __init__(self, w: KernelWriter, statement: Template, rows: Image, image: Image, sink: Sink):
        params: ConvParams = statement.params
        self.w, self.rows, self.image, self.sink = w, rows, image, sink
        self.channels, self.spatial = params.channels, len(params.kernel)
        self.kernel, self.stride, self.dilation = three(params.kernel, 1), three(params.stride, 1), three(params.dilation, 1)
        self.dtype = statement.outputs[0].buffer.dtype

    def write(self) -> None:
        w, lanes = self.w, self.w.lanes
        n_panels = floordiv(self.channels + (lanes - 1), lanes)
        sizes = (n_panels, *self.kernel[:2])
        with w.loop("job", 0, product(sizes), parallel=True) as job:
            panel, tz, ty = decompose(w, job.index, sizes)
            channel = w.let(panel * lanes)
            if self.channels % lanes == 0:
                self._taps(channel, tz, ty, None)
                return
            with w.branch(channel + lanes, "<=", self.channels):
                self._taps(channel, tz, ty, None)
            with w.branch(channel + lanes, ">", self.channels):
                self._taps(channel, tz, ty, w.op("qtail.q", self.channels - channel))

    def _taps(self, channel: Dim, tz: Dim, ty: Dim, mask: V | None) -> None:
        w, rows, image = self.w, self.rows, self.image
        a = w.let(rows.offset + channel)
        b = w.let(image.offset + channel + tz * (self.dilation[0] * image.strides[0]) + ty * (self.dilation[1] * image.strides[1]))
        axes = [Axis(rows.batch, rows.batch_stride, image.batch_stride)]
        axes += [Axis(size, s, step * t) for size, s, step, t in zip(rows.sizes, rows.strides, self.stride, image.strides)]
        totals = (zero(w, REGISTER_TYPE[self.dtype]),) * self.kernel[2]
        for tx, total in enumerate(self._pixels(axes, a, b, totals, mask)):
            self.sink.put([*(tz, ty, tx)[3 - self.spatial:], channel], self.spatial, wrap(w, total, self.dtype), mask)

    def _pixels(self, axes: list[Axis], a: Dim, b: Dim, totals: tuple[V, ...], mask: V | None) -> tuple[V, ...]:
        """Adds pixel by pixel: one vector of the rows meets the image's vector of every tap in the row."""
        w, image = self.w, self.image
        if not axes:
            side = self._load(self.rows.buffer, a, mask)
            step = self.dilation[2] * image.strides[2]
            return tuple(multiply_add(w, side, self._load(image.buffer, b + tx * step, mask), total) for tx, total in enumerate(totals))
        with w.loop("k", 0, axes[0].size, carried=totals) as loop:
            loop.next = self._pixels(axes[1:], w.let(a + loop.index * axes[0].a), w.let(b + loop.index * axes[0].b), loop.values, mask)
        return loop.results

    def _load(self, buffer: Buffer, index: Dim, mask: V | None) -> V:
        address, memory = self.w.addr(buffer, index), MEMORY_TYPE[buffer.dtype]
        return self.w.op(f"vld.{memory}", address) if mask is None else self.w.op(f"vldq.{memory}", mask, address)
