"""The pointwise part of recurrent layers: from the finished sums of a vector of units to the new state.

Formulas are in lowering/ops/rnn.py. Gates lie side by side: gate g of unit u is element g * units + u of its row.
"""

from __future__ import annotations

import dataclasses

from ..index_expr import Dim
from ..kernel_writer import KernelWriter, PointEmitter, Sink
from ..lanes import Lanes
from ..select import select
from ..tensor_ir import Buffer, Load, Target
from ..vector_ir import V
from .rnn_steps import Shape

__all__ = ["ElmanCell", "GruCell", "LayerCell", "LstmCell", "Place"]


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Where a cell works: at row `row`, units from `unit` on, at index `time` of the sequence; lanes outside `mask` do not exist."""

    w: KernelWriter
    units: int
    time: Dim
    row: Dim
    unit: Dim
    mask: V | None

    def load(self, source: Load, gate: int = 0) -> Lanes:
        """Gate `gate` of the units from a [time, batch, gates], [batch, units] or [gates] operand."""
        point = self._point(len(source.strides), gate)
        return Lanes(self.w, point.emit(source))

    def store(self, target: Target, value: Lanes, gate: int = 0) -> None:
        """The reverse of load."""
        self._point(len(target.strides), gate).store(target, value.v)

    def _point(self, rank: int, gate: int) -> PointEmitter:
        coords = [self.time, self.row, self.unit + gate * self.units][3 - rank:]
        return PointEmitter(self.w, coords, rank - 1, self.mask)

    def apply(self, name: str, value: Lanes, dtype: str) -> Lanes:
        """A function of select.py."""
        return Lanes(self.w, select(self.w, name, [value.v], dtype, dtype))


class LayerCell:
    """What the forward cells share: the state h, the projected input, biases, and where results go.

    Args:
        projected: x W_ih + b_ih, [time, batch, gates].   bias: b_hh or None.   h0: [batch, units].
        state: [2, batch, units].   h_n: the last state.   sink: takes every state.
    """

    n_sums = 1

    def __init__(self, w: KernelWriter, shape: Shape, reverse: bool, projected: Load, bias: Load | None, h0: Load, state: Buffer, h_n: Target | None, sink: Sink):
        self.w, self.shape, self.reverse = w, shape, reverse
        self.projected, self.bias, self.h0 = projected, bias, h0
        self.state, self.h_n, self.sink = state, h_n, sink
        self.halves = Target(state, 0, (shape.depth, 1))

    def place(self, step: Dim, row: Dim, unit: Dim, mask: V | None) -> Place:
        """The place of a step; time runs backwards in a reversed layer."""
        return Place(self.w, self.shape.units, self.shape.steps - 1 - step if self.reverse else step, row, unit, mask)

    def start(self, row: Dim, unit: Dim, mask: V | None) -> None:
        at = self.place(0, row, unit, mask)
        at.store(self.halves, at.load(self.h0))

    def hidden(self, at: Place, gate: int, sums: list[V]) -> Lanes:
        """W_hh h + b_hh of a gate."""
        total = Lanes(self.w, sums[gate])
        return total if self.bias is None else total + at.load(self.bias, gate)

    def finish(self, at: Place, step: Dim, half: Dim, h: Lanes) -> None:
        """Hand over the new state h."""
        at.store(dataclasses.replace(self.halves, offset=half), h)
        self.sink.put([at.time, at.row, at.unit], 2, h.v, at.mask)
        self.store_last(at, step, self.h_n, h)

    def store_last(self, at: Place, step: Dim, target: Target | None, value: Lanes) -> None:
        """Store the value of the last step."""
        if target is not None:
            with self.w.branch(step, "==", self.shape.steps - 1):
                at.store(target, value)

    def previous(self, at: Place, half: Dim) -> Lanes:
        """h of the step before."""
        other = self.shape.batch * self.shape.depth - half
        return at.load(Load(self.state, other, self.halves.strides))


class ElmanCell(LayerCell):
    """h' = tanh or relu of the sum."""

    nonlinearity = "tanh"

    def advance(self, step: Dim, half: Dim, row: Dim, unit: Dim, sums: list[V], mask: V | None) -> None:
        at, dtype = self.place(step, row, unit, mask), self.shape.dtype
        total = at.load(self.projected) + self.hidden(at, 0, sums)
        h = at.apply("tanh", total, dtype) if self.nonlinearity == "tanh" else total.max(0.0)
        self.finish(at, step, half, h)


class GruCell(LayerCell):
    """h' = n + z (h - n). `gates`: where r, z, n and W_hn h + b_hn are kept, or None."""

    n_sums = 3
    gates: Target | None = None

    def advance(self, step: Dim, half: Dim, row: Dim, unit: Dim, sums: list[V], mask: V | None) -> None:
        at, dtype = self.place(step, row, unit, mask), self.shape.dtype
        r, z = (at.apply("sigmoid", at.load(self.projected, gate) + self.hidden(at, gate, sums), dtype) for gate in (0, 1))
        hidden_n = self.hidden(at, 2, sums)
        n = at.apply("tanh", r.fma(hidden_n, at.load(self.projected, 2)), dtype)
        if self.gates is not None:
            for gate, value in enumerate((r, z, n, hidden_n)):
                at.store(self.gates, value, gate)
        self.finish(at, step, half, z.fma(self.previous(at, half) - n, n))


class LstmCell(LayerCell):
    """c' = f c + i g;  h' = o tanh(c'). The cells live in `cell`, [batch, units]; `gates`, `cells`: where those of all steps are kept, or None."""

    n_sums = 4
    c0: Load
    cell: Target
    gates: Target | None = None
    cells: Target | None = None

    def start(self, row: Dim, unit: Dim, mask: V | None) -> None:
        super().start(row, unit, mask)
        at = self.place(0, row, unit, mask)
        at.store(self.cell, at.load(self.c0))

    def advance(self, step: Dim, half: Dim, row: Dim, unit: Dim, sums: list[V], mask: V | None) -> None:
        at, dtype = self.place(step, row, unit, mask), self.shape.dtype
        totals = [at.load(self.projected, gate) + self.hidden(at, gate, sums) for gate in range(4)]
        i, f, g, o = (at.apply(name, total, dtype) for name, total in zip(("sigmoid", "sigmoid", "tanh", "sigmoid"), totals))
        c = i.fma(g, f * at.load(Load(self.cell.buffer, self.cell.offset, self.cell.strides)))
        h = o * at.apply("tanh", c, dtype)
        at.store(self.cell, c)
        if self.gates is not None:
            for gate, value in enumerate((i, f, g, o)):
                at.store(self.gates, value, gate)
        if self.cells is not None:
            at.store(self.cells, c)
        self.finish(at, step, half, h)
