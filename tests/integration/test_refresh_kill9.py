"""A refresh killed -9 again and again: a version is there whole, or not at all.

DRIFT_MONITOR_KILLS=200 is the long version.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.actions.refresh import RefreshRequest
from drift_monitor.config.models import Monitor
from drift_monitor.core.types import Window
from drift_monitor.service.refresh_manifest import read_manifest
from drift_monitor.service.refreshing import _hash, refresh

KILLS = int(os.environ.get("DRIFT_MONITOR_KILLS", "10"))
START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)

pytestmark = pytest.mark.slow


def rows(first: int, days: int) -> pa.Table:
    n = days * 10_000
    rng = np.random.default_rng(first)
    times = [START + first * DAY + days * DAY * (i / n) for i in range(n)]
    numbers = {f"x{i}": rng.normal(size=n) for i in range(8)}
    return pa.table(
        {
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "id": np.arange(n) + first * 10_000,
            "late": rng.random(n) < 0.3,
            **numbers,
        }
    )


def test_a_version_is_whole_or_not_there(tmp_path: Path) -> None:
    pq.write_table(rows(0, 4), tmp_path / "training.parquet")
    pq.write_table(rows(4, 2), tmp_path / "live.parquet")
    monitor = Monitor.model_validate(
        {
            "reference": tmp_path / "training.parquet",
            "source": {"path": str(tmp_path / "live.parquet"), "timestamp": "time"},
            "schedule": {"every": "1d"},
            "columns": {"id": "id", "label": "late"},
            "refresh": {"live": "2d"},
            "alarm": {"false_alerts_per_month": None},
        },
        strict=False,
    )
    window = Window(start=START + 5 * DAY, end=START + 6 * DAY)

    def request(output: str) -> RefreshRequest:
        return RefreshRequest(
            name="m", monitor=monitor, state=tmp_path / "state", window=window, output=tmp_path / output
        )

    refresh(request("warm"))  # builds the reference
    began = time.monotonic()
    expected = refresh(request("whole"))
    usual = time.monotonic() - began

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["drift_monitor.service.refreshing", "drift_monitor.actions.training_set"])
    chance = random.Random(20130101)
    output, killed, seen = tmp_path / "out", 0, 0
    for _ in range(50 * KILLS):
        child = context.Process(target=refresh, args=(request("out"),))
        child.start()
        child.join(chance.uniform(0, usual * 1.5))
        if child.exitcode is None:
            child.kill()
            killed += 1
        child.join()
        seen += any(output.glob(".building-*"))
        for version in output.glob("2*"):
            manifest = read_manifest(version)  # refuses what is not whole
            for part in manifest.parts:
                assert _hash(version / part.file) == {"bytes": part.bytes, "sha256": part.sha256}
            shutil.rmtree(version)  # so that the next one has as much to do
        if killed >= KILLS:
            break
    assert killed == KILLS
    assert seen, "none of the kills hit a refresh at work"
    result = refresh(request("out"))
    assert result.sha256 == expected.sha256
    assert result.train.read_bytes() == expected.train.read_bytes()
    assert not list(output.glob(".building-*"))
