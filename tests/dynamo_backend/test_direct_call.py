"""Which graphs are called without AOTAutograd's runtime wrapper, and that the others are not."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn


def frames_of(call):
    """(name, arguments) of the Python functions that run in `call()`."""
    frames = []
    sys.setprofile(lambda frame, event, argument: frames.append((frame.f_code.co_name, dict(frame.f_locals))) if event == "call" else None)
    try:
        call()
    finally:
        sys.setprofile(None)
    return frames


def functions_called(call):
    """Names of the Python functions that run in `call()`."""
    return [name for name, _ in frames_of(call)]


def has_wrapper(function, *inputs, **options):
    """Whether a later call of the compiled function goes through AOTAutograd's wrapper; the function's results are compared with eager's."""
    compiled = torch.compile(function, backend="accel", options=options)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), function(*inputs))
        return "runtime_wrapper" in functions_called(lambda: compiled(*inputs))


MODEL = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


@pytest.mark.parametrize("freeze", [False, True])
def test_native_inference_graph_is_called_without_the_wrapper(freeze):
    assert not has_wrapper(MODEL, torch.randn(3, 8), freeze=freeze)


def test_graph_from_the_cache_is_called_without_the_wrapper(tmp_path):
    x = torch.randn(3, 8)
    assert not has_wrapper(MODEL, x, cache_dir=str(tmp_path))
    torch._dynamo.reset()
    assert not has_wrapper(MODEL, x, cache_dir=str(tmp_path))


@pytest.mark.parametrize("is_warm", [False, True])
def test_frozen_parameters_are_not_handed_over(is_warm, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 4)).eval()
    x = torch.randn(2, 3, 6, 6)
    options = {"freeze": True, "cache_dir": str(tmp_path)}
    with torch.no_grad():
        if is_warm:
            torch.compile(model, backend="accel", options=options)(x)
            torch._dynamo.reset()
        compiled = torch.compile(model, backend="accel", options=options)
        torch.testing.assert_close(compiled(x), model(x))
        frames = frames_of(lambda: compiled(x))
    (handed_over,) = [given["inputs"] for name, given in frames if name == "<lambda>" and "inputs" in given]
    assert len(handed_over) == 1 and handed_over[0] is x


def test_frozen_parameter_that_eager_reads_is_handed_over():
    model, x = nn.Linear(4, 4), torch.eye(4)

    def function(x):
        return torch.linalg.solve(model.weight.t() @ model.weight + x, model.bias) + torch.linalg.svdvals(model.weight)

    compiled = torch.compile(function, backend="accel", options={"freeze": True})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), function(x), rtol=1e-4, atol=1e-5)


def test_several_outputs_need_no_wrapper():
    compiled = torch.compile(lambda x: (x + 1, x * 2), backend="accel")
    x = torch.randn(5)
    compiled(x)
    assert "runtime_wrapper" not in functions_called(lambda: compiled(x))
    first, second = compiled(x)
    assert not first.requires_grad and not second.requires_grad


def test_inputs_reach_the_graph_in_its_own_order():
    def function(x, y, z):
        return ((y * 2).sum(), x + 1)[1], z - y

    assert not has_wrapper(function, torch.randn(4), torch.randn(4, 4), torch.randn(4))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x[1:],
        lambda x, y: ((z := x + y), z[0]),
        lambda x, y: torch.linalg.svd(x @ y)[1] + 1,
    ],
    ids=["view of an input", "view of an output", "node in eager"],
)
def test_aliases_and_eager_nodes_keep_the_wrapper(function):
    assert has_wrapper(function, torch.randn(4, 4), torch.randn(4, 4))


def test_grad_mode_that_the_function_leaves_behind_is_set():
    def function(x):
        y = x + 1
        torch.set_grad_enabled(False)
        return y * 2

    compiled = torch.compile(function, backend="accel")
    try:
        for _ in range(2):
            torch.set_grad_enabled(True)
            torch.testing.assert_close(compiled(torch.ones(3)), torch.full((3,), 4.0))
            assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


def test_written_input_keeps_the_wrapper_and_counts_as_changed():
    compiled = torch.compile(lambda x: x.add_(1).sum(), backend="accel")
    x = torch.zeros(4)
    compiled(x)
    version = x._version
    assert "runtime_wrapper" in functions_called(lambda: compiled(x))
    assert x.tolist() == [2, 2, 2, 2] and x._version > version


def test_inputs_that_become_the_same_tensor_are_told_apart():
    first, second = torch.randn(4), torch.randn(4)
    compiled = torch.compile(lambda x, y: x - 2 * y, backend="accel")
    for pair in ((first, second), (first, first), (second, first)):
        torch.testing.assert_close(compiled(*pair), pair[0] - 2 * pair[1])


def test_training_keeps_the_wrapper():
    compiled = torch.compile(MODEL, backend="accel")
    x = torch.randn(3, 8)
    compiled(x)
    assert "runtime_wrapper" in functions_called(lambda: compiled(x))
    compiled(x).sum().backward()
    assert MODEL[0].weight.grad is not None


def test_under_autocast_a_graph_of_kernels_has_autocasts_dtypes():
    x = torch.randn(3, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        compiled = torch.compile(MODEL, backend="accel")
        torch.testing.assert_close(compiled(x), MODEL(x), rtol=2e-2, atol=2e-2)
        assert compiled(x).dtype == torch.bfloat16
