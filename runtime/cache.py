"""The disk cache: content-addressed files that many processes share.

An entry is one file, `entries/<2 hex>/<key>.<digest of the content><suffix>`: the key says what it was made from, the digest
in its name whether it is whole. It appears by one os.replace, so a reader sees all of it or nothing. A damaged entry is
removed and counts as a miss. A directory that cannot be written (rights, full disk) is replaced, with one warning, by a
private directory that ends with the process.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Cache", "CacheEntry", "default_cache_dir", "digest_of"]

logger = logging.getLogger("accel.runtime.cache")

ENTRIES = "entries"
VERSIONS = "compilers"


def digest_of(*parts: bytes | str) -> str:
    """A hex digest of a sequence of texts; ("ab", "c") and ("a", "bc") differ."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def default_cache_dir() -> Path:
    """`$ACCEL_CACHE_DIR`, else ~/.cache/accel."""
    configured = os.environ.get("ACCEL_CACHE_DIR")
    return Path(configured or "~/.cache/accel").expanduser()


@dataclasses.dataclass(frozen=True)
class CacheEntry:
    """One file of the cache, as listings show it."""

    key: str
    suffix: str
    n_bytes: int
    path: Path


class Cache:
    """The entries below one root directory, which need not exist yet.

    Args:
        root: the option `cache_dir`; None takes `default_cache_dir()`.
    """

    def __init__(self, root: str | os.PathLike | None = None):
        try:
            # absolute, since compilers run in another directory
            self.root = (Path(root).expanduser() if root is not None else default_cache_dir()).absolute()
        except RuntimeError as error:  # no home directory
            _warn_once("~/.cache/accel", str(error))
            self.root = _private_dir()

    @property
    def version_dir(self) -> Path:
        """Where toolchain.py keeps the versions of compilers."""
        return self.root / VERSIONS

    def lookup(self, key: str, suffix: str) -> Path | None:
        """The whole, verified entry of `key`, or None."""
        for place in (self.root, _private_dir()) if _is_degraded(self.root) else (self.root,):
            for path in _files(place / ENTRIES / key[:2]):
                if path.name.startswith(f"{key}.") and path.suffix == suffix and _is_whole(path):
                    return path
        return None

    def read(self, key: str, suffix: str) -> bytes | None:
        """The content of `key`'s entry, or None."""
        path = self.lookup(key, suffix)
        try:
            return path.read_bytes() if path else None
        except OSError:
            return None

    def publish(self, key: str, suffix: str, content: bytes) -> Path:
        """Store `content` under `key`; in the private directory where the root cannot take it.

        Raises:
            OSError: the private directory cannot take it either.
        """
        try:
            return _write(self.root, key, suffix, content)
        except OSError as error:
            _warn_once(str(self.root), str(error))
            _degraded_roots().add(self.root)
            return _write(_private_dir(), key, suffix, content)

    def entries(self) -> Iterator[CacheEntry]:
        """Every entry, in the order of the keys."""
        for shard in sorted(_files(self.root / ENTRIES)):
            for path in sorted(_files(shard)):
                try:
                    n_bytes = path.stat().st_size
                except OSError:
                    continue  # removed since it was listed
                yield CacheEntry(path.name.split(".")[0], path.suffix, n_bytes, path)

    def clear(self) -> int:
        """Remove everything the cache has written below its root, and nothing else; returns the number of entries."""
        n_entries = sum(1 for _ in self.entries())
        for name in (ENTRIES, VERSIONS):
            shutil.rmtree(self.root / name, ignore_errors=True)
        return n_entries


def _files(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _is_whole(path: Path) -> bool:
    """Whether the content has the digest that the name states; a damaged file is removed."""
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() == path.name.split(".")[1]:
            return True
        logger.info("cache entry %s is damaged; it is built again", path)
        path.unlink()
    except (OSError, IndexError):
        pass  # gone or not ours: a miss
    return False


def _write(root: Path, key: str, suffix: str, content: bytes) -> Path:
    shard = root / ENTRIES / key[:2]
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    shard.mkdir(parents=True, exist_ok=True)
    path = shard / f"{key}.{hashlib.sha256(content).hexdigest()}{suffix}"
    descriptor, partial = tempfile.mkstemp(prefix="partial-", dir=shard)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(partial, path)
    except BaseException:  # an interrupt, too, must leave no partial file behind
        os.unlink(partial)
        raise
    return path


@functools.cache
def _private_dir() -> Path:
    """A directory of this process, removed when it ends (by the process that made it, not by its forks)."""
    path = Path(tempfile.mkdtemp(prefix="accel-"))
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(path, ignore_errors=True))
    return path


@functools.cache
def _degraded_roots() -> set[Path]:
    """The roots that could not be written in this process."""
    return set()


def _is_degraded(root: Path) -> bool:
    return root in _degraded_roots()


@functools.cache
def _warn_once(root: str, reason: str) -> None:
    logger.warning("the cache directory %s cannot be used (%s); this process keeps its kernels in a private directory", root, reason)
