"""nn.LSTM, nn.GRU and nn.RNN reach the backend whole, without a setting of the user's.

Dynamo leaves these modules uncaptured unless torch._dynamo.config.allow_rnn is set. `install` sets it where accel compiles and
nowhere else, and gives Dynamo the sizes of the torch.lstm, torch.gru, torch.rnn_tanh and torch.rnn_relu calls without unrolling
them; `rewrite` turns these calls of Dynamo's graph into the layer operators of rnn_ops.py. Packed sequences still break the graph: Dynamo does not trace them.

A function that another backend gives up because of such a module is marked in Dynamo as one to leave to eager, by its code and so
for every backend; `install` has these marks hold for that backend only, so that both can be used, and compared, in one process.
"""

from __future__ import annotations

import functools
import inspect
import logging
import operator
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import fx

from .backend import backend

__all__ = ["install", "rewrite"]

logger = logging.getLogger("accel")

RECURRENT = frozenset((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu))
# Attributes through which Dynamo and functools keep the backend that they wrap.
WRAPPED_IN = ("_torchdynamo_orig_backend", "compiler_fn", "func", "__wrapped__")
# Key of Dynamo's state of a code, which torch._dynamo.reset() drops: other backends leave it to eager for a recurrent module's sake.
LEFT_TO_EAGER = "accel: recurrent"


class _Tracing(threading.local):
    """Whether another backend met a recurrent module in the frame that this thread traces."""

    met_recurrent = False


tracing = _Tracing()


@functools.cache
def install() -> None:
    """Let Dynamo capture recurrent modules for this backend; other backends see what they saw before. Does its work once.

    Leaves Dynamo alone (and logs why at debug level) where torch's internals are not as in the versions this was written for.
    """
    try:
        import torch._dynamo.convert_frame as convert_frame
        import torch._dynamo.utils as utils
        import torch._dynamo.variables.builder as builder
    except ImportError as error:
        logger.debug("recurrent modules break graphs: %s", error)
        return
    _capture(builder)
    _propagate(utils)
    _keep_to_one_backend(convert_frame, builder)


def _capture(builder: ModuleType) -> None:
    """Have Dynamo trace recurrent modules instead of breaking the graph."""
    builder_class = getattr(builder, "VariableBuilder", None)
    original = getattr(builder_class, "wrap_module", None)
    if not hasattr(getattr(builder, "config", None), "allow_rnn") or not _takes(original, "self", "value"):
        logger.debug("recurrent modules break graphs: torch %s has another VariableBuilder.wrap_module", torch.__version__)
        return

    @functools.wraps(original)
    def wrap_module(self, value: torch.nn.Module):
        if isinstance(value, torch.nn.RNNBase) and _is_accel(_compiler_of(self)):
            with builder.config.patch(allow_rnn=True):
                return original(self, value)
        tracing.met_recurrent |= isinstance(value, torch.nn.RNNBase)
        return original(self, value)

    builder_class.wrap_module = wrap_module


def _keep_to_one_backend(convert_frame: ModuleType, builder: ModuleType) -> None:
    """Have the frames that another backend leaves to eager for a recurrent module's sake stay open to this one."""
    wrapper = getattr(convert_frame, "CatchErrorsWrapper", None)
    original = getattr(wrapper, "__call__", None)
    if not _takes(original, "self", "frame", "cache_entry", "frame_state"):
        logger.debug("a recurrent model that another backend was given first stays in eager: torch %s has another CatchErrorsWrapper", torch.__version__)
        return

    @functools.wraps(original)
    def convert(self, frame, cache_entry, frame_state):
        if LEFT_TO_EAGER in frame_state and not builder.config.allow_rnn and not _is_accel(self):
            return convert_frame.ConvertFrameReturn(apply_to_code=False)
        tracing.met_recurrent = False
        result = original(self, frame, cache_entry, frame_state)
        if tracing.met_recurrent and result.guarded_code is None and result.frame_exec_strategy.cur_action == convert_frame.FrameAction.SKIP:
            frame_state[LEFT_TO_EAGER] = True
            result.apply_to_code = False
        return result

    wrapper.__call__ = convert
    _reopen(convert_frame)


def _reopen(convert_frame: ModuleType) -> None:
    """Take back the marks that were set before: once more, Dynamo tries what it has seen."""
    from torch._dynamo.eval_frame import set_code_exec_strategy

    for code in convert_frame.input_codes.seen:
        if (code := code()) is not None:
            set_code_exec_strategy(code, convert_frame.FrameExecStrategy(convert_frame.FrameAction.DEFAULT, convert_frame.FrameAction.DEFAULT))


def _propagate(utils: ModuleType) -> None:
    """Have Dynamo take the sizes of a recurrent call from our operators.

    Its own way runs torch's decomposition, a step at a time: that fixes the number of steps under dynamic shapes.
    """
    original = getattr(utils, "run_node", None)
    if not _takes(original, "tracer", "node", "args", "kwargs", "nnmodule"):
        logger.debug("recurrent calls fix the number of steps: torch %s has another run_node", torch.__version__)
        return

    @functools.wraps(original)
    def run_node(tracer, node: fx.Node, args: tuple, kwargs: dict, nnmodule):
        if node.op == "call_function" and node.target in RECURRENT and _is_accel(getattr(tracer, "compiler_fn", None)):
            from .rnn_layers import STACKS, reason_to_leave

            args = _fix_rate(args)
            if not (_unfit_tensors((args, kwargs)) or reason_to_leave(args, kwargs)):
                return STACKS[node.target](*args, **kwargs, saves=False)
        return original(tracer, node, args, kwargs, nnmodule)

    utils.run_node = run_node


def _fix_rate(args: Sequence) -> tuple:
    """The arguments with the rate of dropout, a symbol under dynamic shapes, as the number that it is now: torch's own call would fix it, too."""
    examples = [value.meta.get("example_value") if isinstance(value, fx.Node) else value for value in args]
    return tuple(float(example) if isinstance(example, torch.SymFloat) else value for value, example in zip(args, examples))


def _takes(function: Callable | None, *names: str) -> bool:
    return function is not None and list(inspect.signature(function).parameters) == list(names)


def _compiler_of(variable_builder: object) -> object:
    """The backend that Dynamo traces for, in its wrappers; None where it is not where it was."""
    output = getattr(getattr(variable_builder, "tx", None), "output", None)
    return getattr(output, "compiler_fn", None)


def _is_accel(compiler: object) -> bool:
    """Whether `compiler` is this backend or wraps it."""
    while compiler is not None:
        if compiler is backend:
            return True
        compiler = next((getattr(compiler, name) for name in WRAPPED_IN if getattr(compiler, name, None) is not None), None)
    return False


def rewrite(gm: fx.GraphModule) -> None:
    """Replace recurrent calls in Dynamo's graph, and in the graphs inside it, by layer operators.

    Left alone, AOTAutograd unrolls them step by step or turns them into operators of oneDNN. What is not replaced still
    compiles that way; the log says why at debug level.
    """
    for module in gm.modules():
        if not isinstance(module, fx.GraphModule):
            continue
        calls = [node for node in module.graph.nodes if node.op == "call_function" and node.target in RECURRENT]
        for node in calls:
            from .rnn_layers import STACKS, reason_to_leave  # not above: install must not bring the operators

            node.args = _fix_rate(node.args)
            if reason := _unfit_node(node) or reason_to_leave(node.args, node.kwargs):
                logger.debug("%s stays as it is: %s", node.name, reason)
            else:
                _replace(node, STACKS[node.target])
        if calls:
            module.graph.lint()
            module.recompile()


def _unfit_node(node: fx.Node) -> str | None:
    if _example(node) is None:
        return "no example values"
    if not all(user.target is operator.getitem for user in node.users):
        return "its results are read as a whole"
    return _unfit_tensors(_example((node.args, node.kwargs)))


def _unfit_tensors(arguments: Any) -> str | None:
    tensors = _flat(arguments)
    if not tensors or not all(isinstance(value, torch.Tensor) for value in tensors):
        return "no example values"
    if any(value.device.type != "cpu" for value in tensors):
        return "a tensor is not on the cpu"
    if len({value.dtype for value in tensors}) != 1:
        return "dtypes differ (autocast)"
    return None


def _example(value: Any) -> Any:
    return fx.map_arg(value, lambda node: node.meta.get("example_value"))


def _run(node: fx.Node) -> Any:
    """What `node` makes of its arguments' example values."""
    args, kwargs = _example((node.args, node.kwargs))
    return getattr(args[0], node.target)(*args[1:], **kwargs) if node.op == "call_method" else node.target(*args, **kwargs)


def _flat(value: Any) -> list:
    """The tensors, and the missing values of nodes, in nested arguments."""
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _flat(item)]
    if isinstance(value, dict):
        return _flat(list(value.values()))
    return [value] if value is None or isinstance(value, torch.Tensor) else []


def _replace(node: fx.Node, stack: Callable[..., tuple]) -> None:
    """Write the layers in front of `node`, as nodes that come from the same line of the user's, and drop it."""
    graph = node.graph
    tracer = fx.proxy.GraphAppendingTracer(graph)
    before = set(graph.nodes)
    needs_gradient = any(value.requires_grad for value in _flat(_example(node)))
    with graph.inserting_before(node):
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: fx.Proxy(source, tracer))
        results = stack(*args, **kwargs, saves=needs_gradient)
    for written in graph.nodes:
        if written not in before:
            written.meta = {key: node.meta[key] for key in ("stack_trace", "nn_module_stack", "source_fn_stack") if key in node.meta}
            written.meta["example_value"] = _run(written)  # without it the cache of warm starts takes no method call
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]].node)
        graph.erase_node(user)
    graph.erase_node(node)
