"""What depends on inputs alone and is spread over more points comes first; everything else keeps its place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import accel
from accel.lowering.inputs_first import inputs_first
from accel.lowering.tensor_ir import TensorProgram
from accel.lowering.values import Graph


def kernels(module, *inputs):
    with torch.no_grad():
        graphs = accel.explain(module)(*inputs).graphs
    return [kernel for graph in graphs for partition in graph.partitions for kernel in partition.kernels]


def calibrated_norm(channels):
    norm = nn.BatchNorm2d(channels).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    nn.init.normal_(norm.weight)
    return norm


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_batch_norm_is_the_epilogue_of_its_convolution(kernel):
    model = nn.Sequential(nn.Conv2d(8, 16, kernel, padding=kernel // 2), calibrated_norm(16), nn.ReLU()).eval()
    x = torch.randn(1, 8, 12, 12)
    (conv,) = [k for k in kernels(model, x) if k["kind"] == "conv"]
    assert any("batch_norm" in node for node in conv["nodes"]) and any("relu" in node for node in conv["nodes"])
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="accel", options={"strict": True})(x), model(x), atol=1e-5, rtol=1e-4)


class ScalesTwice(nn.Module):
    """Reads a buffer, changes it, and reads it again."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(16))

    def forward(self, x):
        first = x @ x * (self.scale + 1).sqrt()
        self.scale.mul_(3)
        return first + x @ x.mT * (self.scale + 2).sqrt()


def test_an_input_that_changes_is_read_in_order():
    module, reference = ScalesTwice(), ScalesTwice()
    compiled = torch.compile(module, backend="accel", options={"strict": True})
    x = torch.randn(16, 16)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), reference(x), atol=1e-4, rtol=1e-4)


def order(rows):
    """Buffers in the order in which they are written: of x's square, and of the root of y [rows, 16] that is added to it."""
    g = Graph()
    square = g.realize(g.map("mul", *[g.input("x", "f32", (16, 16), (16, 1))] * 2))
    root = g.realize(g.map("sqrt", g.input("y", "f32", (rows, 16), (16, 1))))
    total = g.realize(g.map("add", square, root))
    program = inputs_first(TensorProgram("p", tuple(g.inputs), (total.expr.buffer,), tuple(g.statements)))
    names = {square.expr.buffer: "square", root.expr.buffer: "root", total.expr.buffer: "total"}
    return [names[s.target.buffer] for s in program.statements]


def test_only_what_is_spread_over_more_points_moves():
    assert order(1) == ["root", "square", "total"]
    assert order(16) == ["square", "root", "total"]
