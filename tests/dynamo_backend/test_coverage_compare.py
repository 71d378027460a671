"""What the matrix takes for equal: rounding yes; strides, dtypes, aliases, mutations and other values no."""

from __future__ import annotations

import pytest
import torch

from accel.coverage_compare import Run, copy_tensors, difference, run_call, value_difference

X = torch.arange(6.0).reshape(2, 3)


def runs(expected, got, *tensors):
    given = tensors or (X,)
    return run_call(expected, copy_tensors(given)), run_call(got, copy_tensors(given))


def halved(x):
    return x.mul_(0.5)


DIFFERENT = {
    "values": (lambda x: x + 1, lambda x: x + 2, "expected 1.0; 6 of 6 differ"),
    "dtype": (lambda x: x + 1, lambda x: (x + 1).double(), "dtype torch.float64"),
    "shape": (lambda x: x + 1, lambda x: (x + 1).flatten(), "shape (6,)"),
    "strides": (lambda x: x + 1, lambda x: (x.t() + 1).contiguous().t(), "strides (1, 2), expected (3, 1)"),
    "number of outputs": (lambda x: (x + 1, x), lambda x: (x + 1,), "returned tuple(tensor)"),
    "a number": (lambda x: (x, 1), lambda x: (x, 2), "returned tuple(tensor, 2)"),
    "alias of an input": (lambda x: x.view(-1), lambda x: x.flatten() + 0, "shares storage with input 0"),
    "alias of an output": (lambda x: [x + 1] * 2, lambda x: [x + 1, x + 1], "shares storage with output 0"),
    "mutation": (halved, lambda x: x * 0.5, "input 0 after the call"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_difference_is_told(name):
    expected, got, text = DIFFERENT[name]
    found = difference(*runs(expected, got), aliases=name != "mutation")
    assert found is not None and text in found


def test_strides_of_single_and_empty_dims_do_not_matter():
    column, empty = torch.zeros(4, 1), torch.zeros(0, 3)
    assert difference(*runs(lambda x: x + 0, lambda x: x.as_strided((4, 1), (1, 9)) + 0, column)) is None
    assert difference(*runs(lambda x: x.new_empty((0, 3)), lambda x: x.new_empty((3, 0)).t(), empty)) is None


def test_rounding_is_measured_by_eagers_own_error():
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    eager = (exact + 1e-4).float()
    assert value_difference(eager, (exact - 5e-4).float()) is not None, "without float64 nothing is known"
    assert value_difference(eager, (exact - 5e-4).float(), exact) is None
    assert value_difference(eager, (exact - 5e-3).float(), exact) is not None
    assert value_difference(eager, (exact - 5e-4).float(), exact.float()) is None, "a function's own cast makes the exact run float32"


@pytest.mark.parametrize(("eager", "compiled"), [(float("nan"), 0.0), (float("inf"), 3e38), (0.0, float("nan"))])
def test_special_values_are_no_rounding(eager, compiled):
    values = [torch.tensor([value, 1.0]) for value in (eager, compiled)]
    assert value_difference(*values, torch.tensor([eager, 1.0], dtype=torch.float64)) is not None
    assert value_difference(values[0], values[0]) is None


def test_copies_keep_strides_offsets_and_shared_storage():
    base = torch.arange(12.0)
    first, second = copy_tensors((base[2:8].view(2, 3).t(), base[4:]))
    assert (first.stride(), first.storage_offset()) == ((1, 3), 2)
    second[0] = 9
    assert first[2, 0] == 9 and base[4] == 4


def test_gradients_count_as_outputs():
    x = X.clone().requires_grad_()
    run = run_call(lambda x: x * 2, (x,), is_backward=True)
    assert len(run.outputs) == 2 and isinstance(run, Run)
    assert difference(run, run_call(lambda x: x * 2 + x.detach() * 0, (x,), is_backward=True)) is None
    assert "output 1" in difference(run, run_call(lambda x: x * 2 - x + x.detach(), (x,), is_backward=True))


def test_gradients_without_memory_are_compared():
    x = X.clone().requires_grad_()
    run = run_call(torch.sgn, (x,), is_backward=True)  # its gradient is a tensor of zeros that has no memory
    assert difference(run, run) is None
