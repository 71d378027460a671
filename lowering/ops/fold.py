"""im2col and col2im: windows of an image as columns, and their sum back into an image."""

from __future__ import annotations

import torch

from ..index_expr import floordiv, product
from ..registry import lowering
from ..values import Graph, Value
from .reduce import opmath
from .scatter import zeros
from .window import Window, window_of

aten = torch.ops.aten


@lowering(aten.im2col.default)
def im2col(g: Graph, x: Value, kernel_size, dilation, padding, stride) -> Value:
    window = window_of(x, 2, kernel_size, stride, padding, dilation)
    elements = window.elements(window.bordered(g, x, 0))
    lead = elements.rank - 4
    moved = elements.permute([*range(lead), lead + 2, lead + 3, lead, lead + 1])
    channels = x.sizes[-3]
    return moved.reshape([*x.sizes[:-3], channels * window.n_elements, product(window.outputs)])


@lowering(aten.col2im.default)
def col2im(g: Graph, columns: Value, output_size, kernel_size, dilation, padding, stride) -> Value:
    height, width = output_size
    lead = columns.sizes[:-2]
    channels = floordiv(columns.sizes[-2], kernel_size[0] * kernel_size[1])
    image = g.constant(0, columns.dtype, (*lead, channels, height, width))
    window = window_of(image, 2, kernel_size, stride, padding, dilation)
    wide = g.cast(columns, opmath(columns.dtype)).reshape([*lead, channels, *window.kernel, *window.outputs])
    return g.cast(_folded(g, wide, window, image.sizes[:-2]), columns.dtype)


def _folded(g: Graph, elements: Value, window: Window, lead) -> Value:
    """Adds every window's elements at their places: a buffer with the padding around it, cut off at the end."""
    reach = [size + 2 * p for size, p in zip(window.inputs, window.padding)]
    base = zeros(g, elements.dtype, (*lead, *reach))
    strides = base.expr.strides
    spatial = strides[len(lead):]
    walked = (*strides[:len(lead)], *(d * s for d, s in zip(window.dilation, spatial)), *(st * s for st, s in zip(window.stride, spatial)))
    if 0 not in elements.sizes:
        g.scatter(base.expr.buffer, 0, walked, (), elements, "add")
    for d, (p, size) in enumerate(zip(window.padding, window.inputs)):
        base = base.slice(len(lead) + d, p, p + size)
    return base
