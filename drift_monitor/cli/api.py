"""The API of a running daemon, as the commands use it."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from pathlib import Path

_TIMEOUT = 10  # seconds that a running daemon has for an answer
_MOST = 10_000_000  # bytes of it that are read


class Api:
    """Where a daemon answers.

    Args:
        address: base URL, of the lock file of our own state folder.
        pid: of the daemon.
        token_file: with the bearer token it asks for; None when it asks for none.

    Raises:
        StoreError: it serves no API, or the token cannot be read.
    """

    def __init__(self, address: str, pid: int, token_file: Path | None) -> None:
        from drift_monitor.core.errors import StoreError

        if not address:
            raise StoreError(f"the daemon (pid {pid}) has the state folder, but serves no API: stop it first")
        self._base, self._pid = address.rstrip("/"), pid
        self._headers = {"X-Requested-By": "drift-monitor", "Accept": "application/json"}
        if token_file is not None:
            try:
                self._headers["Authorization"] = f"Bearer {token_file.read_text('ascii').strip()}"
            except (OSError, UnicodeDecodeError) as error:
                raise StoreError(f"{token_file}: the daemon's token cannot be read: {error}") from error

    def ask(self, method: str, path: str, *, may_miss: bool = False, body: object | None = None) -> bytes | None:
        """The body of an answer; None when there is nothing at the path and that is expected to happen.

        Args:
            method: GET or POST.
            path: with its query.
            may_miss: whether there may be nothing.
            body: sent as JSON.

        Raises:
            StoreError: the daemon does not answer, or refuses; with its own sentence where it has one.
        """
        from drift_monitor.core.errors import StoreError

        # the address comes from the lock file of our own state folder
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        request = urllib.request.Request(self._base + path, data, headers, method=method)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT) as answer:
                read: bytes = answer.read(_MOST)
                return read
        except urllib.error.HTTPError as error:
            if error.code == http.client.NOT_FOUND and may_miss:
                return None
            if said := _sentence(error):
                raise StoreError(said) from error
            hint = ": is server.token_file the one it was started with?" if error.code in (401, 403) else ""
            raise StoreError(
                f"the daemon (pid {self._pid}) at {self._base} answered {error.code}{hint}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise StoreError(f"the daemon (pid {self._pid}) at {self._base} does not answer: {reason}") from error


def _sentence(error: urllib.error.HTTPError) -> str | None:
    """What the daemon says in an answer that refuses."""
    try:
        said = json.loads(error.read(_MOST))["error"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return said if isinstance(said, str) else None
