"""The backend: Dynamo's graph -> AOTAutograd -> one compiled graph for inference, or one each for forward and backward."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from .errors import StrictError
from .options import Options

if TYPE_CHECKING:
    import torch

    from .aot_cache import AotCache
    from .compile_graph import Compilation

__all__ = ["backend", "compile_module"]

logger = logging.getLogger("accel")


def backend(gm: torch.fx.GraphModule, example_inputs: Sequence, *, mode: str | None = None, options: Mapping[str, object] | None = None) -> Callable:
    """What `torch.compile(..., backend="accel")` calls for every graph that Dynamo captures.

    A graph that AOTAutograd cannot trace, such as one that writes to a tensor with elements in one place, runs in eager, with one warning.

    Args: mode, options: as given to torch.compile; see Options.

    Raises:
        OptionError: an unknown mode or option, or a bad value.
        StrictError: options={"strict": True} and a node, or a whole graph, would run in eager.
    """
    parsed = Options.parse(options, mode)

    def make() -> Compilation:
        from .compile_graph import Compilation
        from .native import NativeCompiler

        return Compilation(parsed, NativeCompiler())

    try:
        return _compile(gm, example_inputs, parsed, functools.cache(make), _cache(parsed, example_inputs))
    except _NotTraced as failure:
        reason = f"AOTAutograd cannot trace the graph: {failure.__cause__}"
        if parsed.strict:
            raise StrictError(f"strict: {reason}") from failure.__cause__
        logger.warning("a graph runs in eager: %s", reason)
        return gm.forward


def compile_module(gm: torch.fx.GraphModule, example_inputs: Sequence, compilation: Compilation) -> Callable:
    """`backend` with its options checked and its compiler chosen; always compiles, whatever is kept on disk, and raises what AOTAutograd raises."""
    try:
        return _compile(gm, example_inputs, compilation.options, lambda: compilation, None)
    except _NotTraced as failure:
        raise failure.__cause__ from None


class _NotTraced(Exception):
    """AOTAutograd failed, and none of our compilers; the cause is its exception."""


def _cache(options: Options, example_inputs: Sequence) -> AotCache | None:
    """What keeps compiled graphs between processes; None where these must not be kept, or torch is too old or too new for it."""
    try:
        from .aot_cache import AotCache, keeps
    except ImportError as error:
        logger.debug("warm starts trace again: %s", error)
        return None
    return AotCache(options, example_inputs if options.freeze else ()) if keeps(options) else None


def _compile(
    gm: torch.fx.GraphModule, example_inputs: Sequence, options: Options, compilation: Callable[[], Compilation], cache: AotCache | None
) -> Callable:
    """Through AOTAutograd. `compilation` is not called where `cache` has the graph: it brings networkx and the lowering.

    Raises:
        _NotTraced: AOTAutograd takes no such graph.
    """
    import torch
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    from .rnn import rewrite

    training = torch.is_grad_enabled() and any(isinstance(value, torch.Tensor) and value.requires_grad for value in example_inputs)
    is_frozen = options.freeze and not training
    if is_frozen:
        from .freeze import guard_constants

        guard_constants(gm)
    rewrite(gm)

    compilers = _Compilers(example_inputs, is_frozen, compilation)

    def make_decompositions() -> dict:
        from .normalize import decompositions

        return decompositions(compilation().compiler.has_lowering, training=training, excluded=options.fallback_ops)

    compile_aot = aot_autograd(
        bw_compiler=compilers.of("backward"),
        inference_compiler=compilers.of("inference"),
        partition_fn=min_cut_rematerialization_partition,
        decompositions=_Table(make_decompositions),
        keep_inference_input_mutations=True,
        **(cache.arguments(compilers.of("forward")) if cache is not None else {"fw_compiler": compilers.of("forward")}),
    )
    return _traced(compile_aot, gm, example_inputs, compilers)


def _traced(compile_aot: Callable, gm: torch.fx.GraphModule, example_inputs: Sequence, compilers: _Compilers) -> Callable:
    """What AOTAutograd makes of `gm` with `compilers`. Raises as `_compile` does."""
    from torch._dynamo.exc import TorchDynamoException

    from .direct_call import without_wrapper
    from .whole_resizing import resizing_stays_whole

    try:
        with resizing_stays_whole(example_inputs):
            compiled = compile_aot(gm, example_inputs)
    except TorchDynamoException:  # Dynamo steers by them
        raise
    except Exception as error:
        if error in compilers.failures:
            raise
        raise _NotTraced from error
    return without_wrapper(compiled, gm, example_inputs)


class _Compilers:
    """Our compilers, as AOTAutograd calls them.

    Attributes:
        failures: what they raised.
    """

    def __init__(self, example_inputs: Sequence, is_frozen: bool, compilation: Callable[[], Compilation]):
        self.example_inputs, self.is_frozen, self.compilation = example_inputs, is_frozen, compilation
        self.failures: list[Exception] = []

    def of(self, kind: str) -> Callable:
        """The compiler of "inference", "forward" or "backward" graphs."""

        def compile_kind(graph_module: torch.fx.GraphModule, kind_inputs: Sequence) -> Callable:
            try:
                return self._compile(kind, graph_module, kind_inputs)
            except Exception as error:
                self.failures.append(error)
                raise

        return compile_kind

    def _compile(self, kind: str, graph_module: torch.fx.GraphModule, kind_inputs: Sequence) -> Callable:
        from .compile_graph import compile_graph
        from .freeze import find_constants
        from .saved_layout import follow_saved

        if kind == "backward":
            follow_saved(graph_module, kind_inputs)
        constants = find_constants(graph_module, self.example_inputs) if self.is_frozen and kind == "inference" else {}
        return compile_graph(graph_module, kind, self.compilation(), constants)


class _Table(Mapping):
    """A dict that is made when it is first read."""

    def __init__(self, make: Callable[[], dict]):
        self._made = functools.cache(make)

    def __getitem__(self, key: object) -> object:
        return self._made()[key]

    def __iter__(self) -> Iterator:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())
