"""Matrix products against float64 products of torch: shapes, strides, dtypes, machines, symbolic sizes, epilogues."""

from __future__ import annotations

import pytest
import torch
from value_programs import MACHINES, compile_values, run_values

from accel.lowering import registry

aten = torch.ops.aten

# The error of a sum of k products in the accumulator's precision, rounded once to the dtype: a few units of the last place of
# the largest partial sums (k <= 600 here).
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def lower(op):
    return registry.find(op).function


def check(result, expected):
    expected = expected.to(result.dtype)
    if not result.dtype.is_floating_point:
        assert torch.equal(result, expected)
        return
    scale = expected.double().abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(result, expected, rtol=TOLERANCE[result.dtype], atol=TOLERANCE[result.dtype] * max(scale, 1e-30))


def operand(rows, columns, layout, dtype=torch.float32, seed=0, batch=()):
    """A matrix (or a batch) of the given layout: "row", "column", or "strided" with neither side contiguous."""
    torch.manual_seed(seed)
    make = (lambda *s: torch.randint(-9, 9, s).to(dtype)) if not dtype.is_floating_point else (lambda *s: torch.randn(*s).to(dtype))
    if layout == "row":
        return make(*batch, rows, columns)
    if layout == "column":
        return make(*batch, columns, rows).transpose(-1, -2)
    return make(*batch, rows, columns, 2)[..., 0]


SHAPES = [(1, 1, 1), (1, 64, 48), (3, 17, 5), (7, 33, 19), (6, 8, 16), (13, 100, 130), (40, 70, 33), (100, 20, 1), (1, 300, 1), (2, 600, 3), (50, 9, 2), (129, 31, 97)]
LAYOUTS = [("row", "row"), ("row", "column"), ("column", "row"), ("column", "column"), ("strided", "strided")]


def products(shapes, layouts, dtype=torch.float32, batch=()):
    """Operands of every shape in every layout."""
    return [(operand(m, k, la, dtype, 1, batch), operand(k, n, lb, dtype, 2, batch)) for m, k, n in shapes for la, lb in layouts]


def all_products(op):
    def program(g, *values):
        return [lower(op)(g, a, b) for a, b in zip(values[::2], values[1::2])]

    return program


@pytest.mark.parametrize("machine", MACHINES)
def test_mm_agrees_for_all_shapes_and_layouts(machine):
    shapes = SHAPES if machine == "lanes8" else SHAPES[2:9:3]
    pairs = products(shapes, LAYOUTS)
    results = run_values(all_products(aten.mm.default), [t for pair in pairs for t in pair], MACHINES[machine])
    for (a, b), result in zip(pairs, results):
        check(result, a.double() @ b.double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8], ids=str)
def test_mm_agrees_for_every_dtype(dtype):
    pairs = products([(3, 17, 5), (13, 40, 30)], LAYOUTS[:3], dtype)
    results = run_values(all_products(aten.mm.default), [t for pair in pairs for t in pair], MACHINES["lanes8"])
    for (a, b), result in zip(pairs, results):
        check(result, a.double() @ b.double() if dtype.is_floating_point else a @ b)


@pytest.mark.parametrize("machine", ["lanes8", "dvx-h1"])
def test_bmm_agrees_and_broadcast_batches_are_packed_once(machine):
    pairs = products([(5, 20, 9), (40, 33, 20), (1, 16, 40)], LAYOUTS, batch=(3,))
    pairs.append((torch.randn(4, 50, 12), torch.randn(1, 12, 40).expand(4, -1, -1)))
    results = run_values(all_products(aten.bmm.default), [t for pair in pairs for t in pair], MACHINES[machine])
    for (a, b), result in zip(pairs, results):
        check(result, a.double() @ b.double())


@pytest.mark.parametrize("machine", ["lanes4", "lanes8", "lanes16"])
@pytest.mark.parametrize("layouts", LAYOUTS[:4], ids="-".join)
def test_symbolic_sizes_serve_every_value(layouts, machine):
    program = all_products(aten.mm.default)
    pair = products([(29, 37, 41)], [layouts])[0]
    _, run = compile_values(program, pair, MACHINES[machine], {29: "s0", 37: "s1", 41: "s2"})
    for shape in [(29, 37, 41), (1, 1, 1), (6, 16, 32), (130, 7, 64), (5, 700, 3), (0, 4, 5), (4, 0, 5), (4, 5, 0)]:
        a, b = products([shape], [layouts])[0]
        check(run(a, b, sizes=shape)[0], a.double() @ b.double())


@pytest.mark.parametrize("machine", ["lanes8", "dvx-h1"])
def test_jobs_that_pack_their_own_panels(machine):
    """Wide products with k contiguous in B: blocks of rows and of k, odd sizes, batches, an epilogue, symbolic rows and depth."""
    x, w, batch, weights = torch.randn(45, 37), torch.randn(1303, 37), torch.randn(3, 35, 20), torch.randn(3, 400, 20)

    def program(g, x, w, bias, batch, weights):
        product = lower(aten.addmm.default)(g, bias, x, w.permute([1, 0]))
        return [g.map("maximum", product, g.constant(0.0, "f32")), lower(aten.bmm.default)(g, batch, weights.permute([0, 2, 1]))]

    bias = torch.randn(1303)
    partition, run = compile_values(program, (x, w, bias, batch, weights), MACHINES[machine], {45: "s0", 37: "s1"})
    assert machine != "lanes8" or [k.kind for k in partition.kernels] == ["gemm"] * 2
    for rows, depth in ((45, 37), (140, 700), (1, 5)):
        x, w = torch.randn(rows, depth), torch.randn(1303, depth)
        first, second = run(x, w, bias, batch, weights, sizes=(rows, depth))
        check(first, (x.double() @ w.double().t() + bias.double()).relu())
        check(second, batch.double() @ weights.double().mT)


@pytest.mark.parametrize("rows", [4, 61])
def test_symbolic_rows_with_known_weights(rows):
    _, run = compile_values(lambda g, x, w, b: lower(aten.addmm.default)(g, b, x, w.permute([1, 0])), (torch.randn(61, 40), torch.randn(24, 40), torch.randn(24)),
                            MACHINES["lanes8"], {61: "s0"})
    x, w, b = torch.randn(rows, 40), torch.randn(24, 40), torch.randn(24)
    check(run(x, w, b, sizes=(rows,))[0], x.double() @ w.double().t() + b.double())


@pytest.mark.parametrize("shape", [(0, 4, 5), (4, 0, 5), (4, 5, 0)])
def test_empty_sides(shape):
    (a, b), = products([shape], LAYOUTS[:1])
    result, biased = run_values(lambda g, a, b, c: [lower(aten.mm.default)(g, a, b), lower(aten.addmm.default)(g, c, a, b)], (a, b, torch.ones(shape[2])), MACHINES["lanes8"])
    assert torch.equal(result, a @ b)
    assert torch.equal(biased, a @ b + 1)


def test_addmm_family_scales_and_ignores_a_bias_with_beta_zero():
    nan = torch.full((9,), float("nan"))
    a, b, batch_a, batch_b = torch.randn(13, 20), torch.randn(20, 9), torch.randn(3, 13, 20), torch.randn(3, 20, 9)
    bias, x = torch.randn(9), torch.randn(20)

    def program(g, bias, nan, a, b, batch_a, batch_b, x):
        return [
            lower(aten.addmm.default)(g, bias, a, b, beta=0.5, alpha=2),
            lower(aten.addmm.default)(g, nan, a, b, beta=0, alpha=1),
            lower(aten.baddbmm.default)(g, bias, batch_a, batch_b, beta=2, alpha=0.25),
            lower(aten.addbmm.default)(g, bias, batch_a, batch_b),
            lower(aten.mv.default)(g, a, x),
            lower(aten.addmv.default)(g, bias, b.permute([1, 0]), x, beta=3, alpha=2),
            lower(aten.dot.default)(g, x, x),
        ]

    results = run_values(program, (bias, nan, a, b, batch_a, batch_b, x), MACHINES["lanes8"])
    a, b, batch_a, batch_b, bias, x = (t.double() for t in (a, b, batch_a, batch_b, bias, x))
    expected = [0.5 * bias + 2 * a @ b, a @ b, 2 * bias + 0.25 * batch_a @ batch_b, bias + (batch_a @ batch_b).sum(0), a @ x, 3 * bias + 2 * b.t() @ x, x @ x]
    for result, value in zip(results, expected):
        check(result, value)


@pytest.mark.parametrize("rows", [1, 5, 70])
def test_epilogue_joins_the_product(rows):
    x, w, residual = torch.randn(rows, 48), torch.randn(37, 48), torch.randn(rows, 37)

    def program(g, x, w, residual):
        product = lower(aten.mm.default)(g, x, w.permute([1, 0]))
        return g.map("maximum", g.map("add", product, residual), g.constant(0.0, "f32"))

    partition, run = compile_values(program, (x, w, residual), MACHINES["lanes8"])
    assert [k.kind for k in partition.kernels] in (["gemm"], ["pack", "gemm"])
    check(run(x, w, residual)[0], (x.double() @ w.double().t() + residual.double()).relu())


def test_products_of_nan_and_inf_stay():
    a = torch.zeros(8, 40)
    b = torch.zeros(40, 24)
    a[3, 5], b[7, 9], b[0, 1] = float("nan"), float("inf"), float("-inf")
    result, = run_values(all_products(aten.mm.default), (a, b), MACHINES["lanes8"])
    assert torch.equal(result.isnan(), (a @ b).isnan())
