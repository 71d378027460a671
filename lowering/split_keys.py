"""TensorProgram -> TensorProgram: attention with few jobs (decoding with few heads) over shares of the keys, and a merge.

A query that reads thousands of keys is one job per head that has keys of its own; with fewer of them than contexts, some would wait.
Every share of the keys gives its own softmax's result and logarithm of the sum; the results are averaged with the shares' sums as weights
("flash decoding", Dao et al. 2023).
"""

from __future__ import annotations

import dataclasses
import math

from .kernels.attention import MOST_DIRECT_ROWS, Attention, take_apart
from .kernels.tile import LEAST_JOBS
from .strides import contiguous_strides
from .tensor_ir import Buffer, Const, Expr, Load, Map, Op, Reduce, Statement, Target, Template, TensorProgram, map_leaves, reads, restride

__all__ = ["split_keys"]

# Keys of a share, at least: some hundred kilobytes, against which the merge is nothing.
LEAST_KEYS = 256
SHARES = (2, 4, 8, 16)


def split_keys(program: TensorProgram) -> TensorProgram:
    """`program` with attentions that have too few jobs over shares of their keys."""
    wanted = set(program.outputs).union(*(reads(s) for s in program.statements)) if any(map(_is_attention, program.statements)) else set()
    statements: list[Statement] = []
    for statement in program.statements:
        count = _shares(statement, wanted) if _is_attention(statement) else None
        statements += _Split(take_apart(statement), count).statements() if count else [statement]
    return dataclasses.replace(program, statements=tuple(statements))


def _is_attention(statement: Statement) -> bool:
    return isinstance(statement, Template) and statement.kind == "attention"


def _shares(statement: Template, wanted: set[Buffer]) -> int | None:
    """How many shares make work enough, or as many as the keys are worth; None where one does, or where the sum itself is asked for."""
    a = take_apart(statement)
    sizes = (a.n_rows, a.n_batch, a.params.keys)
    if not all(isinstance(size, int) for size in sizes) or a.params.causal is not None or any(t.buffer in wanted for t in statement.outputs[1:]):
        return None
    rows, batch, keys = sizes
    if rows > MOST_DIRECT_ROWS or batch >= LEAST_JOBS or a.key.strides[-1] != 1 or a.value.strides[-1] != 1:
        return None
    possible = [n for n in SHARES if keys % n == 0 and keys // n >= LEAST_KEYS]
    return next((n for n in possible if batch * n >= LEAST_JOBS), possible[-1] if possible else None)


class _Split:
    """One attention over `count` shares; the new axis lies behind those of the batch and before the rows."""

    def __init__(self, a: Attention, count: int):
        self.a, self.count = a, count
        self.axis, self.length = len(a.batch), a.params.keys // count
        *self.outer, self.width = a.statement.domain
        self.name, self.origins = a.statement.outputs[0].buffer.name, a.statement.origins
        self.shared = (*self.outer[:self.axis], count, *self.outer[self.axis:])

    def statements(self) -> list[Statement]:
        parts, sums = self._buffer("parts", (*self.shared, self.width)), self._buffer("sums", self.shared)
        return [self._attention(parts, sums), *self._merge(parts, sums)]

    def _buffer(self, what: str, sizes) -> Buffer:
        return Buffer(f"{self.name}_{what}", self.a.dtype, tuple(sizes), contiguous_strides(sizes))

    def _insert(self, strides, stride):
        return (*strides[:self.axis], stride, *strides[self.axis:])

    def _attention(self, parts: Buffer, sums: Buffer) -> Template:
        a, product = self.a, self.a.params.product
        placeholder = dataclasses.replace(product, sizes=(*self.shared, self.length), strides=contiguous_strides((*self.shared, self.length)))
        scores = restride(a.statement.inner[0], lambda offset, strides: (offset, self._insert(strides, strides[-1] * self.length)))
        scores = map_leaves(scores, lambda e: Load(placeholder, 0, placeholder.strides) if isinstance(e, Load) and e.buffer is product else e)
        query = dataclasses.replace(a.query, strides=self._insert(a.query.strides, 0))
        key, value = (dataclasses.replace(load, strides=self._insert(load.strides, load.strides[-2] * self.length)) for load in (a.key, a.value))
        params = dataclasses.replace(a.params, keys=self.length, product=placeholder, is_safe=True, is_share=True)
        outputs = (Target(parts, 0, parts.strides), Target(sums, 0, sums.strides))
        return dataclasses.replace(a.statement, outputs=outputs, domain=parts.sizes, operands=(query, key, value), params=params, inner=(scores,))

    def _last(self, strides):
        """Strides over the shared axes, the shares last."""
        return (*strides[:self.axis], *strides[self.axis + 1:], strides[self.axis])

    def _merge(self, parts: Buffer, sums: Buffer) -> list[Statement]:
        """The average of the parts, each weighted by e**(its logarithm of the sum, less the largest)."""
        dtype, outer, n = self.a.dtype, tuple(self.outer), len(self.outer)
        largest, weights, total, summed = self._buffer("largest", outer), self._buffer("weights", (*outer, self.count)), self._buffer("total", outer), self._buffer("summed", (*outer, self.width))
        logarithm = Load(sums, 0, self._last(sums.strides))
        shift = Load(largest, 0, (*largest.strides, 0))
        nothing = Op("eq", (shift, Const(-math.inf, dtype)), "bool")
        weight = Op("exp_nonpositive", (Op("sub", (logarithm, Op("where", (nothing, Const(0.0, dtype), shift), dtype)), dtype),), dtype)
        spread = (*weights.strides[:-1], 0, 1)
        strides = self._last(parts.strides[:-1])
        weighted = Op("mul", (Load(weights, 0, spread), Load(parts, 0, (*strides[:-1], 1, strides[-1]))), dtype)
        return [
            Reduce(Target(largest, 0, largest.strides), (*outer, self.count), n, "max", logarithm, self.origins),
            Map(Target(weights, 0, weights.strides), (*outer, self.count), weight, self.origins),
            Reduce(Target(total, 0, total.strides), (*outer, self.count), n, "sum", Load(weights, 0, weights.strides), self.origins),
            Reduce(Target(summed, 0, summed.strides), (*outer, self.width, self.count), n + 1, "sum", weighted, self.origins),
            Map(self.a.statement.outputs[0], (*outer, self.width), self._average(total, summed), self.origins),
        ]

    def _average(self, total: Buffer, summed: Buffer) -> Expr:
        """0, or NaN as softmax has it, where no share sees a key."""
        dtype, target = self.a.dtype, self.a.statement.outputs[0].buffer.dtype
        divisor = Load(total, 0, (*total.strides, 0))
        average = Op("div", (Load(summed, 0, summed.strides), divisor), dtype)
        if self.a.params.is_safe:
            average = Op("where", (Op("eq", (divisor, Const(0.0, dtype)), "bool"), Const(0.0, dtype), average), dtype)
        return average if target == dtype else Op("cast", (average,), target)
