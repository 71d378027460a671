"""A fixed set of random programs, compared with eager. `run.py` runs as many as one likes."""

import pytest

from builder import draw
from program import check

SEEDS = range(25)


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch):
    monkeypatch.setenv("ACCEL_CFLAGS", "-O0")


@pytest.mark.parametrize("seed", SEEDS)
def test_program_of_seed_is_as_eager(seed):
    program = draw(seed)
    message = check(program)
    assert message is None, program.script(message)


def test_seed_always_draws_the_same_program():
    assert draw(7) == draw(7)
