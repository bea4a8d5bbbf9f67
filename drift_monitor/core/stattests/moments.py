"""Stattests on values: they use the sums of a profile, so outliers count with their full weight."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from drift_monitor.core.profile import Floats, NumericProfile, NumericSpec
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.batch import Batch, Fine, Spans, results
from drift_monitor.core.stattests.cells import almost_constant, groups
from drift_monitor.core.types import StatResult

_DRAWS = 500
_GROUPS = 100
_FINE = 1000
_TAIL = 40  # of the fine groups at either end stay as they are: a heavy tail's area lies there


def wasserstein(batch: Batch) -> list[StatResult | None]:
    """Wasserstein-1 (earth mover's) distance: the area between F and G, in the feature's own unit.

    The counts and sums of the cells give the area of F - G over each cell exactly. It is the area of |F - G|
    unless F and G may cross inside; there the statistic takes F - G as straight, and the bracket holds every way
    to cross. Datetimes: in seconds. None where a value lies too far out for the sums.

    References:
        Vallender (1974), Calculation of the Wasserstein distance between probability distributions on the line.
    """
    fine, sides = batch.once(Fine), list(batch.numeric)
    open_cells = Spans(fine.spans.lengths // 2 + 1)
    unit = np.array([spec.unit for spec, _, _ in sides])
    saturated = np.array([bool(before.saturated or now.saturated) for _, before, now in sides])
    # a sum is off by at most half a unit a row
    loose = open_cells.sums(fine.a[~fine.edge]) / batch.m + open_cells.sums(fine.b[~fine.edge]) / batch.n
    with np.errstate(over="ignore", invalid="ignore"):
        statistic, low, high = (open_cells.sums(area) * unit for area in _areas(batch, open_cells))
        slack = loose / 2 * unit + 1e-12 * high
        none = saturated | ~np.isfinite(high + slack)
        bracket = np.where(none, 0.0, np.maximum(0.0, low - slack)), np.where(none, 0.0, high + slack)
    found = results(np.where(none, 0.0, statistic), None, bracket, exact=loose == 0)
    return [None if missing else answer for answer, missing in zip(found, none.tolist(), strict=True)]


def _areas(batch: Batch, spans: Spans) -> tuple[Floats, Floats, Floats]:
    """Of |F - G| over each open cell, in units of the spec: as estimated, at least, at most; shape (K,).

    Args:
        batch: of the features.
        spans: their open cells.
    """
    fine = batch.once(Fine)
    m, n = spans.each(batch.m), spans.each(batch.n)
    left, right = _limits(batch, spans)
    width = right - left
    difference = fine.below_a / fine.spans.each(batch.m) - fine.below_b / fine.spans.each(batch.n)
    d1 = difference[~fine.edge]  # above each open cell
    d0 = fine.spans.previous(difference)[~fine.edge]  # below it
    p, q = fine.a[~fine.edge] / m, fine.b[~fine.edge] / n
    sum_p, sum_q = (
        np.concatenate([side.sums[::2] for side in profiles]) / rows
        for profiles, rows in (
            ([before for _, before, _ in batch.numeric], m),
            ([now for _, _, now in batch.numeric], n),
        )
    )
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


def _limits(batch: Batch, spans: Spans) -> tuple[Floats, Floats]:
    """The lower and the upper end of each open cell in units of the spec, shape (K,)."""
    edges = [_units(spec, spec.edges) for spec, _, _ in batch.numeric]
    ends = [
        _units(spec, np.array([min(before.minimum, now.minimum), max(before.maximum, now.maximum)]))
        for spec, before, now in batch.numeric
    ]
    # no end lies inside of the edges
    lows = np.array([min(end[0], edge[0]) for end, edge in zip(ends, edges, strict=True)])
    highs = np.array([max(end[1], edge[-1]) for end, edge in zip(ends, edges, strict=True)])
    whole = np.concatenate(edges)
    between = Spans(spans.lengths - 1)
    return np.insert(whole, between.first, lows), np.insert(whole, between.ends, highs)


def _units(spec: NumericSpec, x: Floats) -> Floats:
    if spec.unit > 1:
        return np.asarray(x / spec.unit - spec.origin / spec.unit)
    return np.asarray((x - spec.origin) / spec.unit)


def wasserstein_critical(batch: Batch, alpha: float) -> Floats:
    """By simulation of both samples from the pooled shares of some 180 groups, each at its mean.

    What the groups' own spread adds is put in by widening the draws in proportion to the standard deviation. Half
    of alpha is kept back, since a heavy tail is heavier than the pooled sample shows: for a lognormal of sigma 1.5
    or Student's t with 3 degrees of freedom, all of alpha gave up to twice as many false alarms as it says.
    """
    return np.array([_simulated(spec, before, now, alpha) for spec, before, now in batch.numeric])


def _simulated(spec: NumericSpec, before: NumericProfile, now: NumericProfile, alpha: float) -> float:
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


def t(batch: Batch) -> list[StatResult | None]:
    """Welch's t: |difference of the means| in standard errors, for unequal variances.

    `scipy.stats.ttest_ind(equal_var=False)` up to the rounding of the sums (a 2**-30th of the reference's range a
    value). None with a value too far out for the sums, or for a nearly constant feature (`almost_constant`). With
    under some 1000 rows of a very skewed feature it raises more false alarms than alpha says: use a rank method.

    References:
        Welch (1947), The generalization of Student's problem.
    """
    return [
        None
        if found is None
        else StatResult(statistic=found[0], p_value=float(2 * special.stdtr(found[1], -found[0])))
        for found in batch.once(_welch)
    ]


def _welch(batch: Batch) -> list[tuple[float, float] | None]:
    """Statistic and degrees of freedom of each feature."""
    constant = batch.once(almost_constant).tolist()
    return [
        None if none else _welch_of(before, now)
        for (_, before, now), none in zip(batch.numeric, constant, strict=True)
    ]


def _welch_of(before: NumericProfile, now: NumericProfile) -> tuple[float, float] | None:
    if before.saturated or now.saturated or min(before.n, now.n) < 2:
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


def t_critical(batch: Batch, alpha: float) -> Floats:
    """From Student's distribution with Welch's degrees of freedom."""
    found = batch.once(_welch)
    return np.array([-float(special.stdtrit(f[1], alpha / 2)) if f else math.inf for f in found])
