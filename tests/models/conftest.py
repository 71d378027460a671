"""Lets the tests of this folder import the architectures of benchmarks/, and gives each the same random numbers."""

import sys
from pathlib import Path

import pytest
import torch

# At the end, unlike the folders of pyproject's pythonpath: its modules have names that packages have, too.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(autouse=True)
def fixed_seed():
    """Seeds torch, and counts graphs from 0."""
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
