"""equal_groups: equal layers are lowered once, and each call keeps its own buffers and origins."""

from accel.csrc.machine import resolve_machine
from accel.lowering.equal_groups import EqualGroups
from accel.lowering.fuse import Group
from accel.lowering.pipeline import _group_kernels
from accel.lowering.tensor_ir import Buffer, Const, Load, Map, Op, Target

HOST = resolve_machine("host")


def scaled_group(number: int, factor: float = 2.0, n: int = 64) -> Group:
    """out = x * factor + x, over names of its own."""
    x, out = Buffer(f"x{number}", "f32", (n,), (1,), "input"), Buffer(f"t{number}", "f32", (n,), (1,))
    load = Load(x, 0, (1,))
    expr = Op("add", (Op("mul", (load, Const(factor, "f32")), "f32"), load), "f32")
    return Group((n,), (), (Map(Target(out, 0, (1,)), (n,), expr, (f"layer_{number}",)),), frozenset((out,)))


def counting() -> tuple[EqualGroups, list[Group]]:
    lowered: list[Group] = []

    def lower(group: Group):
        lowered.append(group)
        return _group_kernels(group, HOST)

    return EqualGroups(lower), lowered


def test_equal_groups_share_a_body_and_keep_their_buffers():
    shared, lowered = counting()
    first, second = scaled_group(1), scaled_group(2)
    (one,), (two,) = shared.kernels(first), shared.kernels(second)
    assert lowered == [first]
    assert one.kernel.body is two.kernel.body
    assert [buffer.name for buffer in two.arguments] == ["x2", "t2"]
    assert {buffer.name for buffer in two.writes} == {"t2"}
    assert two.kernel.origins == ("layer_2",)
    assert "layer_2" in two.kernel.title and "layer_1" not in two.kernel.title


def test_another_constant_size_or_zero_is_another_group():
    shared, lowered = counting()
    for group in (scaled_group(1), scaled_group(2, 3.0), scaled_group(3, n=65), scaled_group(4, 0.0), scaled_group(5, -0.0)):
        shared.kernels(group)
    assert len(lowered) == 5


def test_one_buffer_read_twice_is_not_two_buffers():
    shared, lowered = counting()
    n = 8
    x, y = Buffer("x", "f32", (n,), (1,), "input"), Buffer("y", "f32", (n,), (1,), "input")
    for left, right in ((x, x), (x, y)):
        out = Buffer("t", "f32", (n,), (1,))
        expr = Op("add", (Load(left, 0, (1,)), Load(right, 0, (1,))), "f32")
        shared.kernels(Group((n,), (), (Map(Target(out, 0, (1,)), (n,), expr),), frozenset((out,))))
    assert len(lowered) == 2
