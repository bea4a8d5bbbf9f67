"""What all tables share: what a table can be asked for, and batches as checks want them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa

from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.types import Window
from drift_monitor.sources.event_time import FIRST_YEAR, LAST_YEAR, to_utc
from drift_monitor.sources.files import _listed, _within
from drift_monitor.sources.parquet_files import BATCH_ROWS

BATCH_BYTES: Final = 1 << 26
"""Of a batch; what a library hands over at once may be larger and is cut."""
_DAY: Final = timedelta(days=1)
EARLIEST: Final = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
"""A time before this is none."""
LATEST: Final = datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC)
"""Neither is one from this on."""
Bounds = tuple[datetime, datetime]


def bounds(window: Window | None, dtype: pa.DataType, timezone: str) -> Bounds | None:
    """Between which times a table's rows of a window lie, as its column writes times.

    Args:
        window: of event time.
        dtype: of the column: a timestamp or a date.
        timezone: of times that carry none.

    Returns:
        Start and end, the end excluded: aware in UTC for a column of moments, naive for one of wall clocks, and
        then so wide that a clock that is set in between loses no row. None when the table cannot be asked: there
        is no window, or the column holds something else, such as text.

    Example:
        >>> day = Window(start=datetime(2024, 3, 31, tzinfo=UTC), end=datetime(2024, 4, 1, tzinfo=UTC))
        >>> [str(t) for t in bounds(day, pa.timestamp("us"), "Europe/Berlin") or ()]
        ['2024-03-31 01:00:00', '2024-04-01 02:00:00']
    """
    if window is None or not is_time(dtype):
        return None
    start = min(max(window.start, EARLIEST), LATEST).astimezone(UTC)
    end = min(max(window.end, EARLIEST), LATEST).astimezone(UTC)
    if pa.types.is_timestamp(dtype) and dtype.tz is not None:
        return start, end
    zone = ZoneInfo(timezone)
    low = min(_offset(zone, start + shift) for shift in (-_DAY, timedelta(0), _DAY))
    high = max(_offset(zone, end + shift) for shift in (-_DAY, timedelta(0), _DAY))
    return (start + low).replace(tzinfo=None), (end + high).replace(tzinfo=None)


def is_time(dtype: pa.DataType) -> bool:
    """Whether a table understands a column's times, so that it can be asked for a window."""
    return bool(pa.types.is_timestamp(dtype) or pa.types.is_date(dtype))


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def days(found: Bounds) -> tuple[date, date]:
    """The bounds of a column of dates: its first day, and the day after its last."""
    low, high = found
    first = low.date() + (_DAY if low.time() != datetime.min.time() else timedelta(0))
    last = high.date() + (_DAY if high.time() != datetime.min.time() else timedelta(0))
    return first, last


def check_columns(schema: pa.Schema, names: Iterable[str], where: str) -> None:
    """Say which column is missing or there twice.

    Raises:
        SchemaError: it names the column, and what `where` has instead.
    """
    for name in names:
        if not (count := schema.names.count(name)):
            raise SchemaError(f"{where} has no column {name!r}; it has {_listed(schema.names)}")
        if count > 1:
            raise SchemaError(f"{where} has {count} columns named {name!r}: give each its own name")


def finished(
    batches: Iterable[pa.RecordBatch],
    flat: Flat,
    columns: Sequence[str],
    timestamp: str | None,
    timezone: str,
    window: Window | None,
    *,
    timed: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Batches of bounded size, with times in UTC, without the rows outside the window; see `Source.batches`.

    Args:
        batches: as a table gives them.
        flat: how the table's columns are named and made.
        columns: to hand on.
        timestamp: the column of event times.
        timezone: of times that carry none.
        window: of event time; None for all.
        timed: leave out rows without a usable time, as a table does that is asked for a window.
    """
    for whole in batches:
        step = BATCH_ROWS if whole.num_rows == 0 else _rows(whole)
        for at in range(0, whole.num_rows, step):
            batch = flat.pick(whole.slice(at, step), columns)
            if timestamp is not None:
                times = to_utc(batch.column(timestamp), timestamp, timezone)
                batch = batch.set_column(batch.schema.get_field_index(timestamp), timestamp, times)
                if timed and times.null_count:
                    batch = batch.filter(times.is_valid())
                    times = batch.column(timestamp)
                if window is not None:
                    batch = _within(batch, times, window)
            if batch.num_rows:
                yield batch


def _rows(batch: pa.RecordBatch) -> int:
    return int(max(1, min(BATCH_ROWS, batch.num_rows * BATCH_BYTES // max(1, batch.nbytes))))
