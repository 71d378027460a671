"""Template "attention": out[batch…, m, :] = sum over n of weights[m, n] * V[n, :], weights = softmax over n of scores[m, n].

The scores are an expression of the product query · key: scale, bias, masks, whatever a model puts there. Neither scores nor
weights reach memory that contexts share: blocks of query rows pass over blocks of keys with a running largest score and sum
(online softmax; Milakov and Gimelshein 2018, Dao et al. 2022). Here the operands are laid out and the blocks chosen;
attention_blocks.py writes the kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ...csrc.abi import DTYPE_BYTES
from ...csrc.machine import Machine
from ..index_expr import Dim, product
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..tensor_ir import Buffer, Load, Map, Op, Template, walk
from ..values import length_of
from ..vector_ir import REGISTER_TYPE
from . import template
from .attention_blocks import Blocks, write_attention
from .gemm import accumulator_dtype
from .pack import PackedOperand, pack
from .tile import LEAST_JOBS, choose_dot_tile, choose_tile, even_block, near_tiles

__all__ = ["Attention", "AttentionChoice", "AttentionParams", "MOST_DIRECT_ROWS", "take_apart"]

# Rows up to which keys and values are read once, where they are (decoding): packing them would cost more than it brings.
MOST_DIRECT_ROWS = 8
# Query rows of a job, about: their scores and a block of keys fit the first level, and every key is loaded once per block.
BLOCK_ROWS = 48
DIRECT_BLOCK_KEYS = 256
# Register tiles of each of its products that a search tries.
SEARCHED_TILES = 2
# Operations of the softmax per score, an exponential among them.
SOFTMAX_LENGTH = 20


@dataclasses.dataclass(frozen=True)
class AttentionParams:
    """Static arguments of an attention.

    Attributes:
        depth: the size that query and key share.   keys: how many keys there are.
        product: stands in the score expression for query · key, as a row-major tensor over [batch…, m, n]; never in memory.
        causal: row m sees the keys up to m + causal; None where all are seen.
        is_safe: rows that see nothing give 0; without it NaN, as softmax does.
        is_share: the keys are some of those that the rows see; the logarithm of the sum is -inf where a row sees none of them, not 0.
    """

    depth: Dim
    keys: Dim
    product: Buffer
    causal: Dim | None = None
    is_safe: bool = True
    is_share: bool = False

    def __str__(self):
        limit = (f", causal={self.causal}" if self.causal is not None else "") + (", share" if self.is_share else "")
        return f"AttentionParams(depth={self.depth}, keys={self.keys}{limit})"


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
    """An attention with its index spaces taken apart.

    Attributes:
        query: over [domain without its last dim…, depth].   key, value: over [batch…, keys, depth or width].
        batch, rows: dims of the domain. Rows are those that share keys and values: the queries, and in decoding the heads of a group.
        width: size of a value row.
    """

    statement: Template
    query: Load
    key: Load
    value: Load
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    width: int

    @property
    def params(self) -> AttentionParams:
        return self.statement.params

    @property
    def n_rows(self) -> Dim:
        return product(self.statement.domain[d] for d in self.rows)

    @property
    def n_batch(self) -> Dim:
        return product(self.statement.domain[d] for d in self.batch)

    @property
    def dtype(self) -> str:
        """In which everything is computed."""
        return accumulator_dtype(self.query.buffer.dtype)


@dataclasses.dataclass(frozen=True)
class AttentionChoice:
    """The schedule of an attention.

    Attributes:
        is_direct: keys and values are read where they are, by vectors along the depth; else as panels.
        rows, keys: of a block.   score_tile, value_tile: as in Blocks.
    """

    is_direct: bool
    rows: int
    keys: int
    score_tile: tuple[int, int]
    value_tile: tuple[int, int]

    def __str__(self):
        tiles = " and ".join(f"{rows} x {columns}" for rows, columns in (self.score_tile, self.value_tile))
        return f"blocks of {self.rows} rows by {self.keys} keys, {'in place' if self.is_direct else 'in panels'}, tiles {tiles}"


def attention_choices(statement: Template, machine: Machine) -> Iterator[AttentionChoice]:
    """The analytic choice, then others that differ from it in one thing: rows or keys of a block, a register tile."""
    a = take_apart(statement)
    first = _analytic(a, machine)
    yield first
    panel = machine.lanes if first.is_direct else first.score_tile[1] * machine.lanes
    for keys in (first.keys * 2, first.keys // 2):
        yield dataclasses.replace(first, keys=max(-(-keys // panel), 1) * panel)
    if first.is_direct:
        return
    for rows in (first.rows * 2, first.rows // 2):
        yield dataclasses.replace(first, rows=max(-(-rows // first.score_tile[0]), 1) * first.score_tile[0])
    register_type, keys = REGISTER_TYPE[a.dtype], a.params.keys
    for tile in near_tiles(machine, register_type, a.n_rows, keys, a.params.depth)[:SEARCHED_TILES]:
        yield _with_score_tile(a, tile, machine)
    for tile in near_tiles(machine, register_type, first.rows, a.width, first.keys)[:SEARCHED_TILES]:
        yield dataclasses.replace(first, value_tile=tile)


@template("attention", attention_choices)
def attention(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: AttentionChoice | None = None) -> list[BoundKernel]:
    """Kernels of one attention; see kernels/__init__.py for the arguments."""
    a = take_apart(statement)
    blocks, kernels = _blocks(a, choice or _analytic(a, machine), machine)
    w = KernelWriter(machine.lanes)
    sink = Sink(w, statement, epilogue, stored)
    write_attention(w, a, blocks, sink, statement.outputs[1] if len(statement.outputs) > 1 and statement.outputs[1].buffer in stored else None)
    return [*kernels, _finish(w, a, epilogue, sink)]


def take_apart(statement: Template) -> Attention:
    """The attention that a statement is: which dims are batch, which rows."""
    query, key, value = statement.operands
    *batch_sizes, rows, width = statement.domain
    shared = len(batch_sizes)
    while shared and key.strides[shared - 1] == 0 and value.strides[shared - 1] == 0:
        shared -= 1
    few = product((*batch_sizes[shared:], rows))
    if shared == 0 or not isinstance(few, int) or few > MOST_DIRECT_ROWS:
        shared = len(batch_sizes)
    dims = tuple(range(len(batch_sizes) + 1))
    return Attention(statement, query, key, value, dims[:shared], dims[shared:], width)


def _analytic(a: Attention, machine: Machine) -> AttentionChoice:
    is_few = isinstance(a.n_rows, int) and a.n_rows <= MOST_DIRECT_ROWS
    if is_few and a.key.strides[-1] == 1 and a.value.strides[-1] == 1:
        return _direct_choice(a, machine)
    score = choose_tile(machine, REGISTER_TYPE[a.dtype], a.n_rows, a.params.keys, a.params.depth)
    return _with_score_tile(a, (score.rows, score.vectors), machine)


def _with_score_tile(a: Attention, score_tile: tuple[int, int], machine: Machine) -> AttentionChoice:
    """What follows from the register tile of the scores."""
    keys, panel = a.params.keys, score_tile[1] * machine.lanes
    rows = _block_rows(a, score_tile[0])
    # Scores of a block fit the first level.
    most_keys = max(machine.l1_bytes // (rows * DTYPE_BYTES[a.dtype]) // panel, 1) * panel
    block_keys = -(-even_block(keys, most_keys, panel) // panel) * panel
    value = choose_tile(machine, REGISTER_TYPE[a.dtype], rows, a.width, block_keys)
    return AttentionChoice(False, rows, block_keys, score_tile, (value.rows, value.vectors))


def _direct_choice(a: Attention, machine: Machine) -> AttentionChoice:
    """Few rows: keys and values stay where they are, so that decoding reads them once, at the speed of memory."""
    register_type = REGISTER_TYPE[a.dtype]
    block_keys = even_block(a.params.keys, DIRECT_BLOCK_KEYS, machine.lanes)
    value = choose_tile(machine, register_type, a.n_rows, a.width, block_keys)
    score_tile = choose_dot_tile(machine, register_type, a.n_rows, machine.lanes)
    return AttentionChoice(True, a.n_rows, -(-block_keys // machine.lanes) * machine.lanes, score_tile, (value.rows, value.vectors))


def _blocks(a: Attention, c: AttentionChoice, machine: Machine) -> tuple[Blocks, list[BoundKernel]]:
    """How the kernel walks, and the pack kernels that must run before it."""
    if c.is_direct:
        return Blocks(c.rows, c.keys, c.score_tile, c.value_tile, None, None), []
    keys, lanes = a.params.keys, machine.lanes
    key_panels, pack_keys = _pack(a, a.key, c.score_tile[1] * lanes, (a.params.depth, a.key.strides[-1]), (keys, a.key.strides[-2]), machine, "keys")
    value_panels, pack_values = _pack(a, a.value, c.value_tile[1] * lanes, (keys, a.value.strides[-2]), (a.width, a.value.strides[-1]), machine, "values")
    return Blocks(c.rows, c.keys, c.score_tile, c.value_tile, key_panels, value_panels), [pack_keys, pack_values]


def _block_rows(a: Attention, tile_rows: int) -> int:
    """Query rows of a job: about BLOCK_ROWS, fewer where the contexts would have nothing to do."""
    if not isinstance(a.n_rows, int):
        return -(-BLOCK_ROWS // tile_rows) * tile_rows
    n_batch = a.n_batch if isinstance(a.n_batch, int) else LEAST_JOBS
    blocks = max(-(-a.n_rows // BLOCK_ROWS), min(-(-LEAST_JOBS // max(n_batch, 1)), -(-a.n_rows // tile_rows)))
    return -(-(-(-a.n_rows // blocks)) // tile_rows) * tile_rows


def _pack(a: Attention, source: Load, width: int, k, column, machine: Machine, what: str) -> tuple[PackedOperand, BoundKernel]:
    """One operand as panels; heads that share it are packed once."""
    sizes = a.statement.domain
    batch = tuple((1, 0) if source.strides[d] == 0 else (sizes[d], source.strides[d]) for d in a.batch)
    name = f"{a.statement.outputs[0].buffer.name}_{what}"
    packed = pack(source, machine.lanes, width, batch, (k,), column, a.dtype, name, a.statement.origins)
    strides = tuple(0 if source.strides[d] == 0 else stride for d, stride in zip(a.batch, packed.batch_strides))
    return dataclasses.replace(packed, batch_strides=strides), packed.kernel


def _finish(w: KernelWriter, a: Attention, epilogue: tuple[Map, ...], sink: Sink) -> BoundKernel:
    p, statement = a.params, a.statement
    rows = a.n_batch * a.n_rows
    per_score = 2 * (p.depth + a.width) + sum(length_of(e.name) for e in walk(*statement.inner) if isinstance(e, Op)) + SOFTMAX_LENGTH
    flops = rows * p.keys * per_score + sink.flops(rows * a.width)
    moved = (rows * (p.depth + a.width) + a.n_batch * p.keys * (p.depth + a.width)) * DTYPE_BYTES[a.query.buffer.dtype]
    origins = tuple(dict.fromkeys((*statement.origins, *(o for s in epilogue for o in s.origins))))
    return w.finish("attention", f"attention: {', '.join(origins[:4])}", "attention", origins, flops, moved)
