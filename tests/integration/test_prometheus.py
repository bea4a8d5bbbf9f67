"""A real Prometheus scrapes a real daemon, loads our rules and answers every query of the dashboards."""

import base64
import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from dashboard_queries import OF_ONE_MONITOR, answer, everything_asked, substituted

from drift_monitor.core.retraining import Event, Weights, propose
from drift_monitor.core.types import (
    CheckResult,
    Comparison,
    Episode,
    FailureReason,
    FeatureResult,
    Message,
    Outcome,
    QualityResult,
    ReferenceId,
    StatResult,
    Window,
)
from drift_monitor.service.store import Store

ROOT = Path(__file__).parents[2]
PATIENCE = 25  # seconds until something that must happen is given up

# Queries that may rightly be empty in this scenario -> why: (page, panel, refId), or (page, "annotation" or
# "variable", name).
MAY_BE_EMPTY = {}

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, probe):
    """Repeat `probe` until it returns something true."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        if found := probe():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {PATIENCE} s for {what}")


def judged(monitor, window, verdict, *, score=0.1, rows=1500):
    """A check of one window by a monitor with a numeric and a categorical feature."""
    distance = FeatureResult(
        name="distance",
        kind="numeric",
        drifted=verdict is Outcome.DRIFT,
        method="ks",
        score=score,
        threshold=0.2,
        null_ratio=0.01,
        out_of_range_ratio=0.02,
        statistics={"ks": StatResult(statistic=score, p_value=0.04)},
    )
    carrier = FeatureResult(
        name="carrier",
        kind="categorical",
        drifted=False,
        method="chi2",
        score=0.05,
        threshold=0.2,
        null_ratio=0.0,
        new_category_ratio=0.03,
        statistics={"chi2": StatResult(statistic=0.05, p_value=0.3)},
    )
    reference = ReferenceId(version="v1", sha256="ab12", rows=1000, created=window.start)
    return CheckResult(
        monitor=monitor,
        window=window,
        rows=rows,
        duplicate_rows=3,
        invalid_rows=1,
        verdict=verdict,
        reason="as the test says",
        score=score,
        threshold=0.2,
        promise="none",
        reference=reference,
        features=(distance, carrier),
        quality=(QualityResult(check="volume", failed=verdict is Outcome.BROKEN, message="too few rows"),),
        newest_event=window.end,
        previous=Comparison(
            reference=reference, verdict=Outcome.OK, reason="as the test says", score=0.1, threshold=0.2
        ),
        seconds={"source": 0.2, "judge": 0.1},
    )


def unjudged(monitor, window):
    return CheckResult(
        monitor=monitor,
        window=window,
        rows=0,
        verdict=Outcome.CANNOT_JUDGE,
        reason="no such file",
        failure=FailureReason.SOURCE,
        promise="none",
    )


def seed(state):
    """Four monitors of a day's windows: one drifts, one gets broken data, one is calm, one was never judged.

    The message about the drift was taken by one receiver and has waited two hours for another. A retraining is
    proposed, with weights. The newest window of each monitor is done, so that a daemon that starts on this state
    has nothing to evaluate.
    """
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [Window(start=midnight - timedelta(days=n), end=midnight - timedelta(days=n - 1)) for n in (3, 2, 1)]
    outcomes = {
        "drifted": lambda window: judged("drifted", window, Outcome.DRIFT, score=0.5),
        "broken": lambda window: judged("broken", window, Outcome.BROKEN, rows=40),
        "calm": lambda window: judged("calm", window, Outcome.OK),
        "silent": lambda window: unjudged("silent", window),
    }
    opened = {
        (monitor, lane): Episode(
            id=f"{monitor}-{lane}",
            monitor=monitor,
            lane=lane,
            opened=days[0].end,
            updated=midnight,
            reminded=days[0].end,
            worst=2.5,
            features=("distance",),
        )
        for monitor, lane in (("drifted", "drift"), ("broken", "quality"))
    }
    message = Message(
        id="drifted-drift-opened",
        type="drift_monitor.drift.opened",
        source="/drift-monitor/test",
        subject="drifted",
        time=days[0].end,
        group="drifted-drift",
        data={},
    )
    with closing(Store.open(state)) as store:
        for monitor in outcomes:
            store.enqueue(monitor, days)
        for run in store.due():
            store.start(run.id, now)
            last = run.window == days[-1]
            store.finish(
                run.id,
                outcomes[run.monitor](run.window),
                now=now - timedelta(hours=2),
                episodes=[e for (monitor, _), e in opened.items() if monitor == run.monitor and last],
                messages=[("oncall", message), ("archive", message)] if run.monitor == "drifted" and last else [],
                observations=[
                    ("run_duration_seconds", {"monitor": run.monitor, "phase": phase}, 0.2)
                    for phase in ("source", "judge")
                ],
            )
        taken = store.outbox.next_delivery(["archive"], now)
        store.outbox.delivered(taken.id, now, 0.2)
        proposed = propose(
            opened["drifted", "drift"],
            judged("drifted", days[-1], Outcome.DRIFT, score=0.5),
            receiver="oncall",
            mode="propose",
            now=now,
        )
        store.retrainings.put(proposed)
        weights = Weights(
            path="weights.parquet", rows=1000, sha256="cd34", effective_sample_size=640, adopt=True, why="it helps"
        )
        store.retrainings.move(proposed.id, Event.PREPARED, now, labelled=0.8, weights=weights)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Where a real daemon serves its metrics; nobody listens where its receiver should be."""
    folder = tmp_path_factory.mktemp("daemon")
    listen = f"127.0.0.1:{free_port()}"
    (folder / "secret").write_text("whsec_" + base64.b64encode(bytes(range(32))).decode() + "\n", encoding="utf-8")
    monitor = {
        "model": {"name": "delay", "version": "1", "owner": "ops"},
        "reference": "training.parquet",
        "source": {"path": "live.parquet", "timestamp": "time"},
        "schedule": {"every": "1d"},
        "notify": ["oncall"],
        "retrain": {"receiver": "oncall", "labels": 0},
        "report": {"enabled": False},
    }
    config = {
        "state": "state",
        "server": {"listen": listen},
        "receivers": {
            name: {"type": "webhook", "url": f"http://127.0.0.1:{free_port()}/", "secret_file": "secret"}
            for name in ("oncall", "archive")
        },
        "metrics": {"detail": ["quality", "p_values"]},
        "monitors": dict.fromkeys(("drifted", "broken", "calm", "silent"), monitor),
    }
    (folder / "drift-monitor.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    seed(folder / "state")
    command = [sys.executable, "-m", "drift_monitor", "run", "--config", str(folder / "drift-monitor.yaml")]
    with (folder / "log").open("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(
                f"the daemon to be ready; its log is {folder}/log",
                lambda: process.poll() is None and answers(f"http://{listen}/-/ready"),
            )
            yield listen
        finally:
            process.terminate()
    assert process.returncode == 0


def answers(url):
    try:
        with urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


class Prometheus:
    """The HTTP API of a running server."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"

    def get(self, path, **parameters):
        """The `data` of an answer.

        Raises:
            AssertionError: the server refuses the query; the message is the server's own.
        """
        url = f"{self.base}/api/v1/{path}?{urlencode(parameters, doseq=True)}"
        try:
            with urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def rules_evaluated_after(self, when):
        groups = self.get("rules")["groups"]
        return all(datetime.fromisoformat(group["lastEvaluation"]).timestamp() > when for group in groups)

    def instant(self, expr):
        return self.get("query", query=expr)["result"]


@pytest.fixture(scope="module")
def prometheus(target, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(ROOT / "alerts" / "drift-monitor.rules.yml")],
        "scrape_configs": [{"job_name": "drift-monitor", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url=http://127.0.0.1:{port}/",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Prometheus(port)
            wait_for(
                "Prometheus to be ready", lambda: process.poll() is None and answers(f"{server.base}/-/ready")
            )
            # Two samples of everything: rates need them.
            wait_for("two scrapes", lambda: server.instant("count_over_time(drift_monitor_build_info[1m]) > 2"))
            scraped = time.time()
            # A second more: alerts read what the recording rules wrote.
            wait_for("the rules", lambda: server.rules_evaluated_after(scraped + 1))
            server.started = time.time() - 5
            yield server
        finally:
            process.terminate()


def test_the_target_is_up(prometheus):
    [active] = prometheus.get("targets")["activeTargets"]
    assert active["health"] == "up", active["lastError"]
    assert active["labels"]["job"] == "drift-monitor"


def test_every_rule_evaluates(prometheus):
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 15
    assert {(rule["name"], rule["health"], rule.get("lastError")) for rule in rules} == {
        (rule["name"], "ok", None) for rule in rules
    }


def test_the_drift_alert_fires_and_names_the_feature(prometheus):
    firing = {
        alert["labels"]["monitor"]: alert
        for alert in prometheus.get("alerts")["alerts"]
        if alert["labels"]["alertname"] == "DriftMonitorDrift" and alert["state"] == "firing"
    }
    assert set(firing) == {"drifted"}
    assert "distance (2.50)" in firing["drifted"]["annotations"]["description"]


def test_only_what_is_wrong_fires(prometheus):
    firing = {
        (alert["labels"]["alertname"], alert["labels"].get("monitor", alert["labels"].get("receiver")))
        for alert in prometheus.get("alerts")["alerts"]
        if alert["state"] == "firing"
    }
    assert firing == {
        ("DriftMonitorDrift", "drifted"),
        ("DriftMonitorDataQuality", "broken"),
        ("DriftMonitorNeverSucceeded", "silent"),
        ("DriftMonitorOutboxBacklog", "oncall"),
        ("DriftMonitorWatchdog", None),
    }


@pytest.mark.parametrize("asked", [pytest.param(asked, id=asked.name) for asked in everything_asked()])
def test_a_dashboard_query_answers(prometheus, asked):
    feature = "carrier" if "new_category" in asked.text else "distance"  # a number has no categories
    of_one = {"monitor": "drifted", "feature": feature} if asked.page in OF_ONE_MONITOR else {}
    if asked[:3] not in MAY_BE_EMPTY:  # what is counted first after the start has a rate two scrapes later
        wait_for(asked.text, lambda: answer(prometheus.get, asked, prometheus.started, time.time(), **of_one))


def test_the_list_of_empty_panels_is_short():
    assert len(MAY_BE_EMPTY) <= 5


def test_the_tiles_count_what_is_wrong(prometheus):
    dashboard = json.loads((ROOT / "grafana" / "dashboards" / "drift-monitor-overview.json").read_text())
    shown = {}
    for panel in dashboard["panels"]:
        if panel["type"] == "stat":
            [sample] = prometheus.instant(substituted(panel["targets"][0]["expr"]))
            shown[panel["title"]] = float(sample["value"][1])
    assert shown == {
        "Drifted": 1,
        "Broken data": 1,
        "Stale": 1,
        "Last run failed": 1,
        "Await approval": 1,
        "Deliveries failing": 1,
        "Messages given up": 0,
        "Daemons down": 0,
    }


def test_the_state_of_each_monitor(prometheus):
    dashboard = json.loads((ROOT / "grafana" / "dashboards" / "drift-monitor-overview.json").read_text())
    [timeline] = [panel for panel in dashboard["panels"] if panel["type"] == "state-timeline"]
    samples = prometheus.instant(substituted(timeline["targets"][0]["expr"]))
    assert {sample["metric"]["monitor"]: float(sample["value"][1]) for sample in samples} == {
        "drifted": 1,
        "broken": 2,
        "calm": 0,
        "silent": 4,
    }
