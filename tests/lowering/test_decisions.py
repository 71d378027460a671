"""What stays in eager by decision says so in one sentence, and is told by that sentence."""

from __future__ import annotations

import pytest
import torch

import accel
from accel.lowering.decisions import DECISIONS, decided_family, reason_for


def reasons_of(function, *tensors) -> list[str]:
    explained = accel.explain(function)(*tensors).to_dict()
    return [fallback["reason"] for graph in explained["graphs"] for fallback in graph["fallbacks"]]


@pytest.mark.parametrize("row", DECISIONS, ids=lambda row: row.reason)
def test_reason_names_its_family(row):
    assert decided_family(f"aten.op: {row.reason}") == row.family


def test_operators_without_a_decision():
    assert reason_for("aten.add") is None and decided_family("no lowering for aten.add.Tensor") == ""


@pytest.mark.parametrize(
    ("function", "family"),
    [
        (torch.linalg.qr, "linear algebra factorizations"),
        (torch.linalg.cholesky, "linear algebra factorizations"),
        (torch.fft.rfft, "FFT"),
        (torch.fft.fft2, "FFT"),
        (lambda x: x.to(torch.complex64) * 2, "complex numbers"),
    ],
)
def test_nodes_carry_the_sentence_of_their_family(function, family):
    found = {decided_family(reason) for reason in reasons_of(function, torch.eye(4)) if not reason.endswith("only fallbacks read")}
    assert family in found and "" not in found
