"""Every configuration of docs/sources.md is run as written, but for the addresses of the servers."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import adbc_driver_postgresql.dbapi
import deltalake
import duckdb
import numpy as np
import object_server
import postgres_server
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog

from drift_monitor.config.file import parse
from drift_monitor.core.types import Outcome, Window
from drift_monitor.service.evaluate import CheckRequest, evaluate

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
START = datetime(2024, 3, 1, tzinfo=UTC)
CODES = ["AA", "DL", "UA"]


def rows(days: int, seed: int, start: datetime) -> pa.Table:
    rng, n = np.random.default_rng(seed), days * 1440
    return pa.table(
        {
            "at": pa.array([start + timedelta(minutes=i) for i in range(n)], pa.timestamp("us", "UTC")),
            "speed": rng.normal(100, 10, n),
            "carrier": [CODES[k] for k in rng.integers(0, 3, n)],
            "late": rng.random(n) < 0.3,
        }
    )


def in_row_groups(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    (folder / "live" / "2024").mkdir(parents=True)
    pq.write_table(table, folder / "live" / "2024" / "a.parquet", row_group_size=60)  # one an hour: all are read
    return text


def in_bucket(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    pq.write_table(table, folder / "live.parquet")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in object_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    endpoint: str = request.getfixturevalue("s3")
    client = object_server.client(endpoint)
    client.create_bucket(Bucket="logs")
    client.upload_file(str(folder / "live.parquet"), "logs", "flights/2024/live.parquet")
    assert "https://minio.example:9000" in text
    return text.replace("https://minio.example:9000", endpoint)


def in_postgres(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    port: int = request.getfixturevalue("server")
    with closing(adbc_driver_postgresql.dbapi.connect(postgres_server.uri(port))) as connection:
        with closing(connection.cursor()) as cursor:
            cursor.adbc_ingest("flights", table, mode="create")
        connection.commit()
    (folder / "db-password").write_text(postgres_server.PASSWORD)
    assert "db.example:5432" in text
    return text.replace("db.example:5432", f"127.0.0.1:{port}")


def in_duckdb(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    with closing(duckdb.connect(folder / "warehouse.duckdb")) as connection:
        connection.register("given", table)
        connection.execute("CREATE TABLE carriers AS SELECT DISTINCT carrier, lower(carrier) AS code FROM given")
        connection.execute(
            "CREATE TABLE flights AS SELECT given.at, speed, late, lower(carrier) AS code FROM given"
        )
    return text


def in_duckdb_log(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    with closing(duckdb.connect(folder / "log.duckdb")) as connection:
        connection.register("given", table)
        connection.execute("CREATE TABLE flights AS SELECT * FROM given")
    return text.replace("length: 7d", "length: 1d")


def in_sqlite(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    with closing(sqlite3.connect(folder / "log.sqlite")) as connection:
        connection.execute('CREATE TABLE flights ("at" TEXT, speed REAL, carrier TEXT, late BOOLEAN)')
        values = [(row["at"].isoformat(), row["speed"], row["carrier"], row["late"]) for row in table.to_pylist()]
        connection.executemany("INSERT INTO flights VALUES (?, ?, ?, ?)", values)
        connection.commit()
    return text


def in_delta(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    deltalake.write_deltalake(folder / "lake" / "flights", table)
    return text


def in_iceberg(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    text = text.replace("/srv/lake", str(folder))
    with closing(
        load_catalog("default", type="sql", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")
    ) as catalog:
        catalog.create_namespace("logs")
        catalog.create_table("logs.flights", schema=table.schema).append(table)
    return text


def in_captures(text: str, table: pa.Table, folder: Path, request: pytest.FixtureRequest) -> str:
    def side(data: str) -> dict[str, str]:
        return {"observedContentType": "text/csv", "mode": "INPUT", "data": data, "encoding": "CSV"}

    lines = []
    for row in table.to_pylist():
        sides = {
            "endpointInput": side(f"{row['speed']},{row['carrier']}"),
            "endpointOutput": side(str(row["late"])),
        }
        time = {"eventId": "e", "inferenceTime": row["at"].isoformat()}
        lines.append(json.dumps({"captureData": sides, "eventMetadata": time, "eventVersion": "0"}))
    place = folder / "captured" / "flights" / "AllTraffic" / "2024" / "03" / "01" / "12"
    place.mkdir(parents=True)
    (place / "a.jsonl").write_text("\n".join(lines) + "\n")
    return text.replace("captured/", f"{folder}/captured/")


Put = Callable[[str, pa.Table, Path, pytest.FixtureRequest], str]
PLACES: dict[str, Put] = {
    "sample: 10}": in_row_groups,
    "path: s3://": in_bucket,
    "format: sagemaker": in_captures,
    "uri: postgresql://": in_postgres,
    "uri: duckdb://": in_duckdb,
    "lateness: 6h": in_duckdb_log,
    'uri: "sqlite://log': in_sqlite,
    "type: delta": in_delta,
    "type: iceberg": in_iceberg,
}


@pytest.fixture
def server() -> Iterator[int]:
    if postgres_server.programs() is None:
        pytest.skip("PostgreSQL is not installed (initdb, pg_ctl)")
    with postgres_server.running() as port:
        yield port


@pytest.fixture
def s3() -> Iterator[str]:
    with object_server.running() as endpoint:
        yield endpoint


def test_there_is_a_configuration_for_each_place() -> None:
    assert len(BLOCKS) == len(PLACES) + 1
    for words in PLACES:
        assert len([block for block in BLOCKS if words in block]) == 1


@pytest.mark.parametrize("words", PLACES)
def test_the_configuration_works(words: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (text,) = [block for block in BLOCKS if words in block]
    pq.write_table(rows(14, 1, START), tmp_path / "training.parquet")
    live = START + timedelta(days=14)
    text = PLACES[words](text, rows(3, 2, live), tmp_path, request)
    ((name, monitor),) = parse(text, tmp_path / "drift-monitor.yaml").monitors.items()
    day = Window(start=live + timedelta(days=1), end=live + timedelta(days=2))
    result = evaluate(CheckRequest(name=name, monitor=monitor, state=tmp_path / "state", window=day))
    assert result.verdict is Outcome.OK, result.reason
    assert (result.rows, len(result.features)) == (1440, 3)


def nested(days: int, seed: int, start: datetime) -> pa.Table:
    rng, n = np.random.default_rng(seed), days * 400
    payload = [
        {
            "at": start + timedelta(days=1) * i / 400,
            "age": int(rng.integers(20, 24)),
            "geo": {"city": CODES[rng.integers(0, 3)]},
            "debug": {"host": "a", "load": 0.5},
        }
        for i in range(n)
    ]
    return pa.table({"payload": payload, "emb": list(rng.normal(size=(n, 6)))})


def test_the_configuration_of_columns_works(tmp_path: Path) -> None:
    (text,) = [block for block in BLOCKS if "emb: list" in block]
    pq.write_table(nested(14, 1, START), tmp_path / "training.parquet")
    live = START + timedelta(days=14)
    (tmp_path / "live").mkdir()
    pq.write_table(nested(3, 2, live), tmp_path / "live" / "a.parquet")
    ((name, monitor),) = parse(text, tmp_path / "drift-monitor.yaml").monitors.items()
    day = Window(start=live + timedelta(days=1), end=live + timedelta(days=2))
    result = evaluate(CheckRequest(name=name, monitor=monitor, state=tmp_path / "state", window=day))
    assert (result.verdict, result.rows) == (Outcome.OK, 400), result.reason
    assert {f.name: f.kind for f in result.features if not f.name.startswith("emb.p")} == {
        "payload.age": "categorical",
        "payload.geo.city": "categorical",
        "emb.norm": "numeric",
        "emb.length": "categorical",
    }
    assert len(result.features) == 12
