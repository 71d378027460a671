"""The module matrix's runner on modules that differ in what they own: buffers that change, no parameters, parameters made at the first call."""

import pytest
import torch

from accel.coverage_cases import Case
from accel.coverage_modules import ModuleSample, module_cases, module_samples
from accel.coverage_run import run_case, run_sample


@pytest.mark.parametrize("name, mode", [("nn.BatchNorm1d", "train"), ("nn.BatchNorm1d", "inference"), ("nn.LazyConv1d", "train"), ("nn.SmoothL1Loss", "train")])
def test_module_is_native_and_right(name, mode):
    cell = run_case(Case(name, "float32", mode), 1)
    assert (cell.status, cell.n_samples) == ("native", 1), cell.message or cell.reasons


def test_every_mode_is_run_where_modes_differ():
    assert [case.variant for case in module_cases(r"nn\.BatchNorm1d")] == ["inference", "eval", "train"]
    assert [case.variant for case in module_cases(r"nn\.Conv1d")] == ["inference", "train"]


def test_every_run_gets_the_module_afresh():
    (sample,) = module_samples(Case("nn.BatchNorm1d", "float32", "train"), 1)
    before = sample.owner.running_mean.clone()
    function, tensors, owned = sample.fresh()
    function(*tensors)
    torch.testing.assert_close(sample.owner.running_mean, before, rtol=0, atol=0)
    assert any(not torch.equal(ours, theirs) for ours, theirs in zip(owned, (*sample.owner.parameters(), *sample.owner.buffers())))


class Forgetful(torch.nn.Module):
    """A parameter whose gradient the compiled program gets wrong."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        weight = self.weight.detach() if torch.compiler.is_compiling() else self.weight
        return x * weight * 2


def test_wrong_gradient_of_a_parameter_is_seen():
    module, x = Forgetful(), torch.randn(2, 3, requires_grad=True)
    sample = ModuleSample("nn.Forgetful()(t0)", module, (x,), module, (x,), {})
    outcome = run_sample(sample, "train", "nn.Forgetful")
    assert outcome.status in ("wrong", "upstream") and "shape" in (outcome.message + " ".join(outcome.reasons))
