"""Operators whose results have computed sizes: one compilation with `dynamic=True`, wholly native, serves every size."""

import pytest
import torch
import torch.nn.functional as F
from frontend_graphs import compile_with

from accel.native import NativeCompiler

PROGRAMS = {
    "range by a row": lambda x: torch.arange(0, x.numel(), x.shape[1]) * 2,
    "range that skips": lambda x: torch.arange(1, x.shape[0] + x.shape[1], 3, dtype=torch.float32) * 2,
    "range downwards": lambda x: torch.arange(x.shape[1] - 1, -1, -3) * 2,
    "range of floats downwards": lambda x: torch.arange(x.shape[0], -x.shape[1], -1.0) * 2,
    "half of the rows": lambda x: x[: int(x.shape[0] * 0.5)] * 2,
    "resampled": lambda x: F.interpolate(x[None, None] * 2, scale_factor=1.5, mode="bilinear"),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x[None, None] * 2, (3, 2)),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x[None, None] * 2, (3, 2), return_indices=True),
    "global maximum": lambda x: F.adaptive_max_pool2d(x[None] * 2, 1, return_indices=True),
    "sort": lambda x: x.sort(1, descending=True),
    "sort of doubles": lambda x: x.double().sort(1),
    "stable sort of equals": lambda x: (x * 2).long().sort(dim=1, stable=True),
    "top": lambda x: x.topk(2),
    "median": lambda x: (*x.median(1), x.nanmedian(), *(x * 2).long().median(1)),
    "kth value": lambda x: x.kthvalue(3, 1),
    "a bound beyond the size": lambda x: x[:512] * 2 + x[-90:, -512:].sum(),
    "one bound inside": lambda x: x[1:600] * 2 + x[-2:-1, :1],
    "split at a polynomial": lambda x: (x[:, :, None] * torch.ones(2)).view(x.shape[0], -1)[:, 1:].reshape(-1, 1).view(x.shape[0], x.shape[1] * 2 - 1) * 2,
    "relative shift": lambda x: (x[:, None] * torch.arange(x.shape[0] * 2 - 1)[None, :, None]).reshape(x.shape[0], -1).view(x.shape[0] * 2 - 1, -1) * 2,
    "rows of a transposed image": lambda x: (x[:, None] * torch.arange(1.0, 41.0)[:, None]).transpose(1, 2).reshape(x.shape[0], -1),
    "transposed input as rows": lambda x: x.t().reshape(1, -1),
    "quotients and remainders below zero": lambda x: (x * ((x.shape[0] - 9) % 4), x + (x.shape[0] - 6) // 2, x + (3 - x.shape[1]) // x.shape[0]),
    "slice scatter up to the end": lambda x: x.slice_scatter(x[1:] * 2, 0, 1, 20),
    "diagonal scatter": lambda x: x.diagonal_scatter(x.diagonal(1) * 2, 1),
    "grid sample": lambda x: F.grid_sample(x[None, None] * 2, torch.stack([x, x.flip(1)], -1)[None], align_corners=False),
    "grid sample of a reflected image": lambda x: F.grid_sample(x[None, None] * 2, torch.stack([x, x.flip(1)], -1)[None], "bicubic", "reflection", align_corners=True),
    "view of joined rows": lambda x: (torch.cat([x.reshape(-1), x.new_ones(x.shape[0])]) * 2).view(x.shape[0], x.shape[1] + 1),
    "resampled by a factor that binary cannot hold": lambda x: F.interpolate(x[None, None] * 2, scale_factor=0.6, mode="bilinear"),
    "resampled to a size": lambda x: F.interpolate(x[None, None] * 2, size=(x.shape[1], x.shape[0])),
    "average by area": lambda x: F.interpolate(x[None, None] * 2, scale_factor=0.7, mode="area"),
    "part of the columns": lambda x: x[:, : int(x.shape[1] * 0.7)] * 2,
    "number of a part": lambda x: x.new_zeros(int(x.shape[1] * 0.9), x.shape[0]) + 1,
    "scaled by quotients of sizes": lambda x: (x * (x.shape[0] ** -0.5) + x.shape[0] / x.shape[1], x.half() * (x.shape[0] / 7)),
    "rolled by half": lambda x: torch.roll(x, (x.shape[0] // 2, (x.shape[1] + 1) // 2), (0, 1)) * 2,
    "embedding bag": lambda x: F.embedding_bag(x.abs().long() % 4, torch.ones(4, 3), mode="sum"),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_program_serves_every_size_natively(program):
    graphs = []
    compiled = compile_with(NativeCompiler(), program, graphs, dynamic=True)
    for shape in ((5, 8), (7, 9), (4, 13), (6, 4), (4, 70)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(compiled(x), program(x))
    (graph,) = graphs
    assert graph.fallbacks == {}


# Of these some sizes are fixed by a guard: the last sizes of each have others, and are another graph.
PARTLY_FIXED = {
    "convolution": (lambda x, w: F.conv2d(x * 2, w, padding=1), [((2, 3, 8, 9), (4, 3, 3, 3)), ((5, 3, 10, 7), (4, 3, 3, 3)), ((5, 3, 10, 7), (6, 3, 5, 5))]),
    "transposed convolution": (lambda x, w: F.conv_transpose1d(x * 2, w, stride=2), [((2, 3, 8), (3, 4, 3)), ((5, 3, 11), (3, 4, 3)), ((5, 3, 11), (3, 2, 5))]),
    "group norm": (lambda x, w: F.group_norm(x * 2, 2, w), [((2, 4, 8, 9), (4,)), ((5, 4, 7, 3), (4,)), ((5, 6, 7, 3), (6,))]),
    "attention": (lambda q, k: F.scaled_dot_product_attention(q * 2, k, k), [((2, 4, 8, 16), (2, 4, 9, 16)), ((3, 4, 7, 16), (3, 4, 11, 16)), ((3, 4, 7, 12), (3, 4, 11, 12))]),
}


@pytest.mark.parametrize("name", PARTLY_FIXED)
def test_sizes_that_code_is_generated_for_are_guarded_and_the_others_stay_open(name):
    program, shapes = PARTLY_FIXED[name]
    graphs = []
    compiled = compile_with(NativeCompiler(), program, graphs, dynamic=True)
    for index, sizes in enumerate(shapes):
        tensors = [torch.randn(size, generator=torch.Generator().manual_seed(0), requires_grad=True) for size in sizes]
        again = [t.detach().clone().requires_grad_() for t in tensors]
        got, expected = compiled(*tensors), program(*again)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        for found, right in zip(torch.autograd.grad(got.sum(), tensors), torch.autograd.grad(expected.sum(), again), strict=True):
            torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-4)
        assert len(graphs) == (2 if index < len(shapes) - 1 else 4)  # forward and backward
    assert not any(graph.fallbacks for graph in graphs)


POOLS = {
    "maximum": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "dilated maximum": lambda x: F.max_pool2d(x, 2, 2, 1, 2, ceil_mode=True),
    "maximum of windows with gaps": lambda x: F.max_pool2d(x, 2, 3, ceil_mode=True),
    "average": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average of what is there": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_pooling_in_ceil_mode_is_native_whether_the_last_window_exists_or_not(pool):
    graphs = []
    compiled = compile_with(NativeCompiler(), pool, graphs, dynamic=True)
    for shape in ((2, 3, 7, 9), (2, 3, 8, 10), (3, 2, 9, 12), (2, 4, 12, 13)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
        again = x.detach().clone().requires_grad_()
        got, expected = compiled(x), pool(again)
        torch.testing.assert_close(got, expected)
        weight = torch.randn_like(expected)
        got.backward(weight)
        expected.backward(weight)
        torch.testing.assert_close(x.grad, again.grad)
    assert not any(graph.fallbacks for graph in graphs)


@pytest.mark.parametrize("size", [(lambda x: (x.shape[2] - 3, x.shape[3] - 2)), (lambda x: (5, 3))], ids=["symbolic", "static"])
def test_gradient_of_adaptive_average_is_native_for_every_size(size):
    def pool(x):
        return F.adaptive_avg_pool2d(x * 2, size(x))

    graphs = []
    compiled = compile_with(NativeCompiler(), pool, graphs, dynamic=True)
    for shape in ((2, 3, 10, 12), (2, 3, 13, 9)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
        again = x.detach().clone().requires_grad_()
        got, expected = compiled(x), pool(again)
        torch.testing.assert_close(got, expected)
        got.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(x.grad, again.grad)
    assert not any(graph.fallbacks for graph in graphs)


SIGNED = {
    "slice to the end": lambda x, n: x[:, n:] * 2,
    "slice": lambda x, n: x[:, n : n + 2] * 2,
    "slice from the half": lambda x, n: x[:, -(x.shape[1] // 2) :] * n,
    "row": lambda x, n: x[n] * 2,
    "column": lambda x, n: x.select(1, n) * 2,
    "column scatter": lambda x, n: x.select_scatter(x[:, 0] * 2, 1, n),
    "pad and crop": lambda x, n: F.pad(x * 2, (n, -n)),
    "reflected": lambda x, n: F.pad(x[None] * 2, (n, 0, 1, 1), mode="reflect"),
    "crop by half": lambda x, n: F.pad(x * n, (0, 0, -(x.shape[0] // 2), 1)),
    "floor": lambda x, n: x + n * 3 // 2,
    "slice from a share": lambda x, n: x[:, -int(x.shape[1] * 0.3) :] * n,
}


@pytest.mark.parametrize("program", SIGNED.values(), ids=SIGNED)
def test_indices_may_be_negative_now_and_then(program):
    compiled = compile_with(NativeCompiler(), program, [], dynamic=True)
    for shape, n in (((7, 9), 3), ((7, 9), -2), ((6, 5), -4), ((5, 8), 4), ((8, 7), -3)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(compiled(x, n), program(x, n))


def test_gradient_of_a_pad_of_computed_size_is_cropped():
    compiled = compile_with(NativeCompiler(), lambda x: F.pad(x, (0, 0, x.shape[0] // 2, 0)), [], dynamic=True)
    for rows in (5, 7, 4):
        x = torch.randn(rows, 6, requires_grad=True)
        weights = torch.arange(6.0 * (rows + rows // 2)).view(-1, 6)
        (compiled(x) * weights).sum().backward()
        torch.testing.assert_close(x.grad, weights[rows // 2 :])


def test_a_convolution_s_symbolic_parameters_are_guarded():
    graphs = []
    compiled = compile_with(NativeCompiler(), lambda x, w, stride, groups: F.conv1d(x * 2, w, stride=stride, padding=stride, groups=groups), graphs, dynamic=True)
    for stride, groups in ((2, 3), (2, 3), (3, 2)):
        x, w = torch.randn(2, 12, 9), torch.randn(6, 12 // groups, 3)
        torch.testing.assert_close(compiled(x, w, stride, groups), F.conv1d(x * 2, w, stride=stride, padding=stride, groups=groups))
    assert len(graphs) == 2
    assert all(graph.fallbacks == {} for graph in graphs)
