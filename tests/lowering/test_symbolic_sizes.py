"""Operators whose results have computed sizes: one compilation with `dynamic=True`, wholly native, serves every size."""

import pytest
import torch
import torch.nn.functional as F
from frontend_graphs import compile_with

from accel.native import NativeCompiler

PROGRAMS = {
    "range by a row": lambda x: torch.arange(0, x.numel(), x.shape[1]) * 2,
    "range that skips": lambda x: torch.arange(1, x.shape[0] + x.shape[1], 3, dtype=torch.float32) * 2,
    "range downwards": lambda x: torch.arange(x.shape[1] - 1, -1, -3) * 2,
    "range of floats downwards": lambda x: torch.arange(x.shape[0], -x.shape[1], -1.0) * 2,
    "half of the rows": lambda x: x[: int(x.shape[0] * 0.5)] * 2,
    "resampled": lambda x: F.interpolate(x[None, None] * 2, scale_factor=1.5, mode="bilinear"),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x[None, None] * 2, (3, 2)),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x[None, None] * 2, (3, 2), return_indices=True),
    "global maximum": lambda x: F.adaptive_max_pool2d(x[None] * 2, 1, return_indices=True),
    "embedding bag": lambda x: F.embedding_bag(x.abs().long() % 4, torch.ones(4, 3), mode="sum"),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_program_serves_every_size_natively(program):
    graphs = []
    compiled = compile_with(NativeCompiler(), program, graphs, dynamic=True)
    for shape in ((5, 8), (7, 9), (4, 13), (6, 4)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(compiled(x), program(x))
    (graph,) = graphs
    assert graph.fallbacks == {}
