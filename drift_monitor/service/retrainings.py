"""The ledger of retrainings: its rows in the store, moved on one event at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from pydantic import ValidationError

from drift_monitor.core.cloudevents import render
from drift_monitor.core.retraining import (
    IN_FLIGHT,
    Event,
    Retraining,
    RetrainingError,
    State,
    advance,
    broken_data,
)
from drift_monitor.core.types import Episode, Message, Outcome
from drift_monitor.service.counters import count
from drift_monitor.service.database import Database, stamp_of
from drift_monitor.service.logs import fields

log = logging.getLogger(__name__)

Say = Callable[[Retraining], Sequence[tuple[str, Message]]]
PutMessage = Callable[[Database, str, Message, bytes, int], None]
PutEpisode = Callable[[Database, Episode, int], None]


class Retrainings:
    """The retrainings of one state database; every public method is one transaction.

    Args:
        database: of the store.
        put_message: enters a rendered message in the outbox, inside a transaction.
        put_episode: writes an episode, inside a transaction.
    """

    def __init__(self, database: Database, put_message: PutMessage, put_episode: PutEpisode) -> None:
        self._database, self._put_message, self._put_episode = database, put_message, put_episode

    def find(self, name: str) -> Retraining:
        """One by its id, or by the first digits of it.

        Raises:
            RetrainingError: there is none, or more than one.
        """
        with self._database.transaction("DEFERRED") as db:
            return self._find(db, name)

    def newest(self, monitor: str | None, limit: int) -> list[Retraining]:
        """Retrainings of one monitor or of all, newest first."""
        with self._database.transaction("DEFERRED") as db:
            return read_retrainings(db.run("retrainings", monitor=monitor, limit=limit).fetchall())

    def active(self) -> list[Retraining]:
        """Those that are under way or have just gone live, oldest first."""
        with self._database.transaction("DEFERRED") as db:
            found = read_retrainings(db.run("active_retrainings").fetchall())
        return [r for r in found if r.in_flight]

    def move(self, name: str, event: Event, now: datetime, say: Say = lambda _: (), **news: object) -> Retraining:
        """Apply an event and enter the messages about it, all or nothing.

        A retraining that data was found broken for is not approved: it is left as it is.

        Args:
            name: its id, or the first digits of it.
            event: what happened.
            now: the daemon's clock.
            say: the messages about the new state; asked only when it changed.
            **news: what else changed, by attribute.

        Returns:
            Its state after the event.

        Raises:
            RetrainingError: there is none such, or the event cannot follow.
        """
        with self._database.transaction() as db:
            before = self._find(db, name)
            after = advance(before, event, now, **news)
            if after is before:
                return before
            if after.state is State.APPROVED and (why := self._broken(db, after.monitor)):
                raise RetrainingError(f"retraining {after.id[:8]} cannot be approved: {why}")
            if after.state in IN_FLIGHT and before.state not in IN_FLIGHT:
                busy = db.run("busy_retraining", monitor=after.monitor, id=after.id).fetchone()
                if busy is not None:
                    raise RetrainingError(
                        f"retraining {after.id[:8]} is {before.state.value}, and {busy[0][:8]} is under way since"
                    )
            self._write(db, after, say, entered=after.state is not before.state)
        _log(after)
        return after

    def put(self, retraining: Retraining) -> bool:
        """Enter a new one; False when its cause has one, or another of the monitor is under way."""
        with self._database.transaction() as db:
            return put(db, retraining)

    def settle(self, worked_on: Retraining, note: str, say: Say = lambda _: ()) -> Retraining:
        """Record that nothing more is done for one that is live, and why.

        Nothing is recorded when its pipeline has named another training file meanwhile: that is still to be tried.
        """
        with self._database.transaction() as db:
            before = self._find(db, worked_on.id)
            if before.trained_on != worked_on.trained_on:
                return before
            after = before.model_copy(update={"settled": True, "note": note})
            self._write(db, after, say, entered=False)
        return after

    def promoted(
        self,
        worked_on: Retraining,
        now: datetime,
        say: Say,
        *,
        reference: str,
        at: datetime,
        close: Callable[[Episode], tuple[Episode, Sequence[tuple[str, Message]]]],
    ) -> Retraining:
        """Record that its training data is the reference, and close the open drift episode, all or nothing.

        Args:
            worked_on: as it was when the reference was begun.
            now: the daemon's clock.
            say: the messages about it.
            reference: the version that was built.
            at: end of the newest window (event time).
            close: an open drift episode -> the closed one, and what is to be told of it.

        Raises:
            RetrainingError: its pipeline has named another training file meanwhile.
        """
        with self._database.transaction() as db:
            before = self._find(db, worked_on.id)
            if before.trained_on != worked_on.trained_on:
                raise RetrainingError(f"retraining {before.id[:8]} was trained on another file, as is told now")
            after = advance(before, Event.PROMOTED, now, reference=reference, promoted_at=at, note="")
            if after is before:
                return before
            self._write(db, after, say, entered=True)
            for (body,) in db.run("open_drift", monitor=after.monitor).fetchall():
                ended, messages = close(Episode.model_validate_json(body))
                self._put_episode(db, ended, stamp_of(now))
                for receiver, message in messages:
                    self._put_message(db, receiver, message, render(message), stamp_of(now))
        _log(after)
        return after

    def message_state(self, receiver: str, event_id: str) -> tuple[str, str] | None:
        """How a message fares: pending, delivered or dead, and the last error; None when it is gone."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("state_of_message", receiver=receiver, event_id=event_id).fetchone()
        return row and (row[0], row[1] or "")

    def episode(self, name: str) -> Episode | None:
        """An episode by its id."""
        with self._database.transaction("DEFERRED") as db:
            row = db.run("episode", id=name).fetchone()
        return row and Episode.model_validate_json(row[1])

    def broken(self, monitor: str) -> str:
        """Why the monitor's data is not fit to train on; empty when nothing speaks against it."""
        with self._database.transaction("DEFERRED") as db:
            return self._broken(db, monitor)

    def _find(self, db: Database, name: str) -> Retraining:
        rows = db.run("retraining", id=name).fetchall() if name else []
        if len(rows) > 1:
            raise RetrainingError(f"more than one retraining begins with {name[:40]!r}: give more of its id")
        found = read_retrainings(rows)
        if not found:
            raise RetrainingError(f"there is no retraining {name[:40]!r}")
        return found[0]

    def _broken(self, db: Database, monitor: str) -> str:
        row = db.run("newest_episode", monitor=monitor, lane="quality", by=None).fetchone()
        if why := broken_data(row and Episode.model_validate_json(row[1]), None):
            return why
        newest = db.run("newest_verdict", monitor=monitor).fetchone()
        return "the data of the newest window is broken" if newest == (Outcome.BROKEN.value,) else ""

    def _write(self, db: Database, after: Retraining, say: Say, *, entered: bool) -> None:
        changed = stamp_of(after.changed)
        body = after.model_dump_json()
        db.run("move_retraining", id=after.id, state=after.state.value, changed=changed, body=body)
        if entered:
            count(db, "retrainings_total", {"monitor": after.monitor, "state": after.state.value})
        for receiver, message in say(after):
            self._put_message(db, receiver, message, render(message), changed)


def put(db: Database, retraining: Retraining) -> bool:
    """Enter a new retraining inside a transaction, or one that was withheld and is prepared anew."""
    changed = stamp_of(retraining.changed)
    body = retraining.model_dump_json()
    known = db.run("retraining", id=retraining.id).fetchone()
    busy = db.run("busy_retraining", monitor=retraining.monitor, id=retraining.id).fetchone()
    if retraining.in_flight and busy is not None:
        return False
    if known is None:
        new = db.run(
            "put_retraining",
            id=retraining.id,
            monitor=retraining.monitor,
            episode=retraining.episode,
            state=retraining.state.value,
            created=stamp_of(retraining.created),
            changed=changed,
            body=body,
        ).rowcount
    else:
        new = db.run("resume_retraining", id=retraining.id, changed=changed, body=body).rowcount
    if new:
        count(db, "retrainings_total", {"monitor": retraining.monitor, "state": retraining.state.value})
    return bool(new)


def read_retrainings(rows: Sequence[tuple[str, str]]) -> list[Retraining]:
    """Those that can be read, of rows of id and JSON."""
    found = []
    for name, body in rows:
        try:
            found.append(Retraining.model_validate_json(body))
        except ValidationError as error:
            log.error("a retraining cannot be read", extra=fields(retraining=name, error=error))  # noqa: TRY400
    return found


def _log(after: Retraining) -> None:
    log.info(
        "retraining %s",
        after.state.value,
        extra=fields(monitor=after.monitor, retraining=after.id, note=after.note or None),
    )
