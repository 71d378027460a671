"""Convolutional networks with the layers of their papers, batch 1, written out since torchvision is not needed otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ConvNeXt", "DsCnn", "SqueezeNet", "Tcn", "UNet", "efficientnet_b0", "mobilenet_v2", "mobilenet_v3_large", "resnet18", "resnet50"]


def conv_norm(in_channels, channels, kernel=1, stride=1, groups=1, activation=nn.ReLU):
    """Convolution, batch norm, activation (None for none)."""
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), *([activation()] if activation else []))


class Residual(nn.Module):
    """ReLU of layers plus shortcut (He et al. 2015, figures 2 and 5)."""

    def __init__(self, layers, in_channels, channels, stride):
        super().__init__()
        self.layers = layers
        is_same = stride == 1 and in_channels == channels
        self.shortcut = nn.Identity() if is_same else conv_norm(in_channels, channels, 1, stride, activation=None)

    def forward(self, x):
        return F.relu(self.layers(x) + self.shortcut(x))


def basic_block(in_channels, width, stride):
    """Two 3x3 convolutions; the block and the number of its channels."""
    layers = nn.Sequential(conv_norm(in_channels, width, 3, stride), conv_norm(width, width, 3, activation=None))
    return Residual(layers, in_channels, width, stride), width


def bottleneck(in_channels, width, stride):
    """1x1, 3x3 and 1x1 convolutions, four times as wide behind the last."""
    layers = [conv_norm(in_channels, width), conv_norm(width, width, 3, stride), conv_norm(width, 4 * width, activation=None)]
    return Residual(nn.Sequential(*layers), in_channels, 4 * width, stride), 4 * width


def resnet(make_block, depths):
    """A ResNet of the paper's table 1: [batch, 3, height, width] -> [batch, 1000]."""
    layers, channels = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, padding=1)], 64
    for stage, depth in enumerate(depths):
        for index in range(depth):
            block, channels = make_block(channels, 64 * 2**stage, 2 if stage and not index else 1)
            layers.append(block)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def resnet18():
    """ResNet-18: 11.7 million parameters."""
    return resnet(basic_block, (2, 2, 2, 2))


def resnet50():
    """ResNet-50: 25.6 million parameters."""
    return resnet(bottleneck, (3, 4, 6, 3))


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate that sees their means (Hu et al. 2017)."""

    def __init__(self, channels, squeezed, activation, gate):
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), activation(), nn.Conv2d(squeezed, channels, 1), gate())

    def forward(self, x):
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, optional squeeze and excitation, 1x1 projection (Sandler et al. 2018)."""

    def __init__(self, in_channels, channels, hidden, kernel, stride, activation, squeezed=None, gate=nn.Hardsigmoid, squeeze_activation=nn.ReLU):
        super().__init__()
        layers = [conv_norm(in_channels, hidden, activation=activation)] if hidden != in_channels else []
        layers.append(conv_norm(hidden, hidden, kernel, stride, groups=hidden, activation=activation))
        if squeezed:
            layers.append(SqueezeExcite(hidden, squeezed, squeeze_activation, gate))
        self.layers = nn.Sequential(*layers, conv_norm(hidden, channels, activation=None))
        self.is_residual = stride == 1 and in_channels == channels

    def forward(self, x):
        return x + self.layers(x) if self.is_residual else self.layers(x)


def mobilenet_v2():
    """MobileNetV2 of width 1: 3.5 million parameters."""
    layers, channels = [conv_norm(3, 32, 3, 2, activation=nn.ReLU6)], 32
    # expansion, channels, repeats, stride of the first: table 2 of the paper
    for expansion, width, repeats, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)):
        for index in range(repeats):
            layers.append(InvertedResidual(channels, width, channels * expansion, 3, 1 if index else stride, nn.ReLU6))
            channels = width
    layers.append(conv_norm(channels, 1280, activation=nn.ReLU6))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


# kernel, hidden, channels, squeeze and excitation, hard swish, stride: Howard et al. 2019, table 1
MOBILENET_V3_LARGE = (
    (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
    (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
    (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
)  # fmt: skip


def mobilenet_v3_large():
    """MobileNetV3-Large: 5.5 million parameters."""
    layers, channels = [conv_norm(3, 16, 3, 2, activation=nn.Hardswish)], 16
    for kernel, hidden, width, is_squeezed, is_swish, stride in MOBILENET_V3_LARGE:
        squeezed = (hidden // 4 + 4) // 8 * 8 if is_squeezed else None
        layers.append(InvertedResidual(channels, width, hidden, kernel, stride, nn.Hardswish if is_swish else nn.ReLU, squeezed))
        channels = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers, conv_norm(160, 960, activation=nn.Hardswish), *head)


def efficientnet_b0():
    """EfficientNet-B0: 5.3 million parameters."""
    layers, channels = [conv_norm(3, 32, 3, 2, activation=nn.SiLU)], 32
    # expansion, channels, repeats, stride of the first, kernel: Tan and Le 2019, table 1
    stages = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
    for expansion, width, repeats, stride, kernel in stages:
        for index in range(repeats):
            options = {"squeezed": channels // 4, "gate": nn.Sigmoid, "squeeze_activation": nn.SiLU}
            layers.append(InvertedResidual(channels, width, channels * expansion, kernel, 1 if index else stride, nn.SiLU, **options))
            channels = width
    layers.append(conv_norm(channels, 1280, activation=nn.SiLU))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))


class ConvNeXtBlock(nn.Module):
    """7x7 depthwise convolution, layer norm and an MLP over channels (Liu et al. 2022, figure 4)."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.mlp = nn.Sequential(nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.1))

    def forward(self, x):
        return x + self.scale * self.mlp(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [batch, channels, height, width]."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXt(nn.Sequential):
    """ConvNeXt-T: 28.6 million parameters."""

    def __init__(self, depths=(3, 3, 9, 3), widths=(96, 192, 384, 768)):
        layers, channels = [], 3
        for depth, width in zip(depths, widths):
            convolution = nn.Conv2d(channels, width, 2 if layers else 4, 2 if layers else 4)
            layers += [ChannelNorm(channels), convolution] if layers else [convolution, ChannelNorm(width)]
            layers += [ConvNeXtBlock(width) for _ in range(depth)]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(channels), nn.Linear(channels, 1000))


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and 3x3 (Iandola et al. 2016)."""

    def __init__(self, in_channels, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.pointwise = nn.Conv2d(squeezed, expanded, 1)
        self.spatial = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.pointwise(x)), F.relu(self.spatial(x))], 1)


class SqueezeNet(nn.Sequential):
    """SqueezeNet 1.1: 1.2 million parameters."""

    def __init__(self):
        def pool():
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        super().__init__(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128), Fire(256, 32, 128), pool(),
            Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256), nn.Conv2d(512, 1000, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


class UNet(nn.Module):
    """Two levels down and up with skips (Ronneberger et al. 2015): [batch, 3, height, width] -> [batch, 2, height, width]."""

    def __init__(self, width=16):
        super().__init__()
        self.down = nn.ModuleList(self._stage(a, b) for a, b in ((3, width), (width, 2 * width), (2 * width, 4 * width)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * b, b, 2, 2) for b in (2 * width, width))
        self.merge = nn.ModuleList(self._stage(2 * b, b) for b in (2 * width, width))
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _stage(in_channels, channels):
        return nn.Sequential(conv_norm(in_channels, channels, 3), conv_norm(channels, channels, 3))

    def forward(self, x):
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        x = self.down[2](F.max_pool2d(second, 2))
        for up, merge, skip in zip(self.up, self.merge, (second, first)):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


class DsCnn(nn.Sequential):
    """Keyword spotting (Zhang et al. 2017, DS-CNN small): [batch, 1, 49, 10] -> [batch, 12]."""

    def __init__(self, channels=64):
        stem = [nn.Conv2d(1, channels, (10, 4), 2, padding=(5, 1), bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        blocks = [layer for _ in range(4) for layer in (conv_norm(channels, channels, 3, groups=channels), conv_norm(channels, channels))]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 12))


class TcnBlock(nn.Module):
    """Two causal dilated convolutions and a residual (Bai et al. 2018, figure 1)."""

    def __init__(self, channels, dilation, kernel=3):
        super().__init__()
        self.pad = (kernel - 1) * dilation
        self.convolutions = nn.ModuleList(nn.Conv1d(channels, channels, kernel, dilation=dilation) for _ in range(2))

    def forward(self, x):
        hidden = x
        for convolution in self.convolutions:
            hidden = F.relu(convolution(F.pad(hidden, (self.pad, 0))))
        return F.relu(x + hidden)


class Tcn(nn.Sequential):
    """Eight blocks of dilations 1 … 128: [batch, 16, steps] -> [batch, 10, steps]."""

    def __init__(self, channels=64):
        blocks = [TcnBlock(channels, 2**level) for level in range(8)]
        super().__init__(nn.Conv1d(16, channels, 1), *blocks, nn.Conv1d(channels, 10, 1))
