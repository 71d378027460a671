"""Layout across the two graphs of a training step: what a convolution's forward graph saves lies channels last, as its kernels make it.

The strides of saved tensors are nobody's but ours: autograd hands them from the forward graph to the backward graph. Eager's
row-major ones would have every image of a convolutional net stored across its channels, and read back so.
AOTAutograd is told of the strides (TracingContext) and shows them to the backward graph's compiler.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from .nodes import is_view, storage_key, tensor_value, written_arguments
from .partition import Plan

__all__ = ["follow_saved", "keep_channels_last"]

aten = torch.ops.aten


def keep_channels_last(planned: Plan) -> None:
    """Give the images that the forward graph of `planned` saves, and nobody else sees, channels-last strides, and tell AOTAutograd.

    Only where the whole graph is native: an eager operator may ask for the strides that it was traced with.
    """
    context = torch._guards.TracingContext.try_get()
    if context is None or context.fw_metadata is None or context.output_strides is None or planned.fallbacks:
        return
    (returned,) = planned.graph.output_node().args
    saved = list(returned)[context.fw_metadata.tensors_saved_for_backwards_slice]
    chosen = _images(planned.graph) & _private(planned, saved, returned)
    for node in chosen:
        value = tensor_value(node)
        node.meta["val"] = value.as_strided(value.shape, _channels_last_strides(value.shape))
    if chosen:
        context.output_strides.extend(None if not isinstance(node, fx.Node) or tensor_value(node) is None else _known_strides(node) for node in returned)


def _known_strides(node: fx.Node) -> tuple[int, ...] | None:
    strides = tensor_value(node).stride()
    return tuple(strides) if all(isinstance(stride, int) for stride in strides) else None


def _images(graph: fx.Graph) -> set[fx.Node]:
    """Convolutions, and what is computed of them with as many dims: pointwise operators, norms, pooling."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "call_function" or is_view(node):
            continue
        sources = [source for source in node.all_input_nodes if source in found]
        is_image = node.target is aten.convolution.default or any(_have_equal_ranks(source, node) for source in sources)
        if is_image and (tensor_value(node) is None or _is_row_major_image(tensor_value(node))):
            found.add(node)
    return found


def _have_equal_ranks(source: fx.Node, node: fx.Node) -> bool:
    """Whether both are tensors of as many dims, or one has several results."""
    values = tensor_value(source), tensor_value(node)
    return any(value is None for value in values) or values[0].dim() == values[1].dim()


def _is_row_major_image(value: torch.Tensor) -> bool:
    is_known = all(isinstance(size, int) and size > 0 for size in value.shape)
    return is_known and value.dim() >= 3 and value.is_contiguous() and value.storage_offset() == 0


def _private(planned: Plan, saved: Sequence, returned: Sequence) -> set[fx.Node]:
    """The saved nodes that one partition makes, and that nothing outside of it sees but the backward graph."""
    storages = [storage_key(node) for node in returned if isinstance(node, fx.Node)]
    homes = {node: set(partition.nodes) for partition in planned.partitions for node in partition.outputs if node in partition.nodes}
    output = planned.graph.output_node()

    def is_private(node: fx.Node) -> bool:
        is_once = list(returned).count(node) == 1 and storages.count(storage_key(node)) == 1
        readers = [user for user in node.users if user is not output]
        is_inside = node in homes and all(user in homes[node] and not is_view(user) and not written_arguments(user) for user in readers)
        return is_once and is_inside

    return {node for node in saved if isinstance(node, fx.Node) and tensor_value(node) is not None and is_private(node)}


def _channels_last_strides(shape: Sequence[int]) -> tuple[int, ...]:
    batch, channels, *pixels = shape
    strides, running = [], channels
    for size in reversed(pixels):
        strides.insert(0, running)
        running *= size
    return (running, 1, *strides)


def follow_saved(gm: fx.GraphModule, example_inputs: Sequence) -> None:
    """Have the placeholders of the backward graph `gm` describe what will come: `example_inputs` have the forward graph's strides.

    A view was traced on the strides that were expected, so it is given a copy that has them.
    """
    for node, given in zip(gm.graph.find_nodes(op="placeholder"), example_inputs, strict=True):
        expected = tensor_value(node)
        if expected is None or given.stride() == expected.stride():
            continue
        node.meta["val"] = given
        views = [user for user in node.users if is_view(user)]
        if views:
            with gm.graph.inserting_after(node):
                copy = gm.graph.call_function(aten.clone.default, (node,), {"memory_format": torch.contiguous_format})
            copy.meta = {**node.meta, "val": expected}
            for user in views:
                user.replace_input_with(node, copy)
