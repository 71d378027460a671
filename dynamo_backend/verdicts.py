"""Why a node is native or not: the user's options and the tensors' devices first, then the lowering's own judgement."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from .errors import describe_bug
from .lowering import Verdict
from .lowering.decisions import reason_for
from .nodes import is_call, is_getitem
from .options import Options

__all__ = ["judge_graph"]

logger = logging.getLogger("accel")


def judge_graph(graph: fx.Graph, options: Options, judge: Callable[[fx.Node], Verdict]) -> dict[fx.Node, Verdict]:
    """A verdict for every call node; `judge` is asked about those that nothing here excludes."""
    return {node: _verdict(node, options, judge) for node in graph.nodes if is_call(node)}


def _verdict(node: fx.Node, options: Options, judge: Callable[[fx.Node], Verdict]) -> Verdict:
    excluded = _excluded_by_option(node, options.fallback_ops) or _foreign_tensor(node) or _unsupported_form(node)
    if excluded:
        return Verdict(False, excluded)
    try:
        return judge(node)
    except Exception as error:  # a fault of one lowering leaves its node to eager
        logger.warning("%s runs in eager: its lowering failed: %s", node.name, describe_bug(error))
        return Verdict(False, f"not lowered: {describe_bug(error)}")


def _excluded_by_option(node: fx.Node, fallback_ops: frozenset[str]) -> str | None:
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    overload = str(node.target)
    names = {overload, overload.rpartition(".")[0]} & fallback_ops
    return f"excluded by option fallback_ops={min(names)!r}" if names else None


def _tensors(node: fx.Node) -> Iterable[torch.Tensor]:
    for source in (*node.all_input_nodes, node):
        value = source.meta.get("val")
        yield from (found for found in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(found, torch.Tensor))


def _foreign_tensor(node: fx.Node) -> str | None:
    for tensor in _tensors(node):
        if tensor.device.type != "cpu":
            return f"a tensor is on device {tensor.device}; only cpu tensors are compiled"
        if tensor.layout != torch.strided:
            return f"a tensor has layout {tensor.layout}; only strided tensors are compiled"
        if tensor.is_complex():
            return reason_for(str(node.target).rpartition(".")[0]) or f"dtype {str(tensor.dtype).removeprefix('torch.')}: complex numbers have no DVX lanes"
        if tensor.is_neg():
            return "a tensor is a lazy negation: its memory does not hold its values"
        if free_unbacked_symbols(tensor):
            return f"data-dependent shape {list(tensor.shape)}: a size is known only when the graph runs"
    return None


def _inner_reason(node: fx.Node) -> str | None:
    """Why the operator that a higher-order one calls stays in eager by itself."""
    inner = (argument for argument in node.args if isinstance(argument, torch._ops.OpOverload))
    return next((reason for op in inner if (reason := reason_for(str(op).rpartition(".")[0]))), None)


def _unsupported_form(node: fx.Node) -> str | None:
    if node.op != "call_function":
        return f"{node.op} is no operator"
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return f"higher-order operator {node.target}: {_inner_reason(node) or 'its body is run by torch'}"
    if isinstance(node.meta.get("val"), (list, tuple)) and not all(map(is_getitem, node.users)):
        return "its list of results is read as a whole"
    return None
