"""Convolutions of one to three dims, transposed ones and their gradients, over the template "conv"."""

from __future__ import annotations

import torch

from ..index_expr import Dim, floordiv, render
from ..kernels import conv_grad  # noqa: F401  (registers the templates of gradients)
from ..kernels.conv import ConvParams
from ..kernels.gemm import accumulator_dtype
from ..registry import lowering
from ..values import Graph, Unsupported, Value

__all__ = ["convolve"]

aten = torch.ops.aten


def _per_dim(values, rank: int) -> tuple:
    return tuple(values) * rank if len(values) == 1 else tuple(values)


def channels_last_strides(sizes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Strides of [n, c, spatial…] with channels innermost, then the spatial dims."""
    strides: list[Dim] = [0] * len(sizes)
    running: Dim = 1
    for d in (1, *range(len(sizes) - 1, 1, -1), 0):
        strides[d] = running
        running = running * sizes[d] if sizes[d] != 0 else running
    return tuple(strides)


def convolve(g: Graph, image: Value, weight: Value, stride, dilation, before, after, spread, groups: int) -> Value:
    """The convolution of image [n, c, spatial…] with weight [group, o, c, taps…]; half types give f32 sums.

    Args: before, after: zeros around the image, per dim.   spread: step between the image's pixels, with zeros between.
    """
    kernel = weight.sizes[3:]
    if not all(isinstance(k, int) for k in kernel):
        raise Unsupported("convolution windows of symbolic size are not generated")
    framed = [(size - 1) * step + 1 + b + a for size, step, b, a in zip(image.sizes[2:], spread, before, after)]
    out = [floordiv(size - step * (k - 1) - 1, s) + 1 for size, k, s, step in zip(framed, kernel, stride, dilation)]
    sizes = (image.sizes[0], weight.sizes[0] * weight.sizes[1], *out)
    dtype = accumulator_dtype(image.dtype)
    if any(size == 0 for size in (*sizes, image.sizes[1])):
        return g.constant(0, dtype, sizes)
    # One pixel may be spread by anything: by as much as a window spans, each window meets it with one tap at most.
    spread = tuple(max(step, d * (k - 1) + 1) if size == s == 1 else step for size, step, k, s, d in zip(image.sizes[2:], spread, kernel, stride, dilation))
    params = ConvParams(image.sizes[0], image.sizes[1], image.sizes[2:], tuple(out), kernel, tuple(stride), tuple(dilation), tuple(before), tuple(after), spread, groups, g.allows_winograd)
    return g.template("conv", [image, weight], [(dtype, sizes, channels_last_strides(sizes))], params)[0]


def _transposed(g: Graph, image: Value, weight: Value, stride, padding, dilation, output_padding, groups: int) -> Value:
    """Transposed convolution: the image spread by the stride meets the flipped weight."""
    kernel = weight.sizes[2:]
    rank = len(kernel)
    flipped = _grouped(weight, groups).permute([0, 2, 1, *range(3, 3 + rank)]).flip(range(3, 3 + rank))
    before = tuple(d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding))
    after = tuple(b + extra for b, extra in zip(before, output_padding))
    return convolve(g, image, flipped, (1,) * rank, dilation, before, after, stride, groups)


def _checked_rank(image: Value, weight: Value) -> int:
    """Spatial dims of a convolution."""
    if image.dtype == "bool" or image.dtype != weight.dtype:
        raise Unsupported(f"convolutions need two operands of one numeric dtype, got {image.dtype} and {weight.dtype}")
    rank = weight.rank - 2
    if not 1 <= rank <= 3 or image.rank != rank + 2:
        raise Unsupported(f"convolutions of 1 to 3 spatial dims with a batch are generated, got an image of {image.rank} dims")
    if not all(isinstance(size, int) for size in weight.sizes):
        raise Unsupported(f"convolution with a weight of symbolic sizes [{', '.join(map(render, weight.sizes))}]")
    return rank


def _grouped(weight: Value, groups: int) -> Value:
    return weight.reshape([groups, weight.sizes[0] // groups, *weight.sizes[1:]])


def _numbers(image, weight, *parameters) -> list:
    """The sizes of the weight, the channels of the image, and strides, paddings, groups and the like."""
    return [*weight.shape, image.shape[1], *(n for p in parameters for n in (p if isinstance(p, (list, tuple)) else [p]) if isinstance(n, (int, torch.SymInt)))]


@lowering(aten.convolution.default, fixed=lambda image, weight, bias, *parameters: _numbers(image, weight, *parameters))
def convolution(g, image, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    rank = _checked_rank(image, weight)
    stride, padding, dilation, output_padding = (_per_dim(v, rank) for v in (stride, padding, dilation, output_padding))
    if transposed:
        result = _transposed(g, image, weight, stride, padding, dilation, output_padding, groups)
    else:
        result = convolve(g, image, _grouped(weight, groups), stride, dilation, padding, padding, (1,) * rank, groups)
    if bias is not None:
        result = g.map("add", result, g.cast(bias, result.dtype).reshape([1, bias.sizes[0], *(1,) * rank]))
    return g.cast(result, image.dtype)


@lowering(aten.convolution_backward.default, fixed=lambda grad, *operands: _numbers(*operands))
def convolution_backward(g, grad, image, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask):
    rank = _checked_rank(image, weight)
    stride, padding, dilation, output_padding = (_per_dim(v, rank) for v in (stride, padding, dilation, output_padding))
    wants_image, wants_weight, wants_bias = output_mask
    of_image = of_weight = of_bias = None
    grad = g.realize(grad)
    if wants_image:
        if transposed:
            # No pixel of the image has reached the output padding.
            after = tuple(p - extra for p, extra in zip(padding, output_padding))
            of_image = convolve(g, grad, _grouped(weight, groups), stride, dilation, padding, after, (1,) * rank, groups)
        else:
            # What the windows left over on the far side of the image is the transposed convolution's output padding.
            rest = tuple(size + 2 * p - d * (k - 1) - 1 - (o - 1) * s for size, o, k, s, p, d in zip(image.sizes[2:], grad.sizes[2:], weight.sizes[2:], stride, padding, dilation))
            of_image = _transposed(g, grad, weight, stride, padding, dilation, rest, groups)
        of_image = g.cast(of_image, image.dtype)
    if wants_weight:
        rows, framed = (image, grad) if transposed else (grad, image)
        of_weight = g.cast(_weight_grad(g, rows, framed, weight.sizes, stride, padding, dilation, groups), weight.dtype)
    if wants_bias:
        wide = accumulator_dtype(grad.dtype)
        of_bias = g.cast(g.reduce("sum", g.cast(grad, wide), [0, *range(2, 2 + rank)]), grad.dtype)
    return of_image, of_weight, of_bias


def _weight_grad(g: Graph, rows: Value, image: Value, sizes, stride, padding, dilation, groups: int) -> Value:
    """The gradient of a weight of `sizes`: every output pixel of `rows` times its window of `image`."""
    rank, dtype = len(sizes) - 2, accumulator_dtype(image.dtype)
    kernel, channels = sizes[2:], image.sizes[1] // groups
    if any(size == 0 for size in (*image.sizes, *rows.sizes, *sizes)):
        return g.constant(0, dtype, sizes)
    params = ConvParams(image.sizes[0], image.sizes[1], image.sizes[2:], rows.sizes[2:], kernel, stride, dilation, padding, padding, (1,) * rank, groups)
    if channels == 1 and sizes[0] == groups:
        result, = g.template("depthwise_weight_grad", [rows, image], [(dtype, (*kernel, groups), None)], params)
        return result.permute([rank, *range(rank)]).unsqueeze(1)
    result, = g.template("conv_weight_grad", [rows, image], [(dtype, (groups, sizes[0] // groups, *kernel, channels), None)], params)
    return result.permute([0, 1, 2 + rank, *range(2, 2 + rank)]).reshape(sizes)
