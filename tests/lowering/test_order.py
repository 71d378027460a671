"""Sorting operators, compiled: their kernels have no interpreter."""

from __future__ import annotations

import pytest
import torch


def check(function, x):
    compiled = torch.compile(function, backend="accel", options={"strict": True})
    for got, expected in zip(compiled(x), function(x)):
        torch.testing.assert_close(got, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16], ids=str)
def test_mode_is_the_smallest_of_the_commonest(dtype):
    x = torch.tensor([[3, 1, 3, 1, 2], [5, 5, 4, 4, 4], [9, 8, 7, 6, 5]], dtype=dtype)
    check(lambda x: (*x.mode(), *x.mode(0, keepdim=True)), x)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float16], ids=str)
def test_stable_sort_of_equals(dtype):
    x = torch.randint(-3, 3, (2, 100), generator=torch.Generator().manual_seed(0)).to(dtype)
    check(lambda x: (*x.sort(stable=True), *x.sort(stable=True, descending=True)), x)
