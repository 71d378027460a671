"""Decompositions of our own give eager's values and strides, natively."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import accel
from accel.decompositions import OWN_DECOMPOSITIONS


def run_natively(function, *tensors):
    """What the compiled function returns, once it is known that nothing fell back."""
    explained = accel.explain(function)(*tensors).to_dict()
    assert [fallback for graph in explained["graphs"] for fallback in graph["fallbacks"]] == []
    return torch.compile(function, backend="accel")(*tensors)


def check(function, *tensors):
    got, expected = run_natively(function, *tensors), function(*tensors)
    torch.testing.assert_close(got, expected)
    assert got.stride() == expected.stride()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_max_unpool2d_keeps_the_memory_format(memory_format):
    x = torch.randn(2, 3, 4, 6)
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    pooled, indices = (t.contiguous(memory_format=memory_format) for t in (pooled, indices))
    check(lambda p, i: F.max_unpool2d(p, i, 2), pooled, indices)


def test_bilinear_layer():
    check(F.bilinear, torch.randn(5, 3), torch.randn(5, 4), torch.randn(2, 3, 4), torch.randn(2))


def test_trilinear_with_a_dim_that_no_operand_has_stays_whole():
    x = torch.ones(2)
    assert OWN_DECOMPOSITIONS[torch.ops.aten._trilinear.default](x, x, x, [0], [0], [0], []) is NotImplemented


RESTRIDED = {
    "view": lambda x: x.t().as_strided((3, 3), (4, 1), 5) * 2,
    "view of a computed value": lambda x: (x + 1).t()[1:].as_strided((3, 3), (4, 1)) * 2,
    "slice of a computed value": lambda x: (x + 1)[1:].as_strided((3, 3), (2, 1)) * 2,
    "scatter": lambda x: torch.as_strided_scatter(x + 1, torch.ones(3, 3), (3, 3), (4, 1), 2) * 2,
}


@pytest.mark.parametrize("name", RESTRIDED)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_as_strided_sees_eagers_memory(name, is_transposed):
    x = torch.arange(24.0).reshape(4, 6)
    check(RESTRIDED[name], x.t() if is_transposed else x)


def test_as_strided_counts_from_the_start_of_the_storage():
    x = torch.arange(40.0)[4:24]
    check(lambda x: x.as_strided((3, 3), (4, 1), 5) * 2, x)


def test_as_strided_outside_of_its_tensor_stays_in_eager():
    x = torch.arange(40.0)[4:24]

    def function(x):
        return x.as_strided((3, 3), (4, 1), 0) * 2

    explained = accel.explain(function)(x).to_dict()
    assert ["reaches storage outside" in fallback["reason"] for graph in explained["graphs"] for fallback in graph["fallbacks"]] == [True]
    torch.testing.assert_close(torch.compile(function, backend="accel")(x), function(x))


def test_logspace_of_integers_is_eagers():
    def function(x):
        return torch.logspace(1, 4, 4, 5.0, dtype=torch.int64) + x

    torch.testing.assert_close(torch.compile(function, backend="accel")(torch.ones(4)), function(torch.ones(4)))
    check(lambda x: torch.logspace(1, 4, 4, 5.0) + x, torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_running_statistics_of_half_types_are_moved(dtype):
    tensors = [torch.randn(5, 5, 5).to(dtype), *(torch.rand(5).to(dtype) for _ in range(2))]
    moved = []
    for run in (F.batch_norm, torch.compile(F.batch_norm, backend="accel", options={"strict": True})):
        given = [t.clone() for t in tensors]
        moved.append((run(*given, training=True, momentum=0.5), *given[1:]))
    torch.testing.assert_close(moved[1], moved[0], rtol=2e-2, atol=2e-2)


def test_soft_margin_loss_of_half_types_overflows_as_eagers():
    check(F.soft_margin_loss, torch.tensor([3.0, -20.0]).half(), torch.ones(2).half())


def test_pieces_of_a_symbolic_size():
    compiled = torch.compile(lambda x: [piece * 2 for piece in (*x.split(5), *x.chunk(2), x.diagonal(2))], backend="accel", dynamic=True, options={"strict": True})
    for size in (7, 9):
        x = torch.randn(size, size)
        torch.testing.assert_close(compiled(x), [piece * 2 for piece in (*x.split(5), *x.chunk(2), x.diagonal(2))])


def test_convolution_with_a_weight_of_symbolic_sizes():
    x, weight = torch.randn(2, 4, 5, 6), torch.randn(3, 4, 3, 2)
    torch.testing.assert_close(torch.compile(F.conv2d, backend="accel", dynamic=True)(x, weight), F.conv2d(x, weight), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logsigmoid_is_row_major_as_eagers(dtype):
    check(F.logsigmoid, torch.randn(3, 5, 33, dtype=dtype).permute(0, 2, 1))


@pytest.mark.parametrize("shape, order", [((3, 2, 7, 6), (0, 1, 3, 2)), ((3, 7, 2), (0, 2, 1)), ((2, 7), (1, 0)), ((3, 7, 6, 2), (0, 3, 1, 2))])
def test_batch_norm_of_permuted_images_lies_as_eagers(shape, order):
    x = torch.randn(shape).permute(order)
    mean, variance = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
    check(lambda x: F.batch_norm(x, None, None, training=True), x)
    check(F.batch_norm, x, mean, variance)
