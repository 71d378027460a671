"""Who may import whom: the table of docs/architecture.md, held against the syntax trees."""

from __future__ import annotations

import ast
import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("csrc", "lowering", "runtime", "dynamo_backend")

# package: the packages that it may import, besides itself
MAY_IMPORT = {"csrc": set(), "lowering": {"csrc"}, "runtime": {"csrc"}, "dynamo_backend": {"csrc", "lowering", "runtime"}}

# library: the files that may import it
ONLY_IN = {
    "torch": (
        "dynamo_backend/*", "lowering/__init__.py", "lowering/from_fx.py", "lowering/registry.py", "lowering/ops/*",
        "runtime/executor.py", "runtime/threads.py", "runtime/arena.py", "runtime/huge_pages.py", "runtime/trial.py",
    ),
    "networkx": ("dynamo_backend/partition*.py", "dynamo_backend/explain.py", "dynamo_backend/report*.py", "lowering/fuse.py"),
    "cffi": ("runtime/library.py",),
}  # fmt: skip

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """What `path` imports: "torch" for a library, "lowering/ops" style folders for our own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names] if node.module is None else [node.module.split(".")[0]]
            found |= {_resolve(path, node.level, name) for name in names} if node.level else {node.module.split(".")[0]}
    return found


def _resolve(path: Path, level: int, name: str) -> str:
    """The package that a relative import names. dynamo_backend is `accel`, the other packages are inside it."""
    here = path.relative_to(ROOT).parts[:-1]
    dotted = ("accel", *(here[1:] if here[0] == "dynamo_backend" else here))
    target = (*dotted[: len(dotted) - level + 1], name)
    return target[1] if target[1] in PACKAGES else "dynamo_backend"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_imports_only_what_its_layer_may(path):
    relative = path.relative_to(ROOT).as_posix()
    package = relative.split("/")[0]
    found = imports(path)
    assert found.isdisjoint({"accel"}), "imports inside the tree are relative"
    assert (found & set(PACKAGES)) <= MAY_IMPORT[package] | {package}
    for library, places in ONLY_IN.items():
        assert library not in found or any(fnmatch.fnmatch(relative, place) for place in places), f"{library} is not to be imported here"
