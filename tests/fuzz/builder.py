"""Seed -> Program: steps are drawn one after the other and tried in eager, so that every program is valid.

A step with a jump (floor, comparison, cast to int, sort's indices) is only given values that carry no rounding: elsewhere the
smallest rounding difference would flip it, and a difference would prove nothing. `is_exact` follows them.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F

from accel.coverage_compare import run_call
from program import BATCHES, SETUPS, InputSpec, Line, Program, names_in

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTS = ("int64", "int32", "int16", "int8", "uint8")
MAX_ELEMENTS = 20_000
SEED_STRIDE = 1_000_003  # between the attempts of one seed
# Above these, sums of squares of half types overflow, and cancellation eats the digits of the others.
LARGEST = {torch.float16: 60.0, torch.bfloat16: 1e3, torch.float32: 1e4, torch.float64: 1e4}
FALLBACKS = ("aten.relu", "aten.add", "aten.mul", "aten.sum", "aten.view", "aten.mm", "aten.sigmoid", "aten.cat", "aten.permute", "aten.clone", "aten.where")

EXACT, ROUNDS, JUMPS = "exact", "rounds", "jumps"

# (weight, function(builder) -> text of an expression or None, EXACT | ROUNDS | JUMPS)
STEPS: list[tuple[float, Callable, str]] = []
# (weight, function(builder) -> (name written to, text of a statement) or None)
MUTATIONS: list[tuple[float, Callable]] = []


def step(weight: float, kind: str):
    """Decorator: the function draws one expression.

    kind: EXACT if its result has no rounding where its operands have none, JUMPS if it also must have none.
    """

    def register(function):
        STEPS.append((weight, function, kind))
        return function

    return register


def mutation(weight: float):
    """Decorator: the function draws one in-place statement."""

    def register(function):
        MUTATIONS.append((weight, function))
        return function

    return register


class Builder:
    """A program in the making, run along in eager.

    Attributes:
        random: the source of every choice.   tensors: name -> its tensor, in the order made.
    """

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.tensors: dict[str, torch.Tensor] = {}
        self.inputs: list[InputSpec] = []
        self.lines: list[Line] = []
        self._inexact: set[str] = set()
        self._used: list[str] = []
        self.is_backward = self.random.random() < 0.15
        self.dtype = self.random.choices(FLOATS, (8, 2, 2, 2))[0]

    def pick(self, accept: Callable[[torch.Tensor], bool] = lambda tensor: True) -> str | None:
        """The name of a tensor that `accept` takes; later ones are likelier, so that chains grow."""
        names = [name for name, tensor in self.tensors.items() if accept(tensor)]
        if not names:
            return None
        name = self.random.choices(names, range(1, len(names) + 1))[0]
        self._used.append(name)
        return name

    def tensor(self, name: str) -> torch.Tensor:
        """The eager tensor of a name."""
        return self.tensors[name]

    def new_input(self, text: str) -> str:
        """Add an input; "B" in its text is the batch size."""
        spec = InputSpec(f"x{len(self.inputs)}", text)
        torch.manual_seed(len(self.inputs))
        self.inputs.append(spec)
        self.tensors[spec.name] = spec.make(BATCHES[0])
        self._used.append(spec.name)
        return spec.name

    def weight(self, shape: tuple[int, ...], dtype: torch.dtype, scale: float = 0.5) -> str:
        """A new input of random numbers."""
        name = str(dtype).removeprefix("torch.")
        return self.new_input(f"torch.randn({list(shape)}, dtype=torch.{name}) * {scale}")

    def indices(self, shape: tuple[int, ...], bound: int) -> str:
        """A new int64 input below `bound`."""
        return self.new_input(f"torch.randint(0, {max(1, bound)}, {list(shape)})")

    def draw_input(self) -> None:
        """An input of random shape, dtype and layout."""
        r = self.random
        kind = r.choices(("float", "int", "bool"), (8, 2, 1))[0]
        sizes = [r.choice((1, 2, 3, 4, 5, 7, 8, 16, 17, 33)) for _ in range(r.choice((0, 1, 1, 2, 2, 2)))]
        shape = ["B"] * (r.random() < 0.8) + [str(size) for size in sizes]
        shape = ["B", "4", "6", "7"] if r.random() < 0.2 else shape
        self.new_input(_layout(r, shape, _filling(r, kind, self.dtype)))

    def add_step(self) -> None:
        """Draw expressions until one works, and add it as a line."""
        for _ in range(40):
            _, function, kind = self.random.choices(STEPS, [weight for weight, _, _ in STEPS])[0]
            n_inputs, names = len(self.inputs), set(self.tensors)
            self._used = []
            text = function(self)
            if text is not None and (kind != JUMPS or not self._inexact & set(self._used)) and self._try(text, kind):
                return
            del self.inputs[n_inputs:]
            self.tensors = {name: tensor for name, tensor in self.tensors.items() if name in names}

    def _try(self, text: str, kind: str) -> bool:
        """Run `text`; keep it where its result is a tensor of usable size and values."""
        try:
            made = self._evaluate(text)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return False
        if not isinstance(made, torch.Tensor) or made.numel() > MAX_ELEMENTS or not _is_tame(made):
            return False
        name = f"v{len(self.lines)}"
        self.tensors[name] = made
        if kind == ROUNDS or self._inexact & set(self._used):
            self._inexact.add(name)
        self.lines.append(Line(name, text))
        return True

    def _evaluate(self, text: str) -> object:
        return eval(text, {"torch": torch, "F": F, **self.tensors})

    def add_mutation(self) -> None:
        """Draw an in-place statement; tensors that share the written memory carry rounding from then on."""
        _, function = self.random.choices(MUTATIONS, [weight for weight, _ in MUTATIONS])[0]
        self._used = []
        drawn = function(self)
        if drawn is None:
            return
        base, text = drawn
        storage = self.tensors[base].untyped_storage()
        saved = storage.clone()
        try:
            exec(text, {"torch": torch, "F": F, **self.tensors})
            is_fine = all(map(_is_tame, self.tensors.values()))
        except (RuntimeError, IndexError, ValueError, TypeError):
            is_fine = False
        if not is_fine:
            storage.copy_(saved)
            return
        self.lines.append(Line("", text, base))
        self._inexact |= {name for name, tensor in self.tensors.items() if tensor.untyped_storage().data_ptr() == storage.data_ptr()}

    def program(self, n_steps: int) -> Program:
        """Draw everything else and return the program."""
        r = self.random
        for _ in range(r.choice((1, 2, 2, 3))):
            self.draw_input()
        mutation_share = 0.0 if self.is_backward else r.choice((0.0, 0.0, 0.15, 0.3))
        for _ in range(n_steps):
            self.add_mutation() if r.random() < mutation_share else self.add_step()
        names = list(self.tensors)
        read = {name for line in self.lines for name in names_in(line.text)}
        unread = [name for name in names if name not in read][-4:]
        outputs = list(dict.fromkeys([*unread, *r.sample(names, min(len(names), r.choice((0, 1, 2)))), *names[-1:]]))
        if r.random() < 0.1:
            outputs.append(outputs[0])
        setup = r.choices(list(SETUPS), (5, 3, 2))[0]
        batches = BATCHES if setup != "static" else (BATCHES[0],)
        return Program(tuple(self.inputs), tuple(self.lines), tuple(outputs), setup, self._options(), self.is_backward, batches)

    def _options(self) -> tuple[tuple[str, object], ...]:
        options: dict[str, object] = {}
        if self.random.random() < 0.25:
            options["fallback_ops"] = self.random.sample(FALLBACKS, 2)
        if self.random.random() < 0.3:
            options["min_partition_nodes"] = 1
        return tuple(options.items())


def _filling(r: random.Random, kind: str, float_dtype: str) -> str:
    """The expression of a tensor of shape {shape}."""
    if kind == "float":
        dtype = float_dtype if r.random() < 0.8 else r.choice(FLOATS)
        return f"torch.randn({{shape}}, dtype=torch.{dtype})"
    if kind == "int":
        dtype = r.choice(INTS)
        return f"torch.randint({0 if dtype == 'uint8' else -9}, 10, {{shape}}, dtype=torch.{dtype})"
    return "torch.randint(0, 2, {shape}).bool()"


def _layout(r: random.Random, shape: list[str], filling: str) -> str:
    """The expression of a tensor of this shape that lies in memory in some way."""
    def of(*sizes: str) -> str:
        return filling.format(shape=_listed(sizes))

    layout = r.choices(("contiguous", "transposed", "stepped", "offset", "expanded"), (6, 2, 1, 1, 1))[0]
    if layout == "transposed" and len(shape) >= 2:
        return f"{of(*shape[:-2], shape[-1], shape[-2])}.transpose(-1, -2)"
    if layout == "stepped" and shape:
        return f"{of(*shape[:-1], f'2 * {shape[-1]}')}[..., ::2]"
    if layout == "offset" and shape:
        return f"{of(f'{shape[0]} + 2', *shape[1:])}[2:]"
    if layout == "expanded" and len(shape) >= 2:
        return f"{of(*shape[:-1], '1')}.expand({_listed(shape)})"
    return of(*shape)


def _listed(sizes) -> str:
    return f"[{', '.join(sizes)}]"


def _is_tame(tensor: torch.Tensor) -> bool:
    """No complex numbers, and no values so large that rounding is all that is left of a later difference."""
    if tensor.is_complex() or tensor.layout != torch.strided:
        return False
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    return bool(torch.isfinite(tensor).all()) and tensor.abs().max().item() <= LARGEST[tensor.dtype]


def draw(seed: int) -> Program:
    """The program of a seed: the first one drawn from it that runs in eager with the inputs that it will be given."""
    import steps  # noqa: F401  (fills STEPS and MUTATIONS)

    for attempt in range(100):
        builder = Builder(seed + attempt * SEED_STRIDE)
        program = builder.program(builder.random.randint(2, 14))
        runnable = tuple(batch for batch in program.batches if _is_runnable(program, batch))
        if program.batches[0] in runnable:
            return dataclasses.replace(program, batches=runnable)
    raise RuntimeError(f"seed {seed}: 100 programs in a row do not run")


def _is_runnable(program: Program, batch: int) -> bool:
    try:
        run = run_call(program.function(), program.make_inputs(batch), is_backward=program.is_backward)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return False
    return all(map(_is_tame, run.outputs))
