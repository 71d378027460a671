"""TensorProgram -> TensorProgram: products, softmax and products that a model wrote out become the template "attention".

The pattern is matched on statements, after operators have been lowered, so it does not matter which operators wrote them: scores
are whatever expression stands between the first product and the softmax (scale, bias, masks, rounding to a half type). A chain
matches only where nothing else reads what lies inside it. What is found shows in `explain` as a kernel of kind "attention".
"""

from __future__ import annotations

import dataclasses

from .index_expr import Dim, product
from .kernels.attention import AttentionParams
from .kernels.gemm import accumulator_dtype
from .strides import common_refinement, contiguous_strides, view_strides
from .tensor_ir import Buffer, Const, Expr, Gather, Load, Map, Op, Reduce, Statement, Target, Template, TensorProgram, leaves, map_leaves, reads, restride

__all__ = ["find_attention"]

def find_attention(program: TensorProgram) -> TensorProgram:
    """`program` with every softmax(f(query · key)) · value that nothing else looks into as one statement."""
    if sum(isinstance(s, Template) and s.kind == "gemm" for s in program.statements) < 2:
        return program
    table = _Table(program)
    statements = list(program.statements)
    for statement in program.statements:
        if isinstance(statement, Template) and statement.kind == "gemm":
            found = _match(table, statement)
            if found is not None:
                attention, taken = found
                statements = [attention if s is statement else s for s in statements if s not in taken]
    return dataclasses.replace(program, statements=tuple(statements))


@dataclasses.dataclass(frozen=True, eq=False)
class _Chain:
    """What a match consists of: the score expression over `domain`, where `score` is the first product, and the statements that vanish."""

    first: Template
    scores: Expr
    domain: tuple[Dim, ...]
    is_safe: bool
    inside: tuple[Statement, ...]


class _Table:
    """Who writes and who reads each buffer of a program."""

    def __init__(self, program: TensorProgram):
        self.position = {statement: i for i, statement in enumerate(program.statements)}
        self.outputs = frozenset(program.outputs)
        self.writers: dict[Buffer, list[Statement]] = {}
        self.readers: dict[Buffer, list[Statement]] = {}
        for statement in program.statements:
            for target in statement.targets():
                self.writers.setdefault(target.buffer, []).append(statement)
            for buffer in reads(statement):
                self.readers.setdefault(buffer, []).append(statement)

    def writer(self, buffer: Buffer) -> Statement | None:
        """The one statement that makes `buffer`, if it is a temporary made by one."""
        writers = self.writers.get(buffer, [])
        return writers[0] if len(writers) == 1 and buffer.kind == "temp" and buffer not in self.outputs else None

    def is_settled(self, buffer: Buffer, since: int) -> bool:
        """Whether `buffer` holds from statement `since` on what it will hold."""
        return all(self.position[writer] < since for writer in self.writers.get(buffer, []))

    def is_private(self, buffer: Buffer, inside) -> bool:
        """Whether no statement but those of `inside` reads it."""
        return buffer not in self.outputs and all(reader in inside for reader in self.readers.get(buffer, []))


def _is_flat(offset: Dim, strides: tuple[Dim, ...], domain: tuple[Dim, ...]) -> bool:
    """Whether an access walks a buffer from its begin in row-major order."""
    return offset == 0 and all(size == 1 or stride == flat for size, stride, flat in zip(domain, strides, contiguous_strides(domain)))


def _reads_whole(expr: Expr, domain: tuple[Dim, ...]) -> Buffer | None:
    """The buffer that `expr` is, element by element in row-major order."""
    is_whole = isinstance(expr, Load) and expr.guard is None and _is_flat(expr.offset, expr.strides, domain)
    return expr.buffer if is_whole else None


def _reads_rows(expr: Expr, domain: tuple[Dim, ...]) -> Buffer | None:
    """The buffer with one element for every row of `domain` that `expr` is."""
    is_rows = isinstance(expr, Load) and expr.guard is None and expr.strides[-1] == 0 and _is_flat(expr.offset, expr.strides[:-1], domain[:-1])
    return expr.buffer if is_rows else None


def _op(expr: Expr, name: str) -> tuple[Expr, ...] | None:
    return expr.args if isinstance(expr, Op) and expr.name == name else None


def _map_of(table: _Table, buffer: Buffer | None) -> Map | None:
    """The Map that makes `buffer` in row-major order."""
    writer = table.writer(buffer) if buffer is not None else None
    return writer if isinstance(writer, Map) and _is_flat(writer.target.offset, writer.target.strides, writer.domain) else None


def _row_reduction(table: _Table, buffer: Buffer | None, op: str) -> Reduce | None:
    """The reduction over the last dim alone that makes `buffer`."""
    writer = table.writer(buffer) if buffer is not None else None
    is_rows = isinstance(writer, Reduce) and writer.op == op and writer.n_outer == len(writer.domain) - 1
    return writer if is_rows and _is_flat(writer.target.offset, writer.target.strides, writer.domain[:-1]) else None


def _match(table: _Table, second: Template) -> tuple[Template, set[Statement]] | None:
    """The attention whose last product is `second`, and the statements that it replaces besides."""
    chain = _find_chain(table, second)
    if chain is None:
        return None
    inside = (second, *chain.inside)
    written = [t.buffer for s in chain.inside for t in s.targets()]
    if not all(table.is_private(buffer, inside) for buffer in written):
        return None
    attention = _build(table, second, chain)
    if attention is None or not all(table.is_settled(buffer, table.position[chain.first]) for buffer in reads(attention)):
        return None
    return attention, set(chain.inside)


def _find_chain(table: _Table, second: Template) -> _Chain | None:
    weights = _map_of(table, _reads_whole(second.operands[0], (*second.domain[:-1], second.params.depth)))
    if weights is None:
        return None
    quotient, largest_of_empty = _without_guard(weights.expr)
    exponentials, total, inside = _quotient(table, quotient, weights.domain)
    if exponentials is None or total is None or _reads_whole(total.expr, total.domain) is not exponentials.target.buffer:
        return None
    arguments = _op(exponentials.expr, "exp") or _op(exponentials.expr, "exp_nonpositive")
    arguments = _op(arguments[0], "sub") if arguments else None
    if arguments is None:
        return None
    scores, largest = _reads_whole(arguments[0], exponentials.domain), _row_reduction(table, _reads_rows(arguments[1], exponentials.domain), "max")
    if scores is None or largest is None or _reads_whole(largest.expr, largest.domain) is not scores:
        return None
    inside += [weights, exponentials, total, largest]
    if largest_of_empty is not None:
        guard = _row_reduction(table, _reads_rows(largest_of_empty, weights.domain), "max")
        if guard is None or _reads_whole(guard.expr, guard.domain) is not scores:
            return None
        inside.append(guard)
    return _with_scores(table, scores, largest.domain, largest_of_empty is not None, inside)


def _without_guard(expr: Expr) -> tuple[Expr, Expr | None]:
    """(weights, the largest score that is compared with -inf) of an expression that gives 0 for rows that see nothing."""
    while (rounded := _op(expr, "cast")) is not None:
        expr = rounded[0]
    chosen = _op(expr, "where")
    compared = _op(chosen[0], "eq") if chosen else None
    is_guard = compared is not None and isinstance(compared[1], Const) and compared[1].value == float("-inf") and isinstance(chosen[1], Const) and chosen[1].value == 0
    return (chosen[2], compared[0]) if is_guard else (expr, None)


def _quotient(table: _Table, expr: Expr, domain) -> tuple[Map | None, Reduce | None, list[Statement]]:
    """(exponentials, their row sums, what lies between) of exponentials / sum, or times its reciprocal."""
    if (factors := _op(expr, "mul")) is not None:
        inverse = _map_of(table, _reads_rows(factors[1], domain))
        reciprocal = _op(inverse.expr, "reciprocal") if inverse is not None else None
        total = reciprocal and _reads_whole(reciprocal[0], inverse.domain)
        return _map_of(table, _reads_whole(factors[0], domain)), _row_reduction(table, total, "sum"), [inverse]
    if (factors := _op(expr, "div")) is not None:
        return _map_of(table, _reads_whole(factors[0], domain)), _row_reduction(table, _reads_rows(factors[1], domain), "sum"), []
    return None, None, []


def _with_scores(table: _Table, scores: Buffer, domain: tuple[Dim, ...], is_safe: bool, inside: list[Statement]) -> _Chain | None:
    """The chain down to the first product: `scores` is that product, or a Map over it."""
    writer = table.writer(scores)
    if isinstance(writer, Template) and writer.kind == "gemm":
        root = Load(scores, 0, contiguous_strides(domain))
        return _Chain(writer, root, domain, is_safe, (*inside, writer))
    made = _map_of(table, scores)
    if made is None or made.domain != domain:
        return None
    expr, inside = _inlined(table, made, [*inside, made])
    inputs = [leaf for leaf in leaves(expr) if isinstance(leaf, (Load, Gather)) and isinstance(table.writer(leaf.buffer), Template)]
    products = {table.writer(leaf.buffer) for leaf in inputs if table.writer(leaf.buffer).kind == "gemm" and _reads_whole(leaf, domain) is not None}
    if len(products) != 1:
        return None
    first = products.pop()
    if any(leaf.buffer is first.outputs[0].buffer and _reads_whole(leaf, domain) is None for leaf in inputs):
        return None
    return _Chain(first, expr, domain, is_safe, (*inside, first))


def _inlined(table: _Table, made: Map, inside: list[Statement]) -> tuple[Expr, list[Statement]]:
    """The expression of `made` with Maps that it alone reads written into it, and `inside` with them."""
    expr, found = made.expr, True
    while found:
        buffers = {leaf.buffer for leaf in leaves(expr) if _reads_whole(leaf, made.domain) is not None and table.is_private(leaf.buffer, inside)}
        maps = {buffer: table_map for buffer in buffers if (table_map := _map_of(table, buffer)) is not None and table_map.domain == made.domain}
        found = {b: m for b, m in maps.items() if all(_reads_whole(leaf, made.domain) is b for leaf in leaves(expr) if isinstance(leaf, (Load, Gather)) and leaf.buffer is b)}
        expr = map_leaves(expr, lambda leaf: found[leaf.buffer].expr if isinstance(leaf, Load) and leaf.buffer in found else leaf)
        inside = [*inside, *found.values()]
    return expr, inside


def _build(table: _Table, second: Template, chain: _Chain) -> Template | None:
    """The attention over batch dims fine enough for both products, the softmax and heads that share keys."""
    first = chain.first
    *_, rows, keys = chain.domain
    if not _is_computed_in(first.outputs[0].buffer.dtype, (*first.operands, second.operands[1]), chain.scores) or 0 in chain.domain:
        return None
    if first.domain[-2:] != (rows, keys) or second.domain[-2] != rows or second.params.depth != keys or not isinstance(second.domain[-1], int):
        return None
    written, out = first.outputs[0], second.outputs[0]
    if not _is_flat(written.offset, written.strides, first.domain):
        return None
    query = _Operand(first.operands[0], first.domain[:-2])
    key = _Operand.of(table, first.operands[1], first.domain[:-2], (first.params.depth, keys))
    value = _Operand.of(table, second.operands[1], second.domain[:-2], (keys, second.domain[-1]))
    batch = _refined(chain.domain[:-2], (query.batch, second.domain[:-2], key.batch, value.batch))
    if batch is None:
        return None
    q, k, v = (o.over(batch) for o in (query, key, value))
    target = _over(batch, second.domain[:-2], out.strides)
    if None in (q, k, v, target) or any(_over(batch, chain.domain[:-2], leaf.strides) is None for leaf in leaves(chain.scores)):
        return None
    k = dataclasses.replace(k, strides=(*k.strides[:-2], k.strides[-1], k.strides[-2]))
    sizes = (*batch, rows, keys)
    placeholder = Buffer(f"{written.buffer.name}_scores", written.buffer.dtype, sizes, contiguous_strides(sizes))
    scores = _on_placeholder(restride(chain.scores, lambda o, s: (o, _over(batch, chain.domain[:-2], s))), written.buffer, placeholder)
    params = AttentionParams(first.params.depth, keys, placeholder, None, chain.is_safe)
    origins = tuple(dict.fromkeys(o for s in sorted((*chain.inside, second), key=table.position.get) for o in s.origins))
    return Template("attention", (Target(out.buffer, out.offset, target),), (*batch, *second.domain[-2:]), (q, k, v), params, origins, (scores,))


def _refined(batch: tuple[Dim, ...], others) -> tuple[Dim, ...] | None:
    """Sizes that `batch` and all of `others` are merges of."""
    for other in others:
        if batch is None or product(batch) != product(other):
            return None
        batch = common_refinement(batch, other)
    return batch


def _over(batch: tuple[Dim, ...], own: tuple[Dim, ...], strides: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """Strides over (own…, two sides) as strides over (batch…, two sides)."""
    fine = view_strides(tuple(own), tuple(strides[:len(own)]), batch)
    return None if fine is None else (*fine, *strides[len(own):])


def _is_computed_in(dtype: str, operands: tuple[Load, ...], scores: Expr) -> bool:
    """Whether sums, scores and softmax are all of one float dtype."""
    return dtype in ("f32", "f64") and scores.dtype == dtype and all(accumulator_dtype(o.dtype) == dtype for o in operands)


def _on_placeholder(scores: Expr, written: Buffer, placeholder: Buffer) -> Expr:
    return map_leaves(scores, lambda leaf: Load(placeholder, 0, placeholder.strides) if isinstance(leaf, Load) and leaf.buffer is written else leaf)


@dataclasses.dataclass(frozen=True, eq=False)
class _Operand:
    """A matrix of keys or values with the batch dims that its strides are over."""

    load: Load
    batch: tuple[Dim, ...]

    def over(self, batch: tuple[Dim, ...]) -> Load | None:
        """The same operand over other batch dims."""
        strides = _over(batch, self.batch, self.load.strides)
        return None if strides is None else dataclasses.replace(self.load, strides=strides)

    @staticmethod
    def of(table: _Table, load: Load, batch: tuple[Dim, ...], sides: tuple[Dim, Dim]) -> _Operand:
        """The operand, read at its source where it is a plain copy (keys repeated for the heads that share them)."""
        copy = _map_of(table, load.buffer)
        if copy is None or not isinstance(copy.expr, Load) or copy.expr.guard is not None or len(copy.domain) < 3:
            return _Operand(load, batch)
        *outer, p, r = copy.domain
        flat = contiguous_strides(tuple(copy.domain))
        is_same = load.offset == 0 and product(outer) == product(batch) and _is_flat(0, load.strides[:-2] + (1,), (*batch, p * r))
        for order in ((0, 1), (1, 0)):
            if is_same and sides == tuple((p, r)[i] for i in order) and load.strides[-2:] == tuple(flat[len(outer):][i] for i in order):
                source = copy.expr
                return _Operand(Load(source.buffer, source.offset, (*source.strides[:len(outer)], *(source.strides[len(outer):][i] for i in order))), tuple(outer))
        return _Operand(load, batch)
