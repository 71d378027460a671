"""torch.lstm, torch.gru, torch.rnn_tanh and torch.rnn_relu written as the layer operators of lowering/ops/rnn.py.

The functions take what torch's take, tensors or fx proxies. Layers, directions, batch_first and dropout are spelled out here, so
that an operator is one direction of one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from . import rnn_ops  # noqa: F401  (defines the operators)

__all__ = ["STACKS", "reason_to_leave"]

ops = torch.ops.accel


def lstm(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first, *, saves: bool):
    """torch.lstm; `saves` keeps what the gradient needs."""

    def layer(x, states, weights, reverse):
        return ops.lstm_layer.default(x, *states, *weights, reverse, saves)

    return _stack(layer, input, tuple(hx), params, has_biases, num_layers, dropout, train, bidirectional, batch_first)


def gru(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first, *, saves: bool):
    """torch.gru; `saves` keeps what the gradient needs."""

    def layer(x, states, weights, reverse):
        return ops.gru_layer.default(x, *states, *weights, reverse, saves)

    return _stack(layer, input, (hx,), params, has_biases, num_layers, dropout, train, bidirectional, batch_first)


def _elman(nonlinearity: str) -> Callable:
    def rnn(input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first, *, saves: bool):
        def layer(x, states, weights, reverse):
            return ops.rnn_layer.default(x, *states, *weights, nonlinearity, reverse)

        return _stack(layer, input, (hx,), params, has_biases, num_layers, dropout, train, bidirectional, batch_first)

    return rnn


# What Dynamo calls, and how it is written.
STACKS = {torch.lstm: lstm, torch.gru: gru, torch.rnn_tanh: _elman("tanh"), torch.rnn_relu: _elman("relu")}

NAMES = ("input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")


def reason_to_leave(args: Sequence, kwargs: Mapping) -> str | None:
    """Why the call of a STACKS function cannot be written as layers, or None: packed sequences and projections have no layer operator."""
    given = dict(zip(NAMES, args)) | kwargs
    if set(given) != set(NAMES) or not isinstance(given["params"], (list, tuple)):
        return "it is the form for packed sequences"
    if not all(isinstance(given[name], (bool, int, float)) for name in NAMES[3:]):
        return "an argument is not a constant"
    per_direction = 4 if given["has_biases"] else 2
    if len(given["params"]) != per_direction * given["num_layers"] * (2 if given["bidirectional"] else 1):
        return "it has projections (proj_size)"
    return None


def _stack(layer: Callable, x, states: tuple, params: Sequence, has_biases, num_layers, dropout, train, bidirectional, batch_first) -> tuple:
    """(output, last states…) of all layers; `layer` gives (output, last states…) of one direction."""
    n_directions, per_direction = (2 if bidirectional else 1), (4 if has_biases else 2)
    finals: list[tuple] = []
    x = x.transpose(0, 1) if batch_first else x
    for level in range(num_layers):
        outputs = []
        for direction in range(n_directions):
            index = level * n_directions + direction
            weights = [*params[index * per_direction:(index + 1) * per_direction], *([] if has_biases else [None, None])]
            results = layer(x, [state[index] for state in states], weights, direction == 1)
            outputs.append(results[0])
            finals.append(tuple(results[1 + i] for i in range(len(states))))
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
        if dropout and train and level < num_layers - 1:
            x = F.dropout(x, dropout, True)
    last = [torch.stack(of_all, 0) if len(of_all) > 1 else of_all[0].unsqueeze(0) for of_all in zip(*finals)]
    return (x.transpose(0, 1) if batch_first else x, *last)
