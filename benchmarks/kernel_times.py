"""Where the time of a model goes, kernel by kernel: `python benchmarks/kernel_times.py resnet18 [--freeze] [--threads 1]`.

Builds every partition with a clock around each kernel call of its entry function, runs the case, and prints the shortest time of each call
with its Gflop/s and GB/s. The clock is read outside the kernels, so their code is what a normal build has.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from unittest import mock

import torch
from accel import native
from accel.csrc.abi import PartitionSource
from accel.lowering import write_partition
from accel.runtime.build import build

from cases import Case, find_cases
from kernels import KERNELS
from limits import fma_gflops
from models import MODELS
from peers import training_step

# A call in what every context runs; where sizes decide who does it, another line follows for the first context alone.
CALL = re.compile(r"^    (?:if \(.*\) )?\w+_[0-9a-f]{8}\((?:team|&alone), .*$(?:\n    else .*$)?", re.MULTILINE)
CLOCK = """__attribute__((visibility("default"))) int64_t accel_ticks[N_CALLS];
__attribute__((visibility("default"))) int64_t accel_now(void);
int64_t accel_now(void)
{
#if defined(__x86_64__)
    return (int64_t)__builtin_ia32_rdtsc();
#else
    int64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#endif
}

"""
CALIBRATION_SECONDS = 0.2
TRIES, ROUNDS = 20, 200_000  # of the loop that measures the FMA peak: short ones, of which some are undisturbed


@dataclasses.dataclass
class TimedPartition:
    """A built partition with its clocks.

    Attributes:
        reports: one KernelReport per call of the entry function.   ticks: what the last run measured, per call.
        best: the fewest ticks of each call so far.   now: reads the clock.
    """

    name: str
    reports: tuple
    ticks: ctypes.Array
    now: Callable[[], int]
    best: list[int] = dataclasses.field(default_factory=list)

    def collect(self) -> None:
        """Takes over what the last run has measured."""
        self.best = [min(old, new) for old, new in zip(self.best or self.ticks, self.ticks)]


class Recorder:
    """Stands between the frontend and the stages: keeps the kernels' reports, and builds entry functions with clocks."""

    def __init__(self):
        self.failures: list[str] = []  # a build that raises would be left to eager
        self.partitions: list[TimedPartition] = []
        self.reports: dict[str, tuple] = {}

    def lower(self, *args, **kwargs):
        """write_partition."""
        lowered = write_partition(*args, **kwargs)
        self.reports[lowered.source.name] = lowered.kernels
        return lowered

    def build(self, source: PartitionSource, **kwargs):
        """build, of `source` with a clock around every call in its entry function."""
        *units, (file, text) = source.units
        timed, n_calls = with_clocks(text)
        if n_calls != len(self.reports[source.name]):
            self.failures.append(f"{source.name}: {n_calls} calls found in the C text of {len(self.reports[source.name])} kernels; CALL does not fit it")
            return build(source, **kwargs)
        built = build(dataclasses.replace(source, units=(*units, (file, timed))), **kwargs)
        library = ctypes.CDLL(str(built.library.path))
        library.accel_now.restype = ctypes.c_int64
        ticks = (ctypes.c_int64 * n_calls).in_dll(library, "accel_ticks")
        self.partitions.append(TimedPartition(source.name, self.reports[source.name], ticks, library.accel_now))
        return built


def main() -> int:
    """Prints a table per partition."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", help=", ".join(MODELS | KERNELS))
    parser.add_argument("--freeze", action="store_true", help="take weights as constants")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of running, default %(default)s")
    parser.add_argument("--top", type=int, default=0, help="print only so many kernels, the slowest first; 0 prints all in execution order")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    (case,) = find_cases([options.case], MODELS | KERNELS, False)
    with torch.set_grad_enabled(case.kind == "training"):
        partitions = run_case(case, options)
    peak = max(fma_gflops(options.threads, ROUNDS) for _ in range(TRIES))
    for partition in partitions:
        print("\n".join(table(partition, peak, options.top)))
    return 0


def run_case(case: Case, options: argparse.Namespace) -> list[TimedPartition]:
    """Compiles the case with clocks and calls it until the time is over."""
    recorder = Recorder()
    module, inputs = case.build()
    # A cache of its own: a graph that is kept would be loaded, without clocks.
    with tempfile.TemporaryDirectory() as cache, mock.patch.multiple(native, build=recorder.build, write_partition=recorder.lower):
        run = torch.compile(module, backend="accel", options={"freeze": options.freeze, "cache_dir": cache})
        run = training_step(module, run) if case.kind == "training" else run
        run(*inputs)
    if recorder.failures:
        raise RuntimeError("; ".join(recorder.failures))
    deadline = time.perf_counter() + options.seconds
    while time.perf_counter() < deadline:
        run(*inputs)
        for partition in recorder.partitions:
            partition.collect()
    return recorder.partitions


def with_clocks(text: str) -> tuple[str, int]:
    """The unit of the entry function with a clock around each of its calls, and their number; accel_prepare stays as it is.

    All contexts wait for each other before and behind a call, and the first one reads the clock.
    """
    head, name, rest = text.partition("static void accel_main_context(")
    body, end, behind = rest.partition("\n}\n")
    n_calls = len(CALL.findall(body))
    numbers = iter(range(n_calls))

    def with_clock(call: re.Match) -> str:
        index = next(numbers)
        return f"    dvx_barrier(team);\n    const int64_t start_{index} = accel_now();\n{call[0]}\n    dvx_barrier(team);\n    if (ctx == 0) accel_ticks[{index}] = accel_now() - start_{index};"

    return head + CLOCK.replace("N_CALLS", str(max(n_calls, 1))) + name + CALL.sub(with_clock, body) + end + behind, n_calls


def ticks_per_second(partition: TimedPartition) -> float:
    """The clock's rate, measured against Python's."""
    started, first = time.perf_counter(), partition.now()
    time.sleep(CALIBRATION_SECONDS)
    return (partition.now() - first) / (time.perf_counter() - started)


def table(partition: TimedPartition, peak: float, top: int) -> list[str]:
    """Lines: microseconds, share, Gflop/s with its share of the FMA peak, GB/s, kind, and the nodes in the kernel."""
    rate = ticks_per_second(partition)
    rows = [(ticks / rate, report) for ticks, report in zip(partition.best, partition.reports)]
    total = sum(seconds for seconds, _ in rows)
    lines = [f"{partition.name}: {len(rows)} kernels, {1e6 * total:.0f} us (FMA peak {peak:.0f} Gflop/s)", f"{'us':>9} {'%':>5} {'Gflop/s':>8} {'% peak':>6} {'GB/s':>6}  kind"]
    for seconds, report in sorted(rows, key=lambda row: -row[0])[:top] if top else rows:
        gflops = (report.flops or 0) / seconds / 1e9 if seconds else 0.0
        gbytes = (report.bytes or 0) / seconds / 1e9 if seconds else 0.0
        lines.append(f"{1e6 * seconds:9.1f} {100 * seconds / max(total, 1e-12):5.1f} {gflops:8.1f} {100 * gflops / peak:6.0f} {gbytes:6.1f}  {report.kind:<16} {', '.join(report.nodes[:6])}")
    by_kind: dict[str, float] = {}
    for seconds, report in rows:
        by_kind[report.kind] = by_kind.get(report.kind, 0.0) + seconds
    return [*lines, "by kind: " + ", ".join(f"{kind} {1e6 * seconds:.0f} us" for kind, seconds in sorted(by_kind.items(), key=lambda item: -item[1])), ""]


if __name__ == "__main__":
    sys.exit(main())
