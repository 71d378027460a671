"""Schedules that a search may choose: every one of them computes what eager does."""

from __future__ import annotations

import pytest
import torch
from value_programs import MACHINES, runner_of, schedule_values

from accel.lowering import registry, write_partition
from accel.lowering.choices import alone, open_choices, with_choices

aten = torch.ops.aten


def lower(op):
    return registry.find(op).function


def linear(g, x, w, b):
    return g.map("maximum", lower(aten.addmm.default)(g, b, x, w.permute([1, 0])), g.constant(0.0, "f32"))


def eager_linear(x, w, b):
    return torch.relu(x @ w.t() + b)


def linear_tensors(rows, depth, columns):
    torch.manual_seed(0)
    return torch.randn(rows, depth), torch.randn(columns, depth), torch.randn(columns)


def conv(stride=1, groups=1):
    def program(g, x, w, b):
        return g.map("maximum", lower(aten.convolution.default)(g, x, w, b, [stride] * 2, [1, 1], [1, 1], False, [0, 0], groups), g.constant(0.0, "f32"))

    return program, lambda x, w, b: torch.relu(torch.conv2d(x, w, b, stride, 1, 1, groups))


def conv_tensors(batch, channels, columns, side, groups=1):
    torch.manual_seed(0)
    return torch.randn(batch, channels, side, side), torch.randn(columns, channels // groups, 3, 3) / 9, torch.randn(columns)


def attention(g, q, k, v):
    return lower(aten._scaled_dot_product_flash_attention_for_cpu.default)(g, q, k, v)[0]


# name: (program, the same in eager, tensors)
PROGRAMS = {
    "a row": (linear, eager_linear, linear_tensors(1, 70, 45)),
    "few rows": (linear, eager_linear, linear_tensors(13, 70, 45)),
    "few columns": (linear, eager_linear, linear_tensors(45, 70, 3)),
    "many of both": (linear, eager_linear, linear_tensors(131, 33, 141)),
    "columns contiguous": (lambda g, a, b: lower(aten.bmm.default)(g, a, b), torch.bmm, (torch.randn(3, 9, 40), torch.randn(3, 40, 37))),
    "a convolution that Winograd's algorithm takes": (*conv(), conv_tensors(2, 37, 45, 9)),
    "a strided, grouped convolution": (*conv(2, 2), conv_tensors(2, 6, 38, 9, 2)),
    "attention": (attention, torch.nn.functional.scaled_dot_product_attention, tuple(torch.randn(2, 3, 70, 20) for _ in range(3))),
    "attention of few queries": (attention, torch.nn.functional.scaled_dot_product_attention, tuple(torch.randn(2, 3, n, 32) for n in (2, 300, 300))),
}  # fmt: skip


@pytest.mark.parametrize("machine", ["lanes16", "dvx-m16"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_choice_computes_the_same(name, machine):
    program, eager, tensors = PROGRAMS[name]
    scheduled = schedule_values(program, tensors, MACHINES[machine])
    (question,) = open_choices(scheduled)
    assert len(set(question.choices)) == len(question.choices) > 1
    for choice in question.choices:
        result, = runner_of(write_partition(with_choices(scheduled, {question.positions[0]: choice})))(*tensors)
        torch.testing.assert_close(result, eager(*tensors), rtol=2e-5, atol=2e-4, msg=lambda text: f"{choice}: {text}")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_first_choice_is_what_is_written_without_one(name):
    program, _, tensors = PROGRAMS[name]
    scheduled = schedule_values(program, tensors, MACHINES["lanes16"])
    (question,) = open_choices(scheduled)
    chosen = with_choices(scheduled, {question.positions[0]: question.choices[0]})
    assert write_partition(chosen).source == write_partition(scheduled).source


def test_a_kernel_alone_has_the_operands_of_its_group():
    x, w, b = linear_tensors(13, 70, 45)
    scheduled = schedule_values(linear, (x, w, b), MACHINES["lanes8"], {13: "s0"})
    (question,) = open_choices(scheduled)
    partition = write_partition(alone(scheduled, question.group, question.choices[-1]))
    assert sorted(argument.name for argument in partition.source.inputs) == ["x0", "x1", "x2"]
    assert partition.source.symbols == ("s0",)
    tensors = {"x0": x, "x1": w, "x2": b}
    result, = runner_of(partition, (13,))(*(tensors[argument.name] for argument in partition.source.inputs))
    torch.testing.assert_close(result, eager_linear(x, w, b), rtol=2e-5, atol=2e-4)


def test_equal_kernels_are_one_question_and_have_one_text():
    def twice(g, x, w, b):
        g.origin = ("first",)
        hidden = g.realize(linear(g, g.realize(g.map("neg", x)), w, b))
        g.origin = ("second",)
        return linear(g, hidden, w, b)

    scheduled = schedule_values(twice, linear_tensors(9, 24, 24), MACHINES["lanes8"])
    (question,) = open_choices(scheduled)
    assert len(question.positions) == 2
    chosen = with_choices(scheduled, dict.fromkeys(question.positions, question.choices[-1]))
    assert len({kernel.name for kernel in write_partition(chosen).distinct}) == len(write_partition(chosen).distinct)
    assert all(str(question.choices[-1]) in line for line in write_partition(chosen).texts["schedule"].splitlines() if line.startswith("  gemm"))
    texts = {write_partition(alone(scheduled, scheduled.schedule.groups[at], question.choices[0])).source.units for at in question.positions}
    assert len(texts) == 1


def test_panels_of_constants_are_packed_once():
    """A kernel alone knows which operands are constant, so that their packing is not timed."""
    scheduled = schedule_values(linear, linear_tensors(64, 70, 45), MACHINES["lanes16"], constants=(1, 2))
    (question,) = open_choices(scheduled)
    ahead = next(choice for choice in question.choices if choice.way == "packed ahead")
    assert write_partition(alone(scheduled, question.group, ahead)).source.prepared_bytes > 0
