"""Scratch memory for partitions: blocks that are lent to a call and come back, so that calls allocate nothing.

A call takes one block for as long as it runs; concurrent calls hold different blocks. A block that is too small for the
next taker is dropped and replaced by one of the largest size asked for so far.
"""

from __future__ import annotations

import torch

from .huge_pages import HAS_HUGE_PAGES, HUGE_PAGE_BYTES, map_huge_pages

__all__ = ["ALIGNMENT_BYTES", "Arena", "Block"]

ALIGNMENT_BYTES = 64


class Block:
    """`n_bytes` bytes at `address`, which is a multiple of ALIGNMENT_BYTES; on huge pages where it is large and the system has them."""

    __slots__ = ("address", "memory", "n_bytes")

    def __init__(self, n_bytes: int):
        self.n_bytes = n_bytes
        is_huge = HAS_HUGE_PAGES and n_bytes >= HUGE_PAGE_BYTES
        alignment = HUGE_PAGE_BYTES if is_huge else ALIGNMENT_BYTES
        self.memory = map_huge_pages(n_bytes + alignment) if is_huge else torch.empty(n_bytes + alignment, dtype=torch.uint8)
        self.address = -(-self.memory.data_ptr() // alignment) * alignment


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
