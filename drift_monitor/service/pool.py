"""The parent's side of the worker children: warm, killable, one run at a time each."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from pydantic import ValidationError

from drift_monitor.config.models import Workers
from drift_monitor.core.policy import format_duration
from drift_monitor.core.types import CheckResult, FailureReason
from drift_monitor.service.evaluate import CheckRequest
from drift_monitor.service.logs import fields
from drift_monitor.service.store import Run
from drift_monitor.service.worker import READY, cannot_judge

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "drift_monitor.service.worker")
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
                "stopped: raise it, or let a window hold less data",
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


class WorkerPool:
    """Threads that each hold a child and feed it one run after another.

    Args:
        workers: how many, deadline, memory, idle time.
        take: gives the next run and its request, marked as running; None when there is none now.
        done: gets each result. Neither may raise.
        command: how to start a child.
    """

    def __init__(
        self,
        workers: Workers,
        take: Callable[[], tuple[Run, CheckRequest] | None],
        done: Callable[[Run, CheckResult], None],
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._workers, self._take, self._done, self._command = workers, take, done, command
        self._changed = threading.Condition()
        self._kicks = 0
        self._stopping = False
        self._stopped = threading.Event()
        self._threads: dict[int, threading.Thread] = {}
        self._children: dict[int, Child] = {}
        self._running: dict[int, Run] = {}

    @property
    def running(self) -> list[Run]:
        """The runs that are being evaluated now."""
        with self._changed:
            return list(self._running.values())

    @property
    def children(self) -> list[int]:
        """Process ids of the children, busy or warm."""
        with self._changed:
            return [child.pid for child in self._children.values()]

    def start(self) -> None:
        """Begin to take runs."""
        with self._changed:
            for index in range(self._workers.count):
                if index not in self._threads:
                    thread = threading.Thread(
                        target=self._slot, args=(index,), name=f"worker-{index}", daemon=True
                    )
                    self._threads[index] = thread
                    thread.start()

    def kick(self) -> None:
        """Look for runs again: something may have become due."""
        with self._changed:
            self._kicks += 1
            self._changed.notify_all()

    def reconfigure(self, workers: Workers) -> None:
        """Change count and limits; runs in progress end under the old ones."""
        with self._changed:
            self._workers = workers
        self.start()
        self.kick()

    def stop(self, grace: timedelta) -> bool:
        """Take no more runs, wait for those in progress, then kill what is left.

        Returns:
            Whether all runs ended by themselves.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            clean = self._changed.wait_for(
                lambda: not self._running or self._stopped.is_set(), grace.total_seconds()
            )
            clean = clean and not self._running
            threads = list(self._threads.values())
        self._stopped.set()
        for thread in threads:
            thread.join()
        return clean

    def kill(self) -> None:
        """Cut the grace of `stop` short."""
        self._stopped.set()
        self.kick()

    def _slot(self, index: int) -> None:
        while True:
            with self._changed:
                seen, workers = self._kicks, self._workers
                if self._stopping or index >= workers.count:
                    del self._threads[index]
                    break
            work = self._take()
            if work is not None:
                self._run(index, *work)
                continue
            idle = workers.idle.total_seconds() if index in self._children else None
            with self._changed:
                woken = self._wait_for_kick(seen, idle)
            if not woken:
                self._end_child(index)
        self._end_child(index)

    def _wait_for_kick(self, seen: int, idle: float | None) -> bool:
        return self._changed.wait_for(lambda: self._kicks != seen or self._stopping, idle)

    def _run(self, index: int, run: Run, request: CheckRequest) -> None:
        with self._changed:
            self._running[index] = run
            workers = self._workers
        try:
            result = self._evaluate(index, request, workers)
            self._done(run, result.model_copy(update={"monitor": run.monitor, "window": run.window}))
        except StoppedError:
            log.warning("run given up; it is due again at the next start", extra=_named(run))
        except RunFailedError as error:
            log.error("run failed", extra=_named(run, failure=error.failure.value, reason=str(error)))  # noqa: TRY400
            self._done(run, cannot_judge(run.monitor, run.window, error.failure, str(error)))
        finally:
            with self._changed:
                del self._running[index]
                self._kicks += 1  # another window of the same monitor may be taken now
                self._changed.notify_all()

    def _evaluate(self, index: int, request: CheckRequest, workers: Workers) -> CheckResult:
        child = self._children.get(index)
        if child is None or not child.usable or child.memory != workers.memory:
            self._end_child(index)
            try:
                child = Child(self._command, workers.memory, self._stopped)
            except OSError as error:
                raise RunFailedError(FailureReason.INTERNAL, f"a worker cannot be started: {error}") from error
            with self._changed:
                self._children[index] = child
        return child.evaluate(request, workers)

    def _end_child(self, index: int) -> None:
        with self._changed:
            child = self._children.pop(index, None)
        if child is not None:
            child.kill()


def _named(run: Run, **values: object) -> dict[str, dict[str, object]]:
    return fields(monitor=run.monitor, window=str(run.window), run=run.id, **values)
