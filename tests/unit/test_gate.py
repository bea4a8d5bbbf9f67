"""The gate: by hand, and on data where it is known whether weights help."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.tree import DecisionTreeClassifier

from drift_monitor.core.classifier import Encoding
from drift_monitor.core.gate import Target, compared, cross_validated, fit, held_out, on_live, predict
from drift_monitor.core.learner import CELLS, MISSING, Cells
from drift_monitor.core.profile import CategoricalSpec, Floats, NumericSpec
from drift_monitor.core.relation import relation
from drift_monitor.core.weights_model import folds_of


def curve(rows: int, shift: float, seed: int) -> tuple[Floats, Floats, Floats]:
    """Rows whose label is a curve, and the true ratio of N(shift, 1) to N(0, 1)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2))
    y = x[:, 0] ** 2 + 0.3 * rng.normal(size=rows)
    return x, y, np.exp(shift * x[:, 0] - shift**2 / 2)


def test_losses_gain_and_standard_error_by_hand() -> None:
    wanted, plain, weighed = (np.array(v)[:, None] for v in ([0.0, 0.0, 1.0], [1.0, 2.0, 1.0], [1.0, 0.0, 0.0]))
    w = np.array([1.0, 1.0, 2.0])
    found = compared("cross-validation", wanted, plain, weighed, w)
    # losses 1, 4, 0 and 1, 0, 1; gains 0, 4, -1; shares 1/4, 1/4, 1/2
    assert found.unweighted == pytest.approx(1.25)
    assert found.weighted == pytest.approx(0.75)
    assert found.gain == pytest.approx(0.5)
    assert found.error == pytest.approx(math.sqrt((0.25 + 12.25) / 16 + 2.25 / 4))
    assert found.relative == pytest.approx(0.4)
    assert not found.helps


def test_a_rigid_learner_is_helped_and_a_flexible_one_is_not() -> None:
    x, y, w = curve(1000, 1.0, 0)
    folds = folds_of(np.arange(1000), seed=0)
    assert cross_validated(Ridge, x, Target(y, 0), w, folds).helps
    flexible = lambda: HistGradientBoostingRegressor(max_iter=40, random_state=0)  # noqa: E731
    assert not cross_validated(flexible, x, Target(y, 0), w, folds).helps


def test_equal_weights_change_nothing_and_nothing_is_no_help() -> None:
    x, y, _ = curve(300, 1.0, 1)
    found = cross_validated(Ridge, x, Target(y, 0), np.full(300, 0.7), folds_of(np.arange(300), seed=0))
    assert found.gain == pytest.approx(0, abs=1e-12)
    assert not found.helps


def test_the_scale_of_the_weights_does_not_matter() -> None:
    x, y, w = curve(400, 0.5, 2)
    folds = folds_of(np.arange(400), seed=0)
    a, b = (cross_validated(Ridge, x, Target(y, 0), c * w, folds) for c in (1, 1000))
    assert a.gain == pytest.approx(b.gain)
    assert a.error == pytest.approx(b.error)


def test_labelled_live_rows_agree_with_cross_validation() -> None:
    x, y, w = curve(3000, 1.0, 3)
    rng = np.random.default_rng(4)
    live = rng.normal(size=(3000, 2)) + np.array([1.0, 0.0])
    labels = live[:, 0] ** 2 + 0.3 * rng.normal(size=3000)
    found = on_live(Ridge, x, Target(y, 0), w, live, Target(labels, 0))
    guess = cross_validated(Ridge, x, Target(y, 0), w, folds_of(np.arange(3000), seed=0))
    assert found.helps
    assert found.basis == "live labels"
    assert abs(found.gain - guess.gain) < 4 * guess.error


def test_the_loss_of_classes_is_briers() -> None:
    target = Target(np.array([0, 1, 2, 1]), 3)
    chances = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [0.2, 0.2, 0.6], [1, 0, 0]])
    found = compared("live labels", target.wanted, chances, chances, np.ones(4))
    assert found.unweighted == pytest.approx((0 + 0.5 + 0.24 + 2) / 4)


@pytest.mark.parametrize("make", [LogisticRegression, DecisionTreeClassifier, RidgeClassifier])
def test_classes_are_predicted_with_chances_that_sum_to_one(make: Any) -> None:
    x, y, _ = curve(200, 0, 5)
    target = Target((y > 1).astype(np.int64) * 2, 3)  # class 1 never occurs
    found = predict(fit(make, x, target, np.ones(200)), x, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert not found[:, 1].any()


def test_a_fold_with_one_class_predicts_it() -> None:
    x = np.zeros((20, 1))
    found, elsewhere = held_out(
        LogisticRegression, x, Target(np.zeros(20, np.int64), 2), None, np.arange(20) % 2, x[:3]
    )
    assert found.tolist() == [[1.0, 0.0]] * 20
    assert elsewhere.tolist() == [[1.0, 0.0]] * 3


def test_rows_without_weight_are_left_out_of_the_fit() -> None:
    x = np.array([[0.0], [1.0], [2.0], [np.inf]])  # a learner would refuse the last one
    model = fit(Ridge, x, Target(np.arange(4.0), 0), np.array([1.0, 1.0, 1.0, 0.0]))
    assert np.isfinite(model.coef_).all()


# -- cells -----------------------------------------------------------------------------------------------


def test_cells_keep_the_order_and_the_missing_ones() -> None:
    rng = np.random.default_rng(6)
    numbers = rng.normal(size=5000)
    specs = (
        NumericSpec.fit("x", numbers),
        CategoricalSpec.fit("c", {"a": 2, "b": 1}),
        NumericSpec.fit("n", numbers),
    )
    rows = np.column_stack((numbers, rng.integers(0, 2, 5000), np.full(5000, np.nan)))
    cells = Cells.fit(Encoding(specs), rows)
    found = cells.values(rows)
    assert len(np.unique(found[:, 0])) == CELLS
    assert (np.diff(found[np.argsort(numbers), 0]) >= 0).all()
    np.testing.assert_array_equal(found[:, 1], rows[:, 1])
    assert (found[:, 2] == MISSING).all()  # and scikit-learn has no trouble with it
    fit(cells.learner(classifier=False, seed=0), found, Target(numbers, 0), np.ones(5000))


# -- the relation ----------------------------------------------------------------------------------------


def residuals(shift: float, change: float, seed: int, rows: int = 3000) -> Any:
    """What a straight line leaves of a curve, on training rows and on live rows whose label moved by `change`."""
    x, y, w = curve(rows, shift, seed)
    rng = np.random.default_rng(seed + 1000)
    live = rng.normal(size=(rows, 2)) + np.array([shift, 0.0])
    labels = live[:, 0] ** 2 + change * live[:, 1] + 0.3 * rng.normal(size=rows)
    line = Ridge().fit(x, y)
    return relation((y - line.predict(x))[:, None], w, x, (labels - line.predict(live))[:, None], live, ("a", "b"))


def test_a_bad_predictor_under_a_shift_of_the_features_alone_is_no_change_of_the_relation() -> None:
    found = [residuals(0.5, 0.0, seed) for seed in range(20)]
    assert sum(each.matters for each in found) == 0


def test_a_change_of_the_relation_is_found_along_the_column_that_changed() -> None:
    found = residuals(0.5, 0.5, 0)
    assert found.matters
    assert found.where == "b"
    assert found.change > 0.1


def test_a_certain_but_tiny_change_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    train, live = rng.normal(size=(400_000, 1)), rng.normal(size=(400_000, 1)) + 0.03
    found = relation(train, np.ones(400_000), train[:, :0], live, live[:, :0], ())
    assert found is not None
    assert abs(found.score) > found.limit
    assert found.change == pytest.approx(0.03, abs=0.01)
    assert not found.matters


def test_residuals_that_are_all_zero_tell_nothing() -> None:
    zeros = np.zeros((30, 1))
    assert relation(zeros, np.ones(30), zeros, zeros, zeros, ("a",)) is None
