"""How the cost of a check grows: with rows, columns, categories and monitors.

    python benchmarks/growth.py [--quick] [--json] [--picture growth.svg] [--axis rows ...]

Each point is a process of its own that evaluates its monitors one after the other, as a worker does, each on a day
of a log that it has not seen before; imports are part of it. Along each axis all else is fixed:

    rows        of 10 numbers and an event time, one monitor
    columns     numbers, 200,000 rows
    categories  of each of two text columns, drawn by Zipf's law, 1,000,000 rows; the reference has 200,000
    monitors    of 20 numbers and 10,000 rows each

A slope is that of the logarithms between the two largest points, of what they cost beyond the smallest one: 1 is
linear. The goals, at full size: no slope above 1.15, and no more memory for the most rows than 1.25 times what a
tenth to a quarter of them take.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.models import Monitor
from drift_monitor.core.types import Outcome, Window
from drift_monitor.cpu import choose_vectors

DAY: Final = 86_400_000_000
END: Final = datetime(2024, 3, 2, tzinfo=UTC)
WINDOW: Final = Window(start=END - timedelta(days=1), end=END)
GROUP: Final = 131_072
STEEPEST, MOST_MEMORY = 1.15, 1.25

FULL: Final = {
    "rows": (100_000, 1_000_000, 5_000_000, 20_000_000),
    "columns": (10, 50, 200, 500),
    "categories": (10, 1000, 100_000, 1_000_000),
    "monitors": (1, 10, 30, 100),
}
QUICK: Final = {
    "rows": (10_000, 50_000, 200_000),
    "columns": (2, 8, 32),
    "categories": (10, 100, 1000),
    "monitors": (1, 2, 4),
}
EVERYTHING_ELSE: Final = {
    "rows": {"columns": 10},
    "columns": {"rows": 200_000},
    "categories": {"rows": 1_000_000, "columns": 2},
    "monitors": {"rows": 10_000, "columns": 20},
}


def log(end: datetime, days: int, rows: int, columns: int, categories: int | None) -> Iterator[pa.RecordBatch]:
    """Rows in the order of their times, a row group at a time."""
    last = int(end.timestamp() * 1e6)
    for at in range(0, rows, GROUP):
        n = min(GROUP, rows - at)
        rng = np.random.default_rng([common.SEED, last // DAY, days, at])
        low, high = (last - days * DAY + days * DAY * share // rows for share in (at, at + n))
        found = {"t": pa.array(np.sort(rng.integers(low, high, n)), pa.timestamp("us", "UTC"))}
        for j in range(columns):
            if categories is None:
                found[f"x{j:03d}"] = pa.array(rng.normal(size=n))
            else:
                codes = np.minimum(np.exp(rng.random(n) * math.log(categories)), categories - 1).astype(np.int64)
                found[f"x{j:03d}"] = pa.array([f"category {code}" for code in codes.tolist()])
        yield pa.RecordBatch.from_pydict(found)


def write(path: Path, batches: Iterator[pa.RecordBatch]) -> None:
    first = next(batches)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as file:
        file.write_batch(first)
        for batch in batches:
            file.write_batch(batch)


def monitor(folder: Path) -> Monitor:
    """No promise: what is measured is reading and judging."""
    return Monitor.model_validate_json(
        json.dumps(
            {
                "reference": str(folder / "training.parquet"),
                "source": {"path": str(folder / "live.parquet"), "timestamp": "t"},
                "schedule": {"every": "1d"},
                "alarm": {"false_alerts_per_month": None},
                "quality": {"false_alerts_per_month": None, "disable": ["volume"]},
            }
        )
    )


def prepare(folder: Path, point: Mapping[str, int]) -> None:
    """Write the files and build the references."""
    from drift_monitor.service.references import reference_of  # noqa: PLC0415 - only its own process pays for it

    categories = point.get("categories")
    for number in range(point.get("monitors", 1)):
        own = folder / f"{number}"
        own.mkdir()
        of_reference = min(point["rows"], 200_000)
        write(own / "training.parquet", log(WINDOW.start, 14, of_reference, point["columns"], categories))
        write(own / "live.parquet", log(END, 1, point["rows"], point["columns"], categories))
        reference_of(f"m{number}", monitor(own), folder / "state", now=lambda: END)


def check(folder: Path, point: Mapping[str, int]) -> None:
    """What is measured."""
    from drift_monitor.service.evaluate import CheckRequest, evaluate  # noqa: PLC0415 - see above

    for number in range(point.get("monitors", 1)):
        own = monitor(folder / f"{number}")
        result = evaluate(CheckRequest(name=f"m{number}", monitor=own, state=folder / "state", window=WINDOW))
        if result.verdict is Outcome.CANNOT_JUDGE or result.rows != point["rows"]:
            raise SystemExit(f"{result.rows} rows: {result.verdict}: {result.reason}")


def measured(point: Mapping[str, int], rounds: int) -> common.Cost:
    """The median cost of a point; each round begins without kept buckets."""
    costs = []
    with tempfile.TemporaryDirectory(prefix="growth-") as temporary:
        folder = Path(temporary)
        environment = common.environment(folder / "none")
        choose_vectors(environment)  # as the daemon does for its workers
        environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "growth-compiled")
        child = [sys.executable, __file__, "--folder", str(folder), "--point", json.dumps(point), "--child"]
        common.measure([*child, "prepare"], environment)
        for _ in range(rounds):
            subprocess.run(["rm", "-rf", str(folder / "state" / "buckets")], check=True)
            costs.append(common.measure([*child, "check"], environment))
    return common.median(costs)


def slope(sizes: Sequence[int], costs: Sequence[common.Cost]) -> float:
    """Between the two largest points, of what they cost beyond the smallest one."""
    beyond = [max(c.cpu - costs[0].cpu, 1e-3) for c in costs[-2:]]
    more = [size - sizes[0] for size in sizes[-2:]]
    return math.log(beyond[1] / beyond[0]) / math.log(more[1] / more[0])


def picture(found: Mapping[str, tuple[Sequence[int], Sequence[common.Cost]]]) -> str:
    """Four panels, logarithmic both ways: processor seconds in blue, megabytes at the peak in grey."""
    wide, high, gap = 330, 240, 60
    parts = []
    for k, (axis, (sizes, costs)) in enumerate(found.items()):
        left, top = gap + k % 2 * (wide + gap), 50 + k // 2 * (high + 80)
        x = [math.log10(size) for size in sizes]
        low, span = x[0], x[-1] - x[0]
        parts.append(
            f'<text x="{left}" y="{top - 12}" class="title">{axis}, slope {slope(sizes, costs):.2f}</text>'
        )
        parts.append(f'<rect x="{left}" y="{top}" width="{wide}" height="{high}" class="frame"/>')
        for exponent in range(-1, 5):  # 0.1 to 10,000
            y = top + high - (exponent + 1) / 5 * high
            parts.append(f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
            parts.append(
                f'<text x="{left - 6}" y="{y + 4:.1f}" class="label" text-anchor="end">{10**exponent:g}</text>'
            )
        for values, kind in (([c.cpu for c in costs], "cpu"), ([c.peak for c in costs], "peak")):
            points = [
                (left + (at - low) / span * wide, top + high - (math.log10(value) + 1) / 5 * high)
                for at, value in zip(x, values, strict=True)
            ]
            parts.append(f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}" class="{kind}"/>')
            for (a, b), value in zip(points, values, strict=True):
                said = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
                parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" class="{kind}"/>')
                parts.append(f'<text x="{a:.1f}" y="{b - 8:.1f}" class="label" text-anchor="middle">{said}</text>')
        for at, size in zip(x, sizes, strict=True):
            a = left + (at - low) / span * wide
            parts.append(
                f'<text x="{a:.1f}" y="{top + high + 16}" class="label" text-anchor="middle">{size:,}</text>'
            )
    width, height = 2 * (wide + gap) + 30, 50 + -(-len(found) // 2) * (high + 80)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
        "<style>.title{font-size:14px;font-weight:bold}.label{font-size:10px;fill:#555}.frame{fill:none;stroke:#999}"
        ".grid{stroke:#eee}polyline{fill:none;stroke-width:2}.cpu{stroke:#1f6fb4;fill:#1f6fb4}polyline.cpu{fill:none}"
        ".peak{stroke:#b9c0c9;fill:#b9c0c9}polyline.peak{fill:none}text.label{stroke:none}</style>"
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        '<text x="60" y="20" class="label">CPU seconds (blue) and MB at the peak (grey) of a check</text>'
        f"{''.join(parts)}</svg>\n"
    )


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.set_defaults(rounds=3)
    parser.add_argument("--axis", action="append", choices=list(FULL), help="only this one; may be repeated")
    parser.add_argument("--picture", type=Path, help="draw an SVG")
    parser.add_argument("--child", choices=["prepare", "check"], help="used by the benchmark itself")
    parser.add_argument("--folder", type=Path, help="used by the benchmark itself")
    parser.add_argument("--point", type=json.loads, help="used by the benchmark itself")
    options = parser.parse_args()
    if options.child:
        {"prepare": prepare, "check": check}[options.child](options.folder, options.point)
        return 0
    axes = QUICK if options.quick else FULL
    found: dict[str, tuple[Sequence[int], list[common.Cost]]] = {}
    for axis in options.axis or axes:
        base = dict(EVERYTHING_ELSE[axis])
        if options.quick and "rows" in base:
            base["rows"] = min(base["rows"], 10_000)
        rounds = 1 if options.quick else options.rounds
        costs = []
        for size in axes[axis]:
            costs.append(measured({**base, axis: size}, rounds))
            if not options.json:
                cost = costs[-1]
                print(
                    f"{axis:12s}{size:12,d}{cost.cpu:10.2f} CPU-s{cost.wall:10.2f} s{cost.peak:8.0f} MB",
                    flush=True,
                )
        found[axis] = axes[axis], costs
    goals = {
        f"{axis}: slope {slope(*each):.2f} (at most {STEEPEST})": slope(*each) <= STEEPEST
        for axis, each in found.items()
    }
    if "rows" in found:
        more = found["rows"][1][-1].peak / found["rows"][1][-2].peak
        goals[f"rows: {more:.2f} times the memory (at most {MOST_MEMORY})"] = more <= MOST_MEMORY
    if options.quick:
        goals = {}  # of so little, the imports are most
    if options.picture:
        options.picture.write_text(picture(found))
    if options.json:
        points = {
            axis: [{"size": s, "cpu": c.cpu, "wall": c.wall, "peak": c.peak} for s, c in zip(*each, strict=True)]
            for axis, each in found.items()
        }
        slopes = {axis: slope(*each) for axis, each in found.items()}
        print(json.dumps({"seed": common.SEED, "points": points, "slopes": slopes, "goals": goals}, indent=2))
    else:
        print(f"\nseed {common.SEED}\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
