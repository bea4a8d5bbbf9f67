"""`drift-monitor explain`: why a run was or was not an alert, from the store or through the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from drift_monitor.cli import main
from drift_monitor.cli.account import account, account_of, nearest_quality, what_happened
from drift_monitor.cli.explain_run import draw
from drift_monitor.config.file import load
from drift_monitor.core.episode import Reason, step
from drift_monitor.core.policy import Alarm, Maintenance
from drift_monitor.core.types import (
    CheckResult,
    Episode,
    FailureReason,
    FeatureResult,
    Histogram,
    Outcome,
    QualityResult,
    Signal,
    StatResult,
    Window,
)
from drift_monitor.service import lock
from drift_monitor.service.metrics import Exposition
from drift_monitor.service.server import Application, Server
from drift_monitor.service.store import Store
from drift_monitor.service.stored import StoredRun

START = datetime(2013, 4, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CONFIG = """\
monitors:
  flights:
    reference: refs
    source: {path: "live/*.parquet", timestamp: at}
    schedule: {every: 1h}
    alarm: {persistence: 2 of 3}
"""
PROMISE = "at most 1 false alert a month on average, if live days are like the reference's 90"


def check(hour: int, score: float = 9.0, **fields: Any) -> CheckResult:
    """A run whose threshold is 6; `temp` leads, in its newest hour."""
    over = score > 6
    features = (
        FeatureResult(
            name="temp",
            kind="numeric",
            drifted=over,
            method="max_bin_z",
            score=score,
            threshold=6.0,
            window=3600,
            effect="median 38 -> 78",
            statistics={"effect": StatResult(statistic=0.25)},
            histogram=Histogram(labels=("cold", "warm"), reference=(0.75, 0.25), current=(0.5, 0.5)),
        ),
        FeatureResult(name="carrier", kind="categorical", drifted=False, method="chi2", score=0.5, threshold=6.0),
    )
    end = START + hour * HOUR
    given = {
        "rows": 900,
        "verdict": Outcome.DRIFT if over else Outcome.OK,
        "reason": "a reason",
        "score": score,
        "threshold": 6.0,
        "promise": PROMISE,
        "promise_basis": "calibrated",
        "false_alerts_per_month": 1.0,
        "signals": (
            Signal(channel="features", score=score, over=over),
            Signal(channel="pairs", score=3.0, over=False, detail="temp with humid 0.1 -> 0.7"),
        ),
        "features": features,
        "quality": (
            QualityResult(check="volume", failed=False, value=0.2, threshold=1.0, message="900 rows"),
            QualityResult(
                check="null_rate", feature="temp", failed=False, value=0.03, threshold=0.04, message="3%"
            ),
        ),
        **fields,
    }
    return CheckResult.model_validate(
        {"monitor": "flights", "window": Window(start=end - 24 * HOUR, end=end), **given}
    )


def fill(store: Store, results: Sequence[CheckResult], alarm: Alarm) -> None:
    """Store runs with the episodes that they lead to, as the daemon does."""
    lanes: tuple[Literal["drift", "quality"], ...] = ("drift", "quality")
    for result in results:
        store.enqueue("flights", [result.window])
        (run,) = store.due()
        history = store.history("flights", result.window.end, 1000)
        moved = [step(lane, store.episode("flights", lane), history, result, alarm) for lane in lanes]
        episodes = [t.episode for t in moved if t.changed and t.episode is not None]
        store.finish(run.id, result, now=result.window.end, episodes=episodes)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A store of five runs: a quiet one, two that open an episode of drift, one more, and a clear one in it."""
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    store = Store.open(tmp_path / "state")
    try:
        alarm = load(path).monitors["flights"].alarm
        fill(store, [check(1, 2.0), check(2), check(3), check(4, 12.0), check(5, 1.0)], alarm)
    finally:
        store.close()
    return path


def told(config: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["explain", *arguments, "--json", "--config", str(config)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_run_is_told_in_words(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "4", "--config", str(config)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "drift flights 2013-03-31T04:00Z .. 2013-04-01T04:00Z",
        "The score 12 is 200% of the threshold 6",
        "features its own 12 200%",
        "pairs its own 3 50% features move together in another way; temp with humid 0.1 -> 0.7",
        "temp median 38 -> 78",
        "in the last 1h, by max_bin_z (largest z, one range of values or one category that grew or shrank)",
        "25.0% of the rows have crossed to the other side; less than 5% never counts",
        "drifts since 2013-04-01T03:00Z",
        "nearest to its limit of those that hold, at 75%: null_rate: 3%",
        "drift: continues: the window belongs to the episode that is open since 2013-04-01 03:00Z",
        "quality: quiet: no episode of broken data is open",
        f"calibrated: {PROMISE}",
    ):
        assert part in shown


def test_a_quiet_run_tells_how_far_it_was(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "1", "--config", str(config)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The score 2 is 33% of the threshold 6" in shown
    assert "Nearest is `pairs`" in shown  # 3 against 2
    assert "about 55 times as rare as this one would have been drift" in shown  # exp(4)
    assert "none drifted; the nearest: temp median 38 -> 78" in shown


@pytest.mark.parametrize(
    ("run", "reason"), [(1, "quiet"), (2, "pending"), (3, "opened"), (4, "continues"), (5, "continues")]
)
def test_each_run_has_its_own_place_in_the_episode(
    config: Path, run: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(config, capsys, str(run))
    assert (found["run"], found["episodes"]["drift"]["reason"]) == (run, reason)
    if reason == "pending":
        assert "1 of the last 3 failed, and 2 must (alarm.persistence)" in found["episodes"]["drift"]["text"]


def test_a_run_may_be_named_by_its_window(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("latest", "flights@latest", "flights@2013-04-01T05:00Z", "flights@2013-04-01T05:00", "5"):
        assert told(config, capsys, name)["run"] == 5
    assert told(config, capsys)["run"] == 5
    assert told(config, capsys, "@2013-04-01T07:00+04:00")["run"] == 3


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("99", 1, "has no finished run 99; to check a window now, give --at TIME"),
        ("flights@2013-05-01", 1, "has no finished run of flights that ends at 2013-05-01T00:00Z"),
        ("flihgts@latest", 64, "did you mean `flights`?"),
        ("flights@noon", 64, "'noon' is not the end of a window"),
        ("flights", 64, "'flights' is no run"),
    ],
)
def test_what_names_no_run_is_told(
    config: Path, name: str, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", name, "--config", str(config)]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err.replace("\n", " ")


def test_a_state_folder_without_a_store_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    assert main(["explain", "--config", str(path)]) == 1
    assert "has no finished run of flights" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


@pytest.fixture
def daemon(config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A daemon that holds the store and answers for it."""
    loaded = load(config)
    store = Store.open(loaded.state)
    parts = SimpleNamespace(store=store, config=loaded, exposition=Exposition(), reports=loaded.state)
    server = Server("127.0.0.1", 0, Application(parts))
    server.start()
    holder = SimpleNamespace(address=f"http://127.0.0.1:{server.port}", pid=1)
    monkeypatch.setattr(lock, "read_lock", lambda _state: holder)
    yield
    server.stop()
    store.close()


@pytest.mark.usefixtures("daemon")
def test_a_running_daemon_is_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(config, capsys, "2")["episodes"]["drift"]["reason"] == "pending"
    assert told(config, capsys, "latest")["run"] == 5
    assert told(config, capsys, "flights@2013-04-01T03:00Z")["run"] == 3
    assert main(["explain", "99", "--config", str(config)]) == 1
    assert "has no finished run 99" in capsys.readouterr().err


def test_a_check_can_be_made_and_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        "at": [START + timedelta(minutes=i) for i in range(2880)],
        "load": [i * 37 % 1000 for i in range(2880)],
    }
    pq.write_table(pa.table(rows), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "live" / "a.parquet")
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.replace("refs", "training.parquet"))
    found = told(path, capsys, "flights", "--at", "2013-04-02")
    assert (found["run"], found["verdict"], found["episodes"]) == (None, "ok", {})
    assert found["window"]["end"] == "2013-04-02T00:00:00Z"
    assert [f["name"] for f in found["features"]] == ["load"]
    assert main(["explain", "flight", "--at", "2013-04-02", "--config", str(path)]) == 64


def test_features_that_are_kept_no_longer_are_not_taken_for_none() -> None:
    stored = StoredRun(run=1, result=check(1, features=(), quality=()))
    console = Console(width=120)
    with console.capture() as shown:
        console.print(draw(account_of(stored, Alarm())))
    assert "are not kept any more for this run (retention.results)" in shown.get()


def test_a_window_without_rows_promises_nothing_and_says_why() -> None:
    empty = check(1, rows=0, verdict=Outcome.NO_DATA, features=(), promise="", promise_basis="none")
    console = Console(width=120)
    with console.capture() as shown:
        console.print(draw(account_of(StoredRun(run=1, result=empty), Alarm())))
    assert "no promise: nothing was judged" in shown.get()


def test_a_run_that_was_not_judged_has_no_distance() -> None:
    failed = check(
        1,
        verdict=Outcome.CANNOT_JUDGE,
        failure=FailureReason.SOURCE,
        threshold=None,
        features=(),
        quality=(),
        signals=(),
        promise_basis="none",
    )
    failed = failed.model_copy(update={"score": None})
    assert account(failed, Alarm()).distance == ("There is no score: the check failed.",)


def test_without_a_calibration_the_score_is_a_share() -> None:
    result = check(1, 0.5, threshold=1.0, signals=(), promise_basis="none")
    assert account(result, Alarm()).distance == (
        "The score 0.5 is 50% of the threshold 1; drift is a score above it.",
        "The score is the largest share that a feature reaches of its own threshold.",
    )


def test_the_nearest_expectation_is_one_that_can_fail() -> None:
    def quality(value: float | None, threshold: float | None, name: str, **fields: Any) -> QualityResult:
        given = {"check": "null_rate", "failed": False, "message": "", **fields}
        return QualityResult.model_validate({"feature": name, "value": value, "threshold": threshold, **given})

    result = check(
        1,
        quality=(
            quality(0.999, 1.0, "everything is accepted"),
            quality(0.5, 0.4, "left to the drift lane"),
            quality(0.9, 0.5, "failed", failed=True),
            quality(None, None, "has no number"),
            quality(0.0, 0.0, "nothing is accepted, and nothing there"),
            quality(0.2, 0.5, "second"),
            quality(0.7, 1.0, "first", check="volume"),
        ),
    )
    assert [q.feature for q in nearest_quality(result)] == [
        "first",
        "second",
        "nothing is accepted, and nothing there",
    ]


OUTCOMES = st.lists(st.sampled_from(list(Outcome)), min_size=1, max_size=30)
ALARMS = st.builds(
    lambda of, hits, cooldown: Alarm.model_validate_json(
        json.dumps({"persistence": f"{min(hits, of)} of {of}", "cooldown": f"{cooldown}h"})
    ),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 6),
)


@given(OUTCOMES, ALARMS, st.integers(0, 30), st.sampled_from(["drift", "quality"]))
def test_what_happened_is_found_again_afterwards(
    outcomes: list[Outcome], alarm: Alarm, quiet: int, lane: Literal["drift", "quality"]
) -> None:
    """Applied again to episodes as they are at the end, every window has the reason that it had at the time."""
    silence = (Maintenance(start=START + quiet * HOUR, end=START + (quiet + 2) * HOUR),)
    results = [
        check(h, verdict=outcome).model_copy(
            update={"window": Window(start=START + (h - 1) * HOUR, end=START + h * HOUR)}
        )
        for h, outcome in enumerate(outcomes, 1)
    ]
    reasons: list[Reason] = []
    episodes: dict[str, Episode] = {}
    newest: Episode | None = None
    for i, result in enumerate(results):
        moved = step(lane, newest, outcomes[:i][::-1], result, alarm, silence)
        reasons.append(moved.reason)
        if moved.changed and moved.episode is not None:
            newest = episodes[moved.episode.id] = moved.episode
    spoken = {Reason.ESCALATED: Reason.CONTINUES, Reason.REMINDED: Reason.CONTINUES}
    for i, (result, reason) in enumerate(zip(results, reasons, strict=True)):
        opened = [e for e in reversed(episodes.values()) if e.opened <= result.window.end][:2]
        stored = StoredRun(run=i, result=result, history=tuple(outcomes[:i][::-1]), episodes=tuple(opened))
        assert what_happened(lane, stored, alarm, silence)[0] is spoken.get(reason, reason)
