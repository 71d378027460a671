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


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16], ids=str)
def test_position_of_a_median_is_the_first_of_equals(dtype):
    x = torch.randint(0, 5, (3, 101), generator=torch.Generator().manual_seed(0)).to(dtype)
    check(lambda x: (*x.median(1), *x.nanmedian(0)), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16, torch.bool], ids=str)
def test_sort_of_few_elements_keeps_equals_in_order(dtype):
    x = torch.randint(0, 2, (16, 16), generator=torch.Generator().manual_seed(0)).to(dtype)
    check(lambda x: (*x.sort(), *x.sort(0, descending=True)), x)


def test_top_of_many_is_the_first_of_equals():
    x = torch.randint(0, 5, (3, 100), generator=torch.Generator().manual_seed(0))
    check(lambda x: (*x.topk(1), *x.topk(1, largest=False)), x)


def test_mode_of_many_stays_in_eager():
    x = torch.randint(0, 5, (3, 100), generator=torch.Generator().manual_seed(0)).float()
    compiled = torch.compile(lambda x: x.mode(), backend="accel")
    for got, expected in zip(compiled(x), x.mode()):
        torch.testing.assert_close(got, expected)
