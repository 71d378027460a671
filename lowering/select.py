"""Instruction selection: pointwise operators of the TensorProgram -> DVX instructions.

`DIRECT` maps an operator and a register type to one instruction; `EXPANSIONS` to a function that writes several (the modules math_*.py
fill it). Half and narrow integer dtypes compute in the wider register: the value is rounded or wrapped after each operator.
"""

from __future__ import annotations

from collections.abc import Callable

from .build_vector import Builder
from .index_expr import IndexExpr
from .values import Unsupported
from .vector_ir import REGISTER_TYPE, V

__all__ = ["EXPANSIONS", "cast", "constant", "expansion", "select", "wrap"]

_FLOAT = {"add": "vfadd", "sub": "vfsub", "mul": "vfmul", "div": "vfdiv", "neg": "vfneg", "abs": "vfabs", "maximum": "vfmax", "minimum": "vfmin", "fmax": "vfmaxn", "fmin": "vfminn",
          "floor": "vffloor", "ceil": "vfceil", "trunc": "vftrunc", "round": "vfrint", "sqrt": "vfsqrt", "fma": "vfma", "copysign": "vfcopysign"}
_INT = {"add": "vadd", "sub": "vsub", "mul": "vmul", "neg": "vneg", "abs": "vabs", "maximum": "vmax", "minimum": "vmin", "fmax": "vmax", "fmin": "vmin", "and": "vand", "or": "vor", "xor": "vxor", "not": "vnot",
        "shl": "vshl", "shr": "vsar", "ushr": "vshr", "div_trunc": "vdiv", "fmod": "vrem"}
_COMPARE = {"eq": "vcmpeq", "ne": "vcmpne", "lt": "vcmplt", "le": "vcmple", "gt": "vcmpgt", "ge": "vcmpge"}
_PREDICATE = {"and": "qand", "or": "qor", "xor": "qxor", "not": "qnot", "mul": "qand", "add": "qor", "maximum": "qor", "minimum": "qand", "ne": "qxor"}

DIRECT: dict[tuple[str, str], str] = {}
for _type in ("sf", "df"):
    DIRECT |= {(name, _type): f"{op}.{_type}" for name, op in (_FLOAT | _COMPARE).items()}
for _type in ("w", "d"):
    DIRECT |= {(name, _type): f"{op}.{_type}" for name, op in (_INT | _COMPARE).items()}
DIRECT |= {(name, "q"): f"{op}.q" for name, op in _PREDICATE.items()}

EXPANSIONS: dict[tuple[str, str], Callable] = {}


def expansion(name: str, *types: str):
    """Decorator: registers f(b, *operands, attrs=(), type=…) as the expansion of operator `name` for register types `types`."""

    def register(function):
        for type_ in types:
            assert (name, type_) not in EXPANSIONS and (name, type_) not in DIRECT, f"{name}.{type_} is defined twice"
            EXPANSIONS[name, type_] = function
        return function

    return register


def is_selectable(name: str, dtype: str) -> bool:
    """Whether `select` can serve operator `name` on operands of `dtype`."""
    key = (name, REGISTER_TYPE[dtype])
    return key in DIRECT or key in EXPANSIONS or name in ("where", "cast", "require")


def select(b: Builder, name: str, args: list[V], arg_dtype: str, dtype: str, attrs: tuple = ()) -> V:
    """Writes operator `name`; `arg_dtype` is the dtype of its first operand that is not a predicate, `dtype` that of its result."""
    if name == "where":
        return b.op("qmux.q" if args[1].type == "q" else f"vmux.{args[1].type}", *args)
    register = args[0].type
    if (name, register) in DIRECT:
        result = b.op(DIRECT[name, register], *args)
    elif (name, register) in EXPANSIONS:
        result = EXPANSIONS[name, register](b, *args, attrs=attrs, type=register)
    else:
        raise Unsupported(f"operator {name} has no DVX form for {arg_dtype}")
    return wrap(b, result, dtype)


def wrap(b: Builder, value: V, dtype: str) -> V:
    """`value` brought back into the range of a dtype narrower than its register."""
    if dtype in ("i8", "i16", "u8"):
        return b.op({"i8": "vsxtb.w", "i16": "vsxth.w", "u8": "vzxtb.w"}[dtype], value)
    if dtype in ("f16", "bf16"):
        return b.op({"f16": "vrndhf.sf", "bf16": "vrndbf.sf"}[dtype], value)
    return value


def constant(b: Builder, value, dtype: str) -> V:
    """A splat constant of `dtype`."""
    register = REGISTER_TYPE[dtype]
    if register == "q":
        return b.op("qtrue.q" if value else "qfalse.q")
    if register in ("sf", "df"):
        if isinstance(value, IndexExpr):
            return b.op(f"vcvt.{register}.d", b.op("vsplat.d", value))
        return b.op(f"vsplat.{register}", float(value))
    return b.op(f"vsplat.{register}", int(value) if isinstance(value, (bool, int, float)) else value)


def cast(b: Builder, value: V, source: str, dtype: str) -> V:
    """Conversion between dtypes as Tensor.to has it on x86: float to integer truncates, out of range gives the minimum."""
    if source == dtype:
        return value
    if dtype == "bool":
        return b.op(f"vcmpne.{value.type}", value, constant(b, 0, source))
    if source == "bool":
        return b.op(f"vmux.{REGISTER_TYPE[dtype]}", value, constant(b, 1, dtype), constant(b, 0, dtype))
    return wrap(b, _convert(b, value, REGISTER_TYPE[dtype], dtype), dtype)


def _convert(b: Builder, value: V, register: str, dtype: str) -> V:
    if value.type == register:
        return value
    narrow = dtype in ("i8", "i16", "u8")
    if value.type in ("sf", "df") and narrow:
        # eager converts through a wider integer and keeps the low bits
        return b.op("vcvt.w.d", b.op(f"vcvt.d.{value.type}", value)) if value.type == "df" else b.op("vcvt.w.sf", value)
    return b.op(f"vcvt.{register}.{value.type}", value)
