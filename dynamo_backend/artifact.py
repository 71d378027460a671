"""A compiled graph as data that outlives the process: what a warm start loads instead of tracing and lowering again.

CompiledGraph -> GraphArtifact -> the callable that runs the graph. It holds the C text, so that an object that is gone from the
cache is compiled again; the shared objects themselves stay in the runtime's cache.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .csrc.abi import PartitionSource
from .direct_call import boxed
from .freeze import Place, Recipe
from .runtime.build import BuiltPartition, build
from .runtime.executor import Executor

if TYPE_CHECKING:
    from .compile_graph import CompiledGraph

__all__ = ["GraphArtifact", "PartitionArtifact", "artifact_of", "dump", "load_graph", "mark"]


@dataclasses.dataclass(frozen=True)
class PartitionArtifact:
    """A partition to be built.

    Attributes:
        variable: its name in the runner's text.
        constants: inputs that are bound for good, by index: where the graph's recipe makes them.
    """

    variable: str
    source: PartitionSource
    check_inputs: bool
    constants: Mapping[int, Place]


@dataclasses.dataclass(frozen=True)
class GraphArtifact:
    """Everything that runs a graph, as picklable data.

    Attributes:
        name: the graph's name when it was compiled.
        text: the runner's Python text; empty where the one partition is called as it is.
        names: the globals of `text` other than partitions.
        recipe: how the graph's constants are made of its inputs; a Place among `names` is one of them.
        takes: as in Runner.   is_plain: as in CompiledGraph.
        threads, cache_dir: as in Options.
    """

    name: str
    text: str
    names: Mapping[str, object]
    partitions: tuple[PartitionArtifact, ...]
    recipe: Recipe
    takes: tuple[int, ...] | None
    is_plain: bool
    threads: int | None
    cache_dir: Path | None


def artifact_of(compiled: CompiledGraph, threads: int | None, cache_dir: Path | None) -> GraphArtifact | None:
    """`compiled` as an artifact; None where it holds what only this process has: partitions that failed to compile."""
    made, frozen = compiled.compiled, compiled.frozen
    if compiled.failures or any(partition.executor is None or partition.executor.built.is_profile for partition in made.values()):
        return None
    partitions = tuple(
        PartitionArtifact(key.variable, part.executor.source, part.executor.check_inputs, {i: frozen.places[node] for i, node in enumerate(key.inputs) if node in frozen.places})
        for key, part in made.items()
    )
    variables = {partition.variable for partition in partitions}
    places = {id(tensor): frozen.places[node] for node, tensor in frozen.tensors.items()}
    names = {name: places.get(id(value), value) for name, value in compiled.runner.names.items() if name not in variables}
    return GraphArtifact(compiled.name, compiled.runner.text, names, partitions, frozen.recipe, compiled.runner.takes, compiled.is_plain, threads, cache_dir)


def mark(run: Callable[[list], list], artifact: GraphArtifact | None) -> None:
    """Put the artifact of a graph where aot_cache.py finds it: on its callable."""
    if artifact is not None:
        run._accel_artifact = artifact
        run._fx_graph_cache_key = "accel"  # by this AOTAutograd knows results that can be kept


def load_graph(artifact: GraphArtifact, given: Sequence = ()) -> Callable[[list], list]:
    """The boxed callable that runs the graph. Args: given: what Dynamo gives the backend, of which constants are made.

    Raises:
        BuildError: a partition can be neither loaded nor built.
        ValueError: constants cannot be made of `given`.
    """
    constants = artifact.recipe.constants(given)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        built = list(pool.map(lambda partition: build(partition.source, cache_dir=artifact.cache_dir), artifact.partitions))
    runs = {partition.variable: _executor(partition, library, artifact.threads, constants).run for partition, library in zip(artifact.partitions, built)}
    if artifact.text:
        names = {name: constants[value.index] if isinstance(value, Place) else value for name, value in artifact.names.items()}
        scope = {**names, **runs}
        exec(compile(artifact.text, "<accel graph>", "exec"), scope)
        run = scope["run"]
    else:
        (run,) = runs.values()
    return boxed(run, artifact.takes, is_plain=artifact.is_plain)


def _executor(partition: PartitionArtifact, library: BuiltPartition, threads: int | None, constants: Sequence[torch.Tensor]) -> Executor:
    bound = {index: constants[place.index] for index, place in partition.constants.items()}
    return Executor(library, partition.source, threads, check_inputs=partition.check_inputs, constants=bound)


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
