"""Scaled dot-product attention: forward over the template "attention", backward over the template "gemm".

query [batch, heads, length, width], key and value [batch, key heads, key length, width]: heads may be a multiple of key heads.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from ..index_expr import Dim, exact_div, render
from ..kernels.attention import AttentionParams
from ..registry import lowering
from ..values import Graph, Unsupported, Value
from .matmul import matrix_product
from .reduce import opmath, reduce_over

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Attention:
    """Operands as [batch, key heads, heads per key head, length, width], so that heads that share a key broadcast."""

    query: Value
    key: Value
    value: Value
    mask: Value | None
    scale: float
    is_causal: bool

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """Sizes of the score matrix."""
        return (*self.query.sizes[:4], self.key.sizes[3])


def _grouped(x: Value, key_heads: Dim, shared: Dim) -> Value:
    """[batch, heads, …] as [batch, key heads, heads per key head, …]."""
    batch, heads, *rest = x.sizes
    if heads == key_heads and shared != 1:
        return x.unsqueeze(2).expand([batch, key_heads, shared, *rest])
    return x.reshape([batch, key_heads, shared, *rest])


def _attention(g: Graph, query: Value, key: Value, value: Value, mask: Value | None, is_causal: bool, scale: float | None) -> Attention:
    if query.rank != 4:
        raise Unsupported(f"attention on {query.rank}-d operands")
    width, heads, key_heads = query.sizes[-1], query.sizes[1], key.sizes[1]
    shared = exact_div(heads, key_heads)
    if shared is None:
        raise Unsupported(f"attention of {render(heads)} heads over {render(key_heads)} key heads")
    if scale is None:
        if not isinstance(width, int):
            raise Unsupported(f"attention over a head of symbolic width {render(width)}")
        scale = 1.0 / math.sqrt(width) if width else 1.0
    if mask is not None:
        # Heads share a computed mask: it is computed once, unless a single row makes that a kernel for next to nothing.
        is_shared = mask.cost and query.sizes[2] != 1 and (mask.rank < 4 or mask.sizes[1] == 1)
        mask = _grouped_mask(g.realize(mask) if is_shared else mask, key_heads, shared)
    return Attention(_grouped(query, key_heads, shared), _grouped(key, key_heads, shared), _grouped(value, key_heads, shared), mask, float(scale), is_causal)


def _grouped_mask(mask: Value, key_heads: Dim, shared: Dim) -> Value:
    """A mask broadcastable to [batch, heads, length, key length], lifted to the grouped sizes."""
    while mask.rank < 4:
        mask = mask.unsqueeze(0)
    return mask.unsqueeze(2) if mask.sizes[1] == 1 else _grouped(mask, key_heads, shared)


def _masked(g: Graph, a: Attention, scores: Value) -> Value:
    """scale * scores plus the mask; -inf where the mask lets a query not look."""
    scores = scores * a.scale
    if a.mask is None:
        return scores
    return scores.where(a.mask, -math.inf) if a.mask.dtype == "bool" else scores + g.cast(a.mask, scores.dtype)


def _scores(g: Graph, a: Attention) -> Value:
    """The whole score matrix, for the backward."""
    scores = _masked(g, a, matrix_product(g, a.query, a.key.permute([0, 1, 2, 4, 3])))
    if a.is_causal:
        scores = scores.where(g.index(a.sizes, 4) <= g.index(a.sizes, 3), -math.inf)
    return g.realize(scores)


def _forward(g: Graph, a: Attention, dtype: str) -> tuple[Value, Value]:
    """(output, logsumexp of every row, in f32 or f64); a row that may look at nothing gives 0."""
    wide, width = opmath(dtype), a.value.sizes[4]
    if not isinstance(width, int):
        raise Unsupported(f"attention over values of symbolic width {render(width)}")
    product = g.read(g.buffer(wide, a.sizes))
    params = AttentionParams(a.query.sizes[4], a.key.sizes[3], product.expr.buffer, 0 if a.is_causal else None)
    batch, key_heads, shared, length, _ = a.query.sizes
    # Heads side by side for every query, as the layer behind reads them.
    strides = (length * key_heads * shared * width, shared * width, width, key_heads * shared * width, 1)
    outputs = [(wide, (batch, key_heads, shared, length, width), strides), (wide, (batch, key_heads, shared, length), None)]
    out, total = g.template("attention", [g.cast(a.query, wide), a.key, a.value], outputs, params, [_masked(g, a, product)])
    return g.cast(out, dtype), total


def _ungrouped(x: Value, heads: Dim) -> Value:
    return x.reshape([x.sizes[0], heads, *x.sizes[3:]])


def _head_sizes(query, key, value, *_, **__):
    return query.shape[1], key.shape[1], query.shape[3], value.shape[3]


@lowering(aten._scaled_dot_product_flash_attention_for_cpu.default, fixed=_head_sizes)
def flash_attention(g: Graph, query: Value, key: Value, value: Value, dropout_p: float = 0.0, is_causal: bool = False, *, attn_mask: Value | None = None, scale: float | None = None):
    if dropout_p:
        raise Unsupported(f"attention with dropout, got dropout_p={dropout_p}")
    out, total = _forward(g, _attention(g, query, key, value, attn_mask, is_causal, scale), query.dtype)
    return _ungrouped(out, query.sizes[1]), _ungrouped(total, query.sizes[1])


@lowering(aten._scaled_dot_product_flash_attention_for_cpu_backward.default, fixed=lambda grad, *operands, **_: _head_sizes(*operands))
def flash_attention_backward(g: Graph, grad_out: Value, query: Value, key: Value, value: Value, out: Value, logsumexp: Value, dropout_p: float, is_causal: bool, *, attn_mask: Value | None = None, scale: float | None = None):
    if dropout_p:
        raise Unsupported(f"attention with dropout, got dropout_p={dropout_p}")
    a = _attention(g, query, key, value, attn_mask, is_causal, scale)
    key_heads, shared = a.key.sizes[1], a.query.sizes[2]
    grad, out, total = (_grouped(v, key_heads, shared) for v in (grad_out, out, logsumexp))
    dtype, total = query.dtype, g.cast(total, opmath(query.dtype)).unsqueeze(4)
    scores = _scores(g, a)
    weights = g.realize(g.constant(0.0, scores.dtype).where(scores.equals(-math.inf), g.map("exp", scores - total)))
    slopes = matrix_product(g, grad, a.value.permute([0, 1, 2, 4, 3]))
    products = g.cast(grad, scores.dtype) * g.cast(out, scores.dtype)
    moved = reduce_over(g, "sum", products, [4], True)
    grad_scores = g.cast(g.realize(weights * (slopes - moved) * a.scale), dtype)
    grad_query = matrix_product(g, grad_scores, a.key)
    grad_key = matrix_product(g, grad_scores.permute([0, 1, 2, 4, 3]), a.query)
    grad_value = matrix_product(g, g.cast(weights, dtype).permute([0, 1, 2, 4, 3]), grad)
    return (
        g.cast(_ungrouped(grad_query, query.sizes[1]), dtype),
        g.cast(reduce_over(g, "sum", grad_key, [2]), dtype),
        g.cast(reduce_over(g, "sum", grad_value, [2]), dtype),
    )

