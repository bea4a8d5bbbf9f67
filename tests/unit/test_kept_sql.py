"""Rows of a database are read once where the configuration says when they are final; others at each look."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kept_checks import DAY, HOUR, LIVE, PER_HOUR, START, both, check, count_rows, rows

from drift_monitor.config.tables import SqlSource
from drift_monitor.core.types import Window
from drift_monitor.sources import sql
from drift_monitor.sources.sql import SettledSql, open_sql

N = 24 * PER_HOUR
Insert = Callable[[Path, pa.Table], dict[str, Any]]


def duck(data: Path, table: pa.Table) -> dict[str, Any]:
    with closing(duckdb.connect(data / "log.duckdb")) as connection:
        connection.register("given", table)
        connection.execute("CREATE TABLE IF NOT EXISTS log AS SELECT * FROM given LIMIT 0")
        connection.execute("INSERT INTO log SELECT * FROM given")
    return {"type": "sql", "uri": f"duckdb://{data}/log.duckdb", "table": "log"}


def lite(data: Path, table: pa.Table) -> dict[str, Any]:
    columns = '"time" TIMESTAMP, id TEXT, speed REAL, load REAL, carrier TEXT, late BOOLEAN'
    values = [[v.isoformat() if isinstance(v, datetime) else v for v in row.values()] for row in table.to_pylist()]
    with closing(sqlite3.connect(data / "log.sqlite")) as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS log ({columns})")
        connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", values)
        connection.commit()
    return {"type": "sql", "uri": f"sqlite://{data}/log.sqlite", "table": "log"}


@pytest.fixture(params=[duck, lite])
def insert(request: pytest.FixtureRequest) -> Insert:
    found: Insert = request.param
    return found


@pytest.fixture
def data(tmp_path: Path, insert: Insert) -> Path:
    """Two live days, in a table whose rows are final after two hours."""
    pq.write_table(rows(START, 14 * 24, seed=1), tmp_path / "training.parquet")
    settings = insert(tmp_path, rows(LIVE, 48, seed=2))
    (tmp_path / "source.json").write_text(json.dumps(settings | {"lateness": "2h"}))
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return count_rows(monkeypatch)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets the clock."""

    def to(moment: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Clock:
                return cls.fromtimestamp(moment.timestamp(), tz)

        monkeypatch.setattr(sql, "datetime", Clock)

    return to


def opened(data: Path) -> SettledSql:
    settings = json.loads((data / "source.json").read_text()) | {"timestamp": "time"}
    source = open_sql(SqlSource.model_validate_json(json.dumps(settings)), {})
    assert isinstance(source, SettledSql)
    return source


def test_a_row_that_is_final_is_read_once(data: Path, read: Counter[str]) -> None:
    for hour in range(0, 25, 4):
        assert both(data, LIVE + DAY + hour * HOUR).rows == N
    assert read["rows"] == 2 * N


def test_hours_that_are_not_final_are_read_at_each_look(
    data: Path, insert: Insert, read: Counter[str], at: Callable[[datetime], None]
) -> None:
    end = LIVE + DAY
    at(end)
    both(data, end)
    insert(data, rows(LIVE + 22 * HOUR, 2, seed=7))  # in the last two hours, of which nothing is known yet
    assert both(data, end).rows == 26 * PER_HOUR
    assert read["rows"] == N + 4 * PER_HOUR
    at(end + 2 * HOUR)
    both(data, end)
    assert read["rows"] == N + 8 * PER_HOUR
    both(data, end)
    assert read["rows"] == N + 8 * PER_HOUR  # all are final


def test_what_comes_later_than_was_promised_is_not_seen(data: Path, insert: Insert) -> None:
    end = LIVE + DAY
    before = check(data, end)
    insert(data, rows(LIVE + 3 * HOUR, 1, seed=7))
    assert check(data, end) == before
    assert check(data, end, incremental=False).rows == N + PER_HOUR


def test_an_hour_without_rows_is_asked_for_again(data: Path, insert: Insert, read: Counter[str]) -> None:
    end = LIVE + 3 * DAY
    assert both(data, end - 12 * HOUR).rows == N // 2
    insert(data, rows(LIVE + 2 * DAY, 24, seed=7))  # after an outage of half a day and more
    assert both(data, end).rows == N
    assert read["rows"] == N // 2 + N


def test_another_promise_another_query_or_place_is_read_anew(data: Path, read: Counter[str]) -> None:
    settings = json.loads((data / "source.json").read_text())
    both(data, LIVE + DAY)
    query = 'SELECT * FROM log WHERE "late"'
    for changed in ({"lateness": "3h"}, {"table": None, "query": query}):
        (data / "source.json").write_text(json.dumps(settings | changed))
        both(data, LIVE + DAY)
    assert 2 * N < read["rows"] < 3 * N


def test_neighbouring_hours_are_one_statement(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = SettledSql.batches

    def counted(self: Any, split: Any, columns: Any) -> Any:
        asked.append(str(split.window))
        return plain(self, split, columns)

    monkeypatch.setattr(SettledSql, "batches", counted)
    check(data, LIVE + DAY)
    check(data, LIVE + DAY + 2 * HOUR)
    assert asked == ["2024-03-15T00:00Z .. 2024-03-16T00:00Z", "2024-03-16T00:00Z .. 2024-03-16T02:00Z"]


@pytest.mark.parametrize("insert", [duck], indirect=True)
def test_hours_apart_are_statements_of_their_own(data: Path) -> None:
    source = opened(data)
    units = source.units(Window(start=LIVE, end=LIVE + 8 * HOUR), ["time"], HOUR)
    wanted = [units[n] for n in (0, 1, 4, 5, 6, 7)]  # two hours are known
    for most, runs in ((9, [(0, 2), (4, 8)]), (3, [(0, 2), (4, 7), (7, 8)])):
        found = list(source.joined(wanted, most))
        spans = [Window(start=LIVE + first * HOUR, end=LIVE + end * HOUR) for first, end in runs]
        assert [split.window for split, _ in found] == spans
        assert [unit for _, by_start in found for unit in by_start.values()] == wanted


def test_rows_without_a_time_are_in_no_hour(data: Path, insert: Insert) -> None:
    insert(data, rows(LIVE + 3 * HOUR, 1, seed=7, broken=5))
    result = both(data, LIVE + DAY)
    assert (result.rows, result.invalid_rows) == (25 * PER_HOUR - 5, 0)


@pytest.mark.parametrize("insert", [lite], indirect=True)
def test_text_that_is_no_time_is_in_no_hour(data: Path) -> None:
    with closing(sqlite3.connect(data / "log.sqlite")) as connection:
        connection.execute("UPDATE log SET time = '2024-03-15T99:00' WHERE rowid = 1")
        connection.commit()
    result = check(data, LIVE + DAY)
    assert (result.rows, result.invalid_rows) == (N - 1, 0)


@pytest.mark.parametrize("insert", [duck], indirect=True)
def test_times_that_the_database_does_not_understand_are_read_directly(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = json.loads((data / "source.json").read_text())
    query = 'SELECT * REPLACE (strftime("time", \'%Y-%m-%dT%H:%M:%S.%fZ\') AS "time") FROM log'
    (data / "source.json").write_text(json.dumps(settings | {"table": None, "query": query}))
    with caplog.at_level("INFO"):
        assert both(data, LIVE + DAY).rows == N
    assert "`lateness` needs times, and 'time' is string: cast it in a `query`" in caplog.text


def identity(uri: str, **settings: Any) -> bytes:
    config = SqlSource(type="sql", uri="duckdb://x", table="log", timestamp="time", lateness=timedelta(0))
    source = open_sql(config.model_copy(update={"uri": uri} | settings), {})
    assert isinstance(source, SettledSql)
    source.__dict__["_stored"] = pa.schema([("time", pa.timestamp("us", "UTC"))])
    (unit,) = source.units(Window(start=LIVE, end=LIVE + HOUR), ["time"], HOUR)
    return unit.identity


def test_a_password_is_no_part_of_what_is_known_of_a_table() -> None:
    first = identity("postgresql://me:one@db/log")
    assert identity("postgresql://me:two@db/log") == first
    assert identity("postgresql://me:one@db/other") != first


def test_options_of_a_driver_tell_one_table_from_another() -> None:
    def of(**options: str) -> bytes:
        return identity("db/log", driver="sqlite", options=options)

    assert of(role="one", schema="a") == of(schema="a", role="one")
    assert len({of(schema="a"), of(schema="b"), of()}) == 3


@pytest.mark.parametrize("insert", [duck], indirect=True)
def test_a_column_that_has_changed_its_type_is_read_anew(data: Path) -> None:
    def identities(*columns: str) -> list[bytes]:
        units = opened(data).units(Window(start=LIVE, end=LIVE + 2 * HOUR), columns, HOUR)
        return [unit.identity for unit in units]

    before = identities("time", "speed"), identities("time", "carrier")
    with closing(duckdb.connect(data / "log.duckdb")) as connection:
        connection.execute("ALTER TABLE log ALTER speed TYPE DECIMAL(9, 3)")
    after = identities("time", "speed"), identities("time", "carrier")
    assert not {*before[0]} & {*after[0]}
    assert before[1] == after[1]  # which do not read it


def test_lateness_needs_times() -> None:
    with pytest.raises(ValueError, match="`lateness` is counted from event times: name the `timestamp` column"):
        SqlSource(type="sql", uri="duckdb://x", table="log", lateness=timedelta(hours=1))
