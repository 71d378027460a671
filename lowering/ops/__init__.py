"""The op table: one entry per ATen overload, one file per family. Imported as accel.lowering.ops; importing it imports every family."""

import importlib
import pkgutil

for _family in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_family}")
