"""Null distributions: what a statistic shows when both samples are independent rows from one distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import special

from drift_monitor.core.profile import Floats, Ints

_NODES = 64  # of each interval of Smirnov's formula; 16 agree with 64 to 1e-9 for the limiting laws
_INTERVALS = 6
_LUMPS = 64
_UNTIED = 0.005  # below this share of the rows in any one cell, the law for untied data holds


def chi2_sf(x: float, df: int) -> float:
    """P(chi-square with df degrees of freedom > x); 1 without degrees of freedom."""
    return float(special.chdtrc(df, x)) if df > 0 else 1.0


def chi2_isf(alpha: float, df: int) -> float:
    """The value that chi-square exceeds with probability alpha; infinite without degrees of freedom."""
    return float(special.chdtri(df, alpha)) if df > 0 else math.inf


def normal_isf(alpha: float) -> float:
    """The value that a standard normal variable exceeds with probability alpha."""
    return -float(special.ndtri(alpha))


# -- sums of weighted chi-squares ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Mixture:
    """The law of Q = sum of lambda_j Z_j^2 (Z_j independent standard normal): P(Q > x) = sum of w_i exp(-u_i x).

    Smirnov's formula [1] is a sum of integrals over u between 1/(2 lambda_1) and 1/(2 lambda_2), between
    1/(2 lambda_3) and 1/(2 lambda_4), ... of exp(-u x) / (pi u sqrt(|prod(1 - 2 u lambda_j)|)), with alternating
    signs. Each integrand is singular like 1/sqrt at both ends, which is what Gauss-Chebyshev quadrature is exact
    for; its nodes and weights do not depend on x. The upper tail, where thresholds lie, is exact to many digits.

    References:
        [1] Smirnov (1937), On the distribution of Mises' omega-square criterion; Martynov (1975), Computation of
            distribution functions of quadratic forms of normally distributed random variables.
    """

    rates: Floats
    weights: Floats

    def sf(self, x: float) -> float:
        """P(Q > x)."""
        if x <= 0:
            return 1.0
        return min(1.0, max(0.0, float(self.weights @ np.exp(-self.rates * x))))

    def isf(self, alpha: float) -> float:
        """The x that Q exceeds with probability alpha, to 1e-9 of itself."""
        low, high = 0.0, 1.0
        while self.sf(high) > alpha:
            low, high = high, 2 * high
        while high - low > 1e-9 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if self.sf(middle) > alpha else (low, middle)
        return high


def _smirnov(starts: Floats, ends: Floats, determinant: Floats, nodes: Floats) -> Mixture:
    """Weights from |prod(1 - 2 u lambda_j)| at the nodes u; all of shape (intervals, nodes) or (intervals, 1)."""
    weights = np.sqrt((nodes - starts) * (ends - nodes) / determinant) / (nodes * nodes.shape[1])
    weights[1::2] *= -1
    return Mixture(nodes.ravel(), weights.ravel())


def _nodes(starts: Floats, ends: Floats) -> Floats:
    angles = np.cos((2 * np.arange(1, _NODES + 1) - 1) * (np.pi / (2 * _NODES)))
    return np.asarray((starts + ends) / 2 + (ends - starts) / 2 * angles)


@cache
def anderson_darling_law() -> Mixture:
    """The limit of A^2 for untied data: lambda_j = 1/(j(j+1)) [Anderson & Darling 1952]."""
    j = np.arange(_INTERVALS)[:, None] * 2.0
    starts, ends = (j + 1) * (j + 2) / 2, (j + 2) * (j + 3) / 2
    u = _nodes(starts, ends)
    return _smirnov(starts, ends, np.abs(np.cos(np.pi / 2 * np.sqrt(1 + 8 * u))) / (2 * np.pi * u), u)


@cache
def cramer_von_mises_law() -> Mixture:
    """The limit of the Cramer-von Mises statistic for untied data: lambda_j = 1/(pi j)^2 [Smirnov 1937]."""
    j = np.arange(_INTERVALS)[:, None] * 2.0
    starts, ends = (np.pi * (j + 1)) ** 2 / 2, (np.pi * (j + 2)) ** 2 / 2
    u = _nodes(starts, ends)
    return _smirnov(starts, ends, np.abs(np.sin(np.sqrt(2 * u))) / np.sqrt(2 * u), u)


def mixture(eigenvalues: Floats) -> Mixture:
    """The law for given lambda_j > 0, shape (k,), k >= 1, in any order."""
    lam = np.sort(eigenvalues[eigenvalues > 1e-9 * eigenvalues.max()])[::-1]
    if len(lam) % 2:
        # the formula needs an even number: this adds 2% to the tail
        lam = np.append(lam, lam[-1] / 30)
    # a very wide first interval would need more nodes: this adds less than 1% to the tail
    lam[1] = max(lam[1], lam[0] / 200)
    # equal ones would make intervals without width, whose weights cancel to nothing but rounding
    lam = lam * (1 - 1e-5 * np.arange(len(lam)))
    pairs = lam.reshape(-1, 2)[:_INTERVALS]
    starts, ends = 1 / (2 * pairs[:, :1]), 1 / (2 * pairs[:, 1:])
    u = _nodes(starts, ends)
    determinant = np.exp(np.log(np.abs(1 - 2 * u[:, :, None] * lam)).sum(axis=2))
    return _smirnov(starts, ends, determinant, u)


def tied_law(counts: Ints, *, middle: bool) -> Mixture:
    """The law of a squared distance of distribution functions, summed over cells, given how rows are tied.

    With D the difference of the two distribution functions, both statistics are sum of w_j D_j^2 and D is, in the
    limit, a Brownian bridge on the cells; the lambda_j are the eigenvalues of its weighted covariance.

    Args:
        counts: rows of both samples a cell, shape (k,).
        middle: True for Anderson-Darling with midranks [1]: D at the middle of each step, weighted by
            p_j / var(D_j). False for Cramer-von Mises: D after each step, weighted by p_j.

    References:
        [1] Scholz & Stephens (1987), K-sample Anderson-Darling tests, equation 7.
    """
    limit = anderson_darling_law if middle else cramer_von_mises_law
    counts = counts[counts > 0]
    if counts.max(initial=0) <= _UNTIED * counts.sum():
        return limit()
    p = _lumped(counts)
    after = np.cumsum(p)
    if middle:
        at = after - p / 2
        variance = at * (1 - at) - p / 4
        weight = p / variance
    else:
        p, at = p[:-1], after[:-1]
        variance, weight = at * (1 - at), p
    covariance = np.minimum.outer(at, at) * (1 - np.maximum.outer(at, at))
    np.fill_diagonal(covariance, variance)
    scale = np.sqrt(weight)
    return mixture(np.linalg.eigvalsh(scale[:, None] * covariance * scale))


def _lumped(counts: Ints) -> Floats:
    """Shares of at most some 128 cells: neighbours are put together unless one is heavy."""
    running = np.cumsum(counts)
    total = int(running[-1])
    ends = np.searchsorted(running, np.arange(1, _LUMPS) * (total / _LUMPS))
    heavy = np.flatnonzero(counts * _LUMPS >= total)
    starts = np.unique(np.concatenate(([0], ends + 1, heavy, heavy + 1)))
    return np.asarray(np.add.reduceat(counts, starts[starts < len(counts)]) / total)


# -- simulation ------------------------------------------------------------------------------------------


def draw(p: Floats, rows: int, draws: int, seed: int) -> Floats:
    """Shares by cell of samples of `rows` rows, shape (draws, cells); the same at every call."""
    return np.asarray(np.random.default_rng(seed).multinomial(rows, p, draws) / rows)


def tail(sample: Floats, alpha: float) -> float:
    """The value that a simulated statistic exceeds with probability alpha.

    From a gamma distribution with the sample's mean, variance and skewness (Pearson's type III), the skewness
    taken two standard errors larger than seen, so that the value errs upwards; at least the sample's own quantile.

    Args:
        sample: simulated values, shape (draws,).
        alpha: may be far below 1/draws.
    """
    mean, sd = float(sample.mean()), float(sample.std())
    if not sd:
        return mean
    skewness = float((((sample - mean) / sd) ** 3).mean()) + 2 * math.sqrt(6 / len(sample))
    if skewness < 1e-3:
        fitted = mean + sd * normal_isf(alpha)
    else:
        shape = 4 / skewness**2
        fitted = mean + sd * (float(special.gammainccinv(shape, alpha)) - shape) * skewness / 2
    return max(fitted, float(np.quantile(sample, 1 - alpha))) if alpha * len(sample) >= 20 else fitted
