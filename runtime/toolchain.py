"""The C compiler: found, identified, called.

Order: `ACCEL_CC` (a command, with arguments if need be), the clang inside the `ziglang` wheel, `clang`, `gcc`. Flags keep
IEEE semantics (no fast-math, products fused only where the C says fma) and leave the kernels free of libc. What is found
depends on the environment only, so it is cached per process by the values of the variables that are read.

The wheel's compiler is called as `zig clang`, which is what `zig cc` calls in its turn: half the time of a small unit, and
precompiled headers work. `zig cc` is left to link, since it knows the host's linker and libc.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from .errors import CompileError, ToolchainError

__all__ = ["COMPILE_TIMEOUT_S", "Toolchain", "describe", "find_toolchain", "host_cpu", "include_dir", "run_compiler"]

COMPILE_TIMEOUT_S = 120.0
VERSION_TIMEOUT_S = 60.0
STDERR_LINES = 12  # of its begin and of its end, in a message

# -fno-trapping-math: nobody reads the FP exception flags; NaN, infinities and signed zeros keep their meaning.
# -fwrapv, -fno-strict-aliasing: DVX integers wrap, and one arena byte holds different types over a call.
COMMON_FLAGS = (
    "-O2",
    "-std=gnu11",
    "-fPIC",
    "-w",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fwrapv",
    "-fno-strict-aliasing",
    "-fno-stack-protector",
    "-U_FORTIFY_SOURCE",
)
KIND_FLAGS = {
    # zig cc turns UBSan on by default.
    "zig": ("-fno-sanitize=all",),
    "clang": (),
    # gcc would not inline a global function of a shared object, since it could be interposed.
    "gcc": ("-fno-semantic-interposition",),
    "cc": (),
}
WHEEL = "ziglang wheel"
WHEEL_COMPILE = ("clang",)
WHEEL_LINK = ("cc",)
# Undefined memset and memcpy are found in the process's libc when the object is loaded.
LINK_FLAGS = ("-shared", "-nostdlib", "-Wl,-Bsymbolic")


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """A C compiler that answered.

    Attributes:
        kind: a key of KIND_FLAGS.
        command: the words before the flags, to compile.
        link_command: the same, to link.
        version: first line of its `--version`.
        origin: where it was found.
        extra_flags: the words of ACCEL_CFLAGS.
    """

    kind: str
    command: tuple[str, ...]
    link_command: tuple[str, ...]
    version: str
    origin: str
    extra_flags: tuple[str, ...] = ()

    def compile_flags(self, vlen_bytes: int, is_profile: bool = False) -> tuple[str, ...]:
        """Flags of every unit, without file names and directories: what cache keys hold."""
        profile = ("-DDVX_PROFILE",) if is_profile else ()
        return (*COMMON_FLAGS, *KIND_FLAGS[self.kind], *_target_flags(), f"-DDVX_VLEN={vlen_bytes}", *profile, *self.extra_flags)

    def include_flags(self) -> tuple[str, ...]:
        """Where headers are: ours, and <stdint.h> of clang itself where the wheel's clang would look for a libc."""
        own = (f"-I{include_dir()}",)
        if self.command[1:] != WHEEL_COMPILE:
            return own
        return (*own, "-nostdlibinc", "-isystem", str(Path(self.command[0]).parent / "lib" / "include"))

    def link_flags(self) -> tuple[str, ...]:
        """Flags that make a shared object of objects."""
        return (*LINK_FLAGS, *self.extra_flags)

    def libraries(self) -> tuple[str, ...]:
        """What stands behind the objects: gcc's own arithmetic, where its targets lack instructions."""
        return ("-lgcc",) if self.kind == "gcc" else ()


def include_dir() -> Path:
    """The directory of the DVX headers."""
    from .. import csrc

    return Path(csrc.__file__).parent / "include"


@functools.cache
def host_cpu() -> tuple[str, ...]:
    """What `-march=native` depends on: architecture, model and feature words of the first CPU."""
    wanted = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part")
    found = [platform.system(), platform.machine()]
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if not line.strip():
                    break
                key, _, value = line.partition(":")
                if key.strip() in wanted:
                    found.append(value.strip())
    except OSError:
        found.append(platform.processor())
    return tuple(found)


def _target_flags() -> tuple[str, ...]:
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return ("-mcpu=native",)
    if machine not in ("x86_64", "amd64"):
        return ()
    # Both compilers split 64-byte vectors in two on most AVX-512 hosts unless told not to.
    has_avx512 = any("avx512f" in words.split() for words in host_cpu())
    return ("-march=native", "-mprefer-vector-width=512") if has_avx512 else ("-march=native",)


def find_toolchain(version_cache: Path | None = None) -> Toolchain:
    """The first compiler of the order above that answers `--version`.

    Args:
        version_cache: a directory that keeps versions between processes, so that a warm start runs no compiler.

    Raises:
        ToolchainError: ACCEL_CC is set and does not work, or no compiler is found.
    """
    return _find(os.environ.get("ACCEL_CC", ""), os.environ.get("ACCEL_CFLAGS", ""), os.environ.get("PATH", ""), version_cache)


@functools.lru_cache(maxsize=16)
def _find(accel_cc: str, accel_cflags: str, path: str, version_cache: Path | None) -> Toolchain:
    rejected = []
    for origin, command in _candidates(accel_cc, path):
        try:
            version = _cached_version(command, version_cache)
        except ToolchainError as error:
            rejected.append(f"{origin}: {error}")
            continue
        link_command = (command[0], *WHEEL_LINK) if origin == WHEEL else command
        return Toolchain(_kind(command, version), command, link_command, version, origin, tuple(shlex.split(accel_cflags)))
    tried = "; ".join(rejected) if rejected else "neither the ziglang wheel nor clang nor gcc is installed"
    raise ToolchainError(f"no C compiler: {tried}. Install one with `pip install ziglang`, or set ACCEL_CC")


def _candidates(accel_cc: str, path: str) -> list[tuple[str, tuple[str, ...]]]:
    if accel_cc.strip():
        return [("ACCEL_CC", tuple(shlex.split(accel_cc)))]
    found = []
    wheel = importlib.util.find_spec("ziglang")
    if wheel is not None and wheel.submodule_search_locations:
        binary = Path(wheel.submodule_search_locations[0]) / "zig"
        if binary.exists():
            found.append((WHEEL, (str(binary), *WHEEL_COMPILE)))
    for name in ("clang", "gcc"):
        location = shutil.which(name, path=path)
        if location:
            found.append(("PATH", (location,)))
    return found


def _kind(command: tuple[str, ...], version: str) -> str:
    if Path(command[0]).name == "zig":
        return "zig"
    if "clang" in version:
        return "clang"
    return "gcc" if "gcc" in version.lower() or "GCC" in version else "cc"


def _cached_version(command: tuple[str, ...], version_cache: Path | None) -> str:
    """`_version`, kept on disk under the identity of the binary: its path, size and time of change."""
    location = shutil.which(command[0])
    if location is None:
        raise ToolchainError(f"{command[0]} is not an executable")
    if version_cache is None:
        return _version(command)
    stat = os.stat(location)
    identity = "\0".join((*command, os.path.realpath(location), str(stat.st_size), str(stat.st_mtime_ns)))
    entry = version_cache / hashlib.sha256(identity.encode()).hexdigest()[:32]
    try:
        if version := entry.read_text():
            return version
    except (OSError, UnicodeDecodeError):
        pass  # a miss
    version = _version(command)
    try:
        version_cache.mkdir(parents=True, exist_ok=True)
        partial = entry.with_name(f"{entry.name}.{os.getpid()}")
        partial.write_text(version)
        os.replace(partial, entry)
    except OSError:
        pass  # the next process asks again
    return version


def _version(command: tuple[str, ...]) -> str:
    try:
        done = _run((*command, "--version"), Path.cwd(), VERSION_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{shlex.join(command)} --version: {error}") from error
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise ToolchainError(f"{shlex.join(command)} --version: exit status {done.returncode}")
    return lines[0]


def run_compiler(command: tuple[str, ...], workdir: Path, timeout_s: float = COMPILE_TIMEOUT_S) -> None:
    """Run a compiler or linker in `workdir`, where it may also keep its own temporary files.

    Raises:
        CompileError: it cannot be started, fails, crashes, or runs longer than `timeout_s`; with begin and end of its stderr.
    """
    try:
        done = _run(command, workdir, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"no result after {timeout_s:g} s: {shlex.join(command)}") from error
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be started: {error}") from error
    if done.returncode == 0:
        return
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    raise CompileError(f"{how}: {shlex.join(command)}\n{_excerpt(done.stderr.splitlines())}")


def _excerpt(lines: list[str]) -> str:
    """The first error and how it ended."""
    if len(lines) > 2 * STDERR_LINES:
        lines = [*lines[:STDERR_LINES], "...", *lines[-STDERR_LINES:]]
    return "\n".join(lines)


def _run(command: tuple[str, ...], workdir: Path, timeout_s: float) -> subprocess.CompletedProcess:
    """subprocess.run in a process group of its own, which is killed whole on a time-out or an interrupt."""
    # zig keeps a cache of its own; ours stands before it, so its files go with the work directory.
    environment = {**os.environ, "LC_ALL": "C", "ZIG_GLOBAL_CACHE_DIR": str(workdir), "ZIG_LOCAL_CACHE_DIR": str(workdir)}
    process = subprocess.Popen(
        command,
        cwd=workdir,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except BaseException:  # an interrupt, too, must leave no compiler behind
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def describe() -> dict[str, str]:
    """What `accel doctor` prints about the compiler: label -> value."""
    try:
        found = find_toolchain()
    except ToolchainError as error:
        return {"C compiler": "none", "reason": str(error)}
    return {
        "C compiler": shlex.join(found.command),
        "version": found.version,
        "found as": found.origin,
        "flags": " ".join(found.compile_flags(vlen_bytes=0)).replace("-DDVX_VLEN=0", "-DDVX_VLEN=<machine>"),
    }
