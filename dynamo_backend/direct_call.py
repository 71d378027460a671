"""Inference graphs that DVX kernels compute alone are called without AOTAutograd's runtime wrapper, where that has nothing to do.

The wrapper turns autograd and autocast off, which no kernel of ours asks about, writes to inputs, makes outputs that alias
something and sets the grad mode that the function leaves behind; it takes 1.3 us of every call. Parameters that such a graph
holds for good (freeze) are no longer handed over, either: Dynamo fetches each one from its module, which for a MobileNetV3 takes
longer than all else that it does.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from types import FunctionType
from typing import TYPE_CHECKING

import torch
from torch import fx

from .freeze import is_parameter

if TYPE_CHECKING:
    from .partition import Partition, Plan

__all__ = ["boxed", "is_plain", "without_wrapper"]

Run = Callable[[list], Sequence]

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
        and metadata.grad_enabled_mutation is None
        and not any(info.mutates_data or info.mutates_metadata for info in metadata.input_info)
    )


def boxed(run: Run, takes: tuple[int, ...] | None, *, is_plain: bool) -> Run:
    """What AOTAutograd calls, with a list of all placeholders that is emptied, to run a graph.

    Args: run, takes: as in Runner.   is_plain: as in CompiledGraph; `without_wrapper` finds `run` and `takes` then.
    """

    def run_on_all(args: list) -> Sequence:
        taken = [args[position] for position in takes]
        args.clear()
        return run(taken)

    called = run if takes is None else run_on_all
    called._boxed_call = True
    called._plain_call = (run, takes) if is_plain else None
    return called


def without_wrapper(compiled: Callable, gm: fx.GraphModule, example_inputs: Sequence) -> Callable:
    """A call of the plain graph in `compiled`, which AOTAutograd has made of Dynamo's `gm`; `compiled` itself where there is none.

    A wrapper for anything else (inputs that are the same tensor, subclasses, random states), parameters that `gm` holds itself, and
    layers other than those of the torch that this was written for leave `compiled` as it is.
    """
    *wrappers, called = _layers(compiled)
    plain = getattr(called, "_plain_call", None)
    if plain is None or [layer.__name__ for layer in wrappers] != BARE_WRAPPERS or [*gm.parameters(), *gm.buffers()]:
        return compiled
    run, takes = plain
    if takes is None:
        return lambda *inputs: run(list(inputs))
    handed_over = _bind_parameters(gm, example_inputs, takes)
    if handed_over == list(takes):
        return lambda *inputs: run(list(inputs))
    places = [handed_over.index(position) for position in takes]
    return lambda *inputs: run([inputs[place] for place in places])


def _layers(compiled: Callable) -> Iterator[Callable]:
    """`compiled` and the functions behind it, but for what only keeps Dynamo out or an entry of AOTAutograd's cache at hand."""
    while compiled is not None:
        if isinstance(compiled, FunctionType) and not hasattr(compiled, "_torchdynamo_orig_callable"):
            yield compiled
        compiled = getattr(compiled, "__wrapped__", None)


def _bind_parameters(gm: fx.GraphModule, example_inputs: Sequence, takes: Sequence[int]) -> list[int]:
    """Have `gm` hold its parameters but those that are still taken; returns the positions of the inputs that Dynamo hands over then.

    Dynamo writes the code that fetches inputs when its backend returns, for the placeholders that the graph has by then.
    """
    placeholders = gm.graph.find_nodes(op="placeholder")
    bound = [position for position, node in enumerate(placeholders) if position not in takes and is_parameter(node) and "grapharg" in node.meta]
    for position in bound:
        node = placeholders[position]
        gm.register_buffer(f"frozen_{position}", example_inputs[position].detach(), persistent=False)
        with gm.graph.inserting_before(node):
            node.replace_all_uses_with(gm.graph.get_attr(f"frozen_{position}"))
        gm.graph.erase_node(node)
    return [position for position in range(len(placeholders)) if position not in bound]
