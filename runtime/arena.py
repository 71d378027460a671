"""Scratch memory for partitions: blocks that are lent to a call and come back, so that calls allocate nothing.

A call takes one block for as long as it runs; concurrent calls hold different blocks. A block that is too small for the
next taker is dropped and replaced by one of the largest size asked for so far.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

__all__ = ["ALIGNMENT_BYTES", "Arena", "Block"]

ALIGNMENT_BYTES = 64
HUGE_PAGE_BYTES = 2 << 20  # x86-64's, and AArch64's with pages of 4 KB


class Block:
    """`n_bytes` bytes at `address`, which is a multiple of ALIGNMENT_BYTES; on huge pages where it is large and the system has them."""

    __slots__ = ("address", "memory", "n_bytes")

    def __init__(self, n_bytes: int):
        self.n_bytes = n_bytes
        is_huge = n_bytes >= HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE")
        alignment = HUGE_PAGE_BYTES if is_huge else ALIGNMENT_BYTES
        self.memory = _huge_pages(n_bytes + alignment) if is_huge else torch.empty(n_bytes + alignment, dtype=torch.uint8)
        self.address = -(-self.memory.data_ptr() // alignment) * alignment


def _huge_pages(n_bytes: int) -> Tensor:
    """Memory for which the system is asked to use huge pages: a kernel that streams packed weights waits for page tables otherwise."""
    memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        pass  # a kernel without them: pages of the usual size serve
    return torch.frombuffer(memory, dtype=torch.uint8)


class Arena:
    """A pool of blocks, safe to use from many threads: list.pop and list.append are atomic."""

    def __init__(self):
        self._free: list[Block] = []
        self._largest_bytes = 0

    def take(self, n_bytes: int) -> Block:
        """A block of at least `n_bytes`, for the caller alone until `give`."""
        try:
            block = self._free.pop()
            if block.n_bytes >= n_bytes:
                return block
        except IndexError:
            pass  # every block is lent
        self._largest_bytes = max(self._largest_bytes, n_bytes)
        return Block(self._largest_bytes)

    def give(self, block: Block) -> None:
        """Return a block; its bytes may be overwritten from now on."""
        self._free.append(block)

    def release(self) -> None:
        """Free all blocks that are not lent, and forget the largest size."""
        self._free.clear()
        self._largest_bytes = 0

    def held_bytes(self) -> int:
        """Bytes of the blocks that are not lent."""
        return sum(block.n_bytes for block in self._free)
