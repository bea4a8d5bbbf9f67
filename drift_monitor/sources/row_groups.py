"""A sample of whole row groups: which are read, and which share of a window's rows they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Final

from drift_monitor.core.types import Window
from drift_monitor.sources.parquet_files import Footer, RowGroup, micros, overlaps

_HOUR: Final = 3_600_000_000


def choose(files: Mapping[bytes, Footer], percent: float) -> dict[bytes, frozenset[int]]:
    """Of the row groups that begin in the same hour, those with the smallest hashes, and at least one.

    So every hour that has rows is looked at, whatever the percentage, and each in proportion. The choice depends
    on no window: a group that is read for one is read for the next.

    Args:
        files: footers by what a file is known by.
        percent: of the row groups, 0 to 100; rounded up in each hour.

    Returns:
        Numbers of row groups, by file. Groups whose times are not known are chosen from among those of their file.
    """
    strata: dict[object, list[tuple[bytes, bytes, int]]] = {}
    for file, footer in files.items():
        for number, group in enumerate(footer.row_groups):
            if group.rows:
                rank = hashlib.sha256(file + number.to_bytes(4, "big")).digest()
                key = file if group.oldest is None else group.oldest // _HOUR
                strata.setdefault(key, []).append((rank, file, number))
    chosen: dict[bytes, set[int]] = {file: set() for file in files}
    for members in strata.values():
        for _, file, number in sorted(members)[: ceil(len(members) * percent / 100)]:
            chosen[file].add(number)
    return {file: frozenset(numbers) for file, numbers in chosen.items()}


def rows_in(groups: Iterable[RowGroup], window: Window | None) -> float:
    """How many rows some row groups have in a window: those of a group that is only partly in it by the time.

    Example (half of an hour's rows):
        >>> from datetime import UTC, datetime, timedelta
        >>> start = datetime(1970, 1, 1, tzinfo=UTC)
        >>> window = Window(start=start, end=start + timedelta(minutes=30))
        >>> round(rows_in([RowGroup(100, 0, 3_600_000_000)], window))
        50
    """
    return sum(group.rows * _share(group, window) for group in groups)


def _share(group: RowGroup, window: Window | None) -> float:
    if not overlaps(group, window):
        return 0.0
    if window is None or group.oldest is None or group.newest is None:
        return 1.0
    start, end = micros(window)
    inside = min(group.newest + 1, end) - max(group.oldest, start)
    return inside / (group.newest + 1 - group.oldest)
