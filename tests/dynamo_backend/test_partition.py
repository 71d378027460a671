"""Properties of every plan, on random graphs, and the policies one by one."""

from __future__ import annotations

import itertools
import time

import networkx as nx
import pytest
import torch
from frontend_graphs import build_graph, random_graphs, run_graph, run_nodes
from hypothesis import assume, given, settings
from torch import fx

from accel.graph_runner import make_runner
from accel.lowering import Verdict
from accel.nodes import is_call, is_getitem, is_view, written_arguments
from accel.partition import Partition, plan
from accel.partition_graph import Kind, dependence

aten = torch.ops.aten
PROPERTY = settings(max_examples=80, deadline=None)


def contracted(drawn, planned):
    """What waits for what, with every partition as one node. Free nodes are left out: they are where they are read."""
    depends = dependence(drawn.graph, drawn.verdicts)
    place = {node: partition for partition in planned.partitions for node in partition.nodes if depends.kinds[node] is Kind.COMPUTE}
    graph = nx.DiGraph()
    graph.add_nodes_from(partition for partition in planned.partitions if partition.nodes)
    graph.add_nodes_from(planned.fallbacks)
    graph.add_edges_from((place.get(a, a), place.get(b, b)) for a, b in depends.order.edges)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph


@PROPERTY
@given(random_graphs())
def test_plan_contracts_to_an_acyclic_graph(drawn):
    # Acyclic after contraction: no path leaves a partition and comes back, so partitions are convex too.
    assert nx.is_directed_acyclic_graph(contracted(drawn, plan(drawn.graph, drawn.verdicts, 1)))


@PROPERTY
@given(random_graphs())
def test_plan_has_every_call_node_exactly_once(drawn):
    planned = plan(drawn.graph, drawn.verdicts, 1)
    homes = [node for partition in planned.partitions for node in partition.home]
    assert sorted((*homes, *planned.fallbacks), key=str) == sorted(filter(is_call, drawn.graph.nodes), key=str)


@PROPERTY
@given(random_graphs())
def test_plan_compiles_native_nodes_only_and_falls_back_with_reasons(drawn):
    planned = plan(drawn.graph, drawn.verdicts, 1)
    assert all(drawn.verdicts[node].native for partition in planned.partitions for node in partition.nodes if not is_getitem(node))
    assert all(planned.fallbacks.values())


@PROPERTY
@given(random_graphs())
def test_plan_is_maximal(drawn):
    planned = plan(drawn.graph, drawn.verdicts, 1)
    graph = contracted(drawn, planned)
    partitions = [partition for partition in planned.partitions if partition.nodes]
    for first, second in itertools.combinations(partitions, 2):
        merged = nx.contracted_nodes(graph, first, second, self_loops=False)
        assert not nx.is_directed_acyclic_graph(merged), (first, second)


@PROPERTY
@given(random_graphs())
def test_plan_keeps_the_order_of_mutations(drawn):
    planned = plan(drawn.graph, drawn.verdicts, 1)
    position = {node: index for index, node in enumerate(drawn.graph.nodes)}
    ran = [node for step in planned.steps for node in (step.nodes if isinstance(step, Partition) else [step]) if not is_getitem(node)]
    for placeholder in drawn.graph.find_nodes(op="placeholder"):
        storage = placeholder.meta["val"].untyped_storage()._cdata
        touching = [node for node in ran if not is_view(node) and any(reads(source, storage) for source in node.all_input_nodes)]
        writers = {node for node in touching if any(reads(source, storage) for source in written_arguments(node))}
        for first, second in itertools.combinations(touching, 2):
            assert not {first, second} & writers or position[first] < position[second]


def reads(node, storage):
    value = node.meta["val"]
    return isinstance(value, torch.Tensor) and value.untyped_storage()._cdata == storage


@PROPERTY
@given(random_graphs())
def test_plan_runs_to_what_the_graph_means(drawn):
    expected_inputs, actual_inputs = ([value.clone() for value in drawn.inputs] for _ in range(2))
    try:
        expected = fx.Interpreter(drawn.gm).run(*expected_inputs)
    except RuntimeError as error:  # an input that is copied from a view of itself
        assume("single memory location" not in str(error))
        raise
    planned = plan(drawn.graph, drawn.verdicts, 1)
    runs = {partition: (lambda args, partition=partition: run_nodes(partition, args)) for partition in planned.partitions if partition.nodes}
    actual = run_graph(make_runner(drawn.gm, planned, runs), list(actual_inputs))
    torch.testing.assert_close((list(actual), actual_inputs), (list(expected), expected_inputs), rtol=0, atol=0, equal_nan=True)
    assert [value.stride() for value in actual] == [value.stride() for value in expected]
    assert aliases(actual, actual_inputs) == aliases(expected, expected_inputs)


def aliases(outputs, inputs):
    """Which of the tensors share storage."""
    storages = [value.untyped_storage().data_ptr() for value in (*outputs, *inputs)]
    return [storages.index(storage) for storage in storages]


@PROPERTY
@given(random_graphs())
def test_plan_is_deterministic(drawn):
    first, second = (plan(drawn.graph, drawn.verdicts) for _ in range(2))
    assert (first.partitions, first.steps, first.fallbacks) == (second.partitions, second.steps, second.fallbacks)


def chain(*steps):
    """A graph in which every step reads the one before: (name, native) each."""
    return build_graph([(name, 2 + index, 2 + index, native) for index, (name, native) in enumerate(steps)], [])


def test_unsupported_node_in_the_middle_gives_two_partitions():
    drawn = chain(("mm", True), ("neg", True), ("mm", False), ("neg", True), ("add", True))
    planned = plan(drawn.graph, drawn.verdicts)
    assert [[node.name for node in partition.home] for partition in planned.partitions] == [["mm", "neg"], ["neg_1", "add"]]
    assert {node.name: reason for node, reason in planned.fallbacks.items()} == {"mm_1": "mm was drawn to be unsupported"}


def test_lone_cheap_node_between_fallbacks_stays_eager():
    drawn = chain(("mm", False), ("neg", True), ("mm", False))
    planned = plan(drawn.graph, drawn.verdicts)
    assert not planned.partitions
    assert "partition of 1 node between fallbacks is too small to pay for its boundary" in planned.fallbacks.values()


def test_lone_matmul_between_fallbacks_is_compiled():
    drawn = chain(("neg", False), ("mm", True), ("neg", False))
    assert len(plan(drawn.graph, drawn.verdicts).partitions) == 1


def test_min_partition_nodes_returns_small_partitions_to_eager():
    drawn = chain(("mm", True), ("neg", False), ("mm", True), ("add", True))
    planned = plan(drawn.graph, drawn.verdicts, 2)
    assert [[node.name for node in partition.home] for partition in planned.partitions] == [["mm_1", "add"]]
    assert "partition of 1 node is too small: min_partition_nodes=2" in planned.fallbacks.values()


def test_view_is_repeated_rather_than_passed_between_partitions():
    drawn = build_graph([("neg", 0, 0, True), ("transpose", 3, 0, True), ("mm", 4, 4, False), ("mm", 5, 4, True)], [])
    planned = plan(drawn.graph, drawn.verdicts, 1)
    assert [[node.name for node in partition.nodes] for partition in planned.partitions] == [["neg"], ["permute", "mm_1"]]


def test_producer_moves_to_its_only_reader():
    # neg reads an input alone, and only the second partition reads neg: made there, it crosses no boundary.
    drawn = build_graph([("mm", 0, 1, True), ("neg", 2, 0, True), ("mm", 3, 3, False), ("add", 5, 4, True)], [])
    planned = plan(drawn.graph, drawn.verdicts, 1)
    assert [[node.name for node in partition.nodes] for partition in planned.partitions] == [["mm"], ["neg", "add"]]


def test_reshaped_result_is_written_in_its_last_form():
    drawn = build_graph([("mm", 0, 1, True), ("transpose", 3, 0, True)], [])
    (partition,) = plan(drawn.graph, drawn.verdicts).partitions
    assert [node.name for node in partition.outputs] == ["permute"]


def test_view_of_an_input_needs_no_kernel():
    drawn = build_graph([("transpose", 0, 0, True)], [])
    planned = plan(drawn.graph, drawn.verdicts)
    assert [(partition.nodes, [node.name for node in partition.home]) for partition in planned.partitions] == [((), ["permute"])]
    assert not planned.fallbacks


def test_digraph_states_partition_and_reason():
    drawn = chain(("mm", True), ("neg", False))
    digraph = plan(drawn.graph, drawn.verdicts).digraph
    assert isinstance(digraph, nx.DiGraph)
    assert digraph.nodes["mm"]["partition"] == 0 and digraph.nodes["neg"]["partition"] is None
    assert digraph.nodes["neg"]["reason"] and digraph.has_edge("mm", "neg")


@pytest.mark.parametrize("every", [2, 7, 1000])
def test_partition_time_of_20000_nodes(every):
    graph, value = fx.Graph(), torch.empty(4, 4)
    nodes, verdicts = [graph.placeholder("x")], {}
    for index in range(20_000):
        if index % 4 == 2:
            nodes.append(graph.call_function(aten.permute.default, (nodes[-1], [1, 0])))
        else:
            nodes.append(graph.call_function(aten.add.Tensor, (nodes[-1], nodes[index * 7919 % len(nodes)])))
        verdicts[nodes[-1]] = Verdict(index % every != 0, "every so often")
    for node in nodes:
        node.meta["val"] = value if node.op == "placeholder" or node.target is not aten.add.Tensor else torch.empty(4, 4)
    graph.output((nodes[-1],))
    started = time.process_time()  # other processes on the machine do not count
    planned = plan(graph, verdicts)
    assert time.process_time() - started < 5
    assert len(planned.fallbacks) + sum(len(partition.home) for partition in planned.partitions) == 20_000


def test_random_draws_keep_their_order():
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.empty(4)
    draws = [graph.call_function(aten.rand_like.default, (x,)) for _ in range(3)]
    for node in draws:
        node.meta["val"] = torch.empty(4)
    graph.output(tuple(reversed(draws)))
    planned = plan(graph, {node: Verdict(False, "draws") for node in draws})
    assert planned.steps == tuple(draws)
