"""What a table source says when something is wrong, and what becomes of values that only one database has."""

from __future__ import annotations

import json
import math
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import deltalake
import duckdb
import postgres_server
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from delta_vectors import data_files, write_vectors
from pyiceberg.catalog import load_catalog

from drift_monitor.config.models import Monitor
from drift_monitor.config.tables import DeltaSource, IcebergSource, SqlSource
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.types import Kind, Outcome, Window
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.sources import SOURCES
from drift_monitor.sources import extras as module

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = Window(start=START, end=START + timedelta(days=1))
MODELS = {"sql": SqlSource, "delta": DeltaSource, "iceberg": IcebergSource}


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    if postgres_server.programs() is None:
        pytest.skip("PostgreSQL is not installed (initdb, pg_ctl)")
    with postgres_server.running() as port:
        yield port


def read(
    settings: dict[str, Any],
    columns: list[str],
    window: Window | None = None,
    kinds: dict[str, Kind] | None = None,
) -> pa.Table:
    config = MODELS[settings["type"]].model_validate(settings)
    source = SOURCES[settings["type"]](config, kinds or {})
    source.columns(window)
    found = [batch for split in source.splits(window) for batch in source.batches(split, columns)]
    return pa.Table.from_batches(found) if found else pa.table({})


def run(port: int, *statements: str) -> None:
    with closing(adbc_driver_postgresql.dbapi.connect(postgres_server.uri(port))) as connection:
        for statement in statements:
            with closing(connection.cursor()) as cursor:
                cursor.execute(statement)
        connection.commit()


def sqlite(path: Path, *statements: str) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return {"type": "sql", "uri": f"sqlite://{path}", "table": "t"}


def duck(path: Path, *statements: str) -> dict[str, Any]:
    with closing(duckdb.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return {"type": "sql", "uri": f"duckdb://{path}", "table": "t"}


def refused(
    settings: dict[str, Any], columns: list[str] | None = None, kind: type[Exception] = SourceError
) -> str:
    with pytest.raises(kind) as caught:
        read(settings, columns or ["x"])
    return str(caught.value)


# -- PostgreSQL ----------------------------------------------------------------------------------------


@pytest.fixture
def postgres(server: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("DRIFT_DB_PASSWORD", postgres_server.PASSWORD)
    uri = f"postgresql://postgres:${{DRIFT_DB_PASSWORD}}@127.0.0.1:{server}/postgres"
    return {"type": "sql", "uri": uri, "table": "t"}


@pytest.mark.server
def test_values_that_only_postgresql_has(server: int, postgres: dict[str, Any]) -> None:
    run(
        server,
        "DROP TABLE IF EXISTS t",
        "CREATE TYPE mood AS ENUM ('sad', 'it''s ok')",
        "CREATE TABLE t (at timestamptz, x numeric, id uuid, ip inet, doc jsonb, mood mood, code char(3), "
        "big int8, small int2, f float4, tags text[])",
        "INSERT INTO t VALUES "
        "('2024-03-01 12:00+01', 0.1, '00000000-0000-0000-0000-00000000000a', '10.0.0.1', '{\"a\": 1}', "
        "'it''s ok', 'ab', 9007199254740993, 7, 0.5, '{a,b}'),"
        "('infinity', 'NaN', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),"
        "(NULL, 'Infinity', NULL, NULL, NULL, 'sad', NULL, NULL, NULL, NULL, NULL),"
        "('2024-03-02', 123456789012345678901234567890.5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    columns = ["x", "id", "ip", "doc", "mood", "code", "big", "small", "f", "tags"]
    settings = {**postgres, "timestamp": "at"}
    found = read(settings, columns).to_pydict()
    assert found["at"] == [
        datetime(2024, 3, 1, 11, tzinfo=UTC), None, None, datetime(2024, 3, 2, tzinfo=UTC)
    ]  # fmt: skip
    assert (found["x"][0], found["x"][2:]) == (0.1, [math.inf, 123456789012345678901234567890.5])
    assert math.isnan(found["x"][1])
    assert {name: found[name][0] for name in columns[1:]} == {
        "id": "00000000-0000-0000-0000-00000000000a",
        "ip": "10.0.0.1/32",
        "doc": '{"a": 1}',
        "mood": "it's ok",
        "code": "ab ",
        "big": 9007199254740993,
        "small": 7,
        "f": 0.5,
        "tags": ["a", "b"],
    }
    assert read(settings, ["x"], DAY)["x"].to_pylist() == [0.1]


@pytest.mark.server
def test_what_postgresql_refuses(server: int, postgres: dict[str, Any], tmp_path: Path) -> None:
    place = f"postgresql://127.0.0.1:{server}/postgres"
    said = refused({**postgres, "table": "no.table"})
    assert said.startswith(f"table no.table of {place} cannot be read: ")
    assert 'relation "no.table" does not exist' in said
    said = refused({**postgres, "table": None, "query": "SELECT nope"})
    assert said.startswith(f"the query of {place} cannot be read: ")
    assert 'column "nope" does not exist' in said
    said = refused({**postgres, "table": None, "query": "SELECT 1 AS a, 2 AS a"}, ["a"], SchemaError)
    assert said == f"the query of {place} has 2 columns named 'a': give each its own name"
    said = refused({**postgres, "table": None, "query": "DELETE FROM pg_class RETURNING 1"})
    assert "syntax error" in said
    run(server, "CREATE OR REPLACE FUNCTION writes() RETURNS int LANGUAGE sql AS 'CREATE TABLE made (); SELECT 1'")
    said = refused({**postgres, "table": None, "query": "SELECT writes() AS x"})
    assert "cannot execute CREATE TABLE in a read-only transaction" in said
    (tmp_path / "wrong").write_text("not it 4711\n")
    uri = f"postgresql://postgres@127.0.0.1:{server}/postgres"
    said = refused({**postgres, "uri": uri, "password_file": tmp_path / "wrong"})
    assert 'password authentication failed for user "postgres"' in said
    assert "4711" not in said
    assert "no such file" in refused({**postgres, "uri": uri, "password_file": tmp_path / "gone"}).lower()


def test_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "a secret")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    said = refused(
        {"type": "sql", "uri": f"postgresql://me:${{PW}}@127.0.0.1:{port}/db?sslmode=disable", "table": "t"}
    )
    assert said.startswith(f"table t of postgresql://127.0.0.1:{port}/db cannot be read: ")
    assert "Connection refused" in said
    assert "secret" not in said


def test_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFT_NO_SUCH", raising=False)
    settings = {"type": "sql", "uri": "postgresql://me:${DRIFT_NO_SUCH}@127.0.0.1/db", "table": "t"}
    assert refused(settings) == "the source names the variable DRIFT_NO_SUCH of the environment, which is not set"


@pytest.mark.server
def test_a_sample_is_the_same_at_every_look_and_told(
    server: int, postgres: dict[str, Any], tmp_path: Path
) -> None:
    run(
        server,
        "DROP TABLE IF EXISTS sampled",
        "CREATE TABLE sampled AS SELECT timestamptz '2024-03-01' + i * interval '1 second' AS at, "
        "(i * 7919 % 1000)::float8 AS x, repeat('x', 50) AS filler FROM generate_series(0, 86399) AS i",
    )
    settings = {**postgres, "table": "sampled", "timestamp": "at", "sample": 10.0}
    first, second = (read(settings, ["x"], DAY) for _ in range(2))
    assert first.equals(second)
    assert 0.05 < first.num_rows / 86400 < 0.15
    training = read({**postgres, "table": "sampled", "timestamp": "at"}, ["x"])
    assert training.num_rows == 86400
    pq.write_table(training, tmp_path / "training.parquet")
    monitor = Monitor.model_validate(
        {
            "reference": tmp_path / "training.parquet",
            "source": settings,
            "schedule": {"every": timedelta(days=1)},
            "window": {"length": timedelta(days=1)},
        }
    )
    result = evaluate(CheckRequest(name="m", monitor=monitor, state=tmp_path, window=DAY))
    assert result.verdict is Outcome.OK, result.reason
    assert (result.sample, result.rows) == (10.0, first.num_rows)
    assert result.reason.endswith("read: a sample of 10% of the table's pages")


# -- DuckDB and SQLite ---------------------------------------------------------------------------------


def test_what_duckdb_refuses(tmp_path: Path) -> None:
    settings = duck(tmp_path / "a.duckdb", "CREATE TABLE t AS SELECT 1 AS x")
    assert "Table with name nope does not exist" in refused({**settings, "table": "nope"})
    assert "has no column 'y'; it has 'x'" in refused(settings, ["y"], SchemaError)
    assert "database does not exist" in refused({**settings, "uri": f"duckdb://{tmp_path}/gone.duckdb"})
    (tmp_path / "junk").write_bytes(b"x" * 5000)
    assert "not a valid DuckDB database" in refused({**settings, "uri": f"duckdb://{tmp_path}/junk"})


def test_a_query_cannot_write(tmp_path: Path) -> None:
    settings = duck(tmp_path / "a.duckdb", "CREATE TABLE t AS SELECT 1 AS x")
    refused({**settings, "table": None, "query": "SELECT 1 AS x); DROP TABLE t; SELECT (1"})
    assert read(settings, ["x"]).num_rows == 1


def test_times_as_numbers_are_refused(tmp_path: Path) -> None:
    create = ('CREATE TABLE t (x REAL, "at" BIGINT)', "INSERT INTO t VALUES (1, 1709251200)")
    for settings in (sqlite(tmp_path / "a.sqlite", *create), duck(tmp_path / "a.duckdb", *create)):
        said = refused({**settings, "timestamp": "at"}, kind=SchemaError)
        assert said.startswith(f"table t of {settings['uri']}: the timestamp column 'at' holds int64: ")


def test_times_as_text(tmp_path: Path) -> None:
    """With other offsets, in another order than their texts; SQLite is asked for the days around the window."""
    times = ["2024-02-29T23:30:00-01:00", "2024-03-01", "2024-03-01 23:59:59.999999", "2024-03-02T00:30+01:00"]
    outside = ["2024-02-29T23:59:59Z", "2024-03-02T00:00:00", "2024-03-01T00:59+01:00"]
    unreadable = ["never", "20"]
    values = ", ".join(f"('{t}', {i})" for i, t in enumerate([*times, *outside, *unreadable]))
    create = ('CREATE TABLE t ("at" VARCHAR(40), x INT)', f"INSERT INTO t VALUES {values}, (NULL, 99)")
    for settings in (sqlite(tmp_path / "a.sqlite", *create), duck(tmp_path / "a.duckdb", *create)):
        found = read({**settings, "timestamp": "at"}, ["x"], DAY)
        usable = found.filter(found["at"].is_valid())
        assert sorted(usable["x"].to_pylist()) == [0, 1, 2, 3]
        assert read({**settings, "timestamp": "at"}, ["x"])["at"].null_count == 3


def test_values_of_sqlite_that_do_not_fit_their_column(tmp_path: Path) -> None:
    create = "CREATE TABLE t (x REAL, n INT, ok BOOLEAN, name TEXT)"
    for column, value, what in (
        ("x", "'fast'", "'fast' is not a number"),
        ("x", "'1_000'", "'1_000' is not a number"),
        ("n", "1.5", "1.5 is not a whole number"),
        ("ok", "2", "2 is not true or false (1 or 0)"),
        ("name", "x'ff00'", "b'\\xff\\x00' is not text"),
    ):
        path = tmp_path / f"{column}{len(value)}.sqlite"
        settings = sqlite(
            path, create, "INSERT INTO t VALUES (1, 1, 1, 'a')", f"INSERT INTO t ({column}) VALUES ({value})"
        )
        said = refused(settings, [column], SchemaError)
        assert said == f"table t of sqlite://{path}: column '{column}': {what}"


def test_columns_that_sqlite_does_not_declare(tmp_path: Path) -> None:
    settings = sqlite(
        tmp_path / "a.sqlite",
        "CREATE TABLE t (a, b, c, d, e)",
        "INSERT INTO t VALUES (NULL, 2, 1, NULL, '2024-03-01')",
        "INSERT INTO t VALUES (1.5, 3, 0, NULL, NULL)",
    )
    query = {**settings, "table": None, "query": "SELECT a, b + 1 AS b, c, d, e, 'x' || b AS f FROM t ORDER BY b"}
    kinds: dict[str, Kind] = {"c": "boolean", "e": "datetime", "b": "numeric"}
    found = read(query, ["a", "b", "c", "d", "e", "f"], kinds=kinds)
    assert found.to_pydict() == {
        "a": [None, 1.5],
        "b": [3.0, 4.0],
        "c": [True, False],
        "d": [None, None],
        "e": [START, None],
        "f": ["x2", "x3"],
    }
    assert "there is no file" in refused({**settings, "uri": f"sqlite://{tmp_path}/gone"})
    (tmp_path / "junk").write_bytes(b"x" * 5000)
    assert "file is not a database" in refused({**settings, "uri": f"sqlite://{tmp_path}/junk"})
    assert "no such table: nope" in refused({**settings, "table": "nope"})


def test_a_driver_by_its_name(tmp_path: Path) -> None:
    settings = sqlite(tmp_path / "a.sqlite", "CREATE TABLE t (x INT)", "INSERT INTO t VALUES (1), (2)")
    found = read({**settings, "uri": str(tmp_path / "a.sqlite"), "driver": "sqlite"}, ["x"])
    assert found.to_pydict() == {"x": [1, 2]}
    said = refused({**settings, "uri": "x", "driver": "no_such_driver"})
    assert "there is no ADBC driver 'no_such_driver': `pip install adbc-driver-no_such_driver`" in said


@pytest.mark.parametrize(
    ("library", "settings", "extra"),
    [
        ("adbc_driver_postgresql.dbapi", {"type": "sql", "uri": "postgresql://me@h/d", "table": "t"}, "sql"),
        ("adbc_driver_manager.dbapi", {"type": "sql", "uri": "x", "driver": "snowflake", "table": "t"}, "sql"),
        ("duckdb", {"type": "sql", "uri": "duckdb://a", "table": "t"}, "sql"),
        ("deltalake", {"type": "delta", "path": "a"}, "delta"),
        ("pyiceberg.catalog", {"type": "iceberg", "catalog": {"type": "sql"}, "table": "a.b"}, "iceberg"),
    ],
)
def test_a_library_that_is_not_installed(
    library: str, settings: dict[str, Any], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        assert name == library
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(module, "import_module", missing)
    assert refused(settings).endswith(f"this monitor needs {library}: pip install 'drift-monitor[{extra}]'")


# -- Delta and Iceberg ---------------------------------------------------------------------------------


def moments(n: int) -> pa.Table:
    times = pa.array([START + timedelta(hours=i) for i in range(n)], pa.timestamp("us", "UTC"))
    return pa.table({"at": times, "x": pa.array(range(n), pa.int64())})


def test_a_delta_table_stays_as_it_was_when_it_was_opened(tmp_path: Path) -> None:
    deltalake.write_deltalake(tmp_path / "d", moments(30))
    source = SOURCES["delta"](DeltaSource(type="delta", path=str(tmp_path / "d"), timestamp="at"), {})
    deltalake.write_deltalake(tmp_path / "d", moments(30), mode="append")
    (split,) = source.splits(None)
    assert (split.version, split.rows) == (0, 30)
    assert sum(batch.num_rows for batch in source.batches(split, ["x"])) == 30
    later = SOURCES["delta"](DeltaSource(type="delta", path=str(tmp_path / "d"), timestamp="at"), {})
    with pytest.raises(SourceError, match="is at version 1 now, and was at 0"):
        list(later.batches(split, ["x"]))


def test_files_of_a_delta_table_outside_the_window_are_not_opened(tmp_path: Path) -> None:
    table = moments(72)
    for day in range(3):
        deltalake.write_deltalake(tmp_path / "d", table.slice(day * 24, 24), mode="append")
    source = SOURCES["delta"](DeltaSource(type="delta", path=str(tmp_path / "d"), timestamp="at"), {})
    (split,) = source.splits(DAY)
    for path in (tmp_path / "d").glob("*.parquet"):
        if path.name != split.path:
            path.unlink()
    assert [b.num_rows for b in source.batches(split, ["x"])] == [24]


def test_partitions_of_a_delta_table_with_odd_values(tmp_path: Path) -> None:
    odd = ["Ünï", "b b", "x%20y", 'q/"z', "a=b"]
    table = moments(5).append_column("odd", pa.array(odd))
    deltalake.write_deltalake(tmp_path / "d", table, partition_by=["odd"])
    found = read({"type": "delta", "path": str(tmp_path / "d"), "timestamp": "at"}, ["odd", "x"], DAY)
    assert {row["x"]: row["odd"] for row in found.to_pylist()} == dict(enumerate(odd))


def test_a_column_that_a_delta_table_got_later_is_null_before(tmp_path: Path) -> None:
    deltalake.write_deltalake(tmp_path / "d", moments(2))
    wider = moments(2).append_column("new", pa.array(["a", "b"]))
    deltalake.write_deltalake(tmp_path / "d", wider, mode="append", schema_mode="merge")
    found = read({"type": "delta", "path": str(tmp_path / "d"), "timestamp": "at"}, ["new"])
    assert sorted(found["new"].to_pylist(), key=str) == [None, None, "a", "b"]


def of_table(table: Path, columns: str, where: str = "true") -> list[dict[str, Any]]:
    """Rows as delta-rs itself reads them, in the order of `x`."""
    query = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(table))
    found = pa.table(query.execute(f"SELECT {columns} FROM t WHERE {where} ORDER BY x"))
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


@pytest.mark.parametrize("row_groups", [None, 10])
def test_rows_that_a_deletion_vector_deletes_are_not_there(tmp_path: Path, row_groups: int | None) -> None:
    """Whole and in a window, from files of one row group and of many, in partitions with odd names."""
    table, odd = tmp_path / "d", ["b b", "x%20y", "a=b"]
    rows = moments(90).append_column("odd", pa.array(odd * 30))
    rows = rows.set_column(0, "at", pc.if_else(pc.equal(rows["x"], 6), None, rows["at"]))
    options = deltalake.WriterProperties(max_row_group_size=row_groups)
    deltalake.write_deltalake(table, rows, partition_by=["odd"], writer_properties=options)
    settings = {"type": "delta", "path": str(table), "timestamp": "at"}
    first, second, _ = data_files(table)
    write_vectors(table, {first: [0, 9, 10, 29], second: [3]})
    found = read(settings, ["x", "odd"]).sort_by("x").to_pylist()
    wanted = of_table(table, "x, odd, at")
    assert [row["x"] for row in found] == [row["x"] for row in wanted]
    assert [row["odd"] for row in found] == [row["odd"] for row in wanted]
    assert len(found) == 85
    window = Window(start=START, end=START + timedelta(hours=40))
    within = of_table(table, "x", "at < TIMESTAMP '2024-03-02T16:00:00Z'")
    assert sorted(read(settings, ["x"], window)["x"].to_pylist()) == [row["x"] for row in within]
    write_vectors(table, {first: list(range(30)), second: []})
    assert sorted(read(settings, ["x"])["x"].to_pylist()) == [row["x"] for row in of_table(table, "x")]


def test_what_delta_refuses(tmp_path: Path) -> None:
    said = refused({"type": "delta", "path": str(tmp_path / "none")})
    assert said.startswith(f"Delta table '{tmp_path}/none' cannot be read: ")
    deltalake.write_deltalake(tmp_path / "d", moments(2))
    log = tmp_path / "d" / "_delta_log" / f"{0:020d}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "protocol" in line:
            line["protocol"] = {
                "minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"],
            }  # fmt: skip
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = refused({"type": "delta", "path": str(tmp_path / "d")})
    assert "columnMapping" in said
    assert "delta_scan" in said


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Any]:
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{tmp_path}/catalog.db",
        "warehouse": f"file://{tmp_path}/warehouse",
    }
    with closing(load_catalog("default", **properties)) as found:
        found.create_namespace("logs")
        yield found


def test_an_iceberg_table_stays_as_it_was_and_forgets_what_was_deleted(catalog: Any) -> None:
    table = catalog.create_table("logs.rows", schema=moments(1).schema)
    settings = {"type": "iceberg", "catalog": dict(catalog.properties), "table": "logs.rows", "timestamp": "at"}
    assert read(settings, ["x"]).num_rows == 0
    table.append(moments(48))
    source = SOURCES["iceberg"](IcebergSource.model_validate(settings), {})
    table.append(moments(1))
    (split,) = source.splits(DAY)
    assert split.rows == 48
    assert [b.num_rows for b in source.batches(split, ["x"])] == [24]
    table.delete("x < 10")
    assert sorted(read(settings, ["x"], DAY)["x"].to_pylist()) == list(range(10, 24))
    later = SOURCES["iceberg"](IcebergSource.model_validate(settings), {})
    with pytest.raises(SourceError, match="is at snapshot"):
        list(later.batches(split, ["x"]))


def test_a_renamed_column_of_an_iceberg_table_is_found_in_old_files(catalog: Any) -> None:
    table = catalog.create_table("logs.rows", schema=moments(1).schema)
    table.append(moments(3))
    with table.update_schema() as update:
        update.rename_column("x", "y")
    settings = {"type": "iceberg", "catalog": dict(catalog.properties), "table": "logs.rows", "timestamp": "at"}
    assert read(settings, ["y"])["y"].to_pylist() == [0, 1, 2]


def test_what_iceberg_refuses(catalog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_TOKEN", "a secret")
    settings = {"type": "iceberg", "catalog": dict(catalog.properties), "table": "logs.nope"}
    assert "Table does not exist: logs.nope" in refused(settings)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    rest = {"type": "rest", "uri": address, "token": "${CATALOG_TOKEN}"}
    said = refused({**settings, "catalog": rest})
    assert "Connection refused" in said
    assert "secret" not in said
    assert "not a valid CatalogType" in refused({**settings, "catalog": {"type": "zip"}})
