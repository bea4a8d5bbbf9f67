"""Where messages go. A receiver is a template in `templates/` and a section in `config/receivers.py`.

Only a webhook is code, because it signs what it sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from drift_monitor.config.receivers import RECEIVER_TYPES, Receiver, TemplateReceiver
from drift_monitor.core.errors import ConfigError
from drift_monitor.receivers import templated, webhook
from drift_monitor.receivers.receipt import Receipt, Tell, nobody
from drift_monitor.receivers.template import REQUESTED
from drift_monitor.receivers.template_file import template_of


@dataclass(frozen=True)
class ReceiverType:
    """What a receiver can do; both functions take its section of the configuration first.

    Attributes:
        send: (section, event id, body, wall clock, tell) delivers one event or raises DeliveryError.
        probe: (section) says in a sentence why the receiver cannot be reached, or None; sends nothing.
        is_repeatable: (section) whether it knows a repeat of a message as one.
    """

    send: Callable[[Any, str, bytes, datetime, Tell], Receipt]
    probe: Callable[[Any], str | None]
    is_repeatable: Callable[[Any], bool]


RECEIVERS: dict[str, ReceiverType] = dict.fromkeys(
    RECEIVER_TYPES, ReceiverType(templated.send, templated.probe, templated.is_repeatable)
) | {"webhook": ReceiverType(webhook.send, webhook.probe, lambda _: True)}


def send(receiver: Receiver, event_id: str, body: bytes, now: datetime, tell: Tell = nobody) -> Receipt:
    """Deliver one event; DeliveryError when it did not arrive."""
    return RECEIVERS[receiver.type].send(receiver, event_id, body, now, tell)


def probe(receiver: Receiver) -> str | None:
    """Why a receiver cannot be reached, or None; sends nothing."""
    return RECEIVERS[receiver.type].probe(receiver)


def is_repeatable(receiver: Receiver) -> bool:
    """Whether a receiver knows a repeat as one, so that an attempt whose outcome is not known may be repeated."""
    return RECEIVERS[receiver.type].is_repeatable(receiver)


def takes(receiver: Receiver, kind: str) -> bool:
    """Whether events of a type are anything to a receiver.

    Raises:
        DeliveryError: its template cannot be read.
    """
    return receiver.type == "webhook" or templated.takes(receiver, kind)


def unsuited(receiver: Receiver, setting: str) -> str | None:
    """Why a template of the user's does not suit a setting, `notify` or `retrain.receiver`; or None."""
    if not isinstance(receiver, TemplateReceiver):
        return None  # the configuration itself knows about the others
    try:
        template = template_of(receiver).template
    except ConfigError:
        return None  # `probe` says what is wrong
    if setting == "notify" and all(pattern == REQUESTED for pattern in template.takes):
        return f"the template {receiver.template} takes only {REQUESTED}: it belongs in `retrain.receiver`"
    if setting != "notify" and not template.takes_type(REQUESTED):
        return f"the template {receiver.template} does not take {REQUESTED}: name it in its `takes`"
    return None
