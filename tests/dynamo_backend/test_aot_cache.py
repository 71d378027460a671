"""aot_cache: a second start loads what the first compiled, and nothing that it must not."""

from __future__ import annotations

import logging

import accel
import pytest
import torch
from accel.aot_cache import keeps
from accel.options import Options

LOADED, COMPILED = "loaded from the cache", "compiled in"


@pytest.fixture
def starts(tmp_path, caplog):
    """(fn, args, options) -> result and the messages of a fresh Dynamo that shares this test's cache."""

    def start(fn, *args, **options):
        torch._dynamo.reset()
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="accel"):
            result = torch.compile(fn, backend="accel", options={"cache_dir": tmp_path, **options})(*args)
        return result, caplog.text

    start.cache_dir = tmp_path
    return start


def test_a_second_start_loads_and_gives_the_same(starts):
    model, x = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16)), torch.randn(3, 8)
    with torch.no_grad():
        (first, compiled), (second, loaded) = starts(model, x), starts(model, x)
    assert COMPILED in compiled and LOADED in loaded and COMPILED not in loaded
    assert torch.equal(first, second)


def test_other_values_of_parameters_are_used(starts):
    linear, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    with torch.no_grad():
        starts(linear, x)
        linear.weight.zero_()
        linear.bias.fill_(3.0)
        result, loaded = starts(linear, x)
    assert LOADED in loaded and result.eq(3.0).all()


def test_a_training_step_is_loaded_whole(starts):
    x = torch.randn(6, 4)

    def gradient():
        w = torch.linspace(-1, 1, 12).reshape(4, 3).requires_grad_()
        loss, text = starts(lambda x, w: torch.tanh(x @ w).square().sum(), x, w)
        loss.backward()
        return w.grad, text

    (first, _), (second, loaded) = gradient(), gradient()
    assert LOADED in loaded and torch.equal(first, second)


def test_a_graph_with_fallbacks_is_loaded(starts):
    def fn(x):
        return torch.exp((x * 2.0).t()) + 1.0

    x = torch.randn(3, 4)
    (first, _), (second, loaded) = (starts(fn, x, fallback_ops=["aten.exp"]) for _ in range(2))
    assert LOADED in loaded and torch.equal(first, second)


def test_a_recurrent_layer_is_loaded(starts):
    lstm, x = torch.nn.LSTM(4, 5), torch.randn(3, 2, 4)
    with torch.no_grad():
        (first, _), (second, loaded) = starts(lstm, x), starts(lstm, x)
    assert LOADED in loaded and torch.equal(first[0], second[0])


def test_sizes_dtypes_code_and_options_make_another_graph(starts):
    starts(torch.relu, torch.randn(4, 4))
    assert LOADED not in starts(torch.relu, torch.randn(4, 5))[1]
    assert LOADED not in starts(torch.relu, torch.randn(4, 4).double())[1]
    assert LOADED not in starts(torch.relu, torch.randn(4, 4).t())[1]
    assert LOADED not in starts(torch.tanh, torch.randn(4, 4))[1]
    assert LOADED not in starts(torch.relu, torch.randn(4, 4), fallback_ops=["aten.add"])[1]
    assert LOADED in starts(torch.relu, torch.randn(4, 4))[1]


def test_inputs_that_share_memory_are_another_case(starts):
    def fn(x, y):
        x.mul_(2.0)
        return x + y

    base = torch.arange(8.0)
    starts(fn, base[:6].clone(), base[2:].clone())
    result, _ = starts(fn, base[:6], base[2:])
    expected = torch.arange(8.0)
    assert torch.equal(result, fn(expected[:6], expected[2:])) and torch.equal(base, expected)


def test_inputs_that_overlap_elsewhere_are_another_case(starts):
    def fn(x, y):
        x.add_(1.0)
        return y * 2.0

    apart, overlapping = torch.zeros(8), torch.zeros(8)
    assert starts(fn, apart[:4], apart[4:])[0].eq(0.0).all()
    result, compiled = starts(fn, overlapping[:4], overlapping[2:6])
    assert LOADED not in compiled and result.tolist() == [2.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("key", ["CompositeImplicitAutograd", "Autograd"])
def test_operators_of_others_are_traced_anew(starts, key):
    x = torch.ones(3)
    for factor in (2.0, 5.0):
        with torch.library._scoped_library("accel_test_aot_cache", "FRAGMENT") as library:
            library.define("scaled(Tensor x) -> Tensor")
            library.impl("scaled", lambda x: x * factor, key)  # noqa: B023  (gone before the next factor)
            result, text = starts(lambda x: torch.ops.accel_test_aot_cache.scaled(x) + 1.0, x)
        assert LOADED not in text and result.eq(factor + 1.0).all()


class Scaled(torch.Tensor):
    """A tensor whose products come out times `factor`."""

    factor = 1.0

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner, *_):
        return Scaled(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        result = function(*(value.inner if isinstance(value, Scaled) else value for value in args), **(kwargs or {}))
        return Scaled(result * cls.factor if function is torch.ops.aten.mul.Tensor else result)


def test_tensor_classes_of_others_are_traced_anew(starts, monkeypatch):
    for factor in (2.0, 5.0):
        monkeypatch.setattr(Scaled, "factor", factor)
        result, text = starts(lambda x: x * 3.0, Scaled(torch.ones(4)))
        assert LOADED not in text and result.inner.eq(3.0 * factor).all()


def test_a_lost_object_is_compiled_from_the_entry(starts, tmp_path):
    first, _ = starts(torch.sigmoid, torch.ones(5))
    for path in (*tmp_path.rglob("*.so"), *tmp_path.rglob("*.o")):
        path.unlink()
    second, loaded = starts(torch.sigmoid, torch.ones(5))
    assert LOADED in loaded and torch.equal(first, second)


def test_a_damaged_entry_is_a_miss(starts, tmp_path):
    starts(torch.sigmoid, torch.ones(5))
    (entry,) = tmp_path.rglob("*.aot")
    entry.write_bytes(b"nonsense")
    assert COMPILED in starts(torch.sigmoid, torch.ones(5))[1]


class Frozen(torch.nn.Module):
    """Folds a batch norm and a scaled weight, packs weights, reads a constant in eager, and returns one."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.linear = torch.nn.Conv2d(3, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 5)
        self.scale = torch.nn.Parameter(torch.rand(5))

    def forward(self, x):
        pooled = self.norm(self.convolution(x)).relu().mean((2, 3))
        return torch.exp(self.scale * 2.0) * self.linear(pooled), self.linear.weight * 3.0


def frozen_model(seed):
    torch.manual_seed(seed)
    return Frozen().eval()


@pytest.mark.parametrize("fallback_ops", [[], ["aten.exp", "aten.mean"]], ids=["native", "with fallbacks"])
def test_a_frozen_graph_is_loaded_and_folds_the_parameters_that_there_are(starts, fallback_ops):
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        for seed in (0, 1):
            model = frozen_model(seed)
            result, text = starts(model, x, freeze=True, fallback_ops=fallback_ops)
            torch.testing.assert_close(result, model(x))
            assert (LOADED if seed else COMPILED) in text
        model.norm.running_var.mul_(4.0)
        model.linear.weight.data.zero_()
        result, text = starts(model, x, freeze=True, fallback_ops=fallback_ops)
        torch.testing.assert_close(result, model(x))
        assert LOADED in text


def test_a_loaded_frozen_graph_does_not_serve_another_module(starts):
    def call(model, x):
        return model(x)

    first, second, x = frozen_model(0), frozen_model(1), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        starts(call, first, x, freeze=True)
        torch._dynamo.reset()
        compiled = torch.compile(call, backend="accel", options={"cache_dir": starts.cache_dir, "freeze": True})
        for model in (first, second, first):
            torch.testing.assert_close(compiled(model, x), model(x))


def test_frozen_graphs_of_other_layouts_and_kinds_of_parameters_are_compiled_anew(starts):
    x = torch.randn(3, 6)
    with torch.no_grad():
        plain = torch.nn.Linear(6, 6)
        starts(plain, x, freeze=True)
        turned = torch.nn.Linear(6, 6)
        turned.weight = torch.nn.Parameter(turned.weight.detach().t().contiguous().t())
        result, text = starts(turned, x, freeze=True)
        torch.testing.assert_close(result, turned(x))
        assert LOADED not in text
        result, text = starts(plain, x)
        torch.testing.assert_close(result, plain(x))
        assert LOADED not in text


def test_parameters_that_shared_memory_may_differ_in_the_next_start(starts):
    first, second, x = torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False), torch.randn(2, 4)
    model = torch.nn.Sequential(first, second)
    with torch.no_grad():
        second.weight = torch.nn.Parameter(first.weight.data)  # another parameter over the same memory
        torch.testing.assert_close(starts(model, x, freeze=True)[0], model(x))
        second.weight = torch.nn.Parameter(torch.randn(4, 4))
        torch.testing.assert_close(starts(model, x, freeze=True)[0], model(x))


def test_a_weight_that_is_an_argument_is_no_constant(starts):
    """What is frozen in one process must not be in another where the same product reads an argument."""
    linear, x = torch.nn.Linear(6, 6, bias=False), torch.randn(3, 6)
    with torch.no_grad():
        starts(lambda x: torch.nn.functional.linear(x, linear.weight), x, freeze=True)
        for factor in (1.0, 2.0):
            weight = torch.full((6, 6), factor)
            result, _ = starts(torch.nn.functional.linear, x, weight, freeze=True)
            torch.testing.assert_close(result, torch.nn.functional.linear(x, weight))


def test_training_under_freeze_is_loaded(starts):
    x, gradients = torch.randn(6, 4), []
    for _ in range(2):
        torch.manual_seed(0)
        linear = torch.nn.Linear(4, 3)
        result, text = starts(linear, x, freeze=True)
        result.square().sum().backward()
        gradients.append(linear.weight.grad)
    assert LOADED in text and torch.equal(*gradients)


def test_texts_are_not_kept(tmp_path):
    assert keeps(Options.parse())
    assert not keeps(Options.parse({"dump_dir": tmp_path}))


def test_explain_compiles_always(starts):
    starts(torch.sigmoid, torch.ones(5))
    assert len(accel.explain(torch.sigmoid)(torch.ones(5)).graphs) == 1
