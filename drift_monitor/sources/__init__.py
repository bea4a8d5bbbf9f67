"""Where live rows come from. One file a source, one line in `SOURCES`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

import pyarrow as pa

from drift_monitor.core.types import Kind, Window
from drift_monitor.sources.delta import open_delta
from drift_monitor.sources.files import open_files
from drift_monitor.sources.iceberg import open_iceberg
from drift_monitor.sources.parquet_files import Footer
from drift_monitor.sources.spark import open_spark
from drift_monitor.sources.spool import open_spool
from drift_monitor.sources.sql import open_sql


class Split(Protocol):
    """A part of a source that can be read on its own, in any order, by any process: a plain picklable record."""

    @property
    def rows(self) -> int | None:
        """How many rows it holds at most; None when that is not known before reading."""


S = TypeVar("S", bound=Split)


class Source(Protocol[S]):
    """Rows as Arrow record batches of bounded size, of just the columns asked for.

    All methods raise SourceError for what cannot be read and SchemaError for columns that do not fit
    together; both say where.
    """

    def columns(self, window: Window | None = None, only: Collection[str] | None = None) -> pa.Schema:
        """The columns of the part that may hold rows of the window, without reading rows.

        Args:
            window: the stretch of event time; None for all.
            only: the columns that the caller will ask for: these have to be of one type throughout, and either
                everywhere or nowhere. None: all of them have to.
        """

    def splits(self, window: Window | None) -> Sequence[S]:
        """The parts that may hold rows of the window."""

    def batches(self, split: S, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a split that are in its window.

        The timestamp column comes as `timestamp[us, UTC]` whatever it was. It is null in rows whose time
        cannot be read: the caller counts them and leaves them out.
        """


class Unit(Split, Protocol):
    """A part that knows itself again."""

    @property
    def identity(self) -> bytes:
        """The same for the same rows, read as the same columns; another for any others."""


class Remembered(Source[Any], Protocol):
    """A source whose parts can be read once and kept.

    Attributes:
        known: footers of files from an earlier time, by file; set by whoever keeps them.
        footers: those that were needed this time.
    """

    known: Mapping[bytes, Footer]
    footers: dict[bytes, Footer]

    def units(self, window: Window, columns: Sequence[str], bucket: timedelta) -> Sequence[Unit]:
        """The parts that may hold rows of the window, with all their rows, cut the same for every window.

        Args:
            window: that begins and ends with a bucket.
            columns: that will be read.
            bucket: length of one.
        """


SOURCES: Final[Mapping[str, Callable[[Any, Mapping[str, Kind]], Source[Any]]]] = {
    "files": open_files,
    "sql": open_sql,
    "delta": open_delta,
    "iceberg": open_iceberg,
    "spark": open_spark,
    "push": open_spool,
    "kafka": open_spool,
}
"""Source type -> open(configuration, kinds of the features, which formats without types need)."""
