"""Arguments of sine and cosine too large for Cody and Waite: x modulo pi/2 by integer products with the bits of 2/pi that matter (Payne and Hanek, 1983)."""

from __future__ import annotations

import math

from .lanes import Lanes

__all__ = ["TWO_OVER_PI", "reduced_double"]

# The first 1120 bits of 2/pi behind the point, in words of 32 (OEIS A060294 in base 2**32).
TWO_OVER_PI = (
    0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB, 0xDEBBC561, 0xB7246E3A, 0x424DD2E0, 0x06492EEA, 0x09D1921C,
    0xFE1DEB1C, 0xB129A73E, 0xE88235F5, 0x2EBB4484, 0xE99C7026, 0xB45F7E41, 0x3991D639, 0x835339F4, 0x9C845F8B, 0xBDF9283B, 0x1FF897FF, 0xDE05980F,
    0xEF2F118B, 0x5A0A6D1F, 0x6D367ECF, 0x27CB09B7, 0x4F463F66, 0x9E5FEA2D, 0x7527BAC7, 0xEBE5F17B, 0x3D0739F7, 0x8A5292EA, 0x6BFB5FB1,
)  # fmt: skip
_LOW = 2**32 - 1


def reduced_double(x: Lanes) -> tuple[Lanes, Lanes]:
    """(r, n) of an f64 with 2**30 <= |x| < inf: x = n pi/2 + r modulo 2 pi, |r| <= pi/4, n as i64. r is off by 2**-61 at most, so relative near 0."""
    bits = abs(x).bits("d")
    mantissa = bits.op("vand", 2**52 - 1) + 2**52
    # |x| = mantissa * 2**(bits / 2**52 - 1075); the window of 2/pi starts two bits above the point of the product
    first = bits.op("vshr", 52) - (1075 + 2)
    words = _window(first, 4)
    high, low = mantissa.op("vshr", 32), mantissa.op("vand", _LOW)
    # mantissa * window modulo 2**64, whose upper two bits are the quadrant
    total = (mantissa * words[0]).op("vshl", 32) + mantissa * words[1] + high * words[2] + (low * words[2]).op("vshr", 32) + (high * words[3]).op("vshr", 32)
    n = (total + (1 << 61)).op("vshr", 62)
    r = (total - n.op("vshl", 62)).convert("df") * (math.pi / 2 * 2.0**-62)
    is_negative = x.lt(0.0)
    return (-r).where(is_negative, r), (0 - n).where(is_negative, n)


def _window(first: Lanes, count: int) -> list[Lanes]:
    """`count` words of 2/pi from bit `first` behind the point on, -32 <= first < 992, by halving the words in question."""
    place = first + 32
    index, shift = place.op("vshr", 5), place.op("vand", 31)
    words = [first.of(word) for word in (0, *TWO_OVER_PI)]
    for step in (16, 8, 4, 2, 1):
        is_behind = index.op("vand", step).ne(0)
        words = [words[k + step].where(is_behind, words[k]) for k in range(count + step)]
    return [(a.op("vshl", 32) + b).op("vshr", 32 - shift).op("vand", _LOW) for a, b in zip(words, words[1:])]
