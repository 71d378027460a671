"""What guards say about sizes: equations between index expressions, each solved for one of its terms.

Two sizes that are written differently and always equal are so only by a guard; after `rewrite` they are equal Dims.
A term is replaced by nothing that names other symbols than it does, so that a kernel needs no size beyond those of its tensors.
An equation without a term to solve for, as between two areas, is divided out by its leading term.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from .index_expr import Atom, Dim, IndexExpr, floordiv, leading_term, maximum, minimum, mod, monomial, quotient_of_terms, symbol, symbols_of

__all__ = ["NOTHING", "Solution", "rewrite", "solve"]

_OPERATORS = {"//": floordiv, "%": mod, "min": minimum, "max": maximum}


@dataclasses.dataclass(frozen=True)
class Solution:
    """What to write for terms: `atoms` for each of these; `zeros` are polynomials that are 0, for products that their leading terms divide."""

    atoms: Mapping[Atom, Dim] = dataclasses.field(default_factory=dict)
    zeros: tuple[IndexExpr, ...] = ()


NOTHING = Solution()


def solve(differences: Iterable[Dim]) -> Solution:
    """From expressions that are zero, what to write for some of their terms; those that cannot be used are left out."""
    solved: dict[Atom, Dim] = {}
    waiting, n_before = list(differences), -1
    while len(waiting) != n_before:  # what one equation says may make another solvable
        n_before = len(waiting)
        waiting = [each for each in waiting if not _learn(_with_atoms(each, solved), solved)]
    zeros = [zero for each in waiting if isinstance(zero := _with_atoms(each, solved), IndexExpr) and _names_enough(zero)]
    return Solution(solved, tuple(dict.fromkeys(zeros)))


def _names_enough(zero: IndexExpr) -> bool:
    """Whether the leading term is a product that names every symbol."""
    atoms, _ = leading_term(zero)
    return len(atoms) > 1 and symbols_of(zero) == symbols_of(monomial((atoms, 1)))


def rewrite(value: Dim, solution: Solution) -> Dim:
    """`value` with every term replaced that `solution` has."""
    value = _with_atoms(value, solution.atoms)
    for zero in solution.zeros:
        value = _divided_out(value, zero)
    return value


def _divided_out(value: Dim, zero: IndexExpr) -> Dim:
    """The rest of `value` when multiples of `zero` are taken away."""
    lead, rest = leading_term(zero), 0
    while value != 0:
        first = leading_term(value)
        factor = quotient_of_terms(first, lead)
        if factor is None:
            rest = rest + monomial(first)
        value = value - (monomial(first) if factor is None else factor * zero)
    return rest


def _with_atoms(value: Dim, solved: Mapping[Atom, Dim]) -> Dim:
    if not isinstance(value, IndexExpr) or not solved:
        return value
    total: Dim = 0
    for atoms, coefficient in value.terms:
        term: Dim = coefficient
        for atom in atoms:
            term = term * _rewrite_atom(atom, solved)
        total = total + term
    return total


def _rewrite_atom(atom: Atom, solved: Mapping[Atom, Dim]) -> Dim:
    if atom in solved:
        return solved[atom]
    if isinstance(atom, str):
        return symbol(atom)
    operator, a, b = atom
    rebuilt = _OPERATORS[operator](_with_atoms(a, solved), _with_atoms(b, solved))
    return next((to for known, to in solved.items() if _as_dim(known) == rebuilt), rebuilt)


def _learn(difference: Dim, solved: dict[Atom, Dim]) -> bool:
    """Solve `difference` = 0 for a term and write it in `solved`; False where there is none to solve for."""
    if isinstance(difference, int):
        return True
    for atoms, coefficient in sorted(difference.terms, key=lambda term: len(str(term[0])), reverse=True):
        if len(atoms) != 1 or abs(coefficient) != 1:
            continue
        whole = _as_dim(atoms[0])
        to = whole - difference * coefficient
        if symbols_of(to) <= symbols_of(whole) and not _mentions(to, atoms[0]):
            solved.update({atom: _with_atoms(value, {atoms[0]: to}) for atom, value in solved.items()})
            solved[atoms[0]] = to
            return True
    return False


def _as_dim(atom: Atom) -> IndexExpr:
    return IndexExpr((((atom,), 1),))


def _mentions(value: Dim, atom: Atom) -> bool:
    found = [each for atoms, _ in (value.terms if isinstance(value, IndexExpr) else ()) for each in atoms]
    return atom in found or any(_mentions(part, atom) for each in found if isinstance(each, tuple) for part in each[1:])
