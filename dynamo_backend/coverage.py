"""python -m accel coverage: run OpInfo's samples and write the op coverage matrix, or ModuleInfo's and the module matrix.

    accel coverage                       every cell, into docs/
    accel coverage --ops '^conv' --samples all --variants static,backward
    accel coverage --modules             nn.Modules, in inference and training

Results of cells are kept in a file of JSON lines while the run goes on; --resume takes those that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from .coverage_matrix import BAD, NOT_COMPILED, CellResult, Matrix, merge, read_matrix, shares, write_matrix

__all__ = ["main"]

JOURNAL = "coverage.jsonl"
FILES = {"json": "{}_coverage.json", "markdown": "{}_coverage.md", "page": "{}_coverage.html"}
BAR_WIDTH = 24
LINE_EVERY_S = 30.0  # where there is no terminal
# Kernels of samples are small and run once: compiling them costs more than running them. Values do not depend on the level.
DEFAULT_FLAGS = "-O0"


def main(argv: Sequence[str]) -> int:
    """Run the command; 1 where a cell is wrong or fails."""
    arguments = _parser().parse_args(argv)
    from .coverage_cases import all_cases
    from .coverage_modules import module_cases

    cases = (module_cases if arguments.modules else all_cases)(arguments.ops, arguments.dtypes, arguments.variants)
    if not cases:
        print(f"accel coverage: no {_subject(arguments)} matches {arguments.ops!r} with these dtypes and variants", file=sys.stderr)
        return 1
    started = time.perf_counter()
    done = _read_journal(arguments) if arguments.resume else {}
    cells = {tuple(dataclasses.astuple(case)): done[tuple(dataclasses.astuple(case))] for case in cases if tuple(dataclasses.astuple(case)) in done}
    todo = [case for case in cases if tuple(dataclasses.astuple(case)) not in cells]
    cells |= dict(_run(todo, arguments, n_done=len(cells)))
    matrix = _matrix(cells, arguments, time.perf_counter() - started)
    _write(matrix, arguments, is_whole=not (arguments.ops or arguments.dtypes or arguments.variants))
    return _summary(matrix)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="accel coverage", description="Run PyTorch's OpInfo samples per op, dtype and variant, and write the coverage matrix.")
    parser.add_argument("--modules", action="store_true", help="run the samples of nn.Modules (float32 unless told) instead of ops")
    parser.add_argument("--ops", default="", metavar="REGEX", help="ops, or modules, whose name it matches (default: all)")
    parser.add_argument("--dtypes", type=_words, default=(), metavar="LIST", help="such as float32,int64 (default: the plan in coverage_cases.py)")
    parser.add_argument("--variants", type=_words, default=(), metavar="LIST", help="of static,dynamic,backward; of modules: inference,eval,train")
    parser.add_argument("--samples", type=_samples, default=2, metavar="N", help="samples per cell, or all (default: 2)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, help="processes")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds that one cell may take")
    parser.add_argument("--cflags", default=DEFAULT_FLAGS, help=f"flags for the C compiler (default: {DEFAULT_FLAGS})")
    parser.add_argument("--resume", action="store_true", help="go on where the last run was ended")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the documents go; a run of some ops renews their cells there (default: docs for a whole run)")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _samples(text: str) -> int | None:
    return None if text == "all" else int(text)


def _subject(arguments: argparse.Namespace) -> str:
    return "module" if arguments.modules else "op"


def _journal_path() -> Path:
    from .runtime.cache import default_cache_dir

    return default_cache_dir() / JOURNAL


def _read_journal(arguments: argparse.Namespace) -> dict[tuple[str, str, str], CellResult]:
    """The cells of the last run that were run with as many samples and the same flags."""
    path = _journal_path()
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        if (entry["samples"], entry["cflags"]) == (arguments.samples, arguments.cflags):
            cell = entry["cell"]
            found[tuple(entry["case"])] = CellResult(**{**cell, "reasons": tuple(cell["reasons"])})
    return found


def _run(todo: Sequence, arguments: argparse.Namespace, n_done: int) -> Iterator[tuple[tuple[str, str, str], CellResult]]:
    """Run the cells, writing each into the journal as it comes."""
    from .coverage_pool import run_cases

    path = _journal_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = _Progress(n_done, n_done + len(todo))
    environment = {"ACCEL_CFLAGS": arguments.cflags}
    with open(path, "a" if arguments.resume else "w", buffering=1) as journal:
        pairs = run_cases(todo, n_workers=arguments.workers, n_samples=arguments.samples, timeout_s=arguments.timeout, environment=environment)
        for case, cell in pairs:
            key = dataclasses.astuple(case)
            entry = {"case": key, "samples": arguments.samples, "cflags": arguments.cflags, "cell": dataclasses.asdict(cell)}
            print(json.dumps(entry), file=journal)
            progress.tell(" ".join(key), cell)
            yield key, cell
    progress.end()


class _Progress:
    """A bar on a terminal, a line now and then elsewhere; wrong and failing cells at once."""

    def __init__(self, n_done: int, n_all: int):
        self._n_before, self._n_done, self._n_all = n_done, n_done, n_all
        self._started = self._told = time.monotonic()
        self._n_bad = 0
        self._is_terminal = sys.stderr.isatty()

    def tell(self, name: str, cell: CellResult) -> None:
        """One more cell is there."""
        self._n_done += 1
        if cell.status in BAD:
            self._n_bad += 1
            self._print(f"{name}: {cell.status}: {cell.message}\n")
        for reason in cell.reasons:
            if reason.startswith(NOT_COMPILED):
                self._print(f"{name}: {reason}\n")
        if self._is_terminal or time.monotonic() - self._told > LINE_EVERY_S:
            self._told = time.monotonic()
            self._print(self._line(name) + ("" if self._is_terminal else "\n"))

    def end(self) -> None:
        """The last line."""
        self._print(self._line("") + "\n")

    def _line(self, name: str) -> str:
        filled = BAR_WIDTH * self._n_done // max(1, self._n_all)
        pace = (time.monotonic() - self._started) / max(1, self._n_done - self._n_before)
        left = pace * (self._n_all - self._n_done)
        return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {self._n_done}/{self._n_all} cells, {self._n_bad} wrong or failing, {left / 60:.0f} min left  {name[:40]}"

    def _print(self, text: str) -> None:
        print(f"\r\x1b[K{text}" if self._is_terminal else text, end="", file=sys.stderr, flush=True)


def _matrix(cells: dict, arguments: argparse.Namespace, seconds: float) -> Matrix:
    import torch

    from .coverage_cases import family_of
    from .csrc.machine import resolve_machine
    from .runtime.toolchain import describe

    machine = resolve_machine("host")
    about = {
        "subject": _subject(arguments), "torch": torch.__version__, "machine": f"host, vectors of {machine.vlen_bytes} bytes", "compiler": describe().get("version", ""),
        "flags": arguments.cflags, "samples": arguments.samples or "all", "cells": len(cells), "workers": arguments.workers, "minutes": round(seconds / 60, 1),
    }  # fmt: skip
    return Matrix(about, {op: family_of(op) for op, _, _ in cells}, cells)


def _write(matrix: Matrix, arguments: argparse.Namespace, is_whole: bool) -> None:
    from .coverage_page import html, markdown

    folder = arguments.out or (Path("docs") if is_whole else None)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / name.format(matrix.subject) for kind, name in FILES.items()}
    old = paths["json"]
    matrix = merge(read_matrix(old) if old.exists() and not is_whole else None, matrix)
    write_matrix(matrix, old)
    paths["markdown"].write_text(markdown(matrix), encoding="utf-8")
    paths["page"].write_text(html(matrix), encoding="utf-8")
    print(f"wrote {', '.join(map(str, paths.values()))}")


def _summary(matrix: Matrix) -> int:
    for dtype, variant in matrix.columns():
        share = shares(cell for (_, *column), cell in matrix.cells.items() if column == [dtype, variant])
        percents = [f"{percent:5.1f} %" if percent is not None else "      -" for percent in (share.percent, share.percent_of_undecided)]
        print(f"{dtype:9} {variant:9} {percents[0]} of {share.reaching} samples wholly native, {percents[1]} without {share.decided} that stay eager by decision;"
              f" {share.bad} wrong or failing")
    n_bad = sum(cell.status in BAD for cell in matrix.cells.values())
    return 1 if n_bad else 0
