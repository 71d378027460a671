"""The decomposition table follows the lowerings, and the clean-ups keep a graph's meaning."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from accel.decompositions import OWN_FORMS
from accel.normalize import DRAWS, PASSES, WHOLE_IF_LOWERED, decompositions, normalize

aten = torch.ops.aten


def table(lowered=(), training=False, excluded=frozenset()):
    return decompositions(lambda op: op in lowered, training=training, excluded=excluded)


@pytest.mark.parametrize("op", WHOLE_IF_LOWERED, ids=str)
def test_op_is_whole_exactly_if_it_has_a_lowering(op):
    made = table(lowered={op})
    assert op not in made or made[op] is OWN_FORMS[op]


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)], ids=str)
def test_norm_of_one_dtype_stays_whole(dtypes):
    x, weight = (torch.ones(3, 3, dtype=dtype) for dtype in dtypes)
    assert OWN_FORMS[aten.native_layer_norm.default](x, [3], weight[0], None, 1e-5) is NotImplemented


def test_norm_of_halves_with_float32_parameters_has_float32_statistics():
    x, weight = torch.ones(3, 3, dtype=torch.bfloat16), torch.ones(3)
    y, mean, rstd = OWN_FORMS[aten.native_layer_norm.default](x, [3], weight, None, 1e-5)
    assert (y.dtype, mean.dtype, rstd.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_lowered_op_of_torchs_own_list_stays_whole():
    assert aten.hardswish.default in table() and aten.hardswish.default not in table(lowered={aten.hardswish.default})


@pytest.mark.parametrize("op", DRAWS, ids=str)
def test_draws_from_the_generator_stay_whole(op):
    assert op not in table()


def test_attention_is_taken_apart_in_inference_only():
    op = aten._scaled_dot_product_flash_attention_for_cpu.default
    assert op in table() and op not in table(training=True)


def test_excluded_names_stay_whole():
    assert aten.hardswish.default not in table(excluded=frozenset(["aten.hardswish"]))
    assert aten.hardswish.default in table(excluded=frozenset(["aten.hardswish.out"]))


def test_passes_say_why():
    assert all(name and callable(change) and why for name, change, why in PASSES)


def test_detach_and_alias_are_read_through_but_kept_as_results():
    graph = fx.Graph()
    x = graph.placeholder("x")
    detached = graph.call_function(aten.detach.default, (x,))
    total = graph.call_function(aten.add.Tensor, (graph.call_function(aten.alias.default, (detached,)), 1))
    graph.output((detached, total))
    normalize(fx.GraphModule(torch.nn.Module(), graph))
    assert [node.name for node in graph.nodes] == ["x", "detach_default", "add_tensor", "output"]
    assert total.args[0] is x


def test_every_symbol_gets_a_node_that_carries_it():
    seen = []

    def backend(gm, example_inputs):
        from torch._functorch.aot_autograd import aot_module_simplified

        def compiler(graph_module, _):
            for node in graph_module.graph.find_nodes(op="placeholder"):
                if not isinstance(node.meta["val"], torch.Tensor):
                    node.meta["val"] = None  # as if AOTAutograd had not passed the size
            normalize(graph_module)
            seen.extend(node for node in graph_module.graph.nodes if node.target is aten.sym_size.int)
            return graph_module.forward

        return aot_module_simplified(gm, example_inputs, compiler)

    torch.compile(lambda x: x * 2, backend=backend, dynamic=True)(torch.ones(3, 4))
    assert [node.args[1] for node in seen] == [0, 1]
