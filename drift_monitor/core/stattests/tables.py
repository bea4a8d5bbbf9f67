"""Two-by-two tables: is one cell's (or half line's) share the same in both samples?"""

from __future__ import annotations

import numpy as np
from scipy import special

from drift_monitor.core.profile import Floats, Ints
from drift_monitor.core.stattests.batch import Spans


def table_z(reference: Ints, current: Ints, m: float | Floats, n: float | Floats) -> Floats:
    """How many standard deviations the shares reference/m and current/n of each cell are apart.

    The root of the likelihood ratio of the 2x2 table (cell or not, reference or current), the current count moved
    half a row towards what is expected. For many rows it is the usual z of two shares; for few, down to an unseen
    category, its normal tail still stands close to the exact one, where the usual z makes a single row count as 5
    standard deviations.

    Args:
        reference: rows in each cell, shape (k,).
        current: the same.
        m: rows of the reference, one number or shape (k,).
        n: rows of the current sample, the same.

    Returns:
        z >= 0, shape (k,).

    References:
        Wilks (1938) for the ratio; its signed root: Barndorff-Nielsen & Cox (1994), Inference and asymptotics, 4.

    Example (10 of 100 against 30 of 100; the usual z with continuity correction is 3.36):
        >>> import numpy as np
        >>> table_z(np.array([10]), np.array([30]), 100, 100).round(2)
        array([3.41])
    """
    ours, theirs = reference.astype(np.float64), current.astype(np.float64)
    total, rows = ours + theirs, m + n
    apart = theirs - total * (n / rows)
    step = np.where(np.abs(apart) <= 0.5, apart, np.copysign(0.5, apart))
    deviance = (
        _ratio(theirs - step, total * (n / rows))
        + _ratio(ours + step, total * (m / rows))
        + _ratio((n - theirs) + step, (rows - total) * (n / rows))
        + _ratio((m - ours) - step, (rows - total) * (m / rows))
    )
    return np.where(np.abs(apart) <= 0.5, 0.0, np.sqrt(2 * np.maximum(deviance, 0.0)))


def largest_z(spans: Spans, reference: Ints, current: Ints, m: Floats, n: Floats) -> Floats:
    """The largest `table_z` of each feature, shape (F,).

    By log x <= x - 1 the deviance is at most Pearson's sum, so z is at most sqrt(2) times its root. Only cells in
    which that is enough to be the largest are looked at closely: a few in a hundred.

    Args:
        spans: the cells of each feature.
        reference: rows in each cell, shape (k,).
        current: the same.
        m: rows of the reference, shape (F,).
        n: rows of the current sample, the same.
    """
    total, rows = (reference + current).astype(np.float64), spans.each(m + n)
    apart = np.maximum(np.abs(current - total * spans.each(n / (m + n))) - 0.5, 0.0)
    pearson = apart * apart / np.maximum(total * (rows - total), 1.0) * spans.each((m + n) ** 3 / (m * n))
    first = spans.place_of_largest(pearson)
    known = table_z(reference[first], current[first], m, n)
    # a trifle more, for rounding
    close = np.flatnonzero(2 * pearson * (1 + 1e-9) >= spans.each(known * known))
    owner = np.searchsorted(spans.ends, close, side="right")
    np.maximum.at(known, owner, table_z(reference[close], current[close], m[owner], n[owner]))
    return known


def _ratio(seen: Floats, expected: Floats) -> Floats:
    # seen is rounding apart from 0 where nothing is expected
    return np.asarray(np.where(expected > 0, special.rel_entr(np.maximum(seen, 0.0), expected), 0.0))
