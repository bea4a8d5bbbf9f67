"""Delivers what the store holds: at least once, in order within a group, with one id over all attempts."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from drift_monitor.config.receivers import Receiver
from drift_monitor.core.errors import DeliveryError, StoreError
from drift_monitor.core.policy import format_duration
from drift_monitor.service.deliveries import Deliveries, Delivery

log = logging.getLogger(__name__)

RETRIES = tuple(  # waits after a failed attempt (Standard Webhooks); when they are used up the message is dead
    timedelta(seconds=s) for s in (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 86_400)
)
LONGEST = timedelta(hours=24)
JITTER = 0.1  # a wait grows by up to this share, so that receivers which failed together are not tried together
_LOOK = 60.0  # seconds; wait no longer without a look at the wall clock, which may have been set
_STORE_PAUSE = 5.0  # seconds until a store that failed is tried again

_LOOK_THERE = (
    "it may have arrived, and the receiver would take a repeat for a second request: look there, then "
    "`drift-monitor outbox retry` or `drop` it"
)

Send = Callable[[Receiver, str, bytes, datetime], object]  # what became of it, for the log


def wall_clock() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


def wait_after(
    attempts: int, retries: Sequence[timedelta], retry_after: timedelta | None, rng: random.Random
) -> timedelta | None:
    """How long to wait after a failed attempt.

    Args:
        attempts: made so far, >= 1.
        retries: the waits after the first, second ... failure.
        retry_after: what the receiver asked for; it lengthens a wait and never shortens one, since short waits
            would use up the attempts.
        rng: for the jitter.

    Returns:
        None when the schedule is used up.
    """
    if attempts > len(retries):
        return None
    wait = max(retries[attempts - 1], min(retry_after or timedelta(0), LONGEST))
    return wait * (1 + JITTER * rng.random())


class Outbox:
    """One thread a receiver, so that a slow one delays no other.

    Args:
        deliveries: where the messages are.
        receivers: by name.
        clock: the wall clock (never a replayed one): attempts are signed and planned with it.
        send: delivers one event or raises DeliveryError (`drift_monitor.receivers.send`).
        is_repeatable: whether a receiver knows a repeat as one; to one that does not, nothing is sent again whose
            outcome is not known.
        retries: waits after failed attempts, none longer than 24 hours.
        rng: for the jitter.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        receivers: Mapping[str, Receiver],
        clock: Callable[[], datetime],
        send: Send,
        *,
        is_repeatable: Callable[[Receiver], bool] = lambda _: True,
        retries: Sequence[timedelta] = RETRIES,
        rng: random.Random | None = None,
    ) -> None:
        if any(not timedelta(0) <= wait <= LONGEST for wait in retries):
            raise ValueError(
                f"a wait between attempts must be 0 to 24 hours, got {[str(wait) for wait in retries]}"
            )
        self._deliveries = deliveries
        self._receivers = dict(receivers)
        self._clock = clock
        self._send = send
        self._is_repeatable = is_repeatable
        self._retries = tuple(retries)
        self._rng = rng or random.Random()  # noqa: S311 (spreads load, guards nothing)
        self._guard = threading.Lock()  # of _receivers and _lanes
        self._lanes: dict[str, _Lane] = {}
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to deliver, with what was left from before.

        Raises:
            StoreError: the store cannot be used.
        """
        if lost := self._deliveries.bury_begun(f"the daemon died while it was sent: {_LOOK_THERE}"):
            log.error("%d messages may or may not have arrived: `drift-monitor outbox list --state dead`", lost)
        with self._guard:
            self._start_lanes()

    def kick(self) -> None:
        """Look at the store now: something was added."""
        with self._guard:
            for lane in self._lanes.values():
                lane.wake.set()

    def reconfigure(self, receivers: Mapping[str, Receiver]) -> None:
        """Deliver to these receivers from now on. What waits for one that is gone stays in the store."""
        with self._guard:
            self._receivers = dict(receivers)
            self._start_lanes()
            for lane in self._lanes.values():
                lane.wake.set()

    def stop(self, grace: timedelta) -> bool:
        """Take on nothing new and wait for attempts under way; what is not settled then is sent again later.

        Returns:
            Whether every attempt came to its end.
        """
        self._stopping.set()
        self.kick()
        with self._guard:
            threads = [lane.thread for lane in self._lanes.values()]
        end = time.monotonic() + grace.total_seconds()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _start_lanes(self) -> None:
        for name in self._receivers.keys() - self._lanes.keys():
            self._lanes[name] = lane = _Lane(name, self._serve)
            lane.thread.start()

    def _serve(self, lane: _Lane) -> None:
        while True:
            lane.wake.clear()  # before the look, so that a kick during it is not missed
            receiver = self._receiver(lane)
            if receiver is None:
                return
            try:
                delivery = self._deliveries.next_delivery([lane.name], self._clock())
                pause = 0.0 if delivery else self._pause(lane.name)
            except StoreError as error:
                log.error("receiver %s: the outbox cannot be read: %s", lane.name, error)  # noqa: TRY400
                delivery, pause = None, _STORE_PAUSE
            if delivery is None:
                lane.wake.wait(pause)
            else:
                self._attempt(receiver, delivery)

    def _receiver(self, lane: _Lane) -> Receiver | None:
        """The lane's receiver as configured now; None, and the lane is taken down, when it has to end."""
        with self._guard:
            receiver = None if self._stopping.is_set() else self._receivers.get(lane.name)
            if receiver is None and not self._stopping.is_set():
                del self._lanes[lane.name]
        return receiver

    def _pause(self, name: str) -> float:
        due = self._deliveries.next_attempt_at([name])
        if due is None:
            return _LOOK
        return min(max((due - self._clock()).total_seconds(), 0.01), _LOOK)

    def _attempt(self, receiver: Receiver, delivery: Delivery) -> None:
        outcome: object
        repeatable = self._is_repeatable(receiver)
        began = time.monotonic()
        try:
            if not repeatable:
                self._deliveries.begin_attempt(delivery.id, self._clock())
            outcome = self._send(receiver, delivery.event_id, delivery.body, self._clock())
        except DeliveryError as error:
            outcome = error
        except StoreError as error:  # nothing was sent
            log.error("receiver %s: an attempt cannot be recorded: %s", delivery.receiver, error)  # noqa: TRY400
            self._stopping.wait(_STORE_PAUSE)
            return
        except Exception as error:  # whatever a receiver's code does, its messages stay and the others go on
            log.exception("receiver %s: an attempt broke off", delivery.receiver)
            outcome = DeliveryError(f"internal error: {type(error).__name__}: {error}", "internal", uncertain=True)
        if isinstance(outcome, DeliveryError) and repeatable:
            outcome.uncertain = False  # no matter: it can be sent again
        seconds = time.monotonic() - began
        while True:
            try:
                self._settle(delivery, outcome, seconds)
            except StoreError as error:
                # Not sent again meanwhile: the outcome is known, it only cannot be written down.
                log.error("receiver %s: an outcome cannot be stored: %s", delivery.receiver, error)  # noqa: TRY400
                if self._stopping.wait(_STORE_PAUSE):
                    return
            else:
                return

    def _settle(self, delivery: Delivery, outcome: object, seconds: float) -> None:
        now = self._clock()
        if not isinstance(outcome, DeliveryError):
            self._deliveries.delivered(delivery.id, now, seconds)
            said = outcome or "delivered"
            log.info("receiver %s: %s %s: %s", delivery.receiver, delivery.type, delivery.event_id, said)
            return
        failure = outcome
        wait = wait_after(delivery.attempts + 1, self._retries, failure.retry_after, self._rng)
        if failure.reason == "gone":
            error = f"{failure}; it is disabled until `drift-monitor outbox retry`"
            self._deliveries.bury(delivery.id, error, failure.reason, seconds, disable_at=now)
            log.error("receiver %s: %s", delivery.receiver, error)
        elif failure.uncertain:
            self._deliveries.bury(delivery.id, f"{failure}; {_LOOK_THERE}", failure.reason, seconds)
            log.error("receiver %s: %s may or may not have arrived", delivery.receiver, delivery.event_id)
        elif wait is None:
            self._deliveries.bury(delivery.id, str(failure), failure.reason, seconds)
            log.error("receiver %s: gave up on %s: %s", delivery.receiver, delivery.event_id, failure)
        else:
            self._deliveries.retry_at(delivery.id, now + wait, str(failure), failure.reason, seconds)
            pause = format_duration(timedelta(seconds=round(wait.total_seconds())))
            log.warning("receiver %s: %s; trying again in %s", delivery.receiver, failure, pause)


class _Lane:
    """The thread of one receiver."""

    def __init__(self, name: str, serve: Callable[[_Lane], None]) -> None:
        self.name = name
        self.wake = threading.Event()
        self.thread = threading.Thread(target=serve, args=(self,), name=f"outbox-{name}", daemon=True)
