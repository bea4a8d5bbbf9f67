"""What is on disk is the truth: runs, results, episodes, outbox, counters, in one SQLite database.

One connection in one process, guarded by a lock file. Every public method is one transaction and may be
called from any thread.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import ValidationError

from drift_monitor.core.cloudevents import render
from drift_monitor.core.errors import StoreError
from drift_monitor.core.retraining import Retraining
from drift_monitor.core.types import CheckResult, Episode, Lane, Message, Outcome, Value, Window
from drift_monitor.service.counters import (
    HISTOGRAMS,
    Series,
    count,
    count_request,
    count_run,
    observe,
    read_counters,
    read_exemplars,
    read_histograms,
)
from drift_monitor.service.database import Database
from drift_monitor.service.exposition import Buckets, Exemplar
from drift_monitor.service.lock import LockFile, LockInfo, explain_os_error, read_lock
from drift_monitor.service.logs import fields
from drift_monitor.service.retrainings import Retrainings, put, read_retrainings

__all__ = ["HISTOGRAMS", "Delivery", "LockInfo", "Run", "Snapshot", "Store", "read_lock"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")
FILE = "drift-monitor.sqlite3"
FURTHEST = timedelta(hours=28)  # no retry waits longer (24 h and jitter): further ahead means a clock was set back
MOST_EARLIER = 500  # windows that are looked at again with every new one
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
    """Everything that metrics and lists are drawn from, read in one transaction.

    Its results go without statistics and histograms, which are most of their size: they are kept in memory.
    """

    latest: Mapping[str, CheckResult]  # by monitor: the newest finished window, whatever its verdict
    latest_judged: Mapping[str, CheckResult]  # by monitor: the newest window judged ok, drift or broken
    finished: Mapping[str, datetime]  # by monitor: when the daemon's last run ended (its clock)
    succeeded: Mapping[str, datetime]  # by monitor: when its last run that judged ended
    open_episodes: tuple[Episode, ...]
    counters: Mapping[Series, float]
    histograms: Mapping[Series, Buckets]  # bounds, counts, sum: `Store`
    outbox: Mapping[tuple[str, str], tuple[int, datetime | None]]  # (receiver, state) -> count, oldest created
    disabled_receivers: Mapping[str, str] = field(default_factory=dict)  # receiver -> why
    last_delivery: Mapping[str, datetime] = field(default_factory=dict)  # receiver -> when it last took a message
    judged_runs: Mapping[str, int] = field(default_factory=dict)  # by monitor: the run of `latest_judged`
    retrainings: Mapping[str, Retraining] = field(default_factory=dict)  # by monitor: the newest
    exemplars: Mapping[Series, Sequence[Exemplar]] = field(default_factory=dict)  # of a histogram one a bucket


class Store:
    """The state database of one daemon.

    Every method raises StoreError when the database cannot be used (disk full, read-only, closed ...); then
    nothing of that call was stored.

    Counters that the store keeps itself: runs_total, run_failures_total, runs_skipped_total and
    rows_processed_total at `finish`; windows_revised_total at `revise`; runs_missed_total at `enqueue`;
    webhook_requests_total, webhook_request_failures_total and outbox_dead_letters_total with the outbox.

    A histogram is (bounds, counts, sum): the upper bounds without +Inf, and one count more than bounds, each of
    its own bucket alone (not cumulative).

    What is stored and cannot be read, because another version wrote it, is left out and told once in the log: one
    such row must not stop the metrics, the pages and the next windows.
    """

    def __init__(self, database: Database, lock: LockFile) -> None:
        self._database = database
        self._lock = lock
        self._parsed: dict[int, CheckResult | None] = {}  # those in the last snapshot, by run: they take time
        self._unreadable: set[str] = set()
        self.retrainings = Retrainings(database, _put_message, _put_episode)

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
        return row and Window(start=_time(row[0]), end=_time(row[1]))

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
                    start, end = _stamp(window.start), _stamp(window.end)
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

    def earlier(self, monitor: str, before: datetime, lateness: timedelta) -> list[tuple[Window, str]]:
        """Windows that late rows may have reached since the last was judged, and what they were made of.

        Args:
            monitor: its name.
            before: they end earlier.
            lateness: those that ended no longer than this before the last of them; 0 for that one alone.

        Returns:
            Newest first, `MOST_EARLIER` at most; those that were read directly are left out.
        """
        micros, stamp = lateness // _MICROSECOND, _stamp(before)
        with self._database.transaction("DEFERRED") as db:
            rows = db.run("earlier", monitor=monitor, before=stamp, lateness=micros, limit=MOST_EARLIER).fetchall()
        return [(Window(start=_time(start), end=_time(end)), read_from) for start, end, read_from in rows]

    def start(self, run: int, now: datetime) -> None:
        """Mark a due run as running, or a reopened one as being judged again, and count the attempt.

        Raises:
            StoreError: the run is neither.
        """
        with self._database.transaction() as db:
            if db.run("start_again", run=run).rowcount:
                return
            if not db.run("start", run=run, now=_stamp(now)).rowcount:
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
            rows = db.run("history", monitor=monitor, before=_stamp(before), limit=limit)
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
        stamp = _stamp(now)
        bodies = [(receiver, message, render(message)) for receiver, message in messages]
        with self._database.transaction() as db:
            if not db.run("finish", run=run, now=stamp, **_columns(result)).rowcount:
                if (state := _state_of(db, run)) == "done":
                    return
                raise StoreError(f"run {run} of monitor {result.monitor} cannot finish: it is {state}")
            for episode in episodes:
                _put_episode(db, episode, stamp)
            for receiver, message, body in bodies:
                _put_message(db, receiver, message, body, stamp)
            for window in result.reopened:
                db.run("reopen", monitor=result.monitor, start=_stamp(window.start), end=_stamp(window.end))
            count_run(db, result, (run, stamp))
            for name, labels, by in counts:
                count(db, name, labels, by, (run, stamp))
            for name, labels, value in observations:
                observe(db, name, labels, value, (run, stamp))
            if retraining is not None:
                put(db, retraining)

    def revise(self, run: int, result: CheckResult, *, changed: bool) -> None:
        """Put what a reopened run found in the place of its result; of a run that is none, nothing.

        Args:
            run: the ledger row.
            result: what is to be kept.
            changed: whether that is another result, which is counted (windows_revised_total).
        """
        with self._database.transaction() as db:
            if db.run("revise", run=run, **_columns(result)).rowcount and changed:
                count(db, "windows_revised_total", {"monitor": result.monitor})
            self._parsed = {known: kept for known, kept in self._parsed.items() if known != run}

    def leave(self, run: int) -> None:
        """Judge a reopened run no more: its result stays."""
        with self._database.transaction() as db:
            db.run("leave", run=run)

    def fill(self, result: CheckResult, *, now: datetime, episodes: Sequence[Episode] = ()) -> bool:
        """Record a window of the past and the changed episodes: all or nothing. Nothing is sent, nothing counted.

        Returns:
            False when the window has a result already; then nothing of this call is stored.
        """
        window, stamp, columns = result.window, _stamp(now), _columns(result)
        with self._database.transaction() as db:
            start, end = _stamp(window.start), _stamp(window.end)
            if not db.run("fill", monitor=result.monitor, start=start, end=end, now=stamp, **columns).rowcount:
                return False
            for episode in episodes:
                _put_episode(db, episode, stamp)
        return True

    def judged_ends(self, monitor: str) -> list[datetime]:
        """Where the finished windows of a monitor end, whatever their verdict, oldest first."""
        with self._database.transaction("DEFERRED") as db:
            return [_time(end) for (end,) in db.run("judged_ends", monitor=monitor)]

    def result(self, run: int) -> CheckResult | None:
        """What is kept of the result of a finished run: all of it, or after `retention.results` its summary."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("result", run=run).fetchone()
        return row and self._read_result(*row)

    def results(self, monitor: str, limit: int) -> list[tuple[int, CheckResult]]:
        """The newest finished windows of a monitor and their run ids, newest first; without features, quality."""
        with self._database.transaction("DEFERRED") as db:
            rows = db.run("summaries", monitor=monitor, limit=limit).fetchall()
        return [(row[0], result) for row in rows if (result := self._read_result(*row)) is not None]

    def judged_run(self, monitor: str) -> int | None:
        """The run of the newest window judged ok, drift or broken."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("judged_run", monitor=monitor).fetchone()
        return row and int(row[0])

    def run_of(self, monitor: str, end: datetime) -> int | None:
        """The finished run of the window that ends at a time."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("run_of", monitor=monitor, end=_stamp(end)).fetchone()
        return row and int(row[0])

    def _read_result(self, run: int, summary: str, blob: bytes | None) -> CheckResult | None:
        whole = None
        if blob is not None:
            whole = self._read(f"the result of run {run}", partial(_unpack, blob))
        return whole or self._read(f"the summary of run {run}", partial(CheckResult.model_validate_json, summary))

    def _read_episodes(self, rows: Sequence[tuple[str, str]]) -> list[Episode]:
        episodes = (
            self._read(f"episode {name}", partial(Episode.model_validate_json, body)) for name, body in rows
        )
        return [episode for episode in episodes if episode is not None]

    def _read(self, what: str, parse: Callable[[], _T]) -> _T | None:
        try:
            return parse()
        except (ValidationError, zlib.error) as error:
            if what not in self._unreadable:
                self._unreadable.add(what)
                log.error("something stored cannot be read", extra=fields(what=what, error=error))  # noqa: TRY400
            return None

    # -- episodes ----------------------------------------------------------------------------------

    def episode(self, monitor: str, lane: Lane, by: datetime | None = None) -> Episode | None:
        """The newest episode of a lane, open or closed; with `by` of those that had opened by then."""
        stamp = None if by is None else _stamp(by)
        with self._database.transaction("DEFERRED") as db:
            rows = db.run("newest_episode", monitor=monitor, lane=lane, by=stamp).fetchall()
        return next(iter(self._read_episodes(rows)), None)

    def episodes(self, monitor: str | None, limit: int) -> list[Episode]:
        """Episodes, newest first."""
        with self._database.transaction("DEFERRED") as db:
            rows = db.run("episodes", monitor=monitor, limit=limit).fetchall()
        return self._read_episodes(rows)

    # -- outbox ------------------------------------------------------------------------------------

    def next_delivery(self, receivers: Sequence[str], now: datetime) -> Delivery | None:
        """The pending delivery to attempt now: the oldest of its (receiver, group) and past its next_attempt.

        One that was never tried does not wait, and one that would wait longer than any schedule does is due:
        the clock was set back.
        """
        with self._database.transaction("DEFERRED") as db:
            row = db.run(
                "next_delivery",
                receivers=json.dumps(list(receivers)),
                now=_stamp(now),
                furthest=_stamp(now + FURTHEST),
            ).fetchone()
        return row and _delivery(row)

    def next_attempt_at(self, receivers: Sequence[str]) -> datetime | None:
        """When `next_delivery` will next have something; None when nothing is pending."""
        with self._database.transaction("DEFERRED") as db:
            (stamp,) = db.run("next_attempt_at", receivers=json.dumps(list(receivers))).fetchone()
        return None if stamp is None else _time(stamp)

    def delivered(self, delivery: int, now: datetime, seconds: float) -> None:
        """Record success; `seconds` is how long the request took."""
        with self._database.transaction() as db:
            receiver = count_request(db, delivery, seconds)
            db.run("delivered", id=delivery, now=_stamp(now))
            if receiver is not None:
                db.run("last_success", receiver=receiver, now=_stamp(now))

    def retry_at(self, delivery: int, when: datetime, error: str, reason: str, seconds: float) -> None:
        """Record a failed attempt that will be repeated."""
        with self._database.transaction() as db:
            count_request(db, delivery, seconds, reason)
            db.run("retry_at", id=delivery, when=_stamp(when), error=error)

    def bury(
        self, delivery: int, error: str, reason: str, seconds: float, *, disable_at: datetime | None = None
    ) -> None:
        """Record a failed attempt after which the message is dead: kept, counted, replayable.

        With `disable_at` (the time now) its receiver is disabled too, with `error` as the reason: what waits for
        it and what comes later is dead, until one of its messages is replayed.
        """
        with self._database.transaction() as db:
            receiver = count_request(db, delivery, seconds, reason)
            dead = db.run("bury", id=delivery, error=error).rowcount
            if receiver is None:
                return
            if disable_at is not None:
                db.run("disable_receiver", receiver=receiver, now=_stamp(disable_at), reason=error)
                dead += db.run("bury_all", receiver=receiver, reason=error).rowcount
            if dead:
                count(db, "outbox_dead_letters_total", {"receiver": receiver}, dead)

    def begin_attempt(self, delivery: int, now: datetime) -> None:
        """Record that an attempt begins which must not be repeated if its outcome is lost."""
        with self._database.transaction() as db:
            db.run("begin_attempt", id=delivery, now=_stamp(now))

    def bury_begun(self, error: str) -> int:
        """At start-up: such attempts that died with the last process are dead letters; how many there were."""
        with self._database.transaction() as db:
            receivers = [row[0] for row in db.run("bury_begun", error=error).fetchall()]
            for receiver in receivers:
                count(db, "outbox_dead_letters_total", {"receiver": receiver})
        return len(receivers)

    def deliveries(self, state: str | None = None, limit: int = 1000) -> list[Delivery]:
        """Outbox rows, oldest first."""
        with self._database.transaction("DEFERRED") as db:
            return [_delivery(row) for row in db.run("deliveries", state=state, limit=limit)]

    def replay(self, delivery: int, now: datetime) -> bool:
        """Make a dead or pending delivery due now with a fresh schedule; False when there is none such.

        Its receiver is enabled again, if it was not; its other dead messages wait to be asked for.
        """
        with self._database.transaction() as db:
            found = bool(db.run("replay", id=delivery, now=_stamp(now)).rowcount)
            if found:
                db.run("enable_receiver", id=delivery)
        return found

    def drop(self, delivery: int) -> bool:
        """Delete a dead or pending delivery; False when there is none such."""
        with self._database.transaction() as db:
            return bool(db.run("drop", id=delivery).rowcount)

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
        with self._database.transaction("DEFERRED") as db:
            latest = db.run("latest").fetchall()
            wanted = {run for row in latest for run in row[1:3] if run is not None}
            known = self._parsed  # once: another thread may put its own there
            rows = [db.run("result", run=run).fetchone() for run in wanted - known.keys()]
            episodes = db.run("open_episodes").fetchall()
            counters = dict(read_counters(db))
            histograms = dict(read_histograms(db))
            exemplars: dict[Series, list[Exemplar]] = {}
            for series, run, value, at in read_exemplars(db):
                exemplars.setdefault(series, []).append(Exemplar(run, value, _time(at)))
            totals = db.run("outbox_totals").fetchall()
            disabled = db.run("disabled_receivers").fetchall()
            successes = db.run("last_successes").fetchall()
            retrainings = read_retrainings(db.run("newest_retrainings").fetchall())
        parsed = {run: known[run] for run in wanted & known.keys()}
        parsed |= {row[0]: _light(self._read_result(*row)) for row in rows}
        self._parsed = parsed
        return Snapshot(
            latest={monitor: found for monitor, run, _, _, _ in latest if (found := parsed.get(run))},
            latest_judged={monitor: found for monitor, _, run, _, _ in latest if (found := parsed.get(run))},
            finished={monitor: _time(at) for monitor, _, _, at, _ in latest if at is not None},
            succeeded={monitor: _time(at) for monitor, _, _, _, at in latest if at is not None},
            open_episodes=tuple(self._read_episodes(episodes)),
            counters=counters,
            histograms=histograms,
            outbox={(receiver, state): (n, _time(oldest)) for receiver, state, n, oldest in totals},
            disabled_receivers=dict(disabled),
            last_delivery={receiver: _time(at) for receiver, at in successes},
            judged_runs={monitor: run for monitor, _, run, _, _ in latest if run is not None},
            retrainings={found.monitor: found for found in retrainings},
            exemplars=exemplars,
        )

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
            db.run("purge_results", before=_stamp(now - results), keep=keep)
            gone = db.run("purge_due", monitors=watched).rowcount
            gone += db.run("purge_missed", before=_stamp(now - runs)).rowcount
            gone += db.run("purge_runs", before=_stamp(now - runs), keep=keep).rowcount
            gone += db.run("purge_episodes", before=_stamp(now - runs), monitors=watched).rowcount
            gone += db.run("purge_delivered", before=_stamp(now - delivered)).rowcount
            gone += db.run("purge_retrainings", before=_stamp(now - runs), monitors=watched).rowcount
        return gone


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _stamp(when: datetime) -> int:
    return (when - _EPOCH) // _MICROSECOND


def _time(stamp: int) -> datetime:
    return _EPOCH + stamp * _MICROSECOND


def _run(row: tuple[int, str, int, int, RunState, int]) -> Run:
    number, monitor, start, end, state, attempts = row
    window = Window(start=_time(start), end=_time(end))
    return Run(id=number, monitor=monitor, window=window, state=state, attempts=attempts)


def _columns(result: CheckResult) -> dict[str, str | bytes]:
    """A result as the ledger keeps it."""
    return {
        "verdict": result.verdict.value,
        "summary": result.model_copy(update={"features": (), "quality": ()}).model_dump_json(),
        "result": zlib.compress(result.model_dump_json().encode()),
    }


def _state_of(db: Database, run: int) -> str:
    row = db.run("state_of_run", run=run).fetchone()
    return row[0] if row else "not in the ledger"


def _unpack(blob: bytes) -> CheckResult:
    return CheckResult.model_validate_json(zlib.decompress(blob))


def _light(result: CheckResult | None) -> CheckResult | None:
    """A result of 500 features in a fifth of the memory."""
    if result is None:
        return None
    features = tuple(f.model_copy(update={"statistics": {}, "histogram": None}) for f in result.features)
    return result.model_copy(update={"features": features})


def _put_episode(db: Database, episode: Episode, now: int) -> None:
    db.run(
        "put_episode",
        id=episode.id,
        monitor=episode.monitor,
        lane=episode.lane,
        opened=_stamp(episode.opened),
        closed=None if episode.closed is None else _stamp(episode.closed),
        now=now,
        body=episode.model_dump_json(),
    )


def _put_message(db: Database, receiver: str, message: Message, body: bytes, now: int) -> None:
    new = db.run(
        "put_message",
        receiver=receiver,
        event_id=message.id,
        type=message.type,
        group=message.group,
        body=body,
        now=now,
    ).fetchall()
    if new == [("dead",)]:  # its receiver is disabled
        count(db, "outbox_dead_letters_total", {"receiver": receiver})


def _delivery(
    row: tuple[
        int, str, str, str, str, bytes, int, Literal["pending", "delivered", "dead"], int, int | None, str | None
    ],
) -> Delivery:
    number, event_id, receiver, kind, group, body, attempts, state, created, next_attempt, last_error = row
    return Delivery(
        id=number,
        event_id=event_id,
        receiver=receiver,
        type=kind,
        group=group,
        body=body,
        attempts=attempts,
        state=state,
        created=_time(created),
        next_attempt=None if next_attempt is None else _time(next_attempt),
        last_error=last_error,
    )
