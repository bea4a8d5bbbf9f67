"""What the calibrated alarm costs: building and calibrating a reference, a check, a backtest.

    python benchmarks/calibration.py [--quick] [--json]

Eight weeks of a log of 1,000,000 rows a week with 40 numbers and 10 texts (seasons of a day, and days that differ)
are the reference; one more week is live. Each step runs as a command in a process of its own, imports included.

The goal: a calibration takes under a minute of wall time on two cores.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

WEEKS = 8
HOUR = 3_600_000_000
START = int(np.datetime64("2024-01-01", "us").astype(np.int64))  # a Monday
AT_MOST_SECONDS = 60.0

CONFIG = """\
state: {folder}/state
monitors:
  bench:
    reference: {reference}
    source: {{type: files, path: "{folder}/live/*.parquet", timestamp: time}}
    schedule: {{every: 1h}}
    window: {{length: 1d}}
"""


def week(number: int, rows: int, numbers: int, texts: int) -> pa.Table:
    """One week of rows in the order of their times."""
    rng = np.random.default_rng([common.SEED, number])
    time = np.sort(rng.integers(0, 7 * 24 * HOUR, rows)) + START + number * 7 * 24 * HOUR
    hour = (time - START) / HOUR
    columns: dict[str, pa.Array] = {"time": pa.array(time).cast(pa.timestamp("us", "UTC"))}
    for i in range(numbers):
        # the level of a day is the same whichever week's file it is drawn for
        levels = np.random.default_rng([common.SEED, i]).normal(0, 0.1, 7 * (WEEKS + 1))
        mean = 0.3 * np.sin(2 * np.pi * (hour / 24 + i / numbers)) + levels[(hour // 24).astype(int)]
        x = mean + rng.standard_normal(rows)
        columns[f"number_{i}"] = pa.array(x if i % 2 else np.exp(x))
    for i in range(texts):
        shares = 1 / np.arange(1, 5 * (i + 1) + 1)
        codes = rng.choice(len(shares), rows, p=shares / shares.sum()).astype(np.int32)
        names = pa.array([f"category {k}" for k in range(len(shares))])
        columns[f"text_{i}"] = pa.DictionaryArray.from_arrays(pa.array(codes), names).cast(pa.string())
    return pa.table(columns)


def prepare(folder: Path, rows: int, numbers: int, texts: int) -> None:
    """Write the files and both configurations."""
    for name, weeks in (("training", range(WEEKS)), ("live", [WEEKS])):
        (folder / name).mkdir()
        for number in weeks:
            pq.write_table(
                week(number, rows, numbers, texts), folder / name / f"{number}.parquet", row_group_size=131_072
            )
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, reference=folder / "reference"))


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--child", choices=["prepare"], help="used by the benchmark itself")
    parser.add_argument("--folder", type=Path, help="used by the benchmark itself")
    options = parser.parse_args()
    rows, numbers, texts = (3_000, 4, 2) if options.quick else (1_000_000, 40, 10)
    if options.child:
        prepare(options.folder, rows, numbers, texts)
        return 0
    with tempfile.TemporaryDirectory(prefix="calibration-") as temporary:
        folder = Path(temporary)
        environment = common.environment(folder)
        program = [sys.executable, "-m", "drift_monitor"]
        config = ["--config", str(folder / "config.yaml")]
        quick = ["--quick"] if options.quick else []
        common.measure(
            [sys.executable, __file__, "--folder", temporary, "--child", "prepare", *quick], environment
        )
        steps = {
            "reference build, calibrated": [
                *program,
                "reference",
                "build",
                str(folder / "training"),
                str(folder / "reference"),
                *config,
            ],
            "calibrate": [*program, "calibrate", *config],
            "check of a day": [*program, "check", "bench", *config, "--window", "2024-02-28/2024-02-29", "--json"],
            "backtest of a week": [*program, "backtest", str(folder / "config.yaml"), "bench", "--json"],
        }
        costs = {}
        for name, command in steps.items():
            if name == "calibrate":  # the build has made one
                for kept in folder.glob("reference/*/calibrations"):
                    shutil.rmtree(kept)
            costs[name] = [common.measure(command, environment)]
    wall = costs["calibrate"][0].wall
    goals = (
        {}
        if options.quick
        else {f"calibrate takes {wall:.0f} s (under {AT_MOST_SECONDS:g})": wall < AT_MOST_SECONDS}
    )
    if options.json:
        print(common.as_json(costs, seed=common.SEED, rows_a_week=rows, weeks=WEEKS, goals=goals))
    else:
        print(f"{WEEKS} weeks x {numbers + texts} columns x {rows:,} rows a week; seed {common.SEED}\n")
        print(common.table(costs, "calibrate"))
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
