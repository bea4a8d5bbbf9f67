"""Products of numeric features, two at a time: what the correlations between them are made of.

Every value becomes a whole number of steps from a centre that the reference fixed, so that sums and products are
whole numbers too, and merging in any order, of any split of the rows, gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from drift_monitor.core.arrow import is_missing, numbers_by_row
from drift_monitor.core.profile import FeatureProfile, Floats, Ints, NumericProfile, NumericSpec, Spec

PAIRED: Final = 64
"""Features whose products are kept at most: 2080 numbers a bucket."""
STEPS: Final = 32
"""Steps to the scale: rounding to them adds 1/12288 of the scale's square to a variance."""
REACH: Final = 256
"""Values farther from the centre than this many steps (8 scales) count as if they were there."""
_SLAB: Final = 1 << 14  # rows turned into steps at once; 4 MB for 64 features
_EXACT: Final = (1 << 24) // REACH**2  # rows whose products sum to a whole number that a float32 holds
_ALONE: Final = 1 << 18  # multiplications up to which OpenBLAS starts no thread; its threads spin while they wait


@dataclass(frozen=True, eq=False)
class PairSpec:
    """The features whose products are kept, and the steps that their values are counted in.

    Attributes:
        names: of the features, shape (d,), 2 <= d <= `PAIRED`; the prediction first.
        centre: in the feature's units, shape (d,), finite.
        scale: in the feature's units, shape (d,), finite, > 0; a step is 1/32 of it.
    """

    names: tuple[str, ...]
    centre: Floats
    scale: Floats

    @classmethod
    def fit(cls, specs: Iterable[Spec], features: Mapping[str, FeatureProfile]) -> Self | None:
        """Choose features and their steps from the reference.

        The centre is the median. The scale is the standard deviation of a normal distribution with the same
        quartiles; where these are equal, with the same 1% and 99% quantiles; where these are equal too, half the
        range.

        Args:
            specs: the reference's; those that are not numeric and those with one value only are left out, and so
                are those past the first `PAIRED`, of which the prediction is always one.
            features: the whole reference on these cells; features that it does not have are left out.

        Returns:
            None when fewer than two features remain.
        """
        found: list[tuple[NumericSpec, NumericProfile]] = []
        for spec in specs:
            profile = features.get(spec.name)
            if not isinstance(spec, NumericSpec) or not isinstance(profile, NumericProfile):
                continue
            if spec.kind == "numeric" and len(spec.edges) > 1:
                found.append((spec, profile))
        found = sorted(found, key=lambda pair: pair[0].role != "prediction")[:PAIRED]
        if len(found) < 2:
            return None
        return cls(
            tuple(spec.name for spec, _ in found),
            np.array([profile.quantile(spec, 0.5) for spec, profile in found]),
            np.array([_scale(spec, profile) for spec, profile in found]),
        )

    def only(self, names: Collection[str]) -> Self | None:
        """The same without the features that are not among these; None when fewer than two remain."""
        kept = self.places(names)
        if len(kept) < 2:
            return None
        return type(self)(tuple(self.names[i] for i in kept), self.centre[kept], self.scale[kept])

    def places(self, names: Collection[str]) -> list[int]:
        """Where those features that are among these stand in `names`, rising."""
        return [i for i, name in enumerate(self.names) if name in names]


def _scale(spec: NumericSpec, profile: NumericProfile) -> float:
    for tail, quantile in ((0.25, 0.6745), (0.01, 2.3263)):  # of the standard normal distribution
        # halved before the subtraction, so that a range near the largest float does not overflow
        half = profile.quantile(spec, 1 - tail) / 2 - profile.quantile(spec, tail) / 2
        if half > 0:
            return min(max(half / quantile, 2.0**-990), 2.0**1020)  # so that the steps of a unit are finite
    half = float(spec.edges[-1]) / 2 - float(spec.edges[0]) / 2
    return max(half, 2.0**-990)


@dataclass(frozen=True, eq=False)
class Products:
    """Sums of steps, and of the products of the steps of two features, over some rows.

    A row counts for all pairs: where a feature has no number, it counts as the centre, which is 0 steps.

    Attributes:
        rows: how many.
        sums: steps, shape (d,).
        products: squared steps, shape (d (d + 1) / 2,): the upper triangle with the diagonal, row by row.
    """

    rows: int
    sums: Ints
    products: Ints

    def merge(self, other: Self) -> Self:
        """Both, in any order; they were counted in the same steps of the same features."""
        return type(self)(self.rows + other.rows, self.sums + other.sums, self.products + other.products)

    def only(self, pairs: PairSpec, names: Collection[str]) -> Self:
        """The same as if it had been counted for `pairs.only(names)`.

        Args:
            pairs: what it was counted for.
            names: the features to keep.
        """
        kept = pairs.places(names)
        return type(self)(self.rows, self.sums[kept], self._square()[np.ix_(kept, kept)][_triangle(len(kept))])

    def means(self) -> Floats:
        """Mean of each feature as its distance from the centre, in scales, shape (d,); nan without rows."""
        return self.sums / (STEPS * self.rows) if self.rows else np.full(len(self.sums), math.nan)

    def mean_products(self) -> Floats:
        """Mean product of each two features' distances from their centres, in scales, shape (d, d), symmetric.

        Less the products of the means, that is the covariance. nan without rows.

        Example:
            >>> Products(2, np.array([32, 0]), np.array([1024, 512, 2048])).mean_products()
            array([[0.5 , 0.25],
                   [0.25, 1.  ]])
        """
        square = self._square()
        return square / (STEPS * STEPS * self.rows) if self.rows else np.full(square.shape, math.nan)

    def _square(self) -> Ints:
        d = len(self.sums)
        square = np.zeros((d, d), np.int64)
        upper = _triangle(d)
        square[upper] = self.products
        square.T[upper] = self.products
        return square


def _triangle(d: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return np.triu_indices(d)


def fold_products(
    pairs: PairSpec, batch: pa.RecordBatch, cuts: Sequence[int] | Ints | None = None
) -> list[Products] | None:
    """Sum up rows, stretch by stretch.

    Args:
        pairs: the features and their steps.
        batch: nulls and NaN count as the centre, infinities as the farthest value on their side.
        cuts: rows at which the stretches meet, rising, from 0 to the number of rows, shape (k + 1,); None for one
            stretch of all rows.

    Returns:
        One a stretch; None when the batch does not have all columns.
    """
    names = set(batch.schema.names)
    if not names.issuperset(pairs.names):
        return None
    bounds = np.asarray([0, batch.num_rows] if cuts is None else cuts)
    d = len(pairs.names)
    sums = np.zeros((len(bounds) - 1, d), np.int64)
    products = np.zeros((len(bounds) - 1, d * (d + 1) // 2), np.int64)
    upper = _triangle(d)
    room, far = np.empty((d, _SLAB), np.float32), np.empty(_SLAB)
    for offset in range(0, batch.num_rows, _SLAB):
        rows = batch.slice(offset, _SLAB)
        slab = room[:, : rows.num_rows]
        with np.errstate(over="ignore", invalid="ignore"):  # infinities are cut, and nan is put at the centre
            _count(pairs, rows, slab, far[: rows.num_rows])
        inner = np.clip(bounds - offset, 0, rows.num_rows)
        for i in np.flatnonzero(inner[1:] > inner[:-1]).tolist():
            part = slab[:, inner[i] : inner[i + 1]]
            sums[i] += part.sum(axis=1).astype(np.int64)  # at most 2**14 times 2**8: a float32 holds it
            products[i] += _gram(part)[upper].astype(np.int64)
    return [Products(high - low, sums[i], products[i]) for i, (low, high) in enumerate(pairwise(bounds.tolist()))]


def _count(pairs: PairSpec, batch: pa.RecordBatch, steps: npt.NDArray[np.float32], far: Floats) -> None:
    """Fill `steps`, shape (d, rows), with whole numbers; `far`, shape (rows,), is room to work in."""
    for row, name, centre, scale in zip(
        steps, pairs.names, pairs.centre.tolist(), pairs.scale.tolist(), strict=True
    ):
        column = batch.column(name)
        if isinstance(column.type, pa.DictionaryType):
            column = column.dictionary_decode()
        np.subtract(numbers_by_row(column), centre, out=far)
        np.multiply(far, STEPS / scale, out=far)
        np.rint(far, out=far)
        row[:] = np.clip(far, -REACH, REACH, out=far)
        if column.null_count:
            row[is_missing(column)] = 0
        if math.isnan(row.sum()):
            row[np.isnan(row)] = 0


def _gram(steps: npt.NDArray[np.float32]) -> Floats:
    """Sums of products of each two rows, exact, shape (d, d).

    It is summed in pieces that a float32 holds exactly and that are too small for threads.

    Args:
        steps: whole numbers, |steps| <= `REACH`, shape (d, n).
    """
    d, n = steps.shape
    size = min(_EXACT, _ALONE // d**2)
    pieces = n // size
    many = steps[:, : pieces * size].reshape(d, pieces, size).transpose(1, 0, 2)
    rest = steps[:, pieces * size :]
    return np.asarray((many @ many.transpose(0, 2, 1)).sum(axis=0, dtype=np.float64) + rest @ rest.T)
