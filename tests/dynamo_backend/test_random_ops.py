"""Seeds: reproducible, advancing, the same in forward, backward and recomputation, and no business of the partitioner's."""

from __future__ import annotations

import re

import accel
import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def compiled(function, **options):
    torch._dynamo.reset()
    return torch.compile(function, backend="accel", options={"strict": True, **options})


def test_manual_seed_decides_the_numbers_and_calls_differ():
    function = compiled(lambda x: (F.dropout(x, 0.5, True), torch.rand_like(x)))
    x = torch.randn(500)
    torch.manual_seed(1)
    first, second = function(x), function(x)
    torch.manual_seed(1)
    again = function(x)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, second))


def test_each_draw_of_a_graph_has_its_own_seed():
    a, b = compiled(lambda x: (torch.rand_like(x), torch.rand_like(x)))(torch.zeros(500))
    assert not torch.equal(a, b)


def test_the_generator_moves_on():
    function = compiled(torch.rand_like)
    torch.manual_seed(2)
    function(torch.zeros(5))
    after = torch.rand(3)
    torch.manual_seed(2)
    assert not torch.equal(after, torch.rand(3))


def test_draws_split_no_partition_and_count_for_nothing():
    explanation = accel.explain(lambda x: F.dropout(torch.relu(x), 0.1, True) + torch.randn_like(x))(torch.randn(8, 8))
    assert len(explanation.graphs[0].partitions) == 1
    assert explanation.to_dict()["coverage"]["native_nodes"] == explanation.to_dict()["coverage"]["total_nodes"]


def test_equal_layers_with_dropout_share_their_kernels(tmp_path):
    def layers(x):
        for _ in range(4):
            x = F.dropout(torch.relu(x), 0.1, True) + 1
        return x

    compiled(layers, dump_dir=str(tmp_path))(torch.randn(64, 64))
    (text,) = (path.read_text() for path in tmp_path.rglob("c.c"))
    assert len(re.findall(r"^void \w+\(dvx_team .*\{$", text, re.MULTILINE)) == 2


def test_an_operator_excluded_by_option_draws_from_torch_itself():
    torch.manual_seed(3)
    got = torch.compile(lambda x: F.dropout(x, 0.5, True) * 2, backend="accel", options={"fallback_ops": ["aten.native_dropout"]})(torch.ones(100))
    torch.manual_seed(3)
    expected = torch.ops.aten.native_dropout(torch.ones(100), 0.5, True)[0] * 2
    assert torch.equal(got, expected)


def slope_and_gradient(function, w):
    """(directional derivative by differences, by autograd) of function(w) under one seed."""
    direction = torch.randn(w.shape, generator=torch.Generator().manual_seed(0), dtype=w.dtype)

    def value(step):
        torch.manual_seed(4)
        return function((w + step * direction).detach().requires_grad_())

    w = w.clone().requires_grad_()
    torch.manual_seed(4)
    function(w).backward()
    return ((value(1e-6) - value(-1e-6)) / 2e-6).item(), (w.grad * direction).sum().item()


def loss(w):
    return F.dropout(F.dropout(torch.tanh(w), 0.4, True) * w, 0.3, True).pow(2).sum()


@pytest.mark.parametrize("function", [loss, lambda w: checkpoint(loss, w, use_reentrant=False)], ids=["saved", "recomputed"])
def test_backward_takes_the_mask_of_forward(function):
    by_differences, by_autograd = slope_and_gradient(compiled(function), torch.randn(30, 7, dtype=torch.float64))
    assert abs(by_differences - by_autograd) < 1e-5 * abs(by_autograd)


def test_a_graph_that_cannot_be_compiled_draws_reproducibly_in_eager():
    seed = torch.tensor([5, 6], dtype=torch.int32)
    state = torch.get_rng_state()
    first, second = (torch.ops.accel.rand_like(seed, torch.zeros(50)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)
