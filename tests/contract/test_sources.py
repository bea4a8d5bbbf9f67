"""What every source promises, held against every form in which the same rows can lie on disk."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.sources import FilesSource
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources import SOURCES, Source
from drift_monitor.sources.parquet_files import BATCH_ROWS

START = datetime(2024, 3, 1, tzinfo=UTC)
HOURS = 48
PER_HOUR = 25
KINDS: dict[str, Kind] = {"speed": "numeric", "carrier": "categorical", "late": "boolean", "id": "categorical"}


def rows() -> pa.Table:
    """One row each 144 s for two days; the first is at START exactly; every 10th speed and carrier is missing."""
    n = HOURS * PER_HOUR
    times = [START + timedelta(hours=i / PER_HOUR) for i in range(n)]
    return pa.table(
        {
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "id": pa.array([f"{i:05d}" for i in range(n)]),
            "speed": pa.array([None if i % 10 == 0 else i / 4 for i in range(n)], pa.float64()),
            "carrier": pa.array([None if i % 10 == 5 else "AB\n\"',;C"[i % 8] for i in range(n)]),
            "late": pa.array([i % 3 == 0 for i in range(n)]),
        }
    )


def as_texts(table: pa.Table) -> list[dict[str, Any]]:
    """Times as text; missing ones as nothing, or as something that is no time."""
    absent = (None, "", "never")
    return [
        row | {"time": absent[int(row["id"]) % 3] if row["time"] is None else row["time"].isoformat()}
        for row in table.to_pylist()
    ]


def parquet(table: pa.Table, folder: Path) -> str:
    pq.write_table(table, folder / "a.parquet", row_group_size=200)
    return str(folder / "a.parquet")


def parquet_of_naive_milliseconds(table: pa.Table, folder: Path) -> str:
    naive = table["time"].cast(pa.timestamp("us")).cast(pa.timestamp("ms"), safe=False)
    return parquet(table.set_column(0, "time", naive), folder)


def parquet_of_texts(table: pa.Table, folder: Path) -> str:
    return parquet(
        table.set_column(0, "time", pa.array([r["time"] for r in as_texts(table)], pa.string())), folder
    )


def many_parquets(table: pa.Table, folder: Path) -> str:
    for i in range(0, table.num_rows, 100):
        (folder / f"{i // 500}").mkdir(exist_ok=True)
        parquet_file = folder / f"{i // 500}" / f"{i:05d}.parquet"
        pq.write_table(table.slice(i, 100), parquet_file)
    return str(folder / "**" / "*.parquet")


def hive(table: pa.Table, folder: Path) -> str:
    for i in range(0, table.num_rows, 300):
        part = folder / f"part={i // 300}" / "region=north%20west"
        part.mkdir(parents=True)
        pq.write_table(table.slice(i, 300), part / "0.parquet")
    return str(folder)


def csv(table: pa.Table, folder: Path) -> str:
    texts = table.set_column(0, "time", pa.array([r["time"] for r in as_texts(table)], pa.string()))
    pacsv.write_csv(texts, folder / "a.csv")
    return str(folder / "a.csv")


def csv_gz(table: pa.Table, folder: Path) -> str:
    plain = Path(csv(table, folder))
    (folder / "a.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    return str(folder / "*.gz")


def jsonl(table: pa.Table, folder: Path) -> str:
    lines = [json.dumps(row) + "\n" for row in as_texts(table)]
    for i in range(0, len(lines), 400):
        (folder / f"{i:05d}.jsonl").write_text("".join(lines[i : i + 400]))
    (folder / "rotated.jsonl").touch()
    return str(folder)


def jsonl_gz(table: pa.Table, folder: Path) -> str:
    lines = [json.dumps(row) + "\n" for row in as_texts(table)]
    # two members, as a log that was appended to
    (folder / "a.jsonl.gz").write_bytes(
        b"".join(gzip.compress("".join(p).encode()) for p in (lines[:7], lines[7:]))
    )
    return str(folder / "a.jsonl.gz")


Write = Callable[[pa.Table, Path], str]
FORMS: tuple[Write, ...] = (
    parquet,
    parquet_of_naive_milliseconds,
    parquet_of_texts,
    many_parquets,
    hive,
    csv,
    csv_gz,
    jsonl,
    jsonl_gz,
)
AnySource = Source[Any]


def opened(path: str, **settings: Any) -> AnySource:
    return SOURCES["files"](FilesSource(path=path, timestamp="time", **settings), KINDS)


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> AnySource:
    return opened(request.param(rows(), tmp_path), hive=request.param is hive)


def read(source: AnySource, window: Window | None, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for split in source.splits(window):
        yield from source.batches(split, columns)


def values(source: AnySource, window: Window | None, column: str) -> list[Any]:
    return [value for batch in read(source, window, [column]) for value in batch.column(column).to_pylist()]


def test_every_row_once_with_its_values(source: AnySource) -> None:
    expected = {row["id"]: row for row in rows().to_pylist()}
    found = [row for b in read(source, None, ["id", "speed", "carrier", "late"]) for row in b.to_pylist()]
    assert len(found) == len(expected)
    assert {row["id"]: row for row in found} == expected


def test_columns_tell_names_and_usable_types(source: AnySource) -> None:
    schema = source.columns()
    assert {"time", "id", "speed", "carrier", "late"} <= set(schema.names)
    assert schema.field("speed").type == pa.float64()
    assert schema.field("carrier").type == pa.string()
    assert schema.field("late").type == pa.bool_()


def test_only_the_columns_asked_for_and_the_timestamp(source: AnySource) -> None:
    for batch in read(source, None, ["speed"]):
        assert batch.schema.names == ["speed", "time"]
        assert batch.schema.field("time").type == pa.timestamp("us", "UTC")
        assert 0 < batch.num_rows <= BATCH_ROWS


@pytest.mark.parametrize(("first", "hours"), [(0, 1), (7, 24), (47, 1), (0, 48), (0, 1000)])
def test_a_window_has_its_start_and_not_its_end(source: AnySource, first: int, hours: int) -> None:
    window = Window(start=START + timedelta(hours=first), end=START + timedelta(hours=first + hours))
    expected = [t for t in rows()["time"].to_pylist() if window.start <= t < window.end]
    assert len(expected) == min(hours, HOURS - first) * PER_HOUR
    assert sorted(values(source, window, "time")) == expected


@pytest.mark.parametrize(
    "start", [START - timedelta(days=2), START + timedelta(days=2), datetime(1700, 1, 1, tzinfo=UTC)]
)
def test_a_window_elsewhere_is_empty(source: AnySource, start: datetime) -> None:
    window = Window(start=start, end=start + timedelta(days=1))
    assert values(source, window, "time") == []
    assert source.columns(window).names  # which columns there are is still known


def test_splits_can_be_read_elsewhere_in_any_order(source: AnySource) -> None:
    splits = pickle.loads(pickle.dumps(source.splits(None)))
    found = [v for s in reversed(splits) for b in source.batches(s, ["id"]) for v in b.column("id").to_pylist()]
    assert sorted(found) == rows()["id"].to_pylist()


@pytest.mark.parametrize("form", [f for f in FORMS if f is not hive], ids=lambda form: form.__name__)
def test_times_that_cannot_be_read_are_null(form: Write, tmp_path: Path) -> None:
    table = rows()
    missing = pc.if_else(pa.array([i % 7 == 3 for i in range(table.num_rows)]), None, table["time"])
    table = table.set_column(0, "time", missing)
    source = opened(form(table, tmp_path))
    found = {row["id"]: row["time"] for b in read(source, None, ["id"]) for row in b.to_pylist()}
    expected = dict(zip(rows()["id"].to_pylist(), missing.to_pylist(), strict=True))
    assert found == expected


def test_unreadable_times_count_where_their_neighbours_are(tmp_path: Path) -> None:
    table = rows()
    times = [None if i in {30, 31, 800} else t for i, t in enumerate(table["time"].to_pylist())]
    table = table.set_column(0, "time", pa.array(times, pa.timestamp("us", "UTC")))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=200)
    source = opened(str(tmp_path / "a.parquet"))
    window = Window(start=START, end=START + timedelta(hours=2))
    assert values(source, window, "time").count(None) == 2


def test_partitions_are_columns(tmp_path: Path) -> None:
    source = opened(hive(rows(), tmp_path), hive=True)
    schema = source.columns()
    assert (schema.field("part").type, schema.field("region").type) == (pa.int32(), pa.string())
    found = [row for b in read(source, None, ["part", "region", "id"]) for row in b.to_pylist()]
    assert {(int(row["id"]) // 300, "north west") for row in found} == {(r["part"], r["region"]) for r in found}
    assert len(found) == rows().num_rows
    assert "part" not in opened(str(tmp_path)).columns().names
