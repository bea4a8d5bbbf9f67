"""The page of a monitor's features and the list of such pages, over HTTP."""

import gzip
import http.client
import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from drift_monitor.config.models import Config
from drift_monitor.core.types import CheckResult, FailureReason, FeatureResult, Outcome, StatResult, Window
from drift_monitor.service.metrics import PREFIX, Exposition
from drift_monitor.service.metrics_api import targets
from drift_monitor.service.server import Application, Server
from drift_monitor.service.store import Store

END = datetime(2026, 3, 4, 12, tzinfo=UTC)
MONITORS = {"a": True, "b": True, "off": False}  # by name: whether it is enabled


@pytest.fixture
def served(tmp_path):
    """A server over a store; `ask` sends one request and returns (status, headers, body)."""
    token = tmp_path / "token"
    token.write_text("secret\n")

    def configure(monitors, **server):
        about = {
            name: {"reference": "r", "source": {"path": "p"}, "schedule": {"every": "1h"}, "enabled": enabled}
            for name, enabled in monitors.items()
        }
        metrics = {"features": "none"}  # the pages do not ask it
        return Config.model_validate({"server": server, "monitors": about, "metrics": metrics}, strict=False)

    with closing(Store.open(tmp_path / "state")) as store:
        daemon = SimpleNamespace(
            config=configure(MONITORS),
            store=store,
            exposition=Exposition(),
            guard=lambda: configure(MONITORS, token_file=token),
            configure=configure,
        )
        server = Server("127.0.0.1", 0, Application(daemon))
        server.start()

        def ask(path, **headers):
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
                connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()

        yield SimpleNamespace(daemon=daemon, ask=ask, port=server.port)
        server.stop()


def judge(store, monitor, *, hour=0, drifted=True, **changes):
    end = END + timedelta(hours=hour)
    window = Window(start=end - timedelta(hours=1), end=end)
    store.enqueue(monitor, [window])
    [run] = store.due()
    feature = FeatureResult(
        name="x",
        kind="numeric",
        drifted=drifted,
        method="ks",
        score=0.4,
        threshold=0.2,
        null_ratio=0.25,
        statistics={"ks": StatResult(statistic=0.4, p_value=0.03), "psi": StatResult(statistic=1.5)},
    )
    defaults = {"verdict": Outcome.OK, "rows": 5, "reason": "r", "promise": "p", "features": (feature,)}
    store.finish(run.id, CheckResult(monitor=monitor, window=window, **(defaults | changes)), now=END)


def samples(text, parse=parse_text):
    return {
        (s.name.removeprefix(PREFIX), s.labels["monitor"], s.labels["feature"], s.labels.get("method")): s.value
        for family in parse(text)
        for s in family.samples
    }


EVERYTHING = {
    ("feature_drift_detected", "a", "x", None): 1,
    ("feature_drift_score", "a", "x", "ks"): 0.4,
    ("feature_drift_score_threshold", "a", "x", "ks"): 0.2,
    ("feature_null_ratio", "a", "x", None): 0.25,
    ("feature_drift_p_value", "a", "x", "ks"): 0.03,
    ("feature_drift_statistic", "a", "x", "ks"): 0.4,
    ("feature_drift_statistic", "a", "x", "psi"): 1.5,
}


def test_a_page_has_everything_about_the_features_of_one_monitor(served):
    judge(served.daemon.store, "a")
    judge(served.daemon.store, "b")
    status, headers, body = served.ask("/metrics/features?monitor=a")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert samples(body.decode()) == EVERYTHING


def test_it_has_the_other_format_and_gzip(served):
    judge(served.daemon.store, "a")
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "Accept_Encoding": "gzip"}
    status, headers, body = served.ask("/metrics/features?monitor=a", **accept)
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert headers["Vary"] == "Accept, Accept-Encoding"
    assert samples(gzip.decompress(body).decode(), parse_openmetrics) == EVERYTHING


def test_it_follows_the_newest_judged_window(served):
    store = served.daemon.store
    judge(store, "a")
    for hour, drifted, detected in ((1, False, 0), (2, True, 1)):
        judge(store, "a", hour=hour, drifted=drifted)
        found = samples(served.ask("/metrics/features?monitor=a")[2].decode())
        assert found["feature_drift_detected", "a", "x", None] == detected
    failed = {"verdict": Outcome.CANNOT_JUDGE, "failure": FailureReason.SOURCE, "features": ()}
    judge(store, "a", hour=3, **failed)
    assert samples(served.ask("/metrics/features?monitor=a")[2].decode()) == EVERYTHING


def test_it_is_made_once_a_window(served):
    judge(served.daemon.store, "a")
    first = served.ask("/metrics/features?monitor=a")[2]
    read, asked = served.daemon.store.result, []
    served.daemon.store.result = lambda run: asked.append(run) or read(run)
    assert served.ask("/metrics/features?monitor=a")[2] == first
    assert asked == []
    judge(served.daemon.store, "a", hour=1)
    served.ask("/metrics/features?monitor=a")
    assert len(asked) == 1


def test_a_monitor_without_a_judged_window_has_an_empty_page(served):
    status, _, body = served.ask("/metrics/features?monitor=a", Accept="application/openmetrics-text")
    assert status == 200
    assert samples(body.decode(), parse_openmetrics) == {}


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 400, "name one monitor: /metrics/features?monitor=NAME"),
        ("?monitor=a&monitor=b", 400, "name one monitor"),
        ("?monitor=", 404, "no such monitor"),
        ("?monitor=other", 404, "no such monitor"),
        ("?monitor=off", 404, "or it is disabled"),
        ("?monitor=%00%ff", 404, "no such monitor"),
    ],
)
def test_what_is_asked_wrongly_is_told(served, query, status, said):
    got, _, body = served.ask(f"/metrics/features{query}")
    assert got == status
    assert said in body.decode()


def test_a_monitor_that_went_away_has_no_page(served):
    judge(served.daemon.store, "a")
    assert served.ask("/metrics/features?monitor=a")[0] == 200
    served.daemon.config = served.daemon.configure({"b": True})
    assert served.ask("/metrics/features?monitor=a")[0] == 404
    assert served.ask("/metrics/features?monitor=b")[0] == 200


def test_the_list_has_a_target_for_each_monitor_that_is_watched(served):
    status, headers, body = served.ask("/-/sd/prometheus")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == [
        {
            "targets": [f"127.0.0.1:{served.port}"],
            "labels": {"__metrics_path__": "/metrics/features", "__param_monitor": name, "monitor": name},
        }
        for name in ("a", "b")
    ]


@pytest.mark.parametrize("host", ["localhost", "localhost:9877", "[::1]:9877", "127.0.0.1"])
def test_the_list_names_the_address_that_was_asked(served, host):
    [first, _] = json.loads(served.ask("/-/sd/prometheus", Host=host)[2])
    assert first["targets"] == [host]


@pytest.mark.parametrize("host", ["localhost/x", "a b@localhost", "", "x@localhost:1"])
def test_an_address_that_is_none_is_not_repeated(served, host):
    status, _, body = served.ask("/-/sd/prometheus", Host=host)
    assert status in {400, 421}
    assert host == "" or host.encode() not in body


@pytest.mark.parametrize("path", ["/-/sd/prometheus", "/metrics/features?monitor=a", "/metrics"])
def test_a_token_guards_them(served, path):
    judge(served.daemon.store, "a")
    served.daemon.config = served.daemon.guard()
    assert served.ask(path)[0] == 401
    assert served.ask(path, Authorization="Bearer secret")[0] == 200


def test_no_monitor_no_target():
    assert targets([], "h:1") == []
