"""One Parquet file: its footer, and its rows in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.core.arrow import as_arrow, as_numpy
from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import SourceError
from drift_monitor.core.types import Window
from drift_monitor.sources.event_time import to_utc
from drift_monitor.sources.places import DISK, Place

BATCH_ROWS = 1 << 17
UNIT_ROWS: Final = 1 << 17
"""Rows of a unit: smaller row groups are put together up to it."""
_BATCH_BYTES = 1 << 26
_PIECE = 1 << 16  # bytes of a column chunk read at once from a disk; a megabyte each took twice the time
_DAY = 86_400_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class RowGroup:
    """What the footer says of a row group.

    Attributes:
        oldest, newest: bounds of its event times in microseconds since 1970 UTC; None when the footer is silent.
    """

    rows: int
    oldest: int | None = None
    newest: int | None = None


@dataclass(frozen=True)
class Footer:
    """What can be known of a Parquet file without reading rows."""

    schema: pa.Schema
    row_groups: tuple[RowGroup, ...]

    def runs(self, window: Window | None) -> list[tuple[int, ...]]:
        """Row groups, small ones put together; of these, whichever may hold rows of the window."""
        groups = self.row_groups
        return [
            run
            for run in _runs([group.rows for group in groups])
            if any(groups[i].rows and overlaps(groups[i], window) for i in run)
        ]

    def rows(self, run: Sequence[int]) -> int:
        """How many rows some row groups hold."""
        return sum(self.row_groups[i].rows for i in run)


def read_footer(path: str, timestamp: str | None, timezone: str, *, place: Place = DISK) -> Footer:
    """Read the schema and the row groups with their times.

    Raises:
        SourceError: the file is not a whole Parquet file; the message names it.
    """
    with _open(path, place) as file:
        return footer_of(file.metadata, file.schema_arrow, timestamp, timezone)


def footer_of(metadata: pq.FileMetaData, schema: pa.Schema, timestamp: str | None, timezone: str) -> Footer:
    """The row groups with their times, of a file that is open."""
    named = Flat(schema).schema
    leaf = _leaf(metadata, named, timestamp)
    groups = []
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        times: tuple[int, int] | tuple[None, None] = (None, None)
        if leaf is not None and timestamp is not None:
            times = _times(group.column(leaf).statistics, named.field(timestamp).type, timestamp, timezone)
        groups.append(RowGroup(group.num_rows, *times))
    return Footer(schema, tuple(groups))


def overlaps(group: RowGroup, window: Window | None) -> bool:
    """Whether a row group may hold rows of the window."""
    if window is None or group.oldest is None or group.newest is None:
        return True
    start, end = micros(window)
    return group.newest >= start and group.oldest < end


def micros(window: Window) -> tuple[int, int]:
    """Start and end in microseconds since 1970."""
    return (window.start - _EPOCH) // _MICROSECOND, (window.end - _EPOCH) // _MICROSECOND


def _runs(rows: Sequence[int]) -> list[tuple[int, ...]]:
    """Row groups, small ones put together.

    Example:
        >>> _runs([100, 100, 200_000, 5])
        [(0, 1), (2,), (3,)]
    """
    runs: list[tuple[int, ...]] = []
    held = 0
    for number, count in enumerate(rows):
        if not runs or held + count > UNIT_ROWS:
            runs.append(())
            held = 0
        runs[-1] += (number,)
        held += count
    return runs


def read_rows(
    path: str,
    row_groups: Sequence[int],
    columns: Sequence[str],
    dictionaries: Sequence[str],
    *,
    place: Place = DISK,
) -> Iterator[pa.RecordBatch]:
    """The rows of some row groups.

    Args:
        path: of the file.
        row_groups: their numbers.
        columns: which to read; all are in the file. `payload.age` is a column of that name, and what is called so
            within the column `payload`: where both are there, both are read.
        dictionaries: text columns to read as dictionaries, so that a repeated text is held once.
        place: where the file is.

    Raises:
        SourceError: something does not decode; the message names file, row group and, if it can be told, column.
    """
    rows = 0
    with _open(path, place, dictionaries) as file:
        try:
            size = _batch_rows(file.metadata, row_groups)
            # each row group has a dictionary of its own, and Arrow puts no two of them into one struct
            apart = any("." in name for name in dictionaries)
            for groups in [[group] for group in row_groups] if apart else [list(row_groups)]:
                for batch in file.iter_batches(size, row_groups=groups, columns=list(columns), use_threads=False):
                    rows += batch.num_rows
                    yield batch
        except MemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise SourceError(_where(file, path, row_groups, columns, rows, error)) from error


def _open(path: str, place: Place, dictionaries: Sequence[str] = ()) -> pq.ParquetFile:
    try:
        file = place.open(path)
        if not file.size():
            raise SourceError(f"{path!r} is empty (0 bytes): a Parquet file has a footer even without rows")
        # pre_buffer, and no buffer, hold all the column chunks of a row group at once; decoding page by page keeps
        # memory flat, but each piece would be a request to an object store
        once = {"pre_buffer": False, "buffer_size": _PIECE} if place.appends else {"pre_buffer": True}
        return pq.ParquetFile(file, read_dictionary=list(dictionaries), **once)
    except MemoryError:
        raise
    except OSError as error:
        raise SourceError(f"{path!r} cannot be read: {error.strerror or error}") from error
    except pa.ArrowException as error:
        raise SourceError(
            f"{path!r} is not a whole Parquet file ({_brief(error)}): it was cut short or is still being written; "
            "write to a temporary name (starting with a dot) and rename it when it is complete"
        ) from error


def _batch_rows(metadata: pq.FileMetaData, row_groups: Sequence[int]) -> int:
    """Rows that the footer's sizes say fit in a batch; dictionaries may still grow past it."""
    widest = max(
        (g.total_byte_size / max(g.num_rows, 1) for g in (metadata.row_group(i) for i in row_groups)), default=1
    )
    return int(min(max(_BATCH_BYTES / max(widest, 1), 1024), BATCH_ROWS))


def _leaf(metadata: pq.FileMetaData, schema: pa.Schema, name: str | None) -> int | None:
    """The number of the only leaf column of this name."""
    if name is None or schema.get_field_index(name) < 0 or not metadata.num_row_groups:
        return None
    group = metadata.row_group(0)
    found = [i for i in range(metadata.num_columns) if group.column(i).path_in_schema == name]
    return found[0] if len(found) == 1 else None


def _times(
    statistics: pq.Statistics | None, dtype: pa.DataType, name: str, timezone: str
) -> tuple[int, int] | tuple[None, None]:
    """The bounds of a row group's event times; None twice when they cannot be relied upon."""
    stored = {"INT64": pa.types.is_timestamp, "INT32": pa.types.is_date32}
    if statistics is None or not statistics.has_min_max:
        return None, None
    if not stored.get(statistics.physical_type, pa.types.is_null)(dtype):
        return None, None
    raw = as_arrow(np.array([statistics.min_raw, statistics.max_raw], np.int64))
    bounds = to_utc(raw.cast(pa.int32() if pa.types.is_date32(dtype) else pa.int64()).cast(dtype), name, timezone)
    if bounds.null_count:
        return None, None
    low, high = as_numpy(bounds).tolist()
    # wall clocks do not rise all the time
    margin = 0 if timezone == "UTC" or getattr(dtype, "tz", None) else _DAY
    return low - margin, high + margin


def _where(
    file: pq.ParquetFile,
    path: str,
    row_groups: Sequence[int],
    columns: Sequence[str],
    rows: int,
    error: Exception,
) -> str:
    """Name the row group and the column that do not decode; all before `rows` did."""
    what = "its rows"
    for group in row_groups:
        rows -= file.metadata.row_group(group).num_rows
        bad = [name for name in columns if rows < 0 and not _decodes(file, group, name)]
        if bad:
            what = f"row group {group}, column {bad[0]!r}"
            break
    if isinstance(error, pa.ArrowNotImplementedError):
        why = f"pyarrow {pa.__version__} does not read this; write it with another type, encoding or compression"
    else:
        why = "the file is damaged; write it again"
    return f"{path!r}, {what} cannot be decoded ({_brief(error)}): {why}"


def _decodes(file: pq.ParquetFile, group: int, name: str) -> bool:
    try:
        for _ in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[name], use_threads=False):
            pass
    except (pa.ArrowException, OSError):
        return False
    return True


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
