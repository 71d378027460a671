"""The coverage matrix as data: cells, their order from best to worst, the JSON file.

Nothing here imports torch: documents are read and compared without it.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["BAD", "NOT_COMPILED", "SCHEMA", "STATUSES", "CellResult", "Matrix", "Share", "merge", "read_matrix", "regressions", "shares", "worst", "write_matrix"]

SCHEMA = 1

# status: what it means; best first
STATUSES = {
    "native": "every call node of every graph is native",
    "partly": "some call nodes, or some samples, are native",
    "fallback": "no call node is native; the reason says why",
    "uncaptured": "no operator reaches the backend: Dynamo breaks the graph, or nothing is left to do",
    "upstream": "torch.compile's own front end fails or differs from eager, with backend='aot_eager' alike",
    "skipped": "eager rejects every sample",
    "wrong": "a result differs from eager",
    "error": "an exception, a crash or a time-out where eager has none",
}
BAD = ("wrong", "error")
NOT_COMPILED = "not compiled"  # how the reason begins where a whole partition went to eager: a fault of ours, though the result is right
REACHING = ("native", "partly", "fallback")  # samples whose graph reaches the backend: what shares are counted of


@dataclasses.dataclass(frozen=True)
class CellResult:
    """One cell.

    Attributes:
        status: a key of STATUSES.   samples: status -> number of samples.
        native_nodes, nodes: call nodes, summed over samples.
        reasons: why nodes were not native.   message: the first wrong or failing sample.
        decided: family of lowering/decisions.py -> samples that are not native by that decision alone.
    """

    status: str
    samples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    native_nodes: int = 0
    nodes: int = 0
    reasons: tuple[str, ...] = ()
    message: str = ""
    decided: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def n_samples(self) -> int:
        """Samples that were compared."""
        return sum(self.samples.values())


# (op, dtype, variant) -> cell
Cells = dict[tuple[str, str, str], CellResult]


@dataclasses.dataclass
class Matrix:
    """All cells of a document, with what they were run with.

    Attributes:
        about: "torch", "machine", "compiler", "flags", "samples" and whatever else tells how it was made.
        families: op -> family.
    """

    about: dict
    families: dict[str, str]
    cells: Cells

    @property
    def subject(self) -> str:
        """What a row is: "op" or "module"."""
        return self.about.get("subject", "op")

    def ops(self) -> list[str]:
        """Names in the order of the rows: by family, then by name."""
        return sorted({op for op, _, _ in self.cells}, key=lambda op: (self.families[op], op))

    def columns(self) -> list[tuple[str, str]]:
        """(dtype, variant) pairs that occur, in a fixed order."""
        found = {(dtype, variant) for _, dtype, variant in self.cells}
        order = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
        return sorted(found, key=lambda pair: (order.index(pair[0]), ("static", "dynamic", "backward", "inference", "eval", "train").index(pair[1])))


def worst(samples: Mapping[str, int]) -> str:
    """The status of a cell from those of its samples: a bad one decides; native, partly and fallback mix to partly."""
    for status in reversed(BAD):
        if samples.get(status):
            return status
    seen = [status for status in REACHING if samples.get(status)]
    if len(seen) == 1:
        return seen[0]
    if seen:
        return "partly"
    return next((status for status in ("uncaptured", "upstream") if samples.get(status)), "skipped")


@dataclasses.dataclass(frozen=True)
class Share:
    """Samples of some cells: wholly native ones, those that reach the backend, wrong or failing ones, and those in eager by decision alone."""

    native: int
    reaching: int
    bad: int
    decided: int

    @property
    def percent(self) -> float | None:
        """Native samples of those that reach the backend."""
        return 100 * self.native / self.reaching if self.reaching else None

    @property
    def percent_of_undecided(self) -> float | None:
        """The same outside the families that stay in eager by decision."""
        return 100 * self.native / (self.reaching - self.decided) if self.reaching > self.decided else None


def shares(cells: Iterable[CellResult]) -> Share:
    """The samples of some cells, counted."""
    total: Counter = Counter()
    decided = 0
    for cell in cells:
        total.update(cell.samples)
        decided += sum(cell.decided.values())
    return Share(total["native"], sum(total[status] for status in REACHING), sum(total[status] for status in BAD), decided)


def regressions(committed: Matrix, found: Matrix) -> list[str]:
    """Cells of `found` that are wrong, that fail, or that are worse than in `committed`, as sentences."""
    order = list(STATUSES)
    sentences = []
    for key, cell in found.cells.items():
        before = committed.cells.get(key)
        if cell.status in BAD:
            sentences.append(f"{' '.join(key)}: {cell.status}: {cell.message}")
        elif before is not None and before.status not in BAD and order.index(cell.status) > order.index(before.status):
            sentences.append(f"{' '.join(key)}: {cell.status}, was {before.status}: {'; '.join(cell.reasons)}")
    return sentences


def merge(old: Matrix | None, new: Matrix) -> Matrix:
    """`new` with the cells of `old` that it lacks: for a run of some ops alone. What it was run with is what either of the two was."""
    if old is None:
        return new
    cells = {**old.cells, **new.cells}
    samples = [matrix.about["samples"] for matrix in (old, new)]
    most = "all" if "all" in samples else max(samples)
    about = {**new.about, "samples": most, "cells": len(cells), "minutes": round(old.about["minutes"] + new.about["minutes"], 1)}
    about |= {key: _either(old.about[key], new.about[key]) for key in ("torch", "machine", "compiler", "flags")}
    return Matrix(about, {**old.families, **new.families}, cells)


def _either(old: str, new: str) -> str:
    """Both texts, each once."""
    return old if new in old.split(" or ") else f"{old} or {new}"


def write_matrix(matrix: Matrix, path: Path) -> None:
    """Write the JSON document: reasons in one list, cells with indices into it, one line per op."""
    reasons: dict[str, int] = {}
    rows: dict[str, dict] = {}
    for op in matrix.ops():
        cells = {f"{dtype} {variant}": cell for (name, dtype, variant), cell in sorted(matrix.cells.items()) if name == op}
        rows[op] = {"family": matrix.families[op], "cells": {column: _to_json(cell, reasons) for column, cell in cells.items()}}
    head = {"schema": SCHEMA, "about": matrix.about, "statuses": STATUSES, "reasons": list(reasons)}
    lines = ",\n".join(f"  {json.dumps(op)}: {json.dumps(row)}" for op, row in rows.items())
    text = json.dumps(head, indent=1).removesuffix("\n}") + f',\n "ops": {{\n{lines}\n }}\n}}\n'
    path.write_text(text, encoding="utf-8")


def _to_json(cell: CellResult, reasons: dict[str, int]) -> dict:
    made: dict = {"status": cell.status, "samples": dict(cell.samples), "nodes": [cell.native_nodes, cell.nodes]}
    if cell.reasons:
        made["reasons"] = [reasons.setdefault(reason, len(reasons)) for reason in cell.reasons]
    if cell.message:
        made["message"] = cell.message
    if cell.decided:
        made["decided"] = dict(cell.decided)
    return made


def read_matrix(path: Path) -> Matrix:
    """The document at `path`.

    Raises:
        ValueError: another schema.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {document.get('schema')!r}, expected {SCHEMA}; run `python -m accel coverage` again")
    cells = {}
    for op, row in document["ops"].items():
        for column, cell in row["cells"].items():
            dtype, variant = column.split()
            reasons = tuple(document["reasons"][index] for index in cell.get("reasons", ()))
            cells[op, dtype, variant] = CellResult(cell["status"], cell["samples"], *cell["nodes"], reasons, cell.get("message", ""), cell.get("decided", {}))
    return Matrix(document["about"], {op: row["family"] for op, row in document["ops"].items()}, cells)
