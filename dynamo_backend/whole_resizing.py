"""Resizing (F.interpolate) reaches the graph as one operator, with known sizes.

Under torch's tracing, these operators are taken apart above autograd, where a table of decompositions comes too late: into
index tensors, of which no lowering can tell that neighbours are read. torch.export keeps operators whole in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch._C import DispatchKey
from torch._decomp import decomposition_table
from torch._decomp.decompositions import upsample_compute_output_size

__all__ = ["resizing_forms", "resizing_stays_whole"]

aten = torch.ops.aten
PACKETS = tuple(getattr(aten, name) for name in (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
    "upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
))  # fmt: skip
TAKEN_APART = (DispatchKey.Autograd, DispatchKey.CompositeImplicitAutograd)


@contextlib.contextmanager
def resizing_stays_whole(example_inputs: Sequence) -> Iterator[None]:
    """While it lasts, torch's tracing leaves the operators as they are; not where an input has a symbolic size, which only the parts can have.

    Dynamo compiles one graph at a time, and nothing but tracing reads what is replaced here.
    """
    if any(_is_symbolic(value) for value in example_inputs):
        yield
        return
    overloads = {packet: (packet.default, packet.vec) for packet in PACKETS}
    kept = {op: dict(op.py_kernels) for pair in overloads.values() for op in pair}
    try:
        for packet, pair in overloads.items():
            for op in pair:
                _replace(op, {key: kernel for key, kernel in kept[op].items() if key not in TAKEN_APART})
            _replace(packet.vec, packet.vec.py_kernels | dict.fromkeys(TAKEN_APART, _with_size(packet)))
        yield
    finally:
        for op, kernels in kept.items():
            _replace(op, kernels)


def _is_symbolic(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return any(isinstance(size, torch.SymInt) for size in value.shape)
    return isinstance(value, (torch.SymInt, torch.SymFloat))


def _replace(op: torch._ops.OpOverload, kernels: dict) -> None:
    op.py_kernels.clear()
    op.py_kernels.update(kernels)
    op._dispatch_cache.clear()


def _with_size(packet: torch._ops.OpOverloadPacket) -> Callable:
    """The overload that takes a size or factors, by the one that takes both; in parts where nothing is resized (some fake tensors fail on it), or sizes are not known."""

    def resize(x, output_size, *options):
        *alignment, factors = options
        size = upsample_compute_output_size(x.size(), output_size, factors)
        if not all(isinstance(side, int) for side in (*x.shape, *size)) or 0 in x.shape:
            return decomposition_table[packet.default](x, size, *alignment, *(factors or []))
        return packet.default(x, size, *alignment, *(factors or [None] * len(size)))

    return resize


def _of_floats(op: torch._ops.OpOverload) -> Callable:
    """`op` in parts for integers, which the lowering of interpolation does not take."""

    def decomposed(x, *args, **kwargs):
        return NotImplemented if x.dtype.is_floating_point else decomposition_table[op](x, *args, **kwargs)

    return decomposed


def resizing_forms() -> dict[torch._ops.OpOverload, Callable]:
    """Decompositions of what the lowerings do not take."""
    smooth = (aten.upsample_bilinear2d.default, aten.upsample_bicubic2d.default)
    return {op: _of_floats(op) for op in smooth}
