"""Elementary functions on f32 lanes: the forms that models spend their time in, within 2 ULP.

Coefficients were fitted for this file by weighted least squares with Lawson's iteration on Chebyshev nodes, in double precision, then rounded;
tests/lowering/test_math.py measures the error over all exponents.
"""

from __future__ import annotations

import math

from .build_vector import Builder
from .lanes import Lanes, polynomial
from .math_double import PIO2, quadrant
from .select import expansion
from .vector_ir import V

LN2_HI, LN2_LO = 0.693359375, -2.12194440e-4  # the high part has 9 bits: n * LN2_HI is exact. Cephes expf.c
EXP = (0.4999999403953552, 0.16666515171527863, 0.04166845604777336, 0.008369418792426586, 0.0013813142431899905)
LOG = (0.3333331346511841, -0.25000008940696716, 0.2000211924314499, -0.1666799634695053, 0.14219550788402557, -0.12405591458082199,
       0.11888174712657928, -0.11675640940666199, 0.06746601313352585)  # fmt: skip
TANH = (-0.3333328366279602, 0.13331490755081177, -0.05374349653720856, 0.020650578662753105, -0.005717036779969931)  # on |x| < 0.625
ERF = (0.1283791065216064, -0.3761253356933594, 0.11282230168581009, -0.02678195759654045, 0.005016228184103966, -0.000611129158642143)  # |x| < 0.9
# ln erfc(x) on 0.9..3.95
ERFC_LOG = (-0.00017748748359736055, -1.1277495622634888, -0.6370596885681152, -0.10403741151094437, 0.022277116775512695, -0.0030556153506040573,
            0.00019718259864021093)  # fmt: skip
SIN = (-0.1666666716337204, 0.008333331905305386, -0.00019840040476992726, 2.724389105424052e-06)
COS = (0.0416666679084301, -0.00138888880610466, 2.48005599132739e-05, -2.7295871518617787e-07)


def _reduced_exp(bounded: Lanes) -> tuple[Lanes, Lanes]:
    """(m, n) with e**x = m 2**n."""
    n = (bounded * math.log2(math.e)).rint()
    r = n.fnma(LN2_LO, n.fnma(LN2_HI, bounded))
    return (r * r).fma(polynomial(r, EXP), r) + 1.0, n.convert("w")


def exp(x: Lanes) -> Lanes:
    """e**x: x = n ln 2 + r, a polynomial in r, scaled in two steps so that subnormal results are right."""
    value, whole = _reduced_exp(x.max(-104.0).min(89.0))
    half = whole.op("vsar", 1)
    return value * (half + 127).op("vshl", 23).bits("sf") * (whole - half + 127).op("vshl", 23).bits("sf")


def _exp_in_range(x: Lanes) -> Lanes:
    """e**x for x whose result is a normal number."""
    value, whole = _reduced_exp(x)
    return (value.bits("w") + whole.op("vshl", 23)).bits("sf")


def exp_nonpositive(x: Lanes) -> Lanes:
    """e**x for x <= 0 (or NaN), as softmax needs it: results below the normal numbers are 0."""
    return x.of(0.0).where(x.lt(-87.0), _exp_in_range(x))


def log(x: Lanes) -> Lanes:
    """ln x: x = 2**e m with m in [sqrt(1/2), sqrt(2)), a polynomial in m - 1."""
    is_tiny = x.lt(1.17549435e-38)
    bits = (x * 8388608.0).where(is_tiny, x).bits("w")
    e = (bits - 0x3F3504F3).op("vsar", 23)
    f = (bits - e.op("vshl", 23)).bits("sf") - 1.0
    exponent = (e - e.of(23).where(is_tiny, 0)).convert("sf")
    z = f * f
    tail = exponent.fma(LN2_LO, f * z * polynomial(f, LOG))
    result = exponent.fma(LN2_HI, f + z.fma(-0.5, tail))
    result = x.where(x.eq(math.inf), result)
    result = x.of(-math.inf).where(x.eq(0.0), result)
    return result.where(x.ge(0.0), x.of(math.nan))


def tanh(x: Lanes) -> Lanes:
    """x + x³ P(x²) near 0, (1 - t) / (1 + t) with t = e**(-2|x|) elsewhere; from 9 on the result rounds to 1."""
    a = abs(x)
    z = x * x
    near = (x * z).fma(polynomial(z, TANH), x)
    t = _exp_in_range(a.min(9.0) * -2.0)
    return near.where(a.lt(0.625), ((1.0 - t) / (t + 1.0)).copysign(x)).where(x.eq(x), x)


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + e**-x); below e**-87 the power no longer changes the sum, and where it overflows the result is 0."""
    value, whole = _reduced_exp((-x).max(-87.0).min(89.0))
    power = (whole + 127).op("vshl", 23).bits("sf")  # infinite for 2**128
    return 1.0 / value.fma(power, 1.0)


def erf(x: Lanes) -> Lanes:
    """x + x P(x²) near 0, 1 - e**(polynomial for ln erfc) elsewhere; from 3.95 on the result rounds to 1."""
    a = abs(x)
    near = x.fma(polynomial(x * x, ERF), x)
    tail = 1.0 - _exp_in_range(polynomial(a.min(3.95), ERFC_LOG))
    return near.where(a.lt(0.9), tail.copysign(x)).where(x.eq(x), x)


def cos_sin(x: Lanes, quarter: int) -> Lanes:
    """sin(x + quarter * pi/2): reduction in f64, polynomials in f32; arguments from 2**26 on take the reduction of Payne and Hanek."""
    wide = x.convert("df")
    n = (wide * (2 / math.pi)).rint()
    r = n.fnma(PIO2[1], n.fnma(PIO2[0], wide)).convert("sf")
    value = _quadrant(r, n.convert("d").convert("w") + quarter)
    value = _rare(x, value, abs(x).ge(2.0**26), quarter)
    return value.where(x.ne(0.0), x) if quarter == 0 else value


def _quadrant(r: Lanes, n: Lanes) -> Lanes:
    z = r * r
    sine = (r * z).fma(polynomial(z, SIN), r)
    cosine = (z * z).fma(polynomial(z, COS), z.fma(-0.5, 1.0))
    value = cosine.where(n.op("vand", 1).ne(0), sine)
    return (-value).where(n.op("vand", 2).ne(0), value)


def _rare(x: Lanes, value: Lanes, is_large: V, quarter: int) -> Lanes:
    """`value`, with lanes in `is_large` computed by large_sin; the loop runs once if there is such a lane."""
    b = x.b
    with b.loop("rare", 0, b.any(is_large), carried=(value.v,)) as scope:
        scope.next = (large_sin(x, quarter).where(is_large, Lanes(b, scope.values[0])).v,)
    return Lanes(b, scope.results[0])


# The first 224 bits of 2/pi behind the point, in words of 32 (OEIS A060294 in base 2**32).
TWO_OVER_PI = (0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)


def large_sin(x: Lanes, quarter: int) -> Lanes:
    """sin(x + quarter * pi/2) for 2**26 <= |x| < inf: 64 bits of x * 2/pi modulo 4, by integer products (Payne and Hanek, 1983)."""
    bits = abs(x).bits("w")
    mantissa = (bits.op("vand", 0x7FFFFF) + 0x800000).convert("d")
    exponent = bits.op("vshr", 23).convert("d") - 150  # |x| = mantissa * 2**exponent, exponent in 3..104
    first = exponent - 2  # the window of 2/pi starts two bits above the point
    word, shift = first.op("vshr", 5), first.op("vand", 31)
    windows = []
    for k in range(3):
        pair = first.of(0)
        for start in range(4):
            low = TWO_OVER_PI[start + k + 1]
            joined = (TWO_OVER_PI[start + k] << 32) | low
            signed = joined - (1 << 64) if joined >= 1 << 63 else joined
            pair = pair.of(signed).where(word.eq(start), pair)
        windows.append(pair.op("vshr", 32 - shift).op("vand", 0xFFFFFFFF))
    total = (mantissa * windows[0]).op("vshl", 32) + mantissa * windows[1] + (mantissa * windows[2]).op("vshr", 32)
    n = (total + (1 << 61)).op("vshr", 62)
    r = (total - n.op("vshl", 62)).convert("df") * (math.pi / 2 * 2.0**-62)
    flipped = (-r).where(x.convert("df").lt(0.0), r)
    count = (0 - n).where(x.convert("df").lt(0.0), n) + quarter
    result = quadrant(flipped, count).convert("sf")
    return result.where(abs(x).lt(math.inf), x.of(math.nan))


def _one(function):
    return lambda b, x, **_: function(Lanes(b, x)).v


for _name, _function in {"exp": exp, "exp_nonpositive": exp_nonpositive, "log": log, "tanh": tanh, "sigmoid": sigmoid, "erf": erf, "sin": lambda x: cos_sin(x, 0), "cos": lambda x: cos_sin(x, 1)}.items():
    expansion(_name, "sf")(_one(_function))


@expansion("rsqrt", "sf", "df")
def rsqrt(b: Builder, x: V, **_) -> V:
    """1 / sqrt(x)."""
    return (1.0 / Lanes(b, x).sqrt()).v


@expansion("reciprocal", "sf", "df")
def reciprocal(b: Builder, x: V, **_) -> V:
    """1 / x."""
    return (1.0 / Lanes(b, x)).v
