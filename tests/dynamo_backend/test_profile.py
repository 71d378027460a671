"""accel.profile: results are eager's, counts are those of the intrinsics, the report says whose line costs what."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

import accel


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(20, 33)
        self.norm = torch.nn.LayerNorm(33)

    def forward(self, x):
        hidden = F.gelu(self.linear(x))
        return self.norm(hidden)


@pytest.fixture(scope="module")
def block():
    torch.manual_seed(0)
    return Block()


@pytest.fixture(scope="module")
def profiled(block):
    with torch.no_grad():
        return accel.profile(block, verify=True)(torch.ones(5, 20))


def test_result_is_eagers(block, profiled):
    torch.testing.assert_close(profiled.result, block(torch.ones(5, 20)))


def test_every_instruction_counts_as_the_intrinsics_do(profiled):
    assert profiled.is_exact and profiled.instructions == profiled.counted and sum(profiled.counted.values()) > 0


def test_kernels_name_the_users_lines(profiled):
    lines = {line.rpartition("/")[2] for kernel in profiled.kernels for line in kernel.sources}
    assert lines == {"test_profile.py:21", "test_profile.py:22"}


def test_json_holds_every_kernel(profiled):
    told = json.loads(profiled.to_json())
    assert [kernel["cycles"] for kernel in told["kernels"]] == [kernel.cycles for kernel in profiled.kernels]
    assert told["total"]["cycles"] == sum(kernel["cycles"] for kernel in told["kernels"])


def test_report_names_the_model_and_its_estimates(profiled):
    text = str(profiled)
    assert "dvx-model" in text and "estimates are" in text and "cycle-accurate" not in text


def test_training_profiles_both_passes_and_leaves_grad_alone(block):
    told = accel.profile(block)(torch.ones(5, 20))
    assert {kernel.partition.split("_")[-2] for kernel in told.kernels} == {"forward", "backward"}
    assert all(parameter.grad is None for parameter in block.parameters())


def test_a_backward_pass_of_the_users_own_is_the_one_that_is_profiled(block):
    def step(x):
        block(x).sum().backward()

    told = accel.profile(step)(torch.ones(5, 20))
    assert sum(kernel.calls for kernel in told.kernels if "backward" in kernel.partition) >= 1
    assert all(parameter.grad is not None for parameter in block.parameters())
    block.zero_grad()
