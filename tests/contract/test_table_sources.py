"""The same rows through every source give the same profile, bit for bit; errors say where."""

from __future__ import annotations

import dataclasses
import pickle
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import adbc_driver_postgresql.dbapi
import deltalake
import duckdb
import numpy as np
import object_server
import postgres_server
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from plain_values import plain
from pyiceberg.catalog import load_catalog

from drift_monitor.config.sources import FilesSource
from drift_monitor.config.tables import DeltaSource, IcebergSource, SqlSource
from drift_monitor.core.arrow import numbers
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.fold import category_counts, profile_buckets
from drift_monitor.core.folding import Folding, lost_rows
from drift_monitor.core.packed import Layout
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Spec
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources import SOURCES, Source
from drift_monitor.sources.adbc import open_postgres
from drift_monitor.sources.parquet_files import BATCH_ROWS

START = datetime(2024, 3, 30, tzinfo=UTC)
ROWS = 3000  # one a minute: two days, with the hour that Europe skips in between
HOSTILE = 'we"ird; drop table rows; --'
TABLE = 'rows of "me"; --'
KINDS: dict[str, Kind] = {
    "speed": "numeric", "big": "numeric", "price": "numeric", "seen": "datetime", "carrier": "categorical",
    "late": "boolean", HOSTILE: "numeric", "id": "categorical",
}  # fmt: skip


@cache
def rows() -> pa.Table:
    """Numbers with nulls, NaN, infinities, whole ones past 2**31, decimals, text, truth, times of both kinds."""
    rng = np.random.default_rng(5)
    i = np.arange(ROWS)
    speed = rng.normal(size=ROWS)
    speed[7::50], speed[9::400], speed[10::400] = np.nan, np.inf, -np.inf
    cents = rng.integers(-(10**8), 10**8, ROWS).tolist()
    moments = [START + timedelta(minutes=k) for k in range(ROWS)]
    texts = ("AA", "b b", "Ünï", "quo'te\"", "", "tab\t", "NaN", "a;b--")
    return pa.table(
        {
            "at": pa.array(moments, pa.timestamp("us", "UTC")),
            "wall": pa.array([m.replace(tzinfo=None) for m in moments], pa.timestamp("us")),
            "id": pa.array([f"{k:05d}" for k in i]),
            "speed": pa.array(speed, mask=i % 10 == 3),
            "big": pa.array((i - 1000) * 2**33 + 2**53 * (i % 2), mask=i % 11 == 5),
            "price": pa.array([Decimal(c) / 100 for c in cents], pa.decimal128(12, 2)),
            "seen": pa.array([m.replace(tzinfo=None, second=7) for m in moments], pa.timestamp("us")),
            "carrier": pa.array([None if k % 13 == 4 else texts[k % 8] for k in i]),
            "late": pa.array([None if k % 17 == 2 else bool(k % 3) for k in i]),
            HOSTILE: pa.array(rng.integers(0, 1000, ROWS)),
        }
    )


@cache
def specs() -> list[Spec]:
    """Cells of the first half of the rows, so that the second half has what is out of range and new."""
    table, found = rows(), list[Spec]()
    for name, kind in KINDS.items():
        column = table[name].slice(0, ROWS // 2).combine_chunks()
        if kind in ("numeric", "datetime"):
            found.append(NumericSpec.fit(name, numbers(column), kind=kind, edges=40))
        else:
            found.append(CategoricalSpec.fit(name, category_counts(column), kind=kind, limit=5))
    return found


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    if postgres_server.programs() is None:
        pytest.skip("PostgreSQL is not installed (initdb, pg_ctl)")
    with postgres_server.running() as port:
        yield port


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an S3 with an empty bucket `logs`; credentials are in the environment."""
    with pytest.MonkeyPatch.context() as patch, object_server.running() as endpoint:
        for name, value in object_server.CREDENTIALS.items():
            patch.setenv(name, value)
        object_server.client(endpoint).create_bucket(Bucket="logs")
        yield endpoint


@dataclasses.dataclass
class Place:
    """Where a source's rows can be put."""

    folder: Path
    request: pytest.FixtureRequest

    def postgres(self) -> int:
        port: int = self.request.getfixturevalue("server")
        return port

    def bucket(self) -> str:
        endpoint: str = self.request.getfixturevalue("bucket")
        return endpoint


Write = Callable[[pa.Table, Place], dict[str, Any]]
"""Puts rows somewhere and says how a configuration names them."""


def files(table: pa.Table, place: Place) -> dict[str, Any]:
    for part in range(3):
        pq.write_table(table.slice(part * 1000, 1000), place.folder / f"{part}.parquet", row_group_size=300)
    return {"type": "files", "path": str(place.folder / "*.parquet")}


def s3(table: pa.Table, place: Place) -> dict[str, Any]:
    files(table, place)
    endpoint = place.bucket()
    for path in place.folder.glob("*.parquet"):
        object_server.client(endpoint).upload_file(str(path), "logs", f"a b/day={path.stem}/{path.name}")
    return {"type": "files", "path": "s3://logs/a b/**/*.parquet", "endpoint": endpoint, "region": "us-east-1"}


def delta(table: pa.Table, place: Place) -> dict[str, Any]:
    for part in range(3):
        deltalake.write_deltalake(place.folder / "delta", table.slice(part * 1000, 1000), mode="append")
    return {"type": "delta", "path": str(place.folder / "delta")}


def delta_in_a_bucket(table: pa.Table, place: Place) -> dict[str, Any]:
    options = {
        "AWS_ENDPOINT_URL": place.bucket(),
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": object_server.CREDENTIALS["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": object_server.CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        "AWS_REGION": "us-east-1",
    }
    deltalake.write_deltalake("s3://logs/delta", table, storage_options=options)
    hidden = {**options, "AWS_SECRET_ACCESS_KEY": "${AWS_SECRET_ACCESS_KEY}"}
    return {"type": "delta", "path": "s3://logs/delta", "storage_options": hidden}


def delta_by_partitions(table: pa.Table, place: Place) -> dict[str, Any]:
    deltalake.write_deltalake(place.folder / "delta", table, partition_by=["late"])
    return {"type": "delta", "path": str(place.folder / "delta")}


def iceberg(table: pa.Table, place: Place) -> dict[str, Any]:
    properties = {
        "type": "sql",
        "uri": f"sqlite:///{place.folder}/catalog.db",
        "warehouse": f"file://{place.folder}/warehouse",
    }
    with closing(load_catalog("test", **properties)) as catalog:
        catalog.create_namespace("logs")
        made = catalog.create_table(f"logs.{TABLE}", schema=table.schema)
        for part in range(3):
            made.append(table.slice(part * 1000, 1000))
    return {"type": "iceberg", "catalog": properties, "table": f"logs.{TABLE}", "name": "test"}


def duckdb_table(table: pa.Table, place: Place) -> dict[str, Any]:
    with closing(duckdb.connect(place.folder / "rows.duckdb")) as connection:
        connection.register("given", table)
        connection.execute(f"CREATE TABLE {sql_name(TABLE)} AS SELECT * FROM given")
    return {"type": "sql", "uri": f"duckdb://{place.folder}/rows.duckdb", "table": f"main.{sql_name(TABLE)}"}


def duckdb_query(table: pa.Table, place: Place) -> dict[str, Any]:
    files(table, place)
    query = f"SELECT * FROM read_parquet('{place.folder}/*.parquet') -- all of them"
    return {"type": "sql", "uri": "duckdb://", "query": query}


def sqlite_table(table: pa.Table, place: Place) -> dict[str, Any]:
    types = {"numeric": "REAL", "categorical": "TEXT", "boolean": "BOOLEAN", "datetime": "TIMESTAMP"}
    declared = {"at": "TIMESTAMP", "wall": "TIMESTAMP", "big": "BIGINT", "price": "DECIMAL(12, 2)"}
    columns = [f"{sql_name(n)} {declared.get(n) or types[KINDS[n]]}" for n in table.column_names]
    texts = [[_sqlite_value(v) for v in row.values()] for row in table.to_pylist()]
    with closing(sqlite3.connect(place.folder / "rows.sqlite")) as connection:
        connection.execute(f"CREATE TABLE {sql_name(TABLE)} ({', '.join(columns)})")
        connection.executemany(f"INSERT INTO {sql_name(TABLE)} VALUES ({', '.join('?' * len(columns))})", texts)
        connection.commit()
    return {"type": "sql", "uri": f"sqlite://{place.folder}/rows.sqlite", "table": sql_name(TABLE)}


def _sqlite_value(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return str(value) if isinstance(value, Decimal) else value


def postgres_table(table: pa.Table, place: Place) -> dict[str, Any]:
    port = place.postgres()
    with closing(adbc_driver_postgresql.dbapi.connect(postgres_server.uri(port))) as connection:
        with closing(connection.cursor()) as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {sql_name(TABLE)}")
            cursor.adbc_ingest(TABLE, table, mode="create")
        connection.commit()
    password = place.folder / "password"
    password.write_text(postgres_server.PASSWORD + "\n")
    return {
        "type": "sql",
        "uri": f"postgresql://postgres@127.0.0.1:{port}/postgres",
        "password_file": password,
        "table": f"public.{sql_name(TABLE)}",
    }


def postgres_query(table: pa.Table, place: Place) -> dict[str, Any]:
    settings = postgres_table(table, place)
    return {**settings, "table": None, "query": f"SELECT * FROM {sql_name(TABLE)};"}


def sql_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


DATABASES: tuple[Write, ...] = (
    duckdb_table,
    duckdb_query,
    sqlite_table,
    pytest.param(postgres_table, marks=pytest.mark.server),
    pytest.param(postgres_query, marks=pytest.mark.server),
)
WRITERS: tuple[Write, ...] = (
    files,
    s3,
    delta,
    delta_by_partitions,
    delta_in_a_bucket,
    iceberg,
    *DATABASES,
)
MODELS = {"files": FilesSource, "sql": SqlSource, "delta": DeltaSource, "iceberg": IcebergSource}


def opened(settings: dict[str, Any], **more: Any) -> Source[Any]:
    config = MODELS[settings["type"]].model_validate({**settings, **more})
    return SOURCES[settings["type"]](config, KINDS)


@pytest.fixture(params=WRITERS, ids=lambda write: write.__name__, scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    table = rows()
    if request.param is sqlite_table:  # which cannot hold NaN
        speed = table["speed"].combine_chunks()
        table = table.set_column(3, "speed", pc.if_else(pc.is_nan(speed), None, speed))
    found: dict[str, Any] = request.param(table, Place(tmp_path_factory.mktemp("rows"), request))
    return {**found, "rows": table}


@pytest.fixture
def settings(written: dict[str, Any]) -> dict[str, Any]:
    return dict(written)


def batches(source: Source[Any], window: Window | None, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for split in pickle.loads(pickle.dumps(source.splits(window))):
        for batch in source.batches(split, columns):
            assert 0 < batch.num_rows <= BATCH_ROWS
            yield batch


def profile(found: Iterator[pa.RecordBatch], timestamp: str) -> Any:
    made = profile_buckets(specs(), found, timestamp=timestamp, id_column="id", bucket=timedelta(hours=1))
    return plain(made)


def expected(table: pa.Table, window: Window | None, timestamp: str, times: list[datetime]) -> Any:
    """The profile of the rows themselves, of which Python says which lie in the window."""
    at = table.schema.get_field_index(timestamp)
    table = table.set_column(at, timestamp, pa.array(times, pa.timestamp("us", "UTC")))
    if window is not None:
        table = table.filter(pa.array([window.start <= t < window.end for t in times]))
    return profile(iter(table.combine_chunks().to_batches()), timestamp)


@pytest.mark.parametrize("window", [None, (0, 24), (5, 6), (49.5, 80)], ids=str)
def test_the_same_rows_have_the_same_profile(settings: dict[str, Any], window: tuple[float, float] | None) -> None:
    table = settings.pop("rows")
    span = None
    if window is not None:
        span = Window(start=START + timedelta(hours=window[0]), end=START + timedelta(hours=window[1]))
    source = opened(settings, timestamp="at")
    assert set(source.columns(span).names) == set(table.column_names)
    found = profile(batches(source, span, list(KINDS)), "at")
    wanted = expected(table, span, "at", table["at"].to_pylist())
    assert found == wanted
    assert len(wanted) == (50 if span is None else {24: 24, 6: 1, 80: 1}[int(window[1])])


@pytest.mark.parametrize("written", DATABASES, ids=lambda write: write.__name__, indirect=True)
@pytest.mark.parametrize(("timestamp", "timezone"), [("at", "UTC"), ("wall", "Europe/Berlin")])
def test_a_database_read_by_buckets_has_the_same_profile(
    settings: dict[str, Any], timestamp: str, timezone: str
) -> None:
    del settings["rows"]
    hour, span = timedelta(hours=1), Window(start=START + timedelta(hours=5), end=START + timedelta(hours=27))
    columns = [name for name in KINDS if name != "seen"]
    directly = opened(settings, timestamp=timestamp, timezone=timezone)
    settled: Any = opened(settings, timestamp=timestamp, timezone=timezone, lateness=hour)
    units = settled.units(span, columns, hour)
    assert len({unit.identity for unit in units}) == 22
    assert units == settled.units(span, columns, hour)
    whole = [split for split, _ in settled.joined(units, 9)]
    assert len(whole) == 3
    for splits in (whole, units):
        found = (batch for split in splits for batch in settled.batches(split, columns))
        assert profile(found, timestamp) == profile(batches(directly, span, columns), timestamp)


def pushed_rows() -> pa.Table:
    """The rows, and numbers that are hard to count: of all sizes, halves between two units, small types, texts."""
    rng = np.random.default_rng(6)
    i = np.arange(ROWS)
    far = np.ldexp(rng.normal(size=ROWS), rng.integers(-1070, 1023, ROWS))
    far[::100], far[1::100], far[2::100] = 0.0, -0.0, 5e-324
    table = rows().drop_columns(["seen"]).append_column("far", pa.array(far))
    table = table.append_column("halves", pa.array(rng.integers(-(2**34), 2**34, ROWS) / 2.0))
    table = table.append_column(
        "spike", pa.array(np.where(i % 100, rng.normal(size=ROWS), 1e300), mask=i % 7 == 1)
    )
    table = table.append_column("small", pa.array(rng.integers(-5, 5, ROWS) / np.float32(10), pa.float32()))
    exact = [Decimal(c) / 10**20 for c in rng.integers(-(2**62), 2**62, ROWS).tolist()]
    table = table.append_column("exact", pa.array(exact, pa.decimal128(30, 20)))
    return table.append_column("late_number", table["late"])


def pushed_specs(table: pa.Table) -> list[Spec]:
    """Cells of the first half, by the least edges that there can be."""
    names = ["speed", "big", "price", HOSTILE, "far", "halves", "spike", "small", "exact", "late_number"]
    cut = {name: table[name].slice(0, ROWS // 2).combine_chunks() for name in table.column_names}
    values = {name: numbers(cut[name]) for name in names}
    values["spike"] = values["spike"][values["spike"] < 1e299]  # of live rows alone, so past all units
    # as a CSV of training rows has them; and two edges that are one float32, and one past them all
    values["small"] = np.concatenate((np.round(values["small"], 1), [np.nextafter(0.1, 1), 1e300]))
    found: list[Spec] = [NumericSpec.fit(name, values[name], edges=20) for name in names]
    found[names.index("halves")] = dataclasses.replace(found[names.index("halves")], origin=0.0, unit=1.0)
    return found + [CategoricalSpec.fit(n, category_counts(cut[n]), limit=5) for n in ("carrier", "late")]


@pytest.mark.parametrize("place", ["duckdb", pytest.param("postgres", marks=pytest.mark.server)])
def test_a_database_that_counts_finds_the_bits_of_reading_its_rows(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    table = pushed_rows()
    write = duckdb_table if place == "duckdb" else postgres_table
    settings = write(table, Place(tmp_path, request))
    layout = Layout(tuple(pushed_specs(table)), None)
    for timestamp, window in [("at", None), ("at", (0, 24)), ("wall", (49.5, 80)), (None, None)]:
        counted: Any = opened(settings, timestamp=timestamp, pushdown=place)
        read = opened(settings, timestamp=timestamp)
        span, starts = None, [0]
        if window is not None:
            span = Window(start=START + timedelta(hours=window[0]), end=START + timedelta(hours=window[1]))
            begin = int(span.start.timestamp()) * 10**6
            starts = [begin, begin + 10**6 * 600, begin + 10**6 * 3600 * 30]  # the last may be empty
        columns = [spec.column for spec in layout.specs] + ([] if timestamp is None else [timestamp])
        folding = Folding(layout, tuple(columns), timestamp, None, np.array(starts))
        wanted, found = folding(batches(read, span, columns)), counted.fold(span, folding)
        assert plain(folding.unpacked(found)) == plain(folding.unpacked(wanted))
        assert len(wanted.parts) > 0
        assert lost_rows(found.lost) == lost_rows(wanted.lost) == 0
        with pytest.raises(SourceError, match="its rows do not leave it"):
            counted.batches(counted.splits(span)[0], columns)


@pytest.mark.server
def test_all_statements_of_a_connection_to_postgresql_see_the_same_rows(server: int) -> None:
    count = "SELECT count(*) AS n, sum(x) AS s FROM seen_once"
    with closing(adbc_driver_postgresql.dbapi.connect(postgres_server.uri(server), autocommit=True)) as writer:
        with closing(writer.cursor()) as cursor, open_postgres(postgres_server.uri(server))() as reader:
            cursor.execute("CREATE TABLE seen_once AS SELECT generate_series(1, 10)::bigint AS x")
            first = [batch.to_pydict() for batch in reader.run(count)]
            cursor.execute("INSERT INTO seen_once VALUES (11)")
            cursor.execute("UPDATE seen_once SET x = 100 WHERE x = 1")
            assert [batch.to_pydict() for batch in reader.run(count)] == first
        with open_postgres(postgres_server.uri(server))() as reader:
            assert next(reader.run("SELECT count(*) AS n FROM seen_once"))["n"].to_pylist() == [11]


def test_clocks_without_a_zone_are_read_in_the_sources(settings: dict[str, Any]) -> None:
    """Berlin's clocks skip 02:00 to 03:00 on 31 March, which is read with the offset before: as an hour later."""
    table = settings.pop("rows")
    times = [wall.replace(tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC) for wall in table["wall"].to_pylist()]
    skipped = datetime(2024, 3, 31, 1, tzinfo=UTC)
    source = opened(settings, timestamp="wall", timezone="Europe/Berlin")
    columns = [name for name in KINDS if name != "seen"]  # SQLite reads all its texts in the source's zone
    for start, hours in ((skipped, 1), (skipped - timedelta(hours=1), 1), (skipped - timedelta(hours=30), 40)):
        window = Window(start=start, end=start + timedelta(hours=hours))
        found = [row["id"] for batch in batches(source, window, columns) for row in batch.to_pylist()]
        inside = [window.start <= time < window.end for time in times]
        assert sorted(found) == table["id"].filter(pa.array(inside)).to_pylist()
        assert found
    assert len([1 for time in times if skipped <= time < skipped + timedelta(hours=1)]) == 120


def test_only_the_columns_asked_for_are_read(settings: dict[str, Any]) -> None:
    del settings["rows"]
    source = opened(settings, timestamp="at")
    for batch in batches(source, None, [HOSTILE]):
        assert batch.schema.names == [HOSTILE, "at"]
        assert batch.schema.field("at").type == pa.timestamp("us", "UTC")


def test_a_window_elsewhere_is_empty(settings: dict[str, Any]) -> None:
    del settings["rows"]
    source = opened(settings, timestamp="at")
    for year in (1, 2025, 9998):
        window = Window(start=datetime(year, 1, 2, tzinfo=UTC), end=datetime(year, 1, 3, tzinfo=UTC))
        assert list(batches(source, window, ["id"])) == []


def test_a_column_that_is_not_there_is_named(settings: dict[str, Any]) -> None:
    del settings["rows"]
    for timestamp, columns, missing in (("at", ["nope"], "nope"), ("no time", ["id"], "no time")):
        source = opened(settings, timestamp=timestamp)
        with pytest.raises(SchemaError, match=f"no column '{missing}'; it has .*'carrier'"):
            list(batches(source, None, columns))


def nested_rows() -> pa.Table:
    """Structs and vectors, some of them null, beside a column whose name has a dot."""
    rng = np.random.default_rng(6)
    n = 300
    geo = pa.StructArray.from_arrays(
        [pa.array(rng.choice(["a", "b"], n)), pa.array(rng.normal(size=n))], ["city", "x"]
    )
    emb = pa.array([None if k % 7 == 3 else rng.normal(size=4).tolist() for k in range(n)], pa.list_(pa.float64()))
    payload = pa.StructArray.from_arrays([geo, emb], ["geo", "emb"], mask=pa.array(rng.random(n) < 0.1))
    times = pa.array([START + timedelta(minutes=k) for k in range(n)], pa.timestamp("us", "UTC"))
    return pa.table({"at": times, "payload": payload, "payload.y": rng.normal(size=n)})


def test_structs_and_vectors_are_the_same_columns_in_every_table(tmp_path: Path) -> None:
    table = nested_rows()
    pq.write_table(table, tmp_path / "rows.parquet")
    with closing(duckdb.connect(tmp_path / "rows.db")) as connection:
        connection.execute(f"CREATE TABLE rows AS SELECT * FROM '{tmp_path / 'rows.parquet'}'")
    deltalake.write_deltalake(tmp_path / "lake", table)
    catalog = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}"}
    opened = load_catalog("default", **catalog)
    opened.create_namespace("logs")
    opened.create_table("logs.rows", table.schema).append(table)
    configs: list[Any] = [
        FilesSource(path=str(tmp_path / "rows.parquet"), timestamp="at"),
        SqlSource(type="sql", uri=f"duckdb://{tmp_path}/rows.db", table="rows", timestamp="at"),
        DeltaSource(type="delta", path=str(tmp_path / "lake"), timestamp="at"),
        IcebergSource(type="iceberg", catalog=catalog, table="logs.rows", timestamp="at"),
    ]
    names = ["payload.geo.city", "payload.geo.x", "payload.emb.norm", "payload.emb.p0", "payload.y"]
    window = Window(start=START + timedelta(minutes=50), end=START + timedelta(minutes=200))
    found = []
    for config in configs:
        source = SOURCES[config.type](config, {})
        assert [*names, "payload.emb.length"] == [
            n for n in [*names, "payload.emb.length"] if n in source.columns().names
        ]
        batches = [b for split in source.splits(window) for b in source.batches(split, names)]
        found.append({name: [v for b in batches for v in b.column(name).to_pylist()] for name in names})
    assert len(found[0]["payload.y"]) == 150
    assert 0 < found[0]["payload.geo.x"].count(None) < 40
    assert all(each == found[0] for each in found)
