"""Times of callables in interleaved blocks, so that the machine's mood meets all alike, and the comparison with eager.

Ratios are taken block by block and only then reduced to their median: a slow minute slows both sides of a ratio.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

__all__ = ["Times", "interleaved", "largest_error", "tensors_of"]

WARM_CALLS = 2  # per block: another backend's threads and data have been in the caches
REST_SECONDS = 0.005  # before a block: the workers of the backend before spin for some milliseconds
FIGURES = 4  # significant, in JSON
NOISE = 1e-6  # some units in the last place of float32, of the largest tensor


@dataclasses.dataclass(frozen=True)
class Times:
    """Milliseconds of one call.

    Attributes:
        blocks: median of each block, in the order of the rounds.
        best: the shortest call of all.
    """

    blocks: tuple[float, ...]
    best: float

    @property
    def median(self) -> float:
        """Median of the blocks."""
        return median(self.blocks)

    def ratio_to(self, other: Times) -> float:
        """How many times as fast this is as `other`: above 1 is faster."""
        return median(theirs / ours for ours, theirs in zip(self.blocks, other.blocks))

    def to_dict(self) -> dict:
        """As JSON-ready data."""
        return {"ms": _rounded(self.median), "best_ms": _rounded(self.best), "blocks": [_rounded(block) for block in self.blocks]}


def interleaved(candidates: Mapping[str, Callable], inputs: Sequence, seconds: float, rounds: int) -> dict[str, Times]:
    """Times of the candidates, which take turns; the order is turned by one each round.

    Args: seconds: for each candidate, over all rounds; a block has at least one call.
    """
    names = list(candidates)
    blocks = {name: [] for name in names}
    best = dict.fromkeys(names, float("inf"))
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            calls = _block(candidates[name], inputs, seconds / rounds)
            blocks[name].append(median(calls))
            best[name] = min(best[name], *calls, best[name])
    return {name: Times(tuple(blocks[name]), best[name]) for name in names}


def _block(function: Callable, inputs: Sequence, seconds: float) -> list[float]:
    """Milliseconds of single calls until `seconds` are over."""
    time.sleep(REST_SECONDS)
    started = time.perf_counter()
    for _ in range(WARM_CALLS):
        function(*inputs)
        if time.perf_counter() - started > seconds:  # a call this long warms up in its first percent
            break
    calls, deadline = [], time.perf_counter() + seconds
    while not calls or time.perf_counter() < deadline:
        started = time.perf_counter()
        function(*inputs)
        calls.append(1000 * (time.perf_counter() - started))
    return calls


def largest_error(outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Largest difference relative to the largest magnitude expected, over all tensors; infinite where shapes or NaNs disagree.

    A tensor counts as no smaller than NOISE of the largest one: the gradient of an attention's key bias is 0 but for rounding.
    """
    if len(outputs) != len(expected):
        return float("inf")
    least = NOISE * max((_magnitude(wanted) for wanted in expected), default=0.0)
    return max((_error(output, wanted, max(least, 1e-30)) for output, wanted in zip(outputs, expected)), default=0.0)


def _magnitude(tensor: torch.Tensor) -> float:
    return tensor.double().abs().nan_to_num(0.0).max().item() if tensor.numel() else 0.0


def _error(output: torch.Tensor, wanted: torch.Tensor, least: float) -> float:
    if output.shape != wanted.shape or not torch.equal(output.isnan(), wanted.isnan()):
        return float("inf")
    if wanted.numel() == 0:
        return 0.0
    difference = (output.double() - wanted.double()).abs().nan_to_num(0.0).max()
    return difference.item() / max(_magnitude(wanted), least)


def tensors_of(result: object) -> list[torch.Tensor]:
    """The tensors of a result, copied: a peer may write its next result into the same memory."""
    return [tensor.detach().clone() for tensor in (result if isinstance(result, list | tuple) else [result])]


def _rounded(milliseconds: float) -> float:
    return float(f"{milliseconds:.{FIGURES}g}")
