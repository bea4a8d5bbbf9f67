"""The real daemon on real files, killed -9 again and again while runs finish and messages go out.

DRIFT_MONITOR_KILLS=200 is the long version.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from daemon_harness import Process, Receiver, configure, until

from drift_monitor.config.file import load
from drift_monitor.core.episode import step
from drift_monitor.core.types import Window
from drift_monitor.service.messages import Links, message
from drift_monitor.service.store import FILE, Store

KILLS = int(os.environ.get("DRIFT_MONITOR_KILLS", "8"))
MONITORS = ("a", "b", "c", "d")
START = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = max(24, 8 * KILLS)  # windows of each monitor: enough that there is work at nearly every kill
ROWS = 200  # an hour
DONE = b'event="window done"'
COMMAND = (sys.executable, "-m", "drift_monitor", "run", "--config")
ARGUMENTS = (
    *("--replay-from", START.isoformat(), "--replay-until", (START + timedelta(hours=HOURS)).isoformat()),
    *("--replay-speed", str(HOURS * 3600 * 2)),  # every window is due within half a second
)


def write_log(folder, rng):
    """Hourly rows in which x moves for 3 hours out of 8 and y is missing for 2 out of 13."""
    folder.mkdir()
    hours = np.arange(-1, HOURS + 1)
    for k, chunk in enumerate(np.array_split(hours, max(1, HOURS // 240))):
        hour = np.repeat(chunk, ROWS)
        seconds = rng.integers(0, 3600, len(hour))
        stamp = [START + timedelta(hours=int(h), seconds=int(s)) for h, s in zip(hour, seconds, strict=True)]
        x = rng.normal(size=len(hour)) + 2.0 * (hour % 8 < 3)
        y = np.where(hour % 13 < 2, np.nan, rng.normal(size=len(hour)))
        pq.write_table(pa.table({"t": stamp, "x": x, "y": y}), folder / f"{k:03}.parquet")


def write_training(path, rng):
    stamp = [START - timedelta(days=9) + timedelta(minutes=2 * i) for i in range(5000)]
    table = {"t": stamp, "x": rng.normal(size=5000), "y": rng.normal(size=5000)}
    pq.write_table(pa.table(table), path)


def live_for_a_while(daemon, rng):
    """Somewhere in the first 2 seconds, or somewhere in the second after the first window is done."""
    if rng.random() < 0.4:
        time.sleep(rng.uniform(0, 2))
        return
    before, patience = daemon.log.read_bytes().count(DONE), time.monotonic() + 20
    while daemon.log.read_bytes().count(DONE) == before and time.monotonic() < patience:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 1))


def intact(state):
    """Whether SQLite finds nothing wrong; None before there is a database."""
    if not (state / FILE).exists():
        return None
    with closing(sqlite3.connect(state / FILE)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def expected_messages(store, config):
    """What the stored results must have led to, by the episode rules alone: ids of messages."""
    expected = {}
    for name in MONITORS:
        monitor = config.monitors[name]
        episodes, history = {"drift": None, "quality": None}, []
        for run, _ in reversed(store.results(name, 10 * HOURS)):
            result = store.result(run)
            for lane in ("drift", "quality"):
                t = step(lane, episodes[lane], history, result, monitor.alarm, monitor.maintenance)
                episodes[lane] = t.episode if t.changed else episodes[lane]
                said = message(t, result, monitor, source="/drift-monitor/drift-monitor", links=Links("", None))
                if said is not None:
                    expected[said.id] = (said.type, said.subject, said.time)
            history.insert(0, result.verdict)
    return expected


@pytest.mark.slow
@pytest.mark.timeout(300 + 15 * KILLS)
def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path):
    seed = int(os.environ.get("DRIFT_MONITOR_SEED", str(time.time_ns() % 10**6)))
    rng = random.Random(seed)
    write_training(tmp_path / "training.parquet", np.random.default_rng(1))
    write_log(tmp_path / "live", np.random.default_rng(2))
    receiver = Receiver()
    settings = {
        "source": {"path": "live", "format": "parquet", "timestamp": "t"},
        "alarm": {"persistence": "1 of 2"},
    }
    config_path = configure(
        tmp_path, dict.fromkeys(MONITORS, settings), receiver=receiver, workers={"deadline": "60s"}
    )
    config, state = load(config_path), tmp_path / "state"
    build = ("reference", "build", tmp_path / "training.parquet", tmp_path / "reference", "--monitor", "a")
    subprocess.run([*COMMAND[:3], *build, "--config", config_path], check=True, stdout=subprocess.DEVNULL)

    with closing(Store.open(state)) as store:
        for name in MONITORS:
            store.enqueue(name, [Window(start=START - timedelta(hours=1), end=START)])

    working, done_before = 0, 0
    for kill in range(KILLS):
        daemon = Process(config_path, *ARGUMENTS, command=COMMAND)
        try:
            live_for_a_while(daemon, rng)
            assert daemon.process.poll() is None, daemon.log.read_text()[-2000:]
        finally:
            daemon.end(signal.SIGKILL)
        assert intact(state) is not False, f"kill {kill} of seed {seed}"
        if intact(state):
            with closing(sqlite3.connect(state / FILE)) as db:
                done = db.execute("SELECT count(*) FROM runs WHERE state = 'done'").fetchone()[0]
            working, done_before = working + (done > done_before), done

    daemon = Process(config_path, *ARGUMENTS, command=COMMAND)
    try:
        api = daemon.wait_until_ready()
        until(
            lambda: (r := api.status())["replay"]["finished"] and not r["outbox"]["hook"]["pending"], patience=900
        )
    finally:
        assert daemon.end() == 0
        receiver.close()
    assert intact(state)

    with closing(Store.open(state)) as store:
        results = {name: store.results(name, 10 * HOURS) for name in MONITORS}
        expected = expected_messages(store, config)
        poisonous = sum(r.failure is not None for found in results.values() for _, r in found)
        counters = store.snapshot().counters
    bodies, ids = defaultdict(set), defaultdict(set)
    for identifier, body in receiver.received:
        bodies[identifier].add(body)
        event = json.loads(body)
        assert event["id"] == identifier
        ids[event["type"], event["subject"], event["time"]].add(identifier)
    lost, unasked = expected.keys() - bodies.keys(), bodies.keys() - expected.keys()
    print(
        f"\n{KILLS} kills (seed {seed}), {working} of them after progress; "
        f"{sum(map(len, results.values()))} windows, {poisonous} given up; "
        f"{len(expected)} messages, {len(receiver.received)} deliveries, {receiver.torn} torn; {len(lost)} lost, "
        f"{len(unasked)} unasked, "
        f"{sum(len(b) > 1 for b in bodies.values())} ids with two bodies, "
        f"{sum(len(i) > 1 for i in ids.values())} events with two ids; database intact after every kill"
    )
    ends = [START + timedelta(hours=k) for k in range(HOURS + 1)]
    for name in MONITORS:
        assert [r.window.end for _, r in reversed(results[name])] == ends
        assert counters["runs_total", (("monitor", name),)] == len(ends)  # none was counted twice
    assert working >= KILLS / 3, "the daemon ran out of windows: most kills hit it idle"
    assert len(expected) > HOURS / 8
    assert (lost, unasked) == (set(), set())
    assert all(len(b) == 1 for b in bodies.values())
    assert all(len(i) == 1 for i in ids.values())
