"""Profile -> a Chrome trace, which chrome://tracing and Perfetto show: kernel calls, and the DDR traffic of each, over cycles."""

from __future__ import annotations

from .profile_report import Profile
from .profile_text import describe, sources
from .runtime.profile import MODEL_VERSION

__all__ = ["trace"]


def trace(profile: Profile) -> dict:
    """The calls as trace events; the microseconds of the format stand for cycles."""
    events: list[dict] = [
        {"ph": "M", "pid": 0, "name": "process_name", "args": {"name": f"{profile.name} on {profile.machine.name} (1 us = 1 cycle)"}},
        {"ph": "M", "pid": 0, "tid": 0, "name": "thread_name", "args": {"name": "kernels"}},
    ]
    for span in profile.spans:
        kernel = profile.kernels[span.kernel]
        details = {"nodes": list(span.nodes), "source": sources(kernel.sources), "bound by": kernel.bound_by, "DDR bytes": span.ddr_bytes}
        place = {"pid": 0, "tid": 0, "ts": span.start}
        events.append({"ph": "X", **place, "name": describe(kernel), "cat": kernel.kind, "dur": span.cycles, "args": details})
        events.append({"ph": "C", **place, "name": "DDR bytes per cycle", "args": {"bytes": round(span.ddr_bytes / max(1, span.cycles), 2)}})
    return {"displayTimeUnit": "ns", "otherData": {"model": MODEL_VERSION, "machine": profile.machine.name}, "traceEvents": events}
