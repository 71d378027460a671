"""The bridge to C: the one file that imports cffi.

Declares the entry function of csrc/abi.py and the struct of csrc/include/dvx_runtime.h, loads shared objects and makes
`dvx_runtime` values. Pointers that Python only passes on are declared as what is cheap to pass: `buffers` and `sizes` as
char pointers, so that a `bytes` object goes through without a copy, and the arena as an integer.
"""

from __future__ import annotations

import os
from pathlib import Path

import cffi

from .errors import LoadError

__all__ = ["DVX_POOL", "GNU_OPENMP", "Library", "ThreadLibrary", "make_counters", "make_counting_runtime", "make_runtime"]

ffi = cffi.FFI()
ffi.cdef(
    """
    typedef struct dvx_runtime {
        void (*parallel)(void (*fn)(void *), void *data, unsigned n_threads, unsigned flags);
        int (*thread_num)(void);
        int (*num_threads)(void);
        int32_t n_threads;
        int32_t n_pauses;
        int64_t *counters;
        int64_t n_blocks;
    } dvx_runtime;
    int32_t accel_main(const char *buffers, const char *sizes, uintptr_t arena, const dvx_runtime *rt);
    int32_t accel_prepare(const char *buffers, const char *sizes, uintptr_t arena, const dvx_runtime *rt);

    void GOMP_parallel(void (*fn)(void *), void *data, unsigned n_threads, unsigned flags);
    int omp_get_thread_num(void);
    int omp_get_num_threads(void);

    void dvx_pool_parallel(void (*fn)(void *), void *data, unsigned n_threads, unsigned flags);
    int dvx_pool_thread_num(void);
    int dvx_pool_num_threads(void);
    """
)


GNU_OPENMP = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
DVX_POOL = ("dvx_pool_parallel", "dvx_pool_thread_num", "dvx_pool_num_threads")


# Pauses of a thread that waits for the others before it yields: half a millisecond, since whoever it yields to may keep the core for as long
# (beside one other busy process, a product of 256 rows took 2.5 times as long with 200 pauses); some microseconds where threads share
# cores, and the one that is waited for may be behind it (on one core for two threads, 1,000 pauses took twice the time of 200).
PAUSES, PAUSES_ON_SHARED_CORES = 20_000, 200


class Library:
    """A loaded partition; it stays loaded as long as this object lives.

    Attributes:
        path: the shared object.
        entry: `accel_main` as a callable (buffers: bytes, sizes: bytes, arena: int, runtime) -> status.

    Raises:
        LoadError: the file cannot be loaded, or has no `accel_main`.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._handle = ffi.dlopen(str(path), ffi.RTLD_NOW | ffi.RTLD_LOCAL)
            self.entry = self._handle.accel_main
        except (OSError, AttributeError) as error:
            raise LoadError(f"{path}: {error}") from error

    @property
    def prepare(self):
        """`accel_prepare`, called as `entry` is. Raises LoadError where the object has none."""
        try:
            return self._handle.accel_prepare
        except AttributeError as error:
            raise LoadError(f"{self.path}: {error}") from error


class ThreadLibrary:
    """The three functions that dvx_runtime hands to kernels, out of a library that is or gets loaded.

    Args:
        path: the library's file.
        names: its functions for `parallel`, `thread_num` and `num_threads`: GNU_OPENMP or DVX_POOL.

    Raises:
        LoadError: the file cannot be loaded, or lacks one of the functions.
    """

    def __init__(self, path: Path, names: tuple[str, str, str]):
        self.path = path
        try:
            self._handle = ffi.dlopen(str(path), ffi.RTLD_NOW | ffi.RTLD_LOCAL)
            self.parallel, self.thread_num, self.num_threads = (getattr(self._handle, name) for name in names)
        except (OSError, AttributeError) as error:
            raise LoadError(f"{path}: {error}") from error


def make_runtime(threads: ThreadLibrary | None, n_threads: int):
    """A `dvx_runtime *` for `n_threads` threads; single-threaded without `threads`."""
    if threads is None or n_threads <= 1:
        return ffi.new("dvx_runtime *", {"n_threads": 1})
    functions = {"parallel": threads.parallel, "thread_num": threads.thread_num, "num_threads": threads.num_threads}
    n_pauses = PAUSES if n_threads <= _available_cores() else PAUSES_ON_SHARED_CORES
    return ffi.new("dvx_runtime *", {"n_threads": n_threads, "n_pauses": n_pauses, **functions})


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_counters(n_counters: int):
    """An `int64_t[n_counters]`, zeroed."""
    return ffi.new("int64_t[]", max(1, n_counters))


def make_counting_runtime(counters, n_blocks: int):
    """A single-threaded `dvx_runtime *` that counts into `counters`, which must outlive it."""
    return ffi.new("dvx_runtime *", {"n_threads": 1, "counters": counters, "n_blocks": n_blocks})
