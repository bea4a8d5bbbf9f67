"""Time and memory of weights for many training rows: `drift-monitor reweight` in a process of its own.

    python benchmarks/weights_scale.py [--quick] [--json] [--rows 10000000]

The training file has 25 numbers, of which two have moved in the live rows, 5 categories and a label. The reference
is built from 200,000 such rows beforehand. Measured: the whole command (check of the window, sample, fit, weights
of every row, gate, picture), by the classifier and by raking, and the child's largest resident memory. A tenth of
the rows beside it shows what grows with them: time does, memory does not.

The goal, at full size: ten times the rows take at most 1.5 times the memory.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS, CATEGORIES, LIVE_ROWS, REFERENCE_ROWS = 25, 5, 50_000, 200_000
MOVED = {"n00": 0.8, "n01": 0.4}
FULL_ROWS, QUICK_ROWS = 10_000_000, 10_000
GROUP = 1 << 18
AT_MOST = 1.5


def rows_of(rng: np.random.Generator, rows: int, *, live: bool) -> pa.Table:
    """Rows of 30 features and a label."""
    columns: dict[str, pa.Array] = {}
    label = np.zeros(rows, np.float32)
    for j in range(NUMBERS):
        name = f"n{j:02d}"
        x = rng.normal(MOVED.get(name, 0.0) if live else 0.0, size=rows).astype(np.float32)
        label += np.sin(x) / (1 + j)
        columns[name] = pa.array(np.round(x, 3))
    for j in range(CATEGORIES):
        codes = rng.zipf(1.6, size=rows) % 20
        columns[f"c{j}"] = pa.DictionaryArray.from_arrays(
            pa.array(codes.astype(np.int32)), pa.array([f"category {k:02d}" for k in range(20)])
        )
    columns["y"] = pa.array(label + rng.normal(size=rows).astype(np.float32))
    return pa.table(columns)


def write(path: Path, rows: int, seed: int, *, live: bool) -> None:
    """A file of random rows, a row group at a time."""
    rng = np.random.default_rng([common.SEED, seed])
    writer = None
    for start in range(0, rows, GROUP):
        part = rows_of(rng, min(GROUP, rows - start), live=live)
        writer = writer or pq.ParquetWriter(path, part.schema, compression="zstd", compression_level=1)
        writer.write_table(part)
    if writer is not None:
        writer.close()


def configuration(folder: Path, training: Path) -> Path:
    """A monitor without event times, whose check costs little beside the weights."""
    monitor = {
        "reference": str(folder / "known.parquet"),
        "training": str(training),
        "source": {"type": "files", "path": str(folder / "live.parquet")},
        "schedule": {"every": "1h"},
        "columns": {"label": "y"},
        "alarm": {"false_alerts_per_month": None},
        "quality": {"false_alerts_per_month": None},
    }
    path = folder / f"{training.stem}.yaml"
    path.write_text(json.dumps({"state": str(folder / "state"), "monitors": {"wide": monitor}}))
    return path


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help=f"of the training file, {FULL_ROWS:,} unless --quick")
    options = parser.parse_args()
    rows = options.rows or (QUICK_ROWS if options.quick else FULL_ROWS)
    start = perf_counter()
    with tempfile.TemporaryDirectory(prefix="weights-") as temporary:
        folder = Path(temporary)
        environment = common.environment(folder)
        write(folder / "live.parquet", min(LIVE_ROWS, rows), 1, live=True)
        write(folder / "known.parquet", min(REFERENCE_ROWS, rows), 2, live=False)
        base = [sys.executable, "-m", "drift_monitor"]
        first = configuration(folder, folder / "known.parquet")
        common.measure([*base, "check", "--config", str(first)], environment)  # builds the reference
        costs: dict[str, list[common.Cost]] = {}
        said: dict[str, dict[str, object]] = {}
        for count in (rows // 10, rows):
            training = folder / f"training-{count}.parquet"
            write(training, count, 3, live=False)
            config = configuration(folder, training)
            for method in ("classifier", "raking") if count == rows else ("classifier",):
                name = f"{count:,} rows, {method}"
                output = folder / "weights"
                command = [*base, "reweight", "--config", str(config), "--method", method, "--output", str(output)]
                # raking has no need to be told what has moved: it takes the features that drifted
                costs[name] = [common.measure(command, environment, allowed=(0, 2, 3))]
                manifest = json.loads((output / "manifest.json").read_text())
                said[name] = {"why": manifest["why"], **manifest["diagnostics"]}
            training.unlink()
    names = list(costs)
    grown = costs[names[1]][0].peak / costs[names[0]][0].peak
    goals = {} if rows < FULL_ROWS else {f"memory grew {grown:.2f} times (at most {AT_MOST:g})": grown <= AT_MOST}
    facts = {"seed": common.SEED, "features": NUMBERS + CATEGORIES, "rows": rows, "weights": said, "goals": goals}
    if options.json:
        print(common.as_json(costs, **facts))
    else:
        print(f"{NUMBERS + CATEGORIES} features; {perf_counter() - start:.0f} s in all; seed {common.SEED}\n")
        print(common.table(costs, names[0]))
        for name, found in said.items():
            print(
                f"\n{name}: {found['rows']:,} weights, ESS {found['effective_sample_size']:,.0f}, largest "
                f"difference left {found['difference_after']:.3f} sd; {found['why']}"
            )
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
