"""Reading at computed positions: gather, advanced indexing, index_select, take.

ATen -> a Gather expression; out-of-range positions raise IndexError at run time as eager does.
"""

from __future__ import annotations

import dataclasses

import torch

from ..index_expr import Dim, render
from ..registry import lowering
from ..values import Graph, Unsupported, Value, broadcast_sizes
from .join import common_dtype
from .pointwise import require
from ...csrc.abi import STATUS_REPEATS

__all__ = ["Indexed", "binary_search", "indexed_dims", "ranked", "sums_to"]

aten = torch.ops.aten


def ranked(x: Value) -> Value:
    """`x` with at least one dim."""
    return x if x.rank else x.unsqueeze(0)


@lowering(aten.gather.default)
def gather(g: Graph, x: Value, dim: int, index: Value, *, sparse_grad: bool = False) -> Value:
    if x.rank == 0 or index.rank == 0:
        return gather(g, ranked(x), 0, ranked(index)).reshape(index.sizes)
    dim %= x.rank
    return g.gather(x, [(dim, index)], index.sizes, [None if d == dim else d for d in range(x.rank)])


@lowering(aten.index_select.default)
def index_select(g: Graph, x: Value, dim: int, index: Value) -> Value:
    source, index = ranked(x), ranked(index)
    dim %= source.rank
    sizes = (*source.sizes[:dim], index.sizes[0], *source.sizes[dim + 1:])
    along = index.reshape([index.sizes[0], *[1] * (source.rank - dim - 1)])
    result = g.gather(source, [(dim, along)], sizes, [None if d == dim else d for d in range(source.rank)])
    return result if x.rank else result.reshape(())


@lowering(aten.take.default)
def take(g: Graph, x: Value, index: Value) -> Value:
    return g.gather(x.reshape([x.numel]), [(0, g.from_end(index, x.numel))], index.sizes, [None])


@dataclasses.dataclass(frozen=True)
class Indexed:
    """Advanced indexing as gather and scatter take it.

    Attributes:
        sizes: of the result.   indices: (dim, index over the broadcast dims, lifted to their place in `sizes`).
        position: per dim of the indexed tensor its place in `sizes`, None where an index tensor stands.
    """

    sizes: tuple[Dim, ...]
    indices: tuple[tuple[int, Value], ...]
    position: tuple[int | None, ...]


def indexed_dims(g: Graph, x: Value, indices) -> Indexed:
    """Where the dims of x[indices] come from, by numpy's rules; None stands for a whole dim, negative indices count from the end.

    Raises:
        Unsupported: a boolean mask, whose count depends on data.
    """
    chosen = [(d, i) for d, i in enumerate(indices) if i is not None]
    for _, index in chosen:
        if index.dtype in ("bool", "u8"):
            raise Unsupported(f"data-dependent shape: the index is a mask of sizes [{', '.join(map(render, index.sizes))}]")
    shared = broadcast_sizes(*(i.sizes for _, i in chosen))
    dims = [d for d, _ in chosen]
    is_adjacent = dims == list(range(dims[0], dims[0] + len(dims)))
    kept = [d for d in range(x.rank) if d not in dims]
    place = dims[0] if is_adjacent else 0
    before, after = kept[:place], kept[place:]
    sizes = (*(x.sizes[d] for d in before), *shared, *(x.sizes[d] for d in after))
    where = {d: k for k, d in enumerate(before)} | {d: len(before) + len(shared) + k for k, d in enumerate(after)}
    lifted = tuple((d, g.from_end(i.reshape([*i.sizes, *[1] * len(after)]), x.sizes[d])) for d, i in chosen)
    return Indexed(sizes, lifted, tuple(where.get(d) for d in range(x.rank)))


# Boolean masks stay eager: their result's size depends on data.
@lowering(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(g: Graph, x: Value, indices) -> Value:
    if all(i is None for i in indices):
        return x
    found = indexed_dims(g, x, indices)
    return g.gather(x, found.indices, found.sizes, found.position)


@lowering(aten._unsafe_masked_index.default)
def unsafe_masked_index(g: Graph, x: Value, mask: Value, indices, fill) -> Value:
    found = indexed_dims(g, x, indices)
    taken = g.gather(x, found.indices, found.sizes, found.position, guard=mask)
    return taken.where(mask, fill)


_SYMBOLIC_BITS = 40  # probes where the size is not known: enough for any tensor that fits memory


def binary_search(g: Graph, sequence: Value, value: Value, right: bool, sorter: Value | None = None) -> Value:
    """Number of elements of `sequence` (along its last dim) that are < value, or <= value with `right`; one probe per bit of its size."""
    size = sequence.sizes[-1]
    n_bits = size.bit_length() if isinstance(size, int) else _SYMBOLIC_BITS
    batch = range(sequence.rank - 1)
    position = g.constant(0, "i64", value.sizes)
    for step in (1 << bit for bit in reversed(range(n_bits))):
        candidate = g.realize(position) + step
        is_inside = candidate <= g.constant(size, "i64")
        probe = candidate - 1
        if sorter is not None:
            probe = g.gather(sorter, [(sorter.rank - 1, probe)], value.sizes, [*batch, None], guard=is_inside)
        element = g.gather(sequence, [(sequence.rank - 1, probe)], value.sizes, [*batch, None], guard=is_inside)
        is_before = ~(element > value) if right else ~(element >= value)
        position = candidate.where(is_inside & is_before, position)
    return position


def _searched(g: Graph, sequence: Value, value: Value, out_int32: bool, right: bool, side: str | None, sorter: Value | None) -> Value:
    right = side == "right" if side is not None else right
    dtype = common_dtype(frozenset((sequence.dtype, value.dtype)))
    if sequence.rank > 1 and value.rank != sequence.rank:
        raise Unsupported(f"searchsorted of a {value.rank}-d value in {sequence.rank}-d sequences")
    position = binary_search(g, g.cast(sequence, dtype), g.cast(value, dtype), right, sorter)
    return g.cast(position, "i32" if out_int32 else "i64")


@lowering(aten.searchsorted.Tensor)
def searchsorted(g: Graph, sequence: Value, value: Value, *, out_int32: bool = False, right: bool = False, side=None, sorter: Value | None = None) -> Value:
    return _searched(g, sequence, value, out_int32, right, side, sorter)


@lowering(aten.searchsorted.Scalar)
def searchsorted_scalar(g: Graph, sequence: Value, value, *, out_int32: bool = False, right: bool = False, side=None, sorter: Value | None = None) -> Value:
    return _searched(g, sequence, g.constant(value, sequence.dtype), out_int32, right, side, sorter)


@lowering(aten.bucketize.Tensor)
def bucketize(g: Graph, value: Value, boundaries: Value, *, out_int32: bool = False, right: bool = False) -> Value:
    return _searched(g, boundaries, value, out_int32, right, None, None)


@lowering(aten.bucketize.Scalar)
def bucketize_scalar(g: Graph, value, boundaries: Value, *, out_int32: bool = False, right: bool = False) -> Value:
    return _searched(g, boundaries, g.constant(value, boundaries.dtype), out_int32, right, None, None)


def sums_to(g: Graph, ends: Value, dim: int, total: Dim) -> Value:
    """Whether the last of the running sums `ends` along dim is `total`: a condition per element, true of all others."""
    is_inner = g.index(ends.sizes, dim) < g.constant(ends.sizes[dim] - 1, "i64")
    return is_inner | ends.equals(g.constant(total, "i64"))


# Where output_size is given; else the size depends on data.
@lowering(aten.repeat_interleave.Tensor)
def repeat_interleave(g: Graph, repeats: Value, *, output_size: Dim | None = None) -> Value:
    if output_size is None:
        raise Unsupported("data-dependent shape: the number of repeats is known only when the graph runs")
    if repeats.sizes[0] == 0:
        return g.constant(0, repeats.dtype, (output_size,))
    (ends,) = g.scan("sum", g.cast(repeats, "i64"), 0)
    repeats_fit = sums_to(g, ends, 0, output_size) & (g.cast(repeats, "i64") >= 0)
    ends = g.realize(require(g, ends, repeats_fit, STATUS_REPEATS))
    return g.cast(binary_search(g, ends, g.index((output_size,), 0), True), repeats.dtype)
