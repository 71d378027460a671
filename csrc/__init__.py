"""What lowering and runtime agree on: the ISA table, machines, the C ABI, and the DVX headers.

Imports neither torch nor the other packages of accel.
"""

from pathlib import Path

from .machine import PRESETS, Machine, machines, resolve_machine

__all__ = ["INCLUDE_DIR", "Machine", "PRESETS", "machines", "resolve_machine"]

INCLUDE_DIR = Path(__file__).parent / "include"
