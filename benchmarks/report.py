"""What run.py prints and draws: results as plain data -> lines of text, Markdown, a picture."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

__all__ = ["case_line", "heading", "machine_facts", "markdown", "plot", "summary"]

PACKAGES = ("torch", "openvino", "onnxruntime", "transformers")
PEERS = ("inductor", "inductor-freeze", "openvino", "onnxruntime")
OURS = ("accel", "accel-freeze")
NAME_WIDTH, CELL_WIDTH = 18, 16


def machine_facts(threads: int) -> dict:
    """CPU, its vector width, threads and versions."""
    cpu = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        key, _, value = line.partition(":")
        cpu.setdefault(key.strip(), value.strip())
    flags = cpu.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2", "asimd") if name in flags or name in cpu.get("Features", "").split()), "unknown")
    return {"cpu": cpu.get("model name", platform.processor()), "vectors": vectors, "threads": threads, "versions": dict(_versions())}


def _versions() -> Iterable[tuple[str, str]]:
    yield "python", platform.python_version()
    for package in PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            yield package, "not installed"


def heading(document: dict, backends: list[str]) -> str:
    """Machine, versions and the column heads."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    columns = "".join(f"{backend:>{CELL_WIDTH}}" for backend in backends)
    return (
        f"{machine['cpu']}, {machine['vectors']}, {machine['threads']} thread(s), {document['date']}\n{versions}\n"
        f"milliseconds (times as fast as inductor); % of the FMA peak or of a copy's speed: accel's\n"
        f"{'case':<{NAME_WIDTH}}{columns}  {'native':>9}  limit"
    )


def case_line(result: dict, backends: list[str]) -> str:
    """A row of the table, and a line for every backend that is not in it."""
    cells = "".join(f"{_cell(result, backend):>{CELL_WIDTH}}" for backend in backends)
    native = result["native"]
    share = f"{native['native_nodes']}/{native['total_nodes']}" if native else "-"
    lines = [f"{result['name']:<{NAME_WIDTH}}{cells}  {share:>9}  {_limit(result)}"]
    for backend, found in result["backends"].items():
        if found["status"] != "right":
            lines.append(f"    {backend}: {found['status']}, {found.get('note') or 'error %.1e' % found['error']}")
    return "\n".join(lines)


def _cell(result: dict, backend: str) -> str:
    found = result["backends"].get(backend, {})
    if "ms" not in found:
        return "-"
    ratio = found["over"].get("inductor")
    return f"{_milliseconds(found['ms'])} ({ratio:.2f})" if ratio else _milliseconds(found["ms"])


def _milliseconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _limit(result: dict) -> str:
    """The best of ours as a share of the measured peak, or of a copy of as many bytes."""
    times = [result["backends"][backend]["ms"] for backend in OURS if "ms" in result["backends"].get(backend, {})]
    if not times:
        return ""
    if result["copy"]:
        return f"{100 * result['copy']['ms'] / min(times):.0f} % of copy ({result['bytes'] / min(times) / 1e6:.1f} GB/s)"
    if result["flops"]:
        gflops = result["flops"] / min(times) / 1e6
        return f"{100 * gflops / result['peak_gflops']:.0f} % of FMA peak ({gflops:.1f} Gflop/s)"
    return ""


def summary(cases: list[dict]) -> str:
    """Geometric means over inductor, and over the best peer of each case."""
    lines = []
    for ours in OURS:
        over_inductor = [ratio for case in cases if (ratio := _over(case, ours, ("inductor",)))]
        over_best = [ratio for case in cases if (ratio := _over(case, ours, PEERS))]
        if over_inductor:
            lines.append(f"{ours}: {_geometric_mean(over_inductor):.2f} times as fast as inductor ({len(over_inductor)} cases, worst {min(over_inductor):.2f}),"
                         f" {_geometric_mean(over_best):.2f} times the best peer of each case (worst {min(over_best):.2f})")  # fmt: skip
    return "\n".join(lines)


def _over(case: dict, ours: str, peers: tuple[str, ...]) -> float | None:
    """How many times as fast `ours` is as the fastest of `peers`; None where one side is missing."""
    over = case["backends"].get(ours, {}).get("over", {})
    ratios = [over[peer] for peer in peers if peer in over]
    return min(ratios) if ratios else None


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def markdown(document: dict, backends: list[str]) -> str:
    """The table of the README: milliseconds of inductor, then each backend's speed relative to it."""
    shown = [backend for backend in backends if backend != "inductor"]
    machine = document["machine"]
    lines = [
        f"{machine['cpu']} ({machine['vectors']}), {machine['threads']} threads, float32, {document['date']};"
        f" {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}.", "",
        f"| case | inductor ms | {' | '.join(shown)} |", f"|---|---|{'---|' * len(shown)}",
    ]  # fmt: skip
    for case in document["cases"]:
        times = case["backends"]
        cells = [f"{times[backend]['over']['inductor']:.2f}" if "inductor" in times.get(backend, {}).get("over", {}) else "–" for backend in shown]
        milliseconds = _milliseconds(times["inductor"]["ms"]) if "ms" in times.get("inductor", {}) else "–"
        lines.append(f"| {case['name']} | {milliseconds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(document: dict, path: Path) -> str:
    """Draws speed relative to inductor, a group of bars per case; returns the sentence to print."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return "no plot: matplotlib is not installed"
    cases = [case for case in document["cases"] if "ms" in case["backends"].get("inductor", {})]
    if not cases:
        return "no plot: nothing was compared with inductor"
    names = [name for name in ("eager", *PEERS[1:], *OURS) if any("over" in case["backends"].get(name, {}) for case in cases)]
    figure, axes = pyplot.subplots(figsize=(10, 1.5 + 0.16 * len(cases) * (len(names) + 1)))
    for index, name in enumerate(names):
        ratios = [case["backends"].get(name, {}).get("over", {}).get("inductor", math.nan) for case in cases]
        positions = [row * (len(names) + 1) + index for row in range(len(cases))]
        axes.barh(positions, ratios, 1.0, label=name)
    axes.set_yticks([row * (len(names) + 1) + (len(names) - 1) / 2 for row in range(len(cases))], [case["name"] for case in cases])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as inductor")
    axes.set_title(f"{document['machine']['cpu']}, {document['machine']['threads']} thread(s), {document['date']}", fontsize=9)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    return f"plot: {path}"
