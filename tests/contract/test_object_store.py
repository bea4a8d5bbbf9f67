"""Files in a bucket: what is found, how text is read there, and what is said when something is wrong."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import object_server
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.sources import FilesSource
from drift_monitor.core.errors import SourceError
from drift_monitor.core.types import Window
from drift_monitor.sources import SOURCES, object_store
from drift_monitor.sources.files import Files

START = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, object_server.running() as address:
        for name, value in object_server.CREDENTIALS.items():
            patch.setenv(name, value)
        yield address


class Bucket:
    """A new bucket."""

    count = 0

    def __init__(self, endpoint: str) -> None:
        Bucket.count += 1
        self.endpoint, self.name = endpoint, f"bucket-{Bucket.count}"
        self.client = object_server.client(endpoint)
        self.client.create_bucket(Bucket=self.name)

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def open(self, path: str, **settings: Any) -> Files:
        config = FilesSource(
            path=f"s3://{self.name}{path}", endpoint=self.endpoint, region="us-east-1", **settings
        )
        source = SOURCES["files"](config, {"x": "numeric", "name": "categorical"})
        assert isinstance(source, Files)
        return source


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    return Bucket(endpoint)


def parquet(hours: range) -> bytes:
    times = pa.array([START + timedelta(hours=h) for h in hours], pa.timestamp("us", "UTC"))
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"at": times, "x": pa.array(list(hours), pa.float64())}), out, row_group_size=24)
    return bytes(out.getvalue())


def read(source: Files, columns: list[str], window: Window | None = None) -> list[dict[str, Any]]:
    return [
        row for split in source.splits(window) for b in source.batches(split, columns) for row in b.to_pylist()
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/logs/a.parquet", ["logs/a.parquet"]),
        ("/logs/*.parquet", ["logs/[x].parquet", "logs/a.parquet", "logs/b.parquet"]),
        ("/logs/[ab].parquet", ["logs/a.parquet", "logs/b.parquet"]),
        ("/logs/[!a].parquet", ["logs/b.parquet"]),
        ("/logs/[x].parquet", ["logs/[x].parquet"]),
        ("/logs/?.parquet", ["logs/a.parquet", "logs/b.parquet"]),
        ("/logs/*/*.parquet", ["logs/day=1/c.parquet"]),
        ("/logs/**/*.parquet", [
            "logs/[x].parquet", "logs/a.parquet", "logs/b.parquet", "logs/day=1/c.parquet",
            "logs/day=1/n/d.parquet",
        ]),
        ("/**/d.parquet", ["logs/day=1/n/d.parquet"]),
        ("/logs/day=1", ["logs/day=1/c.parquet", "logs/day=1/n/d.parquet"]),
        ("/logs/day=1/", ["logs/day=1/c.parquet", "logs/day=1/n/d.parquet"]),
    ],
)  # fmt: skip
def test_which_objects_a_path_names(bucket: Bucket, path: str, found: list[str]) -> None:
    body = parquet(range(1))
    for key in ("a.parquet", "b.parquet", "[x].parquet", "_c.parquet", ".d.parquet", "day=1/c.parquet",
                "day=1/n/d.parquet", "day=1/_tmp/e.parquet", "day=1/_SUCCESS", "day=1/notes.txt"):  # fmt: skip
        bucket.put(f"logs/{key}", body)
    assert bucket.open(path).paths == [f"s3://{bucket.name}/{key}" for key in found]


def test_a_window_reads_the_row_groups_that_overlap_it(bucket: Bucket) -> None:
    bucket.put("day=1/a.parquet", parquet(range(72)))
    source = bucket.open("/", timestamp="at", hive=True)
    window = Window(start=START + timedelta(hours=30), end=START + timedelta(hours=40))
    (split,) = source.splits(window)
    assert (split.row_groups, split.rows) == ((1,), 24)
    assert [row["x"] for row in read(source, ["x", "day"], window)] == list(range(30, 40))
    assert {row["day"] for row in read(source, ["x", "day"], window)} == {1}


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "jsonl.gz"])
def test_text(bucket: Bucket, form: str) -> None:
    csv = 'at,x,name\n2024-03-01T00:00Z,1.5,"a, ""b"""\n2024-03-01T01:00Z,,c\n'
    jsonl = (
        '{"at": "2024-03-01T00:00Z", "x": 1.5, "name": "a, \\"b\\""}\n{"at": "2024-03-01T01:00Z", "name": "c"}\n'
    )
    body = (csv if form.startswith("csv") else jsonl).encode()
    bucket.put(f"a.{form}", gzip.compress(body) if form.endswith("gz") else body)
    assert read(bucket.open("/*", timestamp="at"), ["x", "name"]) == [
        {"x": 1.5, "name": 'a, "b"', "at": START},
        {"x": None, "name": "c", "at": START + timedelta(hours=1)},
    ]


def test_a_bad_line_is_named(bucket: Bucket) -> None:
    bucket.put("b.jsonl", b'{"x": 1}\n{"x": \n')
    with pytest.raises(SourceError, match=r"b\.jsonl', line 2 is not a JSON object"):
        read(bucket.open("/b.jsonl"), ["x"])


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_an_object_that_was_replaced_is_refused(bucket: Bucket, name: str) -> None:
    old, new = (
        (parquet(range(9)), parquet(range(99))) if name == "a.parquet" else (b'{"x": 1}\n', b'{"x": 1}\n' * 9)
    )
    bucket.put(name, old)
    source = bucket.open("/*")
    splits = source.splits(None)
    bucket.put(name, new)
    with pytest.raises(SourceError, match="changed while it was being read"):
        list(source.batches(splits[0], ["x"]))
    bucket.client.delete_object(Bucket=bucket.name, Key=name)
    with pytest.raises(SourceError, match="was there when the check began: there is no object"):
        list(source.batches(splits[0], ["x"]))


def test_what_is_refused(bucket: Bucket, endpoint: str) -> None:
    bucket.put("empty.parquet", b"")
    bucket.put("half.parquet", parquet(range(9))[:-9])
    bucket.put("x.dat", b"1")
    for path, said in (
        ("/none.parquet", "there is no object 's3://.*/none.parquet', nor one below it that ends in .parquet"),
        ("/no/*.parquet", "no object matches 's3://.*/no/\\*.parquet'"),
        ("-not-there/a", "there is no object"),
        ("/x.dat", "cannot tell the format"),
    ):
        with pytest.raises(SourceError, match=said):
            bucket.open(path)
    for path, said in (("/empty.parquet", "is empty"), ("/half.parquet", "is not a whole Parquet file")):
        with pytest.raises(SourceError, match=said):
            bucket.open(path).splits(None)


def test_a_store_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = FilesSource(path="s3://logs/a.parquet", endpoint=address)
    with pytest.raises(SourceError, match=r"'s3://logs/a\.parquet' cannot be read: ") as caught:
        SOURCES["files"](config, {})
    assert "a secret" not in str(caught.value)


def test_an_object_of_the_last_minute_is_another_at_each_look(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be replaced within the second in which it was written, by one of the same size."""
    bucket.put("a.parquet", parquet(range(48)))
    bucket.put("b.jsonl", b'{"at": "2024-03-01T00:00:00Z", "x": 1}\n')
    hour = timedelta(hours=1)
    day = Window(start=START, end=START + 24 * hour)

    def look() -> tuple[list[bytes], set[bytes]]:
        source = bucket.open("/", timestamp="at")
        return [unit.identity for unit in source.units(day, ["x"], hour)], set(source.footers)

    (first, footers), (second, again) = look(), look()
    assert len(first) == 2
    assert not set(first) & set(second)
    assert not footers & again
    monkeypatch.setattr(object_store, "_YOUNG", -(10**9) * 60)  # as a minute later
    assert look() == look()
