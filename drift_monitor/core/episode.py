"""From verdicts to episodes: persistence, cooldown, reminders, maintenance, each with a named reason."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from drift_monitor.core.policy import Alarm, Maintenance
from drift_monitor.core.types import CheckResult, Episode, Lane, Outcome, Value


class Reason(StrEnum):
    """Why an episode did or did not change at a window, and whether a message follows."""

    QUIET = "quiet"  # nothing open, nothing failed
    PENDING = "pending"  # failed, but persistence is not reached yet
    OPENED = "opened"
    CONTINUES = "continues"
    ESCALATED = "escalated"  # worse than at its last message by half again; a message follows
    REMINDED = "reminded"
    RESOLVED = "resolved"
    COOLDOWN = "cooldown"  # would open, but one closed too recently
    MAINTENANCE = "maintenance"  # evaluated inside a maintenance window: no message, no new episode
    HELD = "held"  # the window could not be judged: the episode stays as it is


class Transition(Value):
    """What a window did to a lane.

    Attributes:
        episode: its state after the window; None when none is (or was) open.
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

    Time is the window's end, never a clock, so that a replay gives the same episodes.

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
    raise NotImplementedError
