"""C text in, callables and counters out. Imported as accel.runtime.

`build` compiles, links and loads a PartitionSource through the cache; `Executor` calls what it built.
"""

from .build import BuiltPartition, build
from .executor import Executor

__all__ = ["BuiltPartition", "Executor", "build"]
