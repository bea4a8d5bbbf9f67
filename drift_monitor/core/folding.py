"""A fold that can be sent to another machine, and what it sends back: packed profiles, never pickled ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

import numpy as np
import pyarrow as pa

from drift_monitor.core.arrow import as_numpy
from drift_monitor.core.errors import DamagedError
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.packed import Layout, Packed, pack, unpack
from drift_monitor.core.profile import Ints, Profile

FORMAT: Final = 1
_MAGIC: Final = b"drift-monitor folded\n"
_MICROSECOND: Final = timedelta(microseconds=1)

Lost = tuple[int | None, int | None, int]
"""First and last time of a batch, in microseconds since 1970 (None: no row has one), and its rows without one."""


class TooManyBuckets(Exception):  # noqa: N818 - it is caught by who reads, and no error
    """A part's rows are spread over more buckets than there is memory for."""


@dataclass(frozen=True)
class Folded:
    """What a part of a source was folded into.

    Attributes:
        parts: start of bucket or stretch in microseconds since 1970, and the packed profile of its rows.
        lost: where rows without a usable time were.
        scattered: whether there were too many buckets; then there are no parts.
    """

    parts: tuple[tuple[int, bytes], ...]
    lost: tuple[Lost, ...] = ()
    scattered: bool = False

    def to_bytes(self) -> bytes:
        """One versioned blob."""
        head = {
            "format": FORMAT,
            "parts": [(start, len(blob)) for start, blob in self.parts],
            "lost": self.lost,
            "scattered": self.scattered,
        }
        text = json.dumps(head).encode()
        return _MAGIC + len(text).to_bytes(8, "little") + text + b"".join(blob for _, blob in self.parts)

    @classmethod
    def from_bytes(cls, blob: bytes) -> Self:
        """The inverse of `to_bytes`.

        Raises:
            DamagedError: the bytes are of another version, or damaged.
        """
        at = len(_MAGIC) + 8
        try:
            if blob[: len(_MAGIC)] != _MAGIC:
                raise ValueError("it does not begin as one")  # noqa: TRY301
            size = int.from_bytes(blob[len(_MAGIC) : at], "little")
            head = json.loads(blob[at : at + size])
            if head["format"] != FORMAT:
                raise ValueError(f"it has format {head['format']}, and this version reads {FORMAT}")  # noqa: TRY301
            at += size
            parts = []
            for start, length in head["parts"]:
                parts.append((start, blob[at : at + length]))
                at += length
            if at != len(blob):
                raise ValueError(f"it has {len(blob)} bytes and not {at}")  # noqa: TRY301
            return cls(tuple(parts), tuple((a, b, n) for a, b, n in head["lost"]), head["scattered"])
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"what a worker sent back is no folded part: {error}") from error


@dataclass(frozen=True, eq=False)
class Folding:
    """How the rows of a part are folded: a plain record that can be pickled.

    Attributes:
        layout: of the cells.
        columns: to read.
        timestamp: the column of event time; None puts all rows into one stretch that begins at 0.
        id_column: counts duplicates.
        starts: of stretches of any lengths, in microseconds since 1970; None for buckets of `width`.
        width: of a bucket.
        limit: buckets that a part may be spread over; None for any number.
    """

    layout: Layout
    columns: tuple[str, ...]
    timestamp: str | None
    id_column: str | None
    starts: Ints | None = None
    width: timedelta = timedelta(hours=1)
    limit: int | None = None

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Folded:
        """Fold and pack."""
        lost: list[Lost] = []
        try:
            profiles = self.profiles(batches, lost)
        except TooManyBuckets:
            return Folded((), scattered=True)
        parts = tuple((start, pack(p, self.layout).to_bytes()) for start, p in sorted(profiles.items()))
        return Folded(parts, tuple(lost))

    def profiles(self, batches: Iterable[pa.RecordBatch], lost: list[Lost]) -> Mapping[int, Profile]:
        """The profiles by start of bucket or stretch.

        Args:
            batches: of `columns`, event times as `timestamp[us, UTC]`.
            lost: is told where rows without a usable time are.

        Raises:
            TooManyBuckets: there are more than `limit`.
        """
        return profile_buckets(
            self.layout.specs,
            batches if self.timestamp is None else self._timed(batches, self.timestamp, lost),
            timestamp=self.timestamp,
            bucket=self.width,
            starts=self.starts,
            id_column=self.id_column,
            pairs=self.layout.pairs,
        )

    def merged(self, found: Iterable[Folded]) -> Folded:
        """Many parts as one, of which one at a time is unpacked."""
        whole: dict[int, Packed] = {}
        lost: dict[tuple[int | None, int | None], int] = {}
        scattered = False
        for folded in found:
            scattered |= folded.scattered
            for first, last, count in folded.lost:
                lost[first, last] = lost.get((first, last), 0) + count
            for start, blob in folded.parts:
                packed = Packed.from_bytes(blob, self.layout)
                whole[start] = whole[start].merge(packed) if start in whole else packed
        parts = tuple((start, whole[start].to_bytes()) for start in sorted(whole))
        spans = sorted(
            lost, key=lambda span: [(end is not None, end or 0) for end in span]
        )  # in any order the same
        return Folded(parts, tuple((*span, lost[span]) for span in spans), scattered)

    def unpacked(self, folded: Folded) -> dict[int, Profile]:
        """The profiles of a part."""
        return {start: unpack(Packed.from_bytes(blob, self.layout), self.layout) for start, blob in folded.parts}

    def _timed(
        self, batches: Iterable[pa.RecordBatch], timestamp: str, lost: list[Lost]
    ) -> Iterator[pa.RecordBatch]:
        """The rows that have a time."""
        micros, seen = self.width // _MICROSECOND, set[int]()
        for whole in batches:
            times = whole.column(timestamp)
            batch = whole if not times.null_count else whole.filter(times.is_valid())
            moments = as_numpy(batch.column(timestamp))
            if times.null_count:
                span = (int(moments.min()), int(moments.max())) if len(moments) else (None, None)
                lost.append((*span, times.null_count))
            if self.limit is not None:
                seen.update((np.unique(moments // micros) * micros).tolist())
                if len(seen) > self.limit:
                    raise TooManyBuckets
            if batch.num_rows:
                yield batch


def meets(lost: Lost, start: int, end: int | None) -> bool:
    """Whether rows without a time may belong to a stretch: they lie between rows of it, or nobody knows where.

    Args:
        lost: of a batch.
        start: of the stretch, in microseconds since 1970.
        end: of it; None for no end.
    """
    first, last, _ = lost
    return first is None or last is None or ((end is None or first < end) and last >= start)


def lost_rows(lost: Sequence[Lost]) -> int:
    """Rows without a usable time."""
    return sum(count for _, _, count in lost)
