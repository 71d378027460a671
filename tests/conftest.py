"""Fixtures that all tests share."""

from __future__ import annotations

import logging
import sys

import pytest
from hypothesis import settings

settings.register_profile("same every time", derandomize=True, deadline=None)
settings.load_profile("same every time")
logging.getLogger("torch.__trace").disabled = True  # pytest would print its empty records, thousands below every failure


@pytest.fixture(autouse=True)
def fresh_torch():
    """Every test starts with the same random numbers and nothing compiled: Dynamo keeps what it compiled per code object, and stops after 8 variants."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()


@pytest.fixture
def update_golden(request) -> bool:
    """Whether golden files are to be written instead of compared."""
    return request.config.getoption("--update-golden")


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write golden files anew")
