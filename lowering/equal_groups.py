"""Groups that differ in buffers and FX nodes alone are lowered once: the layers of a deep model share their kernels.

`EqualGroups.kernels` is a lowering of groups in front of another one. It asks that one for the first of equal groups, and for
the others puts their buffers and origins into what it got.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Hashable

from .fuse import Group
from .index_expr import IndexExpr
from .kernel_writer import BoundKernel, Scratch
from .tensor_ir import Buffer

__all__ = ["EqualGroups", "group_key"]

WORD = re.compile(r"\w+")
PLAIN = (str, bool, int, type(None), IndexExpr)


class EqualGroups:
    """Lowers groups through `lower`, equal ones once."""

    def __init__(self, lower: Callable[[Group], list[BoundKernel]]):
        self._lower = lower
        self._known: dict[Hashable, tuple[_Shape, list[BoundKernel]]] = {}

    def kernels(self, group: Group) -> list[BoundKernel]:
        """The kernels of `group`, in execution order."""
        shape = _Shape()
        try:
            key = shape.of(group)
        except _Unknown:
            return self._lower(group)
        if key not in self._known:
            self._known[key] = shape, self._lower(group)
            return self._known[key][1]
        first, kernels = self._known[key]
        return _Renaming(first, shape).kernels(kernels)


def group_key(group: Group) -> Hashable:
    """What equal groups share; a group whose equality is not known has a key of its own."""
    try:
        return _Shape().of(group)
    except _Unknown:
        return id(group)


class _Unknown(Exception):
    """A group holds something whose equality is not known."""


class _Shape:
    """Turns a group into a key in which buffers and origins are numbers, and remembers which is which.

    Expressions are numbered too: one that is used twice and two that are alike give different kernels.
    """

    def __init__(self):
        self.buffers: dict[Buffer, int] = {}
        self.origins: dict[str, int] = {}
        self._seen: dict[int, int] = {}

    def of(self, group: Group) -> Hashable:
        statements = tuple(self._key(statement) for statement in group.statements)
        stored = tuple(sorted(self._buffer(buffer) for buffer in group.stored))
        return self._key(group.outer), self._key(group.row), statements, stored, group.choice, tuple((b.dtype, b.sizes, b.strides, b.kind) for b in self.buffers)

    def _key(self, value: object) -> Hashable:
        if isinstance(value, PLAIN):
            return type(value), value
        if isinstance(value, float):
            return value.hex()  # tells -0.0 from 0.0, and one NaN is like another
        if isinstance(value, Buffer):
            return Buffer, self._buffer(value)
        if isinstance(value, (tuple, list)):
            return tuple(map(self._key, value))
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            raise _Unknown
        if id(value) in self._seen:
            return type(value), self._seen[id(value)]
        self._seen[id(value)] = len(self._seen)
        return type(value), *(self._field(field.name, getattr(value, field.name)) for field in dataclasses.fields(value))

    def _field(self, name: str, value: object) -> Hashable:
        if name != "origins":
            return self._key(value)
        return tuple(self.origins.setdefault(origin, len(self.origins)) for origin in value)

    def _buffer(self, buffer: Buffer) -> int:
        return self.buffers.setdefault(buffer, len(self.buffers))


class _Renaming:
    """Puts the buffers and origins of one group in the place of those of an equal one."""

    def __init__(self, old: _Shape, new: _Shape):
        self._items: dict[Buffer | Scratch, Buffer | Scratch] = dict(zip(old.buffers, new.buffers))
        self._names = {before.name: after.name for before, after in self._items.items()}
        self._origins = dict(zip(old.origins, new.origins))

    def kernels(self, kernels: list[BoundKernel]) -> list[BoundKernel]:
        return [self._bound(kernel) for kernel in kernels]

    def _bound(self, bound: BoundKernel) -> BoundKernel:
        origins = tuple(self._origins.get(origin, origin) for origin in bound.kernel.origins)
        title = WORD.sub(lambda word: self._origins.get(word[0], word[0]), bound.kernel.title)
        arguments = tuple(self._item(argument) if isinstance(argument, (Buffer, Scratch)) else argument for argument in bound.arguments)
        reads, writes = (frozenset(map(self._item, buffers)) for buffers in (bound.reads, bound.writes))
        return BoundKernel(dataclasses.replace(bound.kernel, title=title, origins=origins), bound.kind, arguments, reads, writes)

    def _item(self, item: Buffer | Scratch) -> Buffer | Scratch:
        """The new group's buffer; of memory that the kernels bring along, such as packed panels, a copy of its own."""
        if item not in self._items:
            base, _, rest = item.name.partition("_")
            self._items[item] = dataclasses.replace(item, name=f"{self._names[base]}_{rest}" if base in self._names else item.name)
        return self._items[item]
