"""Normalisations: softmax, layer, group, batch and RMS norm, forward and backward.

Each is written as reductions over rows and maps between them; the fusion pass makes one kernel per row of them.
"""

from __future__ import annotations

import math

import torch

from ..index_expr import exact_div, product, render
from ..registry import dtype_name, lowering
from ..values import Graph, Unsupported, Value, preferred_strides
from .reduce import divisor, mean_over, opmath, reduce_over, variance_over

__all__ = ["softmax_over"]

aten = torch.ops.aten


def softmax_over(g: Graph, x: Value, dim: int) -> Value:
    """Softmax over one dim, in x's own dtype (f32 or f64)."""
    x = g.realize(x)
    largest = reduce_over(g, "max", x, [dim], True)
    exponentials = g.realize(g.map("exp_nonpositive", x - largest))
    return exponentials * g.map("reciprocal", reduce_over(g, "sum", exponentials, [dim], True))


def _softmax_input(g: Graph, x: Value, dim: int, half_to_float: bool) -> tuple[Value, int, str]:
    if x.dtype not in ("f32", "f64", "f16", "bf16"):
        raise Unsupported(f"softmax of dtype {x.dtype}")
    return g.cast(x, opmath(x.dtype)), dim % x.rank if x.rank else 0, "f32" if half_to_float else x.dtype


@lowering(aten._softmax.default)
def softmax(g: Graph, x: Value, dim: int, half_to_float: bool = False) -> Value:
    wide, dim, result = _softmax_input(g, x, dim, half_to_float)
    if x.rank == 0 or x.numel == 0:
        return g.constant(1.0, result, x.sizes)
    return g.cast(softmax_over(g, wide, dim), result)


@lowering(aten._safe_softmax.default)
def safe_softmax(g: Graph, x: Value, dim: int, dtype=None) -> Value:
    result = dtype_name(dtype) if dtype is not None else x.dtype
    x = g.realize(g.cast(x, opmath(result)))
    dim %= x.rank
    is_empty = reduce_over(g, "max", x, [dim], True).equals(-math.inf)
    return g.cast(g.constant(0.0, x.dtype).where(is_empty, softmax_over(g, x, dim)), result)


@lowering(aten._log_softmax.default)
def log_softmax(g: Graph, x: Value, dim: int, half_to_float: bool = False) -> Value:
    wide, dim, result = _softmax_input(g, x, dim, half_to_float)
    if x.rank == 0 or x.numel == 0:
        return g.constant(0.0, result, x.sizes)
    wide = g.realize(wide)
    largest = reduce_over(g, "max", wide, [dim], True)
    total = g.map("log", reduce_over(g, "sum", g.map("exp_nonpositive", wide - largest), [dim], True))
    return g.cast(wide - largest - total, result)


@lowering(aten._softmax_backward_data.default)
def softmax_backward(g: Graph, grad: Value, output: Value, dim: int, input_dtype: torch.dtype) -> Value:
    dims = [dim % grad.rank] if grad.rank else []
    grad, output = g.realize(g.cast(grad, opmath(grad.dtype))), g.realize(g.cast(output, opmath(output.dtype)))
    total = reduce_over(g, "sum", grad * output, dims, True)
    return g.cast((grad - total) * output, dtype_name(input_dtype))


@lowering(aten._log_softmax_backward_data.default)
def log_softmax_backward(g: Graph, grad: Value, output: Value, dim: int, input_dtype: torch.dtype) -> Value:
    dims = [dim % grad.rank] if grad.rank else []
    grad, output = g.realize(g.cast(grad, opmath(grad.dtype))), g.cast(output, opmath(output.dtype))
    total = reduce_over(g, "sum", grad, dims, True)
    return g.cast(grad - g.map("exp", output) * total, dtype_name(input_dtype))


def _wide(g: Graph, value: Value | None) -> Value | None:
    return None if value is None else g.cast(value, opmath(value.dtype))


def _scaled(normalized: Value, weight: Value | None, bias: Value | None) -> Value:
    if weight is not None:
        normalized = normalized * weight
    return normalized if bias is None else normalized + bias


def _inverse_deviation(g: Graph, variance: Value, eps: float) -> Value:
    return g.realize(g.map("rsqrt", variance + float(eps)))


def _statistics_dtype(x: Value, weight: Value | None) -> str:
    """The dtype in which CPU norms return mean and rstd: f32 where half input meets f32 parameters."""
    return "f32" if weight is not None and weight.dtype != x.dtype else x.dtype


@lowering(aten.native_layer_norm.default)
def native_layer_norm(g: Graph, x: Value, shape, weight: Value | None, bias: Value | None, eps: float) -> tuple[Value, Value, Value]:
    dims = list(range(x.rank - len(shape), x.rank))
    wide = g.realize(_wide(g, x))
    variance, mean = variance_over(g, wide, dims, 0.0, True)
    rstd = _inverse_deviation(g, variance, eps)
    out = _scaled((wide - mean) * rstd, _wide(g, weight), _wide(g, bias))
    statistics = _statistics_dtype(x, weight)
    return g.cast(out, x.dtype), g.cast(mean, statistics), g.cast(rstd, statistics)


def _input_gradient(g: Graph, grad: Value, normalized: Value, rstd: Value, dims: list[int]) -> Value:
    """Gradient through (x - mean) * rstd over dims, given that of the normalised values."""
    mean_grad = mean_over(g, grad, dims, True)
    mean_product = mean_over(g, grad * normalized, dims, True)
    return (grad - mean_grad - normalized * mean_product) * rstd


@lowering(aten.native_layer_norm_backward.default)
def native_layer_norm_backward(g: Graph, grad: Value, x: Value, shape, mean: Value, rstd: Value, weight: Value | None, bias: Value | None, output_mask):
    rows, columns = list(range(x.rank - len(shape))), list(range(x.rank - len(shape), x.rank))
    grad, wide, mean, rstd = g.realize(_wide(g, grad)), g.realize(_wide(g, x)), g.realize(_wide(g, mean)), g.realize(_wide(g, rstd))
    normalized = (wide - mean) * rstd
    grad_x = _input_gradient(g, _scaled(grad, _wide(g, weight), None), normalized, rstd, columns) if output_mask[0] else None
    grad_weight = reduce_over(g, "sum", grad * normalized, rows) if output_mask[1] and weight is not None else None
    grad_bias = reduce_over(g, "sum", grad, rows) if output_mask[2] and bias is not None else None
    return _cast_each(g, (grad_x, x), (grad_weight, weight), (grad_bias, bias))


def _cast_each(g: Graph, *pairs) -> tuple[Value | None, ...]:
    return tuple(None if value is None else g.cast(value, (like or value).dtype) for value, like in pairs)


@lowering(aten._fused_rms_norm.default)
def fused_rms_norm(g: Graph, x: Value, shape, weight: Value | None, eps: float | None) -> tuple[Value, Value]:
    dims = list(range(x.rank - len(shape), x.rank))
    wide = g.realize(_wide(g, x))
    eps = torch.finfo(torch.float64 if x.dtype == "f64" else torch.float32).eps if eps is None else eps
    rstd = _inverse_deviation(g, mean_over(g, wide * wide, dims, True), eps)
    return g.cast(_scaled(wide * rstd, _wide(g, weight), None), x.dtype), rstd


@lowering(aten._fused_rms_norm_backward.default)
def fused_rms_norm_backward(g: Graph, grad: Value, x: Value, shape, rstd: Value, weight: Value | None, output_mask):
    rows, columns = list(range(x.rank - len(shape))), list(range(x.rank - len(shape), x.rank))
    grad, wide, rstd = g.realize(_wide(g, grad)), g.realize(_wide(g, x)), g.realize(_wide(g, rstd))
    normalized, scaled = wide * rstd, _scaled(grad, _wide(g, weight), None)
    grad_x = (scaled - normalized * mean_over(g, scaled * normalized, columns, True)) * rstd if output_mask[0] else None
    grad_weight = reduce_over(g, "sum", grad * normalized, rows) if output_mask[1] and weight is not None else None
    return _cast_each(g, (grad_x, x), (grad_weight, weight))


def _grouped(x: Value, batch, channels, pixels, groups: int) -> Value:
    """x as [batch, groups, channels per group, pixels]."""
    per_group = exact_div(channels, groups)
    if per_group is None:
        raise Unsupported(f"group norm of {render(channels)} channels in {groups} groups")
    return x.reshape([batch, groups, per_group, pixels])


def _per_group(value: Value | None, groups: int) -> Value | None:
    """A value per channel as [groups, channels per group, 1]."""
    return None if value is None else value.reshape([groups, -1, 1])


@lowering(aten.native_group_norm.default, fixed=lambda x, *_: x.shape[1:2])
def native_group_norm(g: Graph, x: Value, weight: Value | None, bias: Value | None, batch, channels, pixels, groups: int, eps: float):
    grouped = g.realize(_grouped(_wide(g, x), batch, channels, pixels, groups))
    variance, mean = _over_groups(g, grouped)
    rstd = _inverse_deviation(g, variance, eps)
    out = _scaled((grouped - mean) * rstd, _per_group(_wide(g, weight), groups), _per_group(_wide(g, bias), groups))
    statistics = _statistics_dtype(x, weight)
    mean, rstd = (value.slice(2, 0, 1).squeeze([2, 3]) for value in (mean, rstd))
    return g.cast(out, x.dtype).reshape(x.sizes), g.cast(mean, statistics), g.cast(rstd, statistics)


def _over_groups(g: Graph, grouped: Value) -> tuple[Value, Value]:
    """(variance, mean) over channels and pixels of [batch, groups, channels, pixels]: for each group, or for each of its channels where these lie side by side."""
    if 1 in grouped.sizes[1:3] or preferred_strides(grouped)[2] != 1:
        return variance_over(g, grouped, [2, 3], 0.0, True)
    # A group's few channels would not fill a vector: lanes run along those of all groups, in every pass over the pixels.
    count = divisor(g, product(grouped.sizes[2:]), grouped.dtype)

    def mean_of(x: Value) -> Value:
        of_channels = g.realize(reduce_over(g, "sum", x, [3], True))
        return g.realize(g.realize(reduce_over(g, "sum", of_channels, [2], True)).expand(of_channels.sizes) / count)

    mean = mean_of(grouped)
    centred = grouped - mean
    return mean_of(centred * centred), mean


@lowering(aten.native_group_norm_backward.default, fixed=lambda grad, x, *_: x.shape[1:2])
def native_group_norm_backward(g: Graph, grad: Value, x: Value, mean: Value, rstd: Value, weight: Value | None, batch, channels, pixels, groups: int, output_mask):
    dys = g.realize(_grouped(_wide(g, grad), batch, channels, pixels, groups))
    xs = g.realize(_grouped(_wide(g, x), batch, channels, pixels, groups))
    mean, rstd = (g.realize(_wide(g, v)).reshape([batch, groups, 1, 1]) for v in (mean, rstd))
    normalized = (xs - mean) * rstd
    scaled = _scaled(dys, _per_group(_wide(g, weight), groups), None)
    grad_x = _input_gradient(g, scaled, normalized, rstd, [2, 3]).reshape(x.sizes) if output_mask[0] else None
    grad_weight = reduce_over(g, "sum", dys * normalized, [0, 3]).reshape([channels]) if output_mask[1] else None
    grad_bias = reduce_over(g, "sum", dys, [0, 3]).reshape([channels]) if output_mask[2] else None
    return _cast_each(g, (grad_x, x), (grad_weight, weight or x), (grad_bias, weight or x))


def _per_channel(value: Value, rank: int) -> Value:
    """A value per channel as [channels, 1, …] under a batch dim."""
    return value.reshape([*value.sizes, *[1] * (rank - 2)]) if rank > 1 else value


def _channel_dims(x: Value) -> list[int]:
    """The dims that batch norm reduces."""
    return [d for d in range(x.rank) if d != 1]


def _affine(g: Graph, x: Value, mean: Value, inverse: Value, weight: Value | None, bias: Value | None) -> Value:
    """(x - mean) * inverse * weight + bias as one product and one sum per element, as eager's CPU kernel has it."""
    scale = inverse if weight is None else inverse * _wide(g, weight)
    shift = g.constant(0.0, mean.dtype) - mean * scale if bias is None else _wide(g, bias) - mean * scale
    scale, shift = g.realize(scale), g.realize(shift)
    return g.cast(_wide(g, x) * _per_channel(scale, x.rank) + _per_channel(shift, x.rank), x.dtype)


def _normalize_batch(g: Graph, x: Value, weight, bias, eps: float) -> tuple[Value, Value, Value, Value]:
    """(out, mean, invstd, biased variance) with the statistics of this batch."""
    wide = g.realize(_wide(g, x))
    variance, mean = variance_over(g, wide, _channel_dims(x))
    variance, mean = g.realize(variance), g.realize(mean)
    inverse = _inverse_deviation(g, variance, eps)
    return _affine(g, x, mean, inverse, weight, bias), mean, inverse, variance


def _moved_statistics(g: Graph, x: Value, running: Value, current: Value, momentum: float) -> Value:
    """The running statistics after this batch; of half types in f32, as AOTAutograd's graph has them, which rounds them itself."""
    return _wide(g, running) * (1.0 - momentum) + g.cast(current, opmath(running.dtype)) * momentum


def _unbiased(g: Graph, x: Value, variance: Value) -> Value:
    count = divisor(g, product(x.sizes[d] for d in _channel_dims(x)), variance.dtype)
    return variance * (count / (count - 1.0))


def _with_running(g: Graph, x: Value, running_mean: Value, running_var: Value, weight, bias, eps: float) -> Value:
    inverse = _inverse_deviation(g, _wide(g, running_var), eps)
    return _affine(g, x, _wide(g, running_mean), inverse, weight, bias)


def _saved_dtype(x: Value, weight: Value | None) -> str:
    return "f32" if x.dtype in ("f16", "bf16") and weight is not None and weight.dtype == "f32" else x.dtype


@lowering(aten._native_batch_norm_legit_functional.default)
def batch_norm_functional(g: Graph, x: Value, weight, bias, running_mean: Value, running_var: Value, training: bool, momentum: float, eps: float):
    if not training:
        nothing = g.constant(0.0, _saved_dtype(x, weight), (0,))
        return _with_running(g, x, running_mean, running_var, weight, bias, eps), nothing, nothing, running_mean, running_var
    out, mean, inverse, variance = _normalize_batch(g, x, weight, bias, eps)
    new_mean = _moved_statistics(g, x, running_mean, mean, momentum)
    new_var = _moved_statistics(g, x, running_var, _unbiased(g, x, variance), momentum)
    saved = _saved_dtype(x, weight)
    return out, g.cast(mean, saved), g.cast(inverse, saved), new_mean, new_var


@lowering(aten._native_batch_norm_legit_no_training.default)
def batch_norm_no_training(g: Graph, x: Value, weight, bias, running_mean: Value, running_var: Value, momentum: float, eps: float):
    nothing = g.constant(0.0, _saved_dtype(x, weight), (0,))
    return _with_running(g, x, running_mean, running_var, weight, bias, eps), nothing, nothing


@lowering(aten._native_batch_norm_legit.no_stats)
def batch_norm_no_stats(g: Graph, x: Value, weight, bias, training: bool, momentum: float, eps: float):
    out, mean, inverse, _ = _normalize_batch(g, x, weight, bias, eps)
    saved = _saved_dtype(x, weight)
    return out, g.cast(mean, saved), g.cast(inverse, saved)


@lowering(aten._batch_norm_with_update_functional.default)
def batch_norm_with_update(g: Graph, x: Value, weight, bias, running_mean: Value, running_var: Value, momentum: float, eps: float):
    out, mean, inverse, new_mean, new_var = batch_norm_functional(g, x, weight, bias, running_mean, running_var, True, momentum, eps)
    return out, mean, inverse, g.constant(0, "u8", (0,)), new_mean, new_var


@lowering(aten._batch_norm_no_update.default)
def batch_norm_no_update(g: Graph, x: Value, weight, bias, running_mean: Value | None, running_var: Value | None, momentum: float, eps: float):
    if running_mean is None or running_var is None:
        return *batch_norm_no_stats(g, x, weight, bias, True, momentum, eps), g.constant(0, "u8", (0,))
    return *batch_norm_no_training(g, x, weight, bias, running_mean, running_var, momentum, eps), g.constant(0, "u8", (0,))


@lowering(aten.native_batch_norm_backward.default)
def native_batch_norm_backward(g: Graph, grad: Value, x: Value, weight, running_mean, running_var, save_mean, save_invstd, train: bool, eps: float, output_mask):
    dims = _channel_dims(x)
    dys, xs = g.realize(_wide(g, grad)), g.realize(_wide(g, x))
    mean = _wide(g, save_mean if train else running_mean)
    inverse = _wide(g, save_invstd) if train else _inverse_deviation(g, _wide(g, running_var), eps)
    mean, inverse = (g.realize(_per_channel(v, x.rank)) for v in (mean, inverse))
    sum_grad = g.realize(reduce_over(g, "sum", dys, dims, True))
    sum_product = g.realize(reduce_over(g, "sum", dys * (xs - mean), dims, True))
    count = divisor(g, product(x.sizes[d] for d in dims), dys.dtype)
    scale = inverse if weight is None else inverse * _per_channel(_wide(g, weight), x.rank)
    if train:
        slope = g.realize(sum_product * inverse * inverse / count)
        grad_x = (dys - (xs - mean) * slope - g.realize(sum_grad / count)) * scale
    else:
        grad_x = dys * scale
    grad_weight = (sum_product * inverse).squeeze(dims) if output_mask[1] else None
    grad_bias = sum_grad.squeeze(dims) if output_mask[2] else None
    return _cast_each(g, (grad_x if output_mask[0] else None, x), (grad_weight, weight or x), (grad_bias, weight or x))


@lowering(aten.batch_norm_backward.default)
def batch_norm_backward(g: Graph, grad: Value, x: Value, weight, running_mean, running_var, save_mean, save_var, update: bool, eps: float, output_mask, reserve):
    return native_batch_norm_backward(g, grad, x, weight, running_mean, running_var, save_mean, save_var, update, eps, output_mask)
