"""Maps that read some operands across the grain: blocks of them are transposed in registers and kept in L1 while the Map reads them.

A Map stores along one axis; an operand that lies along another one (x + y.t(), a change of layout) would be read with a stride, a
cache line for each element. Instead a block of both axes is loaded along the operand's own axis and turned by a network of zips
into private memory, from which the loops over the block read whole vectors. Group -> Group with loads from tiles, and the tiles' filling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from .fuse import Group
from .index_expr import Dim, floordiv, minimum
from .kernel_writer import KernelWriter, Scratch
from .kernels.pack import transpose
from .tensor_ir import Buffer, Load, Map, leaves, map_leaves
from .vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from ..csrc.abi import DTYPE_BYTES

__all__ = ["TileWriter", "TransposedTiles", "find_transposed"]

# Bytes of a row of a block: some cache lines, so that both sides of a transposition use lines whole, while a block fits the
# first level; estimate.
BLOCK_BYTES = 256


@dataclasses.dataclass(frozen=True)
class TransposedTiles:
    """What is read across the grain.

    Attributes:
        group: the Maps, with Loads of the buffers in `tiles` in place of the loads they stand for.
        vector, along: the axis that results lie along, and the one that the transposed operands lie along.
        tiles: (stand-in, load), one for each operand.
    """

    group: Group
    vector: int
    along: int
    tiles: tuple[tuple[Buffer, Load], ...]

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """Of the axes of the group."""
        return self.group.outer


def find_transposed(group: Group, lanes: int) -> TransposedTiles | None:
    """The transposed operands of a group of Maps, or None where it has none, or axes too short for them."""
    if group.row or not group.statements or not all(isinstance(s, Map) for s in group.statements):
        return None
    inside = {s.target.buffer for s in group.statements}
    targets = [s.target for s in group.statements if s.target.buffer in group.stored]
    axes = [a for a, size in enumerate(group.outer) if not isinstance(size, int) or size >= lanes]
    vector = next((a for a in axes if all(t.strides[a] == 1 for t in targets)), None)
    if vector is None:
        return None
    loads = [e for e in leaves(*(s.expr for s in group.statements)) if isinstance(e, Load) and e.guard is None and e.buffer not in inside and e.strides[vector] not in (0, 1)]
    along = max((a for a in axes if a != vector), key=lambda a: sum(e.strides[a] == 1 for e in loads), default=vector)
    loads = [e for e in loads if e.strides[along] == 1]
    return _with_tiles(group, vector, along, loads) if loads else None


def _with_tiles(group: Group, vector: int, along: int, loads: list[Load]) -> TransposedTiles:
    tiles: dict[tuple, tuple[Buffer, Load]] = {}
    for load in loads:
        tiles.setdefault((load.buffer, load.offset, load.strides), (Buffer(f"tile{len(tiles)}", load.dtype, (), ()), load))
    transposed = {id(load) for load in loads}
    memo: dict = {}

    def change(leaf):
        return dataclasses.replace(leaf, buffer=tiles[leaf.buffer, leaf.offset, leaf.strides][0]) if id(leaf) in transposed else leaf

    statements = tuple(dataclasses.replace(s, expr=map_leaves(s.expr, change, memo)) for s in group.statements)
    return TransposedTiles(dataclasses.replace(group, statements=statements), vector, along, tuple(tiles.values()))


class TileWriter:
    """Writes the blocks of one group; `point` evaluates its statements at (coordinates, predicate or None, stand-ins -> values)."""

    def __init__(self, w: KernelWriter, plan: TransposedTiles, point: Callable[[dict[int, Dim], V | None, dict[Buffer, V]], None]):
        self.w, self.plan, self.point = w, plan, point
        bytes_ = max(DTYPE_BYTES[load.dtype] for _, load in plan.tiles)
        self.block = max(BLOCK_BYTES // bytes_ // w.lanes, 1) * w.lanes
        self.scratch = {tile: w.scratch(REGISTER_TYPE[load.dtype].replace("q", "w"), self.block * self.block) for tile, load in plan.tiles}

    def write(self, coords: dict[int, Dim], parallel: bool) -> None:
        """All blocks of both axes at one point of the others."""
        w, plan = self.w, self.plan
        first, second = sorted((plan.along, plan.vector), key=lambda a: self._has_few_blocks(a))
        with w.loop("i", 0, plan.sizes[first], self.block, parallel=parallel) as outer, w.loop("i", 0, plan.sizes[second], self.block) as inner:
            self._block({**coords, first: outer.index, second: inner.index})

    def _has_few_blocks(self, axis: int) -> bool:
        size = self.plan.sizes[axis]
        return isinstance(size, int) and size < 4 * self.block

    def _block(self, corner: dict[int, Dim]) -> None:
        w, plan = self.w, self.plan
        rows, columns = self._extent(plan.along, corner), self._extent(plan.vector, corner)
        for tile, load in plan.tiles:
            self._fill(self.scratch[tile], load, corner, rows, columns)
        with w.loop("t", 0, rows) as row:
            for begin, end, is_tail in self._parts(columns):
                with w.loop("v", begin, end, w.lanes) as column:
                    mask = w.op("qtail.q", columns - column.index) if is_tail else None
                    at = {**corner, plan.along: corner[plan.along] + row.index, plan.vector: corner[plan.vector] + column.index}
                    self.point(at, mask, {tile: self._read(tile, load, row.index * self.block + column.index) for tile, load in plan.tiles})

    def _extent(self, axis: int, corner: dict[int, Dim]) -> Dim:
        """Elements of the block along an axis."""
        size = self.plan.sizes[axis]
        return self.block if isinstance(size, int) and size % self.block == 0 else self.w.let(minimum(self.block, size - corner[axis]))

    def _parts(self, extent: Dim) -> list[tuple[Dim, Dim, bool]]:
        """Whole vectors and the tail of an extent."""
        whole = self.w.let(floordiv(extent, self.w.lanes) * self.w.lanes)
        return [(begin, end, is_tail) for begin, end, is_tail in ((0, whole, False), (whole, extent, True)) if begin != end]

    def _read(self, tile: Buffer, load: Load, index: Dim) -> V:
        value = self.w.op(f"vld.{self.scratch[tile].memory_type}", self.w.addr(self.scratch[tile], index))
        return self.w.op("vcmpne.w", value, self.w.op("vsplat.w", 0)) if load.dtype == "bool" else value

    def _fill(self, scratch: Scratch, load: Load, corner: dict[int, Dim], rows: Dim, columns: Dim) -> None:
        """Squares of lanes x lanes of the operand; columns that do not exist repeat the last one."""
        w, plan = self.w, self.plan
        size, stride = plan.sizes[plan.vector], load.strides[plan.vector]
        base = w.let(load.offset + sum((at * load.strides[a] for a, at in corner.items() if a != plan.vector), 0))
        is_whole = isinstance(size, int) and size % w.lanes == 0
        with w.loop("v", 0, columns, w.lanes) as column:
            places = [corner[plan.vector] + column.index + lane for lane in range(w.lanes)]
            sources = [w.let(base + (place if is_whole else w.let(minimum(place, size - 1))) * stride) for place in places]
            for begin, end, is_tail in self._parts(rows):
                with w.loop("t", begin, end, w.lanes) as row:
                    mask = w.op("qtail.q", rows - row.index) if is_tail else None
                    vectors = [self._load(load, source + row.index, mask) for source in sources]
                    for i, value in enumerate(transpose(w, vectors)):
                        w.op(f"vst.{scratch.memory_type}", w.addr(scratch, (row.index + i) * self.block + column.index, write=True), value)

    def _load(self, load: Load, index: Dim, mask: V | None) -> V:
        memory, address = MEMORY_TYPE[load.dtype], self.w.addr(load.buffer, index)
        return self.w.op(f"vld.{memory}", address) if mask is None else self.w.op(f"vldq.{memory}", mask, address)
