"""A failing program -> a small one that fails too: fewer outputs, fewer lines, intermediate values turned into inputs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator

import torch

from program import BATCHES, InputSpec, Line, Program, names_in


def reduce(program: Program, is_failing: Callable[[Program], bool], max_trials: int = 150) -> Program:
    """The smallest program found within `max_trials` compilations for which `is_failing` holds."""
    n_trials = 0
    progress = True
    while progress and n_trials < max_trials:
        progress = False
        for candidate in _smaller(program):
            n_trials += 1
            if _runs_in_eager(candidate) and is_failing(candidate):
                program, progress = candidate, True
                break
            if n_trials >= max_trials:
                break
    return program


def _runs_in_eager(program: Program) -> bool:
    try:
        for batch in program.batches:
            program.function()(*program.make_inputs(batch))
    except Exception:  # the cut made nonsense of it
        return False
    return True


def _smaller(program: Program) -> Iterator[Program]:
    """Candidates, those that cut most first."""
    if len(program.outputs) > 1:
        yield from (_swept(dataclasses.replace(program, outputs=(output,))) for output in dict.fromkeys(program.outputs))
    yield from _simpler_setups(program)
    for index in reversed(range(len(program.lines))):
        if (candidate := _with_input_for(program, index)) is not None:
            yield candidate
    for index, line in enumerate(program.lines):
        if not line.target:
            yield _swept(dataclasses.replace(program, lines=_without(program.lines, index)))
    for line in program.lines:
        if line.target and program.outputs != (line.target,):
            yield _swept(dataclasses.replace(program, outputs=(line.target,)))
    for index, line in enumerate(program.lines):
        for name in names_in(line.text):
            if line.target:
                lines = [Line(other.target, re.sub(rf"\b{line.target}\b", name, other.text), other.base) for other in _without(program.lines, index)]
                outputs = tuple(name if output == line.target else output for output in program.outputs)
                yield _swept(dataclasses.replace(program, lines=tuple(lines), outputs=outputs))


def _simpler_setups(program: Program) -> Iterator[Program]:
    if program.options:
        yield dataclasses.replace(program, options=())
    if program.is_backward:
        yield dataclasses.replace(program, is_backward=False)
    if len(program.batches) > 1:
        yield dataclasses.replace(program, batches=program.batches[:1])
        yield dataclasses.replace(program, batches=program.batches[1:])
    if program.setup != "static":
        yield dataclasses.replace(program, setup="static", batches=program.batches[:1])


def _without(lines: tuple[Line, ...], index: int) -> tuple[Line, ...]:
    return lines[:index] + lines[index + 1 :]


def _swept(program: Program) -> Program:
    """The program without lines and inputs that nothing needs. An in-place line is needed if its base is."""
    needed = set(program.outputs)
    kept = []
    for line in reversed(program.lines):
        if line.target in needed or (not line.target and set(names_in(line.text)) & needed):
            needed |= set(names_in(line.text))
            kept.append(line)
    inputs = tuple(spec for spec in program.inputs if spec.name in needed)
    return dataclasses.replace(program, inputs=inputs, lines=tuple(reversed(kept)))


def _with_input_for(program: Program, index: int) -> Program | None:
    """The program with line `index` replaced by an input of the same dtype, shape and strides."""
    line = program.lines[index]
    if not line.target:
        return None
    before = dataclasses.replace(program, lines=program.lines[: index + 1], outputs=(line.target,))
    shapes = []
    try:
        for batch in BATCHES:
            (value,) = before.function()(*before.make_inputs(batch))
            shapes.append(tuple(value.shape))
    except Exception:  # the program takes the first batch size alone
        shapes.append(shapes[0] if shapes else None)
    if None in shapes:
        return None
    spec = InputSpec(line.target.replace("v", "x9"), _text_like(value, shapes))
    lines = [Line(other.target, re.sub(rf"\b{line.target}\b", spec.name, other.text), other.base) for other in _without(program.lines, index)]
    outputs = tuple(spec.name if output == line.target else output for output in program.outputs)
    return _swept(dataclasses.replace(program, inputs=(*program.inputs, spec), lines=tuple(lines), outputs=outputs))


def _text_like(value: torch.Tensor, shapes: list[tuple[int, ...]]) -> str:
    sizes = ["B" if pair == BATCHES else str(pair[0]) for pair in zip(*shapes)]
    dtype = str(value.dtype)
    order = sorted(range(value.dim()), key=lambda dim: -value.stride(dim))
    shape = f"[{', '.join(sizes[dim] for dim in order)}]"
    filling = f"torch.randn({shape}, dtype={dtype})" if value.is_floating_point() else f"torch.randint(0, {2 if value.dtype == torch.bool else 9}, {shape}, dtype={dtype})"
    back = [order.index(dim) for dim in range(value.dim())]
    return filling if order == sorted(order) else f"{filling}.permute({back})"
