"""Partition source -> loaded shared object.

Units are compiled in parallel, one compiler process per core, and linked to one object. The linked result, the objects of
single units and the precompiled headers are all cached by what they are made of, so equal units of different partitions
and models are compiled once. Every failure is a BuildError (errors.py); none leaves anything half-made behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..csrc.abi import PartitionSource
from .cache import Cache, digest_of
from .errors import BuildError, CompileError
from .library import Library
from .toolchain import COMPILE_TIMEOUT_S, Toolchain, find_toolchain, host_cpu, include_dir, run_compiler

__all__ = ["BuiltPartition", "build", "build_key", "build_pool_library", "compilers_at_rest"]

logger = logging.getLogger("accel.runtime.build")

# What a unit of ours begins with.
HEADERS = ("dvx.h", "dvx_runtime.h", "dvx_kernel.h")
PRECOMPILED_SUFFIX = {"zig": ".pch", "clang": ".pch", "gcc": ".gch"}
KEY_VERSION = "1"  # part of every key; to be raised when the meaning of an entry changes


@dataclasses.dataclass(frozen=True)
class BuiltPartition:
    """A partition that can be called through `library.entry`.

    Attributes:
        name: the source's name.
        key: the cache key of the shared object.
        is_profile: built with -DDVX_PROFILE.
        is_cached: nothing had to be compiled or linked.
        seconds: wall time of the build.
        load_seconds: the part of it that loading the object took.
    """

    name: str
    key: str
    library: Library
    is_profile: bool
    is_cached: bool
    seconds: float
    load_seconds: float = 0.0


def build(
    source: PartitionSource,
    *,
    cache_dir: str | os.PathLike | None = None,
    profile: bool = False,
    extra_flags: tuple[str, ...] = (),
    timeout_s: float = COMPILE_TIMEOUT_S,
) -> BuiltPartition:
    """Compile, link and load `source`, or load what an equal build left in the cache. May be called from many threads.

    Args:
        cache_dir: the cache's root; None takes `$ACCEL_CACHE_DIR`, else ~/.cache/accel.
        profile: build with counters (`Executor.run_counted`).
        extra_flags: more flags for the compiler, such as ("-fsanitize=address",).
        timeout_s: time that one compiler process may take.

    Raises:
        ToolchainError: no usable C compiler.
        CompileError: the compiler failed, crashed or timed out, or no directory takes its files.
        LoadError: the result cannot be loaded.
    """
    started = time.perf_counter()
    job = _job(source, cache_dir, profile, extra_flags, timeout_s)
    key = _object_key(job, source)
    cached = job.cache.lookup(key, ".so")
    path = cached or _in_workdir(job.cache, lambda workdir: _compile_and_link(job, key, source, workdir))
    compiled = time.perf_counter()
    library = Library(path)
    ended = time.perf_counter()
    return BuiltPartition(source.name, key, library, profile, cached is not None, ended - started, ended - compiled)


def build_key(source: PartitionSource, *, cache_dir: str | os.PathLike | None = None) -> str:
    """The key under which the cache has what `build(source)` makes. Raises ToolchainError."""
    return _object_key(_job(source, cache_dir), source)


def build_pool_library(text: str, timeout_s: float = COMPILE_TIMEOUT_S) -> Path:
    """The shared object of csrc/src/pool.c, which unlike kernels is linked against libc. Raises as `build` does."""
    cache = Cache()
    toolchain = find_toolchain(cache.version_dir)
    job = _Job(cache, toolchain, ("-O2", "-fPIC", "-shared", "-pthread"), timeout_s)
    key = job.key("pool", text)

    def link(workdir: Path) -> Path:
        (workdir / "pool.c").write_text(text, encoding="utf-8")
        run_compiler((*toolchain.link_command, *job.flags, "pool.c", "-o", "pool.so"), workdir, timeout_s)
        return cache.publish(key, ".so", (workdir / "pool.so").read_bytes())

    return cache.lookup(key, ".so") or _in_workdir(cache, link)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all compiler calls of one build share."""

    cache: Cache
    toolchain: Toolchain
    flags: tuple[str, ...]
    timeout_s: float

    @functools.cached_property
    def _base(self) -> str:
        return digest_of(KEY_VERSION, self.toolchain.version, _headers_digest(), *host_cpu(), "flags", *self.flags)

    def key(self, *parts: str) -> str:
        """The cache key of something made of `parts` with this compiler, these flags and headers, for this CPU."""
        return digest_of(self._base, *parts)

    def compile(self, arguments: tuple[str, ...], workdir: Path) -> None:
        command = (*self.toolchain.command, *self.flags, *self.toolchain.include_flags(), *arguments)
        with _compiler_slots():
            run_compiler(command, workdir, self.timeout_s)

    def link(self, objects: list[str], output: str, workdir: Path) -> None:
        toolchain = self.toolchain
        run_compiler((*toolchain.link_command, *toolchain.link_flags(), "-o", output, *objects, *toolchain.libraries()), workdir, self.timeout_s)


def _job(source: PartitionSource, cache_dir: str | os.PathLike | None, profile: bool = False, extra_flags: tuple[str, ...] = (), timeout_s: float = COMPILE_TIMEOUT_S) -> _Job:
    cache = Cache(cache_dir)
    toolchain = find_toolchain(cache.version_dir)
    return _Job(cache, toolchain, (*toolchain.compile_flags(source.vlen_bytes, profile), *extra_flags), timeout_s)


def _object_key(job: _Job, source: PartitionSource) -> str:
    return job.key("so", *job.toolchain.link_flags(), *(text for _, text in source.units))


@functools.cache
def _headers_digest() -> str:
    headers = sorted(include_dir().glob("*.h"))
    return digest_of(*(part for header in headers for part in (header.name, header.read_bytes())))


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _compiler_slots() -> threading.BoundedSemaphore:
    """One slot per core, shared by all builds of this process."""
    return threading.BoundedSemaphore(_n_cores())


@functools.cache
def _rest() -> threading.Lock:
    return threading.Lock()


@contextlib.contextmanager
def compilers_at_rest() -> Iterator[None]:
    """Inside, no compiler of this process runs: those that do are waited for, others wait. For measurements."""
    slots, n_slots = _compiler_slots(), _n_cores()
    with _rest():  # two that took slots in turn would wait for each other
        for _ in range(n_slots):
            slots.acquire()
    try:
        yield
    finally:
        slots.release(n_slots)


if hasattr(os, "register_at_fork"):  # a child must not wait for slots that its parent's threads hold
    os.register_at_fork(after_in_child=_compiler_slots.cache_clear)
    os.register_at_fork(after_in_child=_rest.cache_clear)


def _in_workdir(cache: Cache, step: Callable[[Path], Path]) -> Path:
    """`step` in an empty directory: below TMPDIR, or below the cache's root where TMPDIR is missing or full."""
    failures = []
    for parent in (None, cache.root):
        try:
            with tempfile.TemporaryDirectory(prefix="accel-build-", dir=parent, ignore_cleanup_errors=True) as workdir:
                return step(Path(workdir))
        except OSError as error:
            failures.append(f"{parent or tempfile.gettempdir()}: {error}")
        except CompileError as error:
            if "No space left on device" not in str(error):
                raise
            failures.append(str(error))
    raise CompileError("no directory takes the compiler's files: " + "; ".join(failures))


def _compile_and_link(job: _Job, key: str, source: PartitionSource, workdir: Path) -> Path:
    objects = _compile_units(job, [text for _, text in source.units], workdir)
    job.link([str(path) for path in objects], "partition.so", workdir)
    return job.cache.publish(key, ".so", (workdir / "partition.so").read_bytes())


def _compile_units(job: _Job, texts: list[str], workdir: Path) -> list[Path]:
    """The object files of `texts`, in their order; those that the cache lacks are compiled."""
    keys = [job.key("o", text) for text in texts]
    found = {key: job.cache.lookup(key, ".o") for key in keys}
    missing = [index for index, key in enumerate(keys) if found[key] is None]
    headers = _precompiled_headers(job, workdir) if any(_starts_with_headers(texts[index]) for index in missing) else ()

    def compile_unit(index: int) -> Path:
        name = f"unit{index}"
        (workdir / f"{name}.c").write_text(texts[index], encoding="utf-8")
        job.compile((*(headers if _starts_with_headers(texts[index]) else ()), "-c", f"{name}.c", "-o", f"{name}.o"), workdir)
        return job.cache.publish(keys[index], ".o", (workdir / f"{name}.o").read_bytes())

    with ThreadPoolExecutor(max(1, min(len(missing), _n_cores()))) as pool:
        for index, path in zip(missing, pool.map(compile_unit, missing)):
            found[keys[index]] = path
    return [found[key] for key in keys]


def _starts_with_headers(text: str) -> bool:
    """Whether nothing stands before `#include "dvx.h"` that could change its meaning."""
    before, include, _ = text.partition(f'#include "{HEADERS[0]}"')
    return bool(include) and "#" not in before


def _precompiled_headers(job: _Job, workdir: Path) -> tuple[str, ...]:
    """Flags that put the precompiled DVX headers before a unit; none where the compiler cannot do it.

    They hold paths and times of the headers, so these are part of the key.
    """
    suffix = PRECOMPILED_SUFFIX.get(job.toolchain.kind)
    if suffix is None:
        return ()
    headers = [include_dir() / name for name in HEADERS]
    try:
        key = job.key("headers", *(f"{header} {header.stat().st_mtime_ns}" for header in include_dir().glob("*.h")))
        path = job.cache.lookup(key, suffix)
        if path is None:
            includes = [word for header in headers for word in ("-include", header.name)]
            job.compile((*includes, "-x", "c-header", os.devnull, "-o", f"headers{suffix}"), workdir)
            path = job.cache.publish(key, suffix, (workdir / f"headers{suffix}").read_bytes())
    except (BuildError, OSError) as error:
        logger.info("headers are not precompiled: %s", error)
        return ()
    return ("-include", str(path.with_suffix(""))) if suffix == ".gch" else ("-include-pch", str(path))
