"""The gamma function's family on f64 lanes: lgamma, digamma, Hurwitz's zeta, igamma, igammac; f32 lanes convert, compute here, round once.

The rational function for lgamma was fitted for this file (interpolation at Chebyshev nodes with 60 digits). Results are within a few ULP,
but near the negative roots of lgamma and digamma, where the error is absolute.
"""

from __future__ import annotations

import math

from .lanes import Lanes, polynomial
from .math_double import cos_sin, exp, log, pow_, through_double
from .math_error import erfc
from .vector_ir import V

__all__ = ["digamma", "igamma", "igammac", "lgamma", "zeta"]

# lgamma(x) / ((x - 1) (x - 2)) in x - 2 on 1..3
LGAMMA_P = (0.42278433509846713, 0.8073632627481248, 0.6232900295418399, 0.24887648551344546, 0.05450808343293609, 0.006378795585774498,
            0.0003552821720197454, 6.9245118708308474e-06, 1.025008664717804e-08)  # fmt: skip
LGAMMA_Q = (1.0, 2.1469115316466927, 1.9056935979460694, 0.9027339605845804, 0.24560004497270652, 0.03840035858209039, 0.0032537694890179937,
            0.00012892300627612, 1.637901153452628e-06)  # fmt: skip
# B_2k of k = 1..: the asymptotic series of lgamma, digamma and zeta are made of them (NIST DLMF 5.11.1, 5.11.2, 25.11.5).
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330, 854513 / 138, -236364091 / 2730)
STIRLING = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI[:9], 1))
DIGAMMA = tuple(b / (2 * k) for k, b in enumerate(BERNOULLI[:9], 1))
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def _stirling_rest(x: Lanes) -> Lanes:
    """lgamma(x) - ((x - 1/2) ln x - x + ln(2 pi) / 2) for x >= 8."""
    inverse = 1.0 / x
    return inverse * polynomial(inverse * inverse, STIRLING)


def _lgamma_positive(x: Lanes) -> Lanes:
    """ln gamma(x) for x > 0: brought into 1..3 by the recurrence below 8, Stirling's series from there on."""
    reduced, product = x, x.of(1.0)
    for _step in range(5):
        is_above = reduced.gt(3.0)
        reduced = (reduced - 1.0).where(is_above, reduced)
        product = (product * reduced).where(is_above, product)
    is_below = x.lt(1.0)
    product = x.where(is_below, product)
    less_one = x.where(is_below, reduced - 1.0)  # below 1, where x + 1 is reduced, x itself is exact
    t = less_one - 1.0
    core = less_one * t * polynomial(t, LGAMMA_P) / polynomial(t, LGAMMA_Q)
    is_large = x.ge(8.0)
    logarithm = log(x.where(is_large, product))
    large = (x - 0.5) * (logarithm - 1.0) + (_stirling_rest(x) + (HALF_LOG_TWO_PI - 0.5))
    large = x.where(x.eq(math.inf), large)
    return large.where(is_large, core + (-logarithm).where(is_below, logarithm))


def _sine_of_pi(x: Lanes) -> Lanes:
    """sin(pi x) up to sign: the argument is reduced exactly."""
    return cos_sin((x - x.rint()) * math.pi, 0)


def lgamma(x: Lanes) -> Lanes:
    """ln |gamma(x)|; by reflection for negative x."""
    a = abs(x)
    positive = _lgamma_positive(a)
    sine = abs(_sine_of_pi(a))
    negative = x.of(math.inf).where(sine.eq(0.0), log(math.pi / (a * sine)) - positive)
    value = negative.where(x.lt(0.0), positive)
    return x.of(math.inf).where(x.b.op("qor.q", x.eq(0.0), a.eq(math.inf)), value)


def digamma(x: Lanes) -> Lanes:
    """The derivative of lgamma: the recurrence up to 10, then the asymptotic series; by reflection for negative x."""
    is_negative = x.lt(0.0)
    moved = (1.0 - x).where(is_negative, x)
    top, bottom = x.of(0.0), x.of(1.0)  # the sum of the 1 / (x + k) as one fraction
    for _step in range(10):
        is_below = moved.lt(10.0)
        top = top.fma(moved, bottom).where(is_below, top)
        bottom = (bottom * moved).where(is_below, bottom)
        moved = (moved + 1.0).where(is_below, moved)
    inverse = 1.0 / moved
    z = inverse * inverse
    series = log(moved) - 0.5 * inverse - z * polynomial(z, DIGAMMA)
    value = series.where(moved.lt(math.inf), moved) - top / bottom
    turned = (x - x.rint()) * math.pi
    reflected = value - math.pi * cos_sin(turned, 1) / cos_sin(turned, 0)
    reflected = x.of(math.nan).where(x.eq(x.rint()), reflected)
    value = reflected.where(is_negative, value)
    return x.of(math.inf).copysign(-x).where(x.eq(0.0), value)


def _zeta_positive(s: Lanes, q: Lanes) -> Lanes:
    """Hurwitz's zeta for s > 1 and q > 0: eleven terms, then the Euler-Maclaurin sum (NIST DLMF 25.11.5)."""
    b, zero = q.b, q.of(0.0)
    with b.loop("term", 0, 11, carried=(zero.v, zero.v, q.v)) as scope:
        total, _last, base = (Lanes(b, v) for v in scope.values)
        term = pow_(base, -s)
        scope.next = ((total + term).v, term.v, (base + 1.0).v)
    total, last, base = (Lanes(b, v) for v in scope.results)
    base = base - 1.0
    tail = last * base / (s - 1.0) - 0.5 * last
    inverse = 1.0 / base
    factor = last * s * inverse  # s (s + 1) … (s + 2k - 2) base**(1 - s - 2k), divided by (2k)! below
    for k, bernoulli in enumerate(BERNOULLI, 1):
        tail = factor.fma(bernoulli / math.factorial(2 * k), tail)
        factor = factor * ((s + (2.0 * k - 1.0)) * inverse) * ((s + 2.0 * k) * inverse)
    # where the next term is below the sum's last place, the factors above may have overflowed
    return (total + tail).where(last.gt(total * 2.0**-60), total)


def zeta(s: Lanes, q: Lanes) -> Lanes:
    """Hurwitz's zeta, the sum of (q + k)**-s. Negative q are served for whole s: terms (-p)**-s of a rising and a falling part add up."""
    b, p = q.b, -q
    is_negative = q.lt(0.0)
    fraction = (p - p.floor()).where(is_negative, 0.5)
    half = s * 0.5
    sign = s.of(1.0).where(half.eq(half.floor()), -1.0)
    # zeta(s, 1 - fraction) ± (zeta(s, fraction) - zeta(s, p + 1)), one after the other
    with b.loop("part", 0, 3, carried=(q.of(0.0).v,)) as scope:
        part = Lanes(b, b.op("vcvt.df.d", b.op("vsplat.d", scope.index)))
        point = (1.0 - fraction).where(part.eq(0.0), fraction.where(part.eq(1.0), p + 1.0))
        point = q.where(b.op("qandn.q", part.eq(0.0), is_negative), point.where(is_negative, 1.0))
        weight = s.of(1.0).where(part.eq(0.0), sign.where(part.eq(1.0), -sign).where(is_negative, 0.0))
        value = _zeta_positive(s, point.where(point.gt(0.0), 1.0))
        scope.next = ((Lanes(b, scope.values[0]) + (weight * value).where(weight.ne(0.0), 0.0)).v,)
    return _zeta_edges(s, q, Lanes(b, scope.results[0]))


def _zeta_edges(s: Lanes, q: Lanes, value: Lanes) -> Lanes:
    b, infinite, undefined = q.b, q.of(math.inf), q.of(math.nan)
    is_pole = b.op("qand.q", q.le(0.0), q.eq(q.floor()))
    value = undefined.where(b.op("qand.q", q.lt(0.0), s.ne(s.floor())), value)
    value = infinite.where(is_pole, value)
    value = infinite.where(s.eq(1.0), undefined.where(s.lt(1.0), value))
    is_finite = b.op("qand.q", s.lt(math.inf), q.lt(math.inf))
    return value.where(is_finite, undefined)


def _repeat(b, blocks: int, steps: int, state: tuple[Lanes, ...], step) -> tuple[Lanes, ...]:
    """step(state) -> (state, active lanes) up to blocks * steps times; a block is skipped once no lane is active."""
    flag = state[0].of(1.0)
    with b.loop("block", 0, blocks, carried=(flag.v, *(s.v for s in state))) as outer:
        active = b.op("vcmpne.df", outer.values[0], flag.of(0.0).v)
        with b.loop("step", 0, b.any(active) * steps, carried=outer.values) as inner:
            new, still = step(tuple(Lanes(b, v) for v in inner.values[1:]))
            inner.next = (flag.where(still, 0.0).v, *(s.v for s in new))
        outer.next = inner.results
    return tuple(Lanes(b, v) for v in outer.results[1:])


def _lower_series(a: Lanes, x: Lanes) -> Lanes:
    """gamma(a) e**x x**-a igamma(a, x), for x < a + 1 (NIST DLMF 8.11.4)."""

    def step(state):
        r, term, total = state
        r = r + 1.0
        term = term * (x / r)
        return (r, term, total + term), term.gt(total * 2.0**-54)

    total = _repeat(x.b, 64, 16, (a, 1.0 / a, 1.0 / a), step)[2]
    return total


def _upper_fraction(a: Lanes, x: Lanes) -> Lanes:
    """gamma(a) e**x x**-a igammac(a, x), for x >= a + 1: Lentz's method on the continued fraction of NIST DLMF 8.9.2."""

    def step(state):
        i, bottom, c, d, h = state
        i, bottom = i + 1.0, bottom + 2.0
        factor = i * (a - i)
        d = 1.0 / _not_zero(d.fma(factor, bottom))
        c = _not_zero(factor / c + bottom)
        change = c * d
        return (i, bottom, c, d, h * change), abs(change - 1.0).gt(2.0**-52)

    start = _not_zero(x + 1.0 - a)
    return _repeat(x.b, 64, 16, (x.of(0.0), start, x.of(1e300), 1.0 / start, 1.0 / start), step)[4]


def _not_zero(x: Lanes) -> Lanes:
    return x.of(1e-300).where(x.eq(0.0), x)


# Temme's c_k(eta), NIST DLMF 8.12.10 and 8.12.11, as power series; digits as in DiDonato and Morris (ACM TOMS 13, 1987).
TEMME = (
    (-1 / 3, 1 / 12, -0.014814814814814815, 1 / 864, 0.0003527336860670194, -0.0001787551440329218, 3.919263178522438e-05,
     -2.18544851067999e-06, -1.85406221071516e-06, 8.296711340953087e-07, -1.7665952736826078e-07),
    (-0.001851851851851852, -1 / 288, 0.0026455026455026454, -0.0009902263374485596, 0.00020576131687242798, -4.018775720164609e-07,
     -1.8098555033448998e-05, 7.64916091608111e-06),
    (0.004133597883597883, -0.0026813271604938273, 0.0007716049382716049, 2.0093878600823047e-06, -0.00010736653226365161),
    (0.0006494341563786008, 0.00022947209362139917, -0.0004691894943952557),
)  # fmt: skip
UNIFORM_FROM = 10_000.0


def _uniform(a: Lanes, x: Lanes, is_upper: V) -> Lanes:
    """igamma, or igammac where `is_upper`, for a >= 10000 and |x - a| <= a / 10: Temme's expansion (NIST DLMF 8.12.3)."""
    mu = (x - a) / a
    # (log1p(mu) - mu) / mu², by its Taylor series
    half_square = -(mu * mu) * polynomial(mu, tuple((-1) ** (k + 1) / k for k in range(2, 18)))
    eta = (2.0 * half_square).sqrt().copysign(mu)
    inverse, total = 1.0 / a, a.of(0.0)
    for coefficients in reversed(TEMME):
        total = total.fma(inverse, polynomial(eta, coefficients))
    rest = exp(-a * half_square) * total / (a * (2 * math.pi)).sqrt()
    z = eta * (a * 0.5).sqrt()
    return 0.5 * erfc(z.where(is_upper, -z)) + rest.where(is_upper, -rest)


def _incomplete_gamma(a: Lanes, x: Lanes) -> tuple[Lanes, V]:
    """(igammac where the predicate holds, else igamma): of the two the one that does not cancel."""
    b = x.b
    is_uniform = b.op("qand.q", a.ge(UNIFORM_FROM), b.op("qand.q", abs(x - a).le(a * 0.1), a.lt(math.inf)))
    is_ordinary = b.op("qand.q", b.op("qand.q", x.lt(math.inf), x.gt(0.0)), b.op("qand.q", a.lt(math.inf), a.gt(0.0)))
    is_ordinary = b.op("qandn.q", is_ordinary, is_uniform)
    shape, point = a.where(is_ordinary, 1.0), x.where(is_ordinary, 0.5)
    is_upper = point.gt(shape + 1.0)
    density = exp(shape * log(point) - point - lgamma(shape))
    series = _lower_series(shape, point.where(b.op("qnot.q", is_upper), 0.5))
    fraction = _upper_fraction(shape, point.where(is_upper, shape + 2.0))
    ordinary = density * fraction.where(is_upper, series)
    is_upper = b.op("qmux.q", is_uniform, x.gt(a), is_upper)
    uniform = _uniform(a.where(is_uniform, UNIFORM_FROM), x.where(is_uniform, UNIFORM_FROM), is_upper)
    return uniform.where(is_uniform, ordinary), is_upper


def _incomplete_edges(a: Lanes, x: Lanes, value: Lanes, at_zero: float) -> Lanes:
    """The values at 0 and infinity, as ATen has them: igamma is 0 at x = 0 or a = inf, and 1 at a = 0 or x = inf."""
    b, undefined, at_infinity = x.b, x.of(math.nan), 1.0 - at_zero
    value = value.where(b.op("qand.q", a.eq(a), x.eq(x)), undefined)
    value = x.of(at_infinity).where(x.eq(math.inf), value)
    value = undefined.where(x.eq(math.inf), at_zero).where(a.eq(math.inf), value)
    value = x.of(at_zero).where(x.eq(0.0), value)
    value = x.of(at_infinity).where(x.gt(0.0), undefined).where(a.eq(0.0), value)
    return undefined.where(b.op("qor.q", a.lt(0.0), x.lt(0.0)), value)


def igamma(a: Lanes, x: Lanes) -> Lanes:
    """The regularized lower incomplete gamma function."""
    value, is_upper = _incomplete_gamma(a, x)
    return _incomplete_edges(a, x, (1.0 - value).where(is_upper, value), 0.0)


def igammac(a: Lanes, x: Lanes) -> Lanes:
    """The regularized upper incomplete gamma function."""
    value, is_upper = _incomplete_gamma(a, x)
    return _incomplete_edges(a, x, value.where(is_upper, 1.0 - value), 1.0)


through_double({"lgamma": lgamma, "digamma": digamma, "zeta": zeta, "igamma": igamma, "igammac": igammac})
