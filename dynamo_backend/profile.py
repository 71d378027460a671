"""accel.profile: run a function once with counting kernels and tell what it costs on a modelled machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .csrc.machine import Machine
from .options import Options

if TYPE_CHECKING:
    from .profile_report import Profile

__all__ = ["profile", "profile_call"]


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
        return profile_call(fn, args, kwargs, parsed, dynamic, verify)

    return run


def profile_call(
    fn: Callable, args: Sequence, kwargs: Mapping[str, object], options: Options, dynamic: bool | None = None, verify: bool = False
) -> Profile:
    """`profile` with its options checked."""
    from .explain import compile_and_call
    from .profile_compiler import CountingCompiler, run_backward
    from .profile_report import make_profile

    compiler = CountingCompiler(verify)
    graphs: list = []

    def call(compiled: Callable) -> object:
        result = compiled(*args, **kwargs)
        if any(graph.kind == "backward" for graph in graphs) and not any("backward" in run.name for run in compiler.runs):
            run_backward(result)
        return result

    result, graph_breaks = compile_and_call(fn, call, options, dynamic, compiler, graphs.append)
    return make_profile(fn, options.machine, graphs, compiler.runs, graph_breaks, result, verify)
