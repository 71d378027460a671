"""Whether what a compiled function did is what eager does: values, dtypes, shapes, strides, aliases, mutations.

Two Runs of the same call -> a sentence about the first difference, or None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

__all__ = ["ROUNDING", "Run", "copy_tensors", "difference", "run_call", "value_difference"]

# dtype: (relative, absolute) difference that counts as rounding at once. They are torch.testing's own; a larger difference is
# looked at again against float64 (`value_difference`).
ROUNDING = {
    torch.float64: (1e-7, 1e-7),  # eager's own special functions differ by this from vectorized ones
    torch.float32: (1.3e-6, 1e-5),
    torch.float16: (1e-3, 1e-5),  # one unit in the last place is 2**-10
    torch.bfloat16: (1.6e-2, 1e-5),  # 2**-7
}

# Another order of summation errs about as much as eager does, in another direction; ten times that is still rounding.
ROUNDING_FACTOR = 10
EXACT_RUNS_IN = torch.float64


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a call.

    Attributes:
        inputs: the tensors given and those that the function owns, as they were left.   outputs: every tensor returned, nesting taken away.
        others: what else was returned, with the types of all containers.
    """

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    others: str


def copy_tensors(tensors: Sequence[torch.Tensor], dtype: torch.dtype | None = None) -> tuple[torch.Tensor, ...]:
    """Copies with the same strides, offsets and shared storages; floating-point ones are converted to `dtype` if given."""
    storages: dict[int, torch.Tensor] = {}
    copies = []
    for tensor in tensors:
        plain = tensor.detach()
        if plain.layout != torch.strided:
            copies.append((plain.to(dtype) if dtype is not None else plain.clone()).requires_grad_(tensor.requires_grad))
            continue
        key = plain.untyped_storage()._cdata
        if key not in storages:
            whole = plain.new_empty(0).set_(plain.untyped_storage())
            storages[key] = whole.to(dtype) if dtype is not None and whole.is_floating_point() else whole.clone()
        copies.append(storages[key].as_strided(plain.shape, plain.stride(), plain.storage_offset()).requires_grad_(tensor.requires_grad))
    return tuple(copies)


def run_call(function: Callable, tensors: Sequence[torch.Tensor], owned: Sequence[torch.Tensor] = (), *, is_backward: bool = False, seed: int = 0) -> Run:
    """Call `function` on `tensors`; with `is_backward` also the gradients of its outputs, which count as outputs.

    Args: owned: tensors that the function keeps (parameters and buffers of a module): they count as inputs.
    """
    torch.manual_seed(seed)
    returned = function(*tensors)
    inputs = (*tensors, *owned)
    outputs: list[torch.Tensor] = []
    others = _flatten(returned, outputs)
    if is_backward:
        outputs += _gradients(outputs, inputs)
    return Run(inputs, tuple(outputs), others)


def _flatten(value: object, outputs: list[torch.Tensor]) -> str:
    """Collect tensors in `outputs`; what remains as text."""
    if isinstance(value, torch.Tensor):
        outputs.append(value)
        return "tensor"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_flatten(item, outputs)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(_flatten(item, outputs) for item in value)})"
    return repr(value)


def _gradients(outputs: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients of every tensor that asks for one, of a fixed random cotangent; zeros of no size where there is none."""
    ends = [output for output in outputs if output.requires_grad]
    starts = [tensor for tensor in tensors if tensor.requires_grad]
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(end.shape, generator=generator, dtype=torch.float64).to(end.dtype) for end in ends]
    if not ends or not starts:
        return []
    found = torch.autograd.grad(ends, starts, cotangents, allow_unused=True)
    return [gradient if gradient is not None else torch.zeros(0) for gradient in found]


def difference(expected: Run, got: Run, exact: Callable[[], Run | None] | None = None, *, values: bool = True, aliases: bool = True) -> str | None:
    """The first difference between two runs, as a sentence.

    Args:
        exact: makes the same run in float64, asked for only where the two differ by more than ROUNDING.
        values: whether values are compared; not those of random numbers and of uninitialized memory.
        aliases: whether shared storage is compared; not that of operators whose schema leaves it open.
    """
    if expected.others != got.others or len(expected.outputs) != len(got.outputs):
        return f"returned {got.others}, expected {expected.others}"
    pairs = [(f"output {i}", *pair) for i, pair in enumerate(zip(expected.outputs, got.outputs))]
    pairs += [(f"input {i} after the call", *pair) for i, pair in enumerate(zip(expected.inputs, got.inputs))]
    for what, eager, compiled in pairs:
        if (found := _form_difference(eager, compiled)) is not None:
            return f"{what}: {found}"
    if aliases and (found := _alias_difference(expected, got)) is not None:
        return found
    return _first_value_difference(pairs, exact) if values else None


def _form_difference(eager: torch.Tensor, compiled: torch.Tensor) -> str | None:
    if eager.dtype != compiled.dtype:
        return f"dtype {compiled.dtype}, expected {eager.dtype}"
    if eager.shape != compiled.shape:
        return f"shape {tuple(compiled.shape)}, expected {tuple(eager.shape)}"
    if eager.requires_grad != compiled.requires_grad:
        return f"requires_grad {compiled.requires_grad}, expected {eager.requires_grad}"
    if eager.layout != compiled.layout:
        return f"layout {compiled.layout}, expected {eager.layout}"
    if eager.layout == torch.strided and _strides_that_matter(eager) != _strides_that_matter(compiled):
        return f"strides {compiled.stride()}, expected {eager.stride()} for shape {tuple(eager.shape)}"
    return None


def _strides_that_matter(tensor: torch.Tensor) -> list[int]:
    """Strides of dims that are stepped along: none in an empty tensor."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride()) if size > 1] if tensor.numel() else []


def _alias_difference(expected: Run, got: Run) -> str | None:
    """Outputs must share storage, at the same offset, with the same inputs and outputs."""
    ours, theirs = _sharing(got), _sharing(expected)
    for index, (compiled, eager) in enumerate(zip(ours, theirs)):
        if compiled != eager:
            return f"output {index} {_shares(compiled)}, expected that it {_shares(eager)}"
    return None


def _sharing(run: Run) -> list[tuple[str, int] | None]:
    """Per output the first tensor before it with the same storage, and its offset in it."""
    seen: dict[int, str] = {}
    for index, tensor in enumerate(run.inputs):
        if tensor.layout == torch.strided:
            seen.setdefault(_storage(tensor), f"input {index}")
    found = []
    for index, tensor in enumerate(run.outputs):
        if tensor.layout != torch.strided or tensor.numel() == 0:
            found.append(None)
            continue
        owner = seen.setdefault(_storage(tensor), f"output {index}")
        found.append(None if owner == f"output {index}" else (owner, tensor.storage_offset()))
    return found


def _storage(tensor: torch.Tensor) -> int:
    if tensor._is_zerotensor():  # a gradient that autograd knows to be zero: it has no memory
        return id(tensor)
    return tensor.untyped_storage().data_ptr() or id(tensor)


def _shares(owner: tuple[str, int] | None) -> str:
    return "shares no storage" if owner is None else f"shares storage with {owner[0]} at offset {owner[1]}"


def _first_value_difference(pairs: Sequence[tuple[str, torch.Tensor, torch.Tensor]], exact: Callable[[], Run] | None) -> str | None:
    reference: Run | None = None
    for index, (what, eager, compiled) in enumerate(pairs):
        if value_difference(eager, compiled) is None:
            continue
        if reference is None and exact is not None:
            reference = exact()
        true = (*reference.outputs, *reference.inputs)[index] if reference is not None else None
        if (found := value_difference(eager, compiled, true)) is not None:
            return f"{what}: {found}"
    return None


def value_difference(eager: torch.Tensor, compiled: torch.Tensor, exact: torch.Tensor | None = None) -> str | None:
    """How the values differ beyond rounding, or None.

    Rounding is: bit-equal or both NaN; within ROUNDING; or, where `exact` holds the same values computed in float64, no
    further from it than 10 times eager's own largest error, or 10 units in the last place of the largest value.
    """
    eager, compiled = _plain(eager), _plain(compiled)
    if eager.layout != torch.strided:
        eager, compiled = eager.to_dense(), compiled.to_dense()
    relative, absolute = ROUNDING.get(eager.dtype, (1.3e-6, 1e-5) if eager.is_complex() else (0.0, 0.0))
    is_close = torch.isclose(compiled, eager, rtol=relative, atol=absolute, equal_nan=True)
    if bool(is_close.all()):
        return None
    if exact is not None and _errs_like_eager(eager, compiled, _plain(exact)):
        return None
    index = tuple(torch.nonzero(~is_close)[0].tolist())
    n_wrong = int((~is_close).sum())
    return f"{compiled[index].item()} at {list(index)}, expected {eager[index].item()}; {n_wrong} of {eager.numel()} differ"


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().resolve_conj().resolve_neg()


def _errs_like_eager(eager: torch.Tensor, compiled: torch.Tensor, exact: torch.Tensor) -> bool:
    # A function that casts to float32 itself gives float32 there, too: after half types that is exact enough.
    if not eager.is_floating_point() or exact.shape != eager.shape or exact.dtype not in (EXACT_RUNS_IN, torch.float32):
        return False
    finite = torch.isfinite(exact) & torch.isfinite(eager)
    is_same_elsewhere = torch.isclose(compiled, eager, rtol=0, atol=0, equal_nan=True) | finite
    if not bool(is_same_elsewhere.all()) or not bool(finite.any()) or not bool(torch.isfinite(compiled[finite]).all()):
        return False
    true = exact[finite].double()
    unit = torch.finfo(eager.dtype).eps * true.abs().max().item()
    allowed = ROUNDING_FACTOR * max((eager[finite].double() - true).abs().max().item(), unit)
    return (compiled[finite].double() - true).abs().max().item() <= allowed
