"""The generated header and docs are fresh; the headers compile cleanly for every kind of host."""

from __future__ import annotations

import subprocess

import intrinsics
import pytest

from accel.csrc import INCLUDE_DIR, gen, isa

VLENS = (16, 32, 64, 128, 256)
GCC_HOSTS = ("-march=native", "-march=x86-64", "-march=x86-64-v3", "-march=x86-64-v4")
ZIG_HOSTS = ("-mcpu=native", "-mcpu=x86_64", "-mcpu=x86_64_v3", "-mcpu=x86_64_v4", "--target=aarch64-linux-gnu")


def compile_text(compiler, text, tmp_path, *flags):
    """Standard error of compiling `text`, warnings being errors."""
    if compiler not in intrinsics.compilers():
        pytest.skip(f"no {compiler}")
    (tmp_path / "unit.c").write_text(text)
    command = [*intrinsics.compilers()[compiler], *intrinsics.FLAGS, f"-I{INCLUDE_DIR}", *flags, "unit.c"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path).stderr


def test_generated_files_are_fresh():
    stale = [path.name for path, text in gen.outputs().items() if path.read_text() != text]
    assert not stale, f"{stale} are stale: run python -m accel.csrc.gen"


def test_check_names_stale_files_and_writes_nothing(tmp_path, monkeypatch, capsys):
    old, missing = tmp_path / "old.h", tmp_path / "missing.md"
    old.write_text("old")
    monkeypatch.setattr(gen, "outputs", lambda: {old: "new", missing: "text"})
    assert gen.main(["--check"]) == 1
    assert "old.h is stale: run python -m accel.csrc.gen" in capsys.readouterr().err
    assert old.read_text() == "old" and not missing.exists()
    assert gen.main([]) == 0
    assert (old.read_text(), missing.read_text()) == ("new", "text")
    assert gen.main(["--check"]) == 0


def test_docs_name_every_row():
    text = gen.docs_text()
    assert all(f"| `{row.mnemonic}` |" in text and row.doc.replace("|", "\\|") in text for row in isa.ROWS)


@pytest.mark.parametrize("host", GCC_HOSTS)
def test_headers_are_clean_under_gcc(host, tmp_path):
    for vlen in VLENS:
        assert compile_text("gcc", '#include "dvx.h"', tmp_path, host, f"-DDVX_VLEN={vlen}", "-c") == ""


@pytest.mark.parametrize("host", ZIG_HOSTS)
def test_headers_are_clean_under_clang(host, tmp_path):
    for vlen in VLENS:
        assert compile_text("zig", '#include "dvx.h"', tmp_path, host, f"-DDVX_VLEN={vlen}", "-c") == ""


@pytest.mark.parametrize(("compiler", "host", "vlen"), [("gcc", GCC_HOSTS[3], 64), ("zig", ZIG_HOSTS[3], 64), ("zig", ZIG_HOSTS[4], 16)])
def test_headers_compile_for_hosts_other_than_this(compiler, host, vlen, tmp_path):
    assert compile_text(compiler, intrinsics.wrappers_text(), tmp_path, host, f"-DDVX_VLEN={vlen}", "-c") == ""


def test_uncounted_build_has_no_trace_of_counters(tmp_path):
    for compiler in intrinsics.compilers():
        for flag, is_there in (("-DDVX_COUNT", True), ("-DDVX_NOTHING", False)):
            assert compile_text(compiler, '#include "dvx.h"', tmp_path, "-DDVX_VLEN=16", flag, "-E", "-P", "-o", "expanded.c") == ""
            assert ("dvx_counters" in (tmp_path / "expanded.c").read_text()) == is_there
