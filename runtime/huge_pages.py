"""Huge pages for large memory: a fresh page costs about a microsecond, and a kernel that streams waits for page tables.

A tensor of 32 MB from torch's allocator is 8192 fresh pages of 4 KB: writing it first takes five times as long as writing it again.
"""

from __future__ import annotations

import ctypes
import mmap

import torch
from torch import Tensor

__all__ = ["HAS_HUGE_PAGES", "HUGE_PAGE_BYTES", "advise_huge_pages", "is_large", "map_huge_pages"]

HUGE_PAGE_BYTES = 2 << 20  # x86-64's, and AArch64's with pages of 4 KB
HAS_HUGE_PAGES = hasattr(mmap, "MADV_HUGEPAGE")


def is_large(n_bytes: int) -> bool:
    """Whether memory of `n_bytes` holds at least one whole huge page wherever it begins."""
    return HAS_HUGE_PAGES and n_bytes >= 2 * HUGE_PAGE_BYTES


def map_huge_pages(n_bytes: int) -> Tensor:
    """Fresh memory as a tensor of bytes, in huge pages where it is large."""
    memory = torch.frombuffer(mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8)
    advise_huge_pages(memory)
    return memory


def advise_huge_pages(tensor: Tensor) -> None:
    """Asks the system to use huge pages for what nothing has touched yet of a large tensor's memory.

    Does nothing where the tensor is not large, or the system has no such pages or is told not to use them.
    """
    if is_large(tensor.nbytes):
        storage = tensor.untyped_storage()
        first = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (storage.data_ptr() + storage.nbytes()) // mmap.PAGESIZE * mmap.PAGESIZE
        _madvise(first, end - first, mmap.MADV_HUGEPAGE)


if HAS_HUGE_PAGES:  # the C library's: the mmap module has one for its own memory only. A kernel without huge pages returns an error.
    _madvise = ctypes.CDLL(None).madvise
    _madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
