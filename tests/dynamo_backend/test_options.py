"""Every option is read once; every wrong one is named, with what would be right."""

from __future__ import annotations

import logging

import pytest
import torch

import accel
from accel.options import READERS, Options


def test_defaults(monkeypatch):
    monkeypatch.delenv("ACCEL_CACHE_DIR", raising=False)
    monkeypatch.delenv("ACCEL_DUMP_DIR", raising=False)
    options = Options.parse()
    assert options.machine.name == "host"
    assert (options.freeze, options.winograd, options.strict, options.fallback_ops) == (False, True, False, frozenset())
    assert options.min_partition_nodes is options.threads is options.cache_dir is options.dump_dir is options.mode is None


@pytest.mark.parametrize("name", READERS)
def test_unknown_option_lists_every_valid_one(name):
    with pytest.raises(accel.OptionError, match=rf"unknown option 'frezee'[\s\S]*{name}:"):
        Options.parse({"frezee": True})


BAD_VALUES = [
    ("machine", "dvx-h9"), ("machine", 3), ("machine", "missing.toml"), ("freeze", 1), ("winograd", 0), ("strict", "yes"), ("fallback_ops", "aten.mul"),
    ("fallback_ops", [3]), ("fallback_ops", ["aten.no_such_op"]), ("min_partition_nodes", 0), ("min_partition_nodes", True), ("threads", -1),
    ("threads", 1.5), ("cache_dir", 7), ("dump_dir", []),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_bad_value_names_the_option_and_what_is_valid(key, value):
    with pytest.raises(accel.OptionError, match=rf"option {key}=[\s\S]*valid options:[\s\S]*{key}:"):
        Options.parse({key: value})


def test_unknown_mode_lists_the_modes():
    with pytest.raises(accel.OptionError, match="unknown mode 'fast'.*'max-autotune'"):
        Options.parse(mode="fast")


@pytest.mark.parametrize("mode", [None, "default", "reduce-overhead", "max-autotune"])
def test_modes_of_torch_are_taken(mode):
    assert Options.parse(mode=mode).mode == mode


@pytest.mark.parametrize("name", ["mul", "aten.mul", "aten::mul", "torch.ops.aten.mul"])
def test_op_names_are_read_in_every_common_form(name):
    assert Options.parse({"fallback_ops": [name]}).fallback_ops == {"aten.mul"}


def test_environment_gives_directories_and_options_win(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCEL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ACCEL_DUMP_DIR", str(tmp_path / "dump"))
    options = Options.parse({"dump_dir": tmp_path / "mine"})
    assert (options.cache_dir, options.dump_dir) == (tmp_path / "cache", tmp_path / "mine")


def test_torch_logs_reach_the_loggers_of_accel():
    settings = torch._logging._internal._parse_log_settings("+accel")
    assert settings.log_qname_to_level["accel"] == logging.DEBUG


def test_machine_may_be_an_object_a_preset_or_a_file(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text("vlen_bytes = 64\n")
    assert Options.parse({"machine": accel.Machine("mine")}).machine.name == "mine"
    assert Options.parse({"machine": "dvx-h1"}).machine.vlen_bytes == 128
    assert Options.parse({"machine": file}).machine.vlen_bytes == 64


def test_option_error_reaches_the_user_of_torch_compile():
    compiled = torch.compile(lambda x: x + 1, backend="accel", options={"fuse": True})
    with pytest.raises(Exception, match="unknown option 'fuse'"):
        compiled(torch.ones(2))


def test_torchs_own_filter_of_guards_is_taken_beside_our_options():
    model, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    options = {"freeze": True, "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="accel", options=options)(x), model(x))
