"""What a forward graph saves of convolutions lies channels last; results, gradients and what the caller gets are eager's."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import accel  # noqa: F401  (registers the backend)


class Classifier(nn.Sequential):
    """Convolutions, norms, pooling of both kinds, and a linear layer."""

    def __init__(self):
        blocks = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.GroupNorm(3, 12)]
        super().__init__(*blocks, nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(108, 5))


class Shuffled(nn.Module):
    """Views of what convolutions make, in the forward and in the backward graph, and results that the caller gets."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        wide = self.first(x)
        shuffled = F.pixel_shuffle(wide, 2)
        tokens = wide.sigmoid().flatten(2).transpose(1, 2)
        return self.second(shuffled.tanh()), wide, tokens @ tokens.mT


class Signal(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(6 * 15, 3))


class Volume(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 3, 2))


CASES = {
    "classifier": (Classifier, (2, 3, 28, 28)),
    "shuffled": (Shuffled, (2, 4, 6, 6)),
    "signal": (Signal, (3, 4, 32)),
    "volume": (Volume, (2, 2, 6, 8, 10)),
}


def step(run, module, x):
    """(results, gradients of the input and of the parameters)."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    results = run(x)
    results = results if isinstance(results, tuple) else (results,)
    sum((result * torch.linspace(-1, 1, result.numel()).view(result.shape)).sum() for result in results).backward()
    return results, [x.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize("options", [{"strict": True}, {"fallback_ops": ["aten.relu", "aten.silu", "aten.tanh"]}], ids=["native", "fallbacks"])
@pytest.mark.parametrize("name", CASES)
def test_a_training_step_agrees_with_eager(name, options):
    make, shape = CASES[name]
    module = make()
    reference, x = copy.deepcopy(module), torch.randn(shape)
    results, gradients = step(torch.compile(module, backend="accel", options=options), module, x)
    expected, expected_gradients = step(reference, reference, x)
    for result, want in zip((*results, *gradients), (*expected, *expected_gradients), strict=True):
        torch.testing.assert_close(result, want, atol=2e-4, rtol=1e-3)
        assert result.stride() == want.stride()


def saved_images(run, *inputs):
    """Saved tensors of four dims with more than one channel and pixel, without inputs and weights."""
    result = run(*inputs)
    while not hasattr(node := result.grad_fn, "saved_tensors") or not len(node.saved_tensors):
        result = node.next_functions[0][0]
    batch = inputs[0].shape[0]
    return [t for t in node.saved_tensors if t.dim() == 4 and t.shape[0] == batch and t.shape[1] > 3 and t.shape[2] > 1]


def test_saved_images_lie_channels_last():
    module = Classifier()
    images = saved_images(torch.compile(module, backend="accel", options={"strict": True}), torch.randn(2, 3, 28, 28))
    assert len(images) >= 4
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in images)


def test_symbolic_sizes_agree_with_eager():
    module = Signal()
    compiled = torch.compile(module, backend="accel", options={"strict": True}, dynamic=True)
    for batch in (2, 5):
        (result,), gradients = step(compiled, module, x := torch.randn(batch, 4, 32))
        (want,), expected = step(module, module, x)
        torch.testing.assert_close([result, *gradients], [want, *expected], atol=2e-4, rtol=1e-3)
