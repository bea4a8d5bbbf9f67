"""What is on disk is the truth: runs, results, episodes, outbox, counters, in one SQLite database.

One connection in one process, guarded by a lock file. Every public method is one transaction and may be
called from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from drift_monitor.core.types import CheckResult, Episode, Lane, Message, Outcome, Value, Window

RunState = Literal["due", "running", "done", "missed"]


class Run(Value):
    """One row of the ledger of windows, keyed (monitor, window)."""

    id: int
    monitor: str
    window: Window
    state: RunState
    attempts: int


class Delivery(Value):
    """One message on its way to one receiver.

    Attributes:
        id: the row; what `outbox retry|drop` name.
        event_id: the CloudEvents id, the same over all attempts.
        body: the exact bytes that are signed and sent.
    """

    id: int
    event_id: str
    receiver: str
    type: str
    group: str
    body: bytes
    attempts: int
    state: Literal["pending", "delivered", "dead"]
    created: datetime
    next_attempt: datetime | None
    last_error: str | None


@dataclass(frozen=True)
class Snapshot:
    """Everything that metrics and pages are drawn from, read in one transaction."""

    latest: Mapping[str, CheckResult]  # by monitor: the newest finished window, whatever its verdict
    latest_judged: Mapping[str, CheckResult]  # by monitor: the newest window judged ok, drift or broken
    finished: Mapping[str, datetime]  # by monitor: when the last run ended (daemon clock)
    succeeded: Mapping[str, datetime]  # by monitor: when the last run that judged ended
    open_episodes: tuple[Episode, ...]
    counters: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]  # (name, sorted labels) -> value
    histograms: Mapping[tuple[str, tuple[tuple[str, str], ...]], tuple[tuple[float, ...], tuple[int, ...], float]]
    outbox: Mapping[tuple[str, str], tuple[int, datetime | None]]  # (receiver, state) -> count, oldest created


class Store:
    """The state database of one daemon."""

    @classmethod
    def open(cls, state: Path, *, address: str = "") -> Self:
        """Lock the state folder, check and migrate the database.

        Args:
            state: the folder; made when missing.
            address: base URL where this process serves its API; written into the lock file for the CLI.

        Raises:
            StoreError: another process holds the lock (names its pid), the folder cannot be written, the
                disk is full, or the database is corrupt (it is never reset; the message says what to do).
        """
        raise NotImplementedError

    def close(self) -> None:
        """Release the database and the lock."""
        raise NotImplementedError

    # -- the ledger of windows ---------------------------------------------------------------------

    def newest_window(self, monitor: str) -> Window | None:
        """The window with the latest end in the ledger, in whatever state."""
        raise NotImplementedError

    def enqueue(self, monitor: str, due: Sequence[Window], missed: Sequence[Window] = ()) -> int:
        """Enter windows as `due` or `missed` (counted in runs_missed_total); known ones are left as they are.

        Returns:
            How many `due` windows were new.
        """
        raise NotImplementedError

    def due(self) -> list[Run]:
        """Runs waiting to be evaluated, oldest window first within a monitor."""
        raise NotImplementedError

    def start(self, run: int, now: datetime) -> None:
        """Mark a due run as running and count the attempt."""
        raise NotImplementedError

    def recover(self, max_attempts: int = 3) -> list[Run]:
        """At start-up: runs that were running when the last process died become due again.

        Returns:
            Those that died `max_attempts` times; they stay `running` for the caller to finish as cannot_judge.
        """
        raise NotImplementedError

    def history(self, monitor: str, before: datetime, limit: int) -> list[Outcome]:
        """Verdicts of finished windows that end before `before`, newest first."""
        raise NotImplementedError

    def finish(
        self,
        run: int,
        result: CheckResult,
        *,
        now: datetime,
        episodes: Sequence[Episode] = (),
        messages: Sequence[tuple[str, Message]] = (),
        counts: Sequence[tuple[str, Mapping[str, str], float]] = (),
        observations: Sequence[tuple[str, Mapping[str, str], float]] = (),
    ) -> None:
        """Record the run, its result, the changed episodes, every outbox row and the counters: all or nothing.

        Args:
            run: the ledger row.
            result: what the check found.
            now: the daemon's clock.
            episodes: new state of each episode that changed (insert or replace by id).
            messages: (receiver, message) pairs. A pair whose (receiver, message id) is known already is ignored.
            counts: (counter, labels, increment).
            observations: (histogram, labels, value).
        """
        raise NotImplementedError

    def result(self, run: int) -> CheckResult | None:
        """The stored result of a finished run."""
        raise NotImplementedError

    def results(self, monitor: str, limit: int) -> list[tuple[int, CheckResult]]:
        """The newest finished windows of a monitor with their run ids, newest first."""
        raise NotImplementedError

    # -- episodes ----------------------------------------------------------------------------------

    def episode(self, monitor: str, lane: Lane) -> Episode | None:
        """The newest episode of a lane, open or closed."""
        raise NotImplementedError

    def episodes(self, monitor: str | None, limit: int) -> list[Episode]:
        """Episodes, newest first."""
        raise NotImplementedError

    # -- outbox ------------------------------------------------------------------------------------

    def next_delivery(self, receivers: Sequence[str], now: datetime) -> Delivery | None:
        """The pending delivery to attempt now: the oldest of its (receiver, group) and past its next_attempt."""
        raise NotImplementedError

    def next_attempt_at(self, receivers: Sequence[str]) -> datetime | None:
        """When `next_delivery` will next have something; None when nothing is pending."""
        raise NotImplementedError

    def delivered(self, delivery: int, now: datetime, seconds: float) -> None:
        """Record success."""
        raise NotImplementedError

    def retry_at(self, delivery: int, when: datetime, error: str, reason: str, seconds: float) -> None:
        """Record a failed attempt that will be repeated."""
        raise NotImplementedError

    def bury(self, delivery: int, error: str, reason: str, seconds: float) -> None:
        """Record a failed attempt after which the message is dead: kept, counted, replayable."""
        raise NotImplementedError

    def deliveries(self, state: str | None = None, limit: int = 1000) -> list[Delivery]:
        """Outbox rows, oldest first."""
        raise NotImplementedError

    def replay(self, delivery: int, now: datetime) -> bool:
        """Make a dead or pending delivery due now with a fresh schedule; False when there is none such."""
        raise NotImplementedError

    def drop(self, delivery: int) -> bool:
        """Delete a dead or pending delivery; False when there is none such."""
        raise NotImplementedError

    # -- the rest ----------------------------------------------------------------------------------

    def count(self, name: str, labels: Mapping[str, str], by: float = 1) -> None:
        """Add to a counter outside a run."""
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        """What metrics and pages are drawn from."""
        raise NotImplementedError

    def purge(self, now: datetime, *, runs: timedelta, delivered: timedelta) -> int:
        """Delete finished runs, closed episodes and delivered messages past their time; counters stay.

        Returns:
            How many rows went.
        """
        raise NotImplementedError
