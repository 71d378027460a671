"""Views: the same elements under other sizes. Nothing here computes; most cost nothing.

ATen view overloads -> substitutions of affine indices in a lazy Value.
"""

from __future__ import annotations

import torch

from ..index_expr import Dim, IndexExpr, exact_div, floordiv, is_never_negative, maximum, minimum, mod, render
from ..registry import lowering
from ..strides import contiguous_strides
from ..tensor_ir import Load
from ..values import Graph, Unsupported, Value

__all__ = ["diagonal_of", "restrided", "slice_bounds", "wrap_index"]

aten = torch.ops.aten
_NO_END = 2**31  # slice ends from here on mean "to the end"


@lowering(aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.view_copy.default, aten._reshape_copy.default)
def view(g: Graph, x: Value, sizes) -> Value:
    return x.reshape(sizes if g.result_sizes is None else g.result_sizes()[0])  # there -1 is worked out, as guards allow


@lowering(aten.permute.default, aten.permute_copy.default)
def permute(g: Graph, x: Value, dims) -> Value:
    return x.permute(dims)


@lowering(aten.t.default, aten.t_copy.default, aten.numpy_T.default)
def t(g: Graph, x: Value) -> Value:
    return x.permute(range(x.rank)[::-1])


@lowering(aten.transpose.int, aten.transpose_copy.int)
def transpose(g: Graph, x: Value, dim0: int, dim1: int) -> Value:
    if x.rank == 0:
        return x
    order = list(range(x.rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return x.permute(order)


@lowering(aten.unsqueeze.default, aten.unsqueeze_copy.default)
def unsqueeze(g: Graph, x: Value, dim: int) -> Value:
    return x.unsqueeze(dim)


@lowering(aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze_copy.default, aten.squeeze_copy.dim, aten.squeeze_copy.dims)
def squeeze(g: Graph, x: Value, dims=None) -> Value:
    return x.squeeze([dims] if isinstance(dims, int) else dims)


@lowering(aten.expand.default, aten.expand_copy.default)
def expand(g: Graph, x: Value, sizes, implicit: bool = False) -> Value:
    return x.expand(sizes)


@lowering(aten.alias.default, aten.detach.default, aten.alias_copy.default, aten.detach_copy.default, aten.lift_fresh_copy.default, aten.lift_fresh.default, aten.lift.default)
def alias(g: Graph, x: Value) -> Value:
    return x


def wrap_index(g: Graph, index: Dim, size: Dim) -> Dim:
    """An index that may count from the end, as one from the start."""
    return size + index if g.is_below_zero(index) else index


def slice_bounds(g: Graph, size: Dim, start: Dim | None, end: Dim | None) -> tuple[Dim, Dim]:
    """Start and end of x[start:end] clamped to [0, size]; a symbolic bound is not known to be at most `size`."""
    begin = wrap_index(g, 0 if start is None else start, size)
    begin = 0 if start is not None and begin is not start and g.is_below_zero(begin) else begin
    stop = size if end is None or isinstance(end, int) and end >= _NO_END else wrap_index(g, end, size)
    if isinstance(size, int):
        begin = min(max(begin, 0), size) if isinstance(begin, int) else begin
        stop = min(max(stop, 0), size) if isinstance(stop, int) else stop
    if isinstance(begin, int) and isinstance(stop, int):
        stop = max(stop, begin)
    return begin, stop


@lowering(aten.slice.Tensor, aten.slice_copy.Tensor)
def slice_(g: Graph, x: Value, dim: int = 0, start=None, end=None, step: int = 1) -> Value:
    begin, stop = slice_bounds(g, x.sizes[dim], start, end)
    if not isinstance(step, int):
        raise Unsupported(f"slice with a symbolic step, got {render(step)}")
    if g.result_sizes is not None:
        length = g.result_sizes()[0][dim]  # guards know on which side of a symbolic size a bound lies
        if length == x.sizes[dim]:
            return x
        stop = begin + (length - 1) * step + 1
    return x.slice(dim, begin, stop, step)


@lowering(aten.select.int, aten.select_copy.int)
def select(g: Graph, x: Value, dim: int, index: Dim) -> Value:
    return x.select(dim, wrap_index(g, index, x.sizes[dim]))


@lowering(aten.split.Tensor, aten.unsafe_split.Tensor, aten.split_copy.Tensor)
def split(g: Graph, x: Value, split_size: Dim, dim: int = 0) -> list[Value]:
    size = x.sizes[dim]
    if size == split_size or split_size == 0:
        return [x]
    count = -(-size // split_size) if isinstance(size, int) and isinstance(split_size, int) else exact_div(size, split_size)
    if not isinstance(count, int) and g.result_sizes is not None:  # the number of pieces is fixed for a graph, by a guard
        count = len(g.result_sizes())
    if not isinstance(count, int):
        raise Unsupported(f"split of size {render(size)} by {render(split_size)}: the number of pieces depends on a symbolic size")
    ends = [(i + 1) * split_size for i in range(max(count, 1) - 1)] + [size]
    return [x.slice(dim, i * split_size, end) for i, end in enumerate(ends)]


@lowering(aten.split_with_sizes.default, aten.unsafe_split_with_sizes.default, aten.split_with_sizes_copy.default)
def split_with_sizes(g: Graph, x: Value, sizes, dim: int = 0) -> list[Value]:
    starts = [sum(sizes[:i], 0) for i in range(len(sizes))]
    return [x.slice(dim, start, start + size) for start, size in zip(starts, sizes)]


@lowering(aten.unbind.int, aten.unbind_copy.int)
def unbind(g: Graph, x: Value, dim: int = 0) -> list[Value]:
    if not isinstance(x.sizes[dim], int):
        raise Unsupported(f"unbind of a dim of symbolic size {render(x.sizes[dim])}")
    return [x.select(dim, i) for i in range(x.sizes[dim])]


@lowering(aten.unfold.default, aten.unfold_copy.default)
def unfold(g: Graph, x: Value, dim: int, size: int, step: int) -> Value:
    if x.rank == 0:
        return x.unsqueeze(0).expand([size])
    dim %= x.rank
    count = floordiv(x.sizes[dim] - size, step) + 1
    matrix = [[int(k == d) for k in range(x.rank + 1)] for d in range(x.rank)]
    matrix[dim][dim], matrix[dim][x.rank] = step, 1
    return x.substitute_dims((*x.sizes[:dim], count, *x.sizes[dim + 1:], size), (0,) * x.rank, matrix)


def diagonal_of(x: Value, offset: int, dim1: int, dim2: int) -> Value:
    """The diagonal x[…, i, i + offset] as a last dim."""
    dim1, dim2 = dim1 % x.rank, dim2 % x.rank
    row, column = max(-offset, 0), max(offset, 0)
    height, width = x.sizes[dim1] - row, x.sizes[dim2] - column
    length = max(min(height, width), 0) if isinstance(height, int) and isinstance(width, int) else maximum(0, minimum(height, width)) if offset else minimum(height, width)
    rest = [d for d in range(x.rank) if d not in (dim1, dim2)]
    origin = [row if d == dim1 else column if d == dim2 else 0 for d in range(x.rank)]
    matrix = [[int(d == r) for r in rest] + [int(d in (dim1, dim2))] for d in range(x.rank)]
    return x.substitute_dims([*(x.sizes[d] for d in rest), length], origin, matrix)


@lowering(aten.diagonal.default, aten.diagonal_copy.default)
def diagonal(g: Graph, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    found = diagonal_of(x, offset, dim1, dim2)
    if isinstance(found.sizes[-1], int) or g.result_sizes is None:
        return found
    return found._with((*found.sizes[:-1], g.result_sizes()[0][-1]), found.expr)  # guards know whether the offset is within the sizes


# Within the memory of a partition's input, or of a value without gaps.
@lowering(aten.as_strided.default, aten.as_strided_copy.default)
def as_strided(g: Graph, x: Value, sizes, strides, storage_offset: Dim | None = None) -> Value:
    load, offset = restrided(g, x, sizes, strides, storage_offset)
    return x._with(tuple(sizes), Load(load.buffer, offset, tuple(strides)))


def restrided(g: Graph, x: Value, sizes, strides, storage_offset: Dim | None) -> tuple[Load, Dim]:
    """A Load of `x` in eager's layout, and the offset from its first element at which as_strided's arguments begin.

    Raises:
        Unsupported: a computed value has gaps in eager's layout, or the arguments reach elements of the storage that `x` does not have.
    """
    layout, described = g.layout_of(x), f"a tensor of sizes [{', '.join(map(render, x.sizes))}]"
    load = x.expr
    is_laid_out = layout and isinstance(load, Load) and load.guard is None and load.offset == 0 and load.strides == load.buffer.strides == layout.strides
    if layout is None or not (is_laid_out and load.buffer.kind in ("input", "const") or _is_dense(x.sizes, layout.strides)):
        raise Unsupported(f"as_strided on {described} that does not fill its storage without gaps")
    load = load if is_laid_out else g.realize(x, strides=layout.strides).expr
    offset = 0 if storage_offset is None else storage_offset - layout.offset
    extent = offset + sum(((size - 1) * stride for size, stride in zip(sizes, strides)), 1)
    span = load.buffer.n_elements
    is_known = isinstance(offset, int) and isinstance(extent, int) and isinstance(span, int)
    if 0 not in sizes and (not is_known or offset < 0 or extent > span):
        raise Unsupported(f"as_strided from {render(offset)} to {render(extent)} reaches storage outside of {described}")
    return load, offset


def _is_dense(sizes, strides) -> bool:
    """Whether strides lead to every element of a gapless piece of memory once; symbolic sizes only in row-major order."""
    if tuple(strides) == contiguous_strides(sizes):
        return True
    if not all(isinstance(number, int) for number in (*sizes, *strides)):
        return False
    extent = 1
    for stride, size in sorted((stride, size) for size, stride in zip(sizes, strides) if size != 1):
        if stride != extent:
            return False
        extent *= size
    return True


@lowering(aten.flip.default)
def flip(g: Graph, x: Value, dims) -> Value:
    return x.flip(dims) if x.rank else x


@lowering(aten.roll.default)
def roll(g: Graph, x: Value, shifts, dims=()) -> Value:
    if not dims:
        return roll(g, x.reshape([x.numel]), [shifts[0]], [0]).reshape(x.sizes)
    for shift, dim in zip(shifts, dims):
        x = _roll_dim(g, x, shift, dim)
    return x


def _roll_dim(g: Graph, x: Value, shift: Dim, dim: int) -> Value:
    from .join import concatenate

    size = x.sizes[dim]
    if size == 0:
        return x
    if isinstance(shift, IndexExpr) and not is_never_negative(shift):
        raise Unsupported(f"roll by a symbolic shift that may be negative, got {render(shift)}")
    # the operand of mod may not be negative
    if isinstance(shift, IndexExpr):
        start = mod(size - mod(shift, size), size)
    else:
        start = (-shift) % size if isinstance(size, int) else mod(size * abs(shift) - shift, size)
    return concatenate(g, [x.slice(dim, start, size), x.slice(dim, 0, start)], dim)


@lowering(aten.repeat.default)
def repeat(g: Graph, x: Value, repeats) -> Value:
    own = (1,) * (len(repeats) - x.rank) + x.sizes
    sizes = tuple(r * s for r, s in zip(repeats, own))
    pairs = [d for pair in zip(repeats, own) for d in pair]
    lifted = x.reshape([d for size in own for d in (1, size)])
    return lifted.expand(pairs).reshape(sizes)


def _divided(size: Dim, divisor: int, what: str) -> Dim:
    """size / divisor, which must leave no rest."""
    quotient = exact_div(size, divisor)
    if quotient is None:
        raise Unsupported(f"{what} of size {render(size)} by {divisor}: the division is not known to be exact")
    return quotient


@lowering(aten.pixel_shuffle.default)
def pixel_shuffle(g: Graph, x: Value, factor: int) -> Value:
    *batch, channels, height, width = x.sizes
    out_channels = _divided(channels, factor * factor, "pixel_shuffle")
    n = len(batch)
    split_up = x.reshape([*batch, out_channels, factor, factor, height, width])
    return split_up.permute([*range(n), n, n + 3, n + 1, n + 4, n + 2]).reshape([*batch, out_channels, height * factor, width * factor])


@lowering(aten.pixel_unshuffle.default)
def pixel_unshuffle(g: Graph, x: Value, factor: int) -> Value:
    *batch, channels, height, width = x.sizes
    rows, columns = _divided(height, factor, "pixel_unshuffle"), _divided(width, factor, "pixel_unshuffle")
    n = len(batch)
    split_up = x.reshape([*batch, channels, rows, factor, columns, factor])
    return split_up.permute([*range(n), n, n + 2, n + 4, n + 1, n + 3]).reshape([*batch, channels * factor * factor, rows, columns])


@lowering(aten.channel_shuffle.default, fixed=lambda x, groups: x.shape[1:2])
def channel_shuffle(g: Graph, x: Value, groups: int) -> Value:
    batch, channels, *rest = x.sizes
    order = [0, 2, 1, *range(3, 3 + len(rest))]
    return x.reshape([batch, groups, _divided(channels, groups, "channel_shuffle"), *rest]).permute(order).reshape(x.sizes)


def _triangle(g: Graph, x: Value, diagonal: int, is_lower: bool) -> Value:
    row, column = g.index(x.sizes, -2), g.index(x.sizes, -1)
    kept = column <= row + diagonal if is_lower else column >= row + diagonal
    return x.where(kept, 0)


@lowering(aten.tril.default)
def tril(g: Graph, x: Value, diagonal: int = 0) -> Value:
    return _triangle(g, x, diagonal, True)


@lowering(aten.triu.default)
def triu(g: Graph, x: Value, diagonal: int = 0) -> Value:
    return _triangle(g, x, diagonal, False)
