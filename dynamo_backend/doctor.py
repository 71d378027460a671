"""python -m accel doctor: what the backend finds on this machine, and whether a small model compiles."""

from __future__ import annotations

import platform
from importlib import metadata

__all__ = ["report"]


def report() -> tuple[list[str], bool]:
    """Lines "label: value", and whether everything needed was found and works."""
    import torch

    from .csrc.machine import host_machine
    from .runtime.cache import Cache
    from .runtime.errors import BuildError
    from .runtime.threads import describe as describe_threads
    from .runtime.toolchain import describe as describe_toolchain

    machine = host_machine()
    facts = {
        "torch-accel": metadata.version("torch-accel"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": f"{platform.machine()}, as DVX: {machine.vlen_bytes} B vectors, {machine.n_vregs} registers",
        "cache": str(Cache().root),
    }
    problem = ""
    try:
        facts |= describe_toolchain() | describe_threads()
        problem = _try_model()
    except BuildError as error:
        problem = str(error)
    facts["test model"] = problem or "compiled, and as eager"
    width = max(map(len, facts))
    return [f"{label:{width}}  {value}" for label, value in facts.items()], not problem


def _try_model() -> str:
    """Compile a small model; what went wrong, or ""."""
    import torch

    from .errors import AccelError
    from .explain import explain

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
    x = torch.randn(4, 8)
    with torch.no_grad():
        try:
            explained = explain(model)(x)
        except AccelError as error:
            return str(error)
        fallbacks = [fallback.reason for graph in explained.graphs for fallback in graph.fallbacks]
        if fallbacks:
            return fallbacks[0]
        is_close = torch.allclose(torch.compile(model, backend="accel")(x), model(x), atol=1e-5)
    return "" if is_close else "compiled, but differs from eager"
