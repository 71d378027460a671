"""Orthogonal polynomials against eager, at the points and orders where ATen changes its formula, and at orders of many blocks."""

from __future__ import annotations

import math

import pytest
import torch

# Not NaN: ATen returns an uninitialized number for it.
X = [0.0, 1.0, -1.0, 1.5, -1.5, math.inf, 0.5, -0.3, 1.0001, 30.0]
ORDERS = [0.0, 1.0, 2.0, 5.0, 7.0, 9.0, 12.0, -1.0, 3.7, 60.0, 130.0, 1100.0, math.nan]
NAMES = ["chebyshev_polynomial_t", "shifted_chebyshev_polynomial_u", "chebyshev_polynomial_v", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"]


@pytest.mark.parametrize("name", NAMES)
def test_polynomial_agrees_with_eager(name):
    torch._dynamo.reset()
    function = getattr(torch.special, name)
    x, n = (grid.flatten() for grid in torch.meshgrid(torch.tensor(X), torch.tensor(ORDERS), indexing="ij"))
    got = torch.compile(function, backend="accel", options={"strict": True})(x, n)
    torch.testing.assert_close(got, function(x, n), rtol=1e-3, atol=2e-4, equal_nan=True)
