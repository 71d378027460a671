"""One direction of one recurrent layer, as operators of our own: their schemas, and their lowerings over the templates of kernels/rnn.py.

    lstm_layer: gates i f g o;  c' = f c + i g;  h' = o tanh(c')
    gru_layer:  gates r z n;    n = tanh(x_n + r (W_hn h + b_hn));  h' = (1 - z) n + z h
    rnn_layer:  h' = tanh or relu of x + W_hh h + b_hh

x is [time, batch, input]; with `reverse` time runs backwards. All results are row-major. `saves` asks for what the gradient needs
(else those results are empty): the activated gates side by side, for gru followed by W_hn h + b_hn, and all cells of lstm.
The frontend implements and differentiates the operators in eager (dynamo_backend/rnn_ops.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from ..kernels.rnn import LayerParams
from ..registry import lowering
from ..strides import view_strides
from ..tensor_ir import leaves
from ..values import Graph, Unsupported, Value
from .matmul import matrix_product

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

ops = torch.ops.accel


def _checked(x: Value, weights: Sequence[Value | None], others: Sequence[Value]) -> None:
    if x.dtype not in ("f32", "f64"):
        raise Unsupported(f"recurrent layers are compiled for floating-point dtypes, got {x.dtype}")
    weights = [weight for weight in weights if weight is not None]
    if any(other.dtype != x.dtype for other in (*weights, *others)):
        raise Unsupported(f"operands of a recurrent layer must have one dtype, got {[other.dtype for other in (x, *weights, *others)]}")
    if any(not isinstance(size, int) for weight in weights for size in weight.sizes):
        raise Unsupported("weights of symbolic size")
    if x.sizes[0] == 0:
        raise Unsupported("a sequence of no steps has no result")


def _halves_as_f32(lower: Callable) -> Callable:
    """The lowering with operands of half types widened, and its results rounded once, at the end."""

    @functools.wraps(lower)
    def lower_widened(g: Graph, x: Value, *args):
        if x.dtype not in ("f16", "bf16"):
            return lower(g, x, *args)
        wide = [g.cast(a, "f32") if isinstance(a, Value) and a.dtype == x.dtype else a for a in (x, *args)]
        return tuple(g.cast(result, x.dtype) for result in lower(g, *wide))

    return lower_widened


def _projected(g: Graph, x: Value, w_ih: Value, b_ih: Value | None) -> Value:
    """x W_ih + b_ih of all steps at once, in x's order of rows: [time, batch, gates]."""
    steps, batch, width = x.sizes
    if not _is_flat(x) and _is_flat(swapped := x.permute([1, 0, 2])):
        return _rows_projected(g, swapped.reshape((batch * steps, width)), w_ih, b_ih).reshape((batch, steps, w_ih.sizes[0])).permute([1, 0, 2])
    return _rows_projected(g, x.reshape((steps * batch, width)), w_ih, b_ih).reshape((steps, batch, w_ih.sizes[0]))


def _is_flat(x: Value) -> bool:
    flat = (x.sizes[0] * x.sizes[1], x.sizes[2])
    return all(view_strides(x.sizes, leaf.strides, flat) is not None for leaf in leaves(x.expr))


def _rows_projected(g: Graph, rows: Value, w_ih: Value, b_ih: Value | None) -> Value:
    product = matrix_product(g, rows, w_ih.permute([1, 0]))
    return g.realize(product if b_ih is None else product + b_ih)


@lowering(ops.lstm_layer.default, fixed=lambda x, h0, c0, w_ih, w_hh, *_: (*w_ih.shape, *w_hh.shape))
@_halves_as_f32
def lstm_layer(g: Graph, x: Value, h0: Value, c0: Value, w_ih: Value, w_hh: Value, b_ih: Value | None, b_hh: Value | None, reverse: bool, saves: bool):
    _checked(x, [w_ih, w_hh, b_ih, b_hh], [h0, c0])
    (steps, batch, _), units = x.sizes, w_hh.sizes[1]
    biases = [] if b_hh is None else [b_hh]
    saved = [(steps, batch, 4 * units), (steps, batch, units)] if saves else []
    sizes = [(steps, batch, units), (batch, units), (2, batch, units), (batch, units), *saved]
    operands = [_projected(g, x, w_ih, b_ih), h0, w_hh, c0, *biases]
    y, h_n, _, c_n, *kept = g.template("lstm", operands, [(x.dtype, s, None) for s in sizes], LayerParams(reverse, bool(biases)))
    return (y, h_n, c_n, *(kept or [_nothing(g, x)] * 2))


@lowering(ops.gru_layer.default, fixed=lambda x, h0, w_ih, w_hh, *_: (*w_ih.shape, *w_hh.shape))
@_halves_as_f32
def gru_layer(g: Graph, x: Value, h0: Value, w_ih: Value, w_hh: Value, b_ih: Value | None, b_hh: Value | None, reverse: bool, saves: bool):
    _checked(x, [w_ih, w_hh, b_ih, b_hh], [h0])
    (steps, batch, _), units = x.sizes, w_hh.sizes[1]
    biases = [] if b_hh is None else [b_hh]
    sizes = [(steps, batch, units), (batch, units), (2, batch, units), *([(steps, batch, 4 * units)] if saves else [])]
    y, h_n, _, *kept = g.template("gru", [_projected(g, x, w_ih, b_ih), h0, w_hh, *biases], [(x.dtype, s, None) for s in sizes], LayerParams(reverse, bool(biases)))
    return (y, h_n, *(kept or [_nothing(g, x)]))


@lowering(ops.rnn_layer.default, fixed=lambda x, h0, w_ih, w_hh, *_: (*w_ih.shape, *w_hh.shape))
@_halves_as_f32
def rnn_layer(g: Graph, x: Value, h0: Value, w_ih: Value, w_hh: Value, b_ih: Value | None, b_hh: Value | None, nonlinearity: str, reverse: bool):
    _checked(x, [w_ih, w_hh, b_ih, b_hh], [h0])
    (steps, batch, _), units = x.sizes, w_hh.sizes[1]
    biases = [] if b_hh is None else [b_hh]
    sizes = [(steps, batch, units), (batch, units), (2, batch, units)]
    y, h_n, _ = g.template("rnn", [_projected(g, x, w_ih, b_ih), h0, w_hh, *biases], [(x.dtype, s, None) for s in sizes], LayerParams(reverse, bool(biases), nonlinearity))
    return y, h_n


@lowering(ops.lstm_layer_backward.default)
@_halves_as_f32
def lstm_layer_backward(g: Graph, grad_y: Value, grad_h_n: Value, grad_c_n: Value, gates: Value, cells: Value, c0: Value, w_hh: Value, reverse: bool):
    _checked(grad_y, [w_hh], [grad_h_n, grad_c_n, gates, cells, c0])
    grad_gates, grad_c0 = _gradient(g, "lstm_backward", [grad_y, grad_h_n, w_hh, grad_c_n, gates, cells, c0], [c0.sizes], LayerParams(reverse, False))
    return grad_gates, _reaches_first_state(g, grad_gates, w_hh, reverse), grad_c0


@lowering(ops.gru_layer_backward.default)
@_halves_as_f32
def gru_layer_backward(g: Graph, grad_y: Value, grad_h_n: Value, gates: Value, y: Value, h0: Value, w_hh: Value, reverse: bool):
    _checked(grad_y, [w_hh], [grad_h_n, gates, y, h0])
    operands, others = [grad_y, grad_h_n, w_hh, gates, y, h0], [h0.sizes, (*y.sizes[:2], w_hh.sizes[0])]
    hidden, carried, inputs = _gradient(g, "gru_backward", operands, others, LayerParams(reverse, False))
    return inputs, hidden, _reaches_first_state(g, hidden, w_hh, reverse) + carried


@lowering(ops.rnn_layer_backward.default)
@_halves_as_f32
def rnn_layer_backward(g: Graph, grad_y: Value, grad_h_n: Value, y: Value, w_hh: Value, nonlinearity: str, reverse: bool):
    _checked(grad_y, [w_hh], [grad_h_n, y])
    (grad_gates,) = _gradient(g, "rnn_backward", [grad_y, grad_h_n, w_hh, y], [], LayerParams(reverse, False, nonlinearity))
    return grad_gates, _reaches_first_state(g, grad_gates, w_hh, reverse)


def _gradient(g: Graph, kind: str, operands: list[Value], others: list[tuple], params: LayerParams) -> list[Value]:
    """The gradients of the gates that W_hh feeds, and results of the sizes `others`."""
    grad_y, w_hh = operands[0], operands[2]
    (steps, batch, _), depth = grad_y.sizes, w_hh.sizes[0]
    grad_gates, _, *rest = g.template(kind, operands, [(grad_y.dtype, sizes, None) for sizes in ((steps, batch, depth), (2, batch, depth), *others)], params)
    return [grad_gates, *rest]


def _reaches_first_state(g: Graph, grad_gates: Value, w_hh: Value, reverse: bool) -> Value:
    """The gradient of h0 through the gates of the layer's first step."""
    return matrix_product(g, grad_gates.select(0, grad_gates.sizes[0] - 1 if reverse else 0), w_hh)


def _nothing(g: Graph, x: Value) -> Value:
    """The empty tensor in place of what is not saved."""
    return g.constant(0, x.dtype, (0,))
