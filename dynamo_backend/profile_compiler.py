"""The compiler behind accel.profile: partitions whose every call leaves its counters, and the backward pass that a profile runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils import _pytree as pytree

from .lowering import LoweredPartition
from .lowering.cost import partition_cost
from .native import NativeCompiler
from .options import Options
from .runtime.executor import Executor
from .runtime.profile import PartitionRun

__all__ = ["CountingCompiler", "run_backward"]


class CountingCompiler(NativeCompiler):
    """NativeCompiler with builds that count the executions of basic blocks, and with `verify` every instruction, too.

    `runs` are the calls of partitions so far, in order of execution.
    """

    def __init__(self, verify: bool = False):
        self.build_options = {"profile": True, "extra_flags": ("-DDVX_COUNT",) if verify else ()}
        self.runs: list[PartitionRun] = []

    def runner_of(self, lowered: LoweredPartition, executor: Executor, options: Options) -> Callable[[list], Sequence]:
        source = lowered.source
        cost = partition_cost(lowered.distinct, lowered.calls, options.machine, lowered.output_buffers)

        def run(args: list) -> Sequence:
            symbols = dict(zip(source.symbols, args[len(args) - len(source.symbols) :]))
            outputs, counters = executor.run_counted(args)
            self.runs.append(PartitionRun(source.name, cost, tuple(counters), symbols))
            return outputs

        return run


def run_backward(result: object) -> None:
    """A backward pass from every output in `result` that needs one, with gradients of ones; nothing is accumulated into `.grad`."""
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
