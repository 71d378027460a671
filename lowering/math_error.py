"""The error function's family on f64 lanes: erf, erfc, erfcx, erfinv, ndtri; f32 lanes convert, compute here and round once.

Polynomials for erf and erfcx were fitted for this file (Chebyshev interpolation with 60 digits, rounded); the inverse is Wichura's AS241
(Applied Statistics 37, 1988, PPND16). Relative errors are below 1e-15, so f32 results are rounded correctly but for rare ties.
"""

from __future__ import annotations

import math

from .lanes import Lanes, polynomial
from .math_double import exp, log, through_double

__all__ = ["erf", "erfc", "erfcx", "erfinv", "ndtri"]

# erf(x) / x in x², |x| < 0.75
ERF = (1.1283791670955126, -0.37612638903183715, 0.11283791670952596, -0.026866170644428485, 0.005223977615420539, -0.0008548326188759752,
       0.00012055289567541706, -1.4924196305569617e-05, 1.643068417974155e-06, -1.5940066854661717e-07, 1.1472499701094691e-08)  # fmt: skip
# (1 + 2 x) e**(x²) erfc(x) in (x - 3.75) / (x + 3.75), x >= 0: the variable of Schonfelder (Math. Comp. 32, 1978)
ERFCX = (1.2375126308378275, -0.14024059858554702, 0.003585415485479575, 0.08227673849014977, -0.10880393014246645, 0.09230432116025894,
         -0.05869339857631061, 0.028362277420377335, -0.00974657968596217, 0.0017556258434318643, 0.0002937143905788553, -0.00029015404203352774,
         5.1646493410030905e-05, 2.2384138525659013e-05, -1.143798037449996e-05, -9.733875167540883e-07, 1.7419011945252806e-06,
         -5.7410760723967696e-08, -2.485110865068629e-07, 2.3398534308018545e-08, 3.195398612275023e-08, -3.798189795442423e-09,
         -2.6185201569287603e-09, 3.205262333434228e-10)  # fmt: skip

# AS241: numerator and denominator in 0.425² - q² for |q| = |p - 1/2| <= 0.425, then in r - 1.6 and r - 5 for r = sqrt(-ln min(p, 1 - p)).
CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4, 4.5921953931549871457e4,
     6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4, 3.9307895800092710610e4,
     2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
TAIL = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0, 1.27045825245236838258e0,
     2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
     5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
FAR_TAIL = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1, 2.65321895265761230930e-2,
     1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
     1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _exp_of_square(x: Lanes, sign: int) -> Lanes:
    """e**(sign x²); the square's rounding error is put back, or it would be multiplied by x²."""
    square = x * x
    lost = x.fma(x, -square)
    value = exp(square * float(sign))
    return value.fma(lost * float(sign), value).where(square.lt(709.0), value)  # beyond it the value may be infinite


def _scaled_complement(x: Lanes) -> Lanes:
    """e**(x²) erfc(x) for x >= 0."""
    bounded = x.min(1e300)
    return polynomial((bounded - 3.75) / (bounded + 3.75), ERFCX) / x.fma(2.0, 1.0)


def erfcx(x: Lanes) -> Lanes:
    """e**(x²) erfc(x)."""
    positive = _scaled_complement(abs(x))
    return (2.0 * _exp_of_square(x, 1) - positive).where(x.lt(0.0), positive)


def _tail(a: Lanes) -> Lanes:
    """erfc(a) for a >= 0."""
    return _exp_of_square(a.min(28.0), -1) * _scaled_complement(a)


def _near(x: Lanes) -> Lanes:
    return x * polynomial(x * x, ERF)


def erf(x: Lanes) -> Lanes:
    """x P(x²) near 0, 1 - erfc(|x|) elsewhere."""
    a = abs(x)
    return _near(x).where(a.lt(0.75), (1.0 - _tail(a)).copysign(x)).where(x.eq(x), x)


def erfc(x: Lanes) -> Lanes:
    """1 - erf(x), without cancellation for positive x."""
    tail = _tail(abs(x))
    value = (1.0 - _near(x)).where(abs(x).lt(0.75), (2.0 - tail).where(x.lt(0.0), tail))
    return value.where(x.eq(x), x)


def _quantile(q: Lanes, p: Lanes) -> Lanes:
    """The magnitude of the normal quantile at 1/2 ± |q|, where p = 1/2 - |q|."""
    z = q.fnma(q, 0.180625)
    centre = abs(q) * polynomial(z, CENTRE[0]) / polynomial(z, CENTRE[1])
    r = (-log(p)).sqrt()
    tail = polynomial(r - 1.6, TAIL[0]) / polynomial(r - 1.6, TAIL[1])
    far = polynomial(r - 5.0, FAR_TAIL[0]) / polynomial(r - 5.0, FAR_TAIL[1])
    value = centre.where(abs(q).le(0.425), tail.where(r.le(5.0), far))
    return value.of(math.inf).where(p.eq(0.0), value.where(p.ge(0.0), value.of(math.nan)))


def erfinv(y: Lanes) -> Lanes:
    """The x with erf(x) = y."""
    return (_quantile(0.5 * y, 0.5 - 0.5 * abs(y)) * math.sqrt(0.5)).copysign(y)


def ndtri(p: Lanes) -> Lanes:
    """The x with a normal distribution's P(X < x) = p."""
    q = p - 0.5
    return _quantile(q, p.where(q.lt(0.0), 1.0 - p)).copysign(q)


through_double({"erfc": erfc, "erfcx": erfcx, "erfinv": erfinv, "ndtri": ndtri})
through_double({"erf": erf, "normal_cdf": lambda x: 0.5 * (1.0 + erf(x * math.sqrt(0.5)))}, ("df",))
