"""Rows as the columns of a linear model: numbers on one scale, a column for each frequent category.

An `Encoding` gives one code or number a feature, which trees can use as it is. What is linear in its inputs (a
logistic regression, a mean, a ridge regression) needs more columns, bounded ones, and none that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from drift_monitor.core.classifier import RARE, UNSEEN, Encoding
from drift_monitor.core.profile import CategoricalSpec, Floats, NumericSpec, Spec

FREQUENT: Final = 0.01
"""Share of either side's rows from which on a category, or being missing, has a column of its own."""
MOST: Final = 500
"""Columns of categories, all features together; with more, the share is doubled until they are as few."""
TRIMMED: Final = 0.001
"""Values beyond these quantiles of both sides count as the quantile, so that no wild value rules a mean."""
_MISSING: Final = -1.0
_POOLED: Final = -2.0

Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """One column of the design.

    Attributes:
        feature: which column of the encoding it is made of.
        label: for people, such as `distance`, `carrier=UA`, `temp is missing`.
        code: of the category; below 0 for what is missing, and for categories that share a column; None for
            numbers.
        low, high: numbers are cut to this range.
        centre, scale: mean of the training rows, spread of both sides: the column is (x - centre) / scale.
    """

    feature: int
    label: str
    code: float | None = None
    low: float = 0.0
    high: float = 0.0
    centre: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Design:
    """How rows become columns; learnt from both sides, but not from which side a row is of.

    Attributes:
        encoding: gives the rows.
        columns: c of them.
        frequent: by feature, the codes that have a column.
    """

    encoding: Encoding
    columns: tuple[Column, ...]
    frequent: tuple[frozenset[float], ...]

    @classmethod
    def fit(cls, encoding: Encoding, training: Floats, live: Floats) -> Self:
        """Choose the columns.

        A feature without any column varies on neither side.

        Args:
            encoding: of the features.
            training: rows by `encoding.matrix`, shape (n, d), n > 0.
            live: the same, shape (m, d), m > 0.
        """
        shares = [_shares(spec, training[:, j], live[:, j]) for j, spec in enumerate(encoding.specs)]
        least = FREQUENT
        while sum(len(_frequent(each, least)) for each in shares) > MOST and least < 1:
            least *= 2
        columns: list[Column] = []
        frequent = []
        for j, spec in enumerate(encoding.specs):
            codes = _frequent(shares[j], least)
            if isinstance(spec, NumericSpec):
                columns += _number(j, spec.name, training[:, j], live[:, j])
                codes = [_MISSING] if _MISSING in codes and len(shares[j]) > 1 else []
            elif len(codes) == 1:
                codes = []
            columns += [Column(j, _label(spec, code), code=code) for code in codes]
            frequent.append(frozenset(codes))
        return cls(encoding, tuple(columns), tuple(frequent))

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.label for column in self.columns)

    @property
    def features(self) -> tuple[str, ...]:
        """The feature that each column is made of."""
        return tuple(self.encoding.names[column.feature] for column in self.columns)

    def values(self, matrix: Floats) -> Floats:
        """The columns; 0 where a number is missing, which is its mean on the training side.

        Args:
            matrix: rows by `encoding.matrix`, shape (n, d).

        Returns:
            Shape (n, c), finite.
        """
        found = np.empty((len(matrix), len(self.columns)), np.float64, order="F")
        for k, column in enumerate(self.columns):
            raw = matrix[:, column.feature]
            if column.code is None:
                scaled = (np.clip(raw, column.low, column.high) - column.centre) / column.scale
                found[:, k] = np.nan_to_num(scaled, copy=False)
            else:
                found[:, k] = self._places(column, raw)
        return found

    def there(self, matrix: Floats) -> Marks:
        """Where a column has a value: not where a number is missing, shape (n, c)."""
        found = np.ones((len(matrix), len(self.columns)), np.bool_, order="F")
        for k, column in enumerate(self.columns):
            if column.code is None:
                found[:, k] = ~np.isnan(matrix[:, column.feature])
        return found

    def _places(self, column: Column, raw: Floats) -> Marks:
        if column.code == _MISSING:
            return np.isnan(raw)
        if column.code == _POOLED:
            named = [code for code in self.frequent[column.feature] if code >= 0]
            return ~np.isnan(raw) & ~np.isin(raw, named)
        return np.asarray(raw == column.code)


def _number(j: int, name: str, a: Floats, b: Floats) -> list[Column]:
    both = np.concatenate((a, b))
    both = both[~np.isnan(both)]
    known = a[~np.isnan(a)]
    if not len(known):
        return []
    low, high = np.quantile(both, (TRIMMED, 1 - TRIMMED), method="inverted_cdf").tolist()
    if low == high:  # nearly all rows have one value; the few others are the only ones to look at
        low, high = float(both.min()), float(both.max())
    # halved first: a range near the largest float must not overflow
    half = np.clip(both, low, high) / 2
    scale = 2 * float(half.std())
    if not np.isfinite(scale) or scale <= 0:
        return []
    centre = 2 * float((np.clip(known, low, high) / 2).mean())
    return [Column(j, name, low=low, high=high, centre=centre, scale=scale)]


def _shares(spec: Spec, a: Floats, b: Floats) -> dict[float, float]:
    """The larger of both sides' shares, by code; all numbers are one code."""
    shares: dict[float, float] = {}
    for raw in (a, b):
        codes = np.zeros(len(raw)) if isinstance(spec, NumericSpec) else raw
        values, counts = np.unique(np.where(np.isnan(raw), _MISSING, codes), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            shares[value] = max(shares.get(value, 0.0), count / len(raw))
    return shares


def _frequent(shares: Mapping[float, float], least: float) -> list[float]:
    """The codes with a column: those that are so frequent, and the others together."""
    named = sorted(code for code, share in shares.items() if share >= least)
    return [*named, _POOLED] if len(named) < len(shares) else named


def _label(spec: Spec, code: float) -> str:
    return f"{spec.name} is missing" if code == _MISSING else f"{spec.name}={category(spec, code)}"


def category(spec: Spec, code: float) -> str:
    """What a code of `Encoding` stands for, in words; a number below 0 stands for several."""
    if code == RARE:
        return "(rarer ones)"
    if code == UNSEEN:
        return "(new ones)"
    if code < 0 or not isinstance(spec, CategoricalSpec):
        return "(others)"
    return spec.categories[int(code)]
