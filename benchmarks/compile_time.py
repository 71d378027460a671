"""How compile time grows with depth: `python benchmarks/compile_time.py`, a fresh process and an empty cache per depth.

The model is a stack of equal transformer blocks, so all but the first share their kernels. The stages of accel are told apart by
timers around the functions in STAGES; what is left is Dynamo and AOTAutograd.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEPTHS = (1, 2, 4, 8, 16, 32, 64)
# stage: module and function whose calls it is; builds of one partition after the other, so that their times add up
STAGES = {
    "whole backend": ("accel.compile_graph", "compile_graph"),
    "judging": ("accel.compile_graph", "judge_graph"),
    "planning": ("accel.compile_graph", "plan"),
    "lowering": ("accel.native", "schedule_partition"),
    "writing": ("accel.native", "write_partition"),
    "C compilation": ("accel.runtime.build", "_compile_and_link"),
    "loading": ("accel.runtime.build", "Library"),
}


def main() -> None:
    """A row per depth, or one measurement if called with --depth."""
    parser = argparse.ArgumentParser(description="Compile time over the number of transformer blocks.")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--backends", nargs="+", default=["accel"], choices=["accel", "inductor"])
    parser.add_argument("--timeout", type=float, default=1200)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--depth", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.depth:
        print(json.dumps(compile_stack(options.depth, options.backends[0])))
        return
    results = []
    print("seconds; warm: a second process with the kept cache\n" + row("backend", "blocks", "cold", "warm", "tracing", *STAGES))
    for backend in options.backends:
        for depth in options.depths:
            results.append(measure(depth, backend, options.timeout))
            cold, warm = results[-1]["cold"], results[-1]["warm"]
            stages = cold.get("stages", {})
            tracing = cold["total"] - stages["whole backend"] if "whole backend" in stages else None
            print(row(backend, depth, cold.get("total"), warm.get("total"), tracing, *(stages.get(stage) for stage in STAGES)), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))


def row(*cells: object) -> str:
    """Cells in columns; numbers with two digits, None as a dash."""
    texts = [f"{cell:.2f}" if isinstance(cell, float) else "-" if cell is None else str(cell) for cell in cells]
    return " ".join(f"{text:>13}" for text in texts)


def measure(depth: int, backend: str, timeout: float) -> dict:
    """{"blocks", "backend", "cold", "warm"}: what two processes with one cache printed; {} where one failed."""
    command = [sys.executable, __file__, "--depth", str(depth), "--backends", backend]
    found = {"blocks": depth, "backend": backend}
    with tempfile.TemporaryDirectory(prefix="accel-bench-") as folder:
        caches = {"ACCEL_CACHE_DIR": f"{folder}/accel", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}
        for state in ("cold", "warm"):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **caches})
                found[state] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
            except subprocess.TimeoutExpired:
                found[state] = {}
    return found


def compile_stack(depth: int, backend: str) -> dict:
    """{"total": seconds from torch.compile to the first result, "stages": seconds by stage}."""
    import torch
    from torch import nn

    block = functools.partial(nn.TransformerEncoderLayer, 64, nhead=4, dim_feedforward=256, dropout=0.0, activation="gelu", batch_first=True)
    model, x = nn.Sequential(*(block() for _ in range(depth))).eval(), torch.randn(1, 32, 64)
    seconds: dict[str, float] = {}
    with torch.no_grad():
        started = time.perf_counter()
        if backend == "accel":
            for stage, (module, function) in STAGES.items():
                add_timer(seconds, stage, importlib.import_module(module), function)
        torch.compile(model, backend=backend)(x)
        return {"total": time.perf_counter() - started, "stages": seconds}


def add_timer(seconds: dict[str, float], stage: str, module: object, name: str) -> None:
    """Puts a function in the place of `module.name` that adds its time to `seconds[stage]`."""
    inner = getattr(module, name)

    @functools.wraps(inner, updated=())
    def timed(*args, **kwargs):
        started = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started

    setattr(module, name, timed)


if __name__ == "__main__":
    main()
