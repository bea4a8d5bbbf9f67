from __future__ import annotations

import decimal
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from drift_monitor.core.classifier import (
    CATEGORIES,
    FEWEST,
    MIN_ROWS,
    RARE,
    UNSEEN,
    Encoding,
    auc,
    domain_auc,
    importances,
    live_auc,
    live_sides,
    replay,
)
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.profile import CategoricalSpec, NumericSpec

NAN = float("nan")
X = NumericSpec("x", np.array([0.0, 1.0]), 0.0, 1.0, exact=False)
T = NumericSpec("x", np.array([0.0, 1.0]), 0.0, 1.0, exact=False, kind="datetime")
C = CategoricalSpec("x", ("b", "a"))
B = CategoricalSpec("x", ("true", "false"), kind="boolean")


def normal(seed: int, n: int, d: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(n, d))


def encoded(spec: NumericSpec | CategoricalSpec, column: pa.Array | pa.ChunkedArray) -> list[float]:
    return Encoding((spec,)).matrix(pa.table({"x": column}))[:, 0].tolist()


# -- the area under the curve ----------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2).filter(
        lambda p: len({b for _, b in p}) == 2
    )
)
def test_the_auc_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    high = [s for s, live in pairs if live]
    low = [s for s, live in pairs if not live]
    expected = sum((h > s) + (h == s) / 2 for h in high for s in low) / (len(high) * len(low))
    found = auc(np.array([float(s) for s, _ in pairs]), np.array([live for _, live in pairs]))
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_auc_is_that_of_scikit_learn() -> None:
    scores = np.round(normal(0, 5000, 1)[:, 0], 2)
    live = np.random.default_rng(1).random(5000) < 0.1
    assert auc(scores, live) == pytest.approx(roc_auc_score(live, scores), abs=1e-12)


# -- the classifier --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "m"), [(2000, 2000), (3000, 400), (400, 3000)])
def test_without_drift_the_auc_is_near_one_half(n: int, m: int, seed: int) -> None:
    found = domain_auc(normal(seed, n), normal(seed + 100, m), seed=seed)
    assert found == pytest.approx(0.5, abs=4 * np.sqrt((n + m + 1) / (12 * n * m)))


@pytest.mark.parametrize(("n", "m"), [(2000, 2000), (3000, 400), (400, 3000)])
def test_a_plain_shift_is_seen(n: int, m: int) -> None:
    shifted = normal(1, m)
    shifted[:, 3] += 3
    # the best possible: P(N(3, 1) > N(0, 1)) = Phi(3 / sqrt 2) = .983
    assert 0.95 < domain_auc(normal(0, n), shifted, seed=0) < 0.99


def test_a_correlation_that_is_gone_is_seen() -> None:
    reference, current = normal(0, 3000), normal(1, 1000)
    reference[:, 1] = 0.9 * reference[:, 0] + np.sqrt(1 - 0.81) * reference[:, 1]
    assert domain_auc(reference, current, seed=0) > 0.75
    assert list(importances(reference, current, "abcde", seed=0))[:2] in (["a", "b"], ["b", "a"])


def test_the_importances_name_the_column_that_moved() -> None:
    current = normal(1, 600)
    current[:, 3] += 1
    found = importances(normal(0, 2000), current, ["a", "b", "c", "d", "e"], seed=0)
    falls = list(found.values())
    assert next(iter(found)) == "d"
    assert falls == sorted(falls, reverse=True)
    assert falls[0] > 0.15
    assert 0 <= falls[-1] <= falls[1] < 0.02


def test_importances_leave_their_input_alone() -> None:
    reference, current = normal(0, 300), normal(1, 300)
    before = reference.copy(), current.copy()
    importances(reference, current, "abcde", seed=0)
    assert (reference == before[0]).all()
    assert (current == before[1]).all()


def test_the_same_input_gives_the_same_bits_on_any_number_of_threads() -> None:
    reference, current = normal(0, 1500, 12), normal(1, 400, 12)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002 - that nothing touches it is what is tested
    found = set()
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="openmp"):
            falls = importances(reference, current, "abcdefghijkl", seed=3)
            found.add((domain_auc(reference, current, seed=3), tuple(falls.items())))
    assert len(found) == 1
    assert domain_auc(reference, current, seed=4) != domain_auc(reference, current, seed=3)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_an_increasing_transform_of_a_column_changes_nothing() -> None:
    reference, current = normal(0, 1000), normal(1, 500)
    moved = [np.column_stack([np.exp(3 * side[:, 0]), side[:, 1:]]) for side in (reference, current)]
    assert domain_auc(moved[0], moved[1], seed=0) == domain_auc(reference, current, seed=0)


@pytest.mark.parametrize("value", [0.0, 1e300, NAN])
def test_where_nothing_varies_the_sides_are_alike(value: float) -> None:
    reference, current = np.full((500, 2), value), np.full((200, 2), value)
    assert domain_auc(reference, current, seed=0) == 0.5
    assert importances(reference, current, "ab", seed=0) == {"a": 0.0, "b": 0.0}


@pytest.mark.parametrize(("n", "m"), [(FEWEST - 1, 500), (500, FEWEST - 1), (0, 0), (500, 0)])
def test_too_few_rows_tell_nothing(n: int, m: int) -> None:
    reference, current = normal(0, n), normal(1, m) + 100
    assert domain_auc(reference, current, seed=0) == 0.5
    assert set(importances(reference, current, "abcde", seed=0).values()) == {0.0}


def test_the_fewest_rows_tell_something() -> None:
    assert domain_auc(normal(0, FEWEST), normal(1, FEWEST) + 100, seed=0) > 0.95


def test_no_features_tell_nothing() -> None:
    assert domain_auc(np.empty((500, 0)), np.empty((500, 0)), seed=0) == 0.5
    assert importances(np.empty((500, 0)), np.empty((500, 0)), [], seed=0) == {}


def test_a_missing_value_is_a_value() -> None:
    reference, current = normal(0, 1000), normal(1, 1000)
    current[:500, 2] = NAN
    assert domain_auc(reference, current, seed=0) > 0.7
    current[:, 2] = NAN
    assert domain_auc(reference, current, seed=0) == 1
    reference[:, 2] = NAN
    assert domain_auc(reference, current, seed=0) == pytest.approx(0.5, abs=0.06)


def test_a_constant_feature_has_no_importance() -> None:
    reference, current = normal(0, 500), normal(1, 500)
    reference[:, 1] = current[:, 1] = 7
    current[:, 0] += 2
    found = importances(reference, current, "abcde", seed=0)
    assert found["b"] == 0
    assert next(iter(found)) == "a"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, d\) and \(m, d\), but they have \(9, 5\) and \(8, 4\)"):
        domain_auc(normal(0, 9), normal(0, 8, 4), seed=0)
    with pytest.raises(ValueError, match=r"as many, but there are 2 and 5"):
        importances(normal(0, 9), normal(0, 8), "ab", seed=0)


# -- rows as numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        *(pa.array([2, None, 0], dtype) for dtype in (pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64())),
        pa.array([2.0, None, 0.0], pa.float32()),
        pa.array([2.0, None, 0.0], pa.float64()),
        pa.array(np.array([2, 0, 0], np.float16), pa.float16(), mask=np.array([False, True, False])),
        pa.array([decimal.Decimal(2), None, decimal.Decimal(0)], pa.decimal128(9, 2)),
        pa.array([2, None, 0]).dictionary_encode(),
        pa.array([9, 2, None, 0])[1:],
        pa.chunked_array([pa.array([2]), pa.array([], pa.int64()), pa.array([None, 0], pa.int64())]),
        pa.array([2.0, NAN, 0.0]),
        pa.array([2.0, float("inf"), 0.0]),
        pa.array([2.0, -float("inf"), -0.0]),
    ],
    ids=lambda column: str(column.type),
)
def test_numbers(column: pa.Array) -> None:
    assert encoded(X, column) == pytest.approx([2.0, NAN, 0.0], nan_ok=True)


def test_truth_values_as_numbers() -> None:
    assert encoded(X, pa.array([True, None, False])) == pytest.approx([1.0, NAN, 0.0], nan_ok=True)


def test_a_change_of_storage_is_no_drift() -> None:
    values = [0.1, 0.7, 1e300]
    assert encoded(X, pa.array(values[:2], pa.float32())) == encoded(X, pa.array(values))[:2]
    assert np.isfinite(encoded(X, pa.array(values))).all()


@pytest.mark.parametrize(
    "column",
    [
        *(
            pa.array([datetime(2025, 1, 2, tzinfo=UTC), None], pa.timestamp(u, "UTC"))
            for u in ("s", "ms", "us", "ns")
        ),
        pa.array([datetime(2025, 1, 2), None], pa.timestamp("us")),
        pa.array([date(2025, 1, 2), None], pa.date32()),
        pa.array([date(2025, 1, 2), None], pa.date64()),
    ],
    ids=lambda column: str(column.type),
)
def test_datetimes(column: pa.Array) -> None:
    assert encoded(T, column) == pytest.approx([datetime(2025, 1, 2, tzinfo=UTC).timestamp(), NAN], nan_ok=True)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b", "c"], pa.string()),
        pa.array(["a", None, "b", "c"], pa.large_string()),
        pa.array(["a", None, "b", "c"], pa.string_view()),
        pa.array(["a", None, "b", "c"]).dictionary_encode(),
        pa.array(["z", "a", None, "b", "c"]).dictionary_encode()[1:],
        pa.DictionaryArray.from_arrays(pa.array([3, 2, 1, 0], pa.int8()), pa.array(["c", "b", None, "a"])),
        pa.chunked_array([["a", None], ["b", "c"]]),
    ],
    ids=lambda column: str(column.type),
)
def test_categories(column: pa.Array) -> None:
    assert encoded(C, column) == pytest.approx([1.0, NAN, 0.0, UNSEEN], nan_ok=True)


def test_whole_numbers_and_truth_values_as_categories() -> None:
    assert encoded(CategoricalSpec("x", ("7", "-1")), pa.array([-1, 7, None, 0], pa.int16())) == pytest.approx(
        [1.0, 0.0, NAN, UNSEEN], nan_ok=True
    )
    assert encoded(B, pa.array([False, True, None])) == pytest.approx([1.0, 0.0, NAN], nan_ok=True)


def test_rare_and_unseen_categories() -> None:
    names = tuple(f"c{i}" for i in range(CATEGORIES + 5))
    column = pa.array([names[CATEGORIES - 1], names[CATEGORIES], names[-1], "new"])
    assert encoded(CategoricalSpec("x", names), column) == [CATEGORIES - 1, RARE, RARE, UNSEEN]
    assert encoded(CategoricalSpec("x", names, complete=False), column) == [CATEGORIES - 1, RARE, RARE, RARE]


@pytest.mark.parametrize("spec", [X, T, C, B], ids=lambda spec: spec.kind)
def test_a_column_without_values(spec: NumericSpec | CategoricalSpec) -> None:
    assert encoded(spec, pa.nulls(2)) == pytest.approx([NAN, NAN], nan_ok=True)
    assert encoded(spec, pa.chunked_array([], pa.null())) == []


def test_only_the_features_are_read_in_the_order_of_the_specs() -> None:
    table = pa.table({"id": [[1], [2]], "x": [1.0, 2.0], "y": ["b", "a"]})
    encoding = Encoding((CategoricalSpec("y", ("a", "b")), X))
    assert encoding.names == ("y", "x")
    assert encoding.matrix(table).tolist() == [[1, 1], [0, 2]]


def test_columns_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(SchemaError, match="no column 'x'; they have y, z"):
        Encoding((X,)).matrix(pa.table({"y": [1], "z": [2]}))
    with pytest.raises(SchemaError, match="'x' of string cannot be read as numeric"):
        Encoding((X,)).matrix(pa.table({"x": ["1"]}))


# -- the replay ------------------------------------------------------------------------------------------


def days_of(lengths: dict[int, int]) -> np.ndarray[Any, Any]:
    return np.repeat(np.array(list(lengths), np.int64), list(lengths.values()))


def test_the_replay_leaves_out_the_block_around_the_day() -> None:
    """Days 5 to 11 have values of their own: only against a reference without all seven is day 8 told apart."""
    days = days_of(dict.fromkeys(range(16), 100))
    x = normal(0, len(days), 1)[:, 0] + np.where((days >= 5) & (days <= 11), 100, 0)
    table = pa.table({"x": x})
    found = replay(table, days, Encoding((X,)), rows=100, seed=0)
    assert list(found) == list(range(16))
    assert found[8] > 0.99
    # of the seven only day 11 is in what day 7 is compared with: 100 rows of 900, as likely as the day's own
    assert found[7] == pytest.approx(1 - 0.5 / 9, abs=0.02)
    even = replay(table, days, Encoding((X,)), rows=100, gap_days=6, seed=0)
    assert even == found  # three days on either side are the most that six are centred on
    narrow = replay(
        table.filter(pa.array(days < 12)), days[days < 12], Encoding((X,)), rows=100, gap_days=1, seed=0
    )
    # six of the eleven other days are like day 8
    assert narrow[8] == pytest.approx(1 - 0.5 * 6 / 11, abs=0.05)


def test_without_drift_every_day_is_near_one_half() -> None:
    days = days_of(dict.fromkeys(range(12), 200))
    found = replay(pa.table({"x": normal(0, 2400, 1)[:, 0]}), days, Encoding((X,)), rows=200, seed=0)
    assert np.mean(list(found.values())) == pytest.approx(0.5, abs=0.02)


def test_small_days_are_left_out_and_progress_is_told() -> None:
    days = days_of({-400: 500, 0: MIN_ROWS, 50: MIN_ROWS - 1, 90: 300})
    table = pa.table({"x": normal(0, len(days), 1)[:, 0]})
    told: list[tuple[int, int]] = []
    found = replay(table, days, Encoding((X,)), rows=80, seed=0, progress=lambda *at: told.append(at))
    assert list(found) == [-400, 0, 90]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_reference_of_a_week_has_nothing_to_compare_its_days_with() -> None:
    days = days_of(dict.fromkeys(range(4), 200))
    assert replay(pa.table({"x": np.zeros(800)}), days, Encoding((X,)), rows=200, seed=0) == {}
    assert replay(pa.table({"x": np.zeros(0)}), days[:0], Encoding((X,)), rows=200, seed=0) == {}


def test_a_live_day_is_treated_as_a_day_of_the_replay() -> None:
    days = days_of({0: 300, 1: 300, 2: 250, 50: 400})
    table = pa.table({"x": normal(0, len(days), 1)[:, 0], "day": days})
    parts = table.filter(pa.array(days != 50)), table.filter(pa.array(days == 50))
    found = replay(table, days, Encoding((X,)), rows=200, most_reference=600, seed=5)
    live = live_auc(*parts, Encoding((X,)), rows=200, most_reference=600, seed=5)
    assert found[50] == live
    sides = live_sides(*parts, Encoding((X,)), rows=200, most_reference=600, seed=5)
    assert [side.shape for side in sides] == [(600, 1), (200, 1)]
    assert domain_auc(*sides, seed=5) == live


def test_rows_are_chosen_by_the_seed() -> None:
    encoding = Encoding((X,))
    sample, live = (pa.table({"x": np.arange(n, dtype=float)}) for n in (1000, 500))
    one, again, other = (
        live_sides(sample, live, encoding, rows=100, most_reference=200, seed=seed) for seed in (1, 1, 2)
    )
    for side in (0, 1):
        assert (one[side] == again[side]).all()
        assert (one[side] != other[side]).any()
        assert (np.diff(one[side][:, 0]) > 0).all()  # no row twice, and in their order
    whole = live_sides(sample, live, encoding, rows=500, most_reference=1000, seed=1)
    assert [side.shape for side in whole] == [(1000, 1), (500, 1)]


def test_days_that_do_not_fit_the_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"should have shape \(3,\).* has \(2,\)"):
        replay(pa.table({"x": [1.0, 2.0, 3.0]}), np.array([1, 2]), Encoding((X,)), rows=1, seed=0)
