"""The generated call: shapes, symbols, aliases, views, errors, counters, threads."""

import gc
import threading
import weakref

import pytest
import torch

from accel.csrc.abi import DTYPE_BYTES, TensorArg
from accel.runtime.build import build
from accel.runtime.errors import LoadError
from accel.runtime.executor import DTYPES, Executor, shared_arena

HEAD = """
#include <stdint.h>
#include "dvx_runtime.h"
int32_t accel_main(void *const *b, const int64_t *s, char *arena, const dvx_runtime *rt) {
"""
NOTHING = HEAD + "return 0; }"
SCALAR = HEAD + "((float *)b[1])[0] = ((const float *)b[0])[0] + 1; return 0; }"
ADD_ONE = HEAD + "for (int64_t i = 0; i < 6; i++) ((float *)b[0])[i] += 1; return 0; }"
# rows x columns -> its transpose, by way of the arena
TRANSPOSE = HEAD + """
    const float *x = b[0];
    float *copy = (float *)arena, *out = b[1];
    for (int64_t i = 0; i < s[0] * s[1]; i++) copy[i] = x[i];
    for (int64_t r = 0; r < s[0]; r++)
        for (int64_t c = 0; c < s[1]; c++) out[c * s[0] + r] = copy[r * s[1] + c];
    return 0;
}
"""
COUNT = HEAD + "rt->counters[0] += 5; rt->counters[rt->n_blocks] += 7; return rt->parallel != 0 || rt->n_threads != 1; }"
GRID = ("f32", (2, 3), (3, 1))


def executor_of(source, **options):
    return Executor(build(source, profile=options.pop("profile", False)), source, **options)


def test_dtypes_are_those_of_the_contract():
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == DTYPE_BYTES


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_output_has_the_manifests_dtype_and_strides(make_source, dtype):
    (out,) = executor_of(make_source(NOTHING, outputs=((dtype, (2, 3, 4), (1, 8, 2)),)))()
    assert (out.dtype, out.shape, out.stride()) == (DTYPES[dtype], (2, 3, 4), (1, 8, 2))
    assert not out.requires_grad


def test_zero_dim_tensors(make_source):
    scalar = ("f32", (), ())
    (out,) = executor_of(make_source(SCALAR, inputs=(scalar,), outputs=(scalar,)))(torch.tensor(2.0))
    assert out.shape == () and out.item() == 3


def test_empty_tensors(axpy):
    empty = torch.empty(0)
    (out,) = executor_of(axpy)(empty, empty, empty, 0)
    assert out.shape == (0,)


def test_no_arguments_and_no_outputs(make_source):
    assert executor_of(make_source(NOTHING))() == []


def test_symbolic_sizes_strides_and_arena(make_source):
    shape, transposed = ("f32", ("s0", "s1"), ("s1", 1)), ("f32", ("s1", "s0", "s0 // s0"), ("s0", 1, "s0 * s1"))
    call = executor_of(make_source(TRANSPOSE, inputs=(shape,), outputs=(transposed,), symbols=("s0", "s1"), arena_bytes="s0 * s1 * 4"))
    for rows, columns in ((2, 3), (5, 1), (30, 40)):
        x = torch.randn(rows, columns)
        torch.testing.assert_close(call(x, rows, columns)[0], x.t().unsqueeze(2), rtol=0, atol=0)


def test_input_with_storage_offset(axpy):
    x, y, w = torch.randn(3, 10)
    torch.testing.assert_close(executor_of(axpy)(x[3:], y[3:], w[3:], 7), [x[3:] + y[3:] * w[3:]], rtol=0, atol=0)


def test_run_empties_its_arguments_and_frees_them(axpy):
    call = executor_of(axpy)
    args = [torch.ones(4), torch.ones(4), torch.ones(4), 4]
    alive = weakref.ref(args[0])
    call.run(args)
    gc.collect()
    assert args == [] and alive() is None


def test_wrong_number_of_arguments_is_an_error(axpy):
    with pytest.raises(ValueError, match="unpack"):
        executor_of(axpy)(torch.ones(4))


def test_aliased_output_is_the_input(make_source):
    call = executor_of(make_source(ADD_ONE, inputs=(GRID,), outputs=(TensorArg("out", *GRID, aliases=0),)))
    x = torch.zeros(2, 3)
    assert call(x)[0] is x
    assert x.eq(1).all()


def test_view_outputs(make_source):
    outputs = (
        TensorArg("row", "f32", (3,), (1,), view_of=("input", 0), offset=3),
        TensorArg("made", "f32", (4,), (1,)),
        TensorArg("every_second", "f32", (2,), (2,), view_of=("output", 1), offset="s0"),
    )
    source = make_source(HEAD + "for (int i = 0; i < 4; i++) ((float *)b[1])[i] = i; return 0; }", inputs=(GRID,), outputs=outputs, symbols=("s0",))
    x = torch.arange(8.0)[2:].reshape(2, 3)
    row, made, every_second = executor_of(source)(x, 1)
    assert row.tolist() == [5, 6, 7] and row.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert made.tolist() == [0, 1, 2, 3]
    assert every_second.tolist() == [1, 3] and every_second.untyped_storage().data_ptr() == made.untyped_storage().data_ptr()


def test_computed_outputs_follow_the_inputs_in_buffers(make_source):
    outputs = (TensorArg("alias", *GRID, aliases=0), ("f32", (), ()))
    source = make_source(HEAD + "((float *)b[1])[0] = 9; return 0; }", inputs=(GRID,), outputs=outputs)
    assert executor_of(source)(torch.zeros(2, 3))[1].item() == 9


def test_status_index_error_reads_as_eagers(make_source):
    call = executor_of(make_source(HEAD + "return 1; }", arena_bytes=64))
    with pytest.raises(IndexError, match="^index out of range in self$"):
        call()


def test_unknown_status_is_our_bug(make_source):
    with pytest.raises(RuntimeError, match="unknown status 77"):
        executor_of(make_source(HEAD + "return 77; }"))()


def test_arena_comes_back_after_an_error(make_source):
    shared_arena().release()
    call = executor_of(make_source(HEAD + "arena[99] = 1; return (int32_t)((uintptr_t)arena % 64) + 1; }", arena_bytes=100))
    for _ in range(3):
        with pytest.raises(IndexError):
            call()
    assert shared_arena().held_bytes() == 100


@pytest.mark.parametrize("is_mutated", [False, True])
def test_check_inputs_copies_other_strides(make_source, is_mutated):
    outputs = (TensorArg("out", *GRID, aliases=0),) if is_mutated else (GRID,)
    text = ADD_ONE if is_mutated else HEAD + "for (int i = 0; i < 6; i++) ((float *)b[1])[i] = ((float *)b[0])[i] + 1; return 0; }"
    call = executor_of(make_source(text, inputs=(GRID,), outputs=outputs), check_inputs=True)
    values = torch.arange(6.0).reshape(2, 3)
    for x in (values.clone(), values.t().contiguous().t()):
        (out,) = call(x)
        assert (out is x) == is_mutated
        assert out.tolist() == (values + 1).tolist()


def test_check_inputs_converts_another_dtype(make_source):
    outputs = (GRID,)
    text = HEAD + "for (int i = 0; i < 6; i++) ((float *)b[1])[i] = ((float *)b[0])[i] + 1; return 0; }"
    call = executor_of(make_source(text, inputs=(GRID,), outputs=outputs), check_inputs=True)
    values = torch.arange(6.0).reshape(2, 3)
    assert call(values.half())[0].tolist() == (values + 1).tolist()


def test_check_inputs_passes_strides_that_do_not_matter(make_source):
    one_row = ("f32", (1, 3), (3, 1))
    call = executor_of(make_source(NOTHING, inputs=(one_row,), outputs=(TensorArg("out", *one_row, view_of=("input", 0)),)), check_inputs=True)
    x = torch.zeros(9).as_strided((1, 3), (7, 1))
    assert call(x)[0].data_ptr() == x.data_ptr()


def test_constants_are_bound(axpy):
    y, w = torch.randn(2, 5)
    call = executor_of(axpy, constants={1: y, 2: w})
    x = torch.randn(5)
    torch.testing.assert_close(call(x, 5), [x + y * w], rtol=0, atol=0)
    y.zero_()
    torch.testing.assert_close(call(x, 5), [x], rtol=0, atol=0)


def test_bound_constant_may_be_returned(make_source):
    source = make_source(NOTHING, inputs=(GRID,), outputs=(TensorArg("out", *GRID, aliases=0),))
    weight = torch.zeros(2, 3)
    for check_inputs in (False, True):
        assert executor_of(source, constants={0: weight}, check_inputs=check_inputs)()[0] is weight


def test_bound_constant_gets_the_manifests_strides(make_source):
    text = HEAD + "for (int i = 0; i < 6; i++) ((float *)b[1])[i] = ((float *)b[0])[i]; return 0; }"
    weight = torch.arange(6.0).reshape(3, 2).t()
    assert executor_of(make_source(text, inputs=(GRID,), outputs=(GRID,)), constants={0: weight})()[0].tolist() == weight.tolist()


PREPARED = HEAD.replace("accel_main", "accel_prepare") + """
    if ((uintptr_t)arena % 64 || b[1] || b[2] || s[0]) return 1;
    for (int i = 0; i < 6; i++) ((float *)arena)[i] = ((const float *)b[0])[i] * 2;
    return 0;
}
int32_t accel_main(void *const *b, const int64_t *s, char *arena, const dvx_runtime *rt) {
    for (int i = 0; i < 6; i++) ((float *)b[2])[i] = ((const float *)b[3])[i] + ((const float *)b[1])[0];
    return 0;
}
"""


@pytest.mark.parametrize("profile", [False, True])
def test_what_depends_on_constants_alone_is_computed_once(make_source, profile):
    source = make_source(PREPARED, inputs=(GRID, ("f32", (), ())), outputs=(GRID,), symbols=("s0",), prepared_bytes=24)
    weight = torch.arange(6.0).reshape(2, 3)
    call = executor_of(source, constants={0: weight}, profile=profile)
    expected = (weight * 2 + 1).tolist()
    weight.zero_()
    for _ in range(2):
        assert call(torch.tensor(1.0), 7)[0].tolist() == expected


def test_prepare_that_is_missing_is_a_load_error(make_source):
    with pytest.raises(LoadError, match="accel_prepare"):
        executor_of(make_source(NOTHING, prepared_bytes=8))


def test_run_counted_returns_counters(make_source):
    call = executor_of(make_source(COUNT, n_counters=4, n_blocks=3, max_contexts=8), profile=True)
    for _ in range(2):
        assert call.run_counted([]) == ([], [5, 0, 0, 7])
    assert call() == []  # a profiling build counts into nowhere, and does not crash


def test_run_from_many_python_threads(make_source):
    shape, transposed = ("f32", ("s0", "s1"), ("s1", 1)), ("f32", ("s1", "s0"), ("s0", 1))
    call = executor_of(make_source(TRANSPOSE, inputs=(shape,), outputs=(transposed,), symbols=("s0", "s1"), arena_bytes="s0 * s1 * 4"))
    wrong = []

    def calls(seed):
        x = torch.full((40 + seed, 50), float(seed))
        for _ in range(100):
            (out,) = call(x, 40 + seed, 50)
            if not torch.equal(out, x.t()):
                wrong.append(seed)

    callers = [threading.Thread(target=calls, args=(seed,)) for seed in range(4)]
    [caller.start() for caller in callers]
    [caller.join() for caller in callers]
    assert not wrong


def test_allocation_without_private_torch_functions(axpy, monkeypatch):
    import importlib
    import sys

    from accel.runtime import executor

    monkeypatch.setitem(sys.modules, "torch._C._dynamo.guards", None)
    plain = importlib.util.module_from_spec(executor.__spec__)
    executor.__spec__.loader.exec_module(plain)
    x, y, w = torch.randn(3, 4)
    torch.testing.assert_close(plain.Executor(build(axpy), axpy)(x, y, w, 4), [x + y * w], rtol=0, atol=0)
    assert plain._reinterpret_tensor(x, (2,), (2,), 1).tolist() == x[1::2].tolist()
