"""Template "gemm": out[batch…, m, n] = sum over k of A[batch…, m, k] * B[batch…, k, n], and its epilogue.

Chooses the way: vectors along k where both operands are contiguous along it and rows are few (dot.py); B in place where its
columns are contiguous and rows are few; else B packed into panels (pack.py, contract.py). Where columns are few and rows
many, the operands change roles, so that the lanes run along the longer side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ...csrc.abi import DTYPE_BYTES
from ...csrc.machine import Machine
from ..index_expr import Dim, product
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..tensor_ir import Buffer, Load, Map, Template
from ..vector_ir import REGISTER_TYPE
from . import template
from .contract import Axis, Contraction, Panels, contract
from .dot import contract_dot
from .pack import pack, pack_panel, panel_elements
from .tile import LEAST_JOBS, MOST_TILES, Tile, choose_dot_tile, choose_tile, near_dot_tiles, near_tiles, stays_near

__all__ = ["GemmChoice", "GemmParams", "accumulator_dtype"]

# Rows up to which B is read where it is: by vectors along k, and by vectors along its contiguous columns.
MOST_DOT_ROWS = 32
MOST_DIRECT_ROWS = 16
# Rows up to which a job that packs its own panel reads all of A for it without loss.
MOST_ROWS_TO_PACK_IN_PLACE = 512
# Columns from which on a copy of A, k by k, pays.
LEAST_COLUMNS_TO_PACK_A = 64
# What a search tries: rows and columns at most this many times what the model allows a way for.
SEARCHED = 4


@dataclasses.dataclass(frozen=True)
class GemmParams:
    """Static arguments of a gemm: the size of the contracted axis."""

    depth: Dim


@dataclasses.dataclass(frozen=True)
class GemmChoice:
    """The schedule of a gemm.

    Attributes:
        is_exchanged: the operands change roles, so that the lanes run along the rows.
        way: "dot" (vectors along k), or vectors along columns of a B that is read "in place", packed by every job for itself ("packed
            in jobs") or by a kernel before ("packed ahead").
        tile: of registers: rows by vectors of columns; rows by columns for "dot".
    """

    is_exchanged: bool
    way: str
    tile: tuple[int, int]

    def __str__(self):
        return f"{self.way}, tile {self.tile[0]} x {self.tile[1]}{', operands exchanged' if self.is_exchanged else ''}"


@dataclasses.dataclass(frozen=True, eq=False)
class _Matmul:
    """One matrix product with its strides; batch rows are (size, stride in A, stride in B, dim of the domain)."""

    a: Load
    b: Load
    batch: tuple[tuple[Dim, Dim, Dim, int], ...]
    rows: Dim
    columns: Dim
    depth: Dim
    a_row: Dim
    a_k: Dim
    b_k: Dim
    b_column: Dim
    row_dim: int
    column_dim: int

    def transposed(self) -> _Matmul:
        """The same sums with rows and columns exchanged."""
        batch = tuple((size, b, a, dim) for size, a, b, dim in self.batch)
        return _Matmul(self.b, self.a, batch, self.columns, self.rows, self.depth, self.b_column, self.b_k, self.a_k, self.a_row, self.column_dim, self.row_dim)


def accumulator_dtype(dtype: str) -> str:
    """The dtype in which products are added up: half types in f32."""
    return "f32" if dtype in ("f16", "bf16") else dtype


def gemm_choices(statement: Template, machine: Machine) -> Iterator[GemmChoice]:
    """The analytic choice, then others that may be faster in truth."""
    p = _matmul(statement)
    first = _analytic(p, statement, machine)
    yield first
    exchanged = [first.is_exchanged]
    if isinstance(p.rows, int) and isinstance(p.columns, int) and min(p.rows, p.columns) <= SEARCHED * machine.lanes:
        exchanged.append(not first.is_exchanged)
    for is_exchanged in exchanged:
        found = p.transposed() if is_exchanged else p
        for way in _possible_ways(found, machine):
            tiles = _near_tiles(found, way, statement, machine)
            is_like_first = (is_exchanged, way) == (first.is_exchanged, first.way)
            yield from (GemmChoice(is_exchanged, way, tile) for tile in tiles[: MOST_TILES if is_like_first else 1] if tile != first.tile or not is_like_first)


@template("gemm", gemm_choices)
def gemm(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: GemmChoice | None = None) -> list[BoundKernel]:
    """Kernels of one matrix product; see kernels/__init__.py for the arguments."""
    p = _matmul(statement)
    choice = choice or _analytic(p, statement, machine)
    p = p.transposed() if choice.is_exchanged else p
    w = KernelWriter(machine.lanes)
    sink = Sink(w, statement, epilogue, stored)
    if choice.way == "dot":
        _write_dot(w, p, statement, sink, machine, choice.tile)
        return [_finish(w, p, statement, epilogue, sink)]
    packed = _write_panels(w, p, statement, sink, machine, choice)
    return [*packed, _finish(w, p, statement, epilogue, sink)]


def _analytic(p: _Matmul, statement: Template, machine: Machine) -> GemmChoice:
    """The way for few rows or columns, or packing where it pays, with the tile that the model finds best."""
    is_exchanged = _has_few_columns(p, machine.lanes)
    p = p.transposed() if is_exchanged else p
    dtype = accumulator_dtype(statement.outputs[0].buffer.dtype)
    if _suits_dot(p, machine.lanes):
        return GemmChoice(is_exchanged, "dot", choose_dot_tile(machine, REGISTER_TYPE[dtype], p.rows, machine.lanes))
    tile = _panel_tile(p, dtype, machine)
    if _suits_in_place(p):
        way = "in place"
    else:
        way = "packed in jobs" if _packs_in_jobs(p, tile.vectors * machine.lanes, dtype, machine) else "packed ahead"
    return GemmChoice(is_exchanged, way, (tile.rows, tile.vectors))


def _possible_ways(p: _Matmul, machine: Machine) -> Iterator[str]:
    """The ways that are worth a try for these operands, whatever the model says."""
    has_few_rows = isinstance(p.rows, int) and p.rows <= SEARCHED * MOST_DOT_ROWS
    if has_few_rows and p.a_k == 1 and p.b_k == 1 and p.b_column != 1 and (not isinstance(p.depth, int) or p.depth >= 2 * machine.lanes):
        yield "dot"
    if p.b_column == 1 and has_few_rows:
        yield "in place"
    if p.b.buffer.kind != "const" and isinstance(p.columns, int) and p.b_k == 1 and p.b_column != 1 and all(isinstance(size, int) for size, _, _, _ in p.batch):
        yield "packed in jobs"
    yield "packed ahead"


def _near_tiles(p: _Matmul, way: str, statement: Template, machine: Machine) -> list[tuple[int, int]]:
    register_type = REGISTER_TYPE[accumulator_dtype(statement.outputs[0].buffer.dtype)]
    if way == "dot":
        return near_dot_tiles(machine, register_type, p.rows, machine.lanes)
    return near_tiles(machine, register_type, p.rows, p.columns, p.depth)


def _panel_tile(p: _Matmul, dtype: str, machine: Machine, shape: tuple[int, int] | None = None) -> Tile:
    return choose_tile(machine, REGISTER_TYPE[dtype], p.rows, p.columns, p.depth, product(size for size, _, _, _ in p.batch), shape=shape)


def _matmul(statement: Template) -> _Matmul:
    a, b = statement.operands
    *batch_sizes, rows, columns = statement.domain
    n = len(batch_sizes)
    batch = tuple((size, a.strides[d], b.strides[d], d) for d, size in enumerate(batch_sizes))
    return _Matmul(a, b, batch, rows, columns, statement.params.depth, a.strides[n], a.strides[n + 1], b.strides[n], b.strides[n + 1], n, n + 1)


def _has_few_columns(p: _Matmul, lanes: int) -> bool:
    if not isinstance(p.columns, int) or p.columns * 2 > lanes:
        return False
    return not isinstance(p.rows, int) or p.rows > p.columns


def _suits_dot(p: _Matmul, lanes: int) -> bool:
    if p.a_k != 1 or p.b_k != 1 or p.b_column == 1 or p.b.buffer.kind == "const":
        return False
    return isinstance(p.rows, int) and p.rows <= MOST_DOT_ROWS and (not isinstance(p.depth, int) or p.depth >= 2 * lanes)


def _suits_in_place(p: _Matmul) -> bool:
    return p.b_column == 1 and isinstance(p.rows, int) and p.rows <= MOST_DIRECT_ROWS and p.b.buffer.kind != "const"


def _placing(p: _Matmul):
    rank = len(p.batch) + 2

    def place(batch: list[Dim], row: Dim, column: Dim) -> list[Dim]:
        coords: list[Dim] = [0] * rank
        for index, (_, _, _, dim) in zip(batch, p.batch):
            coords[dim] = index
        coords[p.row_dim], coords[p.column_dim] = row, column
        return coords

    return place


def _contraction(p: _Matmul, statement: Template, panels: Panels, batch_strides, k_stride: Dim, machine: Machine) -> Contraction:
    batch = tuple(Axis(size, a, b) for (size, a, _, _), b in zip(p.batch, batch_strides))
    rows, k = (Axis(p.rows, p.a_row),), (Axis(p.depth, p.a_k, k_stride),)
    dtype = statement.outputs[0].buffer.dtype
    return Contraction(p.a.buffer, p.a.offset, panels, batch, rows, k, p.columns, dtype, _placing(p), p.column_dim, a_stays_near=stays_near(machine, p.rows * p.depth, dtype))


def _write_dot(w: KernelWriter, p: _Matmul, statement: Template, sink: Sink, machine: Machine, tile: tuple[int, int]) -> None:
    panels = Panels(p.b.buffer, p.b.offset, 0, False)
    contraction = _contraction(p, statement, panels, [b for _, _, b, _ in p.batch], 1, machine)
    contract_dot(w, contraction, p.b_column, tile, sink)


def _write_panels(w: KernelWriter, p: _Matmul, statement: Template, sink: Sink, machine: Machine, choice: GemmChoice) -> list[BoundKernel]:
    """The contraction over panels; returns the pack kernel that must run before, if any."""
    dtype = accumulator_dtype(statement.outputs[0].buffer.dtype)
    tile = _panel_tile(p, dtype, machine, choice.tile)
    width = tile.vectors * machine.lanes
    if choice.way == "in place":
        panels = Panels(p.b.buffer, p.b.offset, width, False)
        contract(w, _contraction(p, statement, panels, [b for _, _, b, _ in p.batch], p.b_k, machine), tile, sink)
        return []
    if choice.way == "packed in jobs":
        contraction = _private_panels(w, p, statement, width, dtype, machine)
        kernels = []
        if _wants_row_panels(p):
            contraction, kernel = _pack_rows(p, contraction, tile, machine.lanes, statement)
            kernels.append(kernel)
        contract(w, contraction, tile, sink)
        return kernels
    batch = tuple((size, b) for size, _, b, _ in p.batch)
    # A batch that shares one B packs it once.
    packed_batch = tuple((1, 0) if stride == 0 else (size, stride) for size, stride in batch)
    name = f"{statement.outputs[0].buffer.name}_panels"
    packed = pack(p.b, machine.lanes, width, packed_batch, ((p.depth, p.b_k),), (p.columns, p.b_column), dtype, name, statement.origins)
    strides = [0 if stride == 0 else packed_stride for (_, stride), packed_stride in zip(batch, packed.batch_strides)]
    contraction, kernels = _contraction(p, statement, packed.panels, strides, packed.k_strides[0], machine), [packed.kernel]
    if _wants_row_panels(p):
        contraction, kernel = _pack_rows(p, contraction, tile, machine.lanes, statement)
        kernels.append(kernel)
    contract(w, contraction, tile, sink)
    return kernels


def _wants_row_panels(p: _Matmul) -> bool:
    return p.a_k != 1 and not (isinstance(p.columns, int) and p.columns < LEAST_COLUMNS_TO_PACK_A)


def _packs_in_jobs(p: _Matmul, width: int, dtype: str, machine: Machine) -> bool:
    """Whether every job packs the panel that it needs: B is read once then and its panels never leave the near memory.

    Not where panels are packed once for all calls, are shared by batches or by too many rows, or are too few for the contexts, nor
    where columns are contiguous: a panel is too narrow a strip of such rows to read them well.
    """
    if p.b.buffer.kind == "const" or p.b_k != 1 or p.b_column == 1 or not isinstance(p.columns, int) or (isinstance(p.rows, int) and p.rows > MOST_ROWS_TO_PACK_IN_PLACE):
        return False
    sizes = [size for size, _, b, _ in p.batch if size != 1]
    is_own = all(b != 0 for size, _, b, _ in p.batch if size != 1) and all(isinstance(size, int) for size in sizes)
    fits = not isinstance(p.depth, int) or panel_elements(p.depth, width, machine.lanes) * DTYPE_BYTES[dtype] <= machine.l2_bytes // 2
    return is_own and fits and product(sizes) * -(-p.columns // width) >= LEAST_JOBS


def _private_panels(w: KernelWriter, p: _Matmul, statement: Template, width: int, dtype: str, machine: Machine) -> Contraction:
    """The contraction whose jobs pack their panels."""
    panels = w.scratch(REGISTER_TYPE[dtype], panel_elements(p.depth, width, machine.lanes))

    def fill(batch: list[Dim], panel: Dim) -> None:
        start = w.let(p.b.offset + sum((i * b for i, (_, _, b, _) in zip(batch, p.batch)), 0))
        pack_panel(w, p.b, start, ((p.depth, p.b_k),), (p.columns, p.b_column), panels, width, panel)

    contraction = _contraction(p, statement, Panels(panels, 0, 0, True), [0] * len(p.batch), width, machine)
    return dataclasses.replace(contraction, fill=fill)


def _pack_rows(p: _Matmul, contraction: Contraction, tile: Tile, lanes: int, statement: Template) -> tuple[Contraction, BoundKernel]:
    """The contraction with A packed into panels of the register tile's rows: where A's k is far apart, reading it in place misses the near memory."""
    batch = tuple((1, 0) if a == 0 else (size, a) for size, a, _, _ in p.batch)
    name = f"{statement.outputs[0].buffer.name}_row_panels"
    packed = pack(p.a, lanes, tile.rows, batch, ((p.depth, p.a_k),), (p.rows, p.a_row), contraction.dtype, name, statement.origins)
    axes = tuple(Axis(axis.size, 0 if a == 0 else stride, axis.b) for axis, (_, a, _, _), stride in zip(contraction.batch, p.batch, packed.batch_strides))
    k = (Axis(p.depth, packed.k_strides[0], contraction.k[0].b),)
    return dataclasses.replace(contraction, a=packed.panels.buffer, a_offset=0, batch=axes, k=k, a_panel=packed.panels.panel), packed.kernel


def _finish(w: KernelWriter, p: _Matmul, statement: Template, epilogue: tuple[Map, ...], sink: Sink) -> BoundKernel:
    n_batch = product(size for size, _, _, _ in p.batch)
    points = n_batch * p.rows * p.columns
    moved = (n_batch * p.depth * (p.rows + p.columns) + points) * DTYPE_BYTES[p.a.buffer.dtype]
    origins = tuple(dict.fromkeys((*statement.origins, *(o for s in epilogue for o in s.origins))))
    return w.finish("gemm", f"{' + '.join(origins[:4]) or 'gemm'}", "gemm", origins, points * p.depth * 2 + sink.flops(points), moved)
