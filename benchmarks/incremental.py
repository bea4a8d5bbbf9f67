"""A window that slides by the hour over a log of hourly files: is each row read once, and what does an hour cost?

    python benchmarks/incremental.py [--quick] [--json]

Two runs of `evaluate`, as a worker does it, in this process. "Weeks": 8 weeks of hourly files, a 7-day window
judged every hour; rows that leave the source are counted, with and without kept buckets (the latter for the
last day only: it reads the whole window each time). "Wide": 500 numeric features and 2,000 rows an hour; after
a week has been read, six further hours are judged, and each is set beside folding that hour's rows alone.

The goals, at full size: every row is read exactly once, and a wide hour costs less than .5 CPU-s beyond its
rows. The phases of a wide hour are wall time: opening the reference, reading (with the hour's rows), judging
the features.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.models import Monitor
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.types import CheckResult, Outcome, Window
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.service.references import reference_of, watched_specs
from drift_monitor.sources.files import Files

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
AT_MOST = 0.5


class Counted:
    """How many rows the source gave out."""

    def __init__(self) -> None:
        self.rows = 0
        plain = Files.batches

        def batches(files: Files, *rest: Any) -> Iterator[pa.RecordBatch]:
            for batch in plain(files, *rest):
                self.rows += batch.num_rows
                yield batch

        Files.batches = batches  # type: ignore[method-assign]


def hour_of(rng: np.random.Generator, start: datetime, rows: int, features: int) -> pa.Table:
    """One hour of rows."""
    first = int(start.timestamp() * 1e6)
    times = first + np.sort(rng.integers(0, 3_600_000_000, rows))
    columns = {f"x{j:03d}": rng.normal(size=rows).astype(np.float32) for j in range(features)}
    return pa.table({"t": pa.array(times, pa.timestamp("us", "UTC")), **columns})


def write(folder: Path, start: datetime, hours: int, rows: int, features: int) -> None:
    """A file an hour."""
    folder.mkdir(exist_ok=True)
    for hour in range(hours):
        at = start + hour * HOUR
        rng = np.random.default_rng([common.SEED, int(at.timestamp())])
        pq.write_table(hour_of(rng, at, rows, features), folder / f"{at:%Y%m%dT%H}.parquet", compression="zstd")


def monitor(folder: Path, length: timedelta, *, incremental: bool) -> Monitor:
    """No promise: what is measured is reading and judging."""
    return Monitor.model_validate_json(
        json.dumps(
            {
                "reference": str(folder / "training.parquet"),
                "source": {"path": str(folder / "log" / "*.parquet"), "timestamp": "t"},
                "schedule": {"every": "1h"},
                "window": {"length": f"{length // HOUR}h", "incremental": incremental},
                "alarm": {"false_alerts_per_month": None},
                "quality": {"false_alerts_per_month": None},
            }
        )
    )


def judge(folder: Path, length: timedelta, end: datetime, *, incremental: bool = True) -> CheckResult:
    """Evaluate one window."""
    result = evaluate(
        CheckRequest(
            name="m",
            monitor=monitor(folder, length, incremental=incremental),
            state=folder / "state",
            window=Window(start=end - length, end=end),
        )
    )
    if result.verdict is Outcome.CANNOT_JUDGE:
        raise RuntimeError(result.reason)
    return result


def weeks(folder: Path, counted: Counted, *, quick: bool) -> dict[str, Any]:
    """Hour after hour over weeks of files."""
    days, length, rows, features = (2, DAY, 50, 4) if quick else (56, WEEK, 200, 20)
    hours = days * 24
    write(folder / "log", START, hours, rows, features)
    training = pa.concat_tables(
        hour_of(np.random.default_rng(h), START - (h + 1) * HOUR, rows, features) for h in reversed(range(24 * 14))
    )
    pq.write_table(training, folder / "training.parquet")
    first = length // HOUR
    judge(folder, length, START + first * HOUR)
    counted.rows, started = 0, process_time()
    for path in (folder / "state" / "buckets").glob("*"):
        path.unlink()
    in_windows = sum(judge(folder, length, START + hour * HOUR).rows for hour in range(first, hours + 1))
    kept, seconds = counted.rows, process_time() - started
    counted.rows, started = 0, process_time()
    last = sum(
        judge(folder, length, START + hour * HOUR, incremental=False).rows for hour in range(hours - 23, hours + 1)
    )
    direct = (process_time() - started) / 24
    return {
        "rows": hours * rows,
        "windows": hours - first + 1,
        "rows in windows": in_windows,
        "rows read": kept,
        "CPU-s a window": seconds / (hours - first + 1),
        "rows read, directly, in a day": counted.rows,
        "rows in windows of that day": last,
        "CPU-s a window, directly": direct,
    }


def wide(folder: Path, *, quick: bool) -> dict[str, Any]:
    """What a further hour of many features costs beyond its rows."""
    features, rows, length, further = (20, 200, DAY, 2) if quick else (500, 2000, WEEK, 6)
    hours = length // HOUR
    write(folder / "log", START, hours + further, rows, features)
    training = [hour_of(np.random.default_rng(h), START - (h + 1) * HOUR, rows, features) for h in range(24)]
    pq.write_table(pa.concat_tables(training), folder / "training.parquet")
    started = process_time()
    judge(folder, length, START + length)
    first = process_time() - started
    gc.collect()
    gc.freeze()  # as a worker does after its first window
    settings = monitor(folder, length, incremental=True)
    reference = reference_of("m", settings, folder / "state", now=lambda: datetime.now(UTC))
    specs = watched_specs(settings, reference)
    beyond, alone, phases = [], [], []
    for hour in range(1, further + 1):
        end = START + length + hour * HOUR
        started = process_time()
        phases.append(judge(folder, length, end).seconds)
        took = process_time() - started
        path = folder / "log" / f"{end - HOUR:%Y%m%dT%H}.parquet"
        started = process_time()
        batches = pq.ParquetFile(path).iter_batches(1 << 17, use_threads=False)
        profile_buckets(specs, batches, timestamp="t", pairs=reference.pairs)
        alone.append(process_time() - started)
        beyond.append(took - alone[-1])
    kept = sum(path.stat().st_size for path in (folder / "state" / "buckets").iterdir())
    return {
        "features": features,
        "rows an hour": rows,
        "first window, CPU-s": first,
        "an hour's rows alone, CPU-s": median(alone),
        "an hour beyond its rows, CPU-s": median(beyond),
        **{f"of an hour, {phase}, s": median(p[phase] for p in phases) for phase in phases[0]},
        "kept, MB": kept / 1e6,
    }


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    options = parser.parse_args()
    counted = Counted()
    with tempfile.TemporaryDirectory(prefix="incremental-") as temporary:
        (Path(temporary) / "weeks").mkdir()
        (Path(temporary) / "wide").mkdir()
        found = {
            "weeks": weeks(Path(temporary) / "weeks", counted, quick=options.quick),
            "wide": wide(Path(temporary) / "wide", quick=options.quick),
        }
    cost = found["wide"]["an hour beyond its rows, CPU-s"]
    goals = {"each row read once": found["weeks"]["rows read"] == found["weeks"]["rows"]}
    if not options.quick:
        goals[f"a wide hour costs {cost:.2f} CPU-s beyond its rows (at most {AT_MOST:g})"] = cost <= AT_MOST
    if options.json:
        print(json.dumps({"seed": common.SEED, **found, "goals": goals}, indent=2))
    else:
        for name, rows in found.items():
            print(f"{name} (seed {common.SEED})")
            for what, value in rows.items():
                print(f"  {what:32s}{value:>12,.3f}" if isinstance(value, float) else f"  {what:32s}{value:>12,}")
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
