"""Template "conv": convolutions of one to three dims as a contraction over windows of a channels-last image, and its epilogue.

out[n, o, z, y, x] = sum over taps and c of image[n, c, z*stride + tap*dilation - padding, …] * weight[group, o, c, tap]: rows of the
contraction are output pixels, k runs over taps and channels, columns are output channels. The image is copied into a frame of
zeros first unless it needs none; depthwise convolutions have a kernel of their own.
"""

from __future__ import annotations

import dataclasses

from ...csrc.abi import DTYPE_BYTES
from ...csrc.machine import Machine
from ..index_expr import Dim, product
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..tensor_ir import Buffer, Map, Template
from ..vector_ir import REGISTER_TYPE
from . import template
from .channels_last import Image, Margins, channels_last, three
from .collapse import collapse
from .contract import Axis, Contraction, contract, decompose, merged_axes
from .depthwise import depthwise
from .pack import pack
from .tile import choose_tile

__all__ = ["ConvParams"]


@dataclasses.dataclass(frozen=True)
class ConvParams:
    """Static arguments of a convolution; tuples have one entry per spatial dim.

    Attributes:
        batch, channels, image: sizes of the image.   pixels: spatial sizes of the output.   kernel, stride, dilation: of the windows.
        before, after: zeros around the image.   spread: step between the image's pixels (transposed convolution).
    """

    batch: Dim
    channels: Dim
    image: tuple[Dim, ...]
    pixels: tuple[Dim, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[Dim, ...]
    after: tuple[Dim, ...]
    spread: tuple[int, ...]
    groups: int


@template("conv")
def conv(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine) -> list[BoundKernel]:
    """Kernels of one convolution; operands are the image [n, c, spatial…] and the weight [group, o, c, taps…]."""
    params: ConvParams = statement.params
    out = statement.outputs[0].buffer
    data = statement.operands[0]
    spatial = len(params.kernel)
    image = Image(data.buffer, data.offset, statement.domain[0], params.channels, three(params.image, 1), data.strides[0], data.strides[1], three(data.strides[2:], 0))
    margins = Margins(three(params.before, 0), three(params.after, 0), three(params.spread, 1))
    w = KernelWriter(machine.lanes)
    group_columns = statement.domain[1] // params.groups
    if params.groups == params.channels and group_columns == 1 and params.groups > 1:
        sink = Sink(w, statement, epilogue, stored)
        before = depthwise(w, statement, image, margins, sink, machine)
    else:
        framed, before = channels_last(image, margins, out.dtype, machine.lanes, f"{out.name}_image", statement.origins)
        collapsed = collapse(statement, epilogue, (0, *range(2, 2 + spatial)))
        sink = Sink(w, *(collapsed or (statement, epilogue)), stored)
        before += _write_contraction(w, statement, framed, sink, machine, collapsed is not None)
    points = product(statement.domain)
    depth = params.channels // params.groups * product(params.kernel)
    origins = tuple(dict.fromkeys((*statement.origins, *(o for s in epilogue for o in s.origins))))
    moved = (points + statement.domain[0] * params.channels * product(params.image) + group_columns * params.groups * depth) * DTYPE_BYTES[data.buffer.dtype]
    kernel = w.finish("conv", " + ".join(origins[:4]) or f"convolution of {spatial} dims", "conv", origins, points * depth * 2 + sink.flops(points), moved)
    return [*before, kernel]


def _write_contraction(w: KernelWriter, statement: Template, image: Image, sink: Sink, machine: Machine, is_collapsed: bool) -> list[BoundKernel]:
    """The contraction over windows of the framed image; returns the pack kernel of the weights."""
    params: ConvParams = statement.params
    out, weight = statement.outputs[0].buffer, statement.operands[1]
    batch, columns, *pixels = statement.domain
    pixels, kernel, stride, dilation = three(pixels, 1), three(params.kernel, 1), three(params.stride, 1), three(params.dilation, 1)
    group_channels, group_columns = params.channels // params.groups, columns // params.groups
    taps = tuple(zip(params.kernel, weight.strides[3:]))
    depth = group_channels * product(kernel)
    tile = choose_tile(machine, REGISTER_TYPE[out.dtype], batch * product(pixels), group_columns, depth, params.groups)
    order = (*range(1, len(taps) + 1), 0)
    packed = pack(weight, machine.lanes, tile.vectors * machine.lanes, ((params.groups, weight.strides[0]),), ((group_channels, weight.strides[2]), *taps),
                  (group_columns, weight.strides[1]), out.dtype, f"{out.name}_panels", statement.origins, order)
    b_strides = three([packed.k_strides[i] for i in order[:-1]], 0)
    k = [Axis(size, step * s, b) for size, step, s, b in zip(kernel, dilation, image.strides, b_strides)]
    k = merged_axes([axis for axis in [*k, Axis(group_channels, image.channel_stride, packed.k_strides[0])] if axis.size != 1])
    rows = (Axis(batch, image.batch_stride), *(Axis(size, step * s) for size, step, s in zip(pixels, stride, image.strides)))
    flat = merged_axes([axis for axis in rows if axis.size != 1])
    place = _placing(w, (batch, *pixels), group_columns, len(params.kernel), is_collapsed)
    contraction = Contraction(image.buffer, image.offset, packed.panels, (Axis(params.groups, group_channels * image.channel_stride, packed.batch_strides[0]),), flat, k, group_columns, out.dtype, place, 1)
    contract(w, contraction, tile, sink)
    return [packed.kernel]


def _placing(w: KernelWriter, sizes: tuple[Dim, ...], group_columns: Dim, spatial: int, is_collapsed: bool):
    """(group, output pixel, column in the group) -> coordinates in the domain: [pixel, channel] or [n, channel, spatial…]."""

    def place(group: list[Dim], row: Dim, column: Dim) -> list[Dim]:
        channel = group[0] * group_columns + column
        if is_collapsed:
            return [row, channel]
        n, *pixel = decompose(w, w.let(row), sizes)
        return [n, channel, *pixel[3 - spatial:]]

    return place
