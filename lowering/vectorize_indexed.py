"""Scan and Scatter statements -> VectorProgram: loops whose order of execution is part of the result."""

from __future__ import annotations

from .accumulate import Accumulator
from .index_expr import Dim, floordiv, product
from .kernel_writer import BoundKernel, KernelWriter, PointEmitter, loaded_index
from .select import cast, constant, select
from .tensor_ir import Buffer, Load, Scan, Scatter, Target
from .vector_ir import MEMORY_TYPE, V
from ..csrc.abi import DTYPE_BYTES

__all__ = ["lower_scan", "lower_scatter"]

_ATOMIC = {"mul": "mul", "min": "minimum", "max": "maximum", "add": "add"}


def lower_scan(scan: Scan, name: str, lanes: int) -> BoundKernel:
    """A kernel that runs along the last axis; lanes are neighbours on it where memory is, else on the axis before it, where there is one."""
    w = KernelWriter(lanes)
    outer = scan.domain[:-1]
    if _runs_along_lanes(scan, lanes):
        _outer_loops(w, outer, None, lambda coords, _: _scan_along_lanes(w, scan, coords))
        return _finish_scan(w, scan, name)
    vector = max((a for a, size in enumerate(outer) if size != 1), default=None, key=lambda a: (scan.outputs[0].strides[a] == 1, a))

    def row(coords: dict[int, Dim], mask: V | None):
        _scan_row(w, scan, coords, vector, mask)

    _outer_loops(w, outer, vector, row)
    return _finish_scan(w, scan, name)


def _finish_scan(w: KernelWriter, scan: Scan, name: str) -> BoundKernel:
    points = product(scan.domain)
    bytes_ = points * 2 * DTYPE_BYTES[scan.expr.dtype]
    return w.finish(name, f"scan {scan.op}: {', '.join(scan.origins)}", "scan", scan.origins, points, bytes_)


def _outer_loops(w: KernelWriter, sizes, vector: int | None, body, coords=None, axis: int = 0, is_parallel: bool = True) -> None:
    """Loops over all axes but `vector`, then vectors of that one with a predicated tail."""
    coords = coords or {}
    if axis < len(sizes):
        if axis == vector:
            _outer_loops(w, sizes, vector, body, coords, axis + 1, is_parallel)
            return
        with w.loop("i", 0, sizes[axis], parallel=is_parallel) as scope:
            _outer_loops(w, sizes, vector, body, {**coords, axis: scope.index}, axis + 1, False)
        return
    if vector is None:
        body(coords, None)
        return
    whole = floordiv(sizes[vector], w.lanes) * w.lanes
    if whole != 0:
        with w.loop("v", 0, whole, w.lanes, parallel=is_parallel) as scope:
            body({**coords, vector: scope.index}, None)
    if whole != sizes[vector]:
        with w.loop("v", whole, sizes[vector], w.lanes, parallel=is_parallel) as scope:
            body({**coords, vector: scope.index}, w.op("qtail.q", sizes[vector] - scope.index))


def _scan_row(w: KernelWriter, scan: Scan, coords, vector, mask) -> None:
    axis = len(scan.domain) - 1
    state = _scan_start(w, scan)
    with w.loop("s", 0, scan.domain[-1], carried=tuple(state)) as scope:
        where = [coords[a] for a in range(axis)] + [scope.index]
        point = PointEmitter(w, where, vector, mask)
        value = point.emit(scan.expr)
        scope.next = tuple(_scan_step(w, scan, list(scope.values), value, scope.index))
        for target, result in zip(scan.outputs, scope.next):
            _store_result(point, scan, target, result)


def _runs_along_lanes(scan: Scan, lanes: int) -> bool:
    """Whether lanes can be neighbours on the scanned axis: they are combined in log2(lanes) steps, whatever the order."""
    size = scan.domain[-1]
    is_simple = scan.op in ("sum", "max", "min") and len(scan.outputs) == 1 and scan.expr.dtype != "bool"
    return is_simple and scan.outputs[0].strides[-1] == 1 and (not isinstance(size, int) or size >= lanes)


def _scan_along_lanes(w: KernelWriter, scan: Scan, coords) -> None:
    """A row by vectors of its elements; the last lane of the results before is carried in all lanes."""
    axis, size, dtype = len(scan.domain) - 1, scan.domain[-1], scan.expr.dtype
    identity = Accumulator(w, scan.op, dtype).identity()
    carry, whole = identity, floordiv(size, w.lanes) * w.lanes
    for begin, end, is_tail in ((0, whole, False), (whole, size, True)):
        if begin == end:
            continue
        with w.loop("s", begin, end, w.lanes, carried=(carry,)) as scope:
            point = PointEmitter(w, [coords[a] for a in range(axis)] + [scope.index], axis, w.op("qtail.q", size - scope.index) if is_tail else None)
            value, distance = point.emit(scan.expr), 1
            while distance < w.lanes:
                before = w.op(f"vrot.{value.type}", value, -distance)
                before = w.op(f"vmux.{value.type}", w.op("qtail.q", distance), identity, before)
                value, distance = _scan_step(w, scan, [before], value, scope.index)[0], 2 * distance
            (result,) = _scan_step(w, scan, list(scope.values), value, scope.index)
            _store_result(point, scan, scan.outputs[0], result)
            scope.next = (w.op(f"vperm.{result.type}", result, constant(w, w.lanes - 1, "i32")),)
        (carry,) = scope.results


def _store_result(point: PointEmitter, scan: Scan, target: Target, result: V) -> None:
    """The running result, in the target's dtype; positions are i64 already."""
    point.store(target, cast(point.w, result, scan.expr.dtype, target.buffer.dtype) if target is scan.outputs[0] else result)


def _scan_start(w: KernelWriter, scan: Scan) -> list[V]:
    dtype = scan.expr.dtype
    if scan.op == "logsumexp":
        return [constant(w, float("-inf"), dtype)]
    start = [Accumulator(w, scan.op, dtype).identity()] if dtype != "bool" else [constant(w, scan.op == "min", "bool")]
    return start + [constant(w, 0, "i64")] * (len(scan.outputs) - 1)


def _scan_step(w: KernelWriter, scan: Scan, state: list[V], value: V, index: Dim) -> list[V]:
    dtype = scan.expr.dtype
    if scan.op == "logsumexp":
        return [_log_add(w, dtype, state[0], value)]
    if scan.op in ("sum", "prod"):
        return [select(w, {"sum": "add", "prod": "mul"}[scan.op], [state[0], value], dtype, dtype)]
    if len(state) == 1:
        return [select(w, {"max": "maximum", "min": "minimum"}[scan.op], [state[0], value], dtype, dtype)]
    return _winner_step(w, scan.op, dtype, state, value, index)


def _log_add(w: KernelWriter, dtype: str, a: V, b: V) -> V:
    """log(exp(a) + exp(b)), by the larger of both; infinities of one sign stay, and NaN."""

    def op(name, *args):
        return select(w, name, list(args), dtype, dtype)

    large = op("maximum", a, b)
    distance = op("sub", op("minimum", a, b), large)
    total = op("add", large, op("log1p", op("exp", distance)))
    is_same_infinity = w.op("qand.q", op("eq", a, b), op("eq", op("abs", a), constant(w, float("inf"), dtype)))
    return select(w, "where", [is_same_infinity, a, total], dtype, dtype)


def _winner_step(w: KernelWriter, op: str, dtype: str, state, value, index) -> list[V]:
    """cummax and cummin: the later of equals wins, and NaN stays."""
    if value.type == "q":
        wins = w.op("qor.q", value, w.op("qnot.q", state[0])) if op == "max" else w.op("qnot.q", w.op("qandn.q", value, state[0]))
        best = w.op("qmux.q", wins, value, state[0])
    else:
        wins = w.op(f"{'vcmpge' if op == 'max' else 'vcmple'}.{value.type}", value, state[0])
        if value.type in ("sf", "df"):
            wins = w.op("qor.q", wins, w.op(f"vcmpne.{value.type}", value, value))
        best = w.op(f"vmux.{value.type}", wins, value, state[0])
    return [best, w.op("vmux.d", wins, w.op("vsplat.d", index), state[1])]


def lower_scatter(scatter: Scatter, name: str, lanes: int) -> BoundKernel:
    """A kernel that writes in ascending order of the domain.

    Where all index terms are the same along the last axis and the target walks it with stride 1 (rows of an embedding), whole vectors are
    read, combined and written; otherwise elements go through vscatter in lane order.
    """
    w = KernelWriter(lanes)
    axes = [a for a, size in enumerate(scatter.domain) if size != 1]
    vector = axes[-1] if axes else None
    is_row = vector is not None and scatter.target.strides[vector] == 1 and all(_is_uniform(e, vector) for e, _, _ in scatter.indices)

    def point(coords, mask):
        where = [coords.get(a, 0) for a in range(len(scatter.domain))]
        emitter = PointEmitter(w, where, vector, mask)
        _scatter_row(w, scatter, emitter, mask) if is_row else _scatter_lanes(w, scatter, emitter, mask)

    _outer_loops(w, scatter.domain, vector, point, is_parallel=False)
    points = product(scatter.domain)
    return w.finish(name, f"scatter {scatter.op}: {', '.join(scatter.origins)}", "scatter", scatter.origins, points, points * 2 * DTYPE_BYTES[scatter.expr.dtype])


def _is_uniform(expr, axis: int) -> bool:
    load, _ = loaded_index(expr)
    return load is not None and load.strides[axis] == 0


def _scatter_row(w: KernelWriter, scatter: Scatter, point: PointEmitter, mask) -> None:
    target = scatter.target
    offset = target.offset
    for index, size, stride in scatter.indices:
        offset = offset + point.scalar_index(index, size) * stride
    moved = Target(target.buffer, offset, target.strides)
    value = point.emit(scatter.expr)
    if scatter.op != "set":
        old = PointEmitter(w, point.coords, point.vector_dim, mask).emit(Load(target.buffer, offset, target.strides))
        value = select(w, _ATOMIC[scatter.op], [old, value], scatter.expr.dtype, target.buffer.dtype)
    point.store(moved, value)


def _scatter_lanes(w: KernelWriter, scatter: Scatter, point: PointEmitter, mask) -> None:
    target, memory = scatter.target, MEMORY_TYPE[scatter.target.buffer.dtype]
    exists = mask if mask is not None else w.op("qtrue.q") if point.vector_dim is not None else w.op("qtail.q", 1)
    offsets = None
    for index, size, stride in scatter.indices:
        place = point.emit(index)
        exists = point.checked_index(place, size, exists)
        term = w.op("vmul.d", place, w.op("vsplat.d", stride))
        offsets = term if offsets is None else w.op("vadd.d", offsets, term)
    lane_stride = 0 if point.vector_dim is None else target.strides[point.vector_dim]
    if lane_stride != 0 or offsets is None:
        step = w.op("vmul.d", w.op("viota.d"), w.op("vsplat.d", lane_stride))
        offsets = step if offsets is None else w.op("vadd.d", offsets, step)
    value = point.emit(scatter.expr)
    position = point.position(target.offset, target.strides)
    _write_lanes(w, scatter, memory, position, exists, offsets, value)


def _write_lanes(w: KernelWriter, scatter: Scatter, memory: str, position: Dim, exists: V, offsets: V, value: V) -> None:
    buffer: Buffer = scatter.target.buffer
    is_bool = buffer.dtype == "bool"
    if scatter.op == "set" or (scatter.op == "add" and not is_bool):
        stored = w.op("vmux.w", value, constant(w, 1, "i32"), constant(w, 0, "i32")) if is_bool else value
        opcode = "vscatter" if scatter.op == "set" else "vscatteradd"
        w.op(f"{opcode}.{memory}", exists, w.addr(buffer, position, write=True), offsets, stored)
        return
    # Lanes may hit the same element: one lane at a time.
    for lane in range(w.lanes):
        only = w.op("qand.q", exists, w.op("vcmpeq.w", w.op("viota.w"), constant(w, lane, "i32")))
        old = w.op(f"vgather.{memory}", only, w.addr(buffer, position), offsets)
        if is_bool:
            old = w.op("vcmpne.w", old, constant(w, 0, "i32"))
        new = select(w, _ATOMIC[scatter.op], [old, value], scatter.expr.dtype, buffer.dtype)
        if is_bool:
            new = w.op("vmux.w", new, constant(w, 1, "i32"), constant(w, 0, "i32"))
        w.op(f"vscatter.{memory}", only, w.addr(buffer, position, write=True), offsets, new)
