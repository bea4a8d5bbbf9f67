"""Two distribution functions side by side, as far as profiles know them.

F (reference) and G (current) are known exactly at each edge and just below it, but not between two edges. A
statistic on ranks is therefore computed on the cells; its `low` and `high` hold what any arrangement of the rows
inside the open cells could make of it. They are None where every row lies on an edge: then the statistic is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drift_monitor.core.profile import Floats, Ints, NumericProfile
from drift_monitor.core.types import StatResult

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Steps:
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
    open: Bools
    before: Floats
    after: Floats
    rise: Floats
    fall: Floats

    @property
    def exact(self) -> bool:
        """Whether every cell holds a single value."""
        return not self.open.any()


def steps_of(reference: NumericProfile, current: NumericProfile) -> Steps:
    """Put the two side by side; both have rows."""
    total = reference.counts + current.counts
    used = np.flatnonzero(total)
    a, b = reference.counts[used], current.counts[used]
    m, n = int(a.sum()), int(b.sum())
    after = np.cumsum(a) / m - np.cumsum(b) / n
    before = np.concatenate(([0.0], after[:-1]))
    # a cell with one row holds one value
    several = (used % 2 == 0) & (total[used] > 1)
    return Steps(a, b, m, n, several, before, after, a / m, b / n)


def bracketed(
    statistic: float, p_value: float | None, steps: Steps, low: float, high: float, slack: float = 1e-12
) -> StatResult:
    """With its bracket, widened by rounding; without one if the statistic is exact."""
    if steps.exact:
        return StatResult(statistic=statistic, p_value=p_value)
    margin = slack * max(1.0, high)
    return StatResult(statistic=statistic, p_value=p_value, low=max(0.0, low - margin), high=high + margin)
