"""TensorProgram: what a partition computes, as statements over index spaces; memory order is the buffers' strides.

A statement's right-hand side is an expression DAG over its `domain` (a tuple of extents). Every leaf that reads memory
holds an offset and one stride per domain dim, so a view of a lazy value is the same expression with other leaves: broadcast,
permute, slice, flip, diagonal and the splitting half of reshape are substitutions of affine indices and cost nothing.

Expressions are compared by identity: a node used twice is computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from .index_expr import Dim, render

__all__ = [
    "Buffer", "Const", "Expr", "Gather", "Index", "Load", "Map", "Op", "Reduce", "Scan", "Scatter", "Statement", "Target", "Template", "TensorProgram",
    "children", "leaves", "map_leaves", "reads", "restride", "show", "walk",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Buffer:
    """A named piece of memory. kind: "input", "output", "temp", or "const" (an input that never changes); strides in elements; `n_elements` is its extent in memory."""

    name: str
    dtype: str
    sizes: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    kind: str = "temp"

    @property
    def n_elements(self) -> Dim:
        """Elements from the first to the last that the strides reach, gaps included."""
        if any(s == 0 for s in self.sizes if isinstance(s, int)):
            return 0
        extent: Dim = 1
        for size, stride in zip(self.sizes, self.strides):
            extent = extent + (size - 1) * stride
        return extent

    def __str__(self):
        return f"{self.name}: {self.dtype}[{', '.join(map(render, self.sizes))}]"


class Expr:
    """A node of an expression DAG; `dtype` is the element type of its value."""

    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Load(Expr):
    """buffer[offset + sum(index[i] * strides[i])]; where `guard` is given, lanes in which it is false read 0 and touch no memory."""

    buffer: Buffer
    offset: Dim
    strides: tuple[Dim, ...]
    guard: Expr | None = None

    @property
    def dtype(self):
        return self.buffer.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Index(Expr):
    """The int64 value offset + sum(index[i] * strides[i])."""

    offset: Dim
    strides: tuple[Dim, ...]
    dtype: str = "i64"


@dataclasses.dataclass(frozen=True, eq=False)
class Const(Expr):
    """A scalar that every point of the domain shares; `value` may be a size expression for int64."""

    value: Any
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Gather(Expr):
    """A Load whose address also has computed terms: sum(value(index) * stride), each checked to lie in [0, size).

    indices: (int64 expression, size of the indexed dim, its stride). The operator `from_end` makes one of an index that may be negative.
    """

    buffer: Buffer
    offset: Dim
    strides: tuple[Dim, ...]
    indices: tuple[tuple[Expr, Dim, Dim], ...]
    guard: Expr | None = None

    @property
    def dtype(self):
        return self.buffer.dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Op(Expr):
    """A pointwise operator of lowering/select.py applied to `args`; `attrs` are its static parameters."""

    name: str
    args: tuple[Expr, ...]
    dtype: str
    attrs: tuple = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Where a statement writes: buffer[offset + sum(index[i] * strides[i])]."""

    buffer: Buffer
    offset: Dim
    strides: tuple[Dim, ...]


class Statement:
    """One step of a TensorProgram; `origins` are the FX nodes it comes from."""

    origins: tuple[str, ...]

    def targets(self) -> tuple[Target, ...]:
        """Where it writes."""
        raise NotImplementedError

    def expressions(self) -> tuple[Expr, ...]:
        """What it evaluates; all that it reads is below these."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class Map(Statement):
    """target[i] = expr(i) for every i in domain."""

    target: Target
    domain: tuple[Dim, ...]
    expr: Expr
    origins: tuple[str, ...] = ()

    def targets(self):
        return (self.target,)

    def expressions(self):
        return (self.expr,)

    def __str__(self):
        return f"{_write(self.target)} = {show(self.expr)}  for i in {_extent(self.domain)}"


@dataclasses.dataclass(frozen=True, eq=False)
class Reduce(Statement):
    """target[outer] = op over the trailing dims of expr(outer, reduced); `domain` is outer + reduced, `n_outer` dims are kept.

    op: "sum", "prod", "max", "min" (NaN-propagating), "any", "all"; "argmax", "argmin" give the first winning flat
    index over the reduced dims as i64. The accumulator's dtype is the expression's.
    """

    target: Target
    domain: tuple[Dim, ...]
    n_outer: int
    op: str
    expr: Expr
    origins: tuple[str, ...] = ()

    def targets(self):
        return (self.target,)

    def expressions(self):
        return (self.expr,)

    def __str__(self):
        return f"{_write(self.target)} = {self.op}({show(self.expr)})  for i in {_extent(self.domain[:self.n_outer])} over {_extent(self.domain[self.n_outer:])}"


@dataclasses.dataclass(frozen=True, eq=False)
class Scan(Statement):
    """targets[0][i] = running op over the last dim of `expr`, rounded to the target's dtype; op: "sum", "prod", "max", "min", "logsumexp".

    With "max" and "min" targets[1], if given, receives the i64 position of the running winner (the latest of equals).
    """

    outputs: tuple[Target, ...]
    domain: tuple[Dim, ...]
    op: str
    expr: Expr
    origins: tuple[str, ...] = ()

    def targets(self):
        return self.outputs

    def expressions(self):
        return (self.expr,)

    def __str__(self):
        return f"{', '.join(map(_write, self.outputs))} = scan {self.op}({show(self.expr)})  for i in {_extent(self.domain)}"


@dataclasses.dataclass(frozen=True, eq=False)
class Scatter(Statement):
    """target[address(i) + index terms] op= expr(i), in ascending order of i. op: "set", "add", "mul", "min", "max"."""

    target: Target
    indices: tuple[tuple[Expr, Dim, Dim], ...]
    domain: tuple[Dim, ...]
    op: str
    expr: Expr
    origins: tuple[str, ...] = ()

    def targets(self):
        return (self.target,)

    def expressions(self):
        return (self.expr, *(e for e, _, _ in self.indices))

    def __str__(self):
        return f"{_write(self.target)}[{', '.join(show(e) for e, _, _ in self.indices)}] {self.op}= {show(self.expr)}  for i in {_extent(self.domain)}"


@dataclasses.dataclass(frozen=True, eq=False)
class Template(Statement):
    """A kernel of lowering/kernels: `kind` names it, `operands` are plain Loads over their own index spaces, `params` its static arguments.

    `domain` is the index space of the first output, on which following Maps may be fused as an epilogue. `inner` are expressions
    that the kernel evaluates on its way, over index spaces that its params name.
    """

    kind: str
    outputs: tuple[Target, ...]
    domain: tuple[Dim, ...]
    operands: tuple[Load, ...]
    params: Any
    origins: tuple[str, ...] = ()
    inner: tuple[Expr, ...] = ()

    def targets(self):
        return self.outputs

    def expressions(self):
        return (*self.operands, *self.inner)

    def __str__(self):
        arguments = f"{', '.join(map(show, self.operands))}; {self.params}" + "".join(f"; {show(e)}" for e in self.inner)
        return f"{', '.join(map(_write, self.outputs))} = {self.kind}({arguments})  for i in {_extent(self.domain)}"


@dataclasses.dataclass(frozen=True, eq=False)
class TensorProgram:
    """Statements in execution order, and the buffers that cross the partition's boundary."""

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    statements: tuple[Statement, ...]

    def __str__(self):
        lines = [f"tensor program {self.name}"]
        lines += [f"  input  {b} strides [{', '.join(map(render, b.strides))}]" for b in self.inputs]
        lines += [f"  output {b} strides [{', '.join(map(render, b.strides))}]" for b in self.outputs]
        for statement in self.statements:
            lines.append(f"  {statement}" + (f"  # {', '.join(statement.origins)}" if statement.origins else ""))
        return "\n".join(lines) + "\n"


def _extent(domain) -> str:
    return f"[{', '.join(map(render, domain))}]"


def _address(offset: Dim, strides) -> str:
    terms = ["i%d" % d if s == 1 else f"i{d}*{render(s)}" if isinstance(s, int) else f"i{d}*({render(s)})" for d, s in enumerate(strides) if s != 0]
    if offset != 0 or not terms:
        terms.append(render(offset))
    return " + ".join(terms)


def _write(target: Target) -> str:
    return f"{target.buffer.name}[{_address(target.offset, target.strides)}]"


def show(expr: Expr) -> str:
    """Text of an expression, as a person reads it; what occurs several times is named behind "where"."""
    uses: dict[int, int] = {}
    for node in walk(expr):
        for child in children(node):
            uses[id(child)] = uses.get(id(child), 0) + 1
    names: dict[int, str] = {}
    texts: dict[int, str] = {}
    definitions = []
    for node in walk(expr):
        text = _show_node(node, texts)
        if isinstance(node, Op) and uses.get(id(node), 0) > 1:
            names[id(node)] = f"e{len(names)}"
            definitions.append(f"{names[id(node)]} = {text}")
            text = names[id(node)]
        texts[id(node)] = text
    return texts[id(expr)] + (f" where {', '.join(definitions)}" if definitions else "")


def _show_node(expr: Expr, texts: dict[int, str]) -> str:
    if isinstance(expr, Load):
        text = f"{expr.buffer.name}[{_address(expr.offset, expr.strides)}]"
        return f"{text} if {texts[id(expr.guard)]}" if expr.guard else text
    if isinstance(expr, Index):
        return f"({_address(expr.offset, expr.strides)})"
    if isinstance(expr, Const):
        return str(expr.value)
    if isinstance(expr, Gather):
        computed = " + ".join(f"{texts[id(e)]}*{render(stride)}" for e, _, stride in expr.indices)
        return f"{expr.buffer.name}[{_address(expr.offset, expr.strides)} + {computed}]"
    attrs = "".join(f", {a}" for a in expr.attrs)
    name = f"{expr.name}.{expr.dtype}" if expr.name == "cast" else expr.name
    return f"{name}({', '.join(texts[id(a)] for a in expr.args)}{attrs})"


def children(expr: Expr) -> tuple[Expr, ...]:
    """Direct operands of an expression, guards and computed indices included."""
    if isinstance(expr, Op):
        return expr.args
    guard = (expr.guard,) if isinstance(expr, (Load, Gather)) and expr.guard is not None else ()
    if isinstance(expr, Gather):
        return tuple(e for e, _, _ in expr.indices) + guard
    return guard


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every node below `roots` once, operands first."""
    seen: set[int] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        expr, ready = stack.pop()
        if ready:
            yield expr
        elif id(expr) not in seen:
            seen.add(id(expr))
            stack.append((expr, True))
            stack.extend((child, False) for child in reversed(children(expr)))


def leaves(*roots: Expr) -> list[Load | Gather | Index]:
    """Nodes whose meaning depends on the domain."""
    return [expr for expr in walk(*roots) if isinstance(expr, (Load, Gather, Index))]


def reads(statement: Statement) -> set[Buffer]:
    """Buffers that a statement reads."""
    return {leaf.buffer for leaf in leaves(*statement.expressions()) if not isinstance(leaf, Index)}


def map_leaves(root: Expr, change: Callable[[Expr], Expr], memo: dict[int, Expr] | None = None) -> Expr:
    """`root` with every leaf (operands of guards and indices included) replaced by `change(leaf)`; sharing is kept.

    `memo` may be passed to keep sharing across several roots; it also keeps the originals alive.
    """
    memo = {} if memo is None else memo
    for expr in walk(root):
        if id(expr) in memo:
            continue
        new = expr
        if isinstance(expr, Op):
            args = tuple(memo[id(a)] for a in expr.args)
            if any(a is not b for a, b in zip(args, expr.args)):
                new = dataclasses.replace(expr, args=args)
        elif not isinstance(expr, Const):
            if children(expr):
                new = _rebuild_leaf(expr, memo)
            new = change(new)
        memo[id(expr)] = new
    return memo[id(root)]


def _rebuild_leaf(leaf: Load | Gather, memo: dict[int, Expr]) -> Expr:
    guard = memo[id(leaf.guard)] if leaf.guard is not None else None
    if isinstance(leaf, Gather):
        indices = tuple((memo[id(e)], size, stride) for e, size, stride in leaf.indices)
        return dataclasses.replace(leaf, indices=indices, guard=guard)
    return dataclasses.replace(leaf, guard=guard)


def restride(root: Expr, change: Callable[[Dim, tuple[Dim, ...]], tuple[Dim, tuple[Dim, ...]]], memo: dict[int, Expr] | None = None) -> Expr:
    """`root` with `change(offset, strides)` applied to every leaf's address."""

    def new_leaf(leaf):
        offset, strides = change(leaf.offset, leaf.strides)
        return dataclasses.replace(leaf, offset=offset, strides=strides)

    return map_leaves(root, new_leaf, memo)
