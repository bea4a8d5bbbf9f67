"""Raking against a minimisation by scipy, a closed form, and tables of a textbook."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from drift_monitor.core.classifier import RARE, UNSEEN
from drift_monitor.core.profile import CategoricalSpec, Floats, NumericSpec
from drift_monitor.core.raking import Margin, Raking, rake


def rows_of(table: Floats) -> Floats:
    """One row for each unit of a two-way table."""
    return np.array([[i, j] for (i, j), count in np.ndenumerate(table) for _ in range(int(count))], float)


def margins_of(rows: Floats, shares: tuple[Floats, Floats]) -> list[Margin]:
    """Categories 0, 1, ... of two columns, with the live shares as given (whole numbers a thousand)."""
    found = []
    for j, target in enumerate(shares):
        spec = CategoricalSpec.fit(f"c{j}", {f"v{k}": 100 - k for k in range(len(target))})
        live = np.repeat(np.arange(len(target), dtype=float), np.round(np.asarray(target) * 1000).astype(int))
        found.append(Margin.fit(j, spec, rows[:, j], live))
    return found


def fitted_table(rows: Floats, raking: Raking, shape: tuple[int, int]) -> Floats:
    found = np.zeros(shape)
    np.add.at(found, (rows[:, 0].astype(int), rows[:, 1].astype(int)), raking.weights(rows))
    return found


# A table and its known totals from Ardilly & Tille (2006), Sampling methods: exercises and solutions, on raking;
# also the example of the function IPFP of the R package TeachingSampling.
TABLE = np.array([[80.0, 170, 150], [90, 80, 210], [10, 80, 130]])
ROW_TOTALS, COLUMN_TOTALS = np.array([430.0, 360, 210]), np.array([150.0, 300, 550])


def test_a_textbooks_table_is_adjusted_to_its_known_totals() -> None:
    rows = rows_of(TABLE)
    found = rake(margins_of(rows, (ROW_TOTALS / 1000, COLUMN_TOTALS / 1000)), rows)
    table = fitted_table(rows, found, (3, 3))
    assert found.converged
    np.testing.assert_allclose(table.sum(axis=1), ROW_TOTALS, rtol=1e-4)
    np.testing.assert_allclose(table.sum(axis=0), COLUMN_TOTALS, rtol=1e-4)
    # cross-product ratios are those of the table before (Bishop, Fienberg & Holland 1975)
    for i in (1, 2):
        for j in (1, 2):
            before = TABLE[0, 0] * TABLE[i, j] / TABLE[0, j] / TABLE[i, 0]
            assert table[0, 0] * table[i, j] / table[0, j] / table[i, 0] == pytest.approx(before)


def test_it_is_the_nearest_table_with_these_totals() -> None:
    # Ireland & Kullback (1968): the minimum of sum p log(p / q); here by scipy, on the four free cells
    rows = rows_of(TABLE)
    table = fitted_table(rows, rake(margins_of(rows, (ROW_TOTALS / 1000, COLUMN_TOTALS / 1000)), rows), (3, 3))

    def whole(free: Floats) -> Floats:
        found = np.empty((3, 3))
        found[:2, :2] = free.reshape(2, 2)
        found[:2, 2] = ROW_TOTALS[:2] - found[:2, :2].sum(axis=1)
        found[2] = COLUMN_TOTALS - found[:2].sum(axis=0)
        return found

    def distance(free: Floats) -> float:
        p = whole(free)
        return float((p * np.log(p / TABLE)).sum()) if p.min() > 0 else 1e9

    start = (ROW_TOTALS[:, None] * COLUMN_TOTALS / 1000)[:2, :2].ravel()
    best = minimize(
        distance, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12, "maxiter": 9999}
    )
    np.testing.assert_allclose(table, whole(best.x), rtol=1e-4)


def test_two_by_two_is_the_root_of_a_quadratic() -> None:
    # with totals a, b and the cross-product ratio r, the first cell x solves x (1 - a - b + x) = r (a - x) (b - x)
    before, a, b = np.array([[40.0, 20], [10, 30]]), 0.3, 0.6
    ratio = 40 * 30 / (20 * 10)
    roots = np.roots([1 - ratio, 1 - a - b + ratio * (a + b), -ratio * a * b])
    x = next(r for r in roots if 0 < r < min(a, b))
    rows = rows_of(before)
    table = fitted_table(rows, rake(margins_of(rows, (np.array([a, 1 - a]), np.array([b, 1 - b]))), rows), (2, 2))
    assert table[0, 0] / 100 == pytest.approx(x, abs=1e-5)


def test_one_column_needs_one_round_and_its_factors_are_the_ratios_of_shares() -> None:
    rows = np.array([[0.0]] * 75 + [[1.0]] * 25)
    spec = CategoricalSpec.fit("carrier", {"UA": 75, "AA": 25})
    live = np.array([0.0] * 30 + [1.0] * 30)
    found = rake([Margin.fit(0, spec, rows[:, 0], live)], rows)
    by = {each.cell: each.factor for each in found.table()}
    assert by == {"carrier=UA": pytest.approx(0.5 / 0.75), "carrier=AA": pytest.approx(2.0)}
    assert found.rounds == 1
    assert found.weights(rows).mean() == pytest.approx(1)


def test_a_cell_without_training_rows_is_told_and_the_others_are_shares_of_the_rest() -> None:
    rows = np.array([[0.0]] * 50 + [[1.0]] * 50)
    spec = CategoricalSpec.fit("carrier", {"UA": 50, "AA": 50})
    live = np.array([0.0] * 60 + [1.0] * 20 + [np.nan] * 20)
    found = rake([Margin.fit(0, spec, rows[:, 0], live)], rows)
    assert found.unreachable == pytest.approx(0.2)
    assert found.weights(rows)[:50].sum() / 100 == pytest.approx(0.6 / 0.8)


def test_a_cell_without_live_rows_gets_no_weight() -> None:
    rows = np.array([[0.0]] * 50 + [[1.0]] * 50)
    spec = CategoricalSpec.fit("carrier", {"UA": 50, "AA": 50})
    found = rake([Margin.fit(0, spec, rows[:, 0], np.zeros(80))], rows)
    assert found.weights(np.array([[1.0]])).tolist() == [0.0]
    assert found.converged


def test_columns_that_contradict_each_other_do_not_converge_and_it_is_said_by_how_much() -> None:
    # the columns are the same in training, so no weights can give them different shares
    rows = np.repeat([[0.0, 0.0], [1.0, 1.0]], 50, axis=0)
    found = rake(margins_of(rows, (np.array([0.8, 0.2]), np.array([0.3, 0.7]))), rows, rounds=40)
    assert not found.converged
    assert found.rounds == 40
    assert found.error == pytest.approx(0.5)


def test_no_common_value_is_an_error_that_names_the_column() -> None:
    rows = np.zeros((50, 1))
    spec = CategoricalSpec.fit("carrier", {"UA": 50})
    with pytest.raises(ValueError, match="no live row has a value of 'carrier'"):
        rake([Margin.fit(0, spec, rows[:, 0], np.full(9, UNSEEN))], rows)


def test_numbers_are_cut_at_quantiles_and_labels_say_where() -> None:
    rng = np.random.default_rng(0)
    rows, live = rng.normal(size=(5000, 1)), rng.normal(0.5, 1, size=4000)
    live[:100] = np.nan
    margin = Margin.fit(0, NumericSpec.fit("temp", rows[:, 0]), rows[:, 0], live)
    shares = np.bincount(margin.place(rows[:, 0]), minlength=11) / 5000
    np.testing.assert_allclose(shares[:10], 0.1, atol=0.001)
    assert margin.labels[0].startswith("temp up to -1.2")
    assert margin.labels[-1] == "temp is missing"
    found = rake([margin], rows)
    w = found.weights(rows)
    assert w @ rows[:, 0] / w.sum() == pytest.approx(np.nanmean(live), abs=0.06)  # bins leave a part of it
    assert found.unreachable == pytest.approx(0.025)


def test_few_distinct_numbers_have_a_cell_each() -> None:
    rows = np.repeat([0.0, 1.0, 2.0], [60, 30, 10])
    margin = Margin.fit(0, NumericSpec.fit("stops", rows), rows, np.repeat([0.0, 1.0, 2.0], 20))
    assert len(set(margin.place(np.array([0.0, 1.0, 2.0])).tolist())) == 3
    one = Margin.fit(0, NumericSpec.fit("one", np.ones(5)), np.ones(5), np.ones(5))
    assert one.labels == ("one", "one is missing")


def test_rare_categories_are_raked_together_and_new_ones_with_them() -> None:
    rng = np.random.default_rng(1)
    training = np.where(rng.random(5000) < 0.02, RARE, rng.integers(0, 3, 5000)).astype(float)
    spec = CategoricalSpec.fit("dest", {f"<b>{k}</b>": 100 - k for k in range(40)})
    margin = Margin.fit(0, spec, training, np.append(training[:1000], [UNSEEN] * 50))
    assert margin.labels[:3] == ("dest=<b>0</b>", "dest=<b>1</b>", "dest=<b>2</b>")
    assert margin.place(np.array([UNSEEN, 17.0])).tolist() == [len(margin.labels) - 2] * 2


def test_groups_are_the_cells_of_all_columns_with_their_weight() -> None:
    rows = rows_of(TABLE)
    found = rake(margins_of(rows, (ROW_TOTALS / 1000, COLUMN_TOTALS / 1000)), rows)
    group = next(g for g in found.groups if g.cells == ("c0=v2", "c1=v0"))
    assert group.share == pytest.approx(0.01)
    assert group.weight == pytest.approx(found.weights(np.array([[2.0, 0.0]]))[0])
