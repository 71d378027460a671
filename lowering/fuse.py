"""TensorProgram -> Schedule: which statements share a kernel.

Statements are taken in order and join the latest group in which everything they read is either finished before the group or held in a
register of it: Maps join Maps over the same points, reductions join what they read, Maps over a row join the reductions of that
row (softmax, layer norm: one kernel), Maps join a template's output as its epilogue. What no other group reads is never stored.
"""

from __future__ import annotations

import dataclasses

from ..csrc.abi import DTYPE_BYTES
from .align import Segment, match_by_size, match_by_stride, redomain, squeeze_domain
from .index_expr import Dim, exact_div, render
from .strides import view_strides
from .tensor_ir import Buffer, Gather, Load, Map, Op, Reduce, Scan, Scatter, Statement, Target, Template, TensorProgram, leaves, restride, walk
from .values import length_of

__all__ = ["Group", "Schedule", "fuse"]

# Bounds on one kernel's size: registers and compile time, not correctness.
MAX_STATEMENTS = 32
MAX_LENGTH = 384  # instructions, see values.length_of
# Addresses that lie multiples of this apart fall into at most a quarter of the sets of a cache whose ways hold 4 KB, as first levels mostly do, and so
# many of them do not fit. Measured on AVX-512: convolutions that scatter vectors of channels over such planes of pixels take up to 1.7
# times as long as with a pass of its own that turns the result.
COLLIDING_BYTES = 1024
LEAST_COLLIDING = 16


@dataclasses.dataclass(frozen=True)
class Group:
    """Statements that run as one kernel.

    Attributes:
        outer, row: sizes of the shared axes; `row` is empty unless the group reduces over it. Empty for templates, scans and scatters.
        statements: in order; Maps and Reduces are expressed over outer + row, or over outer alone.
        stored: buffers that must reach memory.
        choice: how a template computes it (kernels/__init__.py); None leaves that to the analytic model.
    """

    outer: tuple[Dim, ...]
    row: tuple[Dim, ...]
    statements: tuple[Statement, ...]
    stored: frozenset[Buffer] = frozenset()
    choice: object | None = None

    @property
    def kind(self) -> str:
        """"map", "rows", or the template's, scan's or scatter's kind."""
        first = self.statements[0]
        if isinstance(first, Template):
            return first.kind
        return "scan" if isinstance(first, Scan) else "scatter" if isinstance(first, Scatter) else "rows" if self.row else "map"

    @property
    def origins(self) -> tuple[str, ...]:
        """The FX nodes that its statements come from, each once."""
        return tuple(dict.fromkeys(o for s in self.statements for o in s.origins))

    def __str__(self):
        axes = f" over [{', '.join(map(render, self.outer))}]" + (f" x row [{', '.join(map(render, self.row))}]" if self.row else "") if self.outer or self.row else ""
        chosen = f" by {self.choice}" if self.choice is not None else ""
        lines = [f"  {self.kind}{axes}{chosen}  stores {', '.join(sorted(b.name for b in self.stored)) or 'nothing'}  # {', '.join(self.origins)}"]
        return "\n".join(lines + [f"    {statement}" for statement in self.statements])


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The kernels of a partition, in execution order."""

    name: str
    groups: tuple[Group, ...]

    def __str__(self):
        return "\n".join([f"schedule {self.name}", *map(str, self.groups)]) + "\n"


def fuse(program: TensorProgram) -> Schedule:
    """Groups the statements of `program`; see the module's description."""
    fusion = _Fusion(frozenset(program.outputs))
    for statement in program.statements:
        fusion.place(statement)
    return Schedule(program.name, fusion.finished())


class _Fusion:
    """The groups so far, and who wrote and read each buffer."""

    def __init__(self, outputs: frozenset[Buffer]):
        self.outputs = outputs
        self.groups: list[Group] = []
        self.writers: dict[Buffer, list[int]] = {}
        self.readers: dict[Buffer, list[int]] = {}

    def place(self, statement: Statement) -> None:
        if isinstance(statement, (Map, Reduce)):
            statement = squeeze_domain(statement)
        index = self._join(statement) if isinstance(statement, (Map, Reduce)) else None
        if index is None:
            index = len(self.groups)
            self.groups.append(_alone(statement))
        for leaf in leaves(*statement.expressions()):
            if isinstance(leaf, (Load, Gather)):
                self.readers.setdefault(leaf.buffer, []).append(index)
        for target in statement.targets():
            self.writers.setdefault(target.buffer, []).append(index)

    def _join(self, statement) -> int | None:
        reads = {leaf.buffer for leaf in leaves(*statement.expressions()) if isinstance(leaf, (Load, Gather))}
        target = statement.target.buffer
        earliest = max((max(self.writers[b]) for b in reads if b in self.writers), default=0)
        # A buffer that is written again (a concatenation, a mutation) orders the new write behind its readers and writers.
        rewritten = target in self.writers or target in self.readers
        if rewritten:
            earliest = max([earliest, *(i for i in self.writers.get(target, [])), *(i for i in self.readers.get(target, []))])
        candidates = {i for b in reads for i in self.writers.get(b, [])} | {i for b in reads for i in self.readers.get(b, [])[-2:]}
        if target in self.writers:
            candidates.add(self.writers[target][-1])
        for index in sorted(candidates, reverse=True)[:4]:
            if index < earliest:
                break
            joined = _try_join(self.groups[index], statement, frozenset(b for b in reads if len(self.writers.get(b, [])) > 1), rewritten)
            if joined is not None:
                self.groups[index] = joined
                return index
        return None

    def finished(self) -> tuple[Group, ...]:
        """The groups, each with what it must store: outputs, mutated inputs, and what other groups read."""
        result = []
        for index, group in enumerate(self.groups):
            written = {t.buffer for s in group.statements for t in s.targets()}
            stored = frozenset(b for b in written if b.kind != "temp" or b in self.outputs or len(set(self.writers[b])) > 1 or any(i != index for i in self.readers.get(b, [])))
            result.append(dataclasses.replace(group, stored=stored if isinstance(group.statements[0], (Map, Reduce, Template)) else frozenset(written)))
        return tuple(g for g in result if g.stored)


def _alone(statement: Statement) -> Group:
    if isinstance(statement, Map):
        return Group(statement.domain, (), (statement,))
    if isinstance(statement, Reduce):
        return Group(statement.domain[:statement.n_outer], statement.domain[statement.n_outer:], (statement,))
    return Group((), (), (statement,))


def _length(statements) -> int:
    return sum(length_of(e.name) for s in statements for e in walk(*s.expressions()) if isinstance(e, Op))


def _try_join(group: Group, statement: Map | Reduce, unstable: frozenset[Buffer], rewritten: bool) -> Group | None:
    """`group` with `statement` at its end, or None where they cannot share loops."""
    first = group.statements[0]
    if isinstance(first, (Scan, Scatter)) or len(group.statements) >= MAX_STATEMENTS or _length(group.statements) + _length((statement,)) > MAX_LENGTH:
        return None
    if isinstance(first, Template):
        return _join_epilogue(group, statement, rewritten)
    produced = {s.target.buffer: s for s in group.statements}
    inside = [leaf for leaf in leaves(*statement.expressions()) if isinstance(leaf, (Load, Gather)) and leaf.buffer in produced]
    if any(isinstance(leaf, Gather) or leaf.guard is not None or leaf.buffer in unstable or leaf.offset != produced[leaf.buffer].target.offset for leaf in inside):
        return None
    if rewritten and not _rewrites_in_place(group, statement):
        return None
    return _align(group, statement, [(leaf, produced[leaf.buffer]) for leaf in inside])


def _rewrites_in_place(group: Group, statement) -> bool:
    """Whether every access of the group to the rewritten buffer is a read at the point that `statement` writes, before it writes, or a write elsewhere."""
    target = statement.target
    if group.row or not isinstance(statement, Map) or group.outer != statement.domain:
        return False
    for other in group.statements:
        for leaf in leaves(*other.expressions()):
            if isinstance(leaf, Gather) and leaf.buffer is target.buffer:
                return False
            if isinstance(leaf, Load) and leaf.buffer is target.buffer and (leaf.guard is not None or leaf.offset != target.offset or leaf.strides != target.strides):
                return False
        if other.target.buffer is target.buffer and not _is_disjoint(other.target, target, group.outer):
            return False
    return True


def _is_disjoint(one: Target, other: Target, domain: tuple[Dim, ...]) -> bool:
    """Whether two targets of one buffer, walked alike over `domain`, are known to share no element."""
    if one.strides != other.strides or any(isinstance(stride, int) and stride < 0 for stride in one.strides):
        return False
    extent: Dim = 1
    for size, stride in zip(domain, one.strides):
        extent = extent + (size - 1) * stride
    apart = exact_div(other.offset - one.offset, extent) if extent != 0 else None
    if isinstance(apart, int):
        return apart != 0
    distance = other.offset - one.offset
    return isinstance(distance, int) and isinstance(extent, int) and abs(distance) >= extent


def _align(group: Group, statement: Map | Reduce, inside) -> Group | None:
    sizes = group.outer + group.row
    axes = [Segment(i, size) for i, size in enumerate(sizes)]
    dims = [Segment(i, size) for i, size in enumerate(statement.domain)]
    n_outer = len(group.outer)
    for leaf, producer in inside:
        if not match_by_stride(dims, leaf.strides, axes, producer.target.strides):
            return None
    if not inside and not _shares_walk(group, statement):
        return None
    reduced = statement.n_outer if isinstance(statement, Reduce) else len(statement.domain)
    if isinstance(statement, Reduce) and not group.row:
        return _start_rows(group, statement, axes, dims, reduced)
    row_axes = [a for a in axes if a.source >= n_outer]
    outer_axes = [a for a in axes if a.source < n_outer]
    if isinstance(statement, Reduce):
        kept, rest = [d for d in dims if d.source < reduced], [d for d in dims if d.source >= reduced]
        if not match_by_size(kept, outer_axes, dims, axes) or not match_by_size(rest, row_axes, dims, axes):
            return None
        if any((d.source < reduced) != (d.partner.source < n_outer) for d in dims):  # it reduces over an axis that the group keeps
            return None
    elif not _match_map(dims, axes, n_outer, statement, group):
        return None
    return _rebuilt(group, statement, axes, dims, n_outer)


def _match_map(dims, axes, n_outer, statement: Map, group: Group) -> bool:
    """Pairs a Map's dims with all axes of the group, or with the outer ones alone."""
    outer_axes = [a for a in axes if a.source < n_outer]
    paired_row = any(a.partner for a in axes if a.source >= n_outer)
    total_is_outer = _equal_products([d.size for d in dims], [a.size for a in outer_axes])
    if group.row and total_is_outer and not paired_row:
        return match_by_size(dims, outer_axes, dims, axes)
    return match_by_size(dims, axes, dims, axes)


def _equal_products(a, b) -> bool:
    from .index_expr import product
    return product(a) == product(b)


def _start_rows(group: Group, statement: Reduce, axes, dims, reduced: int) -> Group | None:
    """A group of Maps takes up its first reduction: the axes that it reduces become the row."""
    if any(isinstance(s, Reduce) for s in group.statements) or not match_by_size(dims, axes, dims, axes):
        return None
    rows = [a for a in axes if a.partner.source >= reduced]
    outer = [a for a in axes if a.partner.source < reduced]
    ordered = outer + rows
    return _rebuilt(Group(group.outer, group.row, group.statements), statement, ordered, dims, None, len(outer))


def _rebuilt(group: Group, statement, axes: list[Segment], dims: list[Segment], n_outer_sources: int | None, n_outer: int | None = None) -> Group | None:
    """The group over its refined axes with the statement added, all expressed over the same sizes."""
    if n_outer is None:
        n_outer = sum(a.source < n_outer_sources for a in axes)
    if any(d.partner is None for d in dims):
        return None
    is_full = all(a.partner is not None for a in axes)
    if not is_full and any(a.partner is None for a in axes[:n_outer]):
        return None
    sizes = tuple(a.size for a in axes)
    walked = [(a.source, a.multiplier) for a in axes]
    old_outer = len(group.outer)
    statements = []
    for s in group.statements:
        if isinstance(s, Map) and group.row and len(s.domain) == old_outer:
            statements.append(redomain(s, sizes[:n_outer], n_outer, walked[:n_outer]))
        else:
            statements.append(redomain(s, sizes, n_outer, walked))
    used = axes if is_full else axes[:n_outer]
    statements.append(redomain(statement, tuple(a.size for a in used), n_outer, [(a.partner.source, a.partner.multiplier) for a in used]))
    return Group(sizes[:n_outer], sizes[n_outer:], tuple(statements))


def _shares_walk(group: Group, statement: Map | Reduce) -> bool:
    """Whether group and statement read the same memory in the same way, so that sharing loops saves traffic."""
    if statement.domain != group.outer + group.row or (isinstance(statement, Reduce) and statement.n_outer != len(group.outer)):
        return False
    walks = {(leaf.buffer, leaf.offset, leaf.strides) for s in group.statements for leaf in leaves(*s.expressions()) if isinstance(leaf, Load)}
    return any(isinstance(leaf, Load) and (leaf.buffer, leaf.offset, leaf.strides) in walks for leaf in leaves(*statement.expressions()))


def _join_epilogue(group: Group, statement, rewritten: bool) -> Group | None:
    """A Map over a template's output, at the same points, becomes part of its epilogue."""
    template = group.statements[0]
    if not isinstance(statement, Map) or rewritten or not template.domain or any(s == 0 for s in template.domain if isinstance(s, int)):
        return None
    produced = {template.outputs[0].buffer: template.outputs[0]} | {s.target.buffer: s.target for s in group.statements[1:]}
    others = {t.buffer for t in template.outputs[1:]}
    inside = [leaf for leaf in leaves(statement.expr) if isinstance(leaf, (Load, Gather)) and (leaf.buffer in produced or leaf.buffer in others)]
    if not inside or any(isinstance(leaf, Gather) or leaf.guard is not None or leaf.buffer in others or leaf.offset != produced[leaf.buffer].offset for leaf in inside):
        return None
    if any(leaf.buffer is statement.target.buffer for leaf in leaves(statement.expr) if isinstance(leaf, (Load, Gather))):
        return None
    moved = _onto_domain(statement, template, inside, produced)
    if moved is None or _collides(template, moved.target):
        return None
    return Group((), (), (*group.statements, moved))


def _collides(template: Template, target: Target) -> bool:
    """Whether lanes that run along the template's output would scatter it over many addresses that fall into few sets of a cache."""
    lanes_dim = next((d for d, stride in enumerate(template.outputs[0].strides) if stride == 1 and template.domain[d] != 1), None)
    if lanes_dim is None:
        return False
    size, step = template.domain[lanes_dim], target.strides[lanes_dim]
    are_known = isinstance(size, int) and isinstance(step, int)
    return are_known and size >= LEAST_COLLIDING and step != 0 and step * DTYPE_BYTES[target.buffer.dtype] % COLLIDING_BYTES == 0


def _onto_domain(statement: Map, template: Template, inside, produced) -> Map | None:
    """`statement` expressed over the template's domain, or None where some operand cannot be."""
    axes = [Segment(i, size) for i, size in enumerate(template.domain) if size != 1]
    dims = [Segment(i, size) for i, size in enumerate(statement.domain)]
    for leaf in inside:
        if not match_by_stride(dims, leaf.strides, axes, produced[leaf.buffer].strides):
            return None
    if any(a.partner is None for a in axes) or any(d.partner is None for d in dims):
        return None
    fine = tuple(a.size for a in axes)
    refined = redomain(statement, fine, len(fine), [(a.partner.source, a.partner.multiplier) for a in axes])
    walks = [(leaf.offset, leaf.strides) for leaf in leaves(refined.expr)] + [(0, refined.target.strides)]
    if any(view_strides(fine, strides, template.domain) is None for _, strides in walks):
        return None
    target = Target(refined.target.buffer, refined.target.offset, view_strides(fine, refined.target.strides, template.domain))
    expr = restride(refined.expr, lambda o, s: (o, view_strides(fine, s, template.domain)))
    return dataclasses.replace(refined, target=target, domain=template.domain, expr=expr)
