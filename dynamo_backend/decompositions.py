"""Decompositions of our own: kernels of eager that torch takes for whole, or decomposes to other strides or another rounding."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import torch
from torch._decomp import decomposition_table
from torch._prims_common import suggest_memory_format
from torch.nn import functional as F

from .foreach import foreach_decompositions
from .whole_resizing import resizing_forms

__all__ = ["OWN_DECOMPOSITIONS", "OWN_FORMS", "late_decompositions"]

aten = torch.ops.aten


def _self_attention(x, n_heads, qkv_weight, qkv_bias, proj_weight, proj_bias):
    """x [batch, steps, channels] -> the same, by multi-head attention without a mask."""
    batch, steps, channels = x.shape
    qkv = F.linear(x, qkv_weight, qkv_bias).view(batch, steps, 3, n_heads, channels // n_heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
    return F.linear(mixed.transpose(1, 2).reshape(batch, steps, channels), proj_weight, proj_bias)


def transformer_encoder_layer(
    src, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, use_gelu, norm_first, eps,
    norm_weight_1, norm_bias_1, norm_weight_2, norm_bias_2, ffn_weight_1, ffn_bias_1, ffn_weight_2, ffn_bias_2, mask=None, mask_type=None,
):  # fmt: skip
    """nn.TransformerEncoderLayer's inference kernel. A mask is left to eager, whose masked softmax has its own rules."""
    if mask is not None or src.is_nested:
        return NotImplemented

    def norm(x, weight, bias):
        return F.layer_norm(x, (embed_dim,), weight, bias, eps)

    x = norm(src, norm_weight_1, norm_bias_1) if norm_first else src
    x = src + _self_attention(x, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias)
    x = x if norm_first else norm(x, norm_weight_1, norm_bias_1)
    hidden = F.linear(norm(x, norm_weight_2, norm_bias_2) if norm_first else x, ffn_weight_1, ffn_bias_1)
    y = x + F.linear(F.gelu(hidden) if use_gelu else F.relu(hidden), ffn_weight_2, ffn_bias_2)
    return y if norm_first else norm(y, norm_weight_2, norm_bias_2)


def max_unpool2d(x, indices, output_size):
    """x and its positions in the planes -> the planes, dense in x's memory format; torch's own fake tensor is row-major whatever x is."""
    planes = x.new_zeros((*x.shape[:-2], output_size[0] * output_size[1]))
    filled = planes.scatter(-1, indices.flatten(-2), x.flatten(-2)).unflatten(-1, output_size)
    return filled.contiguous(memory_format=suggest_memory_format(x))


def trilinear(i1, i2, i3, expand1: Sequence[int], expand2: Sequence[int], expand3: Sequence[int], sumdim: Sequence[int], unroll_dim: int = 1):
    """Sum over `sumdim` of the product of three tensors, each of which lacks the dims it is expanded in."""
    rank = i1.dim() + len(expand1)
    letters = string.ascii_lowercase[:rank]

    def without(dims: Sequence[int]) -> str:
        return "".join(letter for d, letter in enumerate(letters) if d not in [e % rank for e in dims])

    if set(expand1) & set(expand2) & set(expand3):  # a dim that no operand has
        return NotImplemented
    return torch.einsum(f"{without(expand1)},{without(expand2)},{without(expand3)}->{without(sumdim)}", i1, i2, i3)


def linear_cross_entropy(
    x, weight, target, bias, class_weight, reduction, ignore_index, label_smoothing, batch_chunk_size, acc_policy, acc_dtype, allow_retain_graph, *computes_gradients
):  # fmt: skip
    """Inference alone: in training the operator computes its gradients chunk by chunk in the forward pass."""
    if any(computes_gradients):
        return NotImplemented
    loss = _loss_of_linear(x, weight, bias, target, class_weight, acc_dtype, reduction=reduction, ignore_index=ignore_index, label_smoothing=label_smoothing)
    return loss, x.new_empty((0, 0)), x.new_empty((0, 0)), x.new_empty((0,))


def linear_cross_entropy_no_reduction(x, weight, target, bias, class_weight, ignore_index, batch_chunk_size, acc_policy, acc_dtype):
    """The loss of every row."""
    return _loss_of_linear(x, weight, bias, target, class_weight, acc_dtype, reduction="none", ignore_index=ignore_index)


def _loss_of_linear(x, weight, bias, target, class_weight, acc_dtype, **options):
    wide = [None if t is None else t.to(acc_dtype) for t in (x, weight, bias, class_weight)]
    return F.cross_entropy(F.linear(*wide[:3]), target, wide[3], **options).to(x.dtype)


def logspace(start, end, steps, base=10.0, *, dtype=None, **options):
    """Powers in float64. Those of an integer dtype stay in eager: it truncates libm's, and one unit less is another integer."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not dtype.is_floating_point:
        return NotImplemented
    return torch.pow(base, torch.linspace(start, end, steps, dtype=torch.float64)).to(dtype)


def soft_margin_loss(x, target, reduction: int = 1):
    """As eager's kernel, which rounds every step to x's dtype: half types overflow in the exponential."""
    loss = (-target * x).exp().log1p()
    return {0: lambda: loss, 1: loss.mean, 2: loss.sum}[reduction]()


def log_sigmoid_forward(x):
    """torch's own of a row-major x: eager's kernel returns row-major tensors whatever x is."""
    return decomposition_table[aten.log_sigmoid_forward.default](x.contiguous())


def _chunked_losses() -> dict[torch._ops.OpOverload, Callable]:
    """Operators that torch's Python registers when it is imported, from 2.13 on."""
    try:
        from torch.nn.modules import linear_cross_entropy as _  # noqa: F401
    except ImportError:
        return {}
    ops = torch.ops.torch_nn
    return {
        ops._linear_cross_entropy_batch_chunked.default: linear_cross_entropy,
        ops._linear_cross_entropy_batch_chunked_no_reduction.default: linear_cross_entropy_no_reduction,
    }


def _in_float32(norm: torch._ops.OpOverload) -> Callable:
    """`norm` of halves with float32 parameters (autocast), written as that of float32: mean and rstd are float32 then.

    So they are in eager; torch's own fake tensors have them in the halves' dtype, and the backward pass would read them so.
    """

    def decomposed(x, *args, **kwargs):
        is_mixed = any(isinstance(arg, torch.Tensor) and arg.dtype == torch.float32 for arg in (*args, *kwargs.values()))
        if x.dtype not in (torch.float16, torch.bfloat16) or not is_mixed:
            return NotImplemented
        y, *statistics = norm(x.float(), *args, **kwargs)
        return y.to(x.dtype), *statistics

    return decomposed


def _of_dense_images(norm: torch._ops.OpOverload) -> Callable:
    """Batch norm of images that are neither row-major nor channels last, written as that of row-major ones: so eager's result lies."""

    def decomposed(x, *args, **kwargs):
        memory_format = suggest_memory_format(x)
        if x.is_contiguous(memory_format=memory_format):
            return _in_float32(norm)(x, *args, **kwargs)
        return norm(x.contiguous(memory_format=memory_format), *args, **kwargs)

    return decomposed


OWN_DECOMPOSITIONS = {
    aten._transformer_encoder_layer_fwd.default: transformer_encoder_layer,
    aten.max_unpool2d.default: max_unpool2d,
    aten._trilinear.default: trilinear,
    aten.soft_margin_loss.default: soft_margin_loss,
    aten.log_sigmoid_forward.default: log_sigmoid_forward,
    **{getattr(aten.logspace, overload): logspace for overload in ("default", "Tensor_Tensor", "Tensor_Scalar", "Scalar_Tensor")},
    **_chunked_losses(),
    **foreach_decompositions(),
}

# Of ops that have a lowering: forms of a few calls of them; the others stay whole.
BATCH_NORMS = (
    aten._native_batch_norm_legit_functional.default, aten._native_batch_norm_legit_no_training.default, aten._native_batch_norm_legit.no_stats,
)  # fmt: skip
OWN_FORMS = {
    **{norm: _in_float32(norm) for norm in (aten.native_layer_norm.default, aten.native_group_norm.default)},
    **{norm: _of_dense_images(norm) for norm in BATCH_NORMS},
    **resizing_forms(),
}


def late_decompositions() -> dict[torch._ops.OpOverload, Callable]:
    """Of operators that exist once Dynamo has used them: prims.fma stands for addcmul_ in optimizer steps, and is a * b + c on CPU."""
    fma = getattr(torch.ops.prims, "fma", None)
    return {} if fma is None else {fma.default: lambda a, b, c: a * b + c}
