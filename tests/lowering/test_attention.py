"""The attention kernel against attention written out in float64: shapes, masks, strides, dtypes, machines, symbolic sizes."""

from __future__ import annotations

import math

import pytest
import torch
from value_programs import MACHINES, compile_values, run_values

from accel.lowering import registry

aten = torch.ops.aten
forward = registry.find(aten._scaled_dot_product_flash_attention_for_cpu.default).function

# Sums of up to some hundred weighted values of magnitude 1, rounded once to the dtype.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def expected(query, key, value, mask=None, is_causal=False, scale=None):
    """(output, logsumexp) in float64; rows that may look at nothing give 0."""
    shared = query.shape[1] // key.shape[1]
    query, key, value = query.double(), key.double().repeat_interleave(shared, 1), value.double().repeat_interleave(shared, 1)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.double()
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores[0, 0]).triu(1).bool(), -math.inf)
    is_empty = (scores == -math.inf).all(-1)
    return scores.softmax(-1).masked_fill(is_empty.unsqueeze(-1), 0.0) @ value, scores.logsumexp(-1).masked_fill(is_empty, 0.0)


def check(results, reference, dtype):
    for result, wanted in zip(results, reference):
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(result, wanted.to(result.dtype), rtol=tolerance, atol=tolerance)


def operands(batch, heads, key_heads, rows, keys, width, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(batch, h, n, width).to(dtype) for h, n in ((heads, rows), (key_heads, keys), (key_heads, keys))]


# batch, heads, key heads, rows, keys, width: blocks that do not divide, single rows (decoding), shared heads, more keys than a block has.
SHAPES = [(1, 2, 2, 5, 7, 3), (2, 3, 3, 50, 70, 16), (1, 4, 2, 13, 300, 20), (1, 2, 1, 1, 530, 64), (2, 4, 2, 1, 33, 40), (1, 2, 2, 100, 17, 8), (1, 6, 2, 3, 9, 33)]


@pytest.mark.parametrize("machine", MACHINES)
def test_attention_agrees_for_all_shapes(machine):
    shapes = SHAPES if machine == "lanes8" else SHAPES[2:5]
    groups = [operands(*shape) for shape in shapes]
    results = run_values(lambda g, *x: [r for q, k, v in zip(x[::3], x[1::3], x[2::3]) for r in forward(g, q, k, v)], [t for group in groups for t in group], MACHINES[machine])
    for i, group in enumerate(groups):
        check(results[2 * i:2 * i + 2], expected(*group), torch.float32)


@pytest.mark.parametrize("machine, shape", [("lanes8", (1, 2, 2, 70, 70, 16)), ("lanes4", (1, 2, 2, 5, 300, 8)), ("lanes16", (1, 2, 2, 130, 40, 8)), ("lanes8", (1, 2, 1, 3, 40, 16))], ids=str)
def test_causal_rows_see_the_keys_up_to_their_own(machine, shape):
    group = operands(*shape)
    results = run_values(lambda g, q, k, v: forward(g, q, k, v, 0.0, True), group, MACHINES[machine])
    check(results, expected(*group, is_causal=True), torch.float32)


@pytest.mark.parametrize("sizes", [(2, 4, 19, 33), (1, 1, 19, 33), (2, 1, 1, 33), (19, 33)], ids=str)
@pytest.mark.parametrize("is_bool", [True, False])
def test_masks_broadcast_and_rows_that_see_nothing_give_zero(sizes, is_bool):
    group = operands(2, 4, 2, 19, 33, 16)
    mask = torch.rand(*sizes) < 0.6
    mask[..., 0, :] = False
    mask = mask if is_bool else torch.where(mask, torch.randn(*sizes), -math.inf)
    results = run_values(lambda g, q, k, v, m: forward(g, q, k, v, attn_mask=m), (*group, mask), MACHINES["lanes8"])
    check(results, expected(*group, mask=mask), torch.float32)


def test_a_computed_mask_is_computed_once_for_all_heads():
    group, limit = operands(2, 4, 2, 19, 33, 16), torch.randint(5, 33, (19, 1))
    program = lambda g, q, k, v, n: forward(g, q, k, v, attn_mask=g.index((19, 33), 1) < n)  # noqa: E731
    partition, run = compile_values(program, (*group, limit), MACHINES["lanes8"])
    assert [k.kind for k in partition.kernels][:4] == ["map", "pack", "pack", "attention"]
    check(run(*group, limit), expected(*group, mask=torch.arange(33) < limit), torch.float32)


def test_long_rows_with_their_largest_score_in_the_last_block():
    q, k, v = operands(1, 1, 1, 9, 1000, 8)
    k[..., 950, :] = q[..., 3, :] * 40
    k[..., :400, :] -= 30
    check(run_values(lambda g, *x: forward(g, *x, scale=3.0), (q, k, v), MACHINES["lanes8"]), expected(q, k, v, scale=3.0), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 21])
def test_other_dtypes(dtype, rows):
    group = operands(2, 4, 2, rows, 75, 24, dtype)
    out, total = run_values(lambda g, *x: forward(g, *x), group, MACHINES["lanes8"])
    wanted = expected(*group)
    assert out.dtype == dtype
    check([out], wanted[:1], dtype)
    check([total], wanted[1:], torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("rows", [1, 30])
def test_operands_are_read_at_any_strides(rows):
    groups = [operands(2, 4, 4, rows, 45, 24) for _ in range(3)]
    views = [[t.transpose(1, 2).contiguous().transpose(1, 2) for t in groups[0]], [t.mT.contiguous().mT for t in groups[1]], [torch.stack([t, t], -1)[..., 0] for t in groups[2]]]
    for group in views:
        check(run_values(lambda g, *x: forward(g, *x), group, MACHINES["lanes8"]), expected(*group), torch.float32)


@pytest.mark.parametrize("machine, is_causal", [("lanes8", True), ("dvx-h1", False)])
def test_symbolic_lengths_serve_every_value(machine, is_causal):
    _, run = compile_values(lambda g, q, k, v: forward(g, q, k, v, 0.0, is_causal), operands(2, 4, 2, 37, 53, 16), MACHINES[machine], {37: "s0", 53: "s1"})
    for rows, keys in ((1, 1), (37, 53), (100, 400), (7, 8), (0, 5), (5, 0)):
        group = operands(2, 4, 2, rows, keys, 16)
        check(run(*group, sizes=(rows, keys)), expected(*group, is_causal=is_causal), torch.float32)


def test_nan_stays_in_its_row():
    q, k, v = operands(1, 1, 1, 12, 40, 8)
    q[0, 0, 5, 2] = math.nan
    out, _ = run_values(lambda g, *x: forward(g, *x), (q, k, v), MACHINES["lanes8"])
    assert out[0, 0, 5].isnan().all() and not out[0, 0, :5].isnan().any() and not out[0, 0, 6:].isnan().any()
