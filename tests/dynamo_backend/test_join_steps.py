"""join_steps: the products of all slices with one weight become one, and results are as eager's."""

from __future__ import annotations

import pytest
import torch
from frontend_graphs import EagerCompiler, compile_with

aten = torch.ops.aten
PRODUCTS = (aten.addmm.default, aten.mm.default)


def select_all(x, dim):
    return [x.select(dim, step) for step in range(x.shape[dim])]


def n_products(fn, x):
    """Products in the compiled graph, whose results are as eager's."""
    seen = []
    with torch.no_grad():
        result = compile_with(EagerCompiler(), fn, seen)(x)
        torch.testing.assert_close(result, fn(x))
    return sum(node.target in PRODUCTS for node in seen[0].graph.nodes), result


@pytest.mark.parametrize("kind", [torch.nn.RNNCell, torch.nn.GRUCell, torch.nn.LSTMCell])
def test_input_products_of_an_unrolled_cell_are_one(kind):
    cell, x = kind(6, 5), torch.randn(3, 4, 6)

    def steps(x):
        state = None
        for step in range(x.shape[1]):
            state = cell(x[:, step], state)
        return state

    assert n_products(steps, x)[0] == 1 + 4


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("has_bias", [False, True])
def test_slices_along_either_dim_and_of_strided_tensors(dim, has_bias):
    linear = torch.nn.Linear(6, 5, bias=has_bias)

    def total(x):
        return sum(linear(piece).relu() * (step + 1) for step, piece in enumerate(select_all(x, dim)))

    for x in (torch.randn(3, 4, 6), torch.randn(6, 4, 3).transpose(0, 2), torch.randn(3, 4, 12)[..., ::2]):
        assert n_products(total, x)[0] == 1


def test_products_that_are_returned_stay_apart():
    linear, x = torch.nn.Linear(6, 5, bias=False), torch.randn(3, 4, 6)
    count, (first, *rest) = n_products(lambda x: [linear(piece).t() for piece in select_all(x, 1)], x)
    kept = [one.clone() for one in rest]
    first.zero_()
    assert count == 4 and all(map(torch.equal, rest, kept))


def test_some_slices_and_other_weights_are_left_alone():
    linear, other, x = torch.nn.Linear(6, 5), torch.nn.Linear(6, 5), torch.randn(3, 4, 6)
    assert n_products(lambda x: linear(x[:, 0]).relu() + linear(x[:, 2]).relu(), x)[0] == 2
    assert n_products(lambda x: linear(x[:, 0]).relu() + linear(x[:, 1]).relu() + other(x[:, 2]).relu() + other(x[:, 3]).relu(), x)[0] == 4


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("kind", [torch.nn.GRUCell, torch.nn.LSTMCell])
def test_unrolled_cell_is_as_eager(kind, freeze):
    cell, x = kind(24, 40), torch.randn(5, 7, 24)

    def steps(x):
        states, state = [], None
        for step in range(x.shape[1]):
            state = cell(x[:, step], state)
            states.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(states, 1)

    torch._dynamo.reset()
    compiled = torch.compile(steps, backend="accel", options={"strict": True, "freeze": freeze})
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), steps(x), rtol=1e-5, atol=1e-6)
