"""Orthogonal polynomials by their three-term recurrences, in the operand's own precision and step by step as ATen has them.

The number of steps depends on the data: blocks of steps are nested, and a block without an active lane is left out, so that
a lane costs about as many steps as the largest order in its vector.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from .lanes import Lanes
from .select import expansion
from .vector_ir import V

# Nested loops of 32 steps each: orders up to 32**6 = 2**30.
LEVELS, STEPS = 6, 32


@dataclasses.dataclass(frozen=True)
class Family:
    """One kind of polynomial.

    Attributes:
        first: p_1(x).   step: (x, k, p_k-1, p_k-2) -> p_k for k >= 2, k as lanes.
        at_one, at_minus_one: (n, sign), with sign = (-1)**n: p_n at 1 and -1; None where the recurrence serves them.
        trigonometric: (angle = acos x, n) -> p_n for |x| < 1 and n > trigonometric_from.
        max_order: NaN for larger orders.
    """

    first: Callable[[Lanes], Lanes]
    step: Callable[[Lanes, Lanes, Lanes, Lanes], Lanes]
    at_one: Callable[[Lanes, Lanes], Lanes] | None = None
    at_minus_one: Callable[[Lanes, Lanes], Lanes] | None = None
    at_zero_is_one: bool = False
    trigonometric: Callable[[Lanes, Lanes], Lanes] | None = None
    trigonometric_from: int = 0
    max_order: dict[str, int] = dataclasses.field(default_factory=dict)


def _recurrence(family: Family, x: Lanes, order: Lanes, is_active: V) -> Lanes:
    """p_n(x) for the lanes in `is_active`, which have orders from 2 on."""
    b, one = x.b, x.of(1.0)
    zero = x.of(0.0)

    def run(level: int, state: tuple[V, ...]) -> tuple[V, ...]:
        last, _, k = (Lanes(b, v) for v in state)
        going = b.op("qand.q", is_active, b.op("qand.q", k.le(order), last.eq(last)))
        with b.loop("step", 0, b.any(going) * STEPS, carried=state) as scope:
            if level:
                scope.next = run(level - 1, scope.values)
            else:
                last, before, k = (Lanes(b, v) for v in scope.values)
                going = b.op("qand.q", is_active, b.op("qand.q", k.le(order), last.eq(last)))
                new = family.step(x, k, last, before)
                scope.next = (new.where(going, last).v, last.where(going, before).v, (k + one.where(going, zero)).v)
        return scope.results

    return Lanes(b, run(LEVELS - 1, (family.first(x).v, one.v, x.of(2.0).v))[0])


def _evaluate(family: Family, x: Lanes, order: Lanes) -> Lanes:
    b = x.b
    n = order.where(abs(order).lt(math.inf), -1.0).trunc()
    half = n * 0.5
    is_even = half.eq(half.floor())
    sign = x.of(1.0).where(is_even, -1.0)
    is_active, trigonometric = n.ge(2.0), None
    if family.trigonometric is not None:
        is_inside = b.op("qand.q", abs(x).lt(1.0), n.gt(float(family.trigonometric_from)))
        is_active = b.op("qandn.q", is_active, is_inside)
        trigonometric = family.trigonometric(_acos(x.where(is_inside, 0.0)), n)
    if family.max_order:
        is_active = b.op("qand.q", is_active, n.le(float(family.max_order[x.type])))
    value = _recurrence(family, x, n, is_active)
    if trigonometric is not None:
        value = trigonometric.where(is_inside, value)
    if family.max_order:
        value = x.of(math.nan).where(n.gt(float(family.max_order[x.type])), value)
    value = x.of(1.0).where(n.eq(0.0), family.first(x).where(n.eq(1.0), value))
    if family.at_one is not None:
        value = family.at_one(n, sign).where(x.eq(1.0), family.at_minus_one(n, sign).where(x.eq(-1.0), value))
    if family.at_zero_is_one:
        value = x.of(1.0).where(x.eq(0.0), value)
    return x.of(0.0).where(n.lt(0.0), value)


def _through(name: str, *operands: Lanes) -> Lanes:
    """Another expansion of the same type."""
    from .select import EXPANSIONS

    first = operands[0]
    return Lanes(first.b, EXPANSIONS[name, first.type](first.b, *(o.v for o in operands), attrs=(), type=first.type))


def _acos(x: Lanes) -> Lanes:
    return _through("acos", x)


def _cos(x: Lanes) -> Lanes:
    return _through("cos", x)


def _sin(x: Lanes) -> Lanes:
    return _through("sin", x)


def _chebyshev_step(x: Lanes, k: Lanes, last: Lanes, before: Lanes) -> Lanes:
    return (x + x) * last - before


def _half(angle: Lanes) -> Lanes:
    return angle * 0.5


FAMILIES = {
    "chebyshev_t": Family(lambda x: x, _chebyshev_step, lambda n, sign: sign.of(1.0), lambda n, sign: sign, False, lambda a, n: _cos(n * a), 6),
    "chebyshev_u": Family(lambda x: x + x, _chebyshev_step, lambda n, sign: n + 1.0, lambda n, sign: sign * (n + 1.0), False, lambda a, n: _sin((n + 1.0) * a) / _sin(a), 8),
    "chebyshev_v": Family(lambda x: x + x - 1.0, _chebyshev_step, lambda n, sign: sign.of(1.0), lambda n, sign: sign * (n + n + 1.0), False, lambda a, n: _cos((n + 0.5) * a) / _cos(_half(a)), 8),
    "chebyshev_w": Family(lambda x: x + x + 1.0, _chebyshev_step, lambda n, sign: n + n + 1.0, lambda n, sign: sign, False, lambda a, n: _sin((n + 0.5) * a) / _sin(_half(a)), 8),
    "hermite_h": Family(lambda x: x + x, lambda x, k, last, before: (x + x) * last - (k - 1.0) * 2.0 * before, max_order={"sf": 128, "df": 512}),
    "hermite_he": Family(lambda x: x, lambda x, k, last, before: x * last - (k - 1.0) * before, max_order={"sf": 128, "df": 512}),
    "laguerre_l": Family(lambda x: 1.0 - x, lambda x, k, last, before: ((k + k - 2.0 + (1.0 - x)) * last - (k - 1.0) * before) / k, at_zero_is_one=True),
    "legendre_p": Family(
        lambda x: x, lambda x, k, last, before: ((k + k - 1.0) * x * last - (k - 1.0) * before) / k, lambda n, sign: sign.of(1.0), lambda n, sign: sign
    ),
}

for _name, _family in FAMILIES.items():
    expansion(_name, "sf", "df")(lambda b, x, n, family=_family, **_: _evaluate(family, Lanes(b, x), Lanes(b, n)).v)
