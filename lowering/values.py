"""Graph and Value: how lowerings write a TensorProgram.

A Value is lazy: an expression over its own sizes. View methods rewrite the expression's leaves; a Value becomes memory
only through `Graph.realize`. Lowerings call the primitives here (map, reduce, scan, scatter, template, views) and
know nothing of loops, vectors or C.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from .index_expr import Dim, exact_div, maximum, product, render
from .strides import contiguous_strides, view_strides
from .tensor_ir import Buffer, Const, Expr, Gather, Index, Load, Map, Op, Reduce, Scan, Scatter, Statement, Target, Template, leaves, restride

__all__ = ["EXPENSIVE", "Graph", "Layout", "Unsupported", "Value", "broadcast_sizes", "length_of", "preferred_strides"]

# Operators that cost more than a trip through memory: never computed twice.
EXPENSIVE = frozenset("""exp exp_nonpositive exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh erf erfc erfinv
    lgamma digamma erfcx igamma igammac gcd ldexp frexp_mantissa frexp_exponent sigmoid normal_cdf pow div div_floor div_trunc remainder fmod sqrt rsqrt reciprocal philox i0 i0e i1 i1e k0 k1 k0e k1e bessel_j0 bessel_j1 bessel_y0 bessel_y1 spherical_bessel_j0 airy_ai chebyshev_t chebyshev_u chebyshev_v chebyshev_w hermite_h hermite_he laguerre_l legendre_p ndtri zeta""".split())

# Instructions that an operator's expansion takes, roughly; what is not listed takes 1, other EXPENSIVE operators 16.
_LONG = dict.fromkeys("sin cos tan pow atan2 fmod remainder div_floor lgamma digamma erfc erfcx erfinv igamma igammac zeta ndtri gcd i0 i0e i1 i1e k0 k1 k0e k1e bessel_j0 bessel_j1 bessel_y0 bessel_y1 airy_ai asin acos atan sinh cosh asinh acosh atanh expm1 log1p".split(), 64)
MAX_VALUE_LENGTH = 160  # a lazy value of more instructions becomes memory, so that no kernel grows without bound


def length_of(operator: str) -> int:
    """Roughly the DVX instructions of one operator."""
    return _LONG.get(operator, 16 if operator in EXPENSIVE else 1)


class Unsupported(Exception):
    """A lowering cannot serve a node; the message is the sentence that `explain` shows."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where eager keeps a tensor's elements: `strides`, and the `offset` of the first one in its storage."""

    strides: tuple[Dim, ...]
    offset: Dim = 0


@dataclasses.dataclass(eq=False)
class Value:
    """A tensor inside a lowering: `sizes`, `dtype` and a lazy expression over them. `cost` counts the instructions below, `origins` names their FX nodes."""

    graph: Graph
    sizes: tuple[Dim, ...]
    expr: Expr
    cost: int = 0
    is_expensive: bool = False
    origins: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        """accel's name of the element type, a key of csrc.abi.DTYPE_BYTES."""
        return self.expr.dtype

    @property
    def rank(self) -> int:
        """Number of dims."""
        return len(self.sizes)

    @property
    def numel(self) -> Dim:
        """Number of elements."""
        return product(self.sizes)

    def _with(self, sizes, expr) -> Value:
        return dataclasses.replace(self, sizes=tuple(sizes), expr=expr)

    def substitute_dims(self, sizes: Sequence[Dim], origin: Sequence[Dim], matrix: Sequence[Sequence[Dim]]) -> Value:
        """The value whose element j is this one's element origin[d] + sum(matrix[d][k] * j[k]): every affine view."""

        def change(offset, strides):
            for start, stride in zip(origin, strides):
                offset = offset + stride * start
            new = tuple(sum((strides[d] * row[k] for d, row in enumerate(matrix) if row[k] != 0 and strides[d] != 0), 0) for k in range(len(sizes)))
            return offset, new

        return self._with(sizes, restride(self.expr, change))

    def permute(self, dims: Sequence[int]) -> Value:
        """Dim k of the result is dim dims[k] of this value."""
        order = [d % self.rank for d in dims]
        return self._with((self.sizes[d] for d in order), restride(self.expr, lambda o, s: (o, tuple(s[d] for d in order))))

    def expand(self, sizes: Sequence[Dim]) -> Value:
        """Broadcast to `sizes`, aligned at the right; -1 keeps a size."""
        lead = len(sizes) - self.rank
        own = (1,) * lead + self.sizes
        sizes = tuple(o if s == -1 else s for s, o in zip(sizes, own))
        if sizes == self.sizes:
            return self
        source = self
        grows = any(s != o for s, o in zip(sizes, own))
        if grows and self.is_expensive:
            source = self.graph.realize(self)
        keep = [d >= lead and own[d] != 1 or sizes[d] == 1 and d >= lead for d in range(len(sizes))]
        for s, o in zip(sizes, own):
            if o != 1 and o != s:
                raise Unsupported(f"cannot broadcast size {render(o)} to {render(s)}")
        return source._with(sizes, restride(source.expr, lambda o, st: (o, tuple(st[d - lead] if keep[d] else 0 for d in range(len(sizes))))))

    def slice(self, dim: int, start: Dim, end: Dim, step: int = 1) -> Value:
        """Elements start, start + step, … below end of dim; bounds must be in range already."""
        dim %= self.rank
        length = end - start
        length = exact_div(length + (step - 1), step) if step == 1 or not isinstance(length, int) else (length + step - 1) // step
        if length is None:
            from .index_expr import floordiv
            length = floordiv(end - start + (step - 1), step)
        sizes = (*self.sizes[:dim], length, *self.sizes[dim + 1:])
        return self._with(sizes, restride(self.expr, lambda o, s: (o + s[dim] * start, (*s[:dim], s[dim] * step, *s[dim + 1:]))))

    def select(self, dim: int, index: Dim) -> Value:
        """Element `index` of dim, which disappears."""
        dim %= self.rank
        return self._with((*self.sizes[:dim], *self.sizes[dim + 1:]), restride(self.expr, lambda o, s: (o + s[dim] * index, (*s[:dim], *s[dim + 1:]))))

    def unsqueeze(self, dim: int) -> Value:
        """A new dim of size 1 at `dim`."""
        dim %= self.rank + 1
        return self._with((*self.sizes[:dim], 1, *self.sizes[dim:]), restride(self.expr, lambda o, s: (o, (*s[:dim], 0, *s[dim:]))))

    def squeeze(self, dims: Sequence[int] | None = None) -> Value:
        """Without the dims of size 1 among `dims` (all, if None)."""
        chosen = range(self.rank) if dims is None else {d % self.rank for d in dims} if self.rank else ()
        keep = [d for d in range(self.rank) if not (d in chosen and self.sizes[d] == 1)]
        return self._with((self.sizes[d] for d in keep), restride(self.expr, lambda o, s: (o, tuple(s[d] for d in keep))))

    def flip(self, dims: Sequence[int]) -> Value:
        """Reversed along dims."""
        chosen = {d % self.rank for d in dims}

        def change(offset, strides):
            for d in chosen:
                offset = offset + strides[d] * (self.sizes[d] - 1)
            return offset, tuple(-s if d in chosen else s for d, s in enumerate(strides))

        return self._with(self.sizes, restride(self.expr, change))

    def reshape(self, sizes: Sequence[Dim]) -> Value:
        """The same elements in row-major order under `sizes`; realized first where a leaf's strides cannot follow."""
        sizes = self._infer(tuple(sizes))
        if sizes == self.sizes:
            return self
        if any(s == 0 for s in sizes if isinstance(s, int)):
            return self._with(sizes, restride(self.expr, lambda o, s: (o, (0,) * len(sizes))))
        if all(view_strides(self.sizes, leaf.strides, sizes) is not None for leaf in leaves(self.expr)):
            return self._with(sizes, restride(self.expr, lambda o, s: (o, view_strides(self.sizes, s, sizes))))
        realized = self.graph.realize(self, strides=contiguous_strides(self.sizes))
        return realized._with(sizes, dataclasses.replace(realized.expr, strides=contiguous_strides(sizes)))

    # Arithmetic without type promotion: a Python number takes this value's dtype.

    def _with_other(self, name: str, other, dtype: str | None = None, swapped: bool = False) -> Value:
        other = other if isinstance(other, Value) else self.graph.constant(other, self.dtype)
        return self.graph.map(name, *((other, self) if swapped else (self, other)), dtype=dtype or self.dtype)

    def __add__(self, other):
        return self._with_other("add", other)

    def __sub__(self, other):
        return self._with_other("sub", other)

    def __rsub__(self, other):
        return self._with_other("sub", other, swapped=True)

    def __mul__(self, other):
        return self._with_other("mul", other)

    def __truediv__(self, other):
        return self._with_other("div", other)

    def __rtruediv__(self, other):
        return self._with_other("div", other, swapped=True)

    __radd__ = __add__
    __rmul__ = __mul__

    def __and__(self, other):
        return self._with_other("and", other)

    def __or__(self, other):
        return self._with_other("or", other)

    def __invert__(self):
        return self.graph.map("not", self)

    def __lt__(self, other):
        return self._with_other("lt", other, "bool")

    def __le__(self, other):
        return self._with_other("le", other, "bool")

    def __gt__(self, other):
        return self._with_other("gt", other, "bool")

    def __ge__(self, other):
        return self._with_other("ge", other, "bool")

    def equals(self, other) -> Value:
        """Elementwise ==."""
        return self._with_other("eq", other, "bool")

    def differs(self, other) -> Value:
        """Elementwise !=; true where this value is compared with itself and NaN."""
        return self._with_other("ne", other, "bool")

    def where(self, condition: Value, other) -> Value:
        """This value where `condition` holds, else `other` (a Value or a number)."""
        other = other if isinstance(other, Value) else self.graph.constant(other, self.dtype)
        return self.graph.map("where", condition, self, other, dtype=self.dtype)

    def _infer(self, sizes):
        if -1 not in [s for s in sizes if isinstance(s, int)]:
            return sizes
        known = product(s for s in sizes if not (isinstance(s, int) and s == -1))
        missing = exact_div(self.numel, known) if known != 0 else 0
        if missing is None:
            raise Unsupported(f"reshape of {render(self.numel)} elements: the size at -1 is not known symbolically")
        return tuple(missing if isinstance(s, int) and s == -1 else s for s in sizes)

    def __str__(self):
        return f"{self.dtype}[{', '.join(map(render, self.sizes))}]"


class Graph:
    """A TensorProgram under construction.

    Attributes:
        origin: names of the FX nodes being lowered, which its statements carry.
        result_sizes: sizes of the results of the node being lowered, as its fake tensors have them; None where there is no node.
        is_below_zero: whether an argument of the node being lowered, or a sum of such, is negative; where it is symbolic, a guard has it stay so.
        layout_of: the eager layout of an argument of the node being lowered, None where it is not known.
        allows_winograd: whether convolutions may regroup their sums to multiply less.
    """

    def __init__(self, allows_winograd: bool = True):
        self.allows_winograd = allows_winograd
        self.inputs: list[Buffer] = []
        self.statements: list[Statement] = []
        self.result_sizes: Callable[[], tuple[tuple[Dim, ...], ...]] | None = None
        self.is_below_zero: Callable[[Dim], bool] = lambda dim: isinstance(dim, int) and dim < 0
        self.layout_of: Callable[[Value], Layout | None] = self._input_layout
        self.origin: tuple[str, ...] = ()
        self._layouts: dict[Buffer, Layout] = {}
        self._names = itertools.count()
        self._planned: dict[int, Buffer] = {}

    # Leaves

    def input(self, name: str, dtype: str, sizes: Sequence[Dim], strides: Sequence[Dim], storage_offset: Dim = 0, kind: str = "input") -> Value:
        """A tensor from outside the partition; `storage_offset` is that of its first element in its storage (for as_strided)."""
        buffer = Buffer(name, dtype, tuple(sizes), tuple(strides), kind)
        self.inputs.append(buffer)
        self._layouts[buffer] = Layout(buffer.strides, storage_offset)
        return Value(self, buffer.sizes, Load(buffer, 0, buffer.strides))

    def _input_layout(self, value: Value) -> Layout | None:
        """What `layout_of` says where no FX node is being lowered: only inputs have a layout."""
        return self._layouts.get(value.expr.buffer) if isinstance(value.expr, Load) else None

    def constant(self, value, dtype: str, sizes: Sequence[Dim] = ()) -> Value:
        """A tensor filled with one Python number (or an int64 size expression)."""
        return Value(self, tuple(sizes), Const(value, dtype))

    def index(self, sizes: Sequence[Dim], dim: int) -> Value:
        """The int64 index along `dim` at every point of `sizes`."""
        return Value(self, tuple(sizes), Index(0, tuple(int(d == dim % len(sizes)) for d in range(len(sizes)))))

    def buffer(self, dtype: str, sizes: Sequence[Dim], strides: Sequence[Dim] | None = None, name: str | None = None, kind: str = "temp") -> Buffer:
        """New memory; row-major unless strides are given."""
        sizes = tuple(sizes)
        return Buffer(name or f"t{next(self._names)}", dtype, sizes, tuple(strides) if strides is not None else contiguous_strides(sizes), kind)

    def read(self, buffer: Buffer) -> Value:
        """The value that a buffer holds."""
        return Value(self, buffer.sizes, Load(buffer, 0, buffer.strides))

    # Pointwise

    def _origins(self, *values: Value) -> tuple[str, ...]:
        """The FX nodes that lazy operands come from, then the node being lowered."""
        return tuple(dict.fromkeys([o for v in values for o in v.origins] + list(self.origin)))

    def map(self, name: str, *args: Value, dtype: str | None = None, attrs: tuple = ()) -> Value:
        """Operator `name` of lowering/select.py on broadcast operands; the result has the first operand's dtype unless told."""
        sizes = broadcast_sizes(*(a.sizes for a in args))
        args = tuple(a.expand(sizes) for a in args)
        expr = Op(name, tuple(a.expr for a in args), dtype or args[0].dtype, attrs)
        value = Value(self, sizes, expr, length_of(name) + sum(a.cost for a in args), name in EXPENSIVE or any(a.is_expensive for a in args), self._origins(*args))
        return self.realize(value) if value.cost > MAX_VALUE_LENGTH else value

    def cast(self, value: Value, dtype: str) -> Value:
        """`value` converted as Tensor.to does."""
        if value.dtype == dtype:
            return value
        if isinstance(value.expr, Const) and isinstance(value.expr.value, (int, float)) and dtype in ("f32", "f64", "i64", "i32", "bool"):
            return value._with(value.sizes, Const(_const_cast(value.expr.value, dtype), dtype))
        return value._with(value.sizes, Op("cast", (value.expr,), dtype))

    def gather(self, source: Value, indices: Sequence[tuple[int, Value]], sizes: Sequence[Dim], position: Sequence[int | None], guard: Value | None = None) -> Value:
        """source at computed coordinates: over `sizes`, dim d of source is indexed by the result's dim position[d], or (None) by the Value given for d in `indices`."""
        load = self.materialize(source)
        chosen = dict(indices)
        strides = [0] * len(sizes)
        for d, place in enumerate(position):
            if d not in chosen and place is not None:
                strides[place] = strides[place] + load.strides[d]
        terms = tuple((self.cast(value.expand(sizes), "i64").expr, source.sizes[d], load.strides[d]) for d, value in indices)
        cost = 2 + sum(v.cost for _, v in indices)
        return Value(self, tuple(sizes), Gather(load.buffer, load.offset, tuple(strides), terms, guard.expand(sizes).expr if guard else None), cost, False)

    def from_end(self, index: Value, size: Dim) -> Value:
        """`index` with negative values counted from the end of a dim of `size`."""
        return self.map("from_end", self.cast(index, "i64"), attrs=(size,))

    def guarded(self, source: Value, condition: Value, origin: Sequence[Dim], sizes: Sequence[Dim]) -> Value:
        """source[j + origin] over `sizes` where `condition` holds; elsewhere 0, and no memory is touched (padding)."""
        load = self.materialize(source)
        offset = load.offset
        for start, stride in zip(origin, load.strides):
            offset = offset + stride * start
        guard = condition.expand(sizes).expr
        return Value(self, tuple(sizes), Load(load.buffer, offset, load.strides, guard), 1 + condition.cost)

    # Statements

    def realize(self, value: Value, strides: Sequence[Dim] | None = None, buffer: Buffer | None = None) -> Value:
        """`value` as memory: a Map into a new buffer (or into `buffer`), unless it is a whole buffer already.

        A lazy value made by the node being lowered, or by earlier ones alone, is attributed to where it was made.
        """
        if buffer is None:
            if strides is None and isinstance(value.expr, Load) and value.expr.guard is None:
                return value
            buffer = self.buffer(value.dtype, value.sizes, strides if strides is not None else preferred_strides(value))
        self.statements.append(Map(Target(buffer, 0, buffer.strides), value.sizes, value.expr, value.origins or self.origin))
        return self.read(buffer)

    def store(self, value: Value, target: Target) -> None:
        """Writes `value` to a part of a buffer."""
        self.statements.append(Map(target, value.sizes, value.expr, self._origins(value)))

    def materialize(self, value: Value) -> Load:
        """`value` as an unguarded Load, which templates and gathers need."""
        return self.realize(value).expr

    def reduce(self, op: str, value: Value, dims: Sequence[int], keepdim: bool = False, dtype: str | None = None) -> Value:
        """op over `dims`; the result's dtype is the value's (i64 for argmax and argmin)."""
        dims = sorted(d % value.rank for d in dims) if value.rank else []
        kept = [d for d in range(value.rank) if d not in dims]
        if all(value.sizes[d] == 1 for d in dims):
            return self._reduce_nothing(op, value, dims, keepdim, dtype)
        moved = value.permute([*kept, *dims]) if value.rank else value
        outer = tuple(value.sizes[d] for d in kept)
        buffer = self.buffer(dtype or ("i64" if op.startswith("arg") else value.dtype), outer)
        self.statements.append(Reduce(Target(buffer, 0, buffer.strides), moved.sizes, len(outer), op, moved.expr, self._origins(value)))
        result = self.read(buffer)
        if keepdim:
            for d in dims:
                result = result.unsqueeze(d)
        return result

    def _reduce_nothing(self, op: str, value: Value, dims: Sequence[int], keepdim: bool, dtype: str | None) -> Value:
        """`reduce` of single elements: they are their own sum and their own largest, at index 0."""
        result = self.constant(0, "i64", value.sizes) if op.startswith("arg") else self.cast(value, dtype or value.dtype)
        return result if keepdim else result.squeeze(dims)

    def scan(self, op: str, value: Value, dim: int, n_outputs: int = 1, dtype: str | None = None) -> tuple[Value, ...]:
        """Running op along dim, the results converted to `dtype`; see Scan."""
        dim %= value.rank
        order = [d for d in range(value.rank) if d != dim] + [dim]
        moved = value.permute(order)
        buffers = [self.buffer((dtype or value.dtype) if i == 0 else "i64", value.sizes) for i in range(n_outputs)]
        outputs = tuple(Target(b, 0, tuple(b.strides[d] for d in order)) for b in buffers)
        self.statements.append(Scan(outputs, moved.sizes, op, moved.expr, self._origins(value)))
        return tuple(self.read(b) for b in buffers)

    def scatter(self, base: Buffer, offset: Dim, strides: Sequence[Dim], indices: Sequence[tuple[Value, Dim, Dim]], value: Value, op: str) -> None:
        """base[offset + i·strides + sum(index·stride)] op= value(i); see Scatter."""
        terms = tuple((self.cast(v.expand(value.sizes), "i64").expr, size, stride) for v, size, stride in indices)
        self.statements.append(Scatter(Target(base, offset, tuple(strides)), terms, value.sizes, op, value.expr, self._origins(value)))

    def template(self, kind: str, operands: Sequence[Value], outputs: Sequence[tuple[str, Sequence[Dim], Sequence[Dim] | None]], params, inner: Sequence[Value] = ()) -> tuple[Value, ...]:
        """A kernel of lowering/kernels; outputs are (dtype, sizes, strides or None for row-major), `inner` lazy values that it computes on its way."""
        buffers = [self.buffer(dtype, sizes, strides) for dtype, sizes, strides in outputs]
        loads = tuple(self.materialize(v) for v in operands)
        targets = tuple(Target(b, 0, b.strides) for b in buffers)
        self.statements.append(Template(kind, targets, buffers[0].sizes, loads, params, self._origins(*inner), tuple(v.expr for v in inner)))
        return tuple(self.read(b) for b in buffers)


def _const_cast(value, dtype: str):
    if dtype == "bool":
        return bool(value)
    if dtype in ("i64", "i32"):
        if value != value or value in (float("inf"), float("-inf")):
            raise Unsupported(f"the constant {value} has no {dtype} value")
        return int(value)
    return float(value)


def broadcast_sizes(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """Broadcast shape of several, as torch does; a symbolic size must equal the others or meet a 1."""
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for d, size in enumerate(shape, rank - len(shape)):
            if result[d] == 1:
                result[d] = size
            elif size != 1 and size != result[d]:
                raise Unsupported(f"sizes {render(size)} and {render(result[d])} do not broadcast")
    return tuple(result)


def preferred_strides(value: Value) -> tuple[Dim, ...]:
    """Row-major in the dim order of the value's largest operand, so that a layout propagates through pointwise chains."""
    best = None
    for leaf in leaves(value.expr):
        if isinstance(leaf, Load) and leaf.guard is None and all(isinstance(s, int) for s in leaf.strides) and sum(s != 0 for s in leaf.strides) >= sum(s != 1 for s in value.sizes) > 1:
            best = leaf
            break
    if best is None or any(s < 0 for s in best.strides):
        return contiguous_strides(value.sizes)
    order = sorted(range(value.rank), key=lambda d: (-best.strides[d], d) if value.sizes[d] != 1 else (float("-inf") if d == 0 else -best.strides[d], d))
    strides, running = [0] * value.rank, 1
    for d in reversed(order):
        strides[d] = running
        running = running * maximum(value.sizes[d], 1) if isinstance(value.sizes[d], int) else running * value.sizes[d]
    return tuple(strides)
