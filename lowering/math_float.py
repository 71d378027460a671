"""Elementary functions on f32 lanes: the forms that models spend their time in, within 2 ULP.

Coefficients were fitted for this file by weighted least squares with Lawson's iteration on Chebyshev nodes, in double precision, then rounded;
tests/lowering/test_math.py measures the error over all exponents.
"""

from __future__ import annotations

import math

from .build_vector import Builder
from .lanes import EXPONENT_BIAS, Lanes, integer_part, polynomial, power_of_two, scale_in_steps, split_polynomial
from .math_double import PIO2, quadrant
from .math_reduction import TWO_OVER_PI
from .select import expansion
from .vector_ir import V

LN2_HI, LN2_LO = 0.693359375, -2.12194440e-4  # the high part has 9 bits: n * LN2_HI is exact. Cephes expf.c
EXP = (1.0, 1.0, 0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.008368735201656818, 0.001381455920636654)
EXP2 = (1.0, 0.6931471824645996, 0.24022647738456726, 0.055503323674201965, 0.00961843691766262, 0.0013398875016719103, 0.00015353361959569156)
BIAS = EXPONENT_BIAS["sf"]
LOG = (0.3333331346511841, -0.25000008940696716, 0.2000211924314499, -0.1666799634695053, 0.14219550788402557, -0.12405591458082199,
       0.11888174712657928, -0.11675640940666199, 0.06746601313352585)  # fmt: skip
TANH = (-0.3333328366279602, 0.13331490755081177, -0.05374349653720856, 0.020650578662753105, -0.005717036779969931)  # on |x| < 0.625
ERF = (0.1283791065216064, -0.3761253356933594, 0.11282230168581009, -0.02678195759654045, 0.005016228184103966, -0.000611129158642143)  # |x| < 0.9
# ln erfc(x) on 0.9..3.95
ERFC_LOG = (-0.00017748748359736055, -1.1277495622634888, -0.6370596885681152, -0.10403741151094437, 0.022277116775512695, -0.0030556153506040573,
            0.00019718259864021093)  # fmt: skip
# log2 of the normal distribution's tail beyond x: fitted on 0..5 to 3e-8 absolute, and falling beyond
TAIL_LOG2 = (-1.0, -1.1511074304580688, -0.45918208360671997, -0.05259554833173752, 0.007233699783682823, -0.0002855034254025668,
             -0.00011823344539152458, 2.399723234702833e-05, -1.487473696215602e-06)  # fmt: skip
TAIL_END = 10.773  # where the polynomial is -127
SIN = (-0.1666666716337204, 0.008333331905305386, -0.00019840040476992726, 2.724389105424052e-06)
COS = (0.0416666679084301, -0.00138888880610466, 2.48005599132739e-05, -2.7295871518617787e-07)


def _reduced_exp(x: Lanes, bias: int = BIAS) -> tuple[Lanes, Lanes]:
    """(m, bits) with e**x = m 2**n and bits that end in n + bias."""
    n, bits = integer_part(x, math.log2(math.e), bias)
    r = n.fnma(LN2_LO, n.fnma(LN2_HI, x))
    return polynomial(r, EXP), bits


def exp(x: Lanes) -> Lanes:
    """e**x: x = n ln 2 + r, a polynomial in r, scaled by 2**n."""
    return scale_in_steps(*_reduced_exp(x.max(-104.0).min(89.0), 2 * BIAS))


def _exp_in_range(x: Lanes) -> Lanes:
    """e**x for x whose result is a normal number."""
    value, bits = _reduced_exp(x)
    return value * power_of_two(bits)


def exp_nonpositive(x: Lanes) -> Lanes:
    """e**x for x <= 0 (or NaN), as softmax needs it: results below the normal numbers are 0, which is 2**-127 here."""
    return _exp_in_range(x.max(-88.0))


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
    value, bits = _reduced_exp((-x).max(-87.0).min(89.0))
    return 1.0 / value.fma(power_of_two(bits), 1.0)


def erf(x: Lanes) -> Lanes:
    """x + x P(x²) near 0, 1 - e**(polynomial for ln erfc) elsewhere; from 3.95 on the result rounds to 1."""
    a = abs(x)
    near = x.fma(polynomial(x * x, ERF), x)
    tail = 1.0 - _exp_in_range(polynomial(a.min(3.95), ERFC_LOG))
    return near.where(a.lt(0.9), tail.copysign(x)).where(x.eq(x), x)


def normal_cdf(x: Lanes) -> Lanes:
    """The share of a normal distribution below x, to an ULP of 1: 2**(polynomial in |x|) is the tail, 0 where that would be 2**-127."""
    exponent = split_polynomial(abs(x).min(TAIL_END), TAIL_LOG2)
    n, bits = integer_part(exponent, 1.0, BIAS)
    tail = polynomial(exponent - n, EXP2) * power_of_two(bits)
    return tail.where(x.lt(0.0), 1.0 - tail)


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


for _name, _function in {"exp": exp, "exp_nonpositive": exp_nonpositive, "log": log, "tanh": tanh, "sigmoid": sigmoid, "erf": erf, "normal_cdf": normal_cdf, "sin": lambda x: cos_sin(x, 0), "cos": lambda x: cos_sin(x, 1)}.items():
    expansion(_name, "sf")(_one(_function))


@expansion("rsqrt", "sf", "df")
def rsqrt(b: Builder, x: V, **_) -> V:
    """1 / sqrt(x)."""
    return (1.0 / Lanes(b, x).sqrt()).v


@expansion("reciprocal", "sf", "df")
def reciprocal(b: Builder, x: V, **_) -> V:
    """1 / x."""
    return (1.0 / Lanes(b, x)).v
