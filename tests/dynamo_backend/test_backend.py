"""torch.compile through the frontend means what eager means, whatever mix of partitions and fallbacks a graph becomes."""

from __future__ import annotations

import copy
import logging
import threading

import pytest
import torch
from frontend_graphs import EagerCompiler, compile_with

import accel

# The refusals that every program is run with: nothing, one op in the middle, everything.
REFUSALS = {"native": (), "mixed": ("mul", "sum", "permute", "native_layer_norm"), "eager": None}


class Refusing(EagerCompiler):
    """Refuses every op, where `refused` is None."""

    def __init__(self, refused):
        super().__init__(refused or ())
        self.refuses_all = refused is None

    def judge(self, node):
        verdict = super().judge(node)
        return type(verdict)(False, "no lowering at all") if self.refuses_all else verdict


def mutate_input(x, y):
    x.mul_(2)
    return x.sum() + y


def mutate_view_of_input(x, y):
    x[1:].add_(y[1:])
    return x * y


def mutate_twice(x, y):
    x.add_(1)
    z = x * y
    x.mul_(z)
    return z


def return_input_and_views(x, y):
    return x, x.t(), x.unsqueeze(0), y[0], y * 1


def return_aliases(x, y):
    z = x * y
    return z, z.unsqueeze(1), z.t(), z[0]


def return_twice(x, y):
    z = (x + y).relu()
    return z, z


def return_constants(x, y):
    return None, 3, x + y, (x * y, {"scalar": 2.5})


def zero_dim(x, y):
    return x.sum() * y.mean()


def empty_tensor(x, y):
    return x[:0] * 2, (y[:0] + 1).sum()


def strides(x, y):
    return (x.t() * y.t()), (x * y).t().contiguous(), (x.unsqueeze(0).expand(3, 4, 4) * 2)


def softmax_norm(x, y):
    return torch.nn.functional.layer_norm(torch.softmax(x, -1) * y, (4,))


def new_constants(x, y):
    return x + torch.arange(4) * torch.eye(4), torch.zeros(2, 2), torch.full((), 7)


def branch_and_join(x, y):
    left, right = (x * y).sum(0), (x + y).amax(1)
    return left.relu() + right.relu(), (left * right).sum()


PROGRAMS = [
    mutate_input, mutate_view_of_input, mutate_twice, return_input_and_views, return_aliases, return_twice, return_constants, zero_dim,
    empty_tensor, strides, softmax_norm, new_constants, branch_and_join,
]  # fmt: skip
LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "transposed": lambda x: x.clone().t(),
    "sliced": lambda x: torch.stack([x, x], 1)[:, 1],
}


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    flat_actual, flat_expected = (torch.utils._pytree.tree_leaves(value) for value in (actual, expected))
    for one, other in zip(flat_actual, flat_expected, strict=True):
        if isinstance(other, torch.Tensor) and other.numel():
            assert (one.stride(), one.storage_offset(), one.requires_grad) == (other.stride(), other.storage_offset(), other.requires_grad)


def aliases(tensors):
    leaves = [value for value in torch.utils._pytree.tree_leaves(tensors) if isinstance(value, torch.Tensor) and value.numel()]
    storages = [value.untyped_storage().data_ptr() for value in leaves]
    return [storages.index(storage) for storage in storages]


@pytest.mark.parametrize(("refused", "dynamic"), [(REFUSALS["native"], True), (REFUSALS["mixed"], False), (REFUSALS["eager"], False)], ids=REFUSALS)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_program_is_as_eager(program, refused, dynamic):
    compiled = compile_with(Refusing(refused), program, dynamic=dynamic)
    for layout in LAYOUTS.values():
        expected_inputs, actual_inputs = ([layout(torch.arange(16.0).view(4, 4) / 8), layout(torch.linspace(-1, 1, 16).view(4, 4))] for _ in range(2))
        expected, actual = program(*expected_inputs), compiled(*actual_inputs)
        assert_same((actual, actual_inputs), (expected, expected_inputs))
        assert aliases((actual, actual_inputs)) == aliases((expected, expected_inputs))


def small_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.GELU(), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 4))


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS)
def test_training_steps_are_as_eager(refused):
    model = small_model()
    twin = copy.deepcopy(model)
    compiled = compile_with(Refusing(refused), twin)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, twin)]
    for step in range(3):
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
        losses = [each(x).square().mean() for each in (model, compiled)]
        torch.testing.assert_close(*losses)
        for loss, optimizer in zip(losses, optimizers):
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


CONTEXTS = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "autocast": lambda: torch.autocast("cpu", torch.bfloat16)}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_modes_of_torch_are_kept(context):
    model, x = small_model().eval(), torch.randn(5, 8)
    compiled = compile_with(EagerCompiler(refused=("native_layer_norm",)), model)
    with context():
        expected, actual = model(x), compiled(x)
    torch.testing.assert_close(actual, expected)
    assert (actual.requires_grad, actual.is_inference()) == (expected.requires_grad, expected.is_inference())


def test_one_compilation_serves_later_sizes_when_dynamic():
    seen = []
    compiled = compile_with(EagerCompiler(refused=("amax",)), lambda x: (x.amax(-1) * x.shape[0]).view(-1, 1) + x, seen, dynamic=True)
    for n_rows in (3, 5, 8):
        x = torch.randn(n_rows, 4)
        torch.testing.assert_close(compiled(x), (x.amax(-1) * n_rows).view(-1, 1) + x)
    assert len(seen) == 1


def test_dropout_draws_as_eager():
    compiled = compile_with(EagerCompiler(refused=("native_dropout", "bernoulli")), lambda x: torch.nn.functional.dropout(x * 2, 0.5) + 1)
    x = torch.ones(64)
    torch.manual_seed(7)
    actual = compiled(x)
    torch.manual_seed(7)
    first = torch.nn.functional.dropout(x * 2, 0.5) + 1
    assert set(actual.tolist()) == set(first.tolist()) == {1.0, 5.0}


def test_threads_may_call_and_compile_at_once():
    compiled = compile_with(EagerCompiler(refused=("mul",)), branch_and_join, dynamic=True)
    failures = []

    def call(seed):
        x, y = (torch.randn(4 + seed, 4 + seed) for _ in range(2))
        try:
            torch.testing.assert_close(compiled(x, y), branch_and_join(x, y))
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("broken", ["lower", "build"])
def test_partition_that_fails_to_compile_runs_in_eager_with_one_warning(broken, caplog):
    seen = []
    compiled = compile_with(EagerCompiler(refused=("amax",), broken=broken), lambda x: (x * 2 + 1).amax(0) * 3 + 1, seen)
    x = torch.randn(4, 4)
    with caplog.at_level(logging.WARNING, "accel"):
        torch.testing.assert_close(compiled(x), (x * 2 + 1).amax(0) * 3 + 1)
    assert [record.levelname for record in caplog.records if record.name == "accel"] == ["WARNING"]
    assert "the compiler is out of order" in caplog.text
    assert all(seen[0].fallbacks.values()) and len(seen[0].fallbacks) == seen[0].n_calls


def test_partition_that_fails_to_compile_is_given_the_sizes_that_it_would_have_computed():
    compiled = compile_with(EagerCompiler(broken="build"), lambda x: x.transpose(0, 1).reshape(x.shape[1], -1) * 2, dynamic=True)
    for sizes in ((3, 4, 5), (4, 6, 2)):
        x = torch.randn(sizes)
        assert torch.equal(compiled(x), x.transpose(0, 1).reshape(sizes[1], -1) * 2)


def test_lowering_that_fails_when_judged_leaves_its_node_to_eager(caplog):
    class Failing(EagerCompiler):
        def judge(self, node):
            return super().judge(node) if "amax" not in node.name else {}["no such key"]

    seen = []
    compiled = compile_with(Failing(), lambda x: (x * 2 + 1).amax(0) * 3 + 1, seen)
    x = torch.randn(4, 4)
    with caplog.at_level(logging.WARNING, "accel"):
        torch.testing.assert_close(compiled(x), (x * 2 + 1).amax(0) * 3 + 1)
    (reason,) = seen[0].fallbacks.values()
    assert "KeyError" in reason and "please report it" in reason and "amax runs in eager" in caplog.text


def test_partition_that_fails_to_compile_raises_when_strict():
    compiled = compile_with(EagerCompiler(broken="build"), lambda x: x * 2, options={"strict": True})
    with pytest.raises(Exception, match="CompileError[\\s\\S]*the compiler is out of order"):
        compiled(torch.ones(3))


def write_to_shared_elements(x):
    x[..., -1] += x[..., 0]
    return x


def test_graph_that_aotautograd_cannot_trace_runs_in_eager_with_one_warning(caplog):
    x = torch.arange(12.0).reshape(4, 3, 1)
    expected = write_to_shared_elements(x.clone().expand(4, 3, 7))
    with caplog.at_level(logging.WARNING, "accel"):
        compiled = torch.compile(write_to_shared_elements, backend="accel")
        assert torch.equal(compiled(x.clone().expand(4, 3, 7)), expected)
    (record,) = [record for record in caplog.records if record.name == "accel"]
    assert "more than one element of the written-to tensor" in record.getMessage()


def test_graph_that_aotautograd_cannot_trace_raises_when_strict():
    compiled = torch.compile(write_to_shared_elements, backend="accel", options={"strict": True})
    with pytest.raises(Exception, match="StrictError[\\s\\S]*AOTAutograd cannot trace"):
        compiled(torch.zeros(4, 3, 1).expand(4, 3, 7))


def test_strict_names_node_op_reason_and_line():
    compiled = compile_with(EagerCompiler(refused=("mul",)), lambda x: (x + 1) * 2, options={"strict": True})
    message = r"StrictError[\s\S]*1 node would[\s\S]*mul \(aten\.mul\.Tensor\) at .*test_backend\.py:\d+: no lowering for mul"
    with pytest.raises(Exception, match=message):
        compiled(torch.ones(3))


def test_excluded_ops_stay_whole_in_eager():
    seen = []
    compiled = compile_with(EagerCompiler(), lambda x: torch.nn.functional.hardswish(x) * 2, seen, options={"fallback_ops": ["hardswish"]})
    compiled(torch.randn(4))
    assert [(str(node.target), reason) for node, reason in seen[0].fallbacks.items()] == [
        ("aten.hardswish.default", "excluded by option fallback_ops='aten.hardswish'")
    ]


def test_tensors_on_another_device_stay_in_eager():
    seen = []
    compiled = compile_with(EagerCompiler(), lambda x: (x * 2).sum(), seen)
    assert compiled(torch.empty(3, device="meta")).device.type == "meta"
    assert set(seen[0].fallbacks.values()) == {"a tensor is on device meta; only cpu tensors are compiled"}


def test_data_dependent_shapes_stay_in_eager():
    torch._dynamo.config.capture_dynamic_output_shape_ops = True
    try:
        seen = []
        compiled = compile_with(EagerCompiler(), lambda x: (x.nonzero() * 2, x + 1), seen)
        torch.testing.assert_close(compiled(torch.tensor([0.0, 1.0, 2.0])), (torch.tensor([[2], [4]]), torch.tensor([1.0, 2.0, 3.0])))
        assert any("data-dependent shape" in reason for reason in seen[0].fallbacks.values())
    finally:
        torch._dynamo.config.capture_dynamic_output_shape_ops = False


@torch.library.custom_op("accel_tests::increment", mutates_args=("x",))
def increment(x: torch.Tensor) -> None:
    x.add_(1)


def call_mutating_custom_op(x):
    y = x * 2
    increment(y)
    return y + 1


SPECIAL = {
    "higher-order operator": (lambda x: torch.cond(x.sum() > 0, lambda x: x.sin() + 1, lambda x: x * 2, (x,)) + 1, lambda: torch.ones(3)),
    "complex": (lambda x: (x * 2).abs() + 1, lambda: torch.tensor([1 + 2j, 3j])),
    "complex inside": (lambda x: torch.view_as_real(torch.fft.fft(x) * 2).sum(-1) + 1, lambda: torch.arange(8.0)),
    "lazy negation": (lambda x: x * 2 + 1, lambda: torch.tensor([1 + 2j, 3j]).conj().imag),
    "sparse": (lambda x: torch.sparse.mm(x, torch.eye(3)).relu(), lambda: torch.eye(3).to_sparse()),
    "float64": (lambda x: (x * 2).sum() + x, lambda: torch.arange(4, dtype=torch.float64)),
    "bool": (lambda x: x & ~x, lambda: torch.tensor([True, False])),
    "overlapping input": (lambda x: x * 2, lambda: torch.arange(4.0).expand(3, 4)),
    "constant in the code": (lambda x: x + torch.tensor([1.0, 2.0]), lambda: torch.ones(2)),
    "item": (lambda x: x * x.sum().item(), lambda: torch.arange(3.0)),
    "list of views": (lambda x: [part * 2 for part in x.split(1)] + list(x.unbind(1)), lambda: torch.eye(3)),
    "custom op that mutates": (call_mutating_custom_op, lambda: torch.ones(3)),
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(("program", "make_input"), SPECIAL.values(), ids=SPECIAL)
def test_what_no_kernel_takes_is_as_eager(program, make_input):
    compiled = compile_with(EagerCompiler(refused=("abs", "mul")), program)
    assert_same(compiled(make_input()), program(make_input()))


def test_nested_inputs_and_outputs_keep_their_form():
    def program(inputs):
        return {"sum": inputs["pair"][0] + inputs["pair"][1], "rest": [inputs["scale"] * 2]}

    inputs = {"pair": (torch.ones(3), torch.arange(3.0)), "scale": torch.tensor(2.0)}
    torch.testing.assert_close(compile_with(EagerCompiler(), program)(inputs), program(inputs))


def test_backend_is_found_by_name():
    assert "accel" in torch._dynamo.list_backends()


def test_dump_dir_gets_the_text_of_every_stage(tmp_path):
    compile_with(EagerCompiler(), lambda x: x * 2, options={"dump_dir": tmp_path})(torch.ones(3))
    (graph,) = tmp_path.rglob("graph.txt")
    assert "aten.mul.Tensor" in graph.read_text()


def test_dump_dir_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, "accel"):
        compile_with(EagerCompiler(), lambda x: x * 2, options={"dump_dir": tmp_path / "file"})(torch.ones(3))
    assert caplog.text.count("dump_dir:") == 1


def test_errors_form_one_tree():
    assert all(issubclass(getattr(accel, name), accel.AccelError) for name in ("OptionError", "StrictError", "CompileError"))
    assert issubclass(accel.OptionError, ValueError)


@torch.library.custom_op("accel_tests::widened", mutates_args=())
def widened(x: torch.Tensor) -> torch.Tensor:
    return x.float()


@widened.register_fake
def _(x):
    return torch.empty_like(x)  # not what the operator returns


def test_eager_result_of_another_dtype_than_its_fake_is_not_misread():
    x = torch.randn(300).bfloat16()
    compiled = torch.compile(lambda x: torch.ops.accel_tests.widened(x * 2) + 1, backend="accel")
    torch.testing.assert_close(compiled(x), x * 2 + 1)


@pytest.mark.parametrize("low, high", [(-300, 5), (0, 128)])
def test_bounds_that_a_dtype_cannot_hold_raise_as_in_eager(low, high):
    def bounded(x):
        return x.clamp(low, high) + 1

    x = torch.arange(6, dtype=torch.int8)
    with pytest.raises(RuntimeError) as eager:
        bounded(x)
    with pytest.raises(RuntimeError) as compiled:
        torch.compile(bounded, backend="accel")(x)
    assert str(compiled.value).startswith(str(eager.value)[:30])
