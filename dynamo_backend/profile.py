"""accel.profile: run a function once with counting kernels and tell what it costs on a modelled machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .csrc.machine import Machine
from .options import Options

if TYPE_CHECKING:
    from .profile_report import Profile

__all__ = ["profile"]


def profile(
    fn: Callable, *, machine: str | Machine = "dvx-h1", verify: bool = False, dynamic: bool | None = None, mode: str | None = None, **options: object
) -> Callable[..., Profile]:
    """Compile `fn` for `machine` with counters, run it once, and report executed instructions, cycles, energy and traffic by kernel.

    Calls the compiled `fn` once with the given arguments, so what it mutates is mutated. Where its outputs need gradients and it
    ran no backward pass itself, one follows, from gradients of ones; no `.grad` is changed by that. Forgets what Dynamo has
    compiled so far. Counts are exact; cycles and energy are those of a model, whose estimates the report names.

    Args:
        fn: a module or function.   machine, dynamic, mode, options: as for torch.compile.
        verify: have every DVX intrinsic count, too, and compare: `Profile.is_exact`. Slower to build and to run.

    Returns:
        A callable that takes the arguments of `fn` and returns a Profile.

    Raises:
        OptionError: an unknown mode or option, or a bad value.
    """
    parsed = Options.parse({"machine": machine, **options}, mode)

    def run(*args: object, **kwargs: object) -> Profile:
        from .profile_compiler import record
        from .profile_report import make_profile

        return make_profile(record(fn, args, kwargs, parsed, dynamic, verify), parsed.machine)

    return run
