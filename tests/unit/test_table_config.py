"""What a configuration may say of sources in tables and buckets, and that no secret is in it or in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from drift_monitor.config.file import examine, parse
from drift_monitor.config.models import Monitor
from drift_monitor.config.problem import Problem

HEAD = "monitors:\n  m:\n    reference: r\n    schedule: {every: 1h}\n    source:\n"
FILE = Path("/etc/drift/c.yaml")


def source(*lines: str) -> Monitor:
    return parse(HEAD + "".join(f"      {line}\n" for line in lines), FILE).monitors["m"]


def problems(*lines: str, more: str = "") -> list[Problem]:
    text = HEAD + "".join(f"      {line}\n" for line in lines) + more
    config, _, found = examine(text, FILE)
    assert config is None
    return found


SQL = "type: sql"


@pytest.mark.parametrize(
    "lines",
    [
        (SQL, "uri: postgresql://me:hunter2@db.example/d", "table: t"),
        (SQL, "uri: postgresql://me:hunter2${X}@db.example/d", "table: t"),
        (SQL, "uri: postgresql://db.example/d?user=me&password=hunter2", "table: t"),
        (SQL, "uri: x", "driver: snowflake", "options: {adbc.snowflake.sql.auth_token: hunter2}", "table: t"),
        ("type: delta", "path: s3://b/t", "storage_options: {AWS_SECRET_ACCESS_KEY: hunter2}"),
        ("type: iceberg", "table: a.b", "catalog: {uri: 'postgresql://me:hunter2@db/c'}"),
        ("type: iceberg", "table: a.b", "catalog: {type: rest, credential: 'id:hunter2'}"),
        ("type: iceberg", "table: a.b", "catalog: {s3.secret-access-key: hunter2}"),
        ("type: iceberg", "table: a.b", "catalog: {adls.account-key: hunter2}"),
    ],
)  # fmt: skip
def test_a_secret_in_the_file_is_refused_and_not_repeated(lines: tuple[str, ...]) -> None:
    (problem,) = problems(*lines)
    assert "must not stand in the file" in problem.message
    assert "${ITS_NAME}" in problem.message
    assert "hunter2" not in str(problem)
    assert problem.path.startswith("monitors.m.source")


def test_variables_and_files_hold_secrets() -> None:
    monitor = source(SQL, "uri: postgresql://me:${PW}@db.example/d?sslmode=require", "table: t")
    assert "${PW}" in monitor.model_dump_json()  # what goes to a child and to the log
    monitor = source(SQL, "uri: postgresql://me@db.example/d", "password_file: pw", "table: t")
    assert monitor.source.password_file == Path("/etc/drift/pw")
    assert source(SQL, "uri: '${DATABASE_URL}'", "table: t", "sample: 5").source.sample == 5
    source(
        "type: delta", "path: s3://b/t", "storage_options: {AWS_ACCESS_KEY_ID: a, AWS_SECRET_ACCESS_KEY: '${S}'}"
    )
    source("type: iceberg", "table: a.b", "catalog: {uri: 'postgresql://me:${PW}@db/c', s3.access-key-id: a}")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            (SQL, "uri: mysql://db/x", "table: t"),
            "uri must begin with one of postgresql://, postgres://, duckdb://, ",
        ),
        ((SQL, "uri: duckdb://x"), "give exactly one of `table` and `query`"),
        ((SQL, "uri: duckdb://x", "table: t", "query: SELECT 1"), "give exactly one of `table` and `query`"),
        ((SQL, "uri: duckdb://x", "table: a..b"), "table must be a name such as flights or public.flights"),
        ((SQL, "uri: duckdb://x", "table: 'a\"b'"), "table must be a name such as flights or public.flights"),
        ((SQL, "uri: duckdb://x", "table: t", "sample: 10"), "`sample` is for tables of PostgreSQL"),
        ((SQL, "uri: postgresql://h/d", "query: SELECT 1", "sample: 10"), "`sample` is for tables of PostgreSQL"),
        ((SQL, "uri: sqlite://x", "table: t", "password_file: p"), "`password_file` is for PostgreSQL"),
        ((SQL, "uri: duckdb://x", "table: t", "options: {a: b}"), "`options` are those of a `driver`"),
        (("path: gs://b/x.parquet",), "files at gs:// cannot be read"),
        (
            ("path: x.parquet", "region: eu-west-1"),
            "`endpoint` and `region` are for a `path` that begins with s3://",
        ),
        (("path: s3://b/x", "endpoint: minio:9000"), "an endpoint is scheme and host"),
        (
            ("type: sqlite", "path: x"),
            "must be one of files, sql, delta, iceberg, spark, push, kafka: did you mean `sql`?",
        ),
        (("path: x", "tpye: sql"), "unknown key, did you mean `type`?"),
    ],
)
def test_what_does_not_go_together(lines: tuple[str, ...], message: str) -> None:
    assert message in problems(*lines)[0].message


@pytest.mark.parametrize(
    ("lines", "field", "value"),
    [
        ((SQL, "uri: sqlite://log.db", "table: t"), "uri", "sqlite:///etc/drift/log.db"),
        ((SQL, "uri: duckdb:///data/log.db", "table: t"), "uri", "duckdb:///data/log.db"),
        ((SQL, "uri: duckdb://", "query: SELECT 1"), "uri", "duckdb://"),
        ((SQL, "uri: 'duckdb://${HOME}/x'", "query: SELECT 1"), "uri", "duckdb://${HOME}/x"),
        ((SQL, "uri: postgresql://h/d", "table: t"), "uri", "postgresql://h/d"),
        (("type: delta", "path: table"), "path", "/etc/drift/table"),
        (("type: delta", "path: s3://bucket/table"), "path", "s3://bucket/table"),
        (("path: s3://bucket/*.parquet",), "path", "s3://bucket/*.parquet"),
        (("path: live/*.parquet",), "path", "/etc/drift/live/*.parquet"),
    ],
)
def test_paths_are_relative_to_the_file(lines: tuple[str, ...], field: str, value: str) -> None:
    assert getattr(source(*lines).source, field) == value


@pytest.mark.parametrize(
    "lines", [("type: delta", "path: t"), ("path: s3://b/x",), (SQL, "uri: duckdb://x", "table: t")]
)
def test_no_training_set_is_refreshed_from_a_table(lines: tuple[str, ...]) -> None:
    more = "    refresh: {enabled: true}\n    columns: {id: i, label: l}\n"
    (problem,) = problems(*lines, more=more)
    assert "a training set is refreshed from files on this machine: copy the labelled live rows" in problem.message
