"""What guards say about sizes: equations between index expressions, each solved for one of its terms.

Two sizes that are written differently and always equal are so only by a guard; after `rewrite` they are equal Dims.
A term is replaced by nothing that names other symbols than it does, so that a kernel needs no size beyond those of its tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .index_expr import Atom, Dim, IndexExpr, floordiv, maximum, minimum, mod, symbol, symbols_of

__all__ = ["rewrite", "solve"]

_OPERATORS = {"//": floordiv, "%": mod, "min": minimum, "max": maximum}


def solve(differences: Iterable[Dim]) -> dict[Atom, Dim]:
    """From expressions that are zero, what to write for some of their terms; those that cannot be solved are left out."""
    solved: dict[Atom, Dim] = {}
    waiting, n_before = list(differences), -1
    while len(waiting) != n_before:  # what one equation says may make another solvable
        n_before = len(waiting)
        waiting = [each for each in waiting if not _learn(rewrite(each, solved), solved)]
    return solved


def rewrite(value: Dim, solved: Mapping[Atom, Dim]) -> Dim:
    """`value` with every term replaced that `solved` has."""
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
    rebuilt = _OPERATORS[operator](rewrite(a, solved), rewrite(b, solved))
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
            solved.update({atom: rewrite(value, {atoms[0]: to}) for atom, value in solved.items()})
            solved[atoms[0]] = to
            return True
    return False


def _as_dim(atom: Atom) -> IndexExpr:
    return IndexExpr((((atom,), 1),))


def _mentions(value: Dim, atom: Atom) -> bool:
    found = [each for atoms, _ in (value.terms if isinstance(value, IndexExpr) else ()) for each in atoms]
    return atom in found or any(_mentions(part, atom) for each in found if isinstance(each, tuple) for part in each[1:])
