"""Whether the relation of label and features changed: then no weights of old rows can teach the new one.

Weights assume that P(y | x) is what it was and only P(x) has moved. Labels of live rows can contradict that, and
nothing else can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtri

from drift_monitor.core.profile import Floats

CHANCE: Final = 0.001
"""Of finding a change where there is none, all looks together."""
SMALLEST: Final = 0.1
"""Change of a mean residual that matters, in standard deviations of the residuals."""


@dataclass(frozen=True)
class Changed:
    """The largest change of what the label does at equal features.

    Attributes:
        where: `everywhere`, or the column along which the residuals changed.
        change: of the mean residual, or of its product with the column, in standard deviations.
        score: the change in standard errors.
        limit: what chance stays below.
    """

    where: str
    change: float
    score: float
    limit: float

    @property
    def matters(self) -> bool:
        """Whether it is a change of the relation and not chance."""
        return abs(self.score) > self.limit and abs(self.change) > SMALLEST


def relation(
    training: Floats, weights: Floats, columns: Floats, live: Floats, live_columns: Floats, labels: tuple[str, ...]
) -> Changed | None:
    """Compare the residuals of one predictor on weighted training rows and on live rows.

    If P(y | x) is the same on both sides, the mean of a residual times any function of x is the same too, however
    bad the predictor is. Looked at are the mean itself and the product with every column.

    Args:
        training: residuals of training rows that the predictor has not seen, shape (n, k).
        weights: shape (n,).
        columns: of these rows, about standardised, shape (n, c).
        live: residuals of live rows by the same predictor, shape (m, k).
        live_columns: shape (m, c).
        labels: of the c columns.

    Returns:
        The one that is most beyond chance; None where there is nothing to look at.
    """
    share = weights / weights.sum()
    looks = max(training.shape[1] * (1 + len(labels)), 1)
    limit = -float(ndtri(CHANCE / 2 / looks))
    best: Changed | None = None
    for k in range(training.shape[1]):
        spread = math.sqrt(float(share @ training[:, k] ** 2))
        if spread <= 0:
            continue
        for where, h, g in [
            ("everywhere", np.ones(len(training)), np.ones(len(live))),
            *((label, columns[:, j], live_columns[:, j]) for j, label in enumerate(labels)),
        ]:
            a, b = training[:, k] * h, live[:, k] * g
            means = float(share @ a), float(b.mean())
            error = math.sqrt(float((share**2) @ (a - means[0]) ** 2) + float(b.var()) / len(b))
            size = math.sqrt(float((g**2).mean()))
            if error <= 0 or size <= 0:
                continue
            found = Changed(where, (means[1] - means[0]) / spread / size, (means[1] - means[0]) / error, limit)
            if best is None or _rank(found) > _rank(best):
                best = found
    return best


def _rank(found: Changed) -> tuple[bool, float]:
    return found.matters, abs(found.score)
