"""Kernels of their own shape: contractions, attention, recurrent layers, sorting. Imported as accel.lowering.kernels.

A template function turns one Template statement into bound kernels:

    def gemm(template, epilogue, stored, machine) -> list[BoundKernel]

`epilogue` are the Maps fused behind it (over the template's domain), `stored` the buffers that must reach memory; see kernel_writer.Sink.
The functions write VectorPrograms through KernelWriter and emit nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["TEMPLATES", "template"]

TEMPLATES: dict[str, Callable] = {}


def template(kind: str):
    """Decorator: registers a template function under the `kind` that Template statements name."""

    def register(function):
        assert kind not in TEMPLATES, f"template {kind} is defined twice"
        TEMPLATES[kind] = function
        return function

    return register
