"""Which axis vectors run along."""

from __future__ import annotations

import pytest
import torch
from value_programs import MACHINES, compile_values

from accel.lowering import registry

aten = torch.ops.aten


def lower(op):
    return registry.find(op).function


@pytest.mark.parametrize("function", [
    lambda g, x: lower(aten.sum.dim_IntList)(g, x, [1]),
    lambda g, x: lower(aten._softmax.default)(g, x, -1, False),
    lambda g, x: lower(aten.native_layer_norm.default)(g, x, [40], None, None, 1e-5)[0],
], ids=["sum", "softmax", "layer_norm"])  # fmt: skip
def test_rows_are_read_along_memory(function):
    """What is kept or stored once a row has stride 1 across rows; that must not draw the vectors away from the rows."""
    partition, _ = compile_values(function, [torch.randn(64, 40)], MACHINES["lanes8"])
    assert "vlds" not in partition.texts["vector"] and "vsts" not in partition.texts["vector"]


def test_column_sums_are_read_along_memory():
    partition, run = compile_values(lambda g, x: lower(aten.sum.dim_IntList)(g, x, [0]), [torch.randn(64, 40)], MACHINES["lanes8"])
    assert "vlds" not in partition.texts["vector"]
    x = torch.randn(64, 40)
    torch.testing.assert_close(run(x)[0], x.sum(0))
