"""The matrix as data and as documents: counting, merging, reading back, what counts as worse, the two pages."""

from __future__ import annotations

import json

import pytest

from accel.coverage_matrix import CellResult, Matrix, merge, read_matrix, regressions, shares, worst, write_matrix
from accel.coverage_page import html, markdown

ABOUT = {"torch": "2.13", "machine": "host", "compiler": "cc", "flags": "-O0", "samples": 2, "cells": 3, "workers": 2, "minutes": 1.0}
NATIVE = CellResult("native", {"native": 2}, 4, 4)
FACTORIZED = CellResult("fallback", {"fallback": 2}, 0, 2, ("aten.qr: stays with LAPACK",), decided={"linear algebra factorizations": 2})
WRONG = CellResult("wrong", {"native": 1, "wrong": 1}, 1, 1, message="f(t0) with t0 float32[2]: 1 at [0], expected 2")


def matrix_of(**cells: CellResult) -> Matrix:
    return Matrix(ABOUT, {op: "some ops" for op in cells}, {(op, "float32", "static"): cell for op, cell in cells.items()})


@pytest.mark.parametrize(
    ("samples", "status"),
    [
        ({}, "skipped"),
        ({"native": 2}, "native"),
        ({"native": 1, "fallback": 1}, "partly"),
        ({"native": 1, "uncaptured": 1}, "native"),
        ({"uncaptured": 1, "upstream": 1}, "uncaptured"),
        ({"native": 5, "wrong": 1}, "wrong"),
        ({"wrong": 1, "error": 1}, "error"),
    ],
)
def test_status_of_a_cell(samples, status):
    assert worst(samples) == status


def test_shares_with_and_without_decisions():
    share = shares([NATIVE, FACTORIZED, WRONG])
    assert (share.native, share.reaching, share.bad, share.decided) == (3, 5, 1, 2)
    assert (share.percent, share.percent_of_undecided) == (60.0, 100.0)
    assert shares([]).percent is None and shares([FACTORIZED]).percent_of_undecided is None


def test_document_is_read_back(tmp_path):
    matrix = matrix_of(add=NATIVE, qr=FACTORIZED, bad=WRONG)
    write_matrix(matrix, tmp_path / "matrix.json")
    found = read_matrix(tmp_path / "matrix.json")
    assert (found.cells, found.families, found.about) == (matrix.cells, matrix.families, matrix.about)


def test_document_of_another_schema_is_refused(tmp_path):
    (tmp_path / "matrix.json").write_text(json.dumps({"schema": 0, "ops": {}}))
    with pytest.raises(ValueError, match="accel coverage"):
        read_matrix(tmp_path / "matrix.json")


def test_merge_renews_cells_and_counts_all():
    merged = merge(matrix_of(add=FACTORIZED, qr=FACTORIZED), matrix_of(add=NATIVE))
    assert merged.cells["add", "float32", "static"] == NATIVE and merged.about["cells"] == 2 and merged.about["minutes"] == 2.0
    assert merge(None, matrix_of(add=NATIVE)).about == ABOUT


@pytest.mark.parametrize(("before", "after", "most"), [(2, 1, 2), (1, 3, 3), (2, "all", "all")])
def test_merged_matrix_says_how_many_samples_its_cells_rest_on_at_most(before, after, most):
    old, new = (Matrix({**ABOUT, "samples": count}, {"add": "some ops"}, {("add", "float32", variant): NATIVE}) for count, variant in ((before, "static"), (after, "dynamic")))
    assert merge(old, new).about["samples"] == most


def test_merged_matrix_names_every_machine_once():
    old, new = (Matrix({**ABOUT, "machine": machine}, {}, {}) for machine in ("vectors of 32 bytes", "vectors of 64 bytes"))
    assert merge(merge(old, new), new).about["machine"] == "vectors of 32 bytes or vectors of 64 bytes"


@pytest.mark.parametrize(
    ("before", "after", "is_worse"),
    [(NATIVE, NATIVE, False), (FACTORIZED, NATIVE, False), (NATIVE, FACTORIZED, True), (NATIVE, WRONG, True), (WRONG, WRONG, True), (WRONG, FACTORIZED, False)],
)
def test_worse_cells_are_told(before, after, is_worse):
    assert bool(regressions(matrix_of(op=before), matrix_of(op=after))) is is_worse


def test_markdown_states_shares_reasons_and_bad_cells():
    text = markdown(matrix_of(add=NATIVE, qr=FACTORIZED, bad=WRONG))
    assert "| **all** | **60.0 % (3/5), 1 bad** |" in text and "| **all but decisions** | **100.0 % (3/3)** |" in text
    assert "| linear algebra factorizations | 2 |" in text
    assert "| `qr` | fallback 2 [1] |" in text and "1. aten.qr: stays with LAPACK" in text
    assert "| `bad` | **wrong** 1/2 |" in text and "expected 2" in text


def test_page_holds_every_cell_and_no_script_ends_early():
    page = html(matrix_of(add=NATIVE, bad=CellResult("wrong", {"wrong": 1}, message="</script>")))
    content = page[page.index('{"columns"') : page.index("};", page.index('{"columns"')) + 1]
    assert [row["op"] for row in json.loads(content.replace("<\\/", "</"))["rows"]] == ["add", "bad"]
    assert page.count("</script>") == 1 and "http" not in page
