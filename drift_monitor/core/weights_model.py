"""Density ratios by a domain classifier: cross-fitted, calibrated, one pass over any number of training rows.

A classifier that tells live rows from training rows knows the ratio of their densities: with p = P(live | x) and
n_t, n_l rows of either side, r = (n_t / n_l) p / (1 - p) (Bickel, Brueckner & Scheffer 2009, Discriminative
learning under covariate shift). Three things make it fit for weights:

- *cross-fitting*: rows are dealt into folds, and each is scored by trees that have not seen it. Trees that have
  seen a training row know that it is one, and would weigh it down.
- *calibration*: a logistic regression on the trees' score **and** on the rows in linear form. Trees that are kept
  small shrink the shift of a mean; the regression, whose equations are about means, puts it back.
- *only features*: no ids, no event times, no label, and no output of the model, which looks better on rows that it
  was trained on and so tells the sides apart where no feature moved.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from drift_monitor.core.classifier import auc, one_thread
from drift_monitor.core.design import Design
from drift_monitor.core.learner import Cells
from drift_monitor.core.profile import Floats, Ints
from drift_monitor.core.splitmix import GOLDEN, mixed

FOLDS: Final = 5
FEWEST: Final = 40
"""Rows that each side needs: fewer leave a fold without a leaf's worth."""
_TREES: Final = {"max_iter": 60, "max_leaf_nodes": 4, "learning_rate": 0.1, "min_samples_leaf": 50}
_FARTHEST: Final = 30.0  # of log-odds; e^30 is cut by any bound of the weights
_SLAB: Final = 1 << 15  # rows scored at once
_NUMBERS: Final = 40_000_000  # that the regression is fitted on at most

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class WeightsModel:
    """Trees for each fold, and the regression on their scores.

    Attributes:
        design: of the linear form.
        cells: that the trees see.
        trees: one a fold, fitted on the others.
        slope: of the trees' score, and of the columns of the design.
        intercept: of the log-odds, with the sizes of the sides taken out.
        scores: out-of-fold log-odds of the rows that were fitted on, training rows first, shape (n + m,).
        training: how many of these are training rows.
    """

    design: Design
    cells: Cells
    trees: tuple[Any, ...]
    slope: Floats
    intercept: float
    scores: Floats
    training: int

    @classmethod
    def fit(cls, design: Design, training: Floats, live: Floats, folds: Ints, *, seed: int) -> Self:
        """Learn the ratio from samples of both sides.

        Args:
            design: of the features.
            training: rows by its encoding, shape (n, d), n >= `FEWEST`.
            live: the same, shape (m, d), m >= `FEWEST`.
            folds: the fold of each training row, in [0, `FOLDS`), shape (n,): by `folds_of`.
            seed: of the live rows' folds, >= 0.

        Raises:
            ValueError: a side has too few rows, or the shapes do not fit.
        """
        n, m = len(training), len(live)
        if min(n, m) < FEWEST:
            raise ValueError(f"each side should have {FEWEST} rows or more, but they have {n} and {m}")
        if folds.shape != (n,):
            raise ValueError(f"folds should have shape ({n},), one a training row, but it has {folds.shape}")
        rows = np.concatenate((training, live))
        is_live = np.arange(n + m) >= n
        dealt = np.concatenate((folds, np.random.default_rng([seed, 3]).permutation(m) % FOLDS))
        cells = Cells.fit(design.encoding, rows)
        placed = cells.values(rows)
        trees, scores = [], np.zeros(n + m)
        with one_thread():
            for k in range(FOLDS):
                model = _trees(placed[dealt != k], is_live[dealt != k], cells.categorical)
                trees.append(model)
                scores[dealt == k] = _score(model, placed[dealt == k])
        columns = np.column_stack((scores, design.values(rows)))
        slope, intercept = _regress(columns, is_live, seed)
        linear = intercept + columns @ slope
        return cls(design, cells, tuple(trees), slope, intercept + float(np.log(n / m)), linear, n)

    @property
    def auc(self) -> float:
        """Out of fold: 0.5 where the sides cannot be told apart."""
        return auc(self.scores, np.arange(len(self.scores)) >= self.training)

    def ratios(self, matrix: Floats, folds: Ints) -> Floats:
        """The density ratio of training rows, each by the trees of its fold.

        Args:
            matrix: rows by the design's encoding, shape (n, d): those that were fitted on, or any other.
            folds: of each, shape (n,).

        Returns:
            Shape (n,), > 0; about 1 on average.
        """
        found = np.empty(len(matrix))
        for start in range(0, len(matrix), _SLAB):
            part, dealt = matrix[start : start + _SLAB], folds[start : start + _SLAB]
            placed, scores = self.cells.values(part), np.empty(len(part))
            for k, model in enumerate(self.trees):
                held = dealt == k
                if held.any():
                    scores[held] = _score(model, placed[held])
            odds = self.intercept + self.slope[0] * scores + self.design.values(part) @ self.slope[1:]
            found[start : start + _SLAB] = np.exp(np.clip(odds, -_FARTHEST, _FARTHEST))
        return found


def folds_of(numbers: Ints, *, seed: int) -> Ints:
    """The fold of each training row, by a hash of its number: the same in a sample as in the whole.

    Args:
        numbers: of the rows, from 0, shape (n,).
        seed: another seed, other folds.
    """
    return np.asarray(places_of(numbers, seed=seed) % np.uint64(FOLDS), np.int64)


def places_of(numbers: Ints, *, seed: int) -> Words:
    """A hash of each row's number, shape (n,)."""
    return mixed(numbers.astype(np.uint64) + np.uint64((seed + 1) * int(GOLDEN) % 2**64))


def _trees(rows: Floats, live: npt.NDArray[np.bool_], categorical: list[bool]) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - heavy

    if live.all() or not live.any():
        return None
    model = HistGradientBoostingClassifier(
        **_TREES, categorical_features=categorical, early_stopping=False, random_state=0
    )
    return model.fit(rows, live)


def _score(model: Any, rows: Floats) -> Floats:
    if model is None:
        return np.zeros(len(rows))
    with one_thread():
        return np.asarray(model.decision_function(rows), np.float64)


def _regress(columns: Floats, live: npt.NDArray[np.bool_], seed: int) -> tuple[Floats, float]:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - heavy

    most = max(_NUMBERS // columns.shape[1], 1000)
    if len(columns) > most:
        chosen = np.sort(np.random.default_rng([seed, 4]).permutation(len(columns))[:most])
        columns, live = columns[chosen], live[chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sides that nothing joins do not converge, and are refused for their size
        fitted = LogisticRegression(C=1.0, tol=1e-6, max_iter=500).fit(columns, live)
    return np.asarray(fitted.coef_[0], np.float64), float(fitted.intercept_[0])
