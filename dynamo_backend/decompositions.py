"""Decompositions of our own: fused eager kernels that torch takes for whole and has no decomposition for."""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ["OWN_DECOMPOSITIONS"]

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


OWN_DECOMPOSITIONS = {aten._transformer_encoder_layer_fwd.default: transformer_encoder_layer}
