"""Counters x block costs: sums by hand, what stays in the near memory, and laws of a measured run."""

from __future__ import annotations

import dataclasses

import pytest

from accel.csrc.costs import BUCKETS, SCALAR_ROW, BlockCost, BufferUse, CallCost, KernelCost, PartitionCost
from accel.csrc.isa import INSTRUCTIONS, lookup
from accel.csrc.machine import Machine
from accel.runtime.profile import CLASSES, PartitionRun, count_instructions, ddr_traffic, measure_run, merge

MACHINE = Machine("m", tcm_bytes=1000, ddr_bytes_per_cycle=4.0, ddr_latency_cycles=10, ddr_pj_per_byte=2.0, static_mw=0.0, clock_mhz=1000)
LOAD, ADD = lookup("vld.sf").index, lookup("vfadd.sf").index


def block(counts, cycles, interval=None, entries=None, near=()):
    interval = interval or cycles
    buckets = (("issue", 1), ("dependency", cycles - 1)) if cycles > 1 else (("issue", 1),)
    tight = (("issue", 1), ("load", interval - 1)) if interval > 1 else (("issue", 1),)
    return BlockCost(tuple(counts.items()), 1, cycles, buckets, interval, tight, entries, 5.0, near, 3)


def use(name, size, kind, reads, writes=False):
    return BufferUse(name, name, size, kind, reads, writes)


HEAD = block({LOAD: 1}, 4, near=(("x", 128),))
BODY = block({LOAD: 2, ADD: 1}, 9, interval=2, entries=(0, 1), near=(("x", 256),))
TAIL = block({SCALAR_ROW: 1}, 3, near=(("y", 8),))
KERNELS = (KernelCost("first", "one", (HEAD, BODY)), KernelCost("second", "two", (TAIL,)))
CALLS = (
    CallCost(0, "first", "map", ("n0",), (use("x", 640, "input", True), use("t", 100, "temp", False, True))),
    CallCost(1, "second", "rows", ("n1",), (use("y", 8, "input", True), use("t", 100, "temp", True), use("o", 8, "output", False, True))),
    CallCost(0, "first", "map", ("n2",), (use("x", 640, "input", True), use("u", 100, "temp", False, True))),
)  # fmt: skip
RUN = PartitionRun("p", PartitionCost(KERNELS, CALLS), (2, 6, 1), {})


def test_instructions_are_executions_times_the_blocks_own():
    counts = count_instructions(KERNELS, RUN.counters)
    assert counts[LOAD] == 2 * 1 + 6 * 2 and counts[ADD] == 6 and counts[SCALAR_ROW] == 1 and sum(counts) == 21


def test_measured_kernel_by_hand():
    (first, second), spans = measure_run(RUN, dataclasses.replace(MACHINE, ddr_bytes_per_cycle=1e9, ddr_latency_cycles=0))
    assert first.calls == 2 and first.instructions == {"vld.sf": 14, "vfadd.sf": 6}
    assert first.cycles == 2 * 4 + 6 * 9 and first.packets == 8
    assert first.buckets == {"issue": 8, "dependency": 2 * 3 + 6 * 8}
    # The loop is entered as often as the block before it runs, twice: 4 executions overlap, 2 fill the pipeline.
    assert first.pipelined_cycles == 2 * 4 + 6 * 2 + 2 * (9 - 2) and first.pipelined_buckets["fill"] == 14
    assert first.near_bytes == 2 * 128 + 6 * 256
    assert second.cycles == 3 and second.classes["scalar"] == 1
    assert [span.cycles for span in spans] == [31, 3, 31] and [span.start for span in spans] == [0, 31, 34]


def test_transfers_beyond_the_computation_are_waited_for():
    (first, _), spans = measure_run(RUN, MACHINE)
    assert spans[0].ddr_bytes == 640 and spans[2].ddr_bytes == 0  # x is near when it is read again
    assert first.ddr_bytes == 640 and first.buckets["ddr"] == 10 + 640 // 4 - 31
    assert first.cycles == sum(first.buckets.values()) == 62 + first.buckets["ddr"]
    assert first.energy_pj == 8 * 5.0 + 640 * 2.0


def test_call_spans_cover_the_cycles_without_gaps():
    kernels, spans = measure_run(PartitionRun("p", RUN.cost, (3, 7, 1), {}), MACHINE)
    assert sum(span.cycles for span in spans) == sum(kernel.cycles for kernel in kernels)
    assert [span.start for span in spans] == [sum(span.cycles for span in spans[:place]) for place in range(3)]


def traffic(calls, near_bytes, symbols=None):
    calls = tuple(CallCost(0, "k", "map", (), buffers) for buffers in calls)
    loaded = [{name: 1e9 for call in calls for name in (buffer.name for buffer in call.buffers)}]
    return ddr_traffic(calls, loaded, near_bytes, symbols or {})


def test_what_stays_near_is_read_once():
    x, out = use("x", 100, "input", True), use("o", 50, "output", False, True)
    assert traffic([(x, out), (x, out)], 1000) == [150, 50]
    assert traffic([(x, out), (x, out)], 90) == [150, 150]


def test_temporaries_go_to_ddr_only_where_they_do_not_fit():
    made, used = use("t", 60, "temp", False, True), use("t", 60, "temp", True)
    big = use("b", 80, "input", True)
    assert traffic([(made,), (used,)], 100) == [0, 0]
    assert traffic([(made,), (big,), (used,)], 100) == [0, 80 + 60, 60]  # written back to make room, and read again
    assert traffic([(made,), (used,)], 50) == [60, 60]


def test_sizes_may_be_expressions_over_symbols():
    assert traffic([(use("x", "4*s0*max(s1, 2)", "input", True),)], 1000, {"s0": 3, "s1": 1}) == [24]


def test_kernel_touches_no_more_than_it_loads():
    call = CallCost(0, "k", "map", (), (use("x", 1000, "input", True),))
    assert ddr_traffic([call], [{"x": 40.0}], 10_000, {}) == [40]


def test_merge_adds_counts_and_keeps_names_once():
    (first, second), _ = measure_run(RUN, MACHINE)
    both = merge([first, second, first])
    assert both.calls == 5 and both.instructions["vld.sf"] == 28 and both.nodes == ("n0", "n2", "n1")
    assert both.cycles == sum(both.buckets.values()) == 2 * first.cycles + second.cycles
    assert both.pipelined_cycles == sum(both.pipelined_buckets.values())
    assert list(both.buckets) == [name for name in BUCKETS if name in both.buckets]


def test_classes_hold_every_instruction_once():
    assert {instr.row.group for instr in INSTRUCTIONS} | {"scalar"} == set(CLASSES)
    (first, _), _ = measure_run(RUN, MACHINE)
    assert sum(first.classes.values()) == first.n_instructions == 20


def test_counted_needs_a_counter_per_instruction():
    assert PartitionRun("p", RUN.cost, (2, 6, 1, *([0] * LOAD), 14, *([0] * (SCALAR_ROW - LOAD))), {}).counted == {"vld.sf": 14}
    with pytest.raises(ValueError):
        _ = RUN.counted


def test_bound_by_is_the_largest_bucket_but_issue():
    (first, _), _ = measure_run(RUN, dataclasses.replace(MACHINE, ddr_bytes_per_cycle=1e9, ddr_latency_cycles=0))
    assert first.bound_by == "fill"
    assert dataclasses.replace(first, pipelined_buckets={"issue": 95, "load": 5}, pipelined_cycles=100).bound_by == "issue"
