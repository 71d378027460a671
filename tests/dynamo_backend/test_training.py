"""What users do around a training step: optimizers, hooks, checkpoints, autocast, grad modes, several processes. All as eager."""

import contextlib
import copy
import os
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

# Losses and gradients of these small networks are of the order of 1 and sum some hundred products.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10), nn.LayerNorm(10), nn.GELU(), nn.Linear(10, 4))


def pictures():
    return torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def assert_same_state(model, twin):
    """Parameters, their gradients, and buffers."""
    torch.testing.assert_close(twin.state_dict(), model.state_dict(), **TOLERANCE)
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters()):
        torch.testing.assert_close(other.grad, parameter.grad, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "adam with amsgrad": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True, weight_decay=0.1),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
    "adamw of lists": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=True),
    "sgd of lists": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, foreach=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_compiled_optimizer_step_is_native_and_as_eager(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4))
    twin, x = copy.deepcopy(model), torch.randn(7, 6)
    optimizer, other = make(model.parameters()), make(twin.parameters())
    compiled_step = torch.compile(other.step, backend="accel", options={"strict": True})
    for _ in range(4):
        for each, zero_grad, step in ((model, optimizer.zero_grad, optimizer.step), (twin, other.zero_grad, compiled_step)):
            zero_grad()
            F.cross_entropy(each(x), torch.arange(7) % 4).backward()
            step()
    assert_same_state(model, twin)


def test_checkpointed_model_trains_as_eager():
    model = small_model()
    twin = copy.deepcopy(model)
    model(pictures()).square().sum().backward()
    torch.compile(lambda x: checkpoint(twin, x, use_reentrant=False), backend="accel")(pictures()).square().sum().backward()
    assert_same_state(model, twin)


def test_hooks_see_and_change_what_they_do_in_eager():
    model, seen = small_model(), []
    twin = copy.deepcopy(model)
    for each in (model, twin):
        norms = []
        each[2].register_forward_hook(lambda module, inputs, output: output * 2)
        each[5].register_full_backward_hook(lambda module, grad_input, grad_output, norms=norms: norms.append(grad_output[0].norm()))
        each[4].weight.register_hook(lambda grad: grad * 3)
        seen.append(norms)
    for each in (model, torch.compile(twin, backend="accel")):
        each(pictures()).square().sum().backward()
    torch.testing.assert_close(seen[1], seen[0], **TOLERANCE)
    assert_same_state(model, twin)


MODES = {"grad": contextlib.nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def test_one_compiled_model_serves_all_grad_modes_in_turn():
    model = small_model()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, backend="accel")
    for mode, is_training in (("grad", True), ("no_grad", True), ("inference", False), ("grad", True)):
        with MODES[mode]():
            expected, found = (each.train(is_training)(pictures()) for each in (model, compiled))
        torch.testing.assert_close(found, expected, **TOLERANCE)
        assert (found.requires_grad, found.is_inference()) == (expected.requires_grad, expected.is_inference())
        if mode == "grad":
            expected.square().sum().backward()
            found.square().sum().backward()
    assert_same_state(model, twin)


def test_autocast_training_rounds_as_eager():
    model = small_model()
    twin = copy.deepcopy(model)
    for each, function in ((model, model), (twin, torch.compile(twin, backend="accel", options={"strict": True}))):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = function(pictures())
        assert output.dtype == torch.bfloat16
        output.float().square().sum().backward()
    for name in ("0.weight", "4.weight", "7.weight"):
        found, expected = twin.get_parameter(name).grad, model.get_parameter(name).grad
        assert (found - expected).norm() < 2**-7 * expected.norm(), name  # one rounding of bfloat16


@pytest.mark.parametrize("training", [True, False])
def test_gradient_of_rrelu_has_the_slopes_that_were_drawn(training):
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.compile(lambda x: F.rrelu(x, training=training), backend="accel", options={"strict": True})(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, y.detach() / x.detach())


RANK = """
    import os, sys
    import torch
    import torch.distributed as dist
    from torch import nn

    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 4))
    parallel = nn.parallel.DistributedDataParallel(model)
    compiled = torch.compile(parallel, backend="accel")
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    compiled(x[int(sys.argv[2])::2]).square().mean().backward()
    alone = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 4))
    alone.load_state_dict(model.state_dict())
    alone(x).square().mean().backward()
    for found, expected in zip(model.parameters(), alone.parameters()):
        torch.testing.assert_close(found.grad, expected.grad)
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_distributed_gradients_are_those_of_the_whole_batch(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(RANK), str(tmp_path / "store")]
    ranks = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True, env=os.environ) for rank in range(2)]
    for rank in ranks:
        _, errors = rank.communicate(timeout=240)
        assert rank.returncode == 0, errors
