"""Raking: weights by groups, so that each chosen column has the shares that it has live. Auditable, no model.

Iterative proportional fitting [1] multiplies the rows of every cell of a column by the share that the cell has
live over the share that it has now, one column after the other, until all agree. What comes out is one factor for
each cell; the weight of a row is the product of its factors. Of all weights with these shares it is the nearest to
equal weights in the sense of Kullback and Leibler [2]: how the columns go together stays as it was.

References:
    [1] Deming & Stephan (1940), On a least squares adjustment of a sampled frequency table when the expected
        marginal totals are known.
    [2] Ireland & Kullback (1968), Contingency tables with given marginals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np

from drift_monitor.core.classifier import UNSEEN
from drift_monitor.core.design import FREQUENT, category
from drift_monitor.core.profile import Floats, Ints, NumericSpec, Spec

BINS: Final = 10
"""Quantile bins of a number: five leave a shift of one standard deviation a tenth of it, ten a third of that."""
ROUNDS: Final = 500
TOLERANCE: Final = 1e-6
"""Largest difference of a share at which raking is done."""
_GROUPS: Final = 12


@dataclass(frozen=True, eq=False)
class Margin:
    """The cells of one column.

    Attributes:
        feature: which column of the encoding.
        name: of the feature.
        labels: of the cells, for people.
        edges: a number x lies in the cell of the first edge >= x; empty for categories.
        codes: of the categories with a cell of their own; empty for numbers.
        live: share of the live rows in each cell, shape (cells,), summing to 1.

    The cells of a number are its bins, those of a category its codes and then all others; what is missing is last.
    """

    feature: int
    name: str
    labels: tuple[str, ...]
    edges: Floats
    codes: Floats
    live: Floats

    @classmethod
    def fit(cls, feature: int, spec: Spec, training: Floats, live: Floats) -> Self:
        """Choose the cells, by quantiles of the training rows or by the frequent categories of either side.

        Args:
            feature: which column of the encoding.
            spec: of the feature.
            training: its column of the training rows, shape (n,).
            live: of the live rows, shape (m,).
        """
        edges = codes = np.empty(0)
        if isinstance(spec, NumericSpec):
            known = training[~np.isnan(training)]
            if len(known):
                inner = np.quantile(known, np.arange(1, BINS) / BINS, method="inverted_cdf")
                edges = np.unique(inner)
                edges = edges[edges < known.max()]
            labels = _bins(spec, edges)
        else:
            codes = _frequent(training, live)
            labels = [f"{spec.name}={category(spec, code)}" for code in codes.tolist()] + [f"{spec.name}: others"]
        found = cls(feature, spec.name, (*labels, f"{spec.name} is missing"), edges, codes, np.empty(0))
        shares = np.bincount(found.place(live), minlength=len(found.labels)) / len(live)
        return cls(feature, spec.name, found.labels, edges, codes, shares)

    def place(self, column: Floats) -> Ints:
        """The cell of each row, shape (n,)."""
        if len(self.codes):
            order = np.searchsorted(self.codes, column)
            at = np.minimum(order, len(self.codes) - 1)
            cells = np.where(self.codes[at] == column, at, len(self.codes))
        else:
            cells = np.searchsorted(self.edges, column, "left")
        return np.where(np.isnan(column), len(self.labels) - 1, cells).astype(np.int64)


@dataclass(frozen=True)
class Factor:
    """A cell and what its rows are multiplied by, for people.

    Attributes:
        column: the feature.
        cell: its label, such as `carrier=UA` or `distance above 500 to 812`.
        factor: 1 is what the column's rows get on average.
        training, live: share of the rows without weights, and live.
    """

    column: str
    cell: str
    factor: float
    training: float
    live: float


@dataclass(frozen=True)
class Group:
    """Rows that are in the same cell of every column.

    Attributes:
        cells: their labels.
        weight: of each of its rows.
        share: of the training rows.
    """

    cells: tuple[str, ...]
    weight: float
    share: float


@dataclass(frozen=True, eq=False)
class Raking:
    """Fitted factors.

    Attributes:
        margins: of the columns.
        factors: of the cells of each margin; they average to 1 over the training rows of the margin.
        base: what every row is multiplied by, so that the weights of the rows that were fitted on average to 1.
        rounds: that it took.
        error: largest difference of a share that is left.
        unreachable: the largest share of live rows of a column that lie in cells without training rows.
        groups: those whose share changes most.
        training: share of the training rows in each cell of each margin.
    """

    margins: tuple[Margin, ...]
    factors: tuple[Floats, ...]
    base: float
    rounds: int
    error: float
    unreachable: float
    groups: tuple[Group, ...]
    training: tuple[Floats, ...]

    @property
    def converged(self) -> bool:
        """Whether all shares agree."""
        return self.error <= TOLERANCE

    def weights(self, matrix: Floats) -> Floats:
        """The weight of each row.

        Args:
            matrix: rows by the encoding, shape (n, d).

        Returns:
            Shape (n,), >= 0.
        """
        found = np.full(len(matrix), self.base)
        for margin, factors in zip(self.margins, self.factors, strict=True):
            found *= factors[margin.place(matrix[:, margin.feature])]
        return found

    def table(self) -> tuple[Factor, ...]:
        """Every cell that has rows, column by column."""
        return tuple(
            Factor(margin.name, label, float(factor), float(share), float(live))
            for margin, factors, shares in zip(self.margins, self.factors, self.training, strict=True)
            for label, factor, share, live in zip(margin.labels, factors, shares, margin.live, strict=True)
            if share or live
        )


def rake(margins: Sequence[Margin], matrix: Floats, *, rounds: int = ROUNDS) -> Raking:
    """Find the factors.

    Cells without training rows cannot be reached: their live share is left out, and the others are taken as shares
    of the rest. Cells without live rows get the factor 0. Where two columns contradict each other, no factors
    have all shares, and `error` says by how much they are missed.

    Args:
        margins: one a column, at least one.
        matrix: training rows by the encoding, shape (n, d), n > 0.
        rounds: at most.

    Raises:
        ValueError: of a column no live row lies in a cell that training rows have.
    """
    cells = np.column_stack([margin.place(matrix[:, margin.feature]) for margin in margins])
    joint, counts = np.unique(cells, axis=0, return_counts=True)
    n = len(matrix)
    targets, training = [], []
    unreachable = 0.0
    for k, margin in enumerate(margins):
        shares = np.bincount(joint[:, k], counts, len(margin.labels)) / n
        target = np.where(shares > 0, margin.live, 0.0)
        if not target.sum():
            raise ValueError(f"no live row has a value of {margin.name!r} that the training rows have")
        unreachable = max(unreachable, 1 - float(target.sum()))
        targets.append(target / target.sum())
        training.append(shares)
    factors = [np.ones(len(margin.labels)) for margin in margins]
    weights = counts / n
    done, error = 0, np.inf
    while done < rounds and error > TOLERANCE:
        for k, target in enumerate(targets):
            now = np.bincount(joint[:, k], weights, len(target))
            step = np.divide(target, now, out=np.zeros_like(target), where=now > 0)
            factors[k] *= step
            weights = weights * step[joint[:, k]]
        error = max(
            float(np.abs(np.bincount(joint[:, k], weights, len(target)) - target).max())
            for k, target in enumerate(targets)
        )
        done += 1
    base = 1.0
    for k, shares in enumerate(training):
        mean = float(factors[k] @ shares)
        if mean > 0:
            factors[k] /= mean
            base *= mean
    groups = _groups(margins, joint, counts / n, weights)
    return Raking(tuple(margins), tuple(factors), base, done, error, unreachable, groups, tuple(training))


def _groups(margins: Sequence[Margin], joint: Ints, before: Floats, after: Floats) -> tuple[Group, ...]:
    most = np.argsort(-np.abs(after - before), kind="stable")[:_GROUPS]
    return tuple(
        Group(
            tuple(margin.labels[cell] for margin, cell in zip(margins, joint[i].tolist(), strict=True)),
            float(after[i] / before[i]),
            float(before[i]),
        )
        for i in most.tolist()
    )


def _frequent(training: Floats, live: Floats) -> Floats:
    """Codes that one side has often; the category that is new to the reference is none of them."""
    found: set[float] = set()
    for side in (training, live):
        codes, counts = np.unique(side[~np.isnan(side)], return_counts=True)
        found |= set(codes[counts >= FREQUENT * len(side)].tolist())
    return np.array(sorted(found - {UNSEEN}))


def _bins(spec: NumericSpec, edges: Floats) -> list[str]:
    if not len(edges):
        return [spec.name]
    shown = [f"{edge:.6g}" for edge in edges.tolist()]
    inner = [f"{spec.name} above {a} to {b}" for a, b in pairwise(shown)]
    return [f"{spec.name} up to {shown[0]}", *inner, f"{spec.name} above {shown[-1]}"]
