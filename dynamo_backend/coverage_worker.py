"""A process that runs cells of the matrix: a line of JSON in, a line of JSON out. Started by coverage_pool.py.

A crash, a hang or an exhausted memory ends this process and costs one cell.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import traceback
import warnings

import torch

from .coverage_cases import Case
from .coverage_matrix import CellResult
from .coverage_run import run_case

__all__ = ["main"]

READY = "ready"


def main() -> None:
    """Answer every line `{"op":…, "dtype":…, "variant":…, "n_samples":…}` of stdin with the CellResult as JSON, in a line."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what operators print goes elsewhere
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    print(READY, file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        n_samples = asked.pop("n_samples")
        try:
            cell = run_case(Case(**asked), n_samples)
        except Exception:  # a fault of the run itself: the cell says so, and the process goes on
            cell = CellResult("error", {"error": 1}, message=traceback.format_exc(limit=-3).strip())
        print(json.dumps(dataclasses.asdict(cell)), file=answers)


if __name__ == "__main__":
    main()
