"""Templates "lstm", "gru" and "rnn": one direction of one recurrent layer, behind its input's projection; "…_backward": its gradient.

Template -> a kernel that packs W_hh, and one that takes all steps (rnn_steps.py) with a cell's formulas (rnn_cells.py,
rnn_backward_cells.py). The gradient takes the steps against the layer's direction: its state are the gradients of a step's gates,
and its sums are over W_hh where the layer's are over the transpose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from ...csrc.machine import Machine
from ..emit_c import SHARED_WORK
from ..index_expr import Dim
from ..kernel_writer import BoundKernel, KernelWriter, Sink
from ..tensor_ir import Buffer, Map, Target, Template
from . import template
from .pack import pack
from .rnn_backward_cells import ElmanGradient, GradientCell, GruGradient, LstmGradient
from .rnn_cells import ElmanCell, GruCell, LayerCell, LstmCell
from .rnn_steps import Cell, Shape, Steps, StepTile, UnitWeights, step_tiles

__all__ = ["LayerParams"]

# Floating-point operations of a step from which sharing it between contexts pays the barrier behind it.
# Measured on two cores: a barrier takes up to 0.2 us, in which a core does 10,000 of them.
SHARED_STEP_FLOPS = 60_000
# Operations that an activation counts for.
ACTIVATION_FLOPS = 25


@dataclasses.dataclass(frozen=True)
class LayerParams:
    """Static arguments: whether time runs backwards, whether b_hh is the last operand, what elman layers apply."""

    reverse: bool
    has_bias: bool
    nonlinearity: str = "tanh"


def _layer_shape(statement: Template, cell: type[LayerCell]) -> Shape:
    steps, batch, units = statement.domain
    return Shape(steps, batch, units, units, cell.n_sums, statement.outputs[0].buffer.dtype)


def _gradient_shape(statement: Template, cell: type[GradientCell]) -> Shape:
    steps, batch, depth = statement.domain
    return Shape(steps, batch, depth // cell.n_gates, depth, 1, statement.outputs[0].buffer.dtype)


def _tiles_of(shape_of: Callable[..., Shape], cell: type) -> Callable[[Template, Machine], Iterator[StepTile]]:
    """What proposes the tiles of a recurrence with this cell."""
    return lambda statement, machine: step_tiles(machine, shape_of(statement, cell))


@template("lstm", _tiles_of(_layer_shape, LstmCell))
def lstm(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: StepTile | None = None) -> list[BoundKernel]:
    """Operands: projected input, h0, W_hh, c0[, b_hh]. Outputs: y, h_n, state, c_n, gates, cells (the last two for the gradient)."""
    layer = _Layer(statement, epilogue, stored, machine, LstmCell, choice)
    layer.cell.c0, layer.cell.cell = statement.operands[3], statement.outputs[3]
    layer.cell.gates, layer.cell.cells = (layer.wanted(index) for index in (4, 5))
    return layer.kernels("lstm", 5)


@template("gru", _tiles_of(_layer_shape, GruCell))
def gru(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: StepTile | None = None) -> list[BoundKernel]:
    """Operands: projected input, h0, W_hh[, b_hh]. Outputs: y, h_n, state, gates (for the gradient)."""
    layer = _Layer(statement, epilogue, stored, machine, GruCell, choice)
    layer.cell.gates = layer.wanted(3)
    return layer.kernels("gru", 3)


@template("rnn", _tiles_of(_layer_shape, ElmanCell))
def rnn(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: StepTile | None = None) -> list[BoundKernel]:
    """Operands: projected input, h0, W_hh[, b_hh]. Outputs: y, h_n, state."""
    layer = _Layer(statement, epilogue, stored, machine, ElmanCell, choice)
    layer.cell.nonlinearity = statement.params.nonlinearity
    return layer.kernels("rnn", 1)


@template("lstm_backward", _tiles_of(_gradient_shape, LstmGradient))
def lstm_backward(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: StepTile | None = None) -> list[BoundKernel]:
    """Operands: grad_y, grad_h_n, W_hh, grad_c_n, gates, cells, c0. Outputs: grad_gates, state, grad_c0."""
    gradient = _Gradient(statement, epilogue, stored, machine, LstmGradient, choice)
    return gradient.kernels("lstm_backward", 1)


@template("gru_backward", _tiles_of(_gradient_shape, GruGradient))
def gru_backward(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: StepTile | None = None) -> list[BoundKernel]:
    """Operands: grad_y, grad_h_n, W_hh, gates, y, h0. Outputs: grad_hidden_gates, state, grad_h0 without its product with W_hh, grad_input_gates."""
    gradient = _Gradient(statement, epilogue, stored, machine, GruGradient, choice)
    gradient.cell.input_gates = gradient.wanted(3)
    return gradient.kernels("gru_backward", 0)


@template("rnn_backward", _tiles_of(_gradient_shape, ElmanGradient))
def rnn_backward(statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, choice: StepTile | None = None) -> list[BoundKernel]:
    """Operands: grad_y, grad_h_n, W_hh, y. Outputs: grad_gates, state."""
    gradient = _Gradient(statement, epilogue, stored, machine, ElmanGradient, choice)
    gradient.cell.nonlinearity = statement.params.nonlinearity
    return gradient.kernels("rnn_backward", 0)


class _Recurrence:
    """A kernel over all steps, under construction: operand 2 is W_hh."""

    def __init__(self, statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, shape: Shape, choice: StepTile | None):
        self.statement, self.epilogue, self.stored, self.shape = statement, epilogue, stored, shape
        self.w = KernelWriter(machine.lanes)
        self.sink = Sink(self.w, statement, epilogue, stored)
        self.tile = choice or next(step_tiles(machine, shape))
        self.w_hh = statement.operands[2]
        self.cell: Cell

    @property
    def summed(self) -> tuple[tuple[Dim, Dim], Dim, Dim]:
        """Of W_hh: (number, stride) of the sums per unit, stride along k, stride from unit to unit."""
        raise NotImplementedError

    def wanted(self, index: int) -> Target | None:
        """Output `index`, if it must reach memory."""
        return self.statement.outputs[index] if index < len(self.statement.outputs) and self.statement.outputs[index].buffer in self.stored else None

    def kernels(self, name: str, n_activations: int) -> list[BoundKernel]:
        """The finished kernels, in execution order; `n_activations`: functions applied per unit."""
        s, (sums, k, unit) = self.shape, self.summed
        packed = pack(self.w_hh, self.w.lanes, self.tile.vectors * self.w.lanes, (sums,), ((s.depth, k),), (s.units, unit),
                      s.dtype, f"{self.statement.outputs[0].buffer.name}_panels", self.statement.origins)  # fmt: skip
        weights = UnitWeights(packed.panels.buffer, packed.panels.panel, packed.k_strides[0], packed.batch_strides[0])
        steps = Steps(self.w, s, self.tile, weights, self.cell)
        steps.write()
        origins = tuple(dict.fromkeys((*self.statement.origins, *(o for m in self.epilogue for o in m.origins))))
        points = s.steps * s.batch * s.units
        flops = steps.flops + points * (n_activations * ACTIVATION_FLOPS) + self.sink.flops(points)
        title = f"{' + '.join(origins[:4]) or name}"
        return [packed.kernel, self.w.finish(name, title, name, origins, flops, steps.bytes, self._work(flops))]

    def _work(self, flops: Dim) -> Dim:
        """What the contexts' number is decided by: where they meet after every step, the operations of one, as shares of a kernel's threshold."""
        s = self.shape
        if self.tile.shares_rows:
            return flops
        return s.batch * (2 * s.units * s.n_sums * s.depth * SHARED_WORK // SHARED_STEP_FLOPS)


class _Layer(_Recurrence):
    """Operands 0 and 1 are the projected input and h0, outputs 0..2 are y, h_n and the state."""

    def __init__(self, statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, cell: type[LayerCell], choice: StepTile | None):
        shape = _layer_shape(statement, cell)
        super().__init__(statement, epilogue, stored, machine, shape, choice)
        bias = statement.operands[-1] if statement.params.has_bias else None
        projected, h0 = statement.operands[:2]
        state = statement.outputs[2].buffer
        self.cell = cell(self.w, shape, statement.params.reverse, projected, bias, h0, state, self.wanted(1), self.sink)

    @property
    def summed(self) -> tuple[tuple[Dim, Dim], Dim, Dim]:
        gate, k = self.w_hh.strides
        return (self.shape.n_sums, self.shape.units * gate), k, gate


class _Gradient(_Recurrence):
    """Operands 0 and 1 are grad_y and grad_h_n, outputs 0 and 1 are the gates' gradients and the state."""

    def __init__(self, statement: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer], machine: Machine, cell: type[GradientCell], choice: StepTile | None):
        shape = _gradient_shape(statement, cell)
        super().__init__(statement, epilogue, stored, machine, shape, choice)
        self.cell = cell(self.w, shape, statement, self.sink)

    @property
    def summed(self) -> tuple[tuple[Dim, Dim], Dim, Dim]:
        gate, unit = self.w_hh.strides
        return (1, 0), gate, unit
