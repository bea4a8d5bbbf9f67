"""One child that takes rows in, as the daemon holds it: a process, a socket, and who waits for its answers."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from drift_monitor.intake.wire import receive_frame, send_frame
from drift_monitor.service.logs import fields

log = logging.getLogger(__name__)

_ENVIRONMENT: Final = {
    # both keep what is reserved close to what is used
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}


class _Waiter:
    """Somebody who waits for an answer."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: dict[str, Any] | None = None


class Child:
    """One running child.

    Args:
        module: what it runs.
        report: gets what it says unasked.
        patience: seconds in which it has to take what is sent.
    """

    def __init__(self, module: str, report: Callable[[dict[str, Any]], None], patience: float) -> None:
        self._report = report
        self._connection, theirs = socket.socketpair()
        # a child that reads no more must not hold whoever sends for ever
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(patience), 0))
        self.born = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={**os.environ, **_ENVIRONMENT},
            )
        except OSError:
            self._connection.close()
            raise
        finally:
            theirs.close()
        self._sending, self._waiting = threading.Lock(), threading.Lock()
        self._waiters: dict[int, _Waiter] = {}
        self._numbers = itertools.count()
        self._ended = False
        for target in (self._listen, self._log_output):
            threading.Thread(target=target, name=f"intake-{self._process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return not self._ended and self._process.poll() is None

    def tell(self, header: dict[str, Any]) -> None:
        """Send something that has no answer; a child that is gone does not hear it."""
        with self._sending:
            try:
                send_frame(self._connection, header)
            except OSError:
                self._ended = True

    def ask(self, header: dict[str, Any], body: bytes, seconds: float) -> dict[str, Any] | None:
        """Send a request and wait; None when the child died or is too slow, which ends it."""
        waiter, number = _Waiter(), next(self._numbers)
        with self._waiting:
            if self._ended:
                return None
            self._waiters[number] = waiter
        try:
            with self._sending:
                send_frame(self._connection, {**header, "id": number}, body)
        except OSError:
            self._ended = True
        else:
            self._ended |= not waiter.done.wait(seconds) and header["do"] == "records"
        with self._waiting:
            self._waiters.pop(number, None)
        return waiter.answer

    def end(self) -> None:
        """Ask it to finish."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            self._ended = True

    def join(self, seconds: float) -> None:
        """Wait for its end, or make it."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._ended = True
        self._connection.close()

    def _listen(self) -> None:
        try:
            while (frame := receive_frame(self._connection)) is not None:
                header = frame[0]
                if header["do"] != "answer":
                    self._report(header)
                    continue
                with self._waiting:
                    waiter = self._waiters.get(header["id"])
                if waiter is not None:
                    waiter.answer = header
                    waiter.done.set()
        except (OSError, ValueError):
            pass
        with self._waiting:
            self._ended = True
            for waiter in self._waiters.values():
                waiter.done.set()

    def _log_output(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        with self._process.stdout as output:
            for line in iter(lambda: output.readline(4096), b""):
                text = line.decode(errors="replace").strip()
                log.warning("intake said", extra=fields(pid=self.pid, text=text[:1000]))
