"""Rounding divisions, remainders and powers: integer lanes, and their float counterparts."""

from __future__ import annotations

import math

from .build_vector import Builder
from .lanes import Lanes
from .select import expansion
from .vector_ir import V


@expansion("div_floor", "w", "d")
def div_floor(b: Builder, x: V, y: V, **_) -> V:
    """Quotient rounded down: the truncated one, less 1 where signs differ and a remainder is left."""
    a, c = Lanes(b, x), Lanes(b, y)
    quotient, rest = a.op("vdiv", c), a.op("vrem", c)
    is_below = b.op("qand.q", rest.ne(0), rest.op("vxor", c).lt(0))
    return (quotient - 1).where(is_below, quotient).v


@expansion("remainder", "w", "d")
def remainder(b: Builder, x: V, y: V, **_) -> V:
    """Python's %: the sign of the divisor."""
    a, c = Lanes(b, x), Lanes(b, y)
    rest = a.op("vrem", c)
    return (rest + c).where(b.op("qand.q", rest.ne(0), rest.op("vxor", c).lt(0)), rest).v


@expansion("from_end", "d")
def from_end(b: Builder, x: V, attrs: tuple, **_) -> V:
    """An index that counts from the end of a dim of attrs[0] where it is negative."""
    index = Lanes(b, x)
    return (index + Lanes(b, b.op("vsplat.d", attrs[0]))).where(index.lt(0), index).v


@expansion("pow", "w", "d")
def integer_pow(b: Builder, x: V, y: V, **_) -> V:
    """By squaring, modulo 2**bits; a negative exponent gives 0, or ±1 for a base of ±1."""
    base, exponent = Lanes(b, x), Lanes(b, y)
    result, factor, left = base.of(1), base, exponent
    for _step in range(6 if x.type == "d" else 5):
        result = (result * factor).where(left.op("vand", 1).ne(0), result)
        factor, left = factor * factor, left.op("vshr", 1)
    # bits of the exponent beyond these leave 0, 1 or -1, or an even base's wrapped 0
    unit = base.of(1).where(base.eq(1), (base.of(1) - exponent.op("vand", 1) * 2).where(base.eq(-1), 0))
    large = (base.of(1) - exponent.op("vand", 1) * 2).where(base.eq(-1), result)
    return unit.where(exponent.lt(0), large).v


@expansion("div_trunc", "sf", "df")
def float_div_trunc(b: Builder, x: V, y: V, **_) -> V:
    """trunc(x / y)."""
    return (Lanes(b, x) / Lanes(b, y)).trunc().v


@expansion("fmod", "sf", "df")
def fmod(b: Builder, x: V, y: V, type: str, **_) -> V:
    """C's fmod, exact."""
    return _fmod(Lanes(b, x), Lanes(b, y)).v


def _fmod(x: Lanes, y: Lanes) -> Lanes:
    """Exact remainder with the sign of x, in f64: each step takes 52 bits of the quotient; quotients of more than 104 bits are rare."""
    if x.type == "sf":
        return _fmod(x.convert("df"), y.convert("df")).convert("sf")
    b, c = x.b, abs(y)
    a = _fmod_step(_fmod_step(abs(x), c), c)
    is_long = b.op("qand.q", a.ge(c), b.op("qand.q", a.lt(math.inf), c.gt(0.0)))
    with b.loop("rare", 0, b.any(is_long) * 44, carried=(a.v,)) as scope:
        rest = Lanes(b, scope.values[0])
        scope.next = (_fmod_step(rest, _multiple_near(rest, c)).v,)
    a = Lanes(b, scope.results[0])
    value = x.where(c.eq(math.inf), a.copysign(x))
    valid = b.op("qand.q", abs(x).lt(math.inf), b.op("qand.q", c.gt(0.0), y.eq(y)))
    return value.where(valid, x.of(math.nan))


def _fmod_step(a: Lanes, c: Lanes) -> Lanes:
    """a - c * (leading bits of a / c): not negative, congruent to a, exact since it is a multiple of c's last place and below a.

    As `a` where a / c overflows.
    """
    quotient = (a / c).trunc()
    last_place = (quotient.bits("d").op("vand", 0x7FF << 52).bits("df") * 2.0**-52).max(1.0)
    rest = quotient.fnma(c, a)
    # A quotient that was rounded up is one in its last place too large.
    rest = last_place.fma(c, rest).where(rest.lt(0.0), rest)
    return rest.where(a.b.op("qand.q", a.ge(c), quotient.lt(math.inf)), a)


def _multiple_near(a: Lanes, c: Lanes) -> Lanes:
    """c, or c times a power of two where a / c might overflow."""
    once = c * 2.0**700
    twice = once * 2.0**700
    return twice.where(a.ge(twice), once.where(a.ge(once), c))


@expansion("remainder", "sf", "df")
def float_remainder(b: Builder, x: V, y: V, **_) -> V:
    """Python's %: fmod moved to the sign of the divisor."""
    a, c = Lanes(b, x), Lanes(b, y)
    rest = _fmod(a, c)
    differs = b.op("qxor.q", rest.lt(0.0), c.lt(0.0))
    return (rest + c).where(b.op("qand.q", rest.ne(0.0), differs), rest).v


@expansion("div_floor", "sf", "df")
def float_div_floor(b: Builder, x: V, y: V, **_) -> V:
    """As c10::div_floor_floating: (x - fmod(x, y)) / y, corrected and rounded; x / y where y is 0."""
    a, c = Lanes(b, x), Lanes(b, y)
    rest = _fmod(a, c)
    quotient = (a - rest) / c
    differs = b.op("qand.q", rest.ne(0.0), b.op("qxor.q", rest.lt(0.0), c.lt(0.0)))
    quotient = (quotient - 1.0).where(differs, quotient)
    floor = quotient.floor()
    floor = (floor + 1.0).where((quotient - floor).gt(0.5), floor)
    zero = a.of(0.0).copysign(a / c)
    return (a / c).where(c.eq(0.0), floor.where(quotient.ne(0.0), zero)).v


@expansion("hypot", "sf", "df")
def hypot(b: Builder, x: V, y: V, type: str, **_) -> V:
    """sqrt(x² + y²), scaled by the larger so that nothing overflows; inf beats NaN."""
    a, c = abs(Lanes(b, x)), abs(Lanes(b, y))
    large, small = a.max(c), a.min(c)
    ratio = (small / large).where(large.ne(0.0), 0.0)
    value = large * ratio.fma(ratio, 1.0).sqrt()
    return a.of(math.inf).where(b.op("qor.q", a.eq(math.inf), c.eq(math.inf)), value).v


@expansion("nextafter", "sf", "df")
def nextafter(b: Builder, x: V, y: V, type: str, **_) -> V:
    """The next float from x towards y."""
    a, c = Lanes(b, x), Lanes(b, y)
    integer = "w" if type == "sf" else "d"
    bits = a.bits(integer)
    away = b.op("qnot.q", b.op("qxor.q", a.lt(c), a.gt(0.0)))
    moved = (bits + 1).where(away, bits - 1).bits(type)
    smallest = a.of(0.0).bits(integer).of(1).bits(type).copysign(c)
    moved = smallest.where(a.eq(0.0), moved)
    moved = c.where(a.eq(c), moved)
    return (a + c).where(b.op("qor.q", a.ne(a), c.ne(c)), moved).v


@expansion("ldexp", "sf", "df")
def ldexp(b: Builder, x: V, n: V, type: str, **_) -> V:
    """x * 2**n for int32 n, rounded once where the result is a normal number: four exact factors keep within the exponent's range."""
    wide, whole = Lanes(b, x).convert("df"), Lanes(b, n).op("vmax", -2200).op("vmin", 2200).convert("d")
    quarter = whole.op("vsar", 2)
    for part in (quarter, quarter, quarter, whole - quarter * 3):
        wide = wide * (part + 1023).op("vshl", 52).bits("df")
    return wide.convert(type).v


def _frexp_parts(x: Lanes) -> tuple[Lanes, Lanes, V]:
    """(significand bits in [0.5, 1), exponent, lanes that are neither 0 nor infinite nor NaN) of f64 lanes."""
    b, is_tiny = x.b, abs(x).lt(2.2250738585072014e-308)
    bits = (x * 2.0**54).where(is_tiny, x).bits("d")
    exponent = bits.op("vshr", 52).op("vand", 0x7FF) - 1022
    is_ordinary = b.op("qand.q", x.ne(0.0), abs(x).lt(math.inf))
    return (bits - exponent.op("vshl", 52)), exponent - exponent.of(54).where(is_tiny, 0), is_ordinary


@expansion("frexp_mantissa", "sf", "df")
def frexp_mantissa(b: Builder, x: V, type: str, **_) -> V:
    """C's frexp: m with 0.5 <= |m| < 1 and x = m * 2**e; 0, infinities and NaN stay."""
    wide = Lanes(b, x).convert("df")
    bits, _, is_ordinary = _frexp_parts(wide)
    return bits.bits("df").where(is_ordinary, wide).convert(type).v


@expansion("frexp_exponent", "sf", "df")
def frexp_exponent(b: Builder, x: V, type: str, **_) -> V:
    """The exponent e of frexp as int32; 0 for 0, infinities and NaN."""
    _, exponent, is_ordinary = _frexp_parts(Lanes(b, x).convert("df"))
    return exponent.where(is_ordinary, 0).convert("w").v


@expansion("signbit", "sf", "df")
def signbit(b: Builder, x: V, type: str, **_) -> V:
    """Whether the sign bit is set: also of -0.0 and of NaN."""
    return Lanes(b, x).bits("w" if type == "sf" else "d").lt(0)


# Euclid's algorithm takes the most steps on Fibonacci numbers: 91 below 2**63, 46 below 2**31 (Lamé).
GCD_BLOCKS, GCD_STEPS = {"w": 4, "d": 8}, 12


@expansion("gcd", "w", "d")
def gcd(b: Builder, x: V, y: V, type: str, **_) -> V:
    """Euclid's algorithm, for operands that are not negative; 0 where both are 0. Blocks of steps are left out once every lane is done."""
    with b.loop("block", 0, GCD_BLOCKS[type], carried=(x, y)) as outer:
        unfinished = Lanes(b, outer.values[0]).ne(0)
        with b.loop("step", 0, b.any(unfinished) * GCD_STEPS, carried=outer.values) as inner:
            a, c = (Lanes(b, v) for v in inner.values)
            is_zero = a.eq(0)
            inner.next = (a.where(is_zero, c.op("vrem", a)).v, c.where(is_zero, a).v)
        outer.next = inner.results
    return outer.results[1]
