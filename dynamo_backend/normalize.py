"""Which ops reach the partitioner: decompositions, and clean-ups of the graph that AOTAutograd hands over.

An op with a lowering stays whole; every other op is decomposed where torch has a decomposition into core ops, or where
WHOLE_IF_LOWERED says that its parts are better than eager.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import fx
from torch._decomp import core_aten_decompositions, global_decomposition_table

from .decompositions import OWN_DECOMPOSITIONS, OWN_FORMS, late_decompositions
from .join_steps import join_steps
from .lowering import fix_sizes
from .random_ops import DRAWS
from .nodes import is_view, storage_key, tensor_value
from .size_floats import compute_size_floats
from .sizes import bind_symbols

__all__ = ["PASSES", "decompositions", "is_named", "normalize"]

aten = torch.ops.aten

# Core ops, so left whole by torch's own list. Without a lowering of their own their parts may still have one.
WHOLE_IF_LOWERED = (
    aten._softmax.default, aten._log_softmax.default, aten.native_layer_norm.default, aten.native_layer_norm_backward.default,
    aten.native_group_norm.default, aten.native_group_norm_backward.default, aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit.no_stats, aten._native_batch_norm_legit_functional.default, aten._native_batch_norm_legit_no_training.default,
    aten.native_batch_norm_backward.default, aten.gelu.default, aten.gelu_backward.default, aten.silu.default, aten.silu_backward.default,
    aten.sigmoid_backward.default, aten.tanh_backward.default, aten.addmm.default, aten.baddbmm.default, aten.elu.default,
    aten.leaky_relu.default, aten.hardtanh.default, aten.embedding.default, aten.embedding_dense_backward.default,
    aten._adaptive_avg_pool2d.default, aten.relu.default, aten.expm1.default, aten.log1p.default,
)  # fmt: skip

# In training its backward reads the logsumexp of the whole op, which the decomposition does not make.
WHOLE_IN_TRAINING = (aten._scaled_dot_product_flash_attention_for_cpu.default,)


def decompositions(has_lowering: Callable[[torch._ops.OpOverload], bool], *, training: bool, excluded: frozenset[str] = frozenset()) -> dict:
    """overload -> decomposition, for AOTAutograd.

    Args: has_lowering: ops that stay whole.   training: a backward graph will be asked for.
        excluded: names of ops ("aten.mul" or "aten.mul.Tensor") that the user wants whole, in eager.
    """
    # an operator that draws stays whole: random_ops.py gives it a seed, once it is known in which graph it runs
    whole = {*DRAWS, *(WHOLE_IN_TRAINING if training else ())}
    taken_apart = (op for op in _candidates() if op not in whole and not has_lowering(op) and not is_named(op, excluded))
    forms = {op: form for op, form in OWN_FORMS.items() if has_lowering(op) and not is_named(op, excluded)}
    return {op: _candidates()[op] for op in taken_apart} | forms | late_decompositions()


@functools.cache
def _candidates() -> dict[torch._ops.OpOverload, Callable]:
    known = global_decomposition_table["post_autograd"]
    return dict(core_aten_decompositions()) | {op: known[op] for op in WHOLE_IF_LOWERED if op in known} | OWN_DECOMPOSITIONS


def is_named(op: torch._ops.OpOverload, names: frozenset[str]) -> bool:
    """Whether `op` is among `names`, as "aten.mul" or "aten.mul.Tensor"."""
    return bool(names) and not names.isdisjoint((str(op), str(op).rpartition(".")[0]))


def _drop_unused(gm: fx.GraphModule) -> None:
    gm.graph.eliminate_dead_code()


def _drop_aliases(gm: fx.GraphModule) -> None:
    """Read through detach and alias. The graph's own results stay apart: autograd tells them apart."""
    for node in gm.graph.nodes:
        if node.target in (aten.detach.default, aten.alias.default):
            node.replace_all_uses_with(node.args[0], delete_user_cb=lambda user: user.op != "output")


def _restride_bases(gm: fx.GraphModule) -> None:
    """as_strided sees through views to the tensor whose storage it indexes."""
    for node in gm.graph.nodes:
        if node.target not in (aten.as_strided.default, aten.as_strided_copy.default):
            continue
        source, sizes, strides, *offset = node.args
        begin = offset[0] if offset and offset[0] is not None else tensor_value(source).storage_offset()
        base = source
        while is_view(base):
            base = base.args[0]
        if base is not source and isinstance(begin, (int, fx.Node)) and storage_key(base) == storage_key(source):
            node.args = (base, sizes, strides, begin)


def _fix_sizes(gm: fx.GraphModule) -> None:
    for node in gm.graph.nodes:
        fix_sizes(node)


def _read_sizes(gm: fx.GraphModule) -> None:
    bind_symbols(gm.graph)


# (name, function, what breaks without it or elsewhere)
PASSES: tuple[tuple[str, Callable[[fx.GraphModule], None], str], ...] = (
    ("drop aliases", _drop_aliases, "before `drop unused`, which removes what is no longer read; chains of detach would count as work"),
    ("restride bases", _restride_bases, "before `drop unused`, which removes the views; a lowering knows a tensor's layout, not where a view lies in it"),
    ("compute size floats", compute_size_floats, "before `drop unused`, which removes the arithmetic on numbers that nothing reads any more"),
    ("join steps", join_steps, "before `drop unused`, which removes the products of single steps; after `drop aliases`, which would hide that steps are alike"),
    ("drop unused", _drop_unused, "an unused node would ask for sizes and for a place in a partition"),
    ("fix sizes", _fix_sizes, "before `read sizes`: a size that is a number has no symbol; after `drop unused`, whose nodes want nothing"),
    ("read sizes", _read_sizes, "last: a partition can be handed a symbolic size only if a node of the graph carries it"),
)


def normalize(gm: fx.GraphModule) -> fx.GraphModule:
    """Run PASSES over the ATen graph, in place."""
    for _, change, _ in PASSES:
        change(gm)
    return gm
