"""Quantiles of the binomial distribution, without `scipy.stats`, whose import takes longer than many a check."""

from __future__ import annotations

import math
from functools import lru_cache

from scipy.special import bdtr, bdtrc, bdtrik


def lower_quantile(q: float, n: int, share: float) -> int:
    """The smallest k with P(X <= k) >= q, X ~ Binomial(n, share).

    Args:
        q: 0 < q < 1.
        n: trials, >= 0.
        share: 0 <= share <= 1.

    Example:
        >>> lower_quantile(0.5, 10, 0.5), lower_quantile(0.01, 10, 0.5), lower_quantile(0.5, 3, 1.0)
        (5, 1, 3)
    """
    if not 0 < share < 1 or not n:
        return n if share >= 1 else 0
    k = _near(q, n, share)
    while k > 0 and bdtr(k - 1, n, share) >= q:
        k -= 1
    while k < n and bdtr(k, n, share) < q:
        k += 1
    return k


@lru_cache(maxsize=4096)  # many features of a window have the same rows and the same rate
def upper_quantile(q: float, n: int, share: float) -> int:
    """The smallest k with P(X > k) <= q, X ~ Binomial(n, share); exact for tiny q too.

    Args:
        q: 0 < q < 1.
        n: trials, >= 0.
        share: 0 <= share <= 1.

    Example:
        >>> upper_quantile(0.5, 10, 0.5), upper_quantile(1e-6, 50, 0.01), upper_quantile(0.5, 3, 0.0)
        (5, 6, 0)
    """
    if not 0 < share < 1 or not n:
        return n if share >= 1 else 0
    k = _near(1 - q, n, share)
    while k > 0 and bdtrc(k - 1, n, share) <= q:
        k -= 1
    while k < n and bdtrc(k, n, share) > q:
        k += 1
    return k


def _near(q: float, n: int, share: float) -> int:
    """A start for the search: the inverse in real numbers, or the mean where it fails."""
    k = float(bdtrik(q, n, share))
    return min(n, math.ceil(k)) if math.isfinite(k) else round(n * share)
