"""What the gate fits where the user names no estimator: gradient boosting on a hundred cells of each feature.

Scikit-learn takes seconds to choose its bins where rows have weights, and no time where a column has few values.
So the cells are chosen here, by quantiles of the training rows, whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from drift_monitor.core.classifier import Encoding
from drift_monitor.core.profile import Floats, NumericSpec

CELLS: Final = 100


@dataclass(frozen=True, eq=False)
class Cells:
    """Rows as cells.

    Attributes:
        edges: by feature; None for categories, whose code is the cell.
    """

    edges: tuple[Floats | None, ...]

    @classmethod
    def fit(cls, encoding: Encoding, training: Floats) -> Self:
        """Choose the cells.

        Args:
            encoding: of the features.
            training: rows by `encoding.matrix`, shape (n, d).
        """
        found: list[Floats | None] = []
        for spec, column in zip(encoding.specs, training.T, strict=True):
            known = column[~np.isnan(column)]
            if not isinstance(spec, NumericSpec):
                found.append(None)
            elif not len(known):
                found.append(np.empty(0))
            else:
                share = np.arange(1, CELLS) / CELLS
                found.append(np.unique(np.quantile(known, share, method="inverted_cdf")))
        return cls(tuple(found))

    def values(self, matrix: Floats) -> Floats:
        """The cell of every value, NaN where it is missing, shape (n, d)."""
        found = np.array(matrix, np.float64, order="F")
        for j, edges in enumerate(self.edges):
            if edges is not None:
                there = ~np.isnan(matrix[:, j])
                found[there, j] = np.searchsorted(edges, matrix[there, j], "left")
        return found

    def learner(self, *, classifier: bool, seed: int) -> Callable[[], Any]:
        """Makes gradient boosting with scikit-learn's settings, for these columns."""
        from sklearn.ensemble import (  # noqa: PLC0415 - heavy
            HistGradientBoostingClassifier,
            HistGradientBoostingRegressor,
        )

        kind = HistGradientBoostingClassifier if classifier else HistGradientBoostingRegressor
        categorical = [edges is None for edges in self.edges]
        return lambda: kind(categorical_features=categorical, early_stopping=False, random_state=seed)
