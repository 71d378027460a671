"""The compiler is found in the documented order, and every way it can fail has its error."""

import importlib.util
import shutil
import stat
import time

import pytest

from accel.runtime import toolchain
from accel.runtime.errors import CompileError, ToolchainError

HAS_WHEEL = importlib.util.find_spec("ziglang") is not None


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.skipif(not HAS_WHEEL, reason="the ziglang wheel is not installed")
def test_find_prefers_the_wheel():
    found = toolchain.find_toolchain()
    assert (found.kind, found.origin) == ("zig", "ziglang wheel")
    assert "clang" in found.version


def test_find_accel_cc_comes_first_and_takes_arguments(monkeypatch, tmp_path):
    fake = script(tmp_path / "fakecc", 'echo "fake clang version 1 $1"')
    monkeypatch.setenv("ACCEL_CC", f"{fake} --target=x")
    found = toolchain.find_toolchain()
    assert (found.kind, found.origin, found.command) == ("clang", "ACCEL_CC", (str(fake), "--target=x"))
    assert found.version == "fake clang version 1 --target=x"


def test_find_clang_before_gcc_on_the_path(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    script(tmp_path / "gcc", "echo gcc 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert toolchain.find_toolchain().kind == "gcc"
    (tmp_path / "more").mkdir()
    script(tmp_path / "more" / "clang", "echo clang version 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{tmp_path}/more:/usr/bin:/bin")
    assert toolchain.find_toolchain().kind == "clang"


def test_find_goes_on_after_a_broken_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    script(tmp_path / "clang", "exit 3")
    script(tmp_path / "gcc", "echo gcc 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert toolchain.find_toolchain().command == (str(tmp_path / "gcc"),)


def test_find_without_any_compiler_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="pip install ziglang"):
        toolchain.find_toolchain()
    assert toolchain.describe()["C compiler"] == "none"


@pytest.mark.parametrize("command", ["/bin/false", "/no/such/compiler"])
def test_find_a_wrong_accel_cc_is_an_error(monkeypatch, command):
    monkeypatch.setenv("ACCEL_CC", command)
    with pytest.raises(ToolchainError, match=command):
        toolchain.find_toolchain()


def test_version_is_kept_between_processes(monkeypatch, tmp_path):
    fake = script(tmp_path / "fakecc", f"echo run >> {tmp_path}/runs; echo gcc 1")
    monkeypatch.setenv("ACCEL_CC", str(fake))
    for _ in range(2):
        toolchain._find.cache_clear()
        assert toolchain.find_toolchain(tmp_path / "versions").version == "gcc 1"
    assert (tmp_path / "runs").read_text() == "run\n"


def test_version_of_a_changed_compiler_is_asked_again(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCEL_CC", str(script(tmp_path / "fakecc", "echo gcc 1")))
    assert toolchain.find_toolchain(tmp_path / "versions").version == "gcc 1"
    script(tmp_path / "fakecc", "echo gcc 2, a longer one")
    toolchain._find.cache_clear()
    assert toolchain.find_toolchain(tmp_path / "versions").version == "gcc 2, a longer one"


def test_flags_keep_ieee_and_take_the_environment(monkeypatch):
    monkeypatch.setenv("ACCEL_CFLAGS", "-g '-DNAME=a b'")
    flags = toolchain.find_toolchain().compile_flags(64, is_profile=True)
    assert {"-ffp-contract=off", "-DDVX_VLEN=64", "-DDVX_PROFILE", "-g", "-DNAME=a b"} <= set(flags)
    assert not {"-ffast-math", "-Ofast", "-ffinite-math-only"} & set(flags)


def test_compile_error_carries_begin_and_end_of_stderr(tmp_path):
    fake = script(tmp_path / "cc", "for i in $(seq 100); do echo line $i >&2; done; exit 1")
    with pytest.raises(CompileError) as error:
        toolchain.run_compiler((str(fake), "a.c"), tmp_path)
    assert "line 1\n" in str(error.value) and "line 100" in str(error.value) and "line 50\n" not in str(error.value)


def test_compile_crash_names_the_signal(tmp_path):
    with pytest.raises(CompileError, match="signal 11"):
        toolchain.run_compiler((str(script(tmp_path / "cc", "kill -SEGV $$")),), tmp_path)


def test_compile_timeout_kills_the_compiler_and_its_children(tmp_path):
    fake = script(tmp_path / "cc", "sleep 30 & sleep 30; wait")
    started = time.monotonic()
    with pytest.raises(CompileError, match=r"no result after 0\.2 s"):
        toolchain.run_compiler((str(fake),), tmp_path, timeout_s=0.2)
    assert time.monotonic() - started < 10  # a surviving child would hold the pipes for 30 s


def test_compile_error_when_it_cannot_be_started(tmp_path):
    with pytest.raises(CompileError, match="cannot be started"):
        toolchain.run_compiler((str(tmp_path / "missing"),), tmp_path)


def test_describe_names_compiler_and_flags():
    described = toolchain.describe()
    assert set(described) == {"C compiler", "version", "found as", "flags"}
    assert shutil.which(described["C compiler"].split()[0])
