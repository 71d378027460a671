"""Tables of rows: embedding and embedding_bag, forward and backward."""

from __future__ import annotations

import math

import torch

from ..index_expr import Dim
from ..registry import lowering
from ..values import Graph, Unsupported, Value
from .index import binary_search
from .join import copied
from .reduce import norm_over, opmath, reduce_over
from .scatter import zeros

aten = torch.ops.aten


@lowering(aten.embedding.default)
def embedding(g: Graph, weight: Value, indices: Value, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False) -> Value:
    sizes = (*indices.sizes, weight.sizes[1])
    return g.gather(weight, [(0, indices.unsqueeze(-1))], sizes, [None, len(sizes) - 1])


@lowering(aten.embedding_dense_backward.default)
def embedding_dense_backward(g: Graph, grad: Value, indices: Value, num_weights, padding_idx: int, scale_grad_by_freq: bool) -> Value:
    width = grad.sizes[-1]
    indices = g.realize(indices).reshape([-1])
    rows = g.cast(grad, opmath(grad.dtype)).reshape([-1, width])
    along = indices.reshape([-1, 1])
    if scale_grad_by_freq:
        count = zeros(g, rows.dtype, (num_weights,))
        g.scatter(count.expr.buffer, 0, [0], [(indices, num_weights, 1)], g.constant(1.0, rows.dtype, indices.sizes), "add")
        rows = rows / g.gather(count, [(0, along)], rows.sizes, [None])
    if padding_idx >= 0:
        rows = g.constant(0.0, rows.dtype).where(along.equals(padding_idx), rows)
    base = zeros(g, rows.dtype, (num_weights, width))
    if rows.numel != 0:
        g.scatter(base.expr.buffer, 0, [0, 1], [(along, num_weights, width)], rows, "add")
    return g.cast(base, grad.dtype)


@lowering(aten.embedding_renorm.default)
def embedding_renorm(g: Graph, weight: Value, indices: Value, max_norm: float, norm_type: float) -> Value:
    """Rows that are looked up and longer than max_norm, shortened; every copy of an index writes the same row."""
    base = copied(g, weight)
    indices = g.realize(indices).reshape([-1, 1])
    if indices.numel == 0:
        return base
    rows = g.realize(g.cast(embedding(g, weight, indices.squeeze([1])), opmath(weight.dtype)))
    length = g.realize(norm_over(g, rows, float(norm_type), [1], True))
    shortened = rows * (float(max_norm) / (length + _RENORM_EPS))
    g.scatter(base.expr.buffer, 0, [0, 1], [(indices, *weight.sizes)], g.cast(shortened.where(length > float(max_norm), rows), weight.dtype), "set")
    return base


_RENORM_EPS = 1e-7  # of eager's kernel
_SUM, _MEAN, _MAX = 0, 1, 2
_NOWHERE = 2**62  # above every position


def _bags(g: Graph, indices: Value, offsets: Value) -> Value:
    """The bag of every index: the last one that begins at or before its position."""
    position = g.index(indices.sizes, 0)
    return g.realize(binary_search(g, g.cast(offsets, "i64"), position, True) - 1)


def _bag_results(g: Graph, weight: Value, indices: Value, offsets: Value, mode: int, per_sample_weights: Value | None, include_last_offset: bool, padding_idx: int) -> tuple[Value, ...]:
    """(rows per bag, bag of every index, indices that count per bag); of maxima also where they come from."""
    width, n_bags = weight.sizes[1], offsets.sizes[0] - int(include_last_offset)
    indices = g.realize(g.cast(indices, "i64"))
    bags = _bags(g, indices, offsets)
    if mode == _MAX:
        return _bag_maxima(g, weight, indices, bags, n_bags, padding_idx)
    rows = g.cast(embedding(g, weight, indices), opmath(weight.dtype))
    if per_sample_weights is not None:
        rows = rows * g.cast(per_sample_weights, rows.dtype).unsqueeze(-1)
    counts_one = g.constant(1, "i64", indices.sizes)
    if padding_idx >= 0:
        is_padding = indices.equals(padding_idx)
        rows = g.constant(0.0, rows.dtype).where(is_padding.unsqueeze(-1), rows)
        counts_one = g.constant(0, "i64").where(is_padding, counts_one)
    base, count = zeros(g, rows.dtype, (n_bags, width)), zeros(g, "i64", (n_bags,))
    g.scatter(base.expr.buffer, 0, [0, 1], [(bags.unsqueeze(-1), n_bags, width)], rows, "add")
    g.scatter(count.expr.buffer, 0, [0], [(bags, n_bags, 1)], counts_one, "add")
    if mode == _MEAN:
        base = base / g.cast(g.map("maximum", count, g.constant(1, "i64")), base.dtype).unsqueeze(-1)
    return g.cast(base, weight.dtype), bags, count


def _bag_maxima(g: Graph, weight: Value, indices: Value, bags: Value, n_bags: Dim, padding_idx: int) -> tuple[Value, Value, Value, Value]:
    """(largest row per bag, bag of every index, indices that count per bag, the index that each largest element comes from)."""
    width = weight.sizes[1]
    sizes, lifted = (*indices.sizes, width), bags.unsqueeze(-1)
    if padding_idx >= 0:  # padding goes to a bag more
        lifted = g.realize(g.constant(n_bags, "i64").where(indices.equals(padding_idx).unsqueeze(-1), lifted))
    rows = g.realize(embedding(g, weight, indices))
    most, first = (copied(g, g.constant(value, dtype, (n_bags + 1, width))) for value, dtype in ((-math.inf, weight.dtype), (_NOWHERE, "i64")))
    count = zeros(g, "i64", (n_bags + 1,))
    g.scatter(most.expr.buffer, 0, [0, 1], [(lifted, n_bags + 1, width)], rows, "max")
    largest = g.gather(most, [(0, lifted)], sizes, [None, 1])
    position = g.constant(_NOWHERE, "i64").where(~rows.equals(largest), g.index(sizes, 0))
    g.scatter(first.expr.buffer, 0, [0, 1], [(lifted, n_bags + 1, width)], position, "min")
    g.scatter(count.expr.buffer, 0, [0], [(lifted.squeeze([1]), n_bags + 1, 1)], g.constant(1, "i64", indices.sizes), "add")
    most, first, count = (value.slice(0, 0, n_bags) for value in (most, first, count))
    is_found = g.realize(first < g.constant(_NOWHERE, "i64"))
    winner = g.gather(indices, [(0, first)], first.sizes, [None], guard=is_found)
    return most.where(count.unsqueeze(-1) > 0, 0.0), bags, count, winner.where(is_found, 0)


def _with_auxiliaries(g: Graph, indices: Value, mode: int, results, n_sizes: Dim, n_bags: Dim):
    """The four results as eager's CPU kernel gives them: a sum keeps no bag sizes, and where the fake tensors say so no bag of an index.

    Eager keeps none for bfloat16 either, but its fake tensors do; the gradient is traced with them.
    """
    out, bags, count, *winner = results
    dtype = indices.dtype
    if mode == _MAX:
        return out, g.cast(bags, dtype), g.cast(count, dtype), g.cast(winner[0], dtype)
    if mode == _SUM:
        count = g.constant(0, "i64", (n_bags,))
        bags = g.constant(0, "i64", (0,)) if g.result_sizes()[1] == (0,) else bags
    size = count if n_sizes == n_bags else g.constant(0, "i64", (n_sizes,))
    return out, g.cast(bags, dtype), g.cast(size, dtype), g.cast(count, dtype)


@lowering(aten._embedding_bag.default)
def embedding_bag(g: Graph, weight: Value, indices: Value, offsets: Value, scale_grad_by_freq: bool = False, mode: int = 0, sparse: bool = False, per_sample_weights: Value | None = None, include_last_offset: bool = False, padding_idx: int = -1):
    results = _bag_results(g, weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx)
    n_bags = offsets.sizes[0] - int(include_last_offset)
    return _with_auxiliaries(g, indices, mode, results, n_bags, n_bags)


@lowering(aten._embedding_bag_forward_only.default)
def embedding_bag_forward_only(g: Graph, weight: Value, indices: Value, offsets: Value, scale_grad_by_freq: bool = False, mode: int = 0, sparse: bool = False, per_sample_weights: Value | None = None, include_last_offset: bool = False, padding_idx: int = -1):
    results = _bag_results(g, weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx)
    n_bags = offsets.sizes[0] - int(include_last_offset)
    return _with_auxiliaries(g, indices, mode, results, offsets.sizes[0], n_bags)


@lowering(aten._embedding_bag_dense_backward.default)
def embedding_bag_dense_backward(g: Graph, grad: Value, indices: Value, offset2bag: Value, bag_size: Value, maximum_indices: Value, num_weights: Dim, scale_grad_by_freq: bool, mode: int, per_sample_weights: Value | None, padding_idx: int = -1) -> Value:
    rows = g.cast(grad, opmath(grad.dtype))
    if mode == _MAX:
        return g.cast(_bag_maxima_backward(g, rows, bag_size, maximum_indices, num_weights), grad.dtype)
    if mode == _MEAN:
        rows = rows / g.cast(g.map("maximum", g.cast(bag_size, "i64"), g.constant(1, "i64")), rows.dtype).unsqueeze(-1)
    bags = g.realize(offset2bag).unsqueeze(-1)
    shares = g.gather(rows, [(0, bags)], (*indices.sizes, grad.sizes[1]), [None, 1])
    if per_sample_weights is not None:
        shares = shares * g.cast(per_sample_weights, shares.dtype).unsqueeze(-1)
    return g.cast(embedding_dense_backward(g, shares, indices, num_weights, padding_idx, scale_grad_by_freq), grad.dtype)


@lowering(aten._embedding_bag_backward.default)
def embedding_bag_backward(g: Graph, grad: Value, indices: Value, offsets: Value, offset2bag: Value, bag_size: Value, maximum_indices: Value, num_weights: Dim, scale_grad_by_freq: bool, mode: int, sparse: bool, per_sample_weights: Value | None, padding_idx: int = -1) -> Value:
    if sparse:
        raise Unsupported("a sparse gradient: only strided tensors are compiled")
    bags = _bags(g, g.realize(indices), offsets) if offset2bag.sizes == (0,) else offset2bag
    return embedding_bag_dense_backward(g, grad, indices, bags, bag_size, maximum_indices, num_weights, scale_grad_by_freq, mode, per_sample_weights, padding_idx)


def _bag_maxima_backward(g: Graph, rows: Value, bag_size: Value, maximum_indices: Value, num_weights: Dim) -> Value:
    """Every element of a bag that is not empty goes to the row that it came from."""
    base = zeros(g, rows.dtype, (num_weights, rows.sizes[1]))
    if rows.numel != 0:
        kept = rows.where((bag_size > 0).unsqueeze(-1), 0.0)
        g.scatter(base.expr.buffer, 0, [0, 1], [(maximum_indices, num_weights, rows.sizes[1])], kept, "add")
    return base


@lowering(aten._embedding_bag_per_sample_weights_backward.default)
def embedding_bag_weights_backward(g: Graph, grad: Value, weight: Value, indices: Value, offsets: Value, offset2bag: Value, mode: int, padding_idx: int = -1) -> Value:
    indices = g.realize(g.cast(indices, "i64"))
    wide, sizes = opmath(grad.dtype), (*indices.sizes, grad.sizes[1])
    bags = _bags(g, indices, offsets) if offset2bag.sizes == (0,) else g.realize(offset2bag)
    rows = g.cast(g.gather(grad, [(0, bags.unsqueeze(-1))], sizes, [None, 1]), wide)
    total = reduce_over(g, "sum", rows * g.cast(embedding(g, weight, indices), wide), [1])
    if padding_idx >= 0:
        total = g.constant(0.0, wide).where(indices.equals(padding_idx), total)
    return g.cast(total, grad.dtype)
