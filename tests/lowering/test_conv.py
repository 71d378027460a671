"""Convolutions against torch's in float64: sizes, strides, layouts, groups, transposed, dtypes, machines, symbolic sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from value_programs import MACHINES, compile_values, run_values

import accel
from accel.lowering import registry
from accel.lowering.tensor_ir import Target

aten = torch.ops.aten

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def lower(op):
    return registry.find(op).function


def check(result, expected):
    scale = expected.abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(result.double(), expected.double(), rtol=TOLERANCE[result.dtype], atol=TOLERANCE[result.dtype] * max(scale, 1e-30))


def case(image, weight, stride=1, padding=0, dilation=1, transposed=False, output_padding=0, groups=1, bias=True, last=False, dtype=torch.float32):
    """(tensors, arguments of aten.convolution behind them)."""
    torch.manual_seed(0)
    rank = len(image) - 2
    per_dim = [list(v) if isinstance(v, tuple) else [v] * rank for v in (stride, padding, dilation, output_padding)]
    x, w = torch.randn(image).to(dtype), torch.randn(weight).to(dtype)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    out_channels = weight[1] * groups if transposed else weight[0]
    b = [torch.randn(out_channels).to(dtype)] if bias else []
    return [x, w, *b], (*per_dim[:3], transposed, per_dim[3], groups)


def run_cases(cases, machine, symbols=None):
    def program(g, *values):
        values, results = list(values), []
        for tensors, arguments in cases:
            x, w = values.pop(0), values.pop(0)
            b = values.pop(0) if len(tensors) == 3 else None
            results.append(lower(aten.convolution.default)(g, x, w, b, *arguments))
        return results

    return run_values(program, [t for tensors, _ in cases for t in tensors], machine, symbols)


def check_cases(cases, machine):
    for (tensors, arguments), result in zip(cases, run_cases(cases, machine)):
        x, w, *b = (t.double() for t in tensors)
        check(result, aten.convolution(x, w, b[0] if b else None, *arguments))


PLAIN = [
    case((2, 3, 9, 11), (5, 3, 3, 3), padding=1),
    case((1, 16, 8, 8), (24, 16, 3, 3), padding=1, last=True),
    case((1, 16, 8, 8), (24, 16, 3, 3), padding=(1, 2), stride=(2, 1), bias=False),
    case((2, 12, 7, 7), (20, 12, 1, 1)),
    case((2, 12, 7, 7), (20, 12, 1, 1), last=True),
    case((1, 8, 9, 9), (7, 8, 1, 1), stride=2, last=True),
    case((1, 3, 20, 20), (16, 3, 7, 7), stride=2, padding=3),
    case((1, 4, 15, 12), (6, 4, 3, 3), dilation=2, padding=2),
    case((1, 40, 5, 5), (48, 40, 5, 5), padding=2),
]
ONE_AND_THREE_DIMS = [
    case((2, 20, 33), (24, 20, 3), padding=1),  # taps lead from row to row of a tile
    case((2, 5, 30), (9, 5, 4), padding=2, stride=3),
    case((1, 6, 17), (8, 6, 3), dilation=4, padding=4, last=True),
    case((1, 3, 6, 7, 8), (10, 3, 3, 3, 3), padding=1),
    case((2, 4, 5, 6, 4), (8, 4, 2, 3, 1), stride=(2, 1, 1), padding=(0, 1, 0), last=True),
]
GROUPED = [
    case((1, 12, 8, 8), (12, 4, 3, 3), groups=3, padding=1),
    case((2, 32, 6, 6), (64, 8, 1, 1), groups=4, last=True),
    case((2, 32, 6, 5), (48, 16, 3, 3), groups=2, padding=1, stride=(1, 2)),
    case((1, 16, 14, 14), (16, 1, 3, 3), groups=16, padding=1),
    case((1, 16, 30, 29), (16, 1, 3, 3), groups=16, padding=1, last=True),
    case((2, 19, 9, 40), (19, 1, 5, 5), groups=19, padding=2, stride=2),
    case((1, 24, 7, 7), (24, 1, 7, 7), groups=24, padding=3, last=True),
    case((1, 9, 25), (9, 1, 3), groups=9, padding=2, dilation=2),
    case((1, 4, 6, 6), (8, 1, 3, 3), groups=4, padding=1),
    case((1, 8, 4, 5, 6), (8, 1, 3, 3, 3), groups=8, padding=1),
]
# Groups of which a vector of output channels covers several, with 4 lanes as with 32.
SMALL_GROUPS = [
    case((2, 32, 9, 45), (32, 2, 3, 3), groups=16, padding=1),
    case((1, 32, 9, 8), (32, 4, 3, 3), groups=8, padding=1, stride=2, last=True),
    case((1, 64, 7, 6), (64, 8, 1, 1), groups=8, last=True),
    case((1, 32, 30), (32, 2, 5), groups=16, padding=4, dilation=2, bias=False),
    case((1, 32, 4, 5, 6), (32, 2, 2, 3, 3), groups=16, stride=(1, 2, 1), padding=(0, 1, 1)),
    case((1, 32, 8, 8), (32, 4, 3, 3), groups=8, padding=1, dtype=torch.bfloat16),
    case((1, 32, 8, 8), (32, 4, 3, 3), groups=8, padding=1, dtype=torch.float64),
]
TRANSPOSED = [
    case((1, 6, 7, 7), (6, 5, 3, 3), transposed=True, padding=1),
    case((2, 8, 5, 6), (8, 4, 4, 4), transposed=True, stride=2, padding=1),
    case((1, 8, 5, 6), (8, 4, 3, 3), transposed=True, stride=(2, 3), padding=1, output_padding=1, last=True),
    case((1, 8, 9), (8, 3, 5), transposed=True, stride=3, dilation=2),
    case((1, 8, 6, 6), (8, 2, 3, 3), transposed=True, groups=4, stride=2, bias=False),
    case((1, 6, 5, 5), (6, 3, 2, 2), transposed=True, padding=3, stride=4, output_padding=2),
    case((2, 8, 6, 7), (8, 1, 4, 3), transposed=True, stride=2, padding=1, groups=8),
    case((2, 9, 5, 4), (9, 1, 5, 2), transposed=True, stride=(3, 4), dilation=(2, 1), groups=9, last=True),
    case((2, 5, 1, 1), (5, 7, 4, 4), transposed=True),
    case((2, 5, 1, 3), (5, 7, 3, 6), transposed=True, stride=(1, 5), padding=(1, 2), output_padding=(0, 4)),
    case((1, 4, 3, 4, 5), (4, 3, 2, 4, 3), transposed=True, stride=2),
    case((2, 4, 3), (4, 6, 16), transposed=True, stride=8, padding=4, last=True),
    case((2, 4, 1, 1), (6, 4, 3, 3), padding=1),
]
# Sides of one pixel, in each of the kernels.
ONE_PIXEL = [
    case((2, 32, 16, 1), (32, 4, 2, 2), groups=8, padding=(0, 1), dilation=(1, 2)),
    case((2, 32, 1, 16), (32, 4, 3, 2), groups=8, padding=(2, 0), dilation=(2, 1), stride=(1, 2), last=True),
    case((1, 32, 1, 9), (40, 32, 3, 3), padding=(3, 1)),
    case((2, 16, 1, 20), (16, 1, 3, 3), groups=16, padding=(2, 1)),
    case((2, 16, 20, 1), (16, 1, 3, 3), groups=16, padding=(1, 2), last=True),
    case((2, 8, 1), (8, 8, 5), padding=4, dilation=2),
]
# Products with pixels that are one by one: output pixels, channels of the image, taps of a phase.
WITHOUT_ZEROS = [
    (case((1, 8, 10, 10), (8, 16, 4, 4), transposed=True, stride=2, padding=1), 400 * 8 * 4),
    (case((1, 8, 10, 10), (8, 16, 2, 2), transposed=True, stride=2), 400 * 8),
    (case((3, 8, 1, 1), (8, 16, 4, 4), transposed=True), 48 * 8),
    (case((3, 8, 1, 1), (16, 8, 3, 3), padding=1), 3 * 8),
]
# Large enough for Winograd's squares, which also serve the gradient of the image.
SQUARES = [
    case((1, 32, 26, 25), (40, 32, 3, 3), padding=1),
    case((2, 45, 18, 21), (33, 45, 3, 3), last=True),
    case((1, 36, 30, 22), (32, 36, 3, 3), padding=(2, 0), bias=False),
    case((1, 53, 7, 6), (70, 53, 3, 3), padding=1),
]


@pytest.mark.parametrize("machine", ["lanes8", "lanes16", "dvx-h1"])
def test_squares_of_winograd_agree(machine):
    check_cases(SQUARES if machine == "lanes8" else SQUARES[1:2], MACHINES[machine])


def test_squares_agree_where_products_of_all_panels_are_kept():
    check_cases(SQUARES[:1], dataclasses.replace(MACHINES["lanes8"], l2_bytes=32 * 1024))


def test_squares_stay_within_the_stated_error():
    (x, w), arguments = case((1, 512, 8, 80), (32, 512, 3, 3), padding=1, bias=False)
    partition, run = compile_values(lambda g, x, w: lower(aten.convolution.default)(g, x, w, None, *arguments), (x, w), MACHINES["lanes8"])
    assert any(k.name == "winograd_weights" for k in partition.kernels)
    expected = aten.convolution(x.double(), w.double(), None, *arguments)
    assert (run(x, w)[0] - expected).abs().max() <= 5e-6 * expected.abs().max()


@pytest.mark.parametrize("layout", ["channels_last", "exchanged", "cropped"])
def test_weights_of_squares_may_lie_in_any_order(layout):
    (x, w), arguments = case((1, 37, 8, 9), (50, 37, 3, 3), padding=1, bias=False)
    w = {"channels_last": w.contiguous(memory_format=torch.channels_last), "exchanged": w.transpose(0, 1).contiguous().transpose(0, 1), "cropped": F.pad(w, (1, 1, 0, 1))[..., :3, 1:-1]}[layout]
    partition, run = compile_values(lambda g, x, w: lower(aten.convolution.default)(g, x, w, None, *arguments), (x, w), MACHINES["lanes8"])
    assert any(k.name == "winograd_weights" for k in partition.kernels)
    check(run(x, w)[0], aten.convolution(x.double(), w.double(), None, *arguments))


def test_squares_can_be_turned_off():
    (x, w), arguments = case((1, 32, 26, 26), (32, 32, 3, 3), padding=1, bias=False)

    def program(g, x, w):
        g.allows_winograd = False
        return lower(aten.convolution.default)(g, x, w, None, *arguments)

    partition, run = compile_values(program, (x, w), MACHINES["lanes8"])
    assert not any(k.name == "winograd_weights" for k in partition.kernels)
    check(run(x, w)[0], aten.convolution(x.double(), w.double(), None, *arguments))


@pytest.mark.parametrize("machine", ["lanes8", "lanes4", "lanes16", "dvx-h1"])
def test_convolutions_agree(machine):
    check_cases(PLAIN if machine == "lanes8" else PLAIN[::2], MACHINES[machine])


@pytest.mark.parametrize("machine", ["lanes8", "lanes16"])
def test_one_and_three_dims_agree(machine):
    check_cases(ONE_AND_THREE_DIMS, MACHINES[machine])


@pytest.mark.parametrize("machine", ["lanes8", "lanes4", "dvx-h1"])
def test_grouped_and_depthwise_agree(machine):
    check_cases([*(GROUPED if machine == "lanes8" else GROUPED[::3]), *SMALL_GROUPS], MACHINES[machine])


# Images that come and go channel by channel; the last ones do not fit this way: pixels are left out, or rows are short.
BY_ROWS = [
    case((1, 16, 14, 14), (16, 1, 3, 3), groups=16, padding=1),
    case((2, 3, 40, 67), (3, 1, 5, 5), groups=3, padding=2, bias=False),
    case((1, 2, 300, 130), (2, 1, 7, 3), groups=2, padding=(3, 1)),
    case((2, 5, 21, 33), (5, 1, 3, 3), groups=5, padding=(2, 3), stride=(2, 1), dilation=(2, 3)),
    case((1, 9, 35), (9, 1, 4), groups=9, dilation=2),
    case((1, 4, 17, 18), (4, 1, 2, 2), groups=4, dtype=torch.float64),
    case((1, 4, 17, 18), (4, 1, 3, 3), groups=4, padding=1, dtype=torch.bfloat16),
]
NOT_BY_ROWS = [case((2, 19, 9, 40), (19, 1, 5, 5), groups=19, padding=2, stride=2), case((1, 9, 30, 3), (9, 1, 3, 3), groups=9, padding=1)]


def depthwise_channel_by_channel(one, machine):
    """Kernels of a depthwise convolution with a ReLU behind it, compiled as a model, and the width of its result, which is compared with eager's."""
    (x, w, *b), arguments = one

    def model(x):
        return torch.relu(aten.convolution(x, w, b[0] if b else None, *arguments))

    torch._dynamo.reset()
    result = torch.compile(model, backend="accel", options={"machine": MACHINES[machine], "strict": True})(x)
    exact = torch.relu(aten.convolution(x.double(), w.double(), b[0].double() if b else None, *arguments))
    check(result, exact)
    assert result.stride() == exact.stride()
    (partition,) = accel.explain(model, machine=MACHINES[machine])(x).graphs[0].partitions
    return [kernel["name"] for kernel in partition.kernels], result.shape[-1]


@pytest.mark.parametrize("machine", ["lanes8", "lanes4", "lanes16", "dvx-h1"])
def test_depthwise_by_rows_agrees_and_copies_nothing_around(machine):
    for one in BY_ROWS:
        kernels, width = depthwise_channel_by_channel(one, machine)
        assert (kernels == ["conv"]) == (2 * width >= MACHINES[machine].lanes)


@pytest.mark.parametrize("one", NOT_BY_ROWS, ids=["strided", "short rows"])
def test_depthwise_that_leaves_pixels_out_or_has_short_rows_runs_along_channels(one):
    assert len(depthwise_channel_by_channel(one, "lanes8")[0]) > 1


@pytest.mark.parametrize("machine", ["lanes8", "lanes16"])
def test_transposed_convolutions_and_sides_of_one_pixel_agree(machine):
    check_cases([*TRANSPOSED, *ONE_PIXEL], MACHINES[machine])


def n_products(one):
    """Vector multiply-adds on a machine with 32 lanes."""
    tensors, arguments = one
    return accel.profile(lambda *tensors: aten.convolution(*tensors, *arguments), machine="dvx-h1")(*tensors).total.instructions["vfma.sf"]


@pytest.mark.parametrize(("one", "products"), WITHOUT_ZEROS, ids=["k4 s2", "k2 s2", "pixel", "padded pixel"])
def test_zeros_between_and_around_pixels_are_not_multiplied(one, products):
    assert n_products(one) == products


def test_small_groups_fill_vectors():
    assert n_products(case((1, 64, 8, 8), (64, 4, 3, 3), groups=16, padding=1)) == 2 * 64 * 9 * 4


def test_gradient_of_an_output_padding_as_wide_as_the_stride():
    tensors, arguments = case((2, 3, 12), (3, 4, 2), transposed=True, stride=1, dilation=2, output_padding=1)
    grad, x, w, _, rest = backward_arguments(tensors, arguments)

    def program(g, *values):
        return lower(aten.convolution_backward.default)(g, *values, *rest)

    for result, expected in zip(run_values(program, [grad, x, w], MACHINES["lanes8"]), aten.convolution_backward(grad, x, w, *rest)):
        check(result, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes_agree(dtype):
    cases = [
        case((1, 8, 6, 6), (10, 8, 3, 3), padding=1, dtype=dtype),
        case((1, 8, 6, 6), (10, 8, 1, 1), last=True, dtype=dtype),
        case((1, 8, 6, 6), (8, 1, 3, 3), groups=8, padding=1, dtype=dtype),
        case((1, 8, 6, 6), (8, 5, 3, 3), transposed=True, stride=2, dtype=dtype),
    ]
    check_cases(cases, MACHINES["lanes8"])


TRANSPOSED_DEPTHWISE = {"groups": 8, "padding": 1, "stride": 2, "transposed": True}


@pytest.mark.parametrize("arguments", [
    {"padding": 1}, {"padding": 1, "stride": 2, "last": True}, {"groups": 8, "padding": 1}, {"stride": 2, "transposed": True, "output_padding": 1}, TRANSPOSED_DEPTHWISE, {"groups": 4, "padding": 1},
], ids=["plain", "strided", "depthwise", "transposed", "transposed depthwise", "small groups"])  # fmt: skip
def test_symbolic_batch_and_image(arguments):
    weight = (8, 8 // arguments.get("groups", 1), 3, 3)
    tensors, rest = case((5, 8, 11, 13), weight, **arguments)

    def program(g, x, w, b):
        return lower(aten.convolution.default)(g, x, w, b, *rest)

    _, run = compile_values(program, tensors, MACHINES["lanes8"], {5: "s0", 11: "s1", 13: "s2"})
    for sizes in [(5, 11, 13), (1, 3, 3), (2, 20, 9)]:
        (x, w, b), _ = case((sizes[0], 8, *sizes[1:]), weight, **arguments)
        check(run(x, w, b, sizes=sizes)[0], aten.convolution(x.double(), w.double(), b.double(), *rest))


def test_residual_and_activation_join_the_convolution():
    (x, w, b), arguments = case((1, 16, 10, 10), (24, 16, 3, 3), padding=1, last=True)
    residual = torch.randn(1, 10, 10, 24).movedim(-1, 1)

    def program(g, x, w, b, residual):
        result = g.map("add", lower(aten.convolution.default)(g, x, w, b, *arguments), residual)
        return g.map("maximum", result, g.constant(0.0, "f32"))

    partition, run = compile_values(program, (x, w, b, residual), MACHINES["lanes8"])
    assert [k.kind for k in partition.kernels][-1] == "conv"
    check(run(x, w, b, residual)[0], (aten.convolution(x.double(), w.double(), b.double(), *arguments) + residual.double()).relu())


@pytest.mark.parametrize(("side", "kinds"), [(32, ["layout", "pack", "conv", "map"]), (33, ["layout", "pack", "conv"])])
def test_a_result_whose_channels_lie_in_the_same_sets_of_a_cache_is_turned_on_its_own(side, kinds):
    (x, w, b), arguments = case((2, 8, side, side), (40, 8, 3, 3), padding=1)

    def program(g, x, w, b):
        result = g.buffer("f32", (2, 40, side, side), (40 * side * side, side * side, side, 1))
        g.store(lower(aten.convolution.default)(g, x, w, b, *arguments), Target(result, 0, result.strides))
        return g.read(result)

    partition, run = compile_values(program, (x, w, b), MACHINES["lanes8"])
    assert [kernel.kind for kernel in partition.kernels] == kinds
    check(run(x, w, b)[0], aten.convolution(x.double(), w.double(), b.double(), *arguments))


# Few channels meet many: the lanes of a weight's gradient run along the output's channels, which lie side by side.
STEMS = [
    case((2, 3, 9, 10), (32, 3, 3, 3), padding=1, last=True),
    case((2, 3, 15, 13), (24, 3, 7, 7), stride=2, padding=3, last=True),
    case((1, 1, 30), (17, 1, 5), dilation=2, last=True),
    case((2, 4, 9, 9), (32, 2, 3, 3), groups=2, last=True),
    case((1, 2, 5, 6, 7), (40, 2, 2, 3, 1), last=True, dtype=torch.float64),
    case((2, 3, 6, 5), (3, 32, 2, 2), stride=2, transposed=True, last=True),
]


def backward_arguments(tensors, arguments):
    """(grad, tensors, arguments of aten.convolution_backward) of a case."""
    x, w, *b = tensors
    grad = torch.randn_like(aten.convolution(x, w, b[0] if b else None, *arguments))
    return grad, x, w, b, ([w.shape[0] if not arguments[3] else w.shape[1] * arguments[5]], *arguments, [True, True, True])


@pytest.mark.parametrize("machine", ["lanes8", "lanes16"])
@pytest.mark.parametrize("cases", [PLAIN[::2], ONE_AND_THREE_DIMS[::3], GROUPED[::2], TRANSPOSED[::2], SQUARES[:1], STEMS], ids=["plain", "dims", "grouped", "transposed", "squares", "stems"])
def test_gradients_agree(cases, machine):
    backward = [backward_arguments(*c) for c in cases]

    def program(g, *values):
        triples = [values[i:i + 3] for i in range(0, len(values), 3)]
        return [v for triple, c in zip(triples, backward) for v in lower(aten.convolution_backward.default)(g, *triple, *c[4])]

    results = iter(run_values(program, [t for grad, x, w, _, _ in backward for t in (grad, x, w)], MACHINES[machine]))
    for grad, x, w, _, arguments in backward:
        for expected in aten.convolution_backward(grad.double(), x.double(), w.double(), *arguments):
            check(next(results), expected)


@pytest.mark.parametrize(("channels", "columns"), [(32, 32), (320, 48)])
def test_frozen_weights_are_transformed_once_and_serve_smaller_images(channels, columns):
    torch.manual_seed(0)
    model, x = torch.nn.Conv2d(channels, columns, 3, padding=1).eval(), torch.randn(1, channels, 8, 8)
    kinds = {}
    with torch.no_grad():
        for freeze in (False, True):
            found = accel.explain(model, freeze=freeze)(x)
            kinds[freeze] = [kernel["kind"] for graph in found.to_dict()["graphs"] for part in graph["partitions"] for kernel in part["kernels"]]
        result = torch.compile(model, backend="accel", options={"freeze": True})(x)
    assert "pack" in kinds[False] and "pack" not in kinds[True]
    check(result, torch.nn.functional.conv2d(x.double(), model.weight.double(), model.bias.double(), padding=1).detach())
