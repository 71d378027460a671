"""The backend: Dynamo's graph -> AOTAutograd -> one compiled graph for inference, or one each for forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .options import Options

if TYPE_CHECKING:
    import torch

    from .compile_graph import Compilation

__all__ = ["backend", "compile_module"]


def backend(gm: torch.fx.GraphModule, example_inputs: Sequence, *, mode: str | None = None, options: Mapping[str, object] | None = None) -> Callable:
    """What `torch.compile(..., backend="accel")` calls for every graph that Dynamo captures.

    Args: mode, options: as given to torch.compile; see Options.

    Raises:
        OptionError: an unknown mode or option, or a bad value.
        StrictError: options={"strict": True} and a node would run in eager.
    """
    # Imported here so that `import accel` stays light: these bring networkx.
    from .compile_graph import Compilation
    from .native import NativeCompiler

    return compile_module(gm, example_inputs, Compilation(Options.parse(options, mode), NativeCompiler()))


def compile_module(gm: torch.fx.GraphModule, example_inputs: Sequence, compilation: Compilation) -> Callable:
    """`backend` with its options checked and its compiler chosen."""
    import torch
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    from .compile_graph import compile_graph
    from .freeze import find_constants, guard_constants
    from .normalize import decompositions
    from .rnn import rewrite

    training = torch.is_grad_enabled() and any(isinstance(value, torch.Tensor) and value.requires_grad for value in example_inputs)
    is_frozen = compilation.options.freeze and not training
    if is_frozen:
        guard_constants(gm)
    rewrite(gm)

    def compiler_of(kind: str) -> Callable:
        return lambda graph_module, _: compile_graph(graph_module, kind, compilation)

    def compile_inference(graph_module: torch.fx.GraphModule, _: Sequence) -> Callable:
        constants = find_constants(graph_module, example_inputs) if is_frozen else {}
        return compile_graph(graph_module, "inference", compilation, constants)

    compile_aot = aot_autograd(
        fw_compiler=compiler_of("forward"),
        bw_compiler=compiler_of("backward"),
        inference_compiler=compile_inference,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=decompositions(compilation.compiler.has_lowering, training=training, excluded=compilation.options.fallback_ops),
        keep_inference_input_mutations=True,
    )
    return compile_aot(gm, example_inputs)
