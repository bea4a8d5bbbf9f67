"""Each row is read once, and the result has the bits of reading the window directly."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from kept_checks import DAY, HOUR, LIVE, PER_HOUR, START, both, check, count_rows, rows

from drift_monitor.core.folding import Folding, meets
from drift_monitor.core.packed import Layout, Packed
from drift_monitor.core.profile import NumericSpec
from drift_monitor.core.types import Outcome
from drift_monitor.service import bucket_store, buckets

MICROS = 3_600_000_000
"""Of an hour."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two weeks of training data, and two live days in a file each."""
    pq.write_table(rows(START, 14 * 24, seed=1), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    for day in range(2):
        pq.write_table(rows(LIVE + day * DAY, 24, seed=2 + day), tmp_path / "live" / f"{day}.parquet")
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return count_rows(monkeypatch)


@pytest.mark.parametrize("promise", [None, 1.0])
def test_a_row_is_read_once_however_many_windows_hold_it(
    data: Path, read: Counter[str], promise: float | None
) -> None:
    for hour in range(0, 25, 4 if promise else 1):
        result = both(data, LIVE + DAY + hour * HOUR, promise=promise)
        assert result.rows == 24 * PER_HOUR
    assert read["rows"] == 2 * 24 * PER_HOUR


def test_late_rows_go_to_their_own_hours(data: Path, read: Counter[str]) -> None:
    end = LIVE + DAY
    assert both(data, end).rows == 24 * PER_HOUR
    late = rows(LIVE + 3 * HOUR, 2, seed=9, shuffled=True, broken=2)
    pq.write_table(late, data / "live" / "late.parquet")
    result = both(data, end)
    assert (result.rows, result.invalid_rows) == (26 * PER_HOUR - 2, 2)
    assert read["rows"] == 26 * PER_HOUR
    assert both(data, end - 12 * HOUR, length="12h", span=12 * HOUR).rows == 14 * PER_HOUR - 2


def test_a_rewritten_file_is_read_again_and_one_that_is_gone_counts_no_more(data: Path) -> None:
    end = LIVE + DAY
    before = both(data, end)
    pq.write_table(rows(LIVE, 24, seed=77), data / "live" / "0.parquet")
    after = both(data, end)
    assert after.rows == before.rows
    assert after != before
    (data / "live" / "0.parquet").unlink()
    assert both(data, end).verdict is Outcome.NO_DATA
    with sqlite3.connect(data / "state" / bucket_store.FOLDER / "m.db") as db:
        assert db.execute("SELECT count(*) FROM parts WHERE start < ?", (LIVE.timestamp() * 1e6,)).fetchone() == (
            0,
        )


def test_text_that_has_grown_and_text_beside_parquet(data: Path, read: Counter[str]) -> None:
    (data / "live" / "0.parquet").unlink()
    pacsv.write_csv(rows(LIVE, 10, seed=2), data / "live" / "0.csv")
    assert both(data, LIVE + DAY).rows == 10 * PER_HOUR
    with (data / "live" / "0.csv").open("ab") as file:
        pacsv.write_csv(rows(LIVE + 10 * HOUR, 14, seed=3), file, pacsv.WriteOptions(include_header=False))
    assert both(data, LIVE + DAY).rows == 24 * PER_HOUR
    assert read["rows"] == 10 * PER_HOUR + 24 * PER_HOUR  # text is read anew when it grows


def test_small_row_groups_are_cut_the_same_for_every_window(
    data: Path, read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drift_monitor.sources.parquet_files.UNIT_ROWS", 100)
    for path in (data / "live").iterdir():
        path.unlink()
    pq.write_table(rows(LIVE, 48, seed=4), data / "live" / "all.parquet", row_group_size=30)
    for hours in (24, 25, 31, 48):
        assert both(data, LIVE + hours * HOUR).rows == 24 * PER_HOUR
    assert read["rows"] == 48 * PER_HOUR
    with sqlite3.connect(data / "state" / bucket_store.FOLDER / "m.db") as db:
        assert db.execute("SELECT count(*) FROM units").fetchone()[0] > 15


def test_rows_all_over_the_place_are_read_directly(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MEMORY", 0)
    pq.write_table(rows(LIVE - 30 * DAY, 45 * 24, seed=5, shuffled=True), data / "live" / "0.parquet")
    assert both(data, LIVE + DAY).rows == 24 * PER_HOUR
    with sqlite3.connect(data / "state" / bucket_store.FOLDER / "m.db") as db:
        assert db.execute("SELECT sum(scattered) FROM units").fetchone() == (1,)


def test_windows_off_the_buckets_are_read_directly(data: Path, read: Counter[str]) -> None:
    end = LIVE + DAY + timedelta(minutes=30)
    assert both(data, end).rows == 24 * PER_HOUR
    assert not read
    assert both(data, end, bucket="30m").rows == 24 * PER_HOUR
    assert read


def test_a_new_reference_reads_the_window_anew_and_the_old_ones_are_forgotten(data: Path) -> None:
    end = LIVE + DAY
    for seed in range(6):
        pq.write_table(rows(START, 14 * 24, seed=20 + seed), data / "training.parquet")
        assert both(data, end).rows == 24 * PER_HOUR
    with sqlite3.connect(data / "state" / bucket_store.FOLDER / "m.db") as db:
        assert db.execute("SELECT count(DISTINCT layout) FROM units").fetchone() == (buckets.LAYOUTS,)


def test_what_lies_far_back_is_forgotten(data: Path) -> None:
    check(data, LIVE + DAY)
    pq.write_table(rows(LIVE + 9 * DAY, 24, seed=8), data / "live" / "9.parquet")
    check(data, LIVE + 10 * DAY)
    with sqlite3.connect(data / "state" / bucket_store.FOLDER / "m.db") as db:
        (first,) = db.execute("SELECT min(start) FROM parts").fetchone()
    assert first == (LIVE + 9 * DAY).timestamp() * 1e6
    assert both(data, LIVE + DAY).rows == 24 * PER_HOUR  # asked for again, it is read again


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
def test_a_damaged_database_costs_a_direct_read_and_says_so(
    data: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    path = data / "state" / bucket_store.FOLDER / "m.db"
    check(data, LIVE + DAY)
    path.write_bytes(damage)
    assert both(data, LIVE + DAY).rows == 24 * PER_HOUR
    assert ("every row of the window is read" in caplog.text) == bool(damage)


def test_a_damaged_profile_costs_a_direct_read(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(data, LIVE + DAY)
    path = data / "state" / bucket_store.FOLDER / "m.db"
    for value in (b"", b"drift-monitor bucket\n" + bytes(40)):
        with sqlite3.connect(path) as db:
            db.execute("UPDATE parts SET profile = ?", (value,))
            db.execute("DELETE FROM merged")
        assert both(data, LIVE + DAY).rows == 24 * PER_HOUR
        assert "a kept profile is damaged" in caplog.text
        caplog.clear()
        assert both(data, LIVE + DAY).rows == 24 * PER_HOUR
        assert not caplog.text


def test_footers_are_remembered(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both(data, LIVE + DAY)

    def refuse(path: str, *_: object, **__: object) -> None:
        raise AssertionError(path)

    monkeypatch.setattr("drift_monitor.sources.parquet_files.read_footer", refuse)
    assert check(data, LIVE + DAY).rows == 24 * PER_HOUR
    pq.write_table(rows(LIVE, 1, seed=5), data / "live" / "new.parquet")
    assert check(data, LIVE + DAY).reason == f"the check failed with AssertionError: {data}/live/new.parquet"


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import kept_checks as t
print("ready", flush=True)
for hour in range(25):
    t.check(Path(sys.argv[2]), t.LIVE + t.DAY + hour * t.HOUR)
"""
KILLS = int(os.environ.get("DRIFT_MONITOR_KILLS", "6"))


def hourly_files(data: Path) -> None:
    for path in (data / "live").iterdir():
        path.unlink()
    for hour in range(48):
        pq.write_table(rows(LIVE + hour * HOUR, 1, seed=hour), data / "live" / f"{hour:02d}.parquet")


def hourly_commits(data: Path) -> None:
    for hour in range(48):
        deltalake.write_deltalake(data / "table", rows(LIVE + hour * HOUR, 1, seed=hour), mode="append")
    (data / "source.json").write_text(json.dumps({"type": "delta", "path": str(data / "table")}))


@pytest.mark.slow
@pytest.mark.timeout(120 + 10 * KILLS)
@pytest.mark.parametrize("write", [hourly_files, hourly_commits])
def test_kill_9_in_mid_read_loses_and_doubles_no_row(data: Path, write: Callable[[Path], None]) -> None:
    check(data, LIVE + DAY, incremental=False)  # builds the reference
    write(data)
    rng = random.Random(KILLS)
    folder = data / "state" / bucket_store.FOLDER
    cut_short = 0
    for kill in range(KILLS):
        if kill % 3 == 0:
            for path in folder.glob("m.db*"):
                path.unlink()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(data)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.05, 0.8))
        cut_short += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        hour = rng.randrange(25)
        assert both(data, LIVE + DAY + hour * HOUR).rows == 24 * PER_HOUR, f"kill {kill}"
    assert cut_short > KILLS / 2


def test_a_file_that_is_delivered_anew_under_its_old_number_is_not_taken_for_the_old_one(data: Path) -> None:
    for path in (data / "live").iterdir():
        path.unlink()
    end = LIVE + 3 * HOUR
    span = {"length": "2h", "span": 2 * HOUR}
    pq.write_table(rows(LIVE + HOUR, 1, seed=1), data / "live" / "a.parquet")
    pq.write_table(rows(LIVE + HOUR, 2, seed=2), data / "live" / "b.parquet")
    assert both(data, end, **span).rows == 3 * PER_HOUR
    (data / "live" / "b.parquet").unlink()
    assert both(data, end, **span).rows == PER_HOUR
    pq.write_table(rows(LIVE + HOUR, 2, seed=9).slice(0, 55), data / "live" / "b.parquet")
    assert both(data, end, **span).rows == PER_HOUR + 55


def test_old_text_is_not_read_at_every_check(data: Path, read: Counter[str]) -> None:
    for path in (data / "live").iterdir():
        path.unlink()
    for day in range(9):
        pacsv.write_csv(rows(LIVE + day * DAY, 24, seed=day), data / "live" / f"{day}.csv")
    for hour in range(3):
        assert both(data, LIVE + 9 * DAY - hour * HOUR).rows == 24 * PER_HOUR
    assert read["rows"] == 9 * 24 * PER_HOUR
    assert both(data, LIVE + 2 * DAY).rows == 24 * PER_HOUR  # parts of it were deleted, and are read again


def test_rows_without_a_time_count_in_the_windows_that_they_lie_in(data: Path) -> None:
    table = pa.concat_tables([rows(LIVE, 24, seed=1), rows(LIVE + DAY, 24, seed=2, broken=30)])
    for path in (data / "live").iterdir():
        path.unlink()
    pq.write_table(table, data / "live" / "all.parquet", row_group_size=24 * PER_HOUR)
    assert both(data, LIVE + 2 * DAY).invalid_rows == 30


def kept_hours(folder: Path, hours: int) -> tuple[bucket_store.BucketStore, buckets.Buckets, Any]:
    """A database, its buckets, and a unit in it with a row in each of the hours since 1970."""
    layout = Layout((NumericSpec.fit("x", np.arange(10.0)),))
    store = bucket_store.BucketStore(folder / "m.db")
    kept, unit = buckets.Buckets(store, layout, "", HOUR), SimpleNamespace(identity=b"unit")
    times = pa.array(range(0, hours * MICROS, MICROS), pa.timestamp("us", "UTC"))
    batch = pa.record_batch({"at": times, "x": np.arange(hours) % 10.0})
    kept.keep(unit, Folding(layout, ("at", "x"), "at", None)([batch]))
    return store, kept, unit


def rows_of(window: tuple[dict[int, Packed], int] | None) -> dict[int, int]:
    """How many rows each stretch has."""
    assert window is not None
    return {start: packed.rows for start, packed in window[0].items()}


def test_parts_that_were_deleted_since_it_was_asked_make_no_window(tmp_path: Path) -> None:
    day = 24 * MICROS
    store, kept, unit = kept_hours(tmp_path, 10 * 24)
    with closing(store):
        for start in (0, 9 * day):
            assert kept.unread([unit], start) == []
            assert rows_of(kept.window([unit], [start], start + day)) == {start: 24}
        kept.forget([unit], 9 * day, 10 * day)  # another process, whose window is much later
        assert kept.window([unit], [0], day) is None
        assert kept.unread([unit], 0) == [unit]
        assert kept.unread([unit], 9 * day) == []
        assert rows_of(kept.window([unit], [9 * day], 10 * day)) == {9 * day: 24}


def test_of_the_inner_parts_of_windows_the_last_of_a_width_is_kept(tmp_path: Path) -> None:
    store, kept, unit = kept_hours(tmp_path, 200)
    with closing(store):
        for hour in range(0, 100, 4):
            found = kept.window([unit], [hour * MICROS], (hour + 100) * MICROS)
            assert rows_of(found) == {hour * MICROS: 100}
        inner = "SELECT count(*) FROM merged WHERE start % width GROUP BY width"
        assert {count for (count,) in store.read(inner)} == {1}


def test_windows_of_any_length_have_their_rows_once(tmp_path: Path) -> None:
    store, kept, unit = kept_hours(tmp_path, 150)
    with closing(store):
        for start, hours in ((10, 40), (7, 41), (15, 33), (0, 150), (3, 77), (23, 121), (40, 100), (149, 1)):
            middle = start + hours // 3
            found = kept.window([unit], [start * MICROS, middle * MICROS], (start + hours) * MICROS)
            wanted = {start * MICROS: hours // 3, middle * MICROS: hours - hours // 3}
            assert rows_of(found) == {at: rows for at, rows in wanted.items() if rows}
            whole = kept.window([unit], [start * MICROS], (start + hours) * MICROS)
            assert rows_of(whole) == {start * MICROS: hours}


@pytest.mark.parametrize(
    ("start", "end", "met"),
    [
        (0, 5, False),
        (0, 10, False),
        (0, 11, True),
        (10, 20, True),
        (20, 30, True),
        (21, 30, False),
        (9, None, True),
    ],
)
def test_rows_without_a_time_may_lie_in_the_stretches_of_their_neighbours(
    start: int, end: int | None, *, met: bool
) -> None:
    assert meets((10, 20, 3), start, end) is met
    assert meets((None, None, 3), start, end)  # nobody knows where


def test_what_another_process_has_forgotten_is_read_directly(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = buckets.Buckets.window

    def late(self: buckets.Buckets, units: Any, cuts: Any, end: int) -> Any:
        self._store.read("DELETE FROM units")
        return plain(self, units, cuts, end)

    monkeypatch.setattr(buckets.Buckets, "window", late)
    assert both(data, LIVE + DAY).rows == 24 * PER_HOUR


def test_damage_outside_the_window_does_not_matter(data: Path) -> None:
    table = rows(LIVE, 48, seed=3)
    for path in (data / "live").iterdir():
        path.unlink()
    path = data / "live" / "all.parquet"
    pq.write_table(table, path, row_group_size=24 * PER_HOUR, compression="none", use_dictionary=False)
    at = pq.ParquetFile(path).metadata.row_group(1).column(2).data_page_offset
    content = bytearray(path.read_bytes())
    content[at : at + 40] = bytes(40)
    path.write_bytes(content)
    assert both(data, LIVE + DAY).rows == 24 * PER_HOUR
    assert both(data, LIVE + 2 * DAY).verdict is Outcome.CANNOT_JUDGE


def test_footers_of_files_that_are_gone_are_forgotten(data: Path) -> None:
    for seed in range(3):
        pq.write_table(rows(LIVE, 24, seed=seed), data / "live" / "0.parquet")
        check(data, LIVE + DAY)
    with sqlite3.connect(data / "state" / bucket_store.FOLDER / "m.db") as db:
        assert db.execute("SELECT count(*) FROM footers").fetchone() == (2,)


def test_a_database_in_use_is_not_deleted(data: Path) -> None:
    check(data, LIVE + DAY)
    path = bucket_store.path_of(data / "state", "m")
    with closing(bucket_store.BucketStore(path)):
        bucket_store.discard(path)
        assert path.exists()
    bucket_store.discard(path)
    assert not path.exists()


def test_parts_that_were_deleted_stay_known_as_such(data: Path) -> None:
    for path in (data / "live").iterdir():
        path.unlink()
    pacsv.write_csv(rows(LIVE, 9 * 24, seed=1), data / "live" / "all.csv")
    assert both(data, LIVE + 9 * DAY).rows == 24 * PER_HOUR  # deletes what is older than five days
    assert both(data, LIVE + 7 * DAY).rows == 24 * PER_HOUR  # would delete what is older than three
    assert both(data, LIVE + 4 * DAY).rows == 24 * PER_HOUR


def test_two_processes_that_make_the_database_at_once_find_one(data: Path) -> None:
    check(data, LIVE + DAY)
    path = bucket_store.path_of(data / "state", "m")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 0")  # as the second one found it, before the first was done
    with closing(bucket_store.BucketStore(path)) as store:
        assert store.read("SELECT count(*) FROM parts").fetchone()[0] > 0
        assert store.read("PRAGMA user_version").fetchone() == (bucket_store.VERSION,)
