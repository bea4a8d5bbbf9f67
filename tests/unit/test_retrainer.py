"""What the daemon makes of a drift: proposals with what goes with them, messages, promotions, and who may ask."""

import base64
import hashlib
import hmac
import http.client
import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from drift_monitor.actions.promote import PromoteResult
from drift_monitor.actions.refresh import LabelsResult, RefreshResult
from drift_monitor.actions.reweight import ReweightResult
from drift_monitor.config.models import Config
from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.core.retraining import Event, RetrainingError, State
from drift_monitor.core.types import CheckResult, Outcome, QualityResult, ReferenceId, Window
from drift_monitor.service.messages import Links
from drift_monitor.service.metrics import Exposition
from drift_monitor.service.promotions import RECORD, Promotion, promoted_folder
from drift_monitor.service.retrain_work import Work
from drift_monitor.service.retrainer import SETTLED, Retrainer
from drift_monitor.service.retraining_messages import REQUESTED, Sender
from drift_monitor.service.runs import Hooks, Runs
from drift_monitor.service.server import Application, Server
from drift_monitor.service.store import FILE, Store

T0 = datetime(2026, 3, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOOK = {"type": "webhook", "url": "http://127.0.0.1:1/", "secret_file": "s"}
SECRET = "not a secret"


def config(state, retrain=(), **fields):
    monitor = {
        "reference": "r",
        "model": {"name": "delay", "version": "1", "owner": "ada"},
        "downstream": ["pricing"],
        "source": {"path": "p", "timestamp": "t"},
        "schedule": {"every": "1h"},
        "window": {"length": "1h"},
        "columns": {"label": "y", "id": "i"},
        "notify": ["people"],
        "refresh": {"enabled": True},
        "reweight": {"enabled": True},
        "retrain": {"receiver": "pipeline", "cooldown": "0s", "min_rows": 10, **dict(retrain)},
        **fields,
    }
    return Config.model_validate(
        {"state": state, "monitors": {"m": monitor}, "receivers": {"people": HOOK, "pipeline": HOOK}},
        strict=False,
    )


class Rig:
    """A store with all that acts on it, and child processes that answer at once."""

    def __init__(self, folder, retrain=(), **fields):
        self.config = config(folder / "state", retrain, **fields)
        self.store = Store.open(self.config.state)
        hooks = Hooks(lambda: None, lambda *_: None, lambda: None, lambda _: None)
        links = Links("http://d/monitors/m", None, "http://d")
        self.runs = Runs(self.store, lambda: self.config, lambda *_: links, "/d", hooks)
        self.labelled, self.trouble, self.promoted = 0.9, {}, []
        self.adopt = True
        work = Work(self.labels, self.refresh, self.reweight, self.promote)
        self.retrainer = Retrainer(
            self.store, lambda: self.config, lambda: Sender("/d", "http://d"), lambda: None, work
        )
        self.move, self.begin = self.retrainer.move, self.retrainer.begin
        self.hours = 0

    def _may_fail(self, what):
        if what in self.trouble:
            raise DriftMonitorError(self.trouble[what])

    def labels(self, request, deadline):
        self._may_fail("labels")
        return LabelsResult(rows=100, labelled=round(100 * self.labelled))

    def refresh(self, request, deadline):
        self._may_fail("refresh")
        return RefreshResult(
            path=request.output,
            train=request.output / "train.parquet",
            train_sha256="ab",
            rows={"train": 80, "test": 20},
            sha256="cd",
            labelled=self.labelled,
        )

    def reweight(self, request, deadline):
        self._may_fail("reweight")
        request.output.mkdir(parents=True, exist_ok=True)
        (request.output / "weights.parquet").write_bytes(b"PAR1 weights")
        return ReweightResult(
            path=request.output / "weights.parquet",
            manifest=request.output / "manifest.json",
            rows=80,
            sha256="ef",
            effective_sample_size=40.0,
            method="classifier",
            adopt=self.adopt,
            why="it gains 3 standard errors" if self.adopt else "it gains nothing",
        )

    def promote(self, request, deadline):
        self._may_fail("promote")
        self.promoted.append(request)
        return PromoteResult(version="2026-03-04-0123456789ab")

    def window(self, verdict=Outcome.DRIFT, **values):
        self.hours += 1
        window = Window(start=T0 + (self.hours - 1) * HOUR, end=T0 + self.hours * HOUR)
        self.store.enqueue("m", [window])
        run, _ = self.runs.take()
        quality = ()
        if verdict is Outcome.BROKEN:
            quality = (QualityResult(check="null_rate", feature="x", failed=True, message="nulls"),)
        defaults = {"rows": 5000, "score": 2.0, "threshold": 1.0, "promise": "p", "quality": quality}
        result = CheckResult(monitor="m", window=window, verdict=verdict, reason="x moved", **(defaults | values))
        self.runs.done(run, result)

    def step(self):
        """What the daemon does by itself until there is nothing left to do."""
        self.retrainer.look()
        for retraining in self.store.retrainings.active():
            self.retrainer.work_on(retraining.id)

    @property
    def newest(self):
        return self.store.retrainings.newest("m", 1)[0]

    def said(self, receiver="people"):
        return [json.loads(d.body) for d in self.store.outbox.deliveries() if d.receiver == receiver]

    def types(self, receiver="people"):
        return [event["type"].removeprefix("drift_monitor.") for event in self.said(receiver)]

    def deliver(self):
        found = self.store.outbox.next_delivery(["pipeline"], datetime.now(UTC))
        self.store.outbox.delivered(found.id, datetime.now(UTC), 0.1)


@pytest.fixture
def rig(tmp_path):
    made = []

    def make(retrain=(), **fields):
        made.append(Rig(tmp_path, retrain, **fields))
        return made[-1]

    yield make
    for each in made:
        each.store.close()


def test_a_drift_is_proposed_with_its_weights_and_its_training_set(rig):
    loop = rig()
    loop.window()
    assert loop.newest.state is State.PREPARING
    loop.step()
    found = loop.newest
    assert (found.state, found.labelled, found.training.rows, found.weights.adopt) == (
        State.PROPOSED,
        0.9,
        80,
        True,
    )
    assert loop.types() == ["drift.opened", "retraining.proposed", "weights.ready"]
    data = loop.said()[1]["data"]
    assert f"drift-monitor approve {found.id[:8]}" in data["summary"]
    assert data["downstream"] == ["pricing"]
    assert loop.types("pipeline") == []


def test_what_the_pipeline_is_told(rig):
    loop = rig(retrain={"mode": "auto"})
    loop.window(reference=ReferenceId(version="v", sha256="99", rows=5, created=T0))
    loop.step()
    (event,) = loop.said("pipeline")
    data, ident = event["data"], loop.newest.id
    assert event["type"] == REQUESTED
    assert data["retraining"]["id"] == ident
    assert data["retraining"]["decided_by"] == "the configuration (mode: auto)"
    assert data["model"] == {"name": "delay", "version": "1", "owner": "ada"}
    assert data["training"] == {
        "url": f"http://d/retrainings/{ident}/training.parquet",
        "path": str(loop.config.state / "retrainings" / ident / "training" / "train.parquet"),
        "rows": 80,
        "sha256": "ab",
    }
    assert data["weights"]["effective_sample_size"] == 40.0
    assert data["weights"]["why"] == "it gains 3 standard errors"
    assert data["report_back"] == {"url": f"http://d/api/v1/retrainings/{ident}"}
    assert data["reference"] == {"version": "v", "sha256": "99"}


def test_the_whole_circle_closes_the_episode(rig):
    loop = rig(retrain={"mode": "auto"})
    loop.window()
    loop.step()
    loop.deliver()
    loop.step()
    assert loop.newest.state is State.SENT
    ident = loop.newest.id
    loop.move(ident, Event.SUCCEEDED, model_version="2", model_metrics={"rmse": 3.5})
    assert loop.promoted == []  # it is not live
    loop.step()
    assert loop.promoted == []
    loop.move(ident, Event.LIVE)
    loop.window()
    loop.step()
    (request,) = loop.promoted
    assert (request.model_version, request.at) == ("2", T0 + 2 * HOUR)
    assert request.training.name == "train.parquet"
    assert (loop.newest.state, loop.newest.reference) == (State.PROMOTED, "2026-03-04-0123456789ab")
    (episode,) = loop.store.episodes("m", 9)
    assert (episode.closed, episode.retrained) == (T0 + 2 * HOUR, True)
    assert loop.types()[-3:] == ["retraining.live", "reference.promoted", "drift.resolved"]
    loop.step()
    assert len(loop.promoted) == 1


@pytest.mark.parametrize(
    ("values", "rail"), [({"rows": 9}, "rows"), ({"verdict": Outcome.BROKEN}, None), ({}, None)]
)
def test_the_message_says_what_holds_a_retraining_back(rig, values, rail):
    loop = rig()
    loop.window(**values)
    held = loop.said()[0]["data"].get("retraining_held", {})
    assert list(held) == ([rail] if rail else [])
    assert len(loop.store.retrainings.newest("m", 9)) == (1 if values == {} else 0)


def test_mode_notify_asks_nobody_and_says_so(rig):
    loop = rig(retrain={"mode": "notify"})
    loop.window()
    assert loop.said()[0]["data"]["retraining_held"] == {"mode": "the mode is notify: nobody is asked to retrain"}
    assert loop.store.retrainings.newest("m", 9) == []


def test_what_held_back_is_looked_at_again_with_each_window_of_the_episode(rig):
    loop = rig()
    loop.window(rows=9)
    (episode,) = loop.store.episodes("m", 9)
    assert list(episode.held) == ["rows"]
    loop.window()
    assert loop.newest.state is State.PREPARING
    (episode,) = loop.store.episodes("m", 9)
    assert episode.held == {}


def test_without_labels_there_are_only_weights(rig):
    loop = rig()
    loop.labelled = 0.1
    loop.window()
    loop.step()
    assert loop.newest.state is State.WITHHELD
    assert loop.newest.note.startswith("10% of the live rows have a label and a retraining needs 50%")
    assert loop.types() == ["drift.opened", "retraining.withheld", "weights.ready"]
    assert not loop.newest.in_flight


def test_labels_that_cannot_be_counted_hold_back(rig):
    loop = rig(refresh={"enabled": False})
    loop.trouble["labels"] = "no column y"
    loop.window()
    loop.step()
    assert loop.newest.state is State.WITHHELD
    assert loop.newest.note == (
        "it is not known how many rows have a label; the labels could not be counted: no column y"
    )


def test_what_cannot_be_made_is_told_and_does_not_hold_back(rig):
    loop = rig()
    loop.trouble = {"refresh": "the disk is full", "reweight": "no training rows"}
    loop.window()
    loop.step()
    assert loop.newest.state is State.PROPOSED
    assert loop.newest.note == "no refreshed training set: the disk is full; no weights: no training rows"


def test_data_that_breaks_meanwhile_holds_back(rig):
    loop = rig(retrain={"mode": "auto"})
    loop.window()
    loop.window(Outcome.BROKEN)
    loop.step()
    assert loop.newest.state is State.WITHHELD
    assert loop.newest.note.startswith("the data has been broken since")
    assert loop.types("pipeline") == []


def test_a_proposal_is_not_approved_on_broken_data(rig):
    loop = rig()
    loop.window()
    loop.step()
    loop.window(Outcome.BROKEN)
    with pytest.raises(RetrainingError, match="cannot be approved: the data has been broken since"):
        loop.move(loop.newest.id, Event.APPROVE, decided_by="ada")
    assert loop.newest.state is State.PROPOSED


def test_an_approval_that_came_late_is_prepared_anew_with_the_newest_rows(rig):
    loop = rig()
    loop.window()
    loop.step()
    loop.window()
    assert loop.move(loop.newest.id, Event.APPROVE, decided_by="ada").state is State.PREPARING
    assert loop.types("pipeline") == []
    loop.step()
    assert (loop.newest.state, loop.newest.window.end) == (State.APPROVED, T0 + 2 * HOUR)
    assert loop.newest.decided_by == "ada"
    assert loop.types("pipeline") == ["retraining.requested"]


def test_a_late_approval_may_still_be_withheld(rig):
    loop = rig()
    loop.window()
    loop.step()
    loop.window()
    loop.move(loop.newest.id, Event.APPROVE, decided_by="ada")
    loop.labelled = 0.0
    loop.step()
    assert loop.newest.state is State.WITHHELD
    assert loop.types("pipeline") == []


def test_a_drift_that_ends_takes_its_proposal_along(rig):
    loop = rig()
    loop.window()
    loop.step()
    loop.window(Outcome.OK)
    loop.step()
    assert (loop.newest.state, loop.newest.note) == (State.EXPIRED, SETTLED)


def test_a_receiver_that_gives_up_fails_the_retraining(rig):
    loop = rig(retrain={"mode": "auto"})
    loop.window()
    loop.step()
    found = loop.store.outbox.next_delivery(["pipeline"], datetime.now(UTC))
    loop.store.outbox.bury(found.id, "404 Not Found", "status_4xx", 0.1)
    loop.step()
    assert loop.newest.state is State.FAILED
    assert loop.newest.note == "the pipeline's receiver did not take it: 404 Not Found"
    assert loop.types()[-1] == "retraining.failed"


def test_a_live_model_of_unknown_training_data_leaves_the_reference(rig):
    loop = rig(retrain={"mode": "auto"}, refresh={"enabled": False})
    loop.window()
    loop.step()
    loop.move(loop.newest.id, Event.LIVE, model_version="2")
    loop.step()
    assert (loop.newest.state, loop.newest.settled) == (State.LIVE, True)
    assert "nobody told which file" in loop.newest.note
    assert loop.types()[-1] == "reference.not_promoted"
    loop.move(loop.newest.id, Event.LIVE, trained_on="/data/new.parquet")
    loop.step()
    assert loop.newest.state is State.PROMOTED
    assert str(loop.promoted[0].training) == "/data/new.parquet"


def test_two_retrainings_in_vain_page_a_person_once(rig):
    loop = rig(retrain={"mode": "auto"})
    for version in ("2", "3"):
        loop.window()
        loop.step()
        loop.move(loop.newest.id, Event.LIVE, model_version=version)
        loop.step()
        assert loop.newest.state is State.PROMOTED
    loop.window()
    loop.window()
    assert len(loop.store.retrainings.newest("m", 9)) == 2
    assert loop.types().count("retraining.given_up") == 1
    event = loop.said()[-1]
    assert (event["type"], event["data"]["severity"]) == ("drift_monitor.retraining.given_up", "critical")
    begun = loop.begin("m", "ada")
    assert begun.state is State.PREPARING
    loop.step()
    assert (loop.newest.mode, loop.newest.state, loop.newest.decided_by) == ("by hand", State.APPROVED, "ada")


def test_a_broken_window_holds_back_before_its_episode_opens(rig):
    loop = rig(retrain={"mode": "auto"})
    loop.window()
    loop.window(Outcome.BROKEN)
    with closing(sqlite3.connect(loop.config.state / FILE)) as db:  # as if persistence or a cooldown kept it shut
        db.execute("DELETE FROM episodes WHERE lane = 'quality'")
        db.commit()
    loop.step()
    assert (loop.newest.state, loop.newest.decided_by) == (State.WITHHELD, "")
    assert loop.newest.note.startswith("the data of the newest window is broken")
    with pytest.raises(RetrainingError, match="the data of the newest window is broken"):
        loop.begin("m", "ada")
    assert loop.types("pipeline") == []


def test_a_report_that_is_repeated_does_not_ask_for_the_promotion_again(rig):
    loop = rig(retrain={"mode": "auto"}, refresh={"enabled": False})
    loop.window()
    loop.step()
    loop.move(loop.newest.id, Event.LIVE, model_version="2", note="at last")
    loop.step()
    assert loop.newest.settled
    loop.move(loop.newest.id, Event.LIVE, model_version="2", note="at last")
    assert loop.newest.settled


def test_an_older_model_does_not_take_the_reference_back(rig):
    loop = rig(retrain={"mode": "auto", "give_up": 99}, refresh={"enabled": False})
    loop.window()
    loop.step()
    first = loop.newest.id
    loop.move(first, Event.LIVE, model_version="2")
    loop.step()
    assert loop.newest.settled
    loop.window(Outcome.OK)
    loop.window()
    loop.step()
    second = loop.newest
    assert second.id != first
    loop.move(second.id, Event.LIVE, model_version="3", trained_on="/data/3.parquet")
    loop.step()
    assert loop.newest.state is State.PROMOTED
    record = Promotion(
        base="b",
        version="v",
        model_version="3",
        retraining=second.id,
        training="/data/3.parquet",
        at=T0,
        previous="/p",
        trial_until=T0,
    )
    folder = promoted_folder(loop.config.state, "m")
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(record.model_dump_json())
    loop.move(first, Event.LIVE, trained_on="/data/2.parquet")
    loop.step()
    old = loop.store.retrainings.find(first)
    assert (old.state, old.settled) == (State.LIVE, True)
    assert f"retraining {second.id[:8]} was asked for later" in old.note
    assert len(loop.promoted) == 1


def test_a_promotion_that_ended_before_its_answer_came_is_recorded(rig):
    loop = rig(retrain={"mode": "auto"})
    loop.window()
    loop.step()
    loop.move(loop.newest.id, Event.LIVE, model_version="2")
    record = Promotion(
        base="b",
        version="v",
        model_version="2",
        retraining=loop.newest.id,
        training="/t",
        at=T0,
        previous="/p",
        trial_until=T0,
    )
    folder = promoted_folder(loop.config.state, "m")
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(record.model_dump_json())
    loop.trouble["promote"] = "it was not done after 60 s and was stopped"
    loop.step()
    assert (loop.newest.state, loop.newest.reference) == (State.PROMOTED, "v")


def test_another_training_file_that_is_told_meanwhile_is_still_tried(rig):
    loop = rig(retrain={"mode": "auto"})
    loop.window()
    loop.step()
    ident = loop.newest.id
    loop.move(ident, Event.LIVE, model_version="2", trained_on="/data/wrong.parquet")
    worked_on = loop.newest
    loop.move(ident, Event.LIVE, trained_on="/data/right.parquet")
    assert not loop.store.retrainings.settle(worked_on, "it failed").settled
    loop.step()
    assert str(loop.promoted[0].training) == "/data/right.parquet"
    assert loop.newest.state is State.PROMOTED


def test_a_retraining_is_remembered_as_long_as_its_episode(rig):
    loop = rig()
    loop.window()
    loop.step()
    loop.move(loop.newest.id, Event.REJECT, decided_by="ada")
    day, year = timedelta(days=1), timedelta(days=365)
    loop.store.purge(datetime.now(UTC) + year, monitors=["m"], results=day, runs=day, delivered=day)
    loop.window()
    loop.step()
    assert loop.newest.state is State.REJECTED


def test_by_hand_one_at_a_time_and_not_on_broken_data(rig):
    loop = rig()
    with pytest.raises(RetrainingError, match="no window was judged"):
        loop.begin("m", "ada")
    loop.window(Outcome.OK)
    loop.begin("m", "ada")
    with pytest.raises(RetrainingError, match="one at a time"):
        loop.begin("m", "ada")
    with pytest.raises(RetrainingError, match="is not configured"):
        loop.begin("other", "ada")
    loop.window(Outcome.BROKEN)
    with pytest.raises(RetrainingError, match="the data has been broken"):
        loop.begin("m", "ada")


# -- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture
def api(rig, tmp_path):
    (tmp_path / "mlflow").write_text(f"{SECRET}\n")
    loop = rig(retrain={"mlflow_secret_file": tmp_path / "mlflow"})
    daemon = SimpleNamespace(
        config=loop.config,
        store=loop.store,
        move=loop.move,
        begin=loop.begin,
        exposition=Exposition(),
        reports=tmp_path,
    )
    server = Server("127.0.0.1", 0, Application(daemon))
    server.start()

    def ask(method, path, body=None, **headers):
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
            sent = {"X-Requested-By": "drift-monitor"} | {k.replace("_", "-"): v for k, v in headers.items()}
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, raw, sent)
            answer = connection.getresponse()
            content = answer.read()
            is_json = answer.headers["Content-Type"] == "application/json"
            return answer.status, json.loads(content) if is_json else content

    loop.ask = ask
    loop.window()
    loop.step()
    yield loop
    server.stop()


def test_people_decide_and_pipelines_report(api):
    ident = api.newest.id
    assert api.ask("POST", f"/api/v1/retrainings/{ident[:8]}/approve", {"by": "ada", "note": "seen"})[0] == 200
    path = f"/api/v1/retrainings/{ident}"
    assert api.ask("POST", path, {"state": "started"})[1]["state"] == "running"
    status, found = api.ask("POST", path, {"state": "succeeded", "version": "2", "metrics": {"rmse": 3.5}})
    assert (status, found["state"], found["model_metrics"]) == (200, "trained", {"rmse": 3.5})
    assert api.ask("POST", path, {"state": "live"})[1]["state"] == "live"
    assert api.ask("GET", path)[1]["decided_by"] == "ada"
    listed = api.ask("GET", "/api/v1/retrainings?monitor=m")[1]["retrainings"]
    assert [r["id"] for r in listed] == [ident]
    assert api.ask("GET", "/api/v1/retrainings?monitor=other")[1]["retrainings"] == []


def test_what_cannot_follow_is_a_conflict(api):
    status, said = api.ask("POST", f"/api/v1/retrainings/{api.newest.id}", {"state": "started"})
    assert (status, said["state"]) == (409, "proposed")
    assert "started cannot follow" in said["error"]
    assert api.ask("POST", "/api/v1/retrainings/0123abcd", {"state": "started"})[0] == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", ""),
        (b"\xff", ""),
        ({"state": "done"}, "state"),
        ({"state": "succeeded", "version": "x" * 201}, "version"),
        ({"state": "succeeded", "version": 3}, "version"),
        ({"state": "succeeded", "metrics": {"rmse": "3"}}, "metrics.rmse"),
        (b'{"state": "succeeded", "metrics": {"rmse": NaN}}', "metrics.rmse"),
        ({"state": "started", "more": 1}, "more"),
    ],
)
def test_a_body_that_cannot_be_used_says_which_field(api, body, field):
    status, said = api.ask("POST", f"/api/v1/retrainings/{api.newest.id}", body)
    assert status == 422
    assert [problem["field"] for problem in said["problems"]] == [field]


def test_who_asks_without_the_header_changes_nothing(api):
    status, _ = api.ask(
        "POST", f"/api/v1/retrainings/{api.newest.id}/approve", {"by": "x"}, X_Requested_By="a page elsewhere"
    )
    assert status == 403
    assert api.newest.state is State.PROPOSED


def test_weights_can_be_fetched_and_what_is_not_there_cannot(api):
    assert api.ask("GET", f"/retrainings/{api.newest.id}/weights.parquet") == (200, b"PAR1 weights")
    status, said = api.ask("GET", f"/retrainings/{api.newest.id}/training.parquet")  # never written here
    assert (status, said["error"]) == (404, f"retraining {api.newest.id[:8]} has no training")


def test_a_retraining_by_hand(api):
    status, said = api.ask("POST", "/api/v1/monitors/m/retrain", {"by": "ada"})
    assert (status, said["error"]) == (409, "another retraining of m is under way: one at a time")
    api.move(api.newest.id, Event.REJECT, decided_by="ada")
    assert api.ask("POST", "/api/v1/monitors/m/retrain", {"by": "ada"})[0] == 201


def signed(event, sent=None, secret=SECRET):
    """A request as MLflow's documentation describes its signature."""
    body, sent = json.dumps(event).encode(), str(int(time.time())) if sent is None else sent
    mac = hmac.new(secret.encode(), b"d-1." + sent.encode() + b"." + body, hashlib.sha256).digest()
    headers = {
        "X_MLflow_Signature": "v1," + base64.b64encode(mac).decode(),
        "X_MLflow_Delivery_Id": "d-1",
        "X_MLflow_Timestamp": sent,
        "X_Requested_By": "mlflow",
    }
    return body, headers


def created(version, **data):
    return {"entity": "model_version", "action": "created", "data": {"name": "delay", "version": version, **data}}


def alias(version, name="champion"):
    data = {"name": "delay", "version": version, "alias": name}
    return {"entity": "model_version_alias", "action": "created", "data": data}


def test_mlflow_tells_what_is_trained_and_what_is_live(api):
    api.move(api.newest.id, Event.APPROVE, decided_by="ada")
    path = "/api/v1/monitors/m/mlflow"

    def tell(event):
        body, headers = signed(event)
        return api.ask("POST", path, body, **headers)

    foreign = created("7", tags={"drift_monitor.retraining": "ffff"})
    assert "belongs to no retraining" in tell(foreign)[1]["ignored"]
    assert tell(created("7"))[1]["state"] == "trained"
    assert "of no retraining that waits" in tell(alias("6"))[1]["ignored"]
    assert "only new versions" in tell(alias("7", "challenger"))[1]["ignored"]
    assert api.newest.state is State.TRAINED
    assert tell(alias("7"))[1]["state"] == "live"


@pytest.mark.parametrize(
    "forged",
    [
        lambda: signed(alias("7"), secret="guess"),
        lambda: signed(alias("7"), sent=str(int(time.time()) - 600)),
        lambda: signed(alias("7"), sent="soon"),
        lambda: (json.dumps(alias("8")).encode(), signed(alias("7"))[1]),
    ],
)
def test_what_mlflow_did_not_sign_lately_is_refused(api, forged):
    body, headers = forged()
    assert api.ask("POST", "/api/v1/monitors/m/mlflow", body, **headers)[0] == 403
    body, headers = forged()
    headers["X_Requested_By"] = "drift-monitor"
    assert api.ask("POST", "/api/v1/monitors/m/mlflow", body, **headers)[0] == 401
