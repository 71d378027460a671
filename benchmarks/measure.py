"""Measures one case in this process and prints what it finds as JSON lines; run.py starts it once per case.

A line is {"event": "preparing", "backend": ...}, so that the parent knows who crashed, or {"event": "done", "result": ...}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
import warnings

import torch
from torch.utils.flop_counter import FlopCounterMode

import limits
from cases import Case
from kernels import KERNELS
from models import MODELS
from peers import LeftOut, prepare
from timing import interleaved, largest_error, tensors_of

SHORT = 160  # characters of a peer's error message that are kept


def main() -> None:
    """Measures the case on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case")
    parser.add_argument("--backends", nargs="+", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    case = (MODELS | KERNELS)[options.case]
    with torch.set_grad_enabled(case.kind == "training"):
        result = measure(case, options.backends, options.seconds, options.rounds)
    tell(event="done", result=result)


def measure(case: Case, backends: list[str], seconds: float, rounds: int) -> dict:
    """Compiles, compares, times: {"name", "kind", "flops", "bytes", "native", "backends": {name: {...}}}."""
    module, inputs = case.build()
    expected = tensors_of(prepare("eager", case, module, inputs)(*inputs))
    candidates, report = {}, {}
    for backend in backends:
        tell(event="preparing", backend=backend)
        report[backend] = attempt(backend, case, module, inputs, expected, candidates)
    tell(event="preparing", backend="")
    timed = dict(candidates)
    if case.bytes is not None:
        timed["copy"] = limits.copy_of(case.bytes)
    times = interleaved(timed, inputs, seconds, rounds)
    for backend in candidates:
        report[backend] |= times[backend].to_dict()
        report[backend]["over"] = {other: float(f"{times[backend].ratio_to(times[other]):.4g}") for other in candidates if other != backend}
    flops = case.flops or count_flops(case, module, inputs)
    peak = limits.fma_gflops(torch.get_num_threads()) if flops else None
    copied = times["copy"].to_dict() if "copy" in times else None
    native = explained(case, module, inputs) if "accel" in candidates else None
    return {"name": case.name, "kind": case.kind, "flops": flops, "bytes": case.bytes, "peak_gflops": peak, "copy": copied, "native": native, "backends": report}


def attempt(backend: str, case: Case, module, inputs: tuple, expected: list, candidates: dict) -> dict:
    """What became of one backend; where its results are those of eager it joins `candidates`."""
    started = time.perf_counter()
    try:
        run = prepare(backend, case, module, inputs)
        error = largest_error(tensors_of(run(*inputs)), expected)
        error = max(error, largest_error(tensors_of(run(*inputs)), expected))  # once more: state and buffers of the first call
    except LeftOut as reason:
        return {"status": "left out", "note": str(reason)}
    except Exception as failure:  # a peer's fault is a line in the table
        return {"status": "failed", "note": f"{type(failure).__name__}: {failure}".strip().splitlines()[0][:SHORT]}
    result = {"status": "right" if error <= case.tolerance else "wrong", "error": error, "prepared_s": round(time.perf_counter() - started, 2)}
    if result["status"] == "right":
        candidates[backend] = run
    return result


def count_flops(case: Case, module, inputs: tuple) -> int | None:
    """Operations of products and convolutions in one forward call, as torch counts them; None where it counts none, or for training."""
    if case.kind == "training":
        return None
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() or None


def explained(case: Case, module, inputs: tuple) -> dict:
    """What accel.explain says: nodes, native nodes, partitions, and each reason for a fallback with its number of nodes."""
    import accel

    found = accel.explain(module)(*inputs).to_dict()
    reasons: dict[str, int] = {}
    for graph in found["graphs"]:
        for fallback in graph["fallbacks"]:
            key = f"{fallback['op']}: {fallback['reason']}"[:SHORT]
            reasons[key] = reasons.get(key, 0) + 1
    return {**found["coverage"], "partitions": sum(len(graph["partitions"]) for graph in found["graphs"]), "breaks": len(found["graph_breaks"]), "fallbacks": reasons}


def tell(**event: object) -> None:
    """A JSON line on the real standard output."""
    print(json.dumps(event), file=REPORT, flush=True)


if __name__ == "__main__":
    REPORT = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what peers print is not ours
        main()
