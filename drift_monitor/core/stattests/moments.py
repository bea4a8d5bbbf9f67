"""Stattests on values: they use the sums of a profile, so outliers count with their full weight."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from drift_monitor.core.profile import FeatureProfile, Floats, NumericProfile, NumericSpec, Spec
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.cells import groups, near_constant, numeric
from drift_monitor.core.types import StatResult

_DRAWS = 500
_GROUPS = 100
_FINE = 1000
_TAIL = 40  # of the fine groups at either end stay as they are: a heavy tail's area lies there


def wasserstein(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult | None:
    """Wasserstein-1 (earth mover's) distance: the area between F and G, in the feature's own unit.

    The counts and sums of the cells give the area of F - G over each cell exactly. It is the area of |F - G|
    unless F and G may cross inside; there the statistic takes F - G as straight, and the bracket holds every way
    to cross. Datetimes: in seconds. None where a value lies too far out for the sums.

    References:
        Vallender (1974), Calculation of the Wasserstein distance between probability distributions on the line.
    """
    spec, before, now = numeric(spec, reference, current)
    if before.saturated or now.saturated:
        return None
    area = _areas(spec, before, now)
    statistic, low, high = (float(x.sum()) * spec.unit for x in area)
    # a sum is off by at most half a unit a row
    loose = float(before.counts[::2].sum() / before.n + now.counts[::2].sum() / now.n)
    slack = loose / 2 * spec.unit + 1e-12 * high
    if not math.isfinite(high + slack):
        return None
    if not loose:
        return StatResult(statistic=statistic)
    return StatResult(statistic=statistic, low=max(0.0, low - slack), high=high + slack)


def _areas(spec: NumericSpec, before: NumericProfile, now: NumericProfile) -> tuple[Floats, Floats, Floats]:
    """Of |F - G| over each open cell, in units of the spec: as estimated, at least, at most."""
    m, n = before.n, now.n
    ends = (min(before.minimum, now.minimum), max(before.maximum, now.maximum))
    edges = _units(spec, np.concatenate((ends[:1], spec.edges, ends[1:])))
    edges[0], edges[-1] = min(edges[0], edges[1]), max(edges[-1], edges[-2])
    left, right = edges[:-1], edges[1:]
    width = right - left
    difference = np.cumsum(before.counts) / m - np.cumsum(now.counts) / n
    d1 = difference[::2]  # above each open cell
    d0 = np.concatenate(([0.0], difference[1::2]))  # below it
    p, q = before.counts[::2] / m, now.counts[::2] / n
    sum_p, sum_q = before.sums[::2] / m, now.sums[::2] / n
    # the area under a sample's own rise inside a cell, and what is left of the cell above it
    rise_p, rise_q = np.maximum(p * right - sum_p, 0.0), np.maximum(q * right - sum_q, 0.0)
    rest_p, rest_q = np.maximum(sum_p - p * left, 0.0), np.maximum(sum_q - q * left, 0.0)
    least = np.abs(d0 * width + rise_p - rise_q)
    above = np.minimum(np.maximum(d0, 0) * width + rise_p, np.maximum(d1, 0) * width + rest_q)
    below = np.minimum(np.maximum(-d0, 0) * width + rise_q, np.maximum(-d1, 0) * width + rest_p)
    most = least + 2 * np.minimum(above, below)
    spread = np.abs(d0) + np.abs(d1)
    crossing = (d0 * d1 < 0) & (spread > 0)
    straight = width * np.where(crossing, (d0**2 + d1**2) / np.where(spread > 0, 2 * spread, 1.0), 0.0)
    return np.clip(straight, least, most), least, most


def _units(spec: NumericSpec, x: Floats) -> Floats:
    if spec.unit > 1:
        return np.asarray(x / spec.unit - spec.origin / spec.unit)
    return np.asarray((x - spec.origin) / spec.unit)


def wasserstein_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """By simulation of both samples from the pooled shares of some 180 groups, each at its mean.

    What the groups' own spread adds is put in by widening the draws in proportion to the standard deviation. Half
    of alpha is kept back, since a heavy tail is heavier than the pooled sample shows: for a lognormal of sigma 1.5
    or Student's t with 3 degrees of freedom, all of alpha gave up to twice as many false alarms as it says.
    """
    spec, before, now = numeric(spec, reference, current)
    whole = before.merge(now)
    if whole.saturated:
        return math.inf
    coarse, fine = groups(whole, _GROUPS), groups(whole, _FINE)
    starts = np.unique(np.concatenate((coarse, fine[:_TAIL], fine[-_TAIL:])))
    counts = np.add.reduceat(whole.counts, starts)
    at = np.add.reduceat(whole.sums, starts)[counts > 0] / counts[counts > 0]
    share = counts[counts > 0] / whole.n
    between = float((share * (at - share @ at) ** 2).sum())
    if not between:
        return math.inf
    widen = max(1.0, math.sqrt(_mean_and_error(whole)[1] * whole.n / between))
    difference = null.draw(share, before.n, _DRAWS, seed=1) - null.draw(share, now.n, _DRAWS, seed=2)
    areas = np.abs(np.cumsum(difference, axis=1)[:, :-1]) @ np.diff(at)
    return widen * null.tail(areas, alpha / 2) * spec.unit


def t(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult | None:
    """Welch's t: |difference of the means| in standard errors, for unequal variances.

    `scipy.stats.ttest_ind(equal_var=False)` up to the rounding of the sums (a 2**-30th of the reference's range a
    value). None with a value too far out for the sums, or for a nearly constant feature (`near_constant`). With
    under some 1000 rows of a very skewed feature it raises more false alarms than alpha says: use a rank method.

    References:
        Welch (1947), The generalization of Student's problem.
    """
    found = _welch(*numeric(spec, reference, current)[1:])
    if found is None:
        return None
    statistic, freedom = found
    return StatResult(statistic=statistic, p_value=float(2 * special.stdtr(freedom, -statistic)))


def _welch(before: NumericProfile, now: NumericProfile) -> tuple[float, float] | None:
    if before.saturated or now.saturated or min(before.n, now.n) < 2 or near_constant(before, now):
        return None
    # in units, so that neither squares nor small differences of large means lose digits
    (mean_p, a), (mean_q, b) = (_mean_and_error(x) for x in (before, now))
    if a + b <= 0:
        return None
    freedom = (a + b) ** 2 / (a**2 / (before.n - 1) + b**2 / (now.n - 1))
    return abs(mean_p - mean_q) / math.sqrt(a + b), freedom


def _mean_and_error(profile: NumericProfile) -> tuple[float, float]:
    """Mean and squared standard error of the mean, in units."""
    n, total = profile.n, int(profile.sums.sum(dtype=object))
    return total / n, (n * profile.squares - total * total) / (n * n * (n - 1))


def t_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """From Student's distribution with Welch's degrees of freedom."""
    found = _welch(*numeric(spec, reference, current)[1:])
    return -float(special.stdtrit(found[1], alpha / 2)) if found else math.inf
