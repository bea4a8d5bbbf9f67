"""What changed, for people: in the feature's own units, as one number, as a histogram."""

from __future__ import annotations

import math
from typing import cast

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
from drift_monitor.core.stattests.cells import check_sizes, compare, groups, interval, number, numeric
from drift_monitor.core.stattests.tables import table_z
from drift_monitor.core.types import Histogram

_TRIMMED = 0.01  # of the reference's rows at either end go into the end bins of a histogram
_PLAIN = 0.05
_GROUPS = 100  # among which `effect` looks for what moved most when the median did not


def effect_size(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> float:
    """How large the change is, whatever the number of rows: from 0 to 1.

    The Kolmogorov-Smirnov distance of a numeric or datetime feature, the largest change of one category's share of
    the others. The categories that the reference has not seen count as one, too: by how much their share differs
    from the reference's share of categories seen once, which is what to expect of them [1].

    References:
        [1] Good (1953), The population frequencies of species and the estimation of population parameters.

    Raises:
        ValueError: a side has no row with a value.
    """
    check_sizes(spec, reference, current)
    if isinstance(spec, NumericSpec):
        _, a, b = numeric(spec, reference, current)
        return float(np.abs(np.cumsum(a.counts) / a.n - np.cumsum(b.counts) / b.n).max())
    before, now = cast("CategoricalProfile", reference), cast("CategoricalProfile", current)
    cells = compare(spec, before, now)
    change = np.abs(cells.reference / cells.m - cells.current / cells.n)[:-1]
    expected = max(before.other, int((before.counts == 1).sum())) / before.n
    return float(max(change.max(initial=0.0), abs(now.other / now.n - expected)))


def effect(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> str:
    """What moved most, such as `median 812 -> 1307`, `share of 0 1% -> 4.9%` or `carrier=XX 0% -> 5%`.

    Raises:
        ValueError: a side has no row with a value.
    """
    check_sizes(spec, reference, current)
    if isinstance(spec, CategoricalSpec):
        return _category_effect(spec, cast("CategoricalProfile", reference), cast("CategoricalProfile", current))
    _, before, now = numeric(spec, reference, current)
    medians = [_median(spec, profile) for profile in (before, now)]
    starts = groups(before, _GROUPS)
    p, q = np.add.reduceat(before.counts, starts), np.add.reduceat(now.counts, starts)
    worst = int(np.argmax(table_z(p, q, before.n, now.n)))
    share_change = abs(p[worst] / before.n - q[worst] / now.n)
    # a median that moved past a few percent of the rows is the plainest account; short of that, where most of the
    # change is in one place, there is a spike or a hole
    moved = _passed(before, now) >= _PLAIN or share_change < 0.5 * effect_size(spec, before, now)
    if medians[0] != medians[1] and moved:
        return f"median {medians[0]} -> {medians[1]}"
    last = int(starts[worst + 1]) - 1 if worst + 1 < len(starts) else len(before.counts) - 1
    name = interval(spec, int(starts[worst]), last)
    return f"share of {name} {percent(p[worst] / before.n)} -> {percent(q[worst] / now.n)}"


def _passed(before: NumericProfile, now: NumericProfile) -> float:
    """By how much the share of rows up to the reference's median differs."""
    cell = _median_cell(before)
    return abs(float(before.counts[: cell + 1].sum() / before.n - now.counts[: cell + 1].sum() / now.n))


def _median_cell(profile: NumericProfile) -> int:
    return int(np.searchsorted(np.cumsum(profile.counts), math.ceil(profile.n / 2)))


def _median(spec: NumericSpec, profile: NumericProfile) -> str:
    cell = _median_cell(profile)
    if profile.saturated and cell in {0, len(profile.counts) - 1}:
        return interval(spec, cell, cell)
    return number(spec, profile.quantile(spec, 0.5))


def _category_effect(spec: CategoricalSpec, before: CategoricalProfile, now: CategoricalProfile) -> str:
    change = np.abs(before.counts / before.n - now.counts / now.n)
    known = int(np.argmax(change)) if len(change) else 0
    name = spec.categories[known]
    was, is_now = before.counts[known] / before.n, now.counts[known] / now.n
    if now.unseen:
        newest = min(now.unseen, key=lambda c: (-now.unseen[c], c))
        share = now.unseen[newest] / now.n
        past = before.unseen.get(newest, 0) / before.n
        if abs(share - past) >= change[known]:
            name, was, is_now = newest, past, share
    return f"{spec.name}={name} {percent(was)} -> {percent(is_now)}"


def percent(share: float) -> str:
    """A share for people to read.

    Example:
        >>> [percent(x) for x in (0.0, 0.049, 0.00012345, 1.0, 0.9999)]
        ['0%', '4.9%', '0.0123%', '100%', '99.99%']
    """
    return f"{100 * share:.4g}%" if share > 0.99 else f"{100 * share:.3g}%"


# -- histogram -------------------------------------------------------------------------------------------


def histogram(spec: Spec, reference: FeatureProfile, current: FeatureProfile, bins: int = 20) -> Histogram:
    """Shares over a few bins that the reference fixed.

    A numeric feature with few distinct values has a bin for each. Others have bins of about equal width over the
    reference without its lowest and highest percent, their limits moved to the nearest edge, since rows are
    counted there; both ends have a bin for what lies beyond. Categories: the most frequent of the reference, the
    rest of them together, and what it does not list. A side without rows has shares 0.
    """
    if isinstance(spec, CategoricalSpec):
        labels, p, q = _category_bins(
            spec, cast("CategoricalProfile", reference), cast("CategoricalProfile", current), bins
        )
    else:
        before, now = cast("NumericProfile", reference), cast("NumericProfile", current)
        starts = _bin_starts(spec, before, bins)
        ends = np.append(starts[1:], len(before.counts)) - 1
        p, q = np.add.reduceat(before.counts, starts), np.add.reduceat(now.counts, starts)
        labels = tuple(_bin_label(spec, int(a), int(b), before, now) for a, b in zip(starts, ends, strict=True))
    return Histogram(labels=labels, reference=_shares(p), current=_shares(q))


def _shares(counts: Ints) -> tuple[float, ...]:
    return tuple((counts / max(int(counts.sum()), 1)).tolist())


def _bin_starts(spec: NumericSpec, reference: NumericProfile, bins: int) -> Ints:
    """The first fine cell of each bin: 0 for what lies below, then cells {e_i}, the last for what lies above."""
    count = len(reference.counts)
    inner = max(1, bins - 2)
    if len(spec.edges) <= inner:
        return np.concatenate(([0], np.arange(1, count, 2), [count - 1]))
    low, high = (reference.quantile(spec, x) for x in (_TRIMMED, 1 - _TRIMMED))
    limits = _even(low, high, inner) if low < high else np.array([low])
    nearest = np.clip(np.searchsorted(spec.edges, limits), 1, len(spec.edges) - 1)
    # halves: a difference of two of the largest floats would overflow
    half = spec.edges / 2
    nearest -= limits / 2 - half[nearest - 1] < half[nearest] - limits / 2
    starts = 2 * np.unique(nearest) + 1
    return np.concatenate(([0], starts[:-1], starts[-1:] + 1))


def _even(low: float, high: float, parts: int) -> Floats:
    share = np.arange(parts + 1) / parts
    return np.asarray(low * (1 - share) + high * share)


def _bin_label(spec: NumericSpec, first: int, last: int, before: NumericProfile, now: NumericProfile) -> str:
    """The interval; just the value where a bin holds nothing but an edge's."""
    if first % 2 and last == first + 1 and not before.counts[last] + now.counts[last]:
        last = first
    return interval(spec, first, last)


def _category_bins(
    spec: CategoricalSpec, before: CategoricalProfile, now: CategoricalProfile, bins: int
) -> tuple[tuple[str, ...], Ints, Ints]:
    shown = len(spec.categories) if len(spec.categories) < bins else max(1, bins - 2)
    labels = [*spec.categories[:shown]]
    sides = [[*x.counts[:shown].tolist()] for x in (before, now)]
    if shown < len(spec.categories):
        labels.append(f"({len(spec.categories) - shown} more)")
        for side, x in zip(sides, (before, now), strict=True):
            side.append(int(x.counts[shown:].sum()))
    labels.append("(new)" if spec.complete else "(rare or new)")
    sides[0].append(before.other)
    sides[1].append(now.other)
    return tuple(labels), np.array(sides[0], np.int64), np.array(sides[1], np.int64)
