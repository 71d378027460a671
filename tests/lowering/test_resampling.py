"""Antialiased resizing against eager: growing, shrinking, both, and to one pixel; forward and backward."""

from __future__ import annotations

import pytest
import torch
from op_checks import LoweringCheck
from torch.nn import functional as F


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("how", [{"size": (3, 9)}, {"size": (20, 2)}, {"size": (1, 1)}, {"size": (17, 5), "align_corners": True}, {"scale_factor": (0.4, 1.7)}], ids=str)
def test_resize_and_its_backward(mode, how):
    x = torch.randn(2, 3, 8, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    check = LoweringCheck(lambda target: "_aa" in str(target))
    with check:
        F.interpolate(x, mode=mode, antialias=True, **how).square().sum().backward()
    assert check.failures == [] and not check.refused and len(check.checked) == 2


def test_average_of_integers_is_truncated():
    x = torch.randint(-50, 50, (2, 3, 10, 11), generator=torch.Generator().manual_seed(0))
    check = LoweringCheck(lambda target: "avg_pool" in str(target))
    with check:
        F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
    assert check.failures == [] and not check.refused and check.checked
