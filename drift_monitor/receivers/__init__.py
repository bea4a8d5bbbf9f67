"""Where messages go. A receiver is one file here and one line in RECEIVERS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from drift_monitor.config.models import Receiver
from drift_monitor.receivers import webhook


@dataclass(frozen=True)
class ReceiverType:
    """What a receiver can do; both functions take its section of the configuration first.

    Attributes:
        send: (section, event id, body, wall clock) delivers one event or raises DeliveryError.
        probe: (section) says in a sentence why the receiver cannot be reached, or None; sends nothing.
    """

    send: Callable[[Any, str, bytes, datetime], None]
    probe: Callable[[Any], str | None]


RECEIVERS: dict[str, ReceiverType] = {
    "webhook": ReceiverType(webhook.send, webhook.probe),
}


def send(receiver: Receiver, event_id: str, body: bytes, now: datetime) -> None:
    """Deliver one event; DeliveryError when it did not arrive."""
    RECEIVERS[receiver.type].send(receiver, event_id, body, now)


def probe(receiver: Receiver) -> str | None:
    """Why a receiver cannot be reached, or None; sends nothing."""
    return RECEIVERS[receiver.type].probe(receiver)
