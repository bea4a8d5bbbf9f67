"""How many rows a second the daemon takes, durably: by HTTP as Arrow and as JSON Lines, and from Kafka.

Rows of 20 columns: a time, 15 numbers, 3 categories, a prediction. Clients run beside the daemon on the same
machine, send bodies that were made beforehand, and wait for each 202. `CPU` is that of the daemon and its children
a million rows. `flood` has clients that are far too fast, and retry at once what is answered 429.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import common
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.intake import PushSource
from drift_monitor.intake.journal import read_frames
from drift_monitor.service.lock import read_lock
from drift_monitor.sources.spool import all_pieces, open_spool

ARROW, LINES = "application/vnd.apache.arrow.stream", "application/x-ndjson"
PATIENCE = 120  # seconds
CHUNK, AHEAD = 5000, 40_000  # messages: produced at once, and not read yet
ONE, FLOOD = "arrow, 5000 rows a request", "flood: arrow, 20000 rows"
GOALS = {ONE: 50_000, "jsonl, 1000 rows a request": 20_000}
AT_MOST_MB = 1000.0  # of the daemon and its children together, whatever comes


def main() -> int:
    """Measure and report; 1 when a goal is missed."""
    options = common.arguments(str(__doc__).splitlines()[0]).parse_args()
    seconds = 1.0 if options.quick else 40.0
    runs = {
        ONE: (ARROW, 5000, 4),
        "jsonl, 1000 rows a request": (LINES, 1000, 4),
        "jsonl, 1 row a request": (LINES, 1, 8),
        FLOOD: (ARROW, 20_000, 40),
    }
    if options.quick:
        runs = {name: runs[name] for name in (ONE, FLOOD)}
    figures: dict[str, dict[str, Any]] = {}
    for name, (kind, rows, clients) in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            config = prepare(Path(folder), {"type": "push", "timestamp": "t"})
            with daemon(config) as (process, address):
                figures[name] = push(process, address, kind, rows, clients, seconds)
            figures[name] |= {"kept": count(Path(folder) / "state" / "spool" / "m")}
    if not options.quick:
        figures["kafka, json"] = kafka(400_000)
    for name in runs:
        if figures[name]["rows"] != figures[name]["kept"]:
            sys.exit(
                f"{name}: {figures[name]['rows']} rows were acknowledged and {figures[name]['kept']} are there"
            )
    peak = max(figures[name]["peak_mb"] for name in runs)
    flood = figures[FLOOD]
    goals = {
        **{
            f"{name}: {figures[name]['rows_per_s']:,.0f} rows/s (at least {goal:,})": figures[name]["rows_per_s"]
            >= goal
            for name, goal in GOALS.items()
            if name in figures
        },
        f"peak {peak:.0f} MB (under {AT_MOST_MB:g})": peak < AT_MOST_MB,
        f"the flood met 429 ({flood['answers'].get('429', 0):,} times) and no other refusal": set(flood["answers"])
        == {"202", "429"},
        "every acknowledged row is in the spool, once": True,
    }
    if options.json:
        print(json.dumps({"seconds": seconds, "push": figures, "goals": goals}))
    else:
        print(f"20 columns, {seconds:g} s each; seed {common.SEED}\n\n{table(figures)}\n")
        print(common.told(goals))
    return 0 if all(goals.values()) or options.quick else 1


def table(figures: dict[str, dict[str, Any]]) -> str:
    """A row a run."""
    titles = ("rows/s", "requests/s", "p50 ms", "p99 ms", "CPU s/1M", "peak MB", "files")
    lines = [f"{'':30s}" + "".join(f"{title:>12s}" for title in titles)]
    for name, row in figures.items():
        cells = (
            f"{row['rows_per_s']:,.0f}",
            f"{row['requests_per_s']:,.0f}" if "requests_per_s" in row else "",
            *(f"{row[p] * 1000:.1f}" if p in row else "" for p in ("p50", "p99")),
            f"{row['cpu_s_per_million']:.2f}",
            f"{row['peak_mb']:.0f}",
            f"{row['files']}" if "files" in row else "",
        )
        lines.append(f"{name:30s}" + "".join(f"{cell:>12s}" for cell in cells))
    return "\n".join(lines)


def log_of(rows: int, seed: int) -> pa.Table:
    """Rows of the last hour."""
    rng = np.random.default_rng(seed)
    now = datetime.now(UTC)
    times = [now - timedelta(hours=1) * float(share) for share in rng.random(rows)]
    return pa.table(
        {
            "t": pa.array(times, pa.timestamp("us", "UTC")),
            **{f"x{i}": rng.normal(size=rows).round(6) for i in range(15)},
            **{f"c{i}": rng.choice([f"value {k}" for k in range(20)], rows) for i in range(3)},
            "p": rng.random(rows),
        }
    )


def body_of(kind: str, rows: int, seed: int) -> bytes:
    """A request's body."""
    table = log_of(rows, seed)
    if kind == ARROW:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()
    records = table.to_pylist()
    return b"".join(json.dumps(record | {"t": record["t"].isoformat()}).encode() + b"\n" for record in records)


def prepare(folder: Path, source: dict[str, Any]) -> Path:
    """Write training data and a configuration; its path."""
    pq.write_table(log_of(5000, common.SEED), folder / "training.parquet")
    monitor = {
        "reference": "training.parquet",
        "source": source,
        "schedule": {"every": "1d"},
        "columns": {"prediction": "p"},
        "report": {"enabled": False},
    }
    path = folder / "push.yaml"
    path.write_text(json.dumps({"server": {"listen": "127.0.0.1:0"}, "monitors": {"m": monitor}}))  # JSON is YAML
    return path


@contextmanager
def daemon(config: Path) -> Iterator[tuple[psutil.Process, str]]:
    """A running daemon that takes rows, and its address; ends it, after which all rows are in files."""
    command = [sys.executable, "-m", "drift_monitor", "run", "--config", str(config), "--log-level", "error"]
    with subprocess.Popen(command) as process:
        try:
            give_up = time.monotonic() + PATIENCE
            while not (address := ready(process.pid, config.parent / "state")):
                if process.poll() is not None or time.monotonic() > give_up:
                    sys.exit("the daemon does not take rows")
                time.sleep(0.1)
            yield psutil.Process(process.pid), address
        finally:
            process.terminate()


def ready(pid: int, state: Path) -> str:
    """Where the daemon serves, once its intake runs and has nothing else to do; empty before."""
    holder = read_lock(state) if state.exists() else None
    if holder is None or holder.pid != pid or not holder.address:
        return ""
    try:
        with urlopen(f"{holder.address}/api/v1/status", timeout=5) as answer:
            status = json.load(answer)
    except OSError:
        return ""
    busy = any(m["running"] or m["due"] for m in status["monitors"].values())
    return holder.address if "m" in status["intake"]["monitors"] and not busy else ""


def push(
    process: psutil.Process, address: str, kind: str, rows: int, clients: int, seconds: float
) -> dict[str, Any]:
    """Send for a while, from two processes."""
    results: Any = multiprocessing.Queue()
    before = cpu(process)
    began = time.monotonic()
    with watched(process) as peak:
        senders = [
            multiprocessing.Process(
                target=send, args=(address, kind, rows, clients // 2, seconds, common.SEED + n, results)
            )
            for n in range(2)
        ]
        for sender in senders:
            sender.start()
        found = [results.get(timeout=PATIENCE + seconds) for _ in senders]
        for sender in senders:
            sender.join()
    took = max(end for *_, end in found) - min(start for *_, start, _ in found)
    latencies = sorted(latency for each, *_ in found for latency in each)
    answers = sum((each for _, each, *_ in found), Counter[str]())
    taken = answers["202"] * rows
    figures = {
        "rows": taken,
        "rows_per_s": taken / took,
        "requests_per_s": answers["202"] / took,
        "p50": statistics.median(latencies),
        "p99": latencies[int(len(latencies) * 0.99)],
        "answers": dict(answers),
        "cpu_s_per_million": (cpu(process) - before) / taken * 1e6,
        "peak_mb": peak[0] / 2**20,
        "took": time.monotonic() - began,
    }
    with urlopen(f"{address}/api/v1/status", timeout=30) as answer:
        figures["files"] = json.load(answer)["intake"]["monitors"]["m"]["files"]
    return figures


def send(address: str, kind: str, rows: int, clients: int, seconds: float, seed: int, results: Any) -> None:
    """Clients of one process."""
    bodies = [body_of(kind, rows, seed + 10 * n) for n in range(4)]
    latencies: list[float] = []
    answers: Counter[str] = Counter()
    lock = threading.Lock()
    where = urlsplit(address)
    start = time.monotonic()
    end = start + seconds

    def client() -> None:
        own: list[float] = []
        statuses: Counter[str] = Counter()
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=PATIENCE)
        number = 0
        while time.monotonic() < end:
            began = time.monotonic()
            connection.request(
                "POST", "/api/v1/monitors/m/records", bodies[number % len(bodies)], {"Content-Type": kind}
            )
            answer = connection.getresponse()
            answer.read()
            statuses[str(answer.status)] += 1
            number += 1
            if answer.status == http.client.ACCEPTED:
                own.append(time.monotonic() - began)
        connection.close()
        with lock:
            latencies.extend(own)
            answers.update(statuses)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((latencies, answers, start, time.monotonic()))


def kafka(messages: int) -> dict[str, Any]:
    """Produce to librdkafka's mock cluster, then time how long the daemon takes to read it all."""
    from confluent_kafka import Producer  # noqa: PLC0415

    producer = Producer(
        {
            "bootstrap.servers": "",
            "test.mock.num.brokers": 1,
            "queue.buffering.max.messages": 200_000,
            "linger.ms": 20,
            "compression.type": "lz4",
        }
    )
    brokers = producer.list_topics(timeout=30).brokers.values()
    bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    values = body_of(LINES, 1000, common.SEED).splitlines()
    with tempfile.TemporaryDirectory() as folder:
        source = {"type": "kafka", "timestamp": "t", "bootstrap": bootstrap, "topic": "rows"}
        producer.list_topics("rows", timeout=30)
        with daemon(prepare(Path(folder), source)) as (process, _):
            before, began = cpu(process), time.monotonic()
            with watched(process) as peak:
                produced = read = 0
                while read < messages:
                    if time.monotonic() - began > PATIENCE:
                        sys.exit(f"of {messages} messages only {read} were read")
                    if produced < messages and produced - read < AHEAD:  # the mock brokers keep 5 MB a partition
                        for number in range(produced, produced + CHUNK):
                            producer.produce("rows", values[number % len(values)], partition=number % 4)
                        producer.flush(PATIENCE)
                        produced += CHUNK
                    else:
                        time.sleep(0.05)
                    read = read_to(Path(folder) / "state" / "spool" / "m")
            took, used = time.monotonic() - began, cpu(process) - before
        found = count(Path(folder) / "state" / "spool" / "m")
    if found != messages:
        sys.exit(f"{messages} messages were produced and {found} rows are there")
    return {
        "rows": messages,
        "rows_per_s": messages / took,
        "cpu_s_per_million": used / messages * 1e6,
        "peak_mb": peak[0] / 2**20,
    }


def read_to(folder: Path) -> int:
    """Messages that are durable: the newest offsets in the journals, or in the files where there are none."""
    offsets: dict[str, int] = {}
    for journal in sorted(folder.glob(".journal-*")):
        with contextlib.suppress(FileNotFoundError, pa.ArrowInvalid):  # it became a file
            for header, _ in read_frames(journal):
                offsets = header.get("offsets", {}).get("rows", offsets)
    if not offsets:
        metadata = pq.read_metadata(all_pieces(folder)[-1].path).metadata or {}
        offsets = json.loads(metadata.get(b"drift_monitor.offsets", b"{}")).get("rows", {})
    return sum(offsets.values())


@contextmanager
def watched(process: psutil.Process) -> Iterator[list[float]]:
    """The largest resident memory of a process and its children, looked at ten times a second."""
    peak = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            total = 0
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in (process, *process.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        total += each.memory_info().rss
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def cpu(process: psutil.Process) -> float:
    """Seconds of processor time of a process and its children."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def count(folder: Path) -> int:
    """Rows of a spool, as a check finds them."""
    source = open_spool(PushSource(type="push", timestamp="t", spool=folder), {})
    return sum(batch.num_rows for split in source.splits(None) for batch in source.batches(split, ["p"]))


if __name__ == "__main__":
    sys.exit(main())
