"""options={"freeze": True}: parameters become constants, and what depends on constants alone is computed once.

Inference only. Later changes of a parameter need not be seen. Another module of the same class is told apart: Dynamo then
compiles anew.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import fx
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .nodes import is_call, is_getitem, is_random, storage_key, tensor_value, written_arguments

__all__ = ["Frozen", "NOTHING_FROZEN", "Place", "Recipe", "find_constants", "fold_constants", "guard_constants", "is_parameter"]

logger = logging.getLogger("accel")

aten = torch.ops.aten

PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)


@dataclasses.dataclass(frozen=True)
class Place:
    """A constant in a Recipe: its inputs are the first ones, every step makes one more."""

    index: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How constants are made, as data: another process makes its own, of the values that its parameters have.

    Attributes:
        inputs: positions of the placeholders that hold parameters and buffers, with (dtype, shape, strides) of each.
        steps: (function, args, kwargs) of one constant each; a Place in them stands for an earlier one.
    """

    inputs: tuple[tuple[int, tuple], ...]
    steps: tuple[tuple[Callable, tuple, dict], ...]

    def constants(self, given: Sequence) -> list[torch.Tensor]:
        """All constants. Args: given: what Dynamo gives the backend, in the order of the placeholders.

        Raises:
            ValueError: a tensor is of another kind than the one that the recipe was written for.
        """
        with unset_fake_temporarily(), torch.no_grad():
            values = [_parameter(given[position], kind) for position, kind in self.inputs]
            for step in self.steps:
                values.append(_make(step, values))
        return values


def _parameter(tensor: object, kind: tuple) -> torch.Tensor:
    if type(tensor) not in PLAIN_TENSORS or _kind(tensor) != kind:
        raise ValueError("a parameter is not as it was")
    return tensor.detach()


def _kind(tensor: torch.Tensor) -> tuple:
    return tensor.dtype, tuple(tensor.shape), tensor.stride()


def _make(step: tuple[Callable, tuple, dict], values: Sequence[torch.Tensor]) -> torch.Tensor:
    function, args, kwargs = fx.node.map_aggregate(step, lambda value: values[value.index] if isinstance(value, Place) else value)
    return function(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Frozen:
    """The constants that a graph reads.

    Attributes:
        tensors: node -> its tensor.   places: node -> where the recipe makes it.
    """

    tensors: Mapping[fx.Node, torch.Tensor]
    places: Mapping[fx.Node, Place]
    recipe: Recipe


NOTHING_FROZEN = Frozen({}, {}, Recipe((), ()))


def guard_constants(gm: fx.GraphModule) -> None:
    """Have Dynamo compile anew where a parameter of its graph is another tensor than now: graphs are shared by equal modules."""
    from torch._dynamo.guards import GuardBuilder, install_guard

    for node in gm.graph.find_nodes(op="placeholder"):
        if is_parameter(node):
            install_guard(node._dynamo_source.make_guard(GuardBuilder.ID_MATCH))


def is_parameter(node: fx.Node) -> bool:
    """Whether a placeholder of Dynamo's is a parameter or a buffer of a module."""
    return "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})


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
    return fake is not None and type(tensor) in PLAIN_TENSORS and fake.shape == tensor.shape and fake.stride() == tensor.stride()


def fold_constants(gm: fx.GraphModule, constants: Mapping[fx.Node, torch.Tensor]) -> Frozen:
    """Compute what depends on `constants` alone, batch norms behind convolutions included; returns all constants that are still read."""
    folding = _Folding(gm, constants)
    with unset_fake_temporarily():
        folding.fold_batch_norms()
        for node in list(gm.graph.nodes):
            if _is_foldable(node, folding.known):
                folding.fold(node)
    _copy_outputs(gm, {storage_key(node) for node in folding.known} - {storage_key(node) for node in constants})
    gm.graph.eliminate_dead_code()
    return folding.finished()


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


class _Folding:
    """A graph whose constants are computed one after the other, and the recipe of that."""

    def __init__(self, gm: fx.GraphModule, constants: Mapping[fx.Node, torch.Tensor]):
        self.gm = gm
        self.known = dict(constants)
        self._places = {node: Place(index) for index, node in enumerate(constants)}
        positions = {node: position for position, node in enumerate(gm.graph.find_nodes(op="placeholder"))}
        self._inputs = tuple((positions[node], _kind(tensor)) for node, tensor in constants.items())
        self._steps: list[tuple[Callable, tuple, dict]] = []
        self._views: dict[tuple, fx.Node] = {}

    def constant(self, fake: torch.Tensor, function: Callable, *args: object, **kwargs: object) -> fx.Node:
        """A new node for function(*args, **kwargs), described by `fake`; nodes among the arguments are known."""
        step = (function, *(fx.map_arg(given, self._places.__getitem__) for given in (args, kwargs)))
        value = _make(step, list(self.known.values()))
        # Equal views are one constant, so that what is made of them, such as packed weights, is made once.
        view = value.data_ptr(), value.shape, value.stride(), value.dtype, value.is_conj(), value.is_neg()
        if view in self._views:
            return self._views[view]
        name = f"frozen_{len(self.known)}"
        self.gm.register_buffer(name, value, persistent=False)
        node = self.gm.graph.get_attr(name)
        node.meta["val"] = fake
        self._places[node] = Place(len(self.known))
        self.known[node] = value
        self._views[view] = node
        self._steps.append(step)
        return node

    def fold(self, node: fx.Node) -> None:
        """Put the constant that `node` computes in its place."""
        with self.gm.graph.inserting_before(node):
            node.replace_all_uses_with(self.constant(tensor_value(node), node.target, *node.args, **node.kwargs))

    def finished(self) -> Frozen:
        """The constants that the graph still reads."""
        tensors = {node: tensor for node, tensor in self.known.items() if node.users}
        return Frozen(tensors, {node: self._places[node] for node in tensors}, Recipe(self._inputs, tuple(self._steps)))

    def fold_batch_norms(self) -> None:
        """Scale each convolution's weights by the batch norm that is its only reader."""
        for norm in self.gm.graph.find_nodes(op="call_function", target=aten._native_batch_norm_legit_no_training.default):
            convolution, *statistics = norm.args[:5]
            is_convolution = convolution.target is aten.convolution.default and len(convolution.users) == 1 and not convolution.args[6]
            parameters = [*convolution.args[1:3], *statistics] if is_convolution else []
            if is_convolution and all(given is None or given in self.known for given in parameters) and set(map(_index_of, norm.users)) <= {0}:
                self._fold_batch_norm(norm)

    def _fold_batch_norm(self, norm: fx.Node) -> None:
        convolution, scale, shift, mean, variance, _, epsilon = norm.args
        weight, bias = convolution.args[1:3]
        fake = tensor_value(weight)
        with self.gm.graph.inserting_before(convolution):
            scaled = self.constant(fake.new_empty(fake.shape), _scaled_weight, weight, scale, variance, epsilon)
            shifted = self.constant(fake.new_empty(fake.shape[:1]), _shifted_bias, bias, scale, shift, mean, variance, epsilon, fake.dtype)
        convolution.update_arg(1, scaled)
        convolution.update_arg(2, shifted)
        for taken in list(norm.users):
            taken.replace_all_uses_with(convolution)


def _index_of(node: fx.Node) -> int:
    return node.args[1] if is_getitem(node) else -1


Given = torch.Tensor | None


def _factor(scale: Given, variance: torch.Tensor, epsilon: float) -> torch.Tensor:
    """What a batch norm multiplies a channel by."""
    return torch.rsqrt(variance + epsilon) * (scale if scale is not None else 1)


def _scaled_weight(weight: torch.Tensor, scale: Given, variance: torch.Tensor, epsilon: float) -> torch.Tensor:
    factor = _factor(scale, variance, epsilon)
    return (weight * factor.view(-1, *[1] * (weight.dim() - 1))).to(weight.dtype).contiguous()


def _shifted_bias(bias: Given, scale: Given, shift: Given, mean: torch.Tensor, variance: torch.Tensor, epsilon: float, dtype: torch.dtype) -> torch.Tensor:
    """The bias of a convolution behind whose products a batch norm comes."""
    centered = (bias if bias is not None else 0) - mean
    return (centered * _factor(scale, variance, epsilon) + (shift if shift is not None else 0)).to(dtype)
