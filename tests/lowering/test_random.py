"""Random numbers: Philox against its published vectors, every distribution by moments and by its distribution function, edges exactly."""

from __future__ import annotations

import math

import pytest
import torch

N = 20_000
# A sample of N from the right distribution is farther from it than this once in 1e7 (Kolmogorov: P(sqrt(N) D > 2.9) = 2 exp(-2 · 2.9²)).
KS_BOUND = 2.9 / math.sqrt(N)


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="accel", options={"strict": True})


def seeded(function, seed=7):
    torch.manual_seed(seed)
    return compiled(function)(torch.zeros(N))


def ks_distance(sample: torch.Tensor, cdf) -> float:
    ordered = cdf(sample.double().flatten().sort().values)
    steps = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    return max((ordered - steps[:-1]).max().item(), (steps[1:] - ordered).max().item())


def philox_words(counter: int, key: int) -> list[int]:
    """One block of Philox 4x32-10 in Python's integers."""
    c, k = [counter & 0xFFFFFFFF, counter >> 32, 0, 0], [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        first, second = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(second >> 32) ^ c[1] ^ k[0], second & 0xFFFFFFFF, (first >> 32) ^ c[3] ^ k[1], first & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_the_reference_gives_the_published_vector():
    """Of Random123's kat_vectors: counter 0, key 0."""
    assert philox_words(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_uniform_bits_are_philox_under_a_key_from_torch_s_generator():
    torch.manual_seed(7)
    key = torch.empty(1, dtype=torch.int64).random_(-(2**63), None).item() % 2**64
    drawn = seeded(lambda x: torch.rand(4, 21), seed=7)
    assert drawn.tolist() == [[(philox_words(counter, key)[word] >> 8) * 2.0**-24 for counter in range(21)] for word in range(4)]


CONTINUOUS = {
    "rand": (torch.rand_like, lambda x: x.clamp(0, 1)),
    "uniform": (lambda x: x.clone().uniform_(-3, 5), lambda x: (x + 3) / 8),
    "randn": (torch.randn_like, torch.special.ndtr),
    "normal": (lambda x: torch.normal(x + 2.0, 3.0), lambda x: torch.special.ndtr((x - 2) / 3)),
    "log_normal": (lambda x: x.clone().log_normal_(0.5, 0.25), lambda x: torch.special.ndtr((x.log() - 0.5) / 0.25)),
    "exponential": (lambda x: x.clone().exponential_(2.0), lambda x: 1 - torch.exp(-2 * x)),
    "cauchy": (lambda x: x.clone().cauchy_(1.0, 2.0), lambda x: torch.atan((x - 1) / 2) / math.pi + 0.5),
}


@pytest.fixture(scope="module")
def continuous_samples():
    return seeded(lambda x: {name: function(x) for name, (function, _) in CONTINUOUS.items()})


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distribution(continuous_samples, name):
    sample = continuous_samples[name]
    assert sample.isfinite().all()
    assert ks_distance(sample, CONTINUOUS[name][1]) < KS_BOUND


DIGITS = {torch.float64: 53, torch.float16: 11, torch.bfloat16: 8}


def test_other_dtypes_of_uniform_and_normal():
    for dtype, unit, normal in zip(DIGITS, *seeded(lambda x: ([torch.rand(N, dtype=d) for d in DIGITS], [torch.randn(N, dtype=d) for d in DIGITS]))):
        assert unit.dtype == normal.dtype == dtype
        assert 0 <= unit.min() and unit.max() < 1
        assert torch.equal((unit.double() * 2.0 ** DIGITS[dtype]).frac(), torch.zeros(N, dtype=torch.float64))
        assert abs(unit.double().mean().item() - 0.5 * (1 - 2.0 ** -DIGITS[dtype])) < 5 / math.sqrt(12 * N)
        assert abs(normal.double().mean().item()) < 5 / math.sqrt(N)
        assert abs(normal.double().var().item() - 1) < 5 * math.sqrt(2 / N)


def test_pairs_of_normal_numbers_are_independent():
    sample = seeded(torch.randn_like).reshape(4, -1).double()
    correlation = torch.corrcoef(torch.cat([sample, sample**2]))
    assert (correlation - torch.eye(8)).abs().max() < 5 / math.sqrt(N / 4)


def test_integers_are_uniform_over_their_range():
    small, signed, wide, all_bits = seeded(
        lambda x: (torch.randint(10, (N,)), torch.randint(-7, 3, (N,), dtype=torch.int8), torch.randint(-(2**61), 2**61, (N,)), torch.empty(N, dtype=torch.int64).random_())
    )
    for sample, low in ((small, 0), (signed, -7)):
        counts = torch.bincount(sample.long() - low, minlength=10)
        assert len(counts) == 10 and ((counts - N / 10) ** 2 / (N / 10)).sum() < 40  # chi squared with 9 degrees of freedom: once in 1e5
    assert ks_distance(wide, lambda x: (x + 2.0**61) / 2.0**62) < KS_BOUND
    assert ks_distance(all_bits, lambda x: x / 2.0**63) < KS_BOUND


def test_geometric_numbers():
    sample = seeded(lambda x: x.clone().geometric_(0.25)).double()
    assert sample.min() == 1
    assert abs(sample.mean().item() - 4) < 5 * math.sqrt(12 / N)
    assert abs((sample == 1).double().mean().item() - 0.25) < 5 * math.sqrt(0.1875 / N)


def test_randperm_is_a_permutation():
    lengths = (0, 1, 1000)
    for n, first, second in zip(lengths, *seeded(lambda x: ([torch.randperm(n) for n in lengths], [torch.randperm(n) for n in lengths]))):
        assert torch.equal(first.sort().values, torch.arange(n))
        assert n < 2 or not torch.equal(first, second)


def test_bernoulli_is_exact_at_0_and_1():
    p = torch.tensor([0.0, 1.0, 0.3]).repeat_interleave(N)
    sample, all_zero, all_one = seeded(lambda x: (torch.bernoulli(p), torch.bernoulli(x, p=0.0), torch.bernoulli(x, p=1.0)))
    assert sample[:N].sum() == 0 and sample[N : 2 * N].sum() == N and all_zero.sum() == 0 and all_one.sum() == N
    assert abs(sample[2 * N :].mean().item() - 0.3) < 5 * math.sqrt(0.21 / N)


def test_bernoulli_refuses_what_is_no_probability():
    function = compiled(torch.bernoulli)
    for bad in (1.5, -0.1, math.nan):
        with pytest.raises(RuntimeError, match="p_in >= 0 && p_in <= 1"):
            function(torch.tensor([0.5] * 10 + [bad]))


def test_dropout_scales_what_it_keeps():
    x = torch.randn(N)
    torch.manual_seed(0)
    outputs = compiled(lambda x: [torch.nn.functional.dropout(x, p, True) for p in (0.0, 1.0, 0.25)])(x)
    assert torch.equal(outputs[0], x) and torch.equal(outputs[1], torch.zeros(N))
    kept = outputs[2] != 0
    torch.testing.assert_close(outputs[2][kept], x[kept] / 0.75)
    assert abs(kept.double().mean().item() - 0.75) < 5 * math.sqrt(0.1875 / N)


def test_rrelu_draws_slopes_for_negative_numbers():
    x = torch.randn(N)
    torch.manual_seed(0)
    y = compiled(lambda x: torch.nn.functional.rrelu(x, 0.1, 0.4, training=True))(x)
    slope = (y / x)[x < 0]
    assert torch.equal(y[x > 0], x[x > 0]) and slope.min() > 0.0999 and slope.max() < 0.4001
    assert ks_distance(slope, lambda s: (s - 0.1) / 0.3) < 2 * KS_BOUND
