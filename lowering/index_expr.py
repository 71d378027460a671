"""Integer expressions over sizes and loop variables, as all three IRs write addresses, extents and strides.

A `Dim` is an int where the value is known and an `IndexExpr` where it is not. An IndexExpr is a polynomial in canonical
form (sums of products of atoms with integer coefficients), so that equal polynomials compare equal without
a simplifier. Atoms are names, or floor divisions, remainders, minima and maxima of other expressions.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

__all__ = ["Dim", "IndexExpr", "exact_div", "floordiv", "is_never_negative", "leading_term", "maximum", "minimum", "mod", "monomial", "product", "quotient_of_terms", "render", "substitute", "symbol", "symbols_of"]

Atom = str | tuple  # a name, or (operator, lhs, rhs) with operator in {"//", "%", "min", "max"}
Term = tuple[tuple[Atom, ...], int]  # a sorted product, and its coefficient
Terms = tuple[Term, ...]


class IndexExpr:
    """A polynomial with integer coefficients: `terms` maps a sorted product of atoms to its coefficient."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Terms):
        self.terms = terms
        self._hash = hash(terms)

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        return isinstance(other, IndexExpr) and self._hash == other._hash and self.terms == other.terms

    def __add__(self, other):
        if isinstance(other, int) and other == 0:
            return self
        merged = dict(self.terms)
        for product_, coefficient in _terms(other):
            merged[product_] = merged.get(product_, 0) + coefficient
        return _make(merged)

    def __mul__(self, other):
        if isinstance(other, int):
            if other == 0:
                return 0
            return IndexExpr(tuple((p, c * other) for p, c in self.terms))
        merged: dict = {}
        for p1, c1 in self.terms:
            for p2, c2 in _terms(other):
                p = tuple(sorted(p1 + p2, key=str))
                merged[p] = merged.get(p, 0) + c1 * c2
        return _make(merged)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + (-other)

    def __rsub__(self, other):
        return (-self) + other

    def __str__(self):
        return render(self)

    __repr__ = __str__


Dim = int | IndexExpr


def _terms(value: Dim) -> Terms:
    if isinstance(value, IndexExpr):
        return value.terms
    return (((), int(value)),) if value else ()


def _make(terms: Mapping) -> Dim:
    kept = [(p, c) for p, c in terms.items() if c]
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return IndexExpr(tuple(sorted(kept, key=str)))


def symbol(name: str) -> IndexExpr:
    """The expression that is the variable `name`."""
    return IndexExpr((((name,), 1),))


def _atom(operator: str, a: Dim, b: Dim) -> IndexExpr:
    return IndexExpr(((((operator, a, b),), 1),))


def exact_div(a: Dim, b: Dim) -> Dim | None:
    """a / b where the division is known to leave no remainder, else None: long division of polynomials, by leading terms."""
    if b == 1:
        return a
    if a == b:
        return 1
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    if b == 0:
        return None
    lead, rest, quotient = leading_term(b), a, 0
    while rest != 0:
        part = quotient_of_terms(leading_term(rest), lead)
        if part is None:
            return None
        quotient, rest = quotient + part, rest - part * b
    return quotient


def monomial(term: Term) -> Dim:
    """The value of a term."""
    return _make({term[0]: term[1]})


def leading_term(value: Dim) -> Term:
    """The product and coefficient that comes first in graded lexicographic order, which multiplication by a term keeps; `value` is not 0."""
    return min(_terms(value), key=lambda term: (-len(term[0]), tuple(map(str, term[0]))))


def quotient_of_terms(a: Term, b: Term) -> Dim | None:
    """a / b, or None where it leaves a remainder."""
    rest = list(a[0])
    for atom in b[0]:
        if atom not in rest:
            return None
        rest.remove(atom)
    return monomial((tuple(rest), a[1] // b[1])) if a[1] % b[1] == 0 else None


def floordiv(a: Dim, b: Dim) -> Dim:
    """floor(a / b)."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    exact = exact_div(a, b)
    if exact is not None:
        return exact
    if isinstance(b, int) and b < 0:
        return floordiv(-a, -b)
    if not isinstance(b, int) or b == 0:
        # ceil(c * b / b), as torch writes the length of a range
        exact = exact_div(a + 1 - b, b)
        return exact if exact is not None else _atom("//", a, b)
    # whole multiples of b leave the division, so that equal quotients have one form and the rest is not negative
    whole = _make({p: c // b for p, c in _terms(a)})
    rest = _make({p: c % b for p, c in _terms(a)})
    return whole + (rest // b if isinstance(rest, int) else _quotient(rest, b))


def _quotient(a: IndexExpr, b: int) -> Dim:
    """a // b; floors of floors become one: (x // p + c) // b = (x + p * c) // (p * b)."""
    constant = dict(a.terms).get((), 0)
    inner = [product_ for product_, _ in a.terms if product_]
    if len(inner) == 1 and len(inner[0]) == 1 and dict(a.terms)[inner[0]] == 1 and not isinstance(inner[0][0], str):
        operator, x, p = inner[0][0]
        if operator == "//" and isinstance(p, int):
            return floordiv(x + p * constant, p * b)
    return _atom("//", a, b)


def mod(a: Dim, b: Dim) -> Dim:
    """a - b * floor(a / b)."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    return 0 if exact_div(a, b) is not None else _atom("%", a, b)


def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return a if a == b else _atom("min", *sorted((a, b), key=str))


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return a if a == b else _atom("max", *sorted((a, b), key=str))


def is_never_negative(value: Dim) -> bool:
    """Whether `value` is a sum of products of sizes, which are not negative, their quotients and their remainders; False where that is not seen."""
    if not isinstance(value, IndexExpr):
        return value >= 0
    atoms = [atom for product_, _ in value.terms for atom in product_ if not isinstance(atom, str)]
    return all(c > 0 for _, c in value.terms) and all(is_never_negative(a) and is_never_negative(b) for _, a, b in atoms)


def product(dims) -> Dim:
    """The product of an iterable of Dims; 1 for an empty one."""
    return functools.reduce(lambda a, b: a * b, dims, 1)


def _render_atom(atom: Atom, language: str) -> str:
    if isinstance(atom, str):
        return atom
    operator, a, b = atom
    left, right = render(a, language), render(b, language)
    if operator in ("min", "max"):
        return f"{'dvx_' if language == 'c' else ''}{operator}({left}, {right})"
    if language == "c" and not (is_never_negative(a) and is_never_negative(b)):
        return f"dvx_{'floordiv' if operator == '//' else 'mod'}({left}, {right})"
    if operator == "//" and language == "c":
        operator = "/"
    return f"(({left}) {operator} ({right}))"


def render(value: Dim, language: str = "python") -> str:
    """Text of `value` as a Python or C expression (`language` is "python" or "c")."""
    if not isinstance(value, IndexExpr):
        return str(int(value))
    parts = []
    for atoms, coefficient in sorted(value.terms, key=lambda term: (term[1] < 0, term[0] == (), str(term[0]))):
        factors = [_render_atom(atom, language) for atom in atoms]
        if abs(coefficient) != 1 or not factors:
            factors.append(str(abs(coefficient)))
        sign = "-" if coefficient < 0 else "+"
        parts.append((sign, "*".join(factors)))
    text = ("-" if parts[0][0] == "-" else "") + parts[0][1]
    for sign, factor in parts[1:]:
        text += f" {sign} {factor}"
    return text


def symbols_of(value: Dim) -> frozenset[str]:
    """Names that occur in `value`."""
    if not isinstance(value, IndexExpr):
        return frozenset()
    found: set[str] = set()
    for atoms, _ in value.terms:
        for atom in atoms:
            found |= {atom} if isinstance(atom, str) else symbols_of(atom[1]) | symbols_of(atom[2])
    return frozenset(found)


_OPERATORS = {"//": floordiv, "%": mod, "min": minimum, "max": maximum}


def substitute(value: Dim, bindings: Mapping[str, Dim]) -> Dim:
    """`value` with every name in `bindings` replaced."""
    if not isinstance(value, IndexExpr) or not (symbols_of(value) & bindings.keys()):
        return value
    total: Dim = 0
    for atoms, coefficient in value.terms:
        term: Dim = coefficient
        for atom in atoms:
            if isinstance(atom, str):
                term = term * bindings.get(atom, symbol(atom))
            else:
                term = term * _OPERATORS[atom[0]](substitute(atom[1], bindings), substitute(atom[2], bindings))
        total = total + term
    return total
