"""Profile -> the tables that a person reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from .csrc.costs import BUCKETS
from .profile_report import Profile
from .report_text import aligned, shown
from .runtime.profile import CLASSES, ESTIMATES, MODEL_VERSION, KernelProfile, merge

__all__ = ["amount", "describe", "sources", "table"]

CHECKED = {
    None: " (verify=True has the intrinsics count, too)",
    True: ": every intrinsic counted the same",
    False: ", but the intrinsics counted OTHERWISE: a bug of accel; please report it",
}
WHAT_WIDTH = 46  # characters of a kernel's description
COST_COLUMNS = ("#", "kernel", "calls", "cycles", "share", "pipelined", "bound by", "packets", "near B", "DDR B", "energy", "source")


def table(profile: Profile, top: int | None) -> str:
    """Cost, instructions and cycles of the `top` most costly kernels, cost by source line, and what the numbers are."""
    if profile.total is None:
        return "\n".join([f"{profile.name} on {profile.machine.name}: nothing ran natively", *_uncounted(profile)])
    order = sorted(range(len(profile.kernels)), key=lambda place: -profile.kernels[place].cycles)
    rows = [(str(place), profile.kernels[place]) for place in order[:top]]
    if order[len(rows) :]:
        rest = merge([profile.kernels[place] for place in order[len(rows) :]])
        rows.append(("", dataclasses.replace(rest, name=f"{len(order) - len(rows)} more", kind="", sources=())))
    rows.append(("", profile.total))
    lines = [_headline(profile), ""]
    lines += aligned([COST_COLUMNS, *(_cost_row(label, kernel, profile.total) for label, kernel in rows)], left=(1, 6, 11))
    lines += ["", "executed instructions (register operations) by class"]
    lines += _breakdown("all", CLASSES, [(label, kernel, kernel.classes) for label, kernel in rows])
    lines += ["", "cycles by what they go to"]
    lines += _breakdown("cycles", tuple(BUCKETS), [(label, kernel, kernel.buckets) for label, kernel in rows])
    lines += ["", "by source line", *_source_lines(profile, top), *_hints(profile, order), *_uncounted(profile), "", *_notes(profile)]
    return "\n".join(lines)


def _headline(profile: Profile) -> str:
    total, machine = profile.total, profile.machine
    milliseconds = total.cycles / machine.clock_mhz / 1000
    amounts = [
        f"{amount(total.cycles)} cycles ({milliseconds:.3g} ms at {machine.clock_mhz} MHz)", f"{amount(total.n_instructions)} instructions",
        f"{amount(total.energy_pj * 1e-12)}J", f"{amount(total.ddr_bytes)}B to and from DDR",
    ]  # fmt: skip
    return f"{profile.name} on {machine.name}   {' · '.join(amounts)}"


def amount(number: float) -> str:
    """Three digits and a prefix: "12.3 k", "4.56 M", "780 µ"; it ends where a unit follows."""
    if number == 0:
        return "0 "
    for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("µ", 1e-6), ("n", 1e-9)):
        if abs(number) >= 0.9995 * scale:
            return f"{number / scale:#.3g}".rstrip(".") + f" {prefix}" if scale != 1.0 or number != int(number) else f"{int(number)} "
    return f"{number:.3g} "


def _cost_row(label: str, kernel: KernelProfile, total: KernelProfile) -> tuple[str, ...]:
    counts = (kernel.pipelined_cycles, kernel.packets, kernel.near_bytes, kernel.ddr_bytes)
    pipelined, packets, near, ddr = (amount(count).strip() for count in counts)
    share = f"{100 * kernel.cycles / max(1, total.cycles):.1f} %"
    energy = f"{amount(kernel.energy_pj * 1e-12)}J"
    place = sources(kernel.sources) if label else ""
    return (label, describe(kernel), str(kernel.calls), amount(kernel.cycles).strip(), share, pipelined, kernel.bound_by, packets, near, ddr, energy, place)


def describe(kernel: KernelProfile) -> str:
    """The kind of a kernel and the operators in it."""
    ops = ", ".join(op.removeprefix("aten.") for op in kernel.ops) if kernel.kind else ""
    text = f"{kernel.kind or kernel.name}: {ops}" if ops else kernel.kind or kernel.name
    return text if len(text) <= WHAT_WIDTH else f"{text[: WHAT_WIDTH - 1]}…"


def sources(lines: Sequence[str]) -> str:
    """File names with the lines of each, then modules: "model.py:12,14"."""
    files: dict[str, set[int]] = {}
    others = []
    for line in lines:
        file, colon, number = line.rpartition(":")
        if colon:
            files.setdefault(PurePath(file).name, set()).add(int(number))
        else:
            others.append(line)
    places = [f"{file}:{','.join(map(str, sorted(numbers)))}" for file, numbers in files.items()]
    return " ".join([*places, *others]) or "unknown line"


def _breakdown(sum_name: str, names: Sequence[str], rows: Sequence[tuple[str, KernelProfile, Mapping[str, int]]]) -> list[str]:
    """A table with a column per name that is not zero everywhere, and one for the sum."""
    used = [name for name in names if any(counts.get(name) for _, _, counts in rows)]
    body = [(label, describe(kernel), *(amount(n).strip() for n in (sum(counts.values()), *(counts.get(name, 0) for name in used)))) for label, kernel, counts in rows]
    return aligned([("#", "kernel", sum_name, *used), *body])


def _source_lines(profile: Profile, top: int | None) -> list[str]:
    rows = [("source", "cycles", "share", "instructions", "DDR B", "energy", "bound by")]
    for lines, kernel in list(profile.by_source().items())[:top]:
        share = f"{100 * kernel.cycles / max(1, profile.total.cycles):.1f} %"
        counts = (amount(kernel.cycles).strip(), share, amount(kernel.n_instructions).strip(), amount(kernel.ddr_bytes).strip())
        rows.append((sources(lines), *counts, f"{amount(kernel.energy_pj * 1e-12)}J", kernel.bound_by))
    return aligned(rows, left=(0, 6))


def _hints(profile: Profile, order: Sequence[int]) -> list[str]:
    """What bounds the kernels that take a tenth of the cycles or more, and which blocks hold more registers than there are."""
    lines = []
    for place in order:
        kernel = profile.kernels[place]
        if 10 * kernel.cycles >= profile.total.cycles:
            gain = f"{amount(kernel.cycles).strip()} cycles as listed, {amount(kernel.pipelined_cycles).strip()} software-pipelined"
            lines.append(f"  kernel {place} is bound by {BUCKETS[kernel.bound_by]}: {gain}")
    spilled = [str(place) for place in sorted(order) if profile.kernels[place].registers > profile.machine.n_vregs]
    if spilled:
        lines.append(f"  more than {profile.machine.n_vregs} registers are held by kernels {', '.join(spilled)}; spilling them is not in the cycles")
    return ["", "hints", *lines] if lines else []


def _uncounted(profile: Profile) -> list[str]:
    """What ran in eager."""
    lines = []
    if profile.eager:
        lines += ["", "ran in eager, not counted"]
        lines += aligned([(f.node, f.op, shown(f.source), f.reason) for f in profile.eager], left=(0, 1, 2, 3))
    if profile.graph_breaks:
        lines += ["", "graph breaks (Dynamo); what runs there is not counted"]
        lines += [f"  {shown(graph_break.source)}   {graph_break.reason}" for graph_break in profile.graph_breaks]
    return lines


def _notes(profile: Profile) -> list[str]:
    return [
        f"Executed instructions are block executions x the block's instructions, which is exact{CHECKED[profile.is_exact]}.",
        f"Cycles, energy and DDR traffic are modelled ({MODEL_VERSION}), one context; estimates are:",
        *(f"  {estimate}" for estimate in ESTIMATES),
    ]
