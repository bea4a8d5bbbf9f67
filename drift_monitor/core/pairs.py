"""The channel `pairs`: correlations and spreads of numeric features, from the products that profiles keep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from drift_monitor.core.history import window_sums
from drift_monitor.core.products import PairSpec, Products
from drift_monitor.core.profile import Floats, Ints
from drift_monitor.core.replay import Runs, Scale, cross_scaled, scale_of
from drift_monitor.core.types import Finite, Value

FLOOR: Final = 2.0
"""Mean excess of the largest of many squared standard normal values."""
EFFECT: Final = 0.2
"""Changes that are not larger do not count, however certain: of a correlation, or of the logarithm of a spread."""
_MOST: Final = 0.9999


class PairCalibration(Value):
    """Correlations of a reference and how far its own windows are from them.

    Attributes:
        names: of the features, d of them.
        base: `fisher_z` of the reference, d (d + 1) / 2 numbers.
        spread: root mean square of the windows' distances from it.
    """

    names: tuple[str, ...]
    base: tuple[Finite, ...]
    spread: tuple[Finite, ...]


def fisher_z(rows: Ints, sums: Ints, products: Ints) -> Floats:
    """Second moments in a form whose spread does not depend on them.

    A correlation as Fisher's z [1], its inverse hyperbolic tangent; a variance as its logarithm over root 2;
    both have a spread of about 1/sqrt(n) for normal rows then.

    Args:
        rows: shape (windows,).
        sums: of each feature, shape (windows, d).
        products: upper triangle with the diagonal, row by row, shape (windows, d (d + 1) / 2).

    Returns:
        Shape (windows, d (d + 1) / 2), in the order of `products`; 0 where a feature does not vary or there are no
        rows.

    References:
        [1] Fisher (1915), Frequency distribution of the values of the correlation coefficient.
    """
    d = sums.shape[1]
    first, second = np.triu_indices(d)
    n = np.maximum(rows, 1)[:, None]
    means = sums / n
    covariance = products / n - means[:, first] * means[:, second]
    variance = covariance[:, first == second]
    apart = first != second
    scale = np.sqrt(np.maximum(variance[:, first[apart]] * variance[:, second[apart]], 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(scale > 0, covariance[:, apart] / scale, 0.0)
        logs = np.where(variance > 0, np.log(variance) / np.sqrt(2), 0.0)
    z = np.empty_like(covariance)
    z[:, apart] = np.arctanh(np.clip(r, -_MOST, _MOST))
    z[:, ~apart] = logs
    return z


def replay_pairs(
    pairs: PairSpec, products: Mapping[int, Products], runs: Runs, min_rows: int
) -> tuple[Floats, Scale, PairCalibration]:
    """The channel over the runs of a reference: each block of days against the others.

    Args:
        pairs: the features.
        products: by start of the bucket, in microseconds since 1970.
        runs: of the replay.
        min_rows: runs with fewer rows have no value.

    Returns:
        The values on the common scale, shape (runs,); their scale; what live windows are compared with.
    """
    grid, length, blocks = runs.grid, runs.lengths[-1], runs.blocks
    d = len(pairs.names)
    rows = np.zeros(grid.size, np.int64)
    sums, squares = np.zeros((grid.size, d), np.int64), np.zeros((grid.size, d * (d + 1) // 2), np.int64)
    for start, part in products.items():
        at = (start - grid.start) // grid.width
        rows[at], sums[at], squares[at] = part.rows, part.sums, part.products
    n = window_sums(rows, runs.ends, length)
    z = fisher_z(n, window_sums(sums, runs.ends, length), window_sums(squares, runs.ends, length))
    enough = n >= min_rows
    least = 1 / np.sqrt(np.maximum(n, 1))
    away = np.empty_like(z)
    for block in np.unique(blocks):
        mine = blocks == block
        without = _buckets(runs, mine)
        away[mine] = z[mine] - _base(rows, sums, squares, without)
    largest, counting = np.full((2, len(n)), np.nan)
    for block in np.unique(blocks):
        mine, others = blocks == block, (blocks != block) & enough
        spread = np.maximum(_spread(away[others]), least[mine, None])
        ratio = (away[mine] / spread) ** 2
        largest[mine] = ratio.max(axis=1, initial=0.0)
        matters = _effect(z[mine], z[mine] - away[mine]) > EFFECT
        counting[mine] = np.where(matters, ratio, -np.inf).max(axis=1, initial=-np.inf)
    largest = np.where(enough, largest, np.nan)
    _, scale = cross_scaled(largest, blocks, FLOOR)
    scaled = np.full(len(n), np.nan)
    for block in np.unique(blocks):
        mine = blocks == block
        scaled[mine] = scale_of(largest[~mine], FLOOR).ratio(counting[mine])
    scaled[~enough] = np.nan
    base = _base(rows, sums, squares, slice(0, 0))
    known = PairCalibration(
        names=pairs.names, base=tuple(base.tolist()), spread=tuple(_spread(away[enough]).tolist())
    )
    return scaled, scale, known


def _base(rows: Ints, sums: Ints, products: Ints, without: slice) -> Floats:
    """Fisher's z over all buckets but some."""
    whole = (table.sum(axis=0)[None] - table[without].sum(axis=0)[None] for table in (rows, sums, products))
    return np.asarray(fisher_z(*whole)[0])


def _buckets(runs: Runs, mine: npt.NDArray[np.bool_]) -> slice:
    ends = runs.ends[mine]
    return slice(max(0, int(ends[0]) - runs.lengths[-1]), int(ends[-1]))


def _effect(z: Floats, base: Floats) -> Floats:
    """By how much correlations, or logarithms of spreads, differ; of the shape of `fisher_z`."""
    first, second = _places(z.shape[-1])
    spreads = np.abs(z - base) / np.sqrt(2)
    return np.asarray(np.where(first == second, spreads, np.abs(np.tanh(z) - np.tanh(base))))


def _places(size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of an upper triangle with the diagonal that has so many numbers."""
    return np.triu_indices(math.isqrt(2 * size))


def _spread(away: Floats) -> Floats:
    return np.sqrt((away**2).mean(axis=0)) if len(away) else np.zeros(away.shape[1])


def pair_value(known: PairCalibration, pairs: PairSpec, products: Products) -> tuple[float, str]:
    """The channel's value of a live window, and the pair whose correlation changed most, in words.

    Args:
        known: of the calibration.
        pairs: the features of `products`.
        products: of the window.

    Returns:
        nan and no words where no change is larger than `EFFECT`.
    """
    if not set(known.names) <= set(pairs.names) or not products.rows:
        return float("nan"), ""
    mine = products if pairs.names == known.names else products.only(pairs, known.names)
    z = fisher_z(np.array([mine.rows]), mine.sums[None], mine.products[None])[0]
    base = np.array(known.base)
    ratio = np.abs(z - base) / np.maximum(np.array(known.spread), 1 / np.sqrt(mine.rows))
    if not len(ratio):
        return float("nan"), ""
    ratio = np.where(_effect(z, base) > EFFECT, ratio, 0.0)
    worst = int(np.argmax(ratio))
    if not ratio[worst]:
        return float("nan"), ""
    first, second = (int(i[worst]) for i in np.triu_indices(len(known.names)))
    if first == second:
        factor = float(np.exp((z[worst] - base[worst]) / np.sqrt(2)))
        return float(ratio[worst] ** 2), f"standard deviation of {known.names[first]} {factor:.2f} times the usual"
    before, now = np.tanh(base[worst]), np.tanh(z[worst])
    words = f"correlation of {known.names[first]} and {known.names[second]} {before:.2f} -> {now:.2f}"
    return float(ratio[worst] ** 2), words
