"""The loop in a real daemon, killed -9 again and again: each drift is retrained once, its reference promoted."""

import json
import os
import random
import signal
import sqlite3
import threading
import time
import urllib.request
from collections import Counter
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from daemon_harness import Process, Receiver, configure, until

from drift_monitor.config.models import Columns
from drift_monitor.core.retraining import State
from drift_monitor.reference import build_reference
from drift_monitor.service.lock import read_lock
from drift_monitor.service.promotions import promotion_of
from drift_monitor.service.store import FILE, Store

KILLS = int(os.environ.get("DRIFT_MONITOR_KILLS", "5"))
START = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = 40
DRIFTS = (range(3, 12), range(20, 30))
BROKEN = (12, 13, 30)


def training(path, days, seed):
    rng = np.random.default_rng(seed)
    n = days * 24
    stamp = pa.array([START - timedelta(hours=n - i) for i in range(n)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"t": stamp, "x": rng.normal(size=n)}), path)


class Pipeline:
    """Trains at once whatever it is asked for, knows repeats by their id, and reports until it is heard."""

    def __init__(self, folder, state):
        self.inbox, self.state, self.folder = Receiver(), state, folder
        self.started = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self):
        known = set()
        while not self._over.wait(0.05):
            for ident, body in list(self.inbox.received):
                if ident not in known:
                    known.add(ident)
                    event = json.loads(body)["data"]["retraining"]["id"]
                    self.started[event] += 1
                    threading.Thread(target=self._train, args=(event,), daemon=True).start()

    def _train(self, ident):
        path = self.folder / f"trained-{ident[:8]}.parquet"
        training(path, 10, seed=int(ident[:4], 16))
        for state in ("started", "succeeded", "live"):
            report = {"state": state}
            if state != "started":
                report |= {"version": ident[:6], "training": str(path)}
            while not self._over.is_set() and not self._tell(ident, report):
                time.sleep(0.1)

    def _tell(self, ident, report):
        with suppress(OSError, ValueError):
            info = read_lock(self.state)
            if info is None:  # the daemon was killed while it wrote
                return False
            request = urllib.request.Request(
                f"{info.address}/api/v1/retrainings/{ident}",
                json.dumps(report).encode(),
                {"X-Requested-By": "drift-monitor"},
            )
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status == 200
        return False

    def close(self):
        self._over.set()
        self.inbox.close()


@pytest.mark.slow
@pytest.mark.timeout(300 + 20 * KILLS)
def test_each_drift_is_retrained_once(tmp_path):
    seed = int(os.environ.get("DRIFT_MONITOR_SEED", str(time.time_ns() % 10**6)))
    rng, state = random.Random(seed), tmp_path / "state"
    training(tmp_path / "training.parquet", 10, seed=1)
    build_reference(
        tmp_path / "training.parquet",
        tmp_path / "reference",
        columns=Columns(),
        timestamp="t",
        bucket=timedelta(hours=1),
        created=START,
    )
    deeds = {f"{START + timedelta(hours=h):%dT%H}": "drift" for hours in DRIFTS for h in hours}
    deeds |= {f"{START + timedelta(hours=h):%dT%H}": "broken" for h in BROKEN}
    (tmp_path / "script.json").write_text(json.dumps(deeds))
    pipeline, daemon = Pipeline(tmp_path, state), None
    monitor = {
        "schedule": {"every": "1h", "catch_up": "all"},
        "alarm": {"false_alerts_per_month": None},
        "retrain": {"receiver": "hook", "mode": "auto", "labels": 0, "cooldown": "0s", "give_up": 99},
    }
    config = configure(tmp_path, {"m": monitor}, receiver=pipeline.inbox)
    settings = json.loads(config.read_text())
    settings["monitors"]["m"]["notify"] = []
    config.write_text(json.dumps(settings))
    until_time = START + timedelta(hours=HOURS)
    arguments = (START.isoformat(), 3600 * 4, until_time.isoformat())  # four windows a second

    try:
        for kill in range(KILLS):
            daemon = Process(config, *arguments)
            try:
                time.sleep(rng.uniform(0.5, 4))
            finally:
                daemon.end(signal.SIGKILL)
            if (state / FILE).exists():
                with closing(sqlite3.connect(state / FILE)) as db:
                    found = db.execute("PRAGMA integrity_check").fetchone()[0]
                assert found == "ok", f"kill {kill} of seed {seed}"

        daemon = Process(config, *arguments)
        api = daemon.wait_until_ready()

        listed = []

        def is_over():
            nonlocal listed
            listed = json.loads(api.get("/api/v1/retrainings")[2])["retrainings"]
            moving = [r for r in listed if r["state"] not in ("promoted", "withheld", "expired")]
            return api.status()["replay"]["finished"] and not moving

        until(is_over, lambda: f"the end of the loop (seed {seed}) with {listed}", patience=60)
        assert daemon.end() == 0
    finally:
        pipeline.close()
        if daemon is not None:
            daemon.end(signal.SIGKILL)

    with closing(Store.open(state)) as store:
        known = store.retrainings.newest("m", 99)
        episodes = [e for e in store.episodes("m", 99) if e.lane == "drift"]
        judged = [result.window.end for _, result in store.results("m", 999)]
    promoted = [r for r in known if r.state is State.PROMOTED]
    print(f"\n{KILLS} kills (seed {seed}): {len(known)} retrainings, {len(promoted)} promoted")
    assert len(judged) == len(set(judged))
    assert promoted
    assert len({r.episode for r in known}) == len(known)
    assert pipeline.started == Counter(r.id for r in known if r.requested is not None)
    ended = {e.id: e for e in episodes}
    assert all(ended[r.episode].closed is not None for r in promoted if r.episode in ended)
    record = promotion_of(state, "m")
    assert record is not None
    assert record.retraining == promoted[0].id
    assert record.version == promoted[0].reference
