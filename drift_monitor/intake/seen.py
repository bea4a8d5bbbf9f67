"""Keys of requests and ids of events that were taken, so that a repetition is not counted twice.

On disk they lie beside the rows in files of an hour, to which records of fixed length are appended: a record that
is there twice says the same twice, so that what a crash interrupted can be done again.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from drift_monitor.reference.version import sync_folder

MOST: Final = 500_000
"""Keys that are remembered, about 100 MB; of more, the oldest are forgotten before their time."""
_RECORD: Final = struct.Struct("<16s8sQQ")
_PREFIX: Final = ".keys-"


class Seen(NamedTuple):
    """What was taken under a key.

    Attributes:
        body: a hash of what was sent.
        rows: taken.
        until: seconds since 1970 until which it is remembered.
    """

    body: bytes
    rows: int
    until: int


def digest(*parts: bytes | str, size: int = 16) -> bytes:
    """A hash of texts or bytes, each with its length."""
    found = hashlib.blake2b(digest_size=size)
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        found.update(len(raw).to_bytes(8, "little"))
        found.update(raw)
    return found.digest()


class Keys:
    """The keys of a monitor.

    Args:
        folder: of the spool.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[bytes, Seen] = {}
        now = time.time()
        for path in sorted(folder.glob(f"{_PREFIX}*")):
            raw = path.read_bytes()
            whole = len(raw) - len(raw) % _RECORD.size
            for key, body, rows, until in _RECORD.iter_unpack(raw[:whole]):
                if until > now:
                    self.add(key, Seen(body, rows, until))

    def get(self, key: bytes) -> Seen | None:
        """What was taken under a key; None if nothing was, or it was too long ago."""
        found = self._seen.get(key)
        return found if found is not None and found.until > time.time() else None

    def add(self, key: bytes, seen: Seen) -> None:
        """Remember a key, in memory."""
        self._seen.pop(key, None)
        self._seen[key] = seen
        if len(self._seen) > MOST:
            del self._seen[next(iter(self._seen))]

    def forget(self) -> None:
        """Let go of what is past its time, in memory and on disk."""
        now = time.time()
        for key in [key for key, seen in self._seen.items() if seen.until <= now]:
            del self._seen[key]
        for path in self._folder.glob(f"{_PREFIX}*"):
            last = int(path.name.removeprefix(_PREFIX))
            if last <= now:
                path.unlink(missing_ok=True)


def keep(folder: Path, keys: Iterable[tuple[bytes, Seen]]) -> None:
    """Put keys on disk; the file's name says until when it is needed.

    Raises:
        OSError: they cannot be written.
    """
    by_file: dict[int, list[bytes]] = {}
    for key, seen in keys:
        hour = -(-seen.until // 3600) * 3600
        by_file.setdefault(hour, []).append(_RECORD.pack(key, seen.body, seen.rows, seen.until))
    for hour, records in by_file.items():
        path = folder / f"{_PREFIX}{hour}"
        with path.open("ab") as file:
            torn = file.tell() % _RECORD.size
            if torn:  # of a crash
                file.truncate(file.tell() - torn)
            file.write(b"".join(records))
            file.flush()
            os.fsync(file.fileno())
    if by_file:
        sync_folder(folder)
