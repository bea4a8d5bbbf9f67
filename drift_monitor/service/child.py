"""One worker process, seen from its parent: it gets a request, and answers, is too slow, too large, or dies."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import timedelta

from pydantic import ValidationError

from drift_monitor.config.clusters import place_of
from drift_monitor.config.daemon import Workers
from drift_monitor.core.policy import format_duration
from drift_monitor.core.types import CheckResult, FailureReason
from drift_monitor.service.evaluate import CheckRequest
from drift_monitor.service.logs import fields
from drift_monitor.service.worker import READY

log = logging.getLogger(__name__)

RECYCLE = 200  # runs; whatever a library leaks is given back
LOOK = 0.05  # seconds between two looks at a child's memory
START_LIMIT = timedelta(seconds=60)
RESULT_LIMIT = 64 * 2**20  # bytes
OUTPUT_LINES = 50  # of what a child prints in one run; the rest is counted
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class RunFailedError(Exception):
    """A child did not give a result."""

    def __init__(self, failure: FailureReason, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure


class StoppedError(Exception):
    """The child was ended because the daemon stops; the run has no result and is due again."""


def private_memory(pid: int) -> int:
    """Bytes of memory of a process's own, without mapped files and shared memory; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            _, resident, shared, *_ = statm.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(resident) - int(shared)) * _PAGE


class Child:
    """One worker process in a process group of its own.

    Args:
        command: how to start it; the result pipe, our process id and the memory limit are appended.
        memory: bytes.
        stopped: set when running children are to be killed.
    """

    def __init__(self, command: Sequence[str], memory: int, stopped: threading.Event) -> None:
        self.memory, self.runs = memory, 0
        self._stopped = stopped
        self._buffer = b""
        self._unsent = memoryview(b"")
        self._lines = 0
        self._ready = False
        self._results, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs), str(os.getpid()), str(memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
                start_new_session=True,
                env={**os.environ, **_ONE_THREAD},
            )
        except OSError:
            os.close(self._results)
            raise
        finally:
            os.close(theirs)
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        assert self._process.stdout is not None  # noqa: S101
        self._requests, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._output, self._results):
            self._selector.register(descriptor, selectors.EVENT_READ)
        for descriptor in (self._requests, self._output, self._results):
            os.set_blocking(descriptor, False)

    @property
    def pid(self) -> int:
        """Process id, which is the group's too."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it can take another run."""
        return self.runs < RECYCLE and self._process.poll() is None

    def evaluate(self, request: CheckRequest, workers: Workers) -> CheckResult:
        """Have one window evaluated.

        Raises:
            RunFailedError: deadline or memory limit exceeded, or the child died or talks nonsense; it was killed.
            StoppedError: the daemon stops; it was killed.
        """
        try:
            if not self._ready:
                self._wait_until_ready()
            self.runs += 1
            line = self._exchange(
                request.model_dump_json().encode() + b"\n",
                workers.deadline,
                f"the check took longer than workers.deadline ({format_duration(workers.deadline)}) and was "
                f"stopped: raise it, or let a window hold less data{_cores(request)}",
            )
            return _parsed(line)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self) -> None:
        line = self._exchange(b"", START_LIMIT, "the worker process did not start within 60s")
        if line + b"\n" != READY:
            raise RunFailedError(FailureReason.INTERNAL, f"the worker process began with {line[:80]!a}")
        self._ready = True

    def _exchange(self, request: bytes, limit: timedelta, too_late: str) -> bytes:
        """Send a request and wait for a line, with an eye on the clock and the child's memory."""
        end = time.monotonic() + limit.total_seconds()
        memory, self._lines = 0, 0
        if request:
            self._unsent = memoryview(request)
            self._selector.register(self._requests, selectors.EVENT_WRITE)
        while True:
            dead = self._process.poll() is not None  # looked at before reading, so that nothing said is lost
            heard = self._move_bytes()
            line, end_of_line, rest = self._buffer.partition(b"\n")
            if end_of_line:
                self._buffer = rest
                return line
            if dead and not heard:
                raise self._death(memory)
            if len(self._buffer) > RESULT_LIMIT:
                raise RunFailedError(FailureReason.INTERNAL, "the result is larger than 64 MiB")
            memory = private_memory(self.pid) or memory
            if memory > self.memory:
                raise self._too_much_memory(memory)
            if self._stopped.is_set():
                raise StoppedError
            if time.monotonic() > end:
                raise RunFailedError(FailureReason.TIMEOUT, too_late)

    def _move_bytes(self) -> bool:
        """Send and receive what is possible within a look; tells whether part of a result came."""
        heard = False
        for key, _ in self._selector.select(LOOK):
            if key.fd == self._requests:
                self._send()
                continue
            chunk = _read(key.fd)
            if not chunk:
                self._selector.unregister(key.fd)
            elif key.fd == self._output:
                self._log_output(chunk)
            else:
                heard = True
                self._buffer += chunk
        return heard

    def _send(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
        except BrokenPipeError:  # it died, which the caller sees
            self._unsent = self._unsent[:0]
        if not self._unsent:
            self._selector.unregister(self._requests)

    def _log_output(self, chunk: bytes) -> None:
        for text in chunk.decode(errors="replace").splitlines():
            self._lines += 1
            if self._lines <= OUTPUT_LINES:
                log.warning("worker said", extra=fields(pid=self.pid, text=text[:1000]))
            elif self._lines == OUTPUT_LINES + 1:
                log.warning("worker says too much; the rest of this run is left out", extra=fields(pid=self.pid))

    def _too_much_memory(self, memory: int) -> RunFailedError:
        return RunFailedError(
            FailureReason.MEMORY,
            f"the check needed {memory / 2**20:.0f} MiB and workers.memory allows {self.memory / 2**20:.0f} MiB, "
            "so it was stopped: raise it, or let a window hold less data",
        )

    def _death(self, memory: int) -> RunFailedError:
        code = self._process.wait()
        if memory > 0.8 * self.memory:  # an allocator that is refused memory aborts
            return self._too_much_memory(memory)
        if code == -signal.SIGKILL:
            why = "was killed from outside; the kernel does that when the machine runs out of memory"
        elif code < 0:
            why = f"died of {signal.Signals(-code).name}; its last words are in the log"
        else:
            why = f"ended with exit code {code}; its last words are in the log"
        return RunFailedError(FailureReason.INTERNAL, f"the worker process {why}")

    def kill(self) -> None:
        """End the process and everything it started. Doing it twice is harmless."""
        if self._results < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._log_output(_read(self._output))
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        os.close(self._results)
        self._results = -1


def _cores(request: CheckRequest) -> str:
    """A cluster without free cores lets a check wait for ever."""
    place = place_of(request.monitor.executor)
    return "" if place is None else f"; see that {place} has free cores"


def _parsed(line: bytes) -> CheckResult:
    try:
        return CheckResult.model_validate_json(line)
    except ValidationError as error:
        what = error.errors(include_url=False)[0]["msg"]
        raise RunFailedError(FailureReason.INTERNAL, f"the worker's result cannot be read: {what}") from error


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return b""
