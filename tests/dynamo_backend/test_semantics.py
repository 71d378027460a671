"""What a compiled function does beside its values, with real kernels: mutation, aliases, strides, modes, threads, processes."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree

from accel.coverage_compare import Run, difference


def grid(*shape):
    """Some different numbers of this shape."""
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape) / 7 - 1


def write_to_slices(x):
    x[1:3].mul_(2)
    x[:, 0] = 7
    x.t()[1].zero_()
    return x.sum(), x


def write_through_parts(x):
    for row in x.unbind(0):
        row.mul_(2)
    left, right = x.chunk(2, 1)
    left.add_(right)
    return left, right, x


def write_indexed(x):
    x.masked_fill_(x > 2, 0)
    x[[0, -1]] = 9.0
    x.index_add_(0, torch.tensor([0, 0]), torch.ones(2, x.shape[1]))
    x.diagonal().fill_(3)
    return x + 0


def write_one_of_two(x, y):
    x.mul_(2)
    return y + 1, x


def write_both(x, y):
    x.add_(1)
    y.mul_(2)
    return x + y


def swap(x, y):
    kept = x.clone()
    x.copy_(y)
    y.copy_(kept)


def views_and_twice(x):
    y = x * 2
    return x, x[1:], y, y, y[:2], y.t(), y.view(-1)[3:], x.t() + 1


def views_of_a_hidden_base(x):
    y = torch.relu(x)
    return y[:2], y.t()[1:]


def not_only_tensors(x):
    return None, 3, 2.5, "text", {"sum": x + 1, "rest": [None, True, x * 2]}


def read_only(x):
    return x * 2, x.sum(0), x.t() + 1, torch.zeros_like(x), x.clone(), x.to(torch.float64)


def picture(x):
    return x * 2, x.contiguous(), F.conv2d(x, torch.ones(4, 3, 3, 3)), F.max_pool2d(x, 2), x.sum(1), torch.cat([x, x], 1), F.interpolate(x, scale_factor=2), x.permute(0, 2, 3, 1) + 1


def overlapping_pair():
    base = grid(6, 4)
    return base[:4], base[2:]


def same_twice():
    x = grid(4, 4)
    return x, x


# name: (program, function that makes its inputs)
PROGRAMS = {
    "slices written": (write_to_slices, lambda: grid(4, 4)),
    "slices of a transposed input written": (write_to_slices, lambda: grid(4, 4).t()),
    "slices of a stepped input written": (write_to_slices, lambda: grid(4, 8)[:, ::2]),
    "parts written": (write_through_parts, lambda: grid(6, 4)[2:]),
    "indices written": (write_indexed, lambda: grid(4, 4)),
    "one of two aliases written": (write_one_of_two, overlapping_pair),
    "both aliases written": (write_both, overlapping_pair),
    "one tensor as two inputs": (write_both, same_twice),
    "swapped": (swap, lambda: (grid(4, 4), -grid(4, 4))),
    "views and doubles returned": (views_and_twice, lambda: grid(4, 4)),
    "views of a hidden base returned": (views_of_a_hidden_base, lambda: grid(4, 4)),
    "not only tensors returned": (not_only_tensors, lambda: grid(4, 4)),
    "expanded input": (read_only, lambda: grid(1, 4).expand(3, 4)),
    "overlapping input": (read_only, lambda: grid(20).as_strided((6, 4), (2, 1), 3)),
    "permuted input": (read_only, lambda: grid(3, 4, 5).permute(2, 0, 1)[0]),
    "empty input": (read_only, lambda: grid(0, 4)),
    "channels last": (picture, lambda: grid(2, 3, 8, 8).to(memory_format=torch.channels_last)),
}


def run(function, arguments):
    leaves = _pytree.tree_leaves(function(*arguments))
    outputs = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    return Run(tuple(arguments), outputs, repr([leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]))


@pytest.mark.parametrize(("program", "make"), PROGRAMS.values(), ids=PROGRAMS)
def test_program_mutates_and_aliases_as_eager(program, make):
    compiled = torch.compile(program, backend="accel")
    for _ in range(2):
        expected, actual = (run(function, made if isinstance(made := make(), tuple) else (made,)) for function in (program, compiled))
        assert difference(expected, actual) is None


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))


def test_changed_parameters_are_seen():
    model, x = small_model(), torch.randn(3, 8)
    compiled = torch.compile(model, backend="accel")
    changes = (
        lambda: None, lambda: model[0].weight.data.copy_(torch.randn(16, 8)), lambda: model.load_state_dict(small_model().state_dict()),
        lambda: model[0].weight.mul_(2), lambda: setattr(model[0].weight, "data", torch.randn(8, 16).t()),
    )  # fmt: skip
    with torch.no_grad():
        for change in changes:
            change()
            torch.testing.assert_close(compiled(x), model(x))


def test_one_compiled_function_serves_every_mode():
    model, x = small_model(), torch.randn(3, 8)
    compiled = torch.compile(model, backend="accel")
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16), torch.no_grad):
        with mode():
            expected, actual = model(x), compiled(x)
        torch.testing.assert_close(actual, expected)
        assert (actual.dtype, actual.requires_grad, actual.is_inference()) == (expected.dtype, expected.requires_grad, expected.is_inference())


@pytest.mark.parametrize("which", [(), (0,), (1,), (0, 2)])
def test_outputs_require_grad_as_in_eager(which):
    def program(x, y, z):
        return x * y + z, y.sum(), z * 2

    inputs = [torch.ones(3, requires_grad=index in which) for index in range(3)]
    expected, actual = program(*inputs), torch.compile(program, backend="accel")(*inputs)
    assert [value.requires_grad for value in actual] == [value.requires_grad for value in expected]


class Counting(nn.Module):
    """Keeps a count and the last inputs' means in buffers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("means", torch.zeros(4, 3))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        self.count += 1
        self.means[1:] = self.means[:-1].clone()
        self.means[0] = x.mean(0)
        return self.norm(x) + self.means.sum(0)


def test_buffers_are_updated():
    model = Counting()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="accel")
    for _ in range(3):
        x = torch.randn(5, 3)
        torch.testing.assert_close(compiled(x), model(x))
    torch.testing.assert_close(twin.state_dict(), model.state_dict())


@dataclasses.dataclass
class Result:
    value: torch.Tensor
    count: int


def test_keyword_arguments_and_dataclasses():
    def program(x, *, scale=2.0, offset=None):
        return Result(x * scale + (0 if offset is None else offset), 3)

    compiled, x = torch.compile(program, backend="accel"), torch.ones(3)
    for arguments in ({}, {"scale": 3.0}, {"offset": torch.arange(3.0)}):
        expected, actual = program(x, **arguments), compiled(x, **arguments)
        assert type(actual) is Result and actual.count == 3
        torch.testing.assert_close(actual.value, expected.value)


def test_copies_of_a_compiled_module():
    model, x = small_model(), torch.randn(3, 8)
    compiled = torch.compile(model, backend="accel")
    expected = compiled(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(torch.compile(twin, backend="accel")(x), expected)
    torch.testing.assert_close(copy.deepcopy(compiled)(x), expected)


def test_python_threads_share_a_compiled_function():
    model, failures = small_model(), []
    compiled = torch.compile(model, backend="accel", dynamic=True)

    def call(seed):
        with torch.no_grad():
            for index in range(10):
                x = torch.randn(2 + seed + index % 3, 8, generator=torch.Generator().manual_seed(seed))
                if not torch.allclose(compiled(x), model(x), atol=1e-5):
                    failures.append((seed, index))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_number_of_threads_may_change_between_calls():
    model, x, before = nn.Linear(256, 256), torch.randn(256, 256), torch.get_num_threads()
    compiled = torch.compile(model, backend="accel")
    try:
        with torch.no_grad():
            for n_threads in (1, 2, 4, 1, 3):
                torch.set_num_threads(n_threads)
                torch.testing.assert_close(compiled(x), model(x))
    finally:
        torch.set_num_threads(before)


def test_forked_process_runs_what_its_parent_compiled():
    model, x = small_model(), torch.randn(300, 8)
    compiled, context = torch.compile(model, backend="accel"), multiprocessing.get_context("fork")
    with torch.no_grad():
        expected = compiled(x)
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=lambda: sender.send(compiled(x).numpy()))
        child.start()
        assert receiver.poll(60)
        torch.testing.assert_close(torch.from_numpy(receiver.recv()), expected)
        child.join()


def test_only_unsupported_operators_run_in_eager():
    x = torch.randn(4, 4)
    torch.testing.assert_close(torch.compile(torch.linalg.svdvals, backend="accel")(x), torch.linalg.svdvals(x))
