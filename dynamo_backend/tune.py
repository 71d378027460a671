"""mode="max-autotune": kernels whose best schedule the analytic model does not know are built in several ways and timed on this machine.

lowering proposes the ways (lowering/choices.py), runtime builds and times them (runtime/trial.py), the results stay in the disk
cache. A kernel keeps the model's choice unless another one is faster beyond doubt, so that what is tuned is never slower. For a
modelled machine, cycles are counted instead of time.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .csrc.machine import host_machine
from .lowering import LoweredPartition, ScheduledPartition, write_partition
from .lowering.choices import OpenChoice, alone, open_choices, with_choices
from .lowering.cost import partition_cost
from .lowering.fuse import Group
from .options import Options
from .runtime.build import build, build_key, compilers_at_rest
from .runtime.cache import Cache, digest_of
from .runtime.errors import BuildError
from .runtime.profile import PartitionRun, measure_run
from .runtime.trial import Measure, Trial, fastest, made_up_calls, time_in_turn

__all__ = ["TunedKernel", "tune"]

logger = logging.getLogger("accel")

VERSION = "1"  # part of every key: what an answer means, and how it is found
SUFFIX = ".tuned"


@dataclasses.dataclass(frozen=True)
class TunedKernel:
    """What was found for one distinct kernel.

    Attributes:
        kind, nodes: as in KernelReport; nodes of the first of the calls.   calls: how many kernel calls it stands for.
        chosen, default: schedules in words.   gain: share of the default's time that the chosen one saves.
    """

    kind: str
    nodes: tuple[str, ...]
    calls: int
    chosen: str
    default: str
    gain: float


def tune(scheduled: ScheduledPartition, sizes: Mapping[str, int], options: Options, measure: Measure = time_in_turn) -> tuple[ScheduledPartition, tuple[TunedKernel, ...]]:
    """`scheduled` with the choices that were found now or before, and what to tell about them.

    Args: sizes: symbol -> the size to tune for.   measure: what times calls.
    """
    try:
        with unset_fake_temporarily(), torch.no_grad():  # AOTAutograd compiles under its fake mode
            answers = _Search(scheduled, sizes, options, measure).answers()
    except BuildError as error:  # no compiler: building the partition will tell
        logger.info("nothing is tuned: %s", error)
        return scheduled, ()
    found = {position: question.choices[answer.position] for question, answer in answers for position in question.positions}
    return with_choices(scheduled, found), tuple(_tuned(*each) for each in answers)


@dataclasses.dataclass(frozen=True)
class _Answer:
    """The position of the choice to make, and the share of the first one's time that it saves."""

    position: int
    gain: float


def _tuned(question: OpenChoice, answer: _Answer) -> TunedKernel:
    group, choices = question.group, question.choices
    return TunedKernel(group.kind, group.origins, len(question.positions), str(choices[answer.position]), str(choices[0]), answer.gain)


class _Search:
    """The questions of one partition, and how they are answered."""

    def __init__(self, scheduled: ScheduledPartition, sizes: Mapping[str, int], options: Options, measure: Measure):
        self.scheduled, self.sizes, self.measure, self.machine = scheduled, sizes, measure, options.machine
        self.is_modelled = self.machine != host_machine()
        self.cache_dir, self.cache = options.cache_dir, Cache(options.cache_dir)
        self.threads = options.threads or torch.get_num_threads()

    def answers(self) -> list[tuple[OpenChoice, _Answer]]:
        """Every question with its answer; what the cache does not know is built first, all of it, one compiler per core."""
        questions: dict[str, OpenChoice] = {}
        for question in open_choices(self.scheduled):
            key = self._key(question)
            before = questions[key].positions if key in questions else ()
            questions[key] = dataclasses.replace(question, positions=(*before, *question.positions))
        answers = {key: answer for key, question in questions.items() if (answer := self._read(key, len(question.choices))) is not None}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            trials = {key: [pool.submit(self._build, question.group, choice) for choice in question.choices] for key, question in questions.items() if key not in answers}
        for key, built in trials.items():
            answers[key] = self._ask(questions[key], [each.result() for each in built])
            self.cache.publish(key, SUFFIX, json.dumps(dataclasses.asdict(answers[key])).encode())
        return [(question, answers[key]) for key, question in questions.items()]

    def _key(self, question: OpenChoice) -> str:
        """What an answer depends on: the kernel as the model writes it, compiler and CPU, what else there was, threads, machine and sizes."""
        source = write_partition(alone(self.scheduled, question.group, question.choices[0])).source
        return digest_of("tuned", VERSION, build_key(source, cache_dir=self.cache_dir), *map(repr, question.choices), str(self.threads), repr(self.machine), repr(sorted(self.sizes.items())))

    def _read(self, key: str, n_choices: int) -> _Answer | None:
        """The answer that the cache has; one that does not fit is as good as none."""
        content = self.cache.read(key, SUFFIX)
        try:
            answer = _Answer(**json.loads(content)) if content is not None else None
        except (TypeError, ValueError):
            return None
        return answer if answer is not None and answer.position in range(n_choices) else None

    def _build(self, group: Group, choice: object) -> tuple[LoweredPartition, Trial]:
        scheduled = alone(self.scheduled, group, choice)
        lowered = write_partition(scheduled)
        constants = tuple(i for i, buffer in enumerate(scheduled.lowered.program.inputs) if buffer.kind == "const")
        return lowered, Trial(lowered.source, build(lowered.source, cache_dir=self.cache_dir, profile=self.is_modelled), constants)

    def _ask(self, question: OpenChoice, built: Sequence[tuple[LoweredPartition, Trial]]) -> _Answer:
        try:
            calls = made_up_calls([trial for _, trial in built], self.sizes, self.threads)
            if self.is_modelled:
                return _fewest([self._cycles(lowered, call()[1]) for (lowered, _), call in zip(built, calls)])
            with compilers_at_rest():
                return _Answer(*fastest(calls, self.measure))
        except (IndexError, RuntimeError) as error:  # made-up operands may be none that it takes
            logger.info("%s (%s) is not tuned: %s", question.group.kind, ", ".join(question.group.origins), error)
            return _Answer(0, 0.0)

    def _cycles(self, lowered: LoweredPartition, counters: Sequence[int]) -> int:
        """What a call cost that left these counters."""
        cost = partition_cost(lowered.distinct, lowered.calls, self.machine, lowered.output_buffers)
        _, spans = measure_run(PartitionRun(lowered.source.name, cost, tuple(counters), self.sizes), self.machine)
        return sum(span.cycles for span in spans)


def _fewest(cycles: Sequence[int]) -> _Answer:
    chosen = min(range(len(cycles)), key=cycles.__getitem__)
    return _Answer(chosen, 1 - cycles[chosen] / max(cycles[0], 1))
