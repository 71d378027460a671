"""Compiled optimizer steps: no fallback, eager's parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from accel.coverage_run import observing_backend

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True, weight_decay=0.1),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, 1e-2, foreach=True),
    "sgd_foreach": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, nesterov=True, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_step_is_native_and_as_eager(name):
    torch._dynamo.reset()
    torch.manual_seed(0)
    graphs = []
    models = [torch.nn.Linear(6, 5)]
    models.append(copy.deepcopy(models[0]))
    optimizers = [OPTIMIZERS[name](model.parameters()) for model in models]
    steps = [torch.compile(optimizers[0].step, backend=observing_backend(graphs.append)), optimizers[1].step]
    for _ in range(3):
        x = torch.randn(7, 6)
        for model, step in zip(models, steps):
            model.zero_grad()
            model(x).pow(2).sum().backward()
            step()
    assert graphs and not any(graph.fallbacks for graph in graphs)
    for compiled, eager in zip(models[0].parameters(), models[1].parameters()):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)
