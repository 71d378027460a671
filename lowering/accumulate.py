"""Accumulators of reductions: start value, one step, combination of partial results and lanes."""

from __future__ import annotations

from .build_vector import Builder
from .select import constant
from .values import Unsupported
from .vector_ir import REGISTER_TYPE, V

__all__ = ["INT_LIMITS", "Accumulator"]

INT_LIMITS = {"i64": (-(2**63), 2**63 - 1), "i32": (-(2**31), 2**31 - 1), "i16": (-(2**15), 2**15 - 1), "i8": (-128, 127), "u8": (0, 255)}
_OPCODES = {"sum": ("vfadd", "vadd"), "prod": ("vfmul", "vmul"), "max": ("vfmax", "vmax"), "min": ("vfmin", "vmin")}
_LANES = {"sum": "vredadd", "prod": "vredmul", "max": "vredmax", "min": "vredmin"}


class Accumulator:
    """The running state of one reduction: `width` vector values. argmax and argmin carry (winner, its flat position)."""

    def __init__(self, b: Builder, op: str, dtype: str):
        self.b, self.op, self.dtype = b, op, dtype
        self.register = REGISTER_TYPE[dtype]
        self.is_argument = op.startswith("arg")
        self.width = 2 if self.is_argument else 1
        if self.register == "q" and op not in ("any", "all"):
            raise Unsupported(f"reduction {op} of bool")
        if self.register != "q" and op in ("any", "all"):
            raise Unsupported(f"reduction {op} of {dtype}: cast to bool first")

    def identity(self) -> V:
        """The value that changes no result."""
        kind = self.op.removeprefix("arg")
        if kind in ("any", "all"):
            return constant(self.b, kind == "all", "bool")
        if kind in ("sum", "prod"):
            return constant(self.b, int(kind == "prod"), self.dtype)
        low, high = INT_LIMITS.get(self.dtype, (float("-inf"), float("inf")))
        return constant(self.b, low if kind == "max" else high, self.dtype)

    def initial(self) -> list[V]:
        """State before the first element; a position of -1 says that nothing has won yet."""
        return [self.identity(), constant(self.b, -1, "i64")] if self.is_argument else [self.identity()]

    def _combine(self, a: V, c: V) -> V:
        if self.register == "q":
            return self.b.op("qor.q" if self.op == "any" else "qand.q", a, c)
        float_op, int_op = _OPCODES[self.op]
        return self.b.op(f"{float_op if self.register in ('sf', 'df') else int_op}.{self.register}", a, c)

    def step(self, state: list[V], value: V, mask: V | None, point, statement) -> list[V]:
        """The state after one vector of elements; lanes outside `mask` change nothing."""
        if self.is_argument:
            return self._argument_step(state, value, mask, point, statement)
        if mask is not None:
            neutral = self.identity()
            value = self.b.op("qmux.q" if self.register == "q" else f"vmux.{self.register}", mask, value, neutral)
        return [self._combine(state[0], value)]

    def _argument_step(self, state, value, mask, point, statement):
        from .strides import contiguous_strides
        from .tensor_ir import Index
        n = statement.n_outer
        flat = Index(0, (0,) * n + contiguous_strides(statement.domain[n:]))
        position = point.emit(flat)
        wins = self._wins(value, state[0], position, state[1])
        if mask is not None:
            wins = self.b.op("qand.q", wins, mask)
        return [self.b.op(f"vmux.{self.register}", wins, value, state[0]), self.b.op("vmux.d", wins, position, state[1])]

    def _wins(self, value: V, best: V, position: V, best_position: V) -> V:
        """Whether (value, position) beats the best: NaN beats numbers, then the better value, then the smaller position."""
        b, t = self.b, self.register
        better = b.op(f"{'vcmpgt' if self.op == 'argmax' else 'vcmplt'}.{t}", value, best)
        same = b.op(f"vcmpeq.{t}", value, best)
        if t in ("sf", "df"):
            is_nan, was_nan = b.op(f"vcmpne.{t}", value, value), b.op(f"vcmpne.{t}", best, best)
            better = b.op("qandn.q", b.op("qor.q", better, is_nan), was_nan)
            same = b.op("qor.q", same, b.op("qand.q", is_nan, was_nan))
        none = b.op("vcmplt.d", best_position, constant(b, 0, "i64"))
        earlier = b.op("vcmplt.d", position, best_position)
        return b.op("qor.q", b.op("qor.q", better, none), b.op("qand.q", same, earlier))

    @property
    def rounds(self) -> bool:
        """Whether every step rounds, so that the error grows with their number."""
        return self.op == "sum" and self.register in ("sf", "df")

    def final(self, parts: list, across_lanes: bool) -> V:
        """The result of several partial states, combined over the lanes if asked (then splat)."""
        state = list(parts[0])
        for part in parts[1:]:
            state = self.merge(state, list(part))
        if not across_lanes:
            return state[-1]
        if self.register == "q" and not self.is_argument:
            return self.b.op("qredor.q" if self.op == "any" else "qredand.q", state[0])
        if not self.is_argument:
            return self.b.op(f"{_LANES[self.op]}.{self.register}", state[0])
        return self._argument_across(state)

    def merge(self, state: list[V], part: list[V]) -> list[V]:
        """The state of the elements of both."""
        if not self.is_argument:
            return [self._combine(state[0], part[0])]
        exists = self.b.op("vcmpge.d", part[1], constant(self.b, 0, "i64"))
        wins = self.b.op("qand.q", exists, self._wins(part[0], state[0], part[1], state[1]))
        return [self.b.op(f"vmux.{self.register}", wins, part[0], state[0]), self.b.op("vmux.d", wins, part[1], state[1])]

    def _argument_across(self, state) -> V:
        b, t = self.b, self.register
        exists = b.op("vcmpge.d", state[1], constant(b, 0, "i64"))
        value = b.op(f"vmux.{t}", exists, state[0], Accumulator(b, self.op, self.dtype).identity())
        best = b.op(f"{_LANES[self.op.removeprefix('arg')]}.{t}", value)
        is_best = b.op(f"vcmpeq.{t}", value, best)
        if t in ("sf", "df"):
            is_best = b.op("qor.q", is_best, b.op(f"vcmpne.{t}", value, value))
        candidate = b.op("qand.q", exists, is_best)
        return b.op("vredmin.d", b.op("vmux.d", candidate, state[1], constant(b, 2**63 - 1, "i64")))
