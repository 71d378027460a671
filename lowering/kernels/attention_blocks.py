"""The body of an attention kernel: blocks of query rows, each over blocks of keys.

For one block of keys: scores of all rows on register tiles, then row by row the score expression, the new largest score and the
exponentials, then the weighted values are added to what earlier blocks left, scaled to the new largest score.
"""

from __future__ import annotations

import dataclasses
import functools

from ..index_expr import Dim, floordiv, maximum, minimum
from ..kernel_writer import KernelWriter, PointEmitter, Sink
from ..select import constant, select
from ..tensor_ir import Buffer, Target
from ..vector_ir import MEMORY_TYPE, REGISTER_TYPE, V
from .contract import decompose, multiply_add, zero
from .dot import add_across
from .pack import PackedOperand

__all__ = ["Blocks", "write_attention"]

# Accumulators of a row's largest score: they hide the latency of vfmax.
MAX_UNROLL = 2
# Exponentials that run side by side: their latency is several times what they issue.
EXP_CHAINS = 2
LARGEST, TOTAL, FACTOR = range(3)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Blocking of an attention.

    Attributes:
        rows, keys: of a block.
        score_tile: rows and vectors of keys; where keys are read in place, rows and keys whose products run along the depth.
        value_tile: rows and vectors of the value's columns.
        key_panels, value_panels: packed operands, or None where they are read in place.
    """

    rows: int
    keys: int
    score_tile: tuple[int, int]
    value_tile: tuple[int, int]
    key_panels: PackedOperand | None
    value_panels: PackedOperand | None


def write_attention(w: KernelWriter, a, blocks: Blocks, sink: Sink, logsumexp: Target | None) -> None:
    """Writes the kernel's body; `a` is an attention.Attention."""
    _AttentionKernel(w, a, blocks, sink, logsumexp).write()


class _AttentionKernel:
    def __init__(self, w: KernelWriter, a, blocks: Blocks, sink: Sink, logsumexp: Target | None):
        self.w, self.a, self.blocks, self.sink, self.logsumexp = w, a, blocks, sink, logsumexp
        self.type = REGISTER_TYPE[a.dtype]
        self.domain = a.statement.domain
        self.keys = a.params.keys
        self.is_single = isinstance(self.keys, int) and self.keys <= blocks.keys
        rows = blocks.rows + max(blocks.score_tile[0], blocks.value_tile[0])
        n_vectors = -(-a.width // w.lanes)
        # Tiles store whole ones, and a row's last vector may be a whole one, too.
        self.score_pitch = blocks.keys + w.lanes
        self.out_pitch = -(-n_vectors // blocks.value_tile[1]) * blocks.value_tile[1] * w.lanes
        self.scores = w.scratch(self.type, rows * self.score_pitch)
        self.sums = w.scratch(self.type, rows * self.out_pitch)
        self.state = w.scratch(self.type, rows * 3 * w.lanes)

    def write(self) -> None:
        w, a, blocks = self.w, self.a, self.blocks
        n_blocks = floordiv(a.n_rows + (blocks.rows - 1), blocks.rows)
        with w.loop("job", 0, a.n_batch * n_blocks, parallel=True) as job:
            flat, block = decompose(w, job.index, (a.n_batch, n_blocks))
            self.batch = decompose(w, flat, tuple(self.domain[d] for d in a.batch))
            self.first_row = w.let(block * blocks.rows)
            self.count = blocks.rows if isinstance(a.n_rows, int) and a.n_rows % blocks.rows == 0 else w.let(minimum(blocks.rows, a.n_rows - self.first_row))
            self._begin_rows()
            end = self._end_of_keys()
            if self.is_single and end == self.keys:
                self._key_block(0, self.keys)
            else:
                with w.loop("kb", 0, end, blocks.keys) as loop:
                    self._key_block(loop.index, w.let(minimum(blocks.keys, end - loop.index)))
            with w.loop("r", 0, self.count) as row:
                self._finish_row(row.index)

    def _end_of_keys(self) -> Dim:
        """Behind the last key that a row of the block sees."""
        a = self.a
        if a.params.causal is None or len(a.rows) > 1:
            return self.keys
        return self.w.let(maximum(minimum(self.keys, self.first_row + self.count + a.params.causal), 0))

    # Addresses

    def _offset(self, load, row_index: Dim) -> Dim:
        """Offset of the query row `row_index`, counted over the attention's rows."""
        rows = decompose(self.w, row_index, tuple(self.domain[d] for d in self.a.rows)) if len(self.a.rows) > 1 else [row_index]
        return load.offset + sum((i * load.strides[d] for i, d in zip((*self.batch, *rows), (*self.a.batch, *self.a.rows))), 0)

    def _batch_offset(self, load) -> Dim:
        return self.w.let(load.offset + sum((i * load.strides[d] for i, d in zip(self.batch, self.a.batch)), 0))

    def _panel_offset(self, packed: PackedOperand) -> Dim:
        return self.w.let(sum((i * stride for i, stride in zip(self.batch, packed.batch_strides)), 0))

    def _query_rows(self, first: Dim, n: int) -> list[Dim]:
        """Offsets of the n query rows of a tile; rows that do not exist repeat the last one."""
        is_whole = isinstance(self.a.n_rows, int) and self.a.n_rows % n == 0 and self.blocks.rows % n == 0
        rows = [self.first_row + first + i for i in range(n)]
        return [self.w.let(self._offset(self.a.query, row if is_whole else self.w.let(minimum(row, self.a.n_rows - 1)))) for row in rows]

    def _coordinates(self, row: Dim, last: Dim) -> list[Dim]:
        """Coordinates in the template's domain, or in that of the scores, of row `row` of the block."""
        index = self.first_row + row
        rows = decompose(self.w, index, tuple(self.domain[d] for d in self.a.rows)) if len(self.a.rows) > 1 else [index]
        return [*self.batch, *rows, last]

    # Private memory

    def _load(self, scratch, index: Dim) -> V:
        return self.w.op(f"vld.{self.type}", self.w.addr(scratch, index))

    def _store(self, scratch, index: Dim, value: V) -> None:
        self.w.op(f"vst.{self.type}", self.w.addr(scratch, index, write=True), value)

    def _state(self, row: Dim, what: int) -> Dim:
        return (row * 3 + what) * self.w.lanes

    def _begin_rows(self) -> None:
        with self.w.loop("r", 0, self.count) as row:
            self._store(self.state, self._state(row.index, LARGEST), constant(self.w, float("-inf"), self.a.dtype))
            self._store(self.state, self._state(row.index, TOTAL), zero(self.w, self.type))
            if not self.is_single:
                with self.w.loop("v", 0, self.out_pitch, self.w.lanes) as column:
                    self._store(self.sums, row.index * self.out_pitch + column.index, zero(self.w, self.type))

    def _key_block(self, first_key: Dim, count: Dim) -> None:
        self._dot_scores(first_key, count) if self.blocks.key_panels is None else self._panel_scores(first_key, count)
        with self.w.loop("r", 0, self.count) as row:
            self._softmax_row(row.index, first_key, count)
        self._add_values(first_key, count)

    # Scores

    def _panel_scores(self, first_key: Dim, count: Dim) -> None:
        """scores[row, key] of a block, keys along the lanes; keys behind the last one are computed and never read."""
        w, panels = self.w, self.blocks.key_panels
        n_rows, vectors = self.blocks.score_tile
        width = vectors * w.lanes
        base = self._panel_offset(panels)
        with w.loop("p", 0, count, width) as key:
            panel = w.let(base + floordiv(first_key + key.index, width) * panels.panels.panel)
            with w.loop("m", 0, self.count, n_rows) as row:
                offsets = self._query_rows(row.index, n_rows)
                totals = (zero(w, self.type),) * (n_rows * vectors)
                with w.loop("k", 0, self.a.params.depth, carried=totals, unroll=4) as k:
                    column = panel + k.index * width
                    k.next = self._products(
                        n_rows, lambda i: self._query_element(offsets[i], k.index), vectors, lambda v: self._load_from(panels.panels.buffer, column + v * w.lanes), k.values,
                    )
                for i, total in enumerate(k.results):
                    self._store(self.scores, (row.index + i // vectors) * self.score_pitch + key.index + i % vectors * w.lanes, total)

    def _products(self, n_rows: int, element, n_vectors: int, vector, totals: tuple[V, ...]) -> tuple[V, ...]:
        """One step of a register tile: the smaller side of it is held in registers, the other streams."""
        result = list(totals)
        if n_vectors <= n_rows:
            held = [vector(v) for v in range(n_vectors)]
            for i in range(n_rows):
                row = element(i)
                for v, column in enumerate(held):
                    result[i * n_vectors + v] = multiply_add(self.w, row, column, result[i * n_vectors + v])
            return tuple(result)
        held = [element(i) for i in range(n_rows)]
        for v in range(n_vectors):
            column = vector(v)
            for i, row in enumerate(held):
                result[i * n_vectors + v] = multiply_add(self.w, row, column, result[i * n_vectors + v])
        return tuple(result)

    def _query_element(self, row: Dim, k: Dim) -> V:
        return self.w.op(f"vldx.{self._memory(self.a.query)}", self.w.addr(self.a.query.buffer, row + k * self.a.query.strides[-1]))

    def _memory(self, load) -> str:
        return MEMORY_TYPE[load.buffer.dtype]

    def _load_from(self, buffer: Buffer, index: Dim, mask: V | None = None) -> V:
        memory, address = MEMORY_TYPE[buffer.dtype], self.w.addr(buffer, index)
        return self.w.op(f"vld.{memory}", address) if mask is None else self.w.op(f"vldq.{memory}", mask, address)

    def _dot_scores(self, first_key: Dim, count: Dim) -> None:
        """scores[row, key] of a block with vectors along the depth: every key is read once, where it is."""
        w, (n_rows, n_keys) = self.w, self.blocks.score_tile
        base = self._batch_offset(self.a.key)
        with w.loop("n", 0, count, n_keys) as key:
            columns = [w.let(base + w.let(minimum(first_key + key.index + i, self.keys - 1)) * self.a.key.strides[-2]) for i in range(n_keys)]
            for first in range(0, self.a.n_rows, n_rows):
                rows = list(range(first, min(first + n_rows, self.a.n_rows)))
                totals = self._dot_tile([w.let(self._offset(self.a.query, row)) for row in rows], columns)
                for i, row in enumerate(rows):
                    total = add_across(w, list(totals[i * n_keys:(i + 1) * n_keys]))
                    self._store(self.scores, row * self.score_pitch + key.index, total)

    def _dot_tile(self, rows: list[Dim], columns: list[Dim]) -> tuple[V, ...]:
        w, depth = self.w, self.a.params.depth
        whole = floordiv(depth, w.lanes) * w.lanes
        totals = (zero(w, self.type),) * (len(rows) * len(columns))
        for begin, end, is_tail in ((0, whole, False), (whole, depth, True)):
            if begin == end:
                continue
            with w.loop("k", begin, end, w.lanes, carried=totals, unroll=1 if is_tail else 2) as k:
                mask = w.op("qtail.q", depth - k.index) if is_tail else None
                held = [self._query_vector(row + k.index * self.a.query.strides[-1], mask) for row in rows]
                result = list(k.values)
                for j, column in enumerate(columns):
                    vector = self._load_from(self.a.key.buffer, column + k.index, mask)
                    for i, query in enumerate(held):
                        result[i * len(columns) + j] = multiply_add(w, query, vector, result[i * len(columns) + j])
                k.next = tuple(result)
            totals = k.results
        return totals

    def _query_vector(self, index: Dim, mask: V | None) -> V:
        stride = self.a.query.strides[-1]
        if stride == 1:
            return self._load_from(self.a.query.buffer, index, mask)
        memory, address = self._memory(self.a.query), self.w.addr(self.a.query.buffer, index)
        return self.w.op(f"vlds.{memory}", address, stride) if mask is None else self.w.op(f"vldsq.{memory}", mask, address, stride)

    # Softmax

    def _softmax_row(self, row: Dim, first_key: Dim, count: Dim) -> None:
        """Scores of a row become weights relative to its largest score so far; earlier sums are to be scaled by FACTOR."""
        w = self.w
        base, end = w.let(row * self.score_pitch), self._row_end(row, first_key, count)
        old = self._load(self.state, self._state(row, LARGEST))
        largest = w.op(f"vfmax.{self.type}", old, self._apply_scores(row, base, first_key, end))
        shift = self._shift(largest)
        total = self._exponentials(base, end, shift)
        factor = self._exp(w.op(f"vfsub.{self.type}", old, shift))
        earlier = self._load(self.state, self._state(row, TOTAL))
        self._store(self.state, self._state(row, TOTAL), w.op(f"vfma.{self.type}", earlier, factor, total))
        self._store(self.state, self._state(row, LARGEST), largest)
        self._store(self.state, self._state(row, FACTOR), factor)
        if self.a.params.causal is not None:
            with w.loop("j", floordiv(end + (w.lanes - 1), w.lanes) * w.lanes, count, w.lanes) as hidden:
                self._store(self.scores, base + hidden.index, zero(w, self.type))

    def _row_end(self, row: Dim, first_key: Dim, count: Dim) -> Dim:
        """How many keys of the block the row sees."""
        causal = self.a.params.causal
        if causal is None:
            return count
        query = self._coordinates(row, 0)[-2]
        return self.w.let(maximum(minimum(count, query + 1 + causal - first_key), 0))

    def _shift(self, largest: V) -> V:
        """The largest score, or 0 where there is none: -inf minus -inf is not a number."""
        w = self.w
        is_empty = w.op(f"vcmpeq.{self.type}", largest, constant(w, float("-inf"), self.a.dtype))
        return w.op(f"vmux.{self.type}", is_empty, zero(w, self.type), largest)

    def _exp(self, value: V) -> V:
        return select(self.w, "exp_nonpositive", [value], self.a.dtype, self.a.dtype)

    def _apply_scores(self, row: Dim, base: Dim, first_key: Dim, end: Dim) -> V:
        """Evaluates the score expression in place; returns the largest score, in all lanes."""
        w, lanes = self.w, self.w.lanes
        lowest = constant(w, float("-inf"), self.a.dtype)
        totals = (lowest,) * MAX_UNROLL
        strip, whole = floordiv(end, MAX_UNROLL * lanes) * (MAX_UNROLL * lanes), floordiv(end, lanes) * lanes
        strip, whole = w.let(strip), w.let(whole)

        def step(j: Dim, total: V, mask: V | None) -> V:
            score = self._score(row, base + j, first_key + j, mask)
            self._store(self.scores, base + j, score)
            if mask is not None:
                score = w.op(f"vmux.{self.type}", mask, score, lowest)
            return w.op(f"vfmax.{self.type}", total, score)

        with w.loop("j", 0, strip, MAX_UNROLL * lanes, carried=totals) as loop:
            loop.next = tuple(step(loop.index + u * lanes, total, None) for u, total in enumerate(loop.values))
        first, *rest = loop.results
        for begin, stop, is_tail in ((strip, whole, False), (whole, end, True)):
            if begin == stop:
                continue
            with w.loop("j", begin, stop, lanes, carried=(first,)) as loop:
                loop.next = (step(loop.index, loop.values[0], w.op("qtail.q", end - loop.index) if is_tail else None),)
            first = loop.results[0]
        for other in rest:
            first = w.op(f"vfmax.{self.type}", first, other)
        return w.op(f"vredmax.{self.type}", first)

    def _score(self, row: Dim, place: Dim, key: Dim, mask: V | None) -> V:
        point = PointEmitter(self.w, self._coordinates(row, key), len(self.domain) - 1, mask, {self.a.params.product: self._load(self.scores, place)})
        return point.emit(self.a.statement.inner[0])

    def _exponentials(self, base: Dim, end: Dim, shift: V) -> V:
        """exp(score - shift) in place, 0 behind the end; returns their sum, in all lanes."""
        w, lanes = self.w, self.w.lanes
        strip, whole = w.let(floordiv(end, EXP_CHAINS * lanes) * (EXP_CHAINS * lanes)), w.let(floordiv(end, lanes) * lanes)

        def step(j: Dim, total: V, mask: V | None) -> V:
            weight = self._exp(w.op(f"vfsub.{self.type}", self._load(self.scores, base + j), shift))
            if mask is not None:
                weight = w.op(f"vmux.{self.type}", mask, weight, zero(w, self.type))
            self._store(self.scores, base + j, weight)
            return w.op(f"vfadd.{self.type}", total, weight)

        with w.loop("j", 0, strip, EXP_CHAINS * lanes, carried=(zero(w, self.type),) * EXP_CHAINS) as loop:
            sums = list(loop.values)

            def strand(c: int, index=loop.index) -> None:
                sums[c] = step(index + c * lanes, sums[c], None)

            w.interleave([functools.partial(strand, c) for c in range(EXP_CHAINS)])
            loop.next = tuple(sums)
        total, *rest = loop.results
        for begin, stop, is_tail in ((strip, whole, False), (whole, end, True)):
            if begin == stop:
                continue
            with w.loop("j", begin, stop, lanes, carried=(total,)) as loop:
                loop.next = (step(loop.index, loop.values[0], w.op("qtail.q", end - loop.index) if is_tail else None),)
            total = loop.results[0]
        for other in rest:
            total = w.op(f"vfadd.{self.type}", total, other)
        return w.op(f"vredadd.{self.type}", total)

    # Values

    def _add_values(self, first_key: Dim, count: Dim) -> None:
        """sums[row, column] = FACTOR * sums + weights[row, key] * value[key, column]."""
        w, packed = self.w, self.blocks.value_panels
        width = self.blocks.value_tile[1] * w.lanes
        if packed is not None:
            base = w.let(self._panel_offset(packed) + first_key * width)
            with w.loop("p", 0, -(-self.a.width // width)) as panel:
                start = w.let(base + panel.index * packed.panels.panel)
                self._value_tiles(w.let(panel.index * width), lambda key, v: self._load_from(packed.panels.buffer, start + key * width + v * w.lanes), count, self.blocks.value_tile[1])
            return
        base = w.let(self._batch_offset(self.a.value) + first_key * self.a.value.strides[-2])
        for column in range(0, self.a.width, width):
            n_vectors = min(self.blocks.value_tile[1], -(-(self.a.width - column) // w.lanes))
            self._value_tiles(column, lambda key, v, column=column: self._value_vector(base + key * self.a.value.strides[-2], column + v * w.lanes), count, n_vectors)

    def _value_vector(self, row: Dim, column: int) -> V:
        rest = self.a.width - column
        mask = self.w.op("qtail.q", rest) if rest < self.w.lanes else None
        return self._load_from(self.a.value.buffer, row + column, mask)

    def _value_tiles(self, column: Dim, load, count: Dim, vectors: int) -> None:
        """All row tiles of one panel of columns."""
        w, n_rows = self.w, self.blocks.value_tile[0]
        with w.loop("m", 0, self.count, n_rows) as row:
            places = [w.let((row.index + i) * self.out_pitch + column) + v * w.lanes for i in range(n_rows) for v in range(vectors)]
            totals = tuple(self._earlier(place, row.index + i // vectors) for i, place in enumerate(places))
            with w.loop("k", 0, count, carried=totals, unroll=4) as k:
                start = row.index * self.score_pitch + k.index
                k.next = self._products(
                    n_rows, lambda i: w.op(f"vldx.{self.type}", w.addr(self.scores, start + i * self.score_pitch)), vectors, lambda v: load(k.index, v), k.values,
                )
            for place, total in zip(places, k.results):
                self._store(self.sums, place, total)

    def _earlier(self, place: Dim, row: Dim) -> V:
        if self.is_single:
            return zero(self.w, self.type)
        return self.w.op(f"vfmul.{self.type}", self._load(self.sums, place), self._load(self.state, self._state(row, FACTOR)))

    def _finish_row(self, row: Dim) -> None:
        """The row's sums over its total go to the sink."""
        w, lanes, width = self.w, self.w.lanes, self.a.width
        total = self._load(self.state, self._state(row, TOTAL))
        one, nothing = constant(w, 1.0, self.a.dtype), zero(w, self.type)
        inverse = w.op(f"vfdiv.{self.type}", one, total)
        is_empty = w.op(f"vcmpeq.{self.type}", total, nothing)
        if self.a.params.is_safe:
            inverse = w.op(f"vmux.{self.type}", is_empty, nothing, inverse)
        base = w.let(row * self.out_pitch)

        def put(column: Dim, mask: V | None) -> None:
            value = w.op(f"vfmul.{self.type}", self._load(self.sums, base + column), inverse)
            self.sink.put(self._coordinates(row, column), len(self.domain) - 1, value, mask)

        with w.loop("n", 0, width // lanes * lanes, lanes) as column:
            put(column.index, None)
        if width % lanes:
            put(width // lanes * lanes, w.op("qtail.q", width % lanes))
        if self.logsumexp is not None:
            log = w.op(f"vfadd.{self.type}", select(w, "log", [total], self.a.dtype, self.a.dtype), self._shift(self._load(self.state, self._state(row, LARGEST))))
            value = w.op(f"vmux.{self.type}", is_empty, constant(w, float("-inf"), self.a.dtype) if self.a.params.is_share else nothing, log)
            PointEmitter(w, self._coordinates(row, 0)[:-1], None).store(self.logsumexp, value)
