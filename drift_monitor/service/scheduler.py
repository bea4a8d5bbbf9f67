"""When windows are due. APScheduler is only the alarm clock; the ledger in the store is the record."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

from drift_monitor.config.models import Monitor, Schedule, WindowConfig
from drift_monitor.core.errors import StoreError
from drift_monitor.core.types import Window
from drift_monitor.service.clock import Clock
from drift_monitor.service.logs import fields

log = logging.getLogger(__name__)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LIMIT = 10_000  # windows of one monitor entered at once; older ones are only counted
STEP = timedelta(seconds=2)  # NTP slews slower than this between two looks; more is a clock that was set
_LOOK_BACK = tuple(timedelta(days=d) for d in (1 / 24, 1, 7, 32, 366, 366 * 8 + 1))  # up to 29 February


class Ledger(Protocol):
    """The part of the store that scheduling needs."""

    def newest_window(self, monitor: str) -> Window | None:
        """The window with the latest end."""

    def enqueue(self, monitor: str, due: Sequence[Window], missed: Sequence[Window] = ()) -> int:
        """Enter windows; known ones are left as they are, but a missed one may become due."""

    def count(self, name: str, labels: Mapping[str, str], by: float = 1) -> None:
        """Add to a counter."""


class Due(NamedTuple):
    """Windows that are due, oldest first, and how many older ones the limit left out."""

    windows: list[Window]
    left_out: int


def fires_after(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Fire times later than `after`, in UTC, strictly rising.

    `every` is aligned to the UTC epoch, so that a restart or a second machine gets the same times. Cron
    fields are read in the schedule's time zone. A time of day that a clock change skips fires right after
    the gap; one that it repeats fires in the first pass only, unless the hour is a `*`.
    """
    if schedule.every is not None:
        n = (after - EPOCH) // schedule.every
        while True:
            n += 1
            yield EPOCH + n * schedule.every
    trigger = _cron(schedule)
    every_hour = str(schedule.cron).split()[1].startswith("*")
    previous = _before_change(after, trigger.timezone)
    while True:
        fire = trigger.get_next_fire_time(
            None, (previous + timedelta(microseconds=1)).astimezone(trigger.timezone)
        )
        if fire is None:  # a date that never comes, such as 30 February
            return
        second_pass = fire.fold == 1
        previous = fire.astimezone(UTC)
        if previous > after and (every_hour or not second_pass):
            yield previous


def _before_change(after: datetime, zone: tzinfo) -> datetime:
    """Where to start so as not to start inside a clock change, which hides fire times that its gap moved."""
    earlier, next_second = after - timedelta(hours=3), after + timedelta(seconds=1)
    return earlier if earlier.astimezone(zone).utcoffset() != next_second.astimezone(zone).utcoffset() else after


def due_windows(
    schedule: Schedule, window: WindowConfig, newest: Window | None, now: datetime, limit: int = LIMIT
) -> Due:
    """Which windows are complete by now and not in the ledger yet.

    A fire time `t` stands for the window `[t - length, t)`, due at `t + delay`. With nothing in the ledger,
    or with a ledger that is ahead of the clock, it is the latest complete window alone; entering one that
    is known already does nothing, unless it was written off as missed while the clock was ahead.

    Args:
        schedule: interval or cron.
        window: length and delay.
        newest: the ledger's newest window.
        now: logical time.
        limit: windows to return at most, the newest; > 0.
    """
    horizon = now - window.delay
    latest = _latest_fire(schedule, horizon)
    if latest is None or (newest is not None and newest.end == latest):
        return Due([], 0)
    if newest is None or newest.end > latest:
        return Due([Window(start=latest - window.length, end=latest)], 0)
    ends, left_out = _fires_between(schedule, newest.end, latest, limit)
    return Due([Window(start=end - window.length, end=end) for end in ends], left_out)


def _fires_between(
    schedule: Schedule, after: datetime, until: datetime, limit: int
) -> tuple[Sequence[datetime], int]:
    if schedule.every is not None:
        total = (until - EPOCH) // schedule.every - (after - EPOCH) // schedule.every
        kept = min(total, limit)
        return [until - k * schedule.every for k in reversed(range(kept))], total - kept
    kept_ends: deque[datetime] = deque(maxlen=limit)
    total = 0
    for fire in fires_after(schedule, after):
        if fire > until:
            break
        kept_ends.append(fire)
        total += 1
    return kept_ends, total - len(kept_ends)


def _latest_fire(schedule: Schedule, horizon: datetime) -> datetime | None:
    if schedule.every is not None:
        return EPOCH + (horizon - EPOCH) // schedule.every * schedule.every
    for span in _LOOK_BACK:
        latest = None
        for fire in fires_after(schedule, horizon - span):
            if fire > horizon:
                break
            latest = fire
        if latest is not None:
            return latest
    return None


def _cron(schedule: Schedule) -> CronTrigger:
    assert schedule.cron is not None  # noqa: S101 - the model allows exactly one of every and cron
    minute, hour, day, month, weekday = schedule.cron.split()
    return CronTrigger(
        minute=minute,
        hour=hour,
        day=day,
        month=month,
        day_of_week=weekday.lower(),
        timezone=ZoneInfo(schedule.timezone),
    )


class _WindowTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler 3 has no types
    """Fires once for whatever is past, then at the next due time; a clock ahead by a month costs one firing."""

    def __init__(self, schedule: Schedule, delay: timedelta, clock: Clock) -> None:
        self.schedule, self.delay, self.clock = schedule, delay, clock

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        if previous is None:
            return now  # look at once for what became due while nobody was looking
        fire = next(fires_after(self.schedule, self.clock.now() - self.delay), None)
        return None if fire is None else self.clock.wall(fire + self.delay)


class Scheduler:
    """Enters due windows in the ledger, monitor by monitor.

    Args:
        ledger: the store.
        clock: logical time.
        entered: called after new windows were entered.
        failed: called with the error when the ledger cannot be written; the next firing tries again.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        *,
        entered: Callable[[], None] = lambda: None,
        failed: Callable[[StoreError], None] = lambda _error: None,
    ) -> None:
        self._ledger, self._clock = ledger, clock
        self._entered, self._failed = entered, failed
        self._monitors: dict[str, Monitor] = {}
        self._offset = clock.offset()
        self._stepped: set[str] = set()  # monitors whose next look back may cross a step of the clock
        self._lock = threading.RLock()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    @property
    def running(self) -> bool:
        """Whether due windows are being entered."""
        return bool(self._scheduler.running)

    def start(self, monitors: Mapping[str, Monitor]) -> None:
        """Begin, with a first look at every monitor's ledger."""
        self._scheduler.start()
        self.replace(monitors)

    def replace(self, monitors: Mapping[str, Monitor]) -> None:
        """Schedule these monitors and no others."""
        with self._lock:
            self._monitors = {name: m for name, m in monitors.items() if m.enabled}
            self._rebase()

    def stop(self) -> None:
        """Enter nothing more."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def next_fires(self) -> dict[str, datetime]:
        """By monitor: the logical time at which its next window is due, where there is one."""
        now = self._clock.now()
        fires: dict[str, datetime] = {}
        for name, monitor in self._monitors.items():
            fire = next(fires_after(monitor.schedule, now - monitor.window.delay), None)
            if fire is not None and self._clock.wall(fire + monitor.window.delay) is not None:
                fires[name] = fire + monitor.window.delay
        return fires

    def enter_all(self) -> None:
        """Enter what is due now for every monitor."""
        for name in tuple(self._monitors):
            self.enter_due(name)

    def enter_due(self, name: str) -> None:
        """Enter what is due now for one monitor."""
        with self._lock:
            self.watch_clock()
            monitor = self._monitors.get(name)
            if monitor is None:
                return
            try:
                new = self._enter(name, monitor)
            except StoreError as error:
                log.error("a due window cannot be entered", extra=fields(monitor=name, error=error))  # noqa: TRY400
                self._failed(error)
                return
            self._stepped.discard(name)
        if new:
            self._entered()

    def _enter(self, name: str, monitor: Monitor) -> int:
        newest = self._ledger.newest_window(name)
        windows, left_out = due_windows(monitor.schedule, monitor.window, newest, self._clock.now())
        missed: list[Window] = []
        if name in self._stepped:
            # A clock that was set is not downtime: nothing was missed, and windows of a time that may be
            # wrong are not written off.
            windows, left_out = windows[-1:], 0
        elif monitor.schedule.catch_up == "latest" and self._clock.replay_until is None:
            windows, missed = windows[-1:], windows[:-1]
        new = self._ledger.enqueue(name, windows, missed) if windows else 0
        if left_out:
            self._ledger.count("runs_missed_total", {"monitor": name}, left_out)
        if missed or left_out:
            log.warning(
                "windows were missed",
                extra=fields(monitor=name, missed=len(missed) + left_out, newest=windows[-1]),
            )
        return new

    def watch_clock(self) -> bool:
        """Notice a wall clock that was set, and begin again from what it says now; call this every second or so.

        Returns:
            Whether it was set since the last look.
        """
        with self._lock:
            offset = self._clock.offset()
            step, self._offset = timedelta(seconds=offset - self._offset), offset
            if abs(step) < STEP:
                return False
            log.warning(
                "the clock was set; scheduling from its time",
                extra=fields(seconds=step.total_seconds(), now=self._clock.now().isoformat()),
            )
            if self._clock.replay_until is None:
                self._stepped = set(self._monitors)
            if self._scheduler.running:
                self._rebase()
            return True

    def _rebase(self) -> None:
        self._scheduler.remove_all_jobs()
        for name, monitor in self._monitors.items():
            trigger = _WindowTrigger(monitor.schedule, monitor.window.delay, self._clock)
            self._scheduler.add_job(self.enter_due, trigger, args=(name,), id=name)
