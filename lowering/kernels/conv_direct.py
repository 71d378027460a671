"""Convolutions as a contraction over windows of a channels-last image, one for each phase of a transposed one.

Rows of the contraction are output pixels, k runs over taps and channels, columns are output channels.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from ...csrc.machine import Machine
from ..index_expr import Dim, product
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..tensor_ir import Template
from .channels_last import Image, Margins, channels_last, three
from .contract import Axis, Contraction, contract, decompose, merged_axes
from .conv_phases import Phases
from .pack import PackedOperand, pack
from .tile import Tile, stays_near

if TYPE_CHECKING:
    from .conv import ConvParams

__all__ = ["direct"]

Sides = tuple[Phases, Phases, Phases]


def direct(w: KernelWriter, statement: Template, image: Image, margins: Margins, phases: tuple[list[Phases], ...], sink: Sink, machine: Machine, is_collapsed: bool, tile: Tile) -> list[BoundKernel]:
    """Writes the kernel's body, a contraction for each of the `phases` of three sides; returns the kernels that frame the image and pack the weight."""
    params: ConvParams = statement.params
    out, groups, channels = statement.outputs[0].buffer, params.groups, params.channels // params.groups
    # Groups that fill a vector lie on their own: pixels a whole image's channels apart would share few sets of a cache.
    block = channels if channels >= machine.lanes else params.channels
    image, kernels = channels_last(image, margins, out.dtype, machine.lanes, f"{out.name}_image", statement.origins, block=block)
    axes, packed = _pack_weight(statement, image, tuple(side[0] for side in phases), tile, machine)
    near = stays_near(machine, product((image.batch, channels, *image.sizes)), out.dtype)
    for sides in itertools.product(*phases):
        a, b, shifts, k = _depth(image, sides, axes, packed.k_strides)
        batch = (Axis(groups, image.block_stride if block == channels else channels * image.channel_stride, packed.batch_strides[0]), *shifts)
        panels = dataclasses.replace(packed.panels, offset=packed.panels.offset + b)
        place = _placing(w, statement, sides, is_collapsed)
        contract(w, Contraction(image.buffer, image.offset + a, panels, batch, _rows(image, sides), k, statement.domain[1] // groups, out.dtype, place, 1, a_stays_near=near, n_inner=len(shifts)), tile, sink)
    return [*kernels, packed.kernel]


def _rows(image: Image, sides: Sides) -> tuple[Axis, ...]:
    """Axes of the contraction's rows: the output pixels of a phase."""
    pixels = (Axis(side.count, side.pixel_step * stride) for side, stride in zip(sides, image.strides))
    return merged_axes([axis for axis in (Axis(image.batch, image.batch_stride), *pixels) if axis.size != 1])


@dataclasses.dataclass(frozen=True)
class _DepthAxis:
    """An axis of k: the channels, or the taps of a side of three.

    Attributes: size, stride: in the weight, from its last tap where `is_flipped`.
    """

    side: int | None
    size: int
    stride: Dim
    is_flipped: bool = False


def _pack_weight(statement: Template, image: Image, sides: Sides, tile: Tile, machine: Machine) -> tuple[list[_DepthAxis], PackedOperand]:
    """The axes of k, ascending through the weight's memory, and the weight's panels: sums over k may run in any order, and so it is packed fastest."""
    params: ConvParams = statement.params
    out, weight = statement.outputs[0].buffer, statement.operands[1]
    channels, first_side = params.channels // params.groups, 3 - len(params.kernel)
    axes, offset = [_DepthAxis(None, channels, weight.strides[2])], 0
    for side, (size, stride) in enumerate(zip(params.kernel, weight.strides[3:]), first_side):
        is_flipped = isinstance(stride, int) and stride < 0
        offset = offset + stride * (size - 1) * is_flipped
        axes.append(_DepthAxis(side, size, -stride if is_flipped else stride, is_flipped))
    if all(isinstance(axis.stride, int) for axis in axes):
        axes.sort(key=lambda axis: -axis.stride)
    rows = _rows(image, sides)
    if len(rows) == 1 and any(_overlap(rows[0].a, sides[axis.side].dilation * image.strides[axis.side], tile.rows) for axis in axes if axis.side is not None):
        axes.sort(key=lambda axis: axis.side is None)
    moved = dataclasses.replace(weight, offset=weight.offset + offset)
    columns = (statement.domain[1] // params.groups, weight.strides[1])
    return axes, pack(moved, machine.lanes, tile.vectors * machine.lanes, ((params.groups, weight.strides[0]),), tuple((axis.size, axis.stride) for axis in axes),
                      columns, out.dtype, f"{out.name}_panels", statement.origins)


def _depth(image: Image, sides: Sides, axes: list[_DepthAxis], strides: tuple[Dim, ...]) -> tuple[Dim, Dim, tuple[Axis, ...], tuple[Axis, ...]]:
    """Where phases begin in the image and in the panels, the axes over the phases of three sides, and those of k; `strides` are those of `axes` in the panels."""
    a, b, k = sum(side.pixel * stride for side, stride in zip(sides, image.strides)), 0, []
    shifts = [Axis(side.n) for side in sides]
    for axis, stride in zip(axes, strides):
        if axis.side is None:
            k.append(Axis(axis.size, image.channel_stride, stride))
            continue
        side = sides[axis.side]
        tap, shift, step = side.tap, side.tap_shift, side.dilation * image.strides[axis.side]
        if axis.is_flipped:
            reach = side.taps - 1
            a, tap, shift, step = a + reach * step, axis.size - 1 - tap - reach * side.tap_step, -shift, -step
        b = b + tap * stride
        shifts[axis.side] = Axis(side.n, 0, shift * stride)
        k.append(Axis(side.taps, step, side.tap_step * stride))
    return a, b, tuple(shifts), merged_axes([axis for axis in k if axis.size != 1])


def _overlap(row: Dim, tap: Dim, tile_rows: int) -> bool:
    """Whether a step along a tap leads from one row of a tile to another of its rows.

    With such taps side by side C compilers keep what rows share in registers, of which there are not enough (measured: half the speed);
    so channels come between.
    """
    return isinstance(tap, int) and isinstance(row, int) and row != 0 and tap % row == 0 and 0 < abs(tap // row) < tile_rows


def _placing(w: KernelWriter, statement: Template, sides: Sides, is_collapsed: bool):
    """((group, phases), output pixel of a phase, column in the group) -> coordinates in the domain: [pixel, channel] or [n, channel, spatial…]."""
    batch, columns, *pixels = statement.domain
    group_columns, spatial, pixels = columns // statement.params.groups, len(pixels), three(pixels, 1)
    takes_all = all(side.step == 1 for side in sides)

    def place(at: list[Dim], row: Dim, column: Dim) -> list[Dim]:
        channel = at[0] * group_columns + column
        if is_collapsed and takes_all:
            return [row, channel]
        n, *indices = decompose(w, w.let(row), (batch, *(side.count for side in sides)))
        z, y, x = (side.first + phase + index * side.step for side, phase, index in zip(sides, at[1:], indices))
        if is_collapsed:
            return [w.let(((n * pixels[0] + z) * pixels[1] + y) * pixels[2] + x), channel]
        return [n, channel, *(z, y, x)[3 - spatial:]]

    return place
