"""A step of a template and an event -> the request to send. Pure.

What comes from an event is hostile: it is escaped for the path, query, header, form or JSON that it goes into.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from drift_monitor import __version__
from drift_monitor.core.policy import parse_duration
from drift_monitor.receivers.placeholders import NOTHING, At, PlaceholderError, as_text, render, render_text
from drift_monitor.receivers.template import Request

_HEADER_SAFE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")
Values = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """One request, ready to be sent; holds no secrets, except one that logs in.

    Attributes:
        path: below the receiver's url.
        query: without the question mark; empty for none.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes | None


def event_values(event: Mapping[str, Any], now: datetime) -> Values:
    """What placeholders find in an event.

    Args:
        event: a CloudEvent.
        now: the wall clock.
    """
    names = ("id", "type", "source", "subject", "time", "data")
    return {
        "event": event,
        **{name: event[name] for name in names if name in event},
        "now": _stamp(now),
        "in": _Ahead(now),
    }


def prepare(step: Request, values: Values, at: At) -> Prepared:
    """Fill in a step of a template.

    Args:
        step: the request.
        values: by the first step of a placeholder's path.
        at: where the step stands in its template, for errors.

    Raises:
        PlaceholderError: a placeholder has no value, or one that cannot stand where it is.
    """
    headers = {"Accept": "application/json", "User-Agent": f"drift-monitor/{__version__}"}
    body: bytes | None = None
    if step.has_body:
        content = render(step.body, values, (*at, "body"))
        body = json.dumps(None if content is NOTHING else content, allow_nan=False).encode("ascii")
        headers["Content-Type"] = "application/json"
    elif step.form is not None:
        form = render(step.form, values, (*at, "form"))
        if not isinstance(form, Mapping):
            raise PlaceholderError("a form is a mapping of names and values", (*at, "form"))
        body = urlencode([(name, as_text(value)) for name, value in form.items()]).encode("ascii")
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    for name, text in step.headers.items():
        place = (*at, "headers", name)
        if render(text, values, place) is not NOTHING:
            known = next((each for each in headers if each.lower() == name.lower()), name)
            headers[known] = render_text(text, values, lambda v: quote(v, safe=_HEADER_SAFE), place)
    query = {name: render(text, values, (*at, "query", name)) for name, text in step.query.items()}
    return Prepared(
        step.method,
        _path(step.path, values, (*at, "path")),
        urlencode(
            [(name, as_text(value)) for name, value in query.items() if value is not NOTHING], quote_via=quote
        ),
        headers,
        body,
    )


def _path(text: str, values: Values, at: At) -> str:
    """A path whose values cannot leave their place in it: each is one segment or a part of one."""

    def segment(value: str) -> str:
        if not value:
            raise PlaceholderError("an empty value cannot be a part of a path")
        return quote(value, safe="")

    path = render_text(text, values, segment, at)
    if any(part in (".", "..") for part in path.split("/")):
        raise PlaceholderError(f"`.` and `..` cannot be a part of a path, got {path!r}", at)
    return path


class _Ahead(Mapping[str, str]):
    """`${in.7d}`: the time so much later than now."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def __getitem__(self, duration: str) -> str:
        try:
            return _stamp(self._now + parse_duration(duration))
        except (ValueError, OverflowError):
            raise KeyError(duration) from None

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
