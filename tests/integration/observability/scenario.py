"""A real daemon on real files, and a story that makes each alert fire and end.

Quiet, drift, broken data, a source that is gone, rows that stop, receivers that fail, a refused configuration, a
restart. Five monitors, and later a sixth, look at three seconds every three seconds. The story is told once,
however many Prometheus servers watch.
"""

from __future__ import annotations

import base64
import json
import math
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from servers import Pair, answers, ask, free_port, subject, until

from drift_monitor.config.models import Columns
from drift_monitor.reference import build_reference

Mode = Literal["quiet", "drift", "broken", "empty", "gone"]
WATCHDOG: Final = ("DriftMonitorWatchdog", "")
EVERY: Final = 3  # seconds between two windows, and the length of one
_ROWS: Final = 200  # a second
_BEHIND, _AHEAD = 60, 30  # seconds of the log around now
_MONITORS: Final = ("calm", "again", "broken", "source", "empty")
_HEADERS: Final = {"X-Requested-By": "drift-monitor"}


@lru_cache(maxsize=2000)
def rows(second: int, mode: Mode) -> pa.Table:
    """The log of one second. The same second in the same mode has the same rows."""
    rng = np.random.default_rng([second, 7])
    times = second * 1_000_000 + np.sort(rng.integers(0, 1_000_000, _ROWS))
    distance = rng.normal(1.5 if mode == "drift" else 0.0, 1.0, _ROWS)
    missing = rng.random(_ROWS) < (0.8 if mode == "broken" else 0.0)
    return pa.table(
        {
            "t": pa.array(times, pa.timestamp("us", "UTC")),
            "distance": pa.array(distance, mask=missing),
            "weight": pa.array(rng.gamma(2.0, 1.0, _ROWS)),
            "carrier": pa.array(rng.choice(["AA", "DL", "UA"], _ROWS, p=[0.5, 0.3, 0.2])),
        }
    )


class Feeder:
    """Writes each monitor's log, one Parquet file that holds the seconds around now, in the monitor's mode."""

    def __init__(self, folder: Path, monitors: Sequence[str]) -> None:
        self._folder = folder
        self._modes: dict[str, list[tuple[int, Mode]]] = {name: [(0, "quiet")] for name in monitors}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """Write no more."""
        self._over.set()
        self._thread.join()

    def set(self, monitor: str, mode: Mode) -> None:
        """Change what is written of the seconds after this one; an unknown monitor gets a log."""
        with self._lock:
            self._modes.setdefault(monitor, [(0, mode)]).append((math.ceil(time.time()), mode))
        self._write()

    def _run(self) -> None:
        while not self._over.wait(1):
            self._write()

    def _write(self) -> None:
        now = int(time.time())
        with self._lock:
            for monitor, modes in self._modes.items():
                path = self._folder / monitor / "live.parquet"
                if modes[-1][1] == "gone":
                    path.unlink(missing_ok=True)
                    continue
                seconds = range(now - _BEHIND, now + _AHEAD)
                parts = [rows(s, mode) for s in seconds if (mode := _at(modes, s)) != "empty"]
                table = pa.concat_tables(parts or [rows(now - 1000, "quiet")])
                path.parent.mkdir(parents=True, exist_ok=True)
                new = path.with_name("new")
                pq.write_table(table, new)
                new.replace(path)


def _at(modes: Sequence[tuple[int, Mode]], second: int) -> Mode:
    return next(mode for since, mode in reversed(modes) if second >= since)


class Receivers:
    """What the daemon sends to: one HTTP server, a path and a status for each receiver."""

    def __init__(self) -> None:
        self.status = {"oncall": 200, "late": 200, "dead": 410, "pipeline": 200}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(outer.status[self.path.strip("/")])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, name: str) -> str:
        """Of a receiver."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Cause:
    """A stretch in which an alert has a reason to fire.

    Attributes:
        begin, end: unix seconds; the end is when the reason was taken away.
    """

    alert: str
    subject: str
    begin: float
    end: float = math.inf


class Scenario:
    """The daemon, its data and its receivers, in a `with` block.

    Args:
        folder: for everything.
        port: of the daemon; a free one when 0.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.target = folder, f"127.0.0.1:{port or free_port()}"
        self.url = f"http://{self.target}"
        self.causes: list[Cause] = []
        self.started = time.time()
        self.receivers = Receivers()
        self.feeder = Feeder(folder / "live", _MONITORS)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        training = pa.concat_tables([rows(int(start.timestamp()) + s, "quiet") for s in range(120)])
        pq.write_table(training, self.folder / "training.parquet")
        build_reference(
            self.folder / "training.parquet",
            self.folder / "reference",
            columns=Columns(),
            timestamp="t",
            bucket=timedelta(seconds=EVERY),
            created=start,
        )
        secret = "whsec_" + base64.b64encode(bytes(range(32))).decode()
        (self.folder / "secret").write_text(secret + "\n", "utf-8")
        self.configure()
        self.feeder.start()
        try:
            self.run()
            for name in _MONITORS:  # the first check starts a child and imports what it needs
                until(
                    lambda name=name: self.metric(f'drift_detected{{monitor="{name}"}}') == 0,
                    f"a verdict on {name}",
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(40)
            self._process.kill()
            self._process.wait()
        self.feeder.stop()
        self.receivers.close()

    # -- the daemon ------------------------------------------------------------------------------

    def configure(self, *, more: Sequence[str] = (), max_series: int = 10_000, wrong: bool = False) -> None:
        """Write the configuration: `more` monitors, a budget for per-feature series, or one that is refused."""
        monitors: dict[str, dict[str, Any]] = {name: self._monitor(name) for name in (*_MONITORS, *more)}
        monitors["again"]["notify"] = ["oncall", "late"]
        monitors["again"]["retrain"] = {
            "receiver": "pipeline",
            "mode": "propose",
            "labels": 0,
            "min_rows": 1,
            "cooldown": "0s",
            "give_up": 1,
        }
        monitors["broken"]["notify"] = ["oncall", "dead"]
        if wrong:
            monitors["calm"]["schedule"] = {"every": "often"}
        config = {
            "state": "state",
            "server": {"listen": self.target},
            "workers": {"count": 2},
            "metrics": {"max_series": max_series, "detail": ["quality", "p_values"]},
            "receivers": {
                name: {"type": "webhook", "url": self.receivers.url(name), "secret_file": "secret"}
                for name in self.receivers.status
            },
            "monitors": monitors,
        }
        path = self.folder / "drift-monitor.yaml"
        path.with_suffix(".new").write_text(json.dumps(config, indent=1), "utf-8")  # JSON is YAML
        path.with_suffix(".new").replace(path)

    def _monitor(self, name: str) -> dict[str, Any]:
        return {
            "model": {"name": "arrival-delay", "version": "1", "owner": "ops"},
            "reference": "reference",
            "source": {"path": f"live/{name}/live.parquet", "timestamp": "t"},
            "schedule": {"every": f"{EVERY}s"},
            "window": {"length": f"{EVERY}s", "bucket": f"{EVERY}s"},
            "alarm": {"false_alerts_per_month": None, "alpha": 1e-6, "persistence": "2 of 3"},
            "report": {"enabled": False},
            "notify": ["oncall"],
        }

    def run(self) -> None:
        """Start the daemon and wait until it is ready."""
        command = [
            sys.executable,
            "-m",
            "drift_monitor",
            "run",
            "--config",
            str(self.folder / "drift-monitor.yaml"),
        ]
        with (self.folder / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._is_ready, f"the daemon; its log is {self.folder}/daemon.log")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the daemon ended; its log is {self.folder}/daemon.log"
        return answers(f"{self.url}/-/ready")

    def kill(self) -> None:
        """End the daemon with no chance to say goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def reload(self) -> None:
        """Ask the daemon to read its configuration again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def metric(self, series: str) -> float | None:
        """The value of one series on /metrics; None when it is not there."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=15) as answer:
            for line in answer.read().decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name == f"drift_monitor_{series}":
                    return float(value)
        return None

    def post(self, path: str, body: object) -> Any:
        """Ask the daemon's API for something."""
        return ask(f"{self.url}{path}", body, **_HEADERS)

    def deliveries(self, state: str, receiver: str) -> list[int]:
        """Ids of a receiver's messages in the outbox."""
        found = ask(f"{self.url}/api/v1/outbox?state={state}")["deliveries"]
        return [each["id"] for each in found if each["receiver"] == receiver]

    def retraining(self, monitor: str, state: str) -> str | None:
        """The id of the newest retraining of a monitor, if it is in this state."""
        found = ask(f"{self.url}/api/v1/retrainings?monitor={monitor}")["retrainings"]
        return found[0]["id"] if found and found[0]["state"] == state else None

    # -- what ought to fire ----------------------------------------------------------------------

    def cause(self, alert: str, subject: str = "") -> tuple[str, str]:
        """From now on this alert has a reason."""
        self.causes.append(Cause(f"DriftMonitor{alert}", subject, time.time()))
        return f"DriftMonitor{alert}", subject

    def cease(self, alert: str, subject: str = "") -> tuple[str, str]:
        """From now on it has none."""
        for cause in self.causes:
            if (cause.alert, cause.subject) == (f"DriftMonitor{alert}", subject) and cause.end == math.inf:
                cause.end = time.time()
        return f"DriftMonitor{alert}", subject


def told(pair: Pair, status: str) -> set[tuple[str, str]]:
    """(alert, subject) of what an Alertmanager has sent with a status."""
    return {(n.alert, n.subject) for n in pair.notices if n.status == status}


# -- the story -------------------------------------------------------------------------------------


def play(s: Scenario, pairs: Sequence[Pair], say: Callable[[str], None] = lambda _: None) -> None:
    """The story. Every step waits until each pair of servers has seen it.

    Args:
        s: the running scenario, quiet so far.
        pairs: the servers that watch.
        say: called with each step, a sentence.

    Raises:
        AssertionError: something that must happen did not.
    """
    say("quiet: every monitor judges its windows")
    _quiet(s, pairs)
    say("again drifts, broken gets nulls, source is gone, empty gets no rows; late is down, dead wants no more")
    _fall_ill(s, pairs)
    say("empty gets rows again, broken is repaired but drifts; a retraining fails; never is added")
    _change(s, pairs)
    say("the daemon is killed and started again")
    _restart(s, pairs)
    say("again is calm for a moment and drifts anew, so retraining is given up; late and never are mended")
    _give_up(s, pairs)
    say("everything is mended")
    _mend(s, pairs)
    say("all is quiet again")


def _arrive(pairs: Sequence[Pair], *expected: tuple[str, str]) -> None:
    """Wait until every Alertmanager has told of these."""
    for pair in pairs:
        until(lambda pair=pair: set(expected) <= told(pair, "firing"), f"{expected} at {pair.name}")


def _see(pairs: Sequence[Pair], probe: Callable[[Pair], object], what: str) -> None:
    for pair in pairs:
        until(lambda pair=pair: probe(pair), f"{what} at {pair.name}")


def _quiet(s: Scenario, pairs: Sequence[Pair]) -> None:
    for name in _MONITORS:
        until(
            lambda name=name: (s.metric(f'runs_total{{monitor="{name}"}}') or 0) >= 3, f"three windows of {name}"
        )
    _arrive(pairs, WATCHDOG)
    for pair in pairs:
        assert pair.firing() == {WATCHDOG}, f"{pair.name}: {pair.firing()} fires although all is quiet"


def _fall_ill(s: Scenario, pairs: Sequence[Pair]) -> None:
    s.receivers.status["late"] = 503
    expected = [
        s.cause("Drift", "again"),
        s.cause("DataQuality", "broken"),
        s.cause("DataStale", "empty"),
        s.cause("WebhookFailing", "late"),
        s.cause("OutboxBacklog", "late"),
        s.cause("DeadLetters", "dead"),
        s.cause("RetrainingWaits", "again"),
        s.cause("ConfigReloadFailed"),
    ]
    s.feeder.set("again", "drift")
    s.feeder.set("broken", "broken")
    s.cause("EvaluationStale", "source")  # takes longest: waited for in the next step
    s.feeder.set("source", "gone")
    s.feeder.set("empty", "empty")
    s.configure(wrong=True)
    s.reload()
    _arrive(pairs, *expected)


def _change(s: Scenario, pairs: Sequence[Pair]) -> None:
    s.cease("DataStale", "empty")
    s.feeder.set("empty", "quiet")
    s.cease("DataQuality", "broken")
    s.cause("Drift", "broken")
    s.feeder.set("broken", "drift")
    proposed = until(lambda: s.retraining("again", "proposed"), "a proposal")
    s.cease("RetrainingWaits", "again")
    s.post(f"/api/v1/retrainings/{proposed}/approve", {"by": "an operator"})
    until(lambda: s.retraining("again", "sent"), "the pipeline to take the request")
    expected = [s.cause("RetrainingFailed", "again")]
    s.post(f"/api/v1/retrainings/{proposed}", {"state": "failed", "message": "out of memory"})
    expected += [s.cause("NeverSucceeded", "never"), s.cause("SeriesSuppressed")]
    s.cease("ConfigReloadFailed")
    s.configure(more=["never"], max_series=3)
    s.reload()
    _see(pairs, lambda p: ("DriftMonitorDrift", "broken") in p.inhibited(), "Drift of broken to be held back")
    _arrive(pairs, *expected, ("DriftMonitorEvaluationStale", "source"))
    s.cease("EvaluationStale", "source")
    s.feeder.set("source", "quiet")


def _restart(s: Scenario, pairs: Sequence[Pair]) -> None:
    down = s.cause("Down")
    s.kill()
    _arrive(pairs, down)
    _see(pairs, lambda p: ("DriftMonitorDrift", "again") in p.inhibited(), "the rest to be held back")
    s.cease("Down")
    s.run()


def _give_up(s: Scenario, pairs: Sequence[Pair]) -> None:
    s.feeder.set("again", "quiet")
    until(lambda: s.metric('episode_open{monitor="again",lane="drift"}') == 0, "the end of the episode")
    given_up = s.cause("RetrainingGivenUp", "again")
    s.feeder.set("again", "drift")
    s.cease("WebhookFailing", "late")
    s.cease("OutboxBacklog", "late")
    s.receivers.status["late"] = 200
    until(lambda: _send_again(s, "late"), "the messages for late to be delivered")
    s.cease("NeverSucceeded", "never")
    s.feeder.set("never", "quiet")
    s.cease("SeriesSuppressed")
    s.configure(more=["never"])
    s.reload()
    _arrive(pairs, given_up, ("DriftMonitorDrift", "broken"))


def _mend(s: Scenario, pairs: Sequence[Pair]) -> None:
    for name in ("again", "broken"):
        s.cease("Drift", name)
        s.feeder.set(name, "quiet")
    s.cease("RetrainingFailed", "again")
    s.cease("RetrainingGivenUp", "again")
    for name in ("again", "broken"):
        until(lambda name=name: s.metric(f'episode_open{{monitor="{name}",lane="drift"}}') == 0, f"calm in {name}")
    s.cease("DeadLetters", "dead")
    until(lambda: _drop_dead(s), "the dead letters to be dropped")
    _see(pairs, lambda p: p.firing() == {WATCHDOG}, "the end of every alert")
    _see(pairs, _all_resolved, "word of the end of every alert")


def _send_again(s: Scenario, receiver: str) -> bool:
    """Ask for what waits for a receiver to be sent now; whether nothing is left."""
    for delivery in s.deliveries("pending", receiver):
        with suppress(AssertionError):  # it was delivered meanwhile
            s.post(f"/api/v1/outbox/{delivery}/retry", {})
    return s.metric(f'outbox_messages{{receiver="{receiver}"}}') == 0


def _drop_dead(s: Scenario) -> bool:
    """Drop what the receiver `dead` refused; whether nothing is left."""
    for state in ("dead", "pending"):
        for delivery in s.deliveries(state, "dead"):
            with suppress(AssertionError):
                s.post(f"/api/v1/outbox/{delivery}/drop", {})
    return s.metric('outbox_dead_messages{receiver="dead"}') == 0


def _all_resolved(pair: Pair) -> bool:
    unsaid = told(pair, "firing") - told(pair, "resolved")
    return {alert for alert, _ in unsaid} <= {"DriftMonitorWatchdog", "DriftMonitorSeriesSuppressed"}


@dataclass(frozen=True)
class Stretch:
    """Seconds in a row in which an alert fired; `begin` and `end` are unix seconds."""

    alert: str
    subject: str
    begin: float
    end: float


def fired(pair: Pair, since: float) -> list[Stretch]:
    """Everything that has fired in a Prometheus since a time."""
    found = []
    for series in pair.over_time('ALERTS{alertstate="firing"}', since):
        times = [float(at) for at, _ in series["values"]]
        ends = [i for i in range(1, len(times)) if times[i] - times[i - 1] > 1.5]
        for first, last in pairwise([0, *ends, len(times)]):
            labels = series["metric"]
            found.append(Stretch(labels["alertname"], subject(labels), times[first], times[last - 1]))
    return found
