"""One HTTP request to a receiver: to a checked address, under one deadline, without redirects or proxies."""

from __future__ import annotations

import http.client
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import HttpUrl

from drift_monitor.core.errors import DeliveryError
from drift_monitor.core.policy import format_duration
from drift_monitor.receivers.address import why_blocked

MAX_ANSWER = 65_536  # bytes of an answer's body that are read
MAX_RETRY_AFTER = timedelta(hours=24)
_WAITS = {429, 502, 503, 504}  # answers whose Retry-After is honoured
_UNCERTAIN = {500, 502, 504}  # a fault after the work may have begun, or a gateway that lost the answer
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Target:
    """Where a request goes and what it may cost.

    Attributes:
        timeout: for resolving, connecting, sending and reading together.
        allow_hosts: hosts that may be reached; the url's own when empty.
        allow_private: loopback and private addresses may be reached.
    """

    url: HttpUrl
    timeout: timedelta
    allow_hosts: tuple[str, ...] = ()
    allow_private: bool = False
    host: str = field(init=False)
    port: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", (self.url.host or "").strip("[]").rstrip(".").lower())
        object.__setattr__(self, "port", self.url.port or _DEFAULT_PORTS[self.url.scheme])

    def __str__(self) -> str:
        """Scheme, host and port: a path may hold a secret and has no place in an error."""
        return f"{self.url.scheme}://{self._netloc}"

    @property
    def _netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.url.scheme] else f"{host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The Host header."""
        return self._netloc

    @property
    def path(self) -> str:
        """Path and query."""
        return (self.url.path or "/") + (f"?{self.url.query}" if self.url.query else "")


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        body: what arrived of it before the deadline, up to a limit; perhaps not all of it.
    """

    status: int
    phrase: str
    headers: Message
    body: bytes

    def __str__(self) -> str:
        """The status line."""
        return f"{self.status} {clean(self.phrase)}".rstrip()

    @property
    def excerpt(self) -> str:
        """The beginning of the body, for people."""
        return clean(self.body.decode("utf-8", "replace"))


class Deadline:
    """The time by which everything that is sent to a target has to be over, counted from now."""

    def __init__(self, target: Target) -> None:
        self._end = time.monotonic() + target.timeout.total_seconds()
        self._sentence = f"{target} did not answer within {format_duration(target.timeout)}"

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() >= self._end

    def error(self) -> DeliveryError:
        """What to raise when it is."""
        return DeliveryError(self._sentence, "timeout")

    def left(self) -> float:
        """Seconds left, > 0; past the deadline this is the DeliveryError."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise self.error()
        return seconds


def post(target: Target, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Send one POST to the target's own path and take the answer, whatever its status; see `exchange`."""
    return exchange(target, Deadline(target), "POST", target.path, body, headers)


def exchange(
    target: Target,
    deadline: Deadline,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    most: int = MAX_ANSWER,
) -> Answer:
    """Send one request and take the answer, whatever its status.

    Args:
        target: where to.
        deadline: of this request; several that belong together share one.
        method: in capitals.
        path: path and query, percent-encoded.
        body: the bytes to send; None sends none.
        headers: besides Host, Content-Length and Connection.
        most: bytes of the answer's body that are read.

    Raises:
        DeliveryError: no answer (status line and headers) arrived before the deadline; reason is timeout,
            connect, tls, blocked, protocol or config.
    """
    went_out = False
    try:
        with _connection(target, deadline) as connected:
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.sock = connected  # http.client then neither resolves nor connects
            went_out = True
            connection.request(method, path, body, {"Host": target.host_header, "Connection": "close", **headers})
            with connection.getresponse() as response:
                deadline.left()  # a head that the deadline cut short reads as a complete one
                return Answer(response.status, response.reason, response.headers, _read(response, most))
    except DeliveryError as error:
        error.uncertain = went_out and error.reason != "config"  # that is a header which could not be written
        raise


def connect(target: Target) -> None:
    """Resolve, check, connect and shake hands as `exchange` does, and send nothing.

    Raises:
        DeliveryError: as `exchange`.
    """
    with _connection(target, Deadline(target)):
        pass


def require_success(target: Target, answer: Answer, now: datetime) -> None:
    """Take a 2xx answer for success and nothing else.

    Args:
        target: for the error's text.
        answer: what came back.
        now: for a Retry-After that names a date.

    Raises:
        DeliveryError: any other status; with `retry_after` for 429, 502, 503 and 504 that carry one.
    """
    status = answer.status
    if 200 <= status < 300:
        return
    said = f"{target} answered {answer}"
    if 300 <= status < 400:
        raise DeliveryError(f"{said}: redirects are not followed, set `url` to the final address", "redirect")
    if status == 410:
        raise DeliveryError(f"{said}: it wants no more messages", "gone")
    excerpt = answer.excerpt
    reason = f"status_{status // 100}xx" if 400 <= status < 600 else "protocol"
    wait = retry_after(answer.headers.get("Retry-After"), now) if status in _WAITS else None
    uncertain = status in _UNCERTAIN
    raise DeliveryError(f"{said}: {excerpt}" if excerpt else said, reason, wait, uncertain=uncertain)


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3), at most 24 h; None if it is neither.

    Example:
        >>> retry_after("120", datetime(2026, 1, 1, tzinfo=UTC))
        datetime.timedelta(seconds=120)
        >>> retry_after("Thu, 01 Jan 2026 00:01:00 GMT", datetime(2026, 1, 1, tzinfo=UTC))
        datetime.timedelta(seconds=60)
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return timedelta(seconds=int(value)) if len(value) < 6 and int(value) <= 86_400 else MAX_RETRY_AFTER
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return min(max(date - now, timedelta(0)), MAX_RETRY_AFTER)


@contextmanager
def _connection(target: Target, deadline: Deadline) -> Iterator[socket.socket]:
    """A connection that the deadline cuts; what goes wrong inside becomes a DeliveryError."""
    try:
        with _connect(target, deadline) as plain, _cut_at(deadline, plain):
            plain.settimeout(deadline.left())
            if target.url.scheme == "https":
                with ssl.create_default_context().wrap_socket(plain, server_hostname=target.host) as encrypted:
                    yield encrypted
            else:
                yield plain
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _explain(target, deadline, error) from error


def _explain(target: Target, deadline: Deadline, error: Exception) -> DeliveryError:
    if deadline.passed or isinstance(error, TimeoutError):
        return deadline.error()
    match error:
        case ssl.SSLCertVerificationError():
            return DeliveryError(f"{target}: its certificate is not trusted: {error.verify_message}", "tls")
        case ssl.SSLError():
            return DeliveryError(f"{target}: the TLS connection failed: {error.reason or error}", "tls")
        case OSError():  # RemoteDisconnected is one
            return DeliveryError(f"{target}: the connection failed: {error.strerror or error}", "connect")
        case http.client.HTTPException():
            text = clean(f"{type(error).__name__} {error}")
            return DeliveryError(f"{target} did not answer in HTTP: {text}", "protocol")
    return DeliveryError(f"{target}: the request could not be made: {error}", "config")


def _connect(target: Target, deadline: Deadline) -> socket.socket:
    """Connect to one of the addresses that were checked, each tried for its share of the time left."""
    if target.url.username or target.url.password:
        raise DeliveryError(f"{target}: a user name or password in `url` is not supported: remove it", "config")
    allowed = [host.strip("[]").rstrip(".").lower() for host in target.allow_hosts] or [target.host]
    if target.host not in allowed:
        raise DeliveryError(
            f"{target}: host {target.host} is not in allow_hosts ({', '.join(allowed)})", "blocked"
        )
    candidates = _resolve(target, deadline)
    for _, address in candidates:
        if why := why_blocked(str(address[0]), allow_private=target.allow_private):
            raise DeliveryError(f"{target}: {target.host} is {address[0]}, {why}", "blocked")
    failure: OSError | None = None
    for number, (family, address) in enumerate(candidates):
        connecting = socket.socket(family, socket.SOCK_STREAM)
        try:
            connecting.settimeout(deadline.left() / (len(candidates) - number))
            connecting.connect(address)
        except OSError as error:
            connecting.close()
            failure = error
        except BaseException:
            connecting.close()
            raise
        else:
            return connecting
    raise failure or OSError(f"{target.host} has no address")


_Candidate = tuple[int, tuple[Any, ...]]  # family and address, as the socket module has them


def _resolve(target: Target, deadline: Deadline) -> list[_Candidate]:
    """All addresses of a host. In a thread, since getaddrinfo knows no deadline."""
    found: queue.SimpleQueue[list[_Candidate] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            found.put(list(dict.fromkeys((family, address) for family, _, _, _, address in entries)))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    try:
        result = found.get(timeout=deadline.left())
    except queue.Empty:
        raise DeliveryError(f"{target}: the name {target.host} was not resolved in time", "timeout") from None
    if isinstance(result, Exception):
        text = getattr(result, "strerror", None) or str(result)
        raise DeliveryError(f"{target}: the name {target.host} cannot be resolved: {text}", "connect") from result
    return result


@contextmanager
def _cut_at(deadline: Deadline, connected: socket.socket) -> Iterator[None]:
    """Shut a connection at the deadline: a socket's own timeout starts anew with every byte that drips in."""
    twin = connected.dup()  # stays valid when TLS takes the socket over

    def cut() -> None:
        with suppress(OSError):  # it is down already
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(deadline.left(), cut)
    timer.name, timer.daemon = "deadline", True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        twin.close()


def _read(response: http.client.HTTPResponse, most: int) -> bytes:
    body = b""
    with suppress(OSError, http.client.HTTPException, ValueError):  # the status has said what counts
        while len(body) < most and (piece := response.read1(most - len(body))):
            body += piece
    return body


def clean(text: str) -> str:
    """A line of at most 200 printable characters of what somebody else wrote."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())[:200]
