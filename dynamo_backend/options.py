"""Options: what `torch.compile(..., backend="accel", mode=..., options={...})` may say, checked once.

dict, environment -> Options. Every wrong key or value raises one OptionError that lists what is valid.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from .csrc.machine import Machine, resolve_machine
from .errors import OptionError

__all__ = ["MODES", "Options"]

TUNED_MODES = ("max-autotune", "max-autotune-no-cudagraphs")
MODES = (None, "default", "reduce-overhead", *TUNED_MODES)


@dataclasses.dataclass(frozen=True)
class Options:
    """What a compilation was asked for.

    Attributes:
        machine: the DVX machine that code is generated for.
        freeze: inference only: take parameters as constants, fold them and pack them once.
        winograd: let 3 x 3 convolutions regroup their sums where that is faster; results then differ more from eager's.
        max_autotune: time schedules where the analytic model is unsure (tune.py); the modes of TUNED_MODES set it.
        strict: raise StrictError where a node would run in eager.
        fallback_ops: ops that stay in eager, as "aten.mul" (all overloads) or "aten.mul.Tensor".
        min_partition_nodes: partitions with fewer call nodes stay in eager; None leaves it to the cost model.
        threads: threads a partition may use; None follows torch.get_num_threads().
        cache_dir: where compiled partitions are kept; None for the runtime's default. Environment: ACCEL_CACHE_DIR.
        dump_dir: where every stage's text is written; None writes nothing. Environment: ACCEL_DUMP_DIR.
        mode: torch.compile's mode, one of MODES.
    """

    machine: Machine
    freeze: bool = False
    winograd: bool = True
    max_autotune: bool = False
    strict: bool = False
    fallback_ops: frozenset[str] = frozenset()
    min_partition_nodes: int | None = None
    threads: int | None = None
    cache_dir: Path | None = None
    dump_dir: Path | None = None
    mode: str | None = None

    @classmethod
    def parse(cls, options: Mapping[str, object] | None = None, mode: str | None = None) -> Options:
        """The Options that the arguments of torch.compile and the environment ask for.

        Raises:
            OptionError: an unknown mode or key, or a bad value.
        """
        if mode not in MODES:
            raise OptionError(f"accel: unknown mode {mode!r}; valid modes: {', '.join(map(repr, MODES))}")
        given = {**_from_environment(), "machine": "host", "max_autotune": mode in TUNED_MODES, **(options or {})}
        unknown = sorted(str(key) for key in given if key not in READERS)
        if unknown:
            raise OptionError(f"accel: unknown option {', '.join(map(repr, unknown))}; valid options:\n{valid_options()}")
        return cls(mode=mode, **{key: _read(key, value) for key, value in given.items()})


def _from_environment() -> dict[str, str]:
    names = {"cache_dir": "ACCEL_CACHE_DIR", "dump_dir": "ACCEL_DUMP_DIR"}
    return {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}


def _read(key: str, value: object) -> object:
    try:
        return READERS[key][1](value)
    except ValueError as error:
        raise OptionError(f"accel: option {key}={value!r}: {error}; valid options:\n{valid_options()}") from error


def valid_options() -> str:
    """A line per option: its name and the values it takes."""
    return "\n".join(f"  {key}: {doc}" for key, (doc, _) in READERS.items())


def _machine(value: object) -> Machine:
    if not isinstance(value, (str, Machine, Path)):
        raise ValueError(f"expected a name, a path or a Machine, got {type(value).__name__}")
    return resolve_machine(str(value) if isinstance(value, Path) else value)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected True or False, got {type(value).__name__}")
    return value


def _positive_int(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("expected an int of at least 1")
    return value


def _op_names(value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        raise ValueError('expected a list of op names such as ["aten.mul", "aten.add.Tensor"]')
    return frozenset(_op_name(name) for name in value)


def _op_name(name: object) -> str:
    """`name` as "namespace.op" or "namespace.op.overload"; "aten::mul" and "mul" are taken too."""
    import torch

    if not isinstance(name, str):
        raise ValueError(f"expected op names as strings, got {name!r}")
    parts = name.replace("::", ".").removeprefix("torch.ops.").split(".")
    parts = ["aten", *parts] if len(parts) == 1 else parts
    found = torch.ops
    for part in parts:
        found = getattr(found, part, None)
    if found is None or len(parts) > 3:
        raise ValueError(f"no op named {name!r}")
    return ".".join(parts)


def _path(value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"expected a path, got {type(value).__name__}")
    return Path(value).expanduser()


# option: (the values it takes, what reads a value; a reader raises ValueError)
READERS: dict[str, tuple[str, Callable[[object], object]]] = {
    "machine": ('"host", a preset (python -m accel machines), an accel.Machine or the path of a TOML file', _machine),
    "freeze": ("True or False: take parameters as constants (inference only)", _bool),
    "winograd": ("True or False: 3 x 3 convolutions may multiply less by regrouping sums", _bool),
    "max_autotune": ('True or False: time schedules on this machine, as mode="max-autotune" does, which torch.compile takes without options only', _bool),
    "strict": ("True or False: raise where a node would run in eager", _bool),
    "fallback_ops": ('list of op names that stay in eager, such as ["aten.mul", "aten.add.Tensor"]', _op_names),
    "min_partition_nodes": ("int of at least 1, or None: the cost model decides", _positive_int),
    "threads": ("int of at least 1, or None: as torch.get_num_threads()", _positive_int),
    "cache_dir": ("path, or None: the default place", _path),
    "dump_dir": ("path, or None: nothing is written", _path),
}
