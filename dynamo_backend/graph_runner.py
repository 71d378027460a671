"""Plan + compiled partitions -> one Python function that runs the graph.

The function is straight-line text without a loop: it takes the arguments apart, calls partitions and eager ops in turn, drops
every value after its last use, and returns the graph's outputs. A graph that is one partition is run by that partition's own
function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence

from torch import fx

from .partition import Partition, Plan

__all__ = ["Runner", "make_runner"]

Run = Callable[[list], Sequence]


@dataclasses.dataclass(frozen=True)
class Runner:
    """How a graph is called.

    Attributes:
        run: callable (args: list) -> outputs; `args` is emptied.
        takes: the positions of the placeholders that `args` holds; None for all of them.
        text: the Python text of `run`; empty where the one partition is called as it is.
        names: the globals of the text.
    """

    run: Run
    takes: tuple[int, ...] | None
    text: str
    names: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Line:
    text: str
    makes: tuple[fx.Node, ...]
    reads: tuple[fx.Node, ...]


def make_runner(gm: fx.GraphModule, plan: Plan, runs: Mapping[Partition, Run], bound: Container[fx.Node] = ()) -> Runner:
    """The function that runs `gm` by `plan`.

    Args:
        runs: what calls a partition: (args: list) -> list of its outputs. A partition without one runs node by node in eager.
        bound: inputs of partitions that `runs` hold for good; they are no arguments.
    """
    placeholders = gm.graph.find_nodes(op="placeholder")
    if (direct := _direct(gm.graph, plan, runs, bound)) is not None:
        return Runner(runs[direct], _positions(placeholders, [node for node in direct.inputs if node not in bound]), "")
    writer = _Writer(gm, bound)
    for node in gm.graph.nodes:
        if node.op == "get_attr":
            writer.names[_name(node)] = _attribute(gm, node.target)
    for step in plan.steps:
        writer.step(step, runs)
    takes = _positions(placeholders, writer.reads())
    text = writer.text(placeholders if takes is None else [placeholders[position] for position in takes])
    scope = dict(writer.names)
    exec(compile(text, "<accel graph>", "exec"), scope)
    return Runner(scope["run"], takes, text, writer.names)


def _positions(placeholders: Sequence[fx.Node], read: Container[fx.Node]) -> tuple[int, ...] | None:
    """Where the placeholders are that are read; None for all."""
    positions = tuple(index for index, node in enumerate(placeholders) if node in read)
    return positions if len(positions) < len(placeholders) else None


def _direct(graph: fx.Graph, plan: Plan, runs: Mapping[Partition, Run], bound: Container[fx.Node]) -> Partition | None:
    """The partition that the whole graph is, result by result, with arguments in the order of the placeholders."""
    if len(plan.steps) != 1 or plan.steps[0] not in runs:
        return None
    (partition,) = plan.steps
    (returned,) = graph.output_node().args
    arguments = tuple(node for node in partition.inputs if node not in bound)
    is_ordered = arguments == tuple(node for node in graph.find_nodes(op="placeholder") if node in arguments)
    is_same = is_ordered and isinstance(returned, (list, tuple)) and tuple(returned) == partition.outputs
    return partition if is_same else None


def _attribute(gm: fx.GraphModule, path: str) -> object:
    found = gm
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _name(node: fx.Node) -> str:
    """The variable that holds the value of `node`; no global of the generated text starts alike."""
    return f"v_{node.name}"


class _Writer:
    """Writes the text of `run` and collects the names that it refers to."""

    def __init__(self, gm: fx.GraphModule, bound: Container[fx.Node]):
        self.names: dict[str, object] = {}
        self._bound = bound
        self._lines: list[_Line] = []
        self._graph = gm.graph

    def step(self, step: Partition | fx.Node, runs: Mapping[Partition, Run]) -> None:
        """Write the call of a partition or of one node."""
        if isinstance(step, fx.Node):
            self._call(step)
        elif step in runs:
            self._call_partition(step, runs[step])
        else:
            for node in step.nodes:
                self._call_after_sizes(node)

    def _call_after_sizes(self, node: fx.Node) -> None:
        """Call a node of a partition, which would have computed sizes by itself: no step of the plan makes those that only it reads."""
        made = {each for line in self._lines for each in line.makes}
        for source in node.all_input_nodes:
            if source.op == "call_function" and source not in made:
                self._call_after_sizes(source)
        self._call(node)

    def _call_partition(self, partition: Partition, run: Run) -> None:
        name = partition.variable
        self.names[name] = run
        arguments = tuple(node for node in partition.inputs if node not in self._bound)
        call = f"{name}([{', '.join(map(_name, arguments))}])"
        results = "".join(f"{_name(node)}, " for node in partition.outputs)
        self._lines.append(_Line(f"{results}= {call}" if results else call, partition.outputs, arguments))

    def _call(self, node: fx.Node) -> None:
        arguments = [self._format(value) for value in node.args]
        arguments += [f"{key}={self._format(value)}" for key, value in node.kwargs.items()]
        text = f"{_name(node)} = {self._constant(node.target)}({', '.join(arguments)})"
        self._lines.append(_Line(text, (node,), tuple(node.all_input_nodes)))

    def _format(self, value: object) -> str:
        """`value` as Python text; what has no literal becomes a global."""
        if isinstance(value, fx.Node):
            return _name(value)
        if value is None or isinstance(value, (bool, int, str)):
            return repr(value)
        if isinstance(value, (list, tuple)) and type(value).__name__ in ("list", "tuple", "immutable_list"):
            items = "".join(f"{self._format(item)}, " for item in value)
            return f"({items})" if isinstance(value, tuple) else f"[{items.removesuffix(', ')}]"
        if isinstance(value, slice):
            return f"slice({', '.join(self._format(part) for part in (value.start, value.stop, value.step))})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key!r}: {self._format(item)}" for key, item in value.items()) + "}"
        return self._constant(value)

    def _constant(self, value: object) -> str:
        name = f"constant_{len(self.names)}"
        self.names[name] = value
        return name

    def reads(self) -> set[fx.Node]:
        """The nodes whose variables the text reads."""
        return {node for line in self._lines for node in line.reads} | set(self._graph.output_node().all_input_nodes)

    def text(self, placeholders: Sequence[fx.Node]) -> str:
        """The whole function of `placeholders`, every variable dropped after its last use."""
        (returned,) = self._graph.output_node().args
        kept = set(self._graph.output_node().all_input_nodes)
        last_use = {node: index for index, line in enumerate(self._lines) for node in (*line.makes, *line.reads)}
        body = [f"{''.join(f'{_name(node)}, ' for node in placeholders)} = args"] if placeholders else []
        body.append("args.clear()")
        for index, line in enumerate(self._lines):
            body.append(line.text)
            dropped = [_name(node) for node in dict.fromkeys((*line.makes, *line.reads)) if self._is_dropped(node, kept) and last_use[node] == index]
            body += [f"del {', '.join(dropped)}"] if dropped else []
        body.append(f"return {self._format(returned)}")
        return "def run(args):\n" + "".join(f"    {line}\n" for line in body)

    def _is_dropped(self, node: fx.Node, kept: set[fx.Node]) -> bool:
        return node not in kept and node.op != "get_attr"

