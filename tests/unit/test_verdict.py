"""The verdict, with the real stattests on real profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from drift_monitor.core.fold import category_counts, numbers, profile_buckets
from drift_monitor.core.policy import Alarm
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Profile, Spec
from drift_monitor.core.stattests import DEFAULT_ALARM, STATTESTS
from drift_monitor.core.types import FeatureResult, Outcome, QualityResult, StatResult
from drift_monitor.core.verdict import RATIO_LIMIT, Judgement, _Pair, judge, outside_methods, usual_effects

FAILED = QualityResult(check="null_rate", feature="x", failed=True, value=0.5, threshold=0.1, message="x is null")
NO_COLUMN = QualityResult(check="schema", feature="x", failed=True, message="column 'x' is missing")
PASSED = QualityResult(check="null_rate", feature="x", failed=False, value=0.0, threshold=0.1, message="fine")


def columns(seed: int, n: int) -> dict[str, pa.Array]:
    rng = np.random.default_rng(seed)
    return {
        "x": pa.array(rng.normal(size=n)),
        "y": pa.array(rng.exponential(size=n)),
        "c": pa.array(rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])),
    }


BASE = columns(0, 20_000)
SPECS: list[Spec] = [
    NumericSpec.fit("x", numbers(BASE["x"])),
    NumericSpec.fit("y", numbers(BASE["y"])),
    CategoricalSpec.fit("c", category_counts(BASE["c"])),
]


def profile(data: Mapping[str, pa.Array]) -> Profile:
    return profile_buckets(SPECS, [pa.RecordBatch.from_pydict(dict(data))]).get(0, Profile(0, {}))


REFERENCE = profile(BASE)


def run(
    data: Mapping[str, pa.Array],
    alarm: Alarm | None = None,
    quality: Sequence[QualityResult] = (PASSED,),
    **more: Mapping[str, Mapping[str, StatResult]] | Mapping[str, float],
) -> Judgement:
    return judge(SPECS, REFERENCE, profile(data), quality, alarm or Alarm(), **more)  # type: ignore[arg-type]


def feature(found: Judgement, name: str) -> FeatureResult:
    return next(f for f in found.features if f.name == name)


def shift(data: Mapping[str, pa.Array], name: str, by: float) -> dict[str, pa.Array]:
    return dict(data) | {name: pa.array(data[name].to_numpy() + by)}


def test_rows_like_the_reference_are_ok() -> None:
    found = run(columns(1, 2000))
    assert found.outcome is Outcome.OK
    assert found.score is not None
    assert found.score <= found.threshold == 1.0
    assert "none of 3 features drifted; nearest is" in found.reason
    assert not any(f.drifted for f in found.features)
    assert found.promise == "no promise: thresholds are not calibrated"


def test_a_shift_is_drift_and_names_its_feature_with_what_moved() -> None:
    found = run(shift(columns(1, 2000), "y", 0.5))
    assert found.outcome is Outcome.DRIFT
    assert found.score is not None
    assert found.score > 1
    first = found.features[0]
    assert (first.name, first.drifted) == ("y", True)
    assert first.effect is not None
    assert "median 0.6883 -> " in first.effect
    assert first.effect in found.reason
    assert first.histogram is not None
    assert first.out_of_range_ratio == 0
    assert feature(found, "c").new_category_ratio == 0
    assert set(DEFAULT_ALARM["numeric"]) | {"ks", "psi", "effect"} <= first.statistics.keys()


@pytest.mark.parametrize("name", ["x", "y", "c"])
def test_score_over_threshold_is_what_drifted_means(name: str) -> None:
    for size in (0.0, 0.02, 0.05, 0.1, 0.3):
        data = columns(3, 3000)
        if name == "c":
            data["c"] = pa.array(["c" if i < size * 3000 else v for i, v in enumerate(data["c"].to_pylist())])
        else:
            data = shift(data, name, size)
        found = run(data)
        for f in found.features:
            assert f.score is not None
            assert f.threshold is not None
            assert f.drifted is (f.score > f.threshold)
        assert found.score is not None
        assert (found.outcome is Outcome.DRIFT) is (found.score > 1) is any(f.drifted for f in found.features)


def test_alpha_is_shared_out_over_features_and_methods() -> None:
    data = columns(1, 2000)
    found = run(data, Alarm(effect_floor_ks=0, effect_floor_share=0, alpha=0.02))
    tests = 2 * len(DEFAULT_ALARM["numeric"]) + len(DEFAULT_ALARM["categorical"])
    for spec in SPECS:
        f = feature(found, spec.name)
        assert f.method in DEFAULT_ALARM[spec.kind]
        reference, current = REFERENCE.features[spec.name], profile(data).features[spec.name]
        assert f.threshold == STATTESTS[f.method].critical(spec, reference, current, 0.02 / tests)
        ratios = {
            m: f.statistics[m].statistic / STATTESTS[m].critical(spec, reference, current, 0.02 / tests)
            for m in DEFAULT_ALARM[spec.kind]
        }
        assert f.method == max(ratios, key=lambda m: ratios[m])


def test_independent_rows_raise_false_alarms_no_more_often_than_alpha() -> None:
    alarm = Alarm(effect_floor_ks=0, effect_floor_share=0, alpha=0.05)
    alarms = sum(run(columns(seed, 500), alarm).outcome is Outcome.DRIFT for seed in range(100, 250))
    assert alarms <= binom.isf(1e-6, 150, 0.05)


def test_a_significant_but_small_change_is_no_drift() -> None:
    data = shift(columns(1, 200_000), "x", 0.06)
    strict, floored = run(data, Alarm(effect_floor_ks=0)), run(data)
    assert feature(strict, "x").drifted
    assert floored.outcome is Outcome.OK
    x = feature(floored, "x")
    assert (x.method, x.threshold) == ("effect", 0.05)
    assert x.score == x.statistics["effect"].statistic < 0.05


def test_a_large_change_among_few_rows_is_no_drift() -> None:
    found = run(shift(columns(1, 30), "x", 0.1), Alarm(min_rows=30))
    x = feature(found, "x")
    assert x.statistics["effect"].statistic > 0.05
    assert x.method in DEFAULT_ALARM["numeric"]
    assert found.outcome is Outcome.OK


def test_a_fixed_threshold_is_taken_as_it_is() -> None:
    data = shift(columns(1, 200_000), "x", 0.06)
    found = run(data, Alarm(thresholds={"ks": 0.02}))
    x = feature(found, "x")
    assert (found.outcome, x.method, x.threshold) == (Outcome.DRIFT, "ks", 0.02)
    assert found.promise == "no promise: fixed thresholds are set"
    alone = run(data, Alarm(features={"x": {"psi": 1e-9}}))
    assert [f.name for f in alone.features if f.drifted] == ["x"]
    assert feature(alone, "x").method == "psi"
    assert alone.promise == "no promise: fixed thresholds are set"


def test_only_the_methods_that_the_policy_names_decide() -> None:
    data = shift(columns(1, 2000), "x", 0.5)
    blind = Alarm(methods={"numeric": ("psi",)}, thresholds={"psi": 50.0})
    found = run(data, blind)
    assert feature(found, "x").statistics["psi"].statistic > 0.1
    assert found.outcome is Outcome.OK


def test_further_methods_are_reported_where_they_apply() -> None:
    found = run(columns(1, 2000), Alarm(report=("mann_whitney", "g")))
    assert {"mann_whitney", "g"} <= feature(found, "x").statistics.keys()
    assert "mann_whitney" not in feature(found, "c").statistics


def test_outside_methods_are_reported_and_alarm_on_a_threshold_only() -> None:
    extra = {"x": {"evidently:wasserstein": StatResult(statistic=0.4)}}
    data = columns(1, 2000)
    asked = Alarm(report=("evidently:wasserstein",))
    assert outside_methods(SPECS, asked)["x"] == ("evidently:wasserstein",)
    told = run(data, asked, extra=extra)
    assert told.outcome is Outcome.OK
    assert feature(told, "x").statistics["evidently:wasserstein"].statistic == 0.4
    alarmed = run(data, Alarm(features={"x": {"evidently:wasserstein": 0.3}}), extra=extra)
    assert alarmed.outcome is Outcome.DRIFT
    assert (alarmed.features[0].method, alarmed.features[0].score) == ("evidently:wasserstein", 0.4)
    unanswered = run(data, Alarm(methods={"numeric": ("evidently:ks",)}, thresholds={"evidently:ks": 0.9}))
    assert "not judged: none of evidently:ks has an answer" in str(feature(unanswered, "x").reason)


def test_blame_goes_by_how_unusual_the_effect_is() -> None:
    data = shift(shift(columns(1, 5000), "x", 1.0), "y", 0.3)
    assert [f.name for f in run(data).features][:2] == ["x", "y"]
    usual = {"x": 0.6, "y": 0.04, "c": 0.02}
    assert [f.name for f in run(data, usual=usual).features][:2] == ["y", "x"]


def test_a_feature_that_did_not_drift_is_behind_those_that_did_however_unusual() -> None:
    data = shift(columns(1, 5000), "x", 1.0)
    assert run(data, usual={"x": 0.9, "y": 1e-9, "c": 1e-9}).features[0].name == "x"


def test_usual_effects_are_the_largest_of_the_windows() -> None:
    windows = [profile(shift(columns(i, 1000), "x", by)) for i, by in enumerate((0.0, 2.0, 0.1))]
    usual = usual_effects(SPECS, REFERENCE, windows)
    assert usual["x"] > 0.6
    assert usual["y"] < 0.1
    assert usual_effects(SPECS, REFERENCE, [Profile(10, {})]) == {"x": 0.0, "y": 0.0, "c": 0.0}


def test_ties_go_by_name() -> None:
    rows = columns(0, 20_000)["x"]
    names = ("b", "a", "c")
    specs = [NumericSpec.fit(n, numbers(rows)) for n in names]
    base = profile_buckets(specs, [pa.RecordBatch.from_pydict(dict.fromkeys(names, rows))])[0]
    live = pa.array(rows.to_numpy()[:1000] + 1)
    current = profile_buckets(specs, [pa.RecordBatch.from_pydict(dict.fromkeys(names, live))])[0]
    assert [f.name for f in judge(specs, base, current, (), Alarm()).features] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("alarm", "drifted", "expected"),
    [
        ({"drifted_features": 2}, ["x"], Outcome.OK),
        ({"drifted_features": 2}, ["x", "y"], Outcome.DRIFT),
        ({"drifted_share": 0.5}, ["x"], Outcome.OK),
        ({"drifted_share": 0.5}, ["x", "y"], Outcome.DRIFT),
        ({"drifted_share": 1 / 3}, ["x"], Outcome.DRIFT),
        ({"drifted_features": 2, "drifted_share": 0.3}, ["x"], Outcome.OK),
    ],
)
def test_how_many_features_must_drift(alarm: dict[str, float], drifted: list[str], expected: Outcome) -> None:
    data = columns(1, 5000)
    for name in drifted:
        data = shift(data, name, 1.0)
    found = run(data, Alarm(**alarm))  # type: ignore[arg-type]
    assert sorted(f.name for f in found.features if f.drifted) == drifted
    assert found.outcome is expected
    assert found.score is not None
    assert (found.score > 1) is (expected is Outcome.DRIFT)
    if expected is Outcome.OK:
        assert "2 are needed for an alarm" in found.reason


@pytest.mark.parametrize(
    ("n", "quality", "expected", "reason"),
    [
        (0, (NO_COLUMN,), Outcome.NO_DATA, "the window has no rows"),
        (99, (PASSED,), Outcome.CANNOT_JUDGE, "insufficient data: 99 rows, 100 are needed"),
        (99, (FAILED,), Outcome.CANNOT_JUDGE, "insufficient data: 99 rows, 100 are needed"),
        (99, (FAILED, NO_COLUMN), Outcome.BROKEN, "column 'x' is missing"),
        (100, (FAILED,), Outcome.BROKEN, "x is null"),
        (2000, (FAILED, NO_COLUMN), Outcome.BROKEN, "x is null (and 1 more quality check failed)"),
        (2000, (PASSED,), Outcome.OK, "none of 3 features"),
    ],
)
def test_the_order_of_outcomes(n: int, quality: Sequence[QualityResult], expected: Outcome, reason: str) -> None:
    found = run(columns(1, n), quality=quality)
    assert found.outcome is expected
    assert found.reason.startswith(reason)


def test_a_broken_window_still_reports_its_statistics() -> None:
    found = run(shift(columns(1, 2000), "x", 1.0), quality=(FAILED,))
    assert found.outcome is Outcome.BROKEN
    assert found.score is not None
    assert found.score > 1
    assert found.features[0].name == "x"
    assert found.features[0].statistics["ks"].statistic > 0.3


def test_a_feature_with_too_few_values_is_not_judged_and_says_so() -> None:
    data = columns(1, 2000)
    data["x"] = pa.array([None] * 1950 + data["x"].to_pylist()[:50])
    found = run(data)
    x = feature(found, "x")
    assert (x.score, x.drifted, x.null_ratio) == (None, False, 0.975)
    assert x.reason == "not judged: only 50 of 2000 rows have a value, 100 are needed"
    assert found.features[-1] is x
    assert "none of 2 features" in found.reason


@pytest.mark.parametrize(("needed", "missing"), [(1, ("x", "y", "c")), (3, ("x",))])
def test_unjudged_features_never_make_a_quiet_window(needed: int, missing: tuple[str, ...]) -> None:
    data = columns(1, 2000)
    for name in missing:
        data[name] = pa.nulls(2000, data[name].type)
    found = run(data, Alarm(drifted_features=needed))
    assert found.outcome is Outcome.CANNOT_JUDGE
    assert found.score is found.threshold is None
    assert "not judged" in found.reason


def test_a_missing_column_is_not_judged() -> None:
    data = columns(1, 2000)
    del data["x"]
    assert feature(run(data), "x").reason == "not judged: the column is missing or cannot be read"


@given(score=st.floats(0, 1e300), threshold=st.floats(0, 1e300))
def test_a_ratio_is_over_one_exactly_when_the_score_is_over_its_threshold(score: float, threshold: float) -> None:
    ratio = _Pair("m", score, threshold).ratio
    assert (ratio > 1) is (score > threshold)
    assert 0 <= ratio <= RATIO_LIMIT


@given(threshold=st.floats(1e-300, 1e300))
def test_a_hair_over_the_threshold_is_over(threshold: float) -> None:
    assert _Pair("m", float(np.nextafter(threshold, np.inf)), threshold).ratio > 1
    assert _Pair("m", threshold, threshold).ratio == 1
