"""Counters and histograms kept in the database, so that a restart does not set them back, and runs they counted.

Names go without the prefix `drift_monitor_`.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping

from drift_monitor.core.types import CheckResult, Outcome
from drift_monitor.service.database import Database
from drift_monitor.service.exposition import Buckets

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]
Origin = tuple[int, int]  # the run that is counted, and when (in microseconds since 1970)

HISTOGRAMS: Mapping[str, tuple[float, ...]] = {  # upper bounds in seconds; the last bucket, +Inf, goes unsaid
    "run_duration_seconds": (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
    "webhook_request_duration_seconds": (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30),
}


def count(db: Database, name: str, labels: Mapping[str, str], by: float = 1, origin: Origin | None = None) -> None:
    """Add to a counter, inside a transaction; with an origin, that run becomes its exemplar.

    Raises:
        ValueError: `by` is negative; a counter never falls.
    """
    if not by >= 0:
        raise ValueError(f"counter {name} cannot go down, got {by}")
    db.run("count", name=name, labels=_key(labels), by=by)
    if origin is not None and by:
        _put_exemplar(db, name, labels, 0, by, origin)


def observe(
    db: Database, name: str, labels: Mapping[str, str], value: float, origin: Origin | None = None
) -> None:
    """Add a value to a histogram, inside a transaction. One with other buckets than declared now starts anew.

    With an origin, that run becomes the exemplar of the value's bucket.

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
    elif stored is not None:
        db.run("drop_exemplars", name=name, labels=_key(labels))
    bucket = bisect_left(bounds, value)
    counts[bucket] += 1
    db.run(
        "put_histogram",
        name=name,
        labels=_key(labels),
        bounds=json.dumps(bounds),
        counts=json.dumps(counts),
        total=total + value,
    )
    if origin is not None:
        _put_exemplar(db, name, labels, bucket, value, origin)


def _put_exemplar(
    db: Database, name: str, labels: Mapping[str, str], bucket: int, value: float, origin: Origin
) -> None:
    run, at = origin
    db.run("put_exemplar", name=name, labels=_key(labels), bucket=bucket, run=run, value=value, at=at)


def count_run(db: Database, result: CheckResult, origin: Origin) -> None:
    """What a finished run adds to the counters."""
    monitor = {"monitor": result.monitor}
    count(db, "runs_total", monitor, 1, origin)
    count(db, "rows_processed_total", monitor, result.rows, origin)
    if result.failure is not None:
        count(db, "run_failures_total", {**monitor, "reason": result.failure.value}, 1, origin)
    elif result.verdict in {Outcome.NO_DATA, Outcome.CANNOT_JUDGE}:
        count(db, "runs_skipped_total", {**monitor, "reason": "insufficient_data"}, 1, origin)


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


def read_exemplars(db: Database) -> Iterator[tuple[Series, int, float, int]]:
    """Every exemplar: its series, the run, the value, and when in microseconds since 1970."""
    for name, labels, run, value, at in db.run("exemplars"):
        yield (name, _labels(labels)), run, value, at


def _key(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), sort_keys=True)


def _labels(key: str) -> Labels:
    return tuple(json.loads(key).items())
