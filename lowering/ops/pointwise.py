"""Pointwise ATen overloads: tables for those that are one operator, functions for the rest.

Promotion is PyTorch's (registry.pointwise); half types compute in float32 and round after every operator, as eager does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..accumulate import INT_LIMITS
from ..registry import KIND, TORCH_DTYPES, dtype_name, lowering, pointwise, promote
from ..values import Graph, Unsupported, Value
from ...csrc.abi import STATUS_ZERO_DIVISION

aten = torch.ops.aten
INTS = ("i64", "i32", "i16", "i8", "u8")
FLOATS = ("f32", "f64", "f16", "bf16")

# Overload -> operator, promotion. INT_TO_FLOAT computes integers as the default float type.
UNARY = {
    aten.neg.default: ("neg", KIND.DEFAULT),
    aten.bitwise_not.default: ("not", KIND.DEFAULT),
    aten.exp.default: ("exp", KIND.INT_TO_FLOAT), aten.exp2.default: ("exp2", KIND.INT_TO_FLOAT), aten.expm1.default: ("expm1", KIND.INT_TO_FLOAT),
    aten.log.default: ("log", KIND.INT_TO_FLOAT), aten.log2.default: ("log2", KIND.INT_TO_FLOAT), aten.log10.default: ("log10", KIND.INT_TO_FLOAT),
    aten.log1p.default: ("log1p", KIND.INT_TO_FLOAT), aten.sqrt.default: ("sqrt", KIND.INT_TO_FLOAT), aten.rsqrt.default: ("rsqrt", KIND.INT_TO_FLOAT),
    aten.reciprocal.default: ("reciprocal", KIND.INT_TO_FLOAT), aten.sin.default: ("sin", KIND.INT_TO_FLOAT), aten.cos.default: ("cos", KIND.INT_TO_FLOAT),
    aten.tan.default: ("tan", KIND.INT_TO_FLOAT), aten.asin.default: ("asin", KIND.INT_TO_FLOAT), aten.acos.default: ("acos", KIND.INT_TO_FLOAT),
    aten.atan.default: ("atan", KIND.INT_TO_FLOAT), aten.sinh.default: ("sinh", KIND.INT_TO_FLOAT), aten.cosh.default: ("cosh", KIND.INT_TO_FLOAT),
    aten.tanh.default: ("tanh", KIND.INT_TO_FLOAT), aten.asinh.default: ("asinh", KIND.INT_TO_FLOAT), aten.acosh.default: ("acosh", KIND.INT_TO_FLOAT),
    aten.atanh.default: ("atanh", KIND.INT_TO_FLOAT), aten.erf.default: ("erf", KIND.INT_TO_FLOAT), aten.erfc.default: ("erfc", KIND.INT_TO_FLOAT),
    aten.erfinv.default: ("erfinv", KIND.INT_TO_FLOAT),
    aten.sigmoid.default: ("sigmoid", KIND.INT_TO_FLOAT),
}  # fmt: skip

BINARY = {
    aten.mul.Tensor: ("mul", KIND.DEFAULT), aten.mul.Scalar: ("mul", KIND.DEFAULT),
    aten.maximum.default: ("maximum", KIND.DEFAULT), aten.minimum.default: ("minimum", KIND.DEFAULT),
    aten.fmax.default: ("fmax", KIND.DEFAULT), aten.fmin.default: ("fmin", KIND.DEFAULT),
    aten.div.Tensor: ("div", KIND.INT_TO_FLOAT), aten.div.Scalar: ("div", KIND.INT_TO_FLOAT), aten.true_divide.Tensor: ("div", KIND.INT_TO_FLOAT),
    aten.bitwise_and.Tensor: ("and", KIND.DEFAULT), aten.bitwise_and.Scalar: ("and", KIND.DEFAULT), aten.bitwise_and.Scalar_Tensor: ("and", KIND.DEFAULT),
    aten.bitwise_or.Tensor: ("or", KIND.DEFAULT), aten.bitwise_or.Scalar: ("or", KIND.DEFAULT), aten.bitwise_or.Scalar_Tensor: ("or", KIND.DEFAULT),
    aten.bitwise_xor.Tensor: ("xor", KIND.DEFAULT), aten.bitwise_xor.Scalar: ("xor", KIND.DEFAULT), aten.bitwise_xor.Scalar_Tensor: ("xor", KIND.DEFAULT),
    aten.atan2.default: ("atan2", KIND.INT_TO_FLOAT), aten.copysign.Tensor: ("copysign", KIND.INT_TO_FLOAT), aten.copysign.Scalar: ("copysign", KIND.INT_TO_FLOAT),
    aten.hypot.default: ("hypot", KIND.DEFAULT),
}  # fmt: skip

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def _register_tables() -> None:
    for target, (name, kind) in UNARY.items():
        lowering(target)(lambda g, x, name=name, kind=kind: pointwise(g, name, x, kind=kind))
    for target, (name, kind) in BINARY.items():
        lowering(target)(lambda g, a, b, name=name, kind=kind: pointwise(g, name, a, b, kind=kind))
    for name in COMPARISONS:
        packet = getattr(aten, name)
        lowering(packet.Tensor, packet.Scalar)(lambda g, a, b, name=name: compare(g, name, a, b))


def compare(g: Graph, name: str, a, b) -> Value:
    """A comparison at the promoted dtype; bools compare as integers, and Python integers that the dtype cannot hold wrap, as in eager."""
    if isinstance(a, Value) and a.dtype == "bool" and (not isinstance(b, Value) or b.dtype == "bool"):
        a = g.cast(a, "i32")
        b = g.cast(b, "i32") if isinstance(b, Value) else int(b) if isinstance(b, bool) else b
    elif type(b) is int and isinstance(a, Value) and a.dtype in INTS:
        b = torch.tensor(b).to(TORCH_DTYPES[a.dtype]).item()
    return pointwise(g, name, a, b, kind=KIND.ALWAYS_BOOL)


_register_tables()


def _scaled(g: Graph, b, alpha):
    """alpha * b, where alpha is 1 almost always."""
    if not isinstance(alpha, Value) and alpha == 1:
        return b
    return pointwise(g, "mul", b, alpha) if isinstance(b, Value) else b * alpha


def _is_half(*values) -> bool:
    return any(isinstance(v, Value) and v.dtype in ("f16", "bf16") for v in values)


@lowering(aten.add.Tensor, aten.add.Scalar)
def add(g: Graph, a, b, alpha=1) -> Value:
    """a + alpha * b; half types round once."""
    return _sum(g, "add", a, b, alpha)


@lowering(aten.sub.Tensor, aten.sub.Scalar)
def sub(g: Graph, a, b, alpha=1) -> Value:
    """a - alpha * b."""
    return _sum(g, "sub", a, b, alpha)


@lowering(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(g: Graph, a, b, alpha=1) -> Value:
    """b - alpha * a."""
    return _sum(g, "sub", b, a, alpha) if isinstance(b, Value) else pointwise(g, "sub", b, _scaled(g, a, alpha))


def _sum(g: Graph, name: str, a, b, alpha) -> Value:
    if alpha == 1 or not _is_half(a, b):
        return pointwise(g, name, a, _scaled(g, b, alpha))
    compute, result = promote((a, b))
    wide = [g.cast(v, compute) if isinstance(v, Value) else v for v in (a, b)]
    return g.cast(pointwise(g, name, wide[0], _scaled(g, wide[1], alpha)), result)


@lowering(aten.abs.default)
def abs_(g: Graph, x: Value) -> Value:
    """|x|; bool stays as it is."""
    return x if x.dtype == "bool" else pointwise(g, "abs", x)


@lowering(aten.nextafter.default)
def nextafter(g: Graph, a: Value, b: Value) -> Value:
    """The next number from a towards b."""
    if promote((a, b), KIND.NO_OPMATH)[1] not in ("f32", "f64"):
        raise Unsupported("nextafter of half types: computed in float32, the next number rounds back")
    return pointwise(g, "nextafter", a, b, kind=KIND.NO_OPMATH)


@lowering(aten.sign.default, aten.sgn.default)
def sign(g: Graph, x: Value) -> Value:
    """-1, 0 or 1; 0 for NaN, as in eager."""
    if x.dtype == "bool":
        return x
    zero, one = g.constant(0, x.dtype), g.constant(1, x.dtype)
    if x.dtype == "u8":
        return g.map("where", g.map("gt", x, zero, dtype="bool"), one, zero, dtype=x.dtype)
    negative = g.map("where", g.map("lt", x, zero, dtype="bool"), g.constant(-1, x.dtype), zero, dtype=x.dtype)
    return g.map("where", g.map("gt", x, zero, dtype="bool"), one, negative, dtype=x.dtype)


@lowering(aten.floor.default)
def floor(g: Graph, x: Value) -> Value:
    """Rounds down; integers stay as they are."""
    return x if x.dtype in INTS else pointwise(g, "floor", x)


@lowering(aten.ceil.default)
def ceil(g: Graph, x: Value) -> Value:
    """Rounds up."""
    return x if x.dtype in INTS else pointwise(g, "ceil", x)


@lowering(aten.trunc.default, aten.fix.default)
def trunc(g: Graph, x: Value) -> Value:
    """Rounds towards zero."""
    return x if x.dtype in INTS else pointwise(g, "trunc", x)


@lowering(aten.round.default)
def round_(g: Graph, x: Value) -> Value:
    """Rounds to nearest, halves to even."""
    return x if x.dtype in INTS else pointwise(g, "round", x)


@lowering(aten.frac.default)
def frac(g: Graph, x: Value) -> Value:
    """x - trunc(x)."""
    return pointwise(g, "sub", x, trunc(g, x))


def as_bool(g: Graph, x) -> Value:
    """Whether an element is not zero."""
    return g.cast(x, "bool") if isinstance(x, Value) else g.constant(bool(x), "bool")


@lowering(aten.logical_not.default)
def logical_not(g: Graph, x: Value) -> Value:
    """x == 0."""
    return g.map("not", as_bool(g, x))


@lowering(aten.logical_and.default)
def logical_and(g: Graph, a, b) -> Value:
    """Both not zero."""
    return g.map("and", as_bool(g, a), as_bool(g, b))


@lowering(aten.logical_or.default)
def logical_or(g: Graph, a, b) -> Value:
    """One not zero."""
    return g.map("or", as_bool(g, a), as_bool(g, b))


@lowering(aten.logical_xor.default)
def logical_xor(g: Graph, a, b) -> Value:
    """Exactly one not zero."""
    return g.map("xor", as_bool(g, a), as_bool(g, b))


@lowering(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar)
def where(g: Graph, condition: Value, a, b) -> Value:
    """condition ? a : b at the promoted dtype."""
    _, result = promote((a, b), KIND.NO_OPMATH)
    values = [g.cast(v, result) if isinstance(v, Value) else g.constant(v, result) for v in (a, b)]
    return g.map("where", as_bool(g, condition), *values, dtype=result)


@lowering(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(g: Graph, x: Value, mask: Value, value) -> Value:
    """value where mask, at x's dtype."""
    fill = g.cast(value, x.dtype) if isinstance(value, Value) else g.constant(value, x.dtype)
    return g.map("where", mask, fill, x, dtype=x.dtype)


@lowering(aten.clamp.default, aten.clamp.Tensor)
def clamp(g: Graph, x: Value, low=None, high=None) -> Value:
    """min(max(x, low), high); NaN stays NaN."""
    bounds = [b for b in (low, high) if b is not None]
    _, result = promote((x, *bounds), KIND.NO_OPMATH)
    least, most = INT_LIMITS.get(result, (-math.inf, math.inf))
    if any(bound < least or bound > most for bound in bounds if isinstance(bound, int)):
        raise Unsupported(f"clamp of {result} to bounds outside its range, {low} and {high}: eager raises")
    value = g.cast(x, result)
    for name, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            value = g.map(name, value, g.cast(bound, result) if isinstance(bound, Value) else g.constant(bound, result))
    return value


@lowering(aten.clamp_min.default, aten.clamp_min.Tensor)
def clamp_min(g: Graph, x: Value, low) -> Value:
    """max(x, low)."""
    return clamp(g, x, low, None)


@lowering(aten.clamp_max.default, aten.clamp_max.Tensor)
def clamp_max(g: Graph, x: Value, high) -> Value:
    """min(x, high)."""
    return clamp(g, x, None, high)


@lowering(torch.ops.prims.convert_element_type.default)
def convert_element_type(g: Graph, x: Value, dtype: torch.dtype) -> Value:
    """A cast."""
    return g.cast(x, dtype_name(dtype))


@lowering(aten._to_copy.default)
def to_copy(g: Graph, x: Value, *, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False, memory_format=None) -> Value:
    """A cast and a copy; the layout of the copy is that of the fake tensor."""
    if device is not None and torch.device(device).type != "cpu":
        raise Unsupported(f"a copy to device {device}")
    return g.cast(x, dtype_name(dtype)) if dtype is not None else x


@lowering(aten.isnan.default)
def isnan(g: Graph, x: Value) -> Value:
    """x != x."""
    return g.map("ne", x, x, dtype="bool") if x.dtype in FLOATS else g.constant(False, "bool", x.sizes)


@lowering(aten.isinf.default)
def isinf(g: Graph, x: Value) -> Value:
    """|x| == inf."""
    return compare(g, "eq", pointwise(g, "abs", x), float("inf")) if x.dtype in FLOATS else g.constant(False, "bool", x.sizes)


@lowering(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(g: Graph, a, b, *, rounding_mode=None) -> Value:
    """Division, rounded down ("floor") or towards zero ("trunc")."""
    if rounding_mode is None:
        return pointwise(g, "div", a, b, kind=KIND.INT_TO_FLOAT)
    return divide(g, "div_floor" if rounding_mode == "floor" else "div_trunc", a, b)


@lowering(aten.floor_divide.default, aten.floor_divide.Scalar)
def floor_divide(g: Graph, a, b) -> Value:
    """Division rounded down."""
    return divide(g, "div_floor", a, b)


@lowering(aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor)
def remainder(g: Graph, a, b) -> Value:
    """a - b * floor(a / b), as Python's %."""
    return divide(g, "remainder", a, b)


@lowering(aten.fmod.Tensor, aten.fmod.Scalar)
def fmod(g: Graph, a, b) -> Value:
    """a - b * trunc(a / b), as C's fmod."""
    return divide(g, "fmod", a, b)


def divide(g: Graph, name: str, a, b) -> Value:
    """A rounding division; an integer divided by 0 makes the call fail, as eager does, also where nobody reads that element."""
    compute, _ = promote((a, b))
    if compute == "bool":
        raise Unsupported(f"{name} of bool: eager has none")
    if compute not in INTS or (not isinstance(b, Value) and b != 0):
        return pointwise(g, name, a, b)
    divisor = g.cast(b, compute) if isinstance(b, Value) else g.constant(b, compute)
    return g.realize(pointwise(g, name, a, require(g, divisor, divisor.differs(0), STATUS_ZERO_DIVISION)))


def require(g: Graph, value: Value, condition: Value, status: int) -> Value:
    """`value`; the call raises what the runtime has for `status` if `condition` is false somewhere, wherever the value is evaluated."""
    return g.map("require", value, condition, attrs=(status,))


@lowering(aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow_(g: Graph, a, b) -> Value:
    """a ** b."""
    return pointwise(g, "pow", a, b)


@lowering(aten.pow.Tensor_Scalar)
def pow_scalar(g: Graph, x: Value, exponent) -> Value:
    """x ** exponent; small integer exponents and roots by products, as eager does."""
    compute, result = promote((x, exponent))
    if not isinstance(exponent, (int, float)) or (compute in INTS and exponent < 0):
        raise Unsupported(f"pow of {compute} with exponent {exponent}")
    value = g.cast(x, compute)
    if exponent == 0:
        return g.constant(1, result, x.sizes)
    if exponent in (1, 2, 3, 4):
        square = g.map("mul", value, value) if exponent > 1 else value
        powers = {1: lambda: value, 2: lambda: square, 3: lambda: g.map("mul", square, value), 4: lambda: g.map("mul", square, square)}
        return g.cast(powers[int(exponent)](), result)
    if compute not in INTS and exponent == 0.5:
        return g.cast(g.map("sqrt", value), result)
    if compute not in INTS and exponent == -1:
        return g.cast(g.map("reciprocal", value), result)
    return pointwise(g, "pow", x, exponent)


BITS = {"i64": 64, "i32": 32, "i16": 16, "i8": 8, "u8": 8}


def _shift(g: Graph, name: str, a, b, limit: Callable[[str], int], beyond: Callable[[Value, Value], Value]) -> Value:
    """Operator `name`; amounts that are negative or at least limit(dtype) give beyond(a, limit)."""
    dtype, _ = promote((a, b))
    if dtype not in INTS:
        raise Unsupported(f"a bitwise shift of {dtype}")
    value, amount = (g.cast(v, dtype) if isinstance(v, Value) else g.constant(v, dtype) for v in (a, b))
    bound = g.constant(limit(dtype), dtype)
    inside = g.map("and", amount >= 0, g.map("lt", amount, bound, dtype="bool"))
    shifted = g.map(name, value, amount.where(inside, 0))
    return shifted.where(inside, beyond(value, bound))


@lowering(aten.bitwise_left_shift.Tensor, aten.bitwise_left_shift.Tensor_Scalar, aten.bitwise_left_shift.Scalar_Tensor, aten.__lshift__.Tensor, aten.__lshift__.Scalar)
def left_shift(g: Graph, a, b) -> Value:
    """a << b; 0 for amounts out of range."""
    return _shift(g, "shl", a, b, BITS.__getitem__, lambda value, _: g.constant(0, value.dtype))


@lowering(aten.bitwise_right_shift.Tensor, aten.bitwise_right_shift.Tensor_Scalar, aten.bitwise_right_shift.Scalar_Tensor, aten.__rshift__.Tensor, aten.__rshift__.Scalar)
def right_shift(g: Graph, a, b) -> Value:
    """a >> b, arithmetic; the sign alone for amounts out of range."""
    return _shift(g, "shr", a, b, lambda dtype: BITS[dtype] - (dtype != "u8"), lambda value, bound: _sign_fill(g, value))


def _sign_fill(g: Graph, value: Value) -> Value:
    return g.constant(0, "u8") if value.dtype == "u8" else g.map("shr", value, g.constant(BITS[value.dtype] - 1, value.dtype))


@lowering(aten.addcmul.default)
def addcmul(g: Graph, x: Value, a: Value, b: Value, *, value=1) -> Value:
    """x + value * a * b."""
    return add(g, x, pointwise(g, "mul", _scaled(g, a, value), b))


@lowering(aten.addcdiv.default)
def addcdiv(g: Graph, x: Value, a: Value, b: Value, *, value=1) -> Value:
    """x + value * a / b."""
    return add(g, x, pointwise(g, "div", _scaled(g, a, value), b, kind=KIND.INT_TO_FLOAT))
