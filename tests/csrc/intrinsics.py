"""Builds every DVX intrinsic into one shared object and calls them on numpy arrays.

A wrapper takes its operands through an array of addresses: the result, then the operands in order; registers lie in
memory lane by lane, predicates as int32 lanes of 0 or -1.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

import cffi
import numpy as np

from accel.csrc import INCLUDE_DIR, isa
from accel.csrc.isa_refs import REGISTER_DTYPES

FLAGS = ("-O2", "-std=gnu11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")
LINK_FLAGS = ("-shared", "-nostdlib", "-Wl,--no-undefined")
_C_SCALARS = {"i64": "int64_t", "i32": "int32_t", "f64": "double"}


@functools.cache
def compilers() -> dict[str, tuple[str, ...]]:
    """The C compilers of this machine: name -> command."""
    found = {}
    if shutil.which("gcc"):
        found["gcc"] = ("gcc",)
    spec = importlib.util.find_spec("ziglang")
    if spec is not None:
        found["zig"] = (str(Path(spec.origin).parent / "zig"), "cc", "-fno-sanitize=all")
    return found


def _operand(position: int, operand: isa.Operand) -> str:
    where = f"a[{position}]"
    if operand.kind in ("source", "target", "status"):
        return where
    if operand.kind == "scalar":
        return f"*(const {_C_SCALARS[operand.type]} *){where}"
    return f"((const loose_{operand.type} *){where})->v"


def _wrapper(instr: isa.Instr) -> str:
    call = f"{instr.c_name}({', '.join(_operand(i + 1, operand) for i, operand in enumerate(instr.operands))})"
    target = {None: "", "i32": "*(int32_t *)a[0] = "}.get(instr.result, f"((loose_{instr.result} *)a[0])->v = ")
    return f"static void wrap_{instr.index}(void *const *a) {{ (void)a; {target}{call}; }}"


def wrappers_text() -> str:
    """The C unit: a wrapper per instruction, and `run`, which calls one again and again, moving on through its operands."""
    loose = [f"typedef struct __attribute__((packed, may_alias)) {{ dvx_{t} v; }} loose_{t};" for t in isa.REGISTER_TYPES]
    table = ", ".join(f"wrap_{instr.index}" for instr in isa.INSTRUCTIONS)
    driver = """
void run(int32_t row, char **a, const int64_t *step, int64_t operands, int64_t rounds)
{
    for (int64_t k = 0; k < rounds; k++) {
        table[row]((void *const *)a);
        for (int64_t i = 0; i < operands; i++)
            a[i] += step[i];
    }
}
void set_counters(int64_t *counters) { DVX_SET_COUNTERS(counters); }
"""
    wrappers = [_wrapper(instr) for instr in isa.INSTRUCTIONS]
    return "\n".join(['#include "dvx.h"', *loose, *wrappers, f"static void (*const table[])(void *const *) = {{{table}}};", driver])


class Intrinsics:
    """The intrinsics built by one compiler for one vector length."""

    def __init__(self, compiler: str, vlen_bytes: int, *flags: str):
        self.lanes = vlen_bytes // 4
        native = "-mcpu=native" if compiler == "zig" else "-march=native"
        with tempfile.TemporaryDirectory() as folder:
            source, built = Path(folder, "wrappers.c"), Path(folder, "wrappers.so")
            source.write_text(wrappers_text())
            options = (native, *FLAGS, *LINK_FLAGS, f"-DDVX_VLEN={vlen_bytes}", f"-I{INCLUDE_DIR}", *flags)
            command = [*compilers()[compiler], *options, str(source), "-o", str(built)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{compiler} failed:\n{done.stderr[:4000]}"
            self._ffi = cffi.FFI()
            self._ffi.cdef(
                "void run(int32_t row, char **a, const int64_t *step, int64_t operands, int64_t rounds); void set_counters(int64_t *);"
            )
            self._library = self._ffi.dlopen(str(built))

    def _address(self, array: np.ndarray) -> int:
        return array.__array_interface__["data"][0]

    def set_counters(self, counters: np.ndarray) -> None:
        """Have a counting build count into `counters`, which must outlive the calls."""
        self._library.set_counters(self._ffi.cast("int64_t *", self._address(counters)))

    def call(self, instr: isa.Instr, *operands, rounds: int = 1):
        """Run `instr` on operands as Instr.evaluate takes them; register operands hold `rounds` values one after another."""
        kept, addresses, steps = [], [], []
        result = None
        if instr.result:
            dtype = np.int32 if instr.result in ("i32", "q") else REGISTER_DTYPES[instr.result]
            result = np.zeros((1 if instr.result == "i32" else self.lanes) * rounds, dtype)
            kept.append(result)
            addresses.append(self._address(result))
            steps.append(result.nbytes // rounds)
        else:
            addresses.append(0)
            steps.append(0)
        for operand, value in zip(instr.operands, operands, strict=True):
            if operand.kind in ("source", "target", "status"):
                array, index = value
                addresses.append(self._address(array) + int(index) * array.itemsize)
                steps.append(0)
                continue
            held = self._held(operand, value)
            kept.append(held)
            addresses.append(self._address(held))
            steps.append(held.nbytes // rounds if operand.kind == "register" else 0)
        c_addresses = self._ffi.new("char *[]", [self._ffi.cast("char *", address) for address in addresses])
        self._library.run(instr.index, c_addresses, self._ffi.new("int64_t[]", steps), len(steps), rounds)
        if instr.result == "i32":
            return int(result[0])
        return result != 0 if instr.result == "q" else result

    @staticmethod
    def _held(operand, value):
        if operand.type == "q":
            return np.ascontiguousarray(-np.asarray(value).astype(np.int32))
        if operand.kind == "register":
            return np.ascontiguousarray(value)
        return np.array([value], {"i64": np.int64, "i32": np.int32, "f64": np.float64}[operand.type])


@functools.cache
def build(compiler: str, vlen_bytes: int, *flags: str) -> Intrinsics:
    """The intrinsics, built once a session."""
    return Intrinsics(compiler, vlen_bytes, *flags)
