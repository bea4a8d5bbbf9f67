"""What segments cost, whether the promise holds with them, and what they find that the whole does not show.

    python benchmarks/segments.py [--quick] [--json] [--universes 30]

Cost: one day of a log of 1,000,000 rows x 20 features (15 numbers, 5 texts, one of which has 10 values) in
Parquet, and a reference of 200,000 rows over two weeks, with and without `segments` of these 10 values. Every
check runs in a process of its own, imports included, and reads all rows (`window.incremental: false`).

Promise: a universe is a reference of 12 weeks and the 60 days after it, 3,000 rows a day, in which nothing drifts:
6 numbers, whose means differ by carrier and wander from day to day, and 10 carriers with shares from 34% to 3%.
Checks are daily. All alerts are false. The goal: a month has 1 at most, as `false_alerts_per_month` says.

Power: the same universes, but from the first live day on one number is moved by 0.75 standard deviations in the
rows of one carrier of about 5%. Counted are the days whose verdict is drift, with segments and without.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import check_cost
import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.models import Monitor
from drift_monitor.core.tally import MONTH, Tally
from drift_monitor.core.types import Outcome
from drift_monitor.service.backtest import Replay

NUMBERS, TEXTS, VALUES = 15, 4, 10
START = datetime(2024, 1, 1, tzinfo=UTC)
REFERENCE_DAYS, LIVE_DAYS, ROWS = 84, 60, 3000
FEATURES = 6
CARRIERS = [f"carrier {i}" for i in range(VALUES)]
SHARES = 1 / np.arange(1, VALUES + 1)
SMALL, SHIFT = 5, 0.75  # the carrier that drifts, and how far in standard deviations
AT_MOST = 1.0

CONFIG = """\
state: {folder}/state-{name}
monitors:
  bench:
    reference: {folder}/reference-{name}
    source: {{type: files, path: "{folder}/live.parquet", timestamp: time}}
    schedule: {{every: 1d}}
    window: {{length: 1d, incremental: false}}
    segments: {segments}
    quality: {{disable: [volume]}}
"""
NAMES = {"whole": "[]", "segments": "[carrier]"}


# -- cost ------------------------------------------------------------------------------------------------


def prepare(folder: Path, rows: int, reference_rows: int) -> None:
    """Write the files and build both references."""
    rng = np.random.default_rng(common.SEED)
    for name, n, start, days in (
        ("training", reference_rows, check_cost.START - check_cost.DAYS * check_cost.DAY, check_cost.DAYS),
        ("live", rows, check_cost.START, 1),
    ):
        wide = check_cost.log(rng, n, start, days)
        kept = [f"number_{i}" for i in range(NUMBERS)] + [f"text_{i}" for i in range(TEXTS)]
        codes = rng.choice(VALUES, n, p=SHARES / SHARES.sum()).astype(np.int32)
        carriers = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(CARRIERS)).cast(pa.string())
        table = wide.select(["time", *kept]).append_column("carrier", carriers)
        check_cost.write(table, folder / f"{name}.parquet")
    for name, segments in NAMES.items():
        config = folder / f"{name}.yaml"
        config.write_text(CONFIG.format(folder=folder, name=name, segments=segments))
        build = [
            "reference",
            "build",
            folder / "training.parquet",
            folder / f"reference-{name}",
            "--config",
            config,
        ]
        subprocess.run([*check_cost.program(), *map(str, build)], check=True, stdout=subprocess.DEVNULL)


def costs(*, quick: bool, rounds: int) -> dict[str, list[common.Cost]]:
    """Checks with and without segments, in turn."""
    found: dict[str, list[common.Cost]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="segments-") as temporary:
        folder = Path(temporary)
        environment = common.environment(folder)
        # not in this process: what a parent once held counts as the peak of its children
        child = [sys.executable, __file__, "--folder", str(folder), *(["--quick"] if quick else [])]
        common.measure(child, environment)
        commands = {name: check_cost.check(folder, name) for name in NAMES}
        for command in commands.values():  # compiles modules, fills caches, as a daemon's second check finds them
            common.measure(command, environment)
        for _ in range(rounds):
            for name, command in commands.items():
                found[name].append(common.measure(command, environment))
    return found


# -- promise and power -----------------------------------------------------------------------------------


def log(rng: np.random.Generator, days: int) -> pa.Table:
    """Rows of a universe: each carrier has its own means, which wander a little from day to day."""
    n = days * ROWS
    day = np.arange(n) // ROWS
    carrier = rng.choice(VALUES, n, p=SHARES / SHARES.sum())
    micros = (np.arange(n) * (86_400_000_000 / ROWS)).astype(np.int64)
    columns: dict[str, pa.Array] = {
        "time": pa.array(micros + int(START.timestamp()) * 1_000_000).cast(pa.timestamp("us", "UTC")),
        "carrier": pa.array(np.array(CARRIERS)[carrier]),
    }
    for i in range(FEATURES):
        means = rng.normal(size=VALUES)[None, :] + 0.1 * rng.normal(size=(days, 1))
        columns[f"x{i}"] = pa.array(means[np.minimum(day, days - 1), carrier] + rng.standard_normal(n))
    return pa.table(columns)


def drifting(live: pa.Table) -> pa.Table:
    mine = np.array(live["carrier"].to_pylist()) == CARRIERS[SMALL]
    moved = live["x0"].to_numpy() + SHIFT * mine
    return live.set_column(live.schema.get_field_index("x0"), "x0", pa.array(moved))


def universe(number: int, days: int) -> dict[str, dict[str, float]]:
    """False alerts of each lane, and the share of drifted days, with segments and without."""
    whole = log(np.random.default_rng([common.SEED, number]), REFERENCE_DAYS + days)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="segments-") as temporary:
        folder = Path(temporary)
        cut = REFERENCE_DAYS * ROWS
        pq.write_table(whole.slice(0, cut), folder / "training.parquet")
        pq.write_table(whole.slice(cut), folder / "quiet.parquet")
        pq.write_table(drifting(whole.slice(cut)), folder / "drifting.parquet")
        for name, segments in NAMES.items():
            quiet, moved = (run(folder, name, log, segments, days) for log in ("quiet", "drifting"))
            found[name] = {
                "drift": quiet["drift"],
                "quality": quiet["quality"],
                "found": moved["days"] / days,
                "features": quiet["features"],
            }
    return found


def run(folder: Path, name: str, live: str, segments: str, days: int) -> dict[str, float]:
    settings = {
        "reference": str(folder / "training.parquet"),
        "source": {"path": str(folder / f"{live}.parquet"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "window": {"bucket": "1d"},
        "alarm": {"multivariate": ["pairs"]},
        "segments": json.loads(segments.replace("carrier", '"carrier"')),
    }
    monitor = Monitor.model_validate_json(json.dumps(settings))
    start = START + timedelta(days=REFERENCE_DAYS)
    replay = Replay(name, monitor, folder, start, start + timedelta(days=days), rivals=False)
    tally, drifted, features = Tally(monitor.alarm), 0, 0
    for result, _ in replay.judged():
        tally.add(result)
        drifted += result.verdict is Outcome.DRIFT
        features = len(result.features)
    told = replay.told(tally)
    lanes = {lane: sum(alert.lane == lane for alert in told.episodes) for lane in ("drift", "quality")}
    return {**lanes, "days": drifted, "features": features}


# -- the report ------------------------------------------------------------------------------------------


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--universes", type=int, help="how many; 30, or 1 with --quick")
    parser.add_argument("--folder", type=Path, help="used by the benchmark itself")
    options = parser.parse_args()
    rows, reference_rows = (100_000, 50_000) if options.quick else (1_000_000, 200_000)
    if options.folder:
        prepare(options.folder, rows, reference_rows)
        return 0
    found = costs(quick=options.quick, rounds=options.rounds)
    days = 10 if options.quick else LIVE_DAYS
    count = options.universes or (1 if options.quick else 30)
    universes = [universe(number, days) for number in range(count)]
    months = count * days / MONTH
    figures = {
        name: {
            "features": universes[0][name]["features"],
            "drift alerts a month": sum(u[name]["drift"] for u in universes) / months,
            "quality alerts a month": sum(u[name]["quality"] for u in universes) / months,
            "drifting days found": float(np.mean([u[name]["found"] for u in universes])),
        }
        for name in NAMES
    }
    goals = {
        f"{lane} alerts a month with segments (at most {AT_MOST:g})": figures["segments"][f"{lane} alerts a month"]
        <= AT_MOST
        for lane in ("drift", "quality")
    }
    if options.quick:
        goals = {}
    if options.json:
        print(common.as_json(found, seed=common.SEED, rows=rows, months=months, figures=figures, goals=goals))
    else:
        print(f"{rows:,} rows x {NUMBERS + TEXTS + 1} features; seed {common.SEED}\n")
        print(common.table(found, "whole"))
        print(f"\n{count} universes of {days} days, {months:g} months:")
        for name, row in figures.items():
            print(f"  {name:10s}" + ", ".join(f"{what} {value:.2f}" for what, value in row.items()))
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
