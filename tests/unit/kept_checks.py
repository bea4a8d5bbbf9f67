"""Checks with kept buckets beside checks without, for tests."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from drift_monitor.config.models import Monitor
from drift_monitor.core.folding import Folded, Folding
from drift_monitor.core.types import CheckResult, Window
from drift_monitor.service.evaluate import CheckRequest, evaluate

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIVE = START + 14 * DAY
PER_HOUR = 40


def rows(start: datetime, hours: int, seed: int, *, shuffled: bool = False, broken: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = hours * PER_HOUR
    times: list[datetime | None] = [start + HOUR * (i / PER_HOUR) for i in range(n)]
    times[:broken] = [None] * broken
    table = pa.table(
        {
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "id": [f"{seed}-{i % (n - 3)}" for i in range(n)],
            "speed": pa.array(rng.normal(100, 10, n), mask=rng.random(n) < 0.05),
            "load": rng.gamma(2, 1, n).astype(np.float32),
            "carrier": rng.choice(["UA", "AA", "DL", f"new{seed}"], n, p=[0.5, 0.3, 0.19, 0.01]),
            "late": rng.random(n) < 0.3,
        }
    )
    return table.take(rng.permutation(n)) if shuffled else table


def monitor(data: Path, promise: float | None = None, **window: Any) -> Monitor:
    """Watches the files in `live`, or what the folder's `source.json` says."""
    said = data / "source.json"
    source = json.loads(said.read_text()) if said.exists() else {"path": str(data / "live" / "*")}
    return Monitor.model_validate_json(
        json.dumps(
            {
                "reference": str(data / "training.parquet"),
                "source": source | {"timestamp": "time"},
                "schedule": {"every": "1h"},
                "window": {"length": "1d"} | window,
                "columns": {"id": "id"},
                "alarm": {"false_alerts_per_month": promise},
                "quality": {"false_alerts_per_month": promise},
            }
        )
    )


def check(data: Path, end: datetime, **window: Any) -> CheckResult:
    length = window.pop("span", DAY)
    request = CheckRequest(
        name="m", monitor=monitor(data, **window), state=data / "state", window=Window(start=end - length, end=end)
    )
    return evaluate(request).model_copy(update={"seconds": {}})


def both(data: Path, end: datetime, **window: Any) -> CheckResult:
    """The result of kept buckets, after it was compared with that of a direct read."""
    kept, direct = check(data, end, **window), check(data, end, incremental=False, **window)
    assert direct.read_from is None
    assert kept.model_copy(update={"read_from": None}) == direct
    return kept


def count_rows(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the rows that are folded into buckets from now on, as `rows`."""
    counts: Counter[str] = Counter()
    plain = Folding.__call__

    def counting(folding: Folding, batches: Any) -> Folded:
        def counted() -> Any:
            for batch in batches:
                if folding.starts is None:  # buckets, and no stretches of a window that is read directly
                    counts["rows"] += batch.num_rows
                yield batch

        return plain(folding, counted())

    monkeypatch.setattr(Folding, "__call__", counting)
    return counts
