"""Workers that crash, hang or die at the start cost one cell each, and the rest goes on.

Processes run a small stand-in for the worker, so that no test imports torch's op database.
"""

from __future__ import annotations

import sys
import textwrap

import pytest

from accel import coverage_pool
from accel.coverage_cases import Case
from accel.coverage_matrix import CellResult

STAND_IN = """
    import json, os, sys, time
    print("ready", flush=True)
    for line in sys.stdin:
        op = json.loads(line)["op"]
        if op == "crash":
            os.abort()
        if op == "hang":
            time.sleep(60)
        if op == "die later":
            print(json.dumps({"status": "native", "reasons": []}), flush=True)
            break
        print(json.dumps({"status": "native", "samples": {"native": 1}, "reasons": [os.environ.get("WORD", "")], "message": str(os.getpid())}), flush=True)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    def start(ops, text=STAND_IN, **options):
        (tmp_path / "worker.py").write_text(textwrap.dedent(text))
        monkeypatch.setattr(coverage_pool, "_command", lambda: [sys.executable, str(tmp_path / "worker.py")])
        cases = [Case(op, "float32", "static") for op in ops]
        settings = {"n_workers": 1, "n_samples": 1, "timeout_s": 20.0, "environment": {}} | options
        return {case.op: cell for case, cell in coverage_pool.run_cases(cases, **settings)}

    return start


def test_every_case_has_its_answer(run):
    found = run(["a", "b", "c"], n_workers=2, environment={"WORD": "given"})
    assert found.keys() == {"a", "b", "c"} and all(cell.reasons == ("given",) for cell in found.values())


def test_crash_costs_one_cell(run):
    found = run(["a", "crash", "b"])
    assert found["crash"].status == "error" and "crashed" in found["crash"].message
    assert found["a"].status == found["b"].status == "native"
    assert found["a"].message != found["b"].message, "another process goes on"


def test_hang_costs_one_cell(run):
    found = run(["a", "hang", "b"], timeout_s=2.0)
    assert found["hang"] == CellResult("error", {"error": 1}, message="timed out after 2 s")
    assert found["a"].status == found["b"].status == "native"


def test_death_between_cells_costs_one_cell(run):
    found = run(["die later", "a", "b"])
    assert found["die later"].status == "native" and found["b"].status == "native"


def test_process_that_does_not_start_is_told(run):
    found = run(["a"], text="raise SystemExit(3)")
    assert found["a"].status == "error" and "no worker process" in found["a"].message


def test_process_is_replaced_before_it_grows(run, monkeypatch):
    monkeypatch.setattr(coverage_pool, "N_CELLS_OF_A_PROCESS", 1)
    found = run(["a", "b"])
    assert found["a"].message != found["b"].message
