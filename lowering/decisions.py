"""What stays in eager by decision: families of operators and of tensors, each with the sentence that every such node carries.

The one table of them: a verdict takes its reason from here, and the coverage matrix finds the family by the reason. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import re

__all__ = ["DECISIONS", "Decision", "decided_family", "reason_for"]


@dataclasses.dataclass(frozen=True)
class Decision:
    """One row.

    Attributes:
        family: what the coverage matrix counts apart; empty where the operator counts as any other.
        reason: the sentence; the reason of a node that stays in eager by this decision contains it.
        operators: regular expression for whole names such as "aten.linalg_qr"; empty where tensors decide and not the operator.
    """

    family: str
    reason: str
    operators: str = ""


FACTORIZATIONS, FFT, COMPLEX, SPARSE, SHAPES = "linear algebra factorizations", "FFT", "complex numbers", "sparse tensors", "data-dependent shapes"

DECISIONS = (
    Decision(
        FACTORIZATIONS, "factorizations, and what is solved with them, stay with LAPACK",
        r"aten\.(_?linalg_(svd|eigh|eig|eigvals|det|slogdet|solve_ex|cholesky_ex|inv_ex|qr|lu|lu_factor_ex|lu_solve|ldl_factor_ex|ldl_solve|householder_product"
        r"|pinv|lstsq|solve_triangular|matrix_exp|check_errors)|cholesky(_inverse|_solve)?|geqrf|ormqr|orgqr|lu_unpack|triangular_solve|_lu_with_info)",
    ),
    Decision(FFT, "FFT stays with torch's FFT library", r"aten\._fft_\w+"),
    Decision(COMPLEX, "complex numbers have no DVX lanes", r"aten\.(complex|polar|view_as_complex|view_as_real|_conj|_conj_physical|conj_physical|resolve_conj)"),
    Decision(COMPLEX, "a lazy negation: its memory does not hold its values"),
    Decision(SPARSE, "only strided tensors are compiled", r"aten\.(_?sparse_\w+|_?to_sparse\w*|_to_dense|_coalesce\w*|_?nested_\w+)"),
    Decision(SPARSE, "graph break: Attempted to wrap sparse Tensor"),
    Decision(SHAPES, "data-dependent shape", r"aten\.(nonzero|masked_select|_unique2|unique_dim|unique_consecutive|bincount)"),
    Decision(SHAPES, "graph break: Dynamic shape operator"),
    Decision("", "its windows begin where random samples say", r"aten\.fractional_max_pool[23]d(_backward)?"),
    Decision("", "alignments of sequences of many lengths stay with eager's kernel", r"aten\._ctc_loss(_backward)?"),
    Decision("", "it draws by rejection: elements take different counts of random numbers", r"aten\.(poisson|binomial|_standard_gamma|_sample_dirichlet)"),
    Decision("", "eager checks the probabilities and raises for what is no distribution", r"aten\.multinomial"),
    Decision("", "its result is uint64, which has no DVX lanes", r"aten\.hash_tensor"),
)  # fmt: skip


def reason_for(operator: str) -> str | None:
    """Why an operator ("aten.linalg_qr") that has no lowering stays in eager, None where nobody has decided so."""
    return next((row.reason for row in DECISIONS if row.operators and re.fullmatch(row.operators, operator)), None)


def decided_family(reason: str) -> str:
    """The family by whose decision a node with this reason stays in eager, "" where there is none."""
    return next((row.family for row in DECISIONS if row.reason in reason), "")
