"""Secrets of a receiver, from files that are read anew for each message, so that a rotated one counts at once."""

from __future__ import annotations

import base64
from pathlib import Path

from drift_monitor.core.errors import DeliveryError

_MOST = 65_536  # bytes of a secret file


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        DeliveryError: reason `config`; names the file, never the token.
    """
    try:
        token = _read(path).decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or len(token.split()) > 1:
        raise DeliveryError(f"{path}: a token is one word of ASCII letters, digits and signs", "config") from None
    return token


def read_password(path: Path) -> str:
    """The password in a file, its first line.

    Raises:
        DeliveryError: reason `config`; names the file, never the password.
    """
    try:
        password = _read(path).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise DeliveryError(f"{path}: the password is not UTF-8", "config") from None
    if not password or not password.isprintable():
        raise DeliveryError(f"{path}: a password is one line and not empty", "config")
    return password


def basic(username: str, password: str) -> str:
    """The Authorization header of HTTP Basic (RFC 7617).

    Example (the RFC's own):
        >>> basic("Aladdin", "open sesame")
        'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=='
    """
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST)
    except OSError as error:
        raise DeliveryError(f"{path}: the secret file cannot be read: {error.strerror}", "config") from error
