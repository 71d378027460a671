"""Cold start, warm start and peak memory, each in a fresh process: `python benchmarks/startup.py MODEL BACKEND` is one of them.

A start is the time from torch.compile to the first result, backward included in training. Imports of torch and the making of
the model are not counted, the backend's own imports are. `floor` is Dynamo and AOTAutograd in front of no compiler.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["START_BACKENDS", "measure_starts", "start_lines"]

START_BACKENDS = ("eager", "floor", "inductor", "accel")
KILOBYTES_PER_MB = 1024


def measure_starts(name: str, threads: int, timeout: float) -> dict:
    """{"name", "backends": {backend: {"cold_s", "warm_s", "peak_mb"}}}; the peak is that of the cold start."""
    found = {}
    for backend in START_BACKENDS:
        with tempfile.TemporaryDirectory(prefix="accel-bench-") as caches:
            cold, warm = (_fresh_process(name, backend, threads, Path(caches), timeout) for _ in range(2))
        found[backend] = {"cold_s": cold.get("seconds"), "warm_s": warm.get("seconds"), "peak_mb": cold.get("peak_mb")}
    return {"name": name, "backends": found}


def start_lines(starts: dict) -> list[str]:
    """The table of one model."""
    lines = [f"\n{starts['name']:<18} {'cold s':>8} {'warm s':>8} {'peak MB':>8}"]
    for backend, found in starts["backends"].items():
        cells = [f"{value:8.2f}" if value is not None else f"{'failed':>8}" for value in (found["cold_s"], found["warm_s"])]
        lines.append(f"  {backend:<16} {' '.join(cells)} {found['peak_mb'] or 0:8.0f}")
    return lines


def _fresh_process(name: str, backend: str, threads: int, caches: Path, timeout: float) -> dict:
    folders = {"TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"), "ACCEL_CACHE_DIR": str(caches / "accel")}
    command = [sys.executable, __file__, name, backend, str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **folders, "HF_HUB_OFFLINE": "1"})
    except subprocess.TimeoutExpired:
        return {}
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def _start(name: str, backend: str, threads: int) -> dict:
    import torch

    from models import MODELS
    from peers import floor_backend, training_step

    torch.set_num_threads(threads)
    case = MODELS[name]
    module, inputs = case.build()
    with torch.set_grad_enabled(case.kind == "training"):
        started = time.perf_counter()
        run = module if backend == "eager" else torch.compile(module, backend=floor_backend if backend == "floor" else backend)
        if case.kind == "training" and backend != "floor":  # the floor's loss is uninitialized memory without a backward graph
            run = training_step(module, run)
        run(*inputs)
        seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 3), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILOBYTES_PER_MB}


if __name__ == "__main__":
    print(json.dumps(_start(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
