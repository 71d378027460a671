"""aten._foreach_* -> the operator on each tensor of the lists: what optimizers with foreach=True call."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

__all__ = ["foreach_decompositions"]

aten = torch.ops.aten

# Where the operator on one tensor has another name, or other arguments.
SINGLE: dict[str, Callable] = {
    "norm": lambda x, order=2, dtype=None: torch.linalg.vector_norm(x, order, dtype=dtype),
    "powsum": lambda x, order=2, dtype=None: (x if dtype is None else x.to(dtype)).abs().pow(order).sum(),
    "maximum": lambda x, other: torch.maximum(x, other) if isinstance(other, torch.Tensor) else x.clamp_min(other),
    "minimum": lambda x, other: torch.minimum(x, other) if isinstance(other, torch.Tensor) else x.clamp_max(other),
    "addcmul": lambda x, a, b, value=1: _weighted(aten.addcmul, aten.mul, x, a, b, value),
    "addcdiv": lambda x, a, b, value=1: _weighted(aten.addcdiv, aten.div, x, a, b, value),
    "copy": lambda x, source, non_blocking=False: aten.copy(x, source),
    "zero": aten.zeros_like,
    "max": lambda x: x.max(),
}


def _weighted(fused: Callable, inner: Callable, x, a, b, value):
    """x + value * inner(a, b); `value` may be a tensor."""
    return x + value * inner(a, b) if isinstance(value, torch.Tensor) else fused(x, a, b, value=value)


def _apply(single: Callable, is_list: tuple[bool, ...], *args, **kwargs) -> list[torch.Tensor]:
    """`single` once for every position of the arguments that are lists; the others are the same for all."""
    lists = [arg for arg, varies in zip(args, is_list) if varies]
    columns = [arg if varies else [arg] * len(lists[0]) for arg, varies in zip(args, is_list)]
    return [single(*row, **kwargs) for row in zip(*columns)]


def foreach_decompositions() -> dict[torch._ops.OpOverload, Callable]:
    """For every functional overload of every aten._foreach operator."""
    qualified = (name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::_foreach_"))
    found = {}
    for name, _, overload_name in (text.partition(".") for text in qualified):
        overload = getattr(getattr(aten, name), overload_name or "default")
        if not overload._schema.is_mutable and (name.removeprefix("_foreach_") in SINGLE or hasattr(aten, name.removeprefix("_foreach_"))):
            found[overload] = _decomposition(name.removeprefix("_foreach_"), overload)
    return found


def _decomposition(name: str, overload: torch._ops.OpOverload) -> Callable:
    single = SINGLE[name] if name in SINGLE else getattr(aten, name)
    is_list = tuple("List" in str(argument.type) for argument in overload._schema.arguments)
    # addcmul's and addcdiv's tensor of scalars has one for each position
    is_list = tuple(varies or (argument.name == "scalars") for varies, argument in zip(is_list, overload._schema.arguments))
    return functools.partial(_apply, single, is_list)
