"""What the reference implies about the quality of a window, before the window is looked at.

Every inferred limit is a *rate* that is still expected. What n rows may show at that rate is its upper binomial
quantile (`Limit.at`), so that one bad row in 50 is no finding and 5% of 10,000 rows are. Rates of real data come
in stretches (a weather station is out for a day), so they are learnt from the reference's own windows where it
has timestamps, and not from its pooled rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import numpy as np
from scipy.special import betaincinv

from drift_monitor.core.binomial import upper_quantile
from drift_monitor.core.calibration import Calibration
from drift_monitor.core.excess import bound, is_made, most
from drift_monitor.core.policy import Quality
from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    Ints,
    NumericProfile,
    NumericSpec,
    Profile,
    Spec,
)

CERTAINTY: Final = 1e-6
"""Chance that rows at exactly the expected rate exceed its limit: 50 features, 4 checks and 720 hourly windows a
month make 0.14 of them."""
HEADROOM: Final = 1.5
"""How far beyond the worst of the reference's own windows a rate may go."""
POOLED_HEADROOM: Final = 5.0
"""The same beyond the reference's pooled rate, where it cannot be cut into windows: nulls come in stretches."""
SLACK: Final = 0.01
"""A rate that is always expected of nulls, duplicates and one value's extra share."""
CHANGE: Final = 0.10
"""Share of unseen or out-of-range rows below which a window is left to the drift lane: a new carrier with 5% of
the flights is news, not damage."""
POOLED_SPIKE: Final = 0.5
"""Extra share that one value may take where the reference cannot be cut into windows."""
VOLUME: Final = 10.0
"""Windows may be this much smaller than the smallest, or larger than the largest, of the reference's windows."""
SLICES: Final = 3
"""Windows the reference needs before a volume or a freshness is inferred from them."""
SATURATED: Final = 2.0**35
"""Units from the origin at which a profile cuts values."""
MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class Limit:
    """The largest share of rows that is accepted.

    Attributes:
        rate: the share itself when it was configured, else the rate that is still expected.
        fixed: configured by the user, and taken as it is at any number of rows.
        excess: of a calibrated limit, the `excess.root_excess` over that rate which is still accepted.
    """

    rate: float
    fixed: bool = False
    excess: float | None = None

    def at(self, n: int, base: float = 0.0) -> float:
        """The largest share that n rows may show; a window fails above it.

        The smallest k/n with P(X > k) <= `CERTAINTY`, X ~ Binomial(n, base + rate).

        Args:
            n: rows, > 0.
            base: a rate that this one is on top of.

        Example:
            >>> [round(Limit(0.01).at(n), 4) for n in (50, 800, 10_000)]
            [0.12, 0.03, 0.0151]
        """
        if self.fixed:
            return self.rate
        if self.excess is not None:
            return min(1.0, most(n * min(1.0, base + self.rate), self.excess) / n)
        return min(1.0, upper_quantile(CERTAINTY, n, min(1.0, base + self.rate)) / n)


@dataclass(frozen=True)
class Expectations:
    """What a window has to satisfy. A check that is not made has no limit here.

    Attributes:
        null_rate, unseen, out_of_range: by feature.
        constant: by feature: the share that one value may gain over its share in the reference; when fixed, the
            share itself.
        duplicates: None where there is no id column to count by.
        min_rows, max_rows: of a window.
        freshness: how old the newest event may be at the window's end.
        sliced: whether the reference could be cut into windows.
        zero: by feature: of the value 0, where calibrated.
    """

    null_rate: Mapping[str, Limit]
    unseen: Mapping[str, Limit]
    out_of_range: Mapping[str, Limit]
    constant: Mapping[str, Limit]
    duplicates: Limit | None = None
    min_rows: float | None = None
    max_rows: float | None = None
    freshness: timedelta | None = None
    sliced: bool = False
    zero: Mapping[str, Limit] = field(default_factory=dict)


def calibrated(
    found: Expectations, specs: Sequence[Spec], reference: Profile, policy: Quality, calibration: Calibration
) -> Expectations:
    """Put calibrated limits in the place of those that were inferred; what the user set stays.

    Args:
        found: of `expectations`.
        specs: one a feature.
        reference: the whole of it.
        policy: what the user set.
        calibration: of the monitor.
    """
    threshold = calibration.quality.value
    if threshold is None:
        return found
    limits: dict[str, dict[str, Limit]] = {
        "null_rate": dict(found.null_rate),
        "unseen": dict(found.unseen),
        "out_of_range": dict(found.out_of_range),
        "constant": dict(found.constant),
        "zero": {},
    }
    for spec in specs:
        whole = reference.features[spec.name]
        mine = calibration.features.get(spec.name)
        for check, scale in (mine.excess if mine is not None else {}).items():
            if is_made(check, spec.name, policy):
                limits[check][spec.name] = Limit(_rate(check, whole), excess=bound(scale, threshold))
    low, high = found.min_rows, found.max_rows
    if calibration.volume is not None and policy.min_rows is None and policy.max_rows is None:
        middle, away, spread = calibration.volume
        reach = away + spread * threshold
        # what was inferred without a calibration stays the outer bound: one stormy column sets the threshold
        low = max(math.exp(middle - reach), low or 0.0)
        high = min(math.exp(min(middle + reach, 700.0)), math.inf if high is None else high)
    return replace(
        found,
        null_rate=limits["null_rate"],
        unseen=limits["unseen"],
        out_of_range=limits["out_of_range"],
        constant=limits["constant"],
        zero=limits["zero"],
        min_rows=low,
        max_rows=high,
        sliced=True,
    )


def _rate(check: str, whole: FeatureProfile) -> float:
    """The share of such rows that the reference as a whole makes one expect."""
    if check == "null_rate":
        return whole.missing / whole.rows if whole.rows else 0.0
    if check == "unseen" and isinstance(whole, CategoricalProfile):
        return int((whole.counts == 1).sum()) / max(whole.n, 1)
    return 0.0  # the shares of single values are looked up when they are found


def expectations(
    specs: Sequence[Spec],
    reference: Profile,
    policy: Quality,
    *,
    windows: Mapping[int, Profile] | None = None,
    length: timedelta | None = None,
) -> Expectations:
    """What the reference implies and the configuration adds.

    Inferred rates, with p the reference's rate and w the largest rate that one of its windows had with 99%
    confidence (the lower Clopper-Pearson bound, so that a window of three rows proves little):

    - nulls: 1.5 max(p, w) + 1%; without windows 5 p + 1%, but no more than half-way from p to 1. A column of
      nothing but nulls fails in any case, if p makes that as unlikely as a limit's excess.
    - unseen: the larger of 10% and 1.5 max(g, w); g is Good and Turing's estimate of the chance that the next row
      is a new category (categories seen once / rows), w the share of categories that no other window had.
    - out of range: 10%.
    - one value's gain in share: 1.5 w + 1%; 50% without windows.
    - duplicates: the larger of 1% and 1.5 p.
    - volume: a tenth of the smallest window to ten times the largest. Without windows but with timestamps, a
      hundredth and a hundred times the mean, since the smallest is not known.
    - freshness: the larger of half a window and three times the longest stretch without events that ended a
      window or lay between two.

    Args:
        specs: one a feature.
        reference: the whole of it.
        policy: what the user set replaces what would be inferred.
        windows: the reference cut into windows of the live length, by start in microseconds since 1970. Some may
            have rows and times only; windows without rows are absent.
        length: of a window.

    References:
        Clopper & Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial.
        Good (1953), The population frequencies of species and the estimation of population parameters.
    """
    cut = windows or {}
    nulls: dict[str, Limit] = {}
    unseen: dict[str, Limit] = {}
    out_of_range: dict[str, Limit] = {}
    constant: dict[str, Limit] = {}
    for spec in specs:
        whole = reference.features[spec.name]
        parts = [w.features[spec.name] for w in cut.values() if spec.name in w.features]
        nulls[spec.name] = Limit(null_rate(whole, parts))
        if isinstance(spec, CategoricalSpec):
            if spec.complete and isinstance(whole, CategoricalProfile):
                unseen[spec.name] = Limit(_unseen_rate(whole, parts))
        elif spec.kind == "numeric" and spec.edges[-1] > spec.edges[0]:
            out_of_range[spec.name] = Limit(CHANGE)
        if spec.kind != "datetime" and whole.n and spike(spec, whole, whole).count < whole.n:
            constant[spec.name] = Limit(_gain(spec, whole, parts) if parts else POOLED_SPIKE)
    for inferred, given in (
        (nulls, policy.null_rate),
        (unseen, policy.unseen),
        (out_of_range, policy.out_of_range),
        (constant, policy.constant),
    ):
        inferred.update({name: Limit(rate, fixed=True) for name, rate in given.items()})
    low, high = _volume(reference, cut, length)
    off = set(policy.disable)
    return Expectations(
        null_rate={} if "null_rate" in off else nulls,
        unseen={} if "unseen" in off else unseen,
        out_of_range={} if "out_of_range" in off else out_of_range,
        constant={} if "constant" in off else constant,
        duplicates=None if "duplicates" in off else _duplicate_limit(reference, policy),
        min_rows=None if "volume" in off else low if policy.min_rows is None else policy.min_rows,
        max_rows=None if "volume" in off else high if policy.max_rows is None else policy.max_rows,
        freshness=None if "freshness" in off else policy.freshness or _freshness(cut, length),
        sliced=any(w.features for w in cut.values()),
    )


def at_least(k: int, n: int) -> float:
    """The rate that k of n rows prove with 99% confidence: the lower Clopper-Pearson bound.

    Example (three nulls of three prove 0.01 ** (1/3)):
        >>> round(at_least(3, 3), 4), round(at_least(300, 300), 4), at_least(0, 10)
        (0.2154, 0.9848, 0.0)
    """
    return float(betaincinv(k, n - k + 1, 0.01)) if k else 0.0


def null_rate(whole: FeatureProfile, parts: Sequence[FeatureProfile] = ()) -> float:
    """The rate of nulls that is still expected, from the reference's rows and its windows (see `expectations`)."""
    pooled = whole.missing / whole.rows if whole.rows else 0.0
    worst = max((at_least(p.missing, p.rows) for p in parts if p.rows), default=0.0)
    if parts:
        return min(1.0, HEADROOM * max(pooled, worst) + SLACK)
    return min(POOLED_HEADROOM * pooled + SLACK, (1 + pooled) / 2)


def _unseen_rate(whole: CategoricalProfile, parts: Sequence[FeatureProfile]) -> float:
    rates = [int((whole.counts == 1).sum()) / whole.n if whole.n else 0.0]
    for part in parts:
        if isinstance(part, CategoricalProfile) and part.n:
            alone = int(part.counts[part.counts == whole.counts].sum())
            rates.append(at_least(alone, part.n))
    return max(CHANGE, min(1.0, HEADROOM * max(rates)))


def _gain(spec: Spec, whole: FeatureProfile, parts: Sequence[FeatureProfile]) -> float:
    worst = 0.0
    for part in parts:
        if part.n:
            found = spike(spec, whole, part)
            worst = max(worst, at_least(found.count, part.n) - found.expected)
    return HEADROOM * worst + SLACK


def _duplicate_limit(reference: Profile, policy: Quality) -> Limit:
    if policy.duplicates is not None:
        return Limit(policy.duplicates, fixed=True)
    share = reference.ids.duplicate_share if reference.ids else 0.0
    return Limit(max(SLACK, min(1.0, HEADROOM * share)))


def _volume(
    reference: Profile, windows: Mapping[int, Profile], length: timedelta | None
) -> tuple[float | None, float | None]:
    if length is None or reference.oldest is None or reference.newest is None:
        return None, None
    width = length // MICROSECOND
    if len(windows) >= SLICES:
        rows = [w.rows for w in windows.values()]
        gap = len(windows) < (max(windows) - min(windows)) // width + 1
        return 0.0 if gap else min(rows) / VOLUME, max(rows) * VOLUME
    spans = (reference.newest - reference.oldest) / width
    if spans < SLICES:
        return None, None
    mean = reference.rows / spans
    return mean / VOLUME**2, mean * VOLUME**2


def _freshness(windows: Mapping[int, Profile], length: timedelta | None) -> timedelta | None:
    if length is None or len(windows) < SLICES:
        return None
    width = length // MICROSECOND
    longest, before = 0, None
    for start in sorted(windows):
        window = windows[start]
        if window.oldest is None or window.newest is None:
            return None
        longest = max(longest, start + width - window.newest, window.oldest - before if before is not None else 0)
        before = window.newest
    limit = max(3 * longest, width // 2)
    return limit * MICROSECOND if limit < width else None


@dataclass(frozen=True)
class Spike:
    """The single value whose share grew most.

    Attributes:
        value: as text.
        count: rows of it in the window.
        expected: its share in the reference.
        known: rows of it in the reference.
    """

    value: str
    count: int
    expected: float
    known: int


def spike(spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> Spike:
    """Find the value whose share of the non-null rows grew most over its share in the reference.

    Seen are: every category; every value of the reference that is an edge (all of them up to 1000 distinct ones);
    a value that alone lies below, or above, the reference's range (-999, 9999), where values more than about 16
    times the range away count as one; and a column of one value. A value inside the range that the reference
    hardly had cannot be told from its neighbours in the same cell.
    """
    atoms, known = _atoms(current), _atoms(reference)
    n, m = max(current.n, 1), max(reference.n, 1)
    best = int(np.argmax(atoms / n - known / m))
    label = f"{spec.edges[best]:g}" if isinstance(spec, NumericSpec) else repr(spec.categories[best])
    found = Spike(label, int(atoms[best]), int(known[best]) / m, int(known[best]))
    if isinstance(spec, NumericSpec) and isinstance(current, NumericProfile):
        for value, count in _lone_values(spec, current):
            if count / n > found.count / n - found.expected:
                beyond = " or further out" if abs(_units(spec, value)) == SATURATED else ""
                found = Spike(f"{value:g}{beyond}", count, 0.0, 0)
    return found


def _atoms(profile: FeatureProfile) -> Ints:
    return profile.counts[1::2] if isinstance(profile, NumericProfile) else profile.counts


def _lone_values(spec: NumericSpec, profile: NumericProfile) -> Iterable[tuple[float, int]]:
    """Values that are no edge, have a cell to themselves, and are known: the minimum and the maximum."""
    for cell, value in ((0, profile.minimum), (-1, profile.maximum)):
        count = int(profile.counts[cell])
        # every row of the cell lies on the same side of `value`, so the sum equals it only if all of them do
        if count and abs(int(profile.sums[cell]) - count * _units(spec, value)) * 2 <= count:
            yield value, count
    if profile.minimum == profile.maximum and not profile.counts[1::2].any():
        yield profile.minimum, profile.n


def _units(spec: NumericSpec, value: float) -> float:
    return min(max(value / spec.unit - spec.origin / spec.unit, -SATURATED), SATURATED)
