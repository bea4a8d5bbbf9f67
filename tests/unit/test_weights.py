"""Weights and their diagnostics, by formulas of others and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from drift_monitor.core.classifier import Encoding
from drift_monitor.core.design import MOST, Design
from drift_monitor.core.profile import CategoricalSpec, Floats, NumericSpec
from drift_monitor.core.weights import (
    Sums,
    differences,
    effective_sample_size,
    relative,
    weighted_auc,
    worst_by_feature,
)
from drift_monitor.core.weights_model import FOLDS, WeightsModel, folds_of


def encoding(*columns: Floats) -> Encoding:
    return Encoding(tuple(NumericSpec.fit(f"x{j}", column) for j, column in enumerate(columns)))


def design_of(training: Floats, live: Floats) -> Design:
    return Design.fit(encoding(*training.T), training, live)


def test_kish_by_his_own_formula_of_the_spread_of_the_weights() -> None:
    # Kish (1992): n_eff = n / (1 + cv^2), with the squared coefficient of variation of the weights
    w = np.array([0.5, 1.0, 1.0, 4.0, 2.5])
    assert effective_sample_size(w) == pytest.approx(5 / (1 + w.var() / w.mean() ** 2))


def test_equal_weights_are_worth_all_rows_and_one_weight_is_worth_one() -> None:
    assert effective_sample_size(np.full(7, 0.3)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, 0.0, 9.0])) == pytest.approx(1)


def test_relative_weights_are_those_of_the_mixture() -> None:
    # r = p/q; weights against the mixture mix p + (1 - mix) q
    p, q, mix = 0.3, 0.05, 0.2
    assert relative(np.array([p / q]), mix)[0] == pytest.approx(p / (mix * p + (1 - mix) * q))


def test_weighted_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores, live, w = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4, rng.random(60)
    expected = roc_auc_score(live, scores, sample_weight=np.where(live, 1.0, w))
    assert weighted_auc(scores, live, w[~live]) == pytest.approx(expected)


def test_differences_by_hand() -> None:
    training, live = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[2.0], [4.0]])
    design = design_of(training, live)
    w = np.array([0.0, 0.0, 1.0, 1.0])
    (found,) = differences(design, Sums.of(design, training, w), Sums.of(design, live))
    spread = np.sqrt((1.25 + 1.0) / 2)  # population variances of either side
    assert found.before == pytest.approx((1.5 - 3) / spread)
    assert found.after == pytest.approx((2.5 - 3) / spread)


def test_categories_and_what_is_missing_have_differences_of_shares() -> None:
    spec = CategoricalSpec.fit("carrier", {"UA": 3, "AA": 1})
    training = np.array([[0.0], [0.0], [0.0], [1.0]])
    live = np.array([[0.0], [1.0], [1.0], [np.nan]])
    design = Design.fit(Encoding((spec,)), training, live)
    found = differences(design, Sums.of(design, training), Sums.of(design, live))
    by = {each.column: each.before for each in found}
    # Austin (2009): (p - q) / sqrt((p (1 - p) + q (1 - q)) / 2); no training row lacks a value
    assert by["carrier=UA"] == pytest.approx((0.75 - 0.25) / np.sqrt((0.1875 + 0.1875) / 2))
    assert by["carrier=AA"] == pytest.approx((0.25 - 0.5) / np.sqrt((0.1875 + 0.25) / 2))
    assert "carrier is missing" not in by


def test_a_mean_is_taken_where_there_is_a_value() -> None:
    training = np.array([[1.0], [3.0], [np.nan], [np.nan]])
    live = np.array([[2.0], [2.0], [np.nan], [4.0]])
    design = design_of(training, live)
    found = {d.column: d for d in differences(design, Sums.of(design, training), Sums.of(design, live))}
    spread = np.sqrt((1.0 + np.var([2, 2, 4])) / 2)
    assert found["x0"].before == pytest.approx((2 - 8 / 3) / spread)
    assert found["x0 is missing"].before > 0


def test_the_worst_column_of_each_feature_comes_first() -> None:
    rng = np.random.default_rng(1)
    training, live = rng.normal(size=(500, 3)), rng.normal(size=(500, 3)) + np.array([0.0, 2.0, 0.5])
    design = design_of(training, live)
    found = differences(design, Sums.of(design, training), Sums.of(design, live))
    assert list(worst_by_feature(found, after=False)) == ["x1", "x2", "x0"]


def test_sums_of_parts_are_the_sums_of_the_whole() -> None:
    rng = np.random.default_rng(2)
    rows, w = rng.normal(size=(90, 2)), rng.random(90)
    design = design_of(rows, rows + 1)
    whole = Sums.of(design, rows, w, cap=1.0)
    parts = Sums.of(design, rows[:0], cap=1.0)
    for part in (slice(0, 40), slice(40, 41), slice(41, 90)):
        parts = parts.merge(Sums.of(design, rows[part], w[part], cap=1.0))
    assert (parts.rows, parts.largest, parts.at_cap) == (90, w.max(), np.count_nonzero(w >= 0.9))
    assert parts.effective == pytest.approx(effective_sample_size(w))
    assert parts.design_effect == pytest.approx(90 / effective_sample_size(w))
    assert parts.skew == pytest.approx(w.max() / w.mean())
    np.testing.assert_allclose(parts.weighted, whole.weighted)
    np.testing.assert_allclose(parts.there, whole.there)


def test_no_rows_have_no_effective_ones() -> None:
    rows = np.ones((3, 1))
    design = design_of(np.arange(3.0)[:, None], rows)
    assert Sums.of(design, rows, np.zeros(3)).effective == 0


# -- the design ------------------------------------------------------------------------------------------


def test_the_design_is_finite_whatever_the_rows_hold() -> None:
    wild = np.array([3.4e38, -3.4e38, 0.0, np.nan, 1e-300, 5.0] * 20)
    training = np.column_stack((wild, np.full(120, np.nan), np.ones(120), np.arange(120.0)))
    live = training[::-1] * [1, 1, 1, -1]
    specs = [NumericSpec.fit("wild", wild), NumericSpec.fit("none", np.array([1.0]))]
    specs += [NumericSpec.fit("one", np.ones(2)), NumericSpec.fit("all", np.arange(3.0))]
    design = Design.fit(Encoding(tuple(specs)), training, live)
    assert np.isfinite(design.values(training)).all()
    assert np.isfinite(design.values(live)).all()
    assert "one" not in design.features  # it never varies
    assert "none" not in design.features


def test_a_value_of_minus_one_is_not_taken_for_a_missing_one() -> None:
    rows = np.array([[-1.0], [1.0]] * 50)
    design = design_of(rows, rows)
    assert design.labels == ("x0",)


def test_rare_categories_share_a_column_and_no_more_columns_than_are_allowed() -> None:
    rng = np.random.default_rng(3)
    specs = tuple(CategoricalSpec.fit(f"c{j}", {f"v{k}": 9 for k in range(30)}) for j in range(40))
    training, live = (rng.integers(0, 30, size=(3000, 40)).astype(float) for _ in range(2))
    design = Design.fit(Encoding(specs), training, live)
    assert len(design.columns) <= MOST
    np.testing.assert_array_equal(design.values(training).sum(axis=1), len({c.feature for c in design.columns}))


# -- the model -------------------------------------------------------------------------------------------


def fitted(shift: float, rows: int = 4000, seed: int = 4) -> tuple[WeightsModel, Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    training, live = rng.normal(size=(rows, 3)), rng.normal(size=(rows, 3)) + np.array([shift, 0.0, 0.0])
    folds = folds_of(np.arange(rows), seed=0)
    model = WeightsModel.fit(design_of(training, live), training, live, folds, seed=0)
    return model, training, live, model.ratios(training, folds)


def test_the_ratio_of_two_normals_is_recovered() -> None:
    # N(d, 1) over N(0, 1) is exp(d x - d^2 / 2)
    model, training, _, ratios = fitted(1.0)
    x = training[:, 0]
    apart = np.log(ratios) - (x - 0.5)
    inner = np.abs(x) < 1.5
    assert np.abs(apart[inner]).mean() < 0.12
    assert np.corrcoef(np.log(ratios), x)[0, 1] > 0.97
    assert ratios.mean() == pytest.approx(1, abs=0.08)
    # of two normals one standard deviation apart the AUC is Phi(1 / sqrt(2)) = 0.7602
    assert model.auc == pytest.approx(0.7602, abs=0.02)


def test_weights_move_the_mean_to_the_live_one_and_not_away_from_it() -> None:
    for shift in (1.0, -1.0):
        _, training, live, ratios = fitted(shift)
        w = relative(ratios, 0.01)
        before, now = training[:, 0].mean(), live[:, 0].mean()
        assert abs(w @ training[:, 0] / w.sum() - now) < 0.1 * abs(before - now)


def test_without_a_shift_all_weights_are_about_one() -> None:
    model, _, _, ratios = fitted(0.0)
    assert effective_sample_size(relative(ratios, 0.01)) > 0.97 * len(ratios)
    assert model.auc == pytest.approx(0.5, abs=0.03)


def test_weights_do_not_depend_on_how_many_rows_are_weighed_at_once() -> None:
    model, training, _, ratios = fitted(0.5, rows=400)
    folds = folds_of(np.arange(400), seed=0)
    in_parts = np.concatenate([model.ratios(training[i : i + 97], folds[i : i + 97]) for i in range(0, 400, 97)])
    np.testing.assert_allclose(in_parts, ratios, rtol=1e-12)


def test_the_same_rows_and_seed_give_the_same_bits() -> None:
    assert fitted(0.5, rows=300)[3].tobytes() == fitted(0.5, rows=300)[3].tobytes()


def test_a_row_is_scored_by_trees_that_have_not_seen_it() -> None:
    # rows of pure noise: trees that had seen them would tell them apart
    rng = np.random.default_rng(5)
    training, live = rng.normal(size=(300, 8)), rng.normal(size=(300, 8))
    folds = folds_of(np.arange(300), seed=0)
    model = WeightsModel.fit(design_of(training, live), training, live, folds, seed=0)
    scores = np.array([trees.decision_function(model.cells.values(training)) for trees in model.trees])
    own, seen = (scores[k, np.arange(300)] for k in (folds, (folds + 1) % FOLDS))
    assert own.mean() > seen.mean() + 0.1  # the others know these rows as training rows


def test_the_fold_of_a_row_is_the_same_in_a_sample_and_in_the_whole() -> None:
    every = folds_of(np.arange(10_000), seed=3)
    some = np.array([17, 4711, 9999])
    assert folds_of(some, seed=3).tolist() == every[some].tolist()
    assert np.bincount(every, minlength=FOLDS).min() > 1850
    assert (folds_of(np.arange(100), seed=4) != every[:100]).any()


@pytest.mark.parametrize(("n", "m"), [(39, 500), (500, 39)])
def test_too_few_rows_are_refused_with_both_numbers(n: int, m: int) -> None:
    rng = np.random.default_rng(6)
    training, live = rng.normal(size=(n, 1)), rng.normal(size=(m, 1))
    with pytest.raises(ValueError, match=rf"40 rows or more, but they have {n} and {m}"):
        WeightsModel.fit(design_of(training, live), training, live, np.zeros(n, np.int64), seed=0)


def test_a_side_that_is_another_world_still_gives_bounded_weights() -> None:
    rng = np.random.default_rng(7)
    training, live = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 1e6
    folds = folds_of(np.arange(200), seed=0)
    model = WeightsModel.fit(design_of(training, live), training, live, folds, seed=0)
    w = relative(model.ratios(training, folds), 0.01)
    assert np.isfinite(w).all()
    assert 0 <= w.min() <= w.max() <= 100
    assert model.auc == 1.0
