"""prepare: what depends on constants alone runs once, equal work on equal constants one time for all its readers."""

from __future__ import annotations

from accel.csrc.machine import resolve_machine
from accel.lowering.kernel_writer import BoundKernel
from accel.lowering.fuse import Group, Schedule
from accel.lowering.pipeline import vectorize
from accel.lowering.prepare import place_prepared, split_prepared
from accel.lowering.tensor_ir import Buffer, Const, Load, Map, Op, Target

HOST = resolve_machine("host")


def buffer(name: str, kind: str = "temp") -> Buffer:
    return Buffer(name, "f32", (64,), (1,), kind)


def scaled(source: Buffer, target: Buffer, factor: float = 2.0) -> BoundKernel:
    """target = source * factor."""
    expr = Op("mul", (Load(source, 0, (1,)), Const(factor, "f32")), "f32")
    group = Group((64,), (), (Map(Target(target, 0, (1,)), (64,), expr),), frozenset((target,)))
    (kernel,) = vectorize(Schedule("scaled", (group,)), HOST)
    return kernel


def test_equal_work_on_one_constant_is_shared_by_its_readers():
    weight, out = buffer("weight", "const"), [buffer(f"out{i}", "output") for i in range(2)]
    packed, refined = [buffer(f"packed{i}") for i in range(2)], [buffer(f"refined{i}") for i in range(2)]
    kernels = [k for i in range(2) for k in (scaled(weight, packed[i]), scaled(packed[i], refined[i], 3.0), scaled(refined[i], out[i]))]
    once, always = split_prepared(kernels, frozenset((weight,)), frozenset(out))
    assert [kernel.arguments for kernel in once] == [(weight, packed[0]), (packed[0], refined[0])]
    assert [kernel.arguments for kernel in always] == [(refined[0], out[0]), (refined[0], out[1])]
    assert all(kernel.reads == {refined[0]} for kernel in always)
    assert place_prepared(once, 2) == ({packed[0]: 0, refined[0]: 256}, 512)


def test_other_work_and_other_constants_are_not_shared():
    weights, packed, out = [buffer(f"weight{i}", "const") for i in range(2)], [buffer(f"packed{i}") for i in range(3)], buffer("out", "output")
    made = [scaled(weights[0], packed[0]), scaled(weights[1], packed[1]), scaled(weights[0], packed[2], 3.0)]
    once, always = split_prepared([*made, *(scaled(one, out) for one in packed)], frozenset(weights), frozenset((out,)))
    assert [kernel.arguments for kernel in once] == [kernel.arguments for kernel in made]
    assert [kernel.arguments[0] for kernel in always] == packed


def test_a_buffer_that_several_kernels_fill_is_not_shared():
    weights, joined, out = [buffer(f"weight{i}", "const") for i in range(3)], [buffer(f"joined{i}") for i in range(2)], buffer("out", "output")
    made = [scaled(weights[0], joined[0]), scaled(weights[1], joined[0]), scaled(weights[0], joined[1]), scaled(weights[2], joined[1])]
    once, always = split_prepared([*made, *(scaled(one, out) for one in joined)], frozenset(weights), frozenset((out,)))
    assert once == made and [kernel.arguments[0] for kernel in always] == joined
