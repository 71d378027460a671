"""Template "conv": convolutions of one to three dims as a contraction over windows of a channels-last image, and its epilogue.

out[n, o, z, y, x] = sum over taps and c of image[n, c, z*stride + tap*dilation - padding, …] * weight[group, o, c, tap]: rows of the
contraction are output pixels, k runs over taps and channels, columns are output channels. The image is copied into a frame of
zeros first unless it needs none. Transposed convolutions, which are written as those of a spread image, run phase by phase; depthwise
ones have kernels of their own, along channels or along rows of pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ...csrc.abi import DTYPE_BYTES
from ...csrc.machine import Machine
from ..index_expr import Dim, floordiv, product
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..tensor_ir import Buffer, Map, Template
from ..vector_ir import REGISTER_TYPE
from . import template
from .channels_last import Image, Margins, channels_last, three
from .collapse import collapse
from .conv_direct import direct
from .conv_groups import grouped, suits_groups
from .conv_phases import phases_of
from .depthwise import depthwise
from .depthwise_rows import depthwise_rows, suits_rows
from .tile import MOST_TILES, choose_tile, near_tiles
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
    """The analytic choice, then others that may be faster in truth; none for depthwise convolutions and those of small groups."""
    if _is_depthwise(statement) or suits_groups(statement, machine.lanes):
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
    margins, phases = phases_of(params, statement.domain[2:])
    w = KernelWriter(machine.lanes)
    group_columns = statement.domain[1] // params.groups
    sink = Sink(w, statement, epilogue, stored)
    if _is_depthwise(statement):
        before = []
        if suits_rows(statement, image, margins, epilogue, stored, machine.lanes):
            depthwise_rows(w, statement, image, margins, sink, machine)
        else:
            before = depthwise(w, statement, image, margins, phases, sink, machine)
    elif suits_groups(statement, machine.lanes):
        before = grouped(w, statement, image, margins, sink, machine)
    else:
        collapsed = collapse(statement, epilogue, (0, *range(2, 2 + spatial)))
        sink = Sink(w, *collapsed, stored) if collapsed else sink
        choice = choice or _analytic(statement, machine)
        if choice.way == DIRECT:
            tile = choose_tile(machine, *_contraction_sizes(statement), shape=choice.tile)
            before = direct(w, statement, image, margins, phases, sink, machine, collapsed is not None, tile)
        else:
            before = _write_winograd(w, statement, image, margins, sink, machine, collapsed is not None, choice)
    points = product(statement.domain)
    depth = params.channels // params.groups * product(params.kernel)
    flops = floordiv(points * depth * 2, product(params.spread)) + sink.flops(points)
    origins = tuple(dict.fromkeys((*statement.origins, *(o for s in epilogue for o in s.origins))))
    moved = (points + statement.domain[0] * params.channels * product(params.image) + group_columns * params.groups * depth) * DTYPE_BYTES[data.buffer.dtype]
    kernel = w.finish("conv", " + ".join(origins[:4]) or f"convolution of {spatial} dims", "conv", origins, flops, moved)
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
    width = _phase_pixels(statement)[-1]
    if {*params.kernel, *params.stride} == {1} or not isinstance(width, int):
        return rows
    return next((fewer for fewer in range(rows, -(-2 * rows // 3) - 1, -1) if width % fewer == 0), rows)


def _phase_pixels(statement: Template) -> list[Dim]:
    """Output pixels of a typical phase, per spatial side."""
    return [floordiv(size + (step - 1), step) for size, step in zip(statement.domain[2:], statement.params.spread)]


def _contraction_sizes(statement: Template) -> tuple[str, Dim, Dim, Dim, Dim]:
    """Register type, rows, columns, depth and repetitions of the direct way, of a typical phase of it."""
    params: ConvParams = statement.params
    batch, columns = statement.domain[:2]
    rows = batch * product(_phase_pixels(statement))
    depth = params.channels // params.groups * product(-(-taps // step) for taps, step in zip(params.kernel, params.spread))
    return REGISTER_TYPE[statement.outputs[0].buffer.dtype], rows, columns // params.groups, depth, params.groups * product(params.spread)


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
