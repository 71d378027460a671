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


def test_frozen_graphs_and_texts_are_not_kept(tmp_path):
    assert keeps(Options.parse())
    assert not keeps(Options.parse({"freeze": True}))
    assert not keeps(Options.parse({"dump_dir": tmp_path}))


def test_explain_compiles_always(starts):
    starts(torch.sigmoid, torch.ones(5))
    assert len(accel.explain(torch.sigmoid)(torch.ones(5)).graphs) == 1
