"""Cold start, warm start and peak memory, each in a fresh process: `python benchmarks/startup.py MODEL BACKEND` is one of them.

A start is the time from torch.compile to the first result, backward included in training. Imports of torch and the making of
the model are not counted, the backend's own imports are. `floor` is Dynamo and AOTAutograd in front of no compiler.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["START_BACKENDS", "STARTS", "measure_starts", "start_lines", "start_summary"]

START_BACKENDS = ("eager", "floor", "inductor", "accel", "accel-freeze")
STARTS = ("mlp_tiny", "lstm_cell", "bert_base", "vit_small", "resnet18", "mobilenetv3", "mlp_train")  # what `--starts all` measures
KILOBYTES_PER_MB = 1024


def measure_starts(name: str, threads: int, timeout: float) -> dict:
    """{"name", "backends": {backend: {"cold_s", "warm_s", "cold_cpu_s", "warm_cpu_s", "peak_mb"}}}; the peak is that of the cold start.

    CPU seconds are the process's and its compilers': they tell something on a busy machine, too.
    """
    found = {}
    for backend in START_BACKENDS:
        with tempfile.TemporaryDirectory(prefix="accel-bench-") as caches:
            cold, warm = (_fresh_process(name, backend, threads, Path(caches), timeout) for _ in range(2))
        found[backend] = {"cold_s": cold.get("seconds"), "warm_s": warm.get("seconds"), "peak_mb": cold.get("peak_mb"),
                          "cold_cpu_s": cold.get("cpu_s"), "warm_cpu_s": warm.get("cpu_s")}  # fmt: skip
    return {"name": name, "backends": found}


def start_lines(starts: dict) -> list[str]:
    """The table of one model."""
    lines = [f"\n{starts['name']:<18} {'cold s':>8} {'warm s':>8} {'cold CPU':>8} {'warm CPU':>8} {'peak MB':>8}"]
    for backend, found in starts["backends"].items():
        values = (found[column] for column in ("cold_s", "warm_s", "cold_cpu_s", "warm_cpu_s"))
        cells = [f"{value:8.2f}" if value is not None else f"{'failed':>8}" for value in values]
        lines.append(f"  {backend:<16} {' '.join(cells)} {found['peak_mb'] or 0:8.0f}")
    return lines


def start_summary(starts: list[dict]) -> str:
    """Geometric means of accel's starts over inductor's, and of the peak memory."""
    parts = []
    for label, column in (("cold start", "cold_s"), ("warm start", "warm_s"), ("peak memory", "peak_mb")):
        pairs = [(found["backends"]["accel"][column], found["backends"]["inductor"][column]) for found in starts]
        ratios = [ours / theirs for ours, theirs in pairs if ours and theirs]
        if ratios:
            parts.append(f"{label} {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}")
    return f"accel over inductor, geometric means of {len(starts)} models: {', '.join(parts)}" if parts else ""


def _fresh_process(name: str, backend: str, threads: int, caches: Path, timeout: float) -> dict:
    folders = {"TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"), "ACCEL_CACHE_DIR": str(caches / "accel")}
    command = [sys.executable, __file__, name, backend, str(threads)]
    environment = {**os.environ, **folders, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its compilers too
        process.communicate()
        return {}
    return json.loads(output.splitlines()[-1]) if process.returncode == 0 else {}


def _start(name: str, backend: str, threads: int) -> dict:
    import torch

    from models import MODELS
    from peers import floor_backend, training_step

    torch.set_num_threads(threads)
    case = MODELS[name]
    module, inputs = case.build()
    with torch.set_grad_enabled(case.kind == "training"):
        started, cpu_before = time.perf_counter(), _cpu_seconds()
        backend, _, freeze = backend.partition("-")
        options = {"options": {"freeze": True}} if freeze else {}
        run = module if backend == "eager" else torch.compile(module, backend=floor_backend if backend == "floor" else backend, **options)
        if case.kind == "training" and backend != "floor":  # the floor's loss is uninitialized memory without a backward graph
            run = training_step(module, run)
        run(*inputs)
        seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu_before
    return {"seconds": round(seconds, 3), "cpu_s": round(cpu, 3), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILOBYTES_PER_MB}


def _cpu_seconds() -> float:
    """Of this process, its threads, and the children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    print(json.dumps(_start(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
