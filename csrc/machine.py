"""Machine: what the code generator and the cycle model know about a target.

A DVX machine is vector-length-parametric. `host` is derived from the CPU at hand and is a machine like any
other; `dvx-h1` models a Hexagon-HVX-like DSP. Sizes are bytes, bandwidths bytes per cycle, the clock MHz.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import tomllib
from pathlib import Path

__all__ = ["COST_FIELDS", "Machine", "PRESETS", "host_machine", "machines", "resolve_machine"]


# Fields of a Machine that generated code does not depend on: only the cost model reads them.
COST_FIELDS = frozenset({
    "name", "tcm_bytes", "clock_mhz", "issue_width", "store_pipes", "permute_pipes", "shift_pipes", "scalar_pipes", "address_slots",
    "ddr_bytes_per_cycle", "ddr_latency_cycles", "ddr_pj_per_byte", "packet_pj", "static_mw",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Machine:
    """A DVX target.

    Attributes:
        name: how reports call it.
        vlen_bytes: bytes of one vector register; a power of two, at least 16. Every vector value of a kernel has
            `lanes` = vlen_bytes / 4 elements; 64-bit elements take a register pair.
        n_vregs: architectural vector registers.
        n_contexts: hardware contexts (threads) that run kernels together; 0 follows torch.get_num_threads().
        fma_pipes, fma_latency: multiply pipes per context and latency of vfma in cycles (sets the GEMM tile).
        l1_bytes, l2_bytes: the two levels of near memory that tiles are sized for (on a DSP: TCM takes l2's part).
        tcm_bytes: scratchpad bytes; 0 on cached machines.
        clock_mhz: core clock.
        issue_width: instructions a packet holds.   address_slots: how many of them may be loads and stores.
        load_pipes, store_pipes, permute_pipes, shift_pipes, scalar_pipes: of one context.
        ddr_bytes_per_cycle, ddr_latency_cycles: memory behind the near one (TCM, or L2 where there is none).
        ddr_pj_per_byte: energy of a byte of it.   packet_pj: fetch and issue of a packet.
        static_mw: leakage and clock of one context and the near memory.

    estimate: every field without a source at the presets below; no preset is a product.
    """

    name: str
    vlen_bytes: int = 128
    n_vregs: int = 32
    n_contexts: int = 0
    fma_pipes: int = 2
    fma_latency: int = 4
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    tcm_bytes: int = 0
    clock_mhz: int = 1000
    issue_width: int = 4
    load_pipes: int = 1
    store_pipes: int = 1
    permute_pipes: int = 1
    shift_pipes: int = 1
    scalar_pipes: int = 1
    address_slots: int = 2
    ddr_bytes_per_cycle: float = 16.0
    ddr_latency_cycles: int = 100
    ddr_pj_per_byte: float = 40.0
    packet_pj: float = 12.0
    static_mw: float = 30.0

    def __post_init__(self):
        if self.vlen_bytes < 16 or self.vlen_bytes & (self.vlen_bytes - 1):
            raise ValueError(f"machine {self.name}: vlen_bytes must be a power of two >= 16, got {self.vlen_bytes}")
        if self.n_vregs < 8:
            raise ValueError(f"machine {self.name}: n_vregs must be at least 8, got {self.n_vregs}")
        for field in ("issue_width", "address_slots", "load_pipes", "store_pipes", "fma_pipes", "permute_pipes", "shift_pipes", "scalar_pipes", "clock_mhz"):
            if getattr(self, field) < 1:
                raise ValueError(f"machine {self.name}: {field} must be at least 1, got {getattr(self, field)}")
        if self.ddr_bytes_per_cycle <= 0:
            raise ValueError(f"machine {self.name}: ddr_bytes_per_cycle must be above 0, got {self.ddr_bytes_per_cycle}")

    @property
    def near_bytes(self) -> int:
        """Bytes of the memory that kernels work from: the scratchpad, or the L2 cache where there is none."""
        return self.tcm_bytes or self.l2_bytes

    @property
    def lanes(self) -> int:
        """Elements of every vector value: one per four bytes of a register."""
        return self.vlen_bytes // 4


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def _cache_bytes(index: int, default: int) -> int:
    """Size of cache `index` of cpu0 as Linux states it, or `default`."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}/size").read_text().strip()
        return int(text[:-1]) * {"K": 1024, "M": 1024 * 1024}[text[-1]]
    except (OSError, KeyError, ValueError, IndexError):
        return default


@functools.cache
def host_machine() -> Machine:
    """The CPU at hand as a DVX machine: one DVX register is one host register."""
    flags = _cpu_flags()
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= flags:
        vlen, regs = 64, 32
    elif {"avx2", "fma"} <= flags:
        vlen, regs = 32, 16
    elif platform.machine() in ("aarch64", "arm64"):
        vlen, regs = 16, 32
    else:
        vlen, regs = 16, 16
    return Machine("host", vlen_bytes=vlen, n_vregs=regs, l1_bytes=_cache_bytes(0, 32 * 1024), l2_bytes=_cache_bytes(2, 512 * 1024))


# dvx-h1 follows the published HVX shape: 128-byte vectors, 32 of them, 4 issue slots, VTCM instead of caches. dvx-m16 is of the size of
# a microcontroller's vector unit (Arm MVE: 16-byte vectors, 8 of them). DDR bandwidth, power and scratchpad sizes are estimates.
PRESETS = {
    "dvx-h1": Machine(
        "dvx-h1", vlen_bytes=128, n_vregs=32, n_contexts=4, fma_latency=2, l2_bytes=1024 * 1024, tcm_bytes=8 * 1024 * 1024,
        ddr_bytes_per_cycle=32.0, static_mw=100.0,
    ),
    "dvx-m16": Machine(
        "dvx-m16", vlen_bytes=16, n_vregs=8, n_contexts=1, fma_pipes=1, fma_latency=2, l1_bytes=16 * 1024, l2_bytes=128 * 1024,
        tcm_bytes=256 * 1024, clock_mhz=400, issue_width=2, address_slots=1, ddr_bytes_per_cycle=4.0, static_mw=5.0,
    ),
}  # fmt: skip


def machines() -> dict[str, Machine]:
    """Every machine that `options={"machine": name}` takes, by name."""
    return {"host": host_machine(), **PRESETS}


def resolve_machine(spec: str | Machine) -> Machine:
    """The Machine that `spec` names: a Machine, a preset's name, or the path of a TOML file with its fields.

    Raises:
        ValueError: no such preset or file, or a file with an unknown or bad field.
    """
    if isinstance(spec, Machine):
        return spec
    known = machines()
    if spec in known:
        return known[spec]
    if not str(spec).endswith(".toml"):
        raise ValueError(f"unknown machine {spec!r}: expected one of {sorted(known)}, a Machine, or the path of a .toml file")
    try:
        fields = tomllib.loads(Path(spec).read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"machine file {spec}: {error}") from error
    valid = {field.name for field in dataclasses.fields(Machine)}
    unknown = sorted(set(fields) - valid)
    if unknown:
        raise ValueError(f"machine file {spec}: unknown field {unknown[0]!r}; valid fields: {sorted(valid)}")
    try:
        return Machine(**{"name": Path(spec).stem, **fields})
    except TypeError as error:
        raise ValueError(f"machine file {spec}: {error}") from error
