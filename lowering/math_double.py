"""Elementary functions on f64 lanes, and on f32 lanes where f64 is the simplest way to full accuracy.

Range reduction followed by Taylor or atanh series long enough for f64; results are within a few ULP (tests/lowering/test_math.py states
the bounds). The f32 forms convert, compute here with shorter series, and round once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from .lanes import EXPONENT_BIAS, Lanes, integer_part, polynomial, power_of_two, scale_in_steps
from .math_reduction import reduced_double
from .select import expansion

__all__ = ["acos", "any_sine", "atan", "cos_sin", "exp", "expm1", "log", "log1p", "pow_", "quadrant", "through_double"]

LN2_HI, LN2_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # fdlibm e_exp.c: the high part has 21 trailing zero bits
# pi/2 in three parts of 33 bits: fdlibm e_rem_pio2.c
PIO2 = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21)
SIN_TAYLOR = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9))
COS_TAYLOR = tuple((-1) ** k / math.factorial(2 * k) for k in range(9))
ATAN_SERIES = tuple((-1) ** k / (2 * k + 1) for k in range(18))


@dataclasses.dataclass(frozen=True)
class Series:
    """How long the series of exp and log are.

    Attributes:
        exp: terms of e**r on |r| <= 0.347.   atanh: terms of 2 atanh(s) / s in s², s <= 0.172.
        is_f32: operands are f32 numbers and results are rounded to f32, so that f64 never is subnormal on the way.
    """

    exp: int
    atanh: int
    is_f32: bool

    def exp_taylor(self, first: int = 0) -> tuple[float, ...]:
        """Taylor coefficients of e**r from r**first on."""
        return tuple(1 / math.factorial(k) for k in range(first, self.exp))


FULL = Series(exp=14, atanh=12, is_f32=False)
SHORT = Series(exp=9, atanh=6, is_f32=True)  # errors of 2e-10 and 5e-11: a hundredth of an f32 ULP


def exp(x: Lanes, series: Series = FULL) -> Lanes:
    """e**x: x = n ln 2 + r, Taylor series of e**r on |r| <= 0.347."""
    low, high = (-700.0, 700.0) if series.is_f32 else (-760.0, 720.0)
    bounded = x.max(low).min(high)
    bias = EXPONENT_BIAS["df"]
    n, bits = integer_part(bounded, math.log2(math.e), bias if series.is_f32 else 2 * bias)
    value = polynomial(n.fnma(LN2_LO, n.fnma(LN2_HI, bounded)), series.exp_taylor())
    return value * power_of_two(bits) if series.is_f32 else scale_in_steps(value, bits)


def expm1(x: Lanes, series: Series = FULL) -> Lanes:
    """e**x - 1: its own series where the difference would cancel."""
    small = (x * x).fma(polynomial(x, (*series.exp_taylor(2), 1 / math.factorial(series.exp))), x)
    return small.where(abs(x).lt(0.35), exp(x, series) - 1.0).where(x.ne(0.0), x)


def log(x: Lanes, series: Series = FULL) -> Lanes:
    """ln x: x = 2**e m with m near 1, ln m = 2 atanh((m - 1) / (m + 1)) by its series."""
    is_tiny = None if series.is_f32 else x.lt(2.2250738585072014e-308)
    bits = (x if is_tiny is None else (x * 2.0**54).where(is_tiny, x)).bits("d")
    # 0x3FE6A09E667F3BCD = sqrt(1/2): m lies in [sqrt(1/2), sqrt(2))
    e = (bits - 0x3FE6A09E667F3BCD).op("vsar", 52)
    m = (bits - e.op("vshl", 52)).bits("df")
    exponent = (e if is_tiny is None else e - e.of(54).where(is_tiny, 0)).convert("df")
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    tail = s * z * polynomial(z, tuple(2 / (2 * k + 1) for k in range(1, series.atanh)))
    result = exponent.fma(LN2_HI, (s + s) + exponent.fma(LN2_LO, tail))
    return _log_edges(x, result)


def _log_edges(x: Lanes, result: Lanes) -> Lanes:
    infinite = x.of(math.inf)
    result = infinite.where(x.eq(math.inf), result)
    result = x.of(-math.inf).where(x.eq(0.0), result)
    return result.where(x.ge(0.0), x.of(math.nan))


def log1p(x: Lanes, series: Series = FULL) -> Lanes:
    """ln(1 + x): the logarithm of the rounded sum, corrected by what rounding lost; nothing that f32 numbers would show."""
    u = x + 1.0
    if series.is_f32:
        return x.where(abs(x).lt(2.0**-28), log(u, series))
    correction = (x - (u - 1.0)) / u
    result = log(u) + correction.where(abs(x).lt(1e15), 0.0)
    return x.where(abs(x).lt(1e-300), result.where(u.gt(0.0), log(u)))


def cos_sin(x: Lanes, quarter: int) -> Lanes:
    """sin(x + quarter * pi/2): quarter 0 is sine, 1 is cosine.

    Cody-Waite reduction in three parts by fma, accurate for |x| < 2**30; `any_sine` takes larger ones, too.
    """
    n = (x * (2 / math.pi)).rint()
    r = n.fnma(PIO2[2], n.fnma(PIO2[1], n.fnma(PIO2[0], x)))
    return quadrant(r, n.convert("d") + quarter).where(abs(x).lt(math.inf), x.of(math.nan)).where(x.ne(0.0), x if quarter == 0 else 1.0)


def any_sine(x: Lanes, quarter: int) -> Lanes:
    """cos_sin of any x: a loop that runs once where a lane is large."""
    b, is_large = x.b, x.b.op("qand.q", abs(x).ge(2.0**30), abs(x).lt(math.inf))
    with b.loop("rare", 0, b.any(is_large), carried=(cos_sin(x, quarter).v,)) as scope:
        r, n = reduced_double(x)
        scope.next = (quadrant(r, n + quarter).where(is_large, Lanes(b, scope.values[0])).v,)
    return Lanes(b, scope.results[0])


def quadrant(r: Lanes, n: Lanes) -> Lanes:
    """sin(r + n pi/2) for |r| <= pi/4."""
    z = r * r
    sine, cosine = r * polynomial(z, SIN_TAYLOR), polynomial(z, COS_TAYLOR)
    value = cosine.where(n.op("vand", 1).ne(0), sine)
    return (-value).where(n.op("vand", 2).ne(0), value)


def tan(x: Lanes) -> Lanes:
    """sin x / cos x."""
    return (any_sine(x, 0) / any_sine(x, 1)).where(x.ne(0.0), x)


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


def sinh(x: Lanes, series: Series = FULL) -> Lanes:
    """(e**x - e**-x) / 2 from expm1, which does not cancel; halved arguments where e**|x| would overflow."""
    a = abs(x)
    u = expm1(a, series)
    half = exp(a * 0.5, series)
    value = (0.5 * (u + u / (u + 1.0))).where(a.lt(700.0), (0.5 * half) * half)
    return value.copysign(x)


def cosh(x: Lanes, series: Series = FULL) -> Lanes:
    """(e**x + e**-x) / 2."""
    half = exp(abs(x) * 0.5, series)
    square = exp(abs(x), series)
    return (0.5 * square + 0.5 / square).where(abs(x).lt(700.0), (0.5 * half) * half)


def tanh(x: Lanes) -> Lanes:
    """u / (u + 2) with u = e**(2|x|) - 1."""
    u = expm1(2.0 * abs(x).min(20.0))
    return (u / (u + 2.0)).copysign(x)


def asinh(x: Lanes, series: Series = FULL) -> Lanes:
    """sign(x) ln(|x| + sqrt(x² + 1)) through log1p."""
    a = abs(x)
    small = log1p(a + a * a / (1.0 + a.fma(a, 1.0).sqrt()), series)
    return small.where(a.lt(1e8), log(a, series) + math.log(2.0)).copysign(x)


def acosh(x: Lanes, series: Series = FULL) -> Lanes:
    """ln(x + sqrt(x² - 1)) through log1p."""
    t = x - 1.0
    return log1p(t + (t * t + 2.0 * t).sqrt(), series).where(x.lt(1e8), log(x, series) + math.log(2.0)).where(x.ge(1.0), x.of(math.nan))


def atanh(x: Lanes, series: Series = FULL) -> Lanes:
    """ln((1 + x) / (1 - x)) / 2 through log1p."""
    a = abs(x)
    return (0.5 * log1p(2.0 * a / (1.0 - a), series)).copysign(x).where(a.le(1.0), x.of(math.nan))


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + e**-x)."""
    return 1.0 / (1.0 + exp(-x))


def pow_(x: Lanes, y: Lanes, series: Series = FULL) -> Lanes:
    """e**(y ln |x|) with the sign and the special cases of C's pow. The exponent's relative error grows with |y ln x|."""
    b, a = x.b, abs(x)
    value = exp(y * log(a, series), series)
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
    "exp2": lambda x, series=FULL: exp(x * math.log(2.0), series), "log2": lambda x, series=FULL: log(x, series) * _LOG2E,
    "log10": lambda x, series=FULL: log(x, series) * _LOG10E,
    "sin": lambda x: any_sine(x, 0), "cos": lambda x: any_sine(x, 1),
}  # fmt: skip
# f32 functions that math_float.py does not give a faster form.
THROUGH_DOUBLE = ("tan", "atan", "asin", "acos", "atan2")
# The same, but shorter series serve these.
WITH_SERIES = ("expm1", "log1p", "sinh", "cosh", "asinh", "acosh", "atanh", "pow", "exp2", "log2", "log10")


def through_double(functions: dict[str, Callable[..., Lanes]], types: tuple[str, ...] = ("sf", "df")) -> None:
    """Registers functions of f64 Lanes as expansions; f32 operands are converted and the result rounded once."""
    for name, function in functions.items():
        for type_ in types:
            expansion(name, type_)(lambda b, *args, function=function, type, **_: function(*(Lanes(b, a).convert("df") for a in args)).convert(type).v)


through_double(FUNCTIONS, ("df",))
through_double({name: FUNCTIONS[name] for name in THROUGH_DOUBLE}, ("sf",))
through_double({name: functools.partial(FUNCTIONS[name], series=SHORT) for name in WITH_SERIES}, ("sf",))
