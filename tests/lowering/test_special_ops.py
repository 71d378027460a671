"""Operators of ops/special.py, integer division and shifts, compiled: against eager, bit for bit, on edge values."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F

FLOATS = [0.0, -0.0, 1.0, -1.0, 2.5, -3.75, 1e-42, 6e-8, 65504.0, 3e38, math.inf, -math.inf, math.nan]
POWERS = [200, -150, 3, 300, -2000, 2000, -149, 1, 0, -1, 5, 7, 2**40]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="accel", options={"strict": True})


def assert_same(got, expected):
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_float_format_operators_agree_with_eager(dtype):
    def parts(x, n):
        return (*torch.frexp(x), torch.ldexp(x, n), torch.signbit(x), torch.angle(x), torch.round(x, decimals=1), torch.round(x, decimals=-2))

    x, n = torch.tensor(FLOATS, dtype=dtype), torch.tensor(POWERS)
    assert_same(compiled(parts)(x, n), parts(x, n))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_operators_agree_with_eager(dtype):
    def parts(a, b, amount):
        divided = (a // b, torch.remainder(a, b), torch.fmod(a, b), torch.div(a, b, rounding_mode="trunc"))
        return (*divided, torch.gcd(a, b), torch.lcm(a, b), a << amount, a >> amount)

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-(2**30), 2**30, (83,), generator=generator).to(dtype) for _ in range(2))
    a[:2], b[2:4] = 0, torch.iinfo(dtype).min
    b[b == 0] = 1
    amount = (torch.arange(83) - 9).to(dtype)
    assert_same(compiled(parts)(a, b, amount), parts(a, b, amount))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_numbers_beyond_an_integer_dtype_compare_as_in_eager(dtype):
    x = torch.tensor([0, 1, 44, 45, 127], dtype=dtype)
    assert_same(compiled(lambda x: (x > -1, x < 300, x == 2**40 + 1, x >= 2.5))(x), (x > -1, x < 300, x == 2**40 + 1, x >= 2.5))


def test_sign_of_nan_is_zero_as_in_eager():
    x = torch.tensor([math.nan, -math.inf, math.inf, -0.0, -1e-45, 3.0])
    assert_same(compiled(torch.sign)(x), torch.sign(x))


def test_nextafter_of_bfloat16_agrees_with_eager():
    x = torch.tensor([0.0, 1.0, -1.0, 3e38], dtype=torch.bfloat16)
    y = torch.tensor([1.0, 0.0, -2.0, math.inf], dtype=torch.bfloat16)
    assert_same(torch.compile(torch.nextafter, backend="accel")(x, y), torch.nextafter(x, y))


def test_gcd_takes_as_many_steps_as_euclid_needs():
    a, b = torch.tensor([7540113804746346429, 0, 0]), torch.tensor([4660046610375530309, 0, 6])
    assert compiled(torch.gcd)(a, b).tolist() == [1, 0, 6]


@pytest.mark.parametrize("divide", [torch.floor_divide, torch.remainder, torch.fmod], ids=lambda f: f.__name__)
def test_integer_division_by_zero_raises_as_eager_does(divide):
    a, b = torch.arange(1, 14), torch.arange(1, 14)
    function = compiled(lambda a, b: divide(a, b) + 1)
    assert_same([function(a, b)], [divide(a, b) + 1])
    b[12] = 0
    with pytest.raises(RuntimeError, match="^ZeroDivisionError$"):
        function(a, b)


def test_integer_division_by_zero_is_seen_where_the_element_is_not_read():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        compiled(lambda a, b: (a // b)[1:] * 2)(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 1]))


@pytest.mark.parametrize("lengths", [[2, 3], [2, 5], [-1, 7]])
def test_segments_that_do_not_fit_raise_as_in_eager(lengths):
    data, lengths = torch.arange(6.0), torch.tensor(lengths)
    with pytest.raises(RuntimeError) as expected:
        torch.segment_reduce(data, "sum", lengths=lengths)
    with pytest.raises(RuntimeError, match=re.escape(str(expected.value))):
        compiled(lambda d, l: torch.segment_reduce(d, "sum", lengths=l))(data, lengths)


def test_unsafe_segments_are_not_checked():
    data, lengths = torch.arange(6.0), torch.tensor([2, 3])
    got = compiled(lambda d, l: torch.segment_reduce(d * 1, "sum", lengths=l, unsafe=True))(data, lengths)
    torch.testing.assert_close(got, torch.tensor([1.0, 9.0]))


@pytest.mark.parametrize(("repeats", "size"), [([1, 2], 4), ([1, 2], 2), ([-1, 2], 1)])
def test_repeats_that_do_not_fit_raise(repeats, size):
    with pytest.raises(RuntimeError, match="allocated size does not match required size"):
        compiled(lambda r: torch.repeat_interleave(r, output_size=size) * 2)(torch.tensor(repeats))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int8], ids=str)
def test_trigamma_at_negative_integers_is_as_large_as_eager_s(dtype):
    x = torch.arange(-100, 5).to(dtype)
    torch.testing.assert_close(compiled(lambda x: torch.polygamma(1, x))(x), torch.polygamma(1, x))


def test_trigamma_vanishes_at_infinity():
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 1e30])
    torch.testing.assert_close(compiled(lambda x: torch.polygamma(1, x))(x), torch.polygamma(1, x), equal_nan=True)


def test_polygamma_agrees_with_eager():
    """Eager's own trigamma is good to 1e-9 only."""
    x = torch.tensor([0.3, 1.0, 2.5, 7.0, 40.0], dtype=torch.float64)
    torch.testing.assert_close(compiled(lambda x: torch.polygamma(1, x))(x), torch.polygamma(1, x), rtol=2e-9, atol=0)
    torch.testing.assert_close(compiled(lambda x: torch.polygamma(3, x))(x), torch.polygamma(3, x), rtol=1e-13, atol=0)


def test_gradient_of_a_summed_half_embedding_bag():
    """Eager's bfloat16 kernel gives no bag per index, its fake tensors do."""
    indices, offsets = torch.tensor([1, 3, 2, 0, 1]), torch.tensor([0, 2])
    gradients = []
    for function in (F.embedding_bag, compiled(lambda *args, **kwargs: F.embedding_bag(*args, **kwargs))):
        weight = torch.linspace(-1, 1, 20).reshape(4, 5).bfloat16().requires_grad_()
        scale = torch.linspace(1, 2, 5).bfloat16().requires_grad_()
        function(indices, weight, offsets, mode="sum", per_sample_weights=scale).sum().backward()
        gradients.append((weight.grad, scale.grad))
    torch.testing.assert_close(*gradients)
