"""Single kernels, held against torch's own and against what the machine can do: name -> Case."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cases import Case, Pointwise

__all__ = ["KERNELS"]

FLOAT_BYTES = 4


class Recurrent(nn.Module):
    """The outputs of one LSTM layer: [batch, steps, width] -> the same."""

    def __init__(self, width):
        super().__init__()
        self.rnn = nn.LSTM(width, width, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


def gemm(size):
    """A product of two square inputs."""
    return Case(f"gemm_{size}", lambda: (Pointwise(torch.matmul), (torch.randn(size, size), torch.randn(size, size))), "kernel", size == 512, 2 * size**3)


def linear(rows, inputs=768, outputs=3072):
    """nn.Linear; with one row it reads its weights at the speed of memory."""
    traffic = FLOAT_BYTES * (inputs * outputs + rows * (inputs + outputs))
    make = lambda: (nn.Linear(inputs, outputs), (torch.randn(rows, inputs),))  # noqa: E731
    return Case(f"linear_m{rows}", make, "kernel", True, 2 * rows * inputs * outputs, traffic if rows < 8 else None)


def convolution(name, channels, size, kernel, groups=1, is_quick=False):
    """A convolution with stride 1 that keeps height and width."""
    flops = 2 * channels * channels // groups * kernel**2 * size**2
    traffic = FLOAT_BYTES * 2 * channels * size**2 if groups == channels else None
    make = lambda: (nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups), (torch.randn(1, channels, size, size),))  # noqa: E731
    return Case(name, make, "kernel", is_quick, flops, traffic)


def transposed_convolution(name, channels, columns, size, kernel):
    """A transposed convolution that doubles height and width: each output pixel meets a quarter of the taps."""
    flops = 2 * channels * columns * kernel**2 * size**2
    make = lambda: (nn.ConvTranspose2d(channels, columns, kernel, 2, (kernel - 1) // 2), (torch.randn(1, channels, size, size),))  # noqa: E731
    return Case(name, make, "kernel", False, flops, None)


def attention(heads=12, length=256, width=64):
    """Scaled dot-product attention without a mask."""
    make = lambda: (Pointwise(F.scaled_dot_product_attention), tuple(torch.randn(1, heads, length, width) for _ in range(3)))  # noqa: E731
    return Case("attention", make, "kernel", True, 4 * heads * length**2 * width)


def lstm(name, batch, steps, width=256):
    """One layer: eight products of width x width a step."""
    return Case(name, lambda: (Recurrent(width), (torch.randn(batch, steps, width),)), "kernel", False, 16 * batch * steps * width**2)


def streaming(name, make, elements, is_quick=False):
    """A kernel that memory bounds: `elements` floats read and written in all."""
    return Case(name, make, "kernel", is_quick, None, FLOAT_BYTES * elements)


def chain(x, y):
    """A gated chain of transcendental functions."""
    return torch.tanh(F.gelu(x)) * torch.sigmoid(y) + 0.5 * x


ROWS, COLUMNS = 1024, 1024

KERNELS = {
    case.name: case
    for case in (
        *map(gemm, (128, 256, 512, 1024)),
        *map(linear, (1, 8, 128)),
        convolution("conv3x3_64", 64, 56, 3, is_quick=True),
        convolution("conv3x3_256", 256, 14, 3),
        convolution("conv1x1_256", 256, 14, 1),
        convolution("depthwise3x3", 96, 56, 3, groups=96, is_quick=True),
        convolution("depthwise5x5", 240, 28, 5, groups=240),
        convolution("conv3x3_g32", 256, 28, 3, groups=32),
        transposed_convolution("transposed2x2", 128, 64, 56, 2),
        transposed_convolution("transposed4x4", 128, 64, 28, 4),
        attention(),
        lstm("lstm_b1", 1, 128),
        lstm("lstm_b32", 32, 64),
        streaming("layer_norm", lambda: (nn.LayerNorm(768), (torch.randn(512, 768),)), 2 * 512 * 768, is_quick=True),
        streaming("softmax_rows", lambda: (nn.Softmax(-1), (torch.randn(ROWS, COLUMNS),)), 2 * ROWS * COLUMNS),
        streaming("column_sums", lambda: (Pointwise(lambda x: x.sum(0)), (torch.randn(ROWS, COLUMNS),)), ROWS * COLUMNS),
        streaming("pointwise_chain", lambda: (Pointwise(chain), (torch.randn(ROWS, COLUMNS), torch.randn(ROWS, COLUMNS))), 3 * ROWS * COLUMNS, is_quick=True),
        streaming("transposed_add", lambda: (Pointwise(lambda x, y: x + y.t()), (torch.randn(2048, 1024), torch.randn(1024, 2048))), 3 * 2048 * 1024),
        streaming("cross_entropy_rows", lambda: (Pointwise(F.cross_entropy), (torch.randn(512, 2048), torch.randint(2048, (512,)))), 512 * 2048),
    )
}
