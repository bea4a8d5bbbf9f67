"""Prometheus of each version scrapes hostile names by the configuration in the docs, and has every series."""

import json
import re
import subprocess
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from servers import SUITES, SYSTEM, free_port, programs, until

from drift_monitor.config.models import Config
from drift_monitor.core.types import CheckResult, FeatureResult, Outcome, Segment, StatResult, Window
from drift_monitor.service.exposition import render
from drift_monitor.service.feature_series import FeatureSeries, all_of
from drift_monitor.service.metrics import FEATURE_METRICS, METRICS, Exposition
from drift_monitor.service.projection import View, exemplars, project
from drift_monitor.service.server import Application, Server
from drift_monitor.service.store import Store

pytestmark = pytest.mark.server
DOCS = Path(__file__).parents[3] / "docs"
NOW = datetime.now(UTC).replace(microsecond=0)
HOSTILE = [
    *('quote"', "back\\slash", "end\\", "new\nline", "\r\n", "tab\t", "nul\x00", "bell\x07", "del\x7f", "\x85"),
    *('"} 1\ndrift_monitor_evil{feature="', "{}", "%s %d", "# EOF", "# HELP x y", "a,b=c", "a~2", " ", "", "~2"),
    *(
        "\u05d0\u05d1\u05d2",
        "\u0627\u0644\u0639",
        "\u202eright to left\u202c",
        "\u2066x\u2069",
        "\u2028",
        "\u200b",
    ),
    *("\u00e9", "e\u0301", "\U0001f4a9", "\ufffd", "\uffff", "\U0010ffff", "NaN", "__name__", "le", "\\n", "\\"),
    *("x" * 1_000_000, "x" * 999_999 + "y", "\u6f22" * 350_000, '"' * 1_000_000, "\n" * 1_000_000),
]
UNSTORABLE = ["\ud800", "a\udfffb", "\udc00\ud800", "\ud83d"]  # lone surrogates, which no JSON carries


def judged(monitor, names):
    features = tuple(
        FeatureResult(
            name=name,
            segment=Segment(column="c", value=name) if n % 3 == 0 else None,
            kind="categorical",
            drifted=n % 2 == 0,
            method="chi2",
            score=n + 0.5,
            threshold=1.0,
            null_ratio=n / 1000,
            new_category_ratio=0.125,
            statistics={
                "chi2": StatResult(statistic=n + 0.25, p_value=1e-300),
                'evidently:"odd"\n': StatResult(statistic=-1e300),
            },
        )
        for n, name in enumerate(names)
    )
    return CheckResult(
        monitor=monitor,
        window=Window(start=NOW - timedelta(days=1), end=NOW),
        rows=10,
        verdict=Outcome.DRIFT,
        reason="as the test says",
        promise="none",
        features=features,
        seconds={"source": 0.2, "judge": 700.0},
    )


def configured(*names, **server):
    monitor = {
        "model": {"name": 'a "model"\n\\', "version": "\u202e1"},
        "reference": "r",
        "source": {"path": "p"},
        "schedule": {"every": "1h"},
    }
    return Config.model_validate({"monitors": dict.fromkeys(names, monitor), "server": server}, strict=False)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """A server whose features come by the pages of `hostile` and `plain`, and those of `wild` by the main page."""
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "token").write_text("secret\n")
    with closing(Store.open(folder / "state")) as store:
        results = {"hostile": judged("hostile", HOSTILE), "plain": judged("plain", ["x"])}
        runs = {}
        for name, result in results.items():
            store.enqueue(name, [result.window])
            [run] = store.due()
            observations = [
                ("run_duration_seconds", {"monitor": name, "phase": phase}, seconds)
                for phase, seconds in result.seconds.items()
            ]
            alerts = [("alerts_total", {"monitor": name, "severity": "warning"}, 1)]
            store.finish(run.id, result, now=NOW, counts=alerts, observations=observations)
            runs[name] = run.id
        wild = judged("wild", [*HOSTILE, *UNSTORABLE])
        snapshot = store.snapshot()
        snapshot = replace(snapshot, latest={"wild": wild}, latest_judged={"wild": wild})
        main = configured("wild", *results)
        view = View(config=main, snapshot=snapshot, reload_ok=True, reloaded=NOW, scheduler_running=True)
        exposition = Exposition()
        drawn = project(view, FeatureSeries(lambda run: None))
        exposition.update(drawn, exemplars(view))
        server = Server(
            "127.0.0.1",
            0,
            Application(
                SimpleNamespace(
                    config=configured(*results, token_file=folder / "token"), store=store, exposition=exposition
                )
            ),
        )
        server.start()
        yield SimpleNamespace(
            address=f"127.0.0.1:{server.port}",
            token=folder / "token",
            runs=runs,
            main=render(METRICS, drawn, {}, openmetrics=False).decode(),
            pages="".join(
                render(FEATURE_METRICS, all_of(name, result), {}, openmetrics=False).decode()
                for name, result in results.items()
            ),
        )
        server.stop()


def scrape_config(daemon):
    """The one in the docs, for this address, with a token and in a hurry."""
    [text] = re.findall(r"```yaml\n(scrape_configs:\n.*?)```", (DOCS / "service.md").read_text(), re.DOTALL)
    config = yaml.safe_load(text.replace("127.0.0.1:9877", daemon.address))
    authorization = {"type": "Bearer", "credentials_file": str(daemon.token)}
    for job in config["scrape_configs"]:
        job["authorization"] = authorization
        for discovery in job.get("http_sd_configs", ()):
            discovery |= {"authorization": authorization, "refresh_interval": "1s"}
    return {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, **config}


class Prometheus:
    """The HTTP API of a running server."""

    def __init__(self, port, log):
        self.base, self.log = f"http://127.0.0.1:{port}", log

    def get(self, path, **parameters):
        url = f"{self.base}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    @property
    def up(self):
        try:
            found = self.get("query", query="up")["result"]
        except (OSError, AssertionError):  # it does not listen yet, or it is not ready
            return {}
        return {(s["metric"]["job"], s["metric"].get("monitor")): s["value"][1] for s in found}

    def samples(self, selector):
        """Values by labels, for what the daemon says of itself; the scrape's own labels are left out."""
        found = self.get("query", query=selector)["result"]
        return {
            frozenset((k, v) for k, v in sample["metric"].items() if k not in {"job", "instance"}): float(
                sample["value"][1]
            )
            for sample in found
        }


def told(text):
    """The samples of a page as Prometheus should have them; a label without a value is no label to it."""
    return {
        frozenset((k, v) for k, v in [("__name__", s.name), *s.labels.items()] if v): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


@pytest.fixture(scope="module", params=[SYSTEM, *SUITES])
def prometheus(daemon, tmp_path_factory, request):
    program = programs(request.param).prometheus
    if program is None:
        pytest.skip(f"there is no Prometheus of {request.param}: see fetch_servers.sh")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(json.dumps(scrape_config(daemon)))  # JSON is YAML
    port = free_port()
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url=http://127.0.0.1:{port}/",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            server = Prometheus(port, folder / "log")
            until(lambda: process.poll() is None and [*server.up.values()] == ["1"] * 3, "three scrapes")
            yield server
        finally:
            process.terminate()


def test_the_docs_configuration_finds_every_page(prometheus):
    assert prometheus.up == {
        ("drift-monitor", None): "1",
        ("drift-monitor-features", "hostile"): "1",
        ("drift-monitor-features", "plain"): "1",
    }


def test_every_sample_of_the_main_page_arrives(daemon, prometheus):
    ours = told(daemon.main)
    names = {dict(labels)["feature"] for labels in ours if dict(labels).get("feature")}
    assert len(names) == len(HOSTILE) + len(UNSTORABLE) - 1  # all but the empty one, which is no label
    got = prometheus.samples('{job="drift-monitor", __name__=~"drift_monitor_.*", monitor!~"hostile|plain"}')
    expected = {k: v for k, v in ours.items() if dict(k).get("monitor") not in {"hostile", "plain"}}
    assert got == expected


def test_every_sample_of_the_feature_pages_arrives_under_the_same_job(daemon, prometheus):
    expected = told(daemon.pages)
    assert len(expected) == 8 * (len(HOSTILE) + 1)  # seven metrics, one of them for two methods
    got = prometheus.samples(
        '{job="drift-monitor", __name__=~"drift_monitor_feature_.*", monitor=~"hostile|plain"}'
    )
    assert got == expected
    assert prometheus.samples('{job="drift-monitor", __name__=~".*evil.*"}') == {}


def test_prometheus_stores_the_runs_as_exemplars(daemon, prometheus):
    def stored(query):
        found = prometheus.get(
            "query_exemplars",
            query=query,
            start=(NOW - timedelta(hours=1)).timestamp(),
            end=(NOW + timedelta(hours=1)).timestamp(),
        )
        return {
            (s["seriesLabels"]["monitor"], s["seriesLabels"].get("le")): {
                (e["labels"]["run_id"], float(e["value"]), e["timestamp"]) for e in s["exemplars"]
            }
            for s in found
        }

    at = NOW.timestamp()
    assert stored("drift_monitor_runs_total") == {
        (name, None): {(str(run), 1.0, at)} for name, run in daemon.runs.items()
    }
    assert stored('drift_monitor_alerts_total{severity="warning"}').keys() == {("hostile", None), ("plain", None)}
    assert stored('drift_monitor_run_duration_seconds_bucket{phase="judge", monitor="plain"}') == {
        ("plain", "+Inf"): {(str(daemon.runs["plain"]), 700.0, at)}
    }
    assert stored('drift_monitor_run_duration_seconds_bucket{phase="source", monitor="plain"}') == {
        ("plain", "0.25"): {(str(daemon.runs["plain"]), 0.2, at)}
    }


def test_prometheus_dropped_nothing(prometheus):
    """It would warn of samples that are double, out of order or of exemplars that it refuses."""
    until(lambda: prometheus.get("query", query="min(count_over_time(up[1m])) > 1")["result"], "a second scrape")
    assert prometheus.log.read_text() == ""
