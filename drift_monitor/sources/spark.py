"""A table or a query of Spark, whose rows are folded where they are: one scan, and packed profiles come back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import pyarrow as pa

from drift_monitor.clusters.spark import explained, map_in_arrow, session
from drift_monitor.clusters.work import Work, answer, heard
from drift_monitor.config.clusters import SparkSource
from drift_monitor.core.columns import Flat
from drift_monitor.core.folding import Folded, Folding
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources.table_rows import bounds, check_columns, days, finished

_MERGING: Final = 16  # tasks that merge what the others found, so that this process gets no more than that
_SAID: Final = "said binary"
_BATCH: Final = "batch binary"


@dataclass(frozen=True)
class SparkSplit:
    """The rows of a window: Spark reads them as one.

    Attributes:
        window: of event time; None for all rows.
        rows: not known before they are read.
    """

    window: Window | None
    rows: int | None = None


def open_spark(config: SparkSource, kinds: Mapping[str, Kind]) -> SparkTable:  # noqa: ARG001 - the table has types
    """A source over a table of Spark; no session is opened before something is asked."""
    return SparkTable(config)


class SparkTable:
    """Source over a table or a query of Spark."""

    def __init__(self, config: SparkSource) -> None:
        self._config = config
        self._where = f"{f'table {config.table}' if config.table is not None else 'the query'} of Spark"

    def held(self) -> AbstractContextManager[Any]:
        """One session for all that is asked within it."""
        return session(self._config)

    def columns(self, window: Window | None = None, only: Collection[str] | None = None) -> pa.Schema:  # noqa: ARG002
        """See `Source`. A table has the same columns in every window."""
        schema = self._flat.schema
        check_columns(schema, schema.names, self._where)
        return schema

    def splits(self, window: Window | None) -> Sequence[SparkSplit]:
        """See `Source`."""
        return [SparkSplit(window)]

    def batches(self, split: SparkSplit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Source`. Partition by partition; in a window, Spark leaves out rows without an event time."""
        names, part = self._named(columns)
        with self.held() as spark, explained(self._config):
            frame = map_in_arrow(self._rows(spark, part, split.window), _Serialise(), _BATCH)
            for (blob,) in frame.toLocalIterator(prefetchPartitions=True):
                batches = pa.ipc.open_stream(pa.py_buffer(bytes(blob)))
                timestamp, timezone = self._config.timestamp, self._config.timezone
                yield from _rows_of(batches, part, names, timestamp, timezone, split.window)

    def fold(self, window: Window | None, folding: Folding) -> Folded:
        """Fold the rows of a window on the cluster."""
        names, part = self._named(folding.columns)
        with self.held() as spark, explained(self._config):
            scan = _Scan(Work.of((folding, part, names, self._config.timezone, window)))
            found = map_in_arrow(self._rows(spark, part, window), scan, _SAID)
            merged = map_in_arrow(found.repartition(_MERGING), _Merge(Work.of(folding)), _SAID)
            return folding.merged(heard(bytes(said)) for (said,) in merged.collect())

    @cached_property
    def _stored(self) -> pa.Schema:
        """As it was at the first look."""
        with self.held() as spark, explained(self._config):
            frame = self._frame(spark)
            schema: pa.Schema = _numbered(frame).limit(0).toArrow().schema
            return pa.schema([pa.field(name, f.type) for name, f in zip(frame.columns, schema, strict=True)])

    @cached_property
    def _flat(self) -> Flat:
        return Flat(self._stored)

    def _named(self, columns: Sequence[str]) -> tuple[list[str], pa.Schema]:
        """What is asked for, and the stored columns that it takes."""
        timestamp = self._config.timestamp
        names = list(dict.fromkeys([*columns, *([timestamp] if timestamp is not None else [])]))
        check_columns(self._flat.schema, names, self._where)
        return names, pa.schema([self._stored.field(root) for root in self._flat.roots(names)])

    def _frame(self, spark: Any) -> Any:
        config = self._config
        return spark.table(config.table) if config.table is not None else spark.sql(config.query)

    def _rows(self, spark: Any, part: pa.Schema, window: Window | None) -> Any:
        """The rows of a window, columns numbered: no name of theirs is ever part of what Spark parses."""
        at = {name: f"c{self._stored.names.index(name)}" for name in part.names}
        frame = _numbered(self._frame(spark))
        timestamp = self._config.timestamp
        if timestamp is not None and self._flat.is_stored(timestamp):
            dtype = self._stored.field(timestamp).type
            between = bounds(window, dtype, self._config.timezone)
            if between is not None:
                low, high = _literals(between, dtype)
                frame = frame.where(f"{at[timestamp]} >= {low} AND {at[timestamp]} < {high}")
        return frame.select(*at.values())


class _Serialise:
    """Batches -> a column of Arrow streams."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            yield pa.record_batch({"batch": pa.array([sink.getvalue().to_pybytes()], pa.binary())})


class _Scan:
    """The batches of a partition -> what they are folded into."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        folding, part, names, timezone, window = self._work.open()
        rows = _rows_of(batches, part, names, folding.timestamp, timezone, window)
        yield _said(answer(lambda: folding(rows)))


class _Merge:
    """What some partitions were folded into, as one."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        folding = self._work.open()
        said = (part.as_py() for batch in batches for part in batch.column(0))
        yield _said(answer(lambda: folding.merged(map(heard, said))))


def _said(answered: bytes) -> pa.RecordBatch:
    return pa.record_batch({"said": pa.array([answered], pa.binary())})


def _rows_of(
    batches: Iterable[pa.RecordBatch],
    part: pa.Schema,
    names: Sequence[str],
    timestamp: str | None,
    timezone: str,
    window: Window | None,
) -> Iterator[pa.RecordBatch]:
    """What is asked for, of batches of stored columns that are numbered."""
    named = (pa.RecordBatch.from_arrays(batch.columns, names=part.names) for batch in batches)
    return finished(named, Flat(part), names, timestamp, timezone, window)


def _numbered(frame: Any) -> Any:
    return frame.toDF(*(f"c{i}" for i in range(len(frame.columns))))


def _literals(between: tuple[Any, Any], dtype: pa.DataType) -> tuple[str, str]:
    """The bounds as Spark's SQL writes them, for a column of dates, of moments or of wall clocks."""
    if pa.types.is_date(dtype):
        first, last = days(between)
        return f"DATE'{first}'", f"DATE'{last}'"
    word = "TIMESTAMP_NTZ" if dtype.tz is None else "TIMESTAMP"
    low, high = (f"{word}'{t.isoformat(sep=' ')}'" for t in between)
    return low, high
