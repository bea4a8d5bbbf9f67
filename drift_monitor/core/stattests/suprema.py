"""Stattests on the largest difference of two distribution functions (see `steps.py` for brackets)."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from drift_monitor.core.profile import FeatureProfile, Floats, Ints, NumericProfile, Spec
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.cells import numeric
from drift_monitor.core.stattests.steps import bracketed, steps_of
from drift_monitor.core.stattests.tables import table_z
from drift_monitor.core.types import StatResult


def ks(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Kolmogorov-Smirnov: D = sup |F - G|, taken at the edges.

    Between two edges F rises by p and G by q, so D may be larger there by min(p, q) at most [1]. The p-value is
    Kolmogorov's limit at sqrt(mn / (m + n)) D: conservative for few rows and for tied ones.

    References:
        [1] F and G are monotone, so D inside a cell is at most its value below the cell plus p, and at least
            that minus q; the sum of the p over all cells is 1, hence 1/1000 for 1000 quantile cells.
    """
    s = steps_of(*numeric(spec, reference, current)[1:])
    statistic = float(np.abs(s.after).max())
    both = s.open & (s.a > 0) & (s.b > 0)
    inside = np.maximum(s.before + s.rise, s.fall - s.before)[both]
    p_value = float(special.kolmogorov(math.sqrt(s.m * s.n / (s.m + s.n)) * statistic))
    if not len(inside):
        return StatResult(statistic=statistic, p_value=p_value)
    return bracketed(statistic, p_value, s, statistic, max(statistic, float(inside.max())))


def ks_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """Kolmogorov's limit, at the actual numbers of rows."""
    _, before, now = numeric(spec, reference, current)
    m, n = before.n, now.n
    return float(special.kolmogi(alpha)) / math.sqrt(m * n / (m + n))


def weighted_supremum(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """The largest |F - G| / sqrt(H (1 - H)), H pooled, at the edges: strong where the tails move.

    With few rows on one side of an edge that ratio has no normal tail, so each edge counts with the signed root of
    its likelihood ratio (`table_z`), which is the same for many rows, divided by sqrt(mn / (m + n)).
    """
    _, before, now = numeric(spec, reference, current)
    z = _edges_z(before, now)
    largest = float(z.max(initial=0.0))
    m, n = before.n, now.n
    p_value = min(_supremum_sf(largest, m + n), len(z) * 2 * float(special.ndtr(-largest)), 1.0)
    return StatResult(statistic=largest / math.sqrt(m * n / (m + n)), p_value=p_value)


def weighted_supremum_critical(
    spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float
) -> float:
    """The smaller of two bounds: a Brownian bridge's boundary crossing, and Bonferroni's over the edges."""
    _, before, now = numeric(spec, reference, current)
    m, n = before.n, now.n
    places = _places(before.counts + now.counts)
    if not len(places):
        return math.inf
    low, high = 1.0, 40.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _supremum_sf(middle, m + n) > alpha else (low, middle)
    return min(high, null.normal_isf(alpha / (2 * len(places)))) / math.sqrt(m * n / (m + n))


def _places(total: Ints) -> Ints:
    """The fine cells after which there are new rows below and still rows above."""
    return np.flatnonzero(total[:-1] * (np.cumsum(total)[:-1] < total.sum()))


def _edges_z(reference: NumericProfile, current: NumericProfile) -> Floats:
    places = _places(reference.counts + current.counts)
    below, now_below = np.cumsum(reference.counts)[places], np.cumsum(current.counts)[places]
    return table_z(below, now_below, reference.n, current.n)


def _supremum_sf(z: float, rows: int) -> float:
    """P(sup of |bridge| / sqrt(t (1 - t)) > z) for t from 1/N to 1 - 1/N.

    References:
        Miller & Siegmund (1982), Maximally selected chi square statistics, equation 8.
    """
    if z <= 1:
        return 1.0
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return min(1.0, density * ((z - 1 / z) * 2 * math.log(max(rows - 1, 1)) + 4 / z))
