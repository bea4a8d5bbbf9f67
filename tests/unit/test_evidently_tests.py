"""Evidently's tests by name, against the installed package and against scipy."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from drift_monitor.evidently_tests import EVIDENTLY_TESTS, evidently_statistic, evidently_statistics, find_test

RNG = np.random.default_rng(7)
NORMAL = RNG.normal(0, 1, 900)
SHIFTED = RNG.normal(0.7, 1, 600)
COLOURS = pa.chunked_array([RNG.choice(["red", "green", "blue"], 400, p=[0.5, 0.3, 0.2])])
RECOLOURED = pa.chunked_array([RNG.choice(["red", "green", "blue"], 300, p=[0.2, 0.3, 0.5])])
FLAGS = pa.chunked_array([RNG.random(400) < 0.3])
REFLAGGED = pa.chunked_array([RNG.random(300) < 0.6])


def numbers(values: object) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.float64(), from_pandas=False)])


def test_the_table_names_every_test_of_the_installed_package_with_its_kinds_and_threshold() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's own imports
        from evidently.legacy.calculations.stattests import registry  # noqa: PLC0415 - warns when imported
        from evidently.legacy.core import ColumnType  # noqa: PLC0415

    installed = {
        name: by_type
        for name, by_type in registry._registered_stat_tests.items()
        if not name.endswith("text_content_drift")
    }
    assert set(EVIDENTLY_TESTS) == set(installed)
    assert len(EVIDENTLY_TESTS) == 18
    for name, test in EVIDENTLY_TESTS.items():
        assert test.numeric == (ColumnType.Numerical in installed[name]), name
        assert test.categorical == (ColumnType.Categorical in installed[name]), name
        theirs = next(iter(installed[name].values())).default_threshold
        assert test.threshold == pytest.approx(1 - theirs if test.is_p_value else theirs), name


@pytest.mark.parametrize("name", [name for name, test in EVIDENTLY_TESTS.items() if test.numeric])
def test_numeric_tests_tell_a_shift_from_none(name: str) -> None:
    reference = numbers(NORMAL)
    same = evidently_statistic(name, "numeric", reference, reference)
    moved = evidently_statistic(name, "numeric", reference, numbers(SHIFTED))
    assert same.statistic <= EVIDENTLY_TESTS[name].threshold < moved.statistic
    assert (moved.p_value is None) != EVIDENTLY_TESTS[name].is_p_value


@pytest.mark.parametrize("name", [name for name, test in EVIDENTLY_TESTS.items() if test.categorical])
@pytest.mark.parametrize("kind", ["categorical", "boolean"])
def test_categorical_tests_tell_a_change_of_shares_from_none(name: str, kind: str) -> None:
    if kind == "categorical" and name == "fisher_exact":
        reference, current = FLAGS.cast(pa.string()), REFLAGGED.cast(pa.string())
    else:
        reference, current = (COLOURS, RECOLOURED) if kind == "categorical" else (FLAGS, REFLAGGED)
    same = evidently_statistic(name, kind, reference, reference)
    moved = evidently_statistic(name, kind, reference, current)
    assert same.statistic <= EVIDENTLY_TESTS[name].threshold < moved.statistic


def test_numbers_equal_scipy() -> None:
    reference, current = numbers(NORMAL), numbers(SHIFTED)
    ks = evidently_statistic("evidently:ks", "numeric", reference, current)
    assert ks.p_value == pytest.approx(stats.ks_2samp(NORMAL, SHIFTED).pvalue)
    assert ks.statistic == 1 - ks.p_value
    distance = evidently_statistic("wasserstein", "numeric", reference, current)
    expected = stats.wasserstein_distance(NORMAL, SHIFTED) / NORMAL.std()
    assert distance.statistic == pytest.approx(expected, rel=1e-3)  # Evidently divides by the n-1 deviation


def test_nulls_nan_and_infinities_are_left_out() -> None:
    dirty = numbers([*NORMAL, None, np.nan, np.inf, -np.inf])
    for name in ("ks", "psi", "t_test", "es"):
        clean = evidently_statistic(name, "numeric", numbers(NORMAL), numbers(SHIFTED))
        assert evidently_statistic(name, "numeric", dirty, numbers(SHIFTED)) == clean


def test_datetimes_count_as_seconds() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = [start + timedelta(seconds=float(x)) for x in np.round(NORMAL, 3)]
    later = [start + timedelta(seconds=float(x)) for x in np.round(SHIFTED, 3)]
    column = pa.chunked_array([pa.array(times, pa.timestamp("ns", "UTC"))])
    result = evidently_statistic("ks", "datetime", column, pa.chunked_array([pa.array(later)]))
    expected = evidently_statistic("ks", "numeric", numbers(np.round(NORMAL, 3)), numbers(np.round(SHIFTED, 3)))
    assert result == expected


@pytest.mark.parametrize("name", ["empirical_mmd", "TVD"])
def test_tests_that_permute_repeat_their_answer_and_leave_numpys_state_alone(name: str) -> None:
    kind = "numeric" if EVIDENTLY_TESTS[name].numeric else "categorical"
    slight = numbers(NORMAL[:600] + 0.08)
    sides = (numbers(NORMAL), slight) if EVIDENTLY_TESTS[name].numeric else (COLOURS, COLOURS.slice(50))
    before = np.random.get_state()  # noqa: NPY002 - the state that must be kept
    first = evidently_statistic(name, kind, *sides)
    after = np.random.get_state()  # noqa: NPY002 - the state that must be kept
    np.random.random(3)  # noqa: NPY002
    assert evidently_statistic(name, kind, *sides) == first
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


def test_the_samples_are_not_changed() -> None:
    table = pa.table({"x": numbers([*NORMAL, None])})
    before = table.column("x").to_pylist()
    evidently_statistics({"x": ["hellinger", "psi"]}, table, table, {"x": "numeric"})
    assert table.column("x").to_pylist() == before


def test_results_keep_the_names_that_were_asked_for_and_failures_are_told() -> None:
    reference = pa.table({"x": NORMAL[:400], "flat": np.ones(400), "c": COLOURS})
    current = pa.table({"x": SHIFTED[:300], "flat": np.ones(300), "c": RECOLOURED})
    told: list[tuple[str, str, str]] = []
    results = evidently_statistics(
        {"x": ["evidently:ks", "psi"], "flat": ["es", "ed"], "c": ["fisher_exact"], "gone": ["ks"]},
        reference,
        current,
        {"x": "numeric", "flat": "numeric", "c": "categorical", "gone": "numeric"},
        on_failure=lambda *failure: told.append(failure),
    )
    assert list(results["x"]) == ["evidently:ks", "psi"]
    assert results["flat"]["ed"].statistic == 0
    assert [(feature, name) for feature, name, _ in told] == [
        ("flat", "es"),
        ("c", "fisher_exact"),
        ("gone", "ks"),
    ]
    assert "(IQR) is zero" in told[0][2]
    assert told[2][2] == "the row sample has no column 'gone'"
    with pytest.raises(ValueError, match=r"^es on 'flat': no answer \("):
        evidently_statistics({"flat": ["es"]}, reference, current, {"flat": "numeric"})


def test_too_few_values_and_wrong_names_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="the current sample has 1 usable values; at least 2 are needed"):
        evidently_statistic("ks", "numeric", numbers(NORMAL), numbers([1.0, None]))
    with pytest.raises(
        ValueError, match=r"has no test 'evidently:kss'; it has anderson, chisquare, cramer_von_mises"
    ):
        find_test("evidently:kss")
    with pytest.raises(
        ValueError, match=r"'ks' is not for categorical features; those are chisquare, fisher_exact"
    ):
        evidently_statistic("ks", "categorical", COLOURS, RECOLOURED)


def test_a_test_is_passed_over_where_it_is_not_for_the_kind() -> None:
    reference = pa.table({"x": NORMAL[:400], "c": COLOURS})
    wanted = ("evidently:ks", "evidently:chisquare")
    results = evidently_statistics(
        {"x": wanted, "c": wanted}, reference, reference, {"x": "numeric", "c": "categorical"}
    )
    assert {feature: list(found) for feature, found in results.items()} == {
        "x": ["evidently:ks"],
        "c": ["evidently:chisquare"],
    }


def test_twenty_thousand_categories_are_bearable() -> None:
    many = pa.chunked_array([[f"c{i}" for i in range(20_000)]])
    other = pa.chunked_array([[f"c{i}" for i in range(10_000, 30_000)]])
    for name in ("chisquare", "psi", "jensenshannon"):
        assert evidently_statistic(name, "categorical", many, other).statistic > EVIDENTLY_TESTS[name].threshold
