"""Decoding with few heads runs over shares of the keys; what the shares give is merged to attention over all of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import accel

attend = F.scaled_dot_product_attention


def written_out(query, key, value):
    return torch.softmax(query @ key.mT * 0.125, -1) @ value


def heads(n_heads, rows, keys, key_heads=None, dtype=torch.float32):
    return [torch.randn(1, n, length, 64, dtype=dtype) for n, length in ((n_heads, rows), (key_heads or n_heads, keys), (key_heads or n_heads, keys))]


def check(function, inputs):
    with torch.no_grad():
        compiled = torch.compile(function, backend="accel", options={"strict": True, "threads": 2})
        torch.testing.assert_close(compiled(*inputs), function(*inputs), equal_nan=True)


def kinds(function, inputs):
    with torch.no_grad():
        graphs = accel.explain(function)(*inputs).graphs
    return [kernel["kind"] for graph in graphs for partition in graph.partitions for kernel in partition.kernels]


@pytest.mark.parametrize("function", [attend, written_out], ids=["operator", "written_out"])
@pytest.mark.parametrize("n_heads, rows, keys", [(1, 1, 2048), (3, 1, 1536), (2, 4, 1024)], ids=str)
def test_shares_of_the_keys_give_the_whole(function, n_heads, rows, keys):
    inputs = heads(n_heads, rows, keys)
    assert kinds(function, inputs) != kinds(function, heads(n_heads, rows, 255))  # the merge is a kernel of its own
    check(function, inputs)


def test_heads_that_share_keys_still_read_them_together():
    check(lambda q, k, v: attend(q, k, v, enable_gqa=True), heads(4, 1, 2048, key_heads=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("seen", [slice(1500, None), slice(0, 7), slice(0, 0)], ids=["last", "first", "none"])
def test_masks_may_hide_whole_shares(seen, dtype):
    mask = torch.zeros(1, 1, 1, 2048, dtype=torch.bool)
    mask[..., seen] = True
    check(lambda q, k, v: attend(q, k, v, attn_mask=mask), heads(2, 1, 2048, dtype=dtype))


def test_a_written_out_softmax_of_nothing_is_nan():
    hidden = torch.full((2048,), float("-inf"))
    check(lambda q, k, v: torch.softmax(q @ k.mT + hidden, -1) @ v, heads(2, 1, 2048))


def test_training_keeps_the_sum_of_all_keys():
    inputs = [t.requires_grad_() for t in heads(1, 1, 1024)]
    compiled = torch.compile(attend, backend="accel", options={"strict": True})
    torch.testing.assert_close(torch.autograd.grad(compiled(*inputs).sum(), inputs), torch.autograd.grad(attend(*inputs).sum(), inputs), rtol=1e-4, atol=1e-5)
