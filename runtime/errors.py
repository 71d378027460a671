"""What can go wrong between C text and a callable.

    BuildError
      x ToolchainError   no usable C compiler
      x CompileError     the compiler rejected a unit, crashed, or took too long
      x LoadError        the shared object was built but cannot be loaded

All of them mean "this partition cannot run natively": the backend runs it in eager, or raises under `strict`.
Faults of the disk cache are no errors: the cache degrades to a private directory (see cache.py).
"""

from __future__ import annotations

__all__ = ["BuildError", "CompileError", "LoadError", "ToolchainError"]


class BuildError(Exception):
    """A partition cannot be turned into machine code."""


class ToolchainError(BuildError):
    """No usable C compiler was found."""


class CompileError(BuildError):
    """The C compiler rejected a unit, crashed, or took too long."""


class LoadError(BuildError):
    """A shared object cannot be loaded or has no entry function."""
