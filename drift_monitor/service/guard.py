"""Who may ask: the bearer token, the Host header, and requests that a foreign page could make."""

from __future__ import annotations

import base64
import hmac
import logging
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from drift_monitor.config.daemon import Server
from drift_monitor.service.exchange import Request, Response, say
from drift_monitor.service.logs import fields
from drift_monitor.service.records_api import takes_records

log = logging.getLogger(__name__)

OPEN = frozenset({"/-/healthy", "/-/ready"})  # for probes: no token, any Host


class TokenFile:
    """The bearer token, read again when its file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = b""

    def read(self) -> bytes:
        """The token.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is empty.
        """
        stat = self.path.stat()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            self._token, self._seen = self.path.read_bytes().strip(), seen
        if not self._token:
            raise ValueError("it is empty")
        return self._token


class Guard:
    """Decides whether a request is answered."""

    def __init__(self) -> None:
        self._token: TokenFile | None = None

    def refusal(self, request: Request, server: Server) -> Response | None:
        """The answer to a request that may not be made; None when it may."""
        if server.is_loopback and not _is_ours(request.headers.get("host", ""), server):
            return say(  # a page elsewhere whose name was made to point here (DNS rebinding)
                "this Host is not served; set server.public_url if it should be", HTTPStatus.MISDIRECTED_REQUEST
            )
        if server.token_file is not None:
            return self._check_token(server.token_file, request)
        safe = request.method in {"GET", "HEAD"} or takes_records(request)
        if not safe and request.headers.get("x-requested-by") != "drift-monitor":
            # A form or an image on a page elsewhere can make the request, but not with this header.
            return say("send the header X-Requested-By: drift-monitor", HTTPStatus.FORBIDDEN)
        return None

    def _check_token(self, path: Path, request: Request) -> Response | None:
        if self._token is None or self._token.path != path:
            self._token = TokenFile(path)
        try:
            token = self._token.read()
        except (OSError, ValueError) as error:
            log.error("the token file cannot be used", extra=fields(path=path, error=error))  # noqa: TRY400
            return say("the token file cannot be used; the log has more", HTTPStatus.SERVICE_UNAVAILABLE)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        shown = given.strip().encode("latin-1")
        if scheme.lower() == "basic" and takes_records(
            request
        ):  # all that KServe's logger can be given: in its URL
            scheme, shown = "bearer", _password(shown)
        if scheme.lower() != "bearer" or not hmac.compare_digest(shown, token):
            return say("a bearer token is needed", HTTPStatus.UNAUTHORIZED, WWW_Authenticate="Bearer")
        return None


def _password(credentials: bytes) -> bytes:
    """The password of HTTP's Basic scheme; empty where there is none."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _is_ours(host: str, server: Server) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    ours = {"localhost", "127.0.0.1", "::1", server.address[0]}
    public = server.public_url.host if server.public_url else None
    return name in ours or (public is not None and name == public.strip("[]"))
