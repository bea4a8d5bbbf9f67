"""Which files of a spool are put together, and which can go. Decides; touches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from drift_monitor.sources.spool import Piece, current

LARGEST: Final = 256 * 2**20
"""Bytes of files put together: one of them is read on its own anyway."""
MANY: Final = 64
"""Small files of the hour that is not over yet that are put together."""
_SMALL: Final = LARGEST // 8
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
LONG: Final = timedelta(days=7)
"""What is kept for longer is put together by day as well."""


def next_merge(pieces: Sequence[Piece], now: datetime, keep: timedelta) -> list[Piece]:
    """Files to put together now, neighbours; none when all is as it should be.

    Args:
        pieces: those that count, in order.
        now: the time.
        keep: how long files are kept.
    """
    for hour, found in groupby(pieces, key=lambda piece: piece.hour):
        run = list(found)
        if hour + _HOUR <= now:
            chosen = _fitting(run)
        else:
            small = [list(some) for is_small, some in groupby(run, key=_is_small) if is_small]
            chosen = next((_fitting(some) for some in small if len(some) >= MANY), [])
        if chosen:
            return chosen
    if keep > LONG:
        for day, found in groupby(pieces, key=lambda piece: piece.hour.date()):
            if day < now.date() and (chosen := _fitting(list(found))):
                return chosen
    return []


def to_delete(pieces: Sequence[Piece], now: datetime, keep: timedelta, grace: timedelta) -> list[Piece]:
    """Files that are not needed any more. The newest one always is: it says where Kafka was read to.

    Args:
        pieces: all there are.
        now: the time.
        keep: after the hour in which its last row arrived a file is kept for this long.
        grace: a file whose rows are in another is kept for this long after that, for checks that are reading it.
    """
    counting = current(pieces)
    newest = max(counting, key=lambda piece: piece.last, default=None)
    doomed = []
    for piece in sorted(set(pieces) - set(counting), key=lambda piece: piece.first):
        holder = next(other for other in counting if other.holds(piece))
        if holder.changed < (now - grace).timestamp() or _is_old(holder, now, keep):
            doomed.append(piece)  # before its holder, without which it would count again
    return [*doomed, *(piece for piece in counting if piece is not newest and _is_old(piece, now, keep))]


def _is_small(piece: Piece) -> bool:
    return piece.size < _SMALL


def _is_old(piece: Piece, now: datetime, keep: timedelta) -> bool:
    return piece.hour + _HOUR + keep < now


def _fitting(run: Sequence[Piece]) -> list[Piece]:
    """The first neighbours that make a file of bearable size; none when no two do."""
    chosen: list[Piece] = []
    size = 0
    for piece in run:
        if size + piece.size > LARGEST:
            if len(chosen) > 1:
                return chosen
            chosen, size = [], 0
        chosen.append(piece)
        size += piece.size
    return chosen if len(chosen) > 1 else []
