"""Known architectures through `torch.compile(backend="accel")`: right against eager, almost wholly native, trainable."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import accel
import zoo
from closeness import ROUNDING_FACTOR, assert_rounds_like_eager

NATIVE_SHARE = 0.95
STEPS = 20


def tokens(batch, length):
    return torch.randint(0, 101, (batch, length))


# name: (module, inputs); full-size networks get small pictures, to be quick
ARCHITECTURES = {
    "mlp": (zoo.mlp, lambda: (torch.randn(7, 20),)),
    "small_cnn": (zoo.small_cnn, lambda: (torch.randn(3, 3, 16, 16),)),
    "resnet18": (zoo.resnet18, lambda: (torch.randn(1, 3, 64, 64),)),
    "mobilenet_v2": (zoo.mobilenet_v2, lambda: (torch.randn(1, 3, 64, 64),)),
    "transformer_encoder": (zoo.transformer_encoder, lambda: (torch.randn(3, 17, 48),)),
    "gpt2": (zoo.gpt2, lambda: (tokens(2, 19),)),
    "bert": (zoo.bert, lambda: (tokens(2, 19),)),
    "lstm": (lambda: zoo.Recurrent(nn.LSTM, num_layers=2, bidirectional=True), lambda: (torch.randn(3, 11, 12),)),
    "gru": (lambda: zoo.Recurrent(nn.GRU, num_layers=2), lambda: (torch.randn(3, 11, 12),)),
    "rnn_tanh": (lambda: zoo.Recurrent(nn.RNN), lambda: (torch.randn(3, 11, 12),)),
    "rnn_relu": (lambda: zoo.Recurrent(nn.RNN, nonlinearity="relu", bidirectional=True), lambda: (torch.randn(3, 11, 12),)),
}
# inputs of two other sizes, for one compilation with dynamic=True
OTHER_SIZES = {
    "mlp": [(torch.randn(2, 20),), (torch.randn(40, 20),)],
    "transformer_encoder": [(torch.randn(2, 33, 48),), (torch.randn(5, 4, 48),)],
    "gpt2": [(torch.arange(2 * 31).reshape(2, 31),), (torch.arange(5 * 7).reshape(5, 7),)],
    "lstm": [(torch.randn(2, 30, 12),), (torch.randn(5, 4, 12),)],
    "gru": [(torch.randn(2, 30, 12),), (torch.randn(5, 4, 12),)],
}
TRAINED = {
    "mlp": (zoo.mlp, lambda: torch.randn(16, 20)),
    "small_cnn": (zoo.small_cnn, lambda: torch.randn(8, 3, 16, 16)),
    "bert": (zoo.bert, lambda: tokens(8, 12)),
    "discriminator": (zoo.discriminator, lambda: torch.randn(8, 3, 16, 16)),
    "lstm": (lambda: zoo.LastStep(zoo.Recurrent(nn.LSTM, num_layers=2)), lambda: torch.randn(8, 9, 12)),
}


def build(name):
    module, inputs = ARCHITECTURES[name]
    return module().eval(), inputs()


@pytest.mark.parametrize("name, count", [("resnet18", 11_689_512), ("mobilenet_v2", 3_504_872)])
def test_zoo_has_the_parameters_of_the_papers(name, count):
    assert zoo.parameter_count(build(name)[0]) == count


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_rounds_like_eager(name):
    model, inputs = build(name)
    with torch.no_grad():
        outputs = torch.compile(model, backend="accel")(*inputs)
    assert_rounds_like_eager(outputs, model, inputs)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_is_native(name):
    model, inputs = build(name)
    with torch.no_grad():
        explanation = accel.explain(model)(*inputs).to_dict()
    assert explanation["graph_breaks"] == []
    assert len(explanation["graphs"]) == 1
    coverage = explanation["coverage"]
    assert coverage["native_nodes"] >= NATIVE_SHARE * coverage["total_nodes"] > 0, explanation["graphs"][0]["fallbacks"]


@pytest.mark.parametrize("name", OTHER_SIZES)
def test_architecture_serves_other_sizes_without_recompiling(name):
    model, inputs = build(name)
    compiled = torch.compile(model, backend="accel", dynamic=True)
    for sized in [inputs, *OTHER_SIZES[name]]:
        with torch.no_grad():
            outputs = compiled(*sized)
        assert_rounds_like_eager(outputs, model, sized)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh"])
def test_recurrent_layers_are_not_unrolled(name):
    model, _ = build(name)
    sizes = []
    for steps in (4, 32):
        torch._dynamo.reset()
        with torch.no_grad():
            explanation = accel.explain(model)(torch.randn(2, steps, 12)).to_dict()
        sizes.append(explanation["coverage"]["total_nodes"])
    assert sizes[0] == sizes[1]


def test_svd_in_the_middle_is_one_fallback_between_two_partitions():
    model, inputs = zoo.SvdInTheMiddle().eval(), (torch.randn(8, 12),)
    with torch.no_grad():
        (graph,) = accel.explain(model)(*inputs).to_dict()["graphs"]
        outputs = torch.compile(model, backend="accel")(*inputs)
    (fallback,) = graph["fallbacks"]
    assert len(graph["partitions"]) == 2
    assert "linalg_svd" in fallback["op"] and fallback["reason"]
    assert fallback["source"].partition(":")[0].endswith("zoo.py")
    assert_rounds_like_eager(outputs, model, inputs)


@pytest.mark.parametrize("name", TRAINED)
def test_training_follows_eager(name):
    module, batch = TRAINED[name]
    eager, batches = module().train(), [batch() for _ in range(STEPS)]
    compiled, exact = copy.deepcopy(eager), copy.deepcopy(eager).double()
    runs = {
        "eager": (train(eager, eager, batches), eager),
        "compiled": (train(compiled, torch.compile(compiled, backend="accel"), batches), compiled),
        "exact": (train(exact, exact, [value.double() if value.is_floating_point() else value for value in batches]), exact),
    }
    losses = {run: torch.tensor(curve, dtype=torch.float64) for run, (curve, _) in runs.items()}
    assert_drifts_like_eager("losses", losses["compiled"], losses["eager"], losses["exact"])
    for key, reference in exact.state_dict().items():
        if reference.is_floating_point():
            assert_drifts_like_eager(key, compiled.state_dict()[key], eager.state_dict()[key], reference)
        else:
            assert torch.equal(compiled.state_dict()[key], eager.state_dict()[key]), key


def assert_drifts_like_eager(what, compiled, eager, exact):
    """Training in float32 may leave that in float64 by ROUNDING_FACTOR times as much as eager's does, of which one unit in the last place may be luck."""
    unit = torch.finfo(torch.float32).eps * exact.abs().max().item()
    allowed = ROUNDING_FACTOR * max((eager - exact).abs().max().item(), unit)
    error = (compiled - exact).abs().max().item()
    assert error <= allowed, f"{what}: {error:.2e} from float64, where eager's rounding allows {allowed:.2e}"


def train(model, function, batches):
    """The loss of each step of SGD with momentum on `model`, whose forward is `function`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for step, batch in enumerate(batches):
        labels = (torch.arange(len(batch)) + step) % 5
        optimizer.zero_grad()
        loss = F.cross_entropy(function(batch), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
