"""KernelWriter: a Builder that knows buffers; PointEmitter: TensorProgram expressions -> instructions at one point of a kernel.

A kernel refers to a buffer by a parameter (`p0`, `p1`, … in order of first use) and to sizes by parameters of their own names, so that
equal computations on other buffers give the same text and share one C function.
"""

from __future__ import annotations

import dataclasses

from .build_vector import Builder
from .index_expr import Dim, IndexExpr, symbols_of
from .select import cast, constant, select
from .tensor_ir import Buffer, Const, Expr, Gather, Index, Load, Map, Op, Target, Template, walk
from .vector_ir import Addr, If, Instruction, Kernel, Let, LoadScalar, Loop, MEMORY_TYPE, Param, V
from ..csrc.abi import STATUS_INDEX_ERROR

__all__ = ["BoundKernel", "KernelWriter", "PointEmitter", "Scratch", "Sink", "loaded_index"]


@dataclasses.dataclass(frozen=True, eq=False)
class Scratch:
    """Private memory of a kernel: `elements` of `memory_type` for every context."""

    name: str
    memory_type: str
    elements: Dim


@dataclasses.dataclass(frozen=True, eq=False)
class BoundKernel:
    """A kernel and what its parameters stand for in one partition: a Buffer, a Scratch, or a size."""

    kernel: Kernel
    kind: str
    arguments: tuple[Buffer | Scratch | Dim, ...]
    reads: frozenset[Buffer]
    writes: frozenset[Buffer]


class KernelWriter(Builder):
    """Writes one kernel for a machine with `lanes` lanes."""

    def __init__(self, lanes: int):
        super().__init__(lanes)
        self._params: dict[Buffer | Scratch, str] = {}
        self._written: set[Buffer] = set()
        self._read: set[Buffer] = set()

    def addr(self, buffer: Buffer | Scratch, index: Dim, write: bool = False) -> Addr:
        """Address of element `index` of a buffer or scratch."""
        if buffer not in self._params:
            self._params[buffer] = f"p{len(self._params)}"
        if isinstance(buffer, Buffer):
            (self._written if write else self._read).add(buffer)
        return Addr(self._params[buffer], index)

    def scratch(self, memory_type: str, elements: Dim) -> Scratch:
        """New private memory, rounded up so that contexts do not share a cache line."""
        if isinstance(elements, int):
            elements = -(-elements // 32) * 32
        return Scratch(self.name("scratch"), memory_type, elements)

    def finish(self, name: str, title: str, kind: str, origins: tuple[str, ...], flops: Dim, bytes_: Dim, work: Dim | None = None) -> BoundKernel:
        """The kernel written so far; `work` is flops + bytes_ unless told."""
        work = flops + bytes_ if work is None else work
        params, arguments = [], []
        for item, param in self._params.items():
            if isinstance(item, Scratch):
                params.append(Param(param, item.memory_type, True, item.elements))
            else:
                params.append(Param(param, MEMORY_TYPE[item.dtype], item in self._written))
            arguments.append(item)
        body = self.body
        free = _free_names(body)
        for param in params:
            free |= symbols_of(param.scratch_elements)
        from .index_expr import symbol
        for size in sorted(free):
            params.append(Param(size, None))
            arguments.append(symbol(size))
        kernel = Kernel(name, title, tuple(params), body, self.lanes, origins, flops, bytes_, work)
        return BoundKernel(kernel, kind, tuple(arguments), frozenset(self._read), frozenset(self._written))


def _free_names(body) -> set[str]:
    """Scalar names used in a body and not defined by it: sizes."""
    used: set[str] = set()
    defined: set[str] = set()

    def visit(nodes):
        for node in nodes:
            if isinstance(node, Instruction):
                defined.update({node.scalar} - {None})
                for o in node.operands:
                    used.update(symbols_of(o.index) if isinstance(o, Addr) else symbols_of(o) if isinstance(o, IndexExpr) else ())
            elif isinstance(node, Let):
                used.update(symbols_of(node.value))
                defined.add(node.name)
            elif isinstance(node, LoadScalar):
                used.update(symbols_of(node.address.index) | symbols_of(node.bound))
                defined.add(node.name)
            elif isinstance(node, Loop):
                used.update(symbols_of(node.begin) | symbols_of(node.end) | symbols_of(node.step))
                defined.add(node.var)
                visit(node.body)
            elif isinstance(node, If):
                used.update(symbols_of(node.lhs) | symbols_of(node.rhs))
                visit(node.body)
                visit(node.orelse)

    visit(body)
    return used - defined


def loaded_index(index: Expr) -> tuple[Load | None, bool]:
    """The load of an integer that `index` is, if it is one, and whether it counts from the end where negative."""
    counts_from_end = False
    while isinstance(index, Op) and index.dtype == "i64" and (index.name == "from_end" or (index.name == "cast" and index.args[0].dtype == "i32")):
        counts_from_end |= index.name == "from_end"
        index = index.args[0]
    is_load = isinstance(index, Load) and index.guard is None and index.dtype in ("i64", "i32")
    return index if is_load else None, counts_from_end


class PointEmitter:
    """Evaluates expressions at `coords` of their domain, with dim `vector_dim` spread over the lanes.

    Args:
        coords: one scalar per domain dim; that of vector_dim is lane 0's.
        vector_dim: None computes the same point in every lane.
        mask: lanes that exist (the predicate of a tail), or None for all.
        registers: buffers whose element at this point is held in a register: reads of them take it.
    """

    def __init__(self, writer: KernelWriter, coords: list[Dim], vector_dim: int | None, mask: V | None = None, registers: dict[Buffer, V] | None = None):
        self.w = writer
        self.coords = coords
        self.vector_dim = vector_dim
        self.mask = mask
        self.registers = {} if registers is None else registers
        self._memo: dict[int, V] = {}

    def emit(self, root: Expr) -> V:
        """The register that holds `root`."""
        for expr in walk(root):
            if id(expr) not in self._memo and not (isinstance(expr, Load) and expr.buffer in self.registers):
                if self._is_scalar_index(expr, root):
                    continue
                self._memo[id(expr)] = self._node(expr)
        return self._value(root)

    def _value(self, expr: Expr) -> V:
        if isinstance(expr, Load) and expr.buffer in self.registers:
            return self.registers[expr.buffer]
        if id(expr) not in self._memo:
            self._memo[id(expr)] = self._node(expr)
        return self._memo[id(expr)]

    def _is_scalar_index(self, expr: Expr, root: Expr) -> bool:
        """Whether readers may take `expr` as a scalar; one that needs a register asks for it."""
        load, _ = loaded_index(expr)
        return expr is not root and load is not None and self._stride(load.strides) == 0

    def _node(self, expr: Expr) -> V:
        if isinstance(expr, Load):
            return self._load(expr)
        if isinstance(expr, Const):
            return constant(self.w, expr.value, expr.dtype)
        if isinstance(expr, Index):
            return self._index(expr)
        if isinstance(expr, Gather):
            return self._gather(expr)
        args = [self._value(a) for a in expr.args]
        if expr.name == "cast":
            return cast(self.w, args[0], expr.args[0].dtype, expr.dtype)
        if expr.name == "require":
            return self._require(*args, expr.attrs[0])
        operand = expr.args[1] if expr.name == "where" else expr.args[0]
        return select(self.w, expr.name, args, operand.dtype, expr.dtype, expr.attrs)

    def _require(self, value: V, condition: V, status: int) -> V:
        """`value` itself; the call ends with `status` if `condition` is false in a lane that exists."""
        fails = self.w.op("qnot.q", condition) if self.mask is None else self.w.op("qandn.q", self.mask, condition)
        self.w.op("qtrap.q", fails, status)
        return value

    def _stride(self, strides) -> Dim:
        return 0 if self.vector_dim is None else strides[self.vector_dim]

    def position(self, offset: Dim, strides) -> Dim:
        """The element offset of the point itself (of its first lane) under strides per axis."""
        for coordinate, stride in zip(self.coords, strides):
            if stride != 0:
                offset = offset + coordinate * stride
        return offset

    def _load(self, load: Load) -> V:
        memory, stride = MEMORY_TYPE[load.dtype], self._stride(load.strides)
        address = self.w.addr(load.buffer, self.position(load.offset, load.strides))
        mask = self.mask
        if load.guard is not None:
            guard = self._value(load.guard)
            mask = guard if mask is None else self.w.op("qand.q", mask, guard)
        if stride == 0 and load.guard is None:
            value = self.w.op(f"vldx.{memory}", address)
        elif stride == 1:
            value = self.w.op(f"vld.{memory}", address) if mask is None else self.w.op(f"vldq.{memory}", mask, address)
        else:
            value = self.w.op(f"vlds.{memory}", address, stride) if mask is None else self.w.op(f"vldsq.{memory}", mask, address, stride)
        return self._as_predicate(value) if load.dtype == "bool" else value

    def _as_predicate(self, value: V) -> V:
        return self.w.op("vcmpne.w", value, constant(self.w, 0, "i32"))

    def _index(self, expr: Index) -> V:
        base = self.w.op("vsplat.d", self.position(expr.offset, expr.strides))
        stride = self._stride(expr.strides)
        if stride == 0:
            return base
        lane = self.w.op("viota.d")
        if stride != 1:
            lane = self.w.op("vmul.d", lane, self.w.op("vsplat.d", stride))
        return self.w.op("vadd.d", base, lane)

    def _gather(self, expr: Gather) -> V:
        memory = MEMORY_TYPE[expr.dtype]
        position, stride = self.position(expr.offset, expr.strides), self._stride(expr.strides)
        mask = self.mask
        if expr.guard is not None:
            guard = self._value(expr.guard)
            mask = guard if mask is None else self.w.op("qand.q", mask, guard)
        offsets = None
        for index, size, index_stride in expr.indices:
            scalar = self.scalar_index(index, size) if expr.guard is None else None
            if scalar is not None:
                position = position + scalar * index_stride
                continue
            mask = self.checked_index(self._value(index), size, mask)
            term = self._times(self._value(index), index_stride)
            offsets = term if offsets is None else self.w.op("vadd.d", offsets, term)
        if offsets is None:
            load = Load(expr.buffer, 0, ())
            return self._load_at(load, self.w.let(position), stride, mask)
        if stride != 0:
            offsets = self.w.op("vadd.d", offsets, self._times(self.w.op("viota.d"), stride))
        mask = mask if mask is not None else self.w.op("qtrue.q")
        value = self.w.op(f"vgather.{memory}", mask, self.w.addr(expr.buffer, position), offsets)
        return self._as_predicate(value) if expr.dtype == "bool" else value

    def _load_at(self, load: Load, position: Dim, stride: Dim, mask: V | None) -> V:
        memory, address = MEMORY_TYPE[load.dtype], self.w.addr(load.buffer, position)
        if stride == 0:
            value = self.w.op(f"vldx.{memory}", address)
        elif stride == 1:
            value = self.w.op(f"vld.{memory}", address) if mask is None else self.w.op(f"vldq.{memory}", mask, address)
        else:
            value = self.w.op(f"vlds.{memory}", address, stride) if mask is None else self.w.op(f"vldsq.{memory}", mask, address, stride)
        return self._as_predicate(value) if load.dtype == "bool" else value

    def _times(self, value: V, factor: Dim) -> V:
        return value if factor == 1 else self.w.op("vmul.d", value, self.w.op("vsplat.d", factor))

    def scalar_index(self, index: Expr, size: Dim) -> Dim | None:
        """A scalar load of an index that all lanes share, checked; None where it is computed or differs by lane."""
        load, counts_from_end = loaded_index(index)
        if load is None or load.buffer in self.registers or self._stride(load.strides) != 0:
            return None
        address = self.w.addr(load.buffer, self.position(load.offset, load.strides))
        return self.w.load_scalar(address, MEMORY_TYPE[load.dtype], size, counts_from_end)

    def checked_index(self, index: V, size: Dim, mask: V | None) -> V:
        """The lanes that exist and whose index is in range; those out of range trap."""
        w = self.w
        inside = w.op("qandn.q", w.op("vcmplt.d", index, w.op("vsplat.d", size)), w.op("vcmplt.d", index, constant(w, 0, "i64")))
        w.op("qtrap.q", w.op("qnot.q", inside) if mask is None else w.op("qandn.q", mask, inside), STATUS_INDEX_ERROR)
        return inside if mask is None else w.op("qand.q", mask, inside)

    def store(self, target: Target, value: V) -> None:
        """Writes `value` to the target at this point."""
        memory = MEMORY_TYPE[target.buffer.dtype]
        if target.buffer.dtype == "bool":
            value = self.w.op("vmux.w", value, constant(self.w, 1, "i32"), constant(self.w, 0, "i32"))
        address = self.w.addr(target.buffer, self.position(target.offset, target.strides), write=True)
        stride = self._stride(target.strides)
        if self.vector_dim is None:
            self.w.op(f"vst1.{memory}", address, value)
        elif stride == 1:
            self.w.op(f"vst.{memory}", address, value) if self.mask is None else self.w.op(f"vstq.{memory}", self.mask, address, value)
        else:
            self.w.op(f"vsts.{memory}", address, stride, value) if self.mask is None else self.w.op(f"vstsq.{memory}", self.mask, address, stride, value)


class Sink:
    """Where a template puts a finished vector of its first output: applies the fused epilogue and stores what is needed.

    Args:
        epilogue: Maps over the template's own domain, in order.
        stored: the buffers among the template's first output and the epilogue's targets that must reach memory.
    """

    def __init__(self, writer: KernelWriter, template: Template, epilogue: tuple[Map, ...], stored: frozenset[Buffer]):
        self.writer = writer
        self.result = template.outputs[0]
        self.epilogue = epilogue
        self.stored = stored

    def put(self, coords: list[Dim], vector_dim: int | None, value: V, mask: V | None = None) -> None:
        """`value` is the result at `coords` (lane i at coords[vector_dim] + i); lanes outside `mask` do not exist."""
        point = PointEmitter(self.writer, coords, vector_dim, mask, {self.result.buffer: value})
        if self.result.buffer in self.stored:
            point.store(self.result, value)
        for statement in self.epilogue:
            computed = point.emit(statement.expr)
            if statement.target.buffer in self.stored:
                point.store(statement.target, computed)
            point.registers[statement.target.buffer] = computed

    def flops(self, points: Dim) -> Dim:
        """Operations of the epilogue over `points` elements."""
        return points * sum(1 for s in self.epilogue for e in walk(s.expr) if isinstance(e, Op))
