"""Running sums and extremes: along the lanes where memory is contiguous, across them elsewhere."""

from __future__ import annotations

import pytest
import torch
from value_programs import MACHINES, compile_values, run_values

from accel.lowering import registry

aten = torch.ops.aten
RUNNING = {"cumsum": torch.cumsum, "cumprod": torch.cumprod, "cummax": lambda x, dim: torch.cummax(x, dim).values}


def running(name: str, dim: int):
    lower = registry.find(getattr(aten, name).default).function

    def function(g, x):
        result = lower(g, x, dim)
        return result[0] if isinstance(result, tuple) else result

    return function


@pytest.mark.parametrize("machine", ["lanes4", "lanes16", "dvx-h1"])
@pytest.mark.parametrize("sizes, dim", [((1003,), 0), ((3, 64), 1), ((5, 7), 1), ((2, 9, 70), 2), ((70, 40), 0)], ids=str)
@pytest.mark.parametrize("name", RUNNING)
def test_running_results_agree_with_eager(name, sizes, dim, machine):
    x = torch.randn(sizes) if name != "cumprod" else 1 + 0.1 * torch.randn(sizes)
    (result,) = run_values(running(name, dim), [x], MACHINES[machine])
    torch.testing.assert_close(result, RUNNING[name](x, dim))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.int16, torch.bool], ids=str)
def test_running_sums_of_other_dtypes(dtype):
    x = (3 * torch.randn(4, 301)).to(dtype)
    (result,) = run_values(running("cumsum", 1), [x], MACHINES["lanes8"])
    torch.testing.assert_close(result, x.cumsum(1))


def test_running_sums_along_memory_take_whole_vectors():
    partition, run = compile_values(running("cumsum", 1), [torch.randn(6, 70)], MACHINES["lanes8"], {70: "s0"})
    assert "vlds" not in partition.texts["vector"] and "vsts" not in partition.texts["vector"]
    x = torch.randn(6, 13)
    torch.testing.assert_close(run(x, sizes=(13,))[0], x.cumsum(1))
