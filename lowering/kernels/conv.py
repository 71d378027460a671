"""Template "conv": convolutions of one to three dims as a contraction over windows of a channels-last image, and its epilogue.

out[n, o, z, y, x] = sum over taps and c of image[n, c, z*stride + tap*dilation - padding, …] * weight[group, o, c, tap]: rows of the
contraction are output pixels, k runs over taps and channels, columns are output channels. The image is copied into a frame of
zeros first unless it needs none; depthwise convolutions have kernels of their own, along channels or along rows of pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

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
from .depthwise_rows import depthwise_rows, suits_rows
from .pack import pack
from .tile import MOST_TILES, choose_tile, near_tiles, stays_near
from .winograd import WinogradTiling, square_margins, squares_stay_near, transform_weights, winograd, winograd_tiling

__all__ = ["ConvChoice", "ConvParams"]

# Measured on AVX2: below, the transforms cost more than the multiplications that they save.
LEAST_WINOGRAD_CHANNELS = 32
LEAST_WINOGRAD_PIXELS = 40

# Ways of a ConvChoice, as explain shows them.
DIRECT, BY_SQUARES, BY_POSITIONS = "direct", "Winograd, squares near", "Winograd, position by position"


@dataclasses.dataclass(frozen=True)
class ConvChoice:
    """The schedule of a convolution.

    Attributes:
        way: DIRECT, or Winograd's algorithm with one of two orders; see winograd_tiling.
        tile: of registers: rows (pixels or squares) by vectors of output channels.
    """

    way: str
    tile: tuple[int, int]

    def __str__(self):
        return f"{self.way}, tile {self.tile[0]} x {self.tile[1]}"


@dataclasses.dataclass(frozen=True)
class ConvParams:
    """Static arguments of a convolution; tuples have one entry per spatial dim.

    Attributes:
        batch, channels, image: sizes of the image.   pixels: spatial sizes of the output.   kernel, stride, dilation: of the windows.
        before, after: zeros around the image.   spread: step between the image's pixels (transposed convolution).
        allows_winograd: sums may be regrouped to multiply less.
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
    allows_winograd: bool = False


def conv_choices(statement: Template, machine: Machine) -> Iterator[ConvChoice]:
    """The analytic choice, then others that may be faster in truth; none for depthwise convolutions."""
    if _is_depthwise(statement):
        return
    first = _analytic(statement, machine)
    yield first
    for way in (DIRECT, *((BY_SQUARES, BY_POSITIONS) if _can_winograd(statement) else ())):
        shapes = _near_shapes(statement, way, machine)
        yield from (ConvChoice(way, shape) for shape in shapes[: MOST_TILES if way == first.way else 1])


@template("conv", conv_choices)
def conv(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: ConvChoice | None = None) -> list[BoundKernel]:
    """Kernels of one convolution; operands are the image [n, c, spatial…] and the weight [group, o, c, taps…]."""
    params: ConvParams = statement.params
    out = statement.outputs[0].buffer
    data = statement.operands[0]
    spatial = len(params.kernel)
    image = Image(data.buffer, data.offset, statement.domain[0], params.channels, three(params.image, 1), data.strides[0], data.strides[1], three(data.strides[2:], 0))
    margins = Margins(three(params.before, 0), three(params.after, 0), three(params.spread, 1))
    w = KernelWriter(machine.lanes)
    group_columns = statement.domain[1] // params.groups
    if _is_depthwise(statement):
        sink = Sink(w, statement, epilogue, stored)
        before = []
        if suits_rows(statement, image, margins, epilogue, stored, machine.lanes):
            depthwise_rows(w, statement, image, margins, sink, machine)
        else:
            before = depthwise(w, statement, image, margins, sink, machine)
    else:
        collapsed = collapse(statement, epilogue, (0, *range(2, 2 + spatial)))
        sink = Sink(w, *(collapsed or (statement, epilogue)), stored)
        choice = choice or _analytic(statement, machine)
        write = _write_contraction if choice.way == DIRECT else _write_winograd
        before = write(w, statement, image, margins, sink, machine, collapsed is not None, choice)
    points = product(statement.domain)
    depth = params.channels // params.groups * product(params.kernel)
    origins = tuple(dict.fromkeys((*statement.origins, *(o for s in epilogue for o in s.origins))))
    moved = (points + statement.domain[0] * params.channels * product(params.image) + group_columns * params.groups * depth) * DTYPE_BYTES[data.buffer.dtype]
    kernel = w.finish("conv", " + ".join(origins[:4]) or f"convolution of {spatial} dims", "conv", origins, points * depth * 2 + sink.flops(points), moved)
    return [*before, kernel]


def _is_depthwise(statement: Template) -> bool:
    params: ConvParams = statement.params
    return params.groups == params.channels == statement.domain[1] and params.groups > 1


def _analytic(statement: Template, machine: Machine) -> ConvChoice:
    if not _suits_winograd(statement):
        tile = choose_tile(machine, *_contraction_sizes(statement))
        return ConvChoice(DIRECT, (_rows_in_run(statement, tile.rows), tile.vectors))
    way = BY_SQUARES if squares_stay_near(machine, *_winograd_sizes(statement)) else BY_POSITIONS
    tiling = _winograd_tiling(statement, machine, way)
    return ConvChoice(way, (tiling.rows, tiling.vectors))


def _rows_in_run(statement: Template, rows: int) -> int:
    """The most pixels, of `rows` to two thirds of it, that divide a row of the output: one address serves all of such a tile.

    Where windows touch, all pixels are one run anyway.
    """
    params: ConvParams = statement.params
    width = statement.domain[-1]
    if {*params.kernel, *params.stride} == {1} or not isinstance(width, int):
        return rows
    return next((fewer for fewer in range(rows, -(-2 * rows // 3) - 1, -1) if width % fewer == 0), rows)


def _contraction_sizes(statement: Template) -> tuple[str, Dim, Dim, Dim, Dim]:
    """Register type, rows, columns, depth and repetitions of the direct way."""
    params: ConvParams = statement.params
    batch, columns, *pixels = statement.domain
    depth = params.channels // params.groups * product(params.kernel)
    return REGISTER_TYPE[statement.outputs[0].buffer.dtype], batch * product(pixels), columns // params.groups, depth, params.groups


def _winograd_sizes(statement: Template) -> tuple[int, tuple[int, int], int, int]:
    batch, columns, *pixels = statement.domain
    return batch, tuple(pixels), statement.params.channels, columns


def _winograd_tiling(statement: Template, machine: Machine, way: str, tile: tuple[int, int] | None = None) -> WinogradTiling:
    return winograd_tiling(machine, *_winograd_sizes(statement), way == BY_SQUARES, tile)


def _near_shapes(statement: Template, way: str, machine: Machine) -> list[tuple[int, int]]:
    register_type, rows, columns, depth, _ = _contraction_sizes(statement)
    if way != DIRECT:
        rows, depth = _winograd_tiling(statement, machine, way).block, statement.params.channels
    return near_tiles(machine, register_type, rows, columns, depth)


def _can_winograd(statement: Template) -> bool:
    """Whether Winograd's algorithm computes the convolution as exactly as docs/limits.md says."""
    params: ConvParams = statement.params
    if not params.allows_winograd:
        return False
    image, weight = statement.operands
    sizes = (*statement.domain, params.channels, *weight.strides)
    if params.kernel != (3, 3) or {*params.stride, *params.dilation, *params.spread, params.groups} != {1} or not all(isinstance(size, int) for size in sizes):
        return False
    has_floats = {image.dtype, statement.outputs[0].buffer.dtype} == {"f32"}
    return has_floats and min(params.channels, statement.domain[1]) >= LEAST_WINOGRAD_CHANNELS and min(statement.domain[2:]) >= 4


def _suits_winograd(statement: Template) -> bool:
    """Whether fewer multiplications outweigh the transforms of image and result; that of the weight takes the place of its packing."""
    if not _can_winograd(statement):
        return False
    batch, _, height, width = statement.domain
    return batch * height * width >= LEAST_WINOGRAD_PIXELS


def _write_winograd(w: KernelWriter, statement: Template, image: Image, margins: Margins, sink: Sink, machine: Machine, is_collapsed: bool, choice: ConvChoice) -> list[BoundKernel]:
    """The convolution by squares; returns the kernels that frame the image and transform the weight."""
    params: ConvParams = statement.params
    out, weight = statement.outputs[0].buffer, statement.operands[1]
    batch, columns, height, width = statement.domain
    after = tuple(square_margins(size, side, before) for size, side, before in zip((height, width), params.image, params.before))
    framed, kernels = channels_last(image, dataclasses.replace(margins, after=(0, *after)), out.dtype, machine.lanes, f"{out.name}_image", statement.origins)
    tiling = _winograd_tiling(statement, machine, choice.way, choice.tile)
    panel_width = tiling.vectors * machine.lanes
    weights, kernel = transform_weights(weight, (params.channels, weight.strides[2]), weight.strides[3:], (columns, weight.strides[1]), machine.lanes, panel_width, f"{out.name}_weights", statement.origins)

    def place(n: Dim, y: Dim, x: Dim, channel: Dim) -> list[Dim]:
        return [w.let((n * height + y) * width + x), channel] if is_collapsed else [n, channel, y, x]

    winograd(w, framed, weights, tiling, columns, (height, width), place, sink)
    return [*kernels, kernel]


def _write_contraction(w: KernelWriter, statement: Template, image: Image, margins: Margins, sink: Sink, machine: Machine, is_collapsed: bool, choice: ConvChoice) -> list[BoundKernel]:
    """The contraction over windows of the framed image; returns the kernels that frame the image and pack the weight."""
    params: ConvParams = statement.params
    out, weight = statement.outputs[0].buffer, statement.operands[1]
    image, kernels = channels_last(image, margins, out.dtype, machine.lanes, f"{out.name}_image", statement.origins)
    batch, columns, *pixels = statement.domain
    pixels, kernel, stride, dilation = three(pixels, 1), three(params.kernel, 1), three(params.stride, 1), three(params.dilation, 1)
    group_channels, group_columns = params.channels // params.groups, columns // params.groups
    tile = choose_tile(machine, *_contraction_sizes(statement), shape=choice.tile)
    steps = [step * s for step, s in zip(dilation, image.strides)]
    rows = (Axis(batch, image.batch_stride), *(Axis(size, step * s) for size, step, s in zip(pixels, stride, image.strides)))
    flat = merged_axes([axis for axis in rows if axis.size != 1])
    axes, b_offset, a_offset = _in_memory_order([(group_channels, weight.strides[2], image.channel_stride), *zip(params.kernel, weight.strides[3:], steps[3 - len(params.kernel):])])
    if len(flat) == 1 and any(_overlap(flat[0].a, step, tile.rows) for _, _, step in axes):
        axes.sort(key=lambda axis: axis[2] == image.channel_stride)
    moved = dataclasses.replace(weight, offset=weight.offset + b_offset)
    packed = pack(moved, machine.lanes, tile.vectors * machine.lanes, ((params.groups, weight.strides[0]),), tuple((size, b) for size, b, _ in axes),
                  (group_columns, weight.strides[1]), out.dtype, f"{out.name}_panels", statement.origins)
    k = merged_axes([Axis(size, a, stride) for (size, _, a), stride in zip(axes, packed.k_strides) if size != 1])
    place = _placing(w, (batch, *pixels), group_columns, len(params.kernel), is_collapsed)
    contraction = Contraction(image.buffer, image.offset + a_offset, packed.panels, (Axis(params.groups, group_channels * image.channel_stride, packed.batch_strides[0]),), flat, k, group_columns, out.dtype, place, 1,
                              a_stays_near=stays_near(machine, product((batch, params.channels // params.groups, *image.sizes)), out.dtype))
    contract(w, contraction, tile, sink)
    return [*kernels, packed.kernel]


def _overlap(row: Dim, tap: Dim, tile_rows: int) -> bool:
    """Whether a step along a tap leads from one row of a tile to another of its rows.

    With such taps side by side C compilers keep what rows share in registers, of which there are not enough (measured: half the speed);
    so channels come between.
    """
    return isinstance(tap, int) and isinstance(row, int) and row != 0 and tap % row == 0 and 0 < abs(tap // row) < tile_rows


def _in_memory_order(axes: list[tuple[int, Dim, Dim]]) -> tuple[list[tuple[int, Dim, Dim]], Dim, Dim]:
    """Axes of k as (size, weight stride, image stride), ascending through the weight's memory, and the offsets where they start.

    Sums over k may run in any order, and a weight is packed fastest in its own: flipped taps go backwards through the image instead.
    """
    b_offset, a_offset, ordered = 0, 0, []
    for size, b, a in axes:
        if isinstance(b, int) and b < 0:
            b_offset, a_offset, b, a = b_offset + b * (size - 1), a_offset + a * (size - 1), -b, -a
        ordered.append((size, b, a))
    if all(isinstance(b, int) for _, b, _ in ordered):
        ordered.sort(key=lambda axis: -axis[1])
    return ordered, b_offset, a_offset


def _placing(w: KernelWriter, sizes: tuple[Dim, ...], group_columns: Dim, spatial: int, is_collapsed: bool):
    """(group, output pixel, column in the group) -> coordinates in the domain: [pixel, channel] or [n, channel, spatial…]."""

    def place(group: list[Dim], row: Dim, column: Dim) -> list[Dim]:
        channel = group[0] * group_columns + column
        if is_collapsed:
            return [row, channel]
        n, *pixel = decompose(w, w.let(row), sizes)
        return [n, channel, *pixel[3 - spatial:]]

    return place
