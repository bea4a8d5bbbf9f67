"""What changed, for people: in the feature's own units, as one number, as a histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast
from weakref import WeakKeyDictionary

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
from drift_monitor.core.stattests.batch import Batch, Fine
from drift_monitor.core.stattests.cells import grouped, interval, number, table
from drift_monitor.core.stattests.suprema import distance
from drift_monitor.core.stattests.tables import table_z
from drift_monitor.core.types import Histogram

_TRIMMED = 0.01  # of the reference's rows at either end go into the end bins of a histogram
_PLAIN = 0.05
_GROUPS = 100  # among which `effects` looks for what moved most when the median did not
_BINS: Final = 20


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
    return float(effect_sizes(Batch([spec], [reference], [current]))[0])


def effect_sizes(batch: Batch) -> Floats:
    """The same of each feature, shape (F,)."""
    if isinstance(batch.specs[0], NumericSpec):
        return batch.once(distance)
    sizes = []
    for cells, (_, before, now) in zip(batch.once(table).features(), batch.categorical, strict=True):
        change = np.abs(cells.reference / cells.m - cells.current / cells.n)[:-1]
        expected = max(before.other, int((before.counts == 1).sum())) / before.n
        sizes.append(float(max(change.max(initial=0.0), abs(now.other / now.n - expected))))
    return np.array(sizes)


def effect(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> str:
    """What moved most, such as `median 812 -> 1307`, `share of 0 1% -> 4.9%` or `carrier=XX 0% -> 5%`.

    Raises:
        ValueError: a side has no row with a value.
    """
    return effects(Batch([spec], [reference], [current]))[0]


def effects(batch: Batch) -> list[str]:
    """The same of each feature."""
    if isinstance(batch.specs[0], CategoricalSpec):
        return [_category_effect(*triple) for triple in batch.categorical]
    fine = batch.once(Fine)
    middle_a, middle_b = (
        fine.spans.reached(counts, np.ceil(rows / 2).astype(np.int64))
        for counts, rows in ((fine.a, batch.m), (fine.b, batch.n))
    )
    # by how much the share of rows up to the reference's median differs
    passed = np.abs(fine.below_a[middle_a] / batch.m - fine.below_b[middle_a] / batch.n)
    spans, starts = grouped(batch, np.full(len(batch.specs), _GROUPS))
    p, q = np.add.reduceat(fine.a, starts), np.add.reduceat(fine.b, starts)
    worst = spans.place_of_largest(table_z(p, q, spans.each(batch.m), spans.each(batch.n)))
    was, is_now = p[worst] / batch.m, q[worst] / batch.n
    # a median that moved past a few percent of the rows is the plainest account; short of that, where most of the
    # change is in one place, there is a spike or a hole
    moved = (passed >= _PLAIN) | (np.abs(was - is_now) < 0.5 * batch.once(distance))
    ends = np.append(starts[1:], len(fine.a)) - 1
    found = []
    for i, (spec, before, now) in enumerate(batch.numeric):
        first = int(fine.spans.first[i])
        medians = (
            _median(spec, before, int(middle_a[i]) - first),
            _median(spec, now, int(middle_b[i]) - first),
        )
        if medians[0] != medians[1] and moved[i]:
            found.append(f"median {medians[0]} -> {medians[1]}")
        else:
            name = interval(spec, int(starts[worst[i]]) - first, int(ends[worst[i]]) - first)
            found.append(f"share of {name} {percent(was[i])} -> {percent(is_now[i])}")
    return found


def _median(spec: NumericSpec, profile: NumericProfile, cell: int) -> str:
    if profile.saturated and cell in {0, len(profile.counts) - 1}:
        return interval(spec, cell, cell)
    return number(spec, profile.value(spec, cell))


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
    return f"{spec.column}={name} {percent(was)} -> {percent(is_now)}"


def percent(share: float) -> str:
    """A share for people to read.

    Example:
        >>> [percent(x) for x in (0.0, 0.049, 0.00012345, 1.0, 0.9999)]
        ['0%', '4.9%', '0.0123%', '100%', '99.99%']
    """
    return f"{100 * share:.4g}%" if share > 0.99 else f"{100 * share:.3g}%"


# -- histogram -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bins:
    """The bins of a numeric feature's histogram, which the reference fixes.

    Attributes:
        starts: the first fine cell of each.
        labels: their names.
        single: by bin in which the reference has rows at its edge only: the cell above the edge, and the name of
            the bin where no live row is in that cell either.
        shares: of the reference.
    """

    starts: Ints
    labels: tuple[str, ...]
    single: dict[int, tuple[int, str]]
    shares: tuple[float, ...]


_known: WeakKeyDictionary[NumericProfile, _Bins] = WeakKeyDictionary()
"""By the reference's profile: a worker draws many windows against the same one."""


def histogram(spec: Spec, reference: FeatureProfile, current: FeatureProfile, bins: int = _BINS) -> Histogram:
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
        return Histogram(labels=labels, reference=_shares(p), current=_shares(q))
    before, now = cast("NumericProfile", reference), cast("NumericProfile", current)
    if bins != _BINS:
        found = _bins(spec, before, bins)
    elif (known := _known.get(before)) is not None:
        found = known
    else:
        found = _known[before] = _bins(spec, before, bins)
    labels = found.labels
    if renamed := {i: name for i, (cell, name) in found.single.items() if not now.counts[cell]}:
        labels = tuple(renamed.get(i, label) for i, label in enumerate(labels))
    shares = _shares(np.add.reduceat(now.counts, found.starts))
    return Histogram(labels=labels, reference=found.shares, current=shares)


def _bins(spec: NumericSpec, reference: NumericProfile, bins: int) -> _Bins:
    starts = _bin_starts(spec, reference, bins)
    ends = np.append(starts[1:], len(reference.counts)) - 1
    cells = list(zip(starts.tolist(), ends.tolist(), strict=True))
    single = {
        i: (last, interval(spec, first, first))
        for i, (first, last) in enumerate(cells)
        if first % 2 and last == first + 1 and not reference.counts[last]
    }
    labels = tuple(interval(spec, first, last) for first, last in cells)
    return _Bins(starts, labels, single, _shares(np.add.reduceat(reference.counts, starts)))


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
