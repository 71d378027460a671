"""The pointwise part of recurrent layers' gradients: from a step's finished sums to the gradients of its gates, which are the new state.

Step 0 is the layer's last. A sum is the gradient that reaches a unit's h through the gates of the step behind it; at step 0, where the
state is 0, grad_h_n stands in for it. Formulas are the derivatives of those in lowering/ops/rnn.py, from activated gates.
"""

from __future__ import annotations

import dataclasses

from ..index_expr import Dim, maximum, minimum
from ..kernel_writer import KernelWriter, Sink
from ..lanes import Lanes
from ..select import constant
from ..tensor_ir import Load, Target, Template
from ..vector_ir import V
from .rnn_cells import Place
from .rnn_steps import Shape

__all__ = ["ElmanGradient", "GradientCell", "GruGradient", "LstmGradient"]


class GradientCell:
    """What the gradient's cells share: where the layer's results are read and the gates' gradients are written."""

    n_gates = 1

    def __init__(self, w: KernelWriter, shape: Shape, statement: Template, sink: Sink):
        self.w, self.shape, self.sink = w, shape, sink
        self.operands, self.outputs, self.params = statement.operands, statement.outputs, statement.params
        self.state = statement.outputs[1].buffer
        self.halves = Target(self.state, 0, (shape.depth, 1))

    def place(self, step: Dim, row: Dim, unit: Dim, mask: V | None) -> Place:
        """The place of a step, which is one of the layer counted from its end."""
        return Place(self.w, self.shape.units, step if self.params.reverse else self.shape.steps - 1 - step, row, unit, mask)

    def start(self, row: Dim, unit: Dim, mask: V | None) -> None:
        at, zero = self.place(0, row, unit, mask), Lanes(self.w, constant(self.w, 0, self.shape.dtype))
        for gate in range(self.n_gates):
            at.store(self.halves, zero, gate)

    def carried(self, at: Place, step: Dim, sums: list[V]) -> Lanes:
        """What the step behind `step` leaves of h's gradient: the sum, at first grad_h_n."""
        return Lanes(self.w, sums[0]) + self.only(at, 1 - minimum(step, 1)).load(self.operands[1])

    def previous(self, at: Place, step: Dim, every: Load, first: Load) -> Lanes:
        """The layer's value one step earlier: from `every` step's, before the layer's first from `first`."""
        earlier = minimum(at.time + 1, self.shape.steps - 1) if self.params.reverse else maximum(at.time - 1, 0)
        exists = minimum(self.shape.steps - 1 - step, 1)
        return self.only(dataclasses.replace(at, time=earlier), exists).load(every) + self.only(at, 1 - exists).load(first)

    def only(self, at: Place, condition: Dim) -> Place:
        """The same place with all its lanes where the scalar `condition` is 1, and none where it is 0: loads give 0 there."""
        mask = self.w.op("qtail.q", self.w.let(condition) * self.w.lanes)
        return dataclasses.replace(at, mask=mask if at.mask is None else self.w.op("qand.q", at.mask, mask))

    def finish(self, at: Place, half: Dim, gradients: list[Lanes]) -> None:
        """Hand over the gradients of the gates that W_hh feeds."""
        for gate, value in enumerate(gradients):
            at.store(dataclasses.replace(self.halves, offset=half), value, gate)
            self.sink.put([at.time, at.row, at.unit + gate * self.shape.units], 2, value.v, at.mask)


class ElmanGradient(GradientCell):
    """grad = grad_h (1 - y y), or grad_h where y > 0."""

    nonlinearity = "tanh"

    def advance(self, step: Dim, half: Dim, row: Dim, unit: Dim, sums: list[V], mask: V | None) -> None:
        at = self.place(step, row, unit, mask)
        grad_y, _, _, y_of_all = self.operands
        grad_h, y = at.load(grad_y) + self.carried(at, step, sums), at.load(y_of_all)
        slope = y.fnma(y, 1.0) if self.nonlinearity == "tanh" else y.of(1.0).where(y.gt(0.0), 0.0)
        self.finish(at, half, [grad_h * slope])


class GruGradient(GradientCell):
    """The gates' order is r z n; what W_hh feeds of n is multiplied by r. `input_gates`: where the gradients of what W_ih feeds go, or None."""

    n_gates = 3
    input_gates: Target | None = None

    def start(self, row: Dim, unit: Dim, mask: V | None) -> None:
        super().start(row, unit, mask)
        at = self.place(0, row, unit, mask)
        at.store(self.outputs[2], at.load(self.operands[1]))

    def carried(self, at: Place, step: Dim, sums: list[V]) -> Lanes:
        return Lanes(self.w, sums[0]) + at.load(_held(self.outputs[2]))

    def advance(self, step: Dim, half: Dim, row: Dim, unit: Dim, sums: list[V], mask: V | None) -> None:
        at = self.place(step, row, unit, mask)
        grad_y, _, _, gates, y, h0 = self.operands
        r, z, n, hidden_n = (at.load(gates, gate) for gate in range(4))
        grad_h = at.load(grad_y) + self.carried(at, step, sums)
        grad_n = grad_h * (1.0 - z) * n.fnma(n, 1.0)
        grad_r = grad_n * hidden_n * r * (1.0 - r)
        grad_z = grad_h * (self.previous(at, step, y, h0) - n) * z * (1.0 - z)
        at.store(self.outputs[2], grad_h * z)
        if self.input_gates is not None:
            for gate, value in enumerate((grad_r, grad_z, grad_n)):
                at.store(self.input_gates, value, gate)
        self.finish(at, half, [grad_r, grad_z, grad_n * r])


class LstmGradient(GradientCell):
    """The gates' order is i f g o; the gradient of the cell is carried in grad_c0's memory."""

    n_gates = 4

    def start(self, row: Dim, unit: Dim, mask: V | None) -> None:
        super().start(row, unit, mask)
        at = self.place(0, row, unit, mask)
        at.store(self.outputs[2], at.load(self.operands[3]))

    def advance(self, step: Dim, half: Dim, row: Dim, unit: Dim, sums: list[V], mask: V | None) -> None:
        at = self.place(step, row, unit, mask)
        grad_y, _, _, _, gates, cells, c0 = self.operands
        i, f, g, o = (at.load(gates, gate) for gate in range(4))
        grad_h = at.load(grad_y) + self.carried(at, step, sums)
        squashed = at.apply("tanh", at.load(cells), self.shape.dtype)
        grad_c = at.load(_held(self.outputs[2])) + grad_h * o * squashed.fnma(squashed, 1.0)
        at.store(self.outputs[2], grad_c * f)
        grad_f = grad_c * self.previous(at, step, cells, c0) * f * (1.0 - f)
        grad_o = grad_h * squashed * o * (1.0 - o)
        self.finish(at, half, [grad_c * g * i * (1.0 - i), grad_f, grad_c * i * g.fnma(g, 1.0), grad_o])


def _held(target: Target) -> Load:
    """What was last written to `target`."""
    return Load(target.buffer, target.offset, target.strides)
