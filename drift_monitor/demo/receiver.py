"""A small local webhook receiver that verifies Standard Webhooks signatures, as a team's own would."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

PATH: Final = "/drift"
_TOLERANCE: Final = 300.0  # seconds between the sender's clock and ours
_LARGEST: Final = 64 * 1024


@dataclass(frozen=True)
class Received:
    """One request.

    Attributes:
        problem: why the signature was not accepted; None when it was.
        event: the body; empty when it was not accepted.
    """

    id: str
    problem: str | None
    event: Mapping[str, Any]

    @property
    def type(self) -> str:
        """The CloudEvents type, such as `drift_monitor.drift.opened`."""
        return str(self.event.get("type", ""))


def new_secret() -> str:
    """A random Standard Webhooks secret of 32 bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Check a request against a Standard Webhooks secret.

    Args:
        secret: `whsec_` and the key in base64.
        headers: with `webhook-id`, `webhook-timestamp` and `webhook-signature`.
        body: the bytes as they came.
        now: unix seconds.

    Returns:
        None when one of the signatures is right and the timestamp is within five minutes; else the reason.
    """
    missing = [n for n in ("webhook-id", "webhook-timestamp", "webhook-signature") if not headers.get(n)]
    if missing:
        return f"no header {', '.join(missing)}"
    stamp = headers["webhook-timestamp"]
    if not (stamp.isascii() and stamp.isdigit()) or abs(now - int(stamp)) > _TOLERANCE:
        return f"timestamp {stamp!r} is not within {_TOLERANCE:g} s of now"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{headers['webhook-id']}.{stamp}.".encode() + body, hashlib.sha256)
    for signature in headers["webhook-signature"].split():
        version, _, encoded = signature.partition(",")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        if version == "v1" and hmac.compare_digest(given, digest):
            return None
    return "no signature matches"


class WebhookReceiver:
    """Listens on a free port of 127.0.0.1 while the `with` block lasts, and keeps what comes.

    Args:
        secret_file: a file with one `whsec_...` secret.
        journal: a file to which each accepted event is appended, one JSON document a line.
    """

    def __init__(self, secret_file: Path, journal: Path) -> None:
        self._secret = secret_file.read_text().strip()
        self._journal = journal
        self._received: list[Received] = []
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_POST(self) -> None:
                length = self.headers.get("content-length", "")
                if self.path != PATH or not length.isdigit() or int(length) > _LARGEST:
                    self.send_error(HTTPStatus.BAD_REQUEST)
                    return
                accepted = receiver._accept(dict(self.headers.items()), self.rfile.read(int(length)))
                self.send_response(HTTPStatus.NO_CONTENT if accepted else HTTPStatus.UNAUTHORIZED)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Silent: the demo prints what matters."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="webhook receiver", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where to send."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    @property
    def received(self) -> tuple[Received, ...]:
        """All requests so far, oldest first."""
        with self._changed:
            return tuple(self._received)

    def wait(self, wanted: Callable[[Received], bool], timeout: float) -> Received | None:
        """The first request that is wanted, waiting for it up to `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: next(filter(wanted, self._received), None), timeout)

    def _accept(self, headers: Mapping[str, str], body: bytes) -> bool:
        headers = {name.lower(): value for name, value in headers.items()}
        problem = verify(self._secret, headers, body, time.time())
        event: dict[str, Any] = {}
        if problem is None:
            try:
                event = json.loads(body)
            except ValueError:
                problem = "the signature is right, but the body is not JSON"
        with self._changed:
            self._received.append(Received(headers.get("webhook-id", ""), problem, event))
            if problem is None:
                with self._journal.open("ab") as journal:
                    journal.write(json.dumps(event).encode() + b"\n")
            self._changed.notify_all()
        return problem is None
