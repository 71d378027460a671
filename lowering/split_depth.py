"""TensorProgram -> TensorProgram: a matrix product of few rows and columns and a long contracted axis over shares of that axis, and their sum.

Rows and columns alone would be too few jobs for the contexts, and a panel of B as long as the axis would not stay near.
"""

from __future__ import annotations

import dataclasses
import math

from .kernels.gemm import GemmParams
from .kernels.tile import LEAST_JOBS
from .strides import contiguous_strides
from .tensor_ir import Buffer, Load, Reduce, Statement, Target, Template, TensorProgram

__all__ = ["split_depth"]

# All of these were measured on AVX-512 with two contexts, products of 1 to 2048 rows, 16 to 256 columns and depths from 1024 to 65536:
# less depth and fewer elements of both operands than this do not make up for a second kernel (some microseconds),
LEAST_DEPTH = 1024
LEAST_ELEMENTS = 1 << 17
# more than half of LEAST_JOBS shares pay where they are as long as this, and partial sums must not leave the second level.
LEAST_SHARE = 512
MOST_PARTS = 1 << 17
# Rows and columns up to which the way of a product (kernels/gemm.py) reads both operands where they are, and up to which its jobs are too few.
MOST_ROWS_IN_PLACE = 16
MOST_COLUMNS_IN_PLACE = 8
FEW = 64
# Of a product that packs: columns of so few panels that one more kernel pays, the rows times columns up to which its jobs are too few, and
# the depth from which a panel leaves the near memory.
FEW_PANELS = 512
FEW_POINTS = 1 << 14
FAR_DEPTH = 4096


def split_depth(program: TensorProgram) -> TensorProgram:
    """`program` with long products of few rows and columns over shares of their depth."""
    statements: list[Statement] = []
    for statement in program.statements:
        count = _shares(statement) if isinstance(statement, Template) and statement.kind == "gemm" else None
        statements += _split(statement, count) if count else [statement]
    return dataclasses.replace(program, statements=tuple(statements))


def _shares(statement: Template) -> int | None:
    """The number of shares; None where one product does as well, or sizes are not known."""
    *batch, rows, columns = statement.domain
    depth = statement.params.depth
    if not all(isinstance(size, int) for size in (*batch, rows, columns, depth)) or math.prod(batch) >= LEAST_JOBS:
        return None
    if depth < LEAST_DEPTH or depth * (rows + columns) < LEAST_ELEMENTS or not _gains(statement):
        return None
    points = math.prod(statement.domain)
    most = min(LEAST_JOBS, MOST_PARTS // max(points, 1), max(depth // LEAST_SHARE, LEAST_JOBS // 2))
    if most < 2:
        return None
    return next((count for count in range(most, max(most - 3, 1), -1) if depth % count == 0), most)


def _gains(statement: Template) -> bool:
    """Whether the product has too few jobs, or packs an operand at every call (shares of it stay near then)."""
    *_, rows, columns = statement.domain
    is_packed = rows > MOST_ROWS_IN_PLACE and MOST_COLUMNS_IN_PLACE < columns <= FEW_PANELS and not any(load.buffer.kind == "const" for load in statement.operands)
    return max(rows, columns) <= FEW or is_packed and (rows * columns <= FEW_POINTS or statement.params.depth >= FAR_DEPTH)


def _split(statement: Template, count: int) -> list[Statement]:
    """The products of the shares, the last of which takes what the others leave, and their sum."""
    target, depth = statement.outputs[0], statement.params.depth
    length = depth // count
    sizes = (count, *statement.domain)
    parts = Buffer(f"{target.buffer.name}_parts", target.buffer.dtype, sizes, contiguous_strides(sizes))
    if depth % count == 0:
        products = [_share(statement, parts, 0, count, length)]
    else:
        products = [_share(statement, parts, 0, count - 1, length), _share(statement, parts, count - 1, 1, depth - (count - 1) * length, length)]
    total = Load(parts, 0, (*parts.strides[1:], parts.strides[0]))
    return [*products, Reduce(target, (*statement.domain, count), len(statement.domain), "sum", total, statement.origins)]


def _share(statement: Template, parts: Buffer, first: int, count: int, length: int, step: int | None = None) -> Template:
    """Shares first..first + count of `length` each, as a batch; `step` is the distance between shares, `length` by default."""
    a, b = statement.operands
    step = step or length
    target = Target(parts, first * parts.strides[0], parts.strides)
    return dataclasses.replace(
        statement, outputs=(target,), domain=(count, *statement.domain), params=GemmParams(length),
        operands=(_along(a, a.strides[-1], first, step), _along(b, b.strides[-2], first, step)),
    )  # fmt: skip


def _along(operand: Load, stride: int, first: int, step: int) -> Load:
    """The operand with the shares as its first axis; `stride` is that of its contracted axis."""
    return dataclasses.replace(operand, offset=operand.offset + first * step * stride, strides=(step * stride, *operand.strides))
