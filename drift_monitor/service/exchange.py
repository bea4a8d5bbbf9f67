"""Requests and answers, as the pages and the API see them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        path: decoded.
        headers: by lower-case name.
        body: of a POST; the server bounds it.
        stream, size: of a body that may be large, which is not read yet.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    stream: IO[bytes] | None = None
    size: int = 0


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes:
        file: sent in place of the body.
    """

    body: bytes
    type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None


def say(text: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response:
    """A line of text."""
    return Response(
        f"{text}\n".encode(), status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def as_json(value: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A JSON document."""
    return Response(json.dumps(value).encode() + b"\n", "application/json", status)


def html(body: bytes, **headers: str) -> Response:
    """A page."""
    return Response(body, "text/html; charset=utf-8", headers=headers)
