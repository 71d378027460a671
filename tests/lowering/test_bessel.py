"""Bessel and Airy functions on f64 lanes, against mpmath at points on both sides of every seam; f32 is their rounding."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from test_math import run_map

POINTS = [1e-8, 0.3, 1.0, 1.999, 2.001, 3.7, 4.99, 5.01, 7.99, 8.01, 15.0, 40.0, 160.5]
REFERENCES = {
    "bessel_j0": lambda x: mpmath.besselj(0, x), "bessel_j1": lambda x: mpmath.besselj(1, x), "bessel_y0": lambda x: mpmath.bessely(0, x),
    "bessel_y1": lambda x: mpmath.bessely(1, x), "i0": lambda x: mpmath.besseli(0, x), "i1": lambda x: mpmath.besseli(1, x),
    "i0e": lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)), "i1e": lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x)),
    "k0": lambda x: mpmath.besselk(0, x), "k1": lambda x: mpmath.besselk(1, x), "k0e": lambda x: mpmath.besselk(0, x) * mpmath.exp(x),
    "k1e": lambda x: mpmath.besselk(1, x) * mpmath.exp(x), "airy_ai": mpmath.airyai, "spherical_bessel_j0": lambda x: mpmath.sin(x) / x,
}  # fmt: skip
OF_POSITIVE = ("bessel_y0", "bessel_y1", "k0", "k1", "k0e", "k1e")
OSCILLATING = ("bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "airy_ai")  # their error is absolute near zeros


@pytest.fixture(scope="module")
def results():
    x = torch.tensor([*POINTS, *(-p for p in POINTS), 0.0, -0.0, math.nan], dtype=torch.float64)
    return x, run_map(dict.fromkeys(REFERENCES, 1), "f64", x)


@pytest.mark.parametrize("name", REFERENCES)
def test_bessel_family_agrees_with_mpmath(results, name):
    x, values = results[0], results[1][name]
    with mpmath.workdps(30):
        for point, value in zip(x.tolist()[: 2 * len(POINTS)], values.tolist()):
            if point < 0 and name in OF_POSITIVE:
                assert math.isnan(value)
                continue
            exact = float(REFERENCES[name](mpmath.mpf(point)))
            relative = 4e-15 + (3e-16 * abs(point) ** 1.5 if name == "airy_ai" else 0.0)  # the rounding of its phase or exponent
            bound = relative * (abs(exact) + (0.5 if name in OSCILLATING and point < 2 or name.startswith("bessel") else 0.0))
            assert abs(value - exact) <= bound, f"{name}({point}) = {value!r}, expected {exact!r}"
    assert math.isnan(values[-1])


def test_bessel_family_has_eager_s_values_at_zero(results):
    at_zero = {name: values[-3].item() for name, values in results[1].items()}
    expected = {"bessel_j0": 1.0, "bessel_j1": 0.0, "bessel_y0": -math.inf, "bessel_y1": -math.inf, "i0": 1.0, "i1": 0.0, "i0e": 1.0, "i1e": 0.0}
    expected |= {"k0": math.inf, "k1": math.inf, "k0e": math.inf, "k1e": math.inf, "spherical_bessel_j0": 1.0}
    assert {name: at_zero[name] for name in expected} == pytest.approx(expected, abs=1e-16)
