"""One direction of one recurrent layer, as operators of our own: their schemas, and their lowerings over the templates of kernels/rnn.py.

    lstm_layer: gates i f g o;  c' = f c + i g;  h' = o tanh(c')
    gru_layer:  gates r z n;    n = tanh(x_n + r (W_hn h + b_hn));  h' = (1 - z) n + z h
    rnn_layer:  h' = tanh or relu of x + W_hh h + b_hh

x is [time, batch, input]; with `reverse` time runs backwards. All results are row-major. `saves` asks for what the gradient needs
(else those results are empty): the activated gates side by side, for gru followed by W_hn h + b_hn, and all cells of lstm.
The frontend implements and differentiates the operators in eager (dynamo_backend/rnn_ops.py).
"""

from __future__ import annotations

import torch

SCHEMAS = {
    "lstm_layer": "(Tensor x, Tensor h0, Tensor c0, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh, bool reverse, bool saves) -> (Tensor y, Tensor h_n, Tensor c_n, Tensor gates, Tensor cells)",
    "lstm_layer_backward": "(Tensor grad_y, Tensor grad_h_n, Tensor grad_c_n, Tensor gates, Tensor cells, Tensor c0, Tensor w_hh, bool reverse) -> (Tensor grad_gates, Tensor grad_h0, Tensor grad_c0)",
    "gru_layer": "(Tensor x, Tensor h0, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh, bool reverse, bool saves) -> (Tensor y, Tensor h_n, Tensor gates)",
    "gru_layer_backward": "(Tensor grad_y, Tensor grad_h_n, Tensor gates, Tensor y, Tensor h0, Tensor w_hh, bool reverse) -> (Tensor grad_input_gates, Tensor grad_hidden_gates, Tensor grad_h0)",
    "rnn_layer": "(Tensor x, Tensor h0, Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh, str nonlinearity, bool reverse) -> (Tensor y, Tensor h_n)",
    "rnn_layer_backward": "(Tensor grad_y, Tensor grad_h_n, Tensor y, Tensor w_hh, str nonlinearity, bool reverse) -> (Tensor grad_gates, Tensor grad_h0)",
}  # fmt: skip

for _name, _schema in SCHEMAS.items():
    torch.library.define(f"accel::{_name}", _schema, tags=(torch.Tag.pt2_compliant_tag,))
