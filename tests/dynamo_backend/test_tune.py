"""max_autotune: what a search chooses is told, is kept, and computes what eager does. Timers are made up, so no test depends on the machine."""

from __future__ import annotations

import copy

import pytest
import torch

import accel
from accel import OptionError
from accel.backend import compile_module
from accel.compile_graph import Compilation
from accel.explain import explain_call
from accel.native import NativeCompiler
from accel.options import Options
from accel.runtime.cache import Cache


class Tuning(NativeCompiler):
    """A compiler whose timer finds the call at `fastest` (from the end where negative) twice as fast as the others, and counts what it was asked."""

    def __init__(self, fastest: int = -1):
        self.n_measured = 0
        self.fastest = fastest
        self.tune_options = {"measure": self.measure}

    def measure(self, calls, rounds):
        self.n_measured += 1
        for call in calls:
            call()
        # The finalists come in the order of the screening: the fastest one stands behind the default.
        seconds = [1.0] * len(calls)
        seconds[self.fastest if self.n_measured % 2 else min(1, len(calls) - 1)] = 0.5
        return [[each] * rounds for each in seconds]


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(20, 40), torch.nn.ReLU(), torch.nn.Linear(40, 3)).eval()


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Where the tests keep what they compiled: they share it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def options(objects):
    for path in objects.rglob("*.tuned"):
        path.unlink()
    return {"max_autotune": True, "cache_dir": objects}


def compiled(fn, compiler, options, dynamic=None, observe=lambda graph: None):
    def backend(gm, inputs):
        return compile_module(gm, inputs, Compilation(Options.parse(options), compiler, observe))

    backend._torchdynamo_orig_backend = accel.backend  # recurrent layers stay whole for accel
    torch._dynamo.reset()
    return torch.compile(fn, backend=backend, dynamic=dynamic)


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("fastest", [1, -1])
def test_whatever_is_chosen_is_as_eager(fastest, freeze, options):
    net, x, compiler = model(), torch.randn(17, 20), Tuning(fastest)
    with torch.no_grad():
        torch.testing.assert_close(compiled(net, compiler, options | {"freeze": freeze})(x), net(x))
    assert compiler.n_measured > 0


def test_explain_says_what_was_chosen_and_what_it_gains(options):
    with torch.no_grad():
        explained = explain_call(model(), (torch.randn(17, 20),), {}, Options.parse(options), None, Tuning())
    (graph,) = explained.graphs
    (partition,) = graph.partitions
    assert len(partition.tuned) == 2 and "tuning" in graph.seconds
    assert all(kernel["kind"] == "gemm" and kernel["gain"] == 0.5 and kernel["chosen"] != kernel["default"] for kernel in partition.tuned)
    assert f"saves 50 % of {partition.tuned[0]['default']}" in str(explained)


def test_where_nothing_is_faster_the_default_stays(options):
    with torch.no_grad():
        explained = explain_call(model(), (torch.randn(17, 20),), {}, Options.parse(options), None, Tuning(0))
    (partition,) = explained.graphs[0].partitions
    assert all(kernel["chosen"] == kernel["default"] and kernel["gain"] == 0 for kernel in partition.tuned)
    assert "as without tuning" in str(explained)


def cut_off(path, cache):
    path.write_bytes(path.read_bytes()[:5])


def write(path, cache, content):
    path.unlink()
    cache.publish(path.name.partition(".")[0], ".tuned", content)


def name_no_choice(path, cache):
    write(path, cache, b'{"position": 99, "gain": 0.5}')


def take_another_form(path, cache):
    write(path, cache, b"[1]")


@pytest.mark.parametrize("damage", [cut_off, name_no_choice, take_another_form])
def test_answers_are_kept_and_damaged_ones_asked_again(damage, options, objects):
    net, x = model(), torch.randn(17, 20)
    counts = []
    for _ in range(3):
        compiler = Tuning()
        with torch.no_grad():
            explained = explain_call(net, (x,), {}, Options.parse(options), None, compiler)
        counts.append(compiler.n_measured)
        assert all(kernel["gain"] == 0.5 for kernel in explained.graphs[0].partitions[0].tuned)
        if len(counts) == 2:
            for path in list(objects.rglob("*.tuned")):
                damage(path, Cache(objects))
    assert counts[0] == counts[2] > 0 == counts[1]


def test_equal_layers_are_asked_once(options):
    layers = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU()) for _ in range(4))).eval()
    x, compiler = torch.randn(9, 32), Tuning()
    with torch.no_grad():
        explained = explain_call(layers, (x,), {}, Options.parse(options), None, compiler)
        torch.testing.assert_close(compiled(layers, compiler, options)(x), layers(x))
    assert [kernel["calls"] for kernel in explained.graphs[0].partitions[0].tuned] == [4]
    assert compiler.n_measured == 2  # a screening and a final measurement


def test_training_is_tuned_too(options):
    net, twin, x, compiler = model(), model(), torch.randn(17, 20), Tuning()
    compiled(net, compiler, options)(x).square().sum().backward()
    forward_only = compiler.n_measured
    twin(x).square().sum().backward()
    for parameter, expected in zip(net.parameters(), twin.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-5)
    assert forward_only > 4  # more than the two products of the forward graph


def test_symbolic_sizes_are_tuned_for_the_first_ones_and_serve_all(options):
    net, compiler = model(), Tuning()
    f = compiled(net, compiler, options, dynamic=True)
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (17, 3, 140):
            x = torch.randn(rows, 20)
            torch.testing.assert_close(f(x), net(x))


def test_a_modelled_machine_is_tuned_by_its_cycles(options):
    net, x, compiler = model(), torch.randn(17, 20), Tuning()
    cycles = {}
    with torch.no_grad():
        for tuned in (False, True):
            found = accel.profile(net, machine="dvx-h1", **options | {"max_autotune": tuned})(x)
            torch.testing.assert_close(found.result, net(x))
            cycles[tuned] = found.total.cycles
        explained = explain_call(net, (x,), {}, Options.parse(options | {"machine": "dvx-h1"}), None, compiler)
    assert cycles[True] <= cycles[False]
    assert len(explained.graphs[0].partitions[0].tuned) == 2 and compiler.n_measured == 0


def test_global_random_numbers_are_left_alone(options):
    net, x = model(), torch.randn(17, 20)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with torch.no_grad():
        compiled(net, Tuning(), options)(x)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("mode", ["max-autotune", "max-autotune-no-cudagraphs"])
def test_modes_ask_for_it(mode):
    assert Options.parse({}, mode).max_autotune and not Options.parse({}, "reduce-overhead").max_autotune
    net, x = torch.nn.Linear(8, 8).eval(), torch.randn(4, 8)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net, backend="accel", mode=mode)(x), net(x))


def test_a_bad_value_is_an_option_error():
    with pytest.raises(OptionError, match="max_autotune"):
        accel.explain(torch.relu, max_autotune="yes")


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("fastest", [1, -1])
def test_recurrent_layers_are_tuned_in_both_directions_of_training(kind, fastest, options):
    torch.manual_seed(0)
    layer, compiler = getattr(torch.nn, kind)(5, 20, batch_first=True), Tuning(fastest)
    twin, x = copy.deepcopy(layer), torch.randn(9, 4, 5)
    kinds = set()

    def observe(graph):
        kinds.update(kernel.kind for made in graph.compiled.values() for kernel in made.tuned if kernel.gain)

    for call in (compiled(layer, compiler, options, observe=observe), twin):
        call(x)[0].square().sum().backward()
    for parameter, expected in zip(layer.parameters(), twin.parameters()):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-5)
    assert {kind.lower(), f"{kind.lower()}_backward"} <= kinds
