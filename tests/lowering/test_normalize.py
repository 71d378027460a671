"""Norms and sums of channels-last images and whole tensors: results, and that lanes run along memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import accel


def image(*sizes, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(sizes, dtype=dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes, groups", [((2, 12, 5, 7), 3), ((1, 40, 9, 9), 2), ((3, 8, 4, 4), 1), ((2, 6, 3, 5), 6), ((2, 8, 1, 3), 4)], ids=str)
def test_group_norm_of_a_channels_last_image(sizes, groups, dtype):
    x, weight, bias = image(*sizes, dtype=dtype), torch.randn(sizes[1]).to(dtype), torch.randn(sizes[1]).to(dtype)
    results = []
    for run in (F.group_norm, torch.compile(F.group_norm, backend="accel", options={"strict": True})):
        inputs = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, weight, bias)]
        out = run(inputs[0], groups, *inputs[1:])
        out.backward(torch.ones_like(out) * out.detach())
        results.append((out, [t.grad for t in inputs]))
    (expected, gradients), (actual, others) = results
    assert actual.stride() == expected.stride()
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close((actual, others), (expected, gradients), rtol=tolerance, atol=10 * tolerance)


def n_loads(function, *inputs) -> int:
    """Vectors loaded, on a machine with 32 lanes."""
    instructions = accel.profile(function, machine="dvx-h1")(*inputs).total.instructions
    return sum(count for name, count in instructions.items() if name.startswith("vld"))


def test_lanes_run_along_the_channels_of_all_groups():
    x = image(1, 64, 8, 8)
    # Three passes over the image, with the statistics of its channels; four lanes a vector would take eight times as many.
    assert n_loads(lambda x: F.group_norm(x, 16), x) < 7 * x.numel() // 32


def test_a_whole_sum_is_split_into_runs_of_memory():
    accel_sum = torch.compile(lambda x: (x.sum(), x.amax(), x.double().sum()), backend="accel", options={"strict": True})
    for sizes in ((64, 2048), (3, 70001), (100, 7, 211), (257, 513)):
        x = torch.randn(sizes)
        torch.testing.assert_close(accel_sum(x), (x.sum(), x.amax(), x.double().sum()), rtol=1e-4, atol=1e-2)
