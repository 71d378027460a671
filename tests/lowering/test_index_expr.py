"""Index expressions: canonical form, exact division, substitution, and both languages of `render`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.lowering.index_expr import IndexExpr, exact_div, floordiv, is_never_negative, maximum, minimum, mod, product, render, substitute, symbol, symbols_of

s, t = symbol("s"), symbol("t")
values = st.fixed_dictionaries({"s": st.integers(0, 50), "t": st.integers(1, 50)})


def expressions():
    leaves = st.one_of(st.integers(0, 9), st.sampled_from([s, t]))
    return st.recursive(leaves, lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner), max_leaves=8)


def build(tree, operands):
    if not isinstance(tree, tuple):
        return operands(tree)
    operator, a, b = tree
    left, right = build(a, operands), build(b, operands)
    return left + right if operator == "+" else left - right if operator == "-" else left * right


@given(expressions(), values)
def test_polynomials_evaluate_as_python_does(tree, at):
    expression = build(tree, lambda leaf: leaf)
    expected = build(tree, lambda leaf: at[str(leaf)] if isinstance(leaf, IndexExpr) else leaf)
    assert substitute(expression, at) == expected
    assert eval(render(expression), dict(at)) == expected


def test_equal_polynomials_are_equal_however_written():
    assert (s + 1) * (s - 1) == s * s - 1
    assert s * t - t * s == 0
    assert hash(s + t) == hash(t + s)
    assert s + 0 is s


@pytest.mark.parametrize("a, b, expected", [
    (s * 12, 4, s * 3), (s * t * 6, s * 2, t * 3), (s + 1, 2, None), (s, t, None), (12, 5, None), (s * t, s * t, 1), (s * t + s, s, t + 1),
    (s * t + s, t + 1, s), (floordiv(t, 20) * s - s, floordiv(t, 20) - 1, s), (s * s * 2 - s, s * 2 - 1, s), (s * s - 1, s + 1, s - 1), (s * s + 1, s + 1, None), (0, s + 1, 0)])
def test_exact_div_divides_only_what_divides(a, b, expected):
    assert exact_div(a, b) == expected


def test_atoms_fold_where_the_result_is_known():
    assert floordiv(s * 8, 8) == s and mod(s * 8, 8) == 0 and minimum(s, s) == s and maximum(3, 5) == 5
    assert symbols_of(floordiv(s + 1, t)) == {"s", "t"}
    assert floordiv(s * t + s - 1, s) == t and floordiv(-s - 1, -2) == floordiv(s + 1, 2)
    assert substitute(floordiv(s, 4) * 4, {"s": 11}) == 8


def test_render_writes_c_and_python():
    assert render(floordiv(s, 4) * 4 - t, "c") == "((s) / (4))*4 - t"
    assert render(minimum(s, 3), "c") == render(minimum(3, s), "c") == "dvx_min(3, s)" and render(minimum(s, 3)) == "min(3, s)"
    assert render(product([])) == "1" and render(-s) == "-s"


def test_sums_of_sizes_are_seen_to_be_never_negative():
    n, m = symbol("n"), symbol("m")
    assert is_never_negative(3) and is_never_negative(n * m + 2) and is_never_negative(floordiv(n + 1, 2))
    assert not is_never_negative(-1) and not is_never_negative(n - 1) and not is_never_negative(floordiv(n - 3, 2))
