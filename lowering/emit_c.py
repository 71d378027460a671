"""VectorProgram -> C: one function per kernel, one C statement per node, DVX intrinsics only.

Kernels of equal text share one function. The functions are grouped into units that compile in parallel; one more holds the
partition's entry point: every context of one team calls the kernels in order, with a barrier between two unless
one context makes both.
"""

from __future__ import annotations

import dataclasses
import hashlib

from ..csrc import isa
from .index_expr import render
from .vector_ir import Addr, Barrier, If, Instruction, Kernel, Let, LoadScalar, Loop, V, blocks

__all__ = ["Call", "KernelKeys", "canonical", "emit_partition"]

C_ELEMENT = {"sf": "float", "df": "double", "w": "int32_t", "d": "int64_t", "h": "int16_t", "b": "int8_t", "ub": "uint8_t", "hf": "uint16_t", "bf": "uint16_t"}

# Below this much work (Kernel.work) of all its kernels, a partition runs on one context. Measured on two cores, with 8 and with 16 lanes:
# a parallel region takes 1 us, and products, pointwise kernels and softmax gain by it from 100,000 to 250,000 on.
PARALLEL_WORK = 150_000
# Below this much work, a kernel of a partition that runs on all contexts is one context's: the barrier behind it takes 0.1 to 0.2 us.
SHARED_WORK = 40_000
MAX_KERNELS_PER_UNIT = 6


@dataclasses.dataclass(frozen=True)
class Call:
    """A kernel with the C expressions of its arguments in one partition: pointers, sizes, and scratch pointers."""

    kernel: Kernel
    arguments: tuple[str, ...]


def emit_partition(name: str, calls: tuple[Call, ...], symbols: tuple[str, ...], n_units: int = 2, prepare: tuple[Call, ...] = ()) -> tuple[tuple[tuple[str, str], ...], list[Kernel], int]:
    """C units of a partition.

    Args:
        calls: kernels in execution order; their arguments may use `buffers`, `arena` and the names in `symbols`.
        prepare: kernels of accel_prepare, which run once.
        symbols: size names, bound from `sizes` in the entry function.   n_units: compiler processes worth starting.
    Returns: ((file name, text), ...), the distinct kernels in block-numbering order, and the number of basic blocks.
    """
    distinct: dict[str, tuple[str, Kernel, str]] = {}
    first_block = 0
    functions: list[str] = []
    numbered: list[Kernel] = []
    keys = KernelKeys()
    for call in (*prepare, *calls):
        key = keys[call.kernel]
        if key in distinct:
            continue
        function = f"{call.kernel.name}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        text = _KernelText(call.kernel, function, first_block)
        first_block += len(list(blocks(call.kernel.body)))
        distinct[key] = (function, call.kernel, text.prototype)
        functions.append(text.text)
        numbered.append(call.kernel)
    entry = _entry("accel_main", calls, [distinct[keys[call.kernel]][0] for call in calls], symbols)
    if prepare:
        entry += "\n" + _entry("accel_prepare", prepare, [distinct[keys[call.kernel]][0] for call in prepare], symbols)
    prototypes = "\n".join(proto for _, _, proto in distinct.values())
    return _units(name, functions, prototypes, entry, n_units), numbered, first_block


def _units(name: str, functions: list[str], prototypes: str, entry: str, n_units: int) -> tuple[tuple[str, str], ...]:
    head = '#include "dvx.h"\n#include "dvx_runtime.h"\n#include "dvx_kernel.h"\n\n'
    count = max(1, min(len(functions), max(n_units, -(-len(functions) // MAX_KERNELS_PER_UNIT))))
    bins: list[list[str]] = [[] for _ in range(count)]
    for text in sorted(functions, key=len, reverse=True):
        min(bins, key=lambda texts: sum(map(len, texts))).append(text)
    units = [(f"{name}_{i}.c", head + "\n".join(texts)) for i, texts in enumerate(bins) if texts]
    units.append((f"{name}_main.c", head + prototypes + "\n\n" + entry))
    return tuple(units)


def canonical(kernel: Kernel) -> str:
    """Text that two kernels share exactly if one C function serves both."""
    lines = str(dataclasses.replace(kernel, name="k", title="", origins=())).splitlines()
    return "\n".join(lines) + f"\n{kernel.lanes}"


class KernelKeys:
    """`canonical` of kernels, written once for those that share a body, as those of equal_groups.py do."""

    def __init__(self):
        self._known: dict[tuple, tuple[Kernel, str]] = {}

    def __getitem__(self, kernel: Kernel) -> str:
        shape = (id(kernel.body), kernel.params, kernel.lanes)
        if shape not in self._known:
            self._known[shape] = kernel, canonical(kernel)  # the kernel is kept, so that no other body gets its id
        return self._known[shape][1]


def _entry(function: str, calls: tuple[Call, ...], kernel_functions: list[str], symbols: tuple[str, ...]) -> str:
    """The entry point, and what every context of its team runs."""
    sizes = [f"    const int64_t {name} = sizes[{i}]; (void){name};" for i, name in enumerate(symbols)]
    shared = [call.kernel.work for call in calls if not _is_alone(call.kernel)]
    total = render(sum(shared), "c")
    lines = [
        f"static void {function}_context(const void *data, int64_t ctx, int64_t n_ctx, dvx_team *team) {{",
        "    const dvx_entry *a = data;",
        "    void *const *buffers = a->buffers; const int64_t *sizes = a->sizes; char *arena = a->arena; int32_t *status = a->status;",
        "    dvx_team alone = {0, 0, team->rt, 1, 0, 0};",
        "    (void)sizes; (void)arena; (void)buffers; (void)status; (void)alone; (void)ctx; (void)n_ctx;",
        *sizes,
        *_call_lines(calls, kernel_functions),
        "}",
        "",
        "__attribute__((visibility(\"default\")))",
        f"int32_t {function}(void *const *buffers, const int64_t *sizes, char *arena, const dvx_runtime *rt)",
        "{",
        "    int32_t status = 0;",
        *sizes,
        "    const dvx_entry entry = {buffers, sizes, arena, &status};",
        f"    dvx_run_contexts(rt, {function}_context, &entry, ({total}) < INT64_C({PARALLEL_WORK}) ? 1 : rt->n_threads);",
        "    return status;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _call_lines(calls: tuple[Call, ...], kernel_functions: list[str]) -> list[str]:
    """The calls, with a barrier between two of them unless the first context makes both."""
    lines = []
    was_alone = True
    for call, kernel_function in zip(calls, kernel_functions):
        work = call.kernel.work
        is_alone = _is_alone(call.kernel)
        if lines and not (is_alone and was_alone):
            lines.append("    dvx_barrier(team);")
        arguments = "".join(f", {argument}" for argument in ("status", *call.arguments))
        origins = ", ".join(call.kernel.origins[:6])
        comment = f"  /* {origins} */" if origins else ""
        if is_alone:
            lines.append(f"    if (ctx == 0) {kernel_function}(&alone, 0, 1{arguments});{comment}")
        elif isinstance(work, int):
            lines.append(f"    {kernel_function}(team, ctx, n_ctx{arguments});{comment}")
        else:
            lines.append(f"    if (({render(work, 'c')}) >= INT64_C({SHARED_WORK})) {kernel_function}(team, ctx, n_ctx{arguments});{comment}")
            lines.append(f"    else if (ctx == 0) {kernel_function}(&alone, 0, 1{arguments});")
        was_alone = is_alone
    return lines


def _is_alone(kernel: Kernel) -> bool:
    """Whether one context runs it, whatever the sizes are."""
    is_small = isinstance(kernel.work, int) and kernel.work < SHARED_WORK
    return is_small or not any(isinstance(node, Loop) and node.parallel for node in _all(kernel.body))


class _KernelText:
    """Writes one kernel: the function that every context runs."""

    def __init__(self, kernel: Kernel, function: str, first_block: int):
        self.kernel = kernel
        self.function = function
        self.block = first_block
        self.lines: list[str] = []
        self.buffers = {p.name: p.memory_type for p in kernel.params if p.memory_type}
        signature = "".join(f", {self._declare(p)}" for p in kernel.params)
        head = f"void {function}(dvx_team *team, int64_t ctx, int64_t n_ctx, int32_t *status{signature})"
        self.prototype = f"{head};"
        self.text = f"/* {kernel.title.replace('*/', '')} */\n{head} {{\n{self._inside()}\n}}\n"

    def _declare(self, param) -> str:
        if param.memory_type is None:
            return f"int64_t {param.name}"
        return f"{'' if param.is_written else 'const '}{C_ELEMENT[param.memory_type]} *{param.name}"

    def _inside(self) -> str:
        self._line(1, "(void)team; (void)ctx; (void)n_ctx; (void)status;")
        self._line(1, "DVX_PROFILE_BEGIN(team->rt);")
        for param in self.kernel.params:
            if param.scratch_elements != 0:
                self._line(1, f"{param.name} += ctx * ({render(param.scratch_elements, 'c')});")
        self._body(self.kernel.body, 1)
        return "\n".join(self.lines)

    def _line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def _body(self, body, depth: int) -> None:
        in_block = False
        for node in body:
            if isinstance(node, (Instruction, LoadScalar)):
                if not in_block:
                    self._line(depth, f"DVX_BLOCK({self.block});")
                    self.block += 1
                    in_block = True
                self._line(depth, self._instruction(node))
            elif isinstance(node, Let):
                self._line(depth, f"const int64_t {node.name} = {render(node.value, 'c')};")
            elif isinstance(node, Barrier):
                self._line(depth, "dvx_barrier(team);")
            else:
                in_block = False
                self._loop(node, depth) if isinstance(node, Loop) else self._branch(node, depth)

    def _branch(self, node: If, depth: int) -> None:
        self._line(depth, f"if ({render(node.lhs, 'c')} {node.relation} {render(node.rhs, 'c')}) {{")
        self._body(node.body, depth + 1)
        if node.orelse:
            self._line(depth, "} else {")
            self._body(node.orelse, depth + 1)
        self._line(depth, "}")

    def _loop(self, loop: Loop, depth: int) -> None:
        for c in loop.carried:
            self._line(depth, f"dvx_{c.inside.type} {c.inside} = {c.initial};")
        begin, end, step = (render(x, "c") for x in (loop.begin, loop.end, loop.step))
        if loop.parallel:
            self._line(depth, f"for (int64_t {loop.var} = dvx_chunk({begin}, {end}, {step}, ctx, n_ctx), {loop.var}_end = dvx_chunk({begin}, {end}, {step}, ctx + 1, n_ctx); {loop.var} < {loop.var}_end; {loop.var} += {step}) {{")
        else:
            if loop.unroll > 1:
                self._line(depth, f"DVX_UNROLL({loop.unroll})")
            self._line(depth, f"for (int64_t {loop.var} = {begin}; {loop.var} < {end}; {loop.var} += {step}) {{")
        self._body(loop.body, depth + 1)
        inside = {c.inside for c in loop.carried}
        held = {c.next: f"{c.next}_held" for c in loop.carried if c.next in inside and c.next != c.inside}
        for value, name in held.items():
            self._line(depth + 1, f"const dvx_{value.type} {name} = {value};")
        for c in loop.carried:
            if c.next != c.inside:
                self._line(depth + 1, f"{c.inside} = {held.get(c.next, c.next)};")
        self._line(depth, "}")

    def _instruction(self, node: Instruction | LoadScalar) -> str:
        if isinstance(node, LoadScalar):
            address = self._operand(node.address)
            if node.bound is None:
                return f"const int64_t {node.name} = dvx_ld_{node.memory_type}({address});"
            return f"const int64_t {node.name} = dvx_ldindex_{node.memory_type}({address}, {render(node.bound, 'c')}, {int(node.counts_from_end)}, status);"
        operands = [self._operand(o) for o in node.operands]
        if node.opcode.startswith("qtrap"):
            operands.insert(1, "status")
        call = f"{isa.lookup(node.opcode).c_name}({', '.join(operands)})"
        if node.scalar:
            return f"const int64_t {node.scalar} = {call};"
        return f"const dvx_{node.result.type} {node.result} = {call};" if node.result else f"{call};"

    def _operand(self, operand) -> str:
        if isinstance(operand, V):
            return operand.name
        if isinstance(operand, Addr):
            return f"{operand.base} + ({render(operand.index, 'c')})"
        if isinstance(operand, float):
            if operand != operand:
                return "__builtin_nan(\"\")"
            if operand in (float("inf"), float("-inf")):
                return "__builtin_inf()" if operand > 0 else "-__builtin_inf()"
            return operand.hex()
        text = render(operand, "c")
        return f"INT64_C({text})" if isinstance(operand, int) and abs(operand) > 2**31 - 1 and operand != -(2**63) else "INT64_MIN" if operand == -(2**63) else text


def _all(body):
    for node in body:
        yield node
        if isinstance(node, (Loop, If)):
            yield from _all(node.body)
            yield from _all(getattr(node, "orelse", ()))
