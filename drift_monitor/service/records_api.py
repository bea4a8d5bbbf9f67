"""The route on which rows are sent: POST /api/v1/monitors/{monitor}/records."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Final

from drift_monitor.service.exchange import Request, Response
from drift_monitor.service.intake import Answer, Intake

PATH: Final = re.compile(r"/api/v1/monitors/([^/]+)/records")
_ENCODINGS: Final = ("", "identity")


def takes_records(request: Request) -> bool:
    """Whether a request sends rows. No page elsewhere can make one: browsers ask before they send such types."""
    return request.method == "POST" and PATH.fullmatch(request.path) is not None


def take_records(intake: Intake, request: Request, name: str) -> Response:
    """Take the rows of a request.

    Args:
        intake: where they go.
        request: with its body as a stream, which is read when there is room for it.
        name: of the monitor.
    """
    if (refusal := intake.room_for(name, request.size)) is not None:
        return _response(refusal)
    try:
        encoding = request.headers.get("content-encoding", "").lower()
        if encoding not in _ENCODINGS:
            intake.refused(name, "type")
            told = {
                "error": f"Content-Encoding {encoding[:50]!a} is not read: Arrow streams can compress themselves"
            }
            return _response(Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, told))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        events = {key: value for key, value in request.headers.items() if key.startswith("ce-")}
        key = request.headers.get("idempotency-key")
        body = request.stream.read() if request.stream is not None else b""
        return _response(intake.take(name, kind, events, key, body))
    finally:
        intake.leave(request.size)


def _response(answer: Answer) -> Response:
    headers = {} if answer.again is None else {"Retry-After": str(answer.again)}
    return Response(json.dumps(answer.told).encode() + b"\n", "application/json", answer.status, headers)
