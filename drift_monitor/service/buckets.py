"""Each row is read once: profiles of the buckets of a monitor's source, kept beside the store.

A unit of a source (some row groups of a file, or a text file) is folded whole into one profile a bucket when it
is first met, and never again while the file stays what it is. A window's profile is then a merge. What a window is
made of is always what the source holds now: a rewritten file is another unit, and one that is gone counts no more.
So the result has the bits of reading the window directly, and the database can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from drift_monitor.core.folding import Folded, lost_rows, meets
from drift_monitor.core.packed import Layout, Packed, packed_bytes

if TYPE_CHECKING:
    from drift_monitor.service.bucket_store import BucketStore
    from drift_monitor.sources import Unit

MEMORY: Final = 1 << 28
"""Bytes of packed profiles that one unit may become; one spread over more buckets is read anew for each window."""
LAYOUTS: Final = 3
"""Layouts that are kept: that of now, and those before, for a reference on trial."""
BRANCHES: Final = 4
"""Merges that a larger one is made of. With two, three times as many are kept, for a few less in a window."""
SHARED: Final = 2 * BRANCHES
"""Windows in a row that share the merge of their inner part, so that each takes a few merges in all."""
_SPARE: Final = timedelta(days=2) // timedelta(microseconds=1)


class Buckets:
    """The kept buckets of a monitor on one layout of cells.

    Args:
        store: the monitor's database.
        layout: of the cells.
        reading: whatever else decides what is read as what (columns, time zone, kinds), as text.
        width: of a bucket.
    """

    def __init__(self, store: BucketStore, layout: Layout, reading: str, width: timedelta) -> None:
        self._store, self._layout = store, layout
        self._width = width // timedelta(microseconds=1)
        self._key = hashlib.sha256(f"{layout.key}\0{self._width}\0{reading}".encode()).hexdigest()
        self.limit = max(26, MEMORY // packed_bytes(layout))

    @property
    def key(self) -> str:
        """Names the layout of cells, and how rows are read."""
        return self._key

    def unread(self, units: Sequence[Any], start: int) -> list[Any]:
        """Those of the units that were never folded, or of which not all is there that a window needs.

        Args:
            units: of the source.
            start: of the window, in microseconds since 1970.
        """
        known = {
            identity
            for (identity,) in self._store.read(
                "SELECT identity FROM units WHERE layout = ? AND coalesce(since, ?) <= ?",
                (self._key, start, start),
            )
        }
        return [unit for unit in units if unit.identity not in known]

    def keep(self, unit: Unit, folded: Folded) -> None:
        """Store what a unit was folded into, all or nothing; a scattered one is read anew for each window."""
        starts = [start for start, _ in folded.parts]
        span = (min(starts), max(starts)) if starts else (None, None)
        with self._store.transaction() as db:
            row = (self._key, unit.identity, *span, json.dumps(folded.lost), folded.scattered)
            db.execute(
                "DELETE FROM units WHERE layout = ? AND identity = ? AND since IS NOT NULL",
                (self._key, unit.identity),
            )
            new = db.execute(
                "INSERT OR IGNORE INTO units (layout, identity, first, last, invalid, scattered) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            if new.rowcount:  # else another process was quicker, and stored the same
                rowid = new.lastrowid
                parts = [(rowid, start, _digest(blob), blob) for start, blob in folded.parts]
                db.executemany("INSERT INTO parts VALUES (?, ?, ?, ?)", parts)

    def window(self, units: Sequence[Any], cuts: Sequence[int], end: int) -> tuple[dict[int, Packed], int] | None:
        """The profiles of the stretches of a window.

        Args:
            units: that may hold rows of the window, all of them folded.
            cuts: where the stretches begin, in microseconds since 1970, rising, whole buckets.
            end: of the last one.

        Returns:
            Packed profiles by start of stretch, without those that have no rows, and the number of rows without a
            usable time; None when one of the units is not there (another process may have forgotten it), or has to
            be read anew for each window.
        """
        mine = {unit.identity for unit in units}
        with self._store.transaction() as db:
            names: dict[int, bytes] = {}
            invalid = 0
            for number, identity, since, lost, scattered in db.execute(
                "SELECT id, identity, since, invalid, scattered FROM units WHERE layout = ?", (self._key,)
            ):
                if identity not in mine:
                    continue
                if scattered or (since is not None and since > cuts[0]):
                    return None
                names[number] = identity
                invalid += lost_rows([each for each in json.loads(lost) if meets(each, cuts[0], end)])
            if len(names) < len(mine):
                return None
            there: dict[int, list[tuple[bytes, int]]] = {}
            for number, start in db.execute(
                "SELECT unit, start FROM parts WHERE start >= ? AND start < ?", (cuts[0], end)
            ):
                if number in names:
                    there.setdefault(start, []).append((names[number], number))
            tree = _Tree(db, self._key, self._layout, self._width, {s: sorted(p) for s, p in there.items()})
            stretches = zip(cuts, [*cuts[1:], end], strict=True)
            found = {start: tree.between(start, stop) for start, stop in stretches}
        return {start: packed for start, packed in found.items() if packed is not None}, invalid

    def made_of(self, units: Sequence[Any], windows: Sequence[tuple[int, int]]) -> list[str]:
        """Hashes of what windows are made of: the same one, the same rows.

        Rows without a time of which nobody knows where they lie are in none.

        Args:
            units: all that may hold rows of the windows, all of them folded; others make no difference.
            windows: start and end of each, in microseconds since 1970, whole buckets.
        """
        mine, store = {unit.identity for unit in units}, self._store
        read = store.read("SELECT id, identity, invalid FROM units WHERE layout = ?", (self._key,))
        lost = {number: json.loads(without) for number, identity, without in read if identity in mine}
        placed = [span for spans in lost.values() for span in spans if span[0] is not None]
        within = min(start for start, _ in windows), max(end for _, end in windows)
        read = store.read("SELECT unit, start, digest FROM parts WHERE start >= ? AND start < ?", within)
        parts = sorted((start, digest) for number, start, digest in read if number in lost)
        starts = [start for start, _ in parts]
        found = []
        for start, end in windows:
            own = parts[bisect_left(starts, start) : bisect_left(starts, end)]
            without = lost_rows([span for span in placed if meets(span, start, end)])
            found.append(hashlib.sha256(repr((own, without)).encode()).hexdigest()[:32])
        return found

    def forget(self, units: Sequence[Any], start: int, end: int, oldest: int | None = None) -> None:
        """Delete what no window will ask for: what lies far back, and files of the window that are gone.

        Args:
            units: that may hold rows of the window.
            start: of the window, or of the windows that were looked at.
            end: of the window.
            oldest: where the first window begins that may be asked for; the one before this when None.
        """
        mine = {unit.identity for unit in units}
        with self._store.transaction() as db:
            db.execute("INSERT OR REPLACE INTO used SELECT ?, coalesce(max(at), 0) + 1 FROM used", (self._key,))
            old = "SELECT layout FROM used ORDER BY at DESC LIMIT -1 OFFSET ?"
            for table in ("units", "merged", "used"):
                db.execute(f"DELETE FROM {table} WHERE layout IN ({old})", (LAYOUTS,))  # noqa: S608
            before = (start - (end - start) if oldest is None else oldest) - _SPARE
            db.execute("DELETE FROM merged WHERE layout = ? AND start + width < ?", (self._key, before))
            for number, identity, first, last in db.execute(
                "SELECT id, identity, first, last FROM units WHERE layout = ?", (self._key,)
            ).fetchall():
                if identity in mine:  # text that is still there: its rows of then may go, that it was read may not
                    if first is not None and first < before:
                        db.execute("DELETE FROM parts WHERE unit = ? AND start < ?", (number, before))
                        db.execute(
                            "UPDATE units SET since = max(coalesce(since, ?), ?) WHERE id = ?",
                            (before, before, number),
                        )
                elif last is None or last < before or (last >= start and first < end):
                    db.execute("DELETE FROM units WHERE id = ?", (number,))


class _Tree:
    """Merges over 1, 4, 16, ... buckets, kept while their parts stay the same: windows share most of them."""

    def __init__(
        self,
        db: sqlite3.Connection,
        key: str,
        layout: Layout,
        width: int,
        parts: Mapping[int, Sequence[tuple[bytes, int]]],
    ) -> None:
        self._db, self._key, self._layout, self._width = db, key, layout, width
        self._parts = parts
        self._starts = np.array(sorted(parts), np.int64)

    def between(self, start: int, end: int) -> Packed | None:
        """The merge over a stretch of whole buckets; None without rows."""
        blobs = self._blobs(_window_nodes(start // self._width, end // self._width))
        one = next(blobs, None)
        return None if one is None else Packed.merged(chain([one], blobs), self._layout)

    def _blobs(self, nodes: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """The merges over nodes (first bucket, buckets), without those that have no rows."""
        for at, width in nodes:
            start = at * self._width
            low, high = np.searchsorted(self._starts, (start, start + width * self._width)).tolist()
            held = [(s, *part) for s in self._starts[low:high].tolist() for part in self._parts[s]]
            if len(held) == 1:
                yield self._part(held[0])
            elif held:
                yield self._merge(at, width, held)

    def _merge(self, at: int, width: int, held: Sequence[tuple[int, bytes, int]]) -> bytes:
        start, micros = at * self._width, width * self._width
        name = hashlib.sha256(repr([(s, identity) for s, identity, _ in held]).encode()).digest()
        row = self._db.execute(
            "SELECT parts, profile FROM merged WHERE layout = ? AND width = ? AND start = ?",
            (self._key, micros, start),
        ).fetchone()
        if row is not None and row[0] == name:
            found: bytes = row[1]
            return found
        parts = map(self._part, held) if width == 1 else self._blobs(_children(at, width))
        merged = Packed.merged(parts, self._layout).to_bytes()
        # of the inner parts of windows the last is kept; nodes begin at multiples of their width
        self._db.execute(
            "DELETE FROM merged WHERE layout = ? AND width = ? AND start % width", (self._key, micros)
        )
        self._db.execute(
            "INSERT OR REPLACE INTO merged VALUES (?, ?, ?, ?, ?)", (self._key, micros, start, name, merged)
        )
        return merged

    def _part(self, held: tuple[int, bytes, int]) -> bytes:
        start, _, unit = held
        row = self._db.execute("SELECT profile FROM parts WHERE start = ? AND unit = ?", (start, unit)).fetchone()
        profile: bytes = row[0]
        return profile


def _digest(blob: bytes) -> bytes:
    return hashlib.blake2b(blob, digest_size=16).digest()


def _nodes(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a stretch into aligned nodes whose widths are powers of `BRANCHES`.

    Example:
        >>> list(_nodes(3, 12))
        [(3, 1), (4, 4), (8, 4)]
    """
    while start < end:
        width = 1
        while not start % (width * BRANCHES) and start + width * BRANCHES <= end:
            width *= BRANCHES
        yield start, width
        start += width


def _window_nodes(start: int, end: int) -> list[tuple[int, int]]:
    """The same, but with the inner part in one, which the next windows, up to `SHARED`, have too.

    Example:
        >>> _window_nodes(15, 183) == [(15, 1), (16, 160), (176, 4), (180, 1), (181, 1), (182, 1)]
        True
        >>> _window_nodes(15, 20)
        [(15, 1), (16, 4)]
    """
    inner, stop = (start // SHARED + 1) * SHARED, end // SHARED * SHARED
    if stop - inner < BRANCHES * SHARED:
        return list(_nodes(start, end))
    return [*_nodes(start, inner), (inner, stop - inner), *_nodes(stop, end)]


def _children(at: int, width: int) -> list[tuple[int, int]]:
    """The nodes that a node, or the inner part of a window, is merged from.

    Example:
        >>> _children(4, 4), _children(4, 12)
        ([(4, 1), (5, 1), (6, 1), (7, 1)], [(4, 4), (8, 4), (12, 4)])
    """
    nodes = list(_nodes(at, at + width))
    child = width // BRANCHES
    return nodes if len(nodes) > 1 else [(at + i * child, child) for i in range(BRANCHES)]
