"""Recurrent layers in training: native under `strict`, with eager's gradients."""

import copy

import pytest
import torch
from torch import nn

# A layer of a few steps sums tens of products per element: against float64 its gradients err by some units in the last place.
# Halves are computed in float32 and rounded where the graph stores them, as eager does at other places.
TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-14, torch.bfloat16: 4e-2}

# name: (module, its options, dtype, dynamic, input sizes, whether the first state is given)
LAYERS = {
    "lstm": (nn.LSTM, {"bidirectional": True, "num_layers": 2, "batch_first": True}, torch.float32, False, (3, 5, 7), True),
    "lstm_bfloat16": (nn.LSTM, {}, torch.bfloat16, False, (4, 3, 7), True),
    "lstm_no_bias_unbatched": (nn.LSTM, {"bias": False}, torch.float32, True, (5, 7), False),
    "gru": (nn.GRU, {"bidirectional": True}, torch.float32, True, (5, 3, 7), True),
    "gru_float64": (nn.GRU, {}, torch.float64, False, (5, 3, 7), False),
    "rnn_tanh": (nn.RNN, {"bidirectional": True}, torch.float32, False, (5, 3, 7), True),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}, torch.float32, False, (5, 3, 7), False),
}
UNITS = 19  # whole vectors and a tail on every host


def states_of(kind, options, sizes, dtype):
    n_layers = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    batch = sizes[0 if options.get("batch_first") else 1]
    return [torch.randn(n_layers, batch, UNITS, dtype=dtype) for _ in range(2 if kind is nn.LSTM else 1)]


def gradients(module, function, x, states):
    """Gradients of a number that depends on every result, by input, states and parameters."""
    leaves = [leaf.detach().requires_grad_() for leaf in (x, *states)]
    y, last = function(leaves[0], *([tuple(leaves[1:]) if len(states) == 2 else leaves[1]] if states else []))
    total = (y * y).sum() + sum((state * state.cos()).sum() for state in (last if isinstance(last, tuple) else (last,)))
    return torch.autograd.grad(total, [*leaves, *module.parameters()])


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_recurrent_layers_are_native_and_right(name):
    kind, options, dtype, dynamic, sizes, has_states = LAYERS[name]
    torch.manual_seed(0)
    module = kind(sizes[-1], UNITS, **options).to(dtype)
    x, states = torch.randn(sizes, dtype=dtype), states_of(kind, options, sizes, dtype) if has_states else []
    compiled = torch.compile(module, backend="accel", dynamic=dynamic, options={"strict": True})
    exact = copy.deepcopy(module).double()
    expected = gradients(exact, exact, x.double(), [state.double() for state in states])
    for found, right in zip(gradients(module, compiled, x, states), expected, strict=True):
        error = (found.double() - right).abs().max() / right.abs().max().clamp(min=1)
        assert error < TOLERANCE[dtype]


def test_training_serves_other_numbers_of_steps_when_dynamic():
    torch.manual_seed(0)
    module = nn.GRU(7, UNITS)
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(module, backend="accel", dynamic=True)
    for n_steps, batch in ((5, 3), (9, 2), (2, 4)):
        x = torch.randn(n_steps, batch, 7)
        torch.testing.assert_close(gradients(module, compiled, x, []), gradients(module, module, x, []))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_other_backends_still_break_the_graph_at_recurrent_layers():
    module = nn.GRU(7, UNITS)
    torch._dynamo.utils.counters.clear()
    torch.compile(module, backend="eager")(torch.randn(5, 3, 7))
    assert torch._dynamo.utils.counters["graph_break"] or torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0


class Wrapped(nn.Module):
    """A function of the user's in which nothing but a recurrent module is called."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(7, UNITS)

    def forward(self, x):
        return self.layer(x)[0]


def test_another_backend_that_was_given_the_model_first_leaves_it_to_this_one():
    torch.manual_seed(0)
    module, x = Wrapped().eval(), torch.randn(5, 3, 7)
    frames = torch._dynamo.utils.counters["frames"]
    seen = []
    with torch.no_grad():
        expected = module(x)
        other = torch.compile(module, backend=lambda graph, inputs: seen.append(graph) or graph)
        other(x)  # Dynamo breaks the graph at the module for this backend, and finds nothing to compile
        compiled = torch.compile(module, backend="accel", options={"strict": True})
        frames.clear()
        assert torch.allclose(compiled(x), expected, atol=1e-6)
        assert frames["ok"] == 1 and not seen
        for run in (other, compiled, other, compiled):
            assert torch.allclose(run(x), expected, atol=1e-6)
        assert frames["total"] == 1  # neither is traced again
