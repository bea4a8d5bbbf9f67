"""Two distribution functions side by side, as far as profiles know them.

F (reference) and G (current) are known exactly at each edge and just below it, but not between two edges. A
statistic on ranks is therefore computed on the cells; its `low` and `high` hold what any arrangement of the rows
inside the open cells could make of it. They are None where every row lies on an edge: then the statistic is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drift_monitor.core.profile import Floats, Ints
from drift_monitor.core.stattests.batch import Batch, Bools, Fine, Spans, results
from drift_monitor.core.types import StatResult


@dataclass(frozen=True, eq=False)
class Steps:
    """The two distribution functions of F features on the fine cells that hold rows, K of them in all.

    Attributes:
        spans: the cells of each feature.
        a, b: reference and current rows a cell, shape (K,).
        m, n: their sums, shape (F,).
        below_a, below_b: rows up to each cell, shape (K,).
        open: whether a cell lies between two edges and may hold several values, shape (K,).
        before, after: F - G below and above the cell, shape (K,).
        rise, fall: the cell's shares of the reference and of the current rows, shape (K,).
    """

    spans: Spans
    a: Ints
    b: Ints
    m: Floats
    n: Floats
    below_a: Ints
    below_b: Ints
    open: Bools
    before: Floats
    after: Floats
    rise: Floats
    fall: Floats

    @property
    def exact(self) -> Bools:
        """Whether every cell of a feature holds a single value, shape (F,)."""
        return ~self.spans.largest(self.open)


def steps_of(batch: Batch) -> Steps:
    """Put the two side by side."""
    fine = batch.once(Fine)
    total = fine.a + fine.b
    used = total > 0
    spans = fine.spans.where(used)
    a, b, below_a, below_b = (x[used] for x in (fine.a, fine.b, fine.below_a, fine.below_b))
    m, n = spans.each(batch.m), spans.each(batch.n)
    after = below_a / m - below_b / n
    # a cell with one row holds one value
    several = ~fine.edge[used] & (total[used] > 1)
    before = spans.previous(after)
    return Steps(spans, a, b, batch.m, batch.n, below_a, below_b, several, before, after, a / m, b / n)


def bracketed(
    steps: Steps, statistic: Floats, p_value: Floats, low: Floats, high: Floats, slack: float = 1e-12
) -> list[StatResult]:
    """With brackets, widened by rounding; without one where the statistic is exact. All of shape (F,)."""
    margin = slack * np.maximum(1.0, high)
    return results(statistic, p_value, (np.maximum(0.0, low - margin), high + margin), exact=steps.exact)
