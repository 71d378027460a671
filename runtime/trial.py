"""Which of several builds of one kernel is the fastest: calls with made-up inputs, samples taken in turn, a verdict that noise cannot turn.

The first candidate is the default. Another one is chosen only where, in a second measurement against the default, it was faster by
MARGIN both in three rounds of four and at its best.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from ..csrc.abi import PartitionSource, TensorArg
from ..csrc.machine import host_machine
from .build import BuiltPartition
from .executor import DTYPES, Executor

__all__ = ["Measure", "Trial", "fastest", "made_up_calls", "time_in_turn"]

# calls, rounds that there must be -> per call its seconds, one entry per round
Measure = Callable[[Sequence[Callable[[], object]], int], Sequence[Sequence[float]]]

MARGIN = 0.03
SCREENING_ROUNDS = 5
FINAL_ROUNDS = 15
FINALISTS = 3
# A measurement goes on so long where its rounds are short, at most MOST_ROUNDS, and ends then where they are long.
LEAST_SECONDS, MOST_SECONDS = 0.05, 2.0
LEAST_ROUNDS, MOST_ROUNDS = 3, 100
SEED = 0


@dataclasses.dataclass(frozen=True)
class Trial:
    """One way of a kernel, built as a partition of its own. `constants` are the positions of inputs that never change."""

    source: PartitionSource
    built: BuiltPartition
    constants: tuple[int, ...] = ()


def made_up_calls(trials: Sequence[Trial], sizes: Mapping[str, int], threads: int) -> list[Callable[[], object]]:
    """What calls each of `trials`, which take the same inputs, on made-up ones: floats between 0 and 1, bools, and zeros for integers (an index
    that is always in range). Calls of profiling builds return their counters, too; see Executor.run_counted.

    Args: sizes: symbol -> its value.
    """
    generator = torch.Generator().manual_seed(SEED)
    tensors = [_made_up(argument, sizes, generator) for argument in trials[0].source.inputs]
    return [_call(trial, tensors, sizes, threads) for trial in trials]


def _call(trial: Trial, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int], threads: int) -> Callable[[], object]:
    executor = Executor(trial.built, trial.source, threads, constants={i: tensors[i] for i in trial.constants})
    arguments = [tensor for i, tensor in enumerate(tensors) if i not in trial.constants] + [sizes[name] for name in trial.source.symbols]
    run = executor.run_counted if trial.built.is_profile else executor.run
    return lambda: run(list(arguments))


def _made_up(argument: TensorArg, sizes: Mapping[str, int], generator: torch.Generator) -> torch.Tensor:
    shape, strides = ([value if isinstance(value, int) else eval(value, {"max": max, "min": min}, dict(sizes)) for value in values] for values in (argument.sizes, argument.strides))
    dtype = DTYPES[argument.dtype]
    tensor = torch.empty_strided(shape, strides, dtype=dtype)
    base = tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,))
    if dtype.is_floating_point:
        base.copy_(torch.rand(base.shape, generator=generator))
    else:
        base.copy_(torch.randint(0, 2 if dtype is torch.bool else 1, base.shape, generator=generator))
    return tensor


def time_in_turn(calls: Sequence[Callable[[], object]], least_rounds: int) -> list[list[float]]:
    """Seconds of each call, one after the other in every round, so that what disturbs the machine disturbs all of them.

    Every call begins as in a model, where other kernels came before: with its operands behind the second level of memory. One thread is timed
    by what it computes, which other processes disturb less.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for call in calls:
        call()
    elsewhere = torch.zeros(2 * host_machine().l2_bytes * torch.get_num_threads() // 4)
    samples: list[list[float]] = [[] for _ in calls]
    started = time.perf_counter()
    while not _is_enough(len(samples[0]), least_rounds, time.perf_counter() - started):
        for call, taken in zip(calls, samples):
            elsewhere.sum()
            begun = clock()
            call()
            taken.append(clock() - begun)
    return samples


def _is_enough(rounds: int, least: int, seconds: float) -> bool:
    if rounds < least:
        return rounds >= LEAST_ROUNDS and seconds > MOST_SECONDS
    return seconds > LEAST_SECONDS or rounds >= MOST_ROUNDS


def fastest(calls: Sequence[Callable[[], object]], measure: Measure = time_in_turn) -> tuple[int, float]:
    """(position of the call to choose, share of the first one's time that it saves)."""
    screened = [statistics.median(ratios) for ratios in _ratios(measure(calls, SCREENING_ROUNDS))]
    finalists = [i for i in sorted(range(1, len(calls)), key=screened.__getitem__)[:FINALISTS] if screened[i] < 1]
    if not finalists:
        return 0, 0.0
    default, *others = measure([calls[i] for i in (0, *finalists)], FINAL_ROUNDS)
    least = {i: min(taken) / min(default) for i, taken in zip(finalists, others) if _is_proven(taken, default)}
    chosen = min(least, key=least.get, default=0)
    return chosen, 1 - least.get(chosen, 1.0)


def _is_proven(taken: Sequence[float], default: Sequence[float]) -> bool:
    """Whether a call was faster by MARGIN both in three rounds of four and at its best."""
    (ratios,) = _ratios([default, taken])[1:]
    return max(statistics.quantiles(ratios, n=4, method="inclusive")[2], min(taken) / min(default)) < 1 - MARGIN


def _ratios(samples: Sequence[Sequence[float]]) -> list[list[float]]:
    """Samples as shares of the first call's sample of the same round."""
    return [[mine / first for mine, first in zip(taken, samples[0])] for taken in samples]
