"""Every overload that OpInfo's samples reach, forward and backward: the lowering, interpreted, against eager.

This holds the meaning of the lowerings. What the compiler makes of them is held by the coverage matrix and its sample in tests/dynamo_backend/test_coverage.py.
"""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from op_checks import LoweringCheck
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves

VIEWS = """view reshape permute t transpose unsqueeze squeeze expand narrow split split_with_sizes unbind cat stack diagonal diagonal_scatter unfold flip roll repeat tile
    slice_scatter select_scatter as_strided as_strided_scatter tril triu movedim block_diag narrow_copy nn.functional.pixel_shuffle nn.functional.pixel_unshuffle
    nn.functional.channel_shuffle unfold_copy permute_copy"""
REDUCTIONS = """sum nansum prod mean amax amin argmax argmin any all var var_mean std std_mean aminmax linalg.vector_norm logsumexp count_nonzero dist norm cumsum cumprod cummax
    cummin logcumsumexp"""
NORMS = "softmax log_softmax nn.functional.layer_norm nn.functional.group_norm nn.functional.batch_norm nn.functional.instance_norm nn.functional.rms_norm nn.functional.normalize"
INDEXING = """gather take index_select index_add index_copy index_fill index_reduce index_put scatter scatter_add scatter_reduce put masked_scatter searchsorted bucketize
    nn.functional.embedding nn.functional.embedding_bag _unsafe_masked_index _unsafe_masked_index_put_accumulate __getitem__ nonzero_static repeat_interleave histc histogram histogramdd _segment_reduce"""
WINDOWS = """nn.functional.max_pool1d nn.functional.max_pool2d nn.functional.max_pool3d nn.functional.avg_pool1d nn.functional.avg_pool2d nn.functional.avg_pool3d
    nn.functional.adaptive_avg_pool2d nn.functional.adaptive_avg_pool3d nn.functional.adaptive_max_pool2d nn.functional.max_unpool2d nn.functional.unfold
    nn.functional.pad nn.functional.interpolate nn.functional.grid_sample"""
REST = "nn.functional.nll_loss nn.functional.cross_entropy nn.functional.smooth_l1_loss nn.functional.huber_loss nn.functional.mse_loss cdist nn.functional.pdist"
NAMES = frozenset(" ".join((VIEWS, REDUCTIONS, NORMS, INDEXING, WINDOWS, REST)).split())
OPS = [op for op in op_db if op.name in NAMES and op.supported_dtypes("cpu")]

# Eager's own digits are lost where one element is normalized: its gradient is 0, and eager's rounding of it is not.
SINGLE_ELEMENT = "aten.native_layer_norm_backward.default('float32[1]'"
# Belong to other families and their tests.
ELSEWHERE = ("pointwise", "activation", "matmul", "creation", "conv", "random")


def is_ours(target) -> bool:
    from accel.lowering import registry

    return registry.find(target).function.__module__.rpartition(".")[2] not in ELSEWHERE


def run_samples(op, dtype, count, with_gradients):
    check = LoweringCheck(is_ours)
    samples = list(itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=with_gradients), 60))
    random.Random(0).shuffle(samples)
    for sample in samples[:count]:
        if isinstance(sample.input, torch.Tensor) and sample.input.numel() > 2000:
            continue
        with check:
            result = op(sample.input, *sample.args, **sample.kwargs)
            outputs = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.requires_grad]
            if with_gradients and outputs:
                torch.autograd.backward([t.sum() for t in outputs])
    return check


def name_of(op) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def test_every_listed_op_is_in_the_database():
    assert NAMES == {op.name for op in OPS}


@pytest.mark.parametrize("op", OPS, ids=name_of)
def test_lowerings_agree_with_eager(op):
    dtype = torch.float32 if torch.float32 in op.supported_dtypes("cpu") else torch.int64
    check = run_samples(op, dtype, 5, op.supports_autograd and dtype.is_floating_point)
    failures = [f for f in check.failures if SINGLE_ELEMENT not in f]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool], ids=str)
def test_lowerings_agree_with_eager_for_other_dtypes(dtype):
    failures = []
    for op in OPS:
        if dtype in op.supported_dtypes("cpu"):
            failures += run_samples(op, dtype, 2, False).failures
    assert not failures, "\n".join(failures)
