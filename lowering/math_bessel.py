"""Bessel functions of orders 0 and 1, the Airy function and the spherical Bessel function on f64 lanes; f32 lanes convert, compute here, round once.

I, K and Ai right of -2.09: Chebyshev series near 0, an exponential times a series in 1/x far from it. J, Y and Ai left of there: the rational
approximations that eager's kernels evaluate, errors of up to 1e-6 included. bessel_tables.py has the coefficients.
Other errors are a few units of the last place of the largest value around, so relative only away from the zeros of J, Y and Ai.
"""

from __future__ import annotations

import math

from . import bessel_tables as table
from .lanes import Lanes, chebyshev, polynomial
from .math_double import any_sine, exp, log, through_double

__all__ = ["airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "i0", "i0e", "i1", "i1e", "k0", "k0e", "k1", "k1e", "spherical_bessel_j0"]

JY_NEAR = 5.0  # J and Y: polynomials in x² end here
NEAR = 8.0  # I: the series in x end here
SQUARED_ZEROS = ((5.78318596294678452118, 30.4712623436620863991), (14.6819706421238932572, 49.2184563216946036703))  # of J0 and J1, the first two


def _ratio(x: Lanes, name: str) -> Lanes:
    return polynomial(x, getattr(table, f"{name}_NUMERATOR")) / polynomial(x, getattr(table, f"{name}_DENOMINATOR"))


def _far(x: Lanes, order: int, is_second_kind: bool) -> Lanes:
    """J or Y of x >= 5 by modulus and phase."""
    w = JY_NEAR / x
    p, q = _ratio(w * w, f"P{order}"), w * _ratio(w * w, f"Q{order}")
    phase = x - (order + 0.5) * math.pi / 2
    sine, cosine = any_sine(phase, 0), any_sine(phase, 1)
    wave = p * sine + q * cosine if is_second_kind else p * cosine - q * sine
    return wave * math.sqrt(2 / math.pi) / x.sqrt()  # NaN at infinity, as eager has it


def _first_near(near: Lanes, order: int) -> Lanes:
    """J of 0 <= x <= 5."""
    square = near * near
    value = (square - SQUARED_ZEROS[order][0]) * (square - SQUARED_ZEROS[order][1]) * _ratio(square, f"J{order}")
    return near * value if order else value


def _first_kind(a: Lanes, order: int) -> Lanes:
    """J of a >= 0."""
    value = _first_near(a.min(JY_NEAR), order)
    return value.where(a.le(JY_NEAR), _far(a.max(JY_NEAR), order, False)).where(a.eq(a), a)


def _second_kind(x: Lanes, order: int) -> Lanes:
    """Y of x > 0; -inf at 0, NaN below."""
    near = x.max(1e-300).min(JY_NEAR)
    value, product = _ratio(near * near, f"Y{order}"), log(near) * _first_near(near, order)
    value = near * value + (2 / math.pi) * (product - 1.0 / near) if order else value + (2 / math.pi) * product
    value = value.where(x.le(JY_NEAR), _far(x.max(JY_NEAR), order, True)).where(x.eq(x), x)
    return x.of(-math.inf).where(x.eq(0.0), value.where(x.ge(0.0), x.of(math.nan)))


def bessel_j0(x: Lanes) -> Lanes:
    """J0(x)."""
    return (1.0 - x * x * 0.25).where(abs(x).lt(1e-5), _first_kind(abs(x), 0))


def bessel_j1(x: Lanes) -> Lanes:
    """J1(x), which is odd."""
    return _odd(_first_kind(abs(x), 1), x)


def bessel_y0(x: Lanes) -> Lanes:
    """Y0(x)."""
    return _second_kind(x, 0)


def bessel_y1(x: Lanes) -> Lanes:
    """Y1(x)."""
    return _second_kind(x, 1)


def _odd(value: Lanes, x: Lanes) -> Lanes:
    return (-value).where(x.lt(0.0), value)


# Modified: e**-x I and e**x K


def _scaled_i(a: Lanes, order: int) -> Lanes:
    """e**-a I(a) for a >= 0."""
    near, far = a.min(NEAR), a.max(NEAR)
    value = chebyshev(near * (2 / NEAR) - 1.0, table.I1_NEAR if order else table.I0_NEAR)
    value = near * value if order else value
    tail = chebyshev(NEAR * 2 / far - 1.0, table.I1_FAR if order else table.I0_FAR) / far.sqrt()
    return value.where(a.lt(NEAR), tail).where(a.eq(a), a)


def i0e(x: Lanes) -> Lanes:
    """e**-|x| I0(x)."""
    return _scaled_i(abs(x), 0)


def i1e(x: Lanes) -> Lanes:
    """e**-|x| I1(x)."""
    return _odd(_scaled_i(abs(x), 1), x)


def _grown(x: Lanes, scaled: Lanes) -> Lanes:
    """e**|x| scaled; where the first overflows, so does eager."""
    return scaled * exp(abs(x))  # NaN at infinity, as eager has it


def i0(x: Lanes) -> Lanes:
    """I0(x)."""
    return _grown(x, i0e(x))


def i1(x: Lanes) -> Lanes:
    """I1(x)."""
    return _odd(_grown(x, _scaled_i(abs(x), 1)), x)


K_NEAR = 2.0


def _k(x: Lanes, order: int, is_scaled: bool) -> Lanes:
    """K(x), or e**x K(x), for x > 0; inf at 0, NaN below."""
    near, far = x.max(1e-300).min(K_NEAR), x.max(K_NEAR)
    t = near * near * (2 / K_NEAR**2) - 1.0
    logarithm = log(near * 0.5) * _scaled_i(near, order) * exp(near)
    value = chebyshev(t, table.K1_NEAR) / near + logarithm if order else chebyshev(t, table.K0_NEAR) - logarithm
    tail = chebyshev(2 * K_NEAR / far - 1.0, table.K1_FAR if order else table.K0_FAR) / far.sqrt()
    value = (value * exp(near) if is_scaled else value).where(x.lt(K_NEAR), tail if is_scaled else tail * exp(-far)).where(x.eq(x), x)
    return x.of(math.inf).where(x.eq(0.0), value.where(x.ge(0.0), x.of(math.nan)))


def k0(x: Lanes) -> Lanes:
    """K0(x)."""
    return _k(x, 0, False)


def k1(x: Lanes) -> Lanes:
    """K1(x)."""
    return _k(x, 1, False)


def k0e(x: Lanes) -> Lanes:
    """e**x K0(x)."""
    return _k(x, 0, True)


def k1e(x: Lanes) -> Lanes:
    """e**x K1(x)."""
    return _k(x, 1, True)


AIRY_LOW, AIRY_HIGH = -5.0, 2.0  # the series in x
AIRY_OSCILLATING = -2.09  # eager's rational functions begin here


def _zeta(x: Lanes) -> Lanes:
    return x * x.sqrt() * (2 / 3)


def airy_ai(x: Lanes) -> Lanes:
    """Ai(x)."""
    middle = chebyshev((x.max(AIRY_LOW).min(AIRY_HIGH) - (AIRY_LOW + AIRY_HIGH) / 2) * (2 / (AIRY_HIGH - AIRY_LOW)), table.AIRY_NEAR)
    value = _airy_left((-x).max(-AIRY_OSCILLATING)).where(x.lt(AIRY_OSCILLATING), _airy_right(x.max(AIRY_HIGH)).where(x.gt(AIRY_HIGH), middle))
    return value.where(abs(x).lt(math.inf), x.of(math.nan))


def _airy_right(x: Lanes) -> Lanes:
    zeta = _zeta(x)
    start = AIRY_HIGH**1.5 * 2 / 3
    t = 2 / (1 - table.AIRY_START) * (start / zeta) - (1 + table.AIRY_START) / (1 - table.AIRY_START)
    return chebyshev(t, table.AIRY_POSITIVE) * exp(-zeta) / (2 * math.sqrt(math.pi) * x.sqrt().sqrt())


def _airy_left(x: Lanes) -> Lanes:
    """Ai(-x) for x > 2.09."""
    zeta = _zeta(x)
    z, phase = 1.0 / zeta, zeta + math.pi / 4
    u, v = z * z * _ratio(z * z, "AIRY_F") + 1.0, z * _ratio(z * z, "AIRY_G")
    return (any_sine(phase, 0) * u - any_sine(phase, 1) * v) / (math.sqrt(math.pi) * x.sqrt().sqrt())


def spherical_bessel_j0(x: Lanes) -> Lanes:
    """sin(x) / x; 0 at infinity."""
    value = any_sine(x, 0) / x
    return x.of(0.0).where(abs(x).eq(math.inf), value.where(x.ne(0.0), 1.0))


through_double({name: globals()[name] for name in __all__})
