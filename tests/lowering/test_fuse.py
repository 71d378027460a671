"""Fusion: which statements share a kernel, what is stored, and what must not be fused."""

from __future__ import annotations

from accel.lowering.fuse import fuse
from accel.lowering.index_expr import symbol
from accel.lowering.tensor_ir import Target, TensorProgram
from accel.lowering.values import Graph


def schedule(g: Graph, *outputs):
    buffers = tuple(v.expr.buffer for v in outputs)
    return fuse(TensorProgram("p", tuple(g.inputs), buffers, tuple(g.statements)))


def softmax(g: Graph, x):
    peak = g.reduce("max", x, [-1], keepdim=True)
    e = g.realize(g.map("exp", g.map("sub", x, peak)))
    return g.realize(g.map("div", e, g.reduce("sum", e, [-1], keepdim=True)))


def test_softmax_is_one_kernel_that_stores_its_result_alone():
    g = Graph()
    y = softmax(g, g.input("x", "f32", (8, 12, 100), (1200, 100, 1)))
    (group,) = schedule(g, y).groups
    assert group.kind == "rows" and group.outer == (8, 12) and group.row == (100,)
    assert group.stored == {y.expr.buffer}


def test_symbolic_softmax_is_one_kernel():
    g, s = Graph(), symbol("s")
    y = softmax(g, g.input("x", "f32", (s, 100), (100, 1)))
    assert [group.kind for group in schedule(g, y).groups] == ["rows"]


def test_maps_join_across_a_reshape():
    g = Graph()
    x = g.input("x", "f32", (8, 128, 64), (8192, 64, 1))
    a = g.realize(g.map("exp", x))
    b = g.realize(g.map("add", a.reshape((1024, 64)), g.constant(1.0, "f32")))
    (group,) = schedule(g, a, b).groups
    assert len(group.statements) == 2


def test_a_transposed_reader_is_not_fused():
    g = Graph()
    x = g.input("x", "f32", (16, 16), (16, 1))
    a = g.realize(g.map("exp", x))
    b = g.realize(g.map("add", a, a.permute([1, 0])))
    assert len(schedule(g, b).groups) == 2


def test_a_value_that_another_group_reads_is_stored():
    g = Graph()
    x = g.input("x", "f32", (16, 16), (16, 1))
    a = g.realize(g.map("exp", x))
    b = g.realize(g.map("add", a, a))
    c = g.realize(g.map("neg", a.flip([0])))
    groups = schedule(g, b, c).groups
    assert a.expr.buffer in groups[0].stored


def test_a_write_to_an_input_stays_behind_its_readers_and_before_later_ones():
    g = Graph()
    x = g.input("x", "f32", (16, 16), (16, 1))
    a = g.realize(g.map("exp", x.permute([1, 0])))
    g.store(g.map("add", x, g.constant(1.0, "f32")), Target(x.expr.buffer, 0, (16, 1)))
    b = g.realize(g.map("neg", x), strides=(16, 1))
    groups = schedule(g, a, b).groups
    writer = next(i for i, group in enumerate(groups) if x.expr.buffer in group.stored)
    assert writer == 1 and groups[1].stored == {x.expr.buffer, b.expr.buffer}


def test_an_in_place_update_joins_the_maps_that_made_its_value():
    g = Graph()
    p, grad = g.input("p", "f32", (64,), (1,)), g.input("grad", "f32", (64,), (1,))
    new = g.realize(g.map("sub", p, g.map("mul", grad, g.constant(0.1, "f32"))))
    g.store(new, Target(p.expr.buffer, 0, (1,)))
    (group,) = schedule(g).groups
    assert group.stored == {p.expr.buffer}


def test_parts_of_a_concatenation_are_ordered_behind_nothing_but_their_inputs():
    g = Graph()
    x = g.input("x", "f32", (4, 8), (8, 1))
    whole = g.buffer("f32", (8, 8))
    g.store(g.map("exp", x), Target(whole, 0, (8, 1)))
    g.store(g.map("neg", x), Target(whole, 32, (8, 1)))
    y = g.realize(g.map("add", g.read(whole), g.constant(1.0, "f32")))
    groups = schedule(g, y).groups
    assert whole in groups[0].stored and groups[-1].stored == {y.expr.buffer}


def test_what_nobody_reads_is_dropped():
    g = Graph()
    x = g.input("x", "f32", (4,), (1,))
    g.realize(g.map("exp", x))
    y = g.realize(g.map("neg", x))
    (group,) = schedule(g, y).groups
    assert group.stored == {y.expr.buffer}
