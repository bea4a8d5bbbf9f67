"""To a receiver that takes a repeat for a second request nothing is sent twice, come a lost answer or a kill."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import HttpUrl

from drift_monitor.config.receivers import RECEIVER_TYPES, Receiver, WebhookReceiver
from drift_monitor.core.errors import DeliveryError
from drift_monitor.core.types import CheckResult, Message, Outcome, Window
from drift_monitor.receivers.http import Deadline, Target, exchange, require_success
from drift_monitor.receivers.template_file import shipped
from drift_monitor.service.deliveries import Delivery
from drift_monitor.service.outbox import Outbox
from drift_monitor.service.store import Store

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ENDS = 60.0
RECEIVER: Receiver = WebhookReceiver(type="webhook", url=HttpUrl("http://h/"), secret_file=Path("unused"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    window = Window(start=NOW, end=NOW + timedelta(hours=1))
    opened.enqueue("m", [window])
    result = CheckResult(monitor="m", window=window, rows=1, verdict=Outcome.OK, reason="r", promise="p")
    message = Message(id="e", type="t", source="s", subject="m", time=NOW, group="g", data={})
    opened.finish(opened.due()[0].id, result, now=NOW, messages=[("r", message)])
    yield opened
    opened.close()


def settled(store: Store) -> Delivery:
    end = time.monotonic() + ENDS
    while (row := store.outbox.deliveries()[0]).state == "pending" and row.attempts == 0:
        assert time.monotonic() < end
        time.sleep(0.01)
    return row


def outbox(store: Store, send: Callable[[], None], *, repeatable: bool) -> Outbox:
    return Outbox(
        store.outbox,
        {"r": RECEIVER},
        lambda: NOW,
        lambda *_: send(),
        is_repeatable=lambda _: repeatable,
        retries=(timedelta(hours=1),),
    )


@pytest.mark.parametrize(
    ("uncertain", "repeatable", "state"),
    [(True, False, "dead"), (False, False, "pending"), (True, True, "pending"), (False, True, "pending")],
)
def test_only_what_may_have_arrived_is_not_repeated(
    store: Store, uncertain: bool, repeatable: bool, state: str
) -> None:
    def send() -> None:
        raise DeliveryError("no answer", "timeout", uncertain=uncertain)

    box = outbox(store, send, repeatable=repeatable)
    box.start()
    row = settled(store)
    box.stop(timedelta(seconds=ENDS))
    assert row.state == state
    assert ("it may have arrived" in (row.last_error or "")) == (state == "dead")


@pytest.mark.parametrize(("repeatable", "state"), [(False, "dead"), (True, "pending")])
def test_what_was_on_its_way_when_the_process_died_is_not_repeated(
    store: Store, repeatable: bool, state: str
) -> None:
    sending, never = threading.Event(), threading.Event()

    def send() -> None:
        sending.set()
        never.wait(ENDS)

    first = outbox(store, send, repeatable=repeatable)
    first.start()
    assert sending.wait(ENDS)
    first.stop(timedelta(0))  # as much of a kill as one process can do to itself: the outcome is never recorded
    second = Outbox(store.outbox, {}, lambda: NOW, lambda *_: None)
    second.start()
    row = store.outbox.deliveries()[0]
    assert row.state == state
    if state == "dead":
        assert (row.last_error or "").startswith("the daemon died while it was sent")
        assert store.outbox.replay(row.id, NOW)
        second.start()
        assert store.outbox.deliveries()[0].state == "pending"  # a person said so
    never.set()
    second.stop(timedelta(seconds=ENDS))


def test_which_receivers_know_a_repeat() -> None:
    kinds = set(RECEIVER_TYPES) - {"webhook", "template"}
    blind = {name for name in kinds if not shipped(name).template.knows_repeats}
    assert blind == {"github", "jenkins", "argo-events", "argo-workflows"}


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """A server that reads a request and answers so, or hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer or b"")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(ENDS)


def status(code: int) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % code


@pytest.mark.parametrize(
    ("answer", "uncertain"),
    [
        (None, True),  # it hung up after the request
        (b"HTTP/1.1 2", True),
        (status(500), True),
        (status(502), True),
        (status(504), True),
        (status(503), False),
        (status(429), False),
        (status(404), False),
        (status(302), False),
    ],
)
def test_what_an_answer_leaves_open(answer: bytes | None, uncertain: bool) -> None:
    with answering(answer) as port:
        target = Target(HttpUrl(f"http://127.0.0.1:{port}/"), timedelta(seconds=ENDS), (), True)
        with pytest.raises(DeliveryError) as caught:
            require_success(target, exchange(target, Deadline(target), "POST", "/", b"{}", {}), NOW)
    assert caught.value.uncertain is uncertain


def test_a_closed_port_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    target = Target(HttpUrl(f"http://127.0.0.1:{port}/"), timedelta(seconds=ENDS), (), True)
    with pytest.raises(DeliveryError) as caught:
        exchange(target, Deadline(target), "POST", "/", b"{}", {})
    assert not caught.value.uncertain
