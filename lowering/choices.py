"""Kernels with more than one schedule: which there are, what each may be, and each as a partition of its own, for a search to time.

The search is elsewhere (dynamo_backend/tune.py): it puts what it finds into `Group.choice`. Equal groups are one question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping

from .equal_groups import group_key
from .from_fx import Lowered
from .fuse import Group, Schedule
from .kernels import CHOICES
from .pipeline import ScheduledPartition
from .tensor_ir import Buffer, Index, Statement, Template, TensorProgram, leaves

__all__ = ["OpenChoice", "alone", "open_choices", "with_choices"]


@dataclasses.dataclass(frozen=True)
class OpenChoice:
    """A question to the search.

    Attributes:
        positions: of the equal groups in the schedule.   group: the first of them.
        choices: the analytic model's first, then others.
    """

    positions: tuple[int, ...]
    group: Group
    choices: tuple


def open_choices(scheduled: ScheduledPartition) -> tuple[OpenChoice, ...]:
    """The groups of a schedule that can be written in more than one way."""
    found: dict[Hashable, list[int]] = {}
    groups = scheduled.schedule.groups
    for position, group in enumerate(groups):
        if isinstance(group.statements[0], Template) and group.kind in CHOICES:
            found.setdefault(group_key(group), []).append(position)
    questions = (OpenChoice(tuple(at), groups[at[0]], _choices(groups[at[0]], scheduled)) for at in found.values())
    return tuple(question for question in questions if len(question.choices) > 1)


def _choices(group: Group, scheduled: ScheduledPartition) -> tuple:
    return tuple(dict.fromkeys(CHOICES[group.kind](group.statements[0], scheduled.machine)))


def with_choices(scheduled: ScheduledPartition, choices: Mapping[int, object]) -> ScheduledPartition:
    """`scheduled` with choices for the groups at some positions."""
    groups = tuple(dataclasses.replace(group, choice=choices.get(i, group.choice)) for i, group in enumerate(scheduled.schedule.groups))
    return dataclasses.replace(scheduled, schedule=dataclasses.replace(scheduled.schedule, groups=groups))


def alone(scheduled: ScheduledPartition, group: Group, choice: object) -> ScheduledPartition:
    """`group` as a partition of its own, by `choice`. It tells of no FX nodes, so that equal kernels of all models have equal texts."""
    statements = tuple(dataclasses.replace(statement, origins=()) for statement in group.statements)
    inputs = _inputs(statements, scheduled)
    outputs = tuple(sorted(group.stored, key=lambda buffer: buffer.name))
    program = TensorProgram("alone", inputs, outputs, statements)
    aliases = tuple(inputs.index(buffer) if buffer in inputs else None for buffer in outputs)
    lowered = Lowered(program, outputs, aliases, scheduled.lowered.symbols, ())
    schedule = Schedule("alone", (dataclasses.replace(group, statements=statements, choice=choice),))
    return dataclasses.replace(scheduled, lowered=lowered, schedule=schedule, seconds={})


def _inputs(statements: tuple[Statement, ...], scheduled: ScheduledPartition) -> tuple[Buffer, ...]:
    """What the statements read of memory before they write it. Buffers that nobody fills stand for values inside a kernel."""
    filled = {target.buffer for group in scheduled.schedule.groups for statement in group.statements for target in statement.targets()}
    filled.update(scheduled.lowered.program.inputs)
    found, written = {}, set()
    for statement in statements:
        found.update((leaf.buffer, None) for leaf in leaves(*statement.expressions()) if not isinstance(leaf, Index) and leaf.buffer in filled - written)
        written |= {target.buffer for target in statement.targets()}
    return tuple(found)
