"""How far windows are from a baseline: the statistics that alarms are raised on, for many windows at once.

One function serves the live window and the replay of thousands of reference windows, so that both are measured
alike. Counts come on a few hundred cells of a feature (`Layout`), which the reference alone fixes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    Floats,
    Ints,
    Spec,
)
from drift_monitor.core.types import Kind

STEP: Final = 0.005
"""Share of the reference's rows in a cell away from the tails: 200 cells see a spike of 1% of 5,000 rows."""
TAIL: Final = (0.001, 0.002, 0.003)
"""Where the cells near either end of the reference lie; rows outside its range have a cell at each end."""
CATEGORIES: Final = 100
"""Most frequent categories with a cell of their own; the rest share one, unlisted ones another."""
STATISTICS: Final[dict[Kind, tuple[str, ...]]] = {
    "numeric": ("anderson_darling", "weighted_supremum", "max_bin_z"),
    "datetime": ("anderson_darling", "weighted_supremum", "max_bin_z"),
    "categorical": ("chi2", "max_bin_z"),
    "boolean": ("chi2", "max_bin_z"),
}
"""Together they see shifts, tails, spikes and holes (docs/alarms.md has their power)."""
QUADRATIC: Final = frozenset(("weighted_supremum", "max_bin_z"))
"""Statistics in standard deviations; they are compared by their squares, whose tails fall like the others'."""
_ROOT: Final = 3 / 8
_CHUNK: Final = 16  # windows: what is computed of them stays in the processor's cache


@dataclass(frozen=True, eq=False)
class Layout:
    """The cells of a feature that alarms look at: groups of the fine cells of its profile.

    Attributes:
        kind: of the feature.
        starts: first fine cell of each group, rising from 0, shape (groups,). A categorical feature has one more
            fine cell than the reference lists categories, for what it does not list.
        half: of an ordered feature, how many groups the reference's lower half takes; up to there half lines are
            counted from below, beyond it from above, so that the smaller share is compared.
        heavy: the group with more than half of the reference's rows, whose complement is compared; -1 for none.
    """

    kind: Kind
    starts: Ints
    half: int = 0
    heavy: int = -1

    @property
    def ordered(self) -> bool:
        """Whether the cells have an order."""
        return self.kind in {"numeric", "datetime"}

    def group(self, fine: Ints) -> Ints:
        """Counts by group, shape (..., groups), from counts by fine cell, shape (..., cells)."""
        return np.asarray(np.add.reduceat(fine, self.starts, axis=-1))


def layout(spec: Spec, fine: Ints) -> Layout:
    """Choose the groups from the reference's counts by fine cell (`fine_counts`).

    A numeric feature: the rows below the reference's range, those above it, and between them groups that end where
    the reference reaches the shares `TAIL`, every `STEP`, and 1 - `TAIL`. A value with more than `STEP` of the
    rows is a group of its own.
    """
    if isinstance(spec, CategoricalSpec):
        known = len(spec.categories)
        starts = np.array([*range(min(known, CATEGORIES)), *[CATEGORIES] * (known > CATEGORIES), known], np.int64)
    else:
        starts = _levels(fine)
    shares = np.add.reduceat(fine, starts) / max(int(fine.sum()), 1)
    heavy = int(np.argmax(shares))
    half = int(np.searchsorted(np.cumsum(shares), 0.5))
    return Layout(spec.kind, starts, half, heavy if shares[heavy] > 0.5 else -1)


def _levels(counts: Ints) -> Ints:
    running = np.cumsum(counts)
    rows = int(running[-1])
    levels = np.concatenate((TAIL, np.arange(1, round(1 / STEP)) * STEP, 1 - np.array(TAIL)))
    ends = np.searchsorted(running, levels * rows)
    heavy = np.flatnonzero(counts[1::2] > STEP * rows) * 2 + 1
    last = len(counts) - 1
    starts = np.unique(np.concatenate(([0, 1, last], ends + 1, heavy, heavy + 1)))
    return np.asarray(starts[starts <= last])


def fine_counts(profile: FeatureProfile) -> Ints:
    """Counts by fine cell, as a layout groups them."""
    if isinstance(profile, CategoricalProfile):
        return np.append(profile.counts, profile.other)
    return profile.counts


@dataclass(frozen=True, eq=False)
class Scores:
    """Statistics of one feature in some windows; nan where a window or its baseline has no rows.

    Attributes:
        values: by name of the statistic, shape (windows,); larger is further apart.
        effect: how large the change is, whatever the number of rows, from 0 to 1: the Kolmogorov-Smirnov distance
            at the cells, or the largest change of one category's share; shape (windows,).
        rows: with a value, shape (windows,).
    """

    values: Mapping[str, Floats]
    effect: Floats
    rows: Ints


def scores(cells: Layout, counts: Ints, baseline: Ints, *, cap: float = np.inf) -> Scores:
    """Compare windows with a baseline.

    - `anderson_darling`: mn/(m+n) times the sum over cells of p (F - G)^2 / (F (1 - F)), with F the baseline's
      distribution function at the middle of the cell, p its share of the cell, G the window's [1]. About 1 where
      both are independent rows of one distribution.
    - `weighted_supremum`: the largest `root_z` of any half line that ends between two cells.
    - `max_bin_z`: the largest `root_z` of any cell.
    - `chi2`: the sum of the squared `root_z` of all cells [2].

    Args:
        cells: of the feature.
        counts: rows by group, shape (windows, groups).
        baseline: of what they are compared with: shape (groups,), or (windows, groups) where each has its own.
        cap: rows that a window counts as at most. The days of one reference differ by more than chance, so a
            statistic grows with the rows; windows larger than those it was calibrated on count as one of these.

    References:
        [1] Pettitt (1976), A two-sample Anderson-Darling rank statistic; here weighted by the reference alone.
        [2] Freeman & Tukey (1950), Transformations related to the angular and the square root.
    """
    base = baseline.astype(np.float64)
    if base.ndim == 1:
        base = base[None]
    shared = len(base) == 1
    rows = counts.sum(axis=1)
    names = STATISTICS[cells.kind]
    values = {name: np.empty(len(rows)) for name in names}
    effect = np.empty(len(rows))
    known = _Base.of(cells, base) if shared else None
    for i in range(0, len(rows), _CHUNK):
        at = slice(i, i + _CHUNK)
        side = known or _Base.of(cells, base[at])
        compare = _ordered if cells.ordered else _unordered
        compare(cells, counts[at], side, cap, [values[name][at] for name in names], effect[at])
    empty = (rows == 0) | (base.sum(axis=1) == 0)
    for value in (*values.values(), effect):
        value[empty] = np.nan
    return Scores(values, effect, rows)


@dataclass(frozen=True, eq=False)
class _Base:
    """What can be computed of baselines before windows are looked at; all of shape (baselines, ...).

    Attributes:
        rows: at least 1, shape (baselines, 1).
        shares: of the groups; of an ordered feature those below the end of each group.
        weights: of an ordered feature, for Anderson-Darling.
        middle: of an ordered feature, its distribution function in the middle of each group.
        roots, factors: of the cells, for `root_z`.
        line_roots, line_factors: the same of the half lines.
    """

    rows: Floats
    shares: Floats
    weights: Floats
    middle: Floats
    roots: Floats
    factors: Floats
    line_roots: Floats
    line_factors: Floats

    @classmethod
    def of(cls, cells: Layout, base: Floats) -> _Base:
        rows = np.maximum(base.sum(axis=1, keepdims=True), 1.0)
        roots, factors = _roots(_mirrored(cells, base, rows), rows)
        if not cells.ordered:
            return cls(rows, base / rows, base, base, roots, factors, base, base)
        below = np.cumsum(base, axis=1)
        shares = base / rows
        middle = (below - base / 2) / rows
        spread = middle * (1 - middle) - shares / 4
        weights = np.where(spread > 0, shares, 0.0) / np.where(spread > 0, spread, 1.0)
        line_roots, line_factors = _roots(_lines(cells, below, rows), rows)
        return cls(rows, below / rows, weights, middle, roots, factors, line_roots, line_factors)


def _ordered(cells: Layout, counts: Ints, base: _Base, cap: float, out: Sequence[Floats], effect: Floats) -> None:
    x, n = _capped(counts, cap)
    darling, supremum, largest = out
    below = np.cumsum(x, axis=1)
    apart = (below - x / 2) / n
    apart -= base.middle
    apart *= apart
    np.einsum("ij,ij->i", apart, np.broadcast_to(base.weights, apart.shape), out=darling)
    darling *= (n * base.rows / (n + base.rows))[:, 0]
    distance = below / n
    distance -= base.shares
    effect[:] = np.abs(distance[:, :-1], out=distance[:, :-1]).max(axis=1, initial=0.0)
    scale = (2 / np.sqrt(1 / n + 1 / base.rows))[:, 0]
    lines = _root_z(_lines(cells, below, n), n, base.line_roots, base.line_factors)
    np.multiply(np.abs(lines, out=lines).max(axis=1, initial=0.0), scale, out=supremum)
    single = _root_z(_mirrored(cells, x, n), n, base.roots, base.factors)
    np.multiply(np.abs(single, out=single).max(axis=1), scale, out=largest)


def _unordered(
    cells: Layout, counts: Ints, base: _Base, cap: float, out: Sequence[Floats], effect: Floats
) -> None:
    x, n = _capped(counts, cap)
    squares, largest = out
    effect[:] = np.abs(x / n - base.shares).max(axis=1)
    z = _root_z(_mirrored(cells, x, n), n, base.roots, base.factors)
    scale = (2 / np.sqrt(1 / n + 1 / base.rows))[:, 0]
    squares[:] = np.einsum("ij,ij->i", z, z) * scale * scale
    np.multiply(np.abs(z, out=z).max(axis=1), scale, out=largest)


def _capped(counts: Ints, cap: float) -> tuple[Floats, Floats]:
    x = counts.astype(np.float64)
    n = np.maximum(x.sum(axis=1, keepdims=True), 1.0)
    if (n > cap).any():
        x *= np.minimum(cap / n, 1.0)
        n = np.minimum(n, cap)
    return x, n


def _mirrored(cells: Layout, x: Floats, n: Floats) -> Floats:
    """Counts by group, but the complement's of a group with more than half of the reference."""
    if cells.heavy < 0:
        return x
    mirrored = x.copy()
    mirrored[:, cells.heavy] = n[:, 0] - x[:, cells.heavy]
    return mirrored


def _lines(cells: Layout, below: Floats, n: Floats) -> Floats:
    """Rows on the smaller side of the end of each group but the last."""
    lines = below[:, :-1].copy()
    np.subtract(n, lines[:, cells.half :], out=lines[:, cells.half :])
    return np.maximum(lines, 0.0, out=lines)  # rounding may leave a trifle below 0


def root_z(x: Floats, n: Floats, y: Floats, m: Floats) -> Floats:
    """Standard deviations by which the shares x/n and y/m differ, positive where x/n is larger.

    2 (sqrt((x + 3/8)/n) - sqrt((y + 3/8)/m)) / sqrt((1/n + 1/m) (1 - y/m)). Roots make the spread of a count free
    of its mean [1], so that a cell with hardly any rows has no heavier tail than others. Meant for shares up to a
    half; give the complement's counts of a larger one.

    Args:
        x: counts of windows, shape (windows, cells); need not be whole.
        n: rows of the windows, shape (windows, 1), > 0.
        y: counts of their baselines, the same shape as x, or (1, cells).
        m: rows of the baselines, shape (windows, 1) or (1, 1), > 0.

    References:
        [1] Anscombe (1948), The transformation of Poisson, binomial and negative-binomial data.

    Example (30 of 100 against 10 of 100; the usual pooled z is 3.54):
        >>> import numpy as np
        >>> number = lambda value: np.array([[float(value)]])
        >>> root_z(number(30), number(100), number(10), number(100)).round(2)
        array([[3.41]])
    """
    return np.asarray(_root_z(x, n, *_roots(y, m)) * (2 / np.sqrt(1 / n + 1 / m)))


def _roots(y: Floats, m: Floats) -> tuple[Floats, Floats]:
    return np.sqrt((y + _ROOT) / m), 1 / np.sqrt(np.maximum(1 - y / m, 1 / (m + 1)))


def _root_z(x: Floats, n: Floats, roots: Floats, factors: Floats) -> Floats:
    z = x + _ROOT
    z /= n
    np.sqrt(z, out=z)
    z -= roots
    z *= factors
    return z
