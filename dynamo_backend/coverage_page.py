"""The coverage matrix as Markdown and as one page of HTML that needs no network."""

from __future__ import annotations

import html as html_text
import json
from collections import Counter
from collections.abc import Iterable

from .coverage_matrix import BAD, STATUSES, CellResult, Matrix, shares

__all__ = ["html", "markdown"]

# subject of a matrix: its headline, and where its cells come from
TITLES = {
    "op": ("# Op coverage", "", "Made by `python -m accel coverage` from PyTorch's OpInfo samples; every cell is what a run showed, compared with eager."),
    "module": (
        "# Module coverage", "",
        "Made by `python -m accel coverage --modules` from PyTorch's ModuleInfo samples (module_db): results, gradients of inputs and parameters, and buffers, compared with eager.",
        "inference: `eval()` under `no_grad`; eval and train: forward and backward in that mode.",
    ),
}  # fmt: skip


def markdown(matrix: Matrix) -> str:
    """Summary by family and column, the commonest reasons, then a row per op."""
    columns = matrix.columns()
    reasons = _numbered_reasons(matrix)
    lines = [
        *TITLES[matrix.subject], "",
        f"{_about(matrix)}.", "",
        *(f"* **{status}**: {meaning}." for status, meaning in STATUSES.items()), "",
        "## Samples that run wholly native, of those that reach the backend", "",
        *_table(["family", *map(" ".join, columns)], _summary_rows(matrix, columns)), "",
        "The last row leaves out the samples of the next table: by the reasons of their nodes, nothing else keeps them from being native.", "",
        "## Samples that stay in eager by decision", "",
        *_table(["decision", *map(" ".join, columns)], _decision_rows(matrix, columns)), "",
        f"## Every {matrix.subject}", "",
        "A cell: its status, and the number of samples it rests on (native/all where they differ); numbers in brackets are reasons, listed below.", "",
        *_table([matrix.subject, *map(" ".join, columns)], _op_rows(matrix, columns, reasons)), "",
        "## Reasons", "",
        *(f"{number}. {_escape(reason)}" for reason, number in reasons.items()), "",
        *_bad_lines(matrix),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _about(matrix: Matrix) -> str:
    about = matrix.about
    return (
        f"torch {about['torch']}, machine {about['machine']}, {about['compiler']} with {about['flags']}, at most {about['samples']} samples per cell, "
        f"{about['cells']} cells in {about['minutes']} minutes with {about['workers']} workers"
    )


def _numbered_reasons(matrix: Matrix) -> dict[str, int]:
    """Every reason, the commonest first, from 1."""
    counted = Counter(reason for cell in matrix.cells.values() for reason in cell.reasons)
    return {reason: number for number, (reason, _) in enumerate(sorted(counted.items(), key=lambda item: (-item[1], item[0])), 1)}


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _summary_rows(matrix: Matrix, columns: list[tuple[str, str]]) -> list[list[str]]:
    families = sorted(set(matrix.families.values()))
    rows = [[family, *(_share(_chosen(matrix, column, family)) for column in columns)] for family in families]
    undecided = ["**all but decisions**", *(f"**{_undecided(_chosen(matrix, column))}**" for column in columns)]
    return [*rows, ["**all**", *(f"**{_share(_chosen(matrix, column))}**" for column in columns)], undecided]


def _decision_rows(matrix: Matrix, columns: list[tuple[str, str]]) -> list[list[str]]:
    """Samples per family of decisions and column."""
    counted = {column: sum((Counter(cell.decided) for cell in _chosen(matrix, column)), Counter()) for column in columns}
    families = sorted(set().union(*counted.values()))
    return [[family, *(str(counted[column][family]) for column in columns)] for family in families]


def _chosen(matrix: Matrix, column: tuple[str, str], family: str | None = None) -> list[CellResult]:
    return [cell for (op, *rest), cell in matrix.cells.items() if tuple(rest) == column and family in (None, matrix.families[op])]


def _share(cells: list[CellResult]) -> str:
    share = shares(cells)
    text = f"{share.percent:.1f} % ({share.native}/{share.reaching})" if share.reaching else "–"
    return f"{text}, {share.bad} bad" if share.bad else text


def _undecided(cells: list[CellResult]) -> str:
    share = shares(cells)
    return f"{share.percent_of_undecided:.1f} % ({share.native}/{share.reaching - share.decided})" if share.reaching > share.decided else "–"


def _op_rows(matrix: Matrix, columns: list[tuple[str, str]], reasons: dict[str, int]) -> list[list[str]]:
    rows = []
    family = None
    for op in matrix.ops():
        if matrix.families[op] != family:
            family = matrix.families[op]
            rows.append([f"**{family}**", *[""] * len(columns)])
        rows.append([f"`{op}`", *(_cell_text(matrix.cells.get((op, *column)), reasons) for column in columns)])
    return rows


def _cell_text(cell: CellResult | None, reasons: dict[str, int]) -> str:
    if cell is None:
        return ""
    native = cell.samples.get("native", 0)
    count = str(cell.n_samples) if cell.samples.get(cell.status) == cell.n_samples else f"{native}/{cell.n_samples}"
    status = f"**{cell.status}**" if cell.status in BAD else cell.status
    numbers = f" [{', '.join(str(reasons[reason]) for reason in cell.reasons)}]" if cell.reasons else ""
    return f"{status} {count}{numbers}"


def _bad_lines(matrix: Matrix) -> list[str]:
    bad = [f"* `{' '.join(key)}`: {cell.status}: {_escape(cell.message)}" for key, cell in sorted(matrix.cells.items()) if cell.status in BAD]
    return ["## Wrong and failing cells", "", *bad] if bad else []


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def html(matrix: Matrix) -> str:
    """The page: a table that is filtered by name, family, status and reason, and shows a cell's reasons when it is clicked."""
    reasons = _numbered_reasons(matrix)
    columns = matrix.columns()
    rows = [
        {"op": op, "family": matrix.families[op], "cells": [_html_cell(matrix.cells.get((op, *column)), reasons) for column in columns]} for op in matrix.ops()
    ]
    content = {"columns": [" ".join(column) for column in columns], "rows": rows, "reasons": list(reasons), "statuses": STATUSES}
    return PAGE.replace("@ABOUT@", html_text.escape(_about(matrix))).replace("@CONTENT@", json.dumps(content).replace("</", "<\\/"))


def _html_cell(cell: CellResult | None, reasons: dict[str, int]) -> dict | None:
    if cell is None:
        return None
    made = {"s": cell.status, "n": dict(cell.samples), "c": [cell.native_nodes, cell.nodes]}
    if cell.reasons:
        made["r"] = [reasons[reason] - 1 for reason in cell.reasons]
    return made | ({"m": cell.message} if cell.message else {})


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>accel: coverage</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff }
h1 { font-size: 1.4em; margin: 0 0 .2em } p { margin: .2em 0 1em; color: #555; max-width: 70em }
.bar { position: sticky; top: 0; background: #fff; padding: .5em 0; z-index: 2; display: flex; flex-wrap: wrap; gap: .6em; align-items: center }
input[type=search], select { font: inherit; padding: .25em .4em }
table { border-collapse: collapse } th, td { padding: .15em .5em; border-bottom: 1px solid #e4e4e4; text-align: left; white-space: nowrap }
thead th { position: sticky; top: 3.1em; background: #f6f6f6; font-weight: 600 }
td.cell { cursor: pointer } tr.family td { font-weight: 600; background: #fafafa; padding-top: .6em }
.native { background: #d8f0d8 } .partly { background: #fff2c8 } .fallback { background: #ffe0c4 } .uncaptured, .upstream, .skipped { background: #eee; color: #555 }
.wrong, .error { background: #f7c1c1; font-weight: 600 }
#detail { position: fixed; right: 1em; bottom: 1em; width: 38em; max-width: 90vw; max-height: 50vh; overflow: auto; background: #fff; border: 1px solid #aaa; padding: .8em 1em; box-shadow: 0 2px 12px #0003; white-space: pre-wrap; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  body, .bar, #detail { background: #1c1c1c; color: #ddd } p { color: #aaa } th, td { border-color: #333 } thead th, tr.family td { background: #262626 }
  .native { background: #1f4a26 } .partly { background: #57491a } .fallback { background: #5c3a1a } .uncaptured, .upstream, .skipped { background: #333; color: #aaa } .wrong, .error { background: #702020 }
}
</style>
<h1>Coverage of the accel backend</h1>
<p>Made by <code>python -m accel coverage</code>; every cell is what a run showed, compared with eager. @ABOUT@. Click a cell for its reasons.</p>
<div class="bar">
<input type="search" id="text" placeholder="op or reason (regular expression)" size="34">
<select id="family"><option value="">all families</option></select>
<select id="status"><option value="">any status</option></select>
<select id="column"><option value="">in any column</option></select>
<span id="count"></span>
</div>
<table><thead><tr id="head"></tr></thead><tbody id="body"></tbody></table>
<div id="detail" hidden></div>
<script>
const content = @CONTENT@;
const find = id => document.getElementById(id);
function element(kind, text, className) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
for (const column of ["op", ...content.columns]) find("head").append(element("th", column));
for (const family of new Set(content.rows.map(row => row.family))) find("family").append(element("option", family));
for (const status in content.statuses) find("status").append(element("option", status));
content.columns.forEach(column => find("column").append(element("option", column)));
const reasonsOf = cell => (cell.r || []).map(index => content.reasons[index]);
const total = cell => Object.values(cell.n).reduce((sum, count) => sum + count, 0);
function show(row, column, cell) {
  const lines = [`${row.op}  ${column}: ${cell.s} (${content.statuses[cell.s]})`, `samples: ${JSON.stringify(cell.n)}; ${cell.c[0]} of ${cell.c[1]} call nodes native`, ...reasonsOf(cell)];
  if (cell.m) lines.push(cell.m);
  find("detail").textContent = lines.join("\\n");
  find("detail").hidden = false;
}
function isShown(row, text) {
  const chosen = content.columns.map((name, index) => [name, row.cells[index]]).filter(([name, cell]) => cell && (!find("column").value || name === find("column").value));
  if (find("family").value && row.family !== find("family").value) return false;
  if (find("status").value && !chosen.some(([, cell]) => cell.s === find("status").value)) return false;
  return text.test(row.op) || chosen.some(([, cell]) => reasonsOf(cell).some(reason => text.test(reason)) || text.test(cell.m || ""));
}
function rowOf(row) {
  const made = element("tr");
  made.append(element("td", row.op));
  row.cells.forEach((cell, index) => {
    const place = element("td", cell ? `${cell.s} ${cell.n.native || 0}/${total(cell)}` : "", cell ? `cell ${cell.s}` : "");
    if (cell) place.onclick = () => show(row, content.columns[index], cell);
    made.append(place);
  });
  return made;
}
function draw() {
  let text;
  try { text = new RegExp(find("text").value, "i"); } catch { return; }
  const rows = content.rows.filter(row => isShown(row, text));
  const body = [];
  let family = null;
  for (const row of rows) {
    if (row.family !== family) {
      family = row.family;
      const head = element("tr", undefined, "family"), place = element("td", family);
      place.colSpan = content.columns.length + 1;
      head.append(place);
      body.push(head);
    }
    body.push(rowOf(row));
  }
  find("body").replaceChildren(...body);
  find("count").textContent = `${rows.length} of ${content.rows.length} ops`;
}
for (const id of ["text", "family", "status", "column"]) find(id).addEventListener("input", draw);
document.addEventListener("keydown", event => { if (event.key === "Escape") find("detail").hidden = true; });
draw();
</script>
</html>
"""
