"""The model that the demo watches: gradient-boosted trees that predict late arrivals."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from drift_monitor.demo.data import CATEGORICAL, FEATURES, LABEL

SCORE: Final = "p_late"
_SEED: Final = 2013


class DelayModel:
    """P(arrival more than 15 minutes late), from what is known at the scheduled departure."""

    def __init__(self, training: pd.DataFrame) -> None:
        labelled = training[training[LABEL].notna()]
        self._categories = {name: sorted(labelled[name].unique()) for name in CATEGORICAL}
        self._trees = HistGradientBoostingClassifier(
            max_iter=60, categorical_features="from_dtype", random_state=_SEED
        )
        with threadpool_limits(1):  # its threads spin while they wait: beside other work two take longer than one
            self._trees.fit(self._encode(labelled), labelled[LABEL].astype(bool))

    def score(self, flights: pd.DataFrame) -> NDArray[np.float64]:
        """Probability of a late arrival, shape (len(flights),), rounded to 4 decimals as it is logged."""
        with threadpool_limits(1):
            scores: NDArray[np.float64] = np.round(self._trees.predict_proba(self._encode(flights))[:, 1], 4)
        return scores

    def _encode(self, flights: pd.DataFrame) -> pd.DataFrame:
        """Categories the model never saw become missing values, which the trees accept."""
        known = {
            name: pd.Categorical(flights[name].where(flights[name].isin(categories)), categories=categories)
            for name, categories in self._categories.items()
        }
        return flights[list(FEATURES)].assign(**known)


def cross_fitted_scores(training: pd.DataFrame, folds: int = 5) -> NDArray[np.float64]:
    """Scores of the training flights, each from a model that did not see its stretch of weeks.

    A model's scores on its own training rows are too sure of themselves; live scores would look like drift
    against them on the first day. The folds are contiguous in time, since flights of one day share its
    weather and would leak into each other.

    Returns:
        Shape (len(training),), in the order of the rows.
    """
    scores = np.empty(len(training))
    for fit, held_out in KFold(folds).split(training):
        scores[held_out] = DelayModel(training.iloc[fit]).score(training.iloc[held_out])
    return scores
