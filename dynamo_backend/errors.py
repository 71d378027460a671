"""The exceptions that accel raises towards its user.

    AccelError
    ├── OptionError(ValueError)     an unknown option or mode, or a value out of range
    ├── StrictError                 options={"strict": True} and something would have run in eager
    └── CompileError                a stage of our own compiler failed (a bug, the C compiler, the disk)

`accel.Unsupported` is not in this tree: a lowering raises it to hand its node to eager, and no user sees it raised.
A result that eager would refuse (an index out of range) raises what eager raises.
"""

from __future__ import annotations

import traceback
from pathlib import Path

__all__ = ["AccelError", "CompileError", "OptionError", "StrictError", "describe_bug"]


class AccelError(Exception):
    """Base of everything that accel raises on its own account."""


class OptionError(AccelError, ValueError):
    """An option or mode of torch.compile that accel does not know, or a value it cannot take."""


class StrictError(AccelError):
    """Under `strict`, nodes that would run in eager; the message lists node, op, reason and source line."""


class CompileError(AccelError):
    """A partition could not be compiled; the message names the stage."""


def describe_bug(error: BaseException) -> str:
    """An exception that our own code should not have raised, with the line that did."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (a bug of accel, in {Path(frame.filename).name}:{frame.lineno}; please report it)"
