"""Memory planning: what lives together never overlaps, and the arena stays near the largest live set."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from accel.lowering.index_expr import symbol
from accel.lowering.kernel_writer import BoundKernel
from accel.lowering.memory import plan_memory
from accel.lowering.tensor_ir import Buffer

lifetimes = st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=24)


def kernels_of(lives):
    buffers = [(Buffer(f"t{i}", "f32", (n,), (1,)), min(a, b), max(a, b)) for i, (n, a, b) in enumerate(lives)]
    return buffers, [BoundKernel(None, "map", tuple(b for b, first, last in buffers if first <= k <= last), frozenset(), frozenset()) for k in range(12)]


@given(lifetimes)
def test_live_buffers_do_not_overlap(lives):
    buffers, kernels = kernels_of(lives)
    arena = plan_memory(kernels, 1)
    spans = [(arena.offsets[b], arena.offsets[b] + b.n_elements * 4, first, last) for b, first, last in buffers]
    for (a0, a1, af, al), (b0, b1, bf, bl) in itertools.combinations(spans, 2):
        assert a1 <= b0 or b1 <= a0 or al < bf or bl < af
    assert arena.largest_live <= arena.size <= arena.naive
    assert all(offset % 64 == 0 for offset in arena.offsets.values())


def test_a_chain_needs_two_slots():
    buffers, kernels = kernels_of([(1000, i, i + 1) for i in range(10)])
    assert plan_memory(kernels, 1).size == 2 * 4032


def test_symbolic_buffers_share_slots_of_equal_size():
    s = symbol("s")
    a, b, c = (Buffer(name, "f32", (s, 16), (16, 1)) for name in "abc")
    order = [(a,), (a, b), (b, c), (c,)]
    arena = plan_memory([BoundKernel(None, "map", k, frozenset(), frozenset()) for k in order], 1)
    assert arena.offsets[a] == arena.offsets[c] == 0 and arena.offsets[b] == s * 64 and arena.size == s * 128
