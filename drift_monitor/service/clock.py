"""Time as an argument: the real clock, and one that replays a stretch of the past at a higher speed.

Windows and episodes live in *logical* time, which is what `now()` gives. Deadlines, retries, grace and
retention are about this machine and use its real time.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class Clock:
    """Logical time that is the wall clock's time."""

    replay_until: datetime | None = None

    def begin(self) -> None:
        """Called once everything is ready."""

    def now(self) -> datetime:
        """The logical time, in UTC."""
        return datetime.now(UTC)

    def wall(self, logical: datetime) -> datetime | None:
        """The wall-clock time at which `now()` will be `logical`; None when it never will be."""
        return logical

    def offset(self) -> float:
        """Wall clock minus a clock that nobody can set, in seconds: it changes only when the wall clock is set.

        Time spent suspended counts on both sides, so waking up is downtime and not a step of the clock.
        """
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class ReplayClock(Clock):
    """Logical time that runs from `start` to `until`, `speed` times as fast as real time.

    It stands at `start` until `begin`, so that no window is lost while the daemon starts.

    Args:
        start: where logical time begins.
        speed: logical seconds a real second, > 0.
        until: where logical time stops.

    Raises:
        ValueError: speed is not positive, or until is not after start.
    """

    def __init__(self, start: datetime, speed: float, until: datetime) -> None:
        if not speed > 0:
            raise ValueError(f"the replay speed must be above 0, got {speed:g}")
        if until <= start:
            raise ValueError(
                f"the replay must end after it starts, got {start.isoformat()} to {until.isoformat()}"
            )
        self._start = start.astimezone(UTC)
        self._speed = speed
        self._began: float | None = None
        self.replay_until: datetime = until.astimezone(UTC)

    def begin(self) -> None:
        """Let time run."""
        self._began = time.monotonic()

    def now(self) -> datetime:
        """The logical time, in UTC, never after the end of the replay."""
        if self._began is None:
            return self._start
        try:
            logical = self._start + timedelta(seconds=(time.monotonic() - self._began) * self._speed)
        except OverflowError:  # past the year 9999
            return self.replay_until
        return min(logical, self.replay_until)

    def wall(self, logical: datetime) -> datetime | None:
        """The wall-clock time at which `now()` will be `logical`; None when that is past the replay's end."""
        if logical > self.replay_until:
            return None
        return datetime.now(UTC) + (logical - self.now()) / self._speed
