"""One cell of a matrix, run: every sample in eager and compiled, compared, and what the backend said of its graphs.

Case -> CellResult, in this process. coverage_worker.py calls it where a crash hurts nobody.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections import Counter
from collections.abc import Callable

import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from . import backend as accel_backend
from .backend import compile_module
from .boundary import SERVES_FALLBACKS
from .compile_graph import Compilation, CompiledGraph
from .coverage_cases import Case, Sample, samples_of
from .coverage_compare import EXACT_RUNS_IN, Run, difference, run_call
from .coverage_matrix import NOT_COMPILED, CellResult, worst
from .coverage_modules import MODES, module_samples
from .lowering.decisions import decided_family
from .native import NativeCompiler
from .options import Options
from .source import op_name

__all__ = ["Outcome", "observing_backend", "run_case", "run_sample"]

MAX_MESSAGE = 400  # characters of an exception or a difference
WITH_BACKWARD = ("backward", "eval", "train")
UNSAFE = re.compile(r"unsafe_")  # operators whose results share storage in eager, and promise by name that nobody relies on it
UNINITIALIZED = ("empty", "new_empty", "empty_like", "empty_strided", "empty_permuted", "new_empty_strided")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one sample showed.

    Attributes:
        status: as in coverage_matrix.STATUSES.
        native_nodes, nodes: call nodes of all its graphs.
        reasons: why nodes were not native, each once.
        message: of a wrong or failing sample, what happened.
        family: of lowering/decisions.py, by whose decision alone the sample is not native.
    """

    status: str
    native_nodes: int = 0
    nodes: int = 0
    reasons: tuple[str, ...] = ()
    message: str = ""
    family: str = ""


def run_case(case: Case, n_samples: int | None) -> CellResult:
    """The cell of `case`. Samples that eager itself rejects do not count."""
    counted: Counter = Counter()
    decided: Counter = Counter()
    native = nodes = 0
    reasons: dict[str, None] = {}
    message = ""
    samples = module_samples if case.variant in MODES else samples_of
    for sample in samples(case, n_samples):
        outcome = run_sample(sample, case.variant, case.op)
        if outcome is None:
            continue
        counted[outcome.status] += 1
        decided.update([outcome.family] if outcome.family else [])
        native, nodes = native + outcome.native_nodes, nodes + outcome.nodes
        reasons.update(dict.fromkeys(outcome.reasons))
        if outcome.message and (not message or outcome.status in ("wrong", "error")):
            message = f"{sample.text} with {_describe(sample.tensors)}: {outcome.message}"
    return CellResult(worst(counted), dict(counted), native, nodes, tuple(reasons), message, dict(decided))


def _describe(tensors: tuple[torch.Tensor, ...]) -> str:
    return ", ".join(
        f"t{i} {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" + ("" if tensor.is_contiguous() else f" strides {list(tensor.stride())}")
        for i, tensor in enumerate(tensors)
    )


def run_sample(sample: Sample, variant: str, op: str) -> Outcome | None:
    """What became of one call under `variant`; None where eager rejects it."""
    is_backward = variant in WITH_BACKWARD
    watch = _DrawWatch()
    try:
        with watch, torch.set_grad_enabled(variant != "inference"):
            expected = run_call(*sample.fresh(), is_backward=is_backward)
    except Exception:  # the reference refuses this sample: nothing to compare with
        return None
    if is_backward and not any(output.requires_grad for output in expected.outputs):
        return None
    graphs: list[CompiledGraph] = []
    try:
        got = _run_compiled(sample, observing_backend(graphs.append), variant)
    except Exception as error:
        return _failed(sample, variant, error)
    values = not watch.has_drawn and op.split(".")[-1] not in UNINITIALIZED
    found = difference(expected, got, lambda: _run_exact(sample, variant), values=values, aliases=UNSAFE.match(op) is None)
    if found is not None:
        return _wrong(sample, variant, found, got)
    return _tally(graphs)


class _DrawWatch(TorchDispatchMode):
    """Notices whether any operator draws random numbers."""

    has_drawn = False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.has_drawn |= torch.Tag.nondeterministic_seeded in function.tags
        return function(*args, **(kwargs or {}))


def observing_backend(observe: Callable[[CompiledGraph], None], options: Options | None = None) -> Callable:
    """backend="accel", except that `observe` is told of every graph."""

    def observing(gm, example_inputs):
        return compile_module(gm, example_inputs, Compilation(options or Options.parse(), NativeCompiler(), observe))

    observing._torchdynamo_orig_backend = accel_backend  # by this rnn.py knows that accel compiles
    return observing


def _run_compiled(sample: Sample, backend: Callable | str, variant: str) -> Run:
    torch._dynamo.reset()
    counters.clear()
    function, tensors, owned = sample.fresh()
    compiled = torch.compile(function, backend=backend, dynamic=variant == "dynamic")
    with warnings.catch_warnings(), torch.set_grad_enabled(variant != "inference"):
        warnings.simplefilter("ignore")
        return run_call(compiled, tensors, owned, is_backward=variant in WITH_BACKWARD)


def _run_exact(sample: Sample, variant: str) -> Run | None:
    """The run in float64, None where it cannot be made."""
    try:
        with torch.set_grad_enabled(variant != "inference"):
            return run_call(*sample.fresh(EXACT_RUNS_IN), is_backward=variant in WITH_BACKWARD)
    except Exception:  # an operator without float64, or a dtype in its arguments: there is no better reference
        return None


def _tally(graphs: list[CompiledGraph]) -> Outcome:
    nodes = sum(graph.n_calls for graph in graphs)
    fallbacks = [(node, reason) for graph in graphs for node, reason in graph.fallbacks.items()]
    reasons = tuple(dict.fromkeys(reason if reason.startswith(NOT_COMPILED) else f"{op_name(node)}: {reason}" for node, reason in fallbacks))
    breaks = tuple(f"graph break: {_first_line(reason)}" for reason in counters["graph_break"])
    native = nodes - len(fallbacks)
    if nodes == 0:
        return Outcome("uncaptured", reasons=breaks or ("no operator is left in the graph",))
    if native == nodes and not breaks:
        return Outcome("native", native, nodes)
    return Outcome("partly" if native else "fallback", native, nodes, reasons + breaks, family=_family(reasons + breaks))


def _family(reasons: tuple[str, ...]) -> str:
    """The family that decides alone: every reason is of such a family, or a node that serves only those."""
    families = [decided_family(reason) for reason in reasons if not reason.endswith(SERVES_FALLBACKS)]
    return families[0] if families and all(families) else ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:MAX_MESSAGE]


def _failed(sample: Sample, variant: str, error: Exception) -> Outcome:
    """An exception where eager has none: ours, or of torch's own front end, which then fails alike without us."""
    cause = getattr(error, "inner_exception", error)
    message = f"{type(cause).__name__}: {_first_line(str(cause))}"
    try:
        _run_compiled(sample, "aot_eager", variant)
    except Exception as upstream:
        if type(upstream) is type(error):
            return Outcome("upstream", reasons=(f"torch.compile with backend='aot_eager' fails alike: {message}",))
    return Outcome("error", message=message)


def _wrong(sample: Sample, variant: str, found: str, got: Run) -> Outcome:
    """A difference from eager: ours, or there with torch's own backend aot_eager too."""
    try:
        theirs = _run_compiled(sample, "aot_eager", variant)
        is_upstream = difference(theirs, got) is None
    except Exception:  # aot_eager cannot run it: then the difference counts as ours
        is_upstream = False
    if is_upstream:
        return Outcome("upstream", reasons=(f"torch.compile with backend='aot_eager' differs alike: {found[:MAX_MESSAGE]}",))
    return Outcome("wrong", message=found[:MAX_MESSAGE])
