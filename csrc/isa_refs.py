"""The numpy meaning of DVX instructions: what each row's doc sentence says, written without a look at the C.

Values are 1-D arrays of `s.lanes` lanes: f32, f64, int32, int64, or bool for predicates. A pointer is a pair
(flat array, index of the element it points to); fp16 is float16 in memory and bf16 uint16 holding its bits.
Loads return a value; stores write into the array and return None.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np

__all__ = ["MEMORY_DTYPES", "REGISTER_DTYPES", "Setting"]

REGISTER_DTYPES = {"sf": np.float32, "df": np.float64, "w": np.int32, "d": np.int64, "q": np.bool_}
MEMORY_DTYPES = {
    "sf": np.float32, "df": np.float64, "w": np.int32, "d": np.int64, "h": np.int16, "b": np.int8, "ub": np.uint8,
    "hf": np.float16, "bf": np.uint16,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a reference knows beside its operands: the lanes, the result's dtype, the memory element type if any."""

    lanes: int
    dtype: type | None
    memory: str | None


# ---- memory


def _from_memory(s, elements):
    if s.memory == "bf":
        return (elements.astype(np.uint32) << 16).view(np.float32)
    return elements.astype(s.dtype)


def round_to_bf16(x):
    """f32 values rounded to the nearest bf16 (8 significant bits), ties to even; NaN stays NaN."""
    exponent = np.maximum(np.frexp(x)[1], -125)
    quantum = np.ldexp(1.0, exponent - 8)
    rounded = np.rint(x.astype(np.float64) / quantum) * quantum
    return np.where(np.isfinite(x), np.copysign(rounded, x), x).astype(np.float32)


def _to_memory(s, value):
    if s.memory == "bf":
        return (round_to_bf16(value).view(np.uint32) >> 16).astype(np.uint16)
    return value.astype(MEMORY_DTYPES[s.memory])


def _lane_indices(s, pointer, stride):
    return pointer[1] + np.arange(s.lanes) * stride


def load(s, pointer):
    return load_strided(s, pointer, 1)


def load_masked(s, q, pointer):
    return load_strided_masked(s, q, pointer, 1)


def load_splat(s, pointer):
    array, index = pointer
    return _from_memory(s, np.repeat(array[index : index + 1], s.lanes))


def load_strided(s, pointer, stride):
    return _from_memory(s, pointer[0][_lane_indices(s, pointer, stride)])


def load_strided_masked(s, q, pointer, stride):
    return gather(s, q, pointer, np.arange(s.lanes) * stride)


def gather(s, q, pointer, offsets):
    elements = np.zeros(s.lanes, pointer[0].dtype)
    elements[q] = pointer[0][pointer[1] + offsets[q]]
    return _from_memory(s, elements)


def store(s, pointer, value):
    store_strided(s, pointer, 1, value)


def store_masked(s, q, pointer, value):
    store_strided_masked(s, q, pointer, 1, value)


def store_first(s, pointer, value):
    pointer[0][pointer[1]] = _to_memory(s, value)[0]


def store_strided(s, pointer, stride, value):
    scatter(s, np.ones(s.lanes, bool), pointer, np.arange(s.lanes) * stride, value)


def store_strided_masked(s, q, pointer, stride, value):
    scatter(s, q, pointer, np.arange(s.lanes) * stride, value)


def scatter(s, q, pointer, offsets, value):
    elements = _to_memory(s, value)
    for lane in np.flatnonzero(q):
        pointer[0][pointer[1] + offsets[lane]] = elements[lane]


def scatter_add(s, q, pointer, offsets, value):
    array, index = pointer
    register = dataclasses.replace(s, dtype=value.dtype)
    for lane in np.flatnonzero(q):
        at = slice(index + offsets[lane], index + offsets[lane] + 1)
        array[at] = _to_memory(s, _from_memory(register, array[at]) + value[lane : lane + 1])


# ---- integers


def _bits(a):
    return a.dtype.itemsize * 8


def _unsigned(a):
    return a.view(np.uint32 if a.dtype == np.int32 else np.uint64)


def shift_left(s, a, n):
    inside = (n >= 0) & (n < _bits(a))
    return np.where(inside, a << np.where(inside, n, 0), 0).astype(a.dtype)


def shift_right_logical(s, a, n):
    inside = (n >= 0) & (n < _bits(a))
    return np.where(inside, (_unsigned(a) >> _unsigned(np.where(inside, n, 0).astype(a.dtype))).view(a.dtype), 0).astype(a.dtype)


def shift_right_arithmetic(s, a, n):
    inside = (n >= 0) & (n < _bits(a))
    return a >> np.where(inside, n, _bits(a) - 1).astype(a.dtype)


def _quotient(a, b):
    if b == 0:
        return 0
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _lanewise(a, values):
    """Python integers wrapped to a's type."""
    return np.array([value & (2 ** _bits(a) - 1) for value in values], _unsigned(a).dtype).view(a.dtype)


def divide(s, a, b):
    return _lanewise(a, [_quotient(x, y) for x, y in zip(a.tolist(), b.tolist())])


def remainder(s, a, b):
    return _lanewise(a, [x - _quotient(x, y) * y if y else 0 for x, y in zip(a.tolist(), b.tolist())])


def multiply_high_unsigned(s, a, b):
    return ((_unsigned(a).astype(np.uint64) * _unsigned(b).astype(np.uint64)) >> np.uint64(32)).astype(np.uint32).view(np.int32)


def less_unsigned(s, a, b):
    return _unsigned(a) < _unsigned(b)


# ---- floats


def _round_fraction(exact):
    """The f64 nearest to a non-zero Fraction."""
    try:
        return float(exact)
    except OverflowError:
        return np.inf if exact > 0 else -np.inf


def _fma_f64(a, b, c):
    if not (np.isfinite(a) and np.isfinite(b)):
        return a * b + c
    if not np.isfinite(c):
        return c  # a * b alone may overflow, the fused sum does not see that
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return a * b + c
    return np.copysign(_round_fraction(exact), 1.0 if exact > 0 else -1.0)


def _fma_f32(a, b, c):
    """f32 a*b is exact in f64; the f64 sum is made odd where it is inexact, so that rounding it again is harmless."""
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    even = np.isfinite(total) & (error != 0) & (total.view(np.int64) % 2 == 0)
    towards = np.where(error > 0, np.inf, -np.inf)
    return np.where(even, np.nextafter(total, towards), total).astype(np.float32)


def fused_multiply_add(s, a, b, c):
    if a.dtype == np.float32:
        return _fma_f32(a, b, c)
    return np.array([_fma_f64(x, y, z) for x, y, z in zip(a, b, c)], np.float64)


def minimum(s, a, b):
    """The lesser; a where they are equal; NaN where either is."""
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(b < a, b, a)).astype(a.dtype)


def maximum(s, a, b):
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(b > a, b, a)).astype(a.dtype)


def minimum_number(s, a, b):
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.where(b < a, b, a))).astype(a.dtype)


def maximum_number(s, a, b):
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, np.where(b > a, b, a))).astype(a.dtype)


def truncate_to_integer(s, a):
    limits = np.iinfo(s.dtype)
    whole = np.trunc(a.astype(np.float64))
    inside = (whole >= float(limits.min)) & (whole < float(limits.max // 2 + 1) * 2)
    return np.where(inside, np.where(inside, whole, 0).astype(s.dtype), limits.min).astype(s.dtype)


# ---- across lanes


def zip_low(s, a, b):
    return np.stack([a[: s.lanes // 2], b[: s.lanes // 2]], axis=1).reshape(-1)


def zip_high(s, a, b):
    return np.stack([a[s.lanes // 2 :], b[s.lanes // 2 :]], axis=1).reshape(-1)


def rotate(s, a, k):
    return a[(np.arange(s.lanes) + k) % s.lanes]


def permute(s, a, index):
    return a[index % s.lanes]


def tree(step):
    """A reduction that folds the upper half of the lanes onto the lower half until one is left, and splats it."""

    def reduce(s, a):
        while len(a) > 1:
            half = len(a) // 2
            a = step(s, a[:half], a[half:])
        return np.repeat(a, s.lanes)

    return reduce


def trap(s, q, status, code):
    if q.any():
        status[0][status[1]] = code
