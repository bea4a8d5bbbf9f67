"""What is kept in memory of every row that may go into a training set: hashes, time, part and group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.actions.training_rows import NO_TIME, Side, is_text
from drift_monitor.core.arrow import as_arrow, as_numpy, has_value, is_missing
from drift_monitor.core.errors import SourceError
from drift_monitor.core.fold import category_name
from drift_monitor.core.split import Bools, Fate, Ints, Keys, Words, hash_contents, hash_ids, parts_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class KeyColumns:
    """What is read of every row to decide on it.

    Attributes:
        id, label: columns.
        by: columns that make groups.
        width: microseconds of event time that are a group where `by` names the column of event time.
        shares: of the parts.
        seed: of the hashes.
        need_time: leave out training rows without a readable event time.
    """

    id: str
    label: str
    by: tuple[str, ...]
    width: int
    shares: tuple[float, ...]
    seed: int
    need_time: bool


class Reading:
    """The keys of all rows, read once, and the contents of some.

    Args:
        sides: training rows, then live ones.
        columns: what to read.
        progress: called after each split.
    """

    def __init__(self, sides: Sequence[Side], columns: KeyColumns, progress: Callable[[], None]) -> None:
        self._sides, self._columns = sides, columns
        self._starts: list[tuple[Side, Any, int, int]] = []
        self._groups: dict[tuple[str | None, ...], int] = {}
        parts: list[tuple[npt.NDArray[Any], ...]] = []
        rows = trained = 0
        for side in sides:
            for split in side.splits:
                before = rows
                for batch, times in side.batches(split, self._names(side)):
                    parts.append(self._keys(side, batch, times))
                    rows += batch.num_rows
                self._starts.append((side, split, before, rows))
                progress()
            trained = trained if side.live else rows
        fate, identity, rank, time, part, group = _joined(parts)
        names = sorted(self._groups, key=lambda values: [(v is not None, v or "") for v in values])
        self.groups = names
        if self._columns.by and names:
            order = {values: i for i, values in enumerate(names)}
            group = np.array([order[values] for values in self._groups], np.int32)[group]
        self.keys = Keys(trained, fate, identity, rank, time, part, group if self._columns.by else None)

    def batches(
        self, wanted: Bools, progress: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[pa.RecordBatch, Ints]]:
        """The wanted rows with all columns, and their numbers; splits without any are not read.

        Args:
            wanted: by number of the row.
            progress: called before each split.
        """
        for side, split, start, end in self._starts:
            progress()
            if not wanted[start:end].any():
                continue
            at = start
            for batch, _ in side.batches(split, side.schema.names):
                rows = np.flatnonzero(wanted[at : at + batch.num_rows])
                if len(rows):
                    yield batch.take(as_arrow(rows)), rows + at
                at += batch.num_rows
            if at != end:
                raise SourceError(
                    f"the {side.name} had {end - start} rows at first and {at - start} when read again"
                )

    def contents(self, rows: Ints) -> Words:
        """The hash of the content of each row.

        Args:
            rows: their numbers, rising.
        """
        wanted = np.zeros(len(self.keys.fate), np.bool_)
        wanted[rows] = True
        return np.concatenate([hash_contents(batch) for batch, _ in self.batches(wanted)])

    def _names(self, side: Side) -> list[str]:
        columns = self._columns
        by = [name for name in columns.by if name != side.timestamp]
        return list(dict.fromkeys([columns.id, columns.label, *by]))

    def _keys(self, side: Side, batch: pa.RecordBatch, times: Ints | None) -> tuple[npt.NDArray[Any], ...]:
        columns = self._columns
        hashes = hash_ids(batch.column(columns.id), columns.seed)
        fate = np.full(batch.num_rows, Fate.TAKEN, np.uint8)
        if side.live:
            fate[~has_value(batch.column(columns.label))] = Fate.NO_LABEL
        if times is None:
            times = np.full(batch.num_rows, NO_TIME)
        elif side.live or columns.need_time:
            fate[times == NO_TIME] = Fate.NO_TIME
        fate[~hashes.valid] = Fate.NO_ID
        part = parts_of(hashes.place, columns.shares)
        return fate, hashes.identity, hashes.rank, times, part, self._grouped(side, batch, times)

    def _grouped(self, side: Side, batch: pa.RecordBatch, times: Ints) -> npt.NDArray[np.int32]:
        """The number of each row's group, in the order in which groups were first seen."""
        codes = np.zeros(batch.num_rows, np.int64)
        found: list[tuple[str | None, ...]] = [()]
        for name in self._columns.by:
            if name == side.timestamp:
                starts, own = np.unique(times // self._columns.width, return_inverse=True)
                values = [_start(start, self._columns.width) for start in starts.tolist()]
            else:
                values, own = _values(batch.column(name))
            pairs, codes = np.unique(codes * len(values) + own, return_inverse=True)
            found = [(*found[pair // len(values)], values[pair % len(values)]) for pair in pairs.tolist()]
        numbers = [self._groups.setdefault(values, len(self._groups)) for values in found]
        return np.array(numbers, np.int32)[codes]


def _joined(parts: list[tuple[npt.NDArray[Any], ...]]) -> Iterator[npt.NDArray[Any]]:
    """Each array as a whole, one after the other; what was joined is given up."""
    kinds = (np.uint8, np.uint64, np.uint64, np.int64, np.int16, np.int32)
    columns: list[list[npt.NDArray[Any]]] = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()
    for kind in kinds:
        yield np.concatenate(columns.pop(0)) if columns else np.empty(0, kind)


def _start(number: int, width: int) -> str | None:
    at = number * width
    return None if at < 0 else f"{_EPOCH + timedelta(microseconds=at):%Y-%m-%dT%H:%M}Z"


def _values(column: pa.Array) -> tuple[list[str | None], Ints]:
    """The distinct values of a column as text, and which of them each row has; the last stands for null."""
    if not isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_encode()
    used, own = np.unique(np.where(is_missing(column.indices), -1, as_numpy(column.indices)), return_inverse=True)
    entries = column.dictionary.take(as_arrow(used, missing=used < 0))
    if is_text(entries.type):
        raws = pc.cast(pc.cast(entries, pa.large_string()), pa.large_binary()).to_pylist()
        return [None if raw is None else category_name(raw) for raw in raws], own
    return [None if value is None else str(value) for value in entries.to_pylist()], own
