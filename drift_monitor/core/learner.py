"""Rows as cells, for gradient boosting: of the domain classifier, and of the gate where no estimator is named.

Scikit-learn takes seconds to choose its bins where rows have weights, and no time where a column has few values;
and it fails on a column without any value. So cells are chosen here, by quantiles, with one for what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from drift_monitor.core.classifier import Encoding
from drift_monitor.core.profile import Floats, NumericSpec

CELLS: Final = 200
MISSING: Final = CELLS + 1.0
"""The cell of what is missing: after all others, of numbers as of categories."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Rows as cells.

    Attributes:
        edges: by feature: a number lies in the cell of the first edge >= it; None for categories, with codes.
    """

    edges: tuple[Floats | None, ...]

    @classmethod
    def fit(cls, encoding: Encoding, rows: Floats) -> Self:
        """Choose the cells.

        Args:
            encoding: of the features.
            rows: by `encoding.matrix`, shape (n, d).
        """
        found: list[Floats | None] = []
        for spec, column in zip(encoding.specs, rows.T, strict=True):
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
        """The cell of every value, shape (n, d), finite."""
        found = np.full(matrix.shape, MISSING, order="F")
        for j, edges in enumerate(self.edges):
            there = ~np.isnan(matrix[:, j])
            known = matrix[there, j]
            found[there, j] = known if edges is None else np.searchsorted(edges, known, "left")
        return found

    @property
    def categorical(self) -> list[bool]:
        """Which columns are codes of categories."""
        return [edges is None for edges in self.edges]

    def learner(self, *, classifier: bool, seed: int) -> Callable[[], Any]:
        """Makes gradient boosting with scikit-learn's settings, for these columns."""
        from sklearn.ensemble import (  # noqa: PLC0415 - heavy
            HistGradientBoostingClassifier,
            HistGradientBoostingRegressor,
        )

        kind = HistGradientBoostingClassifier if classifier else HistGradientBoostingRegressor
        return lambda: kind(categorical_features=self.categorical, early_stopping=False, random_state=seed)
