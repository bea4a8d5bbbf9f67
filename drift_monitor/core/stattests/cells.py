"""Which cells a stattest compares, and how a cell is called.

The fine cells of a profile (`profile.py`) are added up to coarser ones, whose limits the reference alone fixed, so
that they do not move with the live data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    Floats,
    Ints,
    NumericProfile,
    NumericSpec,
    Spec,
)
from drift_monitor.core.stattests.batch import Batch, Bools, Fine, Spans

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


@dataclass(frozen=True, eq=False)
class Table:
    """The same of F features, K cells in all.

    Attributes:
        spans: the cells of each feature.
        reference, current: counts, shape (K,).
        mixed, sparse: of each feature, shape (F,).
    """

    spans: Spans
    reference: Ints
    current: Ints
    mixed: Bools
    sparse: Bools

    @classmethod
    def of(cls, features: list[Cells]) -> Table:
        """Put the cells of features one after the other."""
        return cls(
            Spans(np.array([len(cells.reference) for cells in features], np.int64)),
            np.concatenate([cells.reference for cells in features]),
            np.concatenate([cells.current for cells in features]),
            np.array([cells.mixed for cells in features]),
            np.array([cells.sparse for cells in features]),
        )

    def features(self) -> list[Cells]:
        """The inverse."""
        parts = (np.split(x, self.spans.ends[:-1]) for x in (self.reference, self.current))
        return [Cells(*cells) for cells in zip(*parts, self.mixed.tolist(), self.sparse.tolist(), strict=True)]

    @property
    def m(self) -> Floats:
        """Reference rows, shape (F,)."""
        return self.spans.sums(self.reference).astype(np.float64)

    @property
    def n(self) -> Floats:
        """Current rows, shape (F,)."""
        return self.spans.sums(self.current).astype(np.float64)


def near_constant(a: NumericProfile, b: NumericProfile) -> bool:
    """Whether almost all rows share one value, so that sums over rows are not near their limiting laws.

    `max_bin_z` and `weighted_supremum` still hold then.
    """
    most = int((a.counts + b.counts)[1::2].max())
    return bool(_near_constant(np.array(most), np.array(a.n), np.array(b.n)))


def almost_constant(batch: Batch) -> Bools:
    """The same of each feature, shape (F,)."""
    fine = batch.once(Fine)
    most = fine.spans.largest(np.where(fine.edge, fine.a + fine.b, 0))
    return _near_constant(most, batch.m, batch.n)


def _near_constant(most: Ints, m: Any, n: Any) -> Bools:
    rows = m + n
    return np.asarray((2 * most > rows) & ((rows - most) * np.minimum(m, n) < UNTIED_ROWS * rows))


def groups(reference: NumericProfile, bins: int = GROUPS) -> Ints:
    """The first fine cell of each of about `bins` groups of equal reference mass.

    A group ends with the fine cell in which the reference reaches the next j/bins of its rows. A value that holds
    1/bins of the rows or more is a group of its own, so there may be up to three times as many groups.

    Returns:
        Rising, starting at 0, shape (groups,); what `numpy.add.reduceat` takes. `interval` names a group.
    """
    counts = reference.counts
    spans, edge = Spans(np.array([len(counts)])), np.arange(len(counts)) % 2 == 1
    return np.flatnonzero(_starts(spans, edge, counts, np.array([float(reference.n)]), np.array([bins])))


def grouped(batch: Batch, bins: Ints) -> tuple[Spans, Ints]:
    """The groups of each numeric feature, G in all.

    Args:
        batch: of the features.
        bins: of each, shape (F,).

    Returns:
        Which groups are whose, and the first cell of each in `Fine`, shape (G,).
    """
    fine = batch.once(Fine)
    starts = _starts(fine.spans, fine.edge, fine.a, batch.m, bins)
    return fine.spans.where(starts), np.flatnonzero(starts)


def _starts(spans: Spans, edge: Bools, counts: Ints, m: Floats, bins: Ints) -> Bools:
    """Whether a group starts with a cell, shape (K,)."""
    running = np.cumsum(counts)
    parts = Spans(bins)
    part = np.arange(len(parts.each(bins))) - parts.each(parts.first)
    # whole numbers, so that what stands before in `running` can be added without rounding
    wanted = np.ceil(part * parts.each(m / bins)).astype(np.int64)
    wanted += parts.each(running[spans.first] - counts[spans.first])
    wanted = wanted[part > 0]
    heavy = np.flatnonzero(edge & (counts * spans.each(bins) >= spans.each(m)))
    starts = np.zeros(len(counts) + 1, np.bool_)
    for places in (spans.first, np.searchsorted(running, wanted) + 1, heavy, heavy + 1):
        starts[places] = True
    return starts[:-1]


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
    batch = Batch([spec], [reference], [current])
    return table(batch, np.array([bins]) if bins else None).features()[0]


def table(batch: Batch, bins: Ints | None = None) -> Table:
    """The same of the features of a batch; `bins` has shape (F,)."""
    if isinstance(batch.specs[0], CategoricalSpec):
        return Table.of([_compare_categories(*triple) for triple in batch.categorical])
    fine = batch.once(Fine)
    if bins is None:
        bins = np.clip(np.minimum(batch.m, batch.n) // 10, 2, GROUPS).astype(np.int64)
    spans, starts = grouped(batch, bins)
    no = np.zeros(len(batch.specs), np.bool_)
    return Table(spans, np.add.reduceat(fine.a, starts), np.add.reduceat(fine.b, starts), no, no)


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
    return pool(Table.of([cells]), np.array([least]), rest=rest).features()[0]


def pool(table: Table, least: Floats, *, rest: bool) -> Table:
    """The same of F features; `least` has shape (F,)."""
    spans, p, q, m, n = table.spans, table.reference, table.current, table.m, table.n
    dense = p + q >= spans.each(least)
    dense[spans.ends[table.mixed] - 1] = False
    left_p, left_q = (spans.sums(np.where(dense, 0, x)) for x in (p, q))
    left = left_p + left_q
    sparse = (left > 0) & (left < fewest(m, n))
    alone = (left > 0) & (rest | ~sparse | ~spans.largest(dense))
    # a place after each run for what is left of it
    kept: Bools = np.insert(dense, spans.ends, alone)
    pooled = Spans(spans.lengths + 1).where(kept)
    p, q = (np.insert(x, spans.ends, rest_of)[kept] for x, rest_of in ((p, left_p), (q, left_q)))
    for feature in np.flatnonzero((left > 0) & ~alone).tolist():
        run = slice(pooled.first[feature], pooled.ends[feature])
        smallest = pooled.first[feature] + int(np.argmin(p[run] + q[run]))
        p[smallest] += left_p[feature]
        q[smallest] += left_q[feature]
    return Table(pooled, p, q, mixed=alone, sparse=alone & sparse)


def expected_rows(cells: Cells) -> float:
    """Rows of both samples with which a cell expects `LEAST` in the smaller one."""
    return float(fewest(np.array(float(cells.m)), np.array(float(cells.n))))


def fewest(m: Floats, n: Floats) -> Floats:
    """The same from the rows of both samples, one number a feature."""
    return np.asarray(LEAST * (m + n) / np.minimum(m, n))


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
