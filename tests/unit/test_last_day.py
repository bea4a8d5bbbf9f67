"""The rows for the classifier, picked while a window is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from drift_monitor.core.types import Window
from drift_monitor.service.channels import LastDay
from drift_monitor.sources.sample import sample_rows

END = datetime(2024, 3, 8, tzinfo=UTC)
WEEK = Window(start=END - timedelta(days=7), end=END)
SCHEMA = pa.schema([("at", pa.timestamp("us", "UTC")), ("x", pa.float64()), ("c", pa.string())])


class Log:
    """A source of batches that counts how often its rows are read."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = batches
        self.reads = 0

    def columns(self, window: Window | None = None, only: Any = None) -> pa.Schema:
        return SCHEMA

    def splits(self, window: Window | None) -> Sequence[Window | None]:
        return [window]

    def batches(self, split: Window, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self.reads += 1
        for batch in self._batches:
            times = batch.column("at")
            inside = pa.compute.and_(
                pa.compute.greater_equal(times, pa.scalar(split.start, times.type)),
                pa.compute.less(times, pa.scalar(split.end, times.type)),
            )
            yield batch.filter(pa.compute.fill_null(inside, fill_value=True)).select(list(columns))


@pytest.fixture
def log() -> Log:
    rng = np.random.default_rng(4)
    n = 5000
    micros = np.datetime64(WEEK.start.replace(tzinfo=None), "us") + rng.integers(0, 7 * 86_400_000_000, n)
    table = pa.table(
        [
            pa.array(micros, mask=rng.random(n) < 0.01).cast(SCHEMA.field("at").type),
            pa.array(rng.normal(size=n).round(1)),
            pa.array(rng.choice(["a", "b"], n)),
        ],
        schema=SCHEMA,
    )
    return Log(table.to_batches(max_chunksize=700))


def day_of(log: Log, rows: int) -> LastDay:
    return LastDay(log, SCHEMA, WEEK, ["x", "c"], rows, "at")


@pytest.mark.parametrize("rows", [20, 300, 4000])
def test_what_came_by_is_what_reading_the_last_day_anew_gives(log: Log, rows: int) -> None:
    day = day_of(log, rows)
    day.begin()
    seen = sum(batch.num_rows for batch in day.watch(log.batches(WEEK, SCHEMA.names)))
    assert seen == 5000
    day.complete = True
    found = day.rows()
    assert log.reads == 1
    wanted = sample_rows(log, day.window, ["x", "c"], rows, timestamp="at")
    assert found.equals(wanted)
    assert found.num_rows == min(rows, wanted.num_rows) > 0


def test_rows_that_did_not_all_come_by_are_read_again(log: Log) -> None:
    day = day_of(log, 50)
    day.begin()
    next(day.watch(log.batches(WEEK, SCHEMA.names)))
    found = day.rows()
    assert log.reads == 2
    assert found.equals(sample_rows(log, day.window, ["x", "c"], 50, timestamp="at"))


class Sampled(Log):
    """Whose sample of a week has nothing of the last day, while that day alone is read whole."""

    def batches(self, split: Window, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        before = Window(start=split.start, end=END - timedelta(days=1))
        yield from super().batches(before if split == WEEK else split, columns)


def test_a_sample_that_passes_over_the_last_day_reads_that_day_whole(log: Log) -> None:
    sampled = Sampled(log._batches)
    day = day_of(sampled, 50)
    day.begin()
    for _batch in day.watch(sampled.batches(WEEK, SCHEMA.names)):
        pass
    day.read_in(WEEK, 0.5)
    found = day.rows()
    assert found.num_rows == 50
    assert found.equals(sample_rows(log, day.window, ["x", "c"], 50, timestamp="at"))


def test_a_last_day_without_rows_is_not_read_again() -> None:
    log = Log([])
    day = day_of(log, 50)
    day.begin()
    day.read_in(WEEK, None)
    assert (day.rows().num_rows, log.reads) == (0, 0)


def test_a_window_that_is_shorter_than_the_day_does_not_cover_it(log: Log) -> None:
    day = day_of(log, 50)
    hour = Window(start=END - timedelta(hours=1), end=END)
    day.begin()
    for _batch in day.watch(log.batches(hour, SCHEMA.names)):
        pass
    day.read_in(hour, None)
    assert day.rows().equals(sample_rows(log, day.window, ["x", "c"], 50, timestamp="at"))


def test_the_last_day_has_its_first_instant_and_not_its_end(log: Log) -> None:
    tick, midnight = timedelta(microseconds=1), END - timedelta(days=1)
    times = [midnight - tick, midnight, END - tick, END]
    batch = pa.record_batch([pa.array(times, SCHEMA.field("at").type), [1.0, 2.0, 3.0, 4.0], [*"abcd"]], SCHEMA)
    day = day_of(log, 50)
    day.begin()
    for _batch in day.watch(iter([batch])):
        pass
    day.read_in(None, None)
    assert sorted(day.rows()["x"].to_pylist()) == [2.0, 3.0]


def test_what_is_read_anew_and_not_to_its_end_is_not_all(log: Log) -> None:
    day = day_of(log, 50)
    day.begin()
    for _batch in day.watch(log.batches(WEEK, SCHEMA.names)):
        pass
    day.read_in(WEEK, None)
    day.begin()
    next(day.watch(log.batches(WEEK, SCHEMA.names)))
    assert day.rows().equals(sample_rows(log, day.window, ["x", "c"], 50, timestamp="at"))


def test_reading_that_begins_anew_forgets_what_it_saw(log: Log) -> None:
    day = day_of(log, 50)
    for _ in range(2):
        day.begin()
        for _batch in day.watch(log.batches(WEEK, SCHEMA.names)):
            pass
    day.complete = True
    assert day.rows().equals(sample_rows(log, day.window, ["x", "c"], 50, timestamp="at"))
