"""C units written by hand, and an empty cache for every test."""

import pytest

from accel.csrc.abi import PartitionSource, TensorArg
from accel.runtime import cache

# out = x + y * w on s[0] elements
AXPY = """
#include <stdint.h>
#include "dvx_runtime.h"
int32_t accel_main(void *const *b, const int64_t *s, char *arena, const dvx_runtime *rt) {
    const float *x = b[0], *y = b[1], *w = b[2];
    float *out = b[3];
    (void)arena; (void)rt;
    for (int64_t i = 0; i < s[0]; i++) out[i] = x[i] + y[i] * w[i];
    return 0;
}
"""


@pytest.fixture(autouse=True)
def cache_root(tmp_path, monkeypatch):
    """The cache of one test; compilers are found afresh, and no degraded directory is remembered."""
    root = tmp_path / "cache"
    monkeypatch.setenv("ACCEL_CACHE_DIR", str(root))
    monkeypatch.delenv("ACCEL_CC", raising=False)
    monkeypatch.delenv("ACCEL_CFLAGS", raising=False)
    yield root
    cache._degraded_roots().clear()
    cache._warn_once.cache_clear()


@pytest.fixture
def make_source():
    """Makes a PartitionSource out of C texts and (dtype, sizes, strides, ...) of its tensors."""

    def tensors(prefix, shapes):
        return tuple(shape if isinstance(shape, TensorArg) else TensorArg(f"{prefix}{index}", *shape) for index, shape in enumerate(shapes))

    def make(*texts, inputs=(), outputs=(), **fields):
        units = tuple((f"unit{index}.c", text) for index, text in enumerate(texts))
        return PartitionSource("test", units, 16, tensors("in", inputs), tensors("out", outputs), **fields)

    return make


@pytest.fixture
def axpy(make_source):
    """x + y * w on one symbolic dim."""
    shape = ("f32", ("s0",), (1,))
    return make_source(AXPY, inputs=(shape,) * 3, outputs=(shape,), symbols=("s0",))
