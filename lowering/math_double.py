"""Elementary functions on f64 lanes, and on f32 lanes where f64 is the simplest way to full accuracy.

Range reduction followed by Taylor or atanh series long enough for f64; results are within a few ULP (tests/lowering/test_math.py states
the bounds). The f32 forms convert, compute here and round once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .lanes import Lanes, polynomial
from .select import expansion

__all__ = ["acos", "atan", "cos_sin", "exp", "expm1", "log", "log1p", "pow_", "through_double"]

LN2_HI, LN2_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # fdlibm e_exp.c: the high part has 21 trailing zero bits
# pi/2 in three parts of 33 bits: fdlibm e_rem_pio2.c
PIO2 = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
EXP_TAYLOR = tuple(1 / math.factorial(k) for k in range(14))
SIN_TAYLOR = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9))
COS_TAYLOR = tuple((-1) ** k / math.factorial(2 * k) for k in range(9))
ATANH_SERIES = tuple(2 / (2 * k + 1) for k in range(12))
ATAN_SERIES = tuple((-1) ** k / (2 * k + 1) for k in range(18))


def scale(x: Lanes, n: Lanes) -> Lanes:
    """x * 2**n for integer-valued n (f64) with |n| <= 2100, in two steps, so that subnormal results round once more at most."""
    whole = n.convert("d")
    half = whole.op("vsar", 1)
    rest = whole - half
    return x * ((half + 1023).op("vshl", 52)).bits("df") * ((rest + 1023).op("vshl", 52)).bits("df")


def exp(x: Lanes) -> Lanes:
    """e**x: x = n ln 2 + r, Taylor series of e**r on |r| <= 0.347."""
    bounded = x.max(-760.0).min(720.0)
    n = (bounded * math.log2(math.e)).rint()
    r = n.fnma(LN2_LO, n.fnma(LN2_HI, bounded))
    return scale(polynomial(r, EXP_TAYLOR), n)


def expm1(x: Lanes) -> Lanes:
    """e**x - 1: its own series where the difference would cancel."""
    small = (x * x).fma(polynomial(x, tuple(1 / math.factorial(k + 2) for k in range(13))), x)
    return small.where(abs(x).lt(0.35), exp(x) - 1.0).where(x.ne(0.0), x)


def log(x: Lanes) -> Lanes:
    """ln x: x = 2**e m with m near 1, ln m = 2 atanh((m - 1) / (m + 1)) by its series."""
    is_tiny = x.lt(2.2250738585072014e-308)
    scaled = (x * 2.0**54).where(is_tiny, x)
    bits = scaled.bits("d")
    # 0x3FE6A09E667F3BCD = sqrt(1/2): m lies in [sqrt(1/2), sqrt(2))
    offset = bits - 0x3FE6A09E667F3BCD
    e = offset.op("vsar", 52)
    m = (bits - e.op("vshl", 52)).bits("df")
    exponent = (e - e.of(54).where(is_tiny, 0)).convert("df")
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    tail = s * z * polynomial(z, ATANH_SERIES[1:])
    result = exponent.fma(LN2_HI, (s + s) + exponent.fma(LN2_LO, tail))
    return _log_edges(x, result)


def _log_edges(x: Lanes, result: Lanes) -> Lanes:
    infinite = x.of(math.inf)
    result = infinite.where(x.eq(math.inf), result)
    result = x.of(-math.inf).where(x.eq(0.0), result)
    return result.where(x.ge(0.0), x.of(math.nan))


def log1p(x: Lanes) -> Lanes:
    """ln(1 + x): the logarithm of the rounded sum, corrected by what rounding lost."""
    u = x + 1.0
    correction = (x - (u - 1.0)) / u
    result = log(u) + correction.where(abs(x).lt(1e15), 0.0)
    return x.where(abs(x).lt(1e-300), result.where(u.gt(0.0), log(u)))


def cos_sin(x: Lanes, quarter: int) -> Lanes:
    """sin(x + quarter * pi/2): quarter 0 is sine, 1 is cosine.

    Cody-Waite reduction in three parts by fma, accurate for |x| < 2**30; larger f64 arguments lose bits as |x| grows, larger f32
    arguments take large_reduction.
    """
    n = (x * (2 / math.pi)).rint()
    r = n.fnma(PIO2[2], n.fnma(PIO2[1], n.fnma(PIO2[0], x)))
    return quadrant(r, n.convert("d") + quarter).where(abs(x).lt(math.inf), x.of(math.nan)).where(x.ne(0.0), x if quarter == 0 else 1.0)


def quadrant(r: Lanes, n: Lanes) -> Lanes:
    """sin(r + n pi/2) for |r| <= pi/4."""
    z = r * r
    sine, cosine = r * polynomial(z, SIN_TAYLOR), polynomial(z, COS_TAYLOR)
    value = cosine.where(n.op("vand", 1).ne(0), sine)
    return (-value).where(n.op("vand", 2).ne(0), value)


def tan(x: Lanes) -> Lanes:
    """sin x / cos x."""
    return (cos_sin(x, 0) / cos_sin(x, 1)).where(x.ne(0.0), x)


def atan(x: Lanes) -> Lanes:
    """Arcus tangent: two argument halvings by pi/8 steps leave |t| <= tan(pi/16)."""
    a = abs(x)
    is_large = a.gt(1.0)
    t = (1.0 / a).where(is_large, a)
    # atan t = pi/8 k + atan((t - c) / (1 + c t)) with c = tan(pi/8 k), k = 0, 1 or 2
    for bound, angle in ((math.tan(3 * math.pi / 16), math.pi / 4), (math.tan(math.pi / 16), math.pi / 8)):
        c = math.tan(angle)
        if angle == math.pi / 4:
            base = t.of(angle).where(t.gt(bound), 0.0)
            reduced = ((t - c) / t.fma(c, 1.0)).where(t.gt(bound), t)
        else:
            is_middle = reduced.gt(bound)
            base = base + t.of(angle).where(is_middle, 0.0)
            reduced = ((reduced - c) / reduced.fma(c, 1.0)).where(is_middle, reduced)
    value = base + reduced * polynomial(reduced * reduced, ATAN_SERIES)
    value = (math.pi / 2 - value).where(is_large, value)
    return value.copysign(x).where(x.eq(x), x)


def atan2(y: Lanes, x: Lanes) -> Lanes:
    """The angle of (x, y), with C's conventions for zeros and infinities."""
    both_infinite = x.b.op("qand.q", abs(x).eq(math.inf), abs(y).eq(math.inf))
    ay, ax = y.of(1.0).where(both_infinite, abs(y)), x.of(1.0).where(both_infinite, abs(x))
    ratio = atan((ay / ax).where(ay.ne(0.0), 0.0))
    is_negative = x.bits("d").lt(0)
    angle = (math.pi - ratio).where(is_negative, ratio)
    angle = angle.copysign(y)
    return (x + y).where(x.b.op("qor.q", x.ne(x), y.ne(y)), angle)


def asin(x: Lanes) -> Lanes:
    """atan(x / sqrt((1 - x)(1 + x)))."""
    return atan(x / ((1.0 - x) * (1.0 + x)).sqrt()).where(x.ne(0.0), x)


def acos(x: Lanes) -> Lanes:
    """2 atan(sqrt((1 - x) / (1 + x)))."""
    return 2.0 * atan(((1.0 - x) / (1.0 + x)).sqrt())


def sinh(x: Lanes) -> Lanes:
    """(e**x - e**-x) / 2 from expm1, which does not cancel; halved arguments where e**|x| would overflow."""
    a = abs(x)
    u = expm1(a)
    half = exp(a * 0.5)
    value = (0.5 * (u + u / (u + 1.0))).where(a.lt(700.0), (0.5 * half) * half)
    return value.copysign(x)


def cosh(x: Lanes) -> Lanes:
    """(e**x + e**-x) / 2."""
    half = exp(abs(x) * 0.5)
    square = exp(abs(x))
    return (0.5 * square + 0.5 / square).where(abs(x).lt(700.0), (0.5 * half) * half)


def tanh(x: Lanes) -> Lanes:
    """u / (u + 2) with u = e**(2|x|) - 1."""
    u = expm1(2.0 * abs(x).min(20.0))
    return (u / (u + 2.0)).copysign(x)


def asinh(x: Lanes) -> Lanes:
    """sign(x) ln(|x| + sqrt(x² + 1)) through log1p."""
    a = abs(x)
    small = log1p(a + a * a / (1.0 + a.fma(a, 1.0).sqrt()))
    return small.where(a.lt(1e8), log(a) + math.log(2.0)).copysign(x)


def acosh(x: Lanes) -> Lanes:
    """ln(x + sqrt(x² - 1)) through log1p."""
    t = x - 1.0
    return log1p(t + (t * t + 2.0 * t).sqrt()).where(x.lt(1e8), log(x) + math.log(2.0)).where(x.ge(1.0), x.of(math.nan))


def atanh(x: Lanes) -> Lanes:
    """ln((1 + x) / (1 - x)) / 2 through log1p."""
    a = abs(x)
    return (0.5 * log1p(2.0 * a / (1.0 - a))).copysign(x).where(a.le(1.0), x.of(math.nan))


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + e**-x)."""
    return 1.0 / (1.0 + exp(-x))


def pow_(x: Lanes, y: Lanes) -> Lanes:
    """e**(y ln |x|) with the sign and the special cases of C's pow. The exponent's relative error grows with |y ln x|."""
    b, a = x.b, abs(x)
    value = exp(y * log(a))
    is_integer = b.op("qand.q", y.eq(y.trunc()), abs(y).lt(math.inf))
    half = y * 0.5
    is_odd = b.op("qand.q", is_integer, half.ne(half.trunc()))
    negative = x.bits("d").lt(0)
    value = (-value).where(b.op("qand.q", negative, is_odd), value)
    fractional = b.op("qandn.q", b.op("qand.q", x.lt(0.0), abs(x).lt(math.inf)), b.op("qor.q", is_integer, abs(y).eq(math.inf)))
    value = x.of(math.nan).where(fractional, value)
    one = b.op("qor.q", y.eq(0.0), x.eq(1.0))
    one = b.op("qor.q", one, b.op("qand.q", x.eq(-1.0), abs(y).eq(math.inf)))
    return x.of(1.0).where(one, value.where(b.op("qand.q", x.eq(x), y.eq(y)), x + y))


_LOG2E, _LOG10E = 1 / math.log(2.0), 1 / math.log(10.0)
FUNCTIONS = {
    "exp": exp, "exp_nonpositive": exp, "expm1": expm1, "log": log, "log1p": log1p, "tan": tan, "atan": atan, "asin": asin, "acos": acos, "sinh": sinh, "cosh": cosh,
    "tanh": tanh, "asinh": asinh, "acosh": acosh, "atanh": atanh, "sigmoid": sigmoid, "atan2": atan2, "pow": pow_,
    "exp2": lambda x: exp(x * math.log(2.0)), "log2": lambda x: log(x) * _LOG2E, "log10": lambda x: log(x) * _LOG10E,
    "sin": lambda x: cos_sin(x, 0), "cos": lambda x: cos_sin(x, 1),
}  # fmt: skip
# f32 functions that math_float.py does not give a faster form.
THROUGH_DOUBLE = ("expm1", "log1p", "tan", "atan", "asin", "acos", "sinh", "cosh", "asinh", "acosh", "atanh", "atan2", "pow", "exp2", "log2", "log10")


def through_double(functions: dict[str, Callable[..., Lanes]], types: tuple[str, ...] = ("sf", "df")) -> None:
    """Registers functions of f64 Lanes as expansions; f32 operands are converted and the result rounded once."""
    for name, function in functions.items():
        for type_ in types:
            expansion(name, type_)(lambda b, *args, function=function, type, **_: function(*(Lanes(b, a).convert("df") for a in args)).convert(type).v)


through_double(FUNCTIONS, ("df",))
through_double({name: FUNCTIONS[name] for name in THROUGH_DOUBLE}, ("sf",))
