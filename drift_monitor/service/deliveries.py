"""The rows of the outbox: what is to be sent, to whom, when, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from drift_monitor.core.types import Message, Value
from drift_monitor.service.counters import count, count_request
from drift_monitor.service.database import Database, stamp_of, time_of

FURTHEST = timedelta(hours=28)  # no retry waits longer (24 h and jitter): further ahead means a clock was set back


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


class Deliveries:
    """The outbox of one state database; every public method is one transaction.

    It counts webhook_requests_total, webhook_request_failures_total and outbox_dead_letters_total.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def next_delivery(self, receivers: Sequence[str], now: datetime) -> Delivery | None:
        """The pending delivery to attempt now: the oldest of its (receiver, group) and past its next_attempt.

        One that was never tried does not wait, and one that would wait longer than any schedule does is due:
        the clock was set back.
        """
        with self._database.transaction("DEFERRED") as db:
            row = db.run(
                "next_delivery",
                receivers=json.dumps(list(receivers)),
                now=stamp_of(now),
                furthest=stamp_of(now + FURTHEST),
            ).fetchone()
        return row and _delivery(row)

    def next_attempt_at(self, receivers: Sequence[str]) -> datetime | None:
        """When `next_delivery` will next have something; None when nothing is pending."""
        with self._database.transaction("DEFERRED") as db:
            (stamp,) = db.run("next_attempt_at", receivers=json.dumps(list(receivers))).fetchone()
        return None if stamp is None else time_of(stamp)

    def delivered(self, delivery: int, now: datetime, seconds: float) -> None:
        """Record success; `seconds` is how long the request took."""
        with self._database.transaction() as db:
            receiver = count_request(db, delivery, seconds)
            db.run("delivered", id=delivery, now=stamp_of(now))
            if receiver is not None:
                db.run("last_success", receiver=receiver, now=stamp_of(now))

    def retry_at(self, delivery: int, when: datetime, error: str, reason: str, seconds: float) -> None:
        """Record a failed attempt that will be repeated."""
        with self._database.transaction() as db:
            count_request(db, delivery, seconds, reason)
            db.run("retry_at", id=delivery, when=stamp_of(when), error=error)

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
                db.run("disable_receiver", receiver=receiver, now=stamp_of(disable_at), reason=error)
                dead += db.run("bury_all", receiver=receiver, reason=error).rowcount
            if dead:
                count(db, "outbox_dead_letters_total", {"receiver": receiver}, dead)

    def begin_attempt(self, delivery: int, now: datetime) -> None:
        """Record that an attempt begins which must not be repeated if its outcome is lost."""
        with self._database.transaction() as db:
            db.run("begin_attempt", id=delivery, now=stamp_of(now))

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
            found = bool(db.run("replay", id=delivery, now=stamp_of(now)).rowcount)
            if found:
                db.run("enable_receiver", id=delivery)
        return found

    def drop(self, delivery: int) -> bool:
        """Delete a dead or pending delivery; False when there is none such."""
        with self._database.transaction() as db:
            return bool(db.run("drop", id=delivery).rowcount)


def put_message(db: Database, receiver: str, message: Message, body: bytes, now: int) -> None:
    """Enter a rendered message, inside a transaction; one that is known already is left as it is."""
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
        created=time_of(created),
        next_attempt=None if next_attempt is None else time_of(next_attempt),
        last_error=last_error,
    )
