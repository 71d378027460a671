"""accel: a torch.compile backend for DVX. Imported as `accel`; lives in dynamo_backend/.

`torch.compile(model, backend="accel")` needs no import. `explain` tells what became of a model, `profile` what it costs on a
modelled machine, `sweep` what it costs on many. Importing this package is light: networkx, cffi and the lowering come with the first compilation.
"""

from __future__ import annotations

from .backend import backend as _backend
from .csrc.machine import Machine, machines
from .errors import AccelError, CompileError, OptionError, StrictError
from .explain import explain
from .profile import profile
from .sweep import sweep

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
    "sweep",
]


# Importing the submodule has bound its own name, before which __getattr__ would not be asked.
del globals()["backend"]


def __getattr__(name: str) -> object:
    """What is made at first use: `backend`, `lowering` (the package, which is also the decorator) and `Unsupported`."""
    import importlib

    if name == "backend":
        # torch.compile asks for it before Dynamo traces: the last moment to have recurrent modules captured.
        importlib.import_module(".rnn", __name__).install()
        return _backend
    if name not in ("lowering", "Unsupported"):
        raise AttributeError(f"module 'accel' has no attribute {name!r}")
    package = importlib.import_module(".lowering", __name__)
    return package if name == "lowering" else package.Unsupported
