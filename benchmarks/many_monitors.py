"""100 monitors of 500 features in one worker: what each costs, how much memory it takes, and whose turn it is.

    python benchmarks/many_monitors.py [--quick] [--json]

The real parts of the daemon: a store, `Runs`, a `WorkerPool` of one child. Each monitor has a reference, kept
buckets and settings of its own; what is in these is the same, so it is made once. The hours of a first window have
been read. Then two windows of each are due, and a backlog of ten of the first monitor, entered before all others.
Every run is read, judged and stored; after each, the child's processor time and its largest memory are looked at.

The goals: no monitor gets a turn while another has waited longer, and memory does not grow with monitors.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import common
import incremental
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.daemon import Workers
from drift_monitor.config.models import Columns, Config
from drift_monitor.core.types import CheckResult, Outcome, Window
from drift_monitor.reference import build_reference
from drift_monitor.service.bucket_store import FOLDER
from drift_monitor.service.messages import Links
from drift_monitor.service.pool import WorkerPool
from drift_monitor.service.runs import Hooks, Runs
from drift_monitor.service.store import Run, Store

HOURS = 6  # of a window
TURNS, BACKLOG = 2, 10
FEW, AT_MOST = 10, 1.3
"""The child's memory after all monitors, as a multiple of that after `FEW`."""
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class Look:
    """The child after a run.

    Attributes:
        monitor: whose run it was.
        hours: from the start of the log to the end of the run's window.
        cpu: seconds of the run.
        peak: largest resident memory of the child so far, in MB.
    """

    monitor: str
    hours: int
    cpu: float
    peak: float


def configuration(folder: Path, names: list[str]) -> Config:
    """Monitors that differ in their names and in the folders of their references."""
    monitor = incremental.monitor(folder, HOURS * incremental.HOUR, incremental=True).model_dump(mode="json")
    given = {}
    for number, name in enumerate(names):
        own = {
            "reference": str(folder / "references" / name),
            "alarm": monitor["alarm"] | {"min_rows": 100 + number},
        }
        given[name] = monitor | own
    settings = {"state": str(folder / "state"), "workers": {"count": 1}, "monitors": given}
    return Config.model_validate_json(json.dumps(settings))


def prepare(folder: Path, names: list[str], rows: int, features: int) -> Config:
    """Files of some hours, and for each monitor a reference and the kept buckets of the first window."""
    start, hour = incremental.START, incremental.HOUR
    incremental.write(folder / "log", start, HOURS + BACKLOG, rows, features)
    hours = [
        incremental.hour_of(np.random.default_rng(h), start - (h + 1) * hour, rows, features) for h in range(24)
    ]
    pq.write_table(pa.concat_tables(hours), folder / "training.parquet")
    first, *others = names
    reference = build_reference(
        folder / "training.parquet",
        folder / "references" / first,
        columns=Columns(),
        timestamp="t",
        bucket=hour,
        created=start,
    )
    for name in others:  # a version is never written to, so the content may be shared
        target = folder / "references" / name
        shutil.copytree(folder / "references" / first, target, copy_function=os.link)
    config = configuration(folder, names)
    window = Window(start=start, end=start + HOURS * hour)
    request = incremental.CheckRequest(
        name=first, monitor=config.monitors[first], state=config.state, window=window
    )
    found = incremental.evaluate(request)
    if found.verdict is Outcome.CANNOT_JUDGE:
        raise RuntimeError(found.reason)
    assert found.reference == reference.id
    for name in others:
        shutil.copyfile(config.state / FOLDER / f"{first}.db", config.state / FOLDER / f"{name}.db")
    return config


def judged(config: Config) -> list[Look]:
    """Enter the windows, and look at the child until all of them are judged."""
    looks: list[Look] = []
    spent: Counter[int] = Counter()
    ended = threading.Event()
    windows = [
        Window(
            start=incremental.START + k * incremental.HOUR, end=incremental.START + (HOURS + k) * incremental.HOUR
        )
        for k in range(1, BACKLOG + 1)
    ]
    names = list(config.monitors)
    due = {name: windows[: BACKLOG if name == names[0] else TURNS] for name in names}
    with closing(Store.open(config.state)) as store:
        hooks = Hooks(lambda: None, lambda *_: None, lambda: None, lambda error: sys.exit(str(error)))
        runs = Runs(store, lambda: config, lambda *_: Links("", None), "/benchmark", hooks)
        for name, its in due.items():
            store.enqueue(name, its)

        def done(run: Run, result: CheckResult) -> None:
            if result.verdict is Outcome.CANNOT_JUDGE:
                print(f"{run.monitor}: {result.reason}", file=sys.stderr)
            runs.done(run, result)
            (child,) = pool.children
            cpu, peak = look(child)
            hours = (run.window.end - incremental.START) // incremental.HOUR
            looks.append(Look(run.monitor, hours, cpu - spent[child], peak))
            spent[child] = cpu
            if len(looks) == sum(map(len, due.values())):
                ended.set()

        pool = WorkerPool(Workers(count=1), runs.take, done, runs.give_back)
        pool.start()
        if not ended.wait(PATIENCE.total_seconds()):
            raise RuntimeError(f"{len(looks)} windows were judged in {PATIENCE}")
        pool.stop(timedelta(seconds=1))
    return looks


def look(child: int) -> tuple[float, float]:
    """Processor time of a process, and its largest memory so far, in MB."""
    times = psutil.Process(child).cpu_times()
    status = Path(f"/proc/{child}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return times.user + times.system, int(peak.split()[1]) / 1000


def fair(looks: list[Look], names: list[str]) -> bool:
    """Whether every monitor with a window that waits had its turn before another had one more."""
    had = Counter(dict.fromkeys(names, 0))
    left = Counter(one.monitor for one in looks)
    for one in looks:
        waiting = [had[name] for name in names if left[name]]
        if had[one.monitor] > min(waiting):
            return False
        had[one.monitor] += 1
        left[one.monitor] -= 1
    return True


def main() -> int:
    parser = common.arguments(__doc__.splitlines()[0])
    options = parser.parse_args()
    monitors, rows, features = (12, 200, 20) if options.quick else (100, 2000, 500)
    names = [f"m{i:03d}" for i in range(monitors)]
    with tempfile.TemporaryDirectory(prefix="many-monitors-") as temporary:
        folder = Path(temporary)
        config = prepare(folder, names, rows, features)
        started = perf_counter()
        looks = judged(config)
        wall = perf_counter() - started
        kept = sum(path.stat().st_size for path in (config.state / FOLDER).iterdir())
    round_of_all = looks[1:monitors]  # the first run starts the child and imports what is large
    found: dict[str, Any] = {
        "monitors": monitors,
        "features": features,
        "rows an hour": rows,
        "windows judged": len(looks),
        "wall, s": wall,
        "CPU-s a window, median": median(one.cpu for one in looks[1:]),
        "CPU-s a window, a monitor's first in this child": median(one.cpu for one in round_of_all),
        "CPU-s a window, one monitor alone": median(one.cpu for one in looks[-(BACKLOG - TURNS - 2) :]),
        "CPU-s of all monitors once": sum(one.cpu for one in round_of_all),
        f"memory after {FEW} monitors, MB": looks[FEW - 1].peak,
        "memory at most, MB": max(one.peak for one in looks),
        "kept, MB a monitor": kept / 1e6 / monitors,
    }
    ratio = found["memory at most, MB"] / found[f"memory after {FEW} monitors, MB"]
    goals = {
        "no monitor has a turn more than one that waits": fair(looks, names),
        f"memory after all monitors is {ratio:.2f} of that after {FEW} (at most {AT_MOST:g})": ratio <= AT_MOST,
    }
    if options.json:
        print(json.dumps({"seed": common.SEED, **found, "goals": goals}, indent=2))
    else:
        print(f"many monitors (seed {common.SEED})")
        for what, value in found.items():
            print(f"  {what:50s}{value:>12,.3f}" if isinstance(value, float) else f"  {what:50s}{value:>12,}")
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
