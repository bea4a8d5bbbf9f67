"""A run told to a person: why it was or was not an alert, how far from it, and what moved. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from drift_monitor.core.episode import Reason, step
from drift_monitor.core.policy import Alarm, Maintenance, format_duration
from drift_monitor.core.stattests import STATTESTS
from drift_monitor.core.types import CheckResult, Episode, FeatureResult, Lane, Outcome, QualityResult, Signal
from drift_monitor.core.verdict import CHANNELS, EFFECT
from drift_monitor.service.basis import LABELS
from drift_monitor.service.stored import StoredRun

LANES: Final[tuple[Lane, ...]] = ("drift", "quality")
NEAREST: Final = 3  # features that are told of when none drifted
_MOMENT: Final = timedelta(microseconds=1)
_RARE: Final = 1_000_000
_SHARES: Final = frozenset({"null_rate", "unseen", "out_of_range", "constant", "duplicates"})
_PLAIN: Final = {
    EFFECT: "the size of the change, against the smallest one that counts",
    "anderson_darling": "Anderson-Darling, how far the distribution as a whole has moved",
    "weighted_supremum": "weighted supremum, the widest gap between the two distributions, also in their tails",
    "max_bin_z": "largest z, one range of values or one category that grew or shrank",
    "chi2": "chi-square, how far the shares of all categories have moved",
}
_ALERTS: Final[dict[Lane, str]] = {"drift": "drift", "quality": "broken data"}


def share_of(score: float | None, threshold: float | None) -> float | None:
    """A score as a share of its threshold; None where there is none to compare with.

    Example:
        >>> share_of(3.0, 4.0), share_of(3.0, None), share_of(1.0, 0.0)
        (0.75, None, None)
    """
    return None if score is None or not threshold else score / threshold


def in_percent(share: float | None) -> str:
    """A share of a threshold for people.

    Example:
        >>> in_percent(0.671), in_percent(None), in_percent(12.34)
        ('67%', '-', '12.3 times')
    """
    if share is None:
        return "-"
    return f"{share:.0%}" if share < 10 else f"{share:.3g} times"


@dataclass(frozen=True)
class Account:
    """All that is told of a run.

    Attributes:
        result: of the check.
        run: its id; None for a check that is not stored.
        distance: how far from the threshold, in sentences.
        lanes: what the window did to each lane's episode, in words; empty for a check that is not stored.
        since: by feature to blame, since when, as the open episode has it.
        floors: by kind of feature, the smallest change that may count.
    """

    result: CheckResult
    run: int | None
    distance: tuple[str, ...]
    lanes: Mapping[Lane, tuple[Reason, str]]
    since: Mapping[str, str]
    floors: Mapping[str, float]

    def data(self) -> dict[str, Any]:
        """As JSON."""
        result = self.result
        return {
            "run": self.run,
            "monitor": result.monitor,
            "window": result.window.model_dump(mode="json"),
            "verdict": result.verdict,
            "reason": result.reason,
            "score": result.score,
            "threshold": result.threshold,
            "share_of_threshold": share_of(result.score, result.threshold),
            "distance": list(self.distance),
            "signals": [_signal_data(signal, result) for signal in result.signals],
            "features": [self._feature_data(feature) for feature in result.features],
            "quality": [
                {**q.model_dump(mode="json"), "share_of_limit": quality_share(q)}
                for q in (*result.failed_quality, *nearest_quality(result)[:1])
            ],
            "revised": result.revised and result.revised.model_dump(mode="json"),
            "performance": result.performance and result.performance.model_dump(mode="json"),
            "episodes": {lane: {"reason": reason, "text": text} for lane, (reason, text) in self.lanes.items()},
            "promise": {
                "text": result.promise,
                "basis": result.promise_basis,
                "label": LABELS[result.promise_basis],
                "false_alerts_per_month": result.false_alerts_per_month,
            },
        }

    def _feature_data(self, feature: FeatureResult) -> dict[str, Any]:
        kept = {"name", "kind", "role", "drifted", "method", "score", "threshold", "effect", "reason", "histogram"}
        return {
            **feature.model_dump(mode="json", include=kept),
            "share_of_threshold": share_of(feature.score, feature.threshold),
            "method_means": None if feature.method is None else meaning(feature.method),
            "window": window_of(feature.window, self.result),
            "effect_size": size_of(feature),
            "effect_floor": self.floors.get(feature.kind),
            "since": self.since.get(feature.name),
            "statistics": {name: found.statistic for name, found in feature.statistics.items()},
        }


def account(result: CheckResult, alarm: Alarm) -> Account:
    """Tell of a check that is not stored."""
    return Account(result, None, tuple(_distance(result, alarm)), {}, {}, _floors(alarm))


def account_of(stored: StoredRun, alarm: Alarm, maintenance: tuple[Maintenance, ...] = ()) -> Account:
    """Tell of a stored run.

    Args:
        stored: the run and what was before it.
        alarm: the policy of its monitor, as it is now.
        maintenance: stretches without messages.
    """
    result, told, by = stored.result, stored, ""
    if (first := result.revised) is not None:  # episodes follow what was said first
        told = stored.model_copy(
            update={"result": result.model_copy(update={"verdict": first.verdict, "score": first.score})}
        )
        by = f", as it was judged first: {first.verdict} with {first.rows:,} rows"
    lanes, since = {}, {}
    for lane in LANES:
        reason, episode = what_happened(lane, told, alarm, maintenance)
        lanes[lane] = (reason, _lane_words(lane, reason, episode, told, alarm) + by)
        if episode is not None and lane == "drift":
            end = result.window.end
            since = {name: f"{t:%Y-%m-%dT%H:%MZ}" for name, t in episode.since.items() if t <= end}
    return Account(result, stored.run, tuple(_distance(result, alarm)), lanes, since, _floors(alarm))


def _floors(alarm: Alarm) -> dict[str, float]:
    number, share = alarm.effect_floor_ks, alarm.effect_floor_share
    return {"numeric": number, "datetime": number, "categorical": share, "boolean": share}


# -- the episode ---------------------------------------------------------------------------------------


def what_happened(
    lane: Lane, stored: StoredRun, alarm: Alarm, maintenance: tuple[Maintenance, ...] = ()
) -> tuple[Reason, Episode | None]:
    """What a window did to a lane, and the episode it belongs to, if any.

    The store keeps an episode as it is now; it is put back to what it was before the window, and the window is
    applied again. Whether a further message was due inside an open episode cannot be told afterwards.
    """
    end = stored.result.window.end
    mine = [e for e in stored.episodes if e.lane == lane]
    newest = mine[0] if mine else None
    if newest is not None and newest.opened == end:
        return Reason.OPENED, newest
    if newest is not None and newest.closed == end:
        return Reason.RESOLVED, newest
    before = None
    was_open = newest is not None and (newest.closed is None or newest.closed > end)
    if newest is not None:
        told = tuple(feature.name for feature in stored.result.features)
        changes = {"updated": end - _MOMENT, "reminded": end, "worst": math.inf, "told": (*newest.told, *told)}
        changes["untold"] = False
        before = newest.model_copy(update=changes | ({"closed": None} if was_open else {}))
    reason = step(lane, before, stored.history, stored.result, alarm, maintenance).reason
    if was_open and reason in (Reason.ESCALATED, Reason.RESOLVED):
        reason = Reason.CONTINUES  # it is known to have gone on
    return reason, newest if was_open else None


def _lane_words(lane: Lane, reason: Reason, episode: Episode | None, stored: StoredRun, alarm: Alarm) -> str:
    failed = Outcome.DRIFT if lane == "drift" else Outcome.BROKEN
    hits, of = alarm.persistence.hits, alarm.persistence.of
    recent = [stored.result.verdict, *stored.history[: of - 1]].count(failed)
    opened = f"{episode.opened:%Y-%m-%d %H:%M}Z" if episode is not None else ""
    what = _ALERTS[lane]
    match reason:
        case Reason.OPENED if episode is None:
            text = (
                "by the settings of now, and what is said now of windows that were judged again, an episode would "
                "open here, but the store has none"
            )
        case Reason.OPENED:
            text = (
                f"this window opened an episode, which is one alert: {recent} of the last {of} failed, {hits} must"
            )
        case Reason.CONTINUES | Reason.ESCALATED | Reason.REMINDED:
            text = f"the window belongs to the episode that is open since {opened}; that is one alert, not many"
        case Reason.RESOLVED:
            text = f"this window closed the episode that was open since {opened}"
        case Reason.PENDING:
            text = (
                f"the window failed, but no alert follows yet: {recent} of the last {of} failed, and {hits} must "
                "(alarm.persistence)"
            )
        case Reason.COOLDOWN:
            text = (
                f"the window failed, but an episode closed less than {format_duration(alarm.cooldown)} before "
                "(alarm.cooldown), so none opens"
            )
        case Reason.MAINTENANCE:
            text = "the window failed inside a maintenance window: nobody is told and no episode opens"
        case Reason.HELD if episode is not None:
            text = f"the window says nothing about {what}, so the episode that is open since {opened} stays open"
        case Reason.HELD:
            text = f"the window says nothing about {what}, and no episode is open"
        case _:
            text = f"no episode of {what} is open, and this window opens none"
    return text


# -- how far -------------------------------------------------------------------------------------------


def _distance(result: CheckResult, alarm: Alarm) -> Iterator[str]:
    """How far the score is from the threshold, and what would have had to happen."""
    score, limit, share = result.score, result.threshold, share_of(result.score, result.threshold)
    if score is None or limit is None or share is None:
        yield "There is no score: " + ("nothing was judged." if result.failure is None else "the check failed.")
        return
    calibrated = bool(result.signals)
    over = score > limit
    yield (
        f"The score {score:.3g} is {in_percent(share)} of the threshold {limit:.3g}; drift is a score above it."
        + (" The data is broken, so drift is not judged." if result.verdict is Outcome.BROKEN else "")
    )
    if calibrated:
        yield (
            "A score is 0 for whatever the reference's own days show typically, and each point more is met about "
            "2.7 times as rarely."
        )
        if over:
            yield "It would have been quiet had every signal stayed under the threshold."
        else:
            than = "this one" if score > 0 else "a typical one"
            yield f"{_nearest_signal(result)} A window {_rarer(limit - score)} as {than} would have been drift."
    else:
        yield "The score is the largest share that a feature reaches of its own threshold."
    if alarm.drifted_features > 1 or alarm.drifted_share:
        needed = max(alarm.drifted_features, math.ceil((alarm.drifted_share or 0) * len(result.features) - 1e-9))
        yield f"{needed} features must be over the threshold for drift; {len(result.drifted)} are."


def _nearest_signal(result: CheckResult) -> str:
    top = max(result.signals, key=lambda s: s.score)
    if top.score <= 0:
        return "No signal is beyond what is typical."
    first = next((f.name for f in sorted(result.features, key=lambda f: -(f.score or 0.0))), "")
    who = f", {first}" if top.channel == "features" and first else ""
    return f"Nearest is `{top.channel}` ({CHANNELS.get(top.channel, 'a further signal')}{who})."


def _rarer(points: float) -> str:
    times = math.exp(min(points, 50.0))
    return f"about {times:,.0f} times as rare" if times < _RARE else "over a million times as rare"


# -- features, signals, quality ------------------------------------------------------------------------


def meaning(method: str) -> str:
    """A method in words.

    Example:
        >>> meaning("ks")
        'Kolmogorov-Smirnov: largest difference of the distribution functions'
    """
    if method in _PLAIN:
        return _PLAIN[method]
    test = STATTESTS.get(method)
    return "a test of Evidently" if test is None else f"{test.title}: {test.measures}"


def window_of(seconds: int | None, result: CheckResult) -> str:
    """How long the window is in which something was seen.

    Example:
        >>> format_duration(timedelta(seconds=3600))
        '1h'
    """
    return format_duration(timedelta(seconds=seconds) if seconds else result.window.length)


def size_of(feature: FeatureResult) -> float | None:
    """The size of the change of a feature, on the scale of the floors; None where it was not judged."""
    found = feature.statistics.get(EFFECT)
    return None if found is None else found.statistic


def size_words(feature: FeatureResult) -> str:
    """The size of a change in words; empty where it is not known."""
    size = size_of(feature)
    if size is None:
        return ""
    rows = "the rows" if feature.segment is None else "the segment's rows"
    if feature.kind in ("numeric", "datetime"):
        return f"at the value where both differ most, {size:.1%} of {rows} have crossed to the other side"
    return f"the share of one category changed by {size:.1%} of {rows}"


def told_features(result: CheckResult) -> tuple[FeatureResult, ...]:
    """Those that drifted; where none did, those that came nearest."""
    if result.drifted:
        return result.drifted
    judged = [f for f in result.features if f.score]
    return tuple(sorted(judged, key=lambda f: -(share_of(f.score, f.threshold) or 0.0))[:NEAREST])


def signal_words(signal: Signal) -> str:
    """What a signal means, and what moved where that is known."""
    return "; ".join(text for text in (CHANNELS.get(signal.channel, ""), signal.detail) if text)


def _signal_data(signal: Signal, result: CheckResult) -> dict[str, Any]:
    return {
        **signal.model_dump(mode="json", exclude={"window"}),
        "window": None if not signal.window else window_of(signal.window, result),
        "share_of_threshold": share_of(signal.score, result.threshold),
        "means": CHANNELS.get(signal.channel, ""),
    }


def quality_share(check: QualityResult) -> float | None:
    """An expectation's value as a share of its limit; None where it has no number."""
    if check.value is None or check.threshold is None:
        return None
    if not check.threshold:
        return 0.0 if not check.value else None
    return check.value / check.threshold


def nearest_quality(result: CheckResult) -> list[QualityResult]:
    """The expectations that hold, the nearest to its limit first.

    Those that are over it and left to the drift lane are not among them, nor shares whose limit is all rows.
    """
    held = [
        (share, check)
        for check in result.quality
        if not check.failed
        and (share := quality_share(check)) is not None
        and not (check.check in _SHARES and (check.threshold or 0.0) >= 1)
    ]
    return [check for share, check in sorted(held, key=lambda pair: -pair[0]) if share <= 1]
