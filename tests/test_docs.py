"""The texts that docs/architecture.md shows are what the compiler prints today; the README is complete; the Python examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from accel.__main__ import COMMANDS, OWN_PARSERS
from accel.options import READERS

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.md"
SOURCES = [path for folder in ("dynamo_backend", "lowering", "runtime", "csrc") for path in (DOCS.parent / folder).rglob("*.py")]
MARKED = re.compile(r"<!-- from: (?P<spec>[^>]+) -->\n```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
STAGES = {"graph": "graph.txt", "tensor": "partition_0/tensor.txt", "schedule": "partition_0/schedule.txt", "vector": "partition_0/vector.txt", "c": "partition_0/c.c"}


def dump(folder: Path) -> dict[str, str]:
    model = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.LayerNorm(96)).eval()
    compiled = torch.compile(model, backend="accel", options={"machine": "dvx-h1", "dump_dir": str(folder)})
    with torch.no_grad():
        compiled(torch.randn(8, 64))
    (graph,) = folder.iterdir()
    return {stage: (graph / path).read_text() for stage, path in STAGES.items()}


def first_loop(kernel: str, variable: str) -> str:
    """The first loop of a VectorProgram whose variable is called so and a number, moved to the left margin."""
    lines = kernel.splitlines()
    start = next(i for i, line in enumerate(lines) if re.match(rf"\s*loop {variable}\d+ in ", line))
    margin = len(lines[start]) - len(lines[start].lstrip())
    end = next(i for i in range(start + 1, len(lines)) if len(lines[i]) - len(lines[i].lstrip()) <= margin)
    return "\n".join(line[margin:] for line in lines[start:end]) + "\n"


def excerpt(texts: dict[str, str], spec: str) -> str:
    """`stage`, `vector, kernel NAME`, `vector, loop VARIABLE of kernel NAME` or `c, function NAME, N lines`."""
    stage, *rest = [part.strip() for part in spec.split(",")]
    text = texts[stage]
    loop = re.fullmatch(r"loop (\w+) of (kernel \w+)", rest[0]) if rest else None
    if loop or (rest and rest[0].startswith("kernel ")):
        name = loop[2] if loop else rest[0]
        text = next(part for part in re.split(r"(?=^kernel )", text, flags=re.MULTILINE) if part.startswith(name))
        text = first_loop(text, loop[1]) if loop else text
    elif rest:
        name = rest[0].removeprefix("function ")
        lines = text.splitlines()
        start = next(i for i, line in enumerate(lines) if name in line and line.rstrip().endswith("{"))
        count = int(rest[1].split()[0])
        end = next((i + 1 for i in range(start, len(lines)) if lines[i] == "}"), len(lines))
        text = "\n".join(lines[start : min(end, start + count)] + (["    …"] if end > start + count else [])) + "\n"
    return re.sub(r"_[0-9a-f]{8}\b", "", text).rstrip() + "\n"


def test_architecture_shows_what_the_compiler_prints(tmp_path, update_golden):
    page = DOCS / "architecture.md"
    texts = dump(tmp_path)
    fresh = MARKED.sub(lambda m: f"<!-- from: {m['spec']} -->\n```{m['language']}\n{excerpt(texts, m['spec'])}```", page.read_text())
    if update_golden:
        page.write_text(fresh)
    assert page.read_text() == fresh, "run: pytest tests/test_docs.py --update-golden"


def pages():
    return sorted(path for path in [*DOCS.glob("*.md"), README] if path.name not in ("isa.md", "op_coverage.md", "module_coverage.md"))


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_python_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", prose):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:dynamo_backend|lowering|runtime|csrc|examples|benchmarks|tests)/[\w/.]*)`", page.read_text())
    assert not [path for path in named if not (DOCS.parent / path).exists()]


def test_readme_lists_every_option():
    assert re.findall(r"^\| `([a-z_]+)` \|", README.read_text(), re.MULTILINE) == list(READERS)


def test_readme_lists_every_environment_variable():
    read = {name for path in SOURCES for name in re.findall(r'"(ACCEL_[A-Z_]+)"', path.read_text())}
    assert read == set(re.findall(r"`(ACCEL_[A-Z_]+)`", README.read_text()))


def test_readme_names_make_targets_that_exist():
    targets = re.findall(r"^([a-z]+):", (DOCS.parent / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"^make (\w+)|`make (\w+)`", README.read_text(), re.MULTILINE))
    assert {first or second for first, second in named} <= set(targets)


def test_readme_names_commands_that_exist():
    named = set(re.findall(r"python -m accel (\w+)", README.read_text()))
    assert {"explain", "coverage", "profile", "sweep"} <= named <= COMMANDS.keys() | OWN_PARSERS.keys()
