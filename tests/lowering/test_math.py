"""Accuracy of the elementary functions, in ULP of the result, against torch in float64 over all exponents and edge values."""

from __future__ import annotations

import math

import pytest
import torch

from accel.csrc.machine import resolve_machine
from accel.lowering.emit_c import C_ELEMENT, Call, emit_partition
from accel.lowering.fuse import Group
from accel.lowering.tensor_ir import Map, Target
from accel.lowering.values import Graph
from accel.lowering.vectorize import lower_group
from accel.csrc import isa
from accel.csrc.abi import PartitionSource, TensorArg
from accel.runtime import Executor, build

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1.1754944e-38, 3.4e38, -3.4e38, 88.7, 88.8, -87.3, -103.0, -104.5, math.pi, 1e30, 2.0**26]


def run_map(names: dict[str, int], dtype: str, *inputs: torch.Tensor, machine: str = "host") -> dict[str, torch.Tensor]:
    """Every operator in `names` applied to as many of `inputs` as its value says, compiled as one partition."""
    n, lanes = inputs[0].numel(), resolve_machine(machine).lanes
    g = Graph()
    values = [g.input(f"x{i}", dtype, (n,), (1,)) for i in range(len(inputs))]
    calls, outputs = [], []
    for i, (name, arity) in enumerate(names.items()):
        out = g.buffer(dtype, (n,))
        statement = Map(Target(out, 0, (1,)), (n,), g.map(name, *values[:arity]).expr)
        bound = lower_group(Group((n,), (), (statement,), frozenset([out])), name, lanes)
        places = {value.expr.buffer: f"buffers[{k}]" for k, value in enumerate(values)} | {out: f"buffers[{len(inputs) + i}]"}
        kind = C_ELEMENT["sf" if dtype == "f32" else "df"]
        calls.append(Call(bound.kernel, tuple(f"({kind} *){places[a]}" for a in bound.arguments)))
        outputs.append(TensorArg(name, dtype, (n,), (1,)))
    units, _, n_blocks = emit_partition("math", tuple(calls), ())
    args = tuple(TensorArg(f"x{i}", dtype, (n,), (1,)) for i in range(len(inputs)))
    source = PartitionSource("math", units, 4 * lanes, args, tuple(outputs), n_counters=n_blocks + len(isa.INSTRUCTIONS) + 1, n_blocks=n_blocks)
    return dict(zip(names, Executor(build(source), source)(*inputs)))


def samples(seed: int, n: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31, (n,), generator=g).to(torch.int32).view(torch.float32)
    near = torch.randn(n, generator=g) * torch.tensor([0.01, 1.0, 10.0, 60.0]).repeat(n // 4 + 1)[:n]
    return torch.cat([torch.tensor(EDGES), bits, near])


def ulp_error(got: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """|got - exact| in units of the f32 spacing at exact; 0 where both are the same special value."""
    rounded = exact.to(torch.float32)
    spacing = torch.maximum(torch.nextafter(rounded.abs(), torch.tensor(math.inf)).double() - rounded.abs().double(), torch.tensor(2.0**-149, dtype=torch.float64))
    same = (got == rounded) | (got.isnan() & rounded.isnan())
    error = (got.double() - exact).abs() / spacing
    return torch.where(same, 0.0, torch.where(rounded.isfinite() & got.isfinite(), error, math.inf))


# operator -> (reference in float64, bound in ULP)
UNARY = {
    "exp": (torch.exp, 2.0), "log": (torch.log, 2.0), "tanh": (torch.tanh, 2.0), "sigmoid": (torch.sigmoid, 2.5), "erf": (torch.erf, 2.0), "sin": (torch.sin, 2.0), "cos": (torch.cos, 2.0),
    "rsqrt": (torch.rsqrt, 1.5), "reciprocal": (torch.reciprocal, 0.51), "expm1": (torch.expm1, 0.51), "log1p": (torch.log1p, 0.51), "tan": (torch.tan, 0.51),
    "atan": (torch.atan, 0.51), "asin": (torch.asin, 0.51), "acos": (torch.acos, 0.51), "sinh": (torch.sinh, 0.51), "cosh": (torch.cosh, 0.51), "asinh": (torch.asinh, 0.51),
    "acosh": (torch.acosh, 0.51), "atanh": (torch.atanh, 0.51), "exp2": (torch.exp2, 0.51), "log2": (torch.log2, 0.51), "log10": (torch.log10, 0.51),
}  # fmt: skip
# long expansions in f64: compiled for the host alone
SPECIAL = {
    "lgamma": (torch.lgamma, 0.51), "digamma": (torch.digamma, 0.51), "erfc": (torch.erfc, 0.51), "erfcx": (torch.special.erfcx, 0.51), "erfinv": (torch.erfinv, 0.51),
    "ndtri": (torch.special.ndtri, 0.51),
}  # fmt: skip
FLUSHED = {"sigmoid"}  # e**-x overflows before the result is subnormal: it is 0 there, as eager's
REDUCED = {"tan"}  # f32 arguments beyond 2**30 lose bits in the f64 reduction


@pytest.fixture(scope="module", params=["host", "dvx-h1"])
def unary_results(request):
    x = samples(0, 20_000)
    return x, run_map(dict.fromkeys(UNARY, 1), "f32", x, machine=request.param)


@pytest.mark.parametrize("name", UNARY)
def test_unary_f32_is_within_its_bound(unary_results, name):
    x, results = unary_results
    reference, bound = UNARY[name]
    error = ulp_error(results[name], reference(x.double()))
    if name in REDUCED:
        error = error[~(x.abs() >= 2.0**30)]
        x = x[~(x.abs() >= 2.0**30)]
    if name in FLUSHED:
        error = error.where(reference(x.double()) > 1.2e-38, 0.0)
    worst = int(error.argmax())
    assert error[worst] <= bound, f"{name}({x[worst].item()!r}) is {error[worst].item():.2f} ULP off"


@pytest.mark.parametrize("machine", ["host", "dvx-h1"])
def test_normal_cdf_is_within_an_ulp_of_one(machine):
    """The tail of negative numbers is relative to itself as long as it matters; far out it is 0."""
    x = torch.cat([samples(4, 8000), torch.linspace(-15, 15, 8000)])
    result, exact = run_map({"normal_cdf": 1}, "f32", x, machine=machine)["normal_cdf"], torch.special.ndtr(x.double())
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=1.2e-7, equal_nan=True)
    tail = (x < -0.5) & (x > -5)
    torch.testing.assert_close(result[tail].double(), exact[tail], rtol=1e-4, atol=0)
    assert (result[x < -11] == 0).all() and (result[x > 11] == 1).all()


@pytest.fixture(scope="module")
def special_results():
    x = samples(0, 2_000)
    return x, run_map(dict.fromkeys(SPECIAL, 1), "f32", x)


@pytest.mark.parametrize("name", SPECIAL)
def test_special_f32_is_within_its_bound(special_results, name):
    x, results = special_results
    reference, bound = SPECIAL[name]
    error = ulp_error(results[name], reference(x.double()))
    worst = int(error.argmax())
    assert error[worst] <= bound, f"{name}({x[worst].item()!r}) is {error[worst].item():.2f} ULP off"


def test_binary_f32_agrees_with_eager():
    x, y = samples(1, 4000), samples(2, 4000).roll(7)
    results = run_map({"pow": 2, "atan2": 2, "hypot": 2, "nextafter": 2, "fmod": 2, "copysign": 2}, "f32", x, y)
    for name in ("pow", "atan2", "hypot"):
        error = ulp_error(results[name], getattr(torch, name)(x.double(), y.double()))
        worst = int(error.argmax())
        assert error[worst] <= 2.0, f"{name}({x[worst].item()!r}, {y[worst].item()!r}) = {results[name][worst].item()!r}, {error[worst].item():.2f} ULP off"
    for name in ("nextafter", "copysign"):
        torch.testing.assert_close(results[name], getattr(torch, name)(x, y), rtol=0, atol=0, equal_nan=True)
    assert_is_fmod(results["fmod"], x, y)


def test_f64_fmod_is_exact_for_quotients_of_any_size():
    def numbers(seed):
        generator = torch.Generator().manual_seed(seed)
        mantissas = 1 + torch.rand(2000, dtype=torch.float64, generator=generator)
        return torch.cat([torch.ldexp(mantissas, torch.randint(-1070, 1023, (2000,), generator=generator)), torch.tensor([5e-324, 1.7e308, 1.5], dtype=torch.float64)])

    x, y = numbers(1), numbers(2).roll(1)
    assert_is_fmod(run_map({"fmod": 2}, "f64", x, y)["fmod"], x, y)


def assert_is_fmod(result, x, y):
    """Compare with C's; eager's vectors give NaN where x / y overflows."""
    expected = [math.fmod(a, b) if math.isfinite(a) and b != 0 and not math.isnan(b) else math.nan for a, b in zip(x.tolist(), y.tolist())]
    torch.testing.assert_close(result, torch.tensor(expected, dtype=x.dtype), rtol=0, atol=0, equal_nan=True)


def test_f64_functions_are_within_a_few_ulp():
    x = torch.cat([samples(3, 4000).double(), torch.randn(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 30])
    names = ["exp", "log", "sin", "cos", "tanh", "expm1", "log1p", "atan", "asin", "acos", "sinh", "cosh", "asinh", "acosh", "atanh", "sigmoid"]
    results = run_map(dict.fromkeys(names, 1), "f64", x)
    for name in names:
        expected = getattr(torch, name)(x)
        torch.testing.assert_close(results[name], expected, rtol=4e-15, atol=1e-300, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}")


def test_sine_and_cosine_of_any_double_agree_with_eager():
    """Exponents up to the largest; the last point is the double nearest to a multiple of pi/2 (Muller, Elementary Functions, 11.2)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.ldexp(torch.rand(2000, generator=generator, dtype=torch.float64) + 1, torch.randint(20, 1024, (2000,), generator=generator))
    x = torch.cat([x, -x, torch.tensor([2.0**30, math.inf, -math.inf, math.nan, 6381956970095103 * 2.0**797], dtype=torch.float64)])
    values = run_map({"sin": 1, "cos": 1}, "f64", x)
    for name, function in (("sin", torch.sin), ("cos", torch.cos)):
        torch.testing.assert_close(values[name], function(x), rtol=0, atol=3e-16, equal_nan=True)
