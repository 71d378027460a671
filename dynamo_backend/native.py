"""The stages behind a partition, as the frontend sees them: judge a node, compile a partition.

Everything between fx and machine code goes through a `Compiler`, so that tests can put another in its place.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import fx

from .lowering import LoweredPartition, ScheduledPartition, Verdict, judge, registry, schedule_partition, write_partition
from .nodes import hint
from .options import Options
from .partition import Partition
from .runtime.build import build
from .runtime.executor import Executor

if TYPE_CHECKING:
    from .tune import TunedKernel

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
        seconds: stage -> what it took: lowering, scheduling, tuning if there was any, C compilation, loading.
        tuned: what a search found for its kernels.
    """

    run: Callable[[list], Sequence]
    kernels: tuple = ()
    arena_bytes: int | None = 0
    naive_bytes: int | None = 0
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    executor: Executor | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tuned: tuple[TunedKernel, ...] = ()


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
    """lowering, then runtime. `build_options` are more arguments of runtime.build.build, `tune_options` of tune.tune."""

    build_options: Mapping[str, object] = {}
    tune_options: Mapping[str, object] = {}

    def has_lowering(self, op: torch._ops.OpOverload) -> bool:
        return registry.find(op) is not None

    def judge(self, node: fx.Node) -> Verdict:
        return judge(node)

    def lower(
        self, partition: Partition, name: str, options: Options, *, check_inputs: bool, constants: Mapping[fx.Node, torch.Tensor]
    ) -> Callable[[], CompiledPartition]:
        scheduled = schedule_partition(
            partition.nodes, partition.inputs, partition.outputs,
            machine=options.machine, name=name, max_contexts=options.threads, constants=frozenset(partition.inputs) & constants.keys(),
            allows_winograd=options.winograd,
        )  # fmt: skip
        tuned = ()
        if options.max_autotune:
            scheduled, tuned = self._tune(partition, scheduled, options)
        lowered = write_partition(scheduled)
        bound = {index: constants[node] for index, node in enumerate(partition.inputs) if node in constants}

        def build_lowered() -> CompiledPartition:
            built = build(lowered.source, cache_dir=options.cache_dir, **self.build_options)
            executor = Executor(built, lowered.source, options.threads, check_inputs=check_inputs, constants=bound)
            run = self.runner_of(lowered, executor)
            seconds = {**lowered.seconds, "C compilation": built.seconds - built.load_seconds, "loading": built.load_seconds}
            return CompiledPartition(run, lowered.kernels, lowered.arena_bytes, lowered.naive_bytes, lowered.texts, executor, seconds, tuned)

        return build_lowered

    def _tune(self, partition: Partition, scheduled: ScheduledPartition, options: Options) -> tuple[ScheduledPartition, tuple[TunedKernel, ...]]:
        from .tune import tune

        started = time.perf_counter()
        sizes = [hint(node.meta["val"]) for node in partition.inputs if isinstance(node.meta["val"], torch.SymInt)]
        scheduled, tuned = tune(scheduled, dict(zip(scheduled.lowered.symbols, sizes)), options, **self.tune_options)
        return dataclasses.replace(scheduled, seconds={**scheduled.seconds, "tuning": time.perf_counter() - started}), tuned

    def runner_of(self, lowered: LoweredPartition, executor: Executor) -> Callable[[list], Sequence]:
        """What calls a built partition."""
        return executor.run
