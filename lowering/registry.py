"""The one table of lowerings: ATen (or custom) overload -> function that writes it as primitives. Filled at import, and by users.

An op is native exactly when its lowering returns for the node at hand; `Unsupported` carries the reason otherwise. There is no
second table of predicates.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable

import torch
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as KIND
from torch._prims_common import elementwise_dtypes

from .values import Graph, Unsupported, Value

__all__ = ["DTYPES", "KIND", "Lowering", "all_lowerings", "dtype_name", "find", "lowering", "pointwise", "promote"]

DTYPES = {
    torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16", torch.int64: "i64", torch.int32: "i32",
    torch.int16: "i16", torch.int8: "i8", torch.uint8: "u8", torch.bool: "bool",
}
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Lowering:
    """One entry. function(graph, *args, **kwargs) takes the overload's arguments: a Value for a tensor, a Dim for an int.

    Attributes:
        mutates: index of the tensor argument that the op writes (aten.copy_ and its like), or None.
        fixed: takes the overload's arguments, fake tensors among them, and returns the sizes that must be numbers; or None.
    """

    target: torch._ops.OpOverload
    function: Callable
    mutates: int | None = None
    fixed: Callable[..., Iterable[int | torch.SymInt]] | None = None


_TABLE: dict[torch._ops.OpOverload, Lowering] = {}


def lowering(*targets: torch._ops.OpOverload, mutates: int | None = None, fixed: Callable[..., Iterable] | None = None, replace: bool = False):
    """Decorator: registers a function as the lowering of each overload in `targets`.

    Sizes that `fixed` returns and that are symbolic (dynamic=True) are guarded to be what they are: another value is another graph.

    The function is called as f(graph, *args, **kwargs), returns a Value (or a tuple of them) and raises Unsupported("sentence") for
    arguments that it cannot serve.

    Raises:
        TypeError: a target is not an OpOverload (packets such as torch.ops.aten.add are ambiguous).
        ValueError: a target has a lowering already and `replace` is not set.
    """

    def register(function):
        for target in targets:
            if not isinstance(target, torch._ops.OpOverload):
                raise TypeError(f"lowering targets are overloads such as torch.ops.aten.add.Tensor, got {target!r}")
            if target in _TABLE and not replace:
                other = _TABLE[target].function
                raise ValueError(f"{target} has a lowering already: {other.__module__}.{other.__qualname__}; pass replace=True to override it")
            _TABLE[target] = Lowering(target, function, mutates, fixed)
        return function

    return register


def find(target) -> Lowering | None:
    """The entry for an overload, or None."""
    return _TABLE.get(target)


def all_lowerings() -> tuple[Lowering, ...]:
    """Every entry, sorted by the overload's name."""
    return tuple(sorted(_TABLE.values(), key=lambda entry: str(entry.target)))


def dtype_name(dtype: torch.dtype) -> str:
    """accel's name of a torch dtype.

    Raises:
        Unsupported: DVX has no lanes for it.
    """
    if dtype.is_complex:
        raise Unsupported(f"dtype {str(dtype).removeprefix('torch.')}: complex numbers have no DVX lanes")
    if dtype not in DTYPES:
        raise Unsupported(f"dtype {str(dtype).removeprefix('torch.')} has no DVX lanes")
    return DTYPES[dtype]


@functools.cache
def _promoted(kinds: tuple, kind: KIND) -> tuple[str, str]:
    samples = [torch.empty((1,) if k[1] else (), dtype=TORCH_DTYPES[k[0]], device="meta") if isinstance(k, tuple) else k(1) for k in kinds]
    compute, result = elementwise_dtypes(*samples, type_promotion_kind=kind)
    return dtype_name(compute), dtype_name(result)


def promote(args, kind: KIND = KIND.DEFAULT) -> tuple[str, str]:
    """(compute dtype, result dtype) of a pointwise op on Values and Python numbers, by PyTorch's promotion rules (half types compute in f32)."""
    kinds = tuple((a.dtype, a.rank > 0) if isinstance(a, Value) else bool if isinstance(a, bool) else int if not isinstance(a, float) else float for a in args)
    return _promoted(kinds, kind)


def pointwise(g: Graph, name: str, *args, kind: KIND = KIND.DEFAULT, attrs: tuple = ()) -> Value:
    """Operator `name` of select.py on promoted, broadcast operands (Values or Python numbers), rounded to the promoted result dtype."""
    compute, result = promote(args, kind)
    values = [g.cast(a, compute) if isinstance(a, Value) else g.constant(a, compute) for a in args]
    computed = g.map(name, *values, dtype="bool" if kind is KIND.ALWAYS_BOOL else compute, attrs=attrs)
    return g.cast(computed, result)
