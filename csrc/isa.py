"""The DVX instruction set: one table, `ROWS`, from which everything else about it is made.

Of it are made: the C header include/dvx.h and docs/isa.md (csrc/gen.py), the counters of a counting build, the checks of
the vector IR, the cost model's latencies and energies, and the property tests (each C intrinsic against its `ref`).

Every vector value has `lanes` = vlen_bytes / 4 lanes, whatever its type: 64-bit types take a register pair, and an
instruction on them counts as two register operations (RISC-V V's LMUL is the model). Register types: sf (f32), df (f64),
w (int32), d (int64), q (predicate). Memory element types: these and h (int16), b (int8), ub (uint8; bool as 0 or 1),
hf (fp16), bf (bf16), which exist in memory only: loads widen them, stores narrow them.

Pipes: LD, ST, MPY, SHF, PRM, SCL (scalar); ANY is one of MPY, SHF, PRM; `A+B` takes both; NONE issues nothing.
Latencies are in cycles to a late operand; an operand named in `early` needs one cycle more (HVX PRM v65 section 4.6).
Constants without a source in `like` are estimates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from . import isa_refs as refs

__all__ = ["C_NAMES", "GROUPS", "INSTRUCTIONS", "Instr", "MEMORY_TYPES", "Operand", "REGISTER_TYPES", "ROWS", "Row", "lookup"]

REGISTER_TYPES = ("sf", "df", "w", "d", "q")
# Memory element type -> register type of its values, bytes of an element.
MEMORY_TYPES = {
    "sf": ("sf", 4), "df": ("df", 8), "w": ("w", 4), "d": ("d", 8), "h": ("w", 2), "b": ("w", 1), "ub": ("w", 1),
    "hf": ("sf", 2), "bf": ("sf", 2),
}  # fmt: skip
GROUPS = ("load", "store", "multiply", "alu", "shift", "permute", "convert", "reduce", "predicate")


@dataclasses.dataclass(frozen=True)
class Row:
    """One mnemonic with the types it exists for.

    Attributes:
        mnemonic, suffixes: `vfadd`, ("sf", "df"); a conversion's suffix is "dst.src".
        operands: "name:kind" words. Kinds: T the suffix's register type, S a conversion's source type, q w d themselves,
            source / target a pointer to elements that are read / written, status a pointer to int32, i64 i32 f64 C scalars.
        result: a kind, "i32" (a C int32_t), or "" for none.
        doc: the meaning, one sentence.
        shape: the stamp of include/dvx_stamp.h or dvx_memory.h that makes the intrinsic.
        lane: the C of one lane, where the shape takes one. {t} is the type, {U} {I} its unsigned and integer host vectors,
            {S} the sign bit.
        ref: the numpy meaning: ref(setting, *operands), see isa_refs.
        pipe, latency, early, occupancy: see the module's docstring; occupancy is the cycles a register operation holds
            its pipes. lanes_per_cycle, if not 0: the lanes that a memory port serves a cycle. tree: latency and
            occupancy grow by one a halving of the lanes.
        lane_pj: energy of one 32-bit lane's arithmetic in pJ at 7 nm (reference: Jouppi, ISCA 2021, table 2).
        laws: equations between calls of the same suffix, which hold bit for bit (all NaNs being one).
        like: what the row is modelled on.
    """

    mnemonic: str
    suffixes: tuple[str, ...]
    operands: str
    result: str
    doc: str
    shape: str
    ref: Callable
    pipe: str
    group: str
    lane: str = ""
    latency: int = 1
    early: tuple[str, ...] = ()
    occupancy: int = 1
    lanes_per_cycle: int = 0
    tree: bool = False
    lane_pj: float = 0.03
    laws: tuple[str, ...] = ()
    like: str = ""


_INTS = ("w", "d")
_FLOATS = ("sf", "df")
_VALUES = ("sf", "df", "w", "d")
_MEMORY = tuple(MEMORY_TYPES)
_COMMUTES = "{0}(a, b) == {0}(b, a)"

_MEMORY_ROWS = (
    Row("vld", _MEMORY, "p:source", "T", "Consecutive elements from p.", "load", refs.load, "LD", "load",
        like="HVX vmemu; RVV vle"),
    Row("vldq", _MEMORY, "q:q p:source", "T", "Consecutive elements from p where q; the others are 0 and their memory is not touched.",
        "load_masked", refs.load_masked, "LD", "load", laws=("vldq(qtrue_q(), p) == vld(p)",), like="RVV masked vle; MVE vldr_z"),
    Row("vldx", _MEMORY, "p:source", "T", "The element at p in all lanes.", "load_splat", refs.load_splat, "LD+PRM", "load",
        latency=2, like="MVE vldrb + dup; HVX vsplat"),
    Row("vlds", _MEMORY, "p:source stride:i64", "T", "Lane i is p[i * stride].", "load_strided", refs.load_strided, "LD", "load",
        latency=4, lanes_per_cycle=16, laws=("vlds(p, 1) == vld(p)", "vlds(p, 0) == vldx(p)"), like="RVV vlse"),
    Row("vldsq", _MEMORY, "q:q p:source stride:i64", "T",
        "Lane i is p[i * stride] where q; the others are 0 and their memory is not touched.",
        "load_strided_masked", refs.load_strided_masked, "LD", "load", latency=4, lanes_per_cycle=16,
        laws=("vldsq(q, p, 1) == vldq(q, p)",), like="RVV masked vlse"),
    Row("vgather", _MEMORY, "q:q p:source offsets:d", "T",
        "Lane i is p[offsets[i]] where q; the others are 0 and their memory is not touched.",
        "gather", refs.gather, "LD+ANY", "load", latency=4, lanes_per_cycle=16,
        laws=("vgather(q, p, viota_d()) == vldq(q, p)",), like="HVX vgather (to a register here); RVV vluxei"),
    Row("vst", _MEMORY, "p:target v:T", "", "Lanes to consecutive elements at p.", "store", refs.store, "ST", "store",
        like="HVX vmemu; RVV vse"),
    Row("vstq", _MEMORY, "q:q p:target v:T", "", "Lanes to consecutive elements at p where q; other memory is not touched.",
        "store_masked", refs.store_masked, "ST", "store", like="HVX vmem(Qv); RVV masked vse"),
    Row("vst1", _MEMORY, "p:target v:T", "", "Lane 0 to the element at p.", "store_first", refs.store_first, "ST", "store",
        like="RVV vse with vl = 1"),
    Row("vsts", _MEMORY, "p:target stride:i64 v:T", "", "p[i * stride] becomes lane i, in ascending order.",
        "store_strided", refs.store_strided, "ST+ANY", "store", lanes_per_cycle=16, like="RVV vsse"),
    Row("vstsq", _MEMORY, "q:q p:target stride:i64 v:T", "",
        "p[i * stride] becomes lane i where q, in ascending order; other memory is not touched.",
        "store_strided_masked", refs.store_strided_masked, "ST+ANY", "store", lanes_per_cycle=16, like="RVV masked vsse"),
    Row("vscatter", _MEMORY, "q:q p:target offsets:d v:T", "",
        "p[offsets[i]] becomes lane i where q, in ascending order, so the last of equal offsets wins.",
        "scatter", refs.scatter, "ST+ANY", "store", lanes_per_cycle=16, like="HVX vscatter; RVV vsoxei"),
    Row("vscatteradd", _MEMORY, "q:q p:target offsets:d v:T", "",
        "Lane i is added to p[offsets[i]] where q, in ascending order; each sum is rounded or wrapped to the element.",
        "scatter_add", refs.scatter_add, "ST+ANY", "store", lanes_per_cycle=16, lane_pj=0.38, like="HVX vscatter +="),
)

_MOVE_ROWS = (
    Row("vsplat", _FLOATS, "x:f64", "T", "x, rounded to the type, in all lanes.", "make", lambda s, x: np.full(s.lanes, x, s.dtype),
        "PRM", "permute", lane="dvx_splat_{t}(({E})x)", like="HVX vsplat"),
    Row("vsplat", _INTS, "x:i64", "T", "x, wrapped to the type, in all lanes.", "make",
        lambda s, x: np.full(s.lanes, x, np.int64).astype(s.dtype), "PRM", "permute", lane="dvx_splat_{t}(({E})x)", like="HVX vsplat"),
    Row("viota", _INTS, "", "T", "The lane's number, from 0.", "make", lambda s: np.arange(s.lanes, dtype=s.dtype), "ANY", "permute",
        lane="dvx_iota_{t}(i)", like="RVV vid"),
    Row("vmux", _VALUES, "q:q a:T b:T", "T", "a where q, else b.", "mux", lambda s, q, a, b: np.where(q, a, b), "ANY", "alu",
        laws=("vmux(q, a, a) == a", "vmux(qnot_q(q), a, b) == vmux(q, b, a)"), like="HVX vmux; RVV vmerge"),
    Row("vziplo", _VALUES, "a:T b:T", "T", "a[0] b[0] a[1] b[1] ... of the lower halves of a and b.", "zip", refs.zip_low, "SHF+PRM",
        "permute", early=("a", "b"), like="HVX vshuff (one half of the pair); AArch64 zip1"),
    Row("vziphi", _VALUES, "a:T b:T", "T", "a[n/2] b[n/2] a[n/2+1] ... of the upper halves of a and b.", "zip", refs.zip_high, "SHF+PRM",
        "permute", early=("a", "b"), like="HVX vshuff (other half of the pair); AArch64 zip2"),
    Row("vrot", _VALUES, "a:T k:i32", "T", "Lane i is lane (i + k) mod n of a.", "rotate", refs.rotate, "PRM", "permute", early=("a",),
        laws=("vrot(a, 0) == a", "vrot(vrot(a, 1), -1) == a"), like="HVX vror, valign"),
    Row("vperm", _VALUES, "a:T index:w", "T", "Lane i is lane index[i] mod n of a.", "permute", refs.permute, "PRM", "permute",
        early=("a", "index"), laws=("vperm(a, viota_w()) == a",), like="HVX vdelta, vlut; RVV vrgather"),
    Row("vbits", ("w.sf", "sf.w", "d.df", "df.d"), "a:S", "T", "The same bits as another type; issues nothing.", "bits",
        lambda s, a: a.view(s.dtype), "NONE", "convert", latency=0, occupancy=0, lane_pj=0.0),
)

_PREDICATE_ROWS = (
    Row("qtail", ("q",), "n:i64", "q", "Lanes below n.", "make", lambda s, n: np.arange(s.lanes) < n, "ANY", "predicate",
        lane="dvx_iota_w(i) < (int32_t)(n < 0 ? 0 : n > DVX_LANES ? DVX_LANES : n)", lane_pj=0.001, like="HVX vsetq; MVE vctp"),
    Row("qtrue", ("q",), "", "q", "All lanes.", "make", lambda s: np.ones(s.lanes, bool), "ANY", "predicate", lane="dvx_splat_w(-1)",
        lane_pj=0.001, like="RVV vmset"),
    Row("qfalse", ("q",), "", "q", "No lane.", "make", lambda s: np.zeros(s.lanes, bool), "ANY", "predicate", lane="dvx_splat_w(0)",
        lane_pj=0.001, like="RVV vmclr"),
    Row("qand", ("q",), "a:q b:q", "q", "Lanes of both a and b.", "map", lambda s, a, b: a & b, "ANY", "predicate", lane="a & b",
        lane_pj=0.001, laws=(_COMMUTES.format("qand"),), like="HVX and(Qs,Qt)"),
    Row("qor", ("q",), "a:q b:q", "q", "Lanes of a or b.", "map", lambda s, a, b: a | b, "ANY", "predicate", lane="a | b", lane_pj=0.001,
        laws=(_COMMUTES.format("qor"), "qor(a, b) == qnot(qand(qnot(a), qnot(b)))"), like="HVX or(Qs,Qt)"),
    Row("qxor", ("q",), "a:q b:q", "q", "Lanes of a or b, not of both.", "map", lambda s, a, b: a ^ b, "ANY", "predicate", lane="a ^ b",
        lane_pj=0.001, laws=("qxor(a, a) == qfalse()",), like="HVX xor(Qs,Qt)"),
    Row("qnot", ("q",), "a:q", "q", "Lanes not of a.", "map", lambda s, a: ~a, "ANY", "predicate", lane="~a", lane_pj=0.001,
        laws=("qnot(qnot(a)) == a",), like="HVX not(Qs)"),
    Row("qandn", ("q",), "a:q b:q", "q", "Lanes of a that are not of b.", "map", lambda s, a, b: a & ~b, "ANY", "predicate", lane="a & ~b",
        lane_pj=0.001, laws=("qandn(a, b) == qand(a, qnot(b))",), like="HVX and(Qs,!Qt)"),
    Row("qmux", ("q",), "q:q a:q b:q", "q", "a where q, else b.", "mux", lambda s, q, a, b: np.where(q, a, b), "ANY", "predicate",
        lane_pj=0.001, laws=("qmux(q, a, b) == qor(qand(q, a), qandn(b, q))",), like="three HVX predicate ops"),
    Row("qany", ("q",), "q:q", "i32", "1 if some lane is set, else 0, as a scalar.", "test", lambda s, q: int(q.any()), "SCL", "predicate",
        latency=4, lane_pj=0.001, like="RVV vcpop to a scalar register; HVX vextract is slow alike"),
    Row("qredand", ("q",), "q:q", "q", "All lanes if all are set, else none.", "reduce_q", lambda s, q: np.full(s.lanes, q.all()), "PRM+ANY",
        "predicate", tree=True, lane_pj=0.001, laws=("qredand(q) == qnot(qredor(qnot(q)))",), like="RVV vcpop"),
    Row("qredor", ("q",), "q:q", "q", "All lanes if some is set, else none.", "reduce_q", lambda s, q: np.full(s.lanes, q.any()), "PRM+ANY",
        "predicate", tree=True, lane_pj=0.001, like="RVV vcpop"),
    Row("qtrap", ("q",), "q:q status:status code:i32", "", "If some lane is set, *status = code.", "trap", refs.trap, "SCL", "predicate",
        latency=4, lane_pj=0.001, like="RVV vfirst and a branch"),
)

_INTEGER_ROWS = (
    Row("vadd", _INTS, "a:T b:T", "T", "a + b, wrapping.", "map", lambda s, a, b: a + b, "ANY", "alu", lane="({U})a + ({U})b",
        laws=(_COMMUTES.format("vadd"), "vsub(vadd(a, b), b) == a"), like="HVX vadd"),
    Row("vsub", _INTS, "a:T b:T", "T", "a - b, wrapping.", "map", lambda s, a, b: a - b, "ANY", "alu", lane="({U})a - ({U})b",
        laws=("vsub(a, b) == vadd(a, vneg(b))",), like="HVX vsub"),
    Row("vmul", ("w",), "a:T b:T", "T", "The low half of a * b.", "map", lambda s, a, b: a * b, "MPY", "multiply", lane="({U})a * ({U})b",
        early=("a", "b"), occupancy=2, lane_pj=1.48, laws=(_COMMUTES.format("vmul"), "vmul(vneg(a), b) == vneg(vmul(a, b))"),
        like="HVX vmpyi: 32 x 32 takes two"),
    Row("vmul", ("d",), "a:T b:T", "T", "The low half of a * b.", "map", lambda s, a, b: a * b, "MPY", "multiply", lane="({U})a * ({U})b",
        early=("a", "b"), latency=2, occupancy=4, lane_pj=2.96, laws=(_COMMUTES.format("vmul"),), like="RVV vmul.vv at SEW 64"),
    Row("vmulhu", ("w",), "a:T b:T", "T", "The high half of the unsigned product of a and b.", "map", refs.multiply_high_unsigned, "MPY",
        "multiply", lane="dvx_host_mulhu_w(a, b)", early=("a", "b"), occupancy=2, lane_pj=1.48, laws=(_COMMUTES.format("vmulhu"),),
        like="RVV vmulhu"),
    Row("vdiv", _INTS, "a:T b:T", "T", "a / b truncated, 0 where b is 0; the quotient wraps.", "map", refs.divide, "SCL+MPY", "multiply",
        lane="dvx_host_div_{t}(a, b)", latency=18, occupancy=16, lane_pj=12.0, like="RVV vdiv (which gives -1 on 0)"),
    Row("vrem", _INTS, "a:T b:T", "T", "a - a / b * b with a / b truncated, 0 where b is 0.", "map", refs.remainder, "SCL+MPY", "multiply",
        lane="dvx_host_rem_{t}(a, b)", latency=18, occupancy=16, lane_pj=12.0, like="RVV vrem (which gives a on 0)"),
    Row("vmin", _INTS, "a:T b:T", "T", "The lesser of a and b, signed.", "map", lambda s, a, b: np.minimum(a, b), "ANY", "alu",
        lane="dvx_host_min_{t}(a, b)", laws=(_COMMUTES.format("vmin"), "vmin(a, a) == a"), like="HVX vmin"),
    Row("vmax", _INTS, "a:T b:T", "T", "The greater of a and b, signed.", "map", lambda s, a, b: np.maximum(a, b), "ANY", "alu",
        lane="dvx_host_max_{t}(a, b)", laws=(_COMMUTES.format("vmax"), "vadd(vmin(a, b), vmax(a, b)) == vadd(a, b)"), like="HVX vmax"),
    Row("vabs", _INTS, "a:T", "T", "The magnitude of a, wrapping.", "map", lambda s, a: np.abs(a), "ANY", "alu",
        lane="(({U})a ^ ({U})(a < 0)) - ({U})(a < 0)", laws=("vabs(a) == vmax(a, vneg(a))",), like="HVX vabs"),
    Row("vneg", _INTS, "a:T", "T", "-a, wrapping.", "map", lambda s, a: -a, "ANY", "alu", lane="-({U})a", laws=("vneg(vneg(a)) == a",),
        like="RVV vneg"),
    Row("vand", _INTS, "a:T b:T", "T", "Bitwise and.", "map", lambda s, a, b: a & b, "ANY", "alu", lane="a & b",
        laws=(_COMMUTES.format("vand"), "vand(a, a) == a"), like="HVX vand"),
    Row("vor", _INTS, "a:T b:T", "T", "Bitwise or.", "map", lambda s, a, b: a | b, "ANY", "alu", lane="a | b",
        laws=(_COMMUTES.format("vor"), "vor(a, b) == vnot(vand(vnot(a), vnot(b)))"), like="HVX vor"),
    Row("vxor", _INTS, "a:T b:T", "T", "Bitwise exclusive or.", "map", lambda s, a, b: a ^ b, "ANY", "alu", lane="a ^ b",
        laws=("vxor(vxor(a, b), b) == a",), like="HVX vxor"),
    Row("vnot", _INTS, "a:T", "T", "Bitwise complement.", "map", lambda s, a: ~a, "ANY", "alu", lane="~a", laws=("vnot(vnot(a)) == a",),
        like="HVX vnot"),
    Row("vshl", _INTS, "a:T n:T", "T", "a shifted left by n; 0 where n is not in [0, bits).", "map", refs.shift_left, "SHF", "shift",
        lane="dvx_host_shl_{t}(a, b)", early=("a",), like="HVX vasl(Vu,Vv)"),
    Row("vshr", _INTS, "a:T n:T", "T", "a shifted right by n, zeros coming in; 0 where n is not in [0, bits).", "map",
        refs.shift_right_logical, "SHF", "shift", lane="dvx_host_shr_{t}(a, b)", early=("a",), like="HVX vlsr(Vu,Vv)"),
    Row("vsar", _INTS, "a:T n:T", "T", "a shifted right by n, its sign coming in; all sign where n is not in [0, bits).", "map",
        refs.shift_right_arithmetic, "SHF", "shift", lane="dvx_host_sar_{t}(a, b)", early=("a",), like="HVX vasr(Vu,Vv)"),
    Row("vsxtb", ("w",), "a:T", "T", "a wrapped to int8.", "map", lambda s, a: a.astype(np.int8).astype(np.int32), "ANY", "alu",
        lane="(dvx_hw)(({U})a << 24) >> 24", like="HVX vsxt(b)"),
    Row("vsxth", ("w",), "a:T", "T", "a wrapped to int16.", "map", lambda s, a: a.astype(np.int16).astype(np.int32), "ANY", "alu",
        lane="(dvx_hw)(({U})a << 16) >> 16", like="HVX vsxt(h)"),
    Row("vzxtb", ("w",), "a:T", "T", "a wrapped to uint8.", "map", lambda s, a: a.astype(np.uint8).astype(np.int32), "ANY", "alu",
        lane="a & 255", like="HVX vzxt(ub)"),
)

_FLOAT_ROWS = (
    Row("vfadd", _FLOATS, "a:T b:T", "T", "a + b.", "map", lambda s, a, b: a + b, "MPY", "multiply", lane="a + b", latency=2,
        early=("a", "b"), lane_pj=0.38, laws=(_COMMUTES.format("vfadd"),), like="HVX v68 vadd(Vu.sf,Vv.sf)"),
    Row("vfsub", _FLOATS, "a:T b:T", "T", "a - b.", "map", lambda s, a, b: a - b, "MPY", "multiply", lane="a - b", latency=2,
        early=("a", "b"), lane_pj=0.38, laws=("vfsub(a, b) == vfadd(a, vfneg(b))",), like="HVX v68 vsub(Vu.sf,Vv.sf)"),
    Row("vfmul", _FLOATS, "a:T b:T", "T", "a * b.", "map", lambda s, a, b: a * b, "MPY", "multiply", lane="a * b", latency=2,
        early=("a", "b"), lane_pj=1.31, laws=(_COMMUTES.format("vfmul"),), like="HVX v68 vmpy(Vu.sf,Vv.sf)"),
    Row("vfdiv", _FLOATS, "a:T b:T", "T", "a / b.", "map", lambda s, a, b: a / b, "MPY", "multiply", lane="a / b", latency=12,
        early=("a", "b"), occupancy=8, lane_pj=8.0, laws=("vfdiv(vfneg(a), b) == vfneg(vfdiv(a, b))",), like="RVV vfdiv"),
    Row("vfma", _FLOATS, "a:T b:T c:T", "T", "a * b + c, rounded once.", "map", refs.fused_multiply_add, "MPY", "multiply",
        lane="dvx_host_fma_{t}(a, b, c)", latency=2, early=("a", "b"), lane_pj=1.69, laws=("vfma(a, b, c) == vfma(b, a, c)",),
        like="RVV vfmacc; HVX vmpyacc"),
    Row("vfnma", _FLOATS, "a:T b:T c:T", "T", "c - a * b, rounded once.", "map", lambda s, a, b, c: refs.fused_multiply_add(s, -a, b, c),
        "MPY", "multiply", lane="dvx_host_fnma_{t}(a, b, c)", latency=2, early=("a", "b"), lane_pj=1.69,
        laws=("vfnma(a, b, c) == vfma(vfneg(a), b, c)",), like="RVV vfnmsac"),
    Row("vfmin", _FLOATS, "a:T b:T", "T", "The lesser of a and b; a where they are equal; NaN where either is.", "map", refs.minimum,
        "ANY", "alu", lane="({I})dvx_host_less_{t}(b, a) | ({I})(b != b)", laws=("vfmin(a, a) == a",), like="aten.minimum; HVX vmin(sf)"),
    Row("vfmax", _FLOATS, "a:T b:T", "T", "The greater of a and b; a where they are equal; NaN where either is.", "map", refs.maximum,
        "ANY", "alu", lane="({I})dvx_host_more_{t}(b, a) | ({I})(b != b)",
        laws=("vfmax(a, a) == a", "vfmax(a, b) == vfneg(vfmin(vfneg(a), vfneg(b)))"), like="aten.maximum; HVX vmax(sf)"),
    Row("vfminn", _FLOATS, "a:T b:T", "T", "The lesser of a and b; a where they are equal; the number where one is NaN.", "map",
        refs.minimum_number, "ANY", "alu", lane="dvx_host_mux((dvx_hw)(a != a), (dvx_hw)b, (dvx_hw)dvx_host_less_{t}(b, a))",
        like="aten.fmin; RVV vfmin"),
    Row("vfmaxn", _FLOATS, "a:T b:T", "T", "The greater of a and b; a where they are equal; the number where one is NaN.", "map",
        refs.maximum_number, "ANY", "alu", lane="dvx_host_mux((dvx_hw)(a != a), (dvx_hw)b, (dvx_hw)dvx_host_more_{t}(b, a))",
        like="aten.fmax; RVV vfmax"),
    Row("vfabs", _FLOATS, "a:T", "T", "a without its sign.", "map", lambda s, a: np.abs(a), "ANY", "alu", lane="({I})a & ~{S}",
        laws=("vfabs(vfneg(a)) == vfabs(a)",), like="RVV vfabs"),
    Row("vfneg", _FLOATS, "a:T", "T", "a with its sign turned.", "map", lambda s, a: -a, "ANY", "alu", lane="-a",
        laws=("vfneg(vfneg(a)) == a",), like="RVV vfneg"),
    Row("vfsqrt", _FLOATS, "a:T", "T", "The square root of a.", "map", lambda s, a: np.sqrt(a), "MPY", "multiply",
        lane="dvx_host_sqrt_{t}(a)", latency=14, early=("a",), occupancy=10, lane_pj=8.0, like="RVV vfsqrt"),
    Row("vffloor", _FLOATS, "a:T", "T", "The greatest integer not above a.", "map", lambda s, a: np.floor(a), "MPY", "convert",
        lane="dvx_host_floor_{t}(a)", latency=2, lane_pj=0.38, laws=("vffloor(vffloor(a)) == vffloor(a)",), like="AArch64 frintm"),
    Row("vfceil", _FLOATS, "a:T", "T", "The least integer not below a.", "map", lambda s, a: np.ceil(a), "MPY", "convert",
        lane="dvx_host_ceil_{t}(a)", latency=2, lane_pj=0.38, laws=("vfceil(a) == vfneg(vffloor(vfneg(a)))",), like="AArch64 frintp"),
    Row("vftrunc", _FLOATS, "a:T", "T", "a without its fraction.", "map", lambda s, a: np.trunc(a), "MPY", "convert",
        lane="dvx_host_trunc_{t}(a)", latency=2, lane_pj=0.38, laws=("vftrunc(vfneg(a)) == vfneg(vftrunc(a))",), like="AArch64 frintz"),
    Row("vfrint", _FLOATS, "a:T", "T", "The integer nearest to a, the even one of two.", "map", lambda s, a: np.rint(a), "MPY", "convert",
        lane="dvx_host_rint_{t}(a)", latency=2, lane_pj=0.38, laws=("vfrint(vfneg(a)) == vfneg(vfrint(a))",), like="AArch64 frintn"),
    Row("vfcopysign", _FLOATS, "a:T b:T", "T", "a with the sign of b.", "map", lambda s, a, b: np.copysign(a, b), "ANY", "alu",
        lane="(({I})a & ~dvx_sign_{t}()) | (({I})b & dvx_sign_{t}())", laws=("vfcopysign(a, a) == a",), like="RVV vfsgnj"),
)


def _compare(mnemonic, symbol, words, ref, laws=()):
    return Row(mnemonic, _VALUES, "a:T b:T", "q", f"Lanes where a {words} b{'' if symbol == '!=' else '; not where either is NaN'}.",
               "compare", ref, "ANY", "predicate", lane=f"a {symbol} b", laws=laws, like="HVX vcmp")


_COMPARE_ROWS = (
    _compare("vcmpeq", "==", "equals", lambda s, a, b: a == b, (_COMMUTES.format("vcmpeq"),)),
    _compare("vcmpne", "!=", "differs from", lambda s, a, b: a != b, ("vcmpne(a, b) == qnot_q(vcmpeq(a, b))",)),
    _compare("vcmplt", "<", "is less than", lambda s, a, b: a < b, ("vcmplt(a, b) == vcmpgt(b, a)",)),
    _compare("vcmple", "<=", "is at most", lambda s, a, b: a <= b, ("vcmple(a, b) == qor_q(vcmplt(a, b), vcmpeq(a, b))",)),
    _compare("vcmpgt", ">", "is greater than", lambda s, a, b: a > b),
    _compare("vcmpge", ">=", "is at least", lambda s, a, b: a >= b, ("vcmpge(a, b) == vcmple(b, a)",)),
    Row("vcmpltu", _INTS, "a:T b:T", "q", "Lanes where a is less than b, both unsigned.", "compare", refs.less_unsigned, "ANY", "predicate",
        lane="({U})a < ({U})b", like="HVX vcmp.gt(uw)"),
)


def _convert(suffix, doc, shape, lane, ref, **laws):
    return Row("vcvt", (suffix,), "a:S", "T", doc, shape, ref, "MPY", "convert", lane=lane, latency=2, lane_pj=0.3, like="RVV vfcvt, vsext, vnsrl",
               **laws)


_TRUNCATES = "a without its fraction; the smallest integer where that does not fit, or a is NaN."
_ROUNDS = "a, rounded to nearest even."

_CONVERT_ROWS = (
    _convert("w.sf", _TRUNCATES, "map", "dvx_host_cvt_w_sf(a)", refs.truncate_to_integer),
    _convert("d.sf", _TRUNCATES, "widen", "dvx_host_cvt_d_df(__builtin_convertvector(a, dvx_hdf))", refs.truncate_to_integer),
    _convert("w.df", _TRUNCATES, "narrow", "dvx_host_cvt_w_df(a)", refs.truncate_to_integer),
    _convert("d.df", _TRUNCATES, "map", "dvx_host_cvt_d_df(a)", refs.truncate_to_integer),
    _convert("sf.w", _ROUNDS, "map", "__builtin_convertvector(a, dvx_hsf)", lambda s, a: a.astype(s.dtype)),
    _convert("sf.d", _ROUNDS, "narrow", "__builtin_convertvector(a, dvx_h2sf)", lambda s, a: a.astype(s.dtype)),
    _convert("df.w", "a, exactly.", "widen", "__builtin_convertvector(a, dvx_hdf)", lambda s, a: a.astype(s.dtype),
             laws=("vcvt_w_df(vcvt_df_w(a)) == a",)),
    _convert("df.d", _ROUNDS, "map", "__builtin_convertvector(a, dvx_hdf)", lambda s, a: a.astype(s.dtype)),
    _convert("df.sf", "a, exactly.", "widen", "__builtin_convertvector(a, dvx_hdf)", lambda s, a: a.astype(s.dtype),
             laws=("vcvt_sf_df(vcvt_df_sf(a)) == a",)),
    _convert("sf.df", _ROUNDS, "narrow", "__builtin_convertvector(a, dvx_h2sf)", lambda s, a: a.astype(s.dtype)),
    _convert("d.w", "a, sign-extended.", "widen", "__builtin_convertvector(a, dvx_hd)", lambda s, a: a.astype(s.dtype),
             laws=("vcvt_w_d(vcvt_d_w(a)) == a",)),
    _convert("w.d", "The low half of a.", "narrow", "dvx_cut_w(a)", lambda s, a: a.astype(s.dtype)),
    Row("vrndhf", ("sf",), "a:T", "T", "a rounded to fp16, to nearest even.", "map",
        lambda s, a: a.astype(np.float16).astype(np.float32), "MPY", "convert", lane="dvx_up_hf(dvx_down_hf(a))", latency=2, lane_pj=0.3,
        laws=("vrndhf(vrndhf(a)) == vrndhf(a)",), like="HVX v68 vcvt(hf,sf) and back"),
    Row("vrndbf", ("sf",), "a:T", "T", "a rounded to bf16, to nearest even.", "map", lambda s, a: refs.round_to_bf16(a), "MPY", "convert",
        lane="dvx_bf_bits(a) << 16", latency=2, lane_pj=0.3, laws=("vrndbf(vrndbf(a)) == vrndbf(a)",), like="RVV vfncvtbf16 and back"),
)


def _reduce(mnemonic, suffixes, word, lane, step, lane_pj=0.03):
    return Row(mnemonic, suffixes, "a:T", "T",
               f"The {word} of all lanes, in all lanes: the upper half is folded onto the lower half, and so on.",
               "reduce", refs.tree(step), "PRM+ANY", "reduce", lane=lane, early=("a",), tree=True, lane_pj=lane_pj,
               like="RVV vfredosum, vred; MVE vaddva; on HVX log2 n times vror + op")


_REDUCE_ROWS = (
    _reduce("vredadd", _FLOATS, "sum", "a + b", lambda s, a, b: a + b, 0.38),
    _reduce("vredadd", _INTS, "sum, wrapping,", "({U})a + ({U})b", lambda s, a, b: a + b),
    _reduce("vredmul", _FLOATS, "product", "a * b", lambda s, a, b: a * b, 1.31),
    _reduce("vredmul", _INTS, "product, wrapping,", "({U})a * ({U})b", lambda s, a, b: a * b, 1.48),
    _reduce("vredmin", _FLOATS, "vfmin", "({I})dvx_host_less_{t}(b, a) | ({I})(b != b)", refs.minimum),
    _reduce("vredmin", _INTS, "least", "dvx_host_min_{t}(a, b)", lambda s, a, b: np.minimum(a, b)),
    _reduce("vredmax", _FLOATS, "vfmax", "({I})dvx_host_more_{t}(b, a) | ({I})(b != b)", refs.maximum),
    _reduce("vredmax", _INTS, "greatest", "dvx_host_max_{t}(a, b)", lambda s, a, b: np.maximum(a, b)),
)

ROWS = (
    _MEMORY_ROWS + _MOVE_ROWS + _PREDICATE_ROWS + _INTEGER_ROWS + _FLOAT_ROWS + _COMPARE_ROWS + _CONVERT_ROWS + _REDUCE_ROWS
)


@dataclasses.dataclass(frozen=True)
class Operand:
    """An operand of an instruction.

    Attributes:
        name: as in the row.
        kind: "register", "source" (a pointer that is read), "target" (a pointer that is written), "status" or "scalar".
        type: a register type, a memory element type, "i32" for status, or "i64", "i32", "f64" for scalars.
    """

    name: str
    kind: str
    type: str


@dataclasses.dataclass(frozen=True)
class Instr:
    """One instruction: a row at one suffix. The row's fields are reached through `row`.

    Attributes:
        index: its place in INSTRUCTIONS, and in the counters of a counting build.
        operands: in the order of the intrinsic's C parameters.
        result: a register type, "i32" or None.
        memory: the memory element type of loads and stores, else None.
        registers: register operations it counts as: 2 where a 64-bit type takes part, 0 where nothing is issued.
    """

    row: Row
    suffix: str
    index: int
    operands: tuple[Operand, ...]
    result: str | None
    memory: str | None
    registers: int

    @property
    def text(self) -> str:
        """The instruction as assembly writes it: `vfadd.sf`."""
        return f"{self.row.mnemonic}.{self.suffix}"

    @property
    def c_name(self) -> str:
        """Its C intrinsic: `dvx_vfadd_sf`."""
        return "dvx_" + self.text.replace(".", "_")

    def occupancy_cycles(self, lanes: int) -> int:
        """Cycles for which one execution on values of `lanes` lanes holds its pipes."""
        row = self.row
        if row.lanes_per_cycle:
            return max(self.registers, math.ceil(lanes / row.lanes_per_cycle))
        return self.registers * (row.occupancy * (lanes.bit_length() - 1) if row.tree else row.occupancy)

    def latency_cycles(self, lanes: int) -> int:
        """Cycles from issue until a late operand of another instruction may take the result."""
        extra = self.occupancy_cycles(lanes) - 1 if self.registers else 0
        return self.row.latency + max(0, extra if self.row.lanes_per_cycle or self.row.tree else self.registers - 1)

    def energy_pj(self, vlen_bytes: int) -> float:
        """Energy of one execution on a machine with `vlen_bytes` registers, 7 nm; an estimate, for comparisons.

        Lanes' arithmetic + register traffic at 0.06 pJ a byte + 8 pJ of control a register operation + 1.4 pJ a byte of
        near memory. 64-bit arithmetic is charged twice a 32-bit lane's; strided and indexed elements twice their bytes.
        """
        lanes, wide = vlen_bytes // 4, self.registers
        touched = sum(_register_bytes(operand.type, vlen_bytes) for operand in self.operands if operand.kind == "register")
        touched += _register_bytes(self.result, vlen_bytes) if self.result in REGISTER_TYPES else 0
        energy = wide * (lanes * self.row.lane_pj + 8.0) + (0.06 * touched if wide else 0.0)
        if self.memory is None:
            return energy
        element_bytes = MEMORY_TYPES[self.memory][1]
        elements = 1 if self.row.mnemonic in ("vldx", "vst1") else lanes * (2 if self.row.lanes_per_cycle else 1)
        return energy + 1.4 * elements * element_bytes

    def evaluate(self, lanes: int, *operands):
        """The numpy meaning on values of `lanes` lanes; see isa_refs for how values and pointers are given.

        Returns: an array, an int for a C scalar, or None for stores, which write into the array of their pointer.
        """
        dtype = refs.REGISTER_DTYPES.get(self.result)
        with np.errstate(all="ignore"):
            return self.row.ref(refs.Setting(lanes, dtype, self.memory), *operands)


def _register_bytes(register_type: str, vlen_bytes: int) -> float:
    return {"df": 2 * vlen_bytes, "d": 2 * vlen_bytes, "q": vlen_bytes / 32}.get(register_type, vlen_bytes)


def _instruction(row: Row, suffix: str, index: int) -> Instr:
    words = [word.split(":") for word in row.operands.split()]
    memory = suffix if any(kind in ("source", "target") for _, kind in words) else None
    value_type = MEMORY_TYPES[suffix][0] if memory else suffix.split(".")[0]
    types = {"T": value_type, "S": suffix.split(".")[-1], "source": memory, "target": memory, "status": "i32"}
    operands = []
    for name, kind in words:
        operand_type = types.get(kind, kind)
        scalar = "scalar" if kind in ("i64", "i32", "f64") else "register"
        operands.append(Operand(name, kind if kind in ("source", "target", "status") else scalar, operand_type))
    registers = 0 if row.pipe == "NONE" else 2 if {"df", "d"} & {value_type, types["S"]} else 1
    return Instr(row, suffix, index, tuple(operands), types.get(row.result, row.result) or None, memory, registers)


def _expand() -> tuple[Instr, ...]:
    pairs = [(row, suffix) for row in ROWS for suffix in row.suffixes]
    return tuple(_instruction(row, suffix, index) for index, (row, suffix) in enumerate(pairs))


INSTRUCTIONS = _expand()
C_NAMES = tuple(instr.c_name for instr in INSTRUCTIONS)
_BY_TEXT = {instr.text: instr for instr in INSTRUCTIONS}


def lookup(text: str) -> Instr:
    """The instruction that assembly writes as `text`, such as "vfadd.sf" or "vcvt.w.sf".

    Raises:
        KeyError: there is no such mnemonic, or it does not exist for the suffix.
    """
    if text in _BY_TEXT:
        return _BY_TEXT[text]
    mnemonic = text.split(".")[0]
    known = [instr.suffix for instr in INSTRUCTIONS if instr.row.mnemonic == mnemonic]
    raise KeyError(f"no DVX instruction {text!r}" + (f"; {mnemonic} exists for {', '.join(known)}" if known else ""))
