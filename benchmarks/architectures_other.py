"""Models that are neither language nor vision: sequences, graphs, points, recommendation, state spaces, fields."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

import vision
from architecture import Architecture
from models import Dlrm, autoencoder, mlp

__all__ = ["OTHER"]

SEQUENCE_SIZES = ((2, 12), (3, 19))


class AttentiveTranslator(nn.Module):
    """An LSTM encoder and an LSTM decoder that attends to its states (Luong et al. 2015): source, target -> logits."""

    def __init__(self, vocabulary=50, width=24):
        super().__init__()
        self.source, self.target = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)
        self.encoder = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.decoder = nn.LSTM(width, 2 * width, batch_first=True)
        self.merge, self.head = nn.Linear(4 * width, width), nn.Linear(width, vocabulary)

    def forward(self, source, target):
        memory, (hidden, cell) = self.encoder(self.source(source))
        state = tuple(part.transpose(0, 1).reshape(1, len(source), -1) for part in (hidden, cell))
        queries, _ = self.decoder(self.target(target), state)
        weights = torch.softmax(queries @ memory.transpose(1, 2) / math.sqrt(memory.shape[-1]), -1)
        return self.head(torch.tanh(self.merge(torch.cat([queries, weights @ memory], -1))))


class WaveNetBlock(nn.Module):
    """A gated dilated causal convolution with residual and skip (van den Oord et al. 2016, figure 4)."""

    def __init__(self, channels, dilation):
        super().__init__()
        self.dilation = dilation
        self.gated = nn.Conv1d(channels, 2 * channels, 2, dilation=dilation)
        self.residual, self.skip = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        filtered, gate = self.gated(F.pad(x, (self.dilation, 0))).chunk(2, 1)
        z = torch.tanh(filtered) * torch.sigmoid(gate)
        return x + self.residual(z), self.skip(z)


class WaveNet(nn.Module):
    """Blocks of growing dilation whose skips are summed: [batch, 1, steps] -> [batch, 32, steps]."""

    def __init__(self, channels=16):
        super().__init__()
        self.stem = nn.utils.parametrizations.weight_norm(nn.Conv1d(1, channels, 1))
        self.blocks = nn.ModuleList(WaveNetBlock(channels, 2**level) for level in range(4))
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(channels, channels, 1), nn.ReLU(), nn.Conv1d(channels, 32, 1))

    def forward(self, x):
        x, skips = self.stem(x), 0
        for block in self.blocks:
            x, skip = block(x)
            skips = skips + skip
        return self.head(skips)


class PointNet(nn.Module):
    """Points through a shared MLP, aligned by a predicted matrix, pooled to one vector (Qi et al. 2016): [batch, 3, points] -> [batch, 10]."""

    def __init__(self):
        super().__init__()
        self.align = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(16, 9))
        self.shared = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1), nn.BatchNorm1d(64), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.LogSoftmax(-1))

    def forward(self, x):
        matrix = self.align(x).view(-1, 3, 3) + torch.eye(3, dtype=x.dtype)
        return self.head(self.shared(torch.bmm(x.transpose(1, 2), matrix).transpose(1, 2)).max(-1)[0])


class GraphConvolution(nn.Module):
    """Two layers of a GCN over a dense adjacency (Kipf and Welling 2016): nodes [n, 8], adjacency [n, n] -> [n, 4]."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x, adjacency):
        adjacency = adjacency + torch.eye(len(adjacency), dtype=x.dtype)
        scale = adjacency.sum(-1).rsqrt()
        adjacency = scale[:, None] * adjacency * scale
        return self.second(adjacency @ F.relu(self.first(adjacency @ x))).log_softmax(-1)


class EdgeConvolution(nn.Module):
    """Messages along an edge list, summed at their targets: nodes [n, 8], edges [2, m] -> [n, 8]."""

    def __init__(self):
        super().__init__()
        self.message, self.update = mlp(16, 16, 8), nn.GRUCell(8, 8)

    def forward(self, x, edges):
        for _ in range(2):
            messages = self.message(torch.cat([x[edges[0]], x[edges[1]]], -1))
            x = self.update(torch.zeros_like(x).index_add(0, edges[1], messages), x)
        return x


class GraphAttention(nn.Module):
    """Attention over the neighbours of each node (Velickovic et al. 2017): nodes [n, 8], adjacency [n, n] -> [n, 6]."""

    def __init__(self):
        super().__init__()
        self.project, self.source, self.target = nn.Linear(8, 6), nn.Linear(6, 1), nn.Linear(6, 1)

    def forward(self, x, adjacency):
        hidden = self.project(x)
        scores = F.leaky_relu(self.source(hidden) + self.target(hidden).T, 0.2)
        return F.elu(torch.softmax(scores.masked_fill((adjacency == 0) & ~torch.eye(len(x), dtype=torch.bool), float("-inf")), -1) @ hidden)


class Vae(nn.Module):
    """A variational autoencoder that decodes a given noise (Kingma and Welling 2013): image, noise -> image, mean, log variance."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.ELU(), nn.Conv2d(8, 16, 4, 2, 1), nn.ELU(), nn.Flatten(), nn.Linear(16 * 49, 16))
        self.decoder = nn.Sequential(
            nn.Linear(8, 16 * 49), nn.ELU(), nn.Unflatten(1, (16, 7, 7)), nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ELU(), nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Sigmoid()
        )

    def forward(self, x, noise):
        mean, log_variance = self.encoder(x).chunk(2, -1)
        return self.decoder(mean + noise * torch.exp(0.5 * log_variance)), mean, log_variance


class Nerf(nn.Module):
    """Positional encoding, an MLP and the sum along rays (Mildenhall et al. 2020): points [rays, samples, 3] -> colours [rays, 3]."""

    def __init__(self, bands=4, width=32):
        super().__init__()
        self.register_buffer("bands", 2.0 ** torch.arange(bands) * math.pi)
        self.mlp = mlp(3 + 6 * bands, width, width, 4)

    def forward(self, points):
        angles = (points[..., None] * self.bands).flatten(-2)
        field = self.mlp(torch.cat([points, angles.sin(), angles.cos()], -1))
        alpha = 1 - torch.exp(-F.relu(field[..., 3]) * 0.1)
        passed = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha + 1e-10], -1), -1)[:, :-1]
        return ((alpha * passed)[..., None] * torch.sigmoid(field[..., :3])).sum(-2)


class SelectiveScan(nn.Module):
    """A state space whose step sizes depend on the input, in a loop over time (Gu and Dao 2023): [batch, steps, 16] -> the same."""

    def __init__(self, width=16, state=8):
        super().__init__()
        self.project, self.step, self.out = nn.Linear(width, 2 * width + 2 * state), nn.Linear(width, width), nn.Linear(width, width)
        self.log_decay = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(width, 1))
        self.skip, self.width, self.state = nn.Parameter(torch.ones(width)), width, state
        self.convolution = nn.Conv1d(width, width, 4, padding=3, groups=width)

    def forward(self, u):
        x, gate, b, c = self.project(u).split([self.width, self.width, self.state, self.state], -1)
        x = F.silu(self.convolution(x.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2))
        delta = F.softplus(self.step(x))
        decay, pushed = torch.exp(delta[..., None] * -torch.exp(self.log_decay)), delta[..., None] * b[:, :, None] * x[..., None]
        state, results = torch.zeros_like(pushed[:, 0]), []
        for time in range(u.shape[1]):
            state = decay[:, time] * state + pushed[:, time]
            results.append((state * c[:, time, None]).sum(-1))
        return self.out((torch.stack(results, 1) + self.skip * x) * F.silu(gate))


class LinearAttention(nn.Module):
    """RWKV-like: tokens mixed with their predecessors, and an exponentially decaying average of values (Peng et al. 2023)."""

    def __init__(self, width=16):
        super().__init__()
        self.mix = nn.Parameter(torch.rand(3, width))
        self.receptance, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.decay, self.bonus = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))

    def forward(self, x):
        shifted = F.pad(x, (0, 0, 1, -1))
        r, k, v = (layer(torch.lerp(shifted, x, mix)) for layer, mix in zip((self.receptance, self.key, self.value), self.mix))
        times = torch.arange(x.shape[1])
        ages = (times[:, None] - times - 1)[..., None]
        weights = torch.where(ages >= 0, -ages * self.decay.exp(), torch.where(ages == -1, self.bonus, float("-inf")))
        weighted = torch.softmax(weights + k[:, None], 2)
        return self.out(torch.sigmoid(r) * (weighted * v[:, None]).sum(2))


class Mixer(nn.Module):
    """A layer of MLP-Mixer (Tolstikhin et al. 2021): [batch, 9, 16] -> the same."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2))
        self.tokens, self.channels = mlp(9, 18, 9, activation=nn.GELU), mlp(16, 32, 16, activation=nn.GELU)

    def forward(self, x):
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Kernels(nn.Module):
    """A Gaussian process's mean with a radial kernel: queries [n, 3], points [m, 3], weights [m] -> [n]."""

    def forward(self, queries, points, weights):
        return torch.exp(-torch.cdist(queries, points).square()) @ weights


class DuelingQ(nn.Module):
    """Values and advantages of actions from frames, masked and the best taken (Wang et al. 2015)."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(4, 8, 8, 4), nn.ReLU(), nn.Conv2d(8, 16, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 9, 32), nn.ReLU())
        self.value, self.advantage = nn.Linear(32, 1), nn.Linear(32, 6)

    def forward(self, frames):
        hidden = self.features(frames)
        advantage = self.advantage(hidden)
        q = self.value(hidden) + advantage - advantage.mean(1, keepdim=True)
        return q, q.argmax(1), q.max(1)[0]


class Transformer(nn.Module):
    """`nn.Transformer` with a causal mask: source, target [batch, steps, 32] -> the same as target."""

    def __init__(self):
        super().__init__()
        self.model = nn.Transformer(32, 4, 2, 2, 64, dropout=0.0, batch_first=True)

    def forward(self, source, target):
        length = target.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.model(source, target, tgt_mask=mask, tgt_is_causal=True)  # else torch compares the mask, a graph break


def graph(n, _):
    """Nodes and a symmetric adjacency."""
    adjacency = (torch.rand(n, n) < 0.3).float()
    return torch.randn(n, 8), ((adjacency + adjacency.T) > 0).float()


def sequence(width):
    """Inputs [batch, steps, width]."""
    return lambda batch, length: (torch.randn(batch, length, width),)


GRAPH_SIZES = ((11, 0), (17, 0))

OTHER = (
    Architecture("seq2seq_attention", AttentiveTranslator, lambda b, n: (torch.randint(50, (b, n)), torch.randint(50, (b, n - 4))), SEQUENCE_SIZES),
    Architecture("nn_transformer", Transformer, lambda b, n: (torch.randn(b, n, 32), torch.randn(b, n - 4, 32)), SEQUENCE_SIZES),
    Architecture("dlrm", lambda: Dlrm(4, 100, 16), lambda b, n: (torch.randn(b, 13), torch.randint(100, (4, b, n))), ((5, 3), (8, 4))),
    Architecture("tcn", lambda: vision.Tcn(16), lambda b, n: (torch.randn(b, 16, n),), ((2, 60), (3, 100))),
    Architecture("wavenet", WaveNet, lambda b, n: (torch.randn(b, 1, n),), ((2, 60), (3, 100))),
    Architecture("pointnet", PointNet, lambda b, n: (torch.randn(b, 3, n),), ((2, 60), (3, 100))),
    Architecture("gcn", GraphConvolution, graph, GRAPH_SIZES),
    Architecture("edge_convolution", EdgeConvolution, lambda n, _: (torch.randn(n, 8), torch.randint(n, (2, 3 * n))), GRAPH_SIZES),
    Architecture("graph_attention", GraphAttention, graph, GRAPH_SIZES),
    Architecture("vae", Vae, lambda b, _: (torch.randn(b, 1, 28, 28), torch.randn(b, 8)), ((2, 0), (5, 0))),
    Architecture("autoencoder", lambda: autoencoder()[0], lambda b, _: (torch.randn(b, 640),), ((3, 0), (5, 0))),
    Architecture("nerf", Nerf, lambda b, n: (torch.rand(b, n, 3),), ((6, 16), (9, 24))),
    Architecture("selective_scan", SelectiveScan, sequence(16), ((2, 6), (3, 6))),
    Architecture("linear_attention", LinearAttention, sequence(16), SEQUENCE_SIZES),
    Architecture("mixer", Mixer, lambda b, _: (torch.randn(b, 9, 16),), ((2, 0), (3, 0))),
    Architecture("kernel_regression", Kernels, lambda n, m: (torch.rand(n, 3), torch.rand(m, 3), torch.randn(m)), ((7, 9), (12, 5))),
    Architecture("dueling_q", DuelingQ, lambda b, _: (torch.randn(b, 4, 44, 44),), ((2, 0), (3, 0))),
)
