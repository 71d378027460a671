"""The contract between lowering and runtime: what a lowered partition is made of and how its C entry is called.

A partition is one shared object made of one or more C units. Its entry point is

    int32_t accel_main(void *const *buffers, const int64_t *sizes, char *arena, const dvx_runtime *rt);

`buffers` holds the data pointers of the inputs, then of the computed outputs (neither aliases nor views), in manifest order; `sizes` the values of
`symbols`; `arena` at least `arena_bytes` bytes, 64-byte aligned. The result is a `STATUS_*` code. The struct
`dvx_runtime` is declared in include/dvx_runtime.h.
"""

from __future__ import annotations

import dataclasses

__all__ = [
    "DTYPE_BYTES", "PartitionSource", "STATUS_INDEX_ERROR", "STATUS_LENGTHS", "STATUS_NEGATIVE_DEVIATION", "STATUS_NEGATIVE_LENGTH", "STATUS_NO_PROBABILITY",
    "STATUS_OK", "STATUS_REPEATS", "STATUS_ZERO_DIVISION", "TensorArg",
]  # fmt: skip

STATUS_OK = 0
STATUS_INDEX_ERROR = 1  # an index operand was out of range; the runtime raises IndexError as eager does
STATUS_ZERO_DIVISION = 2  # an integer was divided by 0; the runtime raises eager's RuntimeError, here and below
STATUS_NO_PROBABILITY = 3  # a probability was not in [0, 1]
STATUS_NEGATIVE_DEVIATION = 4  # a standard deviation was negative
STATUS_LENGTHS = 5  # lengths of segments did not sum to the size that they divide
STATUS_NEGATIVE_LENGTH = 6  # a segment's length was negative
STATUS_REPEATS = 7  # repeats did not sum to the output size that was given, or one was negative

# accel's dtype names and the bytes an element takes in memory.
DTYPE_BYTES = {"f32": 4, "f64": 8, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "i16": 2, "i8": 1, "u8": 1, "bool": 1}


@dataclasses.dataclass(frozen=True)
class TensorArg:
    """One tensor crossing the boundary of a partition.

    Attributes:
        name: the FX node's name.
        dtype: a key of DTYPE_BYTES.
        sizes, strides: per dim an int, or a str holding a Python expression over the partition's symbols
            (strides in elements; `//` and `%` as Python has them).
        aliases: for an output that is an input mutated in place or returned as is: the index of that input; else None.
        view_of, offset: an output that is a view of an input or of an earlier output and is not computed (it has no entry
            in `buffers`): ("input" | "output", index) of the base and the offset from the base's first element, in elements.
    """

    name: str
    dtype: str
    sizes: tuple[int | str, ...]
    strides: tuple[int | str, ...]
    aliases: int | None = None
    view_of: tuple[str, int] | None = None
    offset: int | str = 0


@dataclasses.dataclass(frozen=True)
class PartitionSource:
    """Everything the runtime needs to build and call one partition.

    Attributes:
        name: a C identifier for reports and temporary files; not part of the cache key.
        units: (file name, C text) pairs, compiled separately and linked together.
        vlen_bytes: the DVX vector length the units are compiled for (-DDVX_VLEN=...).
        inputs, outputs: tensors in the order of `buffers`.
        symbols: names of the int64 sizes, in the order of `sizes`.
        arena_bytes: int, or a str: a Python expression over `symbols`.
        n_counters: length of the int64 counter array that a profiling build (-DDVX_PROFILE) fills: first one entry per
            basic block (`n_blocks` of them), then one per entry of isa.COUNTERS.
        prepared_bytes: memory for what is computed once from constant inputs (packed weights). Where it is not 0, the object also
            has `int32_t accel_prepare(...)` with accel_main's parameters, to be called once with `arena` pointing at that
            memory (64-byte aligned); accel_main finds its address as the last entry of `buffers`.
        max_contexts: the most threads a call may use (scratch in the arena is laid out for that many).
    """

    name: str
    units: tuple[tuple[str, str], ...]
    vlen_bytes: int
    inputs: tuple[TensorArg, ...]
    outputs: tuple[TensorArg, ...]
    symbols: tuple[str, ...] = ()
    arena_bytes: int | str = 0
    n_counters: int = 0
    n_blocks: int = 0
    max_contexts: int = 1
    prepared_bytes: int = 0
