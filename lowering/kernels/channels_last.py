"""Images as convolutions read them: [batch][depth][height][width][channel], surrounded by zeros.

Image -> Image. Where channels are contiguous already and no zeros are wanted, nothing is copied.
"""

from __future__ import annotations

import dataclasses

from ..index_expr import Dim, floordiv, maximum, minimum, product
from ..kernel_writer import BoundKernel, KernelWriter
from ..tensor_ir import Buffer
from ..vector_ir import MEMORY_TYPE, V
from .contract import decompose, zero
from .pack import transpose

__all__ = ["Image", "Margins", "channels_last", "three"]


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """A batch of images in memory: three spatial sizes (1 where the model has fewer), strides in elements.

    Attributes:
        block_stride: from the first channel of a block of channels to that of the next one, where an image was asked for in blocks.
    """

    buffer: Buffer
    offset: Dim
    batch: Dim
    channels: Dim
    sizes: tuple[Dim, Dim, Dim]
    batch_stride: Dim
    channel_stride: Dim
    strides: tuple[Dim, Dim, Dim]
    block_stride: Dim = 0


@dataclasses.dataclass(frozen=True)
class Margins:
    """Zeros before and after each spatial side of an image; a number below 0 is a crop."""

    before: tuple[Dim, ...] = (0, 0, 0)
    after: tuple[Dim, ...] = (0, 0, 0)

    @property
    def is_empty(self) -> bool:
        return all(m == 0 for m in (*self.before, *self.after))


def three(values, fill) -> tuple:
    """Values of one to three spatial dims as those of three, `fill` standing for the missing outer ones."""
    return (fill,) * (3 - len(values)) + tuple(values)


def channels_last(image: Image, margins: Margins, dtype: str, lanes: int, name: str, origins: tuple[str, ...], block: int | None = None) -> tuple[Image, list[BoundKernel]]:
    """The image with contiguous channels and its margins, and the kernel that makes it, if one is needed.

    Args: dtype: the copy's.   block: channels that lie side by side in a copy, of all that there are: groups that are read on their own.
    """
    block = block or image.channels
    if image.channels == 1:
        image = dataclasses.replace(image, channel_stride=1)
    if image.channel_stride == 1 and margins.is_empty:
        return dataclasses.replace(image, block_stride=block), []
    sizes = tuple(size + before + after for size, before, after in zip(image.sizes, margins.before, margins.after))
    row = sizes[2] * block
    strides = (sizes[1] * row, row, block)
    block_stride, n_blocks = sizes[0] * strides[0], floordiv(image.channels, block)
    buffer = Buffer(name, dtype, (image.batch * n_blocks * block_stride,), (1,))
    copy = Image(buffer, 0, image.batch, image.channels, sizes, n_blocks * block_stride, 1, strides, block_stride)
    return copy, [_CopyKernel(image, copy, margins, lanes).write(origins)]


class _CopyKernel:
    """Jobs are rows of the copy: margins are zeroed, pixels copied with the channels of a block side by side."""

    def __init__(self, source: Image, target: Image, margins: Margins, lanes: int):
        self.w = KernelWriter(lanes)
        self.source, self.target, self.margins = source, target, margins
        self.channels = target.strides[2]
        self.memory, self.out = MEMORY_TYPE[source.buffer.dtype], MEMORY_TYPE[target.buffer.dtype]

    def write(self, origins: tuple[str, ...]) -> BoundKernel:
        w, source, target = self.w, self.source, self.target
        sizes = (target.batch, floordiv(target.channels, self.channels), *target.sizes[:2])
        with w.loop("row", 0, product(sizes), parallel=True) as job:
            index, block, *position = decompose(w, job.index, sizes)
            self.row = w.let(job.index * target.strides[1])
            places = [self._source_index(side, place) for side, place in enumerate(position)]
            first = source.offset + index * source.batch_stride + block * (self.channels * source.channel_stride)
            self.start = w.let(first + sum(p * s for p, s in zip(places, source.strides)))
            self._row_cases(position)
        elements = product((target.batch, *target.sizes, target.channels))
        return w.finish("channels_last", "image with channels side by side", "layout", origins, 0, elements * 8)

    def _source_index(self, side: int, place: Dim) -> Dim:
        """The source's row for the copy's row `place`; meaningless in the margins."""
        return place if self._is_plain(side) else maximum(place - self.margins.before[side], 0)

    def _is_plain(self, side: int) -> bool:
        return self.margins.before[side] == 0 and self.margins.after[side] == 0

    def _row_cases(self, position: list[Dim]) -> None:
        """Rows that hold pixels lie in the image; others are zero."""
        conditions = []
        for side in (0, 1):
            if not self._is_plain(side):
                row = position[side] - self.margins.before[side]
                conditions += [(row, ">=", 0), (row, "<", self.source.sizes[side])]
        self._zero(0, self.target.sizes[2] * self.channels) if conditions else None
        self._under(conditions)

    def _under(self, conditions) -> None:
        if conditions:
            with self.w.branch(*conditions[0]):
                self._under(conditions[1:])
            return
        self._pixels()

    def _pixels(self) -> None:
        """One row of pixels, between its margins."""
        channels, before, after = self.channels, self.margins.before[2], self.margins.after[2]
        width = self.target.sizes[2]
        if all(self._is_plain(side) for side in (0, 1)) and not self._is_plain(2):
            self._zero(0, width * channels)
        first, count = maximum(0, -before), self.source.sizes[2]
        if isinstance(after, int) and after < 0:
            count = minimum(count, width - before) if isinstance(before, int) else count
        base = self.row + before * channels
        if self.source.channel_stride == 1:
            self._copy_pixels(base, first, count)
        elif self.source.strides[2] == 1:
            self._transpose_pixels(base, first, count)
        else:
            self._gather_pixels(base, first, count)

    def _zero(self, begin: Dim, end: Dim) -> None:
        value = zero(self.w, "sf" if self.out in ("sf", "hf", "bf") else "df" if self.out == "df" else "d" if self.out == "d" else "w")
        self._vectors(begin, end, lambda i, mask: self._store(self.row + i, value, mask))

    def _vectors(self, begin: Dim, end: Dim, emit) -> None:
        """emit(index, mask) for whole vectors of begin..end, then for what is left."""
        w, lanes = self.w, self.w.lanes
        count = end - begin
        whole = begin + floordiv(count, lanes) * lanes
        with w.loop("i", begin, whole, lanes) as loop:
            emit(loop.index, None)
        if whole == end:
            return
        with w.branch(whole, "<", end):
            emit(whole, w.op("qtail.q", end - whole))

    def _copy_pixels(self, base: Dim, first: Dim, count: Dim) -> None:
        channels = self.channels
        if self.source.strides[2] == channels:
            self._vectors(first * channels, count * channels, lambda i, mask: self._store(base + i, self._load(self.start + i, 1, mask), mask))
            return
        with self.w.loop("x", first, count) as x:
            begin, to = self.w.let(self.start + x.index * self.source.strides[2]), self.w.let(base + x.index * channels)
            self._vectors(0, channels, lambda i, mask: self._store(to + i, self._load(begin + i, 1, mask), mask))

    def _gather_pixels(self, base: Dim, first: Dim, count: Dim) -> None:
        channels, stride = self.channels, self.source.channel_stride
        with self.w.loop("x", first, count) as x:
            begin, to = self.w.let(self.start + x.index * self.source.strides[2]), self.w.let(base + x.index * channels)
            self._vectors(0, channels, lambda i, mask: self._store(to + i, self._load(begin + i * stride, stride, mask), mask))

    def _transpose_pixels(self, base: Dim, first: Dim, count: Dim) -> None:
        """Pixels contiguous in the source: squares of channels x pixels are transposed; few channels are stored at their stride."""
        w, lanes, channels = self.w, self.w.lanes, self.channels
        known = isinstance(channels, int) and isinstance(count, int) and first == 0
        if not known or channels < lanes or count < 4:
            with w.loop("c", 0, channels) as c:
                begin = w.let(self.start + c.index * self.source.channel_stride)
                self._vectors(first, count, lambda i, mask: self._store_strided(base + c.index + i * channels, self._load(begin + i, 1, mask), mask))
            return
        with w.loop("c", 0, channels, lanes) as c, w.loop("x", 0, count, lanes) as x:
            channel = w.let(minimum(c.index, channels - lanes)) if channels % lanes else c.index
            pixel = w.let(minimum(x.index, count - lanes)) if count > lanes and count % lanes else x.index
            mask = w.op("qtail.q", count) if count < lanes else None
            begin = w.let(self.start + channel * self.source.channel_stride + pixel)
            to = w.let(base + pixel * channels + channel)
            columns = transpose(w, [self._load(begin + i * self.source.channel_stride, 1, mask) for i in range(lanes)])
            for i, value in enumerate(columns[:min(count, lanes)]):
                self._store(to + i * channels, value, None)

    def _load(self, index: Dim, stride: Dim, mask: V | None) -> V:
        w, address = self.w, self.w.addr(self.source.buffer, index)
        if stride == 1:
            return w.op(f"vld.{self.memory}", address) if mask is None else w.op(f"vldq.{self.memory}", mask, address)
        return w.op(f"vlds.{self.memory}", address, stride) if mask is None else w.op(f"vldsq.{self.memory}", mask, address, stride)

    def _store(self, index: Dim, value: V, mask: V | None) -> None:
        address = self.w.addr(self.target.buffer, index, write=True)
        self.w.op(f"vst.{self.out}", address, value) if mask is None else self.w.op(f"vstq.{self.out}", mask, address, value)

    def _store_strided(self, index: Dim, value: V, mask: V | None) -> None:
        address, stride = self.w.addr(self.target.buffer, index, write=True), self.channels
        self.w.op(f"vsts.{self.out}", address, stride, value) if mask is None else self.w.op(f"vstsq.{self.out}", mask, address, stride, value)
