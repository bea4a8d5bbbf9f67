"""Weights of training rows: from density ratios, and what they do to the rows.

A row x of the training data gets the weight of how much more often such rows are met live:
r(x) = p_live(x) / p_training(x). Bare ratios have a few huge values that rule whatever is fitted with them, so
*relative* ratios are used, whose bound the user sets [1]. What weighting costs is told by Kish's effective sample
size [2], what it gains by the standardised mean differences before and after [3].

References:
    [1] Yamada, Suzuki, Kanamori, Hachiya & Sugiyama (2013), Relative density-ratio estimation for robust
        distribution comparison.
    [2] Kish (1965), Survey sampling, section 11.7; Kish (1992), Weighting for unequal P_i.
    [3] Austin (2009), Balance diagnostics for comparing the distribution of baseline covariates between treatment
        groups in propensity-score matched samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from drift_monitor.core.design import Design, Marks
from drift_monitor.core.profile import Floats

AT_CAP: Final = 0.9
"""A weight above this share of the bound counts as one that the bound has cut."""


def relative(ratio: Floats, mix: float) -> Floats:
    """Relative weights r / ((1 - mix) + mix r): the ratio of live to a mixture of training and live.

    Args:
        ratio: density ratios, >= 0, shape (n,).
        mix: share of live rows in the mixture, in (0, 1).

    Returns:
        In [0, 1 / mix), rising with the ratio; 1 where the ratio is 1.

    Example:
        >>> relative(np.array([0.0, 1.0, 1e9]), 0.1).round(6).tolist()
        [0.0, 1.0, 10.0]
    """
    return np.asarray(ratio / ((1 - mix) + mix * ratio), np.float64)


def effective_sample_size(weights: Floats) -> float:
    """Kish's: how many equally weighted rows would give a mean of the same variance.

    Args:
        weights: >= 0, shape (n,), not all 0.

    Example (Kish's formula by hand: 4^2 / (1 + 1 + 4)):
        >>> round(effective_sample_size(np.array([1.0, 1.0, 2.0, 0.0])), 4)
        2.6667
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def weighted_auc(scores: Floats, live: Marks, weights: Floats) -> float:
    """How well scores still tell live rows from training rows when the latter are weighted.

    The chance that a live row scores higher than a training row drawn in proportion to its weight; ties are half.

    Args:
        scores: shape (n,), no NaN.
        live: shape (n,), at least one of each.
        weights: of the training rows, in their order, not all 0.

    Example (with equal weights it is the AUC: of the four pairs three are in order):
        >>> scores, live = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
        >>> weighted_auc(scores, live, np.ones(2)), weighted_auc(scores, live, np.array([1.0, 0.0]))
        (0.75, 1.0)
    """
    order = np.argsort(scores[~live], kind="stable")
    base = scores[~live][order]
    below = np.concatenate(([0.0], np.cumsum(weights[order])))
    at = scores[live]
    wins = below[np.searchsorted(base, at, "left")] + below[np.searchsorted(base, at, "right")]
    return float(wins.mean() / 2 / below[-1])


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over weighted rows, of the columns of a `Design`: all that the diagnostics need, batch by batch.

    Attributes:
        rows: how many.
        weight, squares: sums of the weights and of their squares.
        largest: weight.
        at_cap: rows whose weight is above `AT_CAP` of the bound.
        there: rows in which a column has a value, shape (c,).
        total, square: sums of the values and of their squares, without weights, shape (c,).
        weighted_there, weighted: weights of the rows with a value, and weighted sums of the values, shape (c,).
    """

    rows: int
    weight: float
    squares: float
    largest: float
    at_cap: int
    there: Floats
    total: Floats
    square: Floats
    weighted_there: Floats
    weighted: Floats

    @classmethod
    def of(cls, design: Design, matrix: Floats, weights: Floats | None = None, *, cap: float = np.inf) -> Self:
        """The sums of some rows.

        Args:
            design: of the columns.
            matrix: rows by its encoding, shape (n, d).
            weights: shape (n,); None for 1 each.
            cap: the bound of the weights.
        """
        w = np.ones(len(matrix)) if weights is None else weights
        values, there = design.values(matrix), design.there(matrix)
        return cls(
            len(matrix),
            float(w.sum()),
            float((w * w).sum()),
            float(w.max(initial=0.0)),
            int(np.count_nonzero(w >= AT_CAP * cap)),
            there.sum(axis=0, dtype=np.float64),
            values.sum(axis=0),
            (values * values).sum(axis=0),
            np.array([w[marks].sum() for marks in there.T]),
            w @ values,
        )

    def merge(self, other: Self) -> Self:
        """Both; float sums depend on the order in their last bits."""
        return type(self)(
            self.rows + other.rows,
            self.weight + other.weight,
            self.squares + other.squares,
            max(self.largest, other.largest),
            self.at_cap + other.at_cap,
            self.there + other.there,
            self.total + other.total,
            self.square + other.square,
            self.weighted_there + other.weighted_there,
            self.weighted + other.weighted,
        )

    @property
    def effective(self) -> float:
        """Kish's effective sample size; 0 where all weights are 0."""
        return self.weight**2 / self.squares if self.squares else 0.0

    @property
    def design_effect(self) -> float:
        """Rows for each effective row: by how much weighting multiplies the variance of a mean."""
        return self.rows / self.effective if self.squares else np.inf

    @property
    def skew(self) -> float:
        """The largest weight over the mean weight."""
        return self.largest * self.rows / self.weight if self.weight else np.inf

    @property
    def capped(self) -> float:
        """Share of the rows whose weight the bound has cut."""
        return self.at_cap / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Difference:
    """How far the training rows' mean of a column is from the live one, in standard deviations.

    Attributes:
        feature: that the column is made of.
        column: its label: a number's own name, or a category.
        before, after: without and with weights.
    """

    feature: str
    column: str
    before: float
    after: float


def differences(design: Design, training: Sums, live: Sums) -> tuple[Difference, ...]:
    """The standardised mean difference of every column: (training - live) / sqrt((s_t^2 + s_l^2) / 2).

    The spread is that of the rows without weights, so that before and after are on one scale. Columns that no
    training row has (a category that is new) are left out: weights cannot bring what is not there.

    Args:
        design: of the columns.
        training: sums over the training rows, with their weights.
        live: sums over live rows, without weights.
    """
    found = []
    for k, (feature, label) in enumerate(zip(design.features, design.labels, strict=True)):
        n, m = training.there[k], live.there[k]
        is_number = design.columns[k].code is None
        if not n or not m or not training.weighted_there[k] or (not is_number and not training.total[k]):
            continue
        means = training.total[k] / n, live.total[k] / m
        spread = np.sqrt(
            (max(training.square[k] / n - means[0] ** 2, 0.0) + max(live.square[k] / m - means[1] ** 2, 0.0)) / 2
        )
        weighted = training.weighted[k] / training.weighted_there[k]
        before, after = (mean - means[1] for mean in (means[0], weighted))
        if spread <= 1e-9 * max(abs(means[0]), abs(means[1]), 1.0):
            continue
        found.append(Difference(feature, label, float(before / spread), float(after / spread)))
    return tuple(found)


def worst_by_feature(found: tuple[Difference, ...], *, after: bool) -> dict[str, Difference]:
    """The column of each feature that is farthest off, features that are farthest off before in front.

    Args:
        found: by `differences`.
        after: with weights, else without.
    """
    worst: dict[str, Difference] = {}
    for each in found:
        known = worst.get(each.feature)
        if known is None or _size(each, after=after) > _size(known, after=after):
            worst[each.feature] = each
    return dict(sorted(worst.items(), key=lambda item: -_size(item[1], after=after)))


def _size(each: Difference, *, after: bool) -> float:
    return abs(each.after if after else each.before)
