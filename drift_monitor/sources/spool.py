"""A spool: the folder in which rows that were sent to the daemon lie, as Parquet files that are never changed.

Rows are numbered by the journal that made them durable, and a file is named for the journals whose rows it holds:
`20260301T13-000000000004-000000000009.parquet` has those of journals 4 to 9; the newest of its rows arrived in the
hour that began at 13:00 UTC. A file made from several others holds their numbers, so they count no more from the
moment at which it has its name, and can be deleted later. What begins with a dot is the writer's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from drift_monitor.config.intake import SpooledSource
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.errors import SourceError
from drift_monitor.core.types import Kind
from drift_monitor.sources.files import Files

_NAME: Final = re.compile(r"(\d{8}T\d{2})-(\d{12})-(\d{12})\.parquet", re.ASCII)
_HOUR: Final = "%Y%m%dT%H"


@dataclass(frozen=True)
class Piece:
    """A file of a spool.

    Attributes:
        first, last: numbers of the journals whose rows it holds.
        hour: in which the newest of its rows arrived.
        size: bytes.
        changed: modification time in seconds since 1970.
    """

    path: Path
    first: int
    last: int
    hour: datetime
    size: int
    changed: float = 0.0

    def holds(self, other: Piece) -> bool:
        """Whether the rows of another file are in this one."""
        return self.first <= other.first and other.last <= self.last and self.path != other.path


def piece_name(first: int, last: int, hour: datetime) -> str:
    """The name of a file.

    Example:
        >>> piece_name(4, 9, datetime(2026, 3, 1, 13, tzinfo=UTC))
        '20260301T13-000000000004-000000000009.parquet'
    """
    return f"{hour:{_HOUR}}-{first:012d}-{last:012d}.parquet"


def all_pieces(folder: Path) -> list[Piece]:
    """Every file of a spool in the order of its rows' arrival, also those whose rows are in another.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            with suppress(FileNotFoundError):  # deleted meanwhile: its rows are in another file
                status = entry.stat()
                hour = datetime.strptime(match[1], _HOUR).replace(tzinfo=UTC)
                numbers = int(match[2]), int(match[3])
                found.append(Piece(Path(entry.path), *numbers, hour, status.st_size, status.st_mtime))
    return sorted(found, key=lambda piece: (piece.first, -piece.last))


def current(pieces: Iterable[Piece]) -> list[Piece]:
    """Those that count: each row is in exactly one of them.

    Args:
        pieces: by first number, the longest first.
    """
    kept: list[Piece] = []
    for piece in pieces:
        if not kept or not kept[-1].holds(piece):
            kept.append(piece)
    return kept


def holders(paths: Iterable[str]) -> dict[str, str]:
    """Where the rows of some files of a spool are now.

    Returns:
        By path: the file itself, or the one that it was put into since. Files whose rows are gone are left out.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[str, str] = {}
    folders: dict[Path, list[Piece]] = {}
    for path in map(Path, paths):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        if path.parent not in folders:
            folders[path.parent] = current(all_pieces(path.parent)) if path.parent.is_dir() else []
        first, last = int(match[2]), int(match[3])
        holder = next((p for p in folders[path.parent] if p.first <= first and last <= p.last), None)
        if holder is not None:
            found[str(path)] = str(holder.path)
    return found


def open_spool(config: SpooledSource, kinds: Mapping[str, Kind]) -> Files:
    """The rows of a spool, as those of the files that count.

    Args:
        config: of the source, with its spool.
        kinds: of the features.

    Raises:
        SourceError: there is no spool yet: the daemon makes it when it begins to take rows.
    """
    folder = config.spool
    if folder is None:
        raise SourceError("the configuration does not say where the rows are kept: set the source's `spool`")
    files = FilesSource(path=str(folder), format="parquet", timestamp=config.timestamp, timezone=config.timezone)
    try:
        return Files(files, kinds, {str(piece.path): piece.size for piece in _found(folder)})
    except OSError as error:
        raise SourceError(f"the spool {str(folder)!r} cannot be read: {error.strerror or error}") from error


def _found(folder: Path) -> list[Piece]:
    hint = "the daemon makes it when it begins to take rows: start `drift-monitor run`"
    try:
        pieces = current(all_pieces(folder))
    except FileNotFoundError:
        raise SourceError(f"there is no spool {str(folder)!r} yet: {hint}") from None
    if not pieces:
        raise SourceError(f"the spool {str(folder)!r} is empty, not even its first file is there: {hint}")
    return pieces
