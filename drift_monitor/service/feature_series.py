"""Per-feature series: names made safe, what is told of a feature, and a budget that the monitors share."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from drift_monitor.config.daemon import FeatureDetail, Metrics
from drift_monitor.core.types import CheckResult, FeatureResult
from drift_monitor.service.exposition import Labels, Sample
from drift_monitor.service.metrics import FEATURE_METRICS

EVERYTHING: tuple[FeatureDetail, ...] = ("quality", "p_values", "statistics")
_LONGEST_LABEL = 200  # characters
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_RATIOS = ("null_ratio", "out_of_range_ratio", "new_category_ratio")
_Value = tuple[str, Labels, float]  # metric, label values, value


def clean(text: str) -> str:
    r"""A name that is safe as a label value: of bounded length, without control characters and lone surrogates.

    Example:
        >>> clean("a\nb\ud800c") == "a\ufffdb\ufffdc"
        True
    """
    return _UNSAFE.sub("\ufffd", text[:_LONGEST_LABEL])


def unique(names: Iterable[str]) -> dict[str, str]:
    r"""Clean names, keeping different ones different, and the same whatever their order.

    Example:
        >>> list(unique(["b\x02", "b\x01", "a"]).values()) == ["a", "b\ufffd", "b\ufffd~2"]
        True
    """
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names):
        label, n = clean(name), 1
        while label in taken:
            n += 1
            label = f"{clean(name)}~{n}"
        taken.add(label)
        labels[name] = label
    return labels


def fair_shares(demands: Mapping[str, int], budget: int) -> dict[str, int]:
    """Share a budget so that nobody gets more than they ask for and nobody less than another unless they ask less.

    Example:
        >>> fair_shares({"a": 2, "b": 9, "c": 9}, 12)
        {'a': 2, 'b': 5, 'c': 5}
    """
    shares = {}
    for n, (name, demand) in enumerate(sorted(demands.items(), key=lambda item: item[1])):
        shares[name] = min(demand, budget // (len(demands) - n))
        budget -= shares[name]
    return shares


class Budgeted(NamedTuple):
    """The per-feature series of all monitors.

    Attributes:
        series: samples by metric; every per-feature metric is there.
        cut: how many the budget left out.
    """

    series: Mapping[str, list[Sample]]
    cut: int


class _Of(NamedTuple):
    """What is told of one monitor's features, and what it was made from."""

    judged: CheckResult
    metrics: Metrics
    features: list[list[_Value]]


class FeatureSeries:
    """Per-feature series, made anew only for monitors of which a window was judged since.

    Args:
        read: a whole result by its run; those at hand go without statistics.
    """

    def __init__(self, read: Callable[[int], CheckResult | None]) -> None:
        self._read = read
        self._of: dict[str, _Of] = {}
        self._last = Budgeted(_by_metric(()), 0)

    def within(self, metrics: Metrics, judged: Mapping[str, CheckResult], runs: Mapping[str, int]) -> Budgeted:
        """Series within the budget, which the monitors share fairly; the most drifted features come first.

        Args:
            metrics: which features, how much of each, and the budget.
            judged: the newest judged window of each monitor that is watched, without statistics.
            runs: its run.

        Returns:
            The same object as the last time when nothing changed.
        """
        before, self._of = self._of, {}
        for name, result in judged.items():
            known = before.get(name)
            if known is None or known.judged is not result or known.metrics != metrics:
                known = _Of(result, metrics, self._tell(name, result, runs.get(name), metrics))
            self._of[name] = known
        if before.keys() != self._of.keys() or any(before[name] is not of for name, of in self._of.items()):
            self._last = _cut({name: of.features for name, of in self._of.items()}, metrics.max_series)
        return self._last

    def _tell(self, name: str, result: CheckResult, run: int | None, metrics: Metrics) -> list[list[_Value]]:
        if {"p_values", "statistics"} & set(metrics.detail) and run is not None:
            whole = self._read(run)
            if whole is not None and whole.features:  # not when only its summary can be read
                result = whole
        return _told(name, result, _chosen(result.features, metrics), metrics.detail)


def all_of(monitor: str, result: CheckResult) -> Mapping[str, list[Sample]]:
    """Everything that can be told of every feature of a monitor, by metric."""
    told = _told(monitor, result, result.features, EVERYTHING)
    return _by_metric(value for feature in told for value in feature)


def _chosen(features: Sequence[FeatureResult], metrics: Metrics) -> Sequence[FeatureResult]:
    match metrics.features:
        case "all":
            return features
        case "drifted":
            return [f for f in features if f.drifted]
        case "top_k":
            return features[: metrics.top_k]
        case "none":
            return ()


def _told(
    monitor: str, result: CheckResult, features: Sequence[FeatureResult], detail: Sequence[FeatureDetail]
) -> list[list[_Value]]:
    labels = unique(f.name for f in result.features)  # of all: a label must not depend on what else is shown
    segments = unique({str(f.segment) for f in result.features if f.segment is not None})
    return [
        list(_feature((monitor, labels[f.name], segments[str(f.segment)] if f.segment else ""), f, detail))
        for f in features
    ]


def _feature(
    of: tuple[str, str, str], feature: FeatureResult, detail: Sequence[FeatureDetail]
) -> Iterator[_Value]:
    yield "feature_drift_detected", of, feature.drifted
    if feature.method is not None:
        method = clean(feature.method)
        if feature.score is not None:
            yield "feature_drift_score", (*of, method), feature.score
        if feature.threshold is not None:
            yield "feature_drift_score_threshold", (*of, method), feature.threshold
    if "quality" in detail:
        for what in _RATIOS:
            if (value := getattr(feature, what)) is not None:
                yield f"feature_{what}", of, value
    for method, found in feature.statistics.items():
        if "p_values" in detail and found.p_value is not None:
            yield "feature_drift_p_value", (*of, clean(method)), found.p_value
        if "statistics" in detail:
            yield "feature_drift_statistic", (*of, clean(method)), found.statistic


def _cut(wanted: Mapping[str, list[list[_Value]]], budget: int) -> Budgeted:
    """A feature is exported whole, and the less drifted ones after one that does not fit not at all."""
    shares = fair_shares({name: sum(map(len, features)) for name, features in wanted.items()}, budget)
    kept: list[_Value] = []
    cut = 0
    for name, features in wanted.items():
        left = shares[name]
        for values in features:
            if len(values) > left:
                left = 0
                cut += len(values)
                continue
            left -= len(values)
            kept += values
    return Budgeted(_by_metric(kept), cut)


def _by_metric(values: Iterable[_Value]) -> Mapping[str, list[Sample]]:
    series: dict[str, list[Sample]] = defaultdict(list, {spec.name: [] for spec in FEATURE_METRICS})
    for name, labels, value in values:
        series[name].append((labels, value))
    return series
