"""What explain says: the schema, the table, the drawings, the reasons."""

from __future__ import annotations

import json
import linecache
import re
import xml.dom.minidom

import networkx as nx
import pytest
import torch
from frontend_graphs import EagerCompiler

import accel
from accel.explain import explain_call
from accel.options import Options


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)

    def forward(self, x):
        u, s, v = torch.linalg.svd(self.inner(x).relu(), full_matrices=False)
        return (u * s) @ v + x


def explain(fn, *args, refused=("_linalg_svd",), dynamic=None, **options):
    with torch.no_grad():
        return explain_call(fn, args, {}, Options.parse(options), dynamic, EagerCompiler(refused))


@pytest.fixture(scope="module")
def explained():
    return explain(Block(), torch.ones(4, 4))


def test_to_dict_has_the_documented_keys_and_no_others(explained):
    found = explained.to_dict()
    assert found.keys() == {"graphs", "graph_breaks", "coverage"}
    assert found["coverage"].keys() == {"native_nodes", "total_nodes"}
    (graph,) = found["graphs"]
    assert graph.keys() == {"nodes", "partitions", "fallbacks"}
    assert all(partition.keys() == {"id", "nodes", "ops", "kernels"} for partition in graph["partitions"])
    assert all(fallback.keys() == {"node", "op", "reason", "source"} for fallback in graph["fallbacks"])


def test_counts_agree_with_each_other(explained):
    (graph,) = explained.to_dict()["graphs"]
    n_native = sum(len(partition["nodes"]) for partition in graph["partitions"])
    assert all(len(partition["nodes"]) == len(partition["ops"]) for partition in graph["partitions"])
    assert n_native + len(graph["fallbacks"]) == graph["nodes"]
    assert explained.to_dict()["coverage"] == {"native_nodes": n_native, "total_nodes": graph["nodes"]}


def test_unsupported_op_in_the_middle_is_the_one_fallback(explained):
    (graph,) = explained.graphs
    (fallback,) = graph.fallbacks
    assert len(graph.partitions) == 2
    assert (fallback.op, fallback.reason, fallback.splits) == ("aten._linalg_svd", "no lowering for _linalg_svd", True)
    file, _, line = fallback.source.rpartition(":")
    assert file == __file__ and "torch.linalg.svd" in linecache.getline(file, int(line))


def test_stages_of_the_compiler_are_timed(explained):
    (graph,) = explained.graphs
    assert list(graph.seconds) == ["tracing", "judging", "partitioning", "lowering", "scheduling", "C compilation", "loading"]
    assert all(taken >= 0 for taken in graph.seconds.values())
    assert "  seconds: tracing " in str(explained)


def test_json_is_the_dict(explained):
    assert json.loads(explained.to_json()) == explained.to_dict()


def test_table_says_what_a_person_asks_first(explained):
    text = str(explained)
    native, total = explained.native_nodes, explained.total_nodes
    assert text.startswith(f"Block.forward   1 graph · 2 partitions · 1 fallback · {native} of {total} nodes native ({100 * native / total:.1f} %)\n")
    assert "left in eager\n  _linalg_svd  aten._linalg_svd  " in text
    assert "no lowering for _linalg_svd  moves 0.2 KB, splits one partition in two" in text
    columns = [column.strip() for column in text.splitlines()[1].split("  ") if column.strip()]
    assert columns == ["#", "what", "nodes", "kernels", "MFLOP", "in+out KB", "arena KB", "naive KB"]


def test_digraph_is_networkx_with_a_place_for_every_node(explained):
    digraph = explained.graphs[0].digraph
    assert isinstance(digraph, nx.DiGraph) and nx.is_directed_acyclic_graph(digraph)
    assert digraph.nodes["_linalg_svd"]["reason"] == "no lowering for _linalg_svd"
    assert {facts["partition"] for _, facts in digraph.nodes(data=True)} == {None, 0, 1}


def test_dot_has_a_cluster_per_partition(explained):
    text = explained.to_dot()
    assert text.startswith("digraph accel {") and text.count("{") == text.count("}")
    assert "cluster_0_0" in text and "cluster_0_1" in text and '"0._linalg_svd"' in text


def test_html_is_well_formed_and_needs_no_network(explained, tmp_path):
    explained.to_html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    xml.dom.minidom.parseString(text.replace("<!doctype html>", "").replace('<meta charset="utf-8">', ""))
    assert "no lowering for _linalg_svd" in text and "http" not in text


def test_graph_breaks_carry_dynamos_reason_and_the_line():
    def program(x):
        y = x * 2
        print("break")
        return y + 1

    explained = explain(program, torch.ones(3))
    (found,) = explained.graph_breaks
    assert len(explained.graphs) == 2 and "print" in found.reason and found.source.startswith(f"{__file__}:")
    assert "graph breaks (Dynamo)" in str(explained) and explained.to_dict()["graph_breaks"] == [{"reason": found.reason, "source": found.source}]


def test_training_shows_forward_and_backward():
    explained = explain_call(torch.nn.Linear(4, 4), [torch.ones(2, 4)], {}, Options.parse(), compiler=EagerCompiler())
    assert [graph.kind for graph in explained.graphs] == ["forward", "backward"]
    assert "graph 1, backward" in str(explained)


def test_policy_fallbacks_say_which_policy():
    explained = explain(lambda x: (x * 2).sum() + x.amax(), torch.ones(3), fallback_ops=["aten.amax"], min_partition_nodes=9)
    reasons = {fallback.op: fallback.reason for fallback in explained.graphs[0].fallbacks}
    assert reasons["aten.amax"] == "excluded by option fallback_ops='aten.amax'"
    assert "min_partition_nodes=9" in reasons["aten.mul.Tensor"]


def test_partition_that_failed_is_listed_with_its_nodes_as_fallbacks(caplog):
    with torch.no_grad():
        explained = explain_call(lambda x: x * 2 + 1, [torch.ones(3)], {}, Options.parse(), compiler=EagerCompiler(broken="build"))
    assert not explained.graphs[0].partitions and explained.native_nodes == 0
    (reason,) = {fallback.reason for fallback in explained.graphs[0].fallbacks}
    assert re.fullmatch(r"not compiled: RuntimeError: the compiler is out of order \(a bug of accel, in frontend_graphs.py:\d+; please report it\)", reason)


def test_strict_and_bad_options_raise_as_they_are():
    with pytest.raises(accel.StrictError, match="1 node would run in eager"):
        explain(Block(), torch.ones(4, 4), strict=True)
    with pytest.raises(accel.OptionError):
        accel.explain(Block(), no_such_option=1)


def test_function_without_tensors_has_no_graph():
    explained = explain(lambda x: 3, torch.ones(3))
    assert explained.to_dict()["coverage"] == {"native_nodes": 0, "total_nodes": 0} and "0 graphs" in str(explained)


def test_dynamic_sizes_are_explained():
    explained = explain(lambda x: x.sum(0) * x.shape[0], torch.ones(3, 4), dynamic=True)
    assert explained.native_nodes == explained.total_nodes == 2
