"""Random numbers: ATen's drawing operators with a seed as their first argument, over Philox (math_random.py).

For every overload in DRAWS there is an operator accel::<name> that takes `Tensor seed`, int32[2], before ATen's arguments, and is a
function of them alone. The frontend rewrites graphs to these and draws the seeds from torch's generator (dynamo_backend/random_ops.py).

Element e of a result takes its bits from counter e mod m, where m is the number of counters that the result needs: the elements
that one counter makes lie m apart, so that a kernel stores each of its vectors in one piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..index_expr import Dim, floordiv, product
from ..registry import dtype_name, lowering, pointwise, promote
from ..tensor_ir import Target
from ..values import Graph, Unsupported, Value, broadcast_sizes
from .pointwise import require
from .sort import sorted_positions
from ...csrc.abi import STATUS_NEGATIVE_DEVIATION, STATUS_NO_PROBABILITY

__all__ = ["DRAWS"]

aten = torch.ops.aten

_OVERLOADS = (
    aten.native_dropout.default, aten.bernoulli.default, aten.bernoulli.p, aten.bernoulli.Tensor, aten.rand.default, aten.randn.default, aten.rand_like.default,
    aten.randn_like.default, aten.randint.default, aten.randint.low, aten.randint_like.default, aten.randint_like.low_dtype, aten.uniform.default,
    aten.exponential.default, aten.geometric.default, aten.cauchy.default, aten.log_normal.default, aten.normal_functional.default, aten.normal.Tensor_float,
    aten.normal.float_Tensor, aten.normal.Tensor_Tensor, aten.normal.float_float, aten.rrelu_with_noise_functional.default, aten.randperm.default,
    getattr(aten.random, "from"), aten.random.to, aten.random.default,
)  # fmt: skip


def _define(overload: torch._ops.OpOverload) -> torch._ops.OpOverload:
    """accel::<name>_<overload> with a seed before the arguments of `overload`."""
    name = overload._schema.name.removeprefix("aten::") + (f"_{overload._overloadname}" if overload._overloadname != "default" else "")
    arguments = str(overload._schema).partition("(")[2]
    torch.library.define(f"accel::{name}", f"(Tensor seed, {arguments}", tags=(torch.Tag.pt2_compliant_tag,))
    return getattr(torch.ops.accel, name).default


# ATen's overload -> the operator that takes a seed.
DRAWS = {overload: _define(overload) for overload in _OVERLOADS}


def draw(*overloads: torch._ops.OpOverload):
    """Decorator: f(graph, draw, *arguments) is the lowering of the seeded form of `overloads`; the seed is in `draw`."""

    def register(function):
        def lower(g: Graph, seed: Value, *args, generator=None, layout=None, device=None, pin_memory=None, memory_format=None, **kwargs):
            if generator is not None:
                raise Unsupported("random numbers from a generator of the caller's")
            return function(g, Draw(g, seed), *args, **kwargs)

        lowering(*(DRAWS[overload] for overload in overloads))(lower)
        return function

    return register


class Draw:
    """Random tensors under one seed. A lowering takes one of them: two would hold the same bits."""

    def __init__(self, g: Graph, seed: Value):
        self.g = g
        self.key = (seed.select(0, 0), seed.select(0, 1))

    def tensor(self, sizes: Sequence[Dim], dtype: str, n_elements: int, make: Callable[[list[Value]], list[Value]]) -> Value:
        """A tensor of `sizes`: make(four i32 words) gives the `n_elements` elements of a counter."""
        g = self.g
        sizes = tuple(sizes)
        total = product(sizes)
        if isinstance(total, int) and total == 0:
            return g.constant(0, dtype, sizes)
        n_counters = floordiv(total + (n_elements - 1), n_elements)
        counter = g.index((n_counters,), 0)
        words = [g.map("philox", counter, *self.key, dtype="i32", attrs=(k,)) for k in range(4)]
        buffer = g.buffer(dtype, (n_elements * n_counters,))
        for k, element in enumerate(make(words)):
            g.store(g.cast(element, dtype), Target(buffer, n_counters * k, (1,)))
        return g.read(buffer).slice(0, 0, total).reshape(sizes)

    def uniform(self, sizes: Sequence[Dim], dtype: str) -> Value:
        """Multiples of the last place below 1, in [0, 1): 24 bits of f32, 11 of f16, 8 of bf16, 53 of f64."""
        if dtype == "f64":
            return self.tensor(sizes, dtype, 2, lambda w: [_unit_f64(self.g, w[0], w[1]), _unit_f64(self.g, w[2], w[3])])
        n_bits = {"f32": 24, "f16": 11, "bf16": 8}[dtype]
        return self.tensor(sizes, dtype, 4, lambda w: [_unit_f32(self.g, word, n_bits) for word in w])

    def open_uniform(self, sizes: Sequence[Dim], dtype: str) -> Value:
        """Numbers in (0, 1), for logarithms and poles; dtype is f32 or f64."""
        places = 24 if dtype == "f32" else 53
        value = self.uniform(sizes, dtype) + 0.5 * 2.0**-places
        return self.g.map("minimum", value, self.g.constant(1 - 2.0**-places, dtype))

    def normal(self, sizes: Sequence[Dim], dtype: str) -> Value:
        """Standard normal numbers by the transform of Box and Muller; dtype is f32 or f64."""
        if dtype == "f64":
            return self.tensor(sizes, dtype, 2, lambda w: _box_muller(_unit_f64(self.g, w[0], w[1]), _unit_f64(self.g, w[2], w[3]), 53))
        units = lambda w: [_unit_f32(self.g, word, 24) for word in w]  # noqa: E731  (two pairs of numbers from one counter)
        return self.tensor(sizes, dtype, 4, lambda w: [z for first, second in (units(w[:2]), units(w[2:])) for z in _box_muller(first, second, 24)])

    def bits64(self, sizes: Sequence[Dim]) -> Value:
        """i64 with all bits random."""
        return self.tensor(sizes, "i64", 2, lambda w: [_join(self.g, w[0], w[1]), _join(self.g, w[2], w[3])])


def _unit_f32(g: Graph, word: Value, n_bits: int) -> Value:
    return g.cast(g.map("ushr", word, g.constant(32 - n_bits, "i32")), "f32") * 2.0**-n_bits


def _join(g: Graph, high: Value, low: Value) -> Value:
    upper = g.map("shl", g.cast(high, "i64"), g.constant(32, "i64"))
    return upper | (g.cast(low, "i64") & (2**32 - 1))


def _unit_f64(g: Graph, high: Value, low: Value) -> Value:
    return g.cast(g.map("ushr", _join(g, high, low), g.constant(11, "i64")), "f64") * 2.0**-53


def _box_muller(first: Value, second: Value, n_bits: int) -> list[Value]:
    """Two independent normal numbers from two uniform ones, of which the first is moved from [0, 1) to (0, 1]."""
    g = first.graph
    radius = g.map("sqrt", g.map("log", first + 2.0**-n_bits) * -2.0)
    angle = second * (2 * math.pi)
    return [radius * g.map("cos", angle), radius * g.map("sin", angle)]


def _wide(dtype: str) -> str:
    """The dtype in which numbers of a floating-point `dtype` are made."""
    return "f64" if dtype == "f64" else "f32"


def _name_of(dtype: torch.dtype | None, default: str | None = None) -> str:
    if dtype is None:
        return default if default is not None else dtype_name(torch.get_default_dtype())
    return dtype_name(dtype)


def _floating(dtype: str, what: str) -> str:
    if dtype not in ("f32", "f64", "f16", "bf16"):
        raise Unsupported(f"{what} of {dtype}")
    return dtype


# Uniform


@draw(aten.rand.default)
def rand(g: Graph, random: Draw, sizes, *, dtype=None) -> Value:
    """Uniform in [0, 1)."""
    return random.uniform(sizes, _floating(_name_of(dtype), "rand"))


@draw(aten.rand_like.default)
def rand_like(g: Graph, random: Draw, x: Value, *, dtype=None) -> Value:
    """rand with x's sizes."""
    return random.uniform(x.sizes, _floating(_name_of(dtype, x.dtype), "rand_like"))


@draw(aten.uniform.default)
def uniform(g: Graph, random: Draw, x: Value, low=0.0, high=1.0) -> Value:
    """Uniform in [low, high)."""
    dtype = _floating(x.dtype, "uniform")
    unit = g.cast(random.uniform(x.sizes, dtype), _wide(dtype))
    return g.cast(unit * (high - low) + low, dtype)


def _integers(g: Graph, random: Draw, sizes, low, high, dtype: str) -> Value:
    """Integers in [low, high): a word's product with the range, or 64 bits modulo it; the bias is below range / 2**32, as eager's."""
    span = high - low
    if isinstance(span, int) and span <= 0:
        raise Unsupported(f"random integers from an empty range: {low} to {high}")
    if not isinstance(span, int) or span <= 2**32:
        word = lambda w: g.map("ushr", (g.cast(w, "i64") & (2**32 - 1)) * span, g.constant(32, "i64"))  # noqa: E731
        value = random.tensor(sizes, "i64", 4, lambda words: [word(w) for w in words])
    elif span < 2**63:
        value = g.map("fmod", random.bits64(sizes) & (2**63 - 1), g.constant(span, "i64"))
    else:
        raise Unsupported(f"random integers from a range of {span} numbers: more than 2**63")
    return g.cast(value + low, dtype)


@draw(aten.randint.default)
def randint(g: Graph, random: Draw, high, sizes, *, dtype=torch.int64) -> Value:
    """Integers in [0, high)."""
    return _integers(g, random, sizes, 0, high, _name_of(dtype))


@draw(aten.randint.low)
def randint_low(g: Graph, random: Draw, low, high, sizes, *, dtype=torch.int64) -> Value:
    """Integers in [low, high)."""
    return _integers(g, random, sizes, low, high, _name_of(dtype))


@draw(aten.randint_like.default)
def randint_like(g: Graph, random: Draw, x: Value, high, *, dtype=None) -> Value:
    """randint with x's sizes."""
    return _integers(g, random, x.sizes, 0, high, _name_of(dtype, x.dtype))


@draw(aten.randint_like.low_dtype)
def randint_like_low(g: Graph, random: Draw, x: Value, low, high, *, dtype=None) -> Value:
    """randint.low with x's sizes."""
    return _integers(g, random, x.sizes, low, high, _name_of(dtype, x.dtype))


# Tensor.random_() without bounds: every integer up to the largest, or up to which floats are exact.
_ALL_INTEGERS = {"f32": 2**24 + 1, "f64": 2**53 + 1, "f16": 2**11 + 1, "bf16": 2**8 + 1, "i64": 2**63 - 1, "i32": 2**31, "i16": 2**15, "i8": 2**7, "u8": 2**8, "bool": 2}


@draw(aten.random.default)
def random_(g: Graph, random: Draw, x: Value) -> Value:
    """Integers of x's whole range that are not negative."""
    return _integers(g, random, x.sizes, 0, _ALL_INTEGERS[x.dtype], x.dtype)


@draw(aten.random.to)
def random_to(g: Graph, random: Draw, x: Value, high) -> Value:
    """Integers in [0, high)."""
    return _integers(g, random, x.sizes, 0, high, x.dtype)


@draw(getattr(aten.random, "from"))
def random_from(g: Graph, random: Draw, x: Value, low, high) -> Value:
    """Integers in [low, high)."""
    return _integers(g, random, x.sizes, low, _ALL_INTEGERS[x.dtype] if high is None else high, x.dtype)


@draw(aten.randperm.default)
def randperm(g: Graph, random: Draw, n, *, dtype=torch.int64) -> Value:
    """The order of n random keys of 64 bits."""
    name = _name_of(dtype)
    return g.cast(sorted_positions(g, random.bits64((n,)), 0, False), name) if n != 0 else g.constant(0, name, (0,))


# Bernoulli


def _coin(g: Graph, random: Draw, sizes: Sequence[Dim], p: float) -> Value:
    """bool, true with probability p: a random word below p * 2**32, both moved into the range of int32."""
    bound = round(p * 2.0**32) - 2**31
    if bound >= 2**31 or bound <= -(2**31):
        return g.constant(bound > 0, "bool", sizes)
    return random.tensor(sizes, "bool", 4, lambda words: [word < bound for word in words])


def _checked_probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise Unsupported(f"a probability of {p}: eager raises")
    return p


@draw(aten.native_dropout.default)
def native_dropout(g: Graph, random: Draw, x: Value, p, train=None) -> tuple[Value, Value]:
    """(x * mask / (1 - p), mask)."""
    if train is False:
        return x, g.constant(True, "bool", x.sizes)
    kept = 1 - _checked_probability(p)
    mask = _coin(g, random, x.sizes, kept)
    return pointwise(g, "mul", pointwise(g, "mul", x, mask), 1 / kept if kept else 0.0), mask


@draw(aten.bernoulli.p)
def bernoulli_p(g: Graph, random: Draw, x: Value, p) -> Value:
    """1 with probability p, else 0; x gives sizes and dtype."""
    return g.cast(_coin(g, random, x.sizes, _checked_probability(p)), x.dtype)


def _coins(g: Graph, random: Draw, sizes: Sequence[Dim], p: Value) -> Value:
    is_probability = g.map("and", p >= 0, p <= 1)
    dtype = "f64" if p.dtype == "f64" else "f32"
    return random.uniform(sizes, dtype) < g.cast(require(g, p, is_probability, STATUS_NO_PROBABILITY), dtype).expand(sizes)


@draw(aten.bernoulli.default)
def bernoulli(g: Graph, random: Draw, p: Value) -> Value:
    """1 with the probability that p holds, else 0."""
    return g.cast(_coins(g, random, p.sizes, p if p.dtype in ("f32", "f64", "f16", "bf16") else g.cast(p, "f32")), p.dtype)


@draw(aten.bernoulli.Tensor)
def bernoulli_tensor(g: Graph, random: Draw, x: Value, p: Value) -> Value:
    """bernoulli(p) with x's sizes and dtype."""
    return g.cast(_coins(g, random, x.sizes, p if p.dtype in ("f32", "f64", "f16", "bf16") else g.cast(p, "f32")), x.dtype)


@draw(aten.rrelu_with_noise_functional.default)
def rrelu(g: Graph, random: Draw, x: Value, noise: Value, lower=0.125, upper=1 / 3, training=False) -> tuple[Value, Value]:
    """(x, or x * noise where x <= 0, noise): noise is uniform in [lower, upper) there, and 1 where x > 0."""
    compute, result = promote((x,))
    wide = g.cast(x, compute)
    if not training:
        slope = (float(lower) + float(upper)) / 2
        return g.cast((wide * slope).where(wide <= 0, wide), result), noise
    factor = random.uniform(x.sizes, compute) * (float(upper) - float(lower)) + float(lower)
    noise = g.cast(factor.where(wide <= 0, 1.0), result)
    return g.cast((wide * g.cast(noise, compute)).where(wide <= 0, wide), result), noise


# Normal


@draw(aten.randn.default)
def randn(g: Graph, random: Draw, sizes, *, dtype=None) -> Value:
    """Standard normal."""
    return _normal(g, random, sizes, 0.0, 1.0, _name_of(dtype))


@draw(aten.randn_like.default)
def randn_like(g: Graph, random: Draw, x: Value, *, dtype=None) -> Value:
    """randn with x's sizes."""
    return _normal(g, random, x.sizes, 0.0, 1.0, _name_of(dtype, x.dtype))


def _normal(g: Graph, random: Draw, sizes, mean, deviation, dtype: str) -> Value:
    wide = _wide(_floating(dtype, "normal numbers"))
    if isinstance(deviation, (int, float)) and deviation < 0:
        raise Unsupported(f"normal numbers of deviation {deviation}: eager raises")
    if isinstance(deviation, Value):
        deviation = g.cast(require(g, deviation, deviation >= 0, STATUS_NEGATIVE_DEVIATION), wide)
    mean = g.cast(mean, wide) if isinstance(mean, Value) else mean
    value = random.normal(sizes, wide)
    value = value if isinstance(deviation, (int, float)) and deviation == 1 else value * deviation
    return g.cast(value if isinstance(mean, (int, float)) and mean == 0 else value + mean, dtype)


@draw(aten.normal_functional.default)
def normal_functional(g: Graph, random: Draw, x: Value, mean=0.0, std=1.0) -> Value:
    """Normal with x's sizes and dtype."""
    return _normal(g, random, x.sizes, mean, std, x.dtype)


@draw(aten.normal.Tensor_float)
def normal_mean(g: Graph, random: Draw, mean: Value, std=1.0) -> Value:
    """Normal around each element of mean."""
    return _normal(g, random, mean.sizes, mean, std, mean.dtype)


@draw(aten.normal.float_Tensor)
def normal_deviation(g: Graph, random: Draw, mean, std: Value) -> Value:
    """Normal with each element of std as its deviation."""
    return _normal(g, random, std.sizes, mean, std, std.dtype)


@draw(aten.normal.Tensor_Tensor)
def normal_both(g: Graph, random: Draw, mean: Value, std: Value) -> Value:
    """Normal with mean and deviation by element."""
    return _normal(g, random, broadcast_sizes(mean.sizes, std.sizes), mean, std, mean.dtype)


@draw(aten.normal.float_float)
def normal_numbers(g: Graph, random: Draw, mean, std, sizes, *, dtype=None) -> Value:
    """Normal with one mean and deviation."""
    return _normal(g, random, sizes, mean, std, _name_of(dtype))


@draw(aten.log_normal.default)
def log_normal(g: Graph, random: Draw, x: Value, mean=1.0, std=2.0) -> Value:
    """e to the power of normal numbers."""
    return g.cast(g.map("exp", _normal(g, random, x.sizes, mean, std, _wide(_floating(x.dtype, "log_normal")))), x.dtype)


# By inversion


@draw(aten.exponential.default)
def exponential(g: Graph, random: Draw, x: Value, lambd=1.0) -> Value:
    """-ln(1 - u) / lambd, never 0."""
    dtype = _floating(x.dtype, "exponential")
    if lambd <= 0:
        raise Unsupported(f"exponential numbers of rate {lambd}: eager raises")
    logarithm = g.map("log1p", g.map("neg", random.open_uniform(x.sizes, _wide(dtype))))
    return g.cast(logarithm * (-1.0 / lambd), dtype)


@draw(aten.geometric.default)
def geometric(g: Graph, random: Draw, x: Value, p) -> Value:
    """ceil(ln u / ln(1 - p)): the number of trials up to the first success."""
    if not 0 < p < 1:
        raise Unsupported(f"geometric numbers of probability {p}: eager raises")
    wide = "f32" if x.dtype in ("f16", "bf16", "f32") else "f64"
    logarithm = g.map("log", random.open_uniform(x.sizes, wide))
    return g.cast(g.map("ceil", logarithm * (1.0 / math.log1p(-p))), x.dtype)


@draw(aten.cauchy.default)
def cauchy(g: Graph, random: Draw, x: Value, median=0.0, sigma=1.0) -> Value:
    """median + sigma tan(pi (u - 1/2))."""
    dtype = _floating(x.dtype, "cauchy")
    if sigma <= 0:
        raise Unsupported(f"cauchy numbers of scale {sigma}: eager raises")
    tangent = g.map("tan", (random.open_uniform(x.sizes, _wide(dtype)) - 0.5) * math.pi)
    return g.cast(tangent * sigma + median, dtype)
