"""Lets the tests of this folder import the architectures of benchmarks/, and has Dynamo count graphs from 0 in each."""

import sys
from pathlib import Path

import pytest
import torch

# At the end, unlike the folders of pyproject's pythonpath: its modules have names that packages have, too.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(autouse=True)
def fresh_counters():
    """The graphs and breaks that a test reads are its own."""
    torch._dynamo.utils.counters.clear()
