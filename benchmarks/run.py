"""accel against its peers on this machine: `python benchmarks/run.py --models ... --kernels ... --backends ...`.

Each case runs in a process of its own, where all backends are compared with eager and then timed in interleaved blocks.
Prints tables, and writes results.json and ratios.png into the folder of --output.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cases import Case, find_cases
from kernels import KERNELS
from models import MODELS
from peers import BACKENDS
from report import case_line, heading, machine_facts, plot, summary
from startup import STARTS, measure_starts, start_lines, start_summary

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache" / "bench"
PRINTED_STDERR_LINES = 3


def main() -> int:
    """Measures what the command line asks for; the exit code is 1 where a backend of ours was wrong or failed."""
    options = parse_arguments()
    started = time.perf_counter()
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine_facts(options.threads), "date": datetime.date.today().isoformat(), "cases": [], "starts": []}
    print(heading(document, options.backends))
    cases = [*find_cases(options.models, MODELS, options.quick), *find_cases(options.kernels, KERNELS, options.quick)]
    for case in cases:
        if options.budget and time.perf_counter() - started > 60 * options.budget:
            print(f"{case.name:<18} left out: the budget of {options.budget:g} minutes is spent")
            continue
        result = measure_case(case, options)
        document["cases"].append(result)
        print(case_line(result, options.backends), flush=True)
        (output / "results.json").write_text(json.dumps(document, indent=1))
    for case in find_cases(list(STARTS) if options.starts == ["all"] else options.starts, MODELS, False):
        document["starts"].append(measure_starts(case.name, options.threads, options.timeout))
        print("\n".join(start_lines(document["starts"][-1])), flush=True)
        (output / "results.json").write_text(json.dumps(document, indent=1))
    print(summary(document["cases"]))
    print(start_summary(document["starts"]))
    print(plot(document, output / "ratios.png"))
    print(f"{len(document['cases'])} cases in {time.perf_counter() - started:.0f} s\nresults: {output / 'results.json'}")
    return int(any(is_bad(result) for result in document["cases"]))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="accel against eager, inductor, OpenVINO and ONNX Runtime on this machine.")
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME", help=f"all, or some of: {', '.join(MODELS)}")
    parser.add_argument("--kernels", nargs="*", default=[], metavar="NAME", help=f"all, or some of: {', '.join(KERNELS)}")
    parser.add_argument("--starts", nargs="*", default=[], metavar="NAME", help=f"models whose cold start, warm start and peak memory are measured; all: {', '.join(STARTS)}")
    parser.add_argument("--quick", action="store_true", help="a selection of models and kernels")
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=list(BACKENDS), metavar="NAME", help=", ".join(BACKENDS))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for every backend, default %(default)s")
    parser.add_argument("--seconds", type=float, default=1.5, help="of timing per backend and case, default %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="blocks per backend, default %(default)s")
    parser.add_argument("--budget", type=float, default=0, help="minutes after which no further case is begun; 0 for no end")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one process, default %(default)s")
    parser.add_argument("--output", default=str(CACHE), help="folder of results.json and ratios.png, default %(default)s")
    options = parser.parse_args()
    if "eager" not in options.backends:
        options.backends.insert(0, "eager")
    return options


def measure_case(case: Case, options: argparse.Namespace) -> dict:
    """The result of measure.py for one case; a backend that takes the process down is left out and the case begun again."""
    backends, crashed = list(options.backends), {}
    while True:
        result, culprit, note = run_measure(case.name, backends, options)
        if result is not None:
            result["backends"] |= crashed
            return result
        crashed[culprit] = {"status": "failed", "note": note}
        if culprit not in backends or culprit == "eager":
            return {"name": case.name, "kind": case.kind, "flops": None, "bytes": None, "peak_gflops": None, "copy": None, "native": None, "backends": crashed}
        backends.remove(culprit)


def run_measure(name: str, backends: list[str], options: argparse.Namespace) -> tuple[dict | None, str, str]:
    """One process: its result, or None, the backend it was busy with, and what it said last."""
    arguments = ["--backends", *backends, "--threads", str(options.threads), "--seconds", str(options.seconds), "--rounds", str(options.rounds)]
    command = [sys.executable, str(HERE / "measure.py"), name, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True)
    try:
        output, errors = process.communicate(timeout=options.timeout)
        note = f"exit code {process.returncode}: " + " | ".join(errors.strip().splitlines()[-PRINTED_STDERR_LINES:])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its compilers too
        output, errors = process.communicate()
        note = f"took more than {options.timeout:g} s"
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    result = next((event["result"] for event in events if event["event"] == "done"), None)
    culprit = next((event["backend"] for event in reversed(events) if event["event"] == "preparing"), "eager")
    return result, culprit, note


def environment() -> dict[str, str]:
    """Caches of the benchmark's own, kept between runs: compile time is not what is measured here."""
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"), "ACCEL_CACHE_DIR": str(CACHE / "accel")}
    return {**os.environ, **caches, "HF_HUB_OFFLINE": "1", "OPENVINO_TELEMETRY_ENABLED": "0"}


def is_bad(result: dict) -> bool:
    """Whether accel was wrong or failed on a case."""
    return any(found["status"] in ("wrong", "failed") for backend, found in result["backends"].items() if backend.startswith("accel"))


if __name__ == "__main__":
    sys.exit(main())
