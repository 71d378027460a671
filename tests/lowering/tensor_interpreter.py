"""The meaning of a TensorProgram: every statement evaluated over its whole index space with torch.

The definition that tests hold lowerings against, apart from fusion, vectors and C.
"""

from __future__ import annotations

import math

import torch

from accel.lowering.index_expr import substitute
from accel.lowering.registry import TORCH_DTYPES
from accel.lowering.tensor_ir import Const, Gather, Index, Load, Map, Reduce, Scan, Scatter, Template, walk

__all__ = ["TensorInterpreter"]

POINTWISE = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.true_divide, "neg": torch.neg, "abs": torch.abs,
    "maximum": torch.maximum, "minimum": torch.minimum, "fmax": torch.fmax, "fmin": torch.fmin, "floor": torch.floor, "ceil": torch.ceil,
    "trunc": torch.trunc, "round": torch.round, "sqrt": torch.sqrt, "copysign": torch.copysign, "eq": torch.eq, "ne": torch.ne, "lt": torch.lt,
    "le": torch.le, "gt": torch.gt, "ge": torch.ge, "exp": torch.exp, "exp_nonpositive": torch.exp, "log": torch.log, "log1p": torch.log1p, "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal, "pow": torch.pow, "fma": lambda a, b, c: a * b + c, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "and": torch.bitwise_and, "or": torch.bitwise_or, "xor": torch.bitwise_xor, "not": torch.bitwise_not, "where": torch.where,
    "div_trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"), "div_floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "shl": torch.bitwise_left_shift, "shr": torch.bitwise_right_shift, "fmod": torch.fmod, "remainder": torch.remainder, "erf": torch.erf, "normal_cdf": torch.special.ndtr,
}  # fmt: skip
REDUCTIONS = {
    "sum": lambda x: x.sum(-1).to(x.dtype), "prod": lambda x: x.prod(-1).to(x.dtype), "max": lambda x: x.amax(-1), "min": lambda x: x.amin(-1), "any": lambda x: x.any(-1),
    "all": lambda x: x.all(-1), "argmax": lambda x: x.max(-1).indices, "argmin": lambda x: x.min(-1).indices,
}  # fmt: skip
SCATTER_OPS = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b, "min": torch.minimum, "max": torch.maximum, "set": lambda a, b: b}
SCANS = {"sum": lambda x: x.cumsum(-1), "prod": lambda x: x.cumprod(-1), "max": lambda x: x.cummax(-1), "min": lambda x: x.cummin(-1), "logsumexp": lambda x: x.logcumsumexp(-1)}


def _gemm(interpreter: TensorInterpreter, s: Template) -> list[torch.Tensor]:
    *batch, rows, columns = (interpreter.number(d) for d in s.domain)
    depth = interpreter.number(s.params.depth)
    a, b = interpreter.evaluate(s.operands[0], (*batch, rows, depth)), interpreter.evaluate(s.operands[1], (*batch, depth, columns))
    wide = TORCH_DTYPES[s.outputs[0].buffer.dtype]
    return [a.to(wide) @ b.to(wide)]


def _attention(interpreter: TensorInterpreter, s: Template) -> list[torch.Tensor]:
    """The score matrix in full, softmax, and the weighted values."""
    *batch, rows, width = (interpreter.number(d) for d in s.domain)
    depth, keys = interpreter.number(s.params.depth), interpreter.number(s.params.keys)
    query, key, value = (interpreter.evaluate(o, (*batch, *sizes)) for o, sizes in zip(s.operands, ((rows, depth), (keys, depth), (keys, width))))
    wide = TORCH_DTYPES[s.params.product.dtype]
    interpreter.memory[s.params.product] = (query.to(wide) @ key.to(wide).mT).flatten()
    scores = interpreter.evaluate(s.inner[0], (*batch, rows, keys))
    if s.params.causal is not None:
        hidden = torch.arange(keys) > torch.arange(rows).unsqueeze(1) + interpreter.number(s.params.causal)
        scores = scores.masked_fill(hidden, -math.inf)
    weights, total = scores.softmax(-1), scores.logsumexp(-1)
    if s.params.is_safe:
        is_empty = (scores == -math.inf).all(-1)
        weights, total = weights.masked_fill(is_empty.unsqueeze(-1), 0.0), total if s.params.is_share else total.masked_fill(is_empty, 0.0)
    return [weights @ value.to(wide), total][:len(s.outputs)]


TEMPLATES = {"gemm": _gemm, "attention": _attention}


class TensorInterpreter:
    """Runs statements on memory held as flat tensors, one per buffer; `symbols` binds size names."""

    def __init__(self, symbols: dict[str, int] | None = None):
        self.symbols = symbols or {}
        self.memory: dict = {}

    def number(self, value) -> int:
        return int(substitute(value, self.symbols))

    def bind(self, buffer, tensor: torch.Tensor) -> None:
        """Gives an input buffer the storage of `tensor`."""
        extent = 1 + sum((s - 1) * st for s, st in zip(tensor.shape, tensor.stride())) if tensor.numel() else 0
        self.memory[buffer] = torch.as_strided(tensor, (extent,), (1,), tensor.storage_offset()).clone()

    def _flat(self, buffer) -> torch.Tensor:
        if buffer not in self.memory:
            n = max(self.number(buffer.n_elements), 0)
            self.memory[buffer] = torch.full((n,), 77, dtype=TORCH_DTYPES[buffer.dtype])
        return self.memory[buffer]

    def _positions(self, offset, strides, domain) -> torch.Tensor:
        result = torch.full(domain, self.number(offset), dtype=torch.int64)
        for d, stride in enumerate(strides):
            shape = [-1 if k == d else 1 for k in range(len(domain))]
            result = result + torch.arange(domain[d]).reshape(shape) * self.number(stride)
        return result

    def _take(self, buffer, positions, guard) -> torch.Tensor:
        flat = self._flat(buffer)
        inside = torch.ones_like(positions, dtype=torch.bool) if guard is None else guard
        touched = positions[inside]
        assert touched.numel() == 0 or (touched.min() >= 0 and touched.max() < flat.numel()), f"read of {buffer} outside of its memory"
        if flat.numel() == 0:
            return torch.zeros(positions.shape, dtype=flat.dtype)
        values = flat[torch.where(inside, positions, 0)]
        return torch.where(inside, values, torch.zeros((), dtype=flat.dtype))

    def _checked(self, index, size, guard) -> torch.Tensor:
        bad = (index < 0) | (index >= self.number(size))
        if bool((bad if guard is None else bad & guard).any()):
            raise IndexError("index out of range")
        return torch.where(bad, 0, index)

    def evaluate(self, root, domain) -> torch.Tensor:
        """The values of an expression over `domain`."""
        memo: dict = {}
        for expr in walk(root):
            memo[id(expr)] = self._node(expr, domain, memo)
        return memo[id(root)].expand(domain)

    def _node(self, expr, domain, memo) -> torch.Tensor:
        if isinstance(expr, Const):
            value = expr.value if isinstance(expr.value, (int, float, bool)) else self.number(expr.value)
            return torch.tensor(value, dtype=TORCH_DTYPES[expr.dtype])
        if isinstance(expr, Index):
            return self._positions(expr.offset, expr.strides, domain)
        guard = memo[id(expr.guard)].expand(domain) if getattr(expr, "guard", None) is not None else None
        if isinstance(expr, Load):
            return self._take(expr.buffer, self._positions(expr.offset, expr.strides, domain), guard)
        if isinstance(expr, Gather):
            positions = self._positions(expr.offset, expr.strides, domain)
            for index, size, stride in expr.indices:
                positions = positions + self._checked(memo[id(index)].expand(domain), size, guard) * self.number(stride)
            return self._take(expr.buffer, positions, guard)
        args = [memo[id(a)] for a in expr.args]
        if expr.name == "cast":
            return args[0].to(TORCH_DTYPES[expr.dtype])
        if expr.name == "from_end":
            return torch.where(args[0] < 0, args[0] + self.number(expr.attrs[0]), args[0])
        if expr.name == "require":
            if not bool(args[1].all()):
                raise RuntimeError(f"a condition does not hold: status {expr.attrs[0]}")
            return args[0]
        if expr.name not in POINTWISE:
            raise NotImplementedError(f"pointwise operator {expr.name}")
        kinds = {a.dtype for a in (args[1:] if expr.name == "where" else args)}
        assert len(kinds) == 1, f"{expr.name} of mixed dtypes {kinds}"
        result = POINTWISE[expr.name](*args)
        assert result.dtype == TORCH_DTYPES[expr.dtype], f"{expr.name} gives {result.dtype}, said {expr.dtype}"
        return result

    def run(self, statements) -> None:
        """Executes statements in order."""
        for s in statements:
            {Map: self._map, Reduce: self._reduce, Scan: self._scan, Scatter: self._scatter, Template: self._template}[type(s)](s)

    def _domain(self, statement) -> tuple[int, ...]:
        return tuple(self.number(d) for d in statement.domain)

    def _put(self, target, domain, values) -> None:
        assert len(target.strides) == len(domain)
        flat, positions = self._flat(target.buffer), self._positions(target.offset, target.strides, domain)
        assert values.dtype == flat.dtype, f"{values.dtype} stored to {target.buffer}"
        assert positions.numel() == 0 or (positions.min() >= 0 and positions.max() < flat.numel()), f"write to {target.buffer} outside of its memory"
        flat[positions.flatten()] = values.expand(domain).flatten()

    def _map(self, s) -> None:
        domain = self._domain(s)
        self._put(s.target, domain, self.evaluate(s.expr, domain))

    def _reduce(self, s) -> None:
        domain = self._domain(s)
        values = self.evaluate(s.expr, domain)
        outer = domain[:s.n_outer]
        self._put(s.target, outer, REDUCTIONS[s.op](values.reshape(*outer, math.prod(domain[s.n_outer:]))))

    def _scan(self, s) -> None:
        domain = self._domain(s)
        result = SCANS[s.op](self.evaluate(s.expr, domain))
        results = result if isinstance(result, tuple) else (result,)
        for target, values in zip(s.outputs, results):
            self._put(target, domain, values.to(TORCH_DTYPES[target.buffer.dtype]))

    def _scatter(self, s) -> None:
        domain = self._domain(s)
        values = self.evaluate(s.expr, domain)
        positions = self._positions(s.target.offset, s.target.strides, domain)
        for index, size, stride in s.indices:
            positions = positions + self._checked(self.evaluate(index, domain), size, None) * self.number(stride)
        flat = self._flat(s.target.buffer)
        assert values.dtype == flat.dtype, f"{values.dtype} scattered to {s.target.buffer}"
        for position, value in zip(positions.flatten().tolist(), values.flatten()):
            flat[position] = SCATTER_OPS[s.op](flat[position], value)

    def _template(self, s) -> None:
        for target, values in zip(s.outputs, TEMPLATES[s.kind](self, s)):
            self._put(target, tuple(values.shape), values)

    def value(self, value) -> torch.Tensor:
        """What a Value holds after its statements ran."""
        return self.evaluate(value.expr, tuple(self.number(d) for d in value.sizes)).clone()
