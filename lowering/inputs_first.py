"""TensorProgram -> TensorProgram: small values that depend on inputs alone are computed before everything else.

A batch norm's scale and shift come of parameters, but stand behind the convolution that they belong to. Computed first, they can
be read in its epilogue, which needs everything that it reads to be finished before the convolution starts.
Only what every reader spreads over more points moves: the rest shares loops with its readers, and would hold memory until then.
"""

from __future__ import annotations

import dataclasses

from .index_expr import product
from .tensor_ir import Buffer, Map, Statement, TensorProgram, reads

__all__ = ["inputs_first"]

# Points of a reader for each point of what moves; estimate: a channel's scale is read by every pixel, what has its reader's shape by one point.
LEAST_SPREAD = 4


def inputs_first(program: TensorProgram) -> TensorProgram:
    """`program` with such Maps at its start, otherwise in its order."""
    moved = _movable(program)
    if not moved:
        return program
    rest = tuple(s for s in program.statements if s not in moved)
    return dataclasses.replace(program, statements=(*moved, *rest))


def _movable(program: TensorProgram) -> dict[Statement, None]:
    """The Maps to move, in the program's order."""
    writers: dict[Buffer, list[Statement]] = {}
    readers: dict[Buffer, list[Statement]] = {}
    for statement in program.statements:
        for target in statement.targets():
            writers.setdefault(target.buffer, []).append(statement)
        for buffer in reads(statement):
            readers.setdefault(buffer, []).append(statement)
    ready = {buffer for buffer in program.inputs if buffer not in writers}
    found: dict[Statement, None] = {}
    for statement in program.statements:
        if isinstance(statement, Map) and statement.target.buffer.kind == "temp" and len(writers[statement.target.buffer]) == 1 and reads(statement) <= ready:
            found[statement] = None
            ready.add(statement.target.buffer)
    # From the last one on: a reader that stays keeps what it reads where it is, unless it spreads it.
    for statement in reversed(tuple(found)):
        its_readers = readers.get(statement.target.buffer, [])
        if not its_readers or not all(reader in found or _spreads(reader, statement) for reader in its_readers):
            del found[statement]
    return _without_orphans(found, writers)


def _spreads(reader: Statement, statement: Map) -> bool:
    if not isinstance(reader, Map):
        return False
    points, value_points = product(reader.domain), product(statement.domain)
    return isinstance(points, int) and isinstance(value_points, int) and points >= LEAST_SPREAD * value_points


def _without_orphans(found: dict[Statement, None], writers: dict[Buffer, list[Statement]]) -> dict[Statement, None]:
    """Without those that read what stays."""
    kept: dict[Statement, None] = {}
    for statement in found:
        if all(writer in kept for buffer in reads(statement) for writer in writers.get(buffer, [])):
            kept[statement] = None
    return kept
