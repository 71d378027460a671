"""ATen graph -> callable: judge, partition, compile each partition, write the runner, tell what was done."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import fx

from .artifact import artifact_of, mark
from .direct_call import boxed, is_plain
from .dump import dump_graph
from .errors import CompileError, StrictError, describe_bug
from .freeze import NOTHING_FROZEN, Frozen, fold_constants
from .graph_runner import Runner, make_runner
from .lowering import Unsupported
from .native import CompiledPartition, Compiler
from .nodes import is_call, is_draw, is_getitem
from .normalize import is_named, normalize
from .options import Options
from .partition import Partition, Plan, plan
from .random_ops import DRAWS, seed_draws
from .runtime.errors import BuildError
from .saved_layout import keep_channels_last
from .source import op_name, source_line
from .verdicts import judge_graph

__all__ = ["CompiledGraph", "Compilation", "compile_graph"]

Constants = Mapping[fx.Node, torch.Tensor]

logger = logging.getLogger("accel")


@dataclasses.dataclass(frozen=True)
class CompiledGraph:
    """What became of one ATen graph.

    Attributes:
        name: "graph_<frame>_<recompile>_<kind>".
        kind: "inference", "forward" or "backward".
        graph: the normalized graph.
        plan: partitions and fallbacks.
        compiled: what each partition became; one that failed is missing.
        failures: partitions that run in eager since they could not be compiled, with the reason.
        runner: what runs the graph.
        is_plain: whether a call of it needs nothing of AOTAutograd's wrapper (direct_call.py).
        frozen: parameters that were taken as constants, and what was computed of them.
        seconds: stage -> what it took, summed over partitions (which are built side by side). A backward graph is traced with its forward graph.
    """

    name: str
    kind: str
    graph: fx.Graph
    plan: Plan
    compiled: Mapping[Partition, CompiledPartition]
    failures: Mapping[Partition, str]
    runner: Runner
    is_plain: bool = False
    frozen: Frozen = NOTHING_FROZEN
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def n_frozen(self) -> int:
        """Constants that the graph reads."""
        return len(self.frozen.tensors)

    @property
    def fallbacks(self) -> dict[fx.Node, str]:
        """Call nodes that run in eager, in graph order, with the reason."""
        failed = {node: reason for partition, reason in self.failures.items() for node in partition.home}
        return {node: reason for node in self.graph.nodes if (reason := self.plan.fallbacks.get(node) or failed.get(node)) is not None}

    @property
    def n_calls(self) -> int:
        """Call nodes: what coverage counts."""
        return sum(map(is_call, self.graph.nodes))


@dataclasses.dataclass
class Compilation:
    """One call of the backend, made when tracing begins: what its graphs share. `observe` is told of every graph that was compiled."""

    options: Options
    compiler: Compiler
    observe: Callable[[CompiledGraph], None] = lambda graph: None
    has_fallbacks: bool = False
    started: float = dataclasses.field(default_factory=time.perf_counter)


def compile_graph(gm: fx.GraphModule, kind: str, compilation: Compilation, constants: Constants | None = None) -> Callable[[list], list]:
    """The boxed callable that runs `gm`.

    Args: kind: "inference", "forward" or "backward".   constants: placeholders whose tensors are bound for good (freeze).

    Raises:
        StrictError: `strict` is set and a node would run in eager.
    """
    started = time.perf_counter()
    seconds = {} if kind == "backward" else {"tracing": started - compilation.started}
    options = compilation.options
    normalize(gm)
    seed_draws(gm, lambda node, overload: compilation.compiler.has_lowering(DRAWS[overload]) and not is_named(overload, options.fallback_ops))
    frozen = fold_constants(gm, constants) if constants else NOTHING_FROZEN
    verdicts = judge_graph(gm.graph, options, compilation.compiler.judge)
    seconds["judging"] = time.perf_counter() - started
    planned = plan(gm.graph, verdicts, options.min_partition_nodes)
    seconds["partitioning"] = time.perf_counter() - started - seconds["judging"]
    if options.strict and planned.fallbacks:
        raise StrictError(_strict_message(planned.fallbacks))
    if kind == "forward":
        keep_channels_last(planned)
    name = f"{_compile_name()}_{kind}"
    compiled, failures = _compile_partitions(planned, name, compilation, kind, frozen.tensors)
    runner = make_runner(gm, planned, {partition: made.run for partition, made in compiled.items()}, frozen.tensors)
    for stage in ("lowering", "scheduling", *(["tuning"] if options.max_autotune else []), "C compilation", "loading"):
        seconds[stage] = sum(made.seconds.get(stage, 0.0) for made in compiled.values())
    result = CompiledGraph(name, kind, gm.graph, planned, compiled, failures, runner, is_plain(kind, planned, compiled), frozen, seconds)
    compilation.has_fallbacks |= bool(result.fallbacks)
    _log(result, time.perf_counter() - started)
    compilation.observe(result)
    if options.dump_dir is not None:
        dump_graph(result, options.dump_dir)
    run = boxed(runner.run, runner.takes, is_plain=result.is_plain)
    run._partitions = compiled  # it keeps what they own
    mark(run, artifact_of(result, options.threads, options.cache_dir))
    return run


def _log(result: CompiledGraph, seconds: float) -> None:
    counts = (result.n_calls, len(result.plan.partitions), len(result.fallbacks))
    stages = ", ".join(f"{stage} {taken:.2f}" for stage, taken in result.seconds.items())
    logger.info("%s: %d nodes, %d partitions, %d fallbacks; compiled in %.2f s (%s)", result.name, *counts, seconds, stages)
    for node, reason in result.fallbacks.items():
        logger.debug("%s: %s (%s) at %s runs in eager: %s", result.name, node.name, op_name(node), source_line(node) or "an unknown line", reason)


def _compile_name() -> str:
    compile_id = torch._guards.CompileContext.current_compile_id()
    return f"graph_{str(compile_id).replace('/', '_')}" if compile_id is not None else "graph"


def _strict_message(fallbacks: Mapping[fx.Node, str]) -> str:
    lines = [f"  {node.name} ({op_name(node)}) at {source_line(node) or 'an unknown line'}: {reason}" for node, reason in fallbacks.items()]
    return f"accel: strict=True, and {len(lines)} node{'s' if len(lines) > 1 else ''} would run in eager:\n" + "\n".join(lines)


def _compile_partitions(
    planned: Plan, name: str, compilation: Compilation, kind: str, constants: Constants
) -> tuple[dict[Partition, CompiledPartition], dict[Partition, str]]:
    """Lower the partitions in turn and build them side by side; those that fail are returned with the reason, or raised under `strict`."""
    compiled: dict[Partition, CompiledPartition] = {}
    failures: dict[Partition, str] = {}
    for partition, result in _start(planned, name, compilation, kind, constants).items():
        error = result.exception()
        if error is None:
            compiled[partition] = result.result()
            continue
        failures[partition] = _describe_failure(error)
        logger.debug("partition %d of %s was not compiled", partition.id, name, exc_info=error)
        if compilation.options.strict:
            raise CompileError(f"accel: strict=True, and partition {partition.id} of {name} was {failures[partition]}") from error
    _warn_of(failures, name)
    return compiled, failures


def _start(planned: Plan, name: str, compilation: Compilation, kind: str, constants: Constants) -> dict[Partition, Future]:
    exact = {output for partition in planned.partitions for output in partition.outputs}
    results: dict[Partition, Future] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for partition in filter(lambda partition: partition.nodes, planned.partitions):
            from_eager = any(node.op == "call_function" and node not in exact and not _is_seed(node) for node in partition.inputs)
            check_inputs = from_eager or (kind == "backward" and compilation.has_fallbacks)
            label = f"{name}_{partition.id}"
            try:
                build = compilation.compiler.lower(partition, label, compilation.options, check_inputs=check_inputs, constants=constants)
            except Exception as error:  # any fault of ours leaves the partition to eager
                results[partition] = Future()
                results[partition].set_exception(error)
            else:
                results[partition] = pool.submit(build)
    return results


def _is_seed(node: fx.Node) -> bool:
    return is_draw(node.args[0] if is_getitem(node) else node)


def _describe_failure(error: BaseException) -> str:
    """What went wrong; where our own code is at fault, the line that raised."""
    is_told = isinstance(error, (BuildError, Unsupported))
    return f"not compiled: {type(error).__name__}: {error}" if is_told else f"not compiled: {describe_bug(error)}"


def _warn_of(failures: Mapping[Partition, str], name: str) -> None:
    if failures:
        reason = next(iter(failures.values()))
        logger.warning("%s: %d of its partitions run in eager, since compiling failed; the first: %s", name, len(failures), reason)
