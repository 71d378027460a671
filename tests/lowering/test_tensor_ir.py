"""TensorProgram: strides of views against torch's, refinement of index spaces, and the printed text."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from accel.lowering.index_expr import product, symbol
from accel.lowering.strides import common_refinement, contiguous_strides, view_strides
from accel.lowering.values import Graph

factors = st.lists(st.integers(2, 4), min_size=1, max_size=5)


def merged(sizes, cuts):
    groups, current = [], []
    for size, cut in zip(sizes, cuts):
        current.append(size)
        if cut:
            groups.append(current)
            current = []
    return tuple(product(g) for g in groups + ([current] if current else []))


@given(factors, st.lists(st.booleans(), min_size=5, max_size=5), st.permutations(range(5)))
def test_view_strides_are_torchs(sizes, cuts, order):
    order = [d for d in order if d < len(sizes)]
    source = torch.empty([sizes[d] for d in sorted(order, key=order.index)]).permute([order.index(d) for d in range(len(sizes))])
    target = merged(source.shape, cuts)
    got = view_strides(tuple(source.shape), source.stride(), target)
    try:
        expected = source.view(target).stride()
    except RuntimeError:
        assert got is None
        return
    assert got == expected


@given(factors, st.lists(st.booleans(), min_size=5, max_size=5), st.lists(st.booleans(), min_size=5, max_size=5))
def test_common_refinement_refines_both(sizes, first, second):
    a, b = merged(sizes, first), merged(sizes, second)
    fine = common_refinement(a, b)
    if fine is not None:
        assert view_strides(fine, contiguous_strides(fine), a) is not None and view_strides(fine, contiguous_strides(fine), b) is not None


def test_symbolic_sizes_split_and_merge():
    s = symbol("s")
    assert view_strides((s * 8, 4), (4, 1), (s, 8, 4)) == (32, 4, 1)
    assert view_strides((s, 8), (8, 1), (s * 8,)) == (1,)
    assert common_refinement((s, 128, 768), (s * 128, 768)) == (s, 128, 768)


def test_views_of_a_lazy_value_cost_no_statement():
    g = Graph()
    x = g.input("x", "f32", (4, 6), (6, 1))
    y = g.map("add", x, g.constant(1.0, "f32")).permute([1, 0]).slice(0, 1, 5, 2).unsqueeze(0).expand((3, 2, 4)).flip([2])
    assert g.statements == [] and y.sizes == (3, 2, 4)
    (load,) = [e for e in y.expr.args if hasattr(e, "buffer")]
    assert (load.offset, load.strides) == (1 + 3 * 6, (0, 2, -6))


def test_an_expensive_value_is_computed_before_it_is_broadcast():
    g = Graph()
    x = g.input("x", "f32", (4, 1), (1, 1))
    g.map("exp", x).expand((4, 1000))
    assert len(g.statements) == 1
