"""A compiled graph as data that outlives the process: what a warm start loads instead of tracing and lowering again.

CompiledGraph -> GraphArtifact -> the callable that runs the graph. It holds the C text, so that an object that is gone from the
cache is compiled again; the shared objects themselves stay in the runtime's cache.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .csrc.abi import PartitionSource
from .runtime.build import build
from .runtime.executor import Executor

if TYPE_CHECKING:
    from .compile_graph import CompiledGraph

__all__ = ["GraphArtifact", "PartitionArtifact", "artifact_of", "dump", "load_graph", "mark"]


@dataclasses.dataclass(frozen=True)
class PartitionArtifact:
    """A partition to be built: `variable` is its name in the runner's text."""

    variable: str
    source: PartitionSource
    check_inputs: bool


@dataclasses.dataclass(frozen=True)
class GraphArtifact:
    """Everything that runs a graph, as picklable data.

    Attributes:
        name: the graph's name when it was compiled.
        text: the runner's Python text; empty where the one partition is called as it is.
        names: the globals of `text` other than partitions.
        threads, cache_dir: as in Options.
    """

    name: str
    text: str
    names: Mapping[str, object]
    partitions: tuple[PartitionArtifact, ...]
    threads: int | None
    cache_dir: Path | None


def artifact_of(compiled: CompiledGraph, threads: int | None, cache_dir: Path | None) -> GraphArtifact | None:
    """`compiled` as an artifact; None where it holds what only this process has: frozen tensors, partitions that failed to compile."""
    made = compiled.compiled
    if compiled.n_frozen or compiled.failures or any(partition.executor is None or partition.executor.built.is_profile for partition in made.values()):
        return None
    partitions = tuple(PartitionArtifact(key.variable, part.executor.source, part.executor.check_inputs) for key, part in made.items())
    variables = {partition.variable for partition in partitions}
    names = {name: value for name, value in compiled.runner.names.items() if name not in variables}
    return GraphArtifact(compiled.name, compiled.runner.text, names, partitions, threads, cache_dir)


def mark(run: Callable[[list], list], artifact: GraphArtifact | None) -> None:
    """Put the artifact of a graph where aot_cache.py finds it: on its callable."""
    if artifact is not None:
        run._accel_artifact = artifact
        run._fx_graph_cache_key = "accel"  # by this AOTAutograd knows results that can be kept


def load_graph(artifact: GraphArtifact) -> Callable[[list], list]:
    """The boxed callable that runs the graph.

    Raises:
        BuildError: a partition can be neither loaded nor built.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        built = list(pool.map(lambda partition: build(partition.source, cache_dir=artifact.cache_dir), artifact.partitions))
    runs = {
        partition.variable: Executor(library, partition.source, artifact.threads, check_inputs=partition.check_inputs).run
        for partition, library in zip(artifact.partitions, built)
    }
    if artifact.text:
        scope = {**artifact.names, **runs}
        exec(compile(artifact.text, "<accel graph>", "exec"), scope)
        run = scope["run"]
    else:
        (run,) = runs.values()
    run._boxed_call = True
    return run


class _Pickler(pickle.Pickler):
    """Operators by their names: they are the running process's own."""

    def reducer_override(self, value: object):
        if isinstance(value, torch._ops.OpOverload):
            return _operator, (*value._schema.name.split("::"), value._overloadname)
        return NotImplemented


def _operator(namespace: str, name: str, overload: str) -> torch._ops.OpOverload:
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)


def dump(value: object) -> bytes:
    """`value` pickled, operators in it by name. Raises what pickle raises for values that have no such form."""
    stream = io.BytesIO()
    _Pickler(stream).dump(value)
    return stream.getvalue()
