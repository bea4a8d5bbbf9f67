"""Stattests on sums over ranks (see `steps.py` for brackets)."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from drift_monitor.core.profile import Floats
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.batch import Batch, Bools
from drift_monitor.core.stattests.cells import almost_constant
from drift_monitor.core.stattests.steps import Steps, bracketed, steps_of
from drift_monitor.core.types import StatResult

# -- Anderson-Darling ------------------------------------------------------------------------------------


def anderson_darling(batch: Batch) -> list[StatResult]:
    """Anderson-Darling for two samples in the k-sample form with midranks [1], rows of a cell counting as tied.

    A^2 = (N - 1)/N * mn * sum over cells of l D^2 / (B (N - B) - N l / 4), with l the rows of both samples in the
    cell, B those below it plus l/2, N = m + n, and D the mean of F - G below and above the cell. Its mean is 1
    under the null. `scipy.stats.anderson_ksamp` returns (A^2 - 1)/sigma: `anderson_darling_sigma`.

    References:
        [1] Scholz & Stephens (1987), K-sample Anderson-Darling tests, equation 7.
    """
    s = batch.once(steps_of)
    total = (s.a + s.b).astype(np.float64)
    rows = s.spans.each(s.m + s.n)
    end = (s.below_a + s.below_b).astype(np.float64)
    start = end - total
    scale = (s.m + s.n - 1) / (s.m + s.n) * s.m * s.n
    middle = (s.before + s.after) / 2
    spread = _spread(start, end, rows)
    # with all rows in one cell nothing can differ
    terms = total * middle**2 / np.where(total == rows, 1.0, spread)
    statistic = scale * s.spans.sums(terms)
    p_value = _tail(batch, statistic, middle=True)
    # inside an open cell D stays between before - fall and before + rise
    top, bottom = s.before + s.rise, s.before - s.fall
    crosses = top * bottom <= 0
    top *= top
    bottom *= bottom
    least = np.where(crosses, 0.0, np.minimum(top, bottom))
    centre = np.minimum(np.maximum(rows / 2, start), end)
    high = np.where(s.open, np.maximum(top, bottom) * _heaviest(start, end, spread, s.open, rows), terms)
    low = np.where(s.open, least * total / (centre * (rows - centre)), terms)
    return bracketed(s, statistic, p_value, scale * s.spans.sums(low), scale * s.spans.sums(high), 1e-9)


def _tail(batch: Batch, statistic: Floats, *, middle: bool) -> Floats:
    """P-values from the limiting law, which depends on how rows are tied; NaN for a nearly constant feature."""
    laws = batch.once(_midrank_laws if middle else _step_laws)
    return np.array([law.sf(x) if law else math.nan for law, x in zip(laws, statistic.tolist(), strict=True)])


def _laws(batch: Batch, *, middle: bool) -> list[null.Mixture | None]:
    s, none = batch.once(steps_of), batch.once(almost_constant)
    parts = np.split(s.a + s.b, s.spans.ends[:-1])
    return [
        None if constant else null.tied_law(part, middle=middle)
        for part, constant in zip(parts, none.tolist(), strict=True)
    ]


def _midrank_laws(batch: Batch) -> list[null.Mixture | None]:
    return _laws(batch, middle=True)


def _step_laws(batch: Batch) -> list[null.Mixture | None]:
    return _laws(batch, middle=False)


def _critical(laws: list[null.Mixture | None], alpha: float) -> Floats:
    limits = {law: law.isf(alpha) for law in {*laws} if law}  # untied features share one
    return np.array([limits[law] if law else math.inf for law in laws])


def _spread(u: Floats, v: Floats, rows: Floats) -> Floats:
    """B (N - B) - N l / 4 for tied rows u..v: B = (u + v)/2, l = v - u."""
    middle = (u + v) / 2
    return np.asarray(middle * (rows - middle) - rows * (v - u) / 4)


def _lone(u: Floats, rows: Floats, quarter: Floats) -> Floats:
    """The same of the one row u..u + 1; `quarter` is that of the rows."""
    middle = u + 0.5
    spread = rows - middle
    spread *= middle
    spread -= quarter
    return spread


def _heaviest(start: Floats, end: Floats, spread: Floats, wanted: Bools, rows: Floats) -> Floats:
    """The most that the rows of a cell can weigh, however they are tied: the sum of l / `_spread` over its ties.

    `_spread` is concave in (u, v), so over all ties inside a cell it is least at one of three corners. Near the
    ends of the ranks that is far too little for most of the rows: there `_heaviest_by_row` looks closer.
    """
    quarter = rows / 4
    first, last = _lone(start, rows, quarter), _lone(end - 1, rows, quarter)
    most = np.maximum(np.maximum(first, last), np.maximum(spread, _lone((start + end - 1) / 2, rows, quarter)))
    # every tie but that of all rows has a spread of (N - 1)/4 at least
    least = np.maximum(np.minimum(np.minimum(first, last), spread), (rows - 1) / 4)
    weight = np.asarray((end - start) / least)
    near = np.flatnonzero(wanted & (most > 2 * least))
    if len(near):
        weight[near] = _heaviest_by_row(start[near], end[near], rows[near])
    return weight


def _heaviest_by_row(start: Floats, end: Floats, rows: Floats) -> Floats:
    """The same for some cells, shape (K,), as sums over blocks of rows that are short near both ends of the cell.

    A tie that holds a row of the block s1..s2 begins between `start` and s2 - 1 and ends between s1 + 1 and `end`.
    """
    low, high, rows, length = start[:, None], end[:, None], rows[:, None], (end - start)[:, None]
    steps = np.floor(np.geomspace(1, length[:, 0], 100, axis=1))
    # some blocks are empty and weigh nothing
    cuts = low + np.sort(np.concatenate((0 * length, length, steps, length - steps), axis=1), axis=1)
    s1, s2 = cuts[:, :-1], cuts[:, 1:]
    corners = [(low, s1 + 1), (low, high), (s2 - 1, high)]
    ties = [np.broadcast_to(_spread(u, v, rows), s1.shape) for u, v in corners]
    least = np.minimum.reduce([*ties, _lone(s1, rows, rows / 4), _lone(s2 - 1, rows, rows / 4)])
    return np.asarray(((s2 - s1) / np.maximum(least, (rows - 1) / 4)).sum(axis=1))


def anderson_darling_critical(batch: Batch, alpha: float) -> Floats:
    """From the limiting law, which depends on how rows are tied; infinite for a nearly constant feature."""
    return _critical(batch.once(_midrank_laws), alpha)


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


def cramer_von_mises(batch: Batch) -> list[StatResult]:
    """Cramer-von Mises: T = mn / N^2 * sum of (F - G)^2 over all rows of both samples [1].

    In an open cell F - G is taken to run straight from its value below to its value above. Without ties T is
    `scipy.stats.cramervonmises_2samp`; with ties and unequal numbers of rows that one grows without bound.

    References:
        [1] Anderson (1962), On the distribution of the two-sample Cramer-von Mises criterion.
    """
    s = batch.once(steps_of)
    total = s.a + s.b
    scale = s.m * s.n / (s.m + s.n) ** 2
    straight = (s.before**2 + s.before * s.after + s.after**2) / 3
    statistic = scale * s.spans.sums(total * np.where(s.open, straight, s.after**2))
    p_value = _tail(batch, statistic, middle=False)
    top, bottom = s.before + s.rise, s.before - s.fall
    most = np.where(s.open, np.maximum(top**2, bottom**2), s.after**2)
    least = np.where(top * bottom <= 0, 0.0, np.minimum(top**2, bottom**2))
    least = np.where(s.open, least, s.after**2)
    return bracketed(
        s, statistic, p_value, scale * s.spans.sums(total * least), scale * s.spans.sums(total * most)
    )


def cramer_von_mises_critical(batch: Batch, alpha: float) -> Floats:
    """From the limiting law, which depends on how rows are tied; infinite for a nearly constant feature."""
    return _critical(batch.once(_step_laws), alpha)


# -- Mann-Whitney ----------------------------------------------------------------------------------------


def mann_whitney(batch: Batch) -> list[StatResult | None]:
    """Mann-Whitney: |U - mn/2| less 1/2, in standard deviations corrected for ties.

    The p-value is the two-sided normal one, `scipy.stats.mannwhitneyu(method="asymptotic")`. None for a nearly
    constant feature (`almost_constant`), where there is no such law.

    References:
        Hollander & Wolfe (1999), Nonparametric statistical methods, section 4.1, with its tie correction.
    """
    s, none = batch.once(steps_of), batch.once(almost_constant)
    rows = s.m + s.n
    a, b = s.a.astype(np.float64), s.b.astype(np.float64)
    total = a + b
    u = s.spans.sums(a * (s.below_b - s.b + b / 2))
    distance = np.abs(u - s.m * s.n / 2)
    unknown = s.spans.sums(np.where(s.open, a * b, 0.0)) / 2
    ties = (total**3 - total) / s.spans.each(rows * (rows - 1))
    # at most: open cells hold no ties; at least: each is one tie
    widest, narrowest = (_deviation(s, s.spans.sums(t)) for t in (np.where(s.open, 0.0, ties), ties))
    widest, narrowest = (np.where(none, 1.0, x) for x in (widest, narrowest))
    z = np.maximum(0.0, distance - 0.5) / widest
    low = np.maximum(0.0, distance - unknown - 0.5) / widest
    high = np.maximum(0.0, distance + unknown - 0.5) / narrowest
    found = bracketed(s, z, 2 * special.ndtr(-z), low, high, 1e-9)
    return [None if constant else answer for answer, constant in zip(found, none.tolist(), strict=True)]


def _deviation(s: Steps, ties: Floats) -> Floats:
    return np.asarray(np.sqrt(s.m * s.n / 12 * np.maximum(0.0, s.m + s.n + 1 - ties)))


def mann_whitney_critical(batch: Batch, alpha: float) -> Floats:
    """From the normal distribution."""
    return np.where(batch.once(almost_constant), math.inf, null.normal_isf(alpha / 2))
