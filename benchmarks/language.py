"""Transformers: transformers' models with random weights, and decoders with a cache of their own.

Prefill and encoders run whole sequences. The decoders write the step's keys and values into a preallocated cache.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by transformers when it is imported

__all__ = ["bert", "bert_training", "decoder", "gpt2", "llama", "t5_encoder", "tokens", "vit", "whisper_encoder"]


class Output(nn.Module):
    """Adapts a transformers model to one tensor in, the named one out."""

    def __init__(self, model, field, argument="input_ids", **options):
        super().__init__()
        self.model, self.field, self.argument, self.options = model, field, argument, options

    def forward(self, x):
        return getattr(self.model(**{self.argument: x}, **self.options), self.field)


def tokens(vocabulary, batch=1, length=128):
    """Token ids of a random text."""
    return torch.randint(vocabulary, (batch, length))


def bert(layers=12, width=768, heads=12, batch=1, length=128):
    """BERT, base by default, without dropout: tokens -> last hidden state."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * width,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return Output(BertModel(config, add_pooling_layer=False), "last_hidden_state"), (tokens(config.vocab_size, batch, length),)


def gpt2():
    """GPT-2 of 12 layers with its language-model head, 128 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(use_cache=False)
    return Output(GPT2LMHeadModel(config), "logits", use_cache=False), (tokens(config.vocab_size),)


def llama():
    """Four Llama blocks with grouped queries and a small head, 128 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000, hidden_size=768, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=12, num_key_value_heads=4, use_cache=False
    )
    return Output(LlamaForCausalLM(config), "logits", use_cache=False), (tokens(config.vocab_size),)


def t5_encoder():
    """The encoder of T5-small, 128 tokens."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(dropout_rate=0.0)
    return Output(T5EncoderModel(config), "last_hidden_state"), (tokens(config.vocab_size),)


def vit():
    """ViT-small with patches of 16, one image."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, num_labels=1000)
    return Output(ViTForImageClassification(config), "logits", "pixel_values"), (torch.randn(1, 3, 224, 224),)


def whisper_encoder():
    """The encoder of Whisper-tiny, 30 seconds of mel bands."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_mel_bins=80)
    return Output(WhisperEncoder(config), "last_hidden_state", "input_features"), (torch.randn(1, 80, 3000),)


class BertTraining(nn.Module):
    """A BERT classifier that returns its loss."""

    def __init__(self, layers, width, heads):
        super().__init__()
        self.encoder, _ = bert(layers, width, heads)
        self.head = nn.Linear(width, 5)

    def forward(self, x, labels):
        return F.cross_entropy(self.head(self.encoder(x)[:, 0]), labels)


def bert_training(layers=2, width=256, heads=4, batch=8, length=64):
    """A training step of a small BERT."""
    model = BertTraining(layers, width, heads)
    return model, (tokens(30522, batch, length), torch.randint(5, (batch,)))


class CachedAttention(nn.Module):
    """Attention of one new token over a cache of keys and values that it extends: [batch, 1, width] -> the same."""

    def __init__(self, width, heads, cached_heads, length, is_rotary):
        super().__init__()
        self.heads, self.cached_heads, self.size, self.is_rotary = heads, cached_heads, width // heads, is_rotary
        self.qkv = nn.Linear(width, width + 2 * cached_heads * self.size, bias=not is_rotary)
        self.out = nn.Linear(width, width, bias=not is_rotary)
        self.register_buffer("keys", torch.randn(1, cached_heads, length, self.size))
        self.register_buffer("values", torch.randn(1, cached_heads, length, self.size))

    def rotate(self, x, position):
        """Rotary embedding at `position` (Su et al. 2021)."""
        frequency = 10000 ** (-torch.arange(0, self.size, 2) / self.size)
        angle = (position * frequency).repeat(2)
        low, high = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-high, low], -1) * angle.sin()

    def forward(self, x, position):
        cached = self.cached_heads * self.size
        query, key, value = self.qkv(x).split([self.heads * self.size, cached, cached], -1)
        query, key, value = (part.unflatten(-1, (-1, self.size)).transpose(1, 2) for part in (query, key, value))
        if self.is_rotary:
            query, key = self.rotate(query, position), self.rotate(key, position)
        self.keys.index_copy_(2, position, key)
        self.values.index_copy_(2, position, value)
        mask = (torch.arange(self.keys.shape[2]) <= position)[None]  # [1, length]
        attended = F.scaled_dot_product_attention(query, self.keys, self.values, attn_mask=mask, enable_gqa=self.heads != self.cached_heads)
        return self.out(attended.transpose(1, 2).flatten(2))


class SwiGlu(nn.Module):
    """The feed-forward layers of Llama."""

    def __init__(self, width, hidden):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class CachedBlock(nn.Module):
    """A pre-norm block of GPT-2, or of Llama if `is_llama`."""

    def __init__(self, width, heads, length, is_llama):
        super().__init__()
        norm = nn.RMSNorm if is_llama else nn.LayerNorm
        self.norms = nn.ModuleList(norm(width) for _ in range(2))
        self.attention = CachedAttention(width, heads, heads // 3 if is_llama else heads, length, is_llama)
        hidden = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.feed_forward = SwiGlu(width, 2048) if is_llama else hidden

    def forward(self, x, position):
        x = x + self.attention(self.norms[0](x), position)
        return x + self.feed_forward(self.norms[1](x))


class Decoder(nn.Module):
    """One step of decoding: token [1, 1] and position [1] -> logits."""

    def __init__(self, layers, vocabulary, is_llama, width=768, heads=12, length=256):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(CachedBlock(width, heads, length, is_llama) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, token, position):
        x = self.embedding(token)
        for block in self.blocks:
            x = block(x, position)
        return self.head(x)


def decoder(layers, vocabulary, is_llama):
    """A step at position 128 of a cache of 256."""
    return Decoder(layers, vocabulary, is_llama), (tokens(vocabulary, 1, 1), torch.tensor([128]))
