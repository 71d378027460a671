"""Equal linear layers on all slices of one tensor become one linear layer: the input products of an unrolled recurrent cell.

fx graph -> fx graph. A loop over x[:, step] multiplies every slice by one weight, a few rows at a time. One product of all rows reads
the weight once, fills the register tiles, and starts the threads once. Results that leave the graph stay apart: they share no memory.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import fx

from .nodes import is_getitem, is_view, tensor_bytes, tensor_value

__all__ = ["join_steps"]

aten = torch.ops.aten

# All steps' results are alive at once. estimate: what the caches near the cores hold; with more, a step would read its rows from memory.
MOST_BYTES = 16 << 20


def join_steps(gm: fx.GraphModule) -> None:
    """Join the products of all slices of a tensor with one weight, in place."""
    groups: dict[Hashable, dict[int, fx.Node]] = {}
    for node in gm.graph.nodes:
        if _is_step(node):
            source, dim, index = _operands(node)[1].args
            groups.setdefault(_key(node), {}).setdefault(index % tensor_value(source).shape[dim], node)
    for products in groups.values():
        first = next(iter(products.values()))
        source, dim, _ = _operands(first)[1].args
        size = tensor_value(source).shape[dim]
        if len(products) == size > 1 and size * tensor_bytes(first) <= MOST_BYTES:
            _join(gm.graph, first, products)


def _operands(node: fx.Node) -> tuple[Sequence[fx.Node], fx.Node, fx.Node]:
    """(the bias, if any, rows, weight) of a product."""
    *bias, rows, weight = node.args
    return bias, rows, weight


def _is_step(node: fx.Node) -> bool:
    """Whether `node` multiplies one slice of a tensor of three dims of known size."""
    if node.target not in (aten.addmm.default, aten.mm.default) or node.kwargs or _reaches_output(node):
        return False
    bias, rows, weight = _operands(node)
    if rows.target is not aten.select.int or rows.args[1] not in (0, 1) or not isinstance(rows.args[2], int):
        return False
    shapes = [tensor_value(operand).shape for operand in (*bias, rows.args[0], weight)]
    return len(shapes[-2]) == 3 and all(len(shape) == 1 for shape in shapes[:-2]) and all(isinstance(size, int) for shape in shapes for size in shape)


def _reaches_output(node: fx.Node) -> bool:
    """Whether the graph returns `node` or a view of it."""
    return any(user.op == "output" or ((is_view(user) or is_getitem(user)) and _reaches_output(user)) for user in node.users)


def _key(node: fx.Node) -> Hashable:
    """Equal for products of slices of one tensor, along one dim, with one weight; every step may have a view of the weight to itself."""
    bias, rows, weight = _operands(node)
    return node.target, tuple(bias), rows.args[:2], (weight.target, str(weight.args)) if is_view(weight) else weight


def _join(graph: fx.Graph, first: fx.Node, products: dict[int, fx.Node]) -> None:
    """Replace `products`, of which `first` comes first in the graph, by slices of one product, rows in the order of steps."""
    bias, rows, weight = _operands(first)
    source, dim, _ = rows.args

    def call(target, *args, **kwargs) -> fx.Node:
        node = graph.call_function(target, args, kwargs)
        node.meta = {**first.meta, "val": target(*fx.map_arg(args, tensor_value), **kwargs)}
        return node

    with graph.inserting_before(first):
        ordered = call(aten.permute.default, source, [1, 0, 2]) if dim == 1 else source
        ordered = ordered if tensor_value(ordered).is_contiguous() else call(aten.clone.default, ordered, memory_format=torch.contiguous_format)
        steps, batch, depth = tensor_value(ordered).shape
        product = call(first.target, *bias, call(aten.view.default, ordered, [steps * batch, depth]), weight)
        stacked = call(aten.view.default, product, [steps, batch, tensor_value(product).shape[1]])
        for index, node in products.items():
            node.replace_all_uses_with(call(aten.select.int, stacked, 0, index))
