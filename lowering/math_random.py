"""Philox 4x32-10 on integer lanes: Salmon, Moraes, Dror, Shaw, 'Parallel random numbers: as easy as 1, 2, 3' (SC 2011).

A counter-based generator: 128 bits of counter and 64 of key give four words of 32 random bits, without a state, so that any lane of
any context makes its own numbers.
"""

from __future__ import annotations

from .build_vector import Builder
from .lanes import Lanes
from .select import expansion
from .vector_ir import V

__all__ = ["philox"]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1, in units of 2**-32
ROUNDS = 10


@expansion("philox", "d")
def philox(b: Builder, counter: V, key0: V, key1: V, *, attrs: tuple = (), **_) -> V:
    """Word attrs[0] of the four that belong to `counter` (int64 lanes; the counter's upper half is 0) under the key's two int32 words.

    The four words of a counter share their instructions, since the builder numbers values.
    """
    wide = Lanes(b, counter)
    low, high = wide.convert("w"), wide.op("vshr", 32).convert("w")
    words = (low, high, low.of(0), low.of(0))
    keys = [Lanes(b, key0), Lanes(b, key1)]
    for step in range(ROUNDS):
        if step:
            keys = [key + increment for key, increment in zip(keys, KEY_STEPS)]
        words = _round(words, keys)
    return words[attrs[0]].v


def _round(words: tuple[Lanes, ...], keys: list[Lanes]) -> tuple[Lanes, ...]:
    first, second, third, fourth = words
    upper = third.op("vmulhu", MULTIPLIERS[1]), first.op("vmulhu", MULTIPLIERS[0])
    lower = third * MULTIPLIERS[1], first * MULTIPLIERS[0]
    return (upper[0].op("vxor", second).op("vxor", keys[0]), lower[0], upper[1].op("vxor", fourth).op("vxor", keys[1]), lower[1])
