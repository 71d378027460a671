"""FX partitions -> C, for a DVX machine: TensorProgram, Schedule, VectorProgram, C. Imported as accel.lowering.

`lower_partition` runs the whole pipeline, `schedule_partition` and `write_partition` its halves; `judge` says whether a node can take part; `lowering` registers an operator.
"""

from __future__ import annotations

import sys
import types

from . import math_bessel, math_double, math_error, math_float, math_gamma, math_integer, math_polynomials, math_random  # noqa: F401  (fill the table of expansions)
from . import ops  # noqa: F401  (fills the registry)
from .from_fx import Verdict, fix_sizes, judge
from . import registry
from .pipeline import KernelReport, LoweredPartition, ScheduledPartition, lower_partition, schedule_partition, write_partition
from .registry import lowering
from .symbolic_sizes import named_sizes
from .values import Graph, Unsupported, Value

__all__ = [
    "Graph", "KernelReport", "LoweredPartition", "ScheduledPartition", "Unsupported", "Value", "Verdict", "fix_sizes", "judge", "lower_partition", "lowering",
    "named_sizes", "schedule_partition", "write_partition",
]  # fmt: skip


class _Package(types.ModuleType):
    """The package is also the decorator: `@accel.lowering(overload)` is registry.lowering."""

    def __call__(self, *targets, **options):
        return registry.lowering(*targets, **options)


sys.modules[__name__].__class__ = _Package
