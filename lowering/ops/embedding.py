"""Tables of rows: embedding and embedding_bag, forward and backward."""

from __future__ import annotations

import torch

from ..registry import lowering
from ..values import Graph, Value
from .reduce import opmath
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
