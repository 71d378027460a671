"""Attention that a model wrote out is found, and what only looks like it is left alone."""

from __future__ import annotations

import math

import pytest
import torch
from value_programs import MACHINES, compile_values

from accel.lowering import registry

aten = torch.ops.aten
BATCH, HEADS, ROWS, KEYS, WIDTH = 2, 4, 13, 21, 16


def lower(op):
    return registry.find(op).function


def product(g, a, b):
    """matmul of [batch, heads, …] as AOTAutograd writes it: over one batch dim."""
    flat = lower(aten.bmm.default)(g, a.reshape([-1, *a.sizes[-2:]]), b.reshape([-1, *b.sizes[-2:]]))
    return flat.reshape([*a.sizes[:-1], b.sizes[-1]])


def operands(key_heads=HEADS, dtype=torch.float32):
    torch.manual_seed(3)
    return [torch.randn(BATCH, h, n, WIDTH).to(dtype) for h, n in ((HEADS, ROWS), (key_heads, KEYS), (key_heads, KEYS))]


def attention(g, q, k, v, change=lambda s: s, softmax=aten._softmax.default):
    scores = g.realize(change(product(g, q, k.permute([0, 1, 3, 2]))))
    weights = lower(softmax)(g, scores, -1, False) if softmax is aten._softmax.default else lower(softmax)(g, scores, -1)
    return product(g, weights, v)


def reference(q, k, v, change=lambda s: s):
    return change(q.double() @ k.double().mT).softmax(-1) @ v.double()


def kinds(partition):
    return [kernel.kind for kernel in partition.kernels]


def test_scale_and_mask_become_part_of_the_kernel():
    q, k, v, mask = *operands(), torch.where(torch.rand(BATCH, 1, 1, KEYS) < 0.7, 0.0, -1e9)
    partition, run = compile_values(lambda g, q, k, v, m: attention(g, q, k, v, lambda s: g.map("add", s * 0.25, m)), (q, k, v, mask), MACHINES["lanes8"])
    assert kinds(partition)[-1] == "attention" and "gemm" not in kinds(partition)
    torch.testing.assert_close(run(q, k, v, mask)[0], reference(q, k, v, lambda s: s * 0.25 + mask).float(), rtol=1e-5, atol=1e-5)


def test_causal_where_and_a_bias_for_every_head():
    q, k, v = operands()
    bias = torch.randn(HEADS, ROWS, KEYS)

    def change(g, s, bias):
        return g.map("add", s, bias).where(g.index(s.sizes, 3) <= g.index(s.sizes, 2), -1e30)

    partition, run = compile_values(lambda g, q, k, v, b: attention(g, q, k, v, lambda s: change(g, s, b)), (q, k, v, bias), MACHINES["lanes8"])
    assert "attention" in kinds(partition)
    hidden = torch.arange(KEYS) > torch.arange(ROWS).unsqueeze(1)
    torch.testing.assert_close(run(q, k, v, bias)[0], reference(q, k, v, lambda s: (s + bias).masked_fill(hidden, -1e30)).float(), rtol=1e-5, atol=1e-5)


def test_rows_that_see_nothing_give_nan_or_zero_as_the_softmax_does():
    q, k, v = operands()
    mask = torch.ones(ROWS, KEYS, dtype=torch.bool)
    mask[2] = False
    for softmax, wanted in ((aten._softmax.default, math.nan), (aten._safe_softmax.default, 0.0)):
        partition, run = compile_values(lambda g, q, k, v, m, f=softmax: attention(g, q, k, v, lambda s: s.where(m, -math.inf), f), (q, k, v, mask), MACHINES["lanes8"])
        assert "attention" in kinds(partition)
        result = run(q, k, v, mask)[0]
        expected = reference(q, k, v, lambda s: s.masked_fill(~mask, -math.inf)).float()
        expected[:, :, 2] = wanted
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_keys_repeated_for_the_heads_that_share_them_are_read_once():
    q, k, v = operands(key_heads=2)

    def repeated(x):
        return x.unsqueeze(2).expand([BATCH, 2, HEADS // 2, KEYS, WIDTH]).reshape([BATCH, HEADS, KEYS, WIDTH])

    partition, run = compile_values(lambda g, q, k, v: attention(g, q, repeated(k), repeated(v)), (q, k, v), MACHINES["lanes8"])
    assert kinds(partition) == ["pack", "pack", "attention"]
    torch.testing.assert_close(run(q, k, v)[0], reference(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)).float(), rtol=1e-5, atol=1e-5)


def test_symbolic_lengths_and_half_operands():
    q, k, v = operands(dtype=torch.bfloat16)
    partition, run = compile_values(lambda g, q, k, v: attention(g, q, k, v, lambda s: s * 0.25), (q, k, v), MACHINES["lanes8"], {ROWS: "s0", KEYS: "s1"})
    assert "attention" in kinds(partition)
    torch.testing.assert_close(run(q, k, v, sizes=(ROWS, KEYS))[0].double(), reference(q, k, v, lambda s: s * 0.25), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("what", ["weights", "scores"])
def test_a_chain_that_others_look_into_stays(what):
    q, k, v = operands()

    def program(g, q, k, v):
        scores = g.realize(product(g, q, k.permute([0, 1, 3, 2])) * 0.25)
        weights = g.realize(lower(aten._softmax.default)(g, scores, -1, False))
        return [product(g, weights, v), weights if what == "weights" else scores * 2.0]

    partition, run = compile_values(program, (q, k, v), MACHINES["lanes8"])
    assert "attention" not in kinds(partition)
    torch.testing.assert_close(run(q, k, v)[0], reference(q, k, v, lambda s: s * 0.25).float(), rtol=1e-5, atol=1e-5)
