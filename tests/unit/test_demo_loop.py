"""The parts of the loop demo: its scenario, its configuration, its figures, and what it calls wrong."""

from __future__ import annotations

import math
import stat
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from drift_monitor.config.file import load
from drift_monitor.core.retraining import Retraining, State
from drift_monitor.core.types import CheckResult, Comparison, Outcome, ReferenceId, Window
from drift_monitor.demo.daemon import WindowDone
from drift_monitor.demo.data import IDENTIFIER, LABEL, TIMESTAMP
from drift_monitor.demo.loop_figures import draw_errors, draw_windows, gain, live_errors, not_quiet_again, unquiet
from drift_monitor.demo.loop_folder import PIPELINE, TEAM, LoopFolder
from drift_monitor.demo.loop_pipeline import PipelineProcess
from drift_monitor.demo.loop_plan import (
    DECIDED,
    ENDS,
    FIRST_VERSION,
    JOINED,
    LIVE_START,
    NEW_AIRPORT,
    TRAINING_START,
    served,
    training,
)
from drift_monitor.demo.model import SCORE
from drift_monitor.demo.stage import DemoError

DAY = timedelta(days=1)
OLD, NEW = "2013-04-01-old", "2013-07-10-new"


def flights(*times: datetime) -> pd.DataFrame:
    """A flight from each of two airports at each time, the second of which is the new one."""
    return pd.DataFrame(
        [
            {TIMESTAMP: time, IDENTIFIER: f"{time:%m%d}{origin}", "origin": origin, LABEL: late}
            for time in times
            for origin, late in (("EWR", True), (NEW_AIRPORT, False))
        ]
    ).astype({LABEL: "boolean"})


def window(end: datetime, verdict: Outcome, *, drift: str = "quiet") -> WindowDone:
    return WindowDone("flight-delay", end - DAY, end, verdict, "as it is", drift, "quiet")


def result(end: datetime, verdict: Outcome = Outcome.OK, *, before: Outcome | None = Outcome.DRIFT) -> CheckResult:
    def reference(version: str) -> ReferenceId:
        return ReferenceId(version=version, sha256="0" * 64, rows=9, created=LIVE_START)

    previous = None
    if before is not None:
        previous = Comparison(reference=reference(OLD), verdict=before, reason="r", score=9.0, threshold=1.0)
    return CheckResult(
        monitor="flight-delay",
        window=Window(start=end - DAY, end=end),
        rows=900,
        verdict=verdict,
        reason="as it is",
        promise="p",
        reference=reference(NEW),
        previous=previous,
    )


RETRAINING = Retraining(
    id="ab" * 16,
    monitor="flight-delay",
    episode="cd" * 16,
    opened=JOINED,
    window=Window(start=DECIDED - DAY, end=DECIDED),
    reason="r",
    receiver=PIPELINE,
    mode="propose",
    state=State.PROMOTED,
    created=JOINED,
    changed=JOINED,
    model_version="2",
    reference=NEW,
)


def test_the_airport_is_served_from_its_day_on_and_never_trained_on() -> None:
    everything = flights(TRAINING_START, LIVE_START, JOINED - DAY, JOINED, DECIDED)
    asked = served(everything, LIVE_START, DECIDED)
    assert asked[asked["origin"] == NEW_AIRPORT][TIMESTAMP].tolist() == [JOINED]
    assert len(asked[asked["origin"] == "EWR"]) == 3
    learnt = training(everything)
    assert learnt[["origin", TIMESTAMP]].to_numpy().tolist() == [["EWR", TRAINING_START]]


def test_its_configuration_is_valid_and_its_secrets_are_its_own(tmp_path: Path) -> None:
    place = LoopFolder(tmp_path / "demo")
    place.claim()
    place.configure(
        listen="127.0.0.1:1234", team="http://127.0.0.1:1/drift", pipeline="http://127.0.0.1:2/retrain"
    )
    config = load(place.config)
    (monitor,) = config.monitors.values()
    assert set(config.receivers) == {TEAM, PIPELINE}
    assert monitor.retrain is not None
    assert monitor.retrain.receiver == PIPELINE
    assert monitor.refresh.live == DECIDED - JOINED
    assert stat.S_IMODE(place.pipeline_secret.stat().st_mode) == 0o600
    assert place.pipeline_secret.read_text() != place.secret.read_text()


def test_what_an_earlier_demo_left_is_cleared(tmp_path: Path) -> None:
    place = LoopFolder(tmp_path / "demo")
    place.claim()
    (place.models / "1").mkdir(parents=True)
    (place.inbox / "waiting").mkdir(parents=True)
    place.second_log.write_text("old")
    place.claim()
    assert not place.models.exists()
    assert not place.inbox.exists()
    assert not place.second_log.exists()


def test_what_is_as_it_should_be_is_no_problem() -> None:
    before = [
        window(LIVE_START + DAY, Outcome.OK),
        window(JOINED, Outcome.OK),
        window(JOINED + DAY, Outcome.DRIFT),
        window(JOINED + 2 * DAY, Outcome.DRIFT, drift="opened"),
    ]
    assert unquiet(before) == []
    after_the_trial = result(ENDS, before=None)
    assert not_quiet_again([result(DECIDED + DAY), after_the_trial], RETRAINING) == []


def test_an_alarm_before_the_change_and_a_day_without_one_after_it_are_told() -> None:
    assert unquiet([]) == ["no window was judged before the change"]
    before = [window(JOINED, Outcome.DRIFT), window(JOINED + DAY, Outcome.BROKEN)]
    assert unquiet(before) == [
        "2013-05-15 is drift, where nothing had changed: as it is",
        f"2013-05-16 is broken, where the flights from {NEW_AIRPORT} are drift: as it is",
    ]
    many = unquiet([window(JOINED, Outcome.OK), *(window(JOINED + i * DAY, Outcome.OK) for i in range(1, 11))])
    assert (len(many), many[-1]) == (4, "and 7 more windows like these")


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        (result(ENDS, Outcome.DRIFT), "2013-08-07 is drift against the new reference: as it is"),
        (result(ENDS, Outcome.CANNOT_JUDGE), "2013-08-07 is cannot_judge against the new reference: as it is"),
        (result(ENDS, before=Outcome.OK), "2013-08-07 is ok with the reference before, where it is drift"),
        (result(ENDS, before=None), "no window was compared with the reference before"),
        (
            result(ENDS).model_copy(update={"reference": None}),
            f"2013-08-07 was compared with reference none, not with {NEW}",
        ),
    ],
)
def test_a_window_that_is_not_quiet_again_is_told(after: CheckResult, problem: str) -> None:
    assert not_quiet_again([after], RETRAINING) == [problem]


class Fixed:
    """Models that say the same of every flight."""

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def has(self, version: str, name: str) -> bool:
        return name in self.scores

    def load(self, version: str, name: str = "model") -> Fixed:
        return Fixed(score=self.scores.get(name, self.scores["model"]))

    def score(self, rows: pd.DataFrame) -> np.ndarray:
        return np.full(len(rows), self.scores["score"])


def test_the_gain_is_of_the_same_flights_and_its_error_is_of_days() -> None:
    log = flights(DECIDED - DAY, DECIDED, DECIDED + DAY)
    log[SCORE] = np.where(log[LABEL], 0.8, 0.4)  # those before the decision do not count
    log.loc[log[TIMESTAMP] >= DECIDED + DAY, SCORE] = 0.5
    log.loc[2:3, LABEL] = [True, pd.NA]  # a flight that never arrived does not count
    gained, error = gain(log, Fixed(model=0.5))
    first = math.log(0.8) - math.log(0.5)  # one flight on the first day, two like the old model on the second
    assert gained == pytest.approx(first / 3)
    assert error == pytest.approx(first / 2)  # days of `first` and 0: sd first / sqrt 2, over sqrt 2


def test_the_tables_say_what_was_counted() -> None:
    log = flights(LIVE_START, JOINED, DECIDED, DECIDED + DAY)
    log[SCORE] = 0.5
    errors = live_errors(log, Fixed(model=0.25, weighted=0.5), "2")
    assert [each.model for each in errors] == [
        f"{FIRST_VERSION} (live)",
        f"{FIRST_VERSION} (live)",
        "2 (live)",
        FIRST_VERSION,
        "challenger with weights",
    ]
    assert [each.flights for each in errors] == [2, 2, 4, 4, 4]
    assert errors[2].overall["log_loss"] == pytest.approx(math.log(2))
    assert errors[3].overall["brier"] == pytest.approx((0.75**2 + 0.25**2) / 2)
    assert errors[3].airports == pytest.approx({"EWR": math.log(4), NEW_AIRPORT: math.log(4 / 3)})
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as shown:
        before = [window(JOINED, Outcome.OK), window(JOINED + DAY, Outcome.DRIFT)]
        console.print(draw_windows(before, [result(ENDS), result(ENDS, Outcome.DRIFT)], RETRAINING))
        console.print(draw_errors(errors))
    lines = [line.split() for line in shown.get().splitlines()]
    assert [line[-2:] for line in lines[1:5]] == [["0", "1"], ["1", "1"], ["2", "2"], ["1", "2"]]
    assert lines[8][-6:] == ["50.0%", "0.6931", "0.2500", "0.5000", "0.6931", "0.6931"]


def test_a_pipeline_that_does_not_start_says_why(tmp_path: Path) -> None:
    place = LoopFolder(tmp_path / "demo")
    place.claim()
    with pytest.raises(DemoError, match="did not begin to listen: no model is live in "):
        PipelineProcess(place, "http://127.0.0.1:1").__enter__()
