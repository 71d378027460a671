"""Packet schedules: legal and tight by an independent replay, and the laws that bounds and schedules obey."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings, strategies as st
from packet_interpreter import Hazard, issued, replay

from accel.csrc.machine import PRESETS, Machine
from accel.lowering.dependence import BlockGraph, Edge, Issue, block_graph
from accel.lowering.packets import recurrence_bound, resource_bounds, schedule_block
from accel.lowering.vector_ir import Addr, Instruction, V

MACHINES = {**PRESETS, "wide": dataclasses.replace(PRESETS["dvx-h1"], name="wide", issue_width=8, address_slots=4, load_pipes=2, fma_pipes=4, shift_pipes=2)}
UNARY = ["vfneg.sf", "vfabs.sf", "vfsqrt.sf", "vfrint.sf"]
BINARY = ["vfadd.sf", "vfmul.sf", "vfdiv.sf", "vfmax.sf", "vziplo.sf"]


@st.composite
def blocks(draw):
    """Straight-line code over float32 vectors: loads, arithmetic on what is there, reductions, stores, gathers of latency."""
    values = [V("a", "sf"), V("b", "sf")]
    nodes = []
    for number in range(draw(st.integers(1, 24))):
        kind = draw(st.sampled_from(["load", "splat", "unary", "binary", "binary", "fma", "reduce", "store", "wide"]))
        new = V(f"v{number}", "sf")
        pick = [draw(st.sampled_from(values)) for _ in range(3)]
        address = Addr(draw(st.sampled_from(["p", "q"])), draw(st.integers(0, 3)) * 32)
        if kind == "store":
            nodes.append(Instruction("vst.sf", (address, pick[0])))
            continue
        opcode, operands = {
            "load": ("vld.sf", (address,)), "splat": ("vldx.sf", (address,)), "unary": (draw(st.sampled_from(UNARY)), pick[:1]),
            "binary": (draw(st.sampled_from(BINARY)), pick[:2]), "fma": ("vfma.sf", pick), "reduce": ("vredadd.sf", pick[:1]), "wide": ("vlds.sf", (address, 5)),
        }[kind]  # fmt: skip
        nodes.append(Instruction(opcode, tuple(operands), new))
        values.append(new)
    return nodes


@settings(max_examples=60, deadline=None)
@given(nodes=blocks(), name=st.sampled_from(sorted(MACHINES)))
def test_schedule_is_legal_and_takes_as_long_as_its_packets_replayed(nodes, name):
    machine = MACHINES[name]
    schedule = schedule_block(block_graph(nodes, machine.lanes), machine)
    assert replay(nodes, schedule.packets, machine) == schedule.cycles


@settings(max_examples=60, deadline=None)
@given(nodes=blocks(), name=st.sampled_from(sorted(MACHINES)))
def test_schedule_is_no_shorter_than_any_bound_and_no_longer_than_one_by_one(nodes, name):
    machine = MACHINES[name]
    graph = block_graph(nodes, machine.lanes)
    cycles = schedule_block(graph, machine).cycles
    chain = [0] * len(graph.issues)
    for number, edges in enumerate(graph.edges):
        chain[number] = max((chain[e.producer] + (0 if e.forward else e.latency) for e in edges), default=0)
    assert cycles >= max(resource_bounds(graph.issues, machine).values())
    assert cycles >= max(start + issue.cycles for start, issue in zip(chain, graph.issues))
    assert cycles <= sum(issue.cycles + 1 for issue in graph.issues)


@settings(max_examples=60, deadline=None)
@given(nodes=blocks(), field=st.sampled_from(["issue_width", "address_slots", "load_pipes", "store_pipes", "fma_pipes", "shift_pipes", "permute_pipes"]))
def test_more_of_a_resource_never_raises_a_bound(nodes, field):
    machine = MACHINES["dvx-h1"]
    more = dataclasses.replace(machine, **{field: getattr(machine, field) + 1})
    issues = block_graph(nodes, machine.lanes).issues
    before, after = resource_bounds(issues, machine), resource_bounds(issues, more)
    assert all(after[name] <= before[name] for name in before)


def test_replay_refuses_what_a_machine_cannot_do():
    machine = PRESETS["dvx-h1"]
    a, b = V("a", "sf"), V("b", "sf")
    chain = [Instruction("vfmul.sf", (a, a), b), Instruction("vfmul.sf", (b, b), V("c", "sf"))]
    stores = [Instruction("vst.sf", (Addr("p", 0), a)), Instruction("vld.sf", (Addr("p", 0),), V("d", "sf"))]
    for nodes, packets in [(chain, [[0, 1]]), (chain, [[1], [0]]), (chain, [[0]]), (stores, [[0, 1]]), ([stores[0]] * 3, [[0, 1, 2]])]:
        with pytest.raises(Hazard):
            replay(nodes, packets, machine)
    assert len(issued(chain)) == 2


def test_chain_of_multiplications_waits_for_each():
    machine = PRESETS["dvx-h1"]
    graph = block_graph([Instruction("vfmul.sf", (V(f"v{i}", "sf"),) * 2, V(f"v{i + 1}", "sf")) for i in range(5)], machine.lanes)
    latency = graph.issues[0].latency
    wait = graph.edges[1][0].latency
    assert schedule_block(graph, machine).starts == tuple(wait * i for i in range(5))
    assert schedule_block(graph, machine).cycles == 4 * wait + latency


def test_independent_instructions_fill_packets():
    issues = (Issue("m", ("MPY",)),) * 4 + (Issue("any", ("ANY",)),) * 4
    machine = Machine("m", issue_width=4, fma_pipes=2, shift_pipes=1, permute_pipes=1)
    schedule = schedule_block(BlockGraph(issues, ((),) * 8), machine)
    assert sorted(map(len, schedule.packets)) == [4, 4] and schedule.cycles == 2


def test_pipe_is_held_for_its_occupancy():
    issues = (Issue("divide", ("MPY",), occupancy=6, latency=6),) * 3
    schedule = schedule_block(BlockGraph(issues, ((),) * 3), Machine("m", fma_pipes=1))
    assert schedule.starts == (0, 6, 12) and schedule.cycles == 18


def test_recurrence_bound_is_the_greatest_mean_latency_of_a_cycle():
    issues = (Issue("a", ("MPY",), latency=4), Issue("b", ("MPY",), latency=3), Issue("c", ("ANY",)))
    edges = ((), (Edge(0, 4),), ())
    assert recurrence_bound(BlockGraph(issues, edges)) == 0
    assert recurrence_bound(BlockGraph(issues, edges, ((1, 0, 3),))) == 7
    assert recurrence_bound(BlockGraph(issues, edges, ((1, 0, 3), (2, 2, 9)))) == 9
    two_iterations = ((0, 2, 4), (2, 0, 1))  # a to c of the next iteration, c to a of the one after: 5 cycles in two
    assert recurrence_bound(BlockGraph(issues, ((), (), ()), two_iterations)) == 3
