"""Phases of a convolution's output: transposed convolutions multiply no zeros.

Where an image is spread by s, a window meets a pixel of it at every s-th tap only, and windows s apart meet pixels at the same taps. So
each side of the output falls into s phases, and each phase is a convolution of stride 1 of the image as it is, with its share of the
taps: k / s of them. Neighbouring phases mostly differ in nothing but the tap where they begin, and are one loop: a few loops a side,
however large s. A side that is not spread is one phase.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..index_expr import Dim, floordiv, maximum
from .channels_last import Margins, three

if TYPE_CHECKING:
    from .conv import ConvParams

__all__ = ["Phases", "phases_of"]


@dataclasses.dataclass(frozen=True)
class Phases:
    """Neighbouring phases of one side of the output, which meet the same pixels of the image with as many taps.

    Attributes:
        n: how many phases; the i-th is the `count` output pixels first + i, first + i + step, …
        pixel, pixel_step: the pixel of the image, with its margins, that the first output pixel meets with its first tap; the step to the next one's.
        tap, tap_shift, tap_step, taps: the i-th phase has the `taps` taps tap + i * tap_shift, tap + i * tap_shift + tap_step, … There may be none.
        dilation: pixels from one of these taps to the next.
    """

    first: int
    step: int
    count: Dim
    pixel: int
    pixel_step: int
    tap: int
    tap_step: int
    taps: int
    dilation: int
    n: int = 1
    tap_shift: int = 0


def phases_of(params: ConvParams, pixels: Sequence[Dim]) -> tuple[Margins, tuple[list[Phases], ...]]:
    """The zeros to put around the image, and for each of three sides the phases of the output.

    Args: pixels: sizes of the output.
    """
    parameters = zip(params.image, pixels, params.kernel, params.stride, params.dilation, params.before, params.after, params.spread)
    missing = _side(image=1, pixels=1, kernel=1, stride=1, dilation=1, before=0, after=0, spread=1)
    margins, phases = zip(*three([_side(*of_side) for of_side in parameters], missing))
    before, after = zip(*margins)
    return Margins(before, after), phases


def _side(image: Dim, pixels: Dim, kernel: int, stride: int, dilation: int, before: int, after: Dim, spread: int) -> tuple[tuple[Dim, Dim], list[Phases]]:
    """(zeros before, zeros after) of one side of the image, and its phases."""
    if spread == 1:
        return (before, after), [Phases(first=0, step=1, count=pixels, pixel=0, pixel_step=stride, tap=0, tap_step=1, taps=kernel, dilation=dilation)]
    found = list(_merged(_spread_side(pixels, kernel, dilation, before, spread)))
    reading = [phases for phases in found if phases.taps]
    margin = max((0, *(-phases.pixel for phases in reading)))
    ends = [phases.pixel + phases.count + (phases.taps - 1) * phases.dilation for phases in reading]
    behind = functools.reduce(maximum, [end - image for end in ends], 0)
    return (margin, behind), [dataclasses.replace(phases, pixel=phases.pixel + margin) for phases in found]


def _spread_side(pixels: Dim, kernel: int, dilation: int, before: int, spread: int) -> Iterator[Phases]:
    """The phases of a side without margins, one by one: output pixel y meets pixel (y + tap * dilation - before) / spread, where that is whole."""
    common = math.gcd(dilation, spread)
    step = spread // common
    for first in range(min(spread, pixels) if isinstance(pixels, int) else spread):
        tap = next((t for t in range(min(step, kernel)) if (first + t * dilation - before) % spread == 0), kernel)
        taps = len(range(tap, kernel, step))
        pixel = (first + tap * dilation - before) // spread if taps else 0
        count = floordiv(pixels - first + (spread - 1), spread)
        yield Phases(first, spread, count, pixel, pixel_step=1, tap=tap, tap_step=step, taps=taps, dilation=dilation // common)


def _merged(phases: Iterator[Phases]) -> Iterator[Phases]:
    """Neighbours that differ in their first tap alone, by the same number, as one."""
    last = None
    for each in phases:
        shift = None if last is None else each.tap - last.tap - (last.n - 1) * last.tap_shift
        alike = last is not None and (last.count, last.pixel, last.taps) == (each.count, each.pixel, each.taps)
        if alike and (last.n == 1 or shift == last.tap_shift):
            last = dataclasses.replace(last, n=last.n + 1, tap_shift=shift)
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last
