"""What can be said of one fx node of an ATen graph, from its schema and its fake tensors."""

from __future__ import annotations

import operator

import torch
from torch import fx

__all__ = ["hint", "is_call", "is_draw", "is_getitem", "is_random", "is_size", "is_view", "storage_key", "tensor_bytes", "tensor_value", "written_arguments"]

aten = torch.ops.aten

# Views whose schema does not say so: AOTAutograd leaves them where the base is not seen again.
UNDECLARED_VIEWS = {aten._unsafe_view.default, aten.reshape.default, aten._reshape_alias.default}

# Results that depend on a tensor's shape alone.
SIZE_READERS = {aten.sym_size.int, aten.sym_stride.int, aten.sym_numel.default, aten.sym_storage_offset.default}


def is_call(node: fx.Node) -> bool:
    """Whether `node` counts in coverage: a call of an operator, other than a getitem, arithmetic on sizes and the making of seeds."""
    return node.op not in ("placeholder", "get_attr", "output") and not is_getitem(node) and not is_size(node) and not is_draw(node)


def is_draw(node: fx.Node) -> bool:
    """Whether `node` makes seeds for random numbers (random_ops.py)."""
    return getattr(node.target, "makes_seeds", False)


def is_getitem(node: fx.Node) -> bool:
    """Whether `node` takes one result out of several; such nodes are not counted."""
    return node.target is operator.getitem and isinstance(node.args[0], fx.Node)


def is_size(node: fx.Node) -> bool:
    """Whether `node` is arithmetic on sizes: it reads no element of a tensor and yields a number."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target in SIZE_READERS
    value = node.meta.get("val")
    return isinstance(value, (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)) and not isinstance(
        node.target, torch._ops.HigherOrderOperator
    )


def is_view(node: fx.Node) -> bool:
    """Whether every result of `node` shares storage with its first argument and nothing is written."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    returned = [result.alias_info for result in target._schema.returns]
    declared = bool(returned) and all(alias is not None and not alias.is_write for alias in returned)
    return declared or target in UNDECLARED_VIEWS


def is_random(node: fx.Node) -> bool:
    """Whether `node` draws from torch's generator."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def tensor_value(node: fx.Node) -> torch.Tensor | None:
    """The fake tensor of a node that yields one tensor."""
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def storage_key(node: fx.Node) -> int | None:
    """Equal for nodes whose tensors share storage; None where there is no tensor or no storage."""
    value = tensor_value(node)
    if value is None or value.layout != torch.strided:
        return None
    return value.untyped_storage()._cdata


def written_arguments(node: fx.Node) -> list[fx.Node]:
    """The arguments that `node` writes to, by its schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    written = []
    for position, argument in enumerate(schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        written += [value for value in (given if isinstance(given, (list, tuple)) else [given]) if isinstance(value, fx.Node)]
    return written


def hint(size: int | torch.SymInt) -> int:
    """`size` as a number: of a symbolic size the one that was traced with, or 1 where none is known."""
    if isinstance(size, int):
        return size
    known = size.node.hint if size.node.has_hint() else None
    return int(known) if known is not None else 1


def tensor_bytes(node: fx.Node) -> int:
    """Bytes of all tensors that `node` yields, symbolic sizes as traced."""
    values = node.meta.get("val")
    values = values if isinstance(values, (list, tuple)) else [values]
    return sum(hint(value.numel()) * value.element_size() for value in values if isinstance(value, torch.Tensor))
