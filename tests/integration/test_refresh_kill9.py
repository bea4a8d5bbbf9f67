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
from drift_monitor.service.refreshing import _hash, rebuild, refresh

KILLS = int(os.environ.get("DRIFT_MONITOR_KILLS", "6"))
START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CONTEXT = multiprocessing.get_context("forkserver")  # imports once
CONTEXT.set_forkserver_preload(["drift_monitor.service.refreshing", "drift_monitor.actions.training_set"])

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


def request(folder: Path, output: str) -> RefreshRequest:
    """Four days of training data and two live ones; written when they are not there yet."""
    if not (folder / "live.parquet").exists():
        pq.write_table(rows(0, 4), folder / "training.parquet")
        pq.write_table(rows(4, 2), folder / "live.parquet")
    monitor = Monitor.model_validate(
        {
            "reference": folder / "training.parquet",
            "source": {"path": str(folder / "live.parquet"), "timestamp": "time"},
            "schedule": {"every": "1d"},
            "columns": {"id": "id", "label": "late"},
            "refresh": {"live": "2d"},
            "alarm": {"false_alerts_per_month": None},
        },
        strict=False,
    )
    window = Window(start=START + 5 * DAY, end=START + 6 * DAY)
    return RefreshRequest(name="m", monitor=monitor, state=folder / "state", window=window, output=folder / output)


def test_a_version_is_whole_or_not_there(tmp_path: Path) -> None:
    refresh(request(tmp_path, "warm"))  # builds the reference
    began = time.monotonic()
    expected = refresh(request(tmp_path, "whole"))
    usual = time.monotonic() - began

    chance = random.Random(20130101)
    output, killed, seen = tmp_path / "out", 0, 0
    for _ in range(50 * KILLS):
        child = CONTEXT.Process(target=refresh, args=(request(tmp_path, "out"),))
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
    result = refresh(request(tmp_path, "out"))
    assert result.sha256 == expected.sha256
    assert result.train.read_bytes() == expected.train.read_bytes()
    assert not list(output.glob(".building-*"))


def test_two_at_once_make_one_version(tmp_path: Path) -> None:
    asked = request(tmp_path, "out")
    refresh(asked.model_copy(update={"output": tmp_path / "warm"}))
    children = [CONTEXT.Process(target=refresh, args=(asked,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    (version,) = (tmp_path / "out").glob("2*")
    assert rebuild(version).path == version
