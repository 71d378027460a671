"""The entry point of a partition: which kernels its contexts share, and where they wait for each other."""

from __future__ import annotations

import re

import pytest

from accel.lowering.emit_c import PARALLEL_WORK, SHARED_WORK, Call, emit_partition
from accel.lowering.index_expr import symbol
from accel.lowering.vector_ir import Kernel, Loop, Param


def make_call(name, work, *, parallel=True):
    loop = Loop("i", 0, symbol("s0") + ord(name), 1, (), (), parallel)  # kernels of equal text would share a function
    return Call(Kernel(name, name, (Param("s0", None),), (loop,), 16, work=work), ("s0",))


def entry_steps(*calls):
    """What every context does: "all NAME", "one NAME", "some NAME" (by the sizes) and "wait"; and the work that a team is started from."""
    units, _, _ = emit_partition("p", calls, ("s0",))
    text = units[-1][1]
    body = re.search(r"accel_main_context\(.*?\n\}", text, re.DOTALL)[0]
    forms = ((r"    if \(ctx == 0\) (\w+)_\w+\(&alone", "one"), (r"    ([a-z])_\w+\(team", "all"), (r"    if \(.* >= .*\) (\w+)_\w+\(team", "some"), (r"    dvx_barrier\(", "wait"))
    steps = []
    for line in body.splitlines():
        steps += [" ".join((word, *found.groups())) for form, word in forms if (found := re.match(form, line))]
    total = re.search(rf"&entry, \((.*)\) < INT64_C\({PARALLEL_WORK}\) \? 1 : rt->n_threads", text)[1]
    return steps, total


BIG, SMALL = SHARED_WORK, SHARED_WORK - 1


@pytest.mark.parametrize(
    ("calls", "steps", "total"),
    [
        ([make_call("a", BIG), make_call("b", BIG + 1)], ["all a", "wait", "all b"], str(2 * BIG + 1)),
        ([make_call("a", SMALL), make_call("b", SMALL)], ["one a", "one b"], "0"),
        ([make_call("a", BIG), make_call("b", SMALL), make_call("c", SMALL), make_call("d", BIG)],
         ["all a", "wait", "one b", "one c", "wait", "all d"], str(2 * BIG)),
        ([make_call("a", 10**9, parallel=False), make_call("b", BIG)], ["one a", "wait", "all b"], str(BIG)),
    ],
    ids=["shared", "too little work", "mixed", "nothing to share"],
)  # fmt: skip
def test_contexts_share_what_is_worth_it_and_wait_where_they_must(calls, steps, total):
    assert entry_steps(*calls) == (steps, total)


def test_sizes_decide_where_work_is_not_known():
    steps, total = entry_steps(make_call("a", SMALL), make_call("b", 100 * symbol("s0")), make_call("c", SMALL))
    assert steps == ["one a", "wait", "some b", "wait", "one c"]
    assert total == "s0*100"


def test_partition_without_kernels_runs_on_one_context():
    assert entry_steps() == ([], "0")
