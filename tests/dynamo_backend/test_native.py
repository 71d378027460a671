"""The frontend with lowering and runtime behind it: a few programs of each kind, compiled for real."""

from __future__ import annotations

import pytest
import torch

import accel


def compiled(fn, tmp_path=None, **options):
    return torch.compile(fn, backend="accel", options=options | ({"dump_dir": tmp_path} if tmp_path else {}))


def around_svd(x, y):
    u, s, v = torch.linalg.svd(x @ y + 1, full_matrices=False)
    return (u * s) @ v + x


def mutate(x, y):
    view = x[1:]
    view.mul_(2)
    y.add_(x.sum())
    return x.sum(0), view


@pytest.mark.parametrize("machine", ["host", "dvx-h1"])
def test_partitions_around_a_fallback_are_as_eager(machine):
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    with torch.no_grad():
        explained = accel.explain(around_svd, machine=machine)(x, y)
        torch.testing.assert_close(compiled(around_svd, machine=machine)(x, y), around_svd(x, y), rtol=1e-4, atol=1e-4)
    (graph,) = explained.graphs
    assert len(graph.partitions) == 2 and [fallback.op for fallback in graph.fallbacks] == ["aten._linalg_svd"]
    assert all(partition.kernels for partition in graph.partitions)


def test_mutation_and_aliases_are_as_eager():
    inputs, twins = ([torch.arange(12.0).view(4, 3), torch.ones(2)] for _ in range(2))
    torch.testing.assert_close((compiled(mutate)(*inputs), inputs), (mutate(*twins), twins))


def test_training_step_is_as_eager():
    torch.manual_seed(0)
    model, x = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)), torch.randn(5, 8)
    gradients = []
    for call in (model, compiled(model)):
        model.zero_grad()
        call(x).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_frozen_model_is_as_eager():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 4)).eval()
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(compiled(model, freeze=True)(x), model(x), rtol=1e-4, atol=1e-5)
        assert accel.explain(model, freeze=True)(x).graphs[0].frozen > 0


def test_one_compilation_serves_every_size():
    dynamic = torch.compile(lambda x: x.sum(-1) * x.shape[0] + x[:, 0], backend="accel", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n_rows in (3, 5, 9):
            x = torch.randn(n_rows, 11)
            torch.testing.assert_close(dynamic(x), x.sum(-1) * n_rows + x[:, 0])


def test_dump_dir_holds_every_stage(tmp_path):
    compiled(lambda x: x.relu() + 1, tmp_path)(torch.ones(8))
    (folder,) = tmp_path.glob("*/partition_0")
    assert {path.name for path in folder.iterdir()} >= {"tensor.txt", "schedule.txt", "vector.txt", "c.c"}


def test_no_compiler_is_one_warning_and_eager(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("ACCEL_CC", str(tmp_path / "no-such-compiler"))
    x = torch.randn(8)
    with caplog.at_level("WARNING", "accel"):
        torch.testing.assert_close(compiled(lambda x: x * 2 + 1, cache_dir=tmp_path / "cache")(x), x * 2 + 1)
    assert sum("run in eager, since compiling failed" in record.getMessage() for record in caplog.records) == 1


# name: (program, input, a part of every reason)
NOTHING_NATIVE = {
    "only unsupported ops": (lambda x: torch.linalg.qr(torch.linalg.inv(x))[1], lambda: torch.eye(3) * 2, "factorizations"),
    "complex": (lambda x: x * x + 1, lambda: torch.tensor([1 + 2j, 3j]), "complex"),
    "another device": (lambda x: x * 2 + 1, lambda: torch.empty(3, device="meta"), "device meta"),
}


@pytest.mark.parametrize(("program", "make_input", "reason"), NOTHING_NATIVE.values(), ids=NOTHING_NATIVE)
def test_model_without_a_native_node_is_eager_and_says_why(program, make_input, reason):
    explained = accel.explain(program)(make_input())
    assert explained.native_nodes == 0 < explained.total_nodes and not explained.graphs[0].partitions
    assert all(reason in fallback.reason for fallback in explained.graphs[0].fallbacks)
    torch.testing.assert_close(compiled(program)(make_input()), program(make_input()))


def test_truncated_cache_entry_is_built_again(tmp_path):
    x = torch.randn(8)
    for _ in range(2):
        torch._dynamo.reset()
        torch.testing.assert_close(compiled(lambda x: x * 3 - 1, cache_dir=tmp_path)(x), x * 3 - 1)
        for path in tmp_path.rglob("*.*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:10])


def test_unwritable_cache_dir_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    x = torch.randn(8)
    with caplog.at_level("WARNING", "accel"):
        torch.testing.assert_close(compiled(lambda x: x * 5 - 1, cache_dir=tmp_path / "file")(x), x * 5 - 1)
    assert sum("cannot be used" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(("body", "what"), [("kill -SEGV $$", "signal 11"), ("exit 1", "exit status 1")], ids=["crash", "failure"])
def test_compiler_that_fails_is_one_warning_and_eager(monkeypatch, tmp_path, caplog, body, what):
    fake = tmp_path / "cc"
    fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "gcc 1" && exit\n{body}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("ACCEL_CC", str(fake))
    x = torch.randn(8)
    with caplog.at_level("WARNING", "accel"):
        torch.testing.assert_close(compiled(lambda x: x * 2 + 1, cache_dir=tmp_path / "cache")(x), x * 2 + 1)
    assert [what in record.getMessage() for record in caplog.records if record.name.startswith("accel")] == [True]


def test_index_out_of_range_is_an_index_error():
    table = torch.randn(4, 3)
    look_up = compiled(lambda index: torch.nn.functional.embedding(index, table) * 2)
    torch.testing.assert_close(look_up(torch.tensor([0, 3])), table[[0, 3]] * 2)
    for outside in (4, -1, 2**40):
        with pytest.raises(IndexError):
            look_up(torch.tensor([0, outside]))


TABLE, SHORT_TABLE = torch.arange(12.0).view(4, 3), torch.arange(6.0).view(2, 3)
# name: (program, index that every dim has, indices of which one is outside)
INDEXED = {
    "gather": (lambda i: TABLE.gather(1, i[None].expand(4, -1)) * 2, [2, 0], [[-1], [3]]),
    "index_select": (lambda i: TABLE.index_select(0, i) * 2, [3, 0], [[-1], [4]]),
    "index": (lambda i: TABLE[i] * 2, [-4, 3], [[-5], [4]]),
    "columns": (lambda i: TABLE[:, i] * 2, [-3, 2], [[-4], [3]]),
    "one index for two tables": (lambda i: TABLE[i] + SHORT_TABLE[i], [-1, -2, 0, 1], [[2], [-3]]),
    "from the end and not": (lambda i: TABLE[i] + TABLE.index_select(0, i), [0, 3], [[-1], [4]]),
    "index_put": (lambda i: TABLE.index_put((i,), torch.tensor(5.0)) * 2, [-1, 0], [[-5], [4]]),
    "scatter": (lambda i: TABLE.scatter(1, i[None].expand(4, -1), 9.0) * 2, [2, 0], [[-1], [3]]),
    "index_fill": (lambda i: TABLE.index_fill(0, i, 7.0) * 2, [-1, 0], [[-5], [4]]),
}


@pytest.mark.parametrize(("program", "inside", "outside"), INDEXED.values(), ids=INDEXED)
def test_negative_indices_count_from_the_end_where_they_do_in_eager(program, inside, outside):
    indexed = compiled(program)
    torch.testing.assert_close(indexed(torch.tensor(inside)), program(torch.tensor(inside)))
    for index in outside:
        with pytest.raises((IndexError, RuntimeError)):
            program(torch.tensor(index))
        with pytest.raises(IndexError):
            indexed(torch.tensor(index))
