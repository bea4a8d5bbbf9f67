"""Counters and histograms kept in the database, so that a restart does not set them back.

Names go without the prefix `drift_monitor_`.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping

from drift_monitor.core.types import CheckResult, Outcome
from drift_monitor.service.database import Database

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]
Buckets = tuple[tuple[float, ...], tuple[int, ...], float]

HISTOGRAMS: Mapping[str, tuple[float, ...]] = {  # upper bounds in seconds; the last bucket, +Inf, goes unsaid
    "run_duration_seconds": (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
    "webhook_request_duration_seconds": (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
}


def count(db: Database, name: str, labels: Mapping[str, str], by: float = 1) -> None:
    """Add to a counter, inside a transaction.

    Raises:
        ValueError: `by` is negative; a counter never falls.
    """
    if not by >= 0:
        raise ValueError(f"counter {name} cannot go down, got {by}")
    db.run("count", name=name, labels=_key(labels), by=by)


def observe(db: Database, name: str, labels: Mapping[str, str], value: float) -> None:
    """Add a value to a histogram, inside a transaction. One with other buckets than declared now starts anew.

    Raises:
        ValueError: the histogram is not declared in HISTOGRAMS.
    """
    if name not in HISTOGRAMS:
        raise ValueError(f"histogram {name} has no buckets in HISTOGRAMS (known: {', '.join(HISTOGRAMS)})")
    bounds = HISTOGRAMS[name]
    counts, total = [0] * (len(bounds) + 1), 0.0
    stored = db.run("histogram", name=name, labels=_key(labels)).fetchone()
    if stored is not None and tuple(json.loads(stored[0])) == bounds:
        counts, total = json.loads(stored[1]), stored[2]
    counts[bisect_left(bounds, value)] += 1
    db.run(
        "put_histogram",
        name=name,
        labels=_key(labels),
        bounds=json.dumps(bounds),
        counts=json.dumps(counts),
        total=total + value,
    )


def count_run(db: Database, result: CheckResult) -> None:
    """What a finished run adds to the counters."""
    monitor = {"monitor": result.monitor}
    count(db, "runs_total", monitor)
    count(db, "rows_processed_total", monitor, result.rows)
    if result.failure is not None:
        count(db, "run_failures_total", {**monitor, "reason": result.failure.value})
    elif result.verdict in {Outcome.NO_DATA, Outcome.CANNOT_JUDGE}:
        count(db, "runs_skipped_total", {**monitor, "reason": "insufficient_data"})


def count_request(db: Database, delivery: int, seconds: float, failure: str | None = None) -> str | None:
    """What an attempt to deliver adds to the counters; the receiver's name, or None for a dropped delivery."""
    row = db.run("receiver_of", id=delivery).fetchone()
    if row is None:  # dropped by a person while it was on its way
        return None
    receiver: str = row[0]
    count(db, "webhook_requests_total", {"receiver": receiver})
    observe(db, "webhook_request_duration_seconds", {"receiver": receiver}, seconds)
    if failure is not None:
        count(db, "webhook_request_failures_total", {"receiver": receiver, "reason": failure})
    return receiver


def read_counters(db: Database) -> Iterator[tuple[Series, float]]:
    """Every counter."""
    for name, labels, value in db.run("counters"):
        yield (name, _labels(labels)), value


def read_histograms(db: Database) -> Iterator[tuple[Series, Buckets]]:
    """Every histogram: bounds without +Inf; one count more than bounds, not cumulative; the sum."""
    for name, labels, bounds, counts, total in db.run("histograms"):
        yield (name, _labels(labels)), (tuple(json.loads(bounds)), tuple(json.loads(counts)), total)


def _key(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), sort_keys=True)


def _labels(key: str) -> Labels:
    return tuple(json.loads(key).items())
