"""VectorProgram: a kernel as loops over DVX instructions in SSA form. Prints as DVX assembly.

Vector values (`V`) are registers of one of the types sf, df, w, d, q and are defined once. What a loop carries from one
iteration to the next is named by its `Carried` rows (initial value, value inside, value for the next iteration).
Scalars are int64 index expressions over parameters, loop variables and `Let` names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .index_expr import Dim, render

__all__ = ["Addr", "Barrier", "Block", "Carried", "If", "Instruction", "Kernel", "Let", "LoadScalar", "Loop", "Param", "V", "blocks", "instructions"]

# Register type that holds an element of each dtype, and the name of its memory type.
REGISTER_TYPE = {"f32": "sf", "f16": "sf", "bf16": "sf", "f64": "df", "i64": "d", "i32": "w", "i16": "w", "i8": "w", "u8": "w", "bool": "q"}
MEMORY_TYPE = {"f32": "sf", "f16": "hf", "bf16": "bf", "f64": "df", "i64": "d", "i32": "w", "i16": "h", "i8": "b", "u8": "ub", "bool": "ub"}


@dataclasses.dataclass(frozen=True)
class V:
    """A vector value: SSA name and register type."""

    name: str
    type: str

    def __str__(self):
        return self.name


@dataclasses.dataclass(frozen=True)
class Addr:
    """Address of element `index` of the buffer parameter `base`."""

    base: str
    index: Dim

    def __str__(self):
        return f"{self.base}[{render(self.index)}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One DVX instruction, or an intrinsic's worth of them for 64-bit types: `result = mnemonic.suffix operands`.

    Operands are V, Addr, index expressions (scalar registers and immediates) or floats (immediates). qany.q writes a scalar
    register instead: `scalar` is its name.
    """

    opcode: str
    operands: tuple
    result: V | None = None
    scalar: str | None = None

    def __str__(self):
        left = f"{self.result or self.scalar} = " if self.result or self.scalar else ""
        return f"{left}{self.opcode:<11} {', '.join(map(_operand, self.operands))}".rstrip()


@dataclasses.dataclass(frozen=True)
class Let:
    """A scalar: name = value."""

    name: str
    value: Dim

    def __str__(self):
        return f"{self.name} = {render(self.value)}"


@dataclasses.dataclass(frozen=True)
class LoadScalar:
    """A scalar load of an integer element into an int64 register.

    With `bound`, the value must lie in [0, bound), or in [-bound, bound) where negative ones count from the end; others set the
    status to STATUS_INDEX_ERROR and read as 0.
    """

    name: str
    address: Addr
    memory_type: str
    bound: Dim | None = None
    counts_from_end: bool = False

    def __str__(self):
        check = f"  bound {'±' if self.counts_from_end else ''}{render(self.bound)}" if self.bound is not None else ""
        return f"{self.name} = {'ld.' + self.memory_type:<11} {self.address}{check}"


@dataclasses.dataclass(frozen=True)
class Carried:
    """A value that a loop carries: `inside` is `initial` at first and `next` afterwards; after the loop it is the last `next`."""

    inside: V
    initial: V
    next: V


@dataclasses.dataclass(frozen=True)
class Loop:
    """for var in begin..end step `step`: body. A parallel loop is split among the contexts in multiples of `step`."""

    var: str
    begin: Dim
    end: Dim
    step: Dim
    body: tuple
    carried: tuple[Carried, ...] = ()
    parallel: bool = False
    unroll: int = 1


@dataclasses.dataclass(frozen=True)
class If:
    """Scalar branch: body where `lhs relation rhs` (relation: "<", "<=", "==", "!=", ">", ">="), orelse otherwise. Defines no values."""

    lhs: Dim
    relation: str
    rhs: Dim
    body: tuple
    orelse: tuple = ()


@dataclasses.dataclass(frozen=True)
class Barrier:
    """All contexts wait for each other; allowed outside parallel loops only."""

    def __str__(self):
        return "barrier"


@dataclasses.dataclass(frozen=True)
class Param:
    """A parameter of a kernel: a buffer of `memory_type` elements, or a scalar int64 where memory_type is None.

    `scratch_elements` > 0 marks private scratch: every context gets that many elements of its own.
    """

    name: str
    memory_type: str | None
    is_written: bool = False
    scratch_elements: Dim = 0


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A function over buffers and sizes, called once; its parallel loops share work among the contexts.

    Attributes:
        name: C identifier.   title: what it computes, for people.
        origins: FX node names.   flops, bytes: operations and traffic per call, as Dims, for reports.
        work: what decides on how many contexts it runs: flops plus bytes, with costly operators weighted.
    """

    name: str
    title: str
    params: tuple[Param, ...]
    body: tuple
    lanes: int
    origins: tuple[str, ...] = ()
    flops: Dim = 0
    bytes: Dim = 0
    work: Dim = 0

    def __str__(self):
        lines = [f"kernel {self.name}  # {self.title}"]
        for p in self.params:
            kind = "int64" if p.memory_type is None else f"{p.memory_type}*" + (" out" if p.is_written else "")
            lines.append(f"  arg {p.name}: {kind}" + (f" scratch[{render(p.scratch_elements)}]" if p.scratch_elements != 0 else ""))
        _print(self.body, 1, lines)
        return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True)
class Block:
    """A maximal straight-line run of instructions; `path` numbers it in printing order within its kernel."""

    index: int
    instructions: tuple[Instruction | LoadScalar, ...]


def _operand(operand) -> str:
    return repr(operand) if isinstance(operand, float) else render(operand) if not isinstance(operand, (V, Addr)) else str(operand)


def _print(body, depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    for node in body:
        if isinstance(node, Loop):
            carried = "".join(f" {c.inside}={c.initial}" for c in node.carried)
            kind = "parallel" if node.parallel else "loop"
            lines.append(f"{pad}{kind} {node.var} in {render(node.begin)}..{render(node.end)} step {render(node.step)}" + (f" carry{carried}" if carried else ""))
            _print(node.body, depth + 1, lines)
            if node.carried:
                lines.append(f"{pad}  next {' '.join(f'{c.inside}={c.next}' for c in node.carried)}")
        elif isinstance(node, If):
            lines.append(f"{pad}if {render(node.lhs)} {node.relation} {render(node.rhs)}")
            _print(node.body, depth + 1, lines)
            if node.orelse:
                lines.append(f"{pad}else")
                _print(node.orelse, depth + 1, lines)
        else:
            lines.append(pad + str(node))


def blocks(body) -> Iterator[tuple[Instruction | LoadScalar, ...]]:
    """The basic blocks of a kernel body in the order in which the C emitter numbers them: a run of instructions ends at a loop or branch."""
    run: list = []
    for node in body:
        if isinstance(node, (Instruction, LoadScalar)):
            run.append(node)
        elif isinstance(node, (Loop, If)):
            if run:
                yield tuple(run)
                run = []
            yield from blocks(node.body)
            if isinstance(node, If):
                yield from blocks(node.orelse)
    if run:
        yield tuple(run)


def instructions(body) -> Iterator[Instruction | LoadScalar]:
    """Every instruction of a body once, in printing order."""
    for block in blocks(body):
        yield from block
