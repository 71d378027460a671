"""Memory planning: offsets of temporaries in one arena, by liveness over the order of kernels.

Buffers of known size are placed best-fit among the holes that are free over their whole life, largest first; buffers whose size depends on symbols
share a slot only with later buffers of the same size expression, and lie behind the fixed part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .index_expr import Dim, exact_div, floordiv
from .kernel_writer import BoundKernel, Scratch
from .tensor_ir import Buffer
from ..csrc.abi import DTYPE_BYTES

__all__ = ["Arena", "plan_memory"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector of a host
_SCRATCH_BYTES = {"sf": 4, "df": 8, "w": 4, "d": 8, "h": 2, "b": 1, "ub": 1, "hf": 2, "bf": 2}


@dataclasses.dataclass(frozen=True)
class Arena:
    """Where temporaries live. All in bytes.

    Attributes:
        offsets: start of every temp buffer and scratch.   size: the arena's.   naive: the sum of all, without reuse.
        largest_live: most bytes alive at once (fixed sizes only): a lower bound of any plan.
    """

    offsets: dict
    size: Dim
    naive: Dim
    largest_live: int


@dataclasses.dataclass
class _Life:
    item: Buffer | Scratch
    bytes: Dim
    first: int
    last: int


def _aligned(bytes_: Dim) -> Dim:
    if isinstance(bytes_, int):
        return -(-bytes_ // ALIGNMENT) * ALIGNMENT
    exact = exact_div(bytes_, ALIGNMENT)
    return bytes_ if exact is not None else floordiv(bytes_ + (ALIGNMENT - 1), ALIGNMENT) * ALIGNMENT


def _lives(kernels: Sequence[BoundKernel], n_contexts: int, outputs: frozenset[Buffer]) -> list[_Life]:
    lives: dict = {}
    for index, kernel in enumerate(kernels):
        for argument in kernel.arguments:
            if isinstance(argument, Buffer) and argument.kind == "temp" and argument not in outputs:
                bytes_ = _aligned(argument.n_elements * DTYPE_BYTES[argument.dtype])
            elif isinstance(argument, Scratch):
                bytes_ = _aligned(argument.elements * _SCRATCH_BYTES[argument.memory_type] * n_contexts)
            else:
                continue
            life = lives.setdefault(argument, _Life(argument, bytes_, index, index))
            life.last = index
    return list(lives.values())


def plan_memory(kernels: Sequence[BoundKernel], n_contexts: int, outputs: frozenset[Buffer] = frozenset()) -> Arena:
    """Offsets for every temp buffer and scratch of `kernels`, which run in the given order; scratch is per context; `outputs` live elsewhere."""
    lives = _lives(kernels, n_contexts, outputs)
    fixed = [life for life in lives if isinstance(life.bytes, int)]
    offsets: dict = {}
    end = _place_fixed(fixed, offsets)
    size = _place_symbolic([life for life in lives if not isinstance(life.bytes, int)], offsets, end)
    naive = sum((life.bytes for life in lives), 0)
    live = [sum(life.bytes for life in fixed if life.first <= i <= life.last) for i in range(len(kernels))]
    return Arena(offsets, size, naive, max(live, default=0))


def _place_fixed(lives: list[_Life], offsets: dict) -> int:
    placed: list[tuple[_Life, int]] = []
    end = 0
    for life in sorted(lives, key=lambda one: (-one.bytes, one.first)):
        taken = sorted((start, start + other.bytes) for other, start in placed if other.first <= life.last and life.first <= other.last)
        best, best_hole, cursor = None, None, 0
        for start, stop in taken:
            hole = start - cursor
            if hole >= life.bytes and (best_hole is None or hole < best_hole):
                best, best_hole = cursor, hole
            cursor = max(cursor, stop)
        at = cursor if best is None else best
        placed.append((life, at))
        offsets[life.item] = at
        end = max(end, at + life.bytes)
    return end


def _place_symbolic(lives: list[_Life], offsets: dict, end: Dim) -> Dim:
    slots: list[list] = []  # [size, offset, free from kernel]
    for life in sorted(lives, key=lambda one: one.first):
        slot = next((s for s in slots if s[0] == life.bytes and s[2] < life.first), None)
        if slot is None:
            slot = [life.bytes, end, -1]
            slots.append(slot)
            end = end + life.bytes
        offsets[life.item] = slot[1]
        slot[2] = life.last
    return end
