"""The retraining pipeline of the examples, against a scripted daemon: it loses, repeats and overrates nothing."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from standardwebhooks import Webhook
from threadpoolctl import threadpool_limits

from drift_monitor.config.file import parse
from drift_monitor.demo import retraining_pipeline as pipeline
from drift_monitor.demo.receiver import new_secret
from drift_monitor.demo.retraining_pipeline import (
    Columns,
    Daemon,
    Inbox,
    Model,
    Models,
    Pipeline,
    PipelineError,
    RefusedError,
    Service,
    measures,
    split,
    verify,
    winner,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "retraining_pipeline"
COLUMNS = Columns("late", "id", "time")
IDENT = "6915bb66bb0f5369b6033895d2e2e2f9"
T0 = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def rows(start: datetime, days: int, seed: int, *, turned: bool = False) -> pd.DataFrame:
    """100 rows a day whose label follows `x`, or, turned, the opposite of it."""
    rng = np.random.default_rng(seed)
    n = 100 * days
    x = rng.normal(size=n)
    late = rng.random(n) < 1 / (1 + np.exp(3 * x if turned else -3 * x))
    return pd.DataFrame(
        {
            "time": [start + DAY * (i / 100) for i in range(n)],
            "id": [f"{start:%j}-{i}" for i in range(n)],
            "x": x,
            "airline": rng.choice(["UA", "DL", None], n),
            "late": pd.Series(late).astype("boolean").mask(rng.random(n) < 0.02),
        }
    )


class FakeDaemon:
    """Serves files, and answers reports as the script says."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.reports: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, list[int]] = {}  # of a report's state, one after another; then 200
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.headers.append(dict(self.headers.items()))
                body = fake.files.get(self.path)
                self._say(200 if body is not None else 404, body or b"{}")

            def do_POST(self) -> None:
                fake.headers.append(dict(self.headers.items()))
                report = json.loads(self.rfile.read(int(self.headers["content-length"])))
                script = fake.answers.get(report["state"], [])
                status = script.pop(0) if script else 200
                if status == 200:
                    fake.reports.append(report)
                self._say(status, b'{"error": "as the script says"}')

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/stolen")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def states(self) -> list[str]:
        return [report["state"] for report in self.reports]

    def attach(self, name: str, frame: pd.DataFrame, **more: object) -> dict[str, object]:
        body = frame.to_parquet()
        self.files[f"/{name}"] = body
        digest = hashlib.sha256(body).hexdigest()
        return {
            "url": f"{self.url}/{name}",
            "path": f"/there/{name}",
            "rows": len(frame),
            "sha256": digest,
            **more,
        }


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The threads of the trees spin while they wait for each other: beside other work two take longer than one."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    fake = FakeDaemon()
    yield fake
    fake.close()


class Shop:
    """A first model that is live, and a pipeline that may replace it.

    The world of the first model is turned round in the refreshed set, so that a challenger is better.
    """

    def __init__(self, folder: Path, daemon: FakeDaemon) -> None:
        self.daemon, self.models = daemon, Models(folder / "models")
        self.old = rows(T0, 30, 1)
        self.training = folder / "training.parquet"
        self.old.to_parquet(self.training)
        self.models.save("first", "model", Model.train(self.old, COLUMNS))
        self.models.deploy("first", rows=self.training, trained_on="/there/first.parquet")
        self.pipeline = Pipeline(self.models, Daemon(daemon.url, patience=0.2), COLUMNS)

    def event(self, *, turned: bool = True, weights: object = None, **data: object) -> dict[str, Any]:
        refreshed = rows(T0 + 40 * DAY, 40, 2, turned=turned)
        return {
            "type": pipeline.REQUESTED,
            "data": {
                "retraining": {"id": IDENT, "mode": "propose", "note": ""},
                "reason": "x moved",
                "training": self.daemon.attach("training.parquet", refreshed),
                "weights": weights,
                "report_back": {"url": f"{self.daemon.url}/api/v1/retrainings/{IDENT}"},
                **data,
            },
        }

    def weights(self, frame: pd.DataFrame | None = None, *, adopt: bool = False) -> dict[str, object]:
        if frame is None:
            frame = pd.DataFrame({"row_id": self.old["id"], "weight": np.linspace(0.5, 1.5, len(self.old))})
        why = "it gains 3 standard errors" if adopt else "it gains nothing"
        return self.daemon.attach("weights.parquet", frame, adopt=adopt, why=why, effective_sample_size=9.0)


@pytest.fixture
def shop(tmp_path: Path, daemon: FakeDaemon) -> Shop:
    return Shop(tmp_path, daemon)


# -- the work --------------------------------------------------------------------------------------


def test_a_better_challenger_goes_live_and_each_step_is_reported(shop: Shop) -> None:
    shop.pipeline.work_on(shop.event())
    assert shop.daemon.states == ["started", "succeeded", "live"]
    _, succeeded, live = shop.daemon.reports
    version = "2024-03-20-6915bb66"
    assert succeeded["version"] == live["version"] == shop.models.live["version"] == version
    metrics = succeeded["metrics"]
    assert metrics["log_loss"] == metrics["refreshed_log_loss"] < metrics["champion_log_loss"]
    assert live["training"] == shop.models.live["trained_on"] == "/there/training.parquet"
    assert Path(shop.models.live["rows"]).read_bytes() == shop.daemon.files["/training.parquet"]
    newest = rows(T0 + 90 * DAY, 5, 3, turned=True).dropna(subset="late")
    served = shop.models.live_model().measure(newest, COLUMNS)
    assert served["log_loss"] < shop.models.load("first").measure(newest, COLUMNS)["log_loss"]
    assert all(headers["X-Requested-By"] == "drift-monitor" for headers in shop.daemon.headers)


def test_a_worse_challenger_is_refused(shop: Shop) -> None:
    noise = rows(T0 + 40 * DAY, 40, 2)
    early = noise.index < 3200
    noise.loc[early, "late"] = ~noise.loc[early, "late"]  # what it learns from is not what it is asked
    event = shop.event()
    event["data"]["training"] = shop.daemon.attach("training.parquet", noise)
    shop.pipeline.work_on(event)
    assert shop.daemon.states == ["started", "failed"]
    assert shop.daemon.reports[-1]["message"].startswith("no challenger is better on the newest rows: log loss ")
    assert shop.models.live["version"] == "first"


@pytest.mark.parametrize(("adopt", "best"), [(True, "weighted"), (False, None)])
def test_weights_win_only_when_drift_monitor_found_that_they_help(
    shop: Shop, adopt: bool, best: str | None
) -> None:
    figures = {"champion": {"log_loss": 0.5}, "refreshed": {"log_loss": 0.6}, "weighted": {"log_loss": 0.4}}
    if best is not None:
        assert winner(figures, weights=adopt) == best
        return
    with pytest.raises(PipelineError, match=r"log loss 0\.6000 \(refreshed\), that of the live model 0\.5000"):
        winner(figures, weights=adopt)


def test_a_weighted_winner_was_trained_on_the_old_file_and_says_so(shop: Shop, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "winner", lambda figures, weights: "weighted")
    shop.pipeline.work_on(shop.event(weights=shop.weights(adopt=True)))
    assert shop.daemon.states == ["started", "succeeded", "live"]
    assert shop.daemon.reports[-1]["training"] == "/there/first.parquet"
    assert shop.models.live["rows"] == str(shop.training)
    assert "weighted_log_loss" in shop.daemon.reports[1]["metrics"]


def test_weights_change_what_is_learnt() -> None:
    half = pd.concat([rows(T0, 20, 1), rows(T0 + 20 * DAY, 20, 2, turned=True)], ignore_index=True)
    asked = rows(T0 + 50 * DAY, 10, 3, turned=True).dropna(subset="late")
    weights = np.repeat([0.0, 1.0], 2000)
    with_weights = Model.train(half, COLUMNS, weights).measure(asked, COLUMNS)
    assert with_weights["auc"] > 0.8 > Model.train(half, COLUMNS).measure(asked, COLUMNS)["auc"]


@pytest.mark.parametrize("row_id", ["names", "numbers"])
def test_weights_are_of_named_or_of_numbered_rows(shop: Shop, row_id: str) -> None:
    ids = shop.old["id"] if row_id == "names" else pd.Series(range(len(shop.old)))
    frame = pd.DataFrame({"row_id": ids, "weight": np.ones(len(shop.old))})
    shop.pipeline.work_on(shop.event(weights=shop.weights(frame)))
    assert shop.daemon.states == ["started", "succeeded", "live"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.iloc[:-1], "the weights are for 2,999 rows, but the live model was trained on 3,000"),
        (lambda frame: frame[::-1], "the weights are for rows with other ids than those of the live model"),
    ],
)
def test_weights_of_other_rows_are_refused(shop: Shop, change, message: str) -> None:
    frame = pd.DataFrame({"row_id": shop.old["id"], "weight": np.ones(len(shop.old))})
    shop.pipeline.work_on(shop.event(weights=shop.weights(change(frame))))
    assert shop.daemon.states == ["started", "failed"]
    assert shop.daemon.reports[-1]["message"].startswith(message)


@pytest.mark.parametrize("name", ["training", "weights"])
def test_a_file_that_is_not_the_one_told_of_is_not_used(shop: Shop, name: str) -> None:
    event = shop.event(weights=shop.weights())
    event["data"][name]["sha256"] = "0" * 64
    shop.pipeline.work_on(event)
    assert shop.daemon.states == ["started", "failed"]
    assert f"{name}.parquet has sha256 " in shop.daemon.reports[-1]["message"]
    assert shop.models.live["version"] == "first"


def test_without_a_refreshed_set_there_is_nothing_to_compare_on(shop: Shop) -> None:
    event = shop.event(weights=shop.weights(adopt=True), training=None)
    event["data"]["retraining"]["note"] = "no refreshed training set: the disk is full"
    shop.pipeline.work_on(event)
    assert shop.daemon.reports[-1]["message"] == (
        "without a refreshed training set no live labels are there to compare on: "
        "no refreshed training set: the disk is full"
    )


def test_a_file_that_is_not_there_is_no_sign_that_nobody_wants_the_retraining(shop: Shop) -> None:
    event = shop.event()
    shop.daemon.files.clear()
    shop.pipeline.work_on(event)
    assert shop.daemon.states == ["started", "failed"]
    assert "/training.parquet answered 404" in shop.daemon.reports[-1]["message"]


def test_what_was_not_foreseen_is_reported_too(shop: Shop) -> None:
    event = shop.event()
    shop.daemon.files["/training.parquet"] = b"PAR1 no"
    event["data"]["training"]["sha256"] = hashlib.sha256(b"PAR1 no").hexdigest()
    shop.pipeline.work_on(event)
    assert shop.daemon.states == ["started", "failed"]
    assert "Parquet" in shop.daemon.reports[-1]["message"]


def test_what_drift_monitor_does_not_want_is_not_trained(shop: Shop) -> None:
    shop.daemon.answers["started"] = [409]
    shop.pipeline.work_on(shop.event())
    assert shop.daemon.reports == []
    assert shop.models.live["version"] == "first"


def test_what_was_given_up_meanwhile_is_not_deployed(shop: Shop) -> None:
    shop.daemon.answers["succeeded"] = [409]
    shop.pipeline.work_on(shop.event())
    assert shop.daemon.states == ["started"]
    assert shop.models.live["version"] == "first"


def test_a_report_is_repeated_until_the_daemon_answers(shop: Shop) -> None:
    shop.daemon.answers["live"] = [503, 503]
    shop.pipeline.work_on(shop.event())  # which would give up a report of another kind after 0.2 s
    assert shop.daemon.states == ["started", "succeeded", "live"]


def test_a_process_that_died_after_it_deployed_reports_and_trains_no_more(shop: Shop) -> None:
    shop.pipeline.work_on(shop.event())
    deployed = shop.models.live
    shop.daemon.reports.clear()
    shop.pipeline.work_on(shop.event())
    assert shop.daemon.states == ["live"]
    assert shop.models.live == deployed


def test_a_test_trains_nothing(shop: Shop) -> None:
    event = shop.event()
    event["data"]["retraining"]["mode"] = "test"
    shop.pipeline.work_on(event)
    assert shop.daemon.reports == []


# -- what is compared ------------------------------------------------------------------------------


def test_the_newest_rows_are_held_out_and_none_that_the_live_model_has_seen() -> None:
    refreshed = rows(T0, 100, 1)
    fit, held_out = split(refreshed, rows(T0, 10, 1), COLUMNS, 0.2)
    assert fit["time"].max() < held_out["time"].min()
    assert len(held_out) == refreshed["late"].notna()[refreshed["time"] > fit["time"].max()].sum()
    assert held_out["late"].notna().all()
    seen = rows(T0, 92, 1)
    _, newer = split(refreshed, seen, COLUMNS, 0.2)
    assert newer["time"].min() > seen["time"].max()
    with pytest.raises(PipelineError, match="takes 500 of each"):
        split(refreshed, rows(T0, 99, 1), COLUMNS, 0.2)


def test_measures_are_those_of_the_textbook() -> None:
    found = measures(np.array([True, False, True, False]), np.array([0.8, 0.2, 0.6, 0.7]))
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.8, 0.8, 0.6, 0.3])))
    assert found["brier"] == pytest.approx((0.04 + 0.04 + 0.16 + 0.49) / 4)
    assert found["auc"] == pytest.approx(3 / 4)  # pairs in order: 3 of 4
    assert "auc" not in measures(np.array([True]), np.array([0.5]))


def test_a_category_that_training_did_not_have_is_scored() -> None:
    frame = rows(T0, 30, 1)
    asked = frame.assign(airline="never seen")
    assert np.isfinite(Model.train(frame, COLUMNS).score(asked)).all()


def test_one_kind_of_label_is_no_training_set() -> None:
    with pytest.raises(PipelineError, match="nothing to learn"):
        Model.train(rows(T0, 1, 1).assign(late=True), COLUMNS)


def test_a_model_file_holds_nothing_that_another_program_could_not_read(shop: Shop) -> None:
    code = "import joblib, sys; print(joblib.load(sys.argv[1])['features'], 'drift_monitor' in sys.modules)"
    file = shop.models.folder / "first" / "model.joblib"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(file)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "('x', 'airline') False", done.stderr


# -- the daemon's API ------------------------------------------------------------------------------


def test_nothing_is_told_to_or_fetched_from_another_place(daemon: FakeDaemon, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    client = Daemon("http://127.0.0.1:1", token)
    with pytest.raises(
        PipelineError, match=r"is not at http://127\.0\.0\.1:1, the drift-monitor that we work for"
    ):
        client.report(f"{daemon.url}/x", "started")
    with pytest.raises(PipelineError, match="is not at"):
        client.fetch({"url": f"{daemon.url}/x", "sha256": "", "rows": 1}, tmp_path / "x")
    assert daemon.headers == []


def test_a_redirect_is_not_followed_with_the_token(daemon: FakeDaemon, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    daemon.answers["started"] = [302]
    with pytest.raises(RefusedError, match="answered 302"):
        Daemon(daemon.url, token).report(f"{daemon.url}/x", "started")
    (headers,) = daemon.headers
    assert headers["Authorization"] == "Bearer secret"


def test_a_daemon_that_is_not_there_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="does not answer"):
        Daemon("http://127.0.0.1:1", patience=0.1).report("http://127.0.0.1:1/x", "started")


# -- the service -----------------------------------------------------------------------------------


class Listening:
    """The service, with work that is only noted."""

    def __init__(self, folder: Path, *, start: bool = True) -> None:
        self.secret = new_secret()
        (folder / "secret").write_text(self.secret + "\n")
        self.worked: list[Any] = []
        self.service = Service(("127.0.0.1", 0), folder / "secret", Inbox(folder / "inbox"), self.worked.append)
        if start:
            self.service.start()

    def post(self, body: bytes, headers: dict[str, str], path: str = "") -> int:
        url = self.service.url.removesuffix(pipeline.PATH) + (path or pipeline.PATH)
        try:
            request = urllib.request.Request(url, body, headers)
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def send(self, event: object, ident: str = "e1", *, secret: str = "", age: float = 0, raw: bytes = b"") -> int:
        body = raw or json.dumps(event).encode()
        sent = datetime.now(UTC) - timedelta(seconds=age)
        signature = Webhook(secret or self.secret).sign(ident, sent, body.decode())
        headers = {
            "webhook-id": ident,
            "webhook-timestamp": str(int(sent.timestamp())),
            "webhook-signature": signature,
        }
        return self.post(body, headers)


REQUEST = {"type": pipeline.REQUESTED, "data": {"retraining": {"id": IDENT}, "reason": "x moved"}}


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    made = Listening(tmp_path)
    yield made
    made.service.stop()


def test_a_request_is_acknowledged_at_once_and_worked_on(listening: Listening) -> None:
    assert listening.send(REQUEST) == HTTPStatus.ACCEPTED
    listening.service.join()
    assert listening.worked == [REQUEST]


def test_a_delivery_that_came_before_is_acknowledged_and_not_worked_on(listening: Listening) -> None:
    assert [listening.send(REQUEST) for _ in range(3)] == [HTTPStatus.ACCEPTED] * 3
    assert (
        listening.send(REQUEST, "e2 ../..") == HTTPStatus.ACCEPTED
    )  # another one, with an id that is no file name
    listening.service.join()
    assert len(listening.worked) == 2


def test_it_is_still_known_after_a_restart_and_work_that_was_cut_off_is_done(tmp_path: Path) -> None:
    first = Listening(tmp_path, start=False)
    assert first.service.receive(_headers(first), json.dumps(REQUEST).encode()) == HTTPStatus.ACCEPTED
    second = Listening(tmp_path)  # the first one died before it began
    second.service.join()
    assert second.worked == [REQUEST]
    second.service.stop()
    third = Listening(tmp_path)
    assert third.send(REQUEST) == HTTPStatus.ACCEPTED
    third.service.join()
    assert third.worked == []
    third.service.stop()
    first.service._server.server_close()


def _headers(listening: Listening) -> dict[str, str]:
    sent = datetime.now(UTC)
    signature = Webhook(listening.secret).sign("e1", sent, json.dumps(REQUEST))
    return {
        "webhook-id": "e1",
        "webhook-timestamp": str(int(sent.timestamp())),
        "webhook-signature": signature,
    }


def test_a_request_that_proves_nothing_is_refused(listening: Listening) -> None:
    assert listening.send(REQUEST, secret=new_secret()) == HTTPStatus.UNAUTHORIZED
    assert listening.send(REQUEST, age=301) == HTTPStatus.UNAUTHORIZED
    assert listening.send(REQUEST, age=-301) == HTTPStatus.UNAUTHORIZED
    assert listening.post(json.dumps(REQUEST).encode(), {}) == HTTPStatus.UNAUTHORIZED
    listening.service.join()
    assert listening.worked == []


def test_while_a_secret_is_changed_both_are_good(listening: Listening, tmp_path: Path) -> None:
    newer = new_secret()
    (tmp_path / "secret").write_text(f"{listening.secret}\n{newer}\n")
    assert listening.send(REQUEST, "e1") == HTTPStatus.ACCEPTED
    assert listening.send(REQUEST, "e2", secret=newer) == HTTPStatus.ACCEPTED


def test_what_cannot_be_kept_is_not_acknowledged(listening: Listening, tmp_path: Path) -> None:
    waiting = tmp_path / "inbox" / "waiting"
    waiting.rmdir()
    assert listening.send(REQUEST) == HTTPStatus.SERVICE_UNAVAILABLE
    waiting.mkdir()
    (tmp_path / "secret").write_text("")
    assert listening.send(REQUEST) == HTTPStatus.SERVICE_UNAVAILABLE
    (tmp_path / "secret").write_text(listening.secret)
    assert listening.send(REQUEST) == HTTPStatus.ACCEPTED  # when it is sent again


def test_other_events_are_taken_and_nothing_is_done(listening: Listening) -> None:
    assert listening.send({"type": "drift_monitor.drift.opened", "data": {}}) == HTTPStatus.NO_CONTENT
    assert listening.send(None, "e2", raw=b"[1]") == HTTPStatus.BAD_REQUEST
    assert listening.send(None, "e3", raw=b"{") == HTTPStatus.BAD_REQUEST
    assert listening.send({"type": pipeline.REQUESTED}, "e4") == HTTPStatus.BAD_REQUEST
    listening.service.join()
    assert listening.worked == []


def test_what_is_too_large_or_elsewhere_is_refused(listening: Listening) -> None:
    assert listening.post(b"", {"content-length": str(1 << 30)}) == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert listening.post(b"{}", {}, "/other") == HTTPStatus.NOT_FOUND


def test_signatures_are_those_of_the_standard() -> None:
    secret, body, now = new_secret(), b'{"a": 1}', time.time()
    sent = datetime.fromtimestamp(int(now), UTC)
    headers = {
        "webhook-id": "m1",
        "webhook-timestamp": str(int(now)),
        "webhook-signature": f"v1a,x v1,{'A' * 44} {Webhook(secret).sign('m1', sent, body.decode())}",
    }
    assert verify([secret], headers, body, now) is None
    assert verify([secret], headers, body + b" ", now) == "its signature is not of our secret"
    assert verify([secret], {**headers, "webhook-id": "m2"}, body, now) == "its signature is not of our secret"
    for stamp in ("no", "", "9" * 5000, "-1", "٣"):
        assert verify([secret], {**headers, "webhook-timestamp": stamp}, body, now)


@pytest.mark.parametrize("content", ["", "whsec_\n", "whsec_!!!\n"])
def test_a_secret_that_is_none_is_told_at_the_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content)
    with pytest.raises(PipelineError, match="must have a line `whsec_` and a key in base64"):
        Service(("127.0.0.1", 0), tmp_path / "secret", Inbox(tmp_path / "inbox"), print)


# -- the example as a whole ------------------------------------------------------------------------


def test_it_stands_alone() -> None:
    source = (EXAMPLE / "pipeline.py").read_text()
    assert Path(pipeline.__file__).read_text() == source
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"joblib", "numpy", "pandas", "pyarrow", "sklearn"}


def test_the_first_model_comes_from_the_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training = tmp_path / "training.parquet"
    rows(T0, 30, 1).to_parquet(training)
    about = ["--models", str(tmp_path / "models"), "--label", "late", "--id", "id", "--time", "time"]
    serve = ["serve", *about, "--daemon", "http://127.0.0.1:1", "--secret-file", str(tmp_path / "none")]
    assert pipeline.main(serve) == 1
    assert "no model is live" in caplog.text
    assert pipeline.main(["first", *about, "--training", str(training), "--version", "1"]) == 0
    assert Models(tmp_path / "models").live == {
        "version": "1",
        "rows": str(training),
        "trained_on": str(training),
    }
    assert pipeline.main(serve) == 1  # no secret
    assert pipeline.main(["first", *about, "--training", str(tmp_path / "no"), "--version", "2"]) == 1


def test_the_configuration_of_its_readme_is_valid(tmp_path: Path) -> None:
    _, _, text = (EXAMPLE / "README.md").read_text().partition("```yaml\n")
    config = parse(text.partition("```")[0], tmp_path / "drift-monitor.yaml")
    (monitor,) = config.monitors.values()
    assert monitor.retrain is not None
    assert monitor.retrain.receiver in config.receivers
    assert monitor.refresh.enabled
    assert monitor.reweight.enabled
