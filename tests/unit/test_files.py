"""Where files lie, and what is said when they cannot be read."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.sources import FilesSource
from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources.files import SPLIT_ROWS, Files, open_files
from drift_monitor.sources.places import find_files
from drift_monitor.sources.text_files import BLOCK

START = datetime(2024, 3, 1, tzinfo=UTC)
KINDS: dict[str, Kind] = {"x": "numeric", "name": "categorical", "flag": "boolean"}


def table(n: int = 10, **columns: Any) -> pa.Table:
    times = pa.array([START + timedelta(minutes=i) for i in range(n)], pa.timestamp("us", "UTC"))
    given = {"time": times, "x": np.arange(n, dtype=np.float64), "name": ["a", "b"] * (n // 2)} | columns
    return pa.table(given)


def files(path: Path | str, **settings: Any) -> Files:
    return open_files(FilesSource(path=str(path), timestamp="time", **settings), KINDS)


def read(source: Files, columns: list[str] | None = None, window: Window | None = None) -> pa.Table:
    names = columns or ["x", "name"]
    batches = [batch for split in source.splits(window) for batch in source.batches(split, names)]
    return pa.Table.from_batches(batches)


# -- finding ---------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("[a].parquet", ["a.parquet"]),
        ("?.parquet", ["a.parquet", "b.parquet"]),
        ("**/*.parquet", ["a.parquet", "b.parquet", "deep/er/c.parquet"]),
        ("deep/*/c.*", ["deep/er/c.parquet"]),
        ("", ["a.parquet", "b.parquet", "deep/er/c.parquet", "log.CSV"]),
        ("b.parquet", ["b.parquet"]),
    ],
)
def test_globs_and_folders(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    touch(tmp_path, "b.parquet", "a.parquet", "deep/er/c.parquet", "log.CSV", "README.md")
    touch(tmp_path, ".a.parquet.tmp", "_temporary/d.parquet", ".hidden.parquet", "_x.parquet")
    (tmp_path / "folder.parquet").mkdir()
    found = find_files(str(tmp_path / pattern) if pattern else str(tmp_path))
    assert [os.path.relpath(f, tmp_path) for f in found] == expected


def test_names_with_magic_quotes_and_newlines(tmp_path: Path) -> None:
    name = 'it\'s [a]\n"log".parquet'
    pq.write_table(table(), tmp_path / name)
    assert find_files(str(tmp_path / name)) == [str(tmp_path / name)]
    assert read(files(tmp_path / "*.parquet")).num_rows == 10
    raw = os.fsencode(tmp_path) + b"/\xff.parquet"
    (tmp_path / name).rename(os.fsdecode(raw))
    assert read(files(tmp_path)).num_rows == 10


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    assert find_files(str(tmp_path / "**" / "*.parquet")) == [str(tmp_path / "a.parquet")]
    (tmp_path / "self.parquet").symlink_to("self.parquet")
    with pytest.raises(SourceError, match=r"self\.parquet"):
        files(tmp_path / "self.parquet")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("gone.parquet", r"gone\.parquet' cannot be read: No such file"),
        ("*.csv", r"no file matches '.*\*\.csv'$"),
        ("nowhere/*.csv", r"no file matches .*: there is no folder '.*nowhere'"),
        ("empty", r"the folder '.*empty' holds no file that ends in \.parquet"),
        ("**x/*.csv", r"is not a path or a glob"),
        ("a.dat", r"cannot tell the format of '.*a\.dat' by its name"),
        ("pipe", r"pipe' is not a regular file"),
        ("a\0b", r"null byte|embedded null"),
    ],
)
def test_nothing_to_read_is_an_error(tmp_path: Path, pattern: str, message: str) -> None:
    touch(tmp_path, "a.dat")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match=message):
        files(tmp_path / pattern)


def test_thousands_of_files(tmp_path: Path) -> None:
    for i in range(2000):
        (tmp_path / f"{i}.jsonl").write_text(
            f'{{"time": "{(START + timedelta(minutes=i)).isoformat()}", "x": {i}}}\n'
        )
    assert sorted(read(files(tmp_path), ["x"])["x"].to_pylist()) == list(range(2000))


# -- splits ----------------------------------------------------------------------------------------------


def test_splits_are_row_groups_and_prune_by_time(tmp_path: Path) -> None:
    n = 3_000_000
    times = np.arange(n) * 1_000_000
    pq.write_table(
        pa.table({"time": pa.array(times).cast(pa.timestamp("us", "UTC")), "x": np.zeros(n)}),
        tmp_path / "a.parquet",
        row_group_size=300_000,
    )
    source = files(tmp_path)
    assert [split.row_groups for split in source.splits(None)] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9,)]
    assert all((split.rows or 0) <= SPLIT_ROWS for split in source.splits(None))
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=600_000)
    inside = source.splits(Window(start=start, end=start + timedelta(seconds=1)))
    assert [split.row_groups for split in inside] == [(2,)]


def test_row_groups_of_wall_clocks_are_not_pruned_away(tmp_path: Path) -> None:
    naive = [datetime(2024, 10, 27, 2, 59), datetime(2024, 10, 27, 3, 0)]  # clocks go back between the two
    pq.write_table(
        pa.table({"time": pa.array(naive, pa.timestamp("us")), "x": [1.0, 2.0]}), tmp_path / "a.parquet"
    )
    window = Window(start=datetime(2024, 10, 27, 2, tzinfo=UTC), end=datetime(2024, 10, 27, 3, tzinfo=UTC))
    assert read(files(tmp_path, timezone="Europe/Berlin"), ["x"], window)["x"].to_pylist() == [2.0]


def test_repeated_texts_are_read_as_dictionaries(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    assert isinstance(read(files(tmp_path))["name"].type, pa.DictionaryType)


# -- files that do not go together ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (table(x=pa.array(["1"] * 10)), r"column 'x' is string in '.*b\.parquet' but double in '.*a\.parquet'"),
        (table().drop_columns(["x"]), r"column 'x' is in '.*a\.parquet' \(double\) but not in '.*b\.parquet'"),
        (table().rename_columns(["time", "X", "name"]), r"column 'x' is in '.*a\.parquet' \(double\) but not in"),
    ],
)
def test_a_column_gone_or_of_another_type_is_named(tmp_path: Path, other: pa.Table, message: str) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(other, tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match=message):
        files(tmp_path).columns(only=["x", "name"])
    assert files(tmp_path).columns(only=["name"]).field("name").type == pa.string()


def test_files_before_a_change_do_not_matter_to_a_window_after_it(tmp_path: Path) -> None:
    pq.write_table(table().drop_columns(["x"]), tmp_path / "a.parquet")
    later = [START + timedelta(days=1, minutes=i) for i in range(10)]
    pq.write_table(table(time=pa.array(later, pa.timestamp("us", "UTC"))), tmp_path / "b.parquet")
    window = Window(start=later[0], end=later[-1])
    assert files(tmp_path).columns(window, ["x"]).field("x").type == pa.float64()
    assert read(files(tmp_path), ["x"], window).num_rows == 9


def test_kindred_types_go_together(tmp_path: Path) -> None:
    # what pandas writes for a whole-number column without, with, and of nothing but missing values
    pq.write_table(table(x=pa.array(range(10), pa.int64())), tmp_path / "a.parquet")
    pq.write_table(table(x=pa.array([None, 1.5] * 5, pa.float64())), tmp_path / "b.parquet")
    pq.write_table(table(x=pa.nulls(10)), tmp_path / "c.parquet")
    source = files(tmp_path)
    assert source.columns(only=["x"]).field("x").type == pa.float64()
    splits = source.splits(None)
    assert [b.num_rows for split in splits for b in source.batches(split, ["x"])] == [10, 10, 10]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), tmp_path / "a.parquet")
    with pytest.raises(SchemaError, match="more than one column named 'x'"):
        files(tmp_path).columns()
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "a.csv").write_text("x,x\n1,2\n")
    with pytest.raises(SchemaError, match=r"2 columns named 'x'"):
        files(tmp_path).columns()


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    with pytest.raises(SchemaError, match=r"a\.parquet' has no column 'y'; it has 'time', 'x', 'name'"):
        read(files(tmp_path), ["y"])


def test_hostile_column_names(tmp_path: Path) -> None:
    names = ["a", "a.b", "", " ", "x\n\"'", "</script>", "\ud7ff", "list.element"]
    columns = {name: pa.array([float(i)]) for i, name in enumerate(names)}
    nested = {"s": pa.array([{"b": 1.0}]), "time": table(1, x=[0.0], name=["a"])["time"]}
    pq.write_table(pa.table(columns | nested), tmp_path / "a.parquet")
    found = read(files(tmp_path), names)
    assert found.column_names == [*names, "time"]
    assert [found[name].to_pylist() for name in names] == [[float(i)] for i in range(len(names))]


# -- files that are damaged ------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other(path: Path) -> None:
    path.write_bytes(b"time,x\n2024-03-01,1\n" * 10)


def footer(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-60:-40] = bytes(20)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"a\.parquet' is not a whole Parquet file .*cut short or is still being written"),
        (empty, r"a\.parquet' is empty \(0 bytes\)"),
        (other, r"a\.parquet' is not a whole Parquet file"),
        (footer, r"a\.parquet' is not a whole Parquet file"),
    ],
)
def test_a_file_that_is_not_whole_parquet(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table(), tmp_path / "b.parquet")
    damage(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=message):
        files(tmp_path).splits(None)


def test_what_the_reader_cannot_do_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise pa.ArrowNotImplementedError("Nested data conversions not implemented for chunked array outputs")

    pq.write_table(table(), tmp_path / "a.parquet")
    opened = files(tmp_path)
    (split,) = opened.splits(None)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", refuse)
    with pytest.raises(
        SourceError, match=r"row group 0, column 'x' .*not implemented.*does not read this"
    ) as caught:
        list(opened.batches(split, ["x"]))
    assert "damaged" not in str(caught.value)


def test_a_page_that_does_not_decode_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(1000), path, row_group_size=250, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(2).column(1)
    assert column.path_in_schema == "x"
    raw = bytearray(path.read_bytes())
    at = column.data_page_offset + 40
    raw[at : at + 60] = bytes(60)
    path.write_bytes(raw)
    with pytest.raises(SourceError, match=r"a\.parquet', row group 2, column 'x' cannot be decoded"):
        read(files(tmp_path))


def test_a_file_replaced_or_grown_between_listing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path)
    source = files(path)
    splits = source.splits(None)
    pq.write_table(table(20), tmp_path / "new")
    (tmp_path / "new").rename(path)
    with pytest.raises(SourceError, match=r"a\.parquet' changed while it was being read"):
        list(source.batches(splits[0], ["x"]))
    path.unlink()
    with pytest.raises(SourceError, match=r"a\.parquet' was there when the check began"):
        list(source.batches(splits[0], ["x"]))


LINES = "".join(f'{{"time": "2024-03-01T00:{i:02d}:00Z", "x": {i}, "name": "n"}}\n' for i in range(60))


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('{"time": "2024-03-01T01:00:00Z", "x": 1', SourceError, r"a\.jsonl', line 61 is not a JSON object: "),
        ("[1, 2]", SourceError, r"line 61 is not a JSON object but"),
        (
            '{"time": "2024-03-01T01:00:00Z", "x": "fast"}',
            SchemaError,
            r"line 61, column 'x': 'fast' is not a number",
        ),
        ('{"time": "2024-03-01T01:00:00Z", "name": 3}', SchemaError, r"line 61, column 'name': 3 is not text"),
        ('{"time": 1709251200, "x": 3}', SchemaError, r"line 61, column 'time': 1709251200 is not text"),
        ('{"x": 1, "x": 2}', SourceError, r"line 61 is not a JSON object: the key 'x' stands there twice"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, line: str, error: type[Exception], message: str) -> None:
    # far enough from the start that the types are settled before it comes
    (tmp_path / "a.jsonl").write_text(LINES + line + "\n" + LINES)
    source = files(tmp_path)
    schema = pa.schema([("time", pa.timestamp("us", "UTC")), ("x", pa.float64()), ("name", pa.string())])
    source._flats[str(tmp_path / "a.jsonl")] = Flat(schema)
    with pytest.raises(error, match=message):
        read(source)


def csv_lines(first: int, last: int) -> str:
    return "".join(f"2024-03-01T00:{i % 60:02d}:00Z,{i},n\n" for i in range(first, last))


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        (
            "2024-03-01T00:00:00Z,fast,n",
            SchemaError,
            r"a\.csv', row 300002 \(the header is row 1\), column 'x': .*'fast'",
        ),
        (
            "2024-03-01T00:00:00Z,1",
            SourceError,
            r"a\.csv', row 300002 \(the header is row 1\): Expected 3 columns, got 2",
        ),
        ("2024-03-01T00:00:00Z,1,n,m", SourceError, r"row 300002 .*Expected 3 columns, got 4"),
        (
            '2024-03-01T00:00:00Z,1,"n',
            SourceError,
            r"a\.csv' ends within a quoted field: a quote in it is never closed",
        ),
        (
            '2024-03-01T00:00:00Z,1,"' + "x" * 2 * BLOCK,
            SourceError,
            r"a\.csv' has a row longer than 4 MiB, or a quote",
        ),
    ],
)
def test_a_bad_csv_row_is_named(tmp_path: Path, line: str, error: type[Exception], message: str) -> None:
    (tmp_path / "a.csv").write_text("time,x,name\n" + csv_lines(0, 300_000) + line + "\n" + csv_lines(0, 100))
    with pytest.raises(error, match=message):
        read(files(tmp_path))


def test_a_quote_within_a_field_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('time,x,name\n2024-03-01,1,5" pipe\n2024-03-02,2,"a ""b"""\n')
    assert read(files(tmp_path))["name"].to_pylist() == ['5" pipe', 'a "b"']


def test_empty_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(SourceError, match=r"a\.csv' is empty: not even a header line"):
        files(tmp_path / "a.csv").columns()
    (tmp_path / "a.csv").write_text("time,x,name\n")
    assert files(tmp_path / "a.csv").columns().field("x").type == pa.float64()
    (tmp_path / "b.jsonl").touch()
    source = files(tmp_path / "b.jsonl")
    assert (source.columns().names, source.splits(None)) == ([], [])


def test_truncated_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(("time,x,name\n" + csv_lines(0, 300_000)).encode())
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"a\.csv\.gz"):
        read(files(tmp_path))


@pytest.mark.parametrize("ending", ["2024-03-01T00:10:00Z,1", '2024-03-01T00:10:00Z,1,"n'])
def test_a_csv_row_still_being_written_is_one_unreadable_row(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,x,name\n" + csv_lines(0, 10) + ending)
    found = read(files(tmp_path))
    assert (found.num_rows, found["time"].null_count) == (11, 1)
    path.write_text("time,x,name\n" + csv_lines(0, 10) + "2024-03-01T00:10:00Z,1,n")
    found = read(files(tmp_path))
    assert (found.num_rows, found["time"].null_count) == (11, 0)
    path.write_text("time,x,name\n" + csv_lines(0, 10) + '2024-03-01T00:10:00Z,1,"two\nlines"')
    assert read(files(tmp_path))["name"].to_pylist()[-1] == "two\nlines"
    path.write_text("time,x,name\n" + csv_lines(0, 10) + ending)
    unwindowed = open_files(FilesSource(path=str(path)), KINDS)
    with pytest.raises(SourceError, match=r"a\.csv' ends within a row: it is still being written"):
        [batch for split in unwindowed.splits(None) for batch in unwindowed.batches(split, ["x"])]


def test_a_log_that_grows_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + '{"time": "2024-03')
    source = files(tmp_path)
    splits = source.splits(None)
    with path.open("a") as file:
        file.write('-01T01:00:00Z", "x": 1, "name": "n"}\n' + LINES)
    found = pa.Table.from_batches(list(source.batches(splits[0], ["x", "name"])))
    assert (found.num_rows, found["time"].null_count) == (61, 1)


def test_what_text_means(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "time,x,name,flag\n2024-03-01,1,007,true\n2024-03-02,NaN,,false\n2024-03-03,,NA,\n"
    )
    found = read(files(tmp_path), ["x", "name", "flag"])
    assert found["x"].to_pylist() == [1.0, None, None]
    assert found["name"].to_pylist() == ["007", None, "NA"]
    assert found["flag"].to_pylist() == [True, False, None]


def test_text_of_another_kind_keeps_the_type_that_it_suggests(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,x,name,flag\n2024-03-01,fast,1,maybe\n2024-03-02,slow,2,no\n")
    schema = files(tmp_path).columns()
    assert [schema.field(name).type for name in ("x", "name", "flag")] == [pa.string()] * 3


BOMB = """
import re, sys
from pathlib import Path
from drift_monitor.config.sources import FilesSource
from drift_monitor.sources.files import open_files
source = open_files(FilesSource(path=sys.argv[1]), {})
rows = sum(batch.num_rows for split in source.splits(None) for batch in source.batches(split, ["x", "name"]))
# getrusage would count the parent's peak as well
print(rows, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_a_parquet_bomb_is_read_in_flat_memory(tmp_path: Path) -> None:
    n, text = 50_000, "x" * 40_000  # 2 GB of text and 0.4 MB of numbers, in one row group of 10 kB
    codes = pa.array(np.zeros(n, np.int32))
    columns = {"x": np.zeros(n), "name": pa.DictionaryArray.from_arrays(codes, pa.array([text]))}
    pq.write_table(pa.table(columns), tmp_path / "bomb.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 100_000
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(tmp_path / "bomb.parquet")], capture_output=True, text=True, check=True
    )
    rows, peak = map(int, done.stdout.split())
    assert rows == n
    assert peak < 400
