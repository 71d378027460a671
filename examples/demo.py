"""Runs three models with real weights through `torch.compile(backend="accel")` and says what came out.

For each: what it computed, how much of it is native, the largest error against eager, the latency beside eager and
inductor, and the table of `accel.explain`. Exits with 1 if an output is further from eager than `real_models.TOLERANCE`.
"""

import argparse
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

import accel
import real_models

CACHE = Path(__file__).resolve().parent.parent / ".cache"


def main(arguments=None):
    """Runs the models named on the command line, all by default; returns the exit code."""
    parser = argparse.ArgumentParser(description="Three real models through torch.compile(backend='accel').")
    parser.add_argument("models", nargs="*", metavar="model", help=f"some of: {', '.join(real_models.LOADERS)}; default all")
    parser.add_argument("--no-inductor", action="store_true", help="do not measure inductor, which compiles for a minute")
    parser.add_argument("--seconds", type=float, default=3, help="time spent on latencies per model, default %(default)s")
    options = parser.parse_args(arguments)
    unknown = set(options.models) - set(real_models.LOADERS)
    if unknown:
        parser.error(f"no model named {', '.join(sorted(unknown))}; there are {', '.join(real_models.LOADERS)}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE / "inductor"))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    started = time.perf_counter()
    with torch.no_grad():
        errors = [show(name, not options.no_inductor, options.seconds) for name in options.models or real_models.LOADERS]
    print(f"\n{len(errors)} models in {time.perf_counter() - started:.0f} s")
    return int(max(errors) > real_models.TOLERANCE)


def show(name, with_inductor, seconds):
    """Compiles, checks, times and explains one model; returns its largest absolute error against eager."""
    loader = real_models.LOADERS[name]
    print(f"\n== {name}: {loader.__doc__}")
    with progress("loading"):
        model, inputs, interpret = loader()
        expected = model(*inputs)
    candidates = {"accel": torch.compile(model, backend="accel"), "eager": model}
    with progress("compiling with accel"):
        output = candidates["accel"](*inputs)
    if with_inductor:
        candidates |= compiled_by_inductor(model, inputs)
    with progress("timing"):
        milliseconds = latencies(candidates, inputs, seconds)
    with progress("explaining"):
        explanation = accel.explain(model)(*inputs)
    error = (output - expected).abs().max().item()
    print(f"\n{indent(interpret(output))}\n\n{indent(summary(explanation.to_dict(), error, milliseconds))}")
    print(f"\n{indent(str(explanation))}")
    return error


def compiled_by_inductor(model, inputs):
    """{"inductor": compiled model}, or {} and the reason on a machine where inductor cannot compile."""
    compiled = torch.compile(model, backend="inductor")
    with progress("compiling with inductor"):
        try:
            compiled(*inputs)
        except torch._dynamo.exc.BackendCompilerFailed as failure:  # inductor needs a C++ compiler and Python's headers
            reason = str(failure).splitlines()[0]
        else:
            return {"inductor": compiled}
    print(f"  inductor is left out: {reason}")
    return {}


def latencies(candidates, inputs, seconds):
    """Median milliseconds of a call, by name; calls take turns, so that the machine's mood meets all alike."""
    samples = {name: [] for name in candidates}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(samples["eager"]) < 3:
        for name, function in candidates.items():
            started = time.perf_counter()
            function(*inputs)
            samples[name].append(1000 * (time.perf_counter() - started))
    return {name: median(times) for name, times in samples.items()}


def summary(explanation, error, milliseconds):
    """The lines of one model that a reader compares: coverage, partitions, error, latencies."""
    native, total = explanation["coverage"]["native_nodes"], explanation["coverage"]["total_nodes"]
    partitions = sum(len(graph["partitions"]) for graph in explanation["graphs"])
    fallbacks = sum(len(graph["fallbacks"]) for graph in explanation["graphs"])
    others = {name: time for name, time in milliseconds.items() if name != "accel"}
    beside = [f"{name} {time:.2f} ms ({time / milliseconds['accel']:.2f} times accel's)" for name, time in others.items()]
    return "\n".join(
        [
            f"coverage    {native} of {total} nodes native ({100 * native / total:.1f} %)",
            f"partitions  {partitions} in {len(explanation['graphs'])} graph(s), {fallbacks} fallback(s),"
            f" {len(explanation['graph_breaks'])} graph break(s)",
            f"error       {error:.1e} at most against eager, tolerance {real_models.TOLERANCE:.0e} (float32 rounding)",
            f"latency     accel {milliseconds['accel']:.2f} ms, {', '.join(beside)}",
        ]
    )


@contextmanager
def progress(what):
    """Prints what is being done, then how long it took."""
    print(f"  {what} ... ", end="", flush=True)
    started = time.perf_counter()
    yield
    print(f"{time.perf_counter() - started:.1f} s", flush=True)


def indent(text):
    """The text, two columns to the right."""
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
