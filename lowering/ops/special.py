"""Special functions and the floating-point format's own operators: tables for those that are one operator, functions for the rest."""

from __future__ import annotations

import math

import torch

from ..registry import KIND, lowering, pointwise, promote
from ..values import Graph, Unsupported, Value

aten = torch.ops.aten
INT_BITS = ("i64", "i32", "i16", "i8", "u8")

UNARY = {
    aten.lgamma.default: "lgamma", aten.digamma.default: "digamma", aten.special_erfcx.default: "erfcx", aten.special_ndtri.default: "ndtri",
    aten.i0.default: "i0", aten.special_modified_bessel_i0.default: "i0", aten.special_modified_bessel_i1.default: "i1", aten.special_i0e.default: "i0e",
    aten.special_i1.default: "i1", aten.special_i1e.default: "i1e", aten.special_modified_bessel_k0.default: "k0", aten.special_modified_bessel_k1.default: "k1",
    aten.special_scaled_modified_bessel_k0.default: "k0e", aten.special_scaled_modified_bessel_k1.default: "k1e", aten.special_bessel_j0.default: "bessel_j0",
    aten.special_bessel_j1.default: "bessel_j1", aten.special_bessel_y0.default: "bessel_y0", aten.special_bessel_y1.default: "bessel_y1",
    aten.special_spherical_bessel_j0.default: "spherical_bessel_j0", aten.special_airy_ai.default: "airy_ai",
}  # fmt: skip

BINARY = {
    aten.igamma.default: "igamma", aten.igammac.default: "igammac", aten.special_zeta.default: "zeta", aten.special_zeta.other_scalar: "zeta",
    aten.special_zeta.self_scalar: "zeta",
}  # fmt: skip

# Overload family -> operator; a shifted polynomial is that of 2 x - 1.
POLYNOMIALS = {
    "chebyshev_polynomial_t": "chebyshev_t", "chebyshev_polynomial_u": "chebyshev_u", "chebyshev_polynomial_v": "chebyshev_v", "chebyshev_polynomial_w": "chebyshev_w",
    "hermite_polynomial_h": "hermite_h", "hermite_polynomial_he": "hermite_he", "laguerre_polynomial_l": "laguerre_l", "legendre_polynomial_p": "legendre_p",
}  # fmt: skip


def _polynomial(g: Graph, name: str, is_shifted: bool, x, n) -> Value:
    if is_shifted:
        compute, _ = promote((x, n), KIND.INT_TO_FLOAT)
        x = g.cast(x, compute) if isinstance(x, Value) else g.constant(x, compute)
        x = x + x - 1.0
    return pointwise(g, name, x, n, kind=KIND.INT_TO_FLOAT)


def _register_polynomials() -> None:
    for family, name in POLYNOMIALS.items():
        for is_shifted in (False, True) if name.startswith("chebyshev") else (False,):
            packet = getattr(aten, f"special_{'shifted_' if is_shifted else ''}{family}")
            overloads = (packet.default, packet.x_scalar, packet.n_scalar)
            lowering(*overloads)(lambda g, x, n, name=name, is_shifted=is_shifted: _polynomial(g, name, is_shifted, x, n))


_register_polynomials()


def _register_tables() -> None:
    for target, name in UNARY.items():
        lowering(target)(lambda g, x, name=name: pointwise(g, name, x, kind=KIND.INT_TO_FLOAT))
    for target, name in BINARY.items():
        lowering(target)(lambda g, a, b, name=name: pointwise(g, name, a, b, kind=KIND.INT_TO_FLOAT))


_register_tables()


# Orders from 2 on: factorial times Hurwitz's zeta.
@lowering(aten.polygamma.default)
def polygamma(g: Graph, n, x: Value) -> Value:
    """The n-th derivative of digamma: ±n! zeta(n + 1, x)."""
    if not isinstance(n, int):
        raise Unsupported("polygamma of a symbolic order")
    if n == 0:
        return pointwise(g, "digamma", x, kind=KIND.INT_TO_FLOAT)
    compute, result = promote((x,), KIND.INT_TO_FLOAT)
    if n == 1:
        return g.cast(_trigamma(g, g.realize(g.cast(x, compute))), result)
    zeta = g.map("zeta", g.constant(n + 1.0, compute), g.cast(x, compute))
    factor = math.factorial(n) if n <= 170 else math.inf
    if compute == "f32" and factor > torch.finfo(torch.float32).max:
        factor = math.inf  # as eager's
    return g.cast(zeta * float(factor if n % 2 else -factor), result)


def _trigamma(g: Graph, x: Value) -> Value:
    """The derivative of digamma; below 1/2 by reflection. Eager's pi is rounded, so its poles at negative integers are large numbers."""
    sine = g.realize(g.map("sin", x * math.pi))
    is_low = x < 0.5
    zeta = g.realize(g.map("zeta", g.constant(2.0, x.dtype), (1.0 - x).where(is_low, x)))
    at_infinity = x.equals(g.constant(math.inf, x.dtype))  # where the series of zeta is no number
    return (math.pi**2 / (sine * sine) - zeta).where(is_low, g.constant(0.0, x.dtype).where(at_infinity, zeta))


@lowering(aten.angle.default)
def angle(g: Graph, x: Value) -> Value:
    """pi for negative numbers, 0 for others, NaN for NaN."""
    _, result = promote((x,), KIND.INT_TO_FLOAT)
    pi, zero = g.constant(math.pi, result), g.constant(0.0, result)
    if x.dtype == "bool":
        return zero.expand(x.sizes)
    angles = g.map("where", x < 0, pi, zero, dtype=result)
    return g.map("where", x.differs(x), x, angles, dtype=result) if x.dtype == result else angles


@lowering(aten.signbit.default)
def signbit(g: Graph, x: Value) -> Value:
    """Whether the sign bit is set."""
    if x.dtype == "bool":
        return g.constant(False, "bool", x.sizes)
    return x < 0 if x.dtype in INT_BITS else g.map("signbit", x, dtype="bool")


@lowering(aten.frexp.Tensor)
def frexp(g: Graph, x: Value) -> tuple[Value, Value]:
    """(mantissa, int32 exponent)."""
    return g.map("frexp_mantissa", x), g.map("frexp_exponent", x, dtype="i32")


@lowering(aten.ldexp.Tensor)
def ldexp(g: Graph, x: Value, exponent: Value) -> Value:
    """x * 2**exponent; rounded once where the exponent is an integer."""
    if exponent.dtype not in INT_BITS:
        return pointwise(g, "mul", x, pointwise(g, "pow", 2.0, exponent))
    compute, result = promote((x,), KIND.INT_TO_FLOAT)
    wide = g.cast(exponent, "i64")
    bounded = g.map("minimum", g.map("maximum", wide, g.constant(-(2**30), "i64")), g.constant(2**30, "i64"))
    return g.cast(g.map("ldexp", g.cast(x, compute), g.cast(bounded, "i32")), result)


@lowering(aten.round.decimals)
def round_decimals(g: Graph, x: Value, *, decimals) -> Value:
    """Rounded at the given decimal place: a product, a rounding and a division, each as eager does it."""
    if x.dtype in INT_BITS:
        return x
    compute, result = promote((x,))
    power = g.constant(10.0 ** abs(decimals), compute)
    before, after = ("mul", "div") if decimals >= 0 else ("div", "mul")
    value = g.map("round", g.map(before, g.cast(x, compute), power))
    return g.cast(g.map(after, value, power), result)


def _promoted_integers(g: Graph, a: Value, b: Value) -> tuple[Value, Value]:
    dtype, _ = promote((a, b))
    if dtype not in INT_BITS:
        raise Unsupported(f"the greatest common divisor of {dtype}")
    return g.cast(a, dtype), g.cast(b, dtype)


@lowering(aten.gcd.default)
def gcd(g: Graph, a: Value, b: Value) -> Value:
    """The greatest common divisor."""
    a, b = _promoted_integers(g, a, b)
    return g.map("gcd", g.map("abs", a), g.map("abs", b))


@lowering(aten.lcm.default)
def lcm(g: Graph, a: Value, b: Value) -> Value:
    """The least common multiple, 0 where both are 0; narrow integers wrap once, at the end."""
    a, b = _promoted_integers(g, a, b)
    divisor = gcd(g, a, b)
    wide = "i64" if a.dtype == "i64" else "i32"
    quotient = g.map("div_trunc", g.cast(a, wide), g.cast(divisor.where(divisor.differs(0), 1), wide))
    return g.cast(g.map("abs", g.map("mul", quotient, g.cast(b, wide))), a.dtype)
