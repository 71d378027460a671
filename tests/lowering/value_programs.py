"""Runs what a lowering writes, without torch.compile: Values in, tensors out, on any machine, with any sizes symbolic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from unittest import mock

import torch

from accel.csrc.machine import Machine, resolve_machine
from accel.lowering import LoweredPartition, ScheduledPartition, pipeline, write_partition
from accel.lowering.from_fx import Lowered
from accel.lowering.index_expr import symbol
from accel.lowering.registry import dtype_name
from accel.lowering.tensor_ir import TensorProgram
from accel.lowering.values import Graph, Value
from accel.runtime.build import build
from accel.runtime.executor import Executor

__all__ = ["MACHINES", "compile_values", "run_values", "runner_of", "schedule_values"]

# Vectors of 4, 8, 16 and 32 lanes; few registers and many.
MACHINES = {
    "lanes4": Machine("lanes4", vlen_bytes=16, n_vregs=16),
    "lanes8": Machine("lanes8", vlen_bytes=32, n_vregs=16),
    "lanes16": Machine("lanes16", vlen_bytes=64, n_vregs=32),
    "dvx-h1": resolve_machine("dvx-h1"),
    "dvx-m16": resolve_machine("dvx-m16"),
}


def _dim(size: int, symbols: Mapping[int, str]):
    return symbol(symbols[size]) if size in symbols else size


def _strides(tensor: torch.Tensor, symbols: Mapping[int, str]) -> tuple:
    """Strides in terms of the symbolic sizes where the tensor is dense in some order of dims, else as they are."""
    strides: list = list(tensor.stride())
    running, expression = 1, 1
    for d in sorted(range(tensor.dim()), key=lambda d: (tensor.stride(d), tensor.size(d))):
        if tensor.stride(d) == running:
            strides[d] = expression
        running, expression = running * tensor.size(d), expression * _dim(tensor.size(d), symbols)
    return tuple(strides)


def compile_values(function: Callable[..., Value | Sequence[Value]], tensors: Sequence[torch.Tensor], machine: Machine,
                   symbols: Mapping[int, str] | None = None) -> tuple[LoweredPartition, Callable[..., list[torch.Tensor]]]:
    """Lowers and builds function(graph, *values).

    Args: symbols: size -> name of the symbol that stands for every size of that value.
    Returns: the partition, and a callable that takes the tensors.
    """
    partition = write_partition(schedule_values(function, tensors, machine, symbols))
    return partition, runner_of(partition, tuple(symbols or ()))


def runner_of(partition: LoweredPartition, sizes: Sequence[int] = ()) -> Callable[..., list[torch.Tensor]]:
    """What runs a partition on tensors, with these values of its symbols unless others are given as `sizes`."""
    executor = Executor(build(partition.source), partition.source, 2)
    return lambda *given, sizes=tuple(sizes): executor.run([*given, *sizes])


def schedule_values(function: Callable[..., Value | Sequence[Value]], tensors: Sequence[torch.Tensor], machine: Machine, symbols: Mapping[int, str] | None = None,
                    constants: Sequence[int] = ()) -> ScheduledPartition:
    """function(graph, *values), lowered as far as its schedule. Args: constants: positions of tensors that never change."""
    symbols = symbols or {}
    g = Graph()
    values = [g.input(f"x{i}", dtype_name(t.dtype), [_dim(s, symbols) for s in t.shape], _strides(t, symbols), kind="const" if i in constants else "input") for i, t in enumerate(tensors)]
    g.origin = ("test",)
    results = function(g, *values)
    results = results if isinstance(results, (tuple, list)) else [results]
    stored = []
    for result in results:
        realized = g.realize(result)
        whole = realized.expr.buffer.kind == "temp" and realized.sizes == realized.expr.buffer.sizes and realized.expr.buffer not in stored
        stored.append(realized.expr.buffer if whole else g.realize(result, strides=g.buffer(result.dtype, result.sizes).strides).expr.buffer)
    program = TensorProgram("test", tuple(g.inputs), tuple(stored), tuple(g.statements))
    named = tuple((buffer.name, buffer) for buffer in g.inputs)
    lowered = Lowered(program=program, output_buffers=tuple(stored), aliases=(None,) * len(stored), symbols=tuple(symbols.values()), tensor_inputs=named)
    with mock.patch.object(pipeline, "lower_nodes", return_value=lowered):
        return pipeline.schedule_partition((), (), (), machine=machine, name="test", max_contexts=2)


def run_values(function, tensors, machine: Machine, symbols: Mapping[int, str] | None = None) -> list[torch.Tensor]:
    """The outputs of function(graph, *values) on `tensors`."""
    return compile_values(function, tensors, machine, symbols)[1](*tensors)
