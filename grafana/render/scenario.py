"""A quarter of an hour worth looking at: the real daemon on real files, scraped by a real Prometheus.

    python grafana/render/scenario.py FOLDER [--minutes 15] [--serve]

Three monitors get new rows every five seconds and judge a window every fifteen. What happens to them:

- `fraud-score`: amounts rise, and accounts get younger. Weights are made, a retraining is proposed and approved, a
  stand-in for a pipeline reports a new model, and its training data becomes the reference.
- `delivery-time`: distances go missing for a while, then come back; later it gets colder. Its `retrain.mode` is
  `notify`.
- `churn-risk`: calm, until its newest file cannot be read for a while.

The receiver `oncall` is down for some time. At the end the folder has Prometheus' data, and `window.json` says
which stretch of time to draw. With `--serve` Prometheus answers on 127.0.0.1:9099 until Ctrl-C; later on it can be
started on the same folder by `--serve --minutes 0`.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
DAEMON, PROMETHEUS, RECEIVER = 9877, 9099, 9878  # ports on 127.0.0.1; 9877 is what the dashboards link to
EVERY = 15  # seconds between two windows
FILE = 5  # seconds of rows in a file
RATE = 150  # rows a second
TRAINING = 600  # seconds of rows in the training data
Rows = dict[str, Any]


def fraud(rng: np.random.Generator, n: int, *, moved: bool) -> Rows:
    """Payments; `moved`: larger, and from younger accounts."""
    countries = ["DE", "FR", "NL", "BR"]
    amount = rng.lognormal(3.5 if moved else 3.1, 0.8, n)
    late = rng.random(n) < 0.08
    return {
        "amount": amount,
        "items": rng.poisson(3, n),
        "account_age_days": rng.gamma(2, 140 if moved else 180, n),
        "night_share": rng.beta(2, 6, n),
        "country": rng.choice(countries, n, p=[0.47, 0.28, 0.15, 0.1]),
        "device": rng.choice(["phone", "desktop", "tablet"], n, p=[0.6, 0.32, 0.08]),
        "channel": rng.choice(["app", "web"], n, p=[0.7, 0.3]),
        "score": np.clip(rng.beta(2, 12, n) + (0.03 if moved else 0), 0, 1),
        "is_fraud": late,
    }


def delivery(rng: np.random.Generator, n: int, *, holes: bool, cold: bool) -> Rows:
    """Parcels; `holes`: distances are missing, `cold`: winter."""
    distance = rng.gamma(2, 6, n)
    if holes:
        distance[rng.random(n) < 0.35] = np.nan
    return {
        "distance_km": pa.array(distance, from_pandas=True),
        "weight_kg": rng.lognormal(0.5, 0.7, n),
        "temperature": rng.normal(2 if cold else 14, 5, n),
        "stops": rng.poisson(9, n),
        "vehicle": rng.choice(["van", "bike"], n, p=[0.8, 0.2]),
        "minutes": rng.gamma(6, 5, n),
        "was_late": rng.random(n) < 0.2,
    }


def churn(rng: np.random.Generator, n: int) -> Rows:
    """Customers, as ever."""
    return {
        "tenure_months": rng.gamma(2, 12, n),
        "monthly_fee": rng.normal(30, 8, n),
        "tickets": rng.poisson(1, n),
        "plan": rng.choice(["basic", "plus", "pro"], n, p=[0.5, 0.35, 0.15]),
        "risk": rng.beta(2, 5, n),
        "left": rng.random(n) < 0.1,
    }


def write(path: Path, rows: Rows, start: float, seconds: float) -> None:
    """Rows at even times of a stretch, in a file that appears whole."""
    n = len(next(iter(rows.values())))
    stamps = start + np.arange(n) / n * seconds
    times = pa.array((stamps * 1e6).astype("int64"), pa.timestamp("us", "UTC"))
    ids = [f"{int(start * 1000)}-{i}" for i in range(n)]
    part = path.with_suffix(".part")
    pq.write_table(pa.table({"id": ids, "time": times, **rows}), part)
    part.rename(path)


MONITORS = {
    "fraud-score": {
        "model": {"name": "fraud-score", "version": "2026-10", "owner": "payments"},
        "columns": {"prediction": "score", "label": "is_fraud", "id": "id"},
        "retrain": {"receiver": "pipeline", "mode": "propose", "cooldown": "1m"},
        "reweight": {"enabled": True},
    },
    "delivery-time": {
        "model": {"name": "delivery-time", "version": "7", "owner": "logistics"},
        "columns": {"prediction": "minutes", "label": "was_late", "id": "id"},
        "retrain": {"receiver": "pipeline", "mode": "notify"},
    },
    "churn-risk": {
        "model": {"name": "churn-risk", "version": "3.1", "owner": "crm"},
        "columns": {"prediction": "risk", "label": "left", "id": "id"},
    },
}


def configuration(folder: Path) -> dict[str, Any]:
    """What the daemon runs on; JSON is YAML."""
    monitors = {}
    for name, own in MONITORS.items():
        monitors[name] = {
            **own,
            "reference": f"{name}/training.parquet",
            "training": f"{name}/training.parquet",
            "source": {"path": f"{name}/live/*.parquet", "timestamp": "time"},
            "schedule": {"every": f"{EVERY}s"},
            "window": {"length": f"{EVERY}s", "bucket": f"{EVERY}s", "delay": f"{FILE + 1}s"},
            "alarm": {"persistence": "2 of 3"},
            "notify": ["oncall", "archive"],
            "report": {"enabled": False},
        }
    (folder / "secret").write_text("whsec_" + base64.b64encode(bytes(range(32))).decode() + "\n", encoding="utf-8")
    receivers = {
        name: {"type": "webhook", "url": f"http://127.0.0.1:{RECEIVER}/{name}", "secret_file": "secret"}
        for name in ("oncall", "archive", "pipeline")
    }
    return {
        "state": "state",
        "server": {"listen": f"127.0.0.1:{DAEMON}", "public_url": f"http://localhost:{DAEMON}"},
        "metrics": {"detail": ["quality", "p_values"]},
        "receivers": receivers,
        "monitors": monitors,
    }


class Receiver:
    """Takes messages, unless it is down; a request for a retraining starts the pipeline."""

    def __init__(self, train: Callable[[dict[str, Any]], None]) -> None:
        self.down: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                name = self.path.strip("/")
                self.send_response(503 if name in outer.down else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                if name == "pipeline":
                    threading.Thread(target=train, args=(json.loads(body),), daemon=True).start()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", RECEIVER), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Story:
    """What happens when, in seconds since the start; `rest` is stretched with the length of the whole."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.rng = np.random.default_rng(7)
        self.approved = False

    def training(self) -> None:
        """Ten minutes of rows for each monitor, as dense as the live ones."""
        now = time.time()
        for name in MONITORS:
            (self.folder / name / "live").mkdir(parents=True)
        n = TRAINING * RATE
        for name, rows in (
            ("fraud-score", fraud(self.rng, n, moved=False)),
            ("delivery-time", delivery(self.rng, n, holes=False, cold=False)),
            ("churn-risk", churn(self.rng, n)),
        ):
            write(self.folder / name / "training.parquet", rows, now - TRAINING, TRAINING)

    def rows(self, done: float, start: float) -> None:
        """The next file of each monitor; `done` is the share of the story that is over."""
        n = FILE * RATE
        stamp = f"{int(start * 1000)}.parquet"
        live = {name: self.folder / name / "live" / stamp for name in MONITORS}
        write(live["fraud-score"], fraud(self.rng, n, moved=done > 0.25), start, FILE)
        holes, cold = 0.35 < done < 0.5, done > 0.65
        write(live["delivery-time"], delivery(self.rng, n, holes=holes, cold=cold), start, FILE)
        write(live["churn-risk"], churn(self.rng, n), start, FILE)
        torn = self.folder / "churn-risk" / "live" / "torn.parquet"
        if 0.55 < done < 0.63:
            torn.write_bytes(b"PAR1 and then the disk was full")
        else:
            torn.unlink(missing_ok=True)
        for name in MONITORS:  # no window looks back further
            for old in (self.folder / name / "live").glob("1*.parquet"):
                if int(old.stem) / 1000 < start - 600:
                    old.unlink()

    def train(self, message: dict[str, Any]) -> None:
        """The pipeline: it starts, makes a model of rows as they are now, and takes it live."""
        address = message.get("data", message)["report_back"]["url"]
        path = self.folder / "fraud-score" / "training-new.parquet"
        write(path, fraud(self.rng, TRAINING * RATE, moved=True), time.time() - TRAINING, TRAINING)
        pause = self.seconds / 30
        for report in (
            {"state": "started"},
            {"state": "succeeded", "version": "2026-11", "training": str(path)},
            {"state": "live", "version": "2026-11"},
        ):
            time.sleep(pause)
            post(address, report)

    def approve(self) -> None:
        """A person approves what is proposed."""
        shown = get(f"http://127.0.0.1:{DAEMON}/api/v1/retrainings")
        for retraining in shown["retrainings"]:
            if retraining["state"] == "proposed":
                post(f"http://127.0.0.1:{DAEMON}/api/v1/retrainings/{retraining['id']}/approve", {"by": "alex"})
                self.approved = True


def get(url: str) -> Any:
    """The JSON at an address."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
        return json.load(answer)


def post(url: str, body: dict[str, Any]) -> None:
    """Send JSON, and say what became of it."""
    headers = {"X-Requested-By": "drift-monitor", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            print(body, answer.status, flush=True)
    except urllib.error.HTTPError as error:
        print(body, error.code, error.read().decode(), flush=True)


def prometheus(folder: Path) -> list[str]:
    """Prometheus on the folder's data; the scrapes are as the alerts' rules want them, only faster."""
    config = {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": [str(ROOT / "alerts" / "drift-monitor.rules.yml")],
        "scrape_configs": [
            {"job_name": "drift-monitor", "static_configs": [{"targets": [f"127.0.0.1:{DAEMON}"]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    return [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/prometheus",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
        f"--web.external-url=http://127.0.0.1:{PROMETHEUS}/",
        "--web.cors.origin=.*",  # the page that draws is a file
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]


def run(stack: ExitStack, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a server; it is stopped with the stack."""
    out = stack.enter_context(log.open("ab"))
    process = stack.enter_context(subprocess.Popen(command, stdout=out, stderr=out))
    stack.callback(process.terminate)
    return process


def play(folder: Path, seconds: float, stack: ExitStack) -> None:
    """The story, from its beginning to its end."""
    story = Story(folder, seconds)
    story.training()
    (folder / "drift-monitor.yaml").write_text(json.dumps(configuration(folder), indent=1), encoding="utf-8")
    receiver = Receiver(story.train)
    started = time.time()
    command = [sys.executable, "-m", "drift_monitor", "run", "--config", str(folder / "drift-monitor.yaml")]
    daemon = run(stack, command, folder / "daemon.log")
    while (now := time.time()) < started + seconds:
        done = (now - started) / seconds
        if daemon.poll() is not None:
            raise SystemExit(f"the daemon ended; its log is {folder}/daemon.log")
        story.rows(done, now - FILE)
        receiver.down = {"oncall"} if 0.26 < done < 0.4 else set()
        if done > 0.42 and not story.approved:
            story.approve()
        time.sleep(max(0.0, now + FILE - time.time()))
    window = {"start": started + 2 * EVERY, "end": time.time()}
    (folder / "window.json").write_text(json.dumps(window), encoding="utf-8")
    print(f"from {datetime.fromtimestamp(started, UTC)} on, {timedelta(seconds=seconds)}")


def main() -> None:
    """Play the story, and serve what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--serve", action="store_true")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what was started is stopped
    folder = chosen.folder.resolve()
    if chosen.minutes:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    with ExitStack() as outer:
        run(outer, prometheus(folder), folder / "prometheus.log")
        if chosen.minutes:
            with ExitStack() as stack:
                play(folder, 60 * chosen.minutes, stack)
        if chosen.serve:
            print(f"Prometheus answers on http://127.0.0.1:{PROMETHEUS}/; Ctrl-C ends it", flush=True)
            threading.Event().wait()


if __name__ == "__main__":
    main()
