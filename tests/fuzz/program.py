"""A random program: inputs and lines of Python that make tensors of them. It prints as a script, and runs in eager and compiled."""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F

from accel.coverage_compare import Run, copy_tensors, difference, run_call

# Set-ups that a program is compiled with: name -> torch.compile's arguments
SETUPS = {
    "static": {"dynamic": False},
    "dynamic": {"dynamic": True},
    "automatic": {},
}
BATCHES = (3, 5)  # sizes of the inputs' batch dim: of the first and the second call


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """An input, as the expression that makes it; "B" in it is the batch size."""

    name: str
    text: str

    def make(self, batch: int) -> torch.Tensor:
        """The tensor; torch's generator is to be seeded before."""
        return eval(self.text, {"torch": torch, "B": batch})


@dataclasses.dataclass(frozen=True)
class Line:
    """One statement: `target = text`, or `text` alone where target is empty.

    Attributes:
        base: of an in-place line, the name that it writes through.
    """

    target: str
    text: str
    base: str = ""

    def __str__(self) -> str:
        return f"{self.target} = {self.text}" if self.target else self.text


@dataclasses.dataclass(frozen=True)
class Program:
    """Inputs, lines, outputs, and how it is compiled.

    Attributes:
        setup: a key of SETUPS.   options: of the backend.
        is_backward: gradients are compared too.   batches: sizes of the calls, one after the other, of one compiled function.
    """

    inputs: tuple[InputSpec, ...]
    lines: tuple[Line, ...]
    outputs: tuple[str, ...]
    setup: str = "static"
    options: tuple[tuple[str, object], ...] = ()
    is_backward: bool = False
    batches: tuple[int, ...] = (BATCHES[0],)

    def function_text(self) -> str:
        """The program as a Python function."""
        body = [str(line) for line in self.lines] + [f"return {''.join(f'{name}, ' for name in self.outputs)}"]
        return f"def program({', '.join(spec.name for spec in self.inputs)}):\n" + "".join(f"    {line}\n" for line in body)

    def function(self, *, is_exact: bool = False) -> Callable:
        """The program, ready to be called or compiled; with `is_exact` its casts to other floating-point dtypes are to float64."""
        namespace = {"torch": torch, "F": F}
        text = self.function_text()
        if is_exact:
            text = re.sub(r"torch\.(float32|float16|bfloat16)\b", "torch.float64", text)
        exec(compile(text, f"<program {hash(text) & 0xFFFFFFFF:x}>", "exec"), namespace)
        return namespace["program"]

    def make_inputs(self, batch: int) -> tuple[torch.Tensor, ...]:
        """The inputs of a call, the same ones every time."""
        torch.manual_seed(1)
        tensors = [spec.make(batch) for spec in self.inputs]
        return tuple(tensor.requires_grad_() if self.is_backward and tensor.is_floating_point() else tensor for tensor in tensors)

    def script(self, message: str = "") -> str:
        """A script that shows the difference."""
        arguments = [f"{key}={value!r}" for key, value in SETUPS[self.setup].items()] + ([f"options={dict(self.options)!r}"] if self.options else [])
        inputs = ", ".join(f"{spec.text}{'.requires_grad_()' if self.is_backward and 'randint' not in spec.text else ''}" for spec in self.inputs)
        return (
            f"# {message}\nimport torch\nimport torch.nn.functional as F\n\n\n{self.function_text()}\n\n"
            f'compiled = torch.compile(program, backend="accel"{"".join(f", {argument}" for argument in arguments)})\n'
            f"for B in {list(self.batches)}:\n"
            + "".join(f"    torch.manual_seed(1)\n    {kind} = {function}({inputs})\n" for kind, function in (("eager", "program"), ("got", "compiled")))
            + ("    # compare the gradients of the outputs too\n" if self.is_backward else "")
            + "    for a, b in zip(eager, got):\n        print(a.shape, a.stride(), b.stride(), (a != b).sum())\n"
        )


def names_in(text: str) -> list[str]:
    """Names of inputs and values in an expression."""
    return list(dict.fromkeys(re.findall(r"\b[xv]\d+\b", text)))


def check(program: Program) -> str | None:
    """How the compiled program differs from eager, or None. A difference that torch's own backend aot_eager shows alike does not count."""
    function = program.function()
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="accel", options=dict(program.options), **SETUPS[program.setup])
    for batch, times in itertools.product(program.batches, ("first", "second")):
        expected = _run(program, function, batch)
        try:
            got = _run(program, compiled, batch)
        except Exception as error:
            cause = getattr(error, "inner_exception", error)
            return f"batch {batch}, {times} call: {type(cause).__name__}: {next(iter(str(cause).strip().splitlines()), '')}"
        found = difference(expected, got, lambda: _exact(program, batch))
        if found is not None:
            return None if _is_upstream(program, function, batch, got) else f"batch {batch}, {times} call: {found}"
    return None


def _run(program: Program, function: Callable, batch: int) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run_call(function, program.make_inputs(batch), is_backward=program.is_backward)


def _exact(program: Program, batch: int) -> Run | None:
    """The run in float64; None where the program does not take it."""
    inputs, usual = program.make_inputs(batch), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return run_call(program.function(is_exact=True), copy_tensors(inputs, torch.float64), is_backward=program.is_backward)
    except (RuntimeError, IndexError, TypeError):  # mixed dtypes that only the original ones allow
        return None
    finally:
        torch.set_default_dtype(usual)


def _is_upstream(program: Program, function: Callable, batch: int, got: Run) -> bool:
    torch._dynamo.reset()
    try:
        theirs = _run(program, torch.compile(function, backend="aot_eager", **SETUPS[program.setup]), batch)
    except Exception:  # aot_eager cannot run it: the difference counts as ours
        return False
    return difference(theirs, got, lambda: _exact(program, batch)) is None
