"""An entry is whole or missing, and a root that fails is replaced with one warning."""

import logging
import os

import pytest

from accel.runtime import cache
from accel.runtime.cache import Cache, digest_of

KEY = digest_of("key")


def test_digest_depends_on_where_parts_end():
    assert digest_of("ab", "c") != digest_of("a", "bc")
    assert digest_of("ab") == digest_of(b"ab")


def test_default_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCEL_CACHE_DIR", str(tmp_path / "here"))
    assert Cache().root == tmp_path / "here"
    monkeypatch.delenv("ACCEL_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Cache().root == tmp_path / ".cache" / "accel"


def test_lookup_finds_what_was_published(tmp_path):
    store = Cache(tmp_path)
    assert store.lookup(KEY, ".so") is None
    path = store.publish(KEY, ".so", b"content")
    assert store.lookup(KEY, ".so") == path
    assert store.lookup(KEY, ".o") is None
    assert store.read(KEY, ".so") == b"content"


@pytest.mark.parametrize("damage", [b"", b"conten", b"content ", b"CONTENT"])
def test_lookup_removes_a_damaged_entry(tmp_path, damage):
    store = Cache(tmp_path)
    path = store.publish(KEY, ".so", b"content")
    path.write_bytes(damage)
    assert store.lookup(KEY, ".so") is None
    assert not path.exists()


def test_lookup_passes_over_foreign_files(tmp_path):
    store = Cache(tmp_path)
    path = store.publish(KEY, ".so", b"content")
    (path.parent / f"{KEY}.so").write_bytes(b"x")
    (path.parent / "directory.so").mkdir()
    assert store.lookup(KEY, ".so") == path


def test_publish_twice_keeps_one_entry(tmp_path):
    store = Cache(tmp_path)
    assert store.publish(KEY, ".so", b"content") == store.publish(KEY, ".so", b"content")
    assert len(list(store.entries())) == 1


def test_entries_are_listed_and_cleared(tmp_path):
    store = Cache(tmp_path)
    (tmp_path / "not ours").write_text("stays")
    store.publish(KEY, ".so", b"12345")
    store.publish(digest_of("other"), ".o", b"123")
    assert sorted((entry.suffix, entry.n_bytes) for entry in store.entries()) == [(".o", 3), (".so", 5)]
    assert store.clear() == 2
    assert store.clear() == 0
    assert os.listdir(tmp_path) == ["not ours"]


def warnings_of(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_unwritable_root_degrades_with_one_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")  # a root below a file cannot be made, not even by the superuser
    store = Cache(tmp_path / "file" / "cache")
    for number in range(2):
        path = store.publish(digest_of(str(number)), ".so", b"content")
        assert store.root not in path.parents
        assert Cache(store.root).lookup(digest_of(str(number)), ".so") == path
    assert len(warnings_of(caplog)) == 1
    assert str(store.root) in warnings_of(caplog)[0].getMessage()


def test_full_disk_degrades_and_leaves_nothing_behind(tmp_path, caplog, monkeypatch):
    store = Cache(tmp_path / "full")
    write = os.replace

    def no_space(source, target):
        if str(tmp_path) in str(target):
            raise OSError(28, "No space left on device")
        write(source, target)

    monkeypatch.setattr(os, "replace", no_space)
    path = store.publish(KEY, ".so", b"content")
    assert path.read_bytes() == b"content"
    assert store.lookup(KEY, ".so") == path
    assert list(store.entries()) == []
    assert "No space left" in warnings_of(caplog)[0].getMessage()


def test_missing_home_degrades(monkeypatch, caplog):
    def no_home(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache.Path, "expanduser", no_home)
    assert Cache().publish(KEY, ".so", b"content").exists()
    assert len(warnings_of(caplog)) == 1
