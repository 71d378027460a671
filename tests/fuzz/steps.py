"""What random programs are made of. Each function draws one expression or in-place statement; see builder.step."""

from __future__ import annotations

import torch

from builder import EXACT, FLOATS, INTS, JUMPS, ROUNDS, Builder, mutation, step


def is_float(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point()


def is_int(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() and tensor.dtype != torch.bool


def is_number(tensor: torch.Tensor) -> bool:
    return tensor.dtype != torch.bool


def has_dim(tensor: torch.Tensor) -> bool:
    return tensor.dim() > 0


def partner(b: Builder, name: str, accept=lambda tensor: True) -> str | None:
    """A tensor whose shape broadcasts with that of `name`."""
    shape = b.tensor(name).shape

    def fits(tensor: torch.Tensor) -> bool:
        return accept(tensor) and all(m == n or 1 in (m, n) for m, n in zip(reversed(tensor.shape), reversed(shape)))

    return b.pick(fits)


def dim_of(b: Builder, name: str) -> int:
    return b.random.randrange(-b.tensor(name).dim(), b.tensor(name).dim())


@step(5, EXACT)
def exact_unary(b):
    x = b.pick(is_number)
    return x and f"{b.random.choice(('torch.relu', 'torch.neg', 'torch.abs', 'torch.clone', 'torch.positive'))}({x})" if x and b.tensor(x).dtype != torch.uint8 else None


@step(8, ROUNDS)
def float_unary(b):
    x = b.pick(is_float)
    names = ("torch.sigmoid", "torch.tanh", "F.gelu", "F.silu", "torch.sin", "torch.cos", "torch.erf", "F.softplus", "F.mish", "F.elu", "torch.exp", "torch.log1p", "torch.atan", "torch.expm1", "torch.square", "F.hardswish", "F.leaky_relu", "F.logsigmoid", "torch.asinh")
    name = b.random.choice(names)
    operand = f"{x}.abs()" if name == "torch.log1p" else f"{x}.clamp(-3, 3)" if name in ("torch.exp", "torch.expm1") else x
    return x and f"{name}({operand})"


@step(3, ROUNDS)
def away_from_poles(b):
    x = b.pick(is_float)
    return x and b.random.choice(("torch.sqrt({x}.abs() + 1)", "torch.rsqrt({x}.abs() + 1)", "torch.reciprocal({x}.abs() + 1)", "torch.log({x}.abs() + 1)", "torch.pow({x}.abs() + 1, 1.5)")).format(x=x)


@step(3, JUMPS)
def jumping_unary(b):
    x = b.pick(is_float)
    return x and f"torch.{b.random.choice(('floor', 'ceil', 'round', 'trunc', 'sign', 'isnan', 'signbit', 'frac', 'logical_not'))}({x})"


@step(8, ROUNDS)
def float_binary(b):
    x = b.pick(is_number)
    y = x and partner(b, x, is_number)
    return y and b.random.choice(("{x} + {y}", "{x} - {y}", "{x} * {y}", "torch.add({x}, {y}, alpha=2)", "{x} / ({y}.abs() + 1)", "torch.hypot({x} * 1.0, {y} * 1.0)", "torch.lerp({x}, {y}, 0.3)", "torch.addcmul({x}, {x}, {y})")).format(x=x, y=y)


@step(3, EXACT)
def exact_binary(b):
    x = b.pick(is_number)
    y = x and partner(b, x)
    return y and f"torch.{b.random.choice(('maximum', 'minimum'))}({x}, {y})"


@step(4, EXACT)
def int_binary(b):
    x = b.pick(is_int)
    y = x and partner(b, x, is_int)
    return y and b.random.choice(("{x} + {y}", "{x} - {y}", "{x} * {y}", "{x} // ({y} | 1)", "{x} % ({y} | 1)", "{x} & {y}", "{x} | {y}", "{x} ^ {y}", "{x} << ({y} & 3)", "{x} >> ({y} & 3)", "torch.div({x}, {y} | 1, rounding_mode='trunc')", "torch.fmod({x}, {y} | 1)", "torch.bitwise_not({x} + {y})")).format(x=x, y=y)


@step(3, JUMPS)
def float_remainder(b):
    x = b.pick(is_float)
    return x and b.random.choice(("torch.remainder({x}, 0.75)", "torch.fmod({x}, 0.75)", "torch.floor_divide({x}, 0.75)", "torch.div({x}, -0.75, rounding_mode='trunc')")).format(x=x)


@step(4, EXACT)
def scalar_operand(b):
    x = b.pick(is_number)
    return x and b.random.choice(("{x} * 2", "{x} + 1", "3 - {x}", "torch.clamp({x}, -1, 2)", "torch.clamp({x}, max=1)", "{x} * -1")).format(x=x)


@step(3, ROUNDS)
def float_scalar_operand(b):
    x = b.pick()
    return x and b.random.choice(("{x} * 0.37", "{x} + 1.1", "0.5 - {x} * 1.0", "{x} / 3")).format(x=x)


@step(4, JUMPS)
def comparison(b):
    x = b.pick()
    y = x and partner(b, x)
    return y and b.random.choice(("{x} > {y}", "{x} <= {y}", "{x} == {y}", "{x} != {y}", "torch.logical_and({x}, {y})", "torch.logical_xor({x}, {y})", "{x} >= 0.5")).format(x=x, y=y)


@step(3, EXACT)
def choice(b):
    mask = b.pick(lambda tensor: tensor.dtype == torch.bool)
    x = mask and partner(b, mask)
    y = x and partner(b, x)
    return y and b.random.choice(("torch.where({m}, {x}, {y})", "torch.where({m}, {x}, 0)", "{x}.masked_fill({m}, 2)", "torch.where(~{m}, {y}, 1.5)")).format(m=mask, x=x, y=y)


@step(3, EXACT)
def widening_cast(b):
    x = b.pick(lambda tensor: tensor.dtype != torch.float64)
    return x and f"{x}.to(torch.{b.random.choice(('float32', 'float64'))})"


@step(2, JUMPS)
def narrowing_cast(b):
    x = b.pick(lambda tensor: tensor.dtype != torch.bool)
    return x and f"{x}.clamp({'0' if x else ''}, 50).to(torch.{b.random.choice((*INTS, *FLOATS, 'bool'))})"


@step(9, EXACT)
def rearrangement(b):
    x = b.pick(has_dim)
    if not x:
        return None
    d, e = dim_of(b, x), dim_of(b, x)
    return b.random.choice(("{x}.transpose({d}, {e})", "{x}.movedim({d}, {e})", "{x}.unsqueeze({d})", "{x}.squeeze()", "{x}.flip({d})", "torch.roll({x}, 2, {d})", "{x}.contiguous()", "{x}.flatten()", "{x}.reshape(-1)", "{x}.reshape({x}.shape[0], -1)", "{x}.unsqueeze(0).expand(3, *{x}.shape)", "{x}.mT", "{x}.diagonal(0, {d}, {e})", "{x}.unfold({d}, 2, 1)", "torch.rot90({x})", "{x}.swapaxes({d}, {e}).contiguous()", "{x}.view(-1)", "{x}.unflatten({d}, (1, -1))", "{x}.view_as({x})", "{x}.detach()")).format(x=x, d=d, e=e)


@step(6, EXACT)
def slicing(b):
    x = b.pick(has_dim)
    if not x:
        return None
    d = dim_of(b, x)
    size = b.tensor(x).shape[d]
    start, stop = sorted(b.random.randrange(0, size + 1) for _ in range(2))
    return b.random.choice(("{x}[{i}:]", "{x}[..., {i}:{j}]", "{x}[::2]", "{x}[..., -2:]", "{x}[:, None]", "{x}.select({d}, {k})", "{x}.narrow({d}, {i}, {n})", "{x}.chunk(2, {d})[-1]", "{x}.split(2, {d})[0]", "{x}.unbind({d})[0]", "{x}[-1]", "torch.tensor_split({x}, 2, {d})[1]", "{x}[..., ::3]", "{x}[1:-1]")).format(x=x, d=d, i=start, j=stop, n=stop - start, k=b.random.randrange(max(1, size)))


@step(5, EXACT)
def joining(b):
    x = b.pick(has_dim)
    if not x:
        return None
    shape = b.tensor(x).shape
    y = b.pick(lambda tensor: tensor.shape == shape)
    d = dim_of(b, x)
    return b.random.choice(("torch.cat([{x}, {y}], {d})", "torch.stack([{x}, {y}], {d})", "torch.cat([{x}, {y}, {x}], {d})", "{x}.repeat(2, *[1] * {r})", "torch.tile({x}, (2,))", "{x}.repeat_interleave(2, {d})", "torch.tril({x})", "torch.triu({x}, 1)", "F.pad({x}, (1, 2))", "F.pad({x}, (2, -1), value=1)", "torch.meshgrid({x}.flatten()[:5], {y}.flatten()[:4], indexing='ij')[1]")).format(x=x, y=y, d=d, r=len(shape))


@step(7, ROUNDS)
def rounding_reduction(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() > 0)
    return x and b.random.choice(("{x}.sum({d})", "{x}.mean({d}, keepdim=True)", "{x}.sum()", "{x}.mean()", "{x}.var({d})", "{x}.std({d}, keepdim=True)", "torch.softmax({x}, {d})", "torch.log_softmax({x}, {d})", "torch.logsumexp({x}, {d})", "torch.cumsum({x}, {d})", "torch.clamp({x}, -1.2, 1.2).prod({d})", "torch.linalg.vector_norm({x}, 2, {d})", "F.normalize({x}, dim={d})", "{x}.square().sum({d})", "torch.var_mean({x}, {d})[1]", "F.layer_norm({x}, {x}.shape[-1:])", "torch.std({x})")).format(x=x, d=dim_of(b, x))


@step(4, EXACT)
def exact_reduction(b):
    x = b.pick(lambda tensor: tensor.dim() > 0 and tensor.numel() > 0)
    return x and b.random.choice(("{x}.amax({d})", "{x}.amin({d}, keepdim=True)", "{x}.max({d}).values", "{x}.sort({d}).values", "torch.cummax({x}, {d}).values", "torch.topk({x}, 1, {d}).values", "torch.median({x}, {d}).values", "{x}.max()", "{x}.aminmax().min")).format(x=x, d=dim_of(b, x))


@step(4, JUMPS)
def jumping_reduction(b):
    x = b.pick(lambda tensor: tensor.dim() > 0 and tensor.numel() > 0)
    return x and b.random.choice(("{x}.argmax({d})", "{x}.argmin({d}, keepdim=True)", "{x}.max({d}).indices", "{x}.any({d})", "{x}.all()", "torch.count_nonzero({x}, {d})", "torch.sort({x}, {d}, stable=True).indices", "(({x} > 0).sum({d}))", "torch.bucketize({x} * 1.0, torch.tensor([-1.0, 0.0, 1.0]))")).format(x=x, d=dim_of(b, x))


@step(3, EXACT)
def int_reduction(b):
    x = b.pick(lambda tensor: not tensor.is_floating_point() and tensor.dim() > 0)
    return x and b.random.choice(("{x}.sum({d})", "{x}.sum()", "torch.cumsum({x}, {d})", "{x}.prod({d})", "{x}.any({d}, keepdim=True)")).format(x=x, d=dim_of(b, x))


@step(6, ROUNDS)
def matrix_product(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() >= 1 and tensor.shape[-1] > 0)
    if not x:
        return None
    tensor, n = b.tensor(x), b.random.choice((1, 2, 5, 8, 19))
    w = b.weight((n, tensor.shape[-1]), tensor.dtype)
    bias = b.weight((n,), tensor.dtype)
    return b.random.choice(("F.linear({x}, {w})", "F.linear({x}, {w}, {c})", "{x} @ {w}.t()", "torch.relu({x} @ {w}.t() + {c})", "torch.addmm({c}, {x}, {w}.t())", "torch.einsum('...k,nk->...n', {x}, {w})", "torch.matmul({w}, {x}.mT)", "{x} @ {x}.mT * 0.1", "torch.outer({w}[0], {c})", "F.gelu(F.linear({x}, {w}, {c}))")).format(x=x, w=w, c=bias)


@step(3, ROUNDS)
def attention(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() in (3, 4) and tensor.numel() > 0)
    return x and b.random.choice(("F.scaled_dot_product_attention({x}, {x}, {x})", "F.scaled_dot_product_attention({x}, {x}, {x}, is_causal=True)", "torch.softmax({x} @ {x}.mT * 0.2, -1) @ {x}")).format(x=x)


@step(4, ROUNDS)
def convolution(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() in (3, 4) and tensor.numel() > 0)
    if not x:
        return None
    tensor, r = b.tensor(x), b.random
    channels, spatial = tensor.shape[1], tensor.dim() - 2
    groups, out = r.choice(((1, 3), (1, 8), (channels, channels), (channels, 2 * channels)))
    kernel = [r.choice((1, 2, 3)) for _ in range(spatial)]
    if r.random() < 0.25:
        w = b.weight((channels, max(1, out // groups), *kernel), tensor.dtype, 0.3)
        return f"F.conv_transpose{spatial}d({x}, {w}, stride={r.choice((1, 2))}, groups={groups})"
    w = b.weight((out, channels // groups, *kernel), tensor.dtype, 0.3)
    c = b.weight((out,), tensor.dtype) if r.random() < 0.5 else None
    text = f"F.conv{spatial}d({x}, {w}, {c}, stride={r.choice((1, 1, 2))}, padding={r.choice((0, 1))}, dilation={r.choice((1, 1, 2))}, groups={groups})"
    return f"torch.relu({text})" if r.random() < 0.3 else text


@step(4, ROUNDS)
def window(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() == 4 and tensor.numel() > 0)
    return x and b.random.choice(("F.avg_pool2d({x}, 2)", "F.adaptive_avg_pool2d({x}, (2, 3))", "F.interpolate({x}, scale_factor=2, mode='bilinear')", "F.interpolate({x}, size=(5, 3), mode='bilinear', align_corners=True)", "F.avg_pool2d({x}, 3, 2, 1, count_include_pad=False)", "F.group_norm({x}, 1)", "F.instance_norm({x})", "F.batch_norm({x}, None, None, training=True)", "F.unfold({x}, 2)", "F.interpolate({x}, scale_factor=1.5, mode='bicubic')")).format(x=x)


@step(3, EXACT)
def exact_window(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() == 4 and tensor.numel() > 0)
    return x and b.random.choice(("F.max_pool2d({x}, 2)", "F.max_pool2d({x}, 3, 2, 1)", "F.interpolate({x}, scale_factor=2)", "F.pad({x}, (1, 1, 2, 0), mode='reflect')", "F.pad({x}, (1, 0, 1, 1), mode='replicate')", "F.pixel_shuffle({x}, 2)", "{x}.contiguous(memory_format=torch.channels_last)", "F.pad({x}, (1, 1), mode='circular')")).format(x=x)


@step(6, EXACT)
def indexing(b):
    x = b.pick(lambda tensor: tensor.dim() > 0 and tensor.numel() > 0)
    if not x:
        return None
    d, tensor = dim_of(b, x), b.tensor(x)
    row = b.indices((4,), tensor.shape[d])
    same = b.indices(tuple(tensor.shape), tensor.shape[d])
    first = b.indices((2, 3), tensor.shape[0])
    return b.random.choice(("{x}.index_select({d}, {i})", "torch.gather({x}, {d}, {s})", "{x}[{f}]", "{x}[{f}, ..., None]", "torch.take_along_dim({x}, {s}, {d})", "torch.take({x}, {f})", "{x}.index_select({d}, {i}.flip(0))", "{x}[..., {f} * 0]", "F.embedding({f} * 0, {x})", "{x}.scatter({d}, {s} * 0, 1)", "{x}[{f}, 0]")).format(x=x, d=d, i=row, s=same, f=first)


@step(3, ROUNDS)
def scattering(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() > 0 and tensor.numel() > 0)
    if not x:
        return None
    d, tensor = dim_of(b, x), b.tensor(x)
    same = b.indices(tuple(tensor.shape), tensor.shape[d])
    rows = b.indices((tensor.shape[d],), tensor.shape[d])
    return b.random.choice(("{x}.scatter_add({d}, {s}, {x})", "{x}.index_add({d}, {i}, {x})", "torch.scatter_reduce({x}, {d}, {s}, {x}, 'amax')", "{x}.index_put(({i} * 0,), {x}, accumulate=True)", "torch.scatter_reduce({x}, {d}, {s}, {x}, 'sum', include_self=False)")).format(x=x, d=d, s=same, i=rows)


@step(2, EXACT)
def creation(b):
    x = b.pick(has_dim)
    return x and b.random.choice(("torch.zeros_like({x})", "torch.ones({x}.shape[0], 3)", "torch.arange({x}.shape[0])", "torch.full_like({x}, 1)", "{x}.new_zeros({x}.shape)", "torch.eye({x}.shape[-1])", "torch.arange({x}.shape[-1], dtype=torch.float32) + {x}", "F.one_hot({x}.long().clamp(0, 3), 4)")).format(x=x)


@step(2, ROUNDS)
def left_in_eager(b):
    """Operators that have no lowering, so that a graph has more than one partition."""
    x = b.pick(lambda tensor: tensor.dtype in (torch.float32, torch.float64) and tensor.dim() >= 2 and tensor.numel() > 0)
    return x and b.random.choice(("torch.linalg.svdvals({x})", "torch.fft.rfft({x}).abs()", "torch.fft.fft({x}).real", "torch.linalg.matrix_exp({x} @ {x}.mT * 0.01)", "torch.special.airy_ai({x})", "torch.linalg.slogdet({x} @ {x}.mT + torch.eye({x}.shape[-2], dtype={x}.dtype))[1]", "torch.histc({x}, 5)")).format(x=x)


@mutation(4)
def pointwise_in_place(b):
    x = b.pick(is_float)
    y = x and partner(b, x, is_float)
    return y and (x, b.random.choice(("{x}.add_({y})", "{x}.mul_(0.5)", "{x}.copy_({y})", "{x}.sigmoid_()", "{x}.clamp_(-1, 1)", "{x}.zero_()", "{x}.fill_(2)", "{x}.sub_({y}, alpha=0.5)", "{x}.relu_()", "{x}.neg_()")).format(x=x, y=y))


@mutation(4)
def write_through_view(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() > 0 and tensor.numel() > 0)
    return x and (x, b.random.choice(("{x}[0] = 1.5", "{x}[..., ::2].mul_(2)", "{x}[1:].add_(1)", "{x}.select(-1, 0).fill_(3)", "{x}.view(-1)[:2].neg_()", "{x}.transpose(0, -1).add_(1)", "{x}[:1].copy_({x}[-1:])", "{x}[..., -1] += {x}[..., 0]", "{x}.masked_fill_({x} > 1e9, 0)", "{x}.t()[0].zero_()", "{x}.diagonal().add_(1)")).format(x=x))


@mutation(2)
def integers_in_place(b):
    x = b.pick(is_int)
    return x and (x, b.random.choice(("{x}.add_(1)", "{x}.bitwise_and_(3)", "{x}.mul_(2)", "{x}.copy_({x}.flip(0))", "{x}.clamp_(0, 5)")).format(x=x))


@mutation(2)
def indexed_in_place(b):
    x = b.pick(lambda tensor: tensor.is_floating_point() and tensor.dim() > 0 and tensor.numel() > 0)
    return x and (x, b.random.choice(("{x}[[0, -1]] = 2.0", "{x}.index_fill_(0, torch.tensor([0]), 1)", "{x}.index_add_(0, torch.tensor([0, 0]), torch.ones_like({x}[:1]).expand(2, *{x}.shape[1:]))", "{x}.scatter_(-1, torch.zeros_like({x}, dtype=torch.int64), 0.5)")).format(x=x))
