"""Numbers and policy -> ok, drift, broken, no_data or cannot_judge, with the reason and the features to blame.

A feature has drifted when its score is over its threshold, and a monitor likewise; every threshold is reported
beside its score. Two things must hold where the user sets no threshold: the change is *significant* (a deciding
method is over its critical value at the actual sizes, shared out over features and methods) and it *matters* (the
effect is over a floor). The smaller of the two ratios is the feature's, and the reported pair says which it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from drift_monitor.core.alarm import RunScore
from drift_monitor.core.policy import Alarm
from drift_monitor.core.profile import (
    CategoricalProfile,
    FeatureProfile,
    NumericProfile,
    NumericSpec,
    Profile,
    Spec,
)
from drift_monitor.core.promise import promise
from drift_monitor.core.stattests import DEFAULT_ALARM, REPORTED, STATTESTS
from drift_monitor.core.stattests.batch import Batch, parts
from drift_monitor.core.stattests.effects import effect_size, effect_sizes, effects, histogram
from drift_monitor.core.types import Basis, FeatureResult, Outcome, QualityResult, Signal, StatResult

OUTSIDE: Final = "evidently:"
"""Methods of this prefix are computed by the caller on row samples; they alarm only on a threshold of the user."""
EFFECT: Final = "effect"
"""The method named when the effect against its floor decides, not a significance."""
RATIO_LIMIT: Final = 1e6
"""Score/threshold is cut here: beyond it a ratio says nothing more, and it must stay finite."""
CHANNELS: Final = {
    "features": "a single feature moved",
    "together": "all features together moved",
    "pairs": "features move together in another way",
    "rows": "a classifier tells the window's rows from the reference's",
}
"""What it means when a channel is over the threshold."""
_WHOLE_WINDOW: Final = frozenset({"schema", "volume", "freshness"})


@dataclass(frozen=True)
class Judgement:
    """The verdict on a window.

    Attributes:
        score, threshold: of the monitor: the k-th largest score/threshold among its features, against 1, where k
            is how many must drift. None when not judged.
        features: in order of blame.
        basis, budget: what the promise rests on, and how many false alerts a month it is about.
        signals: what the score of a calibrated alarm is the largest of.
    """

    outcome: Outcome
    reason: str
    promise: str
    score: float | None = None
    threshold: float | None = None
    features: tuple[FeatureResult, ...] = ()
    basis: Basis = "none"
    budget: float | None = None
    signals: tuple[Signal, ...] = ()


class _Pair(NamedTuple):
    """A score and what it has to exceed."""

    method: str
    score: float
    threshold: float

    @property
    def ratio(self) -> float:
        """score/threshold, at most `RATIO_LIMIT`; over 1 exactly when score > threshold."""
        ratio = min(self.score / self.threshold, RATIO_LIMIT) if self.threshold > 0 else RATIO_LIMIT
        if self.score > self.threshold:
            return max(ratio, math.nextafter(1.0, 2.0))
        return min(ratio, 1.0)


def judge(
    specs: Sequence[Spec],
    reference: Profile,
    current: Profile,
    quality: Sequence[QualityResult],
    alarm: Alarm,
    *,
    extra: Mapping[str, Mapping[str, StatResult]] | None = None,
    usual: Mapping[str, float] | None = None,
    scored: RunScore | None = None,
    why_not: str = "thresholds are not calibrated",
    details: Mapping[str, str] | None = None,
    brief: bool = False,
) -> Judgement:
    """Judge a window.

    In this order: no rows are `no_data`; failed quality is `broken` (with the drift statistics still reported);
    too few rows, or too few features with enough of them, are `cannot_judge`; else `drift` or `ok`. With fewer
    rows than `alarm.min_rows` only schema, volume and freshness make a window broken: rates of so few rows may be
    those of an hour, not of a window.

    Args:
        specs: one a feature.
        reference: the profile of the reference.
        current: the profile of the window.
        quality: what `assess` found.
        alarm: the policy; it names only features and methods that are there (see `misfits`).
        extra: results of `evidently:...` methods, feature -> method -> result (see `outside_methods`).
        usual: the effect that a feature shows among the reference's own windows (see `usual_effects`); orders
            the blame and nothing else.
        scored: the run on the scales of a calibration, which then decides; else the critical values do.
        why_not: why there is none, in words.
        details: what moved, in words, by channel of `scored` that is no single feature.
        brief: only what decides: no statistics beside it, no histograms.
    """
    threshold = scored.threshold if scored is not None else None
    promised = promise(threshold, alarm, why_not)
    if not current.rows:
        return Judgement(Outcome.NO_DATA, "the window has no rows", promised)

    judged = [s for s in specs if _unjudged(current.features.get(s.name), alarm) is None]
    tests = sum(t is None for s in judged for t in deciding_methods(s, alarm).values())
    alpha = alarm.alpha / max(tests, 1)
    calibrated = threshold is not None and threshold.value is not None
    measured = _measure(judged, reference, current, alarm, alpha, calibrated=calibrated, brief=brief)
    found = [
        _feature(
            s, reference, current, alarm, measured.get(s.name), (extra or {}).get(s.name, {}), scored, brief=brief
        )
        for s in specs
    ]
    ratios = sorted((_ratio(f) for f in found if f.score is not None), reverse=True)
    needed = max(alarm.drifted_features, math.ceil((alarm.drifted_share or 0) * len(ratios) - 1e-9))
    score = ratios[needed - 1] if needed <= len(ratios) else None
    limit = 1.0
    signals: tuple[Signal, ...] = ()
    if scored is not None and scored.threshold.value is not None:
        score, limit = scored.score, scored.threshold.value
        signals = _signals(scored, limit, details or {})
        usual = {}  # what is usual is in the score
    features = tuple(sorted(found, key=lambda f: _blame(f, usual or {})))

    enough = current.rows >= alarm.min_rows
    failed = [q for q in quality if q.failed and (enough or q.check in _WHOLE_WINDOW)]
    if failed:
        outcome, reason = Outcome.BROKEN, _broken(failed)
    elif not enough:
        outcome, reason = (
            Outcome.CANNOT_JUDGE,
            f"insufficient data: {current.rows} rows, {alarm.min_rows} are needed",
        )
    elif score is None:
        outcome, reason = Outcome.CANNOT_JUDGE, _too_few_features(features, len(ratios), needed)
    else:
        outcome = Outcome.DRIFT if score > limit else Outcome.OK
        reason = _moved(features, len(ratios), needed, [s for s in signals if s.over and s.channel != "features"])
    return Judgement(
        outcome,
        reason,
        promised,
        score,
        None if score is None else limit,
        features,
        "none" if threshold is None else threshold.basis,
        threshold.budget if threshold is not None and threshold.value is not None else None,
        signals,
    )


def _signals(scored: RunScore, limit: float, details: Mapping[str, str]) -> tuple[Signal, ...]:
    """The channels, the largest score first."""
    found = []
    for name, score in scored.channels.items():
        kind, _, seconds = name.partition("/")
        detail = details.get(name, details.get(kind, ""))
        found.append(
            Signal(channel=kind, window=int(seconds or 0), score=score, over=score > limit, detail=detail)
        )
    return tuple(sorted(found, key=lambda s: (-s.score, s.channel, s.window)))


def usual_effects(specs: Sequence[Spec], reference: Profile, windows: Iterable[Profile]) -> dict[str, float]:
    """The largest effect that each feature shows in the reference's own windows.

    Temperature or weekday differ from the quarter's mean every day; only a larger change is news.
    """
    usual = {spec.name: 0.0 for spec in specs}
    for window in windows:
        for spec in specs:
            profile = window.features.get(spec.name)
            if profile is not None and profile.n:
                size = effect_size(spec, reference.features[spec.name], profile)
                usual[spec.name] = max(usual[spec.name], size)
    return usual


def outside_methods(specs: Sequence[Spec], alarm: Alarm) -> dict[str, tuple[str, ...]]:
    """The `evidently:...` methods that the policy asks for, by feature, whether they are for its kind or not."""
    return {
        spec.name: tuple(
            dict.fromkeys(
                m
                for m in (
                    *alarm.methods.get(spec.kind, ()),
                    *alarm.thresholds,
                    *alarm.features.get(spec.name, ()),
                    *alarm.report,
                )
                if m.startswith(OUTSIDE)
            )
        )
        for spec in specs
    }


# -- one feature ---------------------------------------------------------------------------------------


def deciding_methods(spec: Spec, alarm: Alarm) -> dict[str, float | None]:
    """The methods that decide, each with its fixed threshold, or None for the size-aware default."""
    methods: dict[str, float | None] = dict.fromkeys(alarm.methods.get(spec.kind, DEFAULT_ALARM[spec.kind]))
    methods |= {m: t for m, t in alarm.thresholds.items() if _applies(m, spec)}
    methods |= alarm.features.get(spec.name, {})
    return methods


def _applies(method: str, spec: Spec) -> bool:
    return method.startswith(OUTSIDE) or spec.kind in STATTESTS[method].kinds


def _unjudged(profile: FeatureProfile | None, alarm: Alarm) -> str | None:
    if profile is None:
        return "not judged: the column is missing or cannot be read"
    if not profile.rows:
        return "not judged: the window has no row of the segment"
    if profile.n < alarm.min_rows:
        return f"not judged: only {profile.n} of {profile.rows} rows have a value, {alarm.min_rows} are needed"
    return None


class _Asked(NamedTuple):
    """What is computed of a feature.

    Attributes:
        numeric: whether it has cells of numbers, not of categories.
        names: of the methods.
        deciding: those that decide, with their fixed thresholds; None for the critical value.
    """

    numeric: bool
    names: tuple[str, ...]
    deciding: tuple[tuple[str, float | None], ...]

    @classmethod
    def of(cls, spec: Spec, alarm: Alarm, *, calibrated: bool, brief: bool) -> _Asked:
        deciding = deciding_methods(spec, alarm)
        shown = () if brief else (*REPORTED[spec.kind], *(m for m in alarm.report if _applies(m, spec)))
        decide = () if brief and calibrated else deciding
        names = [m for m in dict.fromkeys((*shown, *decide)) if not m.startswith(OUTSIDE)]
        return cls(isinstance(spec, NumericSpec), tuple(names), tuple(deciding.items()))


@dataclass(frozen=True)
class _Measured:
    """The numbers of a feature that is judged.

    Attributes:
        statistics: by method; `EFFECT` is the last.
        deciding: the methods that decide, whether or not they have an answer.
        limits: the critical value of those without a threshold of the user; {} where a calibration decides.
        effect: what moved, in words.
    """

    statistics: dict[str, StatResult]
    deciding: Mapping[str, float | None]
    limits: dict[str, float]
    effect: str


def _measure(
    specs: Sequence[Spec],
    reference: Profile,
    current: Profile,
    alarm: Alarm,
    alpha: float,
    *,
    calibrated: bool,
    brief: bool,
) -> dict[str, _Measured]:
    """The numbers of some features, by name; many features at a time."""
    alike: dict[_Asked, list[Spec]] = {}
    for spec in specs:
        alike.setdefault(_Asked.of(spec, alarm, calibrated=calibrated, brief=brief), []).append(spec)
    found: dict[str, _Measured] = {}
    for asked, members in alike.items():
        deciding = dict(asked.deciding)
        undecided = [] if calibrated else [m for m, t in deciding.items() if t is None and m in asked.names]
        for part in parts(members):
            batch = Batch(part, *([side.features[s.name] for s in part] for side in (reference, current)))
            results = {m: STATTESTS[m].compute(batch) for m in asked.names}
            limits = {m: STATTESTS[m].limits(batch, alpha).tolist() for m in undecided}
            sizes = effect_sizes(batch).tolist()
            for i, (spec, size, words) in enumerate(zip(part, sizes, effects(batch), strict=True)):
                statistics = {m: answer for m, answers in results.items() if (answer := answers[i]) is not None}
                statistics[EFFECT] = StatResult(statistic=size)
                found[spec.name] = _Measured(statistics, deciding, {m: x[i] for m, x in limits.items()}, words)
    return found


def _feature(
    spec: Spec,
    reference: Profile,
    current: Profile,
    alarm: Alarm,
    measured: _Measured | None,
    extra: Mapping[str, StatResult],
    scored: RunScore | None,
    *,
    brief: bool,
) -> FeatureResult:
    profile = current.features.get(spec.name)
    known: dict[str, Any] = {
        "name": spec.name,
        "column": spec.column,
        "segment": spec.segment,
        "kind": spec.kind,
        "role": spec.role,
        "drifted": False,
    }
    if profile is None:
        return FeatureResult(**known, reason=_unjudged(profile, alarm))
    known |= _ratios(spec, profile)
    if not brief:
        known["histogram"] = histogram(spec, reference.features[spec.name], profile)
    if measured is None:
        return FeatureResult(**known, reason=_unjudged(profile, alarm))

    statistics = dict(measured.statistics)
    size = statistics.pop(EFFECT)
    statistics |= {**dict(sorted(extra.items())), EFFECT: size}
    known |= {"statistics": statistics, "effect": measured.effect}
    pair: _Pair | None
    if scored is not None and scored.threshold.value is not None:
        pair, known["window"] = _calibrated(spec, alarm, scored)
    else:
        pair = _decisive(measured, statistics, _floor(spec, alarm))
    if pair is None:
        names = ", ".join(measured.deciding) or "no method"
        known["reason"] = f"not judged: none of {names} has an answer on this data"
    else:
        drifted = pair.score > pair.threshold
        known |= {"method": pair.method, "score": pair.score, "threshold": pair.threshold, "drifted": drifted}
        if drifted:
            known["reason"] = f"{pair.method} {pair.score:.3g} is over {pair.threshold:.3g}"
    return FeatureResult(**known)


def _floor(spec: Spec, alarm: Alarm) -> float:
    return alarm.effect_floor_ks if isinstance(spec, NumericSpec) else alarm.effect_floor_share


def _calibrated(spec: Spec, alarm: Alarm, scored: RunScore) -> tuple[_Pair | None, int | None]:
    """The feature's score and the monitor's threshold, and the window it was seen in.

    Where the score is over the threshold but the effect is too small to count, it is the effect and its floor.
    """
    found, limit = scored.features.get(spec.name), scored.threshold.value
    if found is None or limit is None:
        return None, None
    seconds = None if scored.threshold.basis == "independent_rows" else found.seconds
    if not found.counts and found.score > limit:
        return _Pair(EFFECT, found.effect, _floor(spec, alarm)), seconds
    return _Pair(found.method, found.score, limit), seconds


def _decisive(measured: _Measured, statistics: Mapping[str, StatResult], floor: float) -> _Pair | None:
    """The pair with the largest ratio, where a significance counts no more than the effect does against its floor.

    A fixed threshold is the user's own decision about what matters, so the floor does not apply to it.
    """
    fixed = [
        _Pair(m, statistics[m].statistic, t)
        for m, t in measured.deciding.items()
        if t is not None and m in statistics
    ]
    significant = [
        _Pair(m, statistics[m].statistic, limit)
        for m, limit in measured.limits.items()
        if m in statistics and math.isfinite(limit)
    ]
    if significant:
        best = max(significant, key=lambda p: p.ratio)
        matters = _Pair(EFFECT, statistics[EFFECT].statistic, floor)
        fixed.append(min(best, matters, key=lambda p: p.ratio) if floor else best)
    return max(fixed, key=lambda p: p.ratio, default=None)


def _ratios(spec: Spec, profile: FeatureProfile) -> dict[str, float]:
    ratios = {"null_ratio": profile.missing / profile.rows} if profile.rows else {}
    match profile:
        case NumericProfile(n=n) if n:
            ratios["out_of_range_ratio"] = profile.out_of_range / n
        case CategoricalProfile(n=n) if n and not isinstance(spec, NumericSpec) and spec.complete:
            ratios["new_category_ratio"] = profile.other / n
    return ratios


# -- the whole monitor ---------------------------------------------------------------------------------


def _ratio(feature: FeatureResult) -> float:
    if feature.score is None or feature.threshold is None:
        return 0.0
    return _Pair("", feature.score, feature.threshold).ratio


def _blame(feature: FeatureResult, usual: Mapping[str, float]) -> tuple[bool, bool, float, str]:
    """Sort key: drifted first, then judged, then by how unusual the effect is, then by name.

    Not by significance: with thousands of rows every statistic's ratio grows with the square root of n, and each
    at its own pace. And not by the bare effect: a day's temperature is further from its quarter than km are from
    miles. What tells the cause is the effect against the largest that the feature shows in the reference's own
    windows; where those are not known, score/threshold has to do, which the effect's floor keeps comparable.
    """
    size = feature.statistics[EFFECT].statistic if EFFECT in feature.statistics else 0.0
    known = usual.get(feature.name, 0.0)
    return not feature.drifted, feature.score is None, -(size / known if known else _ratio(feature)), feature.name


def _broken(failed: Sequence[QualityResult]) -> str:
    rest = len(failed) - 1
    return failed[0].message + (f" (and {rest} more quality check{'s' * (rest > 1)} failed)" if rest else "")


def _too_few_features(features: Sequence[FeatureResult], judged: int, needed: int) -> str:
    missed = next(f for f in features if f.score is None)
    return (
        f"{judged} of {len(features)} features could be judged and {needed} must drift; "
        f"{missed.name} was {missed.reason}"
    )


def _moved(features: Sequence[FeatureResult], judged: int, needed: int, signals: Sequence[Signal]) -> str:
    drifted = [f for f in features if f.drifted]
    if not drifted and signals:
        return (
            f"no feature drifted by itself; {CHANNELS[signals[0].channel]}: {signals[0].detail or 'see signals'}"
        )
    if not drifted:
        first = max((f for f in features if f.score is not None), key=_ratio)
        if not _ratio(first):
            return f"none of {judged} features drifted; none stands out more than is typical"
        return (
            f"none of {judged} features drifted; nearest is {first.name} at {_ratio(first):.2f} of its threshold"
        )
    count = f"{len(drifted)} of {judged} features drifted"
    if len(drifted) < needed:
        count += f", {needed} are needed for an alarm"
    return f"{count}; first {drifted[0].name}: {drifted[0].effect}"
