"""Blocks are aligned, reused, never lent twice."""

import ctypes
import os
import sys
import threading

import pytest

from accel.runtime.arena import ALIGNMENT_BYTES, Arena
from accel.runtime.huge_pages import HUGE_PAGE_BYTES


def test_take_gives_an_aligned_block():
    arena = Arena()
    for n_bytes in (0, 1, 63, 1000, 1 << 20, 5 << 20):
        block = arena.take(n_bytes)
        assert block.n_bytes >= n_bytes and block.address % ALIGNMENT_BYTES == 0
        first = block.memory.data_ptr()
        assert first <= block.address and block.address + block.n_bytes <= first + block.memory.numel()


def test_take_reuses_what_was_given():
    arena = Arena()
    block = arena.take(100)
    arena.give(block)
    assert arena.take(50) is block
    assert arena.take(50) is not block


def test_take_grows_to_the_largest_size():
    arena = Arena()
    arena.give(arena.take(10))
    arena.give(arena.take(1000))
    assert arena.held_bytes() == 1000
    assert arena.take(10).n_bytes == 1000
    assert arena.take(10).n_bytes == 1000


def test_release_frees_all():
    arena = Arena()
    arena.give(arena.take(1000))
    arena.release()
    assert arena.held_bytes() == 0
    assert arena.take(10).n_bytes == 10


def test_no_block_is_lent_twice():
    arena = Arena()
    lent, twice = set(), []

    def borrow():
        for _ in range(2000):
            block = arena.take(64)
            if block.address in lent:
                twice.append(block)
            lent.add(block.address)
            lent.discard(block.address)
            arena.give(block)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=borrow) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    finally:
        sys.setswitchinterval(interval)
    assert not twice
    assert arena.held_bytes() <= 4 * 64


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_large_block_is_not_shared_with_a_forked_child():
    block = Arena().take(2 * HUGE_PAGE_BYTES)
    block.memory.fill_(1)
    child = os.fork()
    if child == 0:
        ctypes.memset(block.address, 2, 1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0 and block.memory.min() == 1
