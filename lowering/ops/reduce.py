"""Reductions: sums, extrema, norms, variances over any set of dims.

ATen reduction overloads -> Reduce statements with pointwise prologues and epilogues. Half types accumulate in f32 as eager does.
"""

from __future__ import annotations

import math

import torch

from ..index_expr import Dim, product
from ..registry import dtype_name, lowering
from ..values import Graph, Unsupported, Value

__all__ = ["FLOATS", "divisor", "mean_over", "norm_over", "number_of", "opmath", "reduce_over", "reduced_dims", "variance_over"]

aten = torch.ops.aten
FLOATS = ("f32", "f64", "f16", "bf16")
_IDENTITY = {"sum": 0, "prod": 1, "any": False, "all": True}
_SPLIT_POINTS = 1 << 16  # a reduction with fewer elements is not worth a second pass
_SPLIT_PARTS = 64  # partial results of a split reduction: work for every context, and shorter chains of roundings


def opmath(dtype: str) -> str:
    """The dtype in which eager computes on elements of `dtype`."""
    return "f32" if dtype in ("f16", "bf16") else dtype


def reduced_dims(x: Value, dims) -> list[int]:
    """`dims` as torch takes them (None and [] mean all), counted from the front."""
    if isinstance(dims, int):
        dims = [dims]
    if not dims:
        return list(range(x.rank))
    return sorted(d % x.rank for d in dims) if x.rank else []


def reduce_over(g: Graph, op: str, x: Value, dims: list[int], keepdim: bool = False) -> Value:
    """`op` over the dims (as reduced_dims gives them); long reductions with few results go in two passes."""
    if not dims and not op.startswith("arg"):
        return x
    reduced = [x.sizes[d] for d in dims]
    if any(size == 0 for size in reduced):
        return _of_nothing(g, op, x, dims, keepdim)
    if op.startswith("arg") or not all(isinstance(s, int) for s in x.sizes):
        return g.reduce(op, x, dims, keepdim)
    n_reduced = math.prod(reduced)
    if n_reduced < _SPLIT_POINTS or x.numel // n_reduced >= _SPLIT_PARTS:
        return g.reduce(op, x, dims, keepdim)
    return _in_two_passes(g, op, x, dims, keepdim)


def _of_nothing(g: Graph, op: str, x: Value, dims, keepdim: bool) -> Value:
    kept = [1 if d in dims else s for d, s in enumerate(x.sizes) if keepdim or d not in dims]
    if op not in _IDENTITY and not any(size == 0 for size in kept):
        raise Unsupported(f"{op} over a dim of size 0 has no value")
    return g.constant(_IDENTITY.get(op, 0), "i64" if op.startswith("arg") else x.dtype, kept)


def _in_two_passes(g: Graph, op: str, x: Value, dims: list[int], keepdim: bool) -> Value:
    """Splits a reduced dim into parts, reduces within them, then over them: the outermost that is long enough, for parts that are runs of memory."""
    split = next((d for d in dims if x.sizes[d] >= _SPLIT_PARTS), max(dims, key=lambda d: x.sizes[d]))
    size = x.sizes[split]
    parts = next((p for p in range(min(_SPLIT_PARTS, size), 0, -1) if size % p == 0), 1)
    if parts < 8:
        parts = min(_SPLIT_PARTS, size)
    whole = size // parts * parts
    body = x.slice(split, 0, whole).reshape([*x.sizes[:split], parts, whole // parts, *x.sizes[split + 1:]])
    shifted = [d + (d > split) for d in dims if d != split] + [split + 1]
    result = g.reduce(op, g.reduce(op, body, sorted(shifted), True), [*shifted, split], True).squeeze([split])
    if whole != size:
        rest = g.reduce(op, x.slice(split, whole, size), dims, True)
        result = g.map(_PAIR[op], result, rest)
    return result if keepdim else result.squeeze(dims)


_PAIR = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum", "any": "or", "all": "and"}


def number_of(g: Graph, size: Dim, dtype: str) -> Value | float:
    """A size to compute with in a float dtype: a number where it is known, else a scalar Value."""
    return float(size) if isinstance(size, int) else g.cast(g.constant(size, "i64"), dtype)


def divisor(g: Graph, count: Dim, dtype: str) -> Value:
    """A number of elements as a scalar Value of a float dtype."""
    number = number_of(g, count, dtype)
    return number if isinstance(number, Value) else g.constant(number, dtype)


def mean_over(g: Graph, x: Value, dims: list[int], keepdim: bool = False) -> Value:
    """The mean over dims, in x's own dtype."""
    return reduce_over(g, "sum", x, dims, keepdim) / divisor(g, product(x.sizes[d] for d in dims), x.dtype)


def variance_over(g: Graph, x: Value, dims: list[int], correction: float = 0.0, keepdim: bool = False) -> tuple[Value, Value]:
    """(variance, mean) over dims in two passes; the divisor is max(count - correction, 0)."""
    x = g.realize(x)
    mean = g.realize(mean_over(g, x, dims, True))
    centred = x - mean
    squares = reduce_over(g, "sum", centred * centred, dims, True)
    count = product(x.sizes[d] for d in dims)
    freedom = g.constant(max(float(count) - correction, 0.0), x.dtype) if isinstance(count, int) else g.map("maximum", divisor(g, count, x.dtype) - float(correction), g.constant(0.0, x.dtype))
    variance = squares / freedom
    return (variance, mean) if keepdim else (variance.squeeze(dims), mean.squeeze(dims))


def _result_dtype(x: Value, dtype: torch.dtype | None) -> str:
    """The dtype of a sum or product: integers and bool become i64."""
    if dtype is not None:
        return dtype_name(dtype)
    return x.dtype if x.dtype in FLOATS else "i64"


def _accumulated(g: Graph, op: str, x: Value, dims, keepdim: bool, dtype) -> Value:
    result = _result_dtype(x, dtype)
    return g.cast(reduce_over(g, op, g.cast(g.cast(x, result), opmath(result)), reduced_dims(x, dims), keepdim), result)


@lowering(aten.sum.default, aten.sum.dim_IntList)
def sum_(g: Graph, x: Value, dims=None, keepdim: bool = False, dtype=None) -> Value:
    return _accumulated(g, "sum", x, dims, keepdim, dtype)


@lowering(aten.nansum.default)
def nansum(g: Graph, x: Value, dims=None, keepdim: bool = False, dtype=None) -> Value:
    return _accumulated(g, "sum", g.constant(0, x.dtype).where(x.differs(x), x) if x.dtype in FLOATS else x, dims, keepdim, dtype)


@lowering(aten.prod.default)
def prod(g: Graph, x: Value, dtype=None) -> Value:
    return _accumulated(g, "prod", x, None, False, dtype)


@lowering(aten.prod.dim_int)
def prod_dim(g: Graph, x: Value, dim: int, keepdim: bool = False, dtype=None) -> Value:
    return _accumulated(g, "prod", x, dim, keepdim, dtype)


@lowering(aten.mean.default, aten.mean.dim)
def mean(g: Graph, x: Value, dims=None, keepdim: bool = False, dtype=None) -> Value:
    result = dtype_name(dtype) if dtype is not None else x.dtype
    if result not in FLOATS:
        raise Unsupported(f"mean of dtype {result}")
    return g.cast(mean_over(g, g.cast(g.cast(x, result), opmath(result)), reduced_dims(x, dims), keepdim), result)


@lowering(aten.count_nonzero.default, aten.count_nonzero.dim_IntList)
def count_nonzero(g: Graph, x: Value, dims=None) -> Value:
    return reduce_over(g, "sum", g.cast(g.cast(x, "bool"), "i64"), reduced_dims(x, dims))


def extremum_over(g: Graph, op: str, x: Value, dims: list[int], keepdim: bool) -> Value:
    """max or min; of bool it is any or all."""
    if x.dtype == "bool":
        op = {"max": "any", "min": "all"}[op]
        if any(x.sizes[d] == 0 for d in dims):
            raise Unsupported("an extremum over a dim of size 0 has no value")
    return reduce_over(g, op, x, dims, keepdim)


@lowering(aten.amax.default)
def amax(g: Graph, x: Value, dims=(), keepdim: bool = False) -> Value:
    return extremum_over(g, "max", x, reduced_dims(x, dims), keepdim)


@lowering(aten.amin.default)
def amin(g: Graph, x: Value, dims=(), keepdim: bool = False) -> Value:
    return extremum_over(g, "min", x, reduced_dims(x, dims), keepdim)


@lowering(aten.max.default)
def max_all(g: Graph, x: Value) -> Value:
    return extremum_over(g, "max", x, reduced_dims(x, None), False)


@lowering(aten.min.default)
def min_all(g: Graph, x: Value) -> Value:
    return extremum_over(g, "min", x, reduced_dims(x, None), False)


@lowering(aten.aminmax.default)
def aminmax(g: Graph, x: Value, *, dim=None, keepdim: bool = False) -> tuple[Value, Value]:
    dims = reduced_dims(x, dim)
    x = g.realize(x)
    return extremum_over(g, "min", x, dims, keepdim), extremum_over(g, "max", x, dims, keepdim)


def _position(g: Graph, op: str, x: Value, dims: list[int], keepdim: bool) -> Value:
    if not dims:
        return g.constant(0, "i64", x.sizes)
    return reduce_over(g, op, g.cast(x, "i32") if x.dtype == "bool" else x, dims, keepdim)


def _with_position(g: Graph, op: str, x: Value, dim: int, keepdim: bool) -> tuple[Value, Value]:
    x = g.realize(x)
    dims = reduced_dims(x, dim)
    return extremum_over(g, op, x, dims, keepdim), _position(g, f"arg{op}", x, dims, keepdim)


@lowering(aten.max.dim)
def max_dim(g: Graph, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _with_position(g, "max", x, dim, keepdim)


@lowering(aten.min.dim)
def min_dim(g: Graph, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return _with_position(g, "min", x, dim, keepdim)


@lowering(aten.argmax.default)
def argmax(g: Graph, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _position(g, "argmax", x, reduced_dims(x, None if dim is None else [dim]), keepdim)


@lowering(aten.argmin.default)
def argmin(g: Graph, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _position(g, "argmin", x, reduced_dims(x, None if dim is None else [dim]), keepdim)


def _truth(g: Graph, op: str, x: Value, dims: list[int], keepdim: bool) -> Value:
    result = reduce_over(g, op, g.cast(x, "bool"), dims, keepdim)
    return g.cast(result, "u8") if x.dtype == "u8" else result


@lowering(aten.any.default, aten.any.dim)
def any_(g: Graph, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _truth(g, "any", x, reduced_dims(x, None if dim is None else [dim]), keepdim)


@lowering(aten.all.default, aten.all.dim)
def all_(g: Graph, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _truth(g, "all", x, reduced_dims(x, None if dim is None else [dim]), keepdim)


def _listed_dims(x: Value, dims) -> list[int]:
    """any.dims and all.dims: None means all, [] means none."""
    return [] if dims is not None and len(dims) == 0 else reduced_dims(x, dims)


@lowering(aten.any.dims)
def any_dims(g: Graph, x: Value, dim=None, keepdim: bool = False) -> Value:
    return _truth(g, "any", x, _listed_dims(x, dim), keepdim)


@lowering(aten.all.dims)
def all_dims(g: Graph, x: Value, dim=None, keepdim: bool = False) -> Value:
    return _truth(g, "all", x, _listed_dims(x, dim), keepdim)


def _moments(g: Graph, x: Value, dims, correction, keepdim: bool) -> tuple[Value, Value]:
    if x.dtype not in FLOATS:
        raise Unsupported(f"variance of dtype {x.dtype}")
    correction = 1 if correction is None else correction
    return variance_over(g, g.cast(x, opmath(x.dtype)), reduced_dims(x, dims), float(correction), keepdim)


@lowering(aten.var.correction)
def var(g: Graph, x: Value, dim=None, *, correction=None, keepdim: bool = False) -> Value:
    return g.cast(_moments(g, x, dim, correction, keepdim)[0], x.dtype)


@lowering(aten.std.correction)
def std(g: Graph, x: Value, dim=None, *, correction=None, keepdim: bool = False) -> Value:
    return g.cast(g.map("sqrt", _moments(g, x, dim, correction, keepdim)[0]), x.dtype)


@lowering(aten.var_mean.correction)
def var_mean(g: Graph, x: Value, dim=None, *, correction=None, keepdim: bool = False) -> tuple[Value, Value]:
    variance, mean = _moments(g, x, dim, correction, keepdim)
    return g.cast(variance, x.dtype), g.cast(mean, x.dtype)


@lowering(aten.std_mean.correction)
def std_mean(g: Graph, x: Value, dim=None, *, correction=None, keepdim: bool = False) -> tuple[Value, Value]:
    variance, mean = _moments(g, x, dim, correction, keepdim)
    return g.cast(g.map("sqrt", variance), x.dtype), g.cast(mean, x.dtype)


@lowering(aten.var.default, aten.var.dim)
def var_dim(g: Graph, x: Value, *args, **kwargs) -> Value:
    dims, unbiased, keepdim = _dims_unbiased_keepdim(args, kwargs)
    return var(g, x, dims, correction=int(unbiased), keepdim=keepdim)


@lowering(aten.std.default, aten.std.dim)
def std_dim(g: Graph, x: Value, *args, **kwargs) -> Value:
    dims, unbiased, keepdim = _dims_unbiased_keepdim(args, kwargs)
    return std(g, x, dims, correction=int(unbiased), keepdim=keepdim)


def _dims_unbiased_keepdim(args, kwargs):
    """Arguments of the old overloads: (unbiased) or (dim, unbiased, keepdim)."""
    args = list(args)
    dims = kwargs.get("dim")
    if args and not isinstance(args[0], bool):
        dims = args.pop(0)
    unbiased = args[0] if args else kwargs.get("unbiased", True)
    keepdim = args[1] if len(args) > 1 else kwargs.get("keepdim", False)
    return dims, unbiased, keepdim


def norm_over(g: Graph, x: Value, order: float, dims: list[int], keepdim: bool) -> Value:
    """The vector norm of any order over dims."""
    magnitude = g.map("abs", x)
    if order == math.inf:
        return reduce_over(g, "max", magnitude, dims, keepdim)
    if order == -math.inf:
        return reduce_over(g, "min", magnitude, dims, keepdim)
    if order == 0:
        return reduce_over(g, "sum", g.cast(x.differs(0), x.dtype), dims, keepdim)
    if order == 1:
        return reduce_over(g, "sum", magnitude, dims, keepdim)
    if order == 2:
        if not dims:
            return magnitude
        return g.map("sqrt", reduce_over(g, "sum", x * x, dims, keepdim))
    powers = reduce_over(g, "sum", g.map("pow", magnitude, g.constant(float(order), x.dtype)), dims, keepdim)
    return g.map("pow", powers, g.constant(1.0 / order, x.dtype))


@lowering(aten.linalg_vector_norm.default)
def linalg_vector_norm(g: Graph, x: Value, ord=2, dim=None, keepdim: bool = False, *, dtype=None) -> Value:
    result = dtype_name(dtype) if dtype is not None else x.dtype
    if result not in FLOATS:
        raise Unsupported(f"norm of dtype {result}")
    dims = reduced_dims(x, dim)
    if any(x.sizes[d] == 0 for d in dims) and (ord < 0 or ord == math.inf):
        raise Unsupported(f"norm of order {ord} over a dim of size 0")
    return g.cast(norm_over(g, g.cast(g.cast(x, result), opmath(result)), float(ord), dims, keepdim), result)


@lowering(aten.norm.Scalar, aten.norm.ScalarOpt_dim)
def norm(g: Graph, x: Value, p=2, dim=None, keepdim: bool = False) -> Value:
    return linalg_vector_norm(g, x, 2 if p is None else p, dim, keepdim)


@lowering(aten.dist.default)
def dist(g: Graph, x: Value, y: Value, p=2) -> Value:
    if x.dtype != y.dtype or x.dtype not in FLOATS:
        raise Unsupported(f"dist of dtypes {x.dtype} and {y.dtype}")
    difference = g.cast(x, opmath(x.dtype)) - g.cast(y, opmath(x.dtype))
    return linalg_vector_norm(g, g.cast(difference, x.dtype), p)


@lowering(aten.logsumexp.default)
def logsumexp(g: Graph, x: Value, dims, keepdim: bool = False) -> Value:
    result = x.dtype if x.dtype in FLOATS else "f32"
    wide = g.realize(g.cast(x, opmath(result)))
    dims = reduced_dims(x, dims)
    if any(x.sizes[d] == 0 for d in dims):
        return g.constant(-math.inf, result, reduce_over(g, "sum", wide, dims, keepdim).sizes)
    largest = reduce_over(g, "max", wide, dims, True)
    shift = g.realize(g.constant(0.0, wide.dtype).where(g.map("abs", largest).equals(math.inf), largest))
    total = g.map("log", reduce_over(g, "sum", g.map("exp", wide - shift), dims, True)) + shift
    return g.cast(total if keepdim else total.squeeze(dims), result)


