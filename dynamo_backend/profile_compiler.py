"""A function run once with counting kernels: fn, arguments -> Recording, which profile_report.py prices for a machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch.utils import _pytree as pytree

from .compile_graph import CompiledGraph
from .explain import compile_and_call, name_of
from .lowering import LoweredPartition
from .native import NativeCompiler
from .options import Options
from .report import GraphBreak
from .runtime.executor import Executor

__all__ = ["CountedCall", "CountingCompiler", "Recording", "record"]


@dataclasses.dataclass(frozen=True)
class CountedCall:
    """One call of a partition: what it was made of, the counters that it left, and the sizes that it was called with."""

    lowered: LoweredPartition
    counters: tuple[int, ...]
    symbols: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Recording:
    """One run of a function.

    Attributes:
        graphs: what it was compiled to.   calls: of partitions, in order of execution.
        is_verified: counters hold what every intrinsic counted, too.
        result: what the function returned.
    """

    name: str
    graphs: tuple[CompiledGraph, ...]
    calls: tuple[CountedCall, ...]
    graph_breaks: tuple[GraphBreak, ...]
    is_verified: bool
    result: object


class CountingCompiler(NativeCompiler):
    """NativeCompiler with builds that count the executions of basic blocks, and with `verify` every instruction, too.

    `calls` are those of partitions so far, in order of execution.
    """

    def __init__(self, verify: bool = False):
        self.build_options = {"profile": True, "extra_flags": ("-DDVX_COUNT",) if verify else ()}
        self.calls: list[CountedCall] = []

    def runner_of(self, lowered: LoweredPartition, executor: Executor) -> Callable[[list], Sequence]:
        names = lowered.source.symbols

        def run(args: list) -> Sequence:
            symbols = dict(zip(names, args[len(args) - len(names) :]))
            outputs, counters = executor.run_counted(args)
            self.calls.append(CountedCall(lowered, tuple(counters), symbols))
            return outputs

        return run


def record(fn: Callable, args: Sequence, kwargs: Mapping[str, object], options: Options, dynamic: bool | None = None, verify: bool = False) -> Recording:
    """Compile `fn` and run it once; a backward pass follows where there is one that `fn` did not run itself."""
    compiler = CountingCompiler(verify)
    graphs: list[CompiledGraph] = []

    def call(compiled: Callable) -> object:
        result = compiled(*args, **kwargs)
        backward = {f"{graph.name}_{partition.id}" for graph in graphs if graph.kind == "backward" for partition in graph.compiled}
        if backward and not any(counted.lowered.source.name in backward for counted in compiler.calls):
            _run_backward(result)
        return result

    result, graph_breaks = compile_and_call(fn, call, options, dynamic, compiler, graphs.append)
    return Recording(name_of(fn), tuple(graphs), tuple(compiler.calls), graph_breaks, verify, result)


def _run_backward(result: object) -> None:
    """A backward pass from every output in `result` that has one, with gradients of ones; nothing is accumulated into `.grad`."""
    outputs = [value for value in pytree.tree_leaves(result) if isinstance(value, torch.Tensor) and value.grad_fn is not None]
    leaves = list(_leaves(outputs))
    if leaves:
        torch.autograd.grad(outputs, leaves, [torch.ones_like(output) for output in outputs], allow_unused=True)


def _leaves(outputs: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The tensors into which a backward pass from `outputs` would accumulate gradients."""
    waiting = [output.grad_fn for output in outputs]
    seen = set()
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        if hasattr(function, "variable"):
            yield function.variable
        waiting += [following for following, _ in function.next_functions]
