"""trial: made-up operands that a kernel takes, and a verdict that noise cannot turn. No test here depends on how long anything takes."""

from __future__ import annotations

import random

import pytest
import torch

from accel.csrc.abi import PartitionSource, TensorArg
from accel.runtime import trial
from accel.runtime.build import build
from accel.runtime.trial import Trial, fastest, made_up_calls

HEAD = '#include "dvx.h"\n#include "dvx_runtime.h"\n\n__attribute__((visibility("default")))\nint32_t accel_main(void *const *buffers, const int64_t *sizes, char *arena, const dvx_runtime *rt)\n'


def measured(true_seconds, noise=0.0, seed=0):
    """A `measure` that draws samples around `true_seconds`, which lists one number per call."""
    draws = random.Random(seed)

    def measure(calls, rounds):
        return [[true_seconds[call] * (1 + noise * draws.random()) for _ in range(rounds)] for call in calls]

    return measure


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([1.0, 1.2, 0.5, 0.7], 2), ([1.0, 1.2, 2.0], 0), ([1.0, 0.99, 0.98], 0), ([1.0], 0)],
    ids=["clearly faster", "slower", "within the margin", "nothing else"],
)
def test_another_choice_needs_a_margin(seconds, expected):
    chosen, gain = fastest(range(len(seconds)), measured(seconds))
    assert chosen == expected
    assert gain == pytest.approx(1 - seconds[chosen])


@pytest.mark.parametrize("seed", range(20))
def test_noise_turns_no_verdict_against_the_default(seed):
    assert fastest(range(8), measured([1.0] * 8, noise=0.5, seed=seed)) == (0, 0.0)


def test_what_is_much_faster_is_found_in_noise():
    assert fastest(range(3), measured([1.0, 1.0, 0.4], noise=0.5))[0] == 2


def test_a_lucky_screening_is_not_believed():
    """The final measurement is another one: what was fast in the first and is not in the second is not chosen."""
    samples = iter([[[1.0] * 5, [0.5] * 5], [[1.0] * 5, [1.0] * 5]])
    assert fastest(range(2), lambda calls, rounds: next(samples)) == (0, 0.0)


def test_calls_are_timed_in_turn(monkeypatch):
    monkeypatch.setattr(trial, "LEAST_SECONDS", 0.0)
    order = []
    samples = trial.time_in_turn([lambda: order.append("a"), lambda: order.append("b")], 4)
    assert "".join(order) == "ab" * 5  # the first of each is no sample
    assert [len(taken) for taken in samples] == [4, 4] and all(seconds >= 0 for taken in samples for seconds in taken)


def test_made_up_operands_have_the_manifest_s_shapes_and_may_be_constant():
    """out[i] = table[index[i]] + bias, the bias taken as a constant; the kernel refuses an index out of range."""
    body = """{
        const float *table = buffers[0]; const int64_t *index = buffers[1]; const float *bias = buffers[2]; float *out = buffers[3];
        (void)arena; (void)rt;
        for (int64_t i = 0; i < sizes[0]; ++i) {
            if (index[i] < 0 || index[i] >= 3) return 1;
            out[i] = table[2 * index[i]] + bias[0];
        }
        return 0;
    }"""
    arguments = (TensorArg("table", "f32", (3, "s0"), (2, 1)), TensorArg("index", "i64", ("s0",), (1,)), TensorArg("bias", "f32", (1,), (1,)))
    source = PartitionSource("gather", (("gather.c", HEAD + body),), 16, arguments, (TensorArg("out", "f32", ("s0",), (1,)),), symbols=("s0",))
    call, again = made_up_calls([Trial(source, build(source), (2,))] * 2, {"s0": 5}, 1)
    (first,), (second,) = call(), again()
    assert first.shape == (5,) and torch.equal(first, second)
    assert (first >= 0).all() and (first <= 2).all()
