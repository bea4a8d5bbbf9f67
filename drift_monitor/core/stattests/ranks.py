"""Stattests on sums over ranks (see `steps.py` for brackets)."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from drift_monitor.core.profile import FeatureProfile, Floats, Spec
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.cells import near_constant, numeric
from drift_monitor.core.stattests.steps import Bools, bracketed, steps_of
from drift_monitor.core.types import StatResult

# -- Anderson-Darling ------------------------------------------------------------------------------------


def anderson_darling(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Anderson-Darling for two samples in the k-sample form with midranks [1], rows of a cell counting as tied.

    A^2 = (N - 1)/N * mn * sum over cells of l D^2 / (B (N - B) - N l / 4), with l the rows of both samples in the
    cell, B those below it plus l/2, N = m + n, and D the mean of F - G below and above the cell. Its mean is 1
    under the null. `scipy.stats.anderson_ksamp` returns (A^2 - 1)/sigma: `anderson_darling_sigma`.

    References:
        [1] Scholz & Stephens (1987), K-sample Anderson-Darling tests, equation 7.
    """
    _, ours, theirs = numeric(spec, reference, current)
    s = steps_of(ours, theirs)
    total = s.a + s.b
    rows = s.m + s.n
    end = np.cumsum(total).astype(np.float64)
    start = end - total
    scale = (rows - 1) / rows * s.m * s.n
    middle = (s.before + s.after) / 2
    terms = total * middle**2 / _spread(start, end, rows) if len(total) > 1 else np.zeros(1)
    statistic = scale * float(terms.sum())
    p_value = None if near_constant(ours, theirs) else null.tied_law(total, middle=True).sf(statistic)
    if s.exact:
        return StatResult(statistic=statistic, p_value=p_value)
    # inside an open cell D stays between before - fall and before + rise
    top, bottom = s.before + s.rise, s.before - s.fall
    most = np.maximum(top**2, bottom**2)
    least = np.where(top * bottom <= 0, 0.0, np.minimum(top**2, bottom**2))
    centre = np.clip(rows / 2, start, end)
    high = np.where(s.open, most * _heaviest(start, end, s.open, rows), terms)
    low = np.where(s.open, least * total / (centre * (rows - centre)), terms)
    return bracketed(statistic, p_value, s, scale * float(low.sum()), scale * float(high.sum()), 1e-9)


def _spread(u: Floats, v: Floats, rows: int) -> Floats:
    """B (N - B) - N l / 4 for tied rows u..v: B = (u + v)/2, l = v - u."""
    middle = (u + v) / 2
    return middle * (rows - middle) - rows * (v - u) / 4


def _heaviest(start: Floats, end: Floats, wanted: Bools, rows: int) -> Floats:
    """The most that the rows of a cell can weigh, however they are tied: the sum of l / `_spread` over its ties.

    `_spread` is concave in (u, v), so over all ties inside a cell it is least at one of three corners. Near the
    ends of the ranks that is far too little for most of the rows: there `_heaviest_by_row` looks closer.
    """
    length = end - start
    corners = (_spread(start, start + 1, rows), _spread(start, end, rows), _spread(end - 1, end, rows))
    # every tie but that of all rows has a spread of (N - 1)/4 at least
    least = np.maximum(np.minimum.reduce(corners), (rows - 1) / 4)
    most = np.maximum.reduce((*corners, _spread((start + end - 1) / 2, (start + end + 1) / 2, rows)))
    weight = np.asarray(length / least)
    for cell in np.flatnonzero(wanted & (most > 2 * least)):
        weight[cell] = _heaviest_by_row(int(start[cell]), int(end[cell]), rows)
    return weight


def _heaviest_by_row(start: int, end: int, rows: int) -> float:
    """The same for one cell, as a sum over blocks of rows that are short near both ends of the cell.

    A tie that holds a row of the block s1..s2 begins between `start` and s2 - 1 and ends between s1 + 1 and `end`.
    """
    length = end - start
    steps = np.geomspace(1, length, 100).astype(np.int64)
    cuts = start + np.unique(np.concatenate(([0, length], steps, length - steps)))
    s1, s2 = cuts[:-1].astype(np.float64), cuts[1:].astype(np.float64)
    low, high = np.full_like(s1, start), np.full_like(s1, end)
    corners = [(low, s1 + 1), (low, high), (s2 - 1, high), (s1, s1 + 1), (s2 - 1, s2)]
    least = np.minimum.reduce([_spread(u, v, rows) for u, v in corners])
    return float(((s2 - s1) / np.maximum(least, (rows - 1) / 4)).sum())


def anderson_darling_critical(
    spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float
) -> float:
    """From the limiting law, which depends on how rows are tied; infinite for a nearly constant feature."""
    _, before, now = numeric(spec, reference, current)
    if near_constant(before, now):
        return math.inf
    return null.tied_law(before.counts + now.counts, middle=True).isf(alpha)


def anderson_darling_sigma(m: int, n: int) -> float:
    """Standard deviation of A^2 under the null for untied samples of m and n rows.

    References:
        Scholz & Stephens (1987), equation 4, for k = 2. Their double sum g is H(N-1)^2 - H(N)^2 + H2(N), with H
        and H2 the harmonic numbers of order 1 and 2.
    """
    rows = m + n
    h = float(special.digamma(rows)) + np.euler_gamma
    square = math.pi**2 / 6 - float(special.zeta(2, rows + 1))
    g = h**2 - (h + 1 / rows) ** 2 + square
    inverse = 1 / m + 1 / n
    a = (4 * g - 6) + (10 - 6 * g) * inverse
    b = (2 * g - 4) * 4 + 8 * h * 2 + (2 * g - 14 * h - 4) * inverse - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * 4 + (4 * h - 4 * g + 6) * 2 + (2 * h - 6) * inverse + 4 * h
    d = (2 * h + 6) * 4 - 4 * h * 2
    return math.sqrt((a * rows**3 + b * rows**2 + c * rows + d) / ((rows - 1) * (rows - 2) * (rows - 3)))


# -- Cramer-von Mises ------------------------------------------------------------------------------------


def cramer_von_mises(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Cramer-von Mises: T = mn / N^2 * sum of (F - G)^2 over all rows of both samples [1].

    In an open cell F - G is taken to run straight from its value below to its value above. Without ties T is
    `scipy.stats.cramervonmises_2samp`; with ties and unequal numbers of rows that one grows without bound.

    References:
        [1] Anderson (1962), On the distribution of the two-sample Cramer-von Mises criterion.
    """
    _, ours, theirs = numeric(spec, reference, current)
    s = steps_of(ours, theirs)
    total = s.a + s.b
    scale = s.m * s.n / (s.m + s.n) ** 2
    straight = (s.before**2 + s.before * s.after + s.after**2) / 3
    statistic = scale * float((total * np.where(s.open, straight, s.after**2)).sum())
    p_value = None if near_constant(ours, theirs) else null.tied_law(total, middle=False).sf(statistic)
    top, bottom = s.before + s.rise, s.before - s.fall
    most = np.where(s.open, np.maximum(top**2, bottom**2), s.after**2)
    least = np.where(top * bottom <= 0, 0.0, np.minimum(top**2, bottom**2))
    least = np.where(s.open, least, s.after**2)
    low, high = scale * float((total * least).sum()), scale * float((total * most).sum())
    return bracketed(statistic, p_value, s, low, high)


def cramer_von_mises_critical(
    spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float
) -> float:
    """From the limiting law, which depends on how rows are tied; infinite for a nearly constant feature."""
    _, before, now = numeric(spec, reference, current)
    if near_constant(before, now):
        return math.inf
    return null.tied_law(before.counts + now.counts, middle=False).isf(alpha)


# -- Mann-Whitney ----------------------------------------------------------------------------------------


def mann_whitney(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult | None:
    """Mann-Whitney: |U - mn/2| less 1/2, in standard deviations corrected for ties.

    The p-value is the two-sided normal one, `scipy.stats.mannwhitneyu(method="asymptotic")`. None for a nearly
    constant feature (`near_constant`), where there is no such law.

    References:
        Hollander & Wolfe (1999), Nonparametric statistical methods, section 4.1, with its tie correction.
    """
    _, ours, theirs = numeric(spec, reference, current)
    if near_constant(ours, theirs):
        return None
    s = steps_of(ours, theirs)
    rows = s.m + s.n
    total = (s.a + s.b).astype(np.float64)
    below = np.concatenate(([0], np.cumsum(s.b)[:-1]))
    u = float((s.a * (below + s.b / 2)).sum())
    distance = abs(u - s.m * s.n / 2)
    unknown = float((s.a * s.b)[s.open].sum()) / 2
    ties = (total**3 - total) / (rows * (rows - 1))
    # at most: open cells hold no ties; at least: each is one tie
    widest, narrowest = (
        math.sqrt(s.m * s.n / 12 * max(0.0, rows + 1 - float(t.sum()))) for t in (ties[~s.open], ties)
    )
    z = max(0.0, distance - 0.5) / widest
    low = max(0.0, distance - unknown - 0.5) / widest
    high = max(0.0, distance + unknown - 0.5) / narrowest
    return bracketed(z, float(2 * special.ndtr(-z)), s, low, high, 1e-9)


def mann_whitney_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """From the normal distribution."""
    _, before, now = numeric(spec, reference, current)
    return math.inf if near_constant(before, now) else null.normal_isf(alpha / 2)
