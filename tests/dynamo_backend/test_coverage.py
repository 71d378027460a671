"""A sample of the coverage matrix, run again: no cell may be worse than in docs/op_coverage.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from accel.coverage_cases import Case
from accel.coverage_matrix import Matrix, read_matrix, regressions
from accel.coverage_run import run_case

COMMITTED = read_matrix(Path(__file__).parents[2] / "docs" / "op_coverage.json")

# One op or two of every family, and columns of every kind.
CELLS = [
    ("add", "float32", "static"), ("div.floor_rounding", "int64", "static"), ("nn.functional.gelu", "bfloat16", "static"),
    ("softmax", "float32", "backward"), ("nn.functional.layer_norm", "float32", "static"), ("sum", "float16", "static"),
    ("nn.functional.conv2d", "float32", "backward"), ("nn.functional.max_pool2d", "float32", "dynamic"), ("matmul", "float32", "dynamic"),
    ("index_put", "float32", "static"), ("gather", "int64", "static"), ("cumsum", "float32", "static"), ("sort", "float32", "static"),
    ("as_strided", "float32", "static"), ("nn.functional.interpolate.bilinear", "float32", "static"), ("where", "bool", "static"),
    ("nn.functional.cross_entropy", "float32", "backward"), ("nn.functional.scaled_dot_product_attention", "float32", "static"),
    ("linalg.qr", "float32", "static"), ("fft.rfft", "float32", "static"), ("nonzero", "float32", "static"),
]  # fmt: skip


def test_committed_matrix_has_the_ops_of_the_sample():
    assert {op for op, _, _ in CELLS} <= {op for op, _, _ in COMMITTED.cells}


@pytest.mark.parametrize("key", [key for key in CELLS if key in COMMITTED.cells], ids=" ".join)
def test_cell_is_no_worse_than_committed(key, monkeypatch):
    monkeypatch.setenv("ACCEL_CFLAGS", COMMITTED.about["flags"])
    found = Matrix(COMMITTED.about, COMMITTED.families, {key: run_case(Case(*key), COMMITTED.about["samples"])})
    assert regressions(COMMITTED, found) == []
