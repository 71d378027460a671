"""F.interpolate reaches the lowering as one operator, whatever its memory format; other tracing is left as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

import accel

IMAGE, VOLUME, LINE = (2, 5, 9, 7), (2, 3, 4, 5, 6), (2, 5, 19)
MODES = {
    "nearest": IMAGE, "nearest-exact": IMAGE, "bilinear": IMAGE, "bicubic": IMAGE, "trilinear": VOLUME, "linear": LINE,
}  # fmt: skip
HOW = [{"scale_factor": 2}, {"scale_factor": 1.7}, {"scale_factor": 0.4}, {"size": 11}, {"scale_factor": 3, "recompute_scale_factor": True}]


def strict(function, **options):
    torch._dynamo.reset()
    return torch.compile(function, backend="accel", options={"strict": True}, **options)


@pytest.mark.parametrize("last", [False, True], ids=["rows", "channels_last"])
@pytest.mark.parametrize("mode", MODES)
def test_sizes_and_factors_in_every_memory_format(mode, last):
    torch.manual_seed(0)
    x = torch.randn(MODES[mode])
    if last and x.dim() > 3:
        x = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    for how in HOW:
        for aligned in (False, True) if "linear" in mode or mode == "bicubic" else (None,):

            def resize(x):
                return F.interpolate(x, mode=mode, align_corners=aligned, **how)

            expected, actual = resize(x), strict(resize)(x)
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
            assert actual.stride() == expected.stride()


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8], ids=str)
def test_dtypes(mode, dtype):
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 8, 9) * 50).abs().to(dtype)

    def resize(x):
        return F.interpolate(x, scale_factor=2, mode=mode)

    rounding = {"rtol": 0, "atol": 1} if dtype == torch.uint8 else {}
    torch.testing.assert_close(strict(resize)(x), resize(x), **rounding)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
def test_gradients(mode):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 7, requires_grad=True)

    def loss(x):
        return (F.interpolate(x * 2, scale_factor=2, mode=mode) ** 2).sum()

    (expected,) = torch.autograd.grad(loss(x), x)
    (actual,) = torch.autograd.grad(strict(loss)(x), x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_resized_to_nothing(mode):
    x = torch.randn(0, *MODES[mode][1:])
    actual = strict(lambda x: F.interpolate(x, scale_factor=2, mode=mode))(x)
    assert actual.shape == F.interpolate(x, scale_factor=2, mode=mode).shape


def test_symbolic_sizes_are_resized_in_parts():
    resize = strict(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), dynamic=True)
    for size in (5, 8):
        x = torch.randn(2, 3, size, size + 1)
        torch.testing.assert_close(resize(x), F.interpolate(x, scale_factor=2, mode="bilinear"))


def test_the_graph_has_one_operator():
    graphs = accel.explain(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"))(torch.randn(1, 2, 4, 4)).graphs
    nodes = [node for graph in graphs for partition in graph.partitions for kernel in partition.kernels for node in kernel["nodes"]]
    assert set(nodes) == {"upsample_bilinear2d"}


def test_torch_traces_as_before_afterwards():
    def resize(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    x = torch.randn(1, 2, 4, 4)
    before = [str(node.target) for node in make_fx(resize, tracing_mode="symbolic")(x).graph.nodes]
    strict(resize)(x)
    assert [str(node.target) for node in make_fx(resize, tracing_mode="symbolic")(x).graph.nodes] == before
