"""TensorProgram -> TensorProgram: a mutated input that is copied, changed at some indices and copied back is changed where it is.

Functionalization makes of `cache.index_copy_(…)` a copy of the whole cache, a scatter into the copy, readers of the copy, and a
copy back. Where nothing asks for the old values behind the first copy, the copy is the input: decoding then touches one row
of a key-value cache, not all of it.
"""

from __future__ import annotations

import dataclasses

from .tensor_ir import Buffer, Expr, Gather, Load, Map, Reduce, Scan, Scatter, Statement, Target, Template, TensorProgram, map_leaves, reads

__all__ = ["write_in_place"]


def write_in_place(program: TensorProgram) -> TensorProgram:
    """`program` without copies of inputs that end up in the inputs themselves."""
    statements = list(program.statements)
    for back in program.statements:
        copy = _copy_of(statements, back, program.outputs) if isinstance(back, Map) and back.target.buffer.kind == "input" else None
        if copy is not None:
            kept = [s for s in statements if s is not copy and s is not back]
            statements = [_renamed(s, copy.target.buffer, back.target.buffer) for s in kept]
    return dataclasses.replace(program, statements=tuple(statements))


def _copy_of(statements: list[Statement], back: Map, outputs: tuple[Buffer, ...]) -> Map | None:
    """The statement that copies the input which `back` writes again, if its copy may be the input itself."""
    held = back.target.buffer
    if back not in statements or not isinstance(back.expr, Load) or back.expr.guard is not None:
        return None
    copied = back.expr.buffer
    writers = [s for s in statements if any(t.buffer is copied for t in s.targets())]
    copy, *changes = writers or [None]
    if not isinstance(copy, Map) or not changes or not all(isinstance(s, Scatter) for s in changes) or copied.kind != "temp" or copied in outputs:
        return None
    first, last = statements.index(copy), statements.index(back)
    old_reads = [i for i, s in enumerate(statements) if held in reads(s) and s is not copy]
    is_only_write = [s for s in statements if any(t.buffer is held for t in s.targets())] == [back]
    is_over = all(i < first for i in old_reads) and all(statements.index(s) < last for s in changes)
    is_early = all(i > first for i, s in enumerate(statements) if copied in reads(s))
    return copy if is_only_write and is_over and is_early and _is_same_memory(copy, back) else None


def _is_same_memory(copy: Map, back: Map) -> bool:
    """Whether both copies are of whole buffers of one layout."""
    held, copied = back.target.buffer, copy.target.buffer
    source = copy.expr
    if not isinstance(source, Load) or source.guard is not None or source.buffer is not held or (held.sizes, held.strides, held.dtype) != (copied.sizes, copied.strides, copied.dtype):
        return False
    walks = [(source.offset, source.strides), (copy.target.offset, copy.target.strides), (back.expr.offset, back.expr.strides), (back.target.offset, back.target.strides)]
    return copy.domain == back.domain == held.sizes and all(walk == (0, held.strides) for walk in walks)


def _renamed(statement: Statement, old: Buffer, new: Buffer) -> Statement:
    """`statement` with `new` in the place of `old`."""
    memo: dict[int, Expr] = {}

    def moved(expr: Expr) -> Expr:
        return map_leaves(expr, lambda leaf: dataclasses.replace(leaf, buffer=new) if isinstance(leaf, (Load, Gather)) and leaf.buffer is old else leaf, memo)

    def target(t: Target) -> Target:
        return dataclasses.replace(t, buffer=new) if t.buffer is old else t

    if old not in reads(statement) and not any(t.buffer is old for t in statement.targets()):
        return statement
    if isinstance(statement, Template):
        return dataclasses.replace(statement, outputs=tuple(map(target, statement.outputs)), operands=tuple(map(moved, statement.operands)), inner=tuple(map(moved, statement.inner)))
    if isinstance(statement, Scan):
        return dataclasses.replace(statement, outputs=tuple(map(target, statement.outputs)), expr=moved(statement.expr))
    if isinstance(statement, Scatter):
        indices = tuple((moved(e), size, stride) for e, size, stride in statement.indices)
        return dataclasses.replace(statement, target=target(statement.target), indices=indices, expr=moved(statement.expr))
    assert isinstance(statement, (Map, Reduce))
    return dataclasses.replace(statement, target=target(statement.target), expr=moved(statement.expr))
