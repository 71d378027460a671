"""Graphs, and a compiler without C, for tests of the frontend."""

from __future__ import annotations

import dataclasses
import operator

import torch
from hypothesis import strategies as st
from torch import fx

from accel.backend import compile_module
from accel.compile_graph import Compilation
from accel.direct_call import boxed
from accel.lowering import Verdict
from accel.native import CompiledPartition
from accel.options import Options

aten = torch.ops.aten


class EagerCompiler:
    """Stands in for lowering and runtime: runs a partition's nodes one by one, into outputs with the fake tensors' strides.

    `broken`: False, or the stage that fails: "lower" or "build".
    """

    def __init__(self, refused=(), broken=False):
        self.refused = frozenset(refused)
        self.broken = broken

    def has_lowering(self, op):
        return False

    def judge(self, node):
        name = node.target.overloadpacket.__name__
        return Verdict(False, f"no lowering for {name}") if name in self.refused else Verdict(True)

    def lower(self, partition, name, options, *, check_inputs, constants):
        if self.broken == "lower":
            raise RuntimeError("the compiler is out of order")
        return lambda: self.build(partition, constants)

    def build(self, partition, constants):
        if self.broken:
            raise RuntimeError("the compiler is out of order")
        return CompiledPartition(lambda args: run_nodes(partition, args))


def run_nodes(partition, args):
    """The partition's outputs; every tensor that is no view of an input is a fresh one, as from a kernel."""
    values = dict(zip(partition.inputs, args, strict=True))
    args.clear()
    storages = {value.untyped_storage().data_ptr() for value in values.values() if isinstance(value, torch.Tensor)}
    sizes = {node.meta["val"].node.expr: value for node, value in values.items() if isinstance(value, int)}

    def value_of(node):
        if node in values:
            return values[node]
        return number(node.meta["val"])

    def number(value):
        return int(value.node.expr.subs(sizes)) if isinstance(value, torch.SymInt) else value

    for node in partition.nodes:
        values[node] = node.target(*fx.map_arg(node.args, value_of), **fx.map_arg(node.kwargs, value_of))
    results = []
    for node in partition.outputs:
        result = values[node]
        if result.untyped_storage().data_ptr() not in storages or result.numel() == 0:
            strides = [number(stride) for stride in node.meta["val"].stride()]
            result = torch.empty_strided(result.shape, strides, dtype=result.dtype).copy_(result)
        results.append(result)
    return results


def compile_with(compiler, fn, seen=None, options=None, **kwargs):
    """torch.compile(fn) through our frontend, with `compiler` behind it; every compiled graph is appended to `seen`."""

    def backend(gm, example_inputs):
        observe = seen.append if seen is not None else lambda graph: None
        return compile_module(gm, example_inputs, Compilation(Options.parse(options), compiler, observe))

    return torch.compile(fn, backend=backend, **kwargs)


@dataclasses.dataclass(frozen=True)
class RandomGraph:
    """A graph over 4 x 4 tensors that copies into its inputs, and a verdict for every call node."""

    gm: fx.GraphModule
    verdicts: dict[fx.Node, Verdict]
    inputs: tuple[torch.Tensor, ...]

    @property
    def graph(self):
        return self.gm.graph


# name: the node that a step adds, given a function that adds calls, two values that exist, and the inputs
STEPS = {
    "add": lambda call, a, b, inputs: call(aten.add.Tensor, a, b),
    "neg": lambda call, a, b, inputs: call(aten.neg.default, a),
    "mm": lambda call, a, b, inputs: call(aten.mm.default, a, b),
    "transpose": lambda call, a, b, inputs: call(aten.permute.default, a, [1, 0]),
    "row": lambda call, a, b, inputs: call(aten.expand.default, call(aten.slice.Tensor, a, 0, 1, 2), [4, 4]),
    "full": lambda call, a, b, inputs: call(aten.full.default, [4, 4], 2.0),
    "max": lambda call, a, b, inputs: call(aten.expand.default, call(operator.getitem, call(aten.max.dim, a, 1, True), 0), [4, 4]),
    "split": lambda call, a, b, inputs: call(aten.expand.default, call(operator.getitem, call(aten.split.Tensor, a, 1), 2), [4, 4]),
    "copy_first": lambda call, a, b, inputs: call(aten.copy_.default, inputs[0], a),
    "copy_second": lambda call, a, b, inputs: call(aten.copy_.default, inputs[1], b),
}


def build_graph(steps, returned, n_inputs=3):
    """A RandomGraph. `steps`: (name, choice of a value, choice of a value, native); `returned`: choices of values."""
    graph = fx.Graph()
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(4, 4, generator=generator) for _ in range(n_inputs))
    placeholders = [graph.placeholder(f"x{index}") for index in range(n_inputs)]
    for node, value in zip(placeholders, inputs):
        node.meta["val"] = torch.empty_like(value)
    values, verdicts = list(placeholders), {}

    for name, first, second, native in steps:

        def call(target, *args):
            node = graph.create_node("call_function", target, args, name=str(getattr(target, "overloadpacket", name)).removeprefix("aten."))
            given = fx.map_arg(args, lambda source: source.meta["val"])
            node.meta["val"] = given[0] if target is aten.copy_.default else target(*given)
            verdicts[node] = Verdict(native, "" if native else f"{name} was drawn to be unsupported")
            return node

        values.append(STEPS[name](call, values[first % len(values)], values[second % len(values)], placeholders))
    graph.output(tuple(dict.fromkeys([values[-1], *(values[choice % len(values)] for choice in returned)])))
    return RandomGraph(fx.GraphModule(torch.nn.Module(), graph), verdicts, inputs)


def random_graphs(max_steps=25):
    """Strategy: RandomGraphs of up to `max_steps` steps, about half of their nodes native."""
    choice = st.integers(0, 10_000)
    step = st.tuples(st.sampled_from(sorted(STEPS)), choice, choice, st.booleans())
    return st.builds(build_graph, st.lists(step, min_size=1, max_size=max_steps), st.lists(choice, max_size=4))


def run_graph(runner, args):
    """What `runner` makes of `args`, one for every placeholder; `args` is emptied."""
    return boxed(runner.run, runner.takes, is_plain=False)(args)
