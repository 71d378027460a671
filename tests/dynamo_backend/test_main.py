"""python -m accel: every command, and what a wrong call says."""

from __future__ import annotations

import json
import textwrap

import pytest

from accel import AccelError
from accel.__main__ import load_target, main


@pytest.fixture
def target(tmp_path):
    file = tmp_path / "cli_target.py"
    file.write_text(
        textwrap.dedent("""
        import torch
        def pair(): return torch.nn.Linear(3, 2), (torch.ones(1, 3),)
        def tensor(): return torch.nn.Linear(3, 2), torch.ones(1, 3)
        def keywords(): return torch.nn.Linear(3, 2), {"input": torch.ones(1, 3)}
        def wrong(): return torch.nn.Linear(3, 2)
    """)
    )
    return lambda name: f"{file}:{name}"


@pytest.mark.parametrize("name", ["pair", "tensor", "keywords"])
def test_inputs_are_taken_in_every_form(target, name):
    model, args, kwargs = load_target(target(name))
    assert model(*args, **kwargs).shape == (1, 2)


@pytest.mark.parametrize("name", ["wrong", "missing"])
def test_wrong_function_is_named(target, name):
    with pytest.raises(AccelError, match=name):
        load_target(target(name))


@pytest.mark.parametrize("wrong", ["no_such_file.py:f", "file_only.py", ""])
def test_wrong_target_states_the_form(wrong):
    with pytest.raises(AccelError, match="path/to/file.py:function"):
        load_target(wrong)


def test_explain_prints_json_and_writes_files(target, capsys, tmp_path):
    assert main(["explain", target("pair"), "--json", "--html", str(tmp_path / "a.html"), "--dot", str(tmp_path / "a.dot")]) == 0
    assert json.loads(capsys.readouterr().out)["coverage"]["total_nodes"] > 0
    assert (tmp_path / "a.html").exists() and (tmp_path / "a.dot").read_text().startswith("digraph")


def test_profile_prints_tables_json_and_writes_a_trace(target, capsys, tmp_path):
    assert main(["profile", target("pair"), "--trace", str(tmp_path / "a.json")]) == 0
    assert "executed instructions" in capsys.readouterr().out and json.loads((tmp_path / "a.json").read_text())["traceEvents"]
    assert main(["profile", target("pair"), "--json", "--machine", "dvx-m16"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["name"] == "dvx-m16"


def test_sweep_varies_fields_of_a_machine(target, capsys):
    assert main(["sweep", target("pair"), "--vary", "ddr_bytes_per_cycle=0.5,32", "--vary", "issue_width=1,4", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["points"]) == 4


@pytest.mark.parametrize("vary, word", [("vlen_bytes", "FIELD=VALUE"), ("vlen=8", "vlen_bytes"), ("vlen_bytes=9", "power of two")])
def test_sweep_of_a_wrong_field_fails_with_one_line(target, capsys, vary, word):
    assert main(["sweep", target("pair"), "--vary", vary]) == 1
    told = capsys.readouterr().err
    assert word in told and told.count("\n") == 1


def test_explain_of_a_wrong_target_fails_with_one_line(capsys):
    assert main(["explain", "nowhere.py:f"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_machines_lists_presets(capsys):
    assert main(["machines"]) == 0
    out = capsys.readouterr().out
    assert {"host", "dvx-h1"} <= {line.split()[0] for line in out.splitlines()}
    assert "ddr_bytes_per_cycle=32.0" in out


def test_cache_counts_and_clears(capsys, tmp_path):
    assert main(["cache", "--dir", str(tmp_path), "--clear"]) == 0
    assert main(["cache", "--dir", str(tmp_path)]) == 0
    assert "removed 0 entries" in (out := capsys.readouterr().out) and "0 entries, 0.0 MB" in out


def test_doctor_reports_and_exits_by_health(capsys):
    status = main(["doctor"])
    out = capsys.readouterr().out
    assert all(label in out for label in ("torch-accel", "C compiler", "cache", "test model"))
    assert status == (0 if "compiled, and as eager" in out else 1)


def test_unknown_command_lists_the_commands(capsys):
    with pytest.raises(SystemExit):
        main(["explode"])
    assert "doctor" in capsys.readouterr().err
