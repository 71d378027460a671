"""Costs of kernels against sums by hand, the order of blocks that the counters rely on, and which fields the code depends on."""

from __future__ import annotations

import re
from pathlib import Path

import accel.lowering
import pytest
from accel.csrc import isa
from accel.csrc.costs import BUCKETS, SCALAR_ROW
from accel.csrc.machine import COST_FIELDS, PRESETS
from accel.lowering.cost import SCALAR_LOAD_PJ, kernel_cost
from accel.lowering.index_expr import symbol
from accel.lowering.vector_ir import Addr, Barrier, Carried, If, Instruction, Kernel, Let, LoadScalar, Loop, Param, V, blocks

H1 = PRESETS["dvx-h1"]
I, J = symbol("i"), symbol("j")


def load(name, index, base="x", suffix="sf"):
    return Instruction(f"vld.{suffix}", (Addr(base, index),), V(name, {"sf": "sf", "df": "df"}[suffix]))


def kernel(*body):
    return Kernel("k", "test", (Param("x", "sf"), Param("out", "sf", True)), body, H1.lanes)


SQUARE = (load("a", I), Instruction("vfmul.sf", (V("a", "sf"), V("a", "sf")), V("b", "sf")), Instruction("vst.sf", (Addr("out", I), V("b", "sf"))))


def test_block_of_three_instructions_by_hand():
    (block,) = kernel_cost(kernel(Loop("i", 0, 96, 32, SQUARE)), H1).blocks
    assert dict(block.counts) == {isa.lookup(text).index: 1 for text in ("vld.sf", "vfmul.sf", "vst.sf")}
    assert dict(block.near_bytes) == {"x": 128, "out": 128}
    # The load in cycle 0; its value is there in 1, for an early operand in 2; the product two cycles later, in 4; the store ends in 5.
    assert block.cycles == 5 and block.packets == 3
    assert dict(block.buckets) == {"issue": 1, "dependency": 4}
    assert block.interval == 1 and block.entries == (-1, 1) and block.registers == 2
    energy = sum(isa.lookup(text).energy_pj(128) for text in ("vld.sf", "vfmul.sf", "vst.sf"))
    assert block.energy_pj == pytest.approx(energy + 3 * H1.packet_pj)


def test_two_loads_a_product_are_bound_by_the_load_port():
    body = (load("a", I), load("b", I, "y"), Instruction("vfma.sf", (V("a", "sf"), V("b", "sf"), V("s", "sf")), V("t", "sf")))
    carried = (Carried(V("s", "sf"), V("zero", "sf"), V("t", "sf")),)
    zero = Instruction("vsplat.sf", (0.0,), V("zero", "sf"))
    _, block = kernel_cost(kernel(zero, Loop("i", 0, 320, 32, body, carried)), H1).blocks
    latency = isa.lookup("vfma.sf").row.latency
    assert block.interval == max(2, latency)  # two loads on one port, or the sum waiting for itself
    assert sum(dict(block.interval_buckets).values()) == block.interval


def test_pair_registers_count_and_hold_pipes_twice():
    body = (load("a", I, suffix="df"), Instruction("vfadd.df", (V("a", "df"), V("a", "df")), V("b", "df")))
    (block,) = kernel_cost(kernel(Loop("i", 0, 64, 32, body)), H1).blocks
    assert dict(block.counts) == {isa.lookup("vld.df").index: 2, isa.lookup("vfadd.df").index: 2}
    assert dict(block.near_bytes) == {"x": 256} and block.registers == 4
    assert block.interval >= 2


def test_scalar_loads_are_counted_and_priced():
    (block,) = kernel_cost(kernel(LoadScalar("n", Addr("x", 0), "d")), H1).blocks
    assert dict(block.counts) == {SCALAR_ROW: 1} and dict(block.near_bytes) == {"x": 8}
    assert block.energy_pj == SCALAR_LOAD_PJ + H1.packet_pj


def test_blocks_come_in_the_order_in_which_the_c_text_numbers_them():
    one = (load("a", I),)
    body = (
        load("z", 0), Let("n", I), load("y", 32), Loop("i", 0, 64, 32, (*one, Loop("j", 0, 64, 32, (load("b", J),)), load("c", I))), Barrier(),
        If(I, "<", 5, (load("d", 0), load("e", 0)), one), load("f", 0), load("g", 0), load("h", 0),
    )  # fmt: skip
    costs = kernel_cost(kernel(*body), H1).blocks
    numbered = [len(block) for block in blocks(body)]
    assert numbered == [2, 1, 1, 1, 2, 1, 3]
    assert [sum(count for _, count in cost.counts) for cost in costs] == numbered
    assert costs[2].entries == (1, 1)  # the inner loop is entered whenever the block before it runs


def test_entries_of_nested_loops_multiply():
    nest = Loop("i", 0, 96, 32, (Loop("j", 0, 10, 1, (load("b", J),)),))
    (inner,) = kernel_cost(kernel(nest), H1).blocks
    assert inner.entries == (-1, 3)
    (unknown,) = kernel_cost(kernel(Loop("i", 0, symbol("n"), 1, (Loop("j", 0, 10, 1, (load("b", J),)),))), H1).blocks
    assert unknown.entries is None


@pytest.mark.parametrize("name", PRESETS)
def test_buckets_sum_to_cycles_and_are_known(name):
    for block in kernel_cost(kernel(load("z", 0), Loop("i", 0, 64, 32, SQUARE)), PRESETS[name]).blocks:
        assert sum(dict(block.buckets).values()) == block.cycles >= block.interval == sum(dict(block.interval_buckets).values())
        assert {*dict(block.buckets), *dict(block.interval_buckets)} <= BUCKETS.keys() and block.packets <= block.cycles


def test_generated_code_depends_on_no_field_that_sweeps_share_code_over():
    folder = Path(accel.lowering.__file__).parent
    read = set()
    for path in folder.rglob("*.py"):
        if path.name not in ("cost.py", "packets.py"):
            read |= set(re.findall(r"\bmachine\.(\w+)", path.read_text()))
    assert not read & (COST_FIELDS | {"near_bytes"})
