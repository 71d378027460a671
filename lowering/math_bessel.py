"""Bessel functions of orders 0 and 1, the Airy function and the spherical Bessel function on f64 lanes; f32 lanes convert, compute here, round once.

Chebyshev series near 0, modulus and phase (or an exponential) times a series in 1/x far from it; bessel_tables.py has the coefficients.
Errors are a few units of the last place of the largest value around, so relative only away from the zeros of J, Y and Ai.
"""

from __future__ import annotations

import math

from . import bessel_tables as table
from .lanes import Lanes, chebyshev
from .math_double import cos_sin, exp, log, through_double

__all__ = ["airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "i0", "i0e", "i1", "i1e", "k0", "k0e", "k1", "k1e", "spherical_bessel_j0"]

ORDER_0 = (table.J0_NEAR, table.Y0_NEAR, table.P0, table.Q0)
ORDER_1 = (table.J1_NEAR, table.Y1_NEAR, table.P1, table.Q1)
NEAR = 8.0  # the series in x² end here


def _in_square(x: Lanes, coefficients) -> Lanes:
    """A series in x² on 0..64, of a bounded x."""
    return chebyshev(x * x * (2 / NEAR**2) - 1.0, coefficients)


def _far(x: Lanes, order: int, tables, is_second_kind: bool) -> Lanes:
    """J or Y of x >= 8 by modulus and phase."""
    ratio = NEAR / x
    t = ratio * ratio * 2.0 - 1.0
    p, q = chebyshev(t, tables[2]), ratio * chebyshev(t, tables[3])
    # cos and sin of x - pi/4 - order pi/2 from those of x, which loses no bits of x
    sine, cosine = cos_sin(x, 0) * math.sqrt(0.5), cos_sin(x, 1) * math.sqrt(0.5)
    c, s = (cosine + sine, sine - cosine) if order == 0 else (sine - cosine, -(sine + cosine))
    wave = p * s + q * c if is_second_kind else p * c - q * s
    return wave * (2 / math.pi / x).sqrt()  # NaN at infinity, as eager has it


def _first_kind(a: Lanes, order: int, tables) -> Lanes:
    """J of a >= 0."""
    near = a.min(NEAR)
    value = _in_square(near, tables[0])
    value = near * value if order else value
    return value.where(a.lt(NEAR), _far(a.max(NEAR), order, tables, False)).where(a.eq(a), a)


def _second_kind(x: Lanes, order: int, tables) -> Lanes:
    """Y of x > 0; -inf at 0, NaN below."""
    near = x.max(1e-300).min(NEAR)
    first = _in_square(near, tables[0])
    if order:
        first = near * first
        value = near * _in_square(near, tables[1]) + (2 / math.pi) * (log(near) * first - 1.0 / near)
    else:
        value = _in_square(near, tables[1]) + (2 / math.pi) * log(near) * first
    value = value.where(x.lt(NEAR), _far(x.max(NEAR), order, tables, True)).where(x.eq(x), x)
    return x.of(-math.inf).where(x.eq(0.0), value.where(x.ge(0.0), x.of(math.nan)))


def bessel_j0(x: Lanes) -> Lanes:
    """J0(x)."""
    return x.of(1.0).where(abs(x).lt(1e-8), _first_kind(abs(x), 0, ORDER_0))


def bessel_j1(x: Lanes) -> Lanes:
    """J1(x), which is odd."""
    return _odd(_first_kind(abs(x), 1, ORDER_1), x)


def bessel_y0(x: Lanes) -> Lanes:
    """Y0(x)."""
    return _second_kind(x, 0, ORDER_0)


def bessel_y1(x: Lanes) -> Lanes:
    """Y1(x)."""
    return _second_kind(x, 1, ORDER_1)


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
    """e**|x| scaled, in two factors: the first alone overflows before the product does."""
    half = exp(abs(x) * 0.5)
    return scaled * half * half  # NaN at infinity, as eager has it


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


AIRY_LOW, AIRY_HIGH = -5.0, 2.0


def _zeta(x: Lanes) -> Lanes:
    return x * x.sqrt() * (2 / 3)


def airy_ai(x: Lanes) -> Lanes:
    """Ai(x)."""
    middle = chebyshev((x.max(AIRY_LOW).min(AIRY_HIGH) - (AIRY_LOW + AIRY_HIGH) / 2) * (2 / (AIRY_HIGH - AIRY_LOW)), table.AIRY_NEAR)
    value = _airy_left((-x).max(-AIRY_LOW)).where(x.lt(AIRY_LOW), _airy_right(x.max(AIRY_HIGH)).where(x.gt(AIRY_HIGH), middle))
    return value.where(abs(x).lt(math.inf), x.of(math.nan))


def _airy_right(x: Lanes) -> Lanes:
    zeta = _zeta(x)
    start = AIRY_HIGH**1.5 * 2 / 3
    t = 2 / (1 - table.AIRY_START) * (start / zeta) - (1 + table.AIRY_START) / (1 - table.AIRY_START)
    return chebyshev(t, table.AIRY_POSITIVE) * exp(-zeta) / (2 * math.sqrt(math.pi) * x.sqrt().sqrt())


def _airy_left(x: Lanes) -> Lanes:
    """Ai(-x) for x >= 5."""
    zeta = _zeta(x)
    ratio = (-AIRY_LOW) ** 1.5 * 2 / 3 / zeta
    t = ratio * ratio * 2.0 - 1.0
    u, v = chebyshev(t, table.AIRY_U), chebyshev(t, table.AIRY_V) / zeta
    sine, cosine = cos_sin(zeta, 0) * math.sqrt(0.5), cos_sin(zeta, 1) * math.sqrt(0.5)
    return (u * (cosine + sine) + v * (sine - cosine)) / (math.sqrt(math.pi) * x.sqrt().sqrt())


def spherical_bessel_j0(x: Lanes) -> Lanes:
    """sin(x) / x; 0 at infinity."""
    value = cos_sin(x, 0) / x
    return x.of(0.0).where(abs(x).eq(math.inf), value.where(x.ne(0.0), 1.0))


through_double({name: globals()[name] for name in __all__})
