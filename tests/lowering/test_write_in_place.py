"""Inputs that are changed at some indices are changed where they are; whoever still wants the old values gets them."""

from __future__ import annotations

import pytest
import torch

import accel


class Cache(torch.nn.Module):
    """Keeps rows; `what` says which values a step returns besides the new ones."""

    def __init__(self, what):
        super().__init__()
        self.what = what
        self.register_buffer("rows", torch.zeros(2, 32, 8))

    def forward(self, new, position):
        old = self.rows * 2 if self.what == "old" else None
        self.rows.index_copy_(1, position, new)
        total = self.rows.cumsum(1).sum((0, 2))
        if self.what == "twice":
            self.rows.index_copy_(1, position + 1, new * 3)
        if self.what == "scaled":
            self.rows.mul_(1.5)
        return total if old is None else (total, old)


def kernel_kinds(module, inputs):
    graphs = accel.explain(module)(*inputs).graphs
    return [kernel["kind"] for graph in graphs for partition in graph.partitions for kernel in partition.kernels]


@pytest.mark.parametrize("what", ["new", "old", "twice", "scaled"])
def test_steps_agree_with_eager(what):
    cache, reference = Cache(what), Cache(what)
    compiled = torch.compile(cache, backend="accel", options={"strict": True})
    for position in (0, 3, 30):
        inputs = torch.randn(2, 1, 8), torch.tensor([position])
        torch.testing.assert_close(compiled(*inputs), reference(*inputs))
        torch.testing.assert_close(cache.rows, reference.rows)


def test_a_step_copies_nothing():
    kinds = kernel_kinds(Cache("new"), (torch.randn(2, 1, 8), torch.tensor([3])))
    assert "scatter" in kinds and "map" not in kinds


def test_an_index_out_of_range_is_an_error():
    compiled = torch.compile(Cache("new"), backend="accel", options={"strict": True})
    with pytest.raises(IndexError):
        compiled(torch.randn(2, 1, 8), torch.tensor([32]))


@pytest.mark.parametrize("size", [100_003, 100_007])
def test_elements_behind_the_last_vector_change_once_on_two_threads(size):
    """A loop that no context had to itself ran on both: the last elements changed twice."""

    def step(x):
        x.mul_(1.5).add_(1.0)

    compiled = torch.compile(step, backend="accel", options={"strict": True, "threads": 2})
    for _ in range(5):
        x = torch.randn(size)
        expected = x * 1.5 + 1.0
        compiled(x)
        torch.testing.assert_close(x, expected)
