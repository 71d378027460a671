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


def test_layers_that_torchs_own_code_calls_are_named_by_module():
    with torch.no_grad():
        told = accel.profile(torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.LayerNorm(5)))(torch.ones(2, 4))
    assert {kernel.sources for kernel in told.kernels} == {("module 0",), ("module 1",)} and "module 1" in str(told)


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


def test_lines_of_the_source_take_all_cycles(profiled):
    by_source = profiled.by_source()
    assert sum(kernel.cycles for kernel in by_source.values()) == profiled.total.cycles
    assert [kernel.cycles for kernel in by_source.values()] == sorted((kernel.cycles for kernel in by_source.values()), reverse=True)
    assert "test_profile.py:21" in str(profiled)


def test_trace_covers_the_cycles_without_gaps(profiled, tmp_path):
    profiled.to_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    calls = [event for event in events if event["ph"] == "X"]
    ends = [event["ts"] + event["dur"] for event in calls]
    assert [event["ts"] for event in calls] == [0, *ends[:-1]] and ends[-1] == profiled.total.cycles


def test_what_runs_in_eager_is_named_and_not_counted():
    def half_native(x):
        return torch.linalg.svd(x @ x + 1)[1].relu() + x.sum(0)

    with torch.no_grad():
        told = accel.profile(half_native)(torch.ones(6, 6))
    assert [fallback.op for fallback in told.eager] == ["aten._linalg_svd"] and "aten._linalg_svd" in str(told)
    assert not any("svd" in op for kernel in told.kernels for op in kernel.ops)


def test_nothing_native_is_a_report_of_nothing():
    with torch.no_grad():
        told = accel.profile(torch.linalg.eigvals)(torch.ones(3, 3))
    assert told.kernels == () and told.total is None and "nothing ran natively" in str(told) and json.loads(told.to_json())["total"] is None


def test_kernels_count_every_call_of_a_graph(block):
    def twice(x):
        torch._dynamo.graph_break()
        return block(block.linear(x)[:, :20])

    with torch.no_grad():
        told = accel.profile(twice)(torch.ones(5, 20))
    torch.testing.assert_close(told.result, twice(torch.ones(5, 20)))
    assert sum(kernel.calls for kernel in told.kernels if any("mm" in op for op in kernel.ops) and kernel.kind == "gemm") == 2
    assert len(told.graph_breaks) == 1 and "test_profile.py:116" in str(told)


def test_frozen_and_dynamic_runs_are_counted_exactly(block):
    with torch.no_grad():
        for options in ({"freeze": True}, {"dynamic": True}):
            assert accel.profile(block, verify=True, **options)(torch.ones(3, 20)).is_exact


def test_wrong_option_is_named():
    with pytest.raises(accel.OptionError, match="no_such"):
        accel.profile(torch.relu, no_such=1)


@pytest.fixture(scope="module")
def swept(block):
    with torch.no_grad():
        return accel.sweep(block, {"ddr_bytes_per_cycle": [0.5, 4, 64], "vlen_bytes": [64, 128]})(torch.ones(5, 20))


def test_sweep_has_every_combination_in_order(swept):
    told = [tuple(point.settings.values()) for point in swept.points]
    assert told == [(0.5, 64), (0.5, 128), (4, 64), (4, 128), (64, 64), (64, 128)]
    assert len(str(swept).splitlines()) == 2 + len(told) and len(json.loads(swept.to_json())["points"]) == len(told)


def test_more_bandwidth_and_longer_vectors_do_not_cost_cycles(swept):
    cycles = {tuple(point.settings.values()): point.profile.total.cycles for point in swept.points}
    assert cycles[0.5, 128] > cycles[4, 128] >= cycles[64, 128] and cycles[64, 64] >= cycles[64, 128]
    instructions = {point.settings["vlen_bytes"]: point.profile.total.n_instructions for point in swept.points}
    assert instructions[64] > instructions[128]


def test_a_swept_point_is_the_profile_of_its_machine(block, swept):
    with torch.no_grad():
        alone = accel.profile(block, machine=swept.points[2].profile.machine)(torch.ones(5, 20))
    assert alone.to_dict()["total"] == swept.points[2].profile.to_dict()["total"]


def test_machines_are_swept_by_name(block):
    with torch.no_grad():
        swept = accel.sweep(block, ["dvx-h1", "dvx-m16"])(torch.ones(5, 20))
    assert [point.settings for point in swept.points] == [{"machine": "dvx-h1"}, {"machine": "dvx-m16"}]


@pytest.mark.parametrize("fields, word", [({"vlen": [1]}, "vlen_bytes"), ({"vlen_bytes": [3]}, "power of two"), (["dvx-9"], "dvx-h1")])
def test_no_such_machine_is_one_error_that_says_what_there_is(fields, word):
    with pytest.raises(accel.OptionError, match=word):
        accel.sweep(torch.relu, fields)
