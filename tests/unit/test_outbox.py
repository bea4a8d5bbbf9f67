"""The outbox: retries, order, what a receiver's answer leads to, reload and stop."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import HttpUrl

from drift_monitor.config.receivers import Receiver, WebhookReceiver
from drift_monitor.core.errors import DeliveryError
from drift_monitor.core.types import CheckResult, Message, Outcome, Window
from drift_monitor.service.deliveries import FURTHEST, Delivery
from drift_monitor.service.outbox import JITTER, LONGEST, RETRIES, Outbox, wait_after, wall_clock
from drift_monitor.service.store import Store

T0 = datetime(2013, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
AT_ONCE = (timedelta(0),) * 3
ENDS = 60.0  # seconds a test waits for what must happen


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Receivers:
    """The far side: says what each receiver answers, and remembers what arrived."""

    def __init__(self) -> None:
        self.tried: list[tuple[str, str]] = []  # (receiver's host, event id)
        self.answers: dict[str, Callable[[str], None]] = {}
        self._changed = threading.Condition()

    def send(self, receiver: Receiver, event_id: str, body: bytes, now: datetime) -> None:
        host = receiver.url.host or ""
        with self._changed:
            self.tried.append((host, event_id))
            self._changed.notify_all()
        if answer := self.answers.get(host):
            answer(event_id)

    def wait_for(self, n: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.tried) >= n, ENDS)


def fails(reason: str = "status_5xx", retry_after: timedelta | None = None) -> Callable[[str], None]:
    def answer(event_id: str) -> None:
        raise DeliveryError(f"no to {event_id}", reason, retry_after)

    return answer


def receiver(host: str) -> Receiver:
    return WebhookReceiver(type="webhook", url=HttpUrl(f"http://{host}/"), secret_file=Path("unused"))


def receivers(*names: str) -> dict[str, Receiver]:
    return {name: receiver(name) for name in names}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def far() -> Receivers:
    return Receivers()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(store: Store, far: Receivers, clock: Clock) -> Iterator[Callable[..., Outbox]]:
    """Start outboxes that are stopped at the end of the test."""
    started: list[Outbox] = []

    def start(configured: Mapping[str, Receiver], **options: Any) -> Outbox:
        outbox = Outbox(store.outbox, configured, clock, far.send, **options)
        started.append(outbox)
        outbox.start()
        return outbox

    yield start
    for outbox in started:
        assert outbox.stop(timedelta(seconds=ENDS))


def put(store: Store, *messages: tuple[str, str, str]) -> None:
    """Store messages given as (receiver, event id, group)."""
    known = store.newest_window("m")
    start = known.end if known else T0
    window = Window(start=start, end=start + SECOND)
    store.enqueue("m", [window])
    pairs = [
        (name, Message(id=event, type="t", source="/s", subject="m", time=T0, group=group, data={}))
        for name, event, group in messages
    ]
    result = CheckResult(monitor="m", window=window, rows=1, verdict=Outcome.OK, reason="", promise="")
    store.finish(store.due()[0].id, result, now=NOW, messages=pairs)


def settled(store: Store, *states: str) -> list[Delivery]:
    """The deliveries, once they are in these states."""
    for _ in range(int(ENDS / 0.01)):
        found = store.outbox.deliveries()
        if [delivery.state for delivery in found] == list(states):
            return found
        threading.Event().wait(0.01)
    raise AssertionError(store.outbox.deliveries())


# -- the schedule ----------------------------------------------------------------------------------


def test_the_schedule_is_the_standard_one() -> None:
    hours = [wait.total_seconds() / 3600 for wait in RETRIES]
    assert hours == pytest.approx([5 / 3600, 5 / 60, 0.5, 2, 5, 10, 14, 20, 24])
    rng = random.Random(1)
    waits = [wait_after(attempts, RETRIES, None, rng) for attempts in range(1, 12)]
    for wait, base in zip(waits, RETRIES, strict=False):
        assert wait is not None
        assert base <= wait <= base * (1 + JITTER)
    assert waits[9:] == [None, None]
    assert FURTHEST > LONGEST * (1 + JITTER)  # or the store would take the last wait for a clock set back


def test_jitter_spreads_waits() -> None:
    rng = random.Random(1)
    assert len({wait_after(1, RETRIES, None, rng) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("attempts", "asked", "least"),
    [
        (1, timedelta(minutes=10), timedelta(minutes=10)),
        (2, timedelta(seconds=1), timedelta(minutes=5)),
        (1, timedelta(days=9), LONGEST),
        (9, timedelta(days=9), LONGEST),
        (1, timedelta(0), timedelta(seconds=5)),
    ],
)
def test_retry_after_lengthens_a_wait_up_to_a_day(attempts: int, asked: timedelta, least: timedelta) -> None:
    wait = wait_after(attempts, RETRIES, asked, random.Random(1))
    assert wait is not None
    assert least <= wait <= least * (1 + JITTER)


def test_a_wait_of_more_than_a_day_is_refused(store: Store, far: Receivers, clock: Clock) -> None:
    for wait in (timedelta(hours=25), timedelta(seconds=-1)):
        with pytest.raises(ValueError, match="0 to 24 hours"):
            Outbox(store.outbox, {}, clock, far.send, retries=(wait,))


def test_the_wall_clock_is_in_utc() -> None:
    assert wall_clock().tzinfo is UTC


# -- delivery --------------------------------------------------------------------------------------


def test_what_waits_is_delivered_at_start_and_what_comes_at_a_kick(
    store: Store, far: Receivers, run: Callable[..., Outbox]
) -> None:
    put(store, ("a", "1", "g"), ("b", "1", "g"))
    outbox = run(receivers("a", "b"))
    settled(store, "delivered", "delivered")
    put(store, ("a", "2", "g"))
    outbox.kick()
    settled(store, *["delivered"] * 3)
    assert sorted(far.tried) == [("a", "1"), ("a", "2"), ("b", "1")]
    assert store.snapshot().last_delivery == {"a": NOW, "b": NOW}


def test_a_failed_attempt_is_repeated_until_it_is_dead(
    store: Store, far: Receivers, run: Callable[..., Outbox]
) -> None:
    far.answers["a"] = fails("timeout")
    put(store, ("a", "1", "g"))
    run(receivers("a"), retries=AT_ONCE)
    (dead,) = settled(store, "dead")
    assert (dead.attempts, dead.last_error) == (4, "no to 1")
    assert far.tried == [("a", "1")] * 4
    counters = store.snapshot().counters
    assert counters["webhook_requests_total", (("receiver", "a"),)] == 4
    assert counters["webhook_request_failures_total", (("reason", "timeout"), ("receiver", "a"))] == 4
    assert counters["outbox_dead_letters_total", (("receiver", "a"),)] == 1


def test_a_group_stays_in_order_while_its_first_message_is_retried(
    store: Store, far: Receivers, run: Callable[..., Outbox]
) -> None:
    def answer(event_id: str) -> None:
        if event_id == "1" and far.tried.count(("a", "1")) < 3:
            fails()(event_id)

    far.answers["a"] = answer
    put(store, ("a", "1", "g"), ("a", "2", "g"))
    run(receivers("a"), retries=AT_ONCE)
    settled(store, "delivered", "delivered")
    assert [event for _, event in far.tried] == ["1", "1", "1", "2"]


def test_a_slow_receiver_delays_no_other(store: Store, far: Receivers, run: Callable[..., Outbox]) -> None:
    free = threading.Event()
    far.answers["slow"] = lambda event_id: assert_(free.wait(ENDS))
    put(store, ("slow", "1", "g"), ("quick", "1", "g"), ("quick", "2", "g"))
    run(receivers("slow", "quick"))
    settled(store, "pending", "delivered", "delivered")
    free.set()
    settled(store, *["delivered"] * 3)


def assert_(fact: bool) -> None:
    assert fact


def test_the_next_attempt_is_planned_by_the_wall_clock(
    store: Store, far: Receivers, clock: Clock, run: Callable[..., Outbox]
) -> None:
    far.answers["a"] = fails("status_4xx", timedelta(hours=3))
    put(store, ("a", "1", "g"))
    outbox = run(receivers("a"))
    far.wait_for(1)
    while not (planned := store.outbox.deliveries()[0]).attempts:
        threading.Event().wait(0.01)
    assert planned.next_attempt
    assert timedelta(hours=3) <= planned.next_attempt - NOW <= timedelta(hours=3) * (1 + JITTER)
    assert store.outbox.next_delivery(["a"], NOW) is None
    del far.answers["a"]
    clock.now = planned.next_attempt
    outbox.kick()
    settled(store, "delivered")


@pytest.mark.parametrize("jump", [timedelta(days=-30), timedelta(days=30)])
def test_a_jump_of_the_wall_clock_loses_nothing(
    store: Store, far: Receivers, clock: Clock, run: Callable[..., Outbox], jump: timedelta
) -> None:
    far.answers["a"] = fails()
    put(store, ("a", "1", "g"))
    outbox = run(receivers("a"))
    far.wait_for(1)
    while not store.outbox.deliveries()[0].attempts:
        threading.Event().wait(0.01)
    del far.answers["a"]
    clock.now += jump
    outbox.kick()
    settled(store, "delivered")


def test_410_disables_the_receiver_until_a_message_is_replayed(
    store: Store, far: Receivers, run: Callable[..., Outbox]
) -> None:
    far.answers["a"] = fails("gone")
    put(store, ("a", "1", "g"), ("a", "2", "h"))
    outbox = run(receivers("a"))
    dead = settled(store, "dead", "dead")
    assert far.tried == [("a", "1")]
    assert "disabled until `drift-monitor outbox retry`" in str(dead[1].last_error)
    del far.answers["a"]
    for delivery in dead:
        store.outbox.replay(delivery.id, NOW)
    outbox.kick()
    settled(store, "delivered", "delivered")


def test_a_receiver_whose_code_breaks_is_a_failure_like_any_other(
    store: Store, far: Receivers, run: Callable[..., Outbox]
) -> None:
    def breaks(event_id: str) -> None:
        raise KeyError("surprise")

    far.answers["a"] = breaks
    put(store, ("a", "1", "g"))
    run(receivers("a"), retries=())
    (dead,) = settled(store, "dead")
    assert dead.last_error == "internal error: KeyError: 'surprise'"
    failures = store.snapshot().counters
    assert failures["webhook_request_failures_total", (("reason", "internal"), ("receiver", "a"))] == 1


def test_an_outcome_that_cannot_be_stored_is_kept_and_not_sent_again(
    store: Store,
    far: Receivers,
    run: Callable[..., Outbox],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("drift_monitor.service.outbox._STORE_PAUSE", 0.01)
    database = store._database

    def read_only(event_id: str) -> None:
        database._connection.execute("PRAGMA query_only = ON")  # the disk turns read-only while it is on its way

    far.answers["a"] = read_only
    put(store, ("a", "1", "g"))
    run(receivers("a"))
    while "an outcome cannot be stored" not in caplog.text:
        threading.Event().wait(0.01)
    assert "is read-only" in caplog.text
    with database.transaction("DEFERRED"):
        database._connection.execute("PRAGMA query_only = OFF")
    settled(store, "delivered")
    assert far.tried == [("a", "1")]


# -- reload and stop -------------------------------------------------------------------------------


def test_reconfigure_swaps_receivers_and_loses_nothing(
    store: Store, far: Receivers, run: Callable[..., Outbox]
) -> None:
    outbox = run(receivers("a"))
    put(store, ("a", "1", "g"), ("b", "1", "g"))
    outbox.kick()
    settled(store, "delivered", "pending")
    outbox.reconfigure({"b": receiver("new-b")})
    settled(store, "delivered", "delivered")
    put(store, ("a", "2", "g"), ("b", "2", "g"))
    outbox.kick()
    settled(store, "delivered", "delivered", "pending", "delivered")
    outbox.reconfigure({"a": receiver("new-a"), "b": receiver("newer-b")})
    settled(store, *["delivered"] * 4)
    assert sorted(far.tried) == [("a", "1"), ("new-a", "2"), ("new-b", "1"), ("new-b", "2")]


def test_a_receiver_that_goes_and_comes_back_during_an_attempt_is_tried_once(
    store: Store, far: Receivers, run: Callable[..., Outbox]
) -> None:
    free = threading.Event()
    far.answers["a"] = lambda event_id: assert_(free.wait(ENDS))
    put(store, ("a", "1", "g"), ("a", "2", "g"))
    outbox = run(receivers("a"))
    far.wait_for(1)
    outbox.reconfigure({})
    outbox.reconfigure(receivers("a"))
    free.set()
    settled(store, "delivered", "delivered")
    assert far.tried == [("a", "1"), ("a", "2")]


def test_stop_waits_for_an_attempt_under_way_and_begins_no_other(
    store: Store, far: Receivers, clock: Clock
) -> None:
    free = threading.Event()
    far.answers["a"] = lambda event_id: assert_(free.wait(ENDS))
    put(store, ("a", "1", "g"), ("a", "2", "g"))
    outbox = Outbox(store.outbox, receivers("a", "idle"), clock, far.send)
    outbox.start()
    far.wait_for(1)
    assert not outbox.stop(timedelta(0))
    free.set()
    assert outbox.stop(timedelta(seconds=ENDS))
    settled(store, "delivered", "pending")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("outbox-")]


def test_an_attempt_that_outlives_the_store_ends_quietly_and_is_repeated(tmp_path: Path, far: Receivers) -> None:
    free = threading.Event()
    far.answers["a"] = lambda event_id: assert_(free.wait(ENDS))
    store = Store.open(tmp_path)
    put(store, ("a", "1", "g"))
    outbox = Outbox(store.outbox, receivers("a"), wall_clock, far.send)
    outbox.start()
    far.wait_for(1)
    assert not outbox.stop(timedelta(0))
    store.close()
    free.set()
    assert outbox.stop(timedelta(seconds=ENDS))
    again = Store.open(tmp_path)
    outbox = Outbox(again.outbox, receivers("a"), wall_clock, far.send)
    outbox.start()
    settled(again, "delivered")
    assert far.tried == [("a", "1")] * 2
    assert outbox.stop(timedelta(seconds=ENDS))
    again.close()
