"""From verdicts to episodes: persistence, cooldown, reminders, maintenance, each with a named reason.

An alert is an episode, not a run: it opens once, speaks when it opens, grows, lasts or ends, and is silent in
between. `docs/verdict.md` tells the rules with an example.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from enum import StrEnum

from drift_monitor.core.policy import Alarm, Maintenance
from drift_monitor.core.types import CheckResult, Episode, Lane, Outcome, Value, Window

GROWTH = 1.5
"""An open episode speaks again when it is worse than at its last message by this factor."""

_NAMESPACE = uuid.UUID("8d5d7d52-3f0e-5b7a-9c55-0f6a3c1f6d1b")
_FAILING = {"drift": Outcome.DRIFT, "quality": Outcome.BROKEN}
# A broken window says nothing about drift, so it holds the drift lane; a drifted window passed its quality checks.
_CLEAR = {"drift": {Outcome.OK}, "quality": {Outcome.OK, Outcome.DRIFT}}
_TOPIC = {"drift": "drift", "quality": "data_quality"}


class Reason(StrEnum):
    """Why an episode did or did not change at a window, and whether a message follows."""

    QUIET = "quiet"  # nothing open, nothing failed
    PENDING = "pending"  # failed, but persistence is not reached yet
    OPENED = "opened"
    CONTINUES = "continues"
    ESCALATED = (
        "escalated"  # half again as bad as told, or a feature leads that no message named; a message follows
    )
    REMINDED = "reminded"
    RESOLVED = "resolved"
    COOLDOWN = "cooldown"  # would open, but one closed too recently
    MAINTENANCE = "maintenance"  # evaluated inside a maintenance window: no message, no new episode
    HELD = "held"  # the window could not be judged: the episode stays as it is
    LATE = "late"  # no newer than the last window that the episode saw: changes nothing


class Transition(Value):
    """What a window did to a lane.

    Attributes:
        episode: its state after the window; None when none is open and none was closed by it.
        changed: whether `episode` must be stored.
        message: the CloudEvents type to send, or None.
    """

    lane: Lane
    reason: Reason
    episode: Episode | None
    changed: bool
    message: str | None = None


def step(
    lane: Lane,
    previous: Episode | None,
    history: Sequence[Outcome],
    result: CheckResult,
    alarm: Alarm,
    maintenance: Sequence[Maintenance] = (),
) -> Transition:
    """Apply one window's verdict to a lane.

    Time is the window's end, never a clock, so that a replay gives the same episodes. A window that was not
    judged takes its place among the last `persistence.of` but counts neither as failed nor as clear. An open
    episode that nobody has heard of is told as opened at the next window that fails, and ends in silence.

    Args:
        lane: `drift` looks at verdict `drift`, `quality` at `broken`.
        previous: the newest episode of the lane, open or closed; None when there was none.
        history: verdicts of the windows before this one, newest first, at least `persistence.of - 1` long
            where there are that many.
        result: this window's check.
        alarm: persistence, cooldown, reminders.
        maintenance: stretches without messages.

    Returns:
        The transition; `message` is set for opened, escalated, reminded and resolved.
    """
    end = result.window.end
    current = previous if previous is not None and previous.closed is None else None
    reason = _unmoved(lane, previous, result, maintenance)
    if reason is None:
        recent = [result.verdict, *history[: alarm.persistence.of - 1]]
        persistent = recent.count(_FAILING[lane]) >= alarm.persistence.hits
        if current is not None:
            return _continue(lane, current, result, alarm, persistent=persistent)
        if not persistent:
            reason = Reason.PENDING
        elif previous is not None and previous.closed is not None and end < previous.closed + alarm.cooldown:
            reason = Reason.COOLDOWN
    if reason is not None:
        return Transition(lane=lane, reason=reason, episode=current, changed=False)
    opened = Episode(
        id=episode_id(result.monitor, lane, result.window),
        monitor=result.monitor,
        lane=lane,
        opened=end,
        updated=end,
        reminded=end,
        worst=severity(lane, result),
        features=blamed(lane, result),
        told=blamed(lane, result),
        since=dict.fromkeys(blamed(lane, result), end),
    )
    return _speak(Reason.OPENED, opened)


def episode_id(monitor: str, lane: Lane, window: Window) -> str:
    """The id of the episode that this window opens: the same in every replay (UUID version 5, as hex)."""
    return uuid.uuid5(_NAMESPACE, f"{monitor}\n{lane}\n{window.end.isoformat()}").hex


def severity(lane: Lane, result: CheckResult) -> float:
    """How bad a window is, for escalation.

    Drift: score/threshold. Quality: how many expectations failed, since their ratios do not compare (5% nulls
    where 0.1% are expected is not worse than 60% where 20% are).
    """
    if lane == "quality":
        return float(len(result.failed_quality))
    if result.score is None or not result.threshold:
        return 0.0
    return result.score / result.threshold


def blamed(lane: Lane, result: CheckResult) -> tuple[str, ...]:
    """The features at fault, worst first.

    Where it is none alone, the channel is named; a failed check of the whole window goes by the check's name.
    """
    if lane == "drift":
        drifted = tuple(f.name for f in result.drifted)
        return drifted or tuple(signal.channel for signal in result.signals if signal.over)
    return tuple(dict.fromkeys(q.feature or q.check for q in result.failed_quality))


def _unmoved(
    lane: Lane, previous: Episode | None, result: CheckResult, maintenance: Sequence[Maintenance]
) -> Reason | None:
    """Why a window changes nothing, whatever the persistence; None when it may."""
    if previous is not None and result.window.end <= previous.updated:
        return Reason.LATE
    failing = result.verdict is _FAILING[lane]
    if not failing and result.verdict not in _CLEAR[lane]:
        return Reason.HELD
    if not failing and (previous is None or previous.closed is not None):
        return Reason.QUIET
    if any(result.window.start < m.end and m.start < result.window.end for m in maintenance):
        return Reason.MAINTENANCE
    return None


def _continue(lane: Lane, episode: Episode, result: CheckResult, alarm: Alarm, *, persistent: bool) -> Transition:
    end = result.window.end
    failing = result.verdict is _FAILING[lane]
    if not failing and not persistent:
        resolved = _speak(Reason.RESOLVED, episode.model_copy(update={"updated": end, "closed": end}))
        return resolved.model_copy(update={"message": None}) if episode.untold else resolved
    now = severity(lane, result) if failing else 0.0
    features = blamed(lane, result) if failing else episode.features
    since = dict.fromkeys(features, end) | {name: t for name, t in episode.since.items() if name in features}
    seen = episode.model_copy(update={"updated": end, "features": features, "since": since})
    told = seen.model_copy(
        update={
            "reminded": end,
            "worst": max(now, episode.worst),
            "told": tuple(dict.fromkeys((*episode.told, *features))),
        }
    )
    if failing and episode.untold:
        return _speak(Reason.OPENED, told.model_copy(update={"untold": False, "worst": now, "told": features}))
    new_lead = failing and bool(features) and features[0] not in episode.told
    if now > GROWTH * episode.worst or new_lead:
        return _speak(Reason.ESCALATED, told)
    if alarm.remind is not None and end - episode.reminded >= alarm.remind:
        return _speak(Reason.REMINDED, told)
    return Transition(lane=lane, reason=Reason.CONTINUES, episode=seen, changed=True)


def _speak(reason: Reason, episode: Episode) -> Transition:
    message = f"drift_monitor.{_TOPIC[episode.lane]}.{reason.value}"
    return Transition(lane=episode.lane, reason=reason, episode=episode, changed=True, message=message)
