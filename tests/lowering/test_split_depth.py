"""Matrix products of few rows and columns and a long contracted axis run over shares of that axis; their sum is the product."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import accel

WAYS = {
    "plain": lambda a, b: a @ b,
    "transposed_b": lambda a, b: a @ b.mT.contiguous().mT,
    "transposed_a": lambda a, b: a.mT.contiguous().mT @ b,
}


def operands(rows, depth, columns, dtype=torch.float32):
    torch.manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(rows, depth, dtype=dtype) * 0.1, torch.randn(depth, columns, dtype=dtype) * 0.1
    return torch.randint(-9, 9, (rows, depth), dtype=dtype), torch.randint(-9, 9, (depth, columns), dtype=dtype)


def check(function, inputs, **options):
    with torch.no_grad():
        compiled = torch.compile(function, backend="accel", options={"strict": True, "threads": 2, **options})
        expected = function(*inputs)
        actual = compiled(*inputs)
    tolerance = {} if expected.dtype != torch.float32 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(actual, expected, **tolerance)
    assert actual.stride() == expected.stride()


def n_kernels(function, inputs):
    with torch.no_grad():
        graphs = accel.explain(function)(*inputs).graphs
    return sum(len(partition.kernels) for graph in graphs for partition in graph.partitions)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows, depth, columns", [(1, 4096, 64), (33, 4096, 47), (64, 4097, 16), (130, 2051, 20), (1, 70001, 1)], ids=str)
def test_shares_of_the_depth_give_the_whole(way, rows, depth, columns):
    check(WAYS[way], operands(rows, depth, columns))


def test_a_long_product_is_split_and_a_short_one_is_not():
    def multiply(a, b):
        return a @ b.mT

    long = torch.randn(16, 65536), torch.randn(16, 65536)
    short = torch.randn(16, 512), torch.randn(16, 512)
    assert n_kernels(multiply, long) > n_kernels(multiply, short)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.int64], ids=str)
def test_every_dtype_is_added_up_in_its_accumulator(dtype):
    check(lambda a, b: a @ b, operands(24, 8200, 24, dtype))


def test_the_epilogue_sees_the_sum_and_not_the_parts():
    bias = torch.randn(24)
    check(lambda a, b: torch.relu(F.linear(a, b.mT, bias)) * 2, operands(24, 8192, 24))


def test_a_few_batches_are_split_as_well():
    torch.manual_seed(0)
    check(torch.bmm, (torch.randn(3, 24, 8193) * 0.1, torch.randn(3, 8193, 24) * 0.1))


def test_frozen_weights_are_packed_by_shares():
    torch.manual_seed(0)
    check(torch.nn.Linear(8192, 10).eval(), (torch.randn(40, 8192),), freeze=True)


def test_gradients_of_a_long_product():
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 40)
    x = torch.randn(8192, 24)
    layer(x).square().mean().backward()
    expected = layer.weight.grad
    layer.weight.grad = None
    torch.compile(layer, backend="accel", options={"strict": True})(x).square().mean().backward()
    torch.testing.assert_close(layer.weight.grad, expected)
