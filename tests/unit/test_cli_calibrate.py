"""`drift-monitor calibrate` and the last step of `reference build`: what is promised, or what to do about it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.cli import main
from drift_monitor.cli.promised import plot
from drift_monitor.config.file import load
from drift_monitor.core.threshold import Threshold
from drift_monitor.reference import Reference, build_reference
from drift_monitor.service import calibrations
from drift_monitor.service.references import watched_specs

START = datetime(2013, 1, 1, tzinfo=UTC)
DAYS, PER_DAY = 60, 120
MONITOR = """\
    reference: {reference}
    source: {{path: "live/*.parquet", timestamp: at}}
    schedule: {{every: 1d}}
    window: {{length: 1d, bucket: 1d}}
    columns: {{prediction: p_late}}
"""


def flights(days: int = DAYS) -> pa.Table:
    rng = np.random.default_rng(5)
    n = days * PER_DAY
    return pa.table(
        {
            "at": pa.array(
                [START + timedelta(days=1) * (i / PER_DAY) for i in range(n)], pa.timestamp("us", "UTC")
            ),
            "distance": rng.gamma(2, 400, n),
            "carrier": rng.choice(["UA", "AA", "DL"], n),
            "p_late": rng.random(n),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(flights(), tmp_path / "training.parquet")
    (tmp_path / "live").mkdir()
    return tmp_path


def configured(folder: Path, alarm: str = "", reference: str = "training.parquet") -> list[str]:
    path = folder / "c.yaml"
    monitor = (
        "monitors:\n  flights:\n"
        + MONITOR.format(reference=reference)
        + f"    alarm: {{multivariate: [], {alarm}}}\n"
    )
    path.write_text(monitor)
    return ["--config", str(path)]


def built(folder: Path) -> Reference:
    config = load(folder / "c.yaml")
    return build_reference(
        folder / "training.parquet",
        folder / "refs",
        columns=config.monitors["flights"].columns,
        timestamp="at",
        bucket=timedelta(days=1),
        created=START,
    )


def facts(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["calibrate", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["flights"]
    return found


def test_what_is_promised_is_told_for_each_lane(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = configured(folder)
    assert main(["calibrate", *arguments]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "replayed 60 days, 2013-01-01 00:00Z to 2013-03-02 00:00Z: 60 runs, one every 1d" in shown
    assert "windows each run looks at the last 1d" in shown
    assert "compared with the whole reference, without the 15 days around each window" in shown
    for lane in ("drift", "quality"):
        assert f"{lane} calibrated at most 1 false alert a month on average" in shown
    assert "highest of 60 days' scores" in shown
    assert "2013-01-29 " in shown  # the second line of the plot
    assert "(made just now)" in shown


def test_a_calibration_is_made_once_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = configured(folder)
    first, second = facts(capsys, arguments), facts(capsys, arguments)
    assert (first.pop("made_now"), second.pop("made_now")) == (True, False)
    assert first == second
    assert first["calibrated"] is True
    assert Path(first["file"]).is_file()
    assert (first["windows"], first["step"]) == (["1d"], "1d")
    drift = first["lanes"]["drift"]
    assert (drift["basis"], drift["label"], drift["days"], drift["needed"]) == ("calibrated", "calibrated", 60, 0)
    assert drift["rank"] >= 1
    assert len(drift["daily"]) == len(first["replay"]["days"]) == 60
    assert facts(capsys, configured(folder, "effect_floor_ks: 0.2"))["file"] != first["file"]


def test_too_few_days_say_how_many_more_are_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = configured(folder, "false_alerts_per_month: 0.5")
    drift = facts(capsys, arguments)["lanes"]["drift"]
    # 30 / (0.7 * 0.5) - 1 days, rounded up, are 85
    assert (drift["basis"], drift["needed"]) == ("extrapolated", 85 - 60)
    assert drift["threshold"] > 0
    assert main(["calibrate", *arguments]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "drift extrapolated extrapolated to 0.5 false alerts a month" in shown
    assert "what to do: build the reference from 25 more days" in shown


@pytest.mark.parametrize(
    ("alarm", "why", "advice"),
    [
        ("false_alerts_per_month: null", "alarm.false_alerts_per_month is null", "set it to the number"),
        ("thresholds: {psi: 0.2}", "fixed thresholds are set", "remove alarm.thresholds"),
        ("methods: {numeric: [ks]}", "alarm.methods has ks, which cannot be calibrated", "alarm.report"),
    ],
)
def test_where_there_is_none_why_not_and_what_to_do(
    folder: Path, alarm: str, why: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = configured(folder, alarm)
    assert main(["calibrate", *arguments]) == 0
    shown = capsys.readouterr().out
    assert f"no promise: {why}" in shown
    assert "what to do: " in shown
    assert advice in shown
    found = facts(capsys, arguments)
    assert (found["calibrated"], found["why_not"], found["file"]) == (False, why, None)
    assert {lane["basis"] for lane in found["lanes"].values()} == {"none"}


def test_data_without_times_have_a_promise_that_assumes_independent_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = configured(folder)
    path = folder / "c.yaml"
    path.write_text(path.read_text().replace(", timestamp: at", ""))
    found = facts(capsys, arguments)
    assert found["why_not"] == "the data have no times"
    assert found["lanes"]["drift"]["label"] == "assumes independent rows"
    assert "assumes independent rows" in found["lanes"]["drift"]["promise"]
    assert main(["calibrate", *arguments]) == 0
    assert "what to do: name the column of event times in source.timestamp" in capsys.readouterr().out


def test_one_reference_that_cannot_be_used_stops_no_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = configured(folder)
    path = folder / "c.yaml"
    path.write_text(path.read_text() + "  gone:\n" + MONITOR.format(reference="gone.parquet"))
    assert main(["calibrate", *arguments]) == 1
    shown = capsys.readouterr()
    assert "flights  on reference" in shown.out
    assert shown.err.startswith("drift-monitor: gone: reference ")
    assert main(["calibrate", "--json", *arguments]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["flights"]["calibrated"], found["gone"]["calibrated"]) == (True, False)
    assert main(["calibrate", "flights", *arguments]) == 0
    assert main(["calibrate", "flight", *arguments]) == 64


def test_building_a_reference_ends_with_its_calibration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = configured(folder, reference="refs")
    training = str(folder / "training.parquet")
    assert main(["reference", "build", training, str(folder / "refs"), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "drift  calibrated  at most 1 false alert a month" in shown
    assert "(made just now)" in shown
    (kept,) = (folder / "refs").rglob("calibrations/*.json")
    assert facts(capsys, arguments)["file"] == str(kept)


def test_a_calibration_that_a_reference_came_with_is_used_where_nothing_can_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(folder)
    reference, monitor = built(folder), load(folder / "c.yaml").monitors["flights"]
    specs = watched_specs(monitor, reference)
    first = calibrations.known_of("flights", monitor, reference, folder / "state", specs)
    assert first.path is not None
    monkeypatch.setattr(calibrations, "_folder", lambda _reference, state: state / "calibrations")
    again = calibrations.known_of(
        "flights", monitor, reference, folder / "state", specs, progress=lambda *_: pytest.fail("made again")
    )
    assert (again.path, again.calibration) == (first.path, first.calibration)


@pytest.mark.parametrize("budget", [0.2, 1.0, 3.0])
def test_what_is_foreseen_is_what_a_calibration_finds(folder: Path, budget: float) -> None:
    configured(folder, f"false_alerts_per_month: {budget}")
    reference, monitor = built(folder), load(folder / "c.yaml").monitors["flights"]
    foreseen = calibrations.foreseen("flights", monitor, reference)
    known = calibrations.known_of(
        "flights", monitor, reference, folder / "state", watched_specs(monitor, reference)
    )
    assert foreseen is not None
    assert known.calibration is not None
    found = known.calibration.drift
    assert (foreseen.basis, foreseen.days, foreseen.needed) == (found.basis, found.days, found.needed)


def test_the_plot_has_a_line_for_four_weeks_and_a_dot_for_a_day_without_a_score() -> None:
    days = [f"{START + timedelta(days=d):%Y-%m-%d}" for d in range(40) if d != 9]
    daily = tuple(8.0 if d == 30 else 0.0 for d in range(40) if d != 9)
    lines = [
        line.plain for line in plot(Threshold(value=7.0, basis="calibrated", budget=1, days=39, daily=daily), days)
    ]
    assert lines[1] == "  2013-01-01  ▁▁▁▁▁▁▁ ▁▁·▁▁▁▁ ▁▁▁▁▁▁▁ ▁▁▁▁▁▁▁"
    assert lines[2] == "  2013-01-29  ▁▁█▁▁▁▁ ▁▁▁▁▁"
    assert len(lines) == 3


def test_days_are_numbered_where_their_dates_are_not_known() -> None:
    lane = Threshold(value=None, basis="none", budget=1, days=2, daily=(1.0, 2.0))
    lines = [line.plain for line in plot(lane)]
    assert lines == ["  each day against the highest (· was not judged):", "  day      1  ▄▇"]
