"""options={"freeze": True}: parameters become constants, and what depends on constants alone is computed once.

Inference only. Later changes of a parameter need not be seen. Another module of the same class is told apart: Dynamo then
compiles anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import fx
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .nodes import is_call, is_getitem, is_random, storage_key, tensor_value, written_arguments

__all__ = ["find_constants", "fold_constants", "guard_constants"]

logger = logging.getLogger("accel")

aten = torch.ops.aten


def guard_constants(gm: fx.GraphModule) -> None:
    """Have Dynamo compile anew where a parameter of its graph is another tensor than now: graphs are shared by equal modules."""
    from torch._dynamo.guards import GuardBuilder, install_guard

    for node in gm.graph.find_nodes(op="placeholder"):
        if "_dynamo_static_input_type" in node.meta.get("tensor_dict", {}):
            install_guard(node._dynamo_source.make_guard(GuardBuilder.ID_MATCH))


def find_constants(gm: fx.GraphModule, example_inputs: Sequence) -> dict[fx.Node, torch.Tensor]:
    """The placeholders of an inference graph that hold parameters and buffers, with their tensors.

    Args: example_inputs: what Dynamo gave the backend: the real tensors, in the order of the placeholders.
    """
    context = torch._guards.TracingContext.try_get()
    placeholders = gm.graph.find_nodes(op="placeholder")
    if context is None or context.fw_metadata is None or len(placeholders) != len(example_inputs):
        logger.warning("freeze: the graph's inputs are not the module's own, nothing is frozen")
        return {}
    written = {storage_key(argument) for node in gm.graph.nodes for argument in written_arguments(node)}
    static = {placeholders[index]: example_inputs[index] for index in context.fw_metadata.static_input_indices}
    with unset_fake_temporarily():  # AOTAutograd compiles under its fake mode
        return {node: tensor.detach() for node, tensor in static.items() if _is_frozen(node, tensor) and storage_key(node) not in written}


def _is_frozen(node: fx.Node, tensor: object) -> bool:
    fake = tensor_value(node)
    return fake is not None and type(tensor) in (torch.Tensor, torch.nn.Parameter) and fake.shape == tensor.shape and fake.stride() == tensor.stride()


def fold_constants(gm: fx.GraphModule, constants: Mapping[fx.Node, torch.Tensor]) -> dict[fx.Node, torch.Tensor]:
    """Compute what depends on `constants` alone, batch norms behind convolutions included; returns all constants that are still read."""
    known, views = dict(constants), {}
    with unset_fake_temporarily():
        _fold_batch_norms(gm, known)
        for node in list(gm.graph.nodes):
            if _is_foldable(node, known):
                value = node.target(*fx.map_arg(node.args, known.__getitem__), **fx.map_arg(node.kwargs, known.__getitem__))
                # Equal views are one constant, so that what is made of them, such as packed weights, is made once.
                view = value.data_ptr(), value.shape, value.stride(), value.dtype
                if view not in views:
                    with gm.graph.inserting_before(node):
                        views[view] = _constant(gm, value, tensor_value(node), known)
                node.replace_all_uses_with(views[view])
    _copy_outputs(gm, {storage_key(node) for node in known} - {storage_key(node) for node in constants})
    gm.graph.eliminate_dead_code()
    return {node: tensor for node, tensor in known.items() if node.users}


def _copy_outputs(gm: fx.GraphModule, folded: set) -> None:
    """Have the graph return copies of what lies in the `folded` storages: its callers may write into what they get."""
    output = gm.graph.output_node()
    for node in output.all_input_nodes:
        if tensor_value(node) is not None and storage_key(node) in folded:
            with gm.graph.inserting_before(output):
                copy = gm.graph.call_function(aten.clone.default, (node,))
            copy.meta = dict(node.meta)
            output.replace_input_with(node, copy)


def _is_foldable(node: fx.Node, known: Mapping[fx.Node, torch.Tensor]) -> bool:
    """Whether `node` is a pure function of at least one constant, and not one that only spreads it over more memory."""
    if not is_call(node) or is_getitem(node) or tensor_value(node) is None or not isinstance(node.target, torch._ops.OpOverload):
        return False
    inputs = node.all_input_nodes
    is_pure = not node.target._schema.is_mutable and not is_random(node)
    return bool(inputs) and is_pure and all(source in known for source in inputs) and node.target is not aten.expand.default


def _fold_batch_norms(gm: fx.GraphModule, known: dict[fx.Node, torch.Tensor]) -> None:
    """Scale each convolution's weights by the batch norm that is its only reader."""
    for norm in gm.graph.find_nodes(op="call_function", target=aten._native_batch_norm_legit_no_training.default):
        convolution, *statistics = norm.args[:5]
        is_convolution = convolution.target is aten.convolution.default and len(convolution.users) == 1 and not convolution.args[6]
        parameters = [*convolution.args[1:3], *statistics] if is_convolution else []
        if is_convolution and all(given is None or given in known for given in parameters) and set(map(_index_of, norm.users)) <= {0}:
            _fold_batch_norm(gm, norm, known)


def _index_of(node: fx.Node) -> int:
    return node.args[1] if is_getitem(node) else -1


def _fold_batch_norm(gm: fx.GraphModule, norm: fx.Node, known: dict[fx.Node, torch.Tensor]) -> None:
    convolution, scale, shift, mean, variance, _, epsilon = norm.args
    old_weight, old_bias = (known.get(given) for given in convolution.args[1:3])
    factor = torch.rsqrt(known[variance] + epsilon) * (known[scale] if scale is not None else 1)
    weight = (old_weight * factor.view(-1, *[1] * (old_weight.dim() - 1))).to(old_weight.dtype)
    bias = ((old_bias if old_bias is not None else 0) - known[mean]) * factor + (known[shift] if shift is not None else 0)
    fake = tensor_value(convolution.args[1])
    with gm.graph.inserting_before(convolution):
        for position, value in ((1, weight.contiguous()), (2, bias.to(weight.dtype))):
            convolution.update_arg(position, _constant(gm, value, fake.new_empty(value.shape), known))
    for taken in list(norm.users):
        taken.replace_all_uses_with(convolution)


def _constant(gm: fx.GraphModule, value: torch.Tensor, fake: torch.Tensor, known: dict[fx.Node, torch.Tensor]) -> fx.Node:
    """A new node for the constant `value`, described by `fake`."""
    name = f"frozen_{len(known)}"
    gm.register_buffer(name, value, persistent=False)
    node = gm.graph.get_attr(name)
    node.meta["val"] = fake
    known[node] = value
    return node
