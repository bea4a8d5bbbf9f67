"""What the two kinds of children have in common: the connection to the daemon, and a thread that makes files."""

from __future__ import annotations

import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

from drift_monitor.intake.spool import Spool
from drift_monitor.intake.wire import receive_frame, send_frame
from drift_monitor.sources.spool import all_pieces, current

MEMORY: Final = 2 * 2**30
"""Bytes of memory of its own that a child may have: requests in progress are at most 64 MiB, a few times over."""
_LAST_WORDS: Final = 20.0  # seconds for a child to end after its daemon is gone
_IDLE: Final = 5.0  # seconds between two looks at the files
_log = logging.getLogger(__name__)


class Link:
    """The daemon, seen from a child.

    Args:
        connection: to it.

    Attributes:
        inbox: frames that came; None when the daemon is gone or wants the child to end.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.inbox: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def send(self, header: dict[str, Any]) -> None:
        """Tell the daemon something; nothing happens when it is gone."""
        with self._lock:
            try:
                send_frame(self._connection, header)
            except OSError:
                self.inbox.put(None)

    def _listen(self) -> None:
        try:
            while (frame := receive_frame(self._connection)) is not None:
                self.inbox.put(frame)
        except OSError:
            pass
        self.inbox.put(None)
        time.sleep(_LAST_WORDS)
        os._exit(3)


class Files:
    """A thread that makes files of journals, and larger files of small ones."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[tuple[Callable[[], None], Callable[[], None]] | None] = queue.SimpleQueue()
        self._spools: tuple[Spool, ...] = ()
        self._thread = threading.Thread(target=self._work, name="files", daemon=True)
        self._thread.start()

    def look_after(self, spools: Iterable[Spool]) -> None:
        """Tidy these from now on."""
        self._spools = tuple(spools)

    def seal(self, make_file: Callable[[], None], done: Callable[[], None] = lambda: None) -> None:
        """Have a file made of a journal, and say so when it is there."""
        self._todo.put((make_file, done))

    def stop(self) -> None:
        """Make the files that were asked for, and end."""
        self._todo.put(None)
        self._thread.join()

    def _work(self) -> None:
        busy = False
        while True:
            try:
                found = self._todo.get(timeout=0 if busy else _IDLE)
            except queue.Empty:
                busy = self._tidy()
                continue
            if found is None:
                return
            make_file, done = found
            self._insist(make_file)
            done()

    def _insist(self, make_file: Callable[[], None]) -> None:
        """Make a file; while the disk is full or gone, try again: the rows are safe in the journal."""
        while True:
            try:
                make_file()
            except (OSError, pa.ArrowException) as error:
                _say(f"a file cannot be written, which is tried again: {error}")
                time.sleep(_IDLE)
            else:
                return

    def _tidy(self) -> bool:
        busy = False
        for spool in self._spools:
            try:
                busy |= spool.tidy(datetime.now(UTC))
            except (OSError, pa.ArrowException) as error:
                _say(f"the files of {spool.folder} cannot be put together: {error}")
        return busy


def figures(spool: Spool) -> dict[str, int]:
    """How many files count, and their bytes."""
    pieces = current(all_pieces(spool.folder))
    return {"files": len(pieces), "bytes": sum(piece.size for piece in pieces)}


def begin() -> Link:
    """Set a child up. Argument: the descriptor of its connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon says when to end
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    return Link(socket.socket(fileno=int(sys.argv[1])))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the daemon logs it
