"""Every DVX intrinsic against its numpy meaning and its laws; the table's own consistency."""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import re

import intrinsics
import numpy as np
import pytest

from accel.csrc import isa
from accel.csrc.isa_refs import MEMORY_DTYPES, REGISTER_DTYPES
from accel.csrc.machine import host_machine

HOST_VLEN = host_machine().vlen_bytes
# gcc and clang at the host's own width, narrower values, values of several pieces, the portable twin.
BUILDS = {
    "vlen16": (0, 16),
    "host": (1, HOST_VLEN),
    "host-other": (0, HOST_VLEN),
    "vlen128": (1, 128),
    "portable": (0, 16, "-DDVX_PORTABLE", "-mno-fma", "-mno-avx"),
}
LANEWISE = ("map", "compare", "mux", "widen", "narrow", "bits")
SMALLEST_F32, SMALLEST_F64 = 2.0**-149, 2.0**-1074

FLOAT_EDGES = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 0.49999997, 3.7, -3.7, np.nan, -np.nan, np.inf, -np.inf, 1e10, -1e10,
    8388607.5, -8388607.5, 4503599627370495.5, 2147483520.0, 2.0**31, -(2.0**31), -(2.0**31) - 1, 2.0**31 - 1, 2.0**63, -(2.0**63),
    9.2e18, 65504.0, 65519.996, 65520.0, 6e-8, 3e-8, 2.0**-25, 2.0**-14, 6.1e-5, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11,
]  # fmt: skip
EDGES = {
    "sf": [*FLOAT_EDGES, SMALLEST_F32, -SMALLEST_F32, 2.0**-126, 2.0**-126 - SMALLEST_F32, 3.4028235e38, -3.4028235e38, 3.3961776e38],
    "df": [*FLOAT_EDGES, SMALLEST_F64, -SMALLEST_F64, 2.0**-1022, 1.7976931348623157e308, -1.7976931348623157e308, 1e-160, 3e38, 3.5e38],
    "w": [0, 1, -1, 2, 3, -3, 7, 31, 32, 33, 127, 128, -128, -129, 255, 256, 32767, 32768, -32768, -32769, 65535, 2**31 - 1, -(2**31), -(2**31) + 1],
    "d": [0, 1, -1, 3, -3, 31, 32, 63, 64, 65, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32, 2**53 + 1, 2**63 - 1, -(2**63), -(2**63) + 1],
    "q": [False, True],
}  # fmt: skip


def rng():
    return np.random.default_rng(7)


def random_values(register_type: str, count: int) -> np.ndarray:
    """Values of all magnitudes (random bits) and ordinary ones, half each."""
    if register_type == "q":
        return rng().integers(0, 2, count).astype(bool)
    dtype = np.dtype(REGISTER_DTYPES[register_type])
    values = np.frombuffer(rng().bytes(count * dtype.itemsize), dtype).copy()
    ordinary = rng().normal(scale=100, size=count)
    with np.errstate(all="ignore"):
        values[::2] = ordinary[::2].astype(dtype)
    return values


def edge_values(register_type: str) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.array(EDGES[register_type]).astype(REGISTER_DTYPES[register_type])


def lanewise_operands(instr: isa.Instr, lanes: int) -> tuple[list[np.ndarray], int]:
    """All edge values against each other and random values, as operands of one call with so many rounds."""
    types = [operand.type for operand in instr.operands]
    pools = [edge_values(t) if len(types) < 3 else edge_values(t)[:: 1 if t == "q" else 2] for t in types]
    crossed = np.array(list(itertools.product(*[range(len(pool)) for pool in pools])))
    columns = [np.concatenate([pool[crossed[:, i]], np.roll(random_values(types[i], 256), 37 * i)]) for i, pool in enumerate(pools)]
    rounds = -(-len(columns[0]) // lanes)
    return [np.resize(column, rounds * lanes) for column in columns], rounds


def is_same(got, expected, memory: str | None = None) -> bool:
    """Bit for bit, all NaNs being one."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return got.ndim == expected.ndim == 0 and got == expected
    if memory == "bf":
        got, expected = ((array.astype(np.uint32) << 16).view(np.float32) for array in (got, expected))
    if got.dtype.kind != "f":
        return np.array_equal(got, expected)
    bits = f"u{got.dtype.itemsize}"
    return bool(np.all((got.view(bits) == expected.view(bits)) | (np.isnan(got) & np.isnan(expected))))


def describe(instr, operands, got, expected) -> str:
    if not isinstance(got, np.ndarray):
        return f"{instr.text}{operands}: got {got}, expected {expected}"
    wrong = np.flatnonzero((got != expected) & ~((got != got) & (expected != expected)))
    lane = wrong[0] if len(wrong) else int(np.argmax(np.signbit(got) != np.signbit(expected)))
    values = [operand[lane] if isinstance(operand, np.ndarray) and len(operand) == len(got) else operand for operand in operands]
    return f"{instr.text}{values}: got {got[lane]!r}, expected {expected[lane]!r} in lane {lane} of {len(got)}"


@pytest.fixture(params=list(BUILDS), scope="module")
def dvx(request):
    names = list(intrinsics.compilers())
    if not names:
        pytest.skip("no C compiler")
    choice, vlen_bytes, *flags = BUILDS[request.param]
    return intrinsics.build(names[choice % len(names)], vlen_bytes, *flags)


def test_lanewise_intrinsics_equal_their_meaning(dvx):
    for instr in isa.INSTRUCTIONS:
        if instr.row.shape not in LANEWISE:
            continue
        operands, rounds = lanewise_operands(instr, dvx.lanes)
        got = dvx.call(instr, *operands, rounds=rounds)
        expected = instr.evaluate(rounds * dvx.lanes, *operands)
        assert is_same(got, expected), describe(instr, operands, got, expected)


SCALARS = {
    "n": [-(2**40), -1, 0, 1, 2, 3, 5, 31, 32, 33, 2**40],
    "k": [0, 1, 2, 3, 5, 17, -1, -2, 100],
    "x:f64": [0.0, -0.0, 1.5, 0.1, np.nan, np.inf, 1e300],
    "x:i64": [0, -1, 2**31, -(2**63), 2**40 + 3],
}


def across_operands(instr: isa.Instr, lanes: int):
    """Operand tuples of instructions that look across lanes, and of those that make values of scalars."""
    pools = []
    for operand in instr.operands:
        if operand.kind == "register":
            pool = np.concatenate([edge_values(operand.type), random_values(operand.type, 8 * lanes)])
            windows = [np.resize(np.roll(pool, -5 * i), lanes) for i in range(10)]
            if operand.type == "q":
                windows = [np.zeros(lanes, bool), np.ones(lanes, bool), np.arange(lanes) == lanes - 1, *windows[:4]]
            if operand.type in ("sf", "df"):
                ordinary = rng().normal(size=(4, lanes)).astype(REGISTER_DTYPES[operand.type])
                windows += [*ordinary, np.where(np.arange(lanes) % 3 == 1, 0.0, -0.0).astype(ordinary.dtype)]
            pools.append(windows)
        elif operand.kind == "scalar":
            pools.append(SCALARS.get(operand.name, SCALARS.get(f"{operand.name}:{operand.type}")))
    return itertools.islice(itertools.product(*pools), 150)


def test_intrinsics_across_lanes_equal_their_meaning(dvx):
    for instr in isa.INSTRUCTIONS:
        if instr.row.shape in LANEWISE or instr.memory or instr.row.shape == "trap":
            continue
        for operands in across_operands(instr, dvx.lanes):
            got, expected = dvx.call(instr, *operands), instr.evaluate(dvx.lanes, *operands)
            assert is_same(got, expected), describe(instr, operands, got, expected)


def memory_array(memory: str, count: int) -> np.ndarray:
    if memory == "bf":
        return (random_values("sf", count).view(np.uint32) >> 16).astype(np.uint16)
    if memory == "hf":
        return np.frombuffer(rng().bytes(2 * count), np.float16).copy()
    return np.resize(random_values(isa.MEMORY_TYPES[memory][0], count), count).astype(MEMORY_DTYPES[memory])


def memory_operands(instr: isa.Instr, lanes: int):
    """Operand tuples with a fresh array each: odd alignment, strides, duplicate offsets, all kinds of masks."""
    value_type = isa.MEMORY_TYPES[instr.memory][0]
    values = np.concatenate([edge_values(value_type), random_values(value_type, 4 * lanes)])
    is_strided = any(operand.name == "stride" for operand in instr.operands)
    for case in range(8):
        stride = (1, 2, 3, 0, 5, 1, -1, -2)[case] if is_strided else 1
        size = 6 * lanes + 7
        array = memory_array(instr.memory, size)
        start = 3 + case % 3 if stride >= 0 else size - 2
        mask = (np.arange(lanes) * (case + 1) % 3 != 1) if case else np.zeros(lanes, bool)
        if case == 7:
            mask = np.ones(lanes, bool)
        offsets = rng().integers(-start, size - start, lanes) if case % 2 else rng().integers(0, 3, lanes)
        offsets = np.where(mask, offsets, 2**60)
        by_name = {"q": mask, "p": (array, start), "stride": stride, "offsets": offsets, "v": np.resize(np.roll(values, -7 * case), lanes)}
        yield tuple(by_name[operand.name] for operand in instr.operands)


def copied(operands):
    return tuple((value[0].copy(), value[1]) if isinstance(value, tuple) else value for value in operands)


def test_memory_intrinsics_equal_their_meaning_and_touch_nothing_else(dvx):
    for instr in isa.INSTRUCTIONS:
        if not instr.memory:
            continue
        for operands in memory_operands(instr, dvx.lanes):
            mine, theirs = copied(operands), copied(operands)
            got, expected = dvx.call(instr, *mine), instr.evaluate(dvx.lanes, *theirs)
            if instr.result:
                assert is_same(got, expected), describe(instr, operands, got, expected)
            position = [operand.name for operand in instr.operands].index("p")
            after, wanted = mine[position][0], theirs[position][0]
            assert is_same(after, wanted, instr.memory), describe(instr, operands, after, wanted)


@pytest.fixture(scope="module")
def guarded_page():
    """A page of memory whose successor must not be touched, as a uint8 array ending where that begins."""
    libc = ctypes.CDLL(None, use_errno=True)
    area = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    array = np.frombuffer(area, np.uint8)
    boundary = array.ctypes.data + mmap.PAGESIZE
    assert libc.mprotect(ctypes.c_void_p(boundary), mmap.PAGESIZE, 0) == 0
    yield array[: mmap.PAGESIZE]
    assert libc.mprotect(ctypes.c_void_p(boundary), mmap.PAGESIZE, 3) == 0


def test_masked_memory_intrinsics_stay_within_the_mask(dvx, guarded_page):
    """Lanes beyond the end of mapped memory are off: any access to them would crash."""
    for instr in isa.INSTRUCTIONS:
        if not instr.memory or instr.operands[0].name != "q":
            continue
        memory = guarded_page.view(MEMORY_DTYPES[instr.memory])
        for active in {0, 1, dvx.lanes // 2, dvx.lanes - 1}:
            memory[:] = memory_array(instr.memory, len(memory))
            start = len(memory) - active
            value_type = isa.MEMORY_TYPES[instr.memory][0]
            by_name = {"q": np.arange(dvx.lanes) < active, "stride": 1, "offsets": np.arange(dvx.lanes), "v": random_values(value_type, dvx.lanes)}
            rest = [by_name[operand.name] if operand.name != "p" else None for operand in instr.operands]
            expected_memory = memory.copy()
            mine = [(memory, start) if value is None else value for value in rest]
            theirs = [(expected_memory, start) if value is None else value for value in rest]
            got, expected = dvx.call(instr, *mine), instr.evaluate(dvx.lanes, *theirs)
            assert got is None or is_same(got, expected), describe(instr, mine, got, expected)
            assert is_same(memory, expected_memory, instr.memory), instr.text


def test_qtrap_stores_the_code_when_a_lane_is_set(dvx):
    instr = isa.lookup("qtrap.q")
    for q in (np.zeros(dvx.lanes, bool), np.arange(dvx.lanes) == dvx.lanes - 1):
        status = np.array([7, 7, 7], np.int32)
        dvx.call(instr, q, (status, 1), 42)
        assert status.tolist() == [7, 42 if q.any() else 7, 7]


def law_values(instr: isa.Instr, lanes: int, case: int) -> dict:
    values = {}
    for position, operand in enumerate(instr.operands):
        if operand.kind == "register":
            pool = np.concatenate([edge_values(operand.type), random_values(operand.type, 4 * lanes)])
            values[operand.name] = np.resize(np.roll(pool, -(11 * case + 3 * position)), lanes)
        elif operand.kind == "source":
            values[operand.name] = (memory_array(instr.memory, 3 * lanes), case)
    return values


def law_names(dvx, instr: isa.Instr) -> type[dict]:
    """A dict of a law's values that also knows intrinsics: `vfadd` at the row's suffix, `qnot_q` by its whole name."""
    by_c_name = {other.c_name: other for other in isa.INSTRUCTIONS}

    class Names(dict):
        def __missing__(self, name):
            other = by_c_name.get(f"dvx_{name}_{instr.suffix}") or by_c_name[f"dvx_{name}"]
            return functools.partial(dvx.call, other)

    return Names


def test_laws_hold(dvx):
    for instr in isa.INSTRUCTIONS:
        for law in instr.row.laws:
            left, right = law.split(" == ")
            for case in range(3):
                names = law_names(dvx, instr)(law_values(instr, dvx.lanes, case))
                got, expected = eval(left, {}, names), eval(right, {}, names)
                assert is_same(got, expected), f"{instr.suffix}: {law}: {describe(instr, list(names.values()), got, expected)}"


def test_counting_build_counts_each_instruction_once():
    names = list(intrinsics.compilers())
    if not names:
        pytest.skip("no C compiler")
    dvx = intrinsics.build(names[-1], 16, "-DDVX_COUNT")
    counters = np.zeros(len(isa.INSTRUCTIONS), np.int64)
    dvx.set_counters(counters)
    for instr in isa.INSTRUCTIONS:
        counters[:] = 0
        if instr.memory:
            operands = next(memory_operands(instr, dvx.lanes))
        elif instr.row.shape == "trap":
            operands = (np.ones(dvx.lanes, bool), (np.zeros(1, np.int32), 0), 1)
        else:
            operands = next(iter(across_operands(instr, dvx.lanes)))
        dvx.call(instr, *operands)
        expected = np.zeros_like(counters)
        expected[instr.index] = instr.registers
        assert np.array_equal(counters, expected), instr.text


# ---- the table


def test_instructions_are_numbered_in_order_and_named_apart():
    assert [instr.index for instr in isa.INSTRUCTIONS] == list(range(len(isa.INSTRUCTIONS)))
    assert len(set(isa.C_NAMES)) == len(isa.INSTRUCTIONS)
    assert all(isa.lookup(instr.text) is instr for instr in isa.INSTRUCTIONS)


def test_lookup_gives_operand_and_result_types():
    gather = isa.lookup("vgather.hf")
    assert [(operand.kind, operand.type) for operand in gather.operands] == [("register", "q"), ("source", "hf"), ("register", "d")]
    assert (gather.result, gather.memory, gather.registers) == ("sf", "hf", 1)
    convert = isa.lookup("vcvt.d.sf")
    assert (convert.operands[0].type, convert.result, convert.registers, convert.c_name) == ("sf", "d", 2, "dvx_vcvt_d_sf")
    assert isa.lookup("qany.q").result == "i32"
    assert isa.lookup("vst.b").result is None
    assert isa.lookup("vbits.w.sf").registers == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [("vfrobnicate.sf", "no DVX instruction 'vfrobnicate.sf'"), ("vfadd.w", "vfadd exists for sf, df")],
)
def test_lookup_of_an_unknown_instruction_says_what_exists(text, message):
    with pytest.raises(KeyError, match=re.escape(message)):
        isa.lookup(text)


def test_rows_are_complete_and_consistent():
    for row in isa.ROWS:
        names = [word.split(":")[0] for word in row.operands.split()]
        assert row.group in isa.GROUPS, row
        assert set(row.early) <= set(names), row
        assert row.doc.endswith("."), row
        assert set(re.split(r"\+", row.pipe)) <= {"LD", "ST", "MPY", "SHF", "PRM", "SCL", "ANY", "NONE"}, row


def test_sixty_four_bit_instructions_cost_two_register_operations():
    for mnemonic, narrow, wide in (("vfadd", "sf", "df"), ("vadd", "w", "d"), ("vld", "sf", "df"), ("vcmplt", "w", "d")):
        one, two = isa.lookup(f"{mnemonic}.{narrow}"), isa.lookup(f"{mnemonic}.{wide}")
        assert (one.registers, two.registers) == (1, 2)
        assert two.occupancy_cycles(32) == 2 * one.occupancy_cycles(32)
        assert two.energy_pj(128) > 1.5 * one.energy_pj(128)


@pytest.mark.parametrize(("text", "pj"), [("vadd.w", 32), ("vfadd.sf", 43), ("vfmul.sf", 73), ("vfma.sf", 93), ("vld.sf", 195)])
def test_energy_follows_the_published_sums(text, pj):
    """By hand at 128 bytes: 32 lanes of arithmetic, 128 B at 0.06 pJ a register port, 8 pJ of control, near memory 1.4 pJ a byte."""
    assert isa.lookup(text).energy_pj(128) == pytest.approx(pj, abs=1)


def test_reductions_take_longer_with_more_lanes():
    reduce = isa.lookup("vredadd.sf")
    assert [reduce.occupancy_cycles(lanes) for lanes in (4, 32, 64)] == [2, 5, 6]
    assert reduce.latency_cycles(32) == 5
    assert isa.lookup("vgather.sf").occupancy_cycles(64) == 4
