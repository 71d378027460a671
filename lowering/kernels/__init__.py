"""Kernels of their own shape: contractions, attention, recurrent layers, sorting. Imported as accel.lowering.kernels.

A template function turns one Template statement into bound kernels:

    def gemm(template, epilogue, stored, machine) -> list[BoundKernel]

`epilogue` are the Maps fused behind it (over the template's domain), `stored` the buffers that must reach memory; see kernel_writer.Sink.
The functions write VectorPrograms through KernelWriter and emit nothing else.

Where the analytic model may be wrong, a template has schedules to choose from. A choice is a frozen dataclass, the function's last
argument (None: what the model says), and `CHOICES` has what proposes choices:

    def gemm_choices(statement, machine) -> Iterator[GemmChoice]      # the model's own first
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["CHOICES", "TEMPLATES", "template"]

TEMPLATES: dict[str, Callable] = {}
CHOICES: dict[str, Callable] = {}


def template(kind: str, choices: Callable | None = None):
    """Decorator: registers a template function under the `kind` that Template statements name, and what proposes its choices."""

    def register(function):
        assert kind not in TEMPLATES, f"template {kind} is defined twice"
        TEMPLATES[kind] = function
        if choices is not None:
            CHOICES[kind] = choices
        return function

    return register
