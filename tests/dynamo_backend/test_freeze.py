"""freeze: parameters are constants, what depends on them alone is gone, and another module is not mistaken for the first."""

from __future__ import annotations

import pytest
import torch
from frontend_graphs import EagerCompiler, compile_with

from accel.native import CompiledPartition

aten = torch.ops.aten


class BindingCompiler(EagerCompiler):
    """Keeps constants as the executor does: they are no arguments of a partition."""

    def has_lowering(self, op):
        return op is aten._native_batch_norm_legit_no_training.default

    def build(self, partition, constants):
        run = super().build(partition, constants).run

        def bound(args):
            given = iter(args)
            return run([constants[node] if node in constants else next(given) for node in partition.inputs])

        return CompiledPartition(bound)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.norm = torch.nn.BatchNorm2d(4)
        self.scale = torch.nn.Parameter(torch.randn(4, 4))
        with torch.no_grad():
            for value in (self.norm.running_mean, self.norm.weight, self.norm.bias):
                value.normal_()
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.norm(self.convolution(x)).relu().mean((2, 3)) @ (self.scale * 2).t()


def frozen(fn, seen):
    return compile_with(BindingCompiler(), fn, seen, {"freeze": True})


def test_frozen_model_is_as_eager_and_folds_what_is_constant():
    torch.manual_seed(0)
    model, x, seen = Net().eval(), torch.randn(2, 3, 6, 6), []
    with torch.no_grad():
        torch.testing.assert_close(frozen(model, seen)(x), model(x))
    (graph,) = seen
    targets = [node.target for node in graph.graph.nodes]
    assert aten._native_batch_norm_legit_no_training.default not in targets and aten.permute.default not in targets
    assert targets.count(aten.mul.Tensor) == 0 and graph.n_frozen == 3


def test_frozen_model_does_not_serve_another_module():
    def call(model, x):
        return model(x)

    torch.manual_seed(0)
    first, second, x, seen = Net().eval(), Net().eval(), torch.randn(2, 3, 6, 6), []
    compiled = frozen(call, seen)
    with torch.no_grad():
        for model in (first, second, first):
            torch.testing.assert_close(compiled(model, x), model(x))
    assert len(seen) == 2


def test_mutated_buffer_is_not_frozen():
    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count.add_(1)
            return x * self.count

    model = Counter()
    compiled = frozen(model, [])
    with torch.no_grad():
        assert [compiled(torch.ones(1)).item() for _ in range(3)] == [1, 2, 3]


def test_training_ignores_freeze():
    model, seen = torch.nn.Linear(3, 2), []
    frozen(model, seen)(torch.randn(4, 3)).sum().backward()
    assert [graph.n_frozen for graph in seen] == [0, 0] and model.weight.grad is not None


@pytest.mark.parametrize("broken", [False, "build"])
def test_frozen_constants_reach_eager_nodes(broken, caplog):
    model, x = torch.nn.Linear(3, 2), torch.randn(4, 3)
    compiler = BindingCompiler(refused=() if broken else ("addmm", "mm"), broken=broken)
    with torch.no_grad():
        torch.testing.assert_close(compile_with(compiler, model, options={"freeze": True})(x), model(x))


def test_what_a_frozen_graph_returns_may_be_written_into():
    linear, x = torch.nn.Linear(3, 3), torch.randn(2, 3)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: (linear.weight * 2.0, (linear.weight + 1.0).t(), linear(x)), backend="accel", options={"freeze": True})
    with torch.no_grad():
        for _ in range(2):
            doubled, moved, result = compiled(x)
            torch.testing.assert_close((doubled, moved, result), (linear.weight * 2.0, (linear.weight + 1.0).t(), linear(x)))
            doubled.zero_(), moved.zero_()


def test_weights_that_are_read_at_every_step_are_one_constant():
    weight, seen = torch.nn.Parameter(torch.randn(4, 4)), []

    def steps(x):
        for _ in range(3):
            x = x @ weight.t()
        return x

    x = torch.randn(2, 4)
    with torch.no_grad():
        torch.testing.assert_close(frozen(steps, seen)(x), steps(x))
    assert len(seen[0].graph.find_nodes(op="get_attr")) == 1


def test_conjugate_views_of_a_weight_are_another_constant():
    weight, x = torch.nn.Parameter(torch.randn(3, 3, dtype=torch.complex64)), torch.randn(2, 3, dtype=torch.complex64)

    def products(x):
        return x @ weight.t() + x.conj() @ weight.t().conj()

    with torch.no_grad():
        torch.testing.assert_close(frozen(products, [])(x), products(x))
