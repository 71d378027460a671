"""Which threads run kernels: torch's own OpenMP workers where they can be had, else a small pool, else the caller alone.

Two pools of threads on one small machine would fight, so kernels are handed `GOMP_parallel` out of the library that torch
has loaded. A forked child has none of its parent's workers: there kernels run on the calling thread.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from pathlib import Path

import torch

from .build import build_pool_library
from .errors import BuildError
from .library import DVX_POOL, GNU_OPENMP, ThreadLibrary, make_runtime
from .toolchain import include_dir

__all__ = ["Runtimes", "describe", "shared_runtimes", "thread_library"]

logger = logging.getLogger("accel.runtime.threads")

# GNU's runtime and LLVM's and Intel's, which export GNU's entry points too.
OPENMP_NAME = re.compile(r"lib(gomp|omp|iomp5)\b.*\.(so|dylib)[.0-9]*")


def _openmp_files() -> list[Path]:
    """OpenMP libraries that this process has loaded, those that torch brings first."""
    try:
        maps = Path("/proc/self/maps").read_text()
        files = {Path(line.split(maxsplit=5)[5]) for line in maps.splitlines() if "/" in line}
    except OSError:  # not Linux: what torch brings is what it has loaded
        files = set((Path(torch.__file__).parent / "lib").glob("*omp*"))
    found = [path for path in files if OPENMP_NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: ("torch" not in str(path), "gomp" not in path.name, str(path)))


@functools.cache
def thread_library() -> ThreadLibrary | None:
    """The library whose threads run kernels, or None: then they run on the calling thread."""
    for path in _openmp_files():
        try:
            return ThreadLibrary(path, GNU_OPENMP)
        except BuildError as error:
            logger.info("%s", error)
    try:
        text = (include_dir().parent / "src" / "pool.c").read_text()
        return ThreadLibrary(build_pool_library(text), DVX_POOL)
    except (BuildError, OSError) as error:
        logger.warning("kernels run on one thread: torch has no OpenMP that can be used, and the thread pool is not to be had: %s", error)
        return None


class Runtimes(dict):
    """Number of threads -> `dvx_runtime *`, made when first asked for; single-threaded in a forked child.

    Args:
        max_threads: what a larger number is cut to.
    """

    def __init__(self, max_threads: int):
        super().__init__()
        self._max_threads = max_threads
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_threads)

    def __missing__(self, n_threads: int):
        n_started = min(n_threads, self._max_threads)
        threads = thread_library() if n_started > 1 else None
        runtime = self[n_threads] = make_runtime(threads, n_started)
        return runtime

    def _forget_threads(self) -> None:
        self._max_threads = 1
        self.clear()


@functools.cache
def shared_runtimes(max_threads: int) -> Runtimes:
    """The runtimes of all partitions that run on at most `max_threads` threads."""
    return Runtimes(max_threads)


def describe() -> dict[str, str]:
    """What `accel doctor` prints about threads: label -> value."""
    library = thread_library()
    return {"threads": str(torch.get_num_threads()), "thread library": str(library.path) if library else "none (single-threaded)"}
