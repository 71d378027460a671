"""accel: a torch.compile backend for DVX. Imported as `accel`; lives in dynamo_backend/.

`torch.compile(model, backend="accel")` needs no import. `explain` tells what became of a model, `profile` what it costs on a
modelled machine. Importing this package is light: networkx, cffi and the lowering come with the first compilation.
"""

from __future__ import annotations

from .backend import backend
from .csrc.machine import Machine, machines
from .errors import AccelError, CompileError, OptionError, StrictError
from .explain import explain

__all__ = [
    "AccelError",
    "CompileError",
    "Machine",
    "OptionError",
    "StrictError",
    "Unsupported",
    "backend",
    "explain",
    "lowering",
    "machines",
    "profile",
]


def __getattr__(name: str) -> object:
    """`accel.lowering` (the package, which is also the decorator) and `accel.Unsupported`, at first use."""
    if name not in ("lowering", "Unsupported"):
        raise AttributeError(f"module 'accel' has no attribute {name!r}")
    import importlib

    package = importlib.import_module(".lowering", __name__)
    return package if name == "lowering" else package.Unsupported
