"""Whatever stands for a time in a file -> microseconds since 1970 in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing
from drift_monitor.core.errors import SchemaError

UTC_TYPE = pa.timestamp("us", tz="UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
# No log has events outside these years: such a value is a default, an overflow or a wrong unit.
FIRST_YEAR, LAST_YEAR = 1970, 2199
_FIRST = (datetime(FIRST_YEAR, 1, 1, tzinfo=UTC) - _EPOCH) // _MICRO
_LAST = (datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICRO - 1
_QUARTER = 900_000_000  # zones change their offset at whole quarters of an hour
_PER_UNIT = {"s": 1_000_000, "ms": 1000, "us": 1}
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def to_utc(column: pa.Array, name: str, timezone: str) -> pa.Array:
    """Event times as `timestamp[us, UTC]`.

    Args:
        column: timestamps, dates, or ISO 8601 text, with or without offsets, also mixed.
        name: of the column, for the message.
        timezone: of values that carry no offset. Where clocks are set back, the earlier of the two readings is
            meant; where they are set forward, the hour that does not exist is read with the offset before.

    Returns:
        As long as `column`; null where it was null, where text is no time, and outside the years 1970 to 2199.

    Raises:
        SchemaError: the column holds numbers or something else that is not a time.
    """
    if isinstance(column.type, pa.DictionaryType):
        return to_utc(column.dictionary, name, timezone).take(column.indices)
    t = column.type
    if pa.types.is_null(t):
        return pa.nulls(len(column), UTC_TYPE)
    if pa.types.is_timestamp(t):
        return _from_integers(as_numpy(column), is_missing(column), t.unit, None if t.tz else timezone)
    if pa.types.is_date32(t):
        return _from_integers(as_numpy(column).astype(np.int64) * 86_400, is_missing(column), "s", timezone)
    if pa.types.is_date64(t):
        return _from_integers(as_numpy(column), is_missing(column), "ms", timezone)
    if pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t):
        return _from_text(column, name, timezone)
    raise SchemaError(
        f"the timestamp column {name!r} holds {t}: write event times as Parquet timestamps or as ISO 8601 text, "
        "because a bare number does not say whether it counts seconds or milliseconds"
    )


def local_to_utc(local: npt.NDArray[np.int64], timezone: str) -> npt.NDArray[np.int64]:
    """Wall-clock microseconds -> UTC microseconds; within the years 1970 to 2199."""
    if timezone == "UTC" or not len(local):
        return local
    zone = ZoneInfo(timezone)
    quarters, where = np.unique(local // _QUARTER, return_inverse=True)
    naive = _EPOCH.replace(tzinfo=None)
    offsets = [
        (naive + timedelta(microseconds=q * _QUARTER)).replace(tzinfo=zone).utcoffset() or timedelta(0)
        for q in quarters.tolist()
    ]
    return np.asarray(local - np.array([o // _MICRO for o in offsets], np.int64)[where], np.int64)


def _from_integers(
    raw: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_], unit: str, timezone: str | None
) -> pa.Array:
    """Since 1970 in a unit -> UTC; `timezone` is None when they count in UTC already."""
    per_unit = _PER_UNIT.get(unit)
    bounds = (_FIRST * 1000, _LAST * 1000) if per_unit is None else (_FIRST // per_unit, _LAST // per_unit)
    missing = missing | (raw < bounds[0]) | (raw > bounds[1])
    raw = np.where(missing, 0, raw)
    times = raw // 1000 if per_unit is None else raw * per_unit
    if timezone is not None:
        times = local_to_utc(times, timezone)
    return as_arrow(times, missing=missing if missing.any() else None).cast(UTC_TYPE)


def _from_text(column: pa.Array, name: str, timezone: str) -> pa.Array:
    for dtype in (UTC_TYPE, pa.timestamp("us")):  # all with an offset, or none with: the usual files
        try:
            return to_utc(pc.cast(column, dtype), name, timezone)
        except pa.ArrowInvalid:
            continue
    distinct = column.dictionary_encode()
    texts = [raw.decode("utf-8", "backslashreplace") for raw in distinct.dictionary.cast(pa.binary()).to_pylist()]
    if texts and all(map(_NUMBER.fullmatch, texts)):
        raise SchemaError(
            f"the timestamp column {name!r} holds numbers such as {texts[0]!r}: write event times as ISO 8601 "
            "text, because a bare number does not say whether it counts seconds or milliseconds"
        )
    times = [_parse(text, timezone) for text in texts]
    return pa.array(times, pa.int64()).cast(UTC_TYPE).take(distinct.indices)


def _parse(text: str, timezone: str) -> int | None:
    if _NUMBER.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=ZoneInfo(timezone))
    micros = (time - _EPOCH) // _MICRO
    return micros if _FIRST <= micros <= _LAST else None
