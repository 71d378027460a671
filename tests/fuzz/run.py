"""python tests/fuzz/run.py --seeds 0:2000: random programs, compiled and compared with eager.

Prints every failing program, reduced, as a script.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys
import time


def main() -> int:
    """Run the seeds; 1 where a program fails."""
    parser = argparse.ArgumentParser(description="Compare random programs with eager.")
    parser.add_argument("--seeds", default="0:100", metavar="A:B", help="seeds A to B - 1, or one seed")
    parser.add_argument("--show", action="store_true", help="print the programs and run nothing")
    parser.add_argument("--no-reduce", action="store_true", help="print failing programs as they are")
    arguments = parser.parse_args()
    os.environ.setdefault("ACCEL_CFLAGS", "-O0")  # programs run a few times: compiling them is what takes the time
    faulthandler.enable()
    first, _, last = arguments.seeds.partition(":")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    return _show(seeds) if arguments.show else _run(seeds, not arguments.no_reduce)


def _show(seeds: range) -> int:
    from builder import draw

    for seed in seeds:
        print(draw(seed).script(f"seed {seed}"))
    return 0


def _run(seeds: range, is_reducing: bool) -> int:
    import torch

    from builder import draw
    from program import check
    from reduce import reduce

    logging.getLogger("torch").setLevel(logging.ERROR)
    torch._dynamo.config.recompile_limit = 64
    failures, started = [], time.perf_counter()
    for index, seed in enumerate(seeds):
        print(f"seed {seed}, {len(failures)} of {index} failed, {time.perf_counter() - started:.0f} s", end="\r", file=sys.stderr, flush=True)
        program = draw(seed)
        message = check(program)
        if message is None:
            continue
        failures.append(seed)
        if is_reducing:
            kind = _kind(message)
            program = reduce(program, lambda candidate: (found := check(candidate)) is not None and _kind(found) == kind)
            message = check(program) or message
        print(f"==== seed {seed}\n{program.script(message)}", flush=True)
    print(f"{len(failures)} of {len(seeds)} programs failed: {failures}; {time.perf_counter() - started:.0f} s")
    return 1 if failures else 0


def _kind(message: str) -> str:
    """What must stay the same while a program is reduced: the exception, or that values, strides, … differ."""
    what = message.split(": ", 1)[1]
    return next((word for word in ("strides", "dtype", "shape", "storage", "differ", "requires_grad") if word in what), what.split(":")[0])


if __name__ == "__main__":
    sys.exit(main())
