"""Worker processes for the cells of the matrix: time-outs, crashes and replacement.

Cases -> (Case, CellResult) pairs, as they come.
"""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

from .coverage_cases import Case
from .coverage_matrix import CellResult
from .coverage_worker import READY

__all__ = ["run_cases"]

START_TIMEOUT_S = 300.0  # imports torch and its test database
N_CELLS_OF_A_PROCESS = 400  # estimate: what Dynamo and loaded kernels keep stays below 4 GB


def _command() -> list[str]:
    return [sys.executable, "-m", f"{__package__}.coverage_worker"]


class _Worker:
    """One process, started at the first cell and again after a crash."""

    def __init__(self, environment: Mapping[str, str]):
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen | None = None
        self._buffer = b""
        self._n_cells = 0

    def run(self, case: Case, n_samples: int | None, timeout_s: float) -> CellResult:
        """The cell of `case`, "error" where the process dies or takes more than `timeout_s`."""
        if self._process is None and (problem := self._start()) is not None:
            return _error(problem)
        asked = {"op": case.op, "dtype": case.dtype, "variant": case.variant, "n_samples": n_samples}
        line = self._ask(json.dumps(asked).encode() + b"\n", timeout_s)
        if line is None:
            return _error(self._end(timeout_s))
        self._n_cells += 1
        if self._n_cells == N_CELLS_OF_A_PROCESS:
            self.stop()
        answer = json.loads(line)
        return CellResult(**{**answer, "reasons": tuple(answer["reasons"])})

    def _ask(self, line: bytes, timeout_s: float) -> bytes | None:
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:  # it died after its last answer
            return None
        return self._read(timeout_s)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> str | None:
        self._process = subprocess.Popen(_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._environment)
        self._buffer, self._n_cells = b"", 0
        if self._read(START_TIMEOUT_S) == READY.encode():
            return None
        return f"no worker process: {self._end(START_TIMEOUT_S)}"

    def _end(self, timeout_s: float) -> str:
        """Why there was no answer; the process is gone afterwards."""
        is_alive = self._process.poll() is None and bool(select.select([self._process.stdout], [], [], 0)[0]) is False
        self._process.kill()
        self._process.communicate()
        status = self._process.returncode
        self._process = None
        return f"timed out after {timeout_s:g} s" if is_alive else f"crashed (exit status {status})"

    def _read(self, timeout_s: float) -> bytes | None:
        """The next line, None at the end of the stream or of the time."""
        while b"\n" not in self._buffer:
            if not select.select([self._process.stdout], [], [], timeout_s)[0]:
                return None
            received = os.read(self._process.stdout.fileno(), 1 << 16)
            if not received:
                self._process.wait()
                return None
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _error(message: str) -> CellResult:
    return CellResult("error", {"error": 1}, message=message)


def run_cases(
    cases: Sequence[Case], *, n_workers: int, n_samples: int | None, timeout_s: float, environment: Mapping[str, str]
) -> Iterator[tuple[Case, CellResult]]:
    """Run `cases` in `n_workers` processes; pairs come in the order in which they end.

    Args: n_samples: per cell, None for all.   timeout_s: time that one cell may take.   environment: added to that of the processes.
    """
    todo: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    for case in cases:
        todo.put(case)
    stopping = threading.Event()

    def serve() -> None:
        worker = _Worker(environment)
        try:
            while not stopping.is_set():
                case = todo.get_nowait()
                done.put((case, worker.run(case, n_samples, timeout_s)))
        except queue.Empty:
            pass
        except Exception as error:  # told to the caller, who waits for this thread's cells
            done.put(error)
        finally:
            worker.stop()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(n_workers, len(cases)))]
    for thread in threads:
        thread.start()
    try:
        for _ in cases:
            found = done.get()
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        stopping.set()
