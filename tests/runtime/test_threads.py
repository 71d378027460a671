"""Regions run on as many threads as asked for, on torch's workers or on the pool, and never hang after a fork."""

import os
import select
import shutil
import threading
from pathlib import Path

import pytest
import torch

from accel.runtime import threads
from accel.runtime.build import build, build_pool_library
from accel.runtime.errors import CompileError
from accel.runtime.executor import Executor
from accel.runtime.library import DVX_POOL, ThreadLibrary, make_runtime
from accel.runtime.toolchain import include_dir

# out[0] = bits of the thread numbers that ran; out[1] = size of the team; out[2] = calls of the function
REGION = """
#include <stdint.h>
#include "dvx_runtime.h"
typedef struct { int64_t *out; const dvx_runtime *rt; } region;
static void body(void *data) {
    region *r = data;
    __atomic_or_fetch(&r->out[0], INT64_C(1) << r->rt->thread_num(), __ATOMIC_RELAXED);
    __atomic_store_n(&r->out[1], r->rt->num_threads(), __ATOMIC_RELAXED);
    __atomic_add_fetch(&r->out[2], 1, __ATOMIC_RELAXED);
}
int32_t accel_main(void *const *b, const int64_t *s, char *arena, const dvx_runtime *rt) {
    region r = {b[0], rt};
    r.out[0] = 0, r.out[1] = 1, r.out[2] = 0;
    if (rt->parallel) rt->parallel(body, &r, rt->n_threads, 0);
    else r.out[0] = 1, r.out[2] = 1;
    return 0;
}
"""


@pytest.fixture
def torch_threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def region(make_source):
    return make_source(REGION, outputs=(("i64", (3,), (1,)),), max_contexts=8)


@pytest.fixture(scope="session")
def pool_library(tmp_path_factory):
    """The pool, built by gcc where it is at hand: the wheel's first link against libc takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCEL_CACHE_DIR", str(tmp_path_factory.mktemp("pool")))
        patch.setenv("ACCEL_CC", shutil.which("gcc") or "")
        path = build_pool_library((include_dir().parent / "src" / "pool.c").read_text())
        return ThreadLibrary(path, DVX_POOL)


@pytest.fixture(params=["openmp", "pool"])
def runs_region(request, monkeypatch, region):
    """Runs `region` on the given number of threads, in turn on torch's OpenMP and on the pool."""
    if request.param == "pool":
        library = request.getfixturevalue("pool_library")
        monkeypatch.setattr(threads, "thread_library", lambda: library)
    elif threads.thread_library() is None:
        pytest.skip("torch has no OpenMP here")
    threads.shared_runtimes.cache_clear()
    built = build(region)
    yield lambda n_threads: Executor(built, region, n_threads)()[0].tolist()
    threads.shared_runtimes.cache_clear()


def test_library_is_the_one_that_torch_has_loaded():
    library = threads.thread_library()
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc")
    assert str(library.path) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4, 2])
def test_region_runs_once_on_every_thread(runs_region, n_threads):
    for _ in range(20):
        assert runs_region(n_threads) == [(1 << n_threads) - 1, n_threads, n_threads]


def test_region_is_cut_to_max_contexts(runs_region):
    assert runs_region(100) == [255, 8, 8]


def test_executor_follows_torch(region, torch_threads):
    run = Executor(build(region), region)
    for n_threads in (1, 3, 2):
        torch_threads(n_threads)
        assert run()[0].tolist() == [(1 << n_threads) - 1, n_threads, n_threads]


def test_regions_of_many_python_threads(runs_region):
    seen = []

    def call():
        for _ in range(50):
            bits, team, calls = runs_region(2)
            seen.append(bits == (1 << team) - 1 and calls == team and team in (1, 2))  # the pool serves one region at a time

    callers = [threading.Thread(target=call) for _ in range(4)]
    [caller.start() for caller in callers]
    [caller.join() for caller in callers]
    assert len(seen) == 200 and all(seen)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_runs_on_one_thread_and_does_not_hang(runs_region):
    assert runs_region(2)[1] == 2
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, repr(runs_region(2)).encode())
        os._exit(0)
    os.close(writer)
    is_answered = bool(select.select([reader], [], [], 20)[0])
    if not is_answered:
        os.kill(pid, 9)
    answer = os.read(reader, 100)
    os.close(reader)
    os.waitpid(pid, 0)
    assert answer == b"[1, 1, 1]"
    assert runs_region(2)[1] == 2  # the parent keeps its threads


def test_no_openmp_and_no_pool_means_one_thread(region, monkeypatch, caplog):
    def fails(text):
        raise CompileError("no")

    monkeypatch.setattr(threads, "_openmp_files", lambda: [])
    monkeypatch.setattr(threads, "build_pool_library", fails)
    threads.thread_library.cache_clear()
    threads.shared_runtimes.cache_clear()
    try:
        assert Executor(build(region), region, 4)()[0].tolist() == [1, 1, 1]
        assert "one thread" in caplog.text
        assert threads.describe()["thread library"].startswith("none")
    finally:
        threads.thread_library.cache_clear()
        threads.shared_runtimes.cache_clear()


def test_a_library_without_the_functions_is_passed_over(monkeypatch, tmp_path, pool_library):
    (tmp_path / "libgomp.so").write_text("not a library")
    monkeypatch.setattr(threads, "_openmp_files", lambda: [tmp_path / "libgomp.so"])
    monkeypatch.setattr(threads, "build_pool_library", lambda text: pool_library.path)
    threads.thread_library.cache_clear()
    try:
        assert threads.thread_library().path == pool_library.path
    finally:
        threads.thread_library.cache_clear()


def test_waiting_threads_yield_soon_where_they_share_a_core(monkeypatch):
    library = threads.thread_library()
    if library is None:
        pytest.skip("kernels run on one thread here")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert make_runtime(library, 3).n_pauses < make_runtime(library, 2).n_pauses
