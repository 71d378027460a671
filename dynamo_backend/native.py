"""The stages behind a partition, as the frontend sees them: judge a node, compile a partition.

Everything between fx and machine code goes through a `Compiler`, so that tests can put another in its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import fx

from .lowering import LoweredPartition, Verdict, judge, lower_partition, registry
from .options import Options
from .partition import Partition
from .runtime.build import build
from .runtime.executor import Executor

__all__ = ["CompiledPartition", "Compiler", "NativeCompiler"]


@dataclasses.dataclass(frozen=True)
class CompiledPartition:
    """A partition that can be called.

    Attributes:
        run: callable (args: list) -> list of the partition's outputs; args are its inputs, and are emptied.
        kernels: what explain says of each kernel: objects with `name`, `kind`, `nodes`, `flops`, `bytes`.
        arena_bytes, naive_bytes: scratch memory as planned, and the sum of all buffers in it; None where sizes are symbolic.
        texts: stage name -> its text, for `dump_dir`.
        executor: what `run` belongs to; it lives as long as the compiled graph.
        seconds: stage -> what it took: lowering, scheduling, C compilation, loading.
    """

    run: Callable[[list], Sequence]
    kernels: tuple = ()
    arena_bytes: int | None = 0
    naive_bytes: int | None = 0
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    executor: Executor | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Compiler(Protocol):
    """What the frontend needs of lowering and runtime."""

    def has_lowering(self, op: torch._ops.OpOverload) -> bool:
        """Whether `op` is to reach the graph whole."""

    def judge(self, node: fx.Node) -> Verdict:
        """Whether `node` can be compiled, with the reason if not."""

    def lower(
        self, partition: Partition, name: str, options: Options, *, check_inputs: bool, constants: Mapping[fx.Node, torch.Tensor]
    ) -> Callable[[], CompiledPartition]:
        """What builds the partition; it may be called on another thread.

        Args: check_inputs: strides of inputs may differ from their fake tensors'.   constants: inputs to be bound for good.
        """


class NativeCompiler:
    """lowering, then runtime. `build_options` are more arguments of runtime.build.build."""

    build_options: Mapping[str, object] = {}

    def has_lowering(self, op: torch._ops.OpOverload) -> bool:
        return registry.find(op) is not None

    def judge(self, node: fx.Node) -> Verdict:
        return judge(node)

    def lower(
        self, partition: Partition, name: str, options: Options, *, check_inputs: bool, constants: Mapping[fx.Node, torch.Tensor]
    ) -> Callable[[], CompiledPartition]:
        lowered = lower_partition(
            partition.nodes, partition.inputs, partition.outputs,
            machine=options.machine, name=name, max_contexts=options.threads, constants=frozenset(partition.inputs) & constants.keys(),
            allows_winograd=options.winograd,
        )  # fmt: skip
        bound = {index: constants[node] for index, node in enumerate(partition.inputs) if node in constants}

        def build_lowered() -> CompiledPartition:
            built = build(lowered.source, cache_dir=options.cache_dir, **self.build_options)
            executor = Executor(built, lowered.source, options.threads, check_inputs=check_inputs, constants=bound)
            run = self.runner_of(lowered, executor)
            seconds = {**lowered.seconds, "C compilation": built.seconds - built.load_seconds, "loading": built.load_seconds}
            return CompiledPartition(run, lowered.kernels, lowered.arena_bytes, lowered.naive_bytes, lowered.texts, executor, seconds)

        return build_lowered

    def runner_of(self, lowered: LoweredPartition, executor: Executor) -> Callable[[list], Sequence]:
        """What calls a built partition."""
        return executor.run
