"""Activations and their backwards, composed of pointwise operators in the compute dtype (f32 for half types) and rounded once."""

from __future__ import annotations

import math

import torch

from ..registry import KIND, lowering, promote
from ..values import Graph, Value

aten = torch.ops.aten


class Formula:
    """Arithmetic on Values of one compute dtype, for writing formulas: Python numbers become constants."""

    def __init__(self, g: Graph, value: Value):
        self.g, self.value = g, value

    def _value(self, other) -> Value:
        return other.value if isinstance(other, Formula) else self.g.constant(other, self.value.dtype)

    def op(self, name: str, *others, dtype: str | None = None) -> Formula:
        """Operator `name` of select.py."""
        return Formula(self.g, self.g.map(name, self.value, *map(self._value, others), dtype=dtype))

    def __add__(self, other):
        return self.op("add", other)

    def __sub__(self, other):
        return self.op("sub", other)

    def __mul__(self, other):
        return self.op("mul", other)

    def __truediv__(self, other):
        return self.op("div", other)

    def __neg__(self):
        return self.op("neg")

    def __rsub__(self, other):
        return Formula(self.g, self._value(other)) - self

    __radd__ = __add__
    __rmul__ = __mul__

    def where(self, condition: Formula, other) -> Formula:
        """condition ? self : other."""
        return Formula(self.g, self.g.map("where", condition.value, self.value, self._value(other), dtype=self.value.dtype))

    def compare(self, name: str, other) -> Formula:
        """A comparison: eq, ne, lt, le, gt, ge."""
        return self.op(name, other, dtype="bool")


def formula(*targets):
    """Registers f(*Formulas, **numbers) as the lowering of `targets`: tensors are promoted to the compute dtype, the result is rounded to the result dtype."""

    def register(function):
        def lower(g: Graph, *args, **kwargs) -> Value:
            tensors = [a for a in args if isinstance(a, Value)]
            compute, result = promote(tensors, KIND.INT_TO_FLOAT)
            wide = [Formula(g, g.cast(a, compute)) if isinstance(a, Value) else a for a in args]
            return g.cast(function(*wide, **kwargs).value, result)

        lowering(*targets)(lower)
        return function

    return register


@lowering(aten.relu.default)
def relu(g: Graph, x: Value) -> Value:
    """max(x, 0); NaN stays NaN."""
    return g.map("maximum", x, g.constant(0, x.dtype))


@lowering(aten.hardtanh.default, aten.relu6.default)
def hardtanh(g: Graph, x: Value, low=-1, high=1) -> Value:
    """x held between low and high."""
    return g.map("minimum", g.map("maximum", x, g.constant(low, x.dtype)), g.constant(high, x.dtype))


@formula(aten.gelu.default)
def gelu(x, *, approximate="none"):
    """x Phi(x), or its tanh approximation."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1.0 + inner.op("tanh"))
    return x * x.op("normal_cdf")


@formula(aten.gelu_backward.default)
def gelu_backward(grad, x, *, approximate="none"):
    """grad times the derivative of gelu."""
    if approximate == "tanh":
        beta = math.sqrt(2 / math.pi)
        t = (beta * (x + 0.044715 * (x * x * x))).op("tanh")
        return grad * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (beta * (1.0 + 3 * 0.044715 * (x * x))))
    density = (-0.5 * (x * x)).op("exp") * (1 / math.sqrt(2 * math.pi))
    return grad * (x.op("normal_cdf") + x * density)


@formula(aten.silu.default)
def silu(x):
    """x sigmoid(x)."""
    return x * x.op("sigmoid")


@formula(aten.silu_backward.default)
def silu_backward(grad, x):
    """grad times the derivative of silu."""
    s = x.op("sigmoid")
    return grad * s * (1.0 + x * (1.0 - s))


@formula(aten.mish.default)
def mish(x):
    """x tanh(softplus(x))."""
    return x * softplus(x).op("tanh")


@formula(aten.softplus.default)
def softplus(x, beta=1, threshold=20):
    """ln(1 + e**(beta x)) / beta; x itself where beta x exceeds the threshold."""
    if beta == 1:
        return x.where(x.compare("gt", threshold), x.op("exp").op("log1p"))
    scaled = x * beta
    return x.where(scaled.compare("gt", threshold), scaled.op("exp").op("log1p") / beta)


@formula(aten.softplus_backward.default)
def softplus_backward(grad, x, beta, threshold):
    """grad times sigmoid(beta x)."""
    scaled = x * beta
    e = scaled.op("exp")
    return grad.where(scaled.compare("gt", threshold), grad * e / (e + 1.0))


@formula(aten.leaky_relu.default)
def leaky_relu(x, negative_slope=0.01):
    """x, scaled where negative."""
    return x.where(x.compare("gt", 0), x * negative_slope)


@formula(aten.leaky_relu_backward.default)
def leaky_relu_backward(grad, x, negative_slope, is_result):
    """grad, scaled where x is not positive."""
    return grad.where(x.compare("gt", 0), grad * negative_slope)


@formula(aten.rrelu_with_noise_backward.default)
def rrelu_with_noise_backward(grad, x, noise, lower, upper, training, is_result):
    """grad times the slopes that were drawn; in inference that of leaky_relu with their mean."""
    if training and upper - lower > 1e-6:
        return grad * noise
    return leaky_relu_backward(grad, x, (lower + upper) / 2, is_result)


@formula(aten.elu.default)
def elu(x, alpha=1, scale=1, input_scale=1):
    """scale x, or scale alpha (e**(input_scale x) - 1) where x is not positive."""
    return (x * scale).where(x.compare("gt", 0), (x * input_scale).op("expm1") * (alpha * scale))


@formula(aten.elu_backward.default)
def elu_backward(grad, alpha, scale, input_scale, is_result, x):
    """The derivative from the input, or from the result."""
    inner = grad * input_scale * (x + alpha * scale) if is_result else grad * (input_scale * alpha * scale) * (x * input_scale).op("exp")
    return inner.where(x.compare("le", 0), grad * scale)


@formula(aten.hardsigmoid.default)
def hardsigmoid(x):
    """clamp(x + 3, 0, 6) / 6."""
    return (x + 3.0).op("maximum", 0.0).op("minimum", 6.0) / 6.0


@formula(aten.hardswish.default)
def hardswish(x):
    """x clamp(x + 3, 0, 6) / 6."""
    return x * (x + 3.0).op("maximum", 0.0).op("minimum", 6.0) / 6.0


@formula(aten.hardsigmoid_backward.default)
def hardsigmoid_backward(grad, x):
    """grad / 6 inside (-3, 3)."""
    inside = x.compare("gt", -3.0).op("and", x.compare("lt", 3.0))
    return (grad * (1 / 6)).where(inside, 0.0)


@formula(aten.hardswish_backward.default)
def hardswish_backward(grad, x):
    """grad times the derivative of hardswish."""
    middle = grad * (x / 3.0 + 0.5)
    zero = grad * 0.0
    return (zero.where(x.compare("le", -3.0), middle)).where(x.compare("lt", 3.0), grad)


@formula(aten.hardtanh_backward.default)
def hardtanh_backward(grad, x, low, high):
    """grad where x lies strictly inside."""
    outside = x.compare("le", low).op("or", x.compare("ge", high))
    return (grad.op("mul", 1.0)).where(outside.op("not"), 0.0)


@formula(aten.threshold_backward.default)
def threshold_backward(grad, x, threshold):
    """grad where x exceeds the threshold (NaN passes grad)."""
    return Formula(grad.g, grad._value(0)).where(x.compare("le", threshold), grad)


@formula(aten.sigmoid_backward.default)
def sigmoid_backward(grad, y):
    """grad (1 - y) y."""
    return grad * (1.0 - y) * y


@formula(aten.tanh_backward.default)
def tanh_backward(grad, y):
    """grad (1 - y²)."""
    return grad * (1.0 - y * y)


@lowering(aten.threshold.default)
def threshold_(g: Graph, x: Value, threshold, value) -> Value:
    """x where it exceeds the threshold, value elsewhere."""
    return g.map("where", g.map("le", x, g.constant(threshold, x.dtype), dtype="bool"), g.constant(value, x.dtype), x, dtype=x.dtype)
