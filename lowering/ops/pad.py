"""Padding: constant, reflected, replicated, circular, and the backwards.

A padded tensor is one buffer into which pieces are stored: the interior, and for every border a constant or a view of the source.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch

from ..index_expr import Dim
from ..registry import lowering
from ..tensor_ir import Target
from ..values import Graph, Value, preferred_strides
from .reduce import opmath, reduce_over

__all__ = ["padded"]

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Piece:
    """Elements begin … begin + length of a padded dim; they come from source[start + i * step], or are the fill where start is None."""

    begin: Dim
    length: Dim
    start: Dim | None
    step: int = 1


def _store(g: Graph, buffer, x: Value, pieces: Sequence[Piece], fill) -> None:
    offset = sum((p.begin * s for p, s in zip(pieces, buffer.strides)), 0)
    sizes = tuple(p.length for p in pieces)
    target = Target(buffer, offset, buffer.strides)
    if any(p.start is None for p in pieces):
        g.store(g.constant(fill, x.dtype, sizes), target)
        return
    matrix = [[p.step if k == d else 0 for k in range(x.rank)] for d, p in enumerate(pieces)]
    g.store(x.substitute_dims(sizes, [p.start for p in pieces], matrix), target)


def _assembled(g: Graph, x: Value, pieces: Sequence[Sequence[Piece]], fill=0) -> Value:
    """The tensor whose dim d is made of pieces[d], one after the other."""
    pieces = [[p for p in row if p.length != 0] for row in pieces]
    sizes = tuple(sum((p.length for p in row), 0) for row in pieces)
    if x.is_expensive or sum(map(len, pieces)) > x.rank:
        x = x if x.cost == 0 else g.realize(x)
    buffer = g.buffer(x.dtype, sizes)
    for combination in itertools.product(*pieces):
        _store(g, buffer, x, combination, fill)
    return g.read(buffer)


Pads = list[tuple[Dim, Dim]]


def _by_sign(g: Graph, pads: Sequence[tuple[Dim, Dim]]) -> tuple[Pads, Pads]:
    """Pads as what they add and what they cut off: (max(p, 0), max(-p, 0)) of each."""
    is_cut = [[g.is_below_zero(p) for p in pair] for pair in pads]
    added = [tuple(0 if cut else p for p, cut in zip(*each)) for each in zip(pads, is_cut)]
    return added, [tuple(-p if cut else 0 for p, cut in zip(*each)) for each in zip(pads, is_cut)]


def _cropped(x: Value, cuts: Pads) -> Value:
    """`x` without `cuts` elements at either side of each dim."""
    for d, (low, high) in enumerate(cuts):
        if (low, high) != (0, 0):
            x = x.slice(d, low, x.sizes[d] - high)
    return x


def padded(g: Graph, x: Value, pads: Sequence[tuple[Dim, Dim]], fill=0) -> Value:
    """`x` with (low, high) elements of `fill` around each dim; negative numbers crop."""
    pads, cuts = _by_sign(g, pads)
    x = _cropped(x, cuts)
    if all(low == 0 and high == 0 for low, high in pads):
        return x
    sizes = tuple(low + s + high for (low, high), s in zip(pads, x.sizes))
    buffer = g.buffer(x.dtype, sizes, preferred_strides(x._with(sizes, x.expr)))
    interior = [Piece(low, s, 0) for (low, _), s in zip(pads, x.sizes)]
    if 0 not in x.sizes:
        _store(g, buffer, x, interior, fill)
    # Borders of dim d: whole in the dims behind it, within the interior in those before, so that nothing is stored twice.
    for d, (low, high) in enumerate(pads):
        for begin, length in ((0, low), (low + x.sizes[d], high)):
            border = [*interior[:d], Piece(begin, length, None), *(Piece(0, s, 0) for s in sizes[d + 1:])]
            if not any(p.length == 0 for p in border):
                _store(g, buffer, x, border, fill)
    return g.read(buffer)


def _pairs(x: Value, pad) -> list[tuple[Dim, Dim]]:
    """torch's flat pad list (last dim first) as (low, high) per dim."""
    pairs = [(pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2)]
    return [(0, 0)] * (x.rank - len(pairs)) + pairs[::-1]


@lowering(aten.constant_pad_nd.default)
def constant_pad_nd(g: Graph, x: Value, pad, value=0) -> Value:
    return padded(g, x, _pairs(x, pad), value)


def _reflected(size: Dim, low: Dim, high: Dim) -> list[Piece]:
    return [Piece(0, low, low, -1), Piece(low, size, 0), Piece(low + size, high, size - 2, -1)]


def _replicated(size: Dim, low: Dim, high: Dim) -> list[Piece]:
    return [Piece(0, low, 0, 0), Piece(low, size, 0), Piece(low + size, high, size - 1, 0)]


def _circular(size: Dim, low: Dim, high: Dim) -> list[Piece]:
    return [Piece(0, low, size - low), Piece(low, size, 0), Piece(low + size, high, 0)]


def _bordered(g: Graph, x: Value, pad, border) -> Value:
    added, cuts = _by_sign(g, _pairs(x, pad))
    # what a negative pad cuts off can still be reflected, so the crop comes last
    return _cropped(_assembled(g, x, [border(s, *p) for s, p in zip(x.sizes, added)]), cuts)


@lowering(aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.reflection_pad3d.default)
def reflection_pad(g: Graph, x: Value, pad) -> Value:
    return _bordered(g, x, pad, _reflected)


@lowering(aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default)
def replication_pad(g: Graph, x: Value, pad) -> Value:
    return _bordered(g, x, pad, _replicated)


@lowering(aten._pad_circular.default)
def pad_circular(g: Graph, x: Value, pad) -> Value:
    return _bordered(g, x, pad, _circular)


def _placed(g: Graph, grad: Value, dim: int, begin: Dim, length: Dim, start: Dim, size: Dim, step: int) -> Value:
    """A tensor of `size` along dim that holds grad[begin + i] at start + i * step (step 1 or -1) and 0 elsewhere."""
    piece = grad.slice(dim, begin, begin + length)
    if step < 0:
        piece, start = piece.flip([dim]), start - (length - 1)
    sizes = (*piece.sizes[:dim], size, *piece.sizes[dim + 1:])
    position = g.index(sizes, dim)
    inside = (position >= g.constant(start, "i64")) & (position < g.constant(start + length, "i64"))
    return g.guarded(piece, inside, [-start if d == dim else 0 for d in range(grad.rank)], sizes)


def _folded_dim(g: Graph, grad: Value, dim: int, size: Dim, low: Dim, high: Dim, is_reflection: bool) -> Value:
    """The gradient of one padded dim: the borders added where they were taken from."""
    total = grad.slice(dim, low, low + size)
    if is_reflection:
        for begin, length, start in ((0, low, low), (low + size, high, size - 2)):
            if length != 0:
                total = total + _placed(g, grad, dim, begin, length, start, size, -1)
        return g.realize(total)
    for begin, length, place in ((0, low, 0), (low + size, high, size - 1)):
        if length != 0:
            border = reduce_over(g, "sum", grad.slice(dim, begin, begin + length), [dim], True)
            total = total + border.where(g.index(total.sizes, dim).equals(g.constant(place, "i64")), 0)
    return g.realize(total)


def _unpadded(g: Graph, grad: Value, x: Value, pad, is_reflection: bool) -> Value:
    added, cuts = _by_sign(g, _pairs(x, pad))
    # what a negative pad cut off has no gradient of its own
    total = g.realize(padded(g, g.cast(grad, opmath(grad.dtype)), cuts))
    for dim, (low, high) in enumerate(added):
        if low != 0 or high != 0:
            total = _folded_dim(g, total, dim, x.sizes[dim], low, high, is_reflection)
    return g.cast(total, grad.dtype)


@lowering(aten.reflection_pad1d_backward.default, aten.reflection_pad2d_backward.default, aten.reflection_pad3d_backward.default)
def reflection_pad_backward(g: Graph, grad: Value, x: Value, pad) -> Value:
    return _unpadded(g, grad, x, pad, True)


@lowering(aten.replication_pad1d_backward.default, aten.replication_pad2d_backward.default, aten.replication_pad3d_backward.default)
def replication_pad_backward(g: Graph, grad: Value, x: Value, pad) -> Value:
    return _unpadded(g, grad, x, pad, False)
