"""Known architectures as small torch modules with random weights, for tests; torchvision is not needed.

ResNet-18 and MobileNetV2 have the layers and parameter counts of their papers; transformers' models have small configurations.
"""

import os

import torch
import torch.nn.functional as F
from torch import nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by transformers when it is imported


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2015, figure 2)."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


def resnet18(classes=1000):
    """ResNet-18: 11,689,512 parameters with 1000 classes."""
    stem = [nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    blocks = []
    for in_channels, channels, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        blocks += [BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection (Sandler et al. 2018, table 1)."""

    def __init__(self, in_channels, channels, stride, expansion):
        super().__init__()
        hidden = in_channels * expansion
        layers = [] if expansion == 1 else _conv_bn_relu6(in_channels, hidden, 1)
        layers += _conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden)
        layers += [nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels)]
        self.layers = nn.Sequential(*layers)
        self.is_residual = stride == 1 and in_channels == channels

    def forward(self, x):
        return x + self.layers(x) if self.is_residual else self.layers(x)


def mobilenet_v2(classes=1000):
    """MobileNetV2 of width 1: 3,504,872 parameters with 1000 classes."""
    layers, in_channels = _conv_bn_relu6(3, 32, 3, stride=2), 32
    # expansion, channels, repeats, stride of the first: table 2 of the paper
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, channels, repeats, first_stride in table:
        for repeat in range(repeats):
            layers.append(InvertedResidual(in_channels, channels, first_stride if repeat == 0 else 1, expansion))
            in_channels = channels
    layers += _conv_bn_relu6(320, 1280, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, classes))


def mlp():
    """Two hidden layers with ReLU and GELU: [batch, 20] -> [batch, 5]."""
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 33), nn.GELU(), nn.Linear(33, 5))


def small_cnn():
    """Two convolutions with batch norm and pooling: [batch, 3, 16, 16] -> [batch, 5]."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16 * 4 * 4, 5),
    )


def transformer_encoder():
    """`nn.TransformerEncoder` of two layers: [batch, tokens, 48] -> [batch, tokens, 48]."""
    layer = nn.TransformerEncoderLayer(48, nhead=4, dim_feedforward=96, dropout=0.0, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)


class TokenLogits(nn.Module):
    """Adapts a transformers model to tokens in, one tensor out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids=input_ids).logits


def gpt2():
    """GPT-2 of two blocks: [batch, tokens] -> [batch, tokens, 101]."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=101, n_positions=64, n_embd=48, n_layer=2, n_head=4, use_cache=False, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )
    return TokenLogits(GPT2LMHeadModel(config))


def bert():
    """A BERT classifier of two layers without dropout: [batch, tokens] -> [batch, 5]."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=101, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=64, num_labels=5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    return TokenLogits(BertForSequenceClassification(config))


def discriminator(classes=5):
    """A GAN's discriminator of strided convolutions (Radford et al. 2015), with logits of auxiliary classes: [batch, 3, 16, 16] -> [batch, classes]."""
    first = [nn.Conv2d(3, 8, 4, 2, padding=1), nn.LeakyReLU(0.2)]
    second = [nn.Conv2d(8, 16, 4, 2, padding=1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2)]
    return nn.Sequential(*first, *second, nn.Conv2d(16, classes, 4), nn.Flatten())


class Recurrent(nn.Module):
    """A recurrent network and a linear layer: [batch, steps, 12] -> ([batch, steps, 5], final states)."""

    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(12, 20, batch_first=True, **options)
        self.head = nn.Linear(40 if options.get("bidirectional") else 20, 5)

    def forward(self, x):
        output, state = self.rnn(x)
        return self.head(output), state


class LastStep(nn.Module):
    """The logits of a `Recurrent` after the last step: [batch, steps, 12] -> [batch, 5]."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x):
        return self.recurrent(x)[0][:, -1]


class SvdInTheMiddle(nn.Module):
    """A decomposition that no kernel serves, between two stretches that kernels do: [8, 12] -> [8, 5]."""

    def __init__(self):
        super().__init__()
        self.before = nn.Sequential(nn.Linear(12, 6), nn.GELU())
        self.after = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x):
        left, values, right = torch.linalg.svd(self.before(x), full_matrices=False)
        return self.after((left * values) @ right)  # a product that does not depend on the signs of the vectors


def parameter_count(model):
    """Trainable numbers in the model."""
    return sum(parameter.numel() for parameter in model.parameters())


def _conv_bn_relu6(in_channels, channels, kernel, stride=1, groups=1):
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU6()]
