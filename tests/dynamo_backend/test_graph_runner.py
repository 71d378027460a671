"""The generated function: what it drops, and what it leaves out. That it computes the right thing is test_partition's."""

from __future__ import annotations

import torch
from frontend_graphs import build_graph, run_graph, run_nodes
from torch import fx

from accel.graph_runner import make_runner
from accel.lowering import Verdict
from accel.partition import plan

aten = torch.ops.aten


def runs_of(planned):
    return {partition: (lambda args, partition=partition: run_nodes(partition, args)) for partition in planned.partitions if partition.nodes}


def test_one_partition_is_called_without_a_wrapper():
    drawn = build_graph([("add", 0, 1, True)], [], n_inputs=2)
    planned = plan(drawn.graph, drawn.verdicts)
    runs = runs_of(planned)
    runner = make_runner(drawn.gm, planned, runs)
    assert runner.run is runs[planned.partitions[0]] and runner.text == ""


def test_values_are_dropped_after_their_last_use():
    drawn = build_graph([("mm", 0, 1, True), ("neg", 2, 0, False), ("add", 3, 3, True)], [], n_inputs=2)
    text = make_runner(drawn.gm, planned := plan(drawn.graph, drawn.verdicts, 1), runs_of(planned)).text
    assert text.splitlines() == [
        "def run(args):",
        "    v_x0, v_x1,  = args",
        "    args.clear()",
        "    v_mm, = partition_0([v_x0, v_x1])",
        "    del v_x0, v_x1",
        "    v_neg = constant_1(v_mm)",
        "    del v_mm",
        "    v_add, = partition_1([v_neg])",
        "    del v_neg",
        "    return (v_add, )",
    ]


def test_partition_without_a_function_runs_node_by_node():
    drawn = build_graph([("mm", 0, 1, True), ("max", 3, 0, True), ("copy_first", 3, 0, True)], [3, 4])
    inputs = [value.clone() for value in drawn.inputs]
    expected = fx.Interpreter(drawn.gm).run(*[value.clone() for value in drawn.inputs])
    actual = run_graph(make_runner(drawn.gm, plan(drawn.graph, drawn.verdicts), {}), inputs)
    torch.testing.assert_close(list(actual), list(expected), rtol=0, atol=0)


def test_arguments_of_every_form_reach_the_op():
    graph = fx.Graph()
    x = graph.placeholder("x")
    nodes = [
        graph.call_function(aten.full_like.default, (x, float("inf")), {"dtype": torch.float64, "pin_memory": False}),
        graph.call_function(aten.index.Tensor, (x, [None, graph.call_function(aten.full.default, ([2], 1), {"dtype": torch.int64})])),
        graph.call_function(aten.sum.dim_IntList, (x, (0,))),
    ]
    graph.output([*nodes, None, 3])
    value = torch.arange(6.0).view(2, 3)
    for node in graph.nodes:
        node.meta["val"] = value
    verdicts = {node: Verdict(False, "to eager") for node in graph.nodes}
    gm = fx.GraphModule(torch.nn.Module(), graph)
    actual = make_runner(gm, plan(graph, verdicts), {}).run([value])
    torch.testing.assert_close(actual, fx.Interpreter(gm).run(value))


def test_module_attributes_are_values():
    root = torch.nn.Module()
    root.inner = torch.nn.Module()
    root.inner.register_buffer("weight", torch.full((2,), 3.0))
    graph = fx.Graph()
    x = graph.placeholder("x")
    weight = graph.get_attr("inner.weight")
    total = graph.call_function(aten.add.Tensor, (x, weight))
    graph.output((total,))
    for node in graph.nodes:
        node.meta["val"] = torch.empty(2)
    planned = plan(graph, {total: Verdict(True)})
    runner = make_runner(fx.GraphModule(root, graph), planned, runs_of(planned))
    assert runner.run([torch.ones(2)])[0].tolist() == [4.0, 4.0]
