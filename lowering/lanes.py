"""Lanes: a vector value with Python's operators, so that expansions read as the formulas they are."""

from __future__ import annotations

import dataclasses

from .build_vector import Builder
from .vector_ir import V

__all__ = ["EXPONENT_BIAS", "Lanes", "chebyshev", "integer_part", "polynomial", "power_of_two", "scale_in_steps", "split_polynomial"]

# By type: the bits of a mantissa, and the exponent's bias.
_MANTISSA_BITS = {"sf": 23, "df": 52}
EXPONENT_BIAS = {"sf": 127, "df": 1023}


@dataclasses.dataclass(frozen=True)
class Lanes:
    """A value of type sf, df, w or d. Operators take another Lanes of the same type or a Python number; comparisons give predicates (V)."""

    b: Builder
    v: V

    @property
    def type(self) -> str:
        return self.v.type

    def _wrap(self, other) -> V:
        if isinstance(other, Lanes):
            return other.v
        value = float(other) if self.type in ("sf", "df") else int(other)
        return self.b.op(f"vsplat.{self.type}", value)

    def of(self, value) -> Lanes:
        """A number as a value of this type."""
        return Lanes(self.b, self._wrap(value))

    def op(self, mnemonic: str, *others) -> Lanes:
        """mnemonic.type on this value and others."""
        return Lanes(self.b, self.b.op(f"{mnemonic}.{self.type}", self.v, *(self._wrap(o) for o in others)))

    def _arith(self, name: str, other) -> Lanes:
        return self.op(("vf" if self.type in ("sf", "df") else "v") + name, other)

    def __add__(self, other):
        return self._arith("add", other)

    def __sub__(self, other):
        return self._arith("sub", other)

    def __mul__(self, other):
        return self._arith("mul", other)

    def __truediv__(self, other):
        return self.op("vfdiv", other)

    def __radd__(self, other):
        return self.of(other) + self

    def __rsub__(self, other):
        return self.of(other) - self

    def __rmul__(self, other):
        return self.of(other) * self

    def __rtruediv__(self, other):
        return self.of(other) / self

    def __neg__(self):
        return self.op("vfneg" if self.type in ("sf", "df") else "vneg")

    def __abs__(self):
        return self.op("vfabs" if self.type in ("sf", "df") else "vabs")

    def fma(self, factor, addend) -> Lanes:
        """self * factor + addend, rounded once."""
        return self.op("vfma", factor, addend)

    def fnma(self, factor, minuend) -> Lanes:
        """minuend - self * factor, rounded once."""
        return self.op("vfnma", factor, minuend)

    def sqrt(self) -> Lanes:
        return self.op("vfsqrt")

    def rint(self) -> Lanes:
        """Nearest integer, halves to even."""
        return self.op("vfrint")

    def floor(self) -> Lanes:
        return self.op("vffloor")

    def trunc(self) -> Lanes:
        return self.op("vftrunc")

    def min(self, other) -> Lanes:
        """The smaller; NaN if either is."""
        return self._arith("min", other)

    def max(self, other) -> Lanes:
        """The larger; NaN if either is."""
        return self._arith("max", other)

    def copysign(self, sign: Lanes) -> Lanes:
        return self.op("vfcopysign", sign)

    def convert(self, register: str) -> Lanes:
        """vcvt to another type."""
        return self if register == self.type else Lanes(self.b, self.b.op(f"vcvt.{register}.{self.type}", self.v))

    def bits(self, register: str) -> Lanes:
        """The same bits as another type of the same width."""
        return Lanes(self.b, self.b.op(f"vbits.{register}.{self.type}", self.v))

    def _compare(self, name: str, other) -> V:
        return self.b.op(f"vcmp{name}.{self.type}", self.v, self._wrap(other))

    def lt(self, other) -> V:
        return self._compare("lt", other)

    def le(self, other) -> V:
        return self._compare("le", other)

    def gt(self, other) -> V:
        return self._compare("gt", other)

    def ge(self, other) -> V:
        return self._compare("ge", other)

    def eq(self, other) -> V:
        return self._compare("eq", other)

    def ne(self, other) -> V:
        return self._compare("ne", other)

    def where(self, condition: V, other) -> Lanes:
        """condition ? self : other."""
        return Lanes(self.b, self.b.op(f"vmux.{self.type}", condition, self.v, self._wrap(other)))


def polynomial(x: Lanes, coefficients) -> Lanes:
    """Horner's rule; coefficients from the constant term upwards."""
    total = x.of(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total.fma(x, coefficient)
    return total


def split_polynomial(x: Lanes, coefficients) -> Lanes:
    """The same, even and odd powers apart: one multiplication more, and half the latency, where nothing else can run meanwhile."""
    square = x * x
    return polynomial(square, coefficients[1::2]).fma(x, polynomial(square, coefficients[::2]))


def integer_part(x: Lanes, factor: float, bias: int) -> tuple[Lanes, Lanes]:
    """(n, bits): the integer n next to x * factor, and bits that end in n + bias; |n| < 2**20.

    A number to which 1.5 * 2**(mantissa bits) has been added is rounded to an integer, which stands in its low bits.
    """
    place = 1.5 * 2.0 ** _MANTISSA_BITS[x.type] + bias
    shifted = x.fma(factor, place)
    return shifted - place, shifted.bits({"sf": "w", "df": "d"}[x.type])


def power_of_two(bits: Lanes) -> Lanes:
    """2**n where `bits` end in n + EXPONENT_BIAS: 0 at n = -EXPONENT_BIAS, infinite at EXPONENT_BIAS + 1."""
    register = {"w": "sf", "d": "df"}[bits.type]
    return bits.op("vshl", _MANTISSA_BITS[register]).bits(register)


def scale_in_steps(x: Lanes, bits: Lanes) -> Lanes:
    """x 2**n where `bits` end in n + 2 EXPONENT_BIAS: by 2**(n // 2) and by the rest, so that subnormal results are right."""
    half = bits.op("vshr", 1)
    return x * power_of_two(half) * power_of_two(bits - half)


def chebyshev(t: Lanes, coefficients) -> Lanes:
    """The sum of coefficients[k] * T_k(t) by Clenshaw's recurrence."""
    twice = t + t
    later, last = t.of(0.0), t.of(coefficients[-1])
    for coefficient in reversed(coefficients[1:-1]):
        later, last = last, twice.fma(last, coefficient - later)
    return t.fma(last, coefficients[0] - later)
