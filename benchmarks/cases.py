"""What a benchmark measures: a module with inputs, made when it is asked for.

A case is plain data; timing.py calls it, peers.py compiles it. Weights are random and seeded, nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

__all__ = ["Case", "Pointwise", "calibrated", "find_cases"]

SEED = 0


@dataclasses.dataclass(frozen=True)
class Case:
    """A model or a single kernel.

    Attributes:
        name: as on the command line.
        make: returns the module and its inputs.
        kind: "model", "decode" (writes into a cache that it holds), "training" (the module returns the loss) or "kernel".
        is_quick: part of `make bench`.
        flops: floating-point operations of one call; None counts them with torch's FlopCounterMode.
        bytes: what a call has to read and write at least; None where arithmetic decides and not memory.
        tolerance: largest error that is right, relative to the largest magnitude of eager's output.
    """

    name: str
    make: Callable[[], tuple[nn.Module, tuple]]
    kind: str = "model"
    is_quick: bool = False
    flops: int | None = None
    bytes: int | None = None
    # float32 sums over some thousand terms in another order, through up to a hundred layers; measured errors are 1e-6 to 5e-5.
    tolerance: float = 2e-4

    def build(self) -> tuple[nn.Module, tuple]:
        """The module, in eval mode unless it is for training, and its inputs; the same numbers every time."""
        torch.manual_seed(SEED)
        module, inputs = self.make()
        return module.train(self.kind == "training"), inputs


class Pointwise(nn.Module):
    """A function as a module, so that every peer's exporter takes it."""

    def __init__(self, function: Callable):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def calibrated(model: nn.Module, *inputs: torch.Tensor) -> tuple[nn.Module, tuple]:
    """`model` with batch-norm statistics of these inputs.

    Without them activations of a deep network with random weights shrink to nothing, and a comparison would prove nothing.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(*inputs)
    return model.eval(), inputs


def find_cases(names: list[str], known: dict[str, Case], is_quick: bool) -> list[Case]:
    """The cases called `names`; "all" is all of `known`, no name at all the quick ones if `is_quick`, else none.

    Raises:
        KeyError: an unknown name, with the list of what there is.
    """
    if not names:
        return [case for case in known.values() if is_quick and case.is_quick]
    if names == ["all"]:
        return list(known.values())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(f"no case named {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]
