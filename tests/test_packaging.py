"""The package list of pyproject.toml is what lies on disk, and the installed names are ours alone."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    prefix = max((known for known in SETUPTOOLS["package-dir"] if package == known or package.startswith(f"{known}.")), key=len)
    return ROOT.joinpath(SETUPTOOLS["package-dir"][prefix], *package.removeprefix(prefix).strip(".").split("."))


def test_package_list_is_what_lies_on_disk():
    on_disk = {path.parent for package in ("dynamo_backend", "lowering", "runtime", "csrc") for path in (ROOT / package).rglob("__init__.py")}
    assert {folder_of(package) for package in SETUPTOOLS["packages"]} == on_disk


def test_every_c_file_is_package_data():
    patterns = SETUPTOOLS["package-data"]["accel.csrc"]
    listed = {path for pattern in patterns for path in (ROOT / "csrc").glob(pattern)}
    assert listed == {path for suffix in ("h", "c") for path in (ROOT / "csrc").rglob(f"*.{suffix}")}


def test_distribution_installs_one_top_level_name():
    text = metadata.distribution("torch-accel").read_text("top_level.txt")
    assert text is None or text.split() == ["accel"]


def test_entry_point_names_the_backend():
    (entry,) = metadata.entry_points(group="torch_dynamo_backends", name="accel")
    assert entry.value == "accel:backend" and callable(entry.load())


def test_import_is_light():
    code = "import sys, accel; print(sorted({'torch', 'cffi', 'networkx', 'accel.lowering', 'accel.runtime'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
