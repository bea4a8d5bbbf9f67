"""Which cells a stattest compares, and how a cell is called.

The fine cells of a profile (`profile.py`) are added up to coarser ones, whose limits the reference alone fixed, so
that they do not move with the live data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    Ints,
    NumericProfile,
    NumericSpec,
    Spec,
)

GROUPS = 10
"""Groups of a numeric feature that distances and chi-square compare, as usual for the PSI [Siddiqi 2006]."""
UNTIED_ROWS = 30
"""Rows to expect off the most frequent value in the smaller sample, for ranks and means to be near normal."""
LEAST = 5
"""Rows to expect in the smaller sample for a cell to stand alone: the rule for chi-square [Cochran 1954]."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Counts of two samples on the same cells.

    Attributes:
        reference: shape (b,).
        current: the same.
        mixed: whether the last cell mixes what has no cell of its own.
        sparse: whether that cell holds fewer than `LEAST` expected rows.
    """

    reference: Ints
    current: Ints
    mixed: bool = False
    sparse: bool = False

    @property
    def m(self) -> int:
        """Reference rows."""
        return int(self.reference.sum())

    @property
    def n(self) -> int:
        """Current rows."""
        return int(self.current.sum())


def numeric(
    spec: Spec, reference: FeatureProfile, current: FeatureProfile
) -> tuple[NumericSpec, NumericProfile, NumericProfile]:
    """The same three, known to be numeric and not empty.

    Raises:
        TypeError: the feature is categorical.
        ValueError: a side has no row with a finite value.
    """
    if not isinstance(spec, NumericSpec):
        raise TypeError(f"feature {spec.name!r} is {spec.kind}; this method is for numeric and datetime features")
    check_sizes(spec, reference, current)
    return spec, cast("NumericProfile", reference), cast("NumericProfile", current)


def near_constant(a: NumericProfile, b: NumericProfile) -> bool:
    """Whether almost all rows share one value, so that sums over rows are not near their limiting laws.

    `max_bin_z` and `weighted_supremum` still hold then.
    """
    rows = a.n + b.n
    most = int((a.counts + b.counts)[1::2].max())
    return 2 * most > rows and (rows - most) * min(a.n, b.n) < UNTIED_ROWS * rows


def check_sizes(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> None:
    """Refuse samples without rows.

    Raises:
        ValueError: a side has no row with a value.
    """
    if not reference.n or not current.n:
        raise ValueError(
            f"feature {spec.name!r}: both samples need rows with a value, but the reference has {reference.n} "
            f"and the current window has {current.n}"
        )


def groups(reference: NumericProfile, bins: int = GROUPS) -> Ints:
    """The first fine cell of each of about `bins` groups of equal reference mass.

    A group ends with the fine cell in which the reference reaches the next j/bins of its rows. A value that holds
    1/bins of the rows or more is a group of its own, so there may be up to three times as many groups.

    Returns:
        Rising, starting at 0, shape (groups,); what `numpy.add.reduceat` takes. `interval` names a group.
    """
    counts = reference.counts
    running = np.cumsum(counts)
    m = int(running[-1])
    ends = np.searchsorted(running, np.arange(1, bins) * (m / bins))
    heavy = np.flatnonzero(counts[1::2] * bins >= m) * 2 + 1
    starts = np.unique(np.concatenate(([0], ends + 1, heavy, heavy + 1)))
    return cast("Ints", starts[starts < len(counts)])


def compare(spec: Spec, reference: FeatureProfile, current: FeatureProfile, bins: int = 0) -> Cells:
    """Counts by group (numeric) or by category.

    Categories that the reference has not seen have cells of their own as far as the profile names them; the last
    cell mixes those that nobody names.

    Args:
        spec: of the feature.
        reference: with rows.
        current: with rows.
        bins: groups of a numeric feature; 0 means `GROUPS`, or fewer when a sample has under 10 rows for each.

    Raises:
        ValueError: a side has no row with a value.
    """
    check_sizes(spec, reference, current)
    if isinstance(spec, CategoricalSpec):
        return _compare_categories(
            spec, cast("CategoricalProfile", reference), cast("CategoricalProfile", current)
        )
    _, before, now = numeric(spec, reference, current)
    starts = groups(before, bins or min(GROUPS, max(2, min(before.n, now.n) // 10)))
    return Cells(np.add.reduceat(before.counts, starts), np.add.reduceat(now.counts, starts))


def _compare_categories(spec: CategoricalSpec, before: CategoricalProfile, now: CategoricalProfile) -> Cells:
    # where the spec does not list all categories, a name may be kept on one side and not on the other
    named = {*before.unseen, *now.unseen} if spec.complete else set()
    p, q = (_by_category(profile, sorted(named)) for profile in (before, now))
    return Cells(p, q, mixed=True)


def _by_category(profile: CategoricalProfile, named: list[str]) -> Ints:
    unseen = [profile.unseen.get(name, 0) for name in named]
    return np.concatenate((profile.counts, unseen, [profile.other - sum(unseen)])).astype(np.int64)


def pooled(cells: Cells, *, least: float, rest: bool) -> Cells:
    """Put the cells with fewer than `least` rows of both samples together, into the mixed cell. Empty cells go.

    Only the two counts of a cell together decide, not how they fall to the samples, so that the null distribution
    given those totals still holds. It would not if the reference decided: a category that it has not seen has no
    reference rows because it was looked for there, and all such categories together may well have many rows.

    Args:
        cells: to pool.
        least: rows to stand alone.
        rest: keep the pooled cell, the last, even if it is sparse itself. If not, a sparse one joins the smallest
            of the others.
    """
    total = cells.reference + cells.current
    dense = total >= least
    if cells.mixed:
        dense[-1] = False
    p, q = cells.reference[dense], cells.current[dense]
    left_p, left_q = cells.m - int(p.sum()), cells.n - int(q.sum())
    if not left_p + left_q:
        return Cells(p, q)
    sparse = left_p + left_q < expected_rows(cells)
    if rest or not sparse or not len(p):
        return Cells(np.append(p, left_p), np.append(q, left_q), mixed=True, sparse=sparse)
    smallest = int(np.argmin(total[dense]))
    p[smallest] += left_p
    q[smallest] += left_q
    return Cells(p, q)


def expected_rows(cells: Cells) -> float:
    """Rows of both samples with which a cell expects `LEAST` in the smaller one."""
    return LEAST * (cells.m + cells.n) / min(cells.m, cells.n)


def number(spec: NumericSpec, value: float) -> str:
    """A value for people to read: four digits, or an ISO time.

    Example:
        >>> import numpy as np
        >>> number(NumericSpec("x", np.array([0.0]), 0.0, 1.0, exact=True), 1307.04)
        '1307'
        >>> number(NumericSpec("t", np.array([0.0]), 0.0, 1.0, exact=True, kind="datetime"), 86400.0)
        '1970-01-02T00:00Z'
    """
    if spec.kind == "datetime":
        return f"{np.datetime64(math.floor(value), 's').astype('datetime64[m]')}Z"
    short = f"{value:.4g}"
    whole = f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else ""
    return whole or short


def interval(spec: NumericSpec, first: int, last: int) -> str:
    """The name of the fine cells first..last, both included.

    Example:
        >>> import numpy as np
        >>> spec = NumericSpec("x", np.array([0.0, 1.0, 2.0]), 0.0, 1.0, exact=True)
        >>> [interval(spec, *c) for c in [(0, 0), (1, 1), (2, 3), (1, 4), (0, 2), (6, 6)]]
        ['< 0', '0', '(0, 1]', '[0, 2)', '< 1', '> 2']
    """
    cells = 2 * len(spec.edges) + 1
    if first == last and first % 2:
        return number(spec, float(spec.edges[first // 2]))
    low = "" if first == 0 else number(spec, float(spec.edges[(first - 1) // 2]))
    high = "" if last == cells - 1 else number(spec, float(spec.edges[last // 2]))
    closed_low, closed_high = first % 2 == 1, last % 2 == 1
    if not low and not high:
        return "all"
    if not low:
        return f"{'<=' if closed_high else '<'} {high}"
    if not high:
        return f"{'>=' if closed_low else '>'} {low}"
    return f"{'[' if closed_low else '('}{low}, {high}{']' if closed_high else ')'}"
