"""Where messages go. A receiver is a template in `templates/` and a section in `config/receivers.py`.

Only a webhook is code, because it signs what it sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from drift_monitor.config.receivers import RECEIVER_TYPES, Receiver
from drift_monitor.receivers import templated, webhook
from drift_monitor.receivers.outcome import Outcome, Tell, nobody


@dataclass(frozen=True)
class ReceiverType:
    """What a receiver can do; both functions take its section of the configuration first.

    Attributes:
        send: (section, event id, body, wall clock, tell) delivers one event or raises DeliveryError.
        probe: (section) says in a sentence why the receiver cannot be reached, or None; sends nothing.
    """

    send: Callable[[Any, str, bytes, datetime, Tell], Outcome]
    probe: Callable[[Any], str | None]


RECEIVERS: dict[str, ReceiverType] = dict.fromkeys(
    RECEIVER_TYPES, ReceiverType(templated.send, templated.probe)
) | {"webhook": ReceiverType(webhook.send, webhook.probe)}


def send(receiver: Receiver, event_id: str, body: bytes, now: datetime, tell: Tell = nobody) -> Outcome:
    """Deliver one event; DeliveryError when it did not arrive."""
    return RECEIVERS[receiver.type].send(receiver, event_id, body, now, tell)


def probe(receiver: Receiver) -> str | None:
    """Why a receiver cannot be reached, or None; sends nothing."""
    return RECEIVERS[receiver.type].probe(receiver)
