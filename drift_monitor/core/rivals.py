"""The usual alarm rules of the field, computed from profiles: what each would have said of the same windows.

    alarms = fit(specs, reference, windows)
    alarms(window)  # {"ks_bonferroni": True, "psi": False, ...}

A new rule is a function and a line in `RIVALS`. The rules share one `Comparison` a feature, which computes a
number when a rule first asks for it. A feature that is missing on a side, or has no row with a value there, is
passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, cast

import numpy as np
from scipy import special

from drift_monitor.core.profile import (
    CategoricalSpec,
    FeatureProfile,
    Floats,
    NumericProfile,
    NumericSpec,
    Profile,
    Spec,
)
from drift_monitor.core.stattests import STATTESTS
from drift_monitor.core.stattests.cells import Cells, compare
from drift_monitor.core.stattests.null import chi2_sf

ALPHA = 0.05
"""The level of every p-value."""
PSI_LIMIT = 0.2
"""From here on "a significant shift" [Siddiqi 2006 and every tutorial since]."""
EMPTY = 1e-4
"""The share that the PSI takes for an empty bin, as Evidently does."""
DEVIATIONS = 3
SMALL = 1000
"""Reference rows up to which Evidently tests; with more it measures a distance."""
FEW = 5
"""Distinct values of both sides up to which Evidently takes a number for a category."""
DISTANCE_LIMIT = 0.1
SHARE_LIMIT = 0.5
_SCATTER = 2.0**12  # squared units a row: what rounding, also to float32, makes of one value


@dataclass(frozen=True)
class Default:
    """What the test that Evidently chooses for a column says of it.

    Attributes:
        test: its name in Evidently: ks, chisquare, z, wasserstein or jensenshannon.
        score: a p-value for the first three, a distance for the others; infinite where a value lies too far out
            for the sums of a profile.
        drifted: on Evidently's threshold.
    """

    test: str
    score: float
    drifted: bool


@dataclass(frozen=True, eq=False)
class Comparison:
    """One feature of a window beside the reference; both have rows with a value.

    Attributes:
        spec: of the feature.
        reference, current: its two profiles.
    """

    spec: Spec
    reference: FeatureProfile
    current: FeatureProfile

    @cached_property
    def categories(self) -> Cells:
        """Rows by category that either side has, or by fine cell of a number."""
        if isinstance(self.spec, CategoricalSpec):
            cells = compare(self.spec, self.reference, self.current)
            p, q = cells.reference, cells.current
        else:
            p, q = self.reference.counts, self.current.counts
        used = p + q > 0
        return Cells(p[used], q[used])

    @cached_property
    def distance(self) -> float:
        """Kolmogorov-Smirnov distance (at the edges) of numbers, total variation of categories and booleans."""
        cells = self.categories
        if isinstance(self.spec, NumericSpec):
            return float(np.abs(np.cumsum(cells.reference) / cells.m - np.cumsum(cells.current) / cells.n).max())
        p, q = _shares(cells)
        return float(np.abs(p - q).sum()) / 2

    @cached_property
    def p_value(self) -> float:
        """Of Kolmogorov-Smirnov, or of chi-square for categories and booleans.

        For the first, Kolmogorov's law with Stephens' correction for few rows [1]: within 3% of what
        `scipy.stats.ks_2samp(method="asymp")` gives where mn / (m + n) is 90 or more and p is 0.0001 or more.
        The second is `scipy.stats.chi2_contingency`, with its Yates correction for two categories.

        References:
            [1] Stephens (1970), Use of the Kolmogorov-Smirnov, Cramer-von Mises and related statistics without
                extensive tables.
        """
        m, n = self.reference.n, self.current.n
        if isinstance(self.spec, NumericSpec):
            root = math.sqrt(m * n / (m + n))
            return float(special.kolmogorov((root + 0.12 + 0.11 / root) * self.distance))
        seen = np.stack((self.categories.reference, self.categories.current))
        expected = np.outer((m, n), seen.sum(axis=0) / (m + n))
        apart = np.abs(seen - expected)
        if seen.shape[1] == 2:
            apart -= np.minimum(apart, 0.5)
        return chi2_sf(float((apart**2 / expected).sum()), seen.shape[1] - 1)

    @cached_property
    def psi(self) -> float:
        """Population stability index, in nats, of ten bins between the reference's deciles, or of the categories.

        A bin holds its upper limit; the first and the last are open. Equal deciles leave fewer bins.
        """
        cells = self.categories
        if isinstance(self.spec, NumericSpec):
            running = np.cumsum(self.reference.counts)
            ends = np.searchsorted(running, np.arange(1, 10) * running[-1] / 10)
            starts = np.unique(np.concatenate(([0], ends + 1)))
            starts = starts[starts < len(running)]
            cells = Cells(
                np.add.reduceat(self.reference.counts, starts), np.add.reduceat(self.current.counts, starts)
            )
        p, q = (np.where(share > 0, share, EMPTY) for share in _shares(cells))
        return float(((q - p) * np.log(q / p)).sum())

    @cached_property
    def evidently(self) -> Default | None:
        """Evidently 0.7's default rule for a column, computed from counts; None for datetimes, which it skips.

        Which test it is depends on the reference's rows with a value and on the distinct values of both sides
        (`evidently/legacy/calculations/stattests/registry.py`). Counts give its numbers but for these: the p-value
        of Kolmogorov-Smirnov is `p_value`'s, not the exact one; the Wasserstein distance takes F - G as straight
        where it changes its sign between two edges; values between the same two edges count as one distinct value
        if they are equal, as many if not. The Jensen-Shannon distance is the root of the divergence in nats. A
        categorical feature is never taken for text.
        """
        if self.spec.kind == "datetime":
            return None
        values = self._distinct
        small = self.reference.n <= SMALL
        if isinstance(self.spec, NumericSpec) and values > FEW:
            if small:
                return Default("ks", self.p_value, self.p_value <= ALPHA)
            score = self._wasserstein
            return Default("wasserstein", score, score >= DISTANCE_LIMIT)
        if not small:
            score = _jensen_shannon(self.categories)
            return Default("jensenshannon", score, score >= DISTANCE_LIMIT)
        score = _goodness_of_fit(self.categories) if values > 2 else _z_test(self.categories)
        return Default("chisquare" if values > 2 else "z", score, score < ALPHA)

    @property
    def _distinct(self) -> float:
        """Distinct values of both sides; infinite where a cell of a number holds more than one."""
        cells = len(self.categories.reference)
        if isinstance(self.spec, CategoricalSpec) or cells > FEW:
            return cells
        both = cast("NumericProfile", self.reference).merge(cast("NumericProfile", self.current))
        used = both.counts > 0
        # the squares about the mean of each cell
        about = both.squares - sum(
            s * s // c for s, c in zip(both.sums[used].tolist(), both.counts[used].tolist(), strict=True)
        )
        return math.inf if both.saturated or about > _SCATTER * both.n else cells

    @property
    def _wasserstein(self) -> float:
        """In the reference's standard deviations (of the population), or in thousandths if that is more."""
        spec, before = cast("NumericSpec", self.spec), cast("NumericProfile", self.reference)
        found = STATTESTS["wasserstein"].function(spec, before, self.current)
        if found is None:
            return math.inf
        mean = float(before.sums.sum(dtype=np.float64)) / before.n
        deviation = spec.unit * math.sqrt(max(0.0, before.squares / before.n - mean * mean))
        return found.statistic / max(deviation, 0.001)


def _shares(cells: Cells) -> tuple[Floats, Floats]:
    return cells.reference / cells.m, cells.current / cells.n


def _jensen_shannon(cells: Cells) -> float:
    """`scipy.spatial.distance.jensenshannon`, natural logarithms."""
    p, q = _shares(cells)
    middle = (p + q) / 2
    return math.sqrt(max(0.0, float((special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum()) / 2))


def _goodness_of_fit(cells: Cells) -> float:
    """p-value of `scipy.stats.chisquare` that takes the reference for the truth: 0 with an unseen category."""
    if not cells.reference.all():
        return 0.0
    expected = cells.reference * (cells.n / cells.m)
    return chi2_sf(float(((cells.current - expected) ** 2 / expected).sum()), len(expected) - 1)


def _z_test(cells: Cells) -> float:
    """Two-sided p-value of the difference of two shares; 1 for a single value."""
    if len(cells.reference) < 2:
        return 1.0
    p, q = (float(share[0]) for share in _shares(cells))
    pooled = int(cells.reference[0] + cells.current[0]) / (cells.m + cells.n)
    z = (p - q) / math.sqrt(pooled * (1 - pooled) * (1 / cells.m + 1 / cells.n))
    return 2 * float(special.ndtr(-abs(z)))


# -- rules -----------------------------------------------------------------------------------------------

Compared = Mapping[str, Comparison]
"""The features of one window, by name."""
Judge = Callable[[Compared], bool]
Rule = Callable[[Sequence[Compared]], Judge]
"""Windows of the reference -> what says of another window whether the monitor would have alarmed."""


def _ks_bonferroni(history: Sequence[Compared]) -> Judge:  # noqa: ARG001 - nothing to fit
    return lambda window: any(feature.p_value < ALPHA / len(window) for feature in window.values())


def _psi(history: Sequence[Compared]) -> Judge:  # noqa: ARG001
    return lambda window: any(feature.psi > PSI_LIMIT for feature in window.values())


def _mean_3sd(history: Sequence[Compared]) -> Judge:
    seen: dict[str, list[float]] = {}
    for window in history:
        for name, feature in window.items():
            seen.setdefault(name, []).append(feature.distance)
    limits = {name: float(np.mean(d) + DEVIATIONS * np.std(d)) for name, d in seen.items()}
    return lambda window: any(f.distance > limits.get(name, math.inf) for name, f in window.items())


def _evidently_any(history: Sequence[Compared]) -> Judge:  # noqa: ARG001
    return lambda window: any(drifted for drifted in _drifted_columns(window))


def _evidently_share(history: Sequence[Compared]) -> Judge:  # noqa: ARG001
    def judge(window: Compared) -> bool:
        columns = _drifted_columns(window)
        return bool(columns) and sum(columns) >= SHARE_LIMIT * len(columns)

    return judge


def _drifted_columns(window: Compared) -> list[bool]:
    return [f.evidently.drifted for f in window.values() if f.evidently]


@dataclass(frozen=True)
class Rival:
    """An alarm rule.

    Attributes:
        title: what alarms, in words.
        source: who has it.
        rule: how it is fitted; most rules have nothing to fit.
    """

    title: str
    source: str
    rule: Rule


RIVALS: Final[dict[str, Rival]] = {
    "ks_bonferroni": Rival(
        title="KS or chi-square p < 0.05 / features, any feature",
        source="alibi-detect's TabularDrift",
        rule=_ks_bonferroni,
    ),
    "psi": Rival(
        title="PSI > 0.2 on ten quantile bins or the categories, any feature",
        source="Siddiqi (2006), Credit risk scorecards",
        rule=_psi,
    ),
    "mean_3sd": Rival(
        title="KS or total variation > mean + 3 sd of the reference's windows, any feature",
        source="NannyML's StandardDeviationThreshold",
        rule=_mean_3sd,
    ),
    "evidently_any": Rival(
        title="Evidently's default test of a column, any column",
        source="Evidently 0.7, ValueDrift",
        rule=_evidently_any,
    ),
    "evidently_share": Rival(
        title="Evidently's default test of a column, half of the columns or more",
        source="Evidently 0.7, DataDriftPreset with drift_share 0.5",
        rule=_evidently_share,
    ),
}


def compared(specs: Sequence[Spec], reference: Profile, window: Profile) -> dict[str, Comparison]:
    """The features that have rows with a value on both sides, by name."""
    found: dict[str, Comparison] = {}
    for spec in specs:
        before, now = reference.features.get(spec.name), window.features.get(spec.name)
        if before and now and before.n and now.n:
            found[spec.name] = Comparison(spec, before, now)
    return found


def fit(
    specs: Sequence[Spec],
    reference: Profile,
    windows: Sequence[Profile],
    *,
    names: Collection[str] = tuple(RIVALS),
) -> Callable[[Profile], dict[str, bool]]:
    """Set up some rules for one monitor.

    Args:
        specs: of its features.
        reference: the profile of all its rows.
        windows: the reference's own windows, of the length that is going to be judged. They are scored against the
            reference that contains them, as NannyML does. Without any, `mean_3sd` never alarms.
        names: which rules.

    Returns:
        A function from a window's profile to whether the monitor would have alarmed, by name of the rule.

    Raises:
        KeyError: there is no such rule.
    """
    history = [compared(specs, reference, window) for window in windows]
    judges = {name: RIVALS[name].rule(history) for name in names}

    def alarms(window: Profile) -> dict[str, bool]:
        features = compared(specs, reference, window)
        return {name: judge(features) for name, judge in judges.items()}

    return alarms
