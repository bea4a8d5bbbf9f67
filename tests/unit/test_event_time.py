from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.core.errors import SchemaError
from drift_monitor.sources.event_time import UTC_TYPE, to_utc


def utc(column: pa.Array, timezone: str = "UTC") -> list[datetime | None]:
    result = to_utc(column, "ts", timezone)
    assert result.type == UTC_TYPE
    assert len(result) == len(column)
    return result.to_pylist()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_every_unit_and_zone(unit: str, zone: str | None) -> None:
    local = datetime(2024, 7, 1, 12, 0, 30, tzinfo=None if zone is None else ZoneInfo(zone))
    expected = local.replace(tzinfo=ZoneInfo(zone or "America/New_York")).astimezone(UTC)
    assert utc(pa.array([local, None], pa.timestamp(unit, zone)), "America/New_York") == [expected, None]


def test_dates_are_midnight_where_the_log_was_written() -> None:
    midnight = datetime(2024, 6, 30, 22, tzinfo=UTC)
    assert utc(pa.array([date(2024, 7, 1)], pa.date32()), "Europe/Berlin") == [midnight]
    assert utc(pa.array([date(2024, 7, 1)], pa.date64()), "Europe/Berlin") == [midnight]
    assert utc(pa.array(["2024-07-01"]), "Europe/Berlin") == [midnight]


def test_text_in_mixed_zones() -> None:
    texts = [
        "2024-07-01T12:00:00Z",
        "2024-07-01 14:00:00+02:00",
        "2024-07-01T12:00",
        None,
        "soon",
        "",
        "2024-02-30",
    ]
    noon = datetime(2024, 7, 1, 12, tzinfo=UTC)
    assert utc(pa.array(texts)) == [noon, noon, noon, None, None, None, None]
    assert utc(pa.array(texts).dictionary_encode()) == [noon, noon, noon, None, None, None, None]


@pytest.mark.parametrize("text", ["2024-07-01T12:00:00.123456+00:00", "2024-07-01T12:00:00.123456Z"])
def test_text_keeps_microseconds(text: str) -> None:
    assert utc(pa.array([text])) == [datetime(2024, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)]


def test_clocks_set_back_and_forward() -> None:
    twice, never = datetime(2024, 10, 27, 2, 30), datetime(2024, 3, 31, 2, 30)
    column = pa.array([twice, never], pa.timestamp("us"))
    assert utc(column, "Europe/Berlin") == [
        datetime(2024, 10, 27, 0, 30, tzinfo=UTC),  # the earlier of two
        datetime(2024, 3, 31, 1, 30, tzinfo=UTC),
    ]


def test_years_that_no_log_has_are_no_times() -> None:
    texts = ["0001-01-01", "1900-01-01", "1969-12-31T23:59:59Z", "2200-01-01", "2262-04-11", "9999-12-31"]
    assert utc(pa.array([f"{t[:10]}T00:00:00Z" for t in texts])) == [None] * 6
    last = 2**63 - 1  # in nanoseconds this is the year 2262, in seconds the year 292 billion
    for unit in ("s", "ns"):
        assert utc(pa.array([last, -1, -last], pa.int64()).cast(pa.timestamp(unit))) == [None] * 3


def test_the_first_and_the_last_moment() -> None:
    ends = [datetime(1970, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]
    assert utc(pa.array(ends, pa.timestamp("us", "UTC"))) == ends
    assert utc(pa.array([e.isoformat() for e in ends])) == ends


def test_nanoseconds_are_cut_downwards() -> None:
    assert utc(pa.array([1999], pa.int64()).cast(pa.timestamp("ns"))) == [
        datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    ]


@pytest.mark.parametrize(
    "column", [pa.array([1_700_000_000]), pa.array([1.7e9]), pa.array(["1700000000", "1700000001"])]
)
def test_numbers_are_refused_with_what_to_do(column: pa.Array) -> None:
    with pytest.raises(SchemaError, match=r"timestamp column 'ts' holds .*write event times as"):
        to_utc(column, "ts", "UTC")


def test_nothing_at_all() -> None:
    assert utc(pa.nulls(2)) == [None, None]
    assert utc(pa.array([], pa.string())) == []


@settings(deadline=None)
@given(
    st.lists(st.datetimes(datetime(1972, 1, 1), datetime(2199, 12, 29)), max_size=20),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland"]),
)
def test_text_and_timestamps_agree_with_zoneinfo(moments: list[datetime], zone: str) -> None:
    expected = [m.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for m in moments]
    assert utc(pa.array(moments, pa.timestamp("us")), zone) == expected
    assert utc(pa.array([m.isoformat() for m in moments], pa.string()), zone) == expected
