"""A backtest judges as checks do, opens and closes alerts as the daemon does, and leaves no trace."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from drift_monitor.cli import main
from drift_monitor.cli.draw_backtest import draw_backtest
from drift_monitor.config.models import Columns, Monitor
from drift_monitor.core.episode import step
from drift_monitor.core.errors import SourceError
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.profile import NumericSpec, Profile, merge
from drift_monitor.core.sliding import Sliding
from drift_monitor.core.tally import LANES, Backtest
from drift_monitor.core.types import CheckResult, Episode, Outcome, Window
from drift_monitor.reference import build_reference
from drift_monitor.service import backtest as module
from drift_monitor.service import evaluate as evaluate_module
from drift_monitor.service.backtest import Replay, backtest
from drift_monitor.service.evaluate import CheckRequest, evaluate

START = datetime(2024, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
LIVE = START + 42 * DAY
FAULT = (3, 5)
"""Days of the log on which `speed` is shifted."""
DAYS = 8


def rows(days: int, seed: int, start: datetime, per_day: int = 1200) -> pa.Table:
    rng = np.random.default_rng(seed)
    n = days * per_day
    return pa.table(
        {
            "time": pa.array([start + DAY * (i / per_day) for i in range(n)], pa.timestamp("us", "UTC")),
            "id": [f"{seed}-{i}" for i in range(n)],
            "speed": rng.normal(100, 10, n),
            "load": rng.gamma(2, 1, n),
            "carrier": rng.choice(["UA", "AA", "DL"], n, p=[0.5, 0.3, 0.2]),
        }
    )


def day(table: pa.Table, i: int) -> pa.Table:
    times = table.column("time")
    return table.filter(
        pc.and_(
            pc.greater_equal(times, pa.scalar(LIVE + i * DAY)), pc.less(times, pa.scalar(LIVE + (i + 1) * DAY))
        )
    )


def shifted(table: pa.Table, by: float) -> pa.Table:
    at = table.schema.get_field_index("speed")
    return table.set_column(at, "speed", pc.add(table.column("speed"), by))


@pytest.fixture(scope="session")
def tables() -> tuple[pa.Table, list[pa.Table]]:
    live = rows(DAYS, seed=2, start=LIVE)
    parts = [day(live, i) for i in range(DAYS)]
    return rows(42, seed=1, start=START), [
        shifted(part, 8.0) if FAULT[0] <= i < FAULT[1] else part for i, part in enumerate(parts)
    ]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, tables: tuple[pa.Table, list[pa.Table]]) -> Path:
    """Built once, with the calibrations of all tests beside it."""
    folder = tmp_path_factory.mktemp("backtest")
    pq.write_table(tables[0], folder / "training.parquet")
    build_reference(
        folder / "training.parquet",
        folder / "reference",
        columns=Columns(id="id"),
        timestamp="time",
        bucket=timedelta(minutes=30),
        created=LIVE,
    )
    return folder


@pytest.fixture
def data(tmp_path: Path, reference: Path, tables: tuple[pa.Table, list[pa.Table]]) -> Path:
    """Six weeks of training data, and eight days of a log, two of them with a fault."""
    (tmp_path / "reference").symlink_to(reference / "reference")
    (tmp_path / "training.parquet").symlink_to(reference / "training.parquet")
    (tmp_path / "live").mkdir()
    for i, part in enumerate(tables[1]):
        pq.write_table(part, tmp_path / "live" / f"{i}.parquet")
    return tmp_path


def settings(data: Path, **changed: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "reference": str(data / "reference"),
        "source": {"path": str(data / "live" / "*"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "columns": {"id": "id"},
    }
    for section, values in changed.items():
        merged = isinstance(values, dict) and section != "schedule"
        raw[section] = raw.get(section, {}) | values if merged else values
    return raw


def monitor(data: Path, **changed: Any) -> Monitor:
    return Monitor.model_validate_json(json.dumps(settings(data, **changed)))


def run(data: Path, *, rivals: bool = False, **changed: Any) -> Backtest:
    return backtest("m", monitor(data, **changed), data / "state", rivals=rivals)


def results(data: Path, start: datetime = LIVE, days: float = DAYS, **changed: Any) -> list[CheckResult]:
    watched = monitor(data, **changed)
    replay = Replay("m", watched, data / "state", start, start + days * DAY, rivals=False)
    return [result for result, _ in replay.judged()]


def checked(data: Path, at: Window, **changed: Any) -> CheckResult:
    request = CheckRequest(name="m", monitor=monitor(data, **changed), state=data / "state", window=at)
    return evaluate(request)


def same(one: CheckResult, other: CheckResult) -> None:
    """All that decides; histograms and the statistics that are only shown are left out of a backtest."""
    shown: dict[str, Any] = {"seconds": {}, "versions": {}, "read_from": None, "features": ()}
    assert one.model_copy(update=shown) == other.model_copy(update=shown)
    shown = {"histogram": None, "statistics": {}}
    assert [f.model_copy(update=shown) for f in one.features] == [
        f.model_copy(update=shown) for f in other.features
    ]


def date_of(i: int) -> date:
    return (LIVE + i * DAY).date()


# -- the story -----------------------------------------------------------------------------------------


def test_it_is_quiet_opens_on_the_first_day_of_the_fault_and_closes_after_the_last(data: Path) -> None:
    found = run(data, rivals=True)
    days = tuple(date_of(i) for i in range(*FAULT))
    assert found.alert_days == found.alert_days_by_lane["drift"] == days
    assert found.alert_days_by_lane["quality"] == ()
    (alert,) = found.episodes
    assert (alert.lane, alert.features) == ("drift", ("speed",))
    assert (alert.opened, alert.closed) == (LIVE + (FAULT[0] + 1) * DAY, LIVE + (FAULT[1] + 1) * DAY)
    assert "speed" in alert.reason
    assert alert.score is not None
    assert alert.threshold is not None
    assert alert.score > alert.threshold
    assert (found.from_, found.to, found.days) == (LIVE, LIVE + DAYS * DAY, DAYS)
    assert found.windows == {"judged": 8, "ok": 6, "drift": 2, "broken": 0, "no_data": 0, "cannot_judge": 0}
    assert (found.alert_days_per_month, found.alerts_per_month) == (30 * 2 / DAYS, 30 / DAYS)
    assert (found.promise_basis, found.false_alerts_per_month) == ("calibrated", 1.0)
    assert [mark for _, mark in sorted(found.calendar.items())] == ["quiet"] * 3 + ["drift"] * 2 + ["quiet"] * 3
    assert set(days) <= set(found.rivals["ks_bonferroni"].alert_days)
    assert found.rivals["mean_3sd"].alerts >= 1


def test_a_mean_that_moves_is_told_where_the_data_is_broken_too(data: Path) -> None:
    path = data / "live" / "6.parquet"
    table = pq.read_table(path)
    nulls = pa.array(np.where(np.arange(table.num_rows) % 2, None, table.column("load").to_numpy()), pa.float64())
    pq.write_table(table.set_column(3, "load", nulls), path)
    found = run(data)
    assert found.alert_days_by_lane["quality"] == (date_of(6),)
    alert = found.episodes[-1]
    assert (alert.lane, alert.features) == ("quality", ("load",))
    assert alert.score == pytest.approx(0.5, abs=0.01)
    assert alert.threshold is not None
    assert alert.threshold < 0.2
    assert found.calendar[date_of(6)] == "broken"


def test_maintenance_and_persistence_are_those_of_the_monitor(data: Path) -> None:
    fixed: dict[str, Any] = {"thresholds": {"ks": 0.15}}
    assert run(data, alarm=fixed | {"persistence": "3 of 3"}).episodes == ()
    (alert,) = run(data, alarm=fixed | {"persistence": "2 of 2"}).episodes
    assert alert.opened == LIVE + FAULT[1] * DAY
    silent = {"start": (LIVE + 3 * DAY).isoformat(), "end": (LIVE + 5 * DAY).isoformat()}
    assert run(data, maintenance=[silent]).episodes == ()


def test_a_day_without_rows_is_no_data_and_a_day_apart_from_others_counts_by_itself(data: Path) -> None:
    (data / "live" / "4.parquet").unlink()
    found = run(data)
    assert found.windows["no_data"] == 1
    assert found.days == DAYS - 1
    assert found.calendar[date_of(4)] == "drift"  # the episode is held
    (data / "live" / "3.parquet").unlink()
    assert run(data).calendar[date_of(4)] == "no_data"


# -- the same as checks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"schedule": {"every": "6h"}},
        {"schedule": {"cron": "25 4,16 * * *", "timezone": "Europe/Berlin"}},
        {"schedule": {"every": "6h"}, "window": {"length": "6h"}, "alarm": {"windows": ["2h", "1h"]}},
        {"schedule": {"every": "2d"}, "window": {"length": "90m", "bucket": "30m"}},
        {"alarm": {"thresholds": {"ks": 0.1}}},
        {"alarm": {"false_alerts_per_month": None}, "quality": {"false_alerts_per_month": None}},
        {"columns": {"id": None, "ignore": ["id", "load"]}},
    ],
    ids=["daily", "6h", "cron", "short", "odd", "fixed", "classic", "fewer"],
)
def test_every_window_is_judged_as_a_check_judges_it(data: Path, changed: dict[str, Any]) -> None:
    found = results(data, **changed)
    assert len(found) >= 4
    for result in [found[0], *found[1:-1:7], *(r for r in found if r.verdict is Outcome.DRIFT), found[-1]][:9]:
        same(result, checked(data, result.window, **changed))


def test_a_log_that_is_read_in_pieces_is_judged_the_same(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {"schedule": {"every": "4h"}}
    whole = results(data, **changed)
    for limit in (1, 100):
        monkeypatch.setattr(module, "_TOGETHER", limit)
        assert results(data, **changed) == whole


def test_files_that_do_not_fit_together_cost_the_windows_that_hold_both(data: Path) -> None:
    path = data / "live" / "2.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["load"]), path)
    changed = {"schedule": {"every": "12h"}}
    found = results(data, **changed)
    for result in found:
        same(result, checked(data, result.window, **changed))
    assert [r.verdict for r in found[:7]] == ["ok"] * 3 + ["cannot_judge", "broken", "cannot_judge", "drift"]


def test_rows_without_a_time_are_refused_as_in_a_check(data: Path) -> None:
    path = data / "live" / "1.parquet"
    table = pq.read_table(path)
    keep = np.arange(table.num_rows) % 10 != 0
    times = pa.array(np.where(keep, table.column("time").to_pylist(), None), pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(0, "time", times), path)
    found = results(data)
    assert [r.verdict for r in found[:3]] == ["ok", "cannot_judge", "ok"]
    for result in found[:3]:
        same(result, checked(data, result.window))


def test_text_and_numbers_in_other_files_are_read_in_one_go(data: Path) -> None:
    for path in sorted((data / "live").glob("*.parquet")):
        pq.read_table(path).to_pandas().to_csv(path.with_suffix(".csv"), index=False)
        path.unlink()
    found = results(data)
    assert [r.verdict for r in found] == ["ok"] * 3 + ["drift"] * 2 + ["ok"] * 3
    same(found[3], checked(data, found[3].window))


def test_a_reference_without_times_is_resampled_for_the_rows_of_each_window(data: Path) -> None:
    build_reference(
        data / "training.parquet",
        data / "untimed",
        columns=Columns(id="id", ignore=("time",)),
        timestamp=None,
        bucket=HOUR,
        created=LIVE,
    )
    path = data / "live" / "6.parquet"
    pq.write_table(pq.read_table(path).slice(0, 700), path)
    changed = {"reference": str(data / "untimed")}
    (data / "live" / "1.parquet").unlink()
    found = results(data, **changed)
    assert [r.verdict for r in found[1:6]] == ["no_data", "ok", "drift", "drift", "ok"]
    for result in (found[0], found[1], found[3], found[6]):
        same(result, checked(data, result.window, **changed))
    said = run(data, **changed)
    assert said.promise_basis == "independent_rows"
    assert "independent rows" in said.promise


def test_the_episodes_are_those_of_a_daemon_that_takes_one_window_after_the_other(data: Path) -> None:
    changed = {"schedule": {"every": "3h"}, "alarm": {"persistence": "2 of 3", "cooldown": "6h"}}
    watched = monitor(data, **changed)
    last: dict[Any, Episode | None] = dict.fromkeys(LANES)
    history: list[Outcome] = []
    opened: dict[str, Episode] = {}
    days: set[date] = set()
    for result in results(data, **changed):
        for lane in LANES:
            transition = step(lane, last[lane], history[::-1], result, watched.alarm, watched.maintenance)
            if transition.changed and transition.episode is not None:
                last[lane] = opened[transition.episode.id] = transition.episode
            if transition.episode is not None and transition.episode.closed is None:
                days.add((result.window.end - timedelta(microseconds=1)).date())
        history.append(result.verdict)
    found = backtest("m", watched, data / "state", LIVE, LIVE + DAYS * DAY)
    assert [(e.opened, e.closed, e.told) for e in opened.values()] == [
        (a.opened, a.closed, a.features) for a in found.episodes
    ]
    assert found.alert_days == tuple(sorted(days))
    assert days


# -- which windows -------------------------------------------------------------------------------------


def test_without_dates_it_takes_the_whole_buckets_of_the_log(data: Path) -> None:
    (data / "live" / "0.parquet").unlink()
    path = data / "live" / "7.parquet"
    pq.write_table(pq.read_table(path).slice(0, 630), path)  # half past noon
    watched = monitor(data, schedule={"every": "1h"})
    replay = Replay("m", watched, data / "state", rivals=False)
    assert replay.span == Window(start=LIVE + DAY, end=LIVE + 7 * DAY + 13 * HOUR)
    assert (replay.windows[0].start, replay.windows[-1].end) == (replay.span.start, replay.span.end)
    assert {b.end - a.end for a, b in pairwise(replay.windows)} == {HOUR}
    half = Replay("m", watched, data / "state", start=LIVE + 4 * DAY, rivals=False)
    assert half.span == Window(start=LIVE + 4 * DAY, end=replay.span.end)


def test_a_stretch_without_a_whole_window_is_an_error_that_says_so(data: Path) -> None:
    watched = monitor(data)
    for start, end, said in (
        (LIVE, LIVE + HOUR, "no window of 1d lies whole in 2024-04-12"),
        (LIVE + 99 * DAY, None, "has no rows there"),
        (datetime(1, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC), "more than 200,000 windows"),
    ):
        with pytest.raises(SourceError, match=said):
            backtest("m", watched, data / "state", start, end)
    with pytest.raises(SourceError, match="no timestamp"):
        backtest("m", monitor(data, source={"timestamp": None}), data / "state")


# -- the command ---------------------------------------------------------------------------------------


@pytest.fixture
def config(data: Path) -> Path:
    path = data / "c.yaml"
    path.write_text(json.dumps({"state": str(data / "state"), "monitors": {"m": settings(data)}}))
    return path


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_json_has_what_scripts_rely_on_and_the_state_has_what_a_check_leaves(
    config: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "_baselines", {})  # what another test learnt is not written again
    state = config.parent / "state"
    raw = json.loads(config.read_text())
    raw["monitors"]["m"]["reference"] = str(config.parent / "training.parquet")
    config.write_text(json.dumps(raw))
    assert main(["check", "--config", str(config), "--window", "2024-04-12/2024-04-13"]) == 0
    before = files(state)
    capfd.readouterr()
    assert main(["backtest", str(config), "m", "--json", "--to", "2024-04-19"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    found = json.loads(printed.out)
    assert files(state) == before
    assert {
        "monitor",
        "from",
        "to",
        "days",
        "windows",
        "alert_days",
        "alert_days_by_lane",
        "episodes",
        "promise",
        "promise_basis",
        "false_alerts_per_month",
        "rivals",
    } <= found.keys()
    assert (found["from"], found["to"], found["days"]) == ("2024-04-12T00:00:00Z", "2024-04-19T00:00:00Z", 7)
    assert found["alert_days"] == ["2024-04-15", "2024-04-16"]
    assert found["episodes"][0].keys() == {
        "lane",
        "opened",
        "closed",
        "features",
        "reason",
        "score",
        "threshold",
    }
    assert {"title", "alert_days", "alerts", "per_month"} <= found["rivals"]["psi"].keys()
    assert main(["backtest", str(config), "--json", "--no-rivals"]) == 0
    assert json.loads(capfd.readouterr().out)["rivals"] == {}


def test_people_get_a_calendar_the_reasons_and_the_comparison(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backtest", str(config)]) == 0
    said = capsys.readouterr().out
    for words in (
        "8 days judged",
        "2024-04-15 D  D  .  .  .",
        "2024-04-15 00:00".replace("15", "16"),
        "speed: median",
        "KS or chi-square",
        "this monitor",
    ):
        assert words in said


def test_a_quiet_month_says_so_and_names_from_outside_stay_text(data: Path) -> None:
    found = run(data)
    console = Console(width=120, record=True, file=io.StringIO())
    alert = found.episodes[0].model_copy(update={"features": ("[red]a", "b", "c", "d"), "closed": None})
    console.print(draw_backtest(found.model_copy(update={"episodes": (alert,) * 60})))
    said = console.export_text()
    assert "[red]a, b, c and 1 more" in said
    assert "still open" in said
    assert "and 10 more alerts" in said
    console.print(draw_backtest(found.model_copy(update={"episodes": ()})))
    assert "no alert" in console.export_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "yesterday"], 64, "'yesterday' is not a time"),
        (["--to", "2024-13-01"], 64, "'2024-13-01' is not a time"),
        (["--from", "2024-04-13", "--to", "2024-04-12"], 64, "--to 2024-04-12T00:00Z is not after --from"),
        (["--from", "2024-04-13", "--to", "2024-04-13"], 64, "is not after"),
        (["n"], 64, "monitor"),
        (["--from", "2031-01-01"], 1, "has no rows there"),
    ],
)
def test_what_cannot_be_replayed_is_said(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["backtest", str(config), *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_configuration_that_is_wrong_or_has_no_past(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backtest"]) == 64
    assert main(["backtest", str(config.parent / "none.yaml")]) == 78
    raw = json.loads(config.read_text())
    del raw["monitors"]["m"]["source"]["timestamp"]
    config.write_text(json.dumps(raw))
    capsys.readouterr()
    assert main(["backtest", str(config)]) == 64
    assert "no past to replay" in capsys.readouterr().err
    raw["monitors"]["m"]["alarm"] = {"features": {"sped": {"ks": 0.1}}}
    raw["monitors"]["m"]["source"]["timestamp"] = "time"
    config.write_text(json.dumps(raw))
    assert main(["backtest", str(config)]) == 78
    assert "sped" in capsys.readouterr().err


# -- profiles of windows that overlap ------------------------------------------------------------------


def test_a_sliding_profile_is_the_merge_of_its_stretches() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=4000)
    spec = NumericSpec.fit("x", values)
    stretches: list[Profile | None] = []
    for i, part in enumerate(np.array_split(values, 40)):
        batch = pa.record_batch({"x": pa.array(part)})
        stretches.append(None if i in (7, 8, 20) else profile_buckets([spec], [batch])[0])
    for length, pace in ((1, 1), (5, 1), (5, 7), (12, 3), (40, 1)):
        asked: list[int] = []

        def at(i: int, asked: list[int] = asked) -> Profile | None:
            asked.append(i)
            return stretches[i]

        sliding = Sliding(at)
        for first in range(0, 41 - length, pace):
            found = sliding.over(first, first + length)
            wanted = merge(p for p in stretches[first : first + length] if p is not None)
            if wanted is None or found is None:
                assert found is wanted
                continue
            assert found.rows == wanted.rows
            one, other = found.features["x"], wanted.features["x"]
            np.testing.assert_array_equal(one.counts, other.counts)
            assert repr(one) == repr(other)
        assert len(asked) <= 2 * len(stretches)
