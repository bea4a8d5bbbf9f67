"""Live rows with labels that come later, as one source: a column of the truth beside those that the rows have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from drift_monitor.config.labels import Labels
from drift_monitor.config.models import Columns
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.late_labels import LateLabels, Rows, keys_of
from drift_monitor.core.split import Ints, Words
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources import SOURCES
from drift_monitor.sources.table_rows import check_columns

MOST: Final = 20_000_000
"""Ids, and labels, that are held at once: a gigabyte while they are sorted."""
MANY: Final = 80_000_000
"""The same in a process that may take 8 GiB."""
_TOGETHER: Final = 4_000_000  # ids with repetitions: these are sorted
_MICROSECOND: Final = timedelta(microseconds=1)


class Labelled:
    """A source whose column of labels comes from another source.

    A column of that name in the live rows themselves is not looked at.

    Args:
        live: the live rows.
        truth: the labels.
        labels: how they are joined.
        columns: of the live rows; `id` and `label` are set.
        timestamp: column of event time in the live rows.
        most: ids and labels that are held at once.
    """

    def __init__(
        self, live: Any, truth: Any, labels: Labels, columns: Columns, timestamp: str | None, most: int
    ) -> None:
        assert columns.id is not None  # noqa: S101 - the configuration asks for all of them
        assert columns.label is not None  # noqa: S101
        assert timestamp is not None  # noqa: S101
        self.live, self.truth, self._most = live, truth, most
        self._id, self._label, self._timestamp = columns.id, columns.label, timestamp
        self._their_id, self._their_label = labels.id or columns.id, labels.label or columns.label
        self._known_at, self._horizon = labels.source.timestamp or "", labels.horizon
        self._found: LateLabels | None = None

    def look_up(self, window: Window) -> Window:
        """Read the labels of the rows of a stretch, so that batches of it can be asked for.

        Returns:
            When these labels were known: between the stretch's start and a horizon after its end.

        Raises:
            SourceError: something cannot be read.
            SchemaError: a column is missing, or is nothing that can be joined, or there are too many labels.
        """
        schema = self.live.columns(window, [self._id])
        check_columns(schema, [self._id], "the live data")
        until = self._until(window)
        self._found = self._gathered(window, until)
        return until

    def outside(self, window: Window, around: timedelta) -> Ints:
        """How long after its prediction a label was known, of each that has labels outside the horizon alone.

        Args:
            window: of the predictions.
            around: how far before the window, and after the horizon, labels are looked for.

        Returns:
            Microseconds, see `LateLabels.outside`.

        Raises:
            SourceError: something cannot be read.
            SchemaError: see `look_up`.
        """
        until = self._until(window)
        found = self._gathered(window, Window(start=until.start - around, end=until.end + around))
        horizon = self._horizon // _MICROSECOND
        parts = [
            found.outside(batch.column(self._id), batch.column(self._timestamp), horizon)
            for split in self.live.splits(window)
            for batch in self.live.batches(split, [self._id])
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def columns(self, window: Window | None = None, only: Collection[str] | None = None) -> pa.Schema:
        """See `Source`; the labels are a column like the others."""
        theirs = self.truth.columns(window and self._until(window), [self._their_label])
        check_columns(theirs, [self._their_label], "labels.source")
        wanted = None if only is None else [name for name in only if name != self._label]
        schema = self.live.columns(window, wanted)
        at = schema.get_field_index(self._label)
        schema = schema if at < 0 else schema.remove(at)
        return schema.append(pa.field(self._label, theirs.field(self._their_label).type))

    def splits(self, window: Window | None) -> Sequence[Any]:
        """See `Source`."""
        found: Sequence[Any] = self.live.splits(window)
        return found

    def batches(self, split: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Source`; `look_up` was called for a stretch that holds the split's window."""
        assert self._found is not None  # noqa: S101
        wanted = list(dict.fromkeys([*(name for name in columns if name != self._label), self._id]))
        horizon = self._horizon // _MICROSECOND
        for batch in self.live.batches(split, wanted):
            labels = self._found.of(batch.column(self._id), batch.column(self._timestamp), horizon)
            yield batch.append_column(self._label, labels)

    def _gathered(self, window: Window, until: Window) -> LateLabels:
        """The labels of a window's ids that were known in a stretch."""
        theirs = self.truth.columns(until, [self._their_id, self._their_label])
        check_columns(theirs, [self._their_id, self._their_label, self._known_at], "labels.source")
        dtype = theirs.field(self._their_label).type
        dtype = dtype.value_type if isinstance(dtype, pa.DictionaryType) else dtype
        if pa.types.is_nested(dtype):
            raise SchemaError(
                f"column {self._their_label!r} of labels.source is {dtype}: labels are single values"
            )
        return LateLabels.gather(self._ids(window), self._labels(until), dtype, self._most)

    def _until(self, window: Window) -> Window:
        return Window(start=window.start, end=window.end + self._horizon)

    def _ids(self, window: Window) -> Words:
        """The distinct ids of a stretch, as hashes that rise."""
        parts: list[Words] = []
        held, limit = 0, _TOGETHER
        for split in self.live.splits(window):
            for batch in self.live.batches(split, [self._id]):
                valid, keys = keys_of(batch.column(self._id))
                parts.append(keys[valid])
                held += len(parts[-1])
                if held > limit:
                    parts = [self._distinct(parts, window)]
                    held, limit = len(parts[0]), max(_TOGETHER, 2 * len(parts[0]))
        return self._distinct(parts, window)

    def _distinct(self, parts: Sequence[Words], window: Window) -> Words:
        found: Words = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
        if len(found) > self._most:
            raise SchemaError(f"more than {self._most:,} ids are in {window}: so many are not joined")
        return found

    def _labels(self, window: Window) -> Iterator[Rows]:
        for split in self.truth.splits(window):
            for batch in self.truth.batches(split, [self._their_id, self._their_label]):
                yield (
                    batch.column(self._their_id),
                    batch.column(self._known_at),
                    batch.column(self._their_label),
                )


def open_labelled(
    live: Any, labels: Labels, columns: Columns, timestamp: str | None, kind: Kind | None, most: int = MOST
) -> Labelled:
    """Live rows with their late labels.

    Args:
        live: the source of the live rows, opened.
        labels: where they are and how they are joined.
        columns: of the live rows.
        timestamp: column of event time in the live rows.
        kind: of the labels in the training rows, by which text is read; None where that is not known.
        most: see `Labelled`.
    """
    kind = columns.kinds.get(columns.label or "", kind)
    kinds: dict[str, Kind] = {labels.id or columns.id or "": "categorical"}  # 007 and 7 are two ids
    if kind is not None:
        kinds[labels.label or columns.label or ""] = kind
    truth = SOURCES[labels.source.type](labels.source, kinds)
    return Labelled(live, truth, labels, columns, timestamp, most)
