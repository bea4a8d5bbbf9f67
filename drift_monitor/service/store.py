"""What is on disk is the truth: runs, results, episodes, outbox, counters, in one SQLite database.

One connection in one process, guarded by a lock file. Every public method is one transaction and may be
called from any thread.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from drift_monitor.core.cloudevents import render
from drift_monitor.core.errors import StoreError
from drift_monitor.core.retraining import Retraining
from drift_monitor.core.types import CheckResult, Episode, Lane, Message, Outcome, Value, Window
from drift_monitor.service.counters import HISTOGRAMS, count, count_run, observe
from drift_monitor.service.database import Database, stamp_of, time_of
from drift_monitor.service.deliveries import Deliveries, put_message
from drift_monitor.service.lock import LockFile, LockInfo, explain_os_error, read_lock
from drift_monitor.service.readable import Readable, columns_of
from drift_monitor.service.retrainings import Retrainings, put
from drift_monitor.service.snapshot import Snapshot, Snapshots

__all__ = ["HISTOGRAMS", "LockInfo", "Run", "Store", "read_lock"]

FILE = "drift-monitor.sqlite3"
_MICROSECOND = timedelta(microseconds=1)
MOST_FAILURES = 3  # after which a window is not judged again
MOST_EARLIER = 500  # windows that are looked at again with every new one
RunState = Literal["due", "running", "done", "missed"]


class Run(Value):
    """One row of the ledger of windows, keyed (monitor, window).

    Attributes:
        state: `done` also while the window waits to be judged again.
        attempts: how often its evaluation was begun, or its second one.
    """

    id: int
    monitor: str
    window: Window
    state: RunState
    attempts: int

    @property
    def again(self) -> bool:
        """Whether it has a result, and its window is judged again."""
        return self.state == "done"


class Store:
    """The state database of one daemon.

    Every method raises StoreError when the database cannot be used (disk full, read-only, closed ...); then
    nothing of that call was stored.

    Counters that the store keeps itself: runs_total, run_failures_total, runs_skipped_total and
    rows_processed_total at `finish`; windows_revised_total at `revise`; runs_missed_total at `enqueue`.

    Attributes:
        outbox: the messages on their way.
        retrainings: the ledger of retrainings.

    A histogram is (bounds, counts, sum): the upper bounds without +Inf, and one count more than bounds, each of
    its own bucket alone (not cumulative).

    What is stored and cannot be read, because another version wrote it, is left out and told once in the log: one
    such row must not stop the metrics, the pages and the next windows.
    """

    def __init__(self, database: Database, lock: LockFile) -> None:
        self._database = database
        self._lock = lock
        self._readable = Readable()
        self._snapshots = Snapshots(database, self._readable)
        self.outbox = Deliveries(database)
        self.retrainings = Retrainings(database, put_message, _put_episode)

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
        try:
            state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(explain_os_error(state, error)) from error
        lock = LockFile.acquire(state, address)
        try:
            return cls(Database.open(state / FILE), lock)
        except BaseException:
            lock.release()
            raise

    def announce(self, address: str) -> None:
        """Tell the CLI, by the lock file, where this process serves its API."""
        self._lock.announce(address)

    def close(self) -> None:
        """Release the database and the lock. A second call does nothing."""
        if self._database.close():
            self._lock.release()

    # -- the ledger of windows ---------------------------------------------------------------------

    def newest_window(self, monitor: str) -> Window | None:
        """The window with the latest end in the ledger, in whatever state."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("newest_window", monitor=monitor).fetchone()
        return row and Window(start=time_of(row[0]), end=time_of(row[1]))

    def enqueue(self, monitor: str, due: Sequence[Window], missed: Sequence[Window] = ()) -> int:
        """Enter windows as `due` or `missed` (counted in runs_missed_total); known ones are left as they are.

        But a missed window that is entered as due is due: a clock that was ahead wrote it off too early.

        Returns:
            How many windows became due.
        """
        with self._database.transaction() as db:
            new = {"due": 0, "missed": 0}
            for state, windows in (("missed", missed), ("due", due)):
                for window in windows:
                    start, end = stamp_of(window.start), stamp_of(window.end)
                    new[state] += db.run(
                        "enter_window", monitor=monitor, start=start, end=end, state=state
                    ).rowcount
            if new["missed"]:
                count(db, "runs_missed_total", {"monitor": monitor}, new["missed"])
        return new["due"]

    def due(self) -> list[Run]:
        """Runs waiting to be evaluated: oldest window first within a monitor, monitors taking turns."""
        with self._database.transaction("DEFERRED") as db:
            return [_run(row) for row in db.run("due")]

    def waiting(self) -> dict[str, tuple[Run, int]]:
        """By monitor: the oldest run waiting to be evaluated, and how many wait; cheap however many do."""
        with self._database.transaction("DEFERRED") as db:
            return {row[1]: (_run(row[:6]), row[6]) for row in db.run("waiting")}

    def reopened(self) -> dict[str, Run]:
        """By monitor: the oldest finished run whose window is to be judged again."""
        with self._database.transaction("DEFERRED") as db:
            return {row[1]: _run(row) for row in db.run("reopened")}

    def earlier(
        self, monitor: str, before: datetime, length: timedelta, lateness: timedelta
    ) -> list[tuple[Window, str]]:
        """Windows whose rows may have changed since the last was judged, and what they were made of.

        Args:
            monitor: its name.
            before: they end earlier.
            length: of a window.
            lateness: those that ended no longer than this before the last of them; 0 for that one alone.

        Returns:
            Newest first, of the last `MOST_EARLIER`; those that were read directly are left out.
        """
        with self._database.transaction("DEFERRED") as db:
            rows = db.run(
                "earlier",
                monitor=monitor,
                before=stamp_of(before),
                length=length // _MICROSECOND,
                lateness=lateness // _MICROSECOND,
                limit=MOST_EARLIER,
            ).fetchall()
        return [(Window(start=time_of(start), end=time_of(end)), made_of) for start, end, made_of in rows]

    def start(self, run: int, now: datetime) -> None:
        """Mark a due run as running, or a reopened one as being judged again, and count the attempt.

        Raises:
            StoreError: the run is neither.
        """
        with self._database.transaction() as db:
            if db.run("start_again", run=run).rowcount:
                return
            if not db.run("start", run=run, now=stamp_of(now)).rowcount:
                raise StoreError(f"run {run} cannot start: it is {_state_of(db, run)}, not due")

    def give_back(self, run: int) -> None:
        """Make a running run due again as if it had not been started."""
        with self._database.transaction() as db:
            db.run("give_back", run=run)
            db.run("give_back_again", run=run)

    def recover(self, max_attempts: int = 3) -> list[Run]:
        """At start-up: runs that were running when the last process died become due again.

        Returns:
            Those that died `max_attempts` times; they stay `running` for the caller to finish as cannot_judge.
        """
        with self._database.transaction() as db:
            db.run("requeue", max_attempts=max_attempts)
            db.run("leave_poisonous", max_attempts=max_attempts)
            return [_run(row) for row in db.run("running")]

    def history(self, monitor: str, before: datetime, limit: int) -> list[Outcome]:
        """Verdicts of finished windows that end before `before`, newest first."""
        with self._database.transaction("DEFERRED") as db:
            rows = db.run("history", monitor=monitor, before=stamp_of(before), limit=limit)
            return [Outcome(verdict) for (verdict,) in rows]

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
        retraining: Retraining | None = None,
    ) -> None:
        """Record the run, its result, the changed episodes, every outbox row and the counters: all or nothing.

        A run that is done already is left as it is, and nothing of this call is stored.

        Args:
            run: the ledger row.
            result: what the check found.
            now: the daemon's clock.
            episodes: new state of each episode that changed (insert or replace by id).
            messages: (receiver, message) pairs. A pair whose (receiver, message id) is known already is ignored.
            counts: (counter, labels, increment).
            observations: (histogram, labels, value).
            retraining: that the run begins; ignored when its cause has one or another is under way.

        Raises:
            StoreError: the run is not in the ledger, or is missed.
            ValueError: a message cannot be rendered, or a histogram has no buckets in HISTOGRAMS.
        """
        stamp = stamp_of(now)
        bodies = [(receiver, message, render(message)) for receiver, message in messages]
        with self._database.transaction() as db:
            if not db.run("finish", run=run, now=stamp, **columns_of(result)).rowcount:
                if (state := _state_of(db, run)) == "done":
                    return
                raise StoreError(f"run {run} of monitor {result.monitor} cannot finish: it is {state}")
            for episode in episodes:
                _put_episode(db, episode, stamp)
            for receiver, message, body in bodies:
                put_message(db, receiver, message, body, stamp)
            for window in result.reopened:
                start, end = stamp_of(window.start), stamp_of(window.end)
                db.run("reopen", monitor=result.monitor, start=start, end=end, most=MOST_FAILURES)
            count_run(db, result, (run, stamp))
            for name, labels, by in counts:
                count(db, name, labels, by, (run, stamp))
            for name, labels, value in observations:
                observe(db, name, labels, value, (run, stamp))
            if retraining is not None:
                put(db, retraining)

    def revise(self, run: int, result: CheckResult) -> None:
        """Put what a reopened run found in the place of its result; of a run that is none, nothing."""
        with self._database.transaction() as db:
            if db.run("revise", run=run, **columns_of(result)).rowcount:
                count(db, "windows_revised_total", {"monitor": result.monitor})
        self._snapshots.forget(run)

    def leave(self, run: int, seen: str | None = None, *, failed: bool = False) -> None:
        """Judge a reopened run no more: its result stays.

        Args:
            run: the ledger row.
            seen: what its window is made of now; it is looked at again when that changes.
            failed: it could not be judged; after `MOST_FAILURES` in a row it is not tried again.
        """
        with self._database.transaction() as db:
            db.run("leave", run=run, seen=seen, failed=failed)

    def leave_others(self, monitor: str, length: timedelta) -> None:
        """Judge no reopened runs of a monitor whose windows are not of a length."""
        with self._database.transaction() as db:
            db.run("leave_others", monitor=monitor, length=length // _MICROSECOND)

    def fill(self, result: CheckResult, *, now: datetime, episodes: Sequence[Episode] = ()) -> bool:
        """Record a window of the past and the changed episodes: all or nothing. Nothing is sent, nothing counted.

        Returns:
            False when the window has a result already; then nothing of this call is stored.
        """
        window, stamp, columns = result.window, stamp_of(now), columns_of(result)
        with self._database.transaction() as db:
            start, end = stamp_of(window.start), stamp_of(window.end)
            if not db.run("fill", monitor=result.monitor, start=start, end=end, now=stamp, **columns).rowcount:
                return False
            for episode in episodes:
                _put_episode(db, episode, stamp)
        return True

    def judged_ends(self, monitor: str) -> list[datetime]:
        """Where the finished windows of a monitor end, whatever their verdict, oldest first."""
        with self._database.transaction("DEFERRED") as db:
            return [time_of(end) for (end,) in db.run("judged_ends", monitor=monitor)]

    def result(self, run: int) -> CheckResult | None:
        """What is kept of the result of a finished run: all of it, or after `retention.results` its summary."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("result", run=run).fetchone()
        return row and self._readable.result(*row)

    def results(self, monitor: str, limit: int) -> list[tuple[int, CheckResult]]:
        """The newest finished windows of a monitor and their run ids, newest first; without features, quality."""
        with self._database.transaction("DEFERRED") as db:
            rows = db.run("summaries", monitor=monitor, limit=limit).fetchall()
        return [(row[0], result) for row in rows if (result := self._readable.result(*row)) is not None]

    def judged_run(self, monitor: str) -> tuple[int, int] | None:
        """The run of the newest window judged ok, drift or broken, and how often its result was replaced."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("judged_run", monitor=monitor).fetchone()
        return row and (row[0], row[1])

    def run_of(self, monitor: str, end: datetime) -> int | None:
        """The finished run of the window that ends at a time."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("run_of", monitor=monitor, end=stamp_of(end)).fetchone()
        return row and int(row[0])

    # -- episodes ----------------------------------------------------------------------------------

    def episode(self, monitor: str, lane: Lane, by: datetime | None = None) -> Episode | None:
        """The newest episode of a lane, open or closed; with `by` of those that had opened by then."""
        stamp = None if by is None else stamp_of(by)
        with self._database.transaction("DEFERRED") as db:
            rows = db.run("newest_episode", monitor=monitor, lane=lane, by=stamp).fetchall()
        return next(iter(self._readable.episodes(rows)), None)

    def episodes(self, monitor: str | None, limit: int) -> list[Episode]:
        """Episodes, newest first."""
        with self._database.transaction("DEFERRED") as db:
            rows = db.run("episodes", monitor=monitor, limit=limit).fetchall()
        return self._readable.episodes(rows)

    # -- the rest ----------------------------------------------------------------------------------

    def count(self, name: str, labels: Mapping[str, str], by: float = 1) -> None:
        """Add to a counter outside a run."""
        with self._database.transaction() as db:
            count(db, name, labels, by)

    @property
    def changes(self) -> int:
        """A number that grows with every row changed: the same number, the same snapshot."""
        return self._database.changes

    def snapshot(self) -> Snapshot:
        """What metrics and pages are drawn from."""
        return self._snapshots.read()

    def purge(
        self,
        now: datetime,
        *,
        monitors: Collection[str],
        results: timedelta,
        runs: timedelta,
        delivered: timedelta,
    ) -> int:
        """Delete finished and missed runs, closed episodes, delivered messages past their time; counters stay.

        A result loses its features and expectations after `results`; they are most of the database. The newest
        run and the newest judged run of a monitor stay whole, as does the newest episode of a lane, whatever
        their age. Of a monitor that is none of `monitors` nothing stays, and no window waits.

        Returns:
            How many rows went.
        """
        with self._database.transaction() as db:
            latest = [row for row in db.run("latest").fetchall() if row[0] in monitors]
            keep = json.dumps([run for row in latest for run in row[1:3] if run is not None])
            watched = json.dumps(list(monitors))
            db.run("purge_results", before=stamp_of(now - results), keep=keep)
            gone = db.run("purge_due", monitors=watched).rowcount
            gone += db.run("purge_missed", before=stamp_of(now - runs)).rowcount
            gone += db.run("purge_runs", before=stamp_of(now - runs), keep=keep).rowcount
            gone += db.run("purge_episodes", before=stamp_of(now - runs), monitors=watched).rowcount
            gone += db.run("purge_delivered", before=stamp_of(now - delivered)).rowcount
            gone += db.run("purge_retrainings", before=stamp_of(now - runs), monitors=watched).rowcount
        return gone


def _run(row: tuple[int, str, int, int, RunState, int]) -> Run:
    number, monitor, start, end, state, attempts = row
    window = Window(start=time_of(start), end=time_of(end))
    return Run(id=number, monitor=monitor, window=window, state=state, attempts=attempts)


def _state_of(db: Database, run: int) -> str:
    row = db.run("state_of_run", run=run).fetchone()
    return row[0] if row else "not in the ledger"


def _put_episode(db: Database, episode: Episode, now: int) -> None:
    db.run(
        "put_episode",
        id=episode.id,
        monitor=episode.monitor,
        lane=episode.lane,
        opened=stamp_of(episode.opened),
        closed=None if episode.closed is None else stamp_of(episode.closed),
        now=now,
        body=episode.model_dump_json(),
    )
