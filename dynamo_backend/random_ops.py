"""Where random numbers get their seeds: one draw from torch's default generator per call of a graph.

`seed_draws` rewrites every drawing operator of an ATen graph to its seeded form (lowering/ops/random.py), a function of a seed of 64 bits and
nothing else, which can be compiled, moved and run by any thread. The seeds of a graph come from one node, draw_seeds, which Python runs:
it advances the generator, so that torch.manual_seed decides all numbers and two calls differ.

Under activation checkpointing AOTAutograd wraps a draw in run_and_save_rng_state, and its repetition in the backward graph in
run_with_rng_state. There the seed is derived from the generator's state that the first saves, in both graphs by seed_of_state.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import fx
from torch._prims.rng_prims import run_and_save_rng_state, run_with_rng_state

from .lowering.ops.random import DRAWS
from .nodes import is_getitem

__all__ = ["DRAWS", "seed_draws"]

ALL_BITS = {"from": -(2**63), "to": None}  # arguments of Tensor.random_ for all of int64


def _makes_seeds(function: Callable) -> Callable:
    """Marks a function for `nodes.is_draw`: Python runs it, and the partitioner takes it for free."""
    function.makes_seeds = True
    return function


@_makes_seeds
def draw_seeds(n: int) -> list[torch.Tensor]:
    """n seeds, int32[2] each, from torch's default generator."""
    words = torch.empty(n, dtype=torch.int64).random_(**ALL_BITS)
    return list(words.view(torch.int32).view(n, 2).unbind())


@_makes_seeds
def take_state() -> torch.Tensor:
    """The default generator's state, which then moves on."""
    state = torch.get_rng_state()
    torch.empty(1, dtype=torch.int64).random_()
    return state


@_makes_seeds
def seed_of_state(state: torch.Tensor) -> torch.Tensor:
    """The seed that a generator in `state` would draw."""
    generator = torch.Generator()
    generator.set_state(state)
    return torch.empty(1, dtype=torch.int64).random_(**ALL_BITS, generator=generator).view(torch.int32)


def _implement(overload: torch._ops.OpOverload, seeded: torch._ops.OpOverload) -> None:
    """The seeded operator in eager, for graphs that could not be compiled: torch's own operator under a generator state of its own."""

    def run(seed: torch.Tensor, *args, **kwargs):
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed.view(torch.int64).item())
        try:
            return overload(*args, **kwargs)
        finally:
            torch.set_rng_state(state)

    torch.library.impl(seeded._schema.name, "CompositeExplicitAutograd")(run)


for _overload, _seeded in DRAWS.items():
    _implement(_overload, _seeded)


def seed_draws(gm: fx.GraphModule, is_taken: Callable[[fx.Node, torch._ops.OpOverload], bool]) -> None:
    """Give every drawing node of `gm` that `is_taken` accepts a seed.

    Args: is_taken: called with a node and the overload that it draws by.
    """
    graph = gm.graph
    drawing = [node for node in graph.nodes if node.target in DRAWS and is_taken(node, node.target)]
    if drawing:
        _seed_from_generator(graph, drawing)
    for node in list(graph.nodes):
        position = {run_and_save_rng_state: 0, run_with_rng_state: 1}.get(node.target)
        if position is not None and node.args[position] in DRAWS and is_taken(node, node.args[position]):
            _seed_from_state(graph, node, position)


def _some_tensor(value: object) -> torch.Tensor:
    """A tensor, or the first of several."""
    return value if isinstance(value, torch.Tensor) else value[0]


def _seed_from_generator(graph: fx.Graph, drawing: list[fx.Node]) -> None:
    fakes = [_some_tensor(node.meta["val"]).new_empty((2,), dtype=torch.int32) for node in drawing]
    with graph.inserting_before(next(node for node in graph.nodes if node.op != "placeholder")):
        seeds = _call(graph, draw_seeds, (len(drawing),), fakes)
        taken = [_call(graph, operator.getitem, (seeds, index), fake) for index, fake in enumerate(fakes)]
    for node, seed in zip(drawing, taken):
        node.target, node.args = DRAWS[node.target], (seed, *node.args)


def _call(graph: fx.Graph, target: Callable, args: tuple, fake: object) -> fx.Node:
    node = graph.call_function(target, args)
    node.meta["val"] = fake
    return node


def _seed_from_state(graph: fx.Graph, node: fx.Node, position: int) -> None:
    """`node` calls the operator node.args[position] and returns its result, after the state that it saves if position is 0."""
    overload, *args = node.args[position:]
    mode = torch._guards.detect_fake_mode([known.meta.get("val") for known in graph.nodes])
    with mode:  # AOTAutograd leaves these nodes without fake tensors
        result = overload(*fx.map_arg(args, _fake_of), **fx.map_arg(node.kwargs, _fake_of))
        fake_state, fake_seed = torch.empty(torch.get_rng_state().numel(), dtype=torch.uint8), torch.empty(2, dtype=torch.int32)
    with graph.inserting_before(node):
        state = node.args[0] if position else _call(graph, take_state, (), fake_state)
        seed = _call(graph, seed_of_state, (state,), fake_seed)
        drawn = _call(graph, DRAWS[overload], (seed, *args), result)
    drawn.kwargs = node.kwargs
    drawn.meta = {**node.meta, "val": result}
    replaced = {user: (state, drawn)[user.args[1]] for user in node.users} if not position else {node: drawn}
    for old, new in replaced.items():
        old.replace_all_uses_with(new, propagate_meta=False)
        graph.erase_node(old)
    if not position:
        graph.erase_node(node)
    for user in drawn.users:
        if is_getitem(user):
            user.meta["val"] = result[user.args[1]]


def _fake_of(node: fx.Node) -> object:
    return node.meta["val"]
