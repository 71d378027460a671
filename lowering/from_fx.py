"""FX partition -> TensorProgram: calls the registered lowering of every node, and judges nodes by the same call.

The door between torch and the IRs: dtypes become names here, and sizes index expressions (symbolic_sizes.py).
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence

import torch
from torch import fx

from . import registry, select
from .decisions import reason_for
from .index_expr import Dim
from .size_equations import NOTHING, rewrite
from .symbolic_sizes import depends_on_data, dim_of, is_negative, size_name, solved_guards
from .tensor_ir import Buffer, Gather, Load, Op, Target, TensorProgram, leaves, walk
from .values import Graph, Layout, Unsupported, Value

__all__ = ["Lowered", "Verdict", "fix_sizes", "judge", "lower_nodes"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a node is lowered; `reason` is a sentence where it is not."""

    native: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A TensorProgram and how it meets its caller.

    Attributes:
        output_buffers: per output of the partition its buffer.   aliases: per output the index of the input that it is, or None.
        symbols: names of the size inputs, in order.   tensor_inputs: the tensor inputs with their buffers.
    """

    program: TensorProgram
    output_buffers: tuple[Buffer, ...]
    aliases: tuple[int | None, ...]
    symbols: tuple[str, ...]
    tensor_inputs: tuple[tuple[fx.Node, Buffer], ...]


def _input_value(g: Graph, name: str, fake: torch.Tensor, kind: str = "input") -> Value:
    if fake.layout != torch.strided or fake.device.type != "cpu":
        raise Unsupported(f"input {name} is a {fake.layout} tensor on {fake.device}; only strided CPU tensors are lowered")
    return g.input(name, registry.dtype_name(fake.dtype), [dim_of(s) for s in fake.shape], [dim_of(s) for s in fake.stride()], dim_of(fake.storage_offset()), kind)


def _argument(value, env: Mapping[fx.Node, object]):
    if isinstance(value, fx.Node):
        # Size arithmetic is no part of a partition: its value is an expression over the partition's symbols.
        return dim_of(value.meta["val"]) if value not in env and isinstance(value.meta.get("val"), torch.SymInt) else env[value]
    if isinstance(value, (list, tuple)):
        return type(value)(_argument(v, env) for v in value) if not isinstance(value, torch.Size) else [_argument(v, env) for v in value]
    if isinstance(value, slice):
        raise Unsupported("a slice object as an argument")
    if isinstance(value, torch.SymInt):
        return dim_of(value)
    return value


def _call(g: Graph, node: fx.Node, env: Mapping[fx.Node, object]):
    """The Value (or tuple of them) of one node."""
    if node.target is operator.getitem:
        return env[node.args[0]][node.args[1]]
    entry = registry.find(node.target)
    if entry is None:
        raise Unsupported(_without_entry(node.target))
    g.origin, g.layout_of, g.result_sizes = (node.name,), functools.partial(_eager_layout, node, env), functools.partial(_result_sizes, node)
    g.is_below_zero = functools.partial(_is_below_zero, node)
    args = [_argument(a, env) for a in node.args]
    kwargs = {k: _argument(a, env) for k, a in node.kwargs.items()}
    result = entry.function(g, *args, **kwargs)
    return _checked(node, result)


def fix_sizes(node: fx.Node) -> None:
    """Guard the sizes that the lowering of `node` wants as numbers, such as those of a convolution's weight, to be what they are.

    So are numbers below zero that the graph is given: symbols of index arithmetic are not negative.
    """
    given = node.meta.get("val") if node.op == "placeholder" else None
    if isinstance(given, torch.SymInt) and not depends_on_data(given) and given < 0:
        int(given)
    entry = registry.find(node.target)
    if entry is None or entry.fixed is None:
        return
    fakes = fx.map_arg((node.args, dict(node.kwargs)), lambda source: source.meta["val"])
    for size in entry.fixed(*fakes[0], **fakes[1]):
        int(size)


def _without_entry(target) -> str:
    """Why a target that the registry does not have stays in eager."""
    return reason_for(str(target).rpartition(".")[0]) or f"no lowering for {target}"


def _eager_layout(node: fx.Node, env: Mapping[fx.Node, object], value: Value) -> Layout | None:
    """The layout of the argument of `node` that `value` stands for."""
    fake = next((source.meta["val"] for source in node.all_input_nodes if env.get(source) is value), None)
    return None if fake is None else Layout(tuple(dim_of(s) for s in fake.stride()), dim_of(fake.storage_offset()))


def _result_sizes(node: fx.Node) -> tuple[tuple[Dim, ...], ...]:
    """Sizes of every result of `node`."""
    fakes = node.meta["val"]
    return tuple(tuple(dim_of(s) for s in fake.shape) for fake in (fakes if isinstance(fakes, (list, tuple)) else [fakes]))


def _is_below_zero(node: fx.Node, value: Dim) -> bool:
    """Whether `value`, which symbols of the graph of `node` make, is negative; ATen asks for the signs of indices, too, so that there is a guard."""
    if isinstance(value, int):
        return value < 0
    fakes = torch.utils._pytree.tree_leaves(fx.map_arg((node.args, node.kwargs, node), lambda source: source.meta["val"]))
    sizes = [size for fake in fakes for size in (fake.shape if isinstance(fake, torch.Tensor) else (fake,)) if isinstance(size, torch.SymInt)]
    return bool(sizes) and is_negative(value, sizes)


def _checked(node: fx.Node, result):
    """`result`, if it has the dtype and sizes of the fake tensors: anything else is a bug of ours, named as such."""
    fakes = node.meta["val"]
    if isinstance(fakes, (list, tuple)):
        return tuple(_checked_value(node, fake, value) for fake, value in zip(fakes, result))
    return _checked_value(node, fakes, result)


def _checked_value(node: fx.Node, fake, value):
    if not isinstance(fake, torch.Tensor) or value is None:
        return value
    solved = next((solved_guards(size.node.shape_env) for size in fake.shape if isinstance(size, torch.SymInt)), NOTHING)
    sizes = tuple(rewrite(size, solved) for size in value.sizes)  # a lowering computes sizes without looking at guards
    if sizes != value.sizes:
        value = dataclasses.replace(value, sizes=sizes)
    expected = (registry.dtype_name(fake.dtype), tuple(dim_of(s) for s in fake.shape))
    if (value.dtype, value.sizes) != expected:
        raise Unsupported(f"accel's lowering of {node.target} gave {value}, expected {Value(value.graph, expected[1], value.expr).sizes} {expected[0]}: please report this")
    return value


def _fake_key(value):
    if isinstance(value, fx.Node):
        value = value.meta.get("val")
    if isinstance(value, torch.Tensor):
        return ("t", value.dtype, _fake_key(tuple(value.shape)), _fake_key(value.stride()), _fake_key(value.storage_offset()), value.device.type)
    if isinstance(value, (list, tuple)):
        return tuple(map(_fake_key, value))
    if isinstance(value, torch.SymInt):
        return _size_key(value)
    return (type(value).__name__, str(value))


def _size_key(size: torch.SymInt):
    try:
        return ("s", dim_of(size))
    except Unsupported as reason:
        return ("s", str(reason))


_VERDICTS: dict = {}


def judge(node: fx.Node) -> Verdict:
    """Whether `node` can be lowered: by lowering it alone, on its inputs' fake tensors. Verdicts of equal calls are remembered."""
    if node.target is operator.getitem:
        return Verdict(True)
    entry = registry.find(node.target)
    if entry is None:
        return Verdict(False, _without_entry(node.target))
    key = (entry, _fake_key(node.args), _fake_key(tuple(node.kwargs.items())), _fake_key(node))
    if key not in _VERDICTS:
        _VERDICTS[key] = _judge(node)
    return _VERDICTS[key]


def _judge(node: fx.Node) -> Verdict:
    g = Graph()
    try:
        env = {source: _outside_value(g, source) for source in node.all_input_nodes}
        result = _call(g, node, env)
        values = [v for v in (result if isinstance(result, (list, tuple)) else [result]) if isinstance(v, Value)]
        roots = [v.expr for v in values] + [e for s in g.statements for e in s.expressions()]
        for expr in walk(*roots):
            if isinstance(expr, Op) and expr.args:
                operand = expr.args[1] if expr.name == "where" else expr.args[0]
                if not select.is_selectable(expr.name, operand.dtype):
                    raise Unsupported(f"operator {expr.name} has no DVX form for {operand.dtype}")
    except Unsupported as reason:
        return Verdict(False, str(reason))
    return Verdict(True)


def _outside_value(g: Graph, node: fx.Node, kind: str = "input"):
    fake = node.meta.get("val")
    if isinstance(fake, torch.Tensor):
        return _input_value(g, node.name, fake, kind)
    if isinstance(fake, (list, tuple)):
        return tuple(_input_value(g, f"{node.name}_{i}", f) if isinstance(f, torch.Tensor) else f for i, f in enumerate(fake))
    if isinstance(fake, (torch.SymInt, int)):
        return dim_of(fake)
    raise Unsupported(f"operand {node.name} is a {type(fake).__name__}")


def lower_nodes(name: str, nodes: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node], constants: frozenset = frozenset(), allows_winograd: bool = True) -> Lowered:
    """The TensorProgram of a partition.

    Args:
        nodes: in topological order.   inputs: tensor-valued nodes outside, then SymInt-valued ones, whose symbols become `symbols`.
        outputs: tensor-valued nodes among `nodes`.   constants: the inputs whose tensors never change; their buffers are of kind "const".
        allows_winograd: see Graph.

    Raises:
        Unsupported: a node cannot be lowered (judge says so beforehand).
    """
    return _PartitionLowering(nodes, inputs, outputs, constants, Graph(allows_winograd)).run(name)


class _PartitionLowering:
    """One walk over a partition's nodes. A value that several nodes read becomes a statement of its own; fusion decides whether it is stored."""

    def __init__(self, nodes, inputs, outputs, constants, g: Graph):
        self.g = g
        self.nodes, self.outputs = nodes, outputs
        self.inside = set(nodes)
        self.env: dict[fx.Node, object] = {}
        self.position = {node: i for i, node in enumerate(nodes)}
        self.symbols: list[str] = []
        self.tensor_inputs: list[fx.Node] = []
        self.aliases: dict[fx.Node, int] = {}
        for node in inputs:
            value = _outside_value(self.g, node, "const" if node in constants else "input")
            self.env[node] = value
            if isinstance(value, Value):
                self.tensor_inputs.append(node)
            else:
                self.symbols.append(size_name(node.meta["val"].node.expr))

    def run(self, name: str) -> Lowered:
        for node in self.nodes:
            entry = registry.find(node.target)
            self.env[node] = self._mutate(node, entry) if entry is not None and entry.mutates is not None else self._pin(node, _call(self.g, node, self.env))
        buffers = tuple(self._output(node) for node in self.outputs)
        program = TensorProgram(name, tuple(self.g.inputs), buffers, tuple(self.g.statements))
        return Lowered(program, buffers, tuple(self.aliases.get(node) for node in self.outputs), tuple(self.symbols), tuple(zip(self.tensor_inputs, self.g.inputs)))

    def _pin(self, node: fx.Node, result):
        if not isinstance(result, Value) or result.cost == 0:
            return result
        if node in self.outputs:
            return self.g.realize(result, strides=[dim_of(s) for s in node.meta["val"].stride()])
        return self.g.realize(result) if sum(user in self.inside for user in node.users) > 1 else result

    def _output(self, node: fx.Node) -> Buffer:
        """The buffer that holds an output: the value's own where it is a whole fresh buffer of the right strides."""
        if node in self.aliases:
            return self.g.inputs[self.aliases[node]]
        value = self.env[node]
        strides = tuple(dim_of(s) for s in node.meta["val"].stride())
        taken = {b for n, v in self.env.items() if n in self.outputs and n is not node for b in ([v.expr.buffer] if isinstance(v, Value) and isinstance(v.expr, Load) else [])}
        whole = isinstance(value.expr, Load) and value.expr.guard is None and value.expr.offset == 0 and value.expr.buffer.kind == "temp"
        if whole and value.expr.strides == strides and value.expr.buffer.strides == strides and value.sizes == value.expr.buffer.sizes and value.expr.buffer not in taken:
            return value.expr.buffer
        self.g.origin = (node.name,)
        realized = self.g.realize(value, strides=strides)
        self.env[node] = realized
        return realized.expr.buffer

    def _mutate(self, node: fx.Node, entry) -> Value:
        """Stores the new value of a mutated input, after everything that still reads the old one."""
        source = node.args[entry.mutates]
        old = self.env[source]
        if not isinstance(old.expr, Load) or old.expr.buffer.kind != "input":
            raise Unsupported(f"{node.target} writes a tensor that is no input of its partition")
        buffer = old.expr.buffer
        new = self.g.cast(_call(self.g, node, self.env), old.dtype).expand(old.sizes)
        self._settle(buffer, node)
        own = [leaf for leaf in leaves(new.expr) if isinstance(leaf, (Load, Gather)) and leaf.buffer is buffer]
        if any(isinstance(leaf, Gather) or leaf.guard is not None or (leaf.offset, leaf.strides) != (old.expr.offset, old.expr.strides) for leaf in own):
            new = self.g.realize(new, strides=self.g.buffer(new.dtype, new.sizes).strides)
        self.g.store(new, Target(buffer, old.expr.offset, old.expr.strides))
        self.aliases[node] = self.tensor_inputs.index(source) if source in self.tensor_inputs else self.g.inputs.index(buffer)
        return old

    def _settle(self, buffer: Buffer, writer: fx.Node) -> None:
        """Copies every pending value that reads `buffer` and is still needed behind `writer`."""
        for node, value in list(self.env.items()):
            if not isinstance(value, Value) or not any(isinstance(leaf, (Load, Gather)) and leaf.buffer is buffer for leaf in leaves(value.expr)):
                continue
            later = node in self.outputs and node not in self.aliases or any(self.position.get(user, -1) > self.position[writer] for user in node.users)
            if later:
                self.env[node] = self.g.realize(value, strides=self.g.buffer(value.dtype, value.sizes).strides)
