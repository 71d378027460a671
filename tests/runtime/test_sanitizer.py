"""Generated kernels touch no memory but their tensors: models and random programs under AddressSanitizer, in a process of their own.

The sanitizer's runtime comes with gcc and has to be loaded before Python, and so does the C++ library whose exceptions it
follows; without gcc these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PROGRAM_SEEDS = "0:6"

# Sizes that no vector length divides, so that every kernel has a tail that could reach too far.
MODELS = """
import torch
from torch import nn

class Attends(nn.Module):
    def forward(self, q, k, v):
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

class Gathers(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 7)
    def forward(self, i):
        return self.table(i).cumsum(1).sort(-1).values

torch.manual_seed(0)
cases = [
    (nn.Sequential(nn.Linear(19, 37), nn.GELU(), nn.LayerNorm(37), nn.Linear(37, 5), nn.Softmax(-1)), (torch.randn(13, 19),)),
    (nn.Sequential(nn.Conv2d(3, 34, 3, padding=1), nn.BatchNorm2d(34), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(34, 33, 3, padding=1), nn.Conv2d(33, 33, 5, groups=33)), (torch.randn(2, 3, 27, 29),)),
    (nn.Conv2d(40, 40, 3, padding=1), (torch.randn(1, 40, 29, 31),)),
    (nn.Conv2d(5, 5, 3, padding=1, groups=5), (torch.randn(2, 5, 21, 33),)),
    (nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=16), nn.Conv2d(32, 32, (2, 5), padding=(1, 2), groups=2)), (torch.randn(1, 32, 9, 13),)),
    (nn.Conv2d(32, 32, (3, 2), padding=(0, 1), dilation=(1, 2), groups=8), (torch.randn(2, 32, 7, 1),)),
    (nn.Sequential(nn.ConvTranspose2d(7, 33, 4), nn.ConvTranspose2d(33, 19, 4, 2, 1), nn.ConvTranspose2d(19, 19, 3, 2, 1, 1, groups=19)), (torch.randn(2, 7, 1, 1),)),
    (nn.LSTM(9, 21, 2, bidirectional=True), (torch.randn(5, 3, 9),)),
    (Attends(), tuple(torch.randn(2, 3, 17, 13) for _ in range(3))),
    (Gathers(), (torch.randint(11, (3, 5)),)),
]
with torch.no_grad():
    for options in ({}, {"freeze": True}):
        for model, inputs in cases:
            torch._dynamo.reset()  # all these modules share one code object, whose sizes would become symbolic
            found = torch.compile(model.eval(), backend="accel", options={"strict": True, **options})(*inputs)
            expected = model(*inputs)
            pairs = zip(found, expected) if isinstance(found, tuple) else [(found, expected)]
            for a, b in pairs:
                if isinstance(a, torch.Tensor):
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
print("clean")
"""

# A kernel that reads one element too many.
OVERFLOW = """
import torch
from accel.csrc.abi import PartitionSource, TensorArg
from accel.runtime.build import build
from accel.runtime.executor import Executor

text = '''
#include <stdint.h>
#include "dvx_runtime.h"
int32_t accel_main(void *const *b, const int64_t *s, char *arena, const dvx_runtime *rt) {
    ((float *)b[1])[0] = ((const float *)b[0])[s[0]];
    return 0;
}
'''
x, y = TensorArg("x", "f32", ("s0",), (1,)), TensorArg("y", "f32", (1,), (1,))
source = PartitionSource("overflow", (("unit.c", text),), 16, (x,), (y,), symbols=("s0",))
Executor(build(source), source)(torch.zeros(40), 40)
print("clean")
"""


def sanitizer_runtime() -> str | None:
    """What LD_PRELOAD has to name, as gcc knows it."""
    if shutil.which("gcc") is None:
        return None
    files = [subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip() for name in ("libasan.so", "libstdc++.so.6")]
    return " ".join(files) if all(map(os.path.isabs, files)) else None


@pytest.fixture
def run_sanitized(tmp_path):
    """Runs Python with the arguments and returns the finished process."""
    runtime = sanitizer_runtime()
    if runtime is None:
        pytest.skip("gcc with AddressSanitizer is not installed")
    environment = {
        **os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "ACCEL_CC": "gcc",
        "ACCEL_CFLAGS": "-fsanitize=address -O0 -g", "ACCEL_CACHE_DIR": str(tmp_path / "sanitized"),
    }  # fmt: skip

    def run(*arguments):
        return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=600)

    return run


def test_sanitizer_sees_a_read_behind_a_tensor(run_sanitized):
    done = run_sanitized("-c", OVERFLOW)
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr, done.stderr[-2000:]


@pytest.mark.slow
def test_models_touch_no_foreign_memory(run_sanitized):
    done = run_sanitized("-c", MODELS)
    assert (done.returncode, done.stdout.strip()) == (0, "clean"), done.stderr[-4000:]


@pytest.mark.slow
def test_random_programs_touch_no_foreign_memory(run_sanitized):
    done = run_sanitized(str(TESTS / "fuzz" / "run.py"), "--seeds", PROGRAM_SEEDS, "--no-reduce")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
