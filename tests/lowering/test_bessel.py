"""Bessel and Airy functions on f64 lanes, at points on both sides of every seam; f32 is their rounding.

Those of eager's that are exact are compared with mpmath. J, Y and Ai are not beside their seams; they are compared with eager.
"""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from test_math import run_map

POINTS = [1e-8, 0.3, 1.0, 1.999, 2.001, 3.7, 4.99, 5.01, 7.99, 8.01, 15.0, 40.0, 160.5]
REFERENCES = {
    "i0": lambda x: mpmath.besseli(0, x), "i1": lambda x: mpmath.besseli(1, x),
    "i0e": lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)), "i1e": lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x)),
    "k0": lambda x: mpmath.besselk(0, x), "k1": lambda x: mpmath.besselk(1, x), "k0e": lambda x: mpmath.besselk(0, x) * mpmath.exp(x),
    "k1e": lambda x: mpmath.besselk(1, x) * mpmath.exp(x), "spherical_bessel_j0": lambda x: mpmath.sin(x) / x,
}  # fmt: skip
OSCILLATING = ("bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "airy_ai")  # their error is absolute near zeros
OF_POSITIVE = ("bessel_y0", "bessel_y1", "k0", "k1", "k0e", "k1e")


@pytest.fixture(scope="module")
def results():
    x = torch.tensor([*POINTS, *(-p for p in POINTS), 0.0, -0.0, math.nan], dtype=torch.float64)
    return x, run_map(dict.fromkeys((*REFERENCES, *OSCILLATING), 1), "f64", x)


@pytest.mark.parametrize("name", REFERENCES)
def test_bessel_family_agrees_with_mpmath(results, name):
    x, values = results[0], results[1][name]
    with mpmath.workdps(30):
        for point, value in zip(x.tolist()[: 2 * len(POINTS)], values.tolist()):
            if point < 0 and name in OF_POSITIVE:
                assert math.isnan(value)
                continue
            exact = float(REFERENCES[name](mpmath.mpf(point)))
            bound = 4e-15 * abs(exact)
            assert abs(value - exact) <= bound, f"{name}({point}) = {value!r}, expected {exact!r}"
    assert math.isnan(values[-1])


@pytest.mark.parametrize("name", OSCILLATING)
def test_oscillating_functions_agree_with_eager(results, name):
    x, values = results[0], results[1][name]
    torch.testing.assert_close(values, getattr(torch.special, name)(x), rtol=1e-12, atol=1e-13, equal_nan=True)


def test_grown_functions_overflow_where_eager_does():
    x = torch.tensor([709.0, 712.5, -712.5], dtype=torch.float64)
    values = run_map({"i0": 1, "i1": 1}, "f64", x)
    torch.testing.assert_close(values["i0"], torch.special.i0(x))
    torch.testing.assert_close(values["i1"], torch.special.i1(x))


def test_bessel_family_has_eager_s_values_at_zero(results):
    at_zero = {name: values[-3].item() for name, values in results[1].items()}
    expected = {"bessel_j0": 1.0, "bessel_j1": 0.0, "bessel_y0": -math.inf, "bessel_y1": -math.inf, "i0": 1.0, "i1": 0.0, "i0e": 1.0, "i1e": 0.0}
    expected |= {"k0": math.inf, "k1": math.inf, "k0e": math.inf, "k1e": math.inf, "spherical_bessel_j0": 1.0}
    assert {name: at_zero[name] for name in expected} == pytest.approx(expected, abs=1e-16)
