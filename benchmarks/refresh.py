"""What a refreshed training set costs: time and memory for 10,000,000 rows of 30 columns.

    python benchmarks/refresh.py [--quick] [--json]

Seven weeks are the old training set, two more are live, with a label in nine of ten rows. The files are in the
order of event time, as a log is; then the same rows in random order, of which the same bytes must come.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from calibration import week

from drift_monitor.config.models import Columns
from drift_monitor.reference import build_reference

WEEKS, LIVE = 7, 2
UNTIL = "2024-03-04"  # nine weeks after the first row

CONFIG = """\
state: {folder}/state
monitors:
  bench:
    reference: {folder}/reference
    training: {folder}/{order}/training
    source: {{type: files, path: "{folder}/{order}/live/*.parquet", timestamp: time}}
    schedule: {{every: 1d}}
    columns: {{id: id, label: label}}
    refresh: {{live: 14d}}
"""


def prepare(folder: Path, rows: int, numbers: int, texts: int) -> None:
    """Write the files in both orders, a reference of one week, and both configurations."""
    for number in range(WEEKS + LIVE):
        side = "training" if number < WEEKS else "live"
        rng = np.random.default_rng([common.SEED, 1000 + number])
        table = week(number, rows, numbers, texts)
        label = pa.array(rng.random(rows) < 0.3, mask=(rng.random(rows) < 0.1) & (side == "live"))
        ids = pa.array([f"row-{number}-{i}" for i in range(rows)])
        table = table.append_column("id", ids).append_column("label", label)
        for order, given in (("sorted", table), ("shuffled", table.take(pa.array(rng.permutation(rows))))):
            (folder / order / side).mkdir(parents=True, exist_ok=True)
            pq.write_table(given, folder / order / side / f"{number}.parquet", row_group_size=131_072)
    build_reference(
        folder / "sorted" / "training" / "0.parquet",
        folder / "reference",
        columns=Columns(id="id", label="label"),
        timestamp="time",
        bucket=timedelta(hours=1),
        created=datetime(2024, 1, 8, tzinfo=UTC),
    )
    for order in ("sorted", "shuffled"):
        (folder / f"{order}.yaml").write_text(CONFIG.format(folder=folder, order=order))


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--child", choices=["prepare"], help="used by the benchmark itself")
    parser.add_argument("--folder", type=Path, help="used by the benchmark itself")
    options = parser.parse_args()
    rows, numbers, texts = (3_000, 4, 2) if options.quick else (1_111_112, 22, 5)
    if options.child:
        prepare(options.folder, rows, numbers, texts)
        return 0
    with tempfile.TemporaryDirectory(prefix="refresh-") as temporary:
        folder = Path(temporary)
        environment = common.environment(folder)
        quick = ["--quick"] if options.quick else []
        common.measure(
            [sys.executable, __file__, "--folder", temporary, "--child", "prepare", *quick], environment
        )
        program = [sys.executable, "-m", "drift_monitor", "refresh", "bench", "--until", UNTIL, "--json"]
        capped = ["--policy", "stratified", "--by", "text_0", "--max-rows", str(rows)]
        costs, digests = {}, {}
        for name, order, extra in (
            ("append", "sorted", []),
            ("append, rows in random order", "shuffled", []),
            ("stratified, a tenth of the rows", "sorted", capped),
        ):
            config = ["--config", str(folder / f"{order}.yaml"), "--output", str(folder / name)]
            costs[name] = [common.measure([*program, *config, *extra], environment)]
            (train,) = (folder / name).glob("*/train.parquet")
            with train.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    goals = {"the same bytes in any order": digests["append"] == digests["append, rows in random order"]}
    if options.json:
        facts = {"rows": rows * (WEEKS + LIVE), "columns": numbers + texts + 3, "goals": goals}
        print(common.as_json(costs, seed=common.SEED, **facts))
    else:
        print(f"{rows * (WEEKS + LIVE):,} rows x {numbers + texts + 3} columns; seed {common.SEED}\n")
        print(common.table(costs, "append"))
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
