"""Checks single ATen calls: eager's result against the lowering's, run by the TensorInterpreter.

`LoweringCheck` is a dispatch mode: every ATen call under it that has a lowering is compared, so a plain torch function checks all
overloads that it reaches, those of its backward included.
"""

from __future__ import annotations

import collections

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from accel.lowering import registry
from accel.lowering.values import Graph, Unsupported, Value
from tensor_interpreter import TensorInterpreter

__all__ = ["LoweringCheck", "compare"]

# rtol, atol per dtype: a few roundings of the accumulation order; f16 and bf16 results are rounded once.
TOLERANCES = {torch.float32: (2e-5, 2e-5), torch.float64: (1e-9, 1e-9), torch.float16: (2e-3, 2e-3), torch.bfloat16: (1.6e-2, 1.6e-2)}
UNDEFINED = ("empty", "new_empty")


def compare(expected, got, what: str) -> None:
    """Raises AssertionError where a result differs from eager's in value, dtype or sizes."""
    if isinstance(expected, (list, tuple)):
        assert len(expected) == len(got), f"{what}: {len(got)} results, expected {len(expected)}"
        for i, (e, a) in enumerate(zip(expected, got)):
            compare(e, a, f"{what}[{i}]")
        return
    if not isinstance(expected, torch.Tensor) or got is None:
        return
    assert got.dtype == expected.dtype, f"{what}: dtype {got.dtype}, expected {expected.dtype}"
    assert got.shape == expected.shape, f"{what}: sizes {tuple(got.shape)}, expected {tuple(expected.shape)}"
    rtol, atol = TOLERANCES.get(expected.dtype, (0, 0))
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, equal_nan=True, check_stride=False, msg=lambda m: f"{what}: {m}")


class LoweringCheck(TorchDispatchMode):
    """Compares every call whose overload `wanted` accepts; `checked` and `refused` count overloads."""

    def __init__(self, wanted=lambda target: True):
        super().__init__()
        self.wanted = wanted
        self.checked: collections.Counter = collections.Counter()
        self.refused: dict = {}
        self.failures: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        entry = registry.find(func)
        is_checked = entry is not None and self.wanted(func) and not any(func.__name__.startswith(n) for n in UNDEFINED)
        frozen = tree_map(lambda a: a.clone() if isinstance(a, torch.Tensor) and entry.mutates is not None else a, (args, kwargs)) if is_checked else None
        expected = func(*args, **kwargs)
        if is_checked:
            try:
                self._check(func, entry, frozen, expected)
            except Unsupported as reason:
                self.refused.setdefault(str(func), set()).add(str(reason))
            except (AssertionError, NotImplementedError, Exception) as error:  # noqa: BLE001  (collected for the report of the test)
                self.failures.append(f"{func}{_describe(args)} {_describe(kwargs)}: {type(error).__name__}: {error}")
        return expected

    def _check(self, func, entry, frozen, expected) -> None:
        args, kwargs = frozen
        g, machine = Graph(), TensorInterpreter()
        results = expected if isinstance(expected, (list, tuple)) else [expected]
        g.result_sizes = lambda: tuple(tuple(result.shape) for result in results)

        def as_value(a):
            if not isinstance(a, torch.Tensor):
                return a
            value = g.input(f"x{len(g.inputs)}", registry.dtype_name(a.dtype), a.shape, a.stride(), a.storage_offset())
            machine.bind(value.expr.buffer, a)
            return value

        with torch.utils._python_dispatch._disable_current_modes():
            args, kwargs = tree_map(as_value, (args, kwargs))
            result = entry.function(g, *args, **kwargs)
            machine.run(g.statements)
            got = tree_map(lambda v: machine.value(v) if isinstance(v, Value) else v, result)
            compare(expected, got, str(func))
        self.checked[str(func)] += 1


def _describe(args) -> str:
    return str(tree_map(lambda a: f"{str(a.dtype).removeprefix('torch.')}{list(a.shape)}" if isinstance(a, torch.Tensor) else a, args))
