"""An architecture: a module with random weights, inputs of two sizes, and how closely accel follows it.

Architecture -> Finding. What matters here is structure, so that configurations are small; models.py has the ones that are timed.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.utils import _pytree

import accel
from accel.backend import compile_module
from accel.compile_graph import Compilation, CompiledGraph
from accel.native import NativeCompiler
from accel.options import Options
from accel.source import op_name

__all__ = ["Architecture", "Finding", "examine", "rounding_error"]

SEED = 0
# Another order of summation errs about as much as eager does, in another direction; ten times that is still rounding.
ROUNDING_FACTOR = 10

Inputs = tuple | Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model to compile.

    Attributes:
        name: as on the command line.
        make: returns the module.
        inputs: (batch, size) -> arguments, a tuple or a dict of keyword arguments; size is a length or the side of an image.
        sizes: the (batch, size) of the first and of later calls.
        dtype: of parameters and floating-point inputs.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], Inputs]
    sizes: tuple[tuple[int, int], ...]
    dtype: torch.dtype = torch.float32

    def build(self) -> tuple[nn.Module, list[Inputs]]:
        """The module in eval mode and its inputs; the same numbers every time."""
        torch.manual_seed(SEED)
        module = self.make().to(self.dtype)
        inputs = [_cast(self.inputs(*size), self.dtype) for size in self.sizes]
        _calibrate(module, inputs[0])
        return module.eval(), inputs


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of an architecture.

    Attributes:
        nodes, native: call nodes, and those of them that ran as kernels.   graphs, partitions: how many there were.
        errors: largest distance from float64 per call, in units of eager's own; up to ROUNDING_FACTOR is rounding.
        recompiled: graphs that `dynamic=True` needed beyond those of its first call.
        reasons: why a node ran in eager, with the number of nodes; graph breaks alike.
        failure: the exception that ended it.
    """

    nodes: int = 0
    native: int = 0
    graphs: int = 0
    partitions: int = 0
    errors: tuple[float, ...] = ()
    recompiled: int = 0
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failure: str = ""

    @property
    def is_right(self) -> bool:
        """No exception, and every result within rounding."""
        return not self.failure and max(self.errors) <= ROUNDING_FACTOR


def examine(architecture: Architecture, setups: tuple[str, ...] = ("static", "dynamic")) -> Finding:
    """Compile for the first size alone ("static") and for all sizes with `dynamic=True` ("dynamic"), and compare with eager."""
    try:
        model, inputs = architecture.build()
        with torch.no_grad():
            found = [_compiled(model, inputs if setup == "dynamic" else inputs[:1], is_dynamic=setup == "dynamic") for setup in setups]
        return functools.reduce(_joined, found)
    except Exception as error:  # one model's fault is a row of the table, not the end of it
        return Finding(failure=f"{type(error).__name__}: {error}")


def _joined(static: Finding, dynamic: Finding) -> Finding:
    """One row of both: the counts of the first, every error and every reason."""
    return dataclasses.replace(
        static, errors=static.errors + dynamic.errors, recompiled=dynamic.recompiled, reasons={**static.reasons, **dynamic.reasons}
    )


def _compiled(model: nn.Module, inputs: list[Inputs], *, is_dynamic: bool) -> Finding:
    """Compile once, call with each of `inputs`."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    graphs: list[CompiledGraph] = []
    options = Options.parse(None, None)

    def observing(gm, example_inputs):
        return compile_module(gm, example_inputs, Compilation(options, NativeCompiler(), graphs.append))

    observing._torchdynamo_orig_backend = accel.backend  # by this rnn.py knows that accel compiles
    compiled = torch.compile(model, backend=observing, dynamic=is_dynamic)
    errors, n_graphs = [], []
    for each in inputs:
        errors.append(rounding_error(compiled, model, each))
        n_graphs.append(len(graphs))
    torch._dynamo.reset()
    return dataclasses.replace(_finding(graphs), errors=tuple(errors), recompiled=n_graphs[-1] - n_graphs[0])


def _finding(graphs: list[CompiledGraph]) -> Finding:
    fallbacks = [(node, reason) for graph in graphs for node, reason in graph.fallbacks.items()]
    reasons = collections.Counter(f"{op_name(node)}: {reason}" for node, reason in fallbacks)
    reasons.update({f"graph break: {reason.splitlines()[0]}": count for reason, count in torch._dynamo.utils.counters["graph_break"].items()})
    nodes, partitions = sum(graph.n_calls for graph in graphs), sum(len(graph.plan.partitions) for graph in graphs)
    return Finding(nodes, nodes - len(fallbacks), len(graphs), partitions, reasons=reasons)


def rounding_error(compiled: Callable, model: nn.Module, inputs: Inputs) -> float:
    """The largest distance of any output from the same model in float64, over eager's own distance.

    Eager's distance counts as one unit in the last place of the largest value at least: it may be 0 by luck.
    Infinite where shapes, dtypes, strides or whole numbers are not eager's.
    """
    eager, got = _leaves(_call(model, inputs)), _leaves(_call(compiled, inputs))
    exact = _leaves(_call(copy.deepcopy(model).double(), _cast(inputs, torch.float64)))
    if len(eager) != len(got):
        return float("inf")
    return max(map(_distance, got, eager, exact), default=0.0)


def _distance(got: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor) -> float:
    if (got.shape, got.dtype, got.stride()) != (eager.shape, eager.dtype, eager.stride()):
        return float("inf")
    if not eager.is_floating_point():
        return 0.0 if torch.equal(got, eager) else float("inf")
    if not eager.numel() or torch.equal(got, eager):
        return 0.0
    finite = torch.isfinite(eager) & torch.isfinite(exact)
    if not torch.equal(got[~finite].isnan(), eager[~finite].isnan()) or not bool(torch.isfinite(got[finite]).all()):
        return float("inf")
    true = exact[finite].double()
    unit = torch.finfo(eager.dtype).eps * true.abs().max().item()
    own = max((eager[finite].double() - true).abs().max().item(), unit)
    return (got[finite].double() - true).abs().max().item() / own


def _call(function: Callable, inputs: Inputs) -> object:
    return function(**inputs) if isinstance(inputs, Mapping) else function(*inputs)


def _leaves(outputs: object) -> list[torch.Tensor]:
    """Every tensor of nested containers and of transformers' caches."""
    found = []
    for leaf in _pytree.tree_leaves(outputs):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif hasattr(leaf, "layers"):
            found += [tensor for layer in leaf.layers for tensor in (layer.keys, layer.values)]
        elif hasattr(leaf, "self_attention_cache"):
            found += _leaves([leaf.self_attention_cache, leaf.cross_attention_cache])
    return found


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return _pytree.tree_map(lambda value: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value, inputs)


def _calibrate(module: nn.Module, inputs: Inputs) -> None:
    """Give batch norms the statistics of `inputs`: with their own, activations of a deep random network shrink to nothing."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            _call(module.train(), inputs)
