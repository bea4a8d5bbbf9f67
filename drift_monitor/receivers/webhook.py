"""CloudEvents over HTTP, signed as Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from drift_monitor import __version__
from drift_monitor.config.receivers import WebhookReceiver
from drift_monitor.core.cloudevents import CONTENT_TYPE
from drift_monitor.core.errors import DeliveryError
from drift_monitor.receivers.http import Target, connect, post, require_success
from drift_monitor.receivers.receipt import Receipt, Tell, nobody

_PREFIX = "whsec_"
_FORMAT = f"expected `{_PREFIX}` and the base64 of 24 to 64 random bytes"


def send(receiver: WebhookReceiver, event_id: str, body: bytes, now: datetime, tell: Tell = nobody) -> Receipt:
    """Sign an event and post it once.

    Args:
        receiver: where to; its secret file is read anew each time, so that a rotated key counts at once.
        event_id: the same over all attempts.
        body: the event as it was rendered; signed and sent byte for byte.
        now: the wall clock; part of the signature.
        tell: is told of the request and the answer.

    Raises:
        DeliveryError: the answer was not 2xx, none came in time, or the configuration cannot work.
    """
    timestamp = int(now.timestamp())
    headers = {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": f"drift-monitor/{__version__}",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(read_secrets(receiver.secret_file), event_id, timestamp, body),
    }
    target = _target(receiver)
    tell(f"POST {target}{'' if target.path == '/' else '/...'}")  # a path may hold a secret
    answer = post(target, body, headers)
    tell(f"  {answer}")
    require_success(target, answer, now)
    return Receipt("delivered")


def probe(receiver: WebhookReceiver) -> str | None:
    """Look whether a receiver can be reached, without sending anything; a sentence when it cannot."""
    try:
        read_secrets(receiver.secret_file)
        connect(_target(receiver))
    except DeliveryError as error:
        return str(error)
    return None


def sign(secrets: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """The webhook-signature header: base64(HMAC-SHA256(secret, id.timestamp.body)), one for every secret.

    Example (the one of the Standard Webhooks specification's reference libraries):
        >>> key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        >>> sign([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
        'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    signed = f"{event_id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode('ascii')}" for digest in digests)


def read_secrets(path: Path) -> list[bytes]:
    """The keys of a secret file: one `whsec_...` a line; empty lines and lines that begin with # are left out.

    Raises:
        DeliveryError: reason `config`; names file and line, never the secret.
    """
    try:
        with path.open("rb") as file:
            lines = file.read(65_536).split(b"\n")
    except OSError as error:
        raise DeliveryError(f"{path}: the secret file cannot be read: {error.strerror}", "config") from error
    secrets = [
        _secret(path, number, line.strip())
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith(b"#")
    ]
    if not secrets:
        raise DeliveryError(f"{path}: the secret file holds no secret: {_FORMAT} on a line", "config")
    return secrets


def _secret(path: Path, number: int, line: bytes) -> bytes:
    if not line.startswith(_PREFIX.encode()):
        raise DeliveryError(f"{path}:{number}: the line does not begin with {_PREFIX}: {_FORMAT}", "config")
    text = line.removeprefix(_PREFIX.encode())
    try:
        secret = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise DeliveryError(f"{path}:{number}: the secret is not base64: {_FORMAT}", "config") from None
    if not 24 <= len(secret) <= 64:
        raise DeliveryError(f"{path}:{number}: the secret has {len(secret)} bytes: {_FORMAT}", "config")
    return secret


def _target(receiver: WebhookReceiver) -> Target:
    return Target(receiver.url, receiver.timeout, receiver.allow_hosts, receiver.allow_private)
