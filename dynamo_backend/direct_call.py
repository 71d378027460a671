"""Inference graphs that DVX kernels compute alone are called without AOTAutograd's runtime wrapper, where that has nothing to do.

The wrapper turns autograd and autocast off, which no kernel of ours asks about, writes to inputs and makes outputs that alias
something. It takes 1.5 us of every call, a tenth of what a small model takes in all.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from types import FunctionType
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .partition import Partition, Plan

__all__ = ["is_plain", "without_wrapper"]

# What aot_module_simplified puts around a graph to which it has nothing to add, from the outside.
BARE_WRAPPERS = ["forward", "runtime_wrapper"]


def is_plain(kind: str, plan: Plan, runs: Container[Partition]) -> bool:
    """Whether a graph's own function is all that a call of it needs. To be asked while AOTAutograd compiles the graph.

    Args: kind: as in CompiledGraph.   runs: the partitions that have been compiled.
    """
    if kind != "inference" or not all(step in runs for step in plan.steps):
        return False
    context = torch._guards.TracingContext.try_get()
    metadata = context.fw_metadata if context is not None else None
    return (
        metadata is not None
        and metadata.num_outputs_aliased == 0
        and not metadata.dynamic_outputs
        and not any(info.mutates_data or info.mutates_metadata for info in metadata.input_info)
    )


def without_wrapper(compiled: Callable, gm: torch.fx.GraphModule) -> Callable:
    """A call of the plain graph in `compiled`, which AOTAutograd has made of Dynamo's `gm`; `compiled` itself where there is none.

    A wrapper for anything else (inputs that are the same tensor, subclasses, random states), parameters that `gm` holds itself, and
    layers other than those of the torch that this was written for leave `compiled` as it is.
    """
    *wrappers, run = _layers(compiled)
    is_bare = [layer.__name__ for layer in wrappers] == BARE_WRAPPERS and not [*gm.parameters(), *gm.buffers()]
    if not is_bare or not getattr(run, "_is_plain", False):
        return compiled
    return lambda *inputs: run(list(inputs))


def _layers(compiled: Callable) -> Iterator[Callable]:
    """`compiled` and the functions behind it, but for what only keeps Dynamo out or an entry of AOTAutograd's cache at hand."""
    while compiled is not None:
        if isinstance(compiled, FunctionType) and not hasattr(compiled, "_torchdynamo_orig_callable"):
            yield compiled
        compiled = getattr(compiled, "__wrapped__", None)
