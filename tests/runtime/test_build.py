"""Builds are cached, shared between processes, and fail with a BuildError and nothing else."""

import dataclasses
import importlib
import os
import select
import shutil
import stat

import pytest
import torch

from accel.runtime.build import build
from accel.runtime.cache import Cache
from accel.runtime.errors import CompileError, LoadError, ToolchainError
from accel.runtime.executor import Executor
from accel.runtime.toolchain import run_compiler

build_module = importlib.import_module("accel.runtime.build")  # the package's attribute of this name is the function

CALLER = """
#include <stdint.h>
#include "dvx_runtime.h"
float kernel_%(name)s(float x);
int32_t accel_main(void *const *b, const int64_t *s, char *arena, const dvx_runtime *rt) {
    ((float *)b[1])[0] = kernel_%(name)s(((const float *)b[0])[0]);
    return 0;
}
"""
KERNEL = "float kernel_%(name)s(float x) { return x * 2 + %(add)d; }\n"


@pytest.fixture
def compiled(monkeypatch):
    """The arguments of every compiler call."""
    calls = []

    def counting(command, *rest):
        calls.append(command)
        run_compiler(command, *rest)

    monkeypatch.setattr(build_module, "run_compiler", counting)
    return calls


def two_units(make_source, name="a", add=1):
    scalar = ("f32", (), ())
    words = {"name": name, "add": add}
    return make_source(KERNEL % words, CALLER % words, inputs=(scalar,), outputs=(scalar,))


def result_of(source, built):
    return Executor(built, source)(*(torch.tensor(3.0) for _ in source.inputs))[0].item()


def test_build_and_call(axpy):
    x, y, w = torch.randn(3, 10)
    torch.testing.assert_close(Executor(build(axpy), axpy)(x, y, w, 10), [x + y * w], rtol=0, atol=0)


def test_build_runs_no_compiler_the_second_time(axpy, compiled):
    assert not build(axpy).is_cached
    assert len(compiled) == 2  # one unit, one link
    assert build(axpy).is_cached
    assert len(compiled) == 2


def test_build_links_units(make_source):
    source = two_units(make_source)
    assert result_of(source, build(source)) == 7


def test_build_compiles_only_the_units_that_changed(make_source, compiled):
    source = two_units(make_source, add=1)
    build(source)
    assert len(compiled) == 3  # two units, one link
    changed = two_units(make_source, add=2)
    assert result_of(changed, build(changed)) == 8
    assert len(compiled) == 5


DVX_UNIT = """
#include "dvx.h"
int32_t accel_main(void *const *b, const int64_t *s, char *arena, const void *rt) {
    dvx_vst_sf((float *)b[1], dvx_vfadd_sf(dvx_vld_sf((const float *)b[0]), dvx_vsplat_sf(%d)));
    return 0;
}
"""


def dvx_source(make_source, text):
    vector = ("f32", (4,), (1,))
    return make_source(text, inputs=(vector,), outputs=(vector,))


@pytest.mark.parametrize("compiler", ["", "gcc", "clang"])
def test_build_precompiles_the_headers_once(make_source, compiled, monkeypatch, compiler):
    if compiler and not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    monkeypatch.setenv("ACCEL_CC", compiler)
    for number in (1, 2):
        source = dvx_source(make_source, DVX_UNIT % number)
        assert Executor(build(source), source)(torch.ones(4))[0].tolist() == [number + 1.0] * 4
    assert len([command for command in compiled if "c-header" in command]) == 1
    assert len([command for command in compiled if "-include-pch" in command or "-include" in command and "c-header" not in command]) == 2


def test_build_without_precompiled_headers_where_they_fail(make_source, compiled, monkeypatch):
    monkeypatch.setattr(build_module, "HEADERS", ("dvx.h", "no_such_header.h"))
    source = dvx_source(make_source, DVX_UNIT % 1)
    assert Executor(build(source), source)(torch.ones(4))[0].tolist() == [2.0] * 4
    assert not any("-include-pch" in command for command in compiled)


def test_build_keeps_a_units_own_macros_before_the_headers(make_source, compiled):
    source = dvx_source(make_source, "#define OWN 1\n" + DVX_UNIT % 1)
    build(source)
    assert not any("-include-pch" in command or "c-header" in command for command in compiled)


def test_build_ignores_names_in_the_key(axpy):
    renamed = dataclasses.replace(axpy, name="other", units=(("other.c", axpy.units[0][1]),))
    assert build(axpy).key == build(renamed).key


def test_build_key_depends_on_flags_compiler_and_vlen(axpy, monkeypatch):
    keys = {build(axpy).key, build(axpy, profile=True).key, build(dataclasses.replace(axpy, vlen_bytes=32)).key, build(axpy, extra_flags=("-DX",)).key}
    monkeypatch.setattr(build_module, "host_cpu", lambda: ("another cpu",))
    keys.add(build(axpy).key)
    monkeypatch.setattr(build_module, "_headers_digest", lambda: "other headers")
    keys.add(build(axpy).key)
    assert len(keys) == 6


def test_build_takes_a_cache_dir(axpy, tmp_path, cache_root):
    build(axpy, cache_dir=tmp_path / "mine")
    assert [entry.suffix for entry in Cache(tmp_path / "mine").entries() if entry.suffix == ".so"] == [".so"]
    assert list(Cache(cache_root).entries()) == []


def test_build_with_a_relative_cache_dir(make_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = two_units(make_source)
    assert result_of(source, build(source, cache_dir="mine")) == 7
    assert (tmp_path / "mine" / "entries").is_dir()


def test_build_takes_any_text_in_comments(make_source):
    source = make_source("/* s0·24, ≤ 3 */ int accel_main(void) { return 0; }")
    assert Executor(build(source), source)() == []


@pytest.mark.parametrize("n_bytes_kept", [0, 100, None])
def test_build_again_after_damage(axpy, n_bytes_kept):
    path = build(axpy).library.path
    content = path.read_bytes()
    damaged = content[:n_bytes_kept] if n_bytes_kept is not None else b"\0" * len(content)
    path.unlink()  # the loaded file itself must stay as it is
    path.write_bytes(damaged)
    built = build(axpy)
    assert not built.is_cached
    assert build(axpy).library.path == built.library.path  # whole again, and found


def test_build_in_an_unwritable_cache_dir(axpy, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    x, y, w = torch.randn(3, 4)
    for expected in (False, True):
        built = build(axpy, cache_dir=tmp_path / "file" / "cache")
        assert built.is_cached is expected
        torch.testing.assert_close(Executor(built, axpy)(x, y, w, 4), [x + y * w], rtol=0, atol=0)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_build_moves_to_the_cache_where_tmpdir_is_full(axpy, monkeypatch, cache_root):
    calls = []

    def full_at_first(command, workdir, timeout_s):
        calls.append(workdir)
        if len(calls) == 1:
            raise CompileError("fatal error: a.s: No space left on device")
        run_compiler(command, workdir, timeout_s)

    monkeypatch.setattr(build_module, "run_compiler", full_at_first)
    build(axpy)
    assert cache_root not in calls[0].parents and cache_root in calls[1].parents


def test_build_error_where_every_disk_is_full(axpy, monkeypatch):
    def full(*arguments, **fields):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_module.tempfile, "TemporaryDirectory", full)
    with pytest.raises(CompileError, match="no directory takes"):
        build(axpy)


def test_build_error_names_the_fault_of_the_text(make_source):
    with pytest.raises(CompileError, match="undeclared_thing"):
        build(make_source("int x = undeclared_thing;"))


def test_build_error_of_one_unit_of_many(make_source, cache_root):
    source = two_units(make_source)
    broken = dataclasses.replace(source, units=(*source.units, ("bad.c", "int x = undeclared_thing;")))
    with pytest.raises(CompileError, match="undeclared_thing"):
        build(broken)
    assert [entry for entry in Cache(cache_root).entries() if entry.suffix == ".so"] == []


def test_load_error_without_an_entry(make_source):
    with pytest.raises(LoadError, match="accel_main"):
        build(make_source("int other_name(void) { return 0; }"))


def test_load_error_of_an_undefined_symbol(make_source):
    with pytest.raises(LoadError, match="missing_function"):
        build(make_source("int missing_function(void); int accel_main(void) { return missing_function(); }"))


def test_toolchain_error_without_a_compiler(axpy, monkeypatch):
    monkeypatch.setenv("ACCEL_CC", "/bin/false")
    with pytest.raises(ToolchainError, match="/bin/false"):
        build(axpy)


def fake_compiler(path, body):
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1; exit 0; fi\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(("body", "message"), [("kill -SEGV $$", "signal 11"), ("exit 4", "exit status 4"), ("sleep 30", "no result after"), ("exit 0", "no directory takes")])
def test_compile_error_of_a_failing_compiler(axpy, monkeypatch, tmp_path, body, message):
    monkeypatch.setenv("ACCEL_CC", fake_compiler(tmp_path / "cc", body))
    with pytest.raises(CompileError, match=message):
        build(axpy, timeout_s=0.3)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_build_of_one_key_in_many_processes(make_source, cache_root):
    sources = [two_units(make_source, name="a"), two_units(make_source, name="b")]
    readers = []
    for _ in range(4):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            results = [result_of(source, build(source)) for source in sources]
            os.write(writer, repr(results).encode())
            os._exit(0)
        os.close(writer)
        readers.append((pid, reader))
    for pid, reader in readers:
        assert select.select([reader], [], [], 60)[0], "a build hangs"
        assert os.read(reader, 100) == b"[7.0, 7.0]"
        os.close(reader)
        assert os.waitpid(pid, 0)[1] == 0
    assert all(Cache(cache_root).lookup(entry.key, entry.suffix) for entry in Cache(cache_root).entries())
    assert not list(cache_root.rglob("partial-*"))
