"""Whether weights would help: the same learner with and without them, on rows like the live ones.

Weights rescue a rigid learner, which has to choose where to be right, and cost a flexible one, which is right
wherever it has rows, some of its rows. Neither the shift nor the effective sample size tells which of the two one
has, so it is tried: in *importance-weighted cross-validation* [1] the loss of each held-out training row counts
with its weight, which makes it an estimate of the loss on live rows without a single live label. Where there are
live labels they are the stronger evidence, and decide.

References:
    [1] Sugiyama, Krauledat & Mueller (2007), Covariate shift adaptation by importance weighted cross validation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from drift_monitor.core.classifier import one_thread
from drift_monitor.core.profile import Floats, Ints

ERRORS: Final = 2.0
"""Standard errors that a gain must exceed."""
FOLDS: Final = 5
FEWEST: Final = 200
"""Labelled rows on which anything is decided."""
_NOTHING: Final = 1e-12

Learner = Callable[[], Any]
"""Makes an unfitted scikit-learn estimator; the same one each time."""


@dataclass(frozen=True, eq=False)
class Target:
    """Labels as numbers.

    Attributes:
        y: what the learner is fitted on: a number a row, or a class from 0, shape (n,).
        classes: how many; 0 for a regression.
    """

    y: Floats | Ints
    classes: int

    def take(self, rows: npt.NDArray[Any]) -> Target:
        """Of some rows."""
        return Target(self.y[rows], self.classes)

    @property
    def wanted(self) -> Floats:
        """What a prediction is compared with: the number, or 1 in the column of the class, shape (n, k)."""
        if not self.classes:
            return np.asarray(self.y, np.float64)[:, None]
        return np.asarray(self.y[:, None] == np.arange(self.classes), np.float64)


@dataclass(frozen=True)
class Evidence:
    """The same learner without and with weights, compared row by row.

    Attributes:
        basis: held-out training rows that count with their weights, or labelled live rows.
        rows: that were predicted.
        unweighted, weighted: mean loss: squared error, or Brier's score of a classification.
        gain: the difference.
        error: its standard error.
    """

    basis: Literal["cross-validation", "live labels"]
    rows: int
    unweighted: float
    weighted: float
    gain: float
    error: float

    @property
    def helps(self) -> bool:
        """Whether the gain is more than chance would make it, and more than nothing."""
        return self.gain > ERRORS * self.error and self.gain > _NOTHING * abs(self.unweighted)

    @property
    def relative(self) -> float:
        """The gain as a share of the loss without weights."""
        return self.gain / self.unweighted if self.unweighted > 0 else 0.0


def held_out(
    learner: Learner, columns: Floats, target: Target, weights: Floats | None, folds: Ints, elsewhere: Floats
) -> tuple[Floats, Floats]:
    """Predictions of training rows by models that have not seen them, and of other rows by the mean of all.

    Args:
        learner: makes the estimator.
        columns: of the training rows, shape (n, c).
        target: their labels.
        weights: to fit with, shape (n,); None for none.
        folds: of the rows, from 0, shape (n,).
        elsewhere: columns of other rows, shape (m, c); m may be 0.

    Returns:
        Shapes (n, k) and (m, k): a number, or the chance of each class.
    """
    found = np.zeros_like(target.wanted)
    mean = np.zeros((len(elsewhere), found.shape[1]))
    numbers = np.unique(folds).tolist()
    for k in numbers:
        seen, held = folds != k, folds == k
        fitted = fit(learner, columns[seen], target.take(seen), None if weights is None else weights[seen])
        found[held] = predict(fitted, columns[held], target.classes)
        if len(elsewhere):
            mean += predict(fitted, elsewhere, target.classes) / len(numbers)
    return found, mean


def compared(
    basis: Literal["cross-validation", "live labels"],
    wanted: Floats,
    plain: Floats,
    weighed: Floats,
    weights: Floats,
) -> Evidence:
    """The mean losses without and with weights, and the standard error of the gain, as of a ratio of two means.

    Args:
        basis: what the rows are.
        wanted: `Target.wanted` of the rows, shape (n, k).
        plain: predictions by what was fitted without weights, shape (n, k).
        weighed: with weights, shape (n, k).
        weights: with which the loss of each row counts, shape (n,), not all 0.
    """
    share = weights / weights.sum()
    before, after = (((wanted - predicted) ** 2).sum(axis=1) for predicted in (plain, weighed))
    gains = before - after
    gain = float(share @ gains)
    error = math.sqrt(float((share**2) @ (gains - gain) ** 2))
    return Evidence(basis, len(wanted), float(share @ before), float(share @ after), gain, error)


def cross_validated(learner: Learner, columns: Floats, target: Target, weights: Floats, folds: Ints) -> Evidence:
    """Importance-weighted cross-validation of weighting itself; arguments as for `held_out`."""
    none = columns[:0]
    plain, weighed = (held_out(learner, columns, target, w, folds, none)[0] for w in (None, weights))
    return compared("cross-validation", target.wanted, plain, weighed, weights)


def on_live(
    learner: Learner, columns: Floats, target: Target, weights: Floats, live: Floats, labels: Target
) -> Evidence:
    """Both learners, fitted on all training rows, on labelled live rows.

    Args:
        learner: makes the estimator.
        columns: of the training rows, shape (n, c).
        target: their labels.
        weights: shape (n,).
        live: columns of the live rows, shape (m, c).
        labels: of these.
    """
    plain, weighed = (predict(fit(learner, columns, target, w), live, target.classes) for w in (None, weights))
    return compared("live labels", labels.wanted, plain, weighed, np.ones(len(live)))


def fit(learner: Learner, columns: Floats, target: Target, weights: Floats | None) -> Any:
    """An estimator fitted without weights or with weights that average to 1; the class where there is one only."""
    if target.classes and len(np.unique(target.y)) < 2:
        return int(target.y[0])
    kept = slice(None) if weights is None else weights > 0
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")  # a learner's remarks are about itself
        if weights is None:
            return learner().fit(columns, target.y)
        w = weights[kept]
        return learner().fit(columns[kept], target.y[kept], sample_weight=w / w.mean())


def predict(fitted: Any, columns: Floats, classes: int) -> Floats:
    """What it says of rows: a number, or the chance of each class, shape (n, k)."""
    with one_thread():
        return _predicted(fitted, columns, classes)


def _predicted(fitted: Any, columns: Floats, classes: int) -> Floats:
    if not classes:
        return np.asarray(fitted.predict(columns), np.float64).reshape(len(columns), 1)
    found = np.zeros((len(columns), classes))
    if isinstance(fitted, int):
        found[:, fitted] = 1.0
    elif hasattr(fitted, "predict_proba"):
        found[:, np.asarray(fitted.classes_, np.int64)] = fitted.predict_proba(columns)
    else:
        found[np.arange(len(columns)), np.asarray(fitted.predict(columns), np.int64)] = 1.0
    return found
