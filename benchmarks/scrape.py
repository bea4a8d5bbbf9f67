"""What a scrape costs with 100 monitors of 500 features, beside the client library's own rendering at each scrape.

A real daemon serves the results of a seeded state folder. `first` is the scrape that has to render the page, `CPU`
the processor time of that, `cached` every later one until a window is judged. All are in gzip, as Prometheus asks.
Where its binary is there, a real Prometheus scrapes too, and `Prometheus` is its own scrape_duration_seconds: the
wait, the parsing and the storing.
"""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import urlopen

import common
import numpy as np
import psutil
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.exposition import generate_latest

from drift_monitor.core.types import CheckResult, FeatureResult, Outcome, ReferenceId, StatResult, Window
from drift_monitor.service.lock import read_lock
from drift_monitor.service.store import Store

ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
BUDGET = 10_000  # that of the default configuration
EVERYTHING = 1_000_000
PATIENCE = 300  # seconds
LIMITS = {"default budget": 0.150, "all series": 1.0}  # seconds, of a cached scrape


class Scrape(NamedTuple):
    """One answer.

    Attributes:
        seconds: until its last byte.
        gzip: bytes sent.
    """

    seconds: float
    gzip: int
    body: bytes


def main() -> int:
    """Measure and report; 1 when a goal is missed."""
    options = common.arguments(str(__doc__).splitlines()[0]).parse_args()
    monitors, features, budget = (10, 50, 500) if options.quick else (100, 500, BUDGET)
    results = [judged(f"monitor-{n:03d}", features, n) for n in range(monitors)]
    figures = {"naive, at each scrape": naive(results)}
    with tempfile.TemporaryDirectory() as folder:
        seed(Path(folder) / "state", results)
        for name, metrics in (
            ("default budget", {"max_series": budget}),
            ("all series", {"max_series": EVERYTHING}),
            ("features: none", {"features": "none"}),
        ):
            config = configure(Path(folder), [r.monitor for r in results], metrics)
            with daemon(config, Path(folder) / "state") as (process, address):
                figures[name] = measure(process, address, "/metrics", options.rounds)
                if name == "features: none":
                    path = f"/metrics/features?{urlencode({'monitor': results[0].monitor})}"
                    figures["one monitor's page"] = measure(process, address, path, options.rounds)
                if not options.quick or name == "default budget":
                    figures[name] |= prometheus(address, Path(folder), interval=1 if options.quick else 5)
                figures[name]["rss_mb"] = psutil.Process(process.pid).memory_info().rss / 2**20
    goals = {
        f"{name}: a cached scrape in {figures[name]['cached_s'] * 1000:.1f} ms (under {limit * 1000:g})": figures[
            name
        ]["cached_s"]
        < limit
        for name, limit in LIMITS.items()
    }
    if options.json:
        print(json.dumps({"monitors": monitors, "features": features, "scrapes": figures, "goals": goals}))
    else:
        print(f"{monitors} monitors of {features} features, OpenMetrics in gzip; seed {common.SEED}\n")
        print(table(figures))
        print("\n" + common.told(goals))
    return 0 if all(goals.values()) else 1


def table(figures: dict[str, dict[str, Any]]) -> str:
    """A row a page."""
    titles = (
        ("samples", 9),
        ("MB", 7),
        ("gzip MB", 9),
        ("first s", 9),
        ("CPU s", 8),
        ("cached s", 10),
        ("Prometheus s", 14),
    )
    lines = [f"{'':24s}" + "".join(f"{title:>{width}s}" for title, width in (*titles, ("daemon MB", 11)))]
    for name, row in figures.items():
        beside = f"{row['prometheus_s']:.3f}" if row.get("prometheus_s") is not None else ""
        memory = f"{row['rss_mb']:.0f}" if "rss_mb" in row else ""
        lines.append(
            f"{name:24s}{row['samples']:9d}{row['bytes'] / 1e6:7.2f}{row['gzip'] / 1e6:9.3f}"
            f"{row['first_s']:9.3f}{row['first_cpu_s']:8.2f}{row['cached_s']:10.4f}{beside:>14s}{memory:>11s}"
        )
    return "\n".join(lines)


def newest_window() -> Window:
    """Yesterday, so that a daemon that starts has nothing to evaluate."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(start=midnight - timedelta(days=1), end=midnight)


def judged(monitor: str, features: int, number: int) -> CheckResult:
    """A result whose every feature has four series on the page, and more in the store."""
    rng = np.random.default_rng(common.SEED + number)
    window = newest_window()
    told = tuple(
        FeatureResult(
            name=f"feature_{n:03d}",
            kind="numeric",
            drifted=bool(score > 1),
            method="anderson_darling",
            score=score,
            threshold=1.0,
            null_ratio=nulls,
            statistics={
                method: StatResult(statistic=score, p_value=nulls)
                for method in ("ks", "anderson_darling", "weighted_supremum", "max_bin_z", "psi", "wasserstein")
            },
        )
        for n, (score, nulls) in enumerate(
            zip(sorted(rng.random(features) * 1.02, reverse=True), rng.random(features).tolist(), strict=True)
        )
    )
    return CheckResult(
        monitor=monitor,
        window=window,
        rows=100_000,
        verdict=Outcome.OK,
        reason="made up",
        score=0.5,
        threshold=1.0,
        promise="none",
        reference=ReferenceId(version="v1", sha256="ab12", rows=10**6, created=window.start),
        features=told,
        newest_event=window.end,
        seconds={"source": 1.5, "judge": 0.2},
    )


def naive(results: list[CheckResult]) -> dict[str, Any]:
    """Labelled gauges of the client library, all four series a feature, rendered and compressed at a scrape."""
    registry = CollectorRegistry()
    of = ("monitor", "feature")
    score, limit = (
        Gauge(name, "Help.", (*of, "method"), registry=registry)
        for name in ("drift_monitor_feature_drift_score", "drift_monitor_feature_drift_score_threshold")
    )
    drifted, nulls = (
        Gauge(name, "Help.", of, registry=registry)
        for name in ("drift_monitor_feature_drift_detected", "drift_monitor_feature_null_ratio")
    )
    for result in results:
        for feature in result.features:
            labels = result.monitor, feature.name
            score.labels(*labels, feature.method).set(feature.score or 0)
            limit.labels(*labels, feature.method).set(feature.threshold or 0)
            drifted.labels(*labels).set(feature.drifted)
            nulls.labels(*labels).set(feature.null_ratio or 0)
    times = []
    worked = time.process_time()
    for _ in range(3):
        start = perf_counter()
        text = generate_latest(registry)  # type: ignore[no-untyped-call]
        sent = gzip.compress(text, 1)
        times.append(perf_counter() - start)
    return {
        "samples": count(text),
        "bytes": len(text),
        "gzip": len(sent),
        "first_s": times[0],
        "first_cpu_s": (time.process_time() - worked) / len(times),
        "cached_s": statistics.median(times),
    }


def seed(state: Path, results: list[CheckResult]) -> None:
    """Store a result for each monitor."""
    now = datetime.now(UTC)
    with closing(Store.open(state)) as store:
        for result in results:
            store.enqueue(result.monitor, [result.window])
            [run] = store.due()
            observations = [
                ("run_duration_seconds", {"monitor": result.monitor, "phase": phase}, seconds)
                for phase, seconds in result.seconds.items()
            ]
            store.finish(run.id, result, now=now, observations=observations)


def configure(folder: Path, monitors: list[str], metrics: dict[str, Any]) -> Path:
    """Write a configuration; its path."""
    monitor = {
        "reference": "training.parquet",
        "source": {"path": "live.parquet", "timestamp": "time"},
        "schedule": {"every": "1d"},
        "report": {"enabled": False},
    }
    path = folder / "scrape.yaml"
    about = {"server": {"listen": "127.0.0.1:0"}, "metrics": metrics, "monitors": dict.fromkeys(monitors, monitor)}
    path.write_text(json.dumps(about))  # JSON is YAML
    return path


@contextmanager
def daemon(config: Path, state: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A running daemon and its address."""
    command = [sys.executable, "-m", "drift_monitor", "run", "--config", str(config), "--log-level", "error"]
    with subprocess.Popen(command) as process:
        try:
            give_up = time.monotonic() + PATIENCE
            while not (address := address_of(process, state)):
                if process.poll() is not None or time.monotonic() > give_up:
                    sys.exit("the daemon does not start")
                time.sleep(0.1)
            yield process, address.removeprefix("http://")
        finally:
            process.terminate()


def address_of(process: subprocess.Popen[bytes], state: Path) -> str:
    """Where the daemon serves, once it is ready; empty before."""
    holder = read_lock(state)
    if holder is None or holder.pid != process.pid or not holder.address:
        return ""
    try:
        with urlopen(f"{holder.address}/-/ready", timeout=5):
            return holder.address
    except OSError:
        return ""


def measure(process: subprocess.Popen[bytes], address: str, path: str, rounds: int) -> dict[str, Any]:
    """Scrape once for the rendering, then for what it costs from then on."""
    before = cpu(process)
    first = scrape(address, path)
    rendering = cpu(process) - before
    later = [scrape(address, path) for _ in range(max(rounds, 3))]
    text = gzip.decompress(later[-1].body)
    return {
        "samples": count(text),
        "bytes": len(text),
        "gzip": later[-1].gzip,
        "first_s": first.seconds,
        "first_cpu_s": rendering,
        "cached_s": statistics.median(answer.seconds for answer in later),
    }


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that a process has taken."""
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def scrape(address: str, path: str) -> Scrape:
    """One request, as Prometheus makes it."""
    with closing(http.client.HTTPConnection(address, timeout=PATIENCE)) as connection:
        start = perf_counter()
        connection.request("GET", path, headers={"Accept": ACCEPT, "Accept-Encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        seconds = perf_counter() - start
    if answer.status != http.client.OK:
        sys.exit(f"{path} answered {answer.status}: {body[:200]!r}")
    return Scrape(seconds, len(body), body)


def count(text: bytes) -> int:
    """How many samples a page has."""
    return sum(not line.startswith(b"#") for line in text.splitlines())


def prometheus(address: str, folder: Path, interval: int) -> dict[str, Any]:
    """The median of the scrape_duration_seconds of a few scrapes after the first; None without its binary."""
    if shutil.which("prometheus") is None:
        return {"prometheus_s": None}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"job_name": "drift-monitor", "static_configs": [{"targets": [address]}]}
    often = {"scrape_interval": f"{interval}s", "scrape_timeout": f"{interval}s"}
    (folder / "prometheus.yml").write_text(json.dumps({"global": often, "scrape_configs": [job]}))
    data = folder / f"data-{port}"
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url=http://127.0.0.1:{port}/",
        "--log.level=error",
    ]
    query = f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': 'scrape_duration_seconds[10m]'})}"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            give_up = time.monotonic() + PATIENCE
            while len(durations := samples(query)) < 4:
                if process.poll() is not None or time.monotonic() > give_up:
                    sys.exit("Prometheus does not scrape")
                time.sleep(0.5)
        finally:
            process.terminate()
    shutil.rmtree(data)
    return {"prometheus_s": statistics.median(durations[1:])}


def samples(query: str) -> list[float]:
    """The values of a range query of one series; none while Prometheus starts."""
    try:
        with urlopen(query, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return []
    return [float(value) for series in found for _, value in series["values"]]


if __name__ == "__main__":
    sys.exit(main())
