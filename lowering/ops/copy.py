"""Copies: clone, copy and the in-place copy that AOTAutograd leaves at a graph's end."""

from __future__ import annotations

import torch

from ..registry import lowering
from ..values import Graph, Value

aten = torch.ops.aten


@lowering(aten.clone.default, aten.contiguous.default)
def clone(g: Graph, x: Value, memory_format=None) -> Value:
    return x


@lowering(aten.copy.default)
def copy(g: Graph, x: Value, source: Value, non_blocking: bool = False) -> Value:
    return g.cast(source, x.dtype).expand(x.sizes)


@lowering(aten.copy_.default, mutates=0)
def copy_(g: Graph, x: Value, source: Value, non_blocking: bool = False) -> Value:
    return g.cast(source, x.dtype).expand(x.sizes)


@lowering(aten.narrow_copy.default)
def narrow_copy(g: Graph, x: Value, dim: int, start, length) -> Value:
    start = x.sizes[dim] + start if isinstance(start, int) and start < 0 else start
    return x.slice(dim, start, start + length)


# A scatter-add over the windows.
@lowering(aten.unfold_backward.default)
def unfold_backward(g: Graph, grad: Value, input_sizes, dim: int, size: int, step: int) -> Value:
    from .join import copied

    base = copied(g, g.constant(0, grad.dtype, input_sizes))
    rank = len(input_sizes)
    if rank == 0:
        return grad.reshape(input_sizes)
    dim %= rank
    strides = base.expr.strides
    target = [step * s if d == dim else s for d, s in enumerate(strides)] + [strides[dim]]
    g.scatter(base.expr.buffer, 0, target, (), grad, "add")
    return base
