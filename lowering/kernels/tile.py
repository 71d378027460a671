"""Tiles of a contraction, computed from the Machine: registers, multiply latency and pipes, near memory.

Follows "Analytical modeling is enough for high-performance BLIS" (Low et al., TOMS 2016): accumulators fill the register file
and cover latency x pipes; a panel of B stays in the first level of memory, a block of A in the second.
"""

from __future__ import annotations

import dataclasses

from ...csrc.abi import DTYPE_BYTES
from ...csrc.machine import Machine
from ..index_expr import Dim

__all__ = ["LEAST_JOBS", "MOST_TILES", "Tile", "choose_dot_tile", "choose_tile", "even_block", "near_dot_tiles", "near_tiles", "registers_per_value", "stays_near"]

# Sizes that are not known at compile time are taken to be this.
TYPICAL_SIZE = 512
# Jobs a kernel should at least have, so that the contexts' shares differ little.
LEAST_JOBS = 8
# Shapes whose modelled cost is at most this many times the least: the model may be wrong about them, and a search tries the first few;
# estimates.
UNSURE = 1.4
MOST_TILES = 5
# Registers that a tile of a machine with 32 leaves free: half of the operands that pass through registers, which clang loads ahead. A tile
# that leaves fewer spills accumulators, at this cost. Measured on AVX-512, Gflop/s of 256: GEMM of 126 x 768 x 3072 5 x 5 vectors 173;
# 784 x 256 x 768 12 x 2 and 13 x 2 214 and 186, 9 x 3 220, 10 x 2, 8 x 3 and 6 x 4 251. With 16 registers the compilers fold loads into
# multiplies and need none.
LEAST_SPARE = 2
SPILLING = 1.3


@dataclasses.dataclass(frozen=True)
class Tile:
    """Blocking of a contraction.

    Attributes:
        rows, vectors: the register tile: `rows` rows by `vectors` vectors of columns.
        k_block: steps of the contracted axis between two visits of a tile.
        row_block: rows of a job, a multiple of `rows`.
    """

    rows: int
    vectors: int
    k_block: int
    row_block: int


def stays_near(machine: Machine, elements: Dim, dtype: str) -> bool:
    """Whether an operand of that many elements fits half of the second level."""
    return isinstance(elements, int) and elements * DTYPE_BYTES[dtype] <= machine.l2_bytes // 2


def registers_per_value(register_type: str) -> int:
    """Vector registers that one value takes."""
    return 2 if register_type in ("df", "d") else 1


def choose_tile(machine: Machine, register_type: str, rows: Dim, columns: Dim, depth: Dim, batch: Dim = 1, most_vectors: int = 8,
                shape: tuple[int, int] | None = None) -> Tile:
    """The tile for a contraction of rows x columns x depth, each int or symbolic, repeated `batch` times; `shape` sets its rows and vectors."""
    regs = registers_per_value(register_type)
    m, n, k, repeats = (_known(size) for size in (rows, columns, depth, batch))
    tile_rows, vectors = shape or _best_shape(machine, regs, _shape_costs(machine, regs, most_vectors, m, n, k))
    element_bytes = 4 * regs
    panel_columns = vectors * machine.lanes
    # A panel streams from the second level at full speed; to revisit partial sums costs more (measured on AVX2 up to 200 KB a panel).
    # One that a single tile reads goes by once, whatever its length.
    k_block = max(64, machine.l2_bytes // 2 // (panel_columns * element_bytes))
    k_block = max(k_block, k) if m <= 2 * tile_rows else k_block
    # Rows of A stream from behind the second level without loss, as long as enough of them share a panel.
    most_rows = max(4 * tile_rows, machine.l1_bytes // 2 // (panel_columns * element_bytes))
    n_panels = -(-n // panel_columns) * repeats
    blocks = max(-(-m // most_rows), min(-(-LEAST_JOBS // max(n_panels, 1)), -(-m // (2 * tile_rows))), 1)
    n_tiles = -(-m // tile_rows)
    tiles = max(-(-n_tiles // blocks), 1)
    if n_panels * blocks < 2 * LEAST_JOBS and m * k * element_bytes <= machine.l2_bytes // 2:
        tiles = _even_share(n_tiles, tiles, n_panels)
    return Tile(tile_rows, vectors, k_block, tile_rows * tiles)


def choose_dot_tile(machine: Machine, register_type: str, rows: int, most_columns: int) -> tuple[int, int]:
    """(rows, columns) of a tile whose vectors run along the contracted axis; columns is a power of two, at least rows (measured: long streams of B)."""
    return near_dot_tiles(machine, register_type, rows, most_columns)[0]


def near_dot_tiles(machine: Machine, register_type: str, rows: int, most_columns: int) -> list[tuple[int, int]]:
    """Tiles as choose_dot_tile has them, the modelled best first, that may be the best in truth."""
    regs = registers_per_value(register_type)
    shapes = [(r, c) for c in (1, 2, 4, 8) if c <= most_columns for r in range(1, c + 1) if (r * c + min(r, c) + 1) * regs <= machine.n_vregs]
    cost = {s: _rows_cost(machine, regs, s, rows, 0) / s[1] for s in shapes}
    ordered = sorted(shapes, key=lambda s: (cost[s], -s[1]))
    return [s for s in ordered if cost[s] <= UNSURE * cost[ordered[0]]]


def _even_share(n_tiles: int, most: int, n_panels: int) -> int:
    """Row tiles of a job, at most `most`, that make the number of jobs even, if any do: one of two contexts would wait for the last job.

    For an A that stays near: the jobs of a panel follow each other then, and it is read once all the same.
    """
    return next((size for size in range(most, 0, -1) if n_panels * -(-n_tiles // size) % 2 == 0), most)


def even_block(size: Dim, most: int, multiple: int = 1) -> int:
    """The block <= most (or a quarter above it) that splits `size` evenly; `most` where the size is not known."""
    if not isinstance(size, int):
        return most
    if size <= most + most // 4:
        return max(size, 1)
    blocks = -(-size // most)
    return -(-(-(-size // blocks)) // multiple) * multiple


def _known(size: Dim) -> int:
    return size if isinstance(size, int) else TYPICAL_SIZE


def _register_tiles(machine: Machine, regs: int, most_vectors: int, m: int):
    """Shapes whose accumulators and operands fit the registers.

    Of the operands, the smaller side of the tile stays in registers: vectors of B, or single registers that repeat an element of A;
    the other side passes through one more.
    """
    for vectors in range(1, most_vectors + 1):
        for rows in range(1, min(16, m) + 1):
            if _registers(regs, rows, vectors) <= machine.n_vregs:
                yield rows, vectors


def _registers(regs: int, rows: int, vectors: int) -> int:
    return rows * vectors * regs + min(vectors * regs + 1, rows + regs)


def _step_cycles(machine: Machine, regs: int, rows: int, vectors: int, k: int) -> float:
    """Cycles of one step of the contracted axis: what its multiplies, its loads or the stream of B take.

    Measured on AVX2 (GEMM of 128 x 384 x 1536): the latency needs one cycle of slack, four fifths of the load slots can be used,
    and a panel of B that does not fit the first level comes from the second at half a register a cycle.
    """
    multiplies = rows * vectors * regs / machine.fma_pipes
    if machine.n_vregs >= 32 and machine.n_vregs - _registers(regs, rows, vectors) < max(LEAST_SPARE, max(rows, vectors * regs) / 2):
        multiplies *= SPILLING
    loads = (rows + vectors * regs) / (0.8 * max(machine.load_pipes, 2))
    stream = 2 * vectors * regs if vectors * regs * machine.vlen_bytes * k > machine.l1_bytes // 2 else 0
    return max(multiplies, machine.fma_latency + 1, loads, stream)


def _rows_cost(machine: Machine, regs: int, shape: tuple[int, int], m: int, k: int) -> float:
    """Cycles per step of all row tiles of one panel."""
    rows, vectors = shape
    cycles = (m // rows) * _step_cycles(machine, regs, rows, vectors, k)
    return cycles + (_step_cycles(machine, regs, m % rows, vectors, k) if m % rows else 0)


def near_tiles(machine: Machine, register_type: str, rows: Dim, columns: Dim, depth: Dim, most_vectors: int = 8) -> list[tuple[int, int]]:
    """Register tiles (rows, vectors) that may be the best in truth: one for every number of vectors, the modelled best first."""
    costs = _shape_costs(machine, registers_per_value(register_type), most_vectors, _known(rows), _known(columns), _known(depth))
    least = min(costs.values())
    by_vectors = [{shape: cost for shape, cost in costs.items() if shape[1] == vectors} for vectors in sorted({shape[1] for shape in costs})]
    best = [_best_shape(machine, registers_per_value(register_type), found) for found in by_vectors if min(found.values()) <= UNSURE * least]
    return sorted(best, key=costs.get)


def _shape_costs(machine: Machine, regs: int, most_vectors: int, m: int, n: int, k: int) -> dict[tuple[int, int], float]:
    """Modelled cycles per step of k over the whole matrix, for every register tile that fits."""
    shapes = _register_tiles(machine, regs, most_vectors, max(m, 1))
    return {(rows, vectors): _rows_cost(machine, regs, (rows, vectors), m, k) * -(-n // (vectors * machine.lanes)) for rows, vectors in shapes}


def _best_shape(machine: Machine, regs: int, costs: dict[tuple[int, int], float]) -> tuple[int, int]:
    """The register tile that takes the fewest cycles.

    Of those within 4 % one that leaves a register free (gcc spills before the last one), then the one with the fewest loads per multiply.
    """
    least = min(costs.values())
    return min((s for s in costs if costs[s] <= 1.04 * least), key=lambda s: (_registers(regs, *s) == machine.n_vregs, (s[0] + s[1]) / (s[0] * s[1]), costs[s]))
