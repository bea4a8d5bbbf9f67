"""Where files lie: what a path, a folder or a glob names there, and how a file is opened. Here: on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal, Protocol

import pyarrow as pa

from drift_monitor.core.errors import SourceError

Format = Literal["parquet", "csv", "jsonl", "sagemaker"]
ENDINGS: Final[Mapping[str, Format]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
}
MAGIC: Final = set("*?[")


@dataclass(frozen=True)
class Status:
    """What tells whether a file is still the same.

    Attributes:
        size: in bytes.
        changed: modification time in nanoseconds since 1970.
        inode: of the file; 0 where there are none.
        settled: whether whatever is written there from now on has another time of change.
    """

    size: int
    changed: int
    inode: int = 0
    settled: bool = True


class Place(Protocol):
    """A file system or an object store. What its methods raise is OSError or SourceError."""

    @property
    def appends(self) -> bool:
        """Whether a file can grow while it stays the same; an object is put there whole or not at all."""

    def find(self, pattern: str) -> dict[str, Status | None]:
        """The files that a path, a folder or a glob names, in the order of their names, and what is known of them.

        Raises:
            SourceError: there is none.
        """

    def status(self, path: str) -> Status:
        """Of a file as it is now."""

    def open(self, path: str) -> pa.NativeFile:
        """A file to be read at any place."""

    def stream(self, path: str) -> IO[bytes]:
        """A file to be read from its begin, unbuffered."""


class Disk:
    """Files of this machine."""

    appends: Final = True

    def find(self, pattern: str) -> dict[str, Status | None]:
        """See `Place`."""
        return dict.fromkeys(find_files(pattern))

    def status(self, path: str) -> Status:
        """See `Place`."""
        found = os.stat(os.fsencode(path))
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{path!r} is not a regular file")
        return Status(found.st_size, found.st_mtime_ns, found.st_ino)

    def open(self, path: str) -> pa.NativeFile:
        """See `Place`."""
        return pa.OSFile(os.fsencode(path))

    def stream(self, path: str) -> IO[bytes]:
        """See `Place`."""
        return open(os.fsencode(path), "rb", buffering=0)


DISK: Final = Disk()


def find_files(pattern: str) -> list[str]:
    """The files that a path, a folder or a glob names, in the order of their names.

    In folders and globs, names that start with a dot or an underscore are left out: writers use them for files
    that are not complete. `**` does not follow links to folders.

    Raises:
        SourceError: there is none.
    """
    path = Path(pattern)
    try:
        if path.is_dir():
            found = [p for p in path.rglob("*") if p.is_file() and ending(p.name) and not _is_hidden(p, path)]
            what = f"the folder {pattern!r} holds no file that ends in {', '.join(ENDINGS)}"
        elif path.exists() or not MAGIC & set(pattern):
            path.stat()
            return [str(path)]
        else:
            parts = path.parts
            fixed = next(i for i, part in enumerate(parts) if MAGIC & set(part))
            base = Path(*parts[:fixed])
            found = [p for p in base.glob("/".join(parts[fixed:])) if not p.is_dir() and not _is_hidden(p, base)]
            what = f"no file matches {pattern!r}"
            if not base.is_dir():
                what += f": there is no folder {str(base)!r}"
    except OSError as error:
        raise SourceError(f"{pattern!r} cannot be read: {error.strerror or error}") from error
    except (ValueError, NotImplementedError) as error:
        raise SourceError(f"{pattern!r} is not a path or a glob: {error}") from error
    if not found:
        raise SourceError(what)
    return sorted({str(p) for p in found})


def _is_hidden(path: Path, base: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(base).parts)


def ending(name: str) -> Format | None:
    """The format that a file's name says."""
    return next((form for end, form in ENDINGS.items() if name.lower().endswith(end)), None)
