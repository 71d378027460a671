"""torch's symbolic sizes as index expressions, by what guards say about them.

SymInt -> Dim. A kernel is handed the values of `named_sizes` and computes all other sizes from them.
"""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Sequence

import sympy

from .index_expr import Dim, floordiv, maximum, minimum, mod, product, render, symbol
from .size_equations import NOTHING, Solution, rewrite, solve
from .values import Unsupported

__all__ = ["depends_on_data", "dim_of", "is_negative", "named_sizes", "size_name", "solved_guards"]

_TO_INT = ("CeilToInt", "FloorToInt", "TruncToInt")


def dim_of(size) -> Dim:
    """An int or SymInt as a Dim, in which sizes that guards make equal are equal.

    Raises:
        Unsupported: the size depends on data, or on a function that index expressions do not have.
    """
    if isinstance(size, int):
        return size
    expr = size.node.expr
    if depends_on_data(size):
        raise Unsupported(f"size {expr} depends on data")
    return rewrite(_from_sympy(expr), solved_guards(size.node.shape_env))


def depends_on_data(size) -> bool:
    """Whether a SymInt has a value only when the graph runs."""
    return any(str(s).startswith(("u", "zuf", "zf")) for s in size.node.expr.free_symbols)


_GUARDED: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def solved_guards(shape_env) -> Solution:
    """What the guards of a graph say about its sizes, solved; remembered for as long as none is added."""
    if shape_env is None:
        return NOTHING
    n_guards, solved = _GUARDED.get(shape_env, (0, NOTHING))
    if n_guards != len(shape_env.guards):
        equations = [shape_env.replace(guard.expr) for guard in shape_env.guards if isinstance(guard.expr, sympy.Eq)]
        solved = solve(difference for each in equations if isinstance(each, sympy.Eq) for difference in _difference(each))
        _GUARDED[shape_env] = len(shape_env.guards), solved
    return solved


def _difference(equation: sympy.Eq) -> list[Dim]:
    """The side that remains where both are brought to one; empty where a side has no index form."""
    try:
        return [_from_sympy(equation.lhs) - _from_sympy(equation.rhs)]
    except Unsupported:
        return []


def _from_sympy(expr) -> Dim:
    if expr.is_Integer:
        return int(expr)
    if expr.is_Symbol:
        return symbol(str(expr))
    if expr.is_Add:
        return sum((_from_sympy(a) for a in expr.args), 0)
    if expr.is_Mul:
        return product(_from_sympy(a) for a in expr.args)
    if expr.is_Pow and expr.exp.is_Integer and expr.exp >= 0:
        return product([_from_sympy(expr.base)] * int(expr.exp))
    name = type(expr).__name__
    binary = {"FloorDiv": floordiv, "CleanDiv": floordiv, "Mod": mod, "PythonMod": mod, "Max": maximum, "Min": minimum}
    if name in binary and len(expr.args) == 2:
        return binary[name](*(_from_sympy(a) for a in expr.args))
    if isinstance(expr, sympy.floor):
        numerator, denominator = expr.args[0].as_numer_denom()
        return floordiv(_from_sympy(numerator), _from_sympy(denominator))
    if name in _TO_INT:
        if _is_rounded(expr):
            return symbol(size_name(expr))
        numerator, denominator = _ratio(expr.args[0])
        return floordiv(numerator + (denominator - 1 if name == "CeilToInt" else 0), denominator)
    raise Unsupported(f"size expression {expr} has no index form")


@functools.cache
def _is_rounded(expr) -> bool:
    """Whether an integer is made from a product or quotient that a double may round: Python computes it, and kernels are handed its value."""
    try:
        _ratio(expr.args[0])
    except Unsupported:
        return True
    return False


def named_sizes(expr: sympy.Expr) -> frozenset[sympy.Expr]:
    """The parts of a size whose values a kernel is handed: symbols, and what only Python computes exactly."""
    rounded = [part for part in sympy.preorder_traversal(expr) if type(part).__name__ in _TO_INT and _is_rounded(part)] if expr.has(sympy.Float) else []
    return frozenset([*expr.free_symbols, *rounded])


def size_name(expr: sympy.Expr) -> str:
    """What kernels call one of `named_sizes`: an identifier."""
    return str(expr) if expr.is_Symbol else f"size_{hashlib.sha256(str(expr).encode()).hexdigest()[:12]}"


def _ratio(expr) -> tuple[Dim, Dim]:
    """A size that was computed in double, as numerator and denominator: exact for the numbers that _fraction takes and sizes below 2**37."""
    if expr.is_Float:
        return _fraction(float(expr))
    if expr.is_Mul:
        ratios = [_ratio(a) for a in expr.args]
        return product(n for n, _ in ratios), product(d for _, d in ratios)
    name = type(expr).__name__
    if name in ("FloatTrueDiv", "IntTrueDiv"):
        (a, b), (c, d) = map(_ratio, expr.args)
        return (-a * d, -b * c) if isinstance(c, int) and c < 0 else (a * d, b * c)
    return _from_sympy(expr.args[0] if name == "ToFloat" else expr), 1


def _fraction(value: float) -> tuple[int, int]:
    numerator, denominator = value.as_integer_ratio()
    if denominator > 2**16:
        raise Unsupported(f"a size is computed with {value}, whose double is rounded")
    return numerator, denominator


def is_negative(value: Dim, sizes: Sequence) -> bool:
    """Whether `value`, over the symbols of one graph, is negative: for its sizes now, and by a guard for all later ones.

    Args: sizes: SymInts of the graph, one at least, in which the names of `value` occur.
    """
    shape_env = sizes[0].node.shape_env
    names = {size_name(part): part for expr in (*shape_env.var_to_range, *(size.node.expr for size in sizes)) for part in named_sizes(expr)}
    expression = eval(render(value), {"max": sympy.Max, "min": sympy.Min}, names)
    return bool(shape_env.evaluate_expr(sympy.Lt(expression, 0)))
