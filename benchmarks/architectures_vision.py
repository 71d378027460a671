"""Vision: transformers' own classes, convolutional networks with the layers of their papers, generators and detectors' parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import vision
from architecture import Architecture
from architectures_language import HEADS, USUAL, WIDTH, pretrained
from vision import Residual, conv_norm

__all__ = ["VISION"]

IMAGE_SIZES = ((2, 64), (3, 96))


def image(batch, size):
    """Pictures."""
    return (torch.randn(batch, 3, size, size),)


def pixels(batch, size):
    """Pictures for a model of transformers."""
    return {"pixel_values": torch.randn(batch, 3, size, size)}


def grouped_bottleneck(in_channels, width, stride):
    """ResNeXt's block of 32 groups of 4 (Xie et al. 2016, figure 3c)."""
    inner = 2 * width
    layers = [conv_norm(in_channels, inner), conv_norm(inner, inner, 3, stride, groups=32), conv_norm(inner, 4 * width, activation=None)]
    return Residual(nn.Sequential(*layers), in_channels, 4 * width, stride), 4 * width


class Branches(nn.Module):
    """The results of several branches, one behind the other along the channels."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class RectangularConvolution(nn.Sequential):
    """Convolution, batch norm and ReLU, with a kernel that need not be square."""

    def __init__(self, in_channels, channels, kernel, stride=1, padding=0):
        super().__init__(nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False), nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU(inplace=True))


def inception_v3():
    """The stem of Inception-v3 and one module of each kind (Szegedy et al. 2015, figures 5 to 7 and 10), of a quarter of its width."""
    conv = RectangularConvolution

    def chain(*layers):
        return nn.Sequential(*layers)

    stem = [conv(3, 8, 3, 2), conv(8, 8, 3), conv(8, 16, 3, padding=1), nn.MaxPool2d(3, 2), conv(16, 20, 1), conv(20, 48, 3), nn.MaxPool2d(3, 2)]
    pooled = nn.AvgPool2d(3, 1, 1)
    a = Branches(
        conv(48, 16, 1), chain(conv(48, 12, 1), conv(12, 16, 5, padding=2)),
        chain(conv(48, 16, 1), conv(16, 24, 3, padding=1), conv(24, 24, 3, padding=1)), chain(pooled, conv(48, 8, 1)),
    )  # fmt: skip
    b = Branches(conv(64, 96, 3, 2), chain(conv(64, 16, 1), conv(16, 24, 3, padding=1), conv(24, 24, 3, 2)), nn.MaxPool2d(3, 2))
    c = Branches(
        conv(184, 48, 1), chain(conv(184, 32, 1), conv(32, 32, (1, 7), padding=(0, 3)), conv(32, 48, (7, 1), padding=(3, 0))),
        chain(conv(184, 32, 1), conv(32, 32, (7, 1), padding=(3, 0)), conv(32, 48, (1, 7), padding=(0, 3))), chain(pooled, conv(184, 48, 1)),
    )  # fmt: skip
    e = Branches(conv(192, 80, 1), chain(conv(192, 96, 1), Branches(conv(96, 96, (1, 3), padding=(0, 1)), conv(96, 96, (3, 1), padding=(1, 0)))))
    return nn.Sequential(*stem, a, b, c, e, nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(272, 100))


class DenseLayer(nn.Module):
    """Batch norm, ReLU and convolution twice; the result joins its input (Huang et al. 2016)."""

    def __init__(self, channels, growth):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x):
        return torch.cat([x, self.layers(x)], 1)


def densenet(depths=(3, 4, 3), growth=12):
    """A DenseNet with transitions that halve channels and size."""
    layers, channels = [conv_norm(3, 24, 7, 2), nn.MaxPool2d(3, 2, 1)], 24
    for index, depth in enumerate(depths):
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        if index + 1 < len(depths):
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 100))


class ShuffleUnit(nn.Module):
    """ShuffleNet-v2's unit: half of the channels pass by, then both halves are shuffled (Ma et al. 2018, figure 3)."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        half = channels // 2
        self.stride = stride
        shrunk = [conv_norm(in_channels, in_channels, 3, 2, groups=in_channels, activation=None), conv_norm(in_channels, half)]
        self.shortcut = nn.Sequential(*shrunk) if stride > 1 else nn.Identity()
        inner = in_channels if stride > 1 else half
        self.layers = nn.Sequential(conv_norm(inner, half), conv_norm(half, half, 3, stride, groups=half, activation=None), conv_norm(half, half))

    def forward(self, x):
        left, right = (x, x) if self.stride > 1 else x.chunk(2, 1)
        joined = torch.cat([self.shortcut(left), self.layers(right)], 1)
        batch, channels, height, width = joined.shape
        return joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet():
    """ShuffleNet-v2 with two stages."""
    units = [ShuffleUnit(24, 48, 2), ShuffleUnit(48, 48, 1), ShuffleUnit(48, 96, 2), ShuffleUnit(96, 96, 1)]
    return nn.Sequential(conv_norm(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1), *units, conv_norm(96, 128), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 100))


def vgg():
    """VGG-11 of an eighth of its width, with its three linear layers."""
    layers, channels = [], 3
    for width in (8, "pool", 16, "pool", 32, 32, "pool", 64, 64, "pool", 64, 64, "pool"):
        layers += [nn.MaxPool2d(2)] if width == "pool" else [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        channels = channels if width == "pool" else width
    head = [nn.Linear(64 * 49, 128), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(128, 128), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(128, 100)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head)


def alexnet():
    """AlexNet of a quarter of its width, with local response normalization."""
    features = [
        nn.Conv2d(3, 16, 11, 4, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2), nn.Conv2d(16, 48, 5, padding=2, groups=2), nn.ReLU(),
        nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(), nn.Linear(64 * 9, 100))


def dcgan_generator(width=16):
    """DCGAN's generator (Radford et al. 2015): [batch, 32, 1, 1] -> [batch, 3, 32, 32]."""
    layers, channels = [], 32
    for index, out in enumerate((4 * width, 2 * width, width)):
        layers += [nn.ConvTranspose2d(channels, out, 4, 2 if index else 1, 1 if index else 0, bias=False), nn.BatchNorm2d(out), nn.ReLU(True)]
        channels = out
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh())


def dcgan_discriminator(width=16):
    """DCGAN's discriminator: [batch, 3, 64, 64] -> [batch, 1, ...]."""
    layers, channels = [], 3
    for out in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(channels, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out), nn.LeakyReLU(0.2, inplace=True)]
        channels = out
    return nn.Sequential(*layers, nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels, 1, 4)), nn.Sigmoid())


class FeaturePyramid(nn.Module):
    """Lateral 1x1 convolutions, and the coarser level upsampled onto the finer (Lin et al. 2016)."""

    def __init__(self, widths=(16, 32, 64), channels=24):
        super().__init__()
        self.stages = nn.ModuleList(conv_norm(a, b, 3, 2) for a, b in zip((3, *widths), widths))
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)

    def forward(self, x):
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        merged = [lateral(level) for lateral, level in zip(self.lateral, levels)]
        for index in (1, 0):
            merged[index] = merged[index] + F.interpolate(merged[index + 1], size=merged[index].shape[-2:], mode="nearest")
        return [smooth(level) for smooth, level in zip(self.smooth, merged)]


class SuperResolution(nn.Sequential):
    """Sub-pixel convolution (Shi et al. 2016): [batch, 3, height, width] -> three times as large."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 32, 5, padding=2), nn.Tanh(), nn.Conv2d(32, 27, 3, padding=1), nn.PixelShuffle(3))


class SpatialTransformer(nn.Module):
    """An image sampled where an affine map, predicted from it, says (Jaderberg et al. 2015)."""

    def __init__(self):
        super().__init__()
        self.localize = nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.Linear(72, 6), nn.Tanh())

    def forward(self, x):
        grid = F.affine_grid(self.localize(x).view(-1, 2, 3), x.shape, align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)


VIT = USUAL | {"image_size": 32, "patch_size": 8}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
FIXED_SIZE = ((2, 32), (3, 32))


def vision_model(name, model, config, sizes=FIXED_SIZE, **options):
    """An Architecture of transformers for pictures."""
    return Architecture(name, pretrained(model, config, **options), pixels, sizes)


def network(name, make, sizes=IMAGE_SIZES, inputs=image):
    """An Architecture written out here."""
    return Architecture(name, make, inputs, sizes)


VISION = (
    vision_model("vit", "ViTForImageClassification", "ViTConfig", **VIT),
    vision_model("deit", "DeiTForImageClassificationWithTeacher", "DeiTConfig", **VIT),
    vision_model("swin", "SwinForImageClassification", "SwinConfig", **SWIN),
    vision_model("swinv2", "Swinv2Model", "Swinv2Config", **SWIN),
    vision_model("convnext_hf", "ConvNextModel", "ConvNextConfig", IMAGE_SIZES, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 2, 1]),
    vision_model("convnextv2", "ConvNextV2Model", "ConvNextV2Config", IMAGE_SIZES, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 2, 1]),
    vision_model("dinov2", "Dinov2Model", "Dinov2Config", IMAGE_SIZES, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS, image_size=64, patch_size=16),
    vision_model("segformer", "SegformerForSemanticSegmentation", "SegformerConfig", IMAGE_SIZES, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1],
                 num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=32),
    vision_model("poolformer", "PoolFormerModel", "PoolFormerConfig", IMAGE_SIZES, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1]),
    vision_model("regnet", "RegNetModel", "RegNetConfig", IMAGE_SIZES, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8),
    vision_model("mobilevit", "MobileViTModel", "MobileViTConfig", ((2, 64), (3, 128)), hidden_sizes=[24, 24, 24], neck_hidden_sizes=[8, 16, 16, 24, 24, 24, 48]),
    network("convnext", lambda: vision.ConvNeXt((1, 1, 2, 1), (24, 32, 48, 64))),
    network("resnet50", vision.resnet50),
    network("resnext50", lambda: vision.resnet(grouped_bottleneck, (3, 4, 6, 3))),
    network("mobilenet_v2", vision.mobilenet_v2),
    network("mobilenet_v3", vision.mobilenet_v3_large),
    network("efficientnet_b0", vision.efficientnet_b0),
    network("inception_v3", inception_v3, ((2, 99), (3, 131))),
    network("densenet", densenet),
    network("shufflenet", shufflenet),
    network("squeezenet", vision.SqueezeNet),
    network("vgg", vgg, ((2, 64), (3, 224))),
    network("alexnet", alexnet, ((2, 95), (3, 127))),
    network("unet", vision.UNet),
    network("feature_pyramid", FeaturePyramid),
    network("super_resolution", SuperResolution, ((2, 19), (3, 24))),
    network("spatial_transformer", SpatialTransformer, ((2, 40), (3, 61))),
    network("dcgan_generator", dcgan_generator, ((2, 1), (5, 1)), lambda batch, _: (torch.randn(batch, 32, 1, 1),)),
    network("dcgan_discriminator", dcgan_discriminator),
)  # fmt: skip
