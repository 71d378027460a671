"""Large memory is advised to lie in huge pages; values and small memory are untouched by it."""

import re
from pathlib import Path

import pytest
import torch

from accel.runtime.build import build
from accel.runtime.executor import Executor
from accel.runtime.huge_pages import HUGE_PAGE_BYTES, advise_huge_pages, is_large, map_huge_pages

FILL = """
#include <stdint.h>
#include "dvx_runtime.h"
int32_t accel_main(void *const *b, const int64_t *s, char *arena, const dvx_runtime *rt) {
    float *out = b[0];
    (void)arena; (void)rt;
    for (int64_t i = 0; i < s[0]; i++) out[i] = 1;
    return 0;
}
"""
LARGE = HUGE_PAGE_BYTES  # floats: four huge pages
needs_huge_pages = pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a system without huge pages")


def is_advised(tensor):
    """Whether the system lists the middle of the tensor's memory as advised."""
    middle, is_here = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            is_here = int(found[1], 16) <= middle < int(found[2], 16)
        elif is_here and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("the tensor lies in no mapping")


def test_large_means_a_whole_page_wherever_it_begins():
    assert not is_large(2 * HUGE_PAGE_BYTES - 1)


@needs_huge_pages
def test_a_large_tensors_memory_is_advised():
    tensor = torch.empty(LARGE)
    advise_huge_pages(tensor)
    assert is_advised(tensor)


@pytest.mark.parametrize("tensor", [torch.empty(0), torch.ones(()), torch.ones(1).expand(LARGE), torch.ones(LARGE)[3:]])
def test_any_tensor_may_be_advised(tensor):
    advise_huge_pages(tensor)
    assert (tensor == 1).all()


@needs_huge_pages
@pytest.mark.parametrize("size", [LARGE, "s0"])
def test_a_large_output_is_advised(make_source, size):
    source = make_source(FILL, outputs=(("f32", (size,), (1,)),), symbols=("s0",))
    (out,) = Executor(build(source), source)(LARGE)
    assert is_advised(out) and (out == 1).all()


@needs_huge_pages
def test_mapped_memory_is_advised():
    memory = map_huge_pages(2 * HUGE_PAGE_BYTES)
    assert is_advised(memory) and (memory == 0).all()
