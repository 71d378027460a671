"""Which models accel compiles whole, and whether they are right: `python benchmarks/architectures.py [NAME ...] [--dtype bfloat16]`.

Prints a row per architecture: call nodes, the share of them that ran as kernels, partitions, and the largest error in units of
eager's own distance from float64 (up to 10 is rounding), for the first size and, with `dynamic=True`, for two sizes.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import logging
import os
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by transformers when it is imported

import torch

from architecture import Architecture, Finding, examine
from architectures_language import LANGUAGE
from architectures_other import OTHER
from architectures_vision import VISION

ARCHITECTURES = {architecture.name: architecture for architecture in (*LANGUAGE, *VISION, *OTHER)}


def main() -> int:
    """Examine what the command line asks for; the exit code is 1 where a model is wrong or fails."""
    options = parse_arguments()
    logging.getLogger("torch").setLevel(logging.ERROR)
    chosen = [each for name, each in ARCHITECTURES.items() if any(fnmatch.fnmatch(name, pattern) for pattern in options.names)]
    n_bad, started = 0, time.perf_counter()
    print(f"{'architecture':<22} {'nodes':>5} {'native':>7} {'graphs':>6} {'parts':>5}  error static, dynamic ...")
    for architecture in chosen:
        begun = time.perf_counter()
        finding = examine(dataclasses.replace(architecture, dtype=getattr(torch, options.dtype)), options.setups)
        n_bad += not finding.is_right
        print(row(architecture, finding, time.perf_counter() - begun), flush=True)
    print(f"{len(chosen)} architectures, {n_bad} wrong or failed; {time.perf_counter() - started:.0f} s")
    return int(n_bad > 0)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compile known architectures with random weights and compare them with eager.")
    parser.add_argument("names", nargs="*", default=["*"], metavar="NAME", help=f"of {', '.join(ARCHITECTURES)}; patterns with * (default: all)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16", "float64"), help="of parameters and inputs (default: float32)")
    parser.add_argument("--setups", nargs="+", default=("static", "dynamic"), choices=("static", "dynamic"), help="how to compile (default: both)")
    return parser.parse_args()


def row(architecture: Architecture, finding: Finding, seconds: float) -> str:
    """The line of the table, with a line per reason below it."""
    share = f"{finding.native / finding.nodes:.1%}" if finding.nodes else "-"
    errors = ", ".join(f"{error:.2g}" for error in finding.errors)
    notes = [text for is_true, text in ((finding.recompiled, f"{finding.recompiled} recompiled"), (not finding.is_right, "WRONG")) if is_true]
    line = f"{architecture.name:<22} {finding.nodes:>5} {share:>7} {finding.graphs:>6} {finding.partitions:>5}  {errors}  {' '.join(notes)} ({seconds:.0f} s)"
    reasons = [f"    {count} x {reason}" for reason, count in finding.reasons.items()]
    return "\n".join([line, *reasons, *([f"    {finding.failure}"] if finding.failure else [])])


if __name__ == "__main__":
    sys.exit(main())
