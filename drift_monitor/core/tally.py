"""What the checks of a stretch of time would have led to: alerts, and the days that were spent in alarm."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final, Literal

from pydantic import Field

from drift_monitor.core.episode import Reason, step
from drift_monitor.core.policy import Alarm, Maintenance
from drift_monitor.core.rivals import RIVALS
from drift_monitor.core.types import (
    Basis,
    CheckResult,
    Episode,
    Finite,
    Lane,
    Outcome,
    ReferenceId,
    UtcDatetime,
    Value,
    Window,
)

LANES: Final[tuple[Lane, ...]] = ("drift", "quality")
MONTH: Final = 30
"""Days."""
JUDGED: Final = (Outcome.OK, Outcome.DRIFT, Outcome.BROKEN)
Mark = Literal["quiet", "drift", "broken", "both", "cannot_judge", "no_data"]
_MOMENT: Final = timedelta(microseconds=1)


class Alert(Value):
    """One episode.

    Attributes:
        opened: end of the window that opened it.
        closed: end of the window that closed it; None when it was still open at the end.
        features: those that its messages would have named, in that order.
        reason: of the verdict that opened it.
        score, threshold: of the monitor, or of the first quality check that failed, when it opened.
    """

    lane: Lane
    opened: UtcDatetime
    closed: UtcDatetime | None = None
    features: tuple[str, ...]
    reason: str
    score: Finite | None
    threshold: Finite | None


class RivalTally(Value):
    """What one of the usual rules would have done, judged once a day.

    Attributes:
        title: the rule in words.
        alert_days: on which it alarmed.
        alerts: stretches of such days that follow each other.
        per_month: alerts in 30 days.
        alert_days_per_month: days in 30.
    """

    title: str
    alert_days: tuple[date, ...]
    alerts: int
    per_month: Finite
    alert_days_per_month: Finite


class Backtest(Value):
    """What a monitor would have said of the past. Days are UTC; a window belongs to that of its last moment.

    Attributes:
        monitor: its name.
        reference: what the windows were compared with.
        from_, to: every window lay between them.
        days: on which a window was judged.
        windows: how many there were by verdict, and how many were judged.
        alert_days: on which the monitor was in alarm.
        alert_days_by_lane: the same for drift and for quality.
        alert_days_per_month: days in 30.
        alerts_per_month: episodes in 30 days.
        calendar: what each day was.
        episodes: in order.
        promise, promise_basis, false_alerts_per_month: as in the results of checks.
        rivals: the usual rules on the window that ended last in each day; empty when they were left out.
    """

    monitor: str
    reference: ReferenceId
    from_: UtcDatetime = Field(serialization_alias="from")
    to: UtcDatetime
    days: int
    windows: dict[str, int]
    alert_days: tuple[date, ...]
    alert_days_by_lane: dict[Lane, tuple[date, ...]]
    alert_days_per_month: Finite
    alerts_per_month: Finite
    calendar: dict[date, Mark]
    episodes: tuple[Alert, ...]
    promise: str
    promise_basis: Basis
    false_alerts_per_month: Finite | None
    rivals: dict[str, RivalTally] = {}


def day_of(window: Window) -> date:
    """The UTC day of a window's last moment."""
    return (window.end - _MOMENT).date()


class Tally:
    """Applies the episode rules to checks, one window after the other, and counts.

    Args:
        alarm: persistence, cooldown, reminders.
        maintenance: stretches without messages.
    """

    def __init__(self, alarm: Alarm, maintenance: Sequence[Maintenance] = ()) -> None:
        self._alarm, self._maintenance = alarm, maintenance
        self._history: deque[Outcome] = deque(maxlen=alarm.persistence.of)
        self._last: dict[Lane, Episode | None] = dict.fromkeys(LANES)
        self._alerts: dict[str, Alert] = {}
        self._outcomes: Counter[Outcome] = Counter()
        self._days: dict[date, set[Outcome]] = {}
        self._in_alarm: dict[Lane, set[date]] = {lane: set() for lane in LANES}
        self._rivals: dict[date, Mapping[str, bool]] = {}

    def add(self, result: CheckResult, rivals: Mapping[str, bool] | None = None) -> None:
        """Take the next window.

        Args:
            result: of its check.
            rivals: whether each rule alarms, if they are asked about this window.
        """
        day = day_of(result.window)
        for lane in LANES:
            transition = step(lane, self._last[lane], list(self._history), result, self._alarm, self._maintenance)
            episode = transition.episode
            if transition.changed and episode is not None:
                self._last[lane] = episode
                before = None if transition.reason is Reason.OPENED else self._alerts[episode.id]
                self._alerts[episode.id] = _alert(episode, result, before)
            if episode is not None and episode.closed is None:
                self._in_alarm[lane].add(day)
        self._history.appendleft(result.verdict)
        self._outcomes[result.verdict] += 1
        self._days.setdefault(day, set()).add(result.verdict)
        if rivals is not None:
            self._rivals[day] = rivals

    def backtest(
        self,
        monitor: str,
        reference: ReferenceId,
        span: Window,
        *,
        promise: str,
        basis: Basis,
        budget: float | None,
    ) -> Backtest:
        """All that was counted.

        Args:
            monitor: its name.
            reference: what it compares with.
            span: every window lay in it.
            promise: about false alerts.
            basis: of the promise.
            budget: false alerts a month that are promised.
        """
        judged = [day for day, outcomes in self._days.items() if outcomes.intersection(JUDGED)]
        alarming = sorted(set().union(*self._in_alarm.values()))
        names = next(iter(self._rivals.values()), {})
        return Backtest(
            monitor=monitor,
            reference=reference,
            from_=span.start,
            to=span.end,
            days=len(judged),
            windows={"judged": sum(self._outcomes[o] for o in JUDGED)}
            | {outcome.value: self._outcomes[outcome] for outcome in Outcome},
            alert_days=tuple(alarming),
            alert_days_by_lane={lane: tuple(sorted(days)) for lane, days in self._in_alarm.items()},
            alert_days_per_month=_monthly(len(alarming), len(judged)),
            alerts_per_month=_monthly(len(self._alerts), len(judged)),
            calendar={day: self._mark(day) for day in sorted(self._days)},
            episodes=tuple(self._alerts.values()),
            promise=promise,
            promise_basis=basis,
            false_alerts_per_month=budget,
            rivals={name: self._rival(name) for name in names},
        )

    def _mark(self, day: date) -> Mark:
        drift, broken = (day in self._in_alarm[lane] for lane in LANES)
        if drift or broken:
            return "both" if drift and broken else "drift" if drift else "broken"
        outcomes = self._days[day]
        if outcomes.intersection(JUDGED):
            return "quiet"
        return "cannot_judge" if Outcome.CANNOT_JUDGE in outcomes else "no_data"

    def _rival(self, name: str) -> RivalTally:
        days = sorted(self._rivals)
        said = [self._rivals[day][name] for day in days]
        alerts = sum(now and not before for before, now in zip([False, *said], said, strict=False))
        return RivalTally(
            title=RIVALS[name].title,
            alert_days=tuple(day for day, alarm in zip(days, said, strict=True) if alarm),
            alerts=alerts,
            per_month=_monthly(alerts, len(days)),
            alert_days_per_month=_monthly(sum(said), len(days)),
        )


def _alert(episode: Episode, result: CheckResult, before: Alert | None) -> Alert:
    """An episode as it is now; why it opened stays."""
    if before is not None:
        return before.model_copy(update={"closed": episode.closed, "features": episode.told})
    score, threshold = result.score, result.threshold
    if episode.lane == "quality":
        first = result.failed_quality[0]
        score, threshold = first.value, first.threshold
    return Alert(
        lane=episode.lane,
        opened=episode.opened,
        features=episode.told,
        reason=result.reason,
        score=score,
        threshold=threshold,
    )


def _monthly(count: int, days: int) -> float:
    return MONTH * count / days if days else 0.0
