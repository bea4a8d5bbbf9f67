"""The channel `pairs`: covariances of numeric features, from the products that profiles keep."""

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
"""Changes that are not larger do not count, however certain: covariances in the reference's own spreads."""


class PairCalibration(Value):
    """Covariances of a reference and how far its own windows are from them.

    Attributes:
        names: of the features, d of them.
        base: `covariances` of the reference, d (d + 1) / 2 numbers.
        spread: root mean square of the windows' distances from it (`distances`).
    """

    names: tuple[str, ...]
    base: tuple[Finite, ...]
    spread: tuple[Finite, ...]


def covariances(rows: Ints, sums: Ints, products: Ints) -> Floats:
    """Covariances and, on the diagonal, variances, in squared units of the products.

    Args:
        rows: shape (windows,).
        sums: of each feature, shape (windows, d).
        products: upper triangle with the diagonal, row by row, shape (windows, d (d + 1) / 2).

    Returns:
        Of the shape and in the order of `products`; 0 where there are no rows.
    """
    first, second = np.triu_indices(sums.shape[1])
    n = np.maximum(rows, 1)[:, None]
    means = sums / n
    return np.asarray(products / n - means[:, first] * means[:, second])


def distances(now: Floats, base: Floats) -> tuple[Floats, Floats]:
    """How far covariances are from those of a reference.

    Both are measured in the reference's standard deviations, not in the window's own: a group of rows that moved
    together adds to the spreads as well, which hides a part of it in a correlation.

    Args:
        now: `covariances` of windows, shape (windows, d (d + 1) / 2).
        base: of the reference, shape (d (d + 1) / 2,).

    Returns:
        The distances over sqrt(1 + r^2), which leaves a spread of about 1/sqrt(n) for normal rows [1], and the
        distances themselves, of the shape of `now`; 0 where the reference does not vary.

    References:
        [1] Anderson (2003), An introduction to multivariate statistical analysis, theorem 3.4.4.
    """
    first, second = _places(len(base))
    variance = base[first == second]
    scale = np.sqrt(np.maximum(variance[first] * variance[second], 0.0))
    known = np.where(scale > 0, scale, 1.0)
    effect = np.where(scale > 0, (now - base) / known, 0.0)
    return effect / np.sqrt(1 + np.where(scale > 0, base / known, 0.0) ** 2), effect


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
    now = covariances(n, window_sums(sums, runs.ends, length), window_sums(squares, runs.ends, length))
    enough = n >= min_rows
    least = 1 / np.sqrt(np.maximum(n, 1))
    away, effect = np.empty_like(now), np.empty_like(now)
    for block in np.unique(blocks):
        mine = blocks == block
        away[mine], effect[mine] = distances(now[mine], _base(rows, sums, squares, _buckets(runs, mine)))
    largest, counting = np.full((2, len(n)), np.nan)
    for block in np.unique(blocks):
        mine, others = blocks == block, (blocks != block) & enough
        ratio = (away[mine] / np.maximum(_spread(away[others]), least[mine, None])) ** 2
        largest[mine] = ratio.max(axis=1, initial=0.0)
        counting[mine] = np.where(np.abs(effect[mine]) > EFFECT, ratio, -np.inf).max(axis=1, initial=-np.inf)
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
    """Covariances over all buckets but some."""
    whole = (table.sum(axis=0)[None] - table[without].sum(axis=0)[None] for table in (rows, sums, products))
    return np.asarray(covariances(*whole)[0])


def _buckets(runs: Runs, mine: npt.NDArray[np.bool_]) -> slice:
    ends = runs.ends[mine]
    return slice(max(0, int(ends[0]) - runs.lengths[-1]), int(ends[-1]))


def _places(size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of an upper triangle with the diagonal that has so many numbers."""
    return np.triu_indices(math.isqrt(2 * size))


def _spread(away: Floats) -> Floats:
    return np.sqrt((away**2).mean(axis=0)) if len(away) else np.zeros(away.shape[1])


def pair_value(known: PairCalibration, pairs: PairSpec, products: Products) -> tuple[float, str]:
    """The channel's value of a live window, and the pair whose covariance changed most, in words.

    Args:
        known: of the calibration.
        pairs: the features of `products`.
        products: of the window.

    Returns:
        nan and no words where no change is larger than `EFFECT`.
    """
    if not set(known.names) <= set(pairs.names) or not products.rows:
        return math.nan, ""
    mine = products if pairs.names == known.names else products.only(pairs, known.names)
    now = covariances(np.array([mine.rows]), mine.sums[None], mine.products[None])[0]
    base = np.array(known.base)
    away, effect = distances(now, base)
    ratio = (away / np.maximum(np.array(known.spread), 1 / np.sqrt(mine.rows))) ** 2
    ratio = np.where(np.abs(effect) > EFFECT, ratio, 0.0)
    worst = int(np.argmax(ratio))
    if not ratio[worst]:
        return math.nan, ""
    return float(ratio[worst]), _words(known.names, worst, now, base)


def _words(names: tuple[str, ...], worst: int, now: Floats, base: Floats) -> str:
    first, second = _places(len(base))
    i, j = int(first[worst]), int(second[worst])
    diagonal = np.flatnonzero(first == second)
    if i == j:
        return (
            f"standard deviation of {names[i]} {math.sqrt(max(0.0, now[worst] / base[worst])):.2f} times the usual"
        )
    before, after = (
        table[worst] / math.sqrt(product) if (product := table[diagonal[i]] * table[diagonal[j]]) > 0 else 0.0
        for table in (base, now)
    )
    return f"correlation of {names[i]} and {names[j]} {before:.2f} -> {after:.2f}"
