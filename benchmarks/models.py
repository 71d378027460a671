"""The models of the benchmark: name -> Case. Sizes are those of small deployments, batch 1 unless the name says otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import language
import vision
from cases import Case, Pointwise, calibrated

__all__ = ["MODELS"]


def mlp(*widths, activation=nn.ReLU):
    """Linear layers with activations between them."""
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers[:-1])


class Recurrent(nn.Module):
    """The outputs of a recurrent network: [batch, steps, width] -> the same."""

    def __init__(self, kind, width, layers):
        super().__init__()
        self.rnn = kind(width, width, layers, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0]


class UnrolledCell(nn.Module):
    """A loop over the steps, written in Python: [batch, steps, width] -> the last state."""

    def __init__(self, kind, width):
        super().__init__()
        self.cell = kind(width, width)

    def forward(self, x):
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state[0] if isinstance(state, tuple) else state


class Dlrm(nn.Module):
    """Dense features and embeddings, their pairwise products, an MLP (Naumov et al. 2019): -> [batch, 1]."""

    def __init__(self, tables=8, rows=1000, width=32):
        super().__init__()
        self.bottom = mlp(13, 128, 64, width)
        self.tables = nn.ModuleList(nn.EmbeddingBag(rows, width, mode="sum") for _ in range(tables))
        self.top = mlp(width + (tables + 1) * tables // 2, 128, 64, 1)
        rows, columns = torch.tril_indices(tables + 1, tables + 1, -1)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, dense, indices):
        dense = self.bottom(dense)
        features = torch.stack([dense, *(table(indices[i]) for i, table in enumerate(self.tables))], 1)
        pairs = (features @ features.transpose(1, 2))[:, self.rows, self.columns]
        return torch.sigmoid(self.top(torch.cat([dense, pairs], 1)))


class Loss(nn.Module):
    """The cross-entropy of a classifier: inputs, labels -> loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, labels):
        return F.cross_entropy(self.model(x), labels)


class BiasGeluNorm(nn.Module):
    """Layer norm of the input plus gelu of a biased input: [rows, 768] twice."""

    def __init__(self, width=768):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x, residual):
        return self.norm(residual + F.gelu(x + self.bias))


class RmsNormSwiGlu(nn.Module):
    """RMS norm of a gated input: [rows, 2 * width] -> [rows, width]."""

    def __init__(self, width=1024):
        super().__init__()
        self.norm = nn.RMSNorm(width)

    def forward(self, x):
        gate, up = x.chunk(2, -1)
        return self.norm(F.silu(gate) * up)


def image(model, size=224, channels=3):
    """A model with batch norm calibrated on one random image, and that image."""
    return calibrated(model, torch.randn(1, channels, size, size))


def small_cnn():
    """Three convolutions with batch norm for images of 32 x 32."""
    stages = [layer for a, b in ((3, 32), (32, 64), (64, 128)) for layer in (vision.conv_norm(a, b, 3), nn.MaxPool2d(2))]
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(128 * 16, 10))


def autoencoder():
    """The anomaly detector of MLPerf Tiny: 640-128-128-128-8 and back, batch norm behind each layer."""
    widths = (640, 128, 128, 128, 8, 128, 128, 128, 640)
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())]
    return calibrated(nn.Sequential(*layers[:-2]), torch.randn(16, 640))


def labels(batch, classes):
    """Random classes."""
    return torch.randint(classes, (batch,))


MODELS = {
    case.name: case
    for case in (
        Case("mlp_tiny", lambda: (mlp(64, 128, 128, 10), (torch.randn(1, 64),)), is_quick=True),
        Case("mlp_1024", lambda: (mlp(1024, 1024, 1024, 1024), (torch.randn(32, 1024),))),
        Case("autoencoder", autoencoder),
        Case("lstm", lambda: (Recurrent(nn.LSTM, 256, 2), (torch.randn(1, 64, 256),)), is_quick=True),
        Case("gru", lambda: (Recurrent(nn.GRU, 256, 1), (torch.randn(8, 64, 256),))),
        Case("lstm_cell", lambda: (UnrolledCell(nn.LSTMCell, 256), (torch.randn(8, 32, 256),))),
        Case("gru_cell", lambda: (UnrolledCell(nn.GRUCell, 256), (torch.randn(8, 32, 256),))),
        Case("dlrm", lambda: (Dlrm(), (torch.randn(128, 13), torch.randint(1000, (8, 128, 4))))),
        Case("bert_base", language.bert),
        Case("bert_small_b8", lambda: language.bert(4, 512, 8, batch=8)),
        Case("gpt2_prefill", language.gpt2),
        Case("llama_prefill", language.llama, is_quick=True),
        Case("gpt2_decode", lambda: language.decoder(12, 50257, False), kind="decode"),
        Case("llama_decode", lambda: language.decoder(4, 1000, True), kind="decode"),
        Case("whisper_tiny_enc", language.whisper_encoder),
        Case("t5_small_enc", language.t5_encoder),
        Case("vit_small", language.vit),
        Case("resnet18", lambda: image(vision.resnet18()), is_quick=True),
        Case("resnet50", lambda: image(vision.resnet50())),
        Case("mobilenetv2", lambda: image(vision.mobilenet_v2()), is_quick=True),
        Case("mobilenetv3", lambda: image(vision.mobilenet_v3_large())),
        Case("efficientnet_b0", lambda: image(vision.efficientnet_b0())),
        Case("convnext_tiny", lambda: image(vision.ConvNeXt())),
        Case("squeezenet", lambda: image(vision.SqueezeNet())),
        Case("unet_small", lambda: image(vision.UNet(), 128)),
        Case("ds_cnn", lambda: calibrated(vision.DsCnn(), torch.randn(1, 1, 49, 10))),
        Case("tcn", lambda: (vision.Tcn(), (torch.randn(1, 16, 1024),))),
        Case("bias_gelu_res_ln", lambda: (BiasGeluNorm(), (torch.randn(512, 768), torch.randn(512, 768))), bytes=3 * 512 * 768 * 4),
        Case("softmax", lambda: (nn.Softmax(-1), (torch.randn(256, 2048),)), bytes=2 * 256 * 2048 * 4),
        Case("rmsnorm_swiglu", lambda: (RmsNormSwiGlu(), (torch.randn(256, 2048),)), bytes=3 * 256 * 1024 * 4),
        Case("cross_entropy", lambda: (Pointwise(F.cross_entropy), (torch.randn(256, 2048), labels(256, 2048))), bytes=256 * 2048 * 4),
        Case("mlp_train", lambda: (Loss(mlp(256, 512, 512, 10)), (torch.randn(64, 256), labels(64, 10))), kind="training", is_quick=True),
        Case("cnn_train", lambda: (Loss(small_cnn()), (torch.randn(16, 3, 32, 32), labels(16, 10))), kind="training"),
        Case("bert2_train", language.bert_training, kind="training"),
    )
}
