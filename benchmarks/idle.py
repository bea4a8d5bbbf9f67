"""What the daemon costs while nothing is due: three monitors have been checked, the worker has ended.

Shows resident memory, threads and children, and fails when a numeric library is loaded in the daemon itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import common
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.service.lock import read_lock

MONITORS = ("one", "two", "three")
AT_MOST_MB = 150.0
HEAVY = ("evidently", "numpy", "pandas", "pyarrow", "scipy", "sklearn")
PATIENCE = 120  # seconds


def main() -> int:
    """Measure and report; 1 when a goal is missed."""
    options = common.arguments(str(__doc__).splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = prepare(Path(folder), rows=10_000 if options.quick else 50_000)
        command = [sys.executable, "-m", "drift_monitor", "run", "--config", str(config), "--log-level", "error"]
        with subprocess.Popen(command) as daemon:
            try:
                figures = measure(daemon, Path(folder) / "state", settle=1 if options.quick else 10)
            finally:
                daemon.terminate()
    loaded = imported()
    goals = {
        f"resident {figures['rss_mb']:.0f} MB (under {AT_MOST_MB:g})": figures["rss_mb"] < AT_MOST_MB,
        f"loaded in the daemon: {', '.join(figures['libraries']) or 'no numeric library'}": not figures[
            "libraries"
        ],
        f"imported by its modules: {', '.join(loaded) or 'no numeric library, no evidently'}": not loaded,
    }
    if options.json:
        print(json.dumps({**figures, "goals": goals}))
    else:
        print(f"{len(MONITORS)} monitors checked once, then idle; seed {common.SEED}\n")
        for name, value in figures.items():
            print(f"{name:24s}{value:.4g}" if isinstance(value, float) else f"{name:24s}{value}")
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


def prepare(folder: Path, rows: int) -> Path:
    """Write training data, live data and a configuration; its path."""
    rng = np.random.default_rng(common.SEED)
    now = datetime.now(UTC)
    for name, days in (("training", 40), ("live", 2)):
        count = rows * days // 40
        stamps = [now - timedelta(days=days) * float(share) for share in rng.random(count)]
        table = {"t": stamps, **{f"x{i}": rng.normal(size=count) for i in range(10)}}
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    monitor = {
        "reference": "training.parquet",
        "source": {"path": "live.parquet", "timestamp": "t"},
        "schedule": {"every": "1d"},
        "report": {"enabled": False},
    }
    config = {
        "server": {"listen": "127.0.0.1:0"},
        "workers": {"idle": "1s"},
        "monitors": dict.fromkeys(MONITORS, monitor),
    }
    path = folder / "idle.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def measure(daemon: subprocess.Popen[bytes], state: Path, settle: float) -> dict[str, Any]:
    """Wait until every monitor was checked and the worker has ended, then look."""
    process = psutil.Process(daemon.pid)
    give_up = time.monotonic() + PATIENCE
    while not (status := look(daemon, state)) or status["workers"] or not checked(status):
        if time.monotonic() > give_up or daemon.poll() is not None:
            sys.exit(f"the daemon is not idle after {PATIENCE} s, or it ended: {status}")
        time.sleep(0.2)
    before = process.cpu_times()
    time.sleep(settle)
    after = process.cpu_times()
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    memory = process.memory_full_info()
    return {
        "verdicts": [monitor["verdict"] for monitor in status["monitors"].values()],
        "rss_mb": memory.rss / 2**20,
        "private_mb": memory.uss / 2**20,
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
        "cpu_percent": round(100 * (after.user + after.system - before.user - before.system) / settle, 2) + 0.0,
        "libraries": [name for name in HEAVY if f"/{name}/" in maps],
    }


def look(daemon: subprocess.Popen[bytes], state: Path) -> dict[str, Any] | None:
    """The daemon's status; None before it serves one."""
    holder = read_lock(state) if state.exists() else None
    if holder is None or holder.pid != daemon.pid or not holder.address:
        return None
    try:
        with urlopen(f"{holder.address}/api/v1/status", timeout=10) as answer:
            status: dict[str, Any] = json.load(answer)
    except OSError:
        return None
    return status


def checked(status: dict[str, Any]) -> bool:
    """Whether every monitor was evaluated."""
    return all(monitor["verdict"] for monitor in status["monitors"].values())


def imported() -> list[str]:
    """Which heavy modules a fresh interpreter has after importing all of the daemon."""
    modules = f"[m for m in {HEAVY!r} if m in sys.modules]"
    code = f"import sys, drift_monitor.cli, drift_monitor.service.app; print(*{modules})"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return said.stdout.split()


if __name__ == "__main__":
    sys.exit(main())
