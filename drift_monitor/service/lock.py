"""The lock file of a state folder: one process at a time, and how the command line finds it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from drift_monitor.core.errors import StoreError

_TRIES = 10  # a reader holds the lock for microseconds; another daemon, for ever
_PAUSE = 0.02  # seconds


@dataclass(frozen=True)
class LockInfo:
    """Who holds a state folder.

    Attributes:
        address: base URL of its API; empty when it serves none.
    """

    pid: int
    address: str
    started: datetime


class LockFile:
    """An exclusive lock (flock) on `lock` in a state folder; the kernel drops it when the process dies."""

    def __init__(self, path: Path, fd: int, started: datetime) -> None:
        self._path = path
        self._fd = fd
        self._started = started

    @classmethod
    def acquire(cls, state: Path, address: str = "") -> Self:
        """Take the lock and say who has it.

        Raises:
            StoreError: another process has it (names its pid), or the file cannot be written.
        """
        path = state / "lock"
        with _as_store_error(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not _try_lock(fd, fcntl.LOCK_EX):
                raise _in_use(state, _parse(fd))  # noqa: TRY301 (the descriptor is closed below)
            lock = cls(path, fd, datetime.now(UTC))
            lock.announce(address)
        except BaseException:
            os.close(fd)
            raise
        return lock

    def announce(self, address: str) -> None:
        """Write pid and address for `read_lock`.

        Raises:
            StoreError: the file cannot be written.
        """
        info = {"pid": os.getpid(), "address": address, "started": self._started.isoformat()}
        text = json.dumps(info).encode() + b"\n"
        with _as_store_error(self._path):
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))

    def release(self) -> None:
        """Give the lock back. The file stays: to delete it would race with the next owner."""
        os.close(self._fd)


def read_lock(state: Path) -> LockInfo | None:
    """Who holds the state folder; None when nobody does.

    Raises:
        StoreError: the lock file cannot be read, or is held by something that did not write it.
    """
    path = state / "lock"
    if not path.exists():
        return None
    with _as_store_error(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):  # a holder that has just begun may not have written its name yet
            if _try_lock(fd, fcntl.LOCK_SH, tries=1):
                return None
            if info := _parse(fd):
                return info
            time.sleep(_PAUSE)
    finally:
        os.close(fd)
    raise StoreError(f"{path} is locked, but does not say by which process: find it with `fuser {path}`")


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Wait until no other process holds this lock of a folder, then hold it. The folder is made.

    The kernel drops the lock when the process dies.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _in_use(state: Path, holder: LockInfo | None) -> StoreError:
    who = f"pid {holder.pid}, started {holder.started:%Y-%m-%d %H:%M:%SZ}" if holder else "pid unknown"
    return StoreError(
        f"{state} is in use by another drift-monitor ({who}): stop that one first, "
        "or give this one another `state` folder"
    )


def _try_lock(fd: int, kind: int, tries: int = _TRIES) -> bool:
    for attempt in range(tries):
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 < tries:
                time.sleep(_PAUSE)
        else:
            return True
    return False


def _parse(fd: int) -> LockInfo | None:
    try:
        info = json.loads(os.pread(fd, 4096, 0))
        return LockInfo(int(info["pid"]), str(info["address"]), datetime.fromisoformat(info["started"]))
    except (ValueError, TypeError, KeyError):  # half written, or written by something else
        return None


@contextmanager
def _as_store_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(explain_os_error(path, error)) from error


def explain_os_error(path: Path, error: OSError) -> str:
    """A sentence about a file of the state folder that cannot be used, and what to do."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return f"{path}: the disk or quota is full ({error.strerror}): free some space and start again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return (
                f"{path}: the state folder is read-only for this user ({error.strerror}): "
                "allow writing there, or set `state` to another folder"
            )
    return (
        f"{path}: the state folder cannot be used ({error.strerror}): set `state` to a folder that can be written"
    )
