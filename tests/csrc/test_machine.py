"""Machines: presets, the host, TOML files and what their errors say."""

from __future__ import annotations

import dataclasses
import re

import pytest

from accel.csrc import PRESETS, Machine, machines, resolve_machine
from accel.csrc.machine import host_machine


def test_lanes_are_one_per_four_bytes():
    assert [Machine("m", vlen_bytes=vlen).lanes for vlen in (16, 128, 1024)] == [4, 32, 256]


def test_machines_lists_the_host_and_every_preset():
    assert set(machines()) == {"host", *PRESETS}
    assert all(machine.name == name for name, machine in machines().items())


@pytest.mark.parametrize("name", ["host", *PRESETS])
def test_a_named_machine_is_resolved(name):
    assert resolve_machine(name) is machines()[name]


def test_presets_are_scratchpad_machines_with_known_shapes():
    assert {name: (m.vlen_bytes, m.n_vregs, m.n_contexts) for name, m in PRESETS.items()} == {"dvx-h1": (128, 32, 4), "dvx-m16": (16, 8, 1)}
    assert all(machine.tcm_bytes >= machine.l2_bytes > machine.l1_bytes for machine in PRESETS.values())


def test_the_host_fits_this_cpu():
    host = host_machine()
    assert host.vlen_bytes in (16, 32, 64)
    assert host.tcm_bytes == 0
    assert 8 * 1024 <= host.l1_bytes <= host.l2_bytes


def test_a_machine_resolves_to_itself():
    machine = Machine("mine", vlen_bytes=64)
    assert resolve_machine(machine) is machine


def test_machines_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Machine("m").vlen_bytes = 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vlen_bytes": 8}, "machine m: vlen_bytes must be a power of two >= 16, got 8"),
        ({"vlen_bytes": 48}, "machine m: vlen_bytes must be a power of two >= 16, got 48"),
        ({"n_vregs": 4}, "machine m: n_vregs must be at least 8, got 4"),
    ],
)
def test_a_bad_shape_is_refused(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Machine("m", **fields)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown machine 'dvx-9': expected one of \['dvx-h1', 'dvx-m16', 'host'\]"):
        resolve_machine("dvx-9")


def test_a_toml_file_is_a_machine_named_after_it(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text("vlen_bytes = 32\nn_vregs = 16\nclock_mhz = 600\n")
    assert resolve_machine(str(path)) == Machine("small", vlen_bytes=32, n_vregs=16, clock_mhz=600)


def test_a_toml_file_may_name_its_machine(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('name = "large"\n')
    assert resolve_machine(str(path)).name == "large"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vlen = 32\n", "unknown field 'vlen'; valid fields: ['address_slots', "),
        ("vlen_bytes = 24\n", "vlen_bytes must be a power of two >= 16, got 24"),
        ("vlen_bytes = \n", "Invalid value"),
    ],
)
def test_a_bad_toml_file_is_refused_with_its_name(text, message, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        resolve_machine(str(path))
    assert "bad" in str(caught.value)


def test_a_missing_toml_file_is_refused_with_its_name(tmp_path):
    path = tmp_path / "none.toml"
    with pytest.raises(ValueError, match=r"machine file .*none\.toml: .*No such file"):
        resolve_machine(str(path))
