"""The recurrent layer operators in eager: shapes, gradients, and implementations from torch's own operators.

The schemas and what they mean are in lowering/ops/rnn.py. The implementations here run where a layer is not compiled; they unroll
the steps only where the gradient's needs are to be saved.
"""

from __future__ import annotations

import torch

from .lowering import registry  # noqa: F401  (defines the operators)

__all__: list[str] = []

Optional = torch.Tensor | None


def _directed(x: torch.Tensor, reverse: bool) -> torch.Tensor:
    """The steps of x [time, …] in the order in which the layer takes them."""
    return x.flip(0) if reverse else x


def _previous(y: torch.Tensor, first: torch.Tensor, reverse: bool) -> torch.Tensor:
    """The state that every step of y [time, batch, units] starts from. No part has one step less: under dynamic shapes that might be a single one."""
    if reverse:
        return torch.cat([y, first.unsqueeze(0)])[1:]
    return torch.cat([first.unsqueeze(0), y])[:-1]


def _weights(*given: Optional) -> list[torch.Tensor]:
    return [weight for weight in given if weight is not None]


def _row_major(*results: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(result.contiguous() for result in results)


# Forward


@torch.library.impl("accel::lstm_layer", "CPU")
def lstm_layer(x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse, saves):
    x = _directed(x, reverse)
    if not saves:
        weights = _weights(w_ih, w_hh, b_ih, b_hh)
        y, h, c = torch.lstm(x, (h0.unsqueeze(0), c0.unsqueeze(0)), weights, b_ih is not None, 1, 0.0, False, False, False)
        return (*_row_major(_directed(y, reverse), h.squeeze(0), c.squeeze(0)), x.new_empty(0), x.new_empty(0))
    h, c, rows = h0, c0, []
    for projected in torch.nn.functional.linear(x, w_ih, b_ih):
        i, f, g, o = (projected + torch.nn.functional.linear(h, w_hh, b_hh)).chunk(4, -1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        rows.append((h, torch.cat([i, f, g, o], -1), c))
    y, gates, cells = (_directed(torch.stack(of_all), reverse) for of_all in zip(*rows))
    return (*_row_major(y, h.clone(), c.clone(), gates, cells),)


@torch.library.impl("accel::gru_layer", "CPU")
def gru_layer(x, h0, w_ih, w_hh, b_ih, b_hh, reverse, saves):
    x = _directed(x, reverse)
    if not saves:
        y, h = torch.gru(x, h0.unsqueeze(0), _weights(w_ih, w_hh, b_ih, b_hh), b_ih is not None, 1, 0.0, False, False, False)
        return (*_row_major(_directed(y, reverse), h.squeeze(0)), x.new_empty(0))
    h, rows = h0, []
    for projected in torch.nn.functional.linear(x, w_ih, b_ih):
        r, z, n = projected.chunk(3, -1)
        hidden_r, hidden_z, hidden_n = torch.nn.functional.linear(h, w_hh, b_hh).chunk(3, -1)
        r, z = (r + hidden_r).sigmoid(), (z + hidden_z).sigmoid()
        n = (n + r * hidden_n).tanh()
        h = n + z * (h - n)
        rows.append((h, torch.cat([r, z, n, hidden_n], -1)))
    y, gates = (_directed(torch.stack(of_all), reverse) for of_all in zip(*rows))
    return _row_major(y, h.clone(), gates)


@torch.library.impl("accel::rnn_layer", "CPU")
def rnn_layer(x, h0, w_ih, w_hh, b_ih, b_hh, nonlinearity, reverse):
    stack = torch.rnn_tanh if nonlinearity == "tanh" else torch.rnn_relu
    y, h = stack(_directed(x, reverse), h0.unsqueeze(0), _weights(w_ih, w_hh, b_ih, b_hh), b_ih is not None, 1, 0.0, False, False, False)
    return _row_major(_directed(y, reverse), h.squeeze(0))


@torch.library.register_fake("accel::lstm_layer")
def _(x, h0, c0, w_ih, w_hh, b_ih, b_hh, reverse, saves):
    steps, batch = x.shape[:2]
    units = w_hh.shape[1]
    saved = [x.new_empty(steps, batch, 4 * units), x.new_empty(steps, batch, units)] if saves else [x.new_empty(0), x.new_empty(0)]
    return x.new_empty(steps, batch, units), x.new_empty(batch, units), x.new_empty(batch, units), *saved


@torch.library.register_fake("accel::gru_layer")
def _(x, h0, w_ih, w_hh, b_ih, b_hh, reverse, saves):
    steps, batch = x.shape[:2]
    units = w_hh.shape[1]
    return x.new_empty(steps, batch, units), x.new_empty(batch, units), x.new_empty(steps, batch, 4 * units) if saves else x.new_empty(0)


@torch.library.register_fake("accel::rnn_layer")
def _(x, h0, w_ih, w_hh, b_ih, b_hh, nonlinearity, reverse):
    steps, batch = x.shape[:2]
    units = w_hh.shape[1]
    return x.new_empty(steps, batch, units), x.new_empty(batch, units)


# Backward. The steps run against the layer's direction; `recurrent` is the part of a state's gradient that comes from later steps.


@torch.library.impl("accel::lstm_layer_backward", "CPU")
def lstm_layer_backward(grad_y, grad_h_n, grad_c_n, gates, cells, c0, w_hh, reverse):
    recurrent, grad_c, rows = grad_h_n, grad_c_n, []
    steps = zip(grad_y, gates, cells, _previous(cells, c0, reverse))
    for grad, gate, cell, previous in (steps if reverse else reversed(list(steps))):
        i, f, g, o = gate.chunk(4, -1)
        grad_h = grad + recurrent
        squashed = cell.tanh()
        grad_c = grad_c + grad_h * o * (1 - squashed * squashed)
        parts = [grad_c * g * i * (1 - i), grad_c * previous * f * (1 - f), grad_c * i * (1 - g * g), grad_h * squashed * o * (1 - o)]
        rows.append(torch.cat(parts, -1))
        grad_c = grad_c * f
        recurrent = rows[-1] @ w_hh
    return _row_major(_directed(torch.stack(rows), not reverse), recurrent, grad_c)


@torch.library.impl("accel::gru_layer_backward", "CPU")
def gru_layer_backward(grad_y, grad_h_n, gates, y, h0, w_hh, reverse):
    recurrent, input_rows, hidden_rows = grad_h_n, [], []
    steps = zip(grad_y, gates, _previous(y, h0, reverse))
    for grad, gate, previous in (steps if reverse else reversed(list(steps))):
        r, z, n, hidden_n = gate.chunk(4, -1)
        grad_h = grad + recurrent
        grad_n = grad_h * (1 - z) * (1 - n * n)
        grad_r, grad_z = grad_n * hidden_n * r * (1 - r), grad_h * (previous - n) * z * (1 - z)
        input_rows.append(torch.cat([grad_r, grad_z, grad_n], -1))
        hidden_rows.append(torch.cat([grad_r, grad_z, grad_n * r], -1))
        recurrent = grad_h * z + hidden_rows[-1] @ w_hh
    return _row_major(_directed(torch.stack(input_rows), not reverse), _directed(torch.stack(hidden_rows), not reverse), recurrent)


@torch.library.impl("accel::rnn_layer_backward", "CPU")
def rnn_layer_backward(grad_y, grad_h_n, y, w_hh, nonlinearity, reverse):
    slopes = 1 - y * y if nonlinearity == "tanh" else (y > 0).to(y.dtype)
    recurrent, rows = grad_h_n, []
    steps = zip(grad_y, slopes)
    for grad, slope in (steps if reverse else reversed(list(steps))):
        rows.append((grad + recurrent) * slope)
        recurrent = rows[-1] @ w_hh
    return _row_major(_directed(torch.stack(rows), not reverse), recurrent)


@torch.library.register_fake("accel::lstm_layer_backward")
def _(grad_y, grad_h_n, grad_c_n, gates, cells, c0, w_hh, reverse):
    return gates.new_empty(gates.shape), c0.new_empty(c0.shape), c0.new_empty(c0.shape)


@torch.library.register_fake("accel::gru_layer_backward")
def _(grad_y, grad_h_n, gates, y, h0, w_hh, reverse):
    sizes = (*y.shape[:2], 3 * y.shape[2])
    return y.new_empty(sizes), y.new_empty(sizes), h0.new_empty(h0.shape)


@torch.library.register_fake("accel::rnn_layer_backward")
def _(grad_y, grad_h_n, y, w_hh, nonlinearity, reverse):
    return y.new_empty(y.shape), y.new_empty(y.shape[1:])


# Gradients: the backward operator gives those of the gates at every step, matrix products the rest.


def _input_gradients(ctx, grad_gates, grad_hidden_gates, x, previous, w_ih):
    """Gradients of x, w_ih, w_hh, b_ih, b_hh; `ctx.wanted` says which."""
    gates, hidden_gates = grad_gates.flatten(0, 1), grad_hidden_gates.flatten(0, 1)
    wants_x, wants_w_ih, wants_w_hh, wants_b_ih, wants_b_hh = ctx.wanted
    return (
        (gates @ w_ih).view(x.shape) if wants_x else None,
        gates.t() @ x.flatten(0, 1) if wants_w_ih else None,
        hidden_gates.t() @ previous.flatten(0, 1) if wants_w_hh else None,
        gates.sum(0) if wants_b_ih else None,
        hidden_gates.sum(0) if wants_b_hh else None,
    )


def _lstm_setup(ctx, inputs, output):
    x, h0, c0, w_ih, w_hh, _, _, ctx.reverse, _ = inputs
    y, _, _, gates, cells = output
    ctx.save_for_backward(x, h0, c0, w_ih, w_hh, y, gates, cells)


def _lstm_gradients(ctx, grad_y, grad_h_n, grad_c_n, _gates, _cells):
    x, h0, c0, w_ih, w_hh, y, gates, cells = ctx.saved_tensors
    grad_gates, grad_h0, grad_c0 = torch.ops.accel.lstm_layer_backward(grad_y, grad_h_n, grad_c_n, gates, cells, c0, w_hh, ctx.reverse)
    needed = ctx.needs_input_grad
    ctx.wanted = (needed[0], *needed[3:7])
    grad_x, *weights = _input_gradients(ctx, grad_gates, grad_gates, x, _previous(y, h0, ctx.reverse), w_ih)
    return grad_x, grad_h0, grad_c0, *weights, None, None


def _gru_setup(ctx, inputs, output):
    x, h0, w_ih, w_hh, _, _, ctx.reverse, _ = inputs
    y, _, gates = output
    ctx.save_for_backward(x, h0, w_ih, w_hh, y, gates)


def _gru_gradients(ctx, grad_y, grad_h_n, _gates):
    x, h0, w_ih, w_hh, y, gates = ctx.saved_tensors
    grad_gates, grad_hidden, grad_h0 = torch.ops.accel.gru_layer_backward(grad_y, grad_h_n, gates, y, h0, w_hh, ctx.reverse)
    needed = ctx.needs_input_grad
    ctx.wanted = (needed[0], *needed[2:6])
    grad_x, *weights = _input_gradients(ctx, grad_gates, grad_hidden, x, _previous(y, h0, ctx.reverse), w_ih)
    return grad_x, grad_h0, *weights, None, None


def _rnn_setup(ctx, inputs, output):
    x, h0, w_ih, w_hh, _, _, ctx.nonlinearity, ctx.reverse = inputs
    ctx.save_for_backward(x, h0, w_ih, w_hh, output[0])


def _rnn_gradients(ctx, grad_y, grad_h_n):
    x, h0, w_ih, w_hh, y = ctx.saved_tensors
    grad_gates, grad_h0 = torch.ops.accel.rnn_layer_backward(grad_y, grad_h_n, y, w_hh, ctx.nonlinearity, ctx.reverse)
    needed = ctx.needs_input_grad
    ctx.wanted = (needed[0], *needed[2:6])
    grad_x, *weights = _input_gradients(ctx, grad_gates, grad_gates, x, _previous(y, h0, ctx.reverse), w_ih)
    return grad_x, grad_h0, *weights, None, None


torch.library.register_autograd("accel::lstm_layer", _lstm_gradients, setup_context=_lstm_setup)
torch.library.register_autograd("accel::gru_layer", _gru_gradients, setup_context=_gru_setup)
torch.library.register_autograd("accel::rnn_layer", _rnn_gradients, setup_context=_rnn_setup)
