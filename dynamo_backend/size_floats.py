"""Numbers computed from sizes in floating point, as tensors: what a kernel is handed are integers, and it computes the rest.

`x * (h / w)` with symbolic h and w multiplies by a SymFloat; this makes the quotient one of float64 tensors without dims. It has then no more
weight in type promotion than the number had, where the other operands are floating-point tensors; others are left alone.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from .nodes import tensor_value

__all__ = ["compute_size_floats"]

aten = torch.ops.aten

# operator on a tensor and a number: the same on two tensors
TENSOR_FORMS = {
    **{op: op for op in (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor)},
    aten.mul.Scalar: aten.mul.Tensor, aten.add.Scalar: aten.add.Tensor, aten.sub.Scalar: aten.sub.Tensor, aten.div.Scalar: aten.div.Tensor,
    aten.pow.Tensor_Scalar: aten.pow.Tensor_Tensor,
}  # fmt: skip

# arithmetic on sizes: the same on float64 tensors
ARITHMETIC = {
    operator.truediv: aten.div.Tensor, operator.mul: aten.mul.Tensor, operator.add: aten.add.Tensor, operator.sub: aten.sub.Tensor,
    operator.pow: aten.pow.Tensor_Tensor, operator.neg: aten.neg.default, torch.sym_sqrt: aten.sqrt.default,
}  # fmt: skip


def compute_size_floats(gm: fx.GraphModule) -> None:
    """Replace SymFloats among the operands of pointwise operators by tensors that are computed from sizes."""
    made: dict[fx.Node, fx.Node] = {}
    for node in list(gm.graph.nodes):
        if node.target not in TENSOR_FORMS or len(node.args) != 2 or node.kwargs:
            continue
        numbers = [arg for arg in node.args if _is_float(arg)]
        others = [tensor_value(arg) if isinstance(arg, fx.Node) else None for arg in node.args if not _is_float(arg)]
        if not numbers or not all(other is not None and other.is_floating_point() for other in others):
            continue
        if all(map(_is_computable, numbers)):
            mode = others[0].fake_mode
            with gm.graph.inserting_before(node):
                node.args = tuple(_as_tensor(gm.graph, mode, arg, made) if _is_float(arg) else arg for arg in node.args)
            node.target = TENSOR_FORMS[node.target]


def _is_float(value: object) -> bool:
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.SymFloat)


def _is_computable(value: object) -> bool:
    """Whether `value` is a number, a size, or arithmetic of ARITHMETIC on such."""
    if not _is_float(value):
        return True
    return (value.target in ARITHMETIC or value.target is torch.sym_float) and all(map(_is_computable, value.args))


def _as_tensor(graph: fx.Graph, mode, value: object, made: dict[fx.Node, fx.Node]) -> fx.Node:
    """A float64 tensor without dims that holds `value`; nodes in `made` are there already."""
    if _is_float(value) and value.target is torch.sym_float:
        return _as_tensor(graph, mode, value.args[0], made)
    if value in made:
        return made[value]
    if _is_float(value):
        node = graph.call_function(ARITHMETIC[value.target], tuple(_as_tensor(graph, mode, arg, made) for arg in value.args))
    else:
        node = graph.call_function(aten.scalar_tensor.default, (value,), {"dtype": torch.float64})
    with mode:
        node.meta["val"] = torch.empty((), dtype=torch.float64)
    if isinstance(value, fx.Node):
        made[value] = node
    return node
