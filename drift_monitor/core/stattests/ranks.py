"""Stattests on ranks: they see only the order of the values, so any rising transformation leaves them alone.

A profile knows F (reference) and G (current) exactly at each edge and just below it, but not between two edges.
Each statistic is therefore computed on the cells; `low` and `high` hold what any arrangement of the rows inside
the open cells could make of it. They are None where every row lies on an edge: then the statistic is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from drift_monitor.core.profile import FeatureProfile, Floats, Ints, NumericProfile, Spec
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.cells import near_constant, numeric
from drift_monitor.core.stattests.tables import table_z
from drift_monitor.core.types import StatResult


@dataclass(frozen=True, eq=False)
class _Steps:
    """The two distribution functions on the fine cells that hold rows.

    Attributes:
        a, b: reference and current rows a cell, shape (k,); m, n their sums.
        open: whether a cell lies between two edges and may hold several values.
        before, after: F - G below and above the cell.
        rise, fall: the cell's shares of the reference and of the current rows.
    """

    a: Ints
    b: Ints
    m: int
    n: int
    open: np.ndarray[tuple[int], np.dtype[np.bool_]]
    before: Floats
    after: Floats
    rise: Floats
    fall: Floats

    @property
    def exact(self) -> bool:
        """Whether every cell holds a single value."""
        return not self.open.any()


def _steps(reference: NumericProfile, current: NumericProfile) -> _Steps:
    total = reference.counts + current.counts
    used = np.flatnonzero(total)
    a, b = reference.counts[used], current.counts[used]
    m, n = int(a.sum()), int(b.sum())
    after = np.cumsum(a) / m - np.cumsum(b) / n
    before = np.concatenate(([0.0], after[:-1]))
    # a cell with one row holds one value
    several = (used % 2 == 0) & (total[used] > 1)
    return _Steps(a, b, m, n, several, before, after, a / m, b / n)


def _result(
    statistic: float, p_value: float | None, steps: _Steps, low: float, high: float, slack: float = 1e-12
) -> StatResult:
    """With its bracket, widened by rounding; without one if the statistic is exact."""
    if steps.exact:
        return StatResult(statistic=statistic, p_value=p_value)
    margin = slack * max(1.0, high)
    return StatResult(statistic=statistic, p_value=p_value, low=max(0.0, low - margin), high=high + margin)


# -- Kolmogorov-Smirnov ----------------------------------------------------------------------------------


def ks(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Kolmogorov-Smirnov: D = sup |F - G|, taken at the edges.

    Between two edges F rises by p and G by q, so D may be larger there by min(p, q) at most [1]. The p-value is
    Kolmogorov's limit at sqrt(mn / (m + n)) D: conservative for few rows and for tied ones.

    References:
        [1] F and G are monotone, so D inside a cell is at most its value below the cell plus p, and at least
            that minus q; the sum of the p over all cells is 1, hence 1/1000 for 1000 quantile cells.
    """
    s = _steps(*numeric(spec, reference, current)[1:])
    statistic = float(np.abs(s.after).max())
    both = s.open & (s.a > 0) & (s.b > 0)
    inside = np.maximum(s.before + s.rise, s.fall - s.before)[both]
    p_value = float(special.kolmogorov(math.sqrt(s.m * s.n / (s.m + s.n)) * statistic))
    if not len(inside):
        return StatResult(statistic=statistic, p_value=p_value)
    return _result(statistic, p_value, s, statistic, max(statistic, float(inside.max())))


def ks_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """Kolmogorov's limit, at the actual numbers of rows."""
    _, before, now = numeric(spec, reference, current)
    m, n = before.n, now.n
    return float(special.kolmogi(alpha)) / math.sqrt(m * n / (m + n))


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
    s = _steps(ours, theirs)
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
    # Inside an open cell D stays between before - fall and before + rise. A tie of rows u..v weighs no more than
    # the same rows untied, and no less than l over the largest B (N - B).
    top, bottom = s.before + s.rise, s.before - s.fall
    most = np.maximum(top**2, bottom**2)
    least = np.where(top * bottom <= 0, 0.0, np.minimum(top**2, bottom**2))
    centre = np.clip(rows / 2, start, end)
    high = np.where(s.open, most * _untied_weight(start, end, rows), terms)
    low = np.where(s.open, least * total / (centre * (rows - centre)), terms)
    return _result(statistic, p_value, s, scale * float(low.sum()), scale * float(high.sum()), 1e-9)


def _spread(u: Floats, v: Floats, rows: int) -> Floats:
    """B (N - B) - N l / 4 for tied rows u..v: B = (u + v)/2, l = v - u."""
    middle = (u + v) / 2
    return middle * (rows - middle) - rows * (v - u) / 4


def _untied_weight(u: Floats, v: Floats, rows: int) -> Floats:
    """The sum of 1/(x (N - x) - N/4) over x = u + 1/2, u + 3/2, ..., v - 1/2.

    By partial fractions, with the digamma function for the two sums of 1/(x - r).
    """
    root = rows / 2 * math.sqrt(1 - 1 / rows)
    low, high = rows / 2 - root, rows / 2 + root
    left = special.digamma(v + 0.5 - low) - special.digamma(u + 0.5 - low)
    right = special.digamma(high - u + 0.5) - special.digamma(high - v + 0.5)
    return np.asarray((left + right) / (high - low))


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
    s = _steps(ours, theirs)
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
    return _result(statistic, p_value, s, low, high)


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
    s = _steps(ours, theirs)
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
    return _result(z, float(2 * special.ndtr(-z)), s, low, high, 1e-9)


def mann_whitney_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """From the normal distribution."""
    _, before, now = numeric(spec, reference, current)
    return math.inf if near_constant(before, now) else null.normal_isf(alpha / 2)


# -- weighted supremum -----------------------------------------------------------------------------------


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
