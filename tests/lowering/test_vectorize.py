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


@pytest.mark.parametrize("machine", ["lanes4", "lanes8", "lanes16", "dvx-h1"])
@pytest.mark.parametrize("sizes", [(64, 128), (67, 131), (40, 33)], ids=str)
def test_transposed_operands_are_turned_in_registers(machine, sizes):
    """An operand that lies across the result is loaded along itself, whatever is left of the last block."""
    rows, columns = sizes
    x, y = torch.randn(rows, columns), torch.randn(columns, rows)
    partition, run = compile_values(lambda g, x, y: x * y.permute((1, 0)) + y.permute((1, 0)), [x, y], MACHINES[machine])
    assert "vlds" not in partition.texts["vector"]
    torch.testing.assert_close(run(x, y)[0], x * y.t() + y.t())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.int8, torch.bool], ids=str)
def test_transposed_operands_of_other_dtypes(dtype):
    x = (5 * torch.randn(3, 70, 45)).to(dtype)
    partition, run = compile_values(lambda g, x: g.realize(x.permute((0, 2, 1)), strides=(70 * 45, 70, 1)), [x], MACHINES["lanes8"])
    assert "vlds" not in partition.texts["vector"]
    assert torch.equal(run(x)[0], x.transpose(1, 2))


def test_value_of_transposed_operands_that_is_read_twice():
    """It is a statement of its own that stays in a register."""
    x, y = torch.randn(70, 45), torch.randn(45, 70)

    def function(g, x, y):
        total = g.realize(x + y.permute((1, 0)))
        return g.map("sin", total) * total

    partition, run = compile_values(function, [x, y], MACHINES["lanes8"])
    assert "vlds" not in partition.texts["vector"]
    torch.testing.assert_close(run(x, y)[0], (x + y.t()).sin() * (x + y.t()))


def test_transposed_operands_of_unknown_sizes():
    x, y = torch.randn(70, 45), torch.randn(45, 70)
    partition, run = compile_values(lambda g, x, y: x + y.permute((1, 0)), [x, y], MACHINES["lanes8"], {70: "s0", 45: "s1"})
    assert "vlds" not in partition.texts["vector"]
    for rows, columns in ((70, 45), (3, 5), (64, 64), (1, 200)):
        x, y = torch.randn(rows, columns), torch.randn(columns, rows)
        torch.testing.assert_close(run(x, y, sizes=(rows, columns))[0], x + y.t())


COLUMN_PASSES = {
    "softmax": (lambda g, x: lower(aten._softmax.default)(g, x, 0, False), lambda x: x.softmax(0)),
    "layer_norm": (lambda g, x: lower(aten.native_layer_norm.default)(g, x.permute((1, 0)), [37], None, None, 1e-5)[0], lambda x: torch.nn.functional.layer_norm(x.t(), (37,))),
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMN_PASSES)
@pytest.mark.parametrize("columns", [64, 75])
def test_columns_of_several_passes_run_side_by_side(name, columns):
    """What passes over the columns keep for each other stays apart for the vectors that run side by side."""
    function, reference = COLUMN_PASSES[name]
    x = torch.randn(37, columns)
    _, run = compile_values(function, [x], MACHINES["lanes4"])
    torch.testing.assert_close(run(x)[0], reference(x))


@pytest.mark.parametrize("sizes, dim", [((16384, 64), 0), ((300, 200_000), 1), ((20_000, 64, 2), 0), ((16_385, 70), 0)], ids=str)
def test_long_sums_are_sums_of_sums(sizes, dim):
    """One chain of additions over 16384 numbers is off by several times as much."""
    torch.manual_seed(0)
    x = torch.rand(sizes)
    _, run = compile_values(lambda g, x: lower(aten.sum.dim_IntList)(g, x, [dim]), [x], MACHINES["lanes8"])
    exact = x.double().sum(dim)
    assert ((run(x)[0].double() - exact).abs() / exact).max() < 1e-6
