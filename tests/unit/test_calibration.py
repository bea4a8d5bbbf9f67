"""Replay and thresholds: what is left out, what is counted, what is promised."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from drift_monitor.core.alarm import baselines, live_of, score_runs, with_channels
from drift_monitor.core.calibration import Calibration, Extra, RowsCalibration, Watch, calibrate
from drift_monitor.core.excess import excesses, most, root_excess
from drift_monitor.core.expectations import Limit
from drift_monitor.core.history import DAY, Grid, History, baseline, window_sums
from drift_monitor.core.pairs import covariances, distances, pair_value, replay_pairs
from drift_monitor.core.policy import Alarm, Persistence, Quality
from drift_monitor.core.products import PairSpec, Products
from drift_monitor.core.profile import NumericProfile, NumericSpec, Profile
from drift_monitor.core.promise import promise
from drift_monitor.core.replay import Runs, Scale, choose_context, cross_scaled, replay_feature, tiles
from drift_monitor.core.scores import layout
from drift_monitor.core.threshold import (
    HEADROOM,
    LEAST,
    Threshold,
    choose_threshold,
    daily_maxima,
    gumbel_quantile,
    persistent,
    replay_episodes,
)
from drift_monitor.core.types import Outcome, Window

HOUR = 3_600_000_000
EDGES = np.linspace(-2, 2, 21)
SPEC = NumericSpec("x", EDGES, 0.0, 2.0**-20, exact=False)


def poisson_history(
    days: int, seed: int, *, rows: int = 50, level: Callable[[int], float] = lambda _h: 0.0
) -> History:
    """Counts by hour of a normal feature whose mean is `level(hour)`."""
    rng = np.random.default_rng(seed)
    fine = np.zeros((24 * days, 2 * len(EDGES) + 1), np.int64)
    for hour in range(24 * days):
        x = rng.normal(level(hour), 1, rng.poisson(rows))
        np.add.at(fine[hour], 2 * np.searchsorted(EDGES, x), 1)
    return History(fine, np.zeros(24 * days, np.int64))


def watch(**alarm: object) -> Watch:
    policy = Alarm.model_validate({"min_rows": 20, **alarm})
    return Watch("m", policy, Quality(), (timedelta(hours=1), timedelta(days=1)), timedelta(hours=1))


def calibrated(history: History, seen: Watch, **more: object) -> Calibration:
    grid = Grid(0, HOUR, len(history.fine))
    return calibrate(seen, "sha", grid, history.rows, [(SPEC, history)], features=1, **more)  # type: ignore[arg-type]


# -- windows -------------------------------------------------------------------------------------------


def test_window_sums_are_sums_over_windows() -> None:
    table = np.arange(12).reshape(6, 2)
    assert window_sums(table, np.array([2, 6]), 2).tolist() == [[2, 4], [18, 20]]


def test_runs_lie_whole_in_the_grid_and_end_when_the_schedule_says() -> None:
    runs = Runs.over(Grid(5 * HOUR, HOUR, 100), [1, 24], step=24, offset=6)
    assert (runs.since % 24 == 6).all()
    assert runs.ends.min() >= 24
    ends, run = runs.windows(1)
    assert len(ends) == 24 * len(runs.ends)
    assert (runs.ends[run] - ends).max() == 23


def test_a_short_window_is_looked_at_once_between_two_runs() -> None:
    assert [tiles(1, 24, step) for step in (1, 6, 24, 48)] == [1, 6, 24, 24]


def test_the_context_follows_the_length_of_the_reference() -> None:
    contexts = [choose_context(None, Grid(0, HOUR, 24 * days)) for days in (56, 84, 200)]
    assert contexts == ["none", "day_of_week", "hour_of_week"]
    assert choose_context("day_of_week", Grid(0, HOUR, 240)) == "day_of_week"
    assert choose_context("day_of_week", Grid(0, 5 * HOUR, 240)) == "none"  # no whole number of them in a week


def test_mondays_are_compared_with_mondays() -> None:
    history = poisson_history(28, 1)
    cells = layout(SPEC, history.fine.sum(axis=0))
    grid = Grid(0, HOUR, 24 * 28)
    by_group = cells.group(history.fine)
    base = baseline(cells, by_group, grid, "day_of_week")
    fourth = base.of(np.array([24 * 4]), 24)[0]
    assert (fourth == sum(by_group[24 * (3 + 7 * k) : 24 * (4 + 7 * k)].sum(axis=0) for k in range(4))).all()
    hours = baseline(cells, by_group, grid, "hour_of_week").of(np.array([30]), 2)[0]
    assert (hours == sum(by_group[28 + 168 * k : 30 + 168 * k].sum(axis=0) for k in range(4))).all()


@pytest.mark.parametrize("context", ["none", "day_of_week"])
def test_a_day_is_scored_against_a_reference_without_it(context: str) -> None:
    """A strange day of the reference looks as strange as it would if it were live."""
    history = poisson_history(56, 2, level=lambda hour: 1.5 * (hour // 24 == 30))
    runs = Runs.over(Grid(0, HOUR, 24 * 56), [24], step=24)
    cells = layout(SPEC, history.fine.sum(axis=0))
    found = replay_feature(cells, cells.group(history.fine), runs, context)  # type: ignore[arg-type]
    strange = int(np.argmax(found.best[24]))
    assert runs.days[strange] == 30
    assert found.best[24][strange] > 5 * np.sort(found.best[24])[-2]


def test_a_value_is_scaled_by_the_other_blocks() -> None:
    values = np.concatenate((np.arange(100.0), np.arange(100.0) + 1000))
    blocks = np.repeat([0, 1], 100)
    scaled, scale = cross_scaled(values, blocks, floor=0.1)
    assert scaled[:100].max() < -50
    assert scaled[100:].min() > 50
    assert scale.high == pytest.approx(np.quantile(values, 0.9))
    assert np.isnan(cross_scaled(np.array([np.nan, 1.0]), np.array([0, 1]), 1.0)[0][0])


def test_an_exponential_tail_has_its_mean_excess_as_scale() -> None:
    x = -np.log((np.arange(100_000) + 0.5) / 100_000)
    scale = cross_scaled(x, np.zeros(100_000, np.int64), 0.1)[1]
    assert scale.high == pytest.approx(np.log(10), rel=1e-3)
    assert scale.excess == pytest.approx(1, rel=1e-3)
    assert Scale(2.0, 0.5).ratio(np.array([3.0])).tolist() == [2.0]


# -- thresholds ----------------------------------------------------------------------------------------


def days_over(daily: np.ndarray) -> Callable[[float], int]:
    return lambda threshold: int((daily > threshold).sum())


@pytest.mark.parametrize(("days", "rank"), [(60, 1), (90, 2), (120, 2), (180, 4)])
def test_the_threshold_is_a_rank_of_the_days(days: int, rank: int) -> None:
    """floor(0.7 (N + 1) / 30) of N distinct days, one false alert a month."""
    daily = np.random.default_rng(1).permutation(np.arange(float(days)))
    found = choose_threshold(daily, 1.0, days_over(daily), share=0.7)
    assert (found.basis, found.rank, found.value) == ("calibrated", rank, HEADROOM * (days - rank))
    assert found.openings < rank


def test_a_short_reference_says_what_it_lacks() -> None:
    daily = np.random.default_rng(1).gumbel(size=28)
    found = choose_threshold(daily, 1.0, days_over(daily), share=0.7)
    assert (found.basis, found.rank, found.needed) == ("extrapolated", None, 14)
    assert found.value == pytest.approx(HEADROOM * gumbel_quantile(daily, 0.7 / 30))
    calm = choose_threshold(np.zeros(60), 1.0, lambda _: 0, share=0.7)
    assert calm.value == LEAST
    assert choose_threshold(np.append(daily, np.zeros(14)), 1.0, days_over(daily), share=0.7).basis == "calibrated"
    none = choose_threshold(daily[:13], 1.0, days_over(daily), share=0.7)
    assert (none.basis, none.value, none.needed) == ("none", None, 29)
    assert "extrapolated" in promise(found, Alarm())
    assert (
        promise(none, Alarm()) == "no promise: the reference has 13 days that can be replayed, 29 more are needed"
    )


def test_a_day_on_which_no_alert_could_open_lifts_no_threshold() -> None:
    daily = np.random.default_rng(1).gumbel(size=28)
    found = choose_threshold(np.append(-np.inf, daily), 1.0, days_over(daily), share=0.7)
    assert (found.basis, found.days) == ("extrapolated", 29)
    assert found.value == pytest.approx(HEADROOM * gumbel_quantile(daily, 0.7 / 30))
    never = choose_threshold(np.full(28, -np.inf), 1.0, lambda _: 0, share=0.7)
    assert (never.basis, never.value) == ("none", None)


def test_days_that_belong_to_one_episode_count_once() -> None:
    daily = np.array([0.0] * 88 + [9.0, 8.0])
    one = choose_threshold(daily, 1.0, lambda c: int(c < 9), share=0.7)  # both days are one episode
    assert one.value is not None
    assert one.value < 8.0
    two = choose_threshold(daily, 1.0, days_over(daily), share=0.7)
    assert two.value == HEADROOM * 8.0


def test_persistence_lowers_a_days_score_to_what_lasts() -> None:
    scores = np.array([1.0, 9.0, 2.0, 8.0, np.nan, 7.0])
    assert persistent(scores, 1, 1)[:4].tolist() == [1, 9, 2, 8]
    two_of_three = persistent(scores, 2, 3)
    assert two_of_three[:4].tolist() == [-np.inf, 1, 2, 8]
    assert np.isnan(two_of_three[4])
    assert two_of_three[5] == 7.0
    assert daily_maxima(np.array([0, 0, 1, 1, 2, 3]), scores).tolist() == [9, 8, 7]


def test_the_replay_follows_the_episode_rules() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    windows = [Window(start=start + timedelta(hours=h - 1), end=start + timedelta(hours=h)) for h in range(8)]
    bad, good = Outcome.DRIFT, Outcome.OK
    outcomes = [good, bad, good, bad, bad, good, good, bad]
    alarm = Alarm(persistence=Persistence(hits=2, of=3))
    found = replay_episodes("drift", "m", windows, outcomes, alarm)
    assert [(e.opened.hour, e.closed and e.closed.hour) for e in found] == [(3, 6)]
    assert len(replay_episodes("drift", "m", windows, outcomes, Alarm())) == 3
    assert replay_episodes("quality", "m", windows, outcomes, Alarm()) == []


# -- the whole -----------------------------------------------------------------------------------------


def test_the_same_reference_calibrates_to_the_same_bytes() -> None:
    history = poisson_history(30, 3)
    assert calibrated(history, watch()).model_dump_json() == calibrated(history, watch()).model_dump_json()


def test_a_calibration_survives_json() -> None:
    found = calibrated(poisson_history(60, 3), watch())
    assert Calibration.model_validate_json(found.model_dump_json()) == found
    assert found.drift.basis == "calibrated"
    assert found.drift.days == len(found.days) == 60


def test_a_shift_is_over_the_threshold_and_a_quiet_day_is_not() -> None:
    seen = watch()
    history = poisson_history(60, 4)
    found = calibrated(history, seen)
    whole = Profile(0, {"x": NumericProfile(history.fine.sum(axis=0), np.zeros(history.fine.shape[1], np.int64))})
    known = baselines([SPEC], whole, found.context)

    def scores_of(level: float) -> list[float]:
        live = poisson_history(3, 77, level=lambda _h: level)
        runs = seen.runs(Grid(60 * DAY, HOUR, 72))
        scored = score_runs(found, seen, [SPEC], known, live_of(runs, {"x": live}))
        assert scored[-1].features["x"].seconds in (3600, 86400)
        return [run.score or 0.0 for run in scored]

    limit = found.drift.value
    assert limit is not None
    assert max(scores_of(0.0)) < limit < min(scores_of(0.5))


def test_an_hour_is_seen_in_the_short_window_before_the_day_moves() -> None:
    seen = watch()
    history = poisson_history(60, 5)
    found = calibrated(history, seen)
    whole = Profile(0, {"x": NumericProfile(history.fine.sum(axis=0), np.zeros(history.fine.shape[1], np.int64))})
    live = poisson_history(2, 6, level=lambda hour: 2.5 * (hour == 47))
    runs = seen.runs(Grid(60 * DAY, HOUR, 48))
    last = score_runs(found, seen, [SPEC], baselines([SPEC], whole, "none"), live_of(runs, {"x": live}))[-1]
    assert last.features["x"].seconds == 3600
    assert last.score is not None
    assert found.drift.value is not None
    assert last.score > found.drift.value


def test_a_day_that_is_broken_raises_no_drift_alarm_in_the_replay() -> None:
    """The drift lane's threshold does not have to bear a day that the quality lane refuses."""
    history = poisson_history(60, 7, level=lambda hour: 3.0 * (hour // 24 == 40))
    plain = calibrated(history, watch())
    history.missing[24 * 40 : 24 * 41] = 400
    broken = calibrated(history, watch())
    assert plain.drift.value is not None
    assert broken.drift.value is not None
    assert plain.drift.daily[40] > 20
    # the quality lane may spend its own budget on that day: then the drift lane is held
    assert broken.quality.daily[40] == max(broken.quality.daily)


def test_further_channels_count_like_features() -> None:
    history = poisson_history(60, 8)
    seen = watch()
    runs = seen.runs(Grid(0, HOUR, 24 * 60))
    values = np.random.default_rng(1).exponential(size=len(runs.ends))
    extra = {"rows": Extra(values, Scale(0.5, 0.1), RowsCalibration(rows=100, most_reference=1000, seed=0))}
    found = calibrated(history, seen, extra=extra)
    assert found.rows is not None
    assert found.rows.rows == 100
    whole = Profile(0, {"x": NumericProfile(history.fine.sum(axis=0), np.zeros(history.fine.shape[1], np.int64))})
    run = score_runs(found, seen, [SPEC], baselines([SPEC], whole, "none"), live_of(runs, {"x": history}))[0]
    loud = with_channels(run, found, {"rows": 9.0})
    assert loud.score == loud.channels["rows"] == pytest.approx((9.0 - 0.5) / 0.1 - found.typical["rows"] - 2)
    assert with_channels(run, found, {"rows": float("nan"), "unknown": 1.0}).channels == run.channels


# -- the quality lane ----------------------------------------------------------------------------------


def test_an_excess_is_measured_in_standard_deviations() -> None:
    assert float(root_excess(np.array(100.0), np.array(64.0))) == pytest.approx(4, abs=0.02)
    assert float(root_excess(np.array(10.0), np.array(64.0))) == 0
    limit = Limit(0.01, excess=4.0)
    share = limit.at(10_000)
    assert share == pytest.approx(most(100.0, 4.0) / 10_000)
    assert 0.013 < share < 0.015


def test_nulls_zeros_and_far_values_of_a_day_are_in_excess_of_the_others() -> None:
    spec = NumericSpec("x", np.array([-2.0, -1, 0, 1, 2, 3]), 0.0, 2.0**-20, exact=True)
    rng = np.random.default_rng(9)
    fine = np.zeros((30, 13), np.int64)
    fine[:, 1:12:2] = rng.poisson(50, (30, 6))
    missing = np.zeros(30, np.int64)
    missing[10], fine[15, 5], fine[20, 9] = 40, 120, 130  # nulls; zeros (edge 0 is cell 5); another value
    runs = Runs.over(Grid(0, DAY, 30), [1], step=1)
    found = excesses(spec, History(fine, missing), runs)
    assert [int(np.argmax(found[check])) for check in ("null_rate", "zero", "constant")] == [10, 15, 20]
    assert found["null_rate"][10] > 10
    assert np.delete(found["null_rate"], 10).max() == 0


# -- pairs ---------------------------------------------------------------------------------------------


def products_of(table: np.ndarray) -> Products:
    steps = np.clip(np.rint(table * 32), -256, 256).astype(np.int64)
    first, second = np.triu_indices(table.shape[1])
    return Products(len(steps), steps.sum(axis=0), (steps.T @ steps)[first, second])


def test_covariances_are_numpys_and_distances_have_the_spread_of_normal_rows() -> None:
    rng = np.random.default_rng(1)
    tables = [rng.multivariate_normal([0, 1], [[1, 0.6], [0.6, 1]], 400) for _ in range(500)]
    parts = [products_of(table) for table in tables]
    rows, sums = np.array([p.rows for p in parts]), np.stack([p.sums for p in parts])
    found = covariances(rows, sums, np.stack([p.products for p in parts]))
    steps = np.clip(np.rint(tables[0] * 32), -256, 256)
    assert found[0] == pytest.approx(np.cov(steps.T, ddof=0)[np.triu_indices(2)])
    away, effect = distances(found, np.array([1, 0.6, 1]) * 32**2)
    assert away.std(axis=0) * np.sqrt(400) == pytest.approx(1, abs=0.1)
    assert effect.std(axis=0)[0] * np.sqrt(400) == pytest.approx(np.sqrt(2), abs=0.15)
    assert (distances(found, np.zeros(3))[0] == 0).all()


def test_a_lost_correlation_is_told_with_its_pair() -> None:
    rng = np.random.default_rng(2)
    pairs = PairSpec(("a", "b", "c"), np.zeros(3), np.ones(3))

    def rows(r: float, n: int = 400) -> np.ndarray:
        return rng.multivariate_normal([0, 0, 0], [[1, r, 0], [r, 1, 0], [0, 0, 1]], n)

    runs = Runs.over(Grid(0, DAY, 60), [1], step=1)
    scaled, scale, known = replay_pairs(pairs, {d * DAY: products_of(rows(0.6)) for d in range(60)}, runs, 100)
    assert not (scaled > 10).any()
    quiet, _ = pair_value(known, pairs, products_of(rows(0.6)))
    loud, words = pair_value(known, pairs, products_of(rows(0.2)))
    assert np.isnan(quiet)  # no change is large enough to matter
    assert scale.high + 5 * scale.excess < loud
    assert words.startswith("correlation of a and b 0.6")
    assert np.isnan(pair_value(known, pairs.only(["a", "c"]), products_of(rows(0.6)))[0])  # type: ignore[arg-type]


def test_thresholds_with_no_promise_say_so() -> None:
    assert promise(None, Alarm(), "the data have no times") == "no promise: the data have no times"
    fixed = Threshold(value=1.0, basis="calibrated", budget=1, days=90)
    assert promise(fixed, Alarm(thresholds={"psi": 0.2})) == "no promise: fixed thresholds are set"
    assert promise(fixed, Alarm()).startswith("at most 1 false alert a month")
