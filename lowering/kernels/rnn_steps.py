"""The loop over time of a recurrent layer: at every step, sums of products with the state of the step before, then pointwise work.

A step computes, for every row of the batch and every unit, `n_sums` sums over the state [row, depth] times packed weights, in
register tiles whose lanes run along the units; the cell (rnn_cells.py) turns the finished sums of a vector of units into the new
state. Weights are packed once per call and read at every step, forwards and backwards in turn, so that what the second level of
memory holds of them is used first. The contexts share either the units, with a barrier per step, or (many rows) the rows, with none.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Protocol

from ...csrc.abi import DTYPE_BYTES
from ...csrc.machine import Machine
from ..index_expr import Dim, floordiv, minimum, mod
from ..kernel_writer import KernelWriter
from ..tensor_ir import Buffer
from ..vector_ir import Barrier, MEMORY_TYPE, REGISTER_TYPE, V
from .contract import multiply_add, zero
from .tile import MOST_TILES, registers_per_value

__all__ = ["Cell", "Shape", "Steps", "StepTile", "UnitWeights", "step_tiles"]

# Rows whose sums a panel leaves in private scratch before the pointwise work.
MOST_BLOCK_ROWS = 48
# Unit vectors of a tile; more would leave contexts without panels.
MOST_VECTORS = 8
# A batch that is not known at compile time is taken to be this.
TYPICAL_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a recurrence: time steps, batch rows, units, elements of a row's state, sums per unit."""

    steps: Dim
    batch: Dim
    units: int
    depth: int
    n_sums: int
    dtype: str


@dataclasses.dataclass(frozen=True)
class StepTile:
    """How a step is cut.

    Attributes:
        rows, vectors: the register tile: `rows` rows by `vectors` vectors of units, each with all its sums.
        block_rows: rows that are finished together.
        contexts: into how many shares the units, or with `shares_rows` the rows, are cut.
    """

    rows: int
    vectors: int
    block_rows: int
    contexts: int
    shares_rows: bool

    def __str__(self):
        return f"tile {self.rows} x {self.vectors}, {self.contexts} shares of {'rows' if self.shares_rows else 'units'}"


@dataclasses.dataclass(frozen=True, eq=False)
class UnitWeights:
    """Packed weights: element (k, sum, unit) at unit // width * panel + k * k_step + sum * sum_step + unit % width."""

    buffer: Buffer
    panel: Dim
    k_step: Dim
    sum_step: Dim


class Cell(Protocol):
    """The pointwise part of a recurrence. All methods write for the units from `unit` on, lanes outside `mask` do not exist."""

    state: Buffer  # [2, batch, depth]: the state of the step before in one half, of this step in the other

    def start(self, row: Dim, unit: Dim, mask: V | None) -> None:
        """Write the state before the first step into the first half."""

    def advance(self, step: Dim, half: Dim, row: Dim, unit: Dim, sums: list[V], mask: V | None) -> None:
        """Write the state after `step` at offset `half` of the state, and the step's results."""


def step_tiles(machine: Machine, shape: Shape) -> Iterator[StepTile]:
    """The tile with the fewest modelled cycles per step, loads counted, where rows are shared if every context gets two tiles' worth of them; then others."""
    regs = registers_per_value(REGISTER_TYPE[shape.dtype])
    contexts = machine.n_contexts or os.cpu_count() or 1
    n_vectors = -(-shape.units // machine.lanes)
    ordered = sorted(_register_tiles(machine, shape.n_sums, regs, n_vectors), key=lambda tile: _cost(machine, shape, regs, tile, contexts))
    shares_rows = isinstance(shape.batch, int) and shape.batch >= 2 * ordered[0][0] * contexts
    yield from (_step_tile(shape, rows, vectors, contexts, shares_rows) for rows, vectors in ordered[:MOST_TILES])
    if isinstance(shape.batch, int) and shape.batch > 1:
        yield _step_tile(shape, *ordered[0], contexts, not shares_rows)
    yield _step_tile(shape, *ordered[0], 1, False)


def _step_tile(shape: Shape, rows: int, vectors: int, contexts: int, shares_rows: bool) -> StepTile:
    if not isinstance(shape.batch, int):
        return StepTile(rows, vectors, MOST_BLOCK_ROWS // rows * rows, contexts, False)
    share = -(-shape.batch // contexts) if shares_rows else max(shape.batch, 1)
    return StepTile(rows, vectors, -(-share // -(-share // MOST_BLOCK_ROWS)), contexts, shares_rows)


def _register_tiles(machine: Machine, n_sums: int, regs: int, n_vectors: int) -> list[tuple[int, int]]:
    """(rows, vectors) whose accumulators, elements of the state and one weight have registers: compilers load a step's elements first."""
    found = []
    for vectors in range(1, min(MOST_VECTORS, n_vectors) + 1):
        for rows in range(1, 9):
            held = rows * vectors * n_sums + rows + 1
            if held * regs <= machine.n_vregs:
                found.append((rows, vectors))
    return found or [(1, 1)]


def _cost(machine: Machine, shape: Shape, regs: int, tile: tuple[int, int], contexts: int) -> tuple:
    """Cycles per step of the slowest context's panels, per k; equal ones prefer narrow panels, then many rows."""
    rows, vectors = tile
    batch = shape.batch if isinstance(shape.batch, int) else TYPICAL_BATCH
    panels = -(-shape.units // (vectors * machine.lanes))

    def cycles(n_rows: int) -> float:
        multiplies = n_rows * vectors * shape.n_sums * regs
        loads = n_rows + vectors * shape.n_sums * regs
        return max(multiplies / machine.fma_pipes, machine.fma_latency, loads / max(machine.load_pipes, 2))

    per_panel = (batch // rows) * cycles(rows) + (cycles(batch % rows) if batch % rows else 0)
    return per_panel * -(-panels // contexts), vectors, -rows


class Steps:
    """Writes the kernel's body."""

    def __init__(self, w: KernelWriter, shape: Shape, tile: StepTile, weights: UnitWeights, cell: Cell):
        self.w, self.shape, self.tile, self.weights, self.cell = w, shape, tile, weights, cell
        self.register_type = REGISTER_TYPE[shape.dtype]
        self.width = tile.vectors * w.lanes
        self.pitch = self.width * shape.n_sums
        self.n_panels = -(-shape.units // self.width)
        self.n_blocks = floordiv(shape.batch + (tile.block_rows - 1), tile.block_rows)
        self.scratch = w.scratch(self.register_type, tile.block_rows * self.pitch)
        self.half = shape.batch * shape.depth

    def write(self) -> None:
        """All steps, the start included."""
        w, steps = self.w, self.shape.steps
        if self.tile.shares_rows:
            with w.loop("block", 0, self.n_blocks, parallel=True) as block:
                first, end = self._rows(block.index)
                self._start(first, end)
                with w.loop("step", 0, steps) as step:
                    self._panels(step.index, 0, self.n_panels, lambda panel: self._panel(step.index, panel, first, end))
            return
        with w.loop("row", 0, self.shape.batch, parallel=True) as row:
            self._start(row.index, row.index + 1)
        w.append(Barrier())
        with w.loop("step", 0, steps) as step:
            with w.loop("share", 0, self.tile.contexts, parallel=True) as share:
                first, end = (w.let(floordiv((share.index + i) * self.n_panels, self.tile.contexts)) for i in (0, 1))
                self._panels(step.index, first, end, lambda panel: self._blocks(step.index, panel))
            w.append(Barrier())

    def _panels(self, step: Dim, first: Dim, end: Dim, write) -> None:
        """write(panel) for the panels first..end, backwards in every second step."""
        w = self.w
        with w.loop("i", 0, end - first) as loop:
            write(w.let(first + loop.index + mod(step, 2) * (end - first - 1 - 2 * loop.index)))

    def _blocks(self, step: Dim, panel: Dim) -> None:
        if isinstance(self.n_blocks, int) and self.n_blocks == 1:
            self._panel(step, panel, 0, self.shape.batch)
            return
        with self.w.loop("block", 0, self.n_blocks) as block:
            self._panel(step, panel, *self._rows(block.index))

    def _rows(self, block: Dim) -> tuple[Dim, Dim]:
        first = self.w.let(block * self.tile.block_rows)
        return first, self.w.let(minimum(first + self.tile.block_rows, self.shape.batch))

    def _start(self, first: Dim, end: Dim) -> None:
        with self.w.loop("row", first, end) as row:
            self._units(0, self.shape.units, lambda unit, mask: self.cell.start(row.index, unit, mask))

    def _units(self, first: Dim, count: int, write) -> None:
        """write(unit, mask) for every vector of the `count` units from `first` that exist."""
        w, rest = self.w, self.shape.units % self.w.lanes
        whole = self.shape.units - rest
        with w.loop("unit", first, minimum(first + count, whole), w.lanes) as loop:
            write(loop.index, None)
        if rest:
            with w.branch(first + count, ">", whole):
                write(whole, w.op("qtail.q", rest))

    def _panel(self, step: Dim, panel: Dim, first: Dim, end: Dim) -> None:
        """One panel of units for the rows first..end: sums into scratch, then the cell."""
        w = self.w
        old = w.let(mod(step, 2) * self.half)
        new = w.let(self.half - old)
        base = w.let(panel * self.weights.panel)
        self._row_tiles(old, base, first, end)
        unit = w.let(panel * self.width)
        with w.loop("row", first, end) as row:
            place = w.let((row.index - first) * self.pitch - unit * self.shape.n_sums)
            self._units(unit, self.width, lambda u, mask: self._advance(step, new, row.index, u, place, mask))

    def _advance(self, step: Dim, half: Dim, row: Dim, unit: Dim, place: Dim, mask: V | None) -> None:
        w, n = self.w, self.shape.n_sums
        sums = [w.op(f"vld.{self.register_type}", w.addr(self.scratch, place + unit * n + s * w.lanes)) for s in range(n)]
        self.cell.advance(step, half, row, unit, sums, mask)

    def _row_tiles(self, state: Dim, weights: Dim, first: Dim, end: Dim) -> None:
        """Tiles of `rows` rows, then what is left: at once where its count is known, else row by row."""
        w, rows = self.w, self.tile.rows
        known = end - first if isinstance(end, int) and isinstance(first, int) else self._even_block()
        if known is None or known >= rows:
            with w.loop("m", first, end - (rows - 1), rows) as loop:
                self._tile(loop.index, rows, first, state, weights)
        if known is not None:
            if known % rows:
                self._tile(end - known % rows, known % rows, first, state, weights)
            return
        if rows > 1:
            with w.loop("m", first + floordiv(end - first, rows) * rows, end) as loop:
                self._tile(loop.index, 1, first, state, weights)

    def _even_block(self) -> int | None:
        """Rows of every block, if they are as many."""
        batch, block = self.shape.batch, self.tile.block_rows
        return block if isinstance(batch, int) and batch % block == 0 else None

    def _tile(self, row: Dim, n: int, first: Dim, state: Dim, weights: Dim) -> None:
        w, count = self.w, self.tile.vectors * self.shape.n_sums
        offsets = [w.let(state + (row + r) * self.shape.depth) for r in range(n)]
        totals = (zero(w, self.register_type),) * (n * count)
        with w.loop("k", 0, self.shape.depth, carried=totals, unroll=4 if n * count <= 8 else 2) as loop:
            loop.next = self._multiply([o + loop.index for o in offsets], weights + loop.index * self.weights.k_step, loop.values, count)
        base = w.let((row - first) * self.pitch)
        for index, total in enumerate(loop.results):
            w.op(f"vst.{self.register_type}", w.addr(self.scratch, base + index * w.lanes, write=True), total)

    def _multiply(self, states: list[Dim], weights: Dim, totals: tuple[V, ...], count: int) -> tuple[V, ...]:
        """One step of k. Sums are ordered [row][vector][sum]."""
        w, result, n_sums = self.w, list(totals), self.shape.n_sums
        memory = MEMORY_TYPE[self.cell.state.dtype]
        elements = [w.op(f"vldx.{memory}", w.addr(self.cell.state, o)) for o in states]
        for index in range(count):
            vector, total = divmod(index, n_sums)
            address = w.addr(self.weights.buffer, weights + total * self.weights.sum_step + vector * w.lanes)
            weight = w.op(f"vld.{memory}", address)
            for r, element in enumerate(elements):
                result[r * count + index] = multiply_add(w, element, weight, result[r * count + index])
        return tuple(result)

    @property
    def flops(self) -> Dim:
        """Of the products, over all steps."""
        s = self.shape
        return s.steps * s.batch * (2 * s.units * s.n_sums * s.depth)

    @property
    def bytes(self) -> Dim:
        """Weights, once per step."""
        s = self.shape
        return s.steps * (s.units * s.n_sums * s.depth * DTYPE_BYTES[s.dtype])
