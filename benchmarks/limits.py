"""What this machine can do at most: fused multiply-adds per second, and bytes copied per second, both measured.

The peak is that of a loop of independent FMAs in registers, compiled by the C compiler that accel uses.
"""

from __future__ import annotations

import functools
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cffi
import torch
from accel.runtime.toolchain import find_toolchain, run_compiler

__all__ = ["copy_of", "fma_gflops"]

# 12 chains hide a latency of 4 to 6 cycles on two pipes, and with two operands fit 16 registers.
N_CHAINS = 12
N_REPEATS = 4
COMPILE_TIMEOUT_S = 60
SOURCE = """
#ifdef __AVX512F__
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
typedef float vector __attribute__((vector_size(WIDTH)));
long fma_flops(long rounds, float *out)
{
    vector a = (vector){0} + 0.999f, b = (vector){0} + 1e-3f, sum = {0};
    vector %(declare)s;
    for (long i = 0; i < rounds; i++) { %(step)s }
    sum = %(sum)s;
    *out = sum[0];
    return rounds * %(chains)d * 2 * (WIDTH / 4);
}
"""


def fma_gflops(threads: int, rounds: int = 2_000_000) -> float:
    """Float32 Gflop/s of `threads` threads that do nothing but FMAs; the best of a few tries."""
    library, new_float = _library()

    def flops(_: int) -> int:
        return library.fma_flops(rounds, new_float())

    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(N_REPEATS):
            started = time.perf_counter()
            total = sum(pool.map(flops, range(threads)))
            best = max(best, total / (time.perf_counter() - started) / 1e9)
    return best


def copy_of(n_bytes: int):
    """A callable that copies, reading and writing `n_bytes` in all: torch's copy of a contiguous tensor."""
    source = torch.ones(max(n_bytes // 8, 1))  # half of the bytes, 4 each
    target = torch.empty_like(source)
    return lambda *_: target.copy_(source)


@functools.cache
def _library():
    chains = [f"c{i}" for i in range(N_CHAINS)]
    text = SOURCE % {
        "declare": ", ".join(f"{c} = a * {i}.0f" for i, c in enumerate(chains)),
        "step": " ".join(f"{c} = {c} * a + b;" for c in chains),
        "sum": " + ".join(chains),
        "chains": N_CHAINS,
    }
    ffi = cffi.FFI()
    ffi.cdef("long fma_flops(long rounds, float *out);")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "peak.c").write_text(text)
        toolchain = find_toolchain(Path(folder))
        flags = [flag for flag in toolchain.compile_flags(32) if "contract" not in flag]
        run_compiler((*toolchain.command, *flags, *toolchain.include_flags(), "-ffp-contract=fast", "-c", "peak.c", "-o", "peak.o"), Path(folder), COMPILE_TIMEOUT_S)
        run_compiler((*toolchain.link_command, *toolchain.link_flags(), "-o", "peak.so", "peak.o", *toolchain.libraries()), Path(folder), COMPILE_TIMEOUT_S)
        return ffi.dlopen(str(Path(folder) / "peak.so")), functools.partial(ffi.new, "float *")
