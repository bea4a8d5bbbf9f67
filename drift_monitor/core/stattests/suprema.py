"""Stattests on the largest difference of two distribution functions (see `steps.py` for brackets)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special

from drift_monitor.core.profile import Floats
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.batch import Batch, results
from drift_monitor.core.stattests.steps import Steps, steps_of
from drift_monitor.core.stattests.tables import largest_z
from drift_monitor.core.types import StatResult


def ks(batch: Batch) -> list[StatResult]:
    """Kolmogorov-Smirnov: D = sup |F - G|, taken at the edges.

    Between two edges F rises by p and G by q, so D may be larger there by min(p, q) at most [1]. The p-value is
    Kolmogorov's limit at sqrt(mn / (m + n)) D: conservative for few rows and for tied ones.

    References:
        [1] F and G are monotone, so D inside a cell is at most its value below the cell plus p, and at least
            that minus q; the sum of the p over all cells is 1, hence 1/1000 for 1000 quantile cells.
    """
    s = batch.once(steps_of)
    statistic = batch.once(distance)
    both = s.open & (s.a > 0) & (s.b > 0)
    inside = s.spans.largest(np.where(both, np.maximum(s.before + s.rise, s.fall - s.before), 0.0))
    high = np.maximum(statistic, inside)
    margin = 1e-12 * np.maximum(1.0, high)
    p_value = special.kolmogorov(_size(s) * statistic)
    bracket = np.maximum(0.0, statistic - margin), high + margin
    return results(statistic, p_value, bracket, exact=~s.spans.largest(both))


def distance(batch: Batch) -> Floats:
    """The largest |F - G| at the edges, shape (F,)."""
    s = batch.once(steps_of)
    return s.spans.largest(np.abs(s.after))


def _size(s: Steps) -> Floats:
    return np.asarray(np.sqrt(s.m * s.n / (s.m + s.n)))


def ks_critical(batch: Batch, alpha: float) -> Floats:
    """Kolmogorov's limit, at the actual numbers of rows."""
    return np.asarray(special.kolmogi(alpha) / _size(batch.once(steps_of)))


def weighted_supremum(batch: Batch) -> list[StatResult]:
    """The largest |F - G| / sqrt(H (1 - H)), H pooled, at the edges: strong where the tails move.

    With few rows on one side of an edge that ratio has no normal tail, so each edge counts with the signed root of
    its likelihood ratio (`table_z`), which is the same for many rows, divided by sqrt(mn / (m + n)).
    """
    s = batch.once(steps_of)
    largest = largest_z(
        s.spans, s.below_a, s.below_b, s.m, s.n
    )  # 0 at the last cell, above which there are no rows
    p_value = [
        min(_supremum_sf(top, rows), places * 2 * float(special.ndtr(-top)) if places else 1.0, 1.0)
        for top, rows, places in zip(largest.tolist(), (s.m + s.n).tolist(), _places(s), strict=True)
    ]
    return results(largest / _size(s), np.array(p_value))


def weighted_supremum_critical(batch: Batch, alpha: float) -> Floats:
    """The smaller of two bounds: a Brownian bridge's boundary crossing, and Bonferroni's over the edges."""
    s = batch.once(steps_of)
    bounds = [
        min(_supremum_isf(alpha, rows), null.normal_isf(alpha / (2 * places))) if places else math.inf
        for rows, places in zip((s.m + s.n).tolist(), _places(s), strict=True)
    ]
    return np.array(bounds) / _size(s)


def _places(s: Steps) -> list[int]:
    """After how many cells of each feature there are new rows below and still rows above."""
    return [cells - 1 for cells in s.spans.lengths.tolist()]


def _supremum_sf(z: float, rows: float) -> float:
    """P(sup of |bridge| / sqrt(t (1 - t)) > z) for t from 1/N to 1 - 1/N.

    References:
        Miller & Siegmund (1982), Maximally selected chi square statistics, equation 8.
    """
    if z <= 1:
        return 1.0
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return min(1.0, density * ((z - 1 / z) * 2 * math.log(max(rows - 1, 1)) + 4 / z))


@lru_cache(maxsize=1024)  # the features of a window mostly have equal numbers of rows
def _supremum_isf(alpha: float, rows: float) -> float:
    low, high = 1.0, 40.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _supremum_sf(middle, rows) > alpha else (low, middle)
    return high
