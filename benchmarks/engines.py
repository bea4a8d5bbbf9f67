"""What a check costs by threads, on a Spark and on a Dask cluster: all processes together, driver and workers.

    python benchmarks/engines.py [--quick] [--json] [--rounds N]

The log and the reference of check_cost.py, the log cut into 8 files of 125,000 rows. Every engine judges the same
window with the same rows read (`incremental: false`), in this process, and has to come to the same result. "first"
has the start of the session, of Java and of the workers in it; "further" is the median of what comes after. Spark
is `local[2]`; Dask has two workers with a thread each. Where pyspark, Java or distributed is missing, its rows are
left out.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import check_cost
import common
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.clusters.spark import session
from drift_monitor.config.clusters import SparkExecutor
from drift_monitor.config.models import Monitor
from drift_monitor.core.types import CheckResult, Window
from drift_monitor.service.evaluate import CheckRequest, evaluate

FILES = 8
DAY = Window.model_validate({"start": "2024-03-01T00:00:00Z", "end": "2024-03-02T00:00:00Z"}, strict=False)
SPARK = {"type": "spark", "master": "local[2]"}


def write(folder: Path, rows: int, reference_rows: int) -> None:
    rng = np.random.default_rng(common.SEED)
    start = check_cost.START
    training = check_cost.log(rng, reference_rows, start - check_cost.DAYS * check_cost.DAY, check_cost.DAYS)
    check_cost.write(training, folder / "training.parquet")
    live = check_cost.log(rng, rows, start, 1)
    (folder / "live").mkdir()
    for i in range(FILES):
        part = live.slice(i * rows // FILES, (i + 1) * rows // FILES - i * rows // FILES)
        check_cost.write(part, folder / "live" / f"{i}.parquet")


def monitor(folder: Path, **more: Any) -> Monitor:
    settings = {
        "reference": str(folder / "training.parquet"),
        "source": {"path": str(folder / "live" / "*.parquet"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "window": {"length": "1d", "incremental": False},
        "alarm": {"false_alerts_per_month": None},
        "quality": {"false_alerts_per_month": None, "disable": ["volume"]},
    }
    return Monitor.model_validate_json(json.dumps(settings | more))


def engines(folder: Path, opened: ExitStack) -> Iterator[tuple[str, Monitor]]:
    """Name and monitor of each; what a user's cluster is there for is started when its turn has come."""
    yield "threads: 1 (embedded)", monitor(folder)
    yield "threads: 2", monitor(folder, executor={"type": "threads", "workers": 2})
    try:
        from distributed import LocalCluster  # noqa: PLC0415
    except ImportError:
        pass
    else:
        cluster = opened.enter_context(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
        yield "dask", monitor(folder, executor={"type": "dask", "address": cluster.scheduler_address})
    if shutil.which("java") is None:
        return
    try:
        import pyspark  # noqa: F401, PLC0415
    except ImportError:
        return
    opened.enter_context(session(SparkExecutor.model_validate(SPARK)))
    yield "spark, files by splits", monitor(folder, executor=SPARK)
    query = f"SELECT * FROM parquet.`{folder}/live`"
    yield "spark, a table by mapInArrow", monitor(folder, source={**SPARK, "query": query, "timestamp": "time"})


def cpu() -> float:
    """Processor time of this process and of all that it started, also of those that ended."""
    here = psutil.Process()
    spent = 0.0
    for process in (here, *here.children(recursive=True)):
        try:
            spent += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return spent


def bare_read(folder: Path) -> None:
    texts = [f"text_{i}" for i in range(check_cost.TEXTS)]
    for path in sorted((folder / "live").iterdir()):
        file = pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False)
        for _ in file.iter_batches(131_072, use_threads=False):
            pass


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    options = parser.parse_args()
    rows, reference_rows = (80_000, 20_000) if options.quick else (1_000_000, 200_000)
    found: dict[str, dict[str, float]] = {}
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory(prefix="engines-") as temporary, ExitStack() as opened:
        folder = Path(temporary)
        write(folder, rows, reference_rows)
        warm = CheckRequest(name="bench", monitor=monitor(folder), state=folder / "state", window=DAY)
        wanted = judged(warm)  # builds the reference, too
        before = cpu()
        for _ in range(options.rounds):
            bare_read(folder)
        read = (cpu() - before) / options.rounds
        last = cpu()
        for name, config in engines(folder, opened):
            request = warm.model_copy(update={"monitor": config})
            costs, walls = [], []
            for _ in range(1 + options.rounds):
                start = perf_counter()
                if judged(request) != wanted:
                    sys.exit(f"{name} came to another result than threads did")
                costs.append(cpu() - last)
                walls.append(perf_counter() - start)
                last = cpu()
            found[name] = {"first": costs[0], "cpu": median(costs[1:]), "wall": median(walls[1:])}
    report(found, read, rows, as_json=options.json)
    return 0


def judged(request: CheckRequest) -> CheckResult:
    return evaluate(request).model_copy(update={"seconds": {}})


def report(found: dict[str, dict[str, float]], read: float, rows: int, *, as_json: bool) -> None:
    columns = check_cost.NUMBERS + check_cost.TEXTS
    if as_json:
        print(json.dumps({"seed": common.SEED, "rows": rows, "columns": columns, "read": read, "engines": found}))
        return
    print(f"{rows:,} rows x {columns} columns; seed {common.SEED}; a bare read takes {read:.2f} CPU-s\n")
    print(f"{'':30s} {'first CPU-s':>12s} {'further CPU-s':>14s} {'x read':>7s} {'wall s':>7s}")
    for name, row in found.items():
        print(f"{name:30s} {row['first']:12.1f} {row['cpu']:14.2f} {row['cpu'] / read:7.1f} {row['wall']:7.2f}")


if __name__ == "__main__":
    sys.exit(main())
