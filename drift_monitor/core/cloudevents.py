"""A message as a CloudEvents 1.0 JSON event: the bytes that are signed and sent."""

from __future__ import annotations

import json
import math
import re
from datetime import date, datetime
from enum import Enum

from drift_monitor.core.types import Message

CONTENT_TYPE = "application/cloudevents+json"
MAX_BYTES = 20_000  # Standard Webhooks: payloads under 20 kB
_ID = re.compile(r"[!-~]{1,200}")
_SURROGATE = re.compile("[\ud800-\udfff]")
# What is kept of each list or mapping, and of each text, when an event is too big: the first pair that fits.
_CUTS = ((100, 2000), (50, 2000), (20, 2000), (10, 2000), (5, 2000), (3, 2000), (10, 200), (3, 100), (1, 50))

_TRUNCATED: dict[str, object] = {"truncated": True}


def render(message: Message) -> bytes:
    """Write a message as a CloudEvents JSON event.

    Text is made safe to send: lone surrogates become U+FFFD, control characters are escaped by JSON, infinities
    and NaN become text. An event of 20 kB or more keeps the first items of the lists in its data (and the first
    characters of very long texts) and says `truncated: true` there.

    Args:
        message: the envelope; its id travels in an HTTP header too.

    Returns:
        ASCII JSON, shorter than 20,000 bytes; the same bytes for the same message.

    Raises:
        ValueError: the id is not 1 to 200 visible ASCII characters, or the envelope alone is too long.

    Example:
        >>> from datetime import UTC, datetime
        >>> event = Message(id="e1", type="drift_monitor.drift.opened", source="/drift-monitor", subject="flights",
        ...                 time=datetime(2026, 1, 1, tzinfo=UTC), group="g", data={"rows": 3})
        >>> json.loads(render(event))["time"]
        '2026-01-01T00:00:00Z'
    """
    if not _ID.fullmatch(message.id):
        raise ValueError(f"a message id must be 1 to 200 visible ASCII characters, got {message.id!r}")
    data = _jsonable(message.data)
    body = _event(message, data)
    if len(body) < MAX_BYTES:
        return body
    for items, characters in _CUTS:
        body = _event(message, {key: _cut(value, items, characters) for key, value in data.items()} | _TRUNCATED)
        if len(body) < MAX_BYTES:
            return body
    body = _event(message, _TRUNCATED)
    if len(body) < MAX_BYTES:
        return body
    raise ValueError(f"message {message.id}: source and subject leave no room in an event of {MAX_BYTES} bytes")


def _event(message: Message, data: dict[str, object]) -> bytes:
    event = {
        "specversion": "1.0",
        "id": message.id,
        "source": message.source,
        "type": message.type,
        "subject": message.subject,
        "time": message.time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(event, allow_nan=False, separators=(",", ":")).encode("ascii")


def _jsonable(data: dict[str, object]) -> dict[str, object]:
    return {_text(str(key)): _plain(value) for key, value in data.items()}


def _plain(value: object) -> object:
    """A value that JSON can hold and that every JSON parser takes."""
    plain: object
    match value:
        case None | bool() | int():
            plain = value
        case float():
            plain = value if math.isfinite(value) else str(value)
        case Enum():
            plain = _plain(value.value)
        case datetime() | date():
            plain = value.isoformat()
        case dict():
            plain = _jsonable(value)
        case list() | tuple() | set() | frozenset():
            plain = [_plain(item) for item in value]
        case _:
            plain = _text(str(value))
    return plain


def _text(value: str) -> str:
    return _SURROGATE.sub("\ufffd", value)


def _cut(value: object, items: int, characters: int) -> object:
    match value:
        case str():
            return value[:characters]
        case list():
            return [_cut(item, items, characters) for item in value[:items]]
        case dict():
            return {
                key[:characters]: _cut(item, items, characters)
                for key, item in list(value.items())[: max(items, 20)]
            }
    return value
