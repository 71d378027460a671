"""Equations between sizes, against the sizes that fulfil them."""

import torch
import torch.nn.functional as F
from frontend_graphs import compile_with

from accel.lowering.index_expr import floordiv, mod, substitute, symbol
from accel.lowering.size_equations import NOTHING, rewrite, solve
from accel.native import NativeCompiler

S, T = symbol("s"), symbol("t")
HALF, LESS_HALF, EIGHTH = floordiv(S, 2), floordiv(S - 1, 2), floordiv(S, 8)


def test_solve_makes_terms_equal_that_are_equal_by_an_equation():
    solved = solve([floordiv(S + 1, 2) - HALF])
    assert rewrite(floordiv(S + 1, 2) * T, solved) == rewrite(HALF * T, solved)


def test_solve_finds_a_size_that_equations_leave_no_choice():
    # s = 13, as the associative scan of 13 steps has it
    solved = solve([S - LESS_HALF - 7, LESS_HALF - 4 * EIGHTH - 2, EIGHTH - 1])
    assert rewrite(S, solved) == 13
    assert rewrite(floordiv(S + 3, 4), solved) == 4


def test_solve_keeps_to_the_symbols_of_a_term():
    assert solve([HALF - T]) == NOTHING
    assert rewrite(HALF + T, solve([HALF - T])) == HALF + T


def test_solve_leaves_out_what_would_replace_a_term_by_itself():
    assert rewrite(S, solve([S - 2 * HALF])) == S


def test_rewritten_value_is_the_value_wherever_the_equations_hold():
    differences = [mod(S, 4), floordiv(S + 2, 4) - floordiv(S, 4), floordiv(S + 1, 2) - HALF]
    value = floordiv(S + 1, 2) * mod(S, 4) + floordiv(S + 2, 4) * S + floordiv(HALF * T + 3, 4)
    rewritten, n_held = rewrite(value, solve(differences)), 0
    for s in range(1, 40):
        sizes = {"s": s, "t": 3}
        if all(substitute(each, sizes) == 0 for each in differences):
            assert substitute(rewritten, sizes) == substitute(value, sizes)
            n_held += 1
    assert n_held == 9


def test_equal_areas_are_equal_wherever_they_are_a_factor():
    padded = HALF + mod(4 - mod(HALF, 4), 4)
    quarter = floordiv(padded, 4)
    solved = solve([16 * quarter * quarter - HALF * HALF])
    assert rewrite(32 * quarter * quarter * T, solved) == rewrite(2 * HALF * HALF * T, solved)
    assert rewrite(HALF * HALF + 1, solve([HALF * HALF - 16])) == 17
    assert rewrite(S * T, solve([S * T - S * HALF])) == S * T, "HALF * S names fewer symbols"


def test_sizes_that_a_guard_makes_equal_are_native():
    def pairs(x):
        return x[:, ::2] * x[:, 1::2] + 1

    graphs = []
    compiled = compile_with(NativeCompiler(), pairs, graphs, dynamic=True)
    for columns in (12, 22, 8):
        x = torch.arange(3.0 * columns).view(3, columns)
        torch.testing.assert_close(compiled(x), pairs(x))
    (graph,) = graphs
    assert graph.fallbacks == {}


def test_areas_that_a_guard_makes_equal_are_native():
    def padded_and_cropped(x):
        side = x.shape[0] // 2
        wide = F.pad(x[:side, :side] * 2, (0, -side % 4, 0, -side % 4))
        return wide.reshape(-1) + x[:side, :side].reshape(-1)

    graphs = []
    compiled = compile_with(NativeCompiler(), padded_and_cropped, graphs, dynamic=True)
    for side in (16, 40, 24):
        x = torch.arange(float(side * side)).view(side, side)
        torch.testing.assert_close(compiled(x), padded_and_cropped(x))
    (graph,) = graphs
    assert graph.fallbacks == {}
