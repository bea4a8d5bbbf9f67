"""Stattests: pure functions of two profiles that return numbers. Whether these mean drift, the verdict says.

A new one is a function, its critical value and a line in `STATTESTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from drift_monitor.core.profile import FeatureProfile, Floats, Spec
from drift_monitor.core.stattests import moments, ranks, shares, suprema
from drift_monitor.core.stattests.batch import Batch
from drift_monitor.core.stattests.cells import groups, interval
from drift_monitor.core.stattests.effects import effect, effect_size, histogram
from drift_monitor.core.types import Kind, StatResult

__all__ = [
    "DEFAULT_ALARM",
    "ON_REQUEST",
    "REPORTED",
    "STATTESTS",
    "StatTest",
    "effect",
    "effect_size",
    "groups",
    "histogram",
    "interval",
    "table",
]

Statistic = Callable[[Batch], Sequence[StatResult | None]]
Critical = Callable[[Batch, float], Floats]

_ORDERED: Final[frozenset[Kind]] = frozenset(("numeric", "datetime"))
_ALL: Final[frozenset[Kind]] = frozenset(("numeric", "datetime", "categorical", "boolean"))


@dataclass(frozen=True)
class StatTest:
    """One way to compare two samples.

    Attributes:
        name: as it stands in a config file and in results.
        title: for people.
        compute: features -> a result for each, larger meaning further apart; None where the data do not define it.
        limits: (features, alpha) -> for each the value that the statistic exceeds with probability alpha at most
            if both samples are independent rows from one distribution, at their actual sizes; infinite where no
            value can tell. Shape (F,).
        measures: what the number is.
        kinds: of features it is for.
        symmetric: whether swapping the samples, on the same cells, leaves the statistic alone.
        bounded: its least and largest value; None for the largest where there is none.
        monotone_invariant: whether a rising transformation of the feature leaves the statistic alone.
        zero_on_identical: whether two samples with the same counts have the least value.
        reference: where it comes from.
    """

    name: str
    title: str
    compute: Statistic
    limits: Critical
    measures: str
    reference: str
    kinds: frozenset[Kind] = _ALL
    symmetric: bool = True
    bounded: tuple[float, float | None] = (0.0, None)
    monotone_invariant: bool = True
    zero_on_identical: bool = True

    def function(self, spec: Spec, reference: FeatureProfile, current: FeatureProfile) -> StatResult | None:
        """`compute` for one feature.

        Raises:
            ValueError: a side has no row with a value.
            TypeError: the method is not for this kind of feature.
        """
        return self.compute(Batch([spec], [reference], [current]))[0]

    def critical(self, spec: Spec, reference: FeatureProfile, current: FeatureProfile, alpha: float) -> float:
        """`limits` for one feature; raises as `function` does."""
        return float(self.limits(Batch([spec], [reference], [current]), alpha)[0])


STATTESTS: Final[dict[str, StatTest]] = {
    "ks": StatTest(
        name="ks",
        title="Kolmogorov-Smirnov",
        compute=suprema.ks,
        limits=suprema.ks_critical,
        measures="largest difference of the distribution functions",
        reference="Smirnov (1948)",
        kinds=_ORDERED,
        bounded=(0.0, 1.0),
    ),
    "anderson_darling": StatTest(
        name="anderson_darling",
        title="Anderson-Darling",
        compute=ranks.anderson_darling,
        limits=ranks.anderson_darling_critical,
        measures="weighted squared difference of the distribution functions; 1 on average without drift",
        reference="Scholz & Stephens (1987), equation 7",
        kinds=_ORDERED,
    ),
    "weighted_supremum": StatTest(
        name="weighted_supremum",
        title="Weighted supremum",
        compute=suprema.weighted_supremum,
        limits=suprema.weighted_supremum_critical,
        measures="largest difference of the distribution functions, in standard deviations of one row",
        reference="Miller & Siegmund (1982)",
        kinds=_ORDERED,
    ),
    "max_bin_z": StatTest(
        name="max_bin_z",
        title="Largest z of one cell",
        compute=shares.max_bin_z,
        limits=shares.max_bin_z_critical,
        measures="standard deviations by which the share of one cell differs",
        reference="Wilks (1938)",
    ),
    "psi": StatTest(
        name="psi",
        title="Population stability index",
        compute=shares.psi,
        limits=shares.psi_critical,
        measures="sum of both Kullback-Leibler divergences, in nats",
        reference="Yurdakul & Naranjo (2020)",
    ),
    "jensen_shannon": StatTest(
        name="jensen_shannon",
        title="Jensen-Shannon distance",
        compute=shares.jensen_shannon,
        limits=shares.jensen_shannon_critical,
        measures="root of the divergence in bits (base 2)",
        reference="Endres & Schindelin (2003)",
        bounded=(0.0, 1.0),
    ),
    "hellinger": StatTest(
        name="hellinger",
        title="Hellinger distance",
        compute=shares.hellinger,
        limits=shares.hellinger_critical,
        measures="distance of the roots of the shares",
        reference="Le Cam (1986)",
        bounded=(0.0, 1.0),
    ),
    "total_variation": StatTest(
        name="total_variation",
        title="Total variation distance",
        compute=shares.total_variation,
        limits=shares.total_variation_critical,
        measures="share of rows that would have to move",
        reference="Levin, Peres & Wilmer (2017), chapter 4",
        bounded=(0.0, 1.0),
    ),
    "wasserstein": StatTest(
        name="wasserstein",
        title="Wasserstein-1 distance",
        compute=moments.wasserstein,
        limits=moments.wasserstein_critical,
        measures="mean distance by which rows would have to move, in the feature's unit (datetimes: seconds)",
        reference="Vallender (1974)",
        kinds=_ORDERED,
        monotone_invariant=False,
    ),
    "chi2": StatTest(
        name="chi2",
        title="Chi-square of homogeneity",
        compute=shares.chi2,
        limits=shares.chi2_critical,
        measures="squared difference of counts over expected counts",
        reference="Cochran (1952)",
    ),
    "cramer_von_mises": StatTest(
        name="cramer_von_mises",
        title="Cramer-von Mises",
        compute=ranks.cramer_von_mises,
        limits=ranks.cramer_von_mises_critical,
        measures="squared difference of the distribution functions; 1/6 on average without drift",
        reference="Anderson (1962)",
        kinds=_ORDERED,
    ),
    "mann_whitney": StatTest(
        name="mann_whitney",
        title="Mann-Whitney U",
        compute=ranks.mann_whitney,
        limits=ranks.mann_whitney_critical,
        measures="difference of the mean ranks, in standard deviations",
        reference="Hollander & Wolfe (1999), section 4.1",
        kinds=_ORDERED,
    ),
    "t": StatTest(
        name="t",
        title="Welch's t",
        compute=moments.t,
        limits=moments.t_critical,
        measures="difference of the means, in standard errors",
        reference="Welch (1947)",
        kinds=_ORDERED,
        monotone_invariant=False,
    ),
    "g": StatTest(
        name="g",
        title="G (likelihood ratio) of homogeneity",
        compute=shares.g,
        limits=shares.g_critical,
        measures="twice the log-likelihood ratio",
        reference="Wilks (1938), Williams (1976)",
    ),
}

_OF_ORDERED: Final = (
    "ks",
    "anderson_darling",
    "weighted_supremum",
    "max_bin_z",
    "psi",
    "jensen_shannon",
    "hellinger",
    "total_variation",
    "wasserstein",
    "chi2",
)
_OF_CATEGORIES: Final = ("chi2", "max_bin_z", "psi", "jensen_shannon", "hellinger", "total_variation")

REPORTED: Final[dict[Kind, tuple[str, ...]]] = {
    "numeric": _OF_ORDERED,
    "datetime": _OF_ORDERED,
    "categorical": _OF_CATEGORIES,
    "boolean": _OF_CATEGORIES,
}
"""Computed for every feature."""

ON_REQUEST: Final[dict[Kind, tuple[str, ...]]] = {
    kind: tuple(name for name, test in STATTESTS.items() if kind in test.kinds and name not in reported)
    for kind, reported in REPORTED.items()
}
"""Computed where a policy names them."""

DEFAULT_ALARM: Final[dict[Kind, tuple[str, ...]]] = {
    "numeric": ("anderson_darling", "weighted_supremum", "max_bin_z"),
    "datetime": ("anderson_darling", "weighted_supremum", "max_bin_z"),
    "categorical": ("chi2", "max_bin_z"),
    "boolean": ("chi2", "max_bin_z"),
}
"""The methods that decide unless the policy names others: together they see shifts, tails, spikes and holes."""


def table() -> str:
    """The table of `docs/stattests.md`, in Markdown."""
    lines = [
        "| name | what it measures | kinds | range | symmetric | monotone-invariant | when | source |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, test in STATTESTS.items():
        low, high = test.bounded
        reach = f"{low:g} and up" if high is None else f"{low:g} to {high:g}"
        kinds = ", ".join(kind for kind in REPORTED if kind in test.kinds)
        yes = ("no", "yes")
        when = "always" if any(name in names for names in REPORTED.values()) else "on request"
        lines.append(
            f"| `{name}` | {test.title}: {test.measures} | {kinds} | {reach} | {yes[test.symmetric]} "
            f"| {yes[test.monotone_invariant]} | {when} | {test.reference} |"
        )
    return "\n".join(lines) + "\n"
