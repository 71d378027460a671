"""How far a compiled model may be from eager: as far as float32 rounding goes, measured against float64."""

import copy

import torch

# Another order of summation errs about as much as eager does, in another direction; ten times that is still rounding, not a wrong kernel.
ROUNDING_FACTOR = 10


def assert_rounds_like_eager(outputs, model, inputs):
    """Holds every output of `model` to 10 times eager's own largest distance from the same model in float64.

    Eager's distance counts as one unit in the last place of the largest value at least: it may be 0 by luck.
    """
    with torch.no_grad():
        rounded = flatten(model(*inputs))
        exact = flatten(copy.deepcopy(model).double()(*(_to_double(value) for value in inputs)))
    outputs = flatten(outputs)
    assert len(outputs) == len(rounded)
    for index, (output, eager, reference) in enumerate(zip(outputs, rounded, exact)):
        assert output.shape == eager.shape and output.dtype == eager.dtype and output.stride() == eager.stride()
        unit = torch.finfo(eager.dtype).eps * reference.abs().max().item()
        allowed = ROUNDING_FACTOR * max((eager - reference).abs().max().item(), unit)
        error = (output - reference).abs().max().item()
        assert error <= allowed, f"output {index}: {error:.2e} from float64, where eager's rounding allows {allowed:.2e}"


def flatten(outputs):
    """The tensors of nested tuples, in order."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for value in outputs for tensor in flatten(value)]


def _to_double(value):
    return value.double() if value.is_floating_point() else value
