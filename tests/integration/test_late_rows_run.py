"""Rows that come late, with the real daemon and its real worker: one hour is judged again, and nobody is told."""

import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from daemon_harness import Receiver, configure, in_thread, until

from drift_monitor.service.clock import ReplayClock

START = datetime(2026, 3, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
REVISED = 'drift_monitor_windows_revised_total{monitor="m"}'
WORKER = (sys.executable, "-m", "drift_monitor.service.worker")


def hours(first, count, *, rows=200, seed=1, mean=0.0):
    rng = np.random.default_rng(seed)
    times = [START + first * HOUR + i * HOUR / rows for i in range(count * rows)]
    return pa.table({"t": pa.array(times, pa.timestamp("us", "UTC")), "x": rng.normal(mean, 1, len(times))})


@pytest.mark.slow
def test_an_hour_that_late_rows_reached_is_judged_again_and_a_restart_loses_nothing(tmp_path):
    receiver = Receiver()
    live = tmp_path / "live"
    live.mkdir()
    pq.write_table(hours(-14 * 24, 14 * 24), tmp_path / "training.parquet")
    pq.write_table(hours(0, 4, seed=2), live / "a.parquet")
    monitor = {
        "reference": "training.parquet",
        "source": {"path": "live/*.parquet", "timestamp": "t"},
        "window": {"length": "1h", "lateness": "6h"},
        "quality": {"disable": ["volume"]},
    }
    config = configure(tmp_path, {"m": monitor}, receiver=receiver)

    def run(first, last, revised):
        """Results by hour, the metrics and the page, after a replay of some hours."""
        clock = ReplayClock(START + first * HOUR, 36_000, START + last * HOUR)
        with in_thread(config, clock, worker=WORKER) as (app, api):
            until(lambda: api.status()["replay"]["finished"] and not app.store.reopened(), "the end of the replay")
            metrics = until(lambda: (seen := api.metrics()).get(REVISED) == revised and seen, "the metrics")
            found = {result.window.start.hour: result for _, result in app.store.results("m", 99)}
            return found, metrics, api.get("/monitors/m")[2]

    found, _, _ = run(0, 2, revised=0)
    assert {hour: found[hour].rows for hour in (0, 1)} == {0: 200, 1: 200}
    pq.write_table(hours(1, 1, rows=800, seed=9, mean=1.5), live / "late.parquet")
    found, metrics, page = run(2, 4, revised=1)
    assert {hour: each.rows for hour, each in found.items() if hour < 4} == {0: 200, 1: 1000, 2: 200, 3: 200}
    assert (found[1].verdict, found[1].revised.verdict, found[1].revised.rows) == ("drift", "ok", 200)
    assert [window.start.hour for window in found[2].reopened] == [1]
    assert metrics['drift_monitor_rows_processed_total{monitor="m"}'] == 4 * 200
    assert b"judged again since its rows changed: ok with 200 rows at first" in page
    assert metrics['drift_monitor_episode_open{lane="drift",monitor="m"}'] == 0
    assert receiver.events == []
    receiver.close()
