"""A backfill judges as the daemon does, tells nobody, and goes on where it was."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.cli import main
from drift_monitor.config.file import load
from drift_monitor.config.models import Config
from drift_monitor.core.types import CheckResult, FailureReason, FeatureResult, Outcome, Window
from drift_monitor.service import backfill as module
from drift_monitor.service.backfill import Backfill, BackfillError
from drift_monitor.service.evaluate import CheckRequest, evaluate
from drift_monitor.service.messages import Links
from drift_monitor.service.runs import Hooks, Runs
from drift_monitor.service.store import FILE, Store
from drift_monitor.service.worker import cannot_judge

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TRAINED = 10
LIVE = START + TRAINED * DAY
DAYS = 6
OUTCOMES = {"O": Outcome.OK, "D": Outcome.DRIFT, "N": Outcome.NO_DATA}
CONFIG = """\
receivers:
  ops: {type: webhook, url: "https://hooks.example/x", secret_file: secret}
monitors:
  m:
    reference: training.parquet
    source: {path: "live/*.parquet", timestamp: at}
    schedule: {every: 1d}
    columns: {label: late}
    alarm: {persistence: 2 of 2}
    notify: [ops]
    retrain: {receiver: ops, mode: auto, labels: 0, min_rows: 1}
"""


def rows(start: datetime, days: int, shift: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(days)
    n = 144 * days
    return pa.table(
        {
            "at": pa.array([start + DAY * (i / 144) for i in range(n)], pa.timestamp("us", "UTC")),
            "speed": rng.normal(100 + shift, 10, n),
            "late": rng.random(n) < 0.3,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(rows(START, TRAINED), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    pq.write_table(rows(LIVE, DAYS - 2), tmp_path / "live" / "1.parquet")
    pq.write_table(rows(LIVE + (DAYS - 2) * DAY, 2, shift=40), tmp_path / "live" / "2.parquet")
    (tmp_path / "drift-monitor.yaml").write_text(CONFIG)
    return tmp_path


def backfill(folder: Path, *options: str) -> int:
    end = f"{LIVE + DAYS * DAY:%Y-%m-%d}"
    return main(["backfill", "--config", str(folder / "drift-monitor.yaml"), "--to", end, *options])


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with closing(Store.open(folder / "state")) as opened:
        yield opened


def window(day: int) -> Window:
    """That ends `day` days after the log begins."""
    return Window(start=LIVE + (day - 1) * DAY, end=LIVE + day * DAY)


def found(verdict: Outcome, at: Window) -> CheckResult:
    drifted = verdict is Outcome.DRIFT
    features = (FeatureResult(name="speed", kind="numeric", drifted=drifted),)
    return CheckResult(
        monitor="m",
        window=at,
        rows=144,
        verdict=verdict,
        reason="as the test says",
        score=2.0 if drifted else 0.5,
        threshold=1.0,
        promise="none",
        features=features,
    )


@pytest.fixture
def fill(folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backfill]:
    """Fill days of the log with verdicts of the test's."""

    def filled(verdicts: str, first: int = 1) -> Backfill:
        monkeypatch.setattr(module, "known_of", lambda *_, **__: None)
        monkeypatch.setattr(
            module,
            "evaluate",
            lambda r: found(OUTCOMES[verdicts[(r.window.end - LIVE) // DAY - first]], r.window),
        )
        monitor = load(folder / "drift-monitor.yaml").monitors["m"]
        span = window(first).start, window(first + len(verdicts) - 1).end
        work = Backfill("m", monitor, folder / "state", store.judged_ends("m"), span)
        work.fill(store)
        return work

    return filled


def judge(store: Store, folder: Path, day: int, verdict: Outcome) -> None:
    """What the daemon does."""
    config: Config = load(folder / "drift-monitor.yaml")
    hooks = Hooks(lambda: None, lambda *_: None, lambda: None, lambda _: None)
    runs = Runs(store, lambda: config, lambda *_: Links("", None), "/drift-monitor/test", hooks)
    store.enqueue("m", [window(day)])
    taken = runs.take()
    assert taken is not None
    runs.done(taken[0], found(verdict, window(day)))


def told(store: Store) -> list[str]:
    return [delivery.type.removeprefix("drift_monitor.") for delivery in store.outbox.deliveries()]


def episodes(store: Store) -> list[tuple[int, int | None, bool]]:
    """The day on which each opened and closed, and whether it is untold; oldest first."""
    return [
        ((e.opened - LIVE) // DAY, None if e.closed is None else (e.closed - LIVE) // DAY, e.untold)
        for e in reversed(store.episodes("m", 10))
    ]


def test_each_window_has_the_result_of_a_check_and_nobody_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert backfill(folder, "--dry-run") == 0
    assert "6 windows to fill, 2024-03-11T00:00Z to 2024-03-17T00:00Z" in (said := capsys.readouterr().out)
    assert "at most 864 rows in 2 files" in said
    assert backfill(folder) == 0
    assert capsys.readouterr().out.startswith("m: 6 windows filled, ")
    monitor = load(folder / "drift-monitor.yaml").monitors["m"]
    with closing(Store.open(folder / "state")) as store:
        stored = {result.window: store.result(run) for run, result in store.results("m", 100)}
        for at, result in stored.items():
            request = CheckRequest(name="m", monitor=monitor, state=folder / "state", window=at)
            assert result == evaluate(request).model_copy(update={"seconds": result.seconds}), at
        assert list(stored) == [window(day) for day in range(DAYS, 0, -1)]
        assert [verdict for verdict in map(str, store.history("m", LIVE + DAYS * DAY, 9)) if verdict == "ok"]
        assert stored[window(DAYS)].verdict in (Outcome.DRIFT, Outcome.BROKEN)
        assert [e.untold for e in store.episodes("m", 10)] == [True]
        assert store.outbox.deliveries() == []
        assert store.retrainings.newest("m", 10) == []
        snapshot = store.snapshot()
        assert snapshot.latest["m"].window == window(DAYS)
        assert not snapshot.finished
        assert not snapshot.succeeded
        assert not snapshot.counters
    assert backfill(folder) == 0
    assert capsys.readouterr().out == "m: 0 windows filled; 6 had a result\n"


def test_a_log_that_ended_is_told_with_the_time_to_end_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "known_of", lambda *_, **__: None)
    monkeypatch.setattr(
        module,
        "evaluate",
        lambda r: found(Outcome.OK if r.window.end <= window(DAYS).end else Outcome.NO_DATA, r.window),
    )
    for after, hint in ((2, False), (4, False), (9, True)):  # from where the last call ended
        assert backfill(folder, "m", "--to", f"{LIVE + (DAYS + after) * DAY:%Y-%m-%d}") == 0
        said = capsys.readouterr().out
        assert ("the last 5 windows have no data" in said) is hint
        assert (f"`--to {LIVE + (DAYS + 4) * DAY:%Y-%m-%dT%H:%MZ}` fills until its end" in said) is hint


def test_only_days_without_data_at_the_end_are_those_of_a_log_that_ended(fill: Callable[..., Backfill]) -> None:
    assert fill("NON").silent == [window(3)]
    assert fill("NNO", first=4).silent == []


def test_live_rows_begin_after_the_training_rows_and_not_with_the_hour_in_which_these_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(rows(START + timedelta(minutes=20), TRAINED), folder / "training.parquet")  # to 0:10 of a day
    assert backfill(folder, "--dry-run") == 0
    assert "5 windows to fill, 2024-03-12T00:00Z to 2024-03-17T00:00Z" in capsys.readouterr().out


def test_kill_9_keeps_what_was_filled_and_a_second_call_goes_on(folder: Path) -> None:
    config = str(folder / "drift-monitor.yaml")
    command = [sys.executable, "-m", "drift_monitor", "backfill", "--config", config, "--to", "2024-04-10"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    database, end = folder / "state" / FILE, time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end and len(done(database)) < 3:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = done(database)
    assert 3 <= len(before) < 30
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith("m: ")
    after = done(database)
    assert after[: len(before)] == before
    assert len(after) == 30


def done(database: Path) -> list[tuple[int, int, str]]:
    """Runs as another process sees them."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as db:
        query = "SELECT id, window_end, verdict FROM runs WHERE state = 'done' ORDER BY window_end"
        return db.execute(query).fetchall()


def test_ctrl_c_says_how_far_it_came(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(request: CheckRequest) -> CheckResult:
        assert request.window is not None
        if request.window == window(3):
            raise KeyboardInterrupt
        return found(Outcome.OK, request.window)

    monkeypatch.setattr(module, "known_of", lambda *_, **__: None)
    monkeypatch.setattr(module, "evaluate", interrupted)
    assert backfill(folder) == 130
    assert "m: interrupted after 2 windows, which are kept: call again to go on" in capsys.readouterr().err


def test_a_running_daemon_is_not_disturbed(folder: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill(folder) == 1
    assert f"is in use by another drift-monitor (pid {os.getpid()}" in capsys.readouterr().err
    assert store.judged_ends("m") == []


def test_episodes_of_the_past_open_and_close_in_silence(store: Store, fill: Callable[..., None]) -> None:
    fill("ODDDOO")
    assert episodes(store) == [(3, 5, True)]
    assert told(store) == []


def test_what_still_drifts_is_told_by_the_daemon_as_opened_and_as_resolved(
    folder: Path, store: Store, fill: Callable[..., None]
) -> None:
    fill("ODD")
    judge(store, folder, 4, Outcome.DRIFT)
    judge(store, folder, 5, Outcome.DRIFT)
    judge(store, folder, 6, Outcome.OK)
    assert episodes(store) == [(3, 6, False)]
    assert [kind for kind in told(store) if kind.startswith("drift.")] == ["drift.opened", "drift.resolved"]
    assert [r.episode for r in store.retrainings.newest("m", 10)] == [store.episodes("m", 1)[0].id]


def test_what_ended_before_the_daemon_looked_is_not_told(
    folder: Path, store: Store, fill: Callable[..., None]
) -> None:
    fill("ODD")
    judge(store, folder, 4, Outcome.OK)
    assert episodes(store) == [(3, 4, True)]
    assert told(store) == []


def test_an_episode_of_the_past_ends_where_windows_were_judged_already(
    folder: Path, store: Store, fill: Callable[..., None]
) -> None:
    judge(store, folder, 5, Outcome.DRIFT)
    judge(store, folder, 6, Outcome.DRIFT)
    fill("ODDD")
    assert episodes(store) == [(3, 4, True), (6, None, False)]
    assert told(store) == ["drift.opened"]


def test_an_open_episode_that_receivers_know_of_is_left_to_the_daemon(
    folder: Path, store: Store, fill: Callable[..., None]
) -> None:
    judge(store, folder, 1, Outcome.DRIFT)
    judge(store, folder, 2, Outcome.DRIFT)
    fill("OO", first=3)
    assert episodes(store) == [(2, None, False)]
    judge(store, folder, 5, Outcome.OK)
    assert episodes(store) == [(2, 5, False)]
    assert told(store)[0] == "drift.opened"
    assert told(store)[-1] == "drift.resolved"


def test_a_source_that_is_down_leaves_its_windows_for_later_and_a_schema_of_the_past_stays(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {window(2): FailureReason.SCHEMA, window(4): FailureReason.SOURCE}

    def failed(request: CheckRequest) -> CheckResult:
        assert request.window is not None
        if (failure := failing.get(request.window)) is not None:
            return cannot_judge("m", request.window, failure, "it says so")
        return found(Outcome.OK, request.window)

    monkeypatch.setattr(module, "known_of", lambda *_, **__: None)
    monkeypatch.setattr(module, "evaluate", failed)
    monitor = load(folder / "drift-monitor.yaml").monitors["m"]
    work = Backfill("m", monitor, folder / "state", (), (LIVE, window(5).end))
    with pytest.raises(BackfillError, match=r"it says so; 3 windows were filled.*--from 2024-03-15T00:00:00Z"):
        work.fill(store)
    assert store.judged_ends("m") == [window(day).end for day in (1, 2, 3)]


def test_what_cannot_be_filled_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill(folder, "--from", "2030-01-01") == 64
    assert backfill(folder, "--monitor", "n") == 64
    assert backfill(folder, "m", "n") == 64
    capsys.readouterr()
    assert backfill(folder, "m", "--monitor", "m", "--dry-run") == 0
    assert capsys.readouterr().out.count("6 windows to fill") == 1
    assert main(["backfill", "--config", str(folder / "drift-monitor.yaml"), "--to", "2024-03-05"]) == 1
    assert "say with --from where to begin" in capsys.readouterr().err
    text = (folder / "drift-monitor.yaml").read_text().replace(", timestamp: at", "")
    (folder / "drift-monitor.yaml").write_text(text)
    assert backfill(folder) == 64
    assert "there is no past to fill" in capsys.readouterr().err
