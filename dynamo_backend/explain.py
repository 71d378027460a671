"""accel.explain: run a function once through the backend and tell what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .options import Options

if TYPE_CHECKING:
    from .compile_graph import CompiledGraph
    from .native import Compiler
    from .report import Explanation, GraphBreak, GraphReport

__all__ = ["compile_and_call", "explain", "explain_call", "name_of"]


def explain(fn: Callable, *, dynamic: bool | None = None, mode: str | None = None, **options: object) -> Callable[..., Explanation]:
    """Compile `fn` and return what was done with it, as `torch._dynamo.explain` does: `explain(model)(*inputs)`.

    Calls the compiled `fn` once with the given arguments, so what it mutates is mutated. Forgets what Dynamo has compiled so
    far. Counted are *call nodes*: calls of operators in the ATen graphs, without getitem nodes and arithmetic on sizes.

    Args: fn: a module or function.   dynamic, mode, options: as for torch.compile.

    Returns:
        A callable that takes the arguments of `fn` and returns an Explanation.

    Raises:
        OptionError: an unknown mode or option, or a bad value.
    """
    parsed = Options.parse(options, mode)

    def run(*args: object, **kwargs: object) -> Explanation:
        return explain_call(fn, args, kwargs, parsed, dynamic)

    return run


def explain_call(
    fn: Callable, args: Sequence, kwargs: Mapping[str, object], options: Options, dynamic: bool | None = None, compiler: Compiler | None = None
) -> Explanation:
    """`explain` with its options checked. `compiler` stands behind the frontend; None for our own."""
    from .native import NativeCompiler
    from .report import Explanation, report_graph

    reports: list[GraphReport] = []

    def observe(compiled: CompiledGraph) -> None:
        reports.append(report_graph(compiled))

    _, graph_breaks = compile_and_call(fn, lambda compiled: compiled(*args, **kwargs), options, dynamic, compiler or NativeCompiler(), observe)
    return Explanation(name_of(fn), tuple(reports), graph_breaks)


def compile_and_call(
    fn: Callable, call: Callable[[Callable], object], options: Options, dynamic: bool | None, compiler: Compiler, observe: Callable[[CompiledGraph], None]
) -> tuple[object, tuple[GraphBreak, ...]]:
    """What `call` makes of `fn` compiled afresh, and Dynamo's graph breaks; `observe` is told of every graph, backward ones too."""
    import torch
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._functorch import config

    from . import backend as accel_backend
    from .backend import compile_module
    from .compile_graph import Compilation

    def observing(gm, example_inputs):
        return compile_module(gm, example_inputs, Compilation(options, compiler, observe))

    observing._torchdynamo_orig_backend = accel_backend  # by this rnn.py knows that accel compiles
    torch._dynamo.reset()
    with config.patch(force_non_lazy_backward_lowering=True):  # else a backward graph is known only when backward() runs
        try:
            result = call(torch.compile(fn, backend=observing, dynamic=dynamic))
        except BackendCompilerFailed as error:
            raise error.inner_exception from None
    graph_breaks = _graph_breaks()
    torch._dynamo.reset()
    return result, graph_breaks


def name_of(fn: Callable) -> str:
    """How reports call `fn`."""
    import torch

    return f"{type(fn).__name__}.forward" if isinstance(fn, torch.nn.Module) else getattr(fn, "__qualname__", repr(fn))


def _graph_breaks() -> tuple[GraphBreak, ...]:
    """The breaks since Dynamo was last reset, each place once."""
    from torch._dynamo.utils import graph_break_reasons

    from .report import GraphBreak
    from .source import innermost

    places = [innermost([(frame.filename, frame.lineno) for frame in found.user_stack]) for found in graph_break_reasons]
    return tuple(dict.fromkeys(GraphBreak(_sentence(found.reason), place) for found, place in zip(graph_break_reasons, places)))


def _sentence(reason: str) -> str:
    """Dynamo's reason without its hints and links: the first line, and the explanation if there is one."""
    lines = [line.strip() for line in reason.strip().splitlines()]
    explained = next((line.removeprefix("Explanation:").strip() for line in lines if line.startswith("Explanation:")), "")
    return f"{lines[0]}: {explained}" if explained else lines[0] if lines else ""
