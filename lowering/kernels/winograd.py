"""3 x 3 convolutions with stride 1 by Winograd's F(2 x 2, 3 x 3): 16 multiplications instead of 36 for a square of four output pixels.

Lavin and Gray, "Fast algorithms for convolutional neural networks" (CVPR 2016). Blocks of squares are transformed into private
scratch, multiplied with the transformed weights position by position, and transformed back on the way to the Sink, so that
what lies between stays in near memory. Sums are regrouped: results differ from the direct ones by a few units in the last place.
"""

from __future__ import annotations

import contextlib
import dataclasses

from ...csrc.machine import Machine
from ..index_expr import Dim, floordiv, minimum, product
from ..kernel_writer import BoundKernel, KernelWriter, Scratch, Sink
from ..tensor_ir import Buffer, Load
from ..vector_ir import V
from .channels_last import Image
from .contract import decompose, multiply_add, under, zero
from .pack import pack_panel, panel_elements
from .tile import choose_tile

__all__ = ["WinogradTiling", "square_margins", "squares_stay_near", "transform_weights", "winograd", "winograd_tiling"]

POSITIONS = 16
# Channels whose weights are turned into panels and transformed at a time: 9 * 16 vectors, which stay in the first level.
CHANNELS_AT_A_TIME = 16
LINE_ELEMENTS = 16  # of f32 in 64 bytes
LEAST_JOBS = 2  # two contexts have work


@dataclasses.dataclass(frozen=True)
class WinogradTiling:
    """Blocking of a job.

    Attributes:
        rows, vectors: register tile: squares by vectors of channels.   squares: per image side.
        block: squares of a job.   groups: jobs that share the panels of a block.
        panels: panels that are multiplied, position by position, before they are transformed out.
    """

    rows: int
    vectors: int
    squares: tuple[int, int]
    block: int
    groups: int
    panels: int


def winograd_tiling(machine: Machine, batch: int, pixels: tuple[int, int], channels: int, columns: int, is_near: bool, shape: tuple[int, int] | None = None) -> WinogradTiling:
    """The blocking of one of two orders; `shape` sets the register tile.

    Either (is_near) a job's transformed squares stay near for panel after panel, and the weights are read for every few squares; or all squares
    and panels of one position follow each other, which reads the weights seldom, but the squares and products of 16 positions come and go.
    """
    total = batch * product(_squares(pixels))
    n_blocks = _n_blocks(machine, total, channels, columns, is_near)
    block = -(-total // n_blocks)
    tile = choose_tile(machine, "sf", block, columns, channels, shape=shape)
    n_panels = -(-columns // (tile.vectors * machine.lanes))
    groups = min(-(-LEAST_JOBS // n_blocks), n_panels)
    return WinogradTiling(tile.rows, tile.vectors, _squares(pixels), -(-block // tile.rows) * tile.rows, groups, 1 if is_near else -(-n_panels // groups))


def squares_stay_near(machine: Machine, batch: int, pixels: tuple[int, int], channels: int, columns: int) -> bool:
    """Which order has the least traffic with far memory; see winograd_tiling."""
    total = batch * product(_squares(pixels))
    weights = POSITIONS * channels * columns
    near, far = (_n_blocks(machine, total, channels, columns, is_near) for is_near in (True, False))
    return near * weights <= far * weights + 2 * POSITIONS * total * (channels + columns)


def _squares(pixels: tuple[int, int]) -> tuple[int, int]:
    return (pixels[0] + 1) // 2, (pixels[1] + 1) // 2


def _n_blocks(machine: Machine, total: int, channels: int, columns: int, is_near: bool) -> int:
    """Blocks of `total` squares, each with what it needs near."""
    most = machine.l2_bytes // 2 // (POSITIONS * channels * 4) if is_near else machine.l2_bytes // 4 // ((channels + columns) * 4)
    return -(-total // min(total, max(6, most)))


def square_margins(pixels: Dim, image: Dim, before: Dim) -> Dim:
    """Zeros behind an image side so that its last square of windows is whole."""
    return 2 * ((pixels + 1) // 2) + 2 - image - before


def _add(w: KernelWriter, a: V, b: V) -> V:
    return w.op("vfadd.sf", a, b)


def _sub(w: KernelWriter, a: V, b: V) -> V:
    return w.op("vfsub.sf", a, b)


def _twice(rows: list[list[V]], along) -> list[list[V]]:
    """`along` on every column of a matrix of vectors, then on every row of the result."""
    columns = [along(list(column)) for column in zip(*rows)]
    return [along(list(row)) for row in zip(*columns)]


def transform_weights(weight: Load, channels: tuple[int, int], taps: tuple[int, int], columns: tuple[int, int], lanes: int, width: int, name: str, origins: tuple[str, ...]) -> tuple[Buffer, BoundKernel]:
    """The kernel that turns 3 x 3 weights into [position][panel][channel][width], and its result; positions are `position_pitch` apart.

    Args: weight: from its first tap.   channels, columns: number and stride.   taps: strides of the two window sides, below 0 where flipped.
    """
    w = KernelWriter(lanes)
    n_panels = -(-columns[0] // width)
    pitch = position_pitch(n_panels * channels[0] * width, lanes)
    target = Buffer(name, "f32", (POSITIONS * pitch,), (1,))
    block, vectors = min(channels[0], CHANNELS_AT_A_TIME), width // lanes
    near, half = w.scratch("sf", panel_elements(9 * block, lanes, lanes)), w.op("vsplat.sf", 0.5)
    n_blocks, rest = divmod(channels[0], block)

    def transform(panel: Dim, first: Dim, count: int, v: Dim) -> None:
        """One vector of columns of some channels."""
        at, steps = _near_taps(w, weight, first, (count, channels[1]), taps, columns, near, panel * vectors + v)
        with w.loop("c", 0, count) as c:
            place = w.let((panel * channels[0] + first + c.index) * width + v * lanes)
            weights = [[w.op("vld.sf", w.addr(near, at + c.index * steps["c"] + y * steps["y"] + x * steps["x"])) for x in range(3)] for y in range(3)]
            for position, value in enumerate(value for row in _twice(weights, lambda g: _weights_along(w, half, g)) for value in row):
                w.op("vst.sf", w.addr(target, place + position * pitch, write=True), value)

    with w.loop("job", 0, n_panels * (n_blocks + (rest > 0)), parallel=True) as job:
        panel, part = decompose(w, job.index, (n_panels, n_blocks + (rest > 0)))
        for count, relation in ((block, "<"), (rest, ">=")):
            if count:
                with w.branch(part, relation, n_blocks) if rest else contextlib.nullcontext(), w.loop("v", 0, vectors) as v:
                    transform(panel, w.let(part * block), count, v.index)
    elements = n_panels * channels[0] * width
    return target, w.finish("winograd_weights", "weights of a 3 x 3 convolution, transformed", "pack", origins, elements * 28, elements * 100)


def _weights_along(w: KernelWriter, half: V, g: list[V]) -> list[V]:
    outer, middle = w.op("vfmul.sf", half, _add(w, g[0], g[2])), w.op("vfmul.sf", half, g[1])
    return [g[0], _add(w, outer, middle), _sub(w, outer, middle), g[2]]


def _near_taps(w: KernelWriter, weight: Load, first: Dim, channels: tuple[int, int], taps: tuple[int, int], columns: tuple[int, int], near: Scratch, vector: Dim) -> tuple[int, dict[str, int]]:
    """Packs the taps of one vector of columns into `near`: where the first is, and how far apart they are along each axis.

    Flipped taps (a gradient's) are packed as they lie in memory, and read backwards.
    """
    axes = {"c": channels, "y": (3, taps[0]), "x": (3, taps[1])}
    order = sorted(axes, key=lambda axis: -abs(axes[axis][1]))
    lowest = sum(min(stride, 0) * (size - 1) for size, stride in axes.values())
    start = w.let(weight.offset + lowest + first * channels[1])
    strides = pack_panel(w, weight, start, tuple((axes[axis][0], abs(axes[axis][1])) for axis in order), columns, near, w.lanes, vector)
    steps = {axis: stride if axes[axis][1] >= 0 else -stride for axis, stride in zip(order, strides)}
    return sum(-step * (axes[axis][0] - 1) for axis, step in steps.items() if step < 0), steps


def position_pitch(elements: int, lanes: int) -> int:
    """How far apart the 16 positions of so many elements are kept: a cache line more, for at multiples of 4 KiB they would share its sets."""
    return elements + max(lanes, LINE_ELEMENTS)


def winograd(w: KernelWriter, image: Image, weights: Buffer, tiling: WinogradTiling, columns: int, pixels: tuple[int, int], place, sink: Sink) -> None:
    """Writes the kernel's body; `place` maps (image, row, column, channel) of an output pixel to coordinates."""
    _WinogradKernel(w, image, weights, tiling, columns, pixels, place, sink).write()


class _WinogradKernel:
    """Jobs are blocks of squares and groups of panels: transform in, then multiply and transform out some panels at a time."""

    def __init__(self, w: KernelWriter, image: Image, weights: Buffer, tiling: WinogradTiling, columns: int, pixels: tuple[int, int], place, sink: Sink):
        self.w, self.image, self.weights, self.t = w, image, weights, tiling
        self.columns, self.pixels, self.place, self.sink = columns, pixels, place, sink
        self.width = tiling.vectors * w.lanes
        self.n_panels = -(-columns // self.width)
        self.pitch = -(-image.channels // w.lanes) * w.lanes
        self.inside = w.scratch("sf", POSITIONS * tiling.block * self.pitch)
        self.products_pitch = tiling.panels * self.width
        self.products = w.scratch("sf", POSITIONS * tiling.block * self.products_pitch)

    def write(self) -> None:
        w, t = self.w, self.t
        total = product((self.image.batch, *t.squares))
        per_group = -(-self.n_panels // t.groups)
        with w.loop("job", 0, -(-total // t.block) * t.groups, parallel=True) as job:
            block, group = decompose(w, job.index, (-(-total // t.block), t.groups))
            self.first = w.let(block * t.block)
            self.count = w.let(minimum(t.block, total - self.first))
            end = self.n_panels if t.groups == 1 else w.let(minimum(group * per_group + per_group, self.n_panels))
            with w.loop("s", 0, self.count) as square:
                self._transform_in(square.index)
            with w.loop("p", group * per_group, end, t.panels) as first:
                self._panels(first.index, end)

    def _panels(self, first: Dim, end: Dim) -> None:
        """The products of up to `panels` panels, and their transform."""
        w, t = self.w, self.t
        last = first + 1 if t.panels == 1 else w.let(minimum(first + t.panels, end))
        with w.loop("q", 0, POSITIONS) as position, w.loop("p", first, last) as panel:
            self._multiply(panel.index, panel.index - first, position.index)
        with w.loop("s", 0, self.count) as square:
            self._transform_out(first, last, square.index)

    def _square(self, index: Dim) -> list[Dim]:
        """(image, row, column) of a square of the job."""
        return decompose(self.w, self.w.let(self.first + index), (self.image.batch, *self.t.squares))

    def _transform_in(self, index: Dim) -> None:
        w, image, lanes = self.w, self.image, self.w.lanes
        n, y, x = self._square(index)
        base = w.let(image.offset + n * image.batch_stride + y * (2 * image.strides[1]) + x * (2 * image.strides[2]))
        place = w.let(index * self.pitch)
        with w.loop("c", 0, image.channels // lanes * lanes, lanes) as c:
            self._transform_channels(base + c.index, place + c.index, None)
        if image.channels % lanes:
            whole = image.channels // lanes * lanes
            self._transform_channels(base + whole, place + whole, w.op("qtail.q", image.channels - whole))

    def _transform_channels(self, base: Dim, place: Dim, mask: V | None) -> None:
        w, strides = self.w, self.image.strides

        def load(y: int, x: int) -> V:
            address = w.addr(self.image.buffer, base + y * strides[1] + x * strides[2])
            return w.op("vld.sf", address) if mask is None else w.op("vldq.sf", mask, address)

        def along(d: list[V]) -> list[V]:
            return [_sub(w, d[0], d[2]), _add(w, d[1], d[2]), _sub(w, d[2], d[1]), _sub(w, d[1], d[3])]

        values = _twice([[load(y, x) for x in range(4)] for y in range(4)], along)
        for position, value in enumerate(value for row in values for value in row):
            w.op("vst.sf", w.addr(self.inside, place + position * (self.t.block * self.pitch), write=True), value)

    def _multiply(self, panel: Dim, place: Dim, position: Dim) -> None:
        """All squares of the job times one panel at one position; rows behind the last square are computed and ignored."""
        w, t, channels = self.w, self.t, self.image.channels
        weights = w.let(position * position_pitch(self.n_panels * channels * self.width, w.lanes) + panel * (channels * self.width))
        with w.loop("m", 0, self.count, t.rows) as m:
            rows = w.let((position * t.block + m.index) * self.pitch)
            target = w.let((position * t.block + m.index) * self.products_pitch + place * self.width)
            totals = (zero(w, "sf"),) * (t.rows * t.vectors)
            with w.loop("k", 0, channels, carried=totals) as k:
                k.next = self._step(rows + k.index, weights + k.index * self.width, k.values)
            for i, total in enumerate(k.results):
                w.op("vst.sf", w.addr(self.products, target + i // t.vectors * self.products_pitch + i % t.vectors * w.lanes, write=True), total)

    def _step(self, a: Dim, b: Dim, totals: tuple[V, ...]) -> tuple[V, ...]:
        w, vectors = self.w, self.t.vectors
        columns = [w.op("vld.sf", w.addr(self.weights, b + v * w.lanes)) for v in range(vectors)]
        result = []
        for r in range(self.t.rows):
            element = w.op("vldx.sf", w.addr(self.inside, a + r * self.pitch))
            result += [multiply_add(w, element, columns[v], totals[r * vectors + v]) for v in range(vectors)]
        return tuple(result)

    def _transform_out(self, first_panel: Dim, last_panel: Dim, index: Dim) -> None:
        w, lanes = self.w, self.w.lanes
        n, y, x = self._square(index)
        source = w.let(index * self.products_pitch)
        first = w.let(first_panel * self.width)
        end = w.let(minimum(last_panel * self.width, self.columns)) if self.columns % self.width else w.let(last_panel * self.width)
        whole = w.let(first + floordiv(end - first, lanes) * lanes)
        with w.loop("n", first, whole, lanes) as column:
            self._put_square(n, y, x, source + column.index - first, column.index, None)
        if self.columns % lanes:
            with w.branch(whole, "<", end):
                self._put_square(n, y, x, source + whole - first, whole, w.op("qtail.q", end - whole))

    def _put_square(self, n: Dim, y: Dim, x: Dim, source: Dim, column: Dim, mask: V | None) -> None:
        """Four output pixels of one vector of channels, as far as they exist."""
        w, (height, width) = self.w, self.pixels
        step = self.t.block * self.products_pitch
        values = [[w.op("vld.sf", w.addr(self.products, source + (4 * i + j) * step)) for j in range(4)] for i in range(4)]

        def along(m: list[V]) -> list[V]:
            return [_add(w, _add(w, m[0], m[1]), m[2]), _sub(w, _sub(w, m[1], m[2]), m[3])]

        results = _twice(values, along)
        for i in range(2):
            for j in range(2):
                with under(w, y * 2 + i, "<", height if i and height % 2 else y * 2 + i + 1), under(w, x * 2 + j, "<", width if j and width % 2 else x * 2 + j + 1):
                    self.sink.put(self.place(n, y * 2 + i, x * 2 + j, column), 1, results[i][j], mask)
