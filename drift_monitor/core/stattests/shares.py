"""Stattests on shares of cells: about ten groups of a numeric feature, or the categories.

Cells in which the smaller sample expects under 5 rows are pooled (`cells.pooled`): a distance over hundreds of
nearly empty cells measures the number of rows, not drift. `max_bin_z` pools only those with under 10 rows in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from drift_monitor.core.binomial import lower_quantile, upper_quantile
from drift_monitor.core.profile import Floats
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.batch import Batch, results
from drift_monitor.core.stattests.cells import Cells, Table, fewest, pool, table
from drift_monitor.core.stattests.tables import largest_z
from drift_monitor.core.types import StatResult

PSEUDOCOUNT = 0.5
"""Added to every cell of the PSI: Jeffreys' prior. An empty cell stays finite, its weight in proportion to n."""
BINS = 1000
"""Groups of a numeric feature in which `max_bin_z` looks for a spike or a hole; fewer for a small reference."""
LEAST_TOTAL = 10
"""Rows of both samples for a cell to stand alone in `max_bin_z`; fewer could hardly tell anything."""
_DRAWS = 2000

_Term = Callable[[Floats, Floats], Floats]


def _distance_cells(batch: Batch) -> Table:
    cells = batch.once(table)
    return pool(cells, fewest(cells.m, cells.n), rest=True)


def _dense_cells(batch: Batch) -> Table:
    cells = batch.once(table)
    return pool(cells, fewest(cells.m, cells.n), rest=False)


def _fine_cells(batch: Batch) -> Table:
    # Groups are quantiles, so the reference has as many rows in each. Were those fewer than LEAST_TOTAL, the
    # current rows alone would decide which groups stand alone: just those where they pile up by chance.
    bins = np.clip(batch.m // (2 * LEAST_TOTAL), 2, BINS).astype(np.int64)
    return pool(table(batch, bins), np.full(len(bins), LEAST_TOTAL), rest=True)


def _distance(batch: Batch, term: _Term, pseudocount: float = 0.0) -> Floats:
    """The sum of a term over the cells of each feature, shape (F,)."""
    cells = batch.once(_distance_cells)
    p, q = (
        counts / cells.spans.each(cells.spans.sums(counts))
        for counts in (cells.reference + pseudocount, cells.current + pseudocount)
    )
    return cells.spans.sums(term(p, q))


# -- distances -------------------------------------------------------------------------------------------


def psi(batch: Batch) -> list[StatResult]:
    """Population stability index: sum of (q - p) ln(q / p), with `PSEUDOCOUNT` added to every count.

    It is the sum of the two Kullback-Leibler divergences, in nats.

    References:
        Yurdakul & Naranjo (2020), Statistical properties of the population stability index.
    """
    return results(_distance(batch, _psi_term, PSEUDOCOUNT))


def _psi_term(p: Floats, q: Floats) -> Floats:
    return np.asarray((q - p) * np.log(q / p))


def psi_critical(batch: Batch, alpha: float) -> Floats:
    """(1/n + 1/m) chi-square of B - 1 degrees of freedom, or more where a simulation says so."""
    return _critical(batch, _psi_term, alpha, 1.0, PSEUDOCOUNT)


def jensen_shannon(batch: Batch) -> list[StatResult]:
    """Jensen-Shannon distance, the root of the divergence in bits: `scipy.spatial.distance.jensenshannon`, base 2.

    References:
        Endres & Schindelin (2003), A new metric for probability distributions.
    """
    return results(np.sqrt(np.maximum(0.0, _distance(batch, _jensen_shannon_term))))


def _jensen_shannon_term(p: Floats, q: Floats) -> Floats:
    middle = (p + q) / 2
    return np.asarray((special.rel_entr(p, middle) + special.rel_entr(q, middle)) / (2 * math.log(2)))


def jensen_shannon_critical(batch: Batch, alpha: float) -> Floats:
    """The divergence is about (1/n + 1/m) chi-square / (8 ln 2), or more where a simulation says so."""
    return np.sqrt(_critical(batch, _jensen_shannon_term, alpha, 1 / (8 * math.log(2))))


def hellinger(batch: Batch) -> list[StatResult]:
    """Hellinger distance: the root of half the sum of (sqrt q - sqrt p)^2.

    References:
        Hellinger (1909); normed to 1 as in Le Cam (1986), Asymptotic methods in statistical decision theory.
    """
    return results(np.sqrt(_distance(batch, _hellinger_term)))


def _hellinger_term(p: Floats, q: Floats) -> Floats:
    return np.asarray((np.sqrt(q) - np.sqrt(p)) ** 2 / 2)


def hellinger_critical(batch: Batch, alpha: float) -> Floats:
    """Its square is about (1/n + 1/m) chi-square / 8, or more where a simulation says so."""
    return np.sqrt(_critical(batch, _hellinger_term, alpha, 1 / 8))


def total_variation(batch: Batch) -> list[StatResult]:
    """Total variation distance: half the sum of |q - p|, the share of rows that would have to move."""
    return results(_distance(batch, _total_variation_term))


def _total_variation_term(p: Floats, q: Floats) -> Floats:
    return np.asarray(np.abs(q - p) / 2)


def total_variation_critical(batch: Batch, alpha: float) -> Floats:
    """By simulation of both samples from the pooled shares."""
    return _critical(batch, _total_variation_term, alpha)


def _critical(
    batch: Batch, term: _Term, alpha: float, chi2_factor: float = 0.0, pseudocount: float = 0.0
) -> Floats:
    """The value that a sum of terms over cells exceeds with probability alpha, for each feature."""
    features = batch.once(_distance_cells).features()
    return np.array([_critical_of(cells, term, alpha, chi2_factor, pseudocount) for cells in features])


def _critical_of(cells: Cells, term: _Term, alpha: float, chi2_factor: float, pseudocount: float) -> float:
    """The same for one feature.

    A sparse last cell has no smooth law. Half of alpha then goes to its own count, whose law is binomial, and half
    to how the other rows fall to the other cells. What that count does to the sum, with all other cells as one, is
    added.
    """
    if len(cells.reference) == 1:
        return math.inf
    m, n, extra = cells.m, cells.n, 0.0
    total = cells.reference + cells.current
    if cells.sparse:
        alpha /= 2
        extra = max(
            float(_one_term(term, int(total[-1]), x, m, n, pseudocount))
            for x in _extremes(int(total[-1]), n / (m + n), alpha)
        )
        total = total[:-1]
        if len(total) == 1:
            return extra
    share = total / total.sum()
    draws = min(_DRAWS, max(500, 100_000 // len(share)))  # a sum over many cells is nearly normal: fewer will do
    p, q = null.draw(share, m, draws, seed=1), null.draw(share, n, draws, seed=2)
    if pseudocount:
        p, q = ((x * k + pseudocount) / (k + pseudocount * len(share)) for x, k in ((p, m), (q, n)))
    simulated = null.tail(term(p, q).sum(axis=1), alpha)
    limit = chi2_factor * (1 / m + 1 / n) * null.chi2_isf(alpha, len(total) - 1) if chi2_factor else 0.0
    return extra + max(simulated, limit)


def _extremes(total: int, share: float, alpha: float) -> tuple[int, int]:
    return lower_quantile(alpha / 2, total, share), upper_quantile(alpha / 2, total, share)


def _one_term(term: _Term, total: int, current: int, m: int, n: int, pseudocount: float) -> float:
    share_p = min(1.0, (total - current + pseudocount) / m)
    share_q = min(1.0, (current + pseudocount) / n)
    p, q = np.array([share_p, 1 - share_p + pseudocount / m]), np.array([share_q, 1 - share_q + pseudocount / n])
    return float(term(p, q).sum())


# -- chi-square and G ------------------------------------------------------------------------------------


def chi2(batch: Batch) -> list[StatResult]:
    """Pearson's chi-square of homogeneity: both samples are samples, the reference is not taken as the truth.

    `scipy.stats.chi2_contingency(table, correction=False)` on the pooled cells.

    References:
        Pearson (1900); for two samples, Cochran (1952), The chi-square test of goodness of fit, section 3.
    """
    cells = batch.once(_dense_cells)
    terms = [(seen - expected) ** 2 / expected for seen, expected in _sides(cells)]
    statistic = cells.spans.sums(terms[0] + terms[1])
    return results(statistic, _chi2_tails(cells, statistic))


def g(batch: Batch) -> list[StatResult]:
    """The likelihood ratio of homogeneity: 2 sum of seen ln(seen / expected).

    The statistic is `scipy.stats.chi2_contingency(table, lambda_="log-likelihood", correction=False)` on the
    pooled cells. For the p-value it is divided by Williams' factor: many small cells make it too large.

    References:
        Wilks (1938), The large-sample distribution of the likelihood ratio; Williams (1976), Improved likelihood
        ratio tests for complete contingency tables.
    """
    cells = batch.once(_dense_cells)
    terms = [special.rel_entr(seen, expected) for seen, expected in _sides(cells)]
    statistic = np.maximum(0.0, 2 * cells.spans.sums(terms[0] + terms[1]))
    return results(statistic, _chi2_tails(cells, statistic / _williams(cells)))


def _sides(cells: Table) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Rows seen and expected in each cell, of either sample."""
    total, rows = cells.reference + cells.current, cells.m + cells.n
    share = total / cells.spans.each(rows)
    return (cells.reference.astype(np.float64), cells.spans.each(cells.m) * share), (
        cells.current.astype(np.float64),
        cells.spans.each(cells.n) * share,
    )


def _chi2_tails(cells: Table, statistic: Floats) -> Floats:
    df = (cells.spans.lengths - 1).tolist()
    return np.array([null.chi2_sf(x, k) for x, k in zip(statistic.tolist(), df, strict=True)])


def _williams(cells: Table) -> Floats:
    rows, df = cells.m + cells.n, cells.spans.lengths - 1
    by_sample = rows / cells.m + rows / cells.n - 1
    by_cell = cells.spans.sums(cells.spans.each(rows) / (cells.reference + cells.current)) - 1
    return np.where(df > 0, 1 + by_sample * by_cell / (6 * rows * np.maximum(df, 1)), 1.0)


def g_critical(batch: Batch, alpha: float) -> Floats:
    """As of `chi2`, times Williams' factor."""
    return _williams(batch.once(_dense_cells)) * chi2_critical(batch, alpha)


def chi2_critical(batch: Batch, alpha: float) -> Floats:
    """From chi-square with one degree of freedom fewer than pooled cells."""
    return np.array([null.chi2_isf(alpha, df) for df in (batch.once(_dense_cells).spans.lengths - 1).tolist()])


# -- the single cell -------------------------------------------------------------------------------------


def max_bin_z(batch: Batch) -> list[StatResult]:
    """The largest z of any one cell (`table_z`): a spike, a hole, a new category.

    On the categories, or on up to 1000 groups of a numeric feature. The p-value is Bonferroni's over the cells.
    """
    cells = batch.once(_fine_cells)
    statistic = largest_z(cells.spans, cells.reference, cells.current, cells.m, cells.n)
    return results(statistic, np.minimum(1.0, cells.spans.lengths * 2 * special.ndtr(-statistic)))


def max_bin_z_critical(batch: Batch, alpha: float) -> Floats:
    """From the normal distribution, Bonferroni over the cells that hold rows."""
    return np.array([null.normal_isf(alpha / (2 * k)) for k in batch.once(_fine_cells).spans.lengths.tolist()])
