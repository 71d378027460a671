"""Lets the tests of this folder import the demo's models, the zoo and the architectures of benchmarks/, and gives each the same random numbers."""

import logging
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]  # neither folder is a package
sys.path.append(str(HERE.parents[1] / "benchmarks"))
logging.getLogger("torch.__trace").disabled = True  # pytest would print its empty records, thousands below every failure


@pytest.fixture(autouse=True)
def fixed_seed():
    """Seeds torch, and counts graphs from 0."""
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
