"""What the README shows works and is complete."""

import re
from pathlib import Path

from accel.options import READERS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_readme_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(example.splitlines()) <= 10
    exec(compile(example, "README.md", "exec"), {})
    assert "tensor(" in capsys.readouterr().out


def test_readme_lists_every_option():
    assert re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE) == list(READERS)


def test_readme_links_lead_somewhere():
    root = Path(__file__).resolve().parents[2]
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root / target).exists(), target
