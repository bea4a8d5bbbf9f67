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
from drift_monitor.core.profile import FeatureProfile, Floats, Spec
from drift_monitor.core.stattests import null
from drift_monitor.core.stattests.cells import Cells, compare, expected_rows, pooled
from drift_monitor.core.stattests.tables import table_z
from drift_monitor.core.types import StatResult

PSEUDOCOUNT = 0.5
"""Added to every cell of the PSI: Jeffreys' prior. An empty cell stays finite, its weight in proportion to n."""
BINS = 1000
"""Groups of a numeric feature in which `max_bin_z` looks for a spike or a hole; fewer for a small reference."""
LEAST_TOTAL = 10
"""Rows of both samples for a cell to stand alone in `max_bin_z`; fewer could hardly tell anything."""
_DRAWS = 2000

_Term = Callable[[Floats, Floats], Floats]


def _distance_cells(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> Cells:
    cells = compare(spec, reference, current)
    return pooled(cells, least=expected_rows(cells), rest=True)


def _dense_cells(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> Cells:
    cells = compare(spec, reference, current)
    return pooled(cells, least=expected_rows(cells), rest=False)


def _fine_cells(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> Cells:
    # Groups are quantiles, so the reference has as many rows in each. Were those fewer than LEAST_TOTAL, the
    # current rows alone would decide which groups stand alone: just those where they pile up by chance.
    bins = min(BINS, max(2, reference.n // (2 * LEAST_TOTAL)))
    return pooled(compare(spec, reference, current, bins), least=LEAST_TOTAL, rest=True)


def _shares(cells: Cells, pseudocount: float = 0.0) -> tuple[Floats, Floats]:
    p, q = cells.reference + pseudocount, cells.current + pseudocount
    return p / p.sum(), q / q.sum()


# -- distances -------------------------------------------------------------------------------------------


def psi(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Population stability index: sum of (q - p) ln(q / p), with `PSEUDOCOUNT` added to every count.

    It is the sum of the two Kullback-Leibler divergences, in nats.

    References:
        Yurdakul & Naranjo (2020), Statistical properties of the population stability index.
    """
    p, q = _shares(_distance_cells(spec, reference, current), PSEUDOCOUNT)
    return StatResult(statistic=float(_psi_term(p, q).sum()))


def _psi_term(p: Floats, q: Floats) -> Floats:
    return np.asarray((q - p) * np.log(q / p))


def psi_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """(1/n + 1/m) chi-square of B - 1 degrees of freedom, or more where a simulation says so."""
    return _critical(_distance_cells(spec, reference, current), _psi_term, alpha, 1.0, PSEUDOCOUNT)


def jensen_shannon(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Jensen-Shannon distance, the root of the divergence in bits: `scipy.spatial.distance.jensenshannon`, base 2.

    References:
        Endres & Schindelin (2003), A new metric for probability distributions.
    """
    p, q = _shares(_distance_cells(spec, reference, current))
    return StatResult(statistic=math.sqrt(max(0.0, float(_jensen_shannon_term(p, q).sum()))))


def _jensen_shannon_term(p: Floats, q: Floats) -> Floats:
    middle = (p + q) / 2
    return np.asarray((special.rel_entr(p, middle) + special.rel_entr(q, middle)) / (2 * math.log(2)))


def jensen_shannon_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """The divergence is about (1/n + 1/m) chi-square / (8 ln 2), or more where a simulation says so."""
    cells = _distance_cells(spec, reference, current)
    return math.sqrt(_critical(cells, _jensen_shannon_term, alpha, 1 / (8 * math.log(2))))


def hellinger(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Hellinger distance: the root of half the sum of (sqrt q - sqrt p)^2.

    References:
        Hellinger (1909); normed to 1 as in Le Cam (1986), Asymptotic methods in statistical decision theory.
    """
    p, q = _shares(_distance_cells(spec, reference, current))
    return StatResult(statistic=math.sqrt(float(_hellinger_term(p, q).sum())))


def _hellinger_term(p: Floats, q: Floats) -> Floats:
    return np.asarray((np.sqrt(q) - np.sqrt(p)) ** 2 / 2)


def hellinger_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """Its square is about (1/n + 1/m) chi-square / 8, or more where a simulation says so."""
    return math.sqrt(_critical(_distance_cells(spec, reference, current), _hellinger_term, alpha, 1 / 8))


def total_variation(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Total variation distance: half the sum of |q - p|, the share of rows that would have to move."""
    p, q = _shares(_distance_cells(spec, reference, current))
    return StatResult(statistic=float(_total_variation_term(p, q).sum()))


def _total_variation_term(p: Floats, q: Floats) -> Floats:
    return np.asarray(np.abs(q - p) / 2)


def total_variation_critical(
    spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float
) -> float:
    """By simulation of both samples from the pooled shares."""
    return _critical(_distance_cells(spec, reference, current), _total_variation_term, alpha)


def _critical(
    cells: Cells, term: _Term, alpha: float, chi2_factor: float = 0.0, pseudocount: float = 0.0
) -> float:
    """The value that a sum of terms over cells exceeds with probability alpha.

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


def chi2(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """Pearson's chi-square of homogeneity: both samples are samples, the reference is not taken as the truth.

    `scipy.stats.chi2_contingency(table, correction=False)` on the pooled cells.

    References:
        Pearson (1900); for two samples, Cochran (1952), The chi-square test of goodness of fit, section 3.
    """
    cells = _dense_cells(spec, reference, current)
    seen = np.stack((cells.reference, cells.current)).astype(np.float64)
    expected = _expected(cells)
    statistic = float(((seen - expected) ** 2 / expected).sum())
    return StatResult(statistic=statistic, p_value=null.chi2_sf(statistic, seen.shape[1] - 1))


def g(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """The likelihood ratio of homogeneity: 2 sum of seen ln(seen / expected).

    The statistic is `scipy.stats.chi2_contingency(table, lambda_="log-likelihood", correction=False)` on the
    pooled cells. For the p-value it is divided by Williams' factor: many small cells make it too large.

    References:
        Wilks (1938), The large-sample distribution of the likelihood ratio; Williams (1976), Improved likelihood
        ratio tests for complete contingency tables.
    """
    cells = _dense_cells(spec, reference, current)
    seen = np.stack((cells.reference, cells.current)).astype(np.float64)
    statistic = max(0.0, 2 * float(special.rel_entr(seen, _expected(cells)).sum()))
    return StatResult(statistic=statistic, p_value=null.chi2_sf(statistic / _williams(cells), seen.shape[1] - 1))


def _williams(cells: Cells) -> float:
    rows, df = cells.m + cells.n, len(cells.reference) - 1
    if not df:
        return 1.0
    by_sample = rows / cells.m + rows / cells.n - 1
    by_cell = float((rows / (cells.reference + cells.current)).sum()) - 1
    return 1 + by_sample * by_cell / (6 * rows * df)


def g_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """As of `chi2`, times Williams' factor."""
    cells = _dense_cells(spec, reference, current)
    return _williams(cells) * null.chi2_isf(alpha, len(cells.reference) - 1)


def _expected(cells: Cells) -> Floats:
    total = cells.reference + cells.current
    return np.outer((cells.m, cells.n), total / (cells.m + cells.n))


def chi2_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """From chi-square with one degree of freedom fewer than pooled cells."""
    cells = _dense_cells(spec, reference, current)
    return null.chi2_isf(alpha, len(cells.reference) - 1)


# -- the single cell -------------------------------------------------------------------------------------


def max_bin_z(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult:
    """The largest z of any one cell (`table_z`): a spike, a hole, a new category.

    On the categories, or on up to 1000 groups of a numeric feature. The p-value is Bonferroni's over the cells.
    """
    cells = _fine_cells(spec, reference, current)
    statistic = float(table_z(cells.reference, cells.current, cells.m, cells.n).max())
    p_value = min(1.0, len(cells.reference) * 2 * float(special.ndtr(-statistic)))
    return StatResult(statistic=statistic, p_value=p_value)


def max_bin_z_critical(spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
    """From the normal distribution, Bonferroni over the cells that hold rows."""
    cells = _fine_cells(spec, reference, current)
    return null.normal_isf(alpha / (2 * len(cells.reference)))
