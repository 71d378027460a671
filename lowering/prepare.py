"""What a partition computes once, before its first call: kernels that read constants alone (packed weights), and where their results live.

Calls -> (calls of accel_prepare, calls of accel_main). Equal kernels on equal constants run once and share their result: the steps
of an unrolled recurrent cell read one copy of its weights, which then stays in the near memory.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

from ..csrc.abi import DTYPE_BYTES
from .emit_c import KernelKeys
from .kernel_writer import BoundKernel, Scratch
from .tensor_ir import Buffer

__all__ = ["place_prepared", "split_prepared"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector of a host


def split_prepared(kernels: list[BoundKernel], fixed: frozenset[Buffer], outputs: frozenset[Buffer]) -> tuple[list[BoundKernel], list[BoundKernel]]:
    """Kernels that depend on the buffers `fixed` alone and write temporaries alone, and the rest, both in execution order."""
    once, always, known = [], [], set(fixed)
    for kernel in kernels:
        private = kernel.writes - outputs and all(b.kind == "temp" and b not in outputs for b in kernel.writes)
        if fixed and kernel.reads and kernel.reads <= known and private and not any(kernel.writes & other.writes for other in always):
            once.append(kernel)
            known |= kernel.writes
        else:
            always.append(kernel)
    return _shared(once, always)


def _shared(once: list[BoundKernel], always: list[BoundKernel]) -> tuple[list[BoundKernel], list[BoundKernel]]:
    """The same without once-kernels that compute what an earlier one does: their readers read its result."""
    writers = collections.Counter(buffer for kernel in once for buffer in kernel.writes)
    keys, first, replaced, kept = KernelKeys(), {}, {}, []
    for kernel in once:
        kernel = _with_buffers(kernel, replaced)
        # What several kernels fill together is not shared piece by piece.
        if kernel.reads & kernel.writes or any(writers[buffer] > 1 for buffer in kernel.writes):
            kept.append(kernel)
            continue
        same = first.setdefault((keys[kernel.kernel], *(None if _is_made(a, kernel) else a for a in kernel.arguments)), kernel)
        if same is kernel:
            kept.append(kernel)
        else:
            replaced |= {mine: other for mine, other in zip(kernel.arguments, same.arguments) if mine in kernel.writes}
    return kept, [_with_buffers(kernel, replaced) for kernel in always]


def _is_made(argument: object, kernel: BoundKernel) -> bool:
    return isinstance(argument, Scratch) or isinstance(argument, Buffer) and argument in kernel.writes


def _with_buffers(kernel: BoundKernel, replaced: Mapping[Buffer, Buffer]) -> BoundKernel:
    if not kernel.reads & replaced.keys():
        return kernel
    arguments = tuple(replaced.get(a, a) if isinstance(a, Buffer) else a for a in kernel.arguments)
    return dataclasses.replace(kernel, arguments=arguments, reads=frozenset(replaced.get(b, b) for b in kernel.reads))


def place_prepared(once: list[BoundKernel], n_contexts: int) -> tuple[dict, int]:
    """Offsets of what the once-kernels leave for the others, and the bytes of that memory."""
    offsets, end = {}, 0
    for buffer in dict.fromkeys(b for kernel in once for b in kernel.arguments if isinstance(b, Buffer) and b in kernel.writes):
        offsets[buffer] = end
        end += -(-buffer.n_elements * DTYPE_BYTES[buffer.dtype] // ALIGNMENT) * ALIGNMENT
    for scratch in (a for kernel in once for a in kernel.arguments if isinstance(a, Scratch)):
        offsets[scratch] = end
        end += -(-scratch.elements * 8 // ALIGNMENT) * ALIGNMENT * n_contexts
    return offsets, end
