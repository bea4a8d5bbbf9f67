"""The columns that are kept of a monitor's rows, as they were found last."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from drift_monitor.config.intake import SpooledSource


class ColumnsCache:
    """The columns that were found last, beside the rows: a start need not open the reference to take any."""

    def __init__(self, source: object) -> None:
        folder = source.spool if isinstance(source, SpooledSource) else None
        self._path = None if folder is None else folder / ".columns.json"

    def read(self, stamp: str) -> list[dict[str, Any]] | None:
        """What was found from the same; None where that is not known."""
        try:
            known = json.loads(self._path.read_bytes()) if self._path is not None else {}
        except (OSError, ValueError):
            return None
        return known["columns"] if known.get("stamp") == stamp else None

    def write(self, stamp: str, columns: bytes) -> None:
        """Keep what was found; nothing is lost where that cannot be."""
        if self._path is None:
            return
        text = json.dumps({"stamp": stamp, "columns": json.loads(columns)})
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".new")
            temporary.write_text(text)
            temporary.replace(self._path)


def stamp_of(path: Path) -> object:
    """What changes when a file, or the version that a reference folder names, does."""
    for each in (path / "CURRENT", path):
        try:
            status = each.stat()
        except OSError:
            continue
        return status.st_mtime_ns, status.st_size, status.st_ino
    return None
