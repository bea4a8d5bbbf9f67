"""The HTTP side: /metrics, health, pages for people and a small API for the command line."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import create_server

from drift_monitor.config.intake import LARGEST_BODY
from drift_monitor.core.errors import StoreError
from drift_monitor.service.exchange import Request, Response, as_json, html, say
from drift_monitor.service.guard import OPEN, Guard
from drift_monitor.service.intake import MOST_REQUESTS, Intake
from drift_monitor.service.logs import fields
from drift_monitor.service.metrics_api import MetricsApi, Source
from drift_monitor.service.pages import Pages
from drift_monitor.service.records_api import PATH, take_records, takes_records
from drift_monitor.service.retraining_api import Actor, Handler, RetrainingApi
from drift_monitor.service.stored import find_run, stored_run

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

_PAGE_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"  # noqa: E501
# An Evidently page runs its own scripts: an origin of its own keeps them from everything else here.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; worker-src blob:; frame-ancestors 'none'"
)
_MOST_ROWS = 1000
_LARGEST_BODY = 65_536


class Daemon(Actor, Source, Protocol):
    """What the server shows and asks for."""

    intake: Intake

    @property
    def reports(self) -> Path:
        """The folder of Evidently reports."""

    def not_ready(self) -> list[str]:
        """Why the daemon is not ready; empty when it is."""

    def status(self) -> dict[str, object]:
        """The answer of /api/v1/status."""

    def reload(self) -> list[str]:
        """Read the configuration again; the problems found."""

    def retry(self, delivery: int) -> bool:
        """Send a message again now; False when there is none such."""

    def drop(self, delivery: int) -> bool:
        """Delete a message; False when there is none such."""


class Application:
    """The WSGI application.

    Args:
        daemon: what to show.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._pages = Pages()
        self._guard = Guard()
        self._retrainings = RetrainingApi(daemon)
        routes: tuple[tuple[str, dict[str, Handler]], ...] = (
            (r"/-/healthy", {"GET": self._healthy}),
            (r"/-/ready", {"GET": self._ready}),
            (r"/-/reload", {"POST": self._reload}),
            *MetricsApi(daemon).routes,
            (r"/", {"GET": self._index}),
            (r"/monitors/([^/]+)", {"GET": self._monitor}),
            (r"/style\.css", {"GET": self._style}),
            (r"/reports/(\d{1,18})\.html", {"GET": self._report}),
            (r"/api/v1/status", {"GET": self._status}),
            (r"/api/v1/runs/(\d{1,18})", {"GET": self._run}),
            (r"/api/v1/monitors/([^/]+)/runs/([^/]+)", {"GET": self._run_at}),
            (PATH.pattern, {"POST": self._records}),
            *self._retrainings.routes,
            (r"/api/v1/outbox", {"GET": self._outbox}),
            (r"/api/v1/outbox/(\d{1,18})/(retry|drop)", {"POST": self._act}),
        )
        self._routes = [(re.compile(pattern), methods) for pattern, methods in routes]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        request = Request(
            method=environ["REQUEST_METHOD"],
            path=environ.get("PATH_INFO", "/").encode("latin-1").decode("utf-8", "replace"),
            query=environ.get("QUERY_STRING", ""),
            headers={k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
            | {"content-type": environ.get("CONTENT_TYPE", "")},
            stream=environ["wsgi.input"],
            size=int(environ.get("CONTENT_LENGTH") or 0),
        )
        if request.method == "POST" and not takes_records(request):
            request = replace(request, body=environ["wsgi.input"].read())
        try:
            response = self._answer(request)
        except StoreError as error:
            response = say(f"the state cannot be read: {error}", HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:
            log.exception("a request failed", extra=fields(method=request.method, path=request.path))
            response = say("internal error; the log has more", HTTPStatus.INTERNAL_SERVER_ERROR)
        headers = {
            "Content-Type": response.type,
            "Content-Length": str(len(response.body)),
            "Content-Security-Policy": _PAGE_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            **response.headers,
        }
        opened = None
        if response.file is not None:
            opened = response.file.open("rb")
            headers["Content-Length"] = str(os.fstat(opened.fileno()).st_size)
        start_response(f"{response.status.value} {response.status.phrase}", list(headers.items()))
        if opened is not None:
            if request.method != "HEAD":
                wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened)  # which closes it
                return wrapped
            opened.close()
        return [] if request.method == "HEAD" else [response.body]

    def _answer(self, request: Request) -> Response:
        signed = self._retrainings.is_signed(request)  # by MLflow, which cannot show our token
        if (
            request.path not in OPEN
            and not signed
            and (refusal := self._guard.refusal(request, self._daemon.config.server))
        ):
            return refusal
        for pattern, methods in self._routes:
            if match := pattern.fullmatch(request.path):
                handler = methods.get("GET" if request.method == "HEAD" else request.method)
                if handler is not None:
                    return handler(request, *match.groups())
                allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
                return say(f"{request.path} takes {allowed} only", HTTPStatus.METHOD_NOT_ALLOWED, Allow=allowed)
        return say("there is nothing here", HTTPStatus.NOT_FOUND)

    def wants_body(self, request: Request) -> bool:
        """Whether the rows that a request is about to send may be taken from whoever sends them."""
        return self._guard.refusal(request, self._daemon.config.server) is None

    def _records(self, request: Request, name: str) -> Response:
        return take_records(self._daemon.intake, request, name)

    def _healthy(self, _request: Request) -> Response:
        return say("drift-monitor is healthy")

    def _ready(self, request: Request) -> Response:
        if reasons := self._daemon.not_ready():
            if self._guard.refusal(request, self._daemon.config.server):
                reasons = ["the log tells why"]  # they name files, and a probe shows no token
            return say("not ready: " + "; ".join(reasons), HTTPStatus.SERVICE_UNAVAILABLE)
        return say("drift-monitor is ready")

    def _reload(self, _request: Request) -> Response:
        if not self._daemon.config.server.reload_endpoint:
            return say(
                "reloading over HTTP is off: set server.reload_endpoint, or send SIGHUP", HTTPStatus.FORBIDDEN
            )
        if problems := self._daemon.reload():
            return say("the old configuration keeps running\n" + "\n".join(problems), HTTPStatus.BAD_REQUEST)
        return say("reloaded")

    def _index(self, _request: Request) -> Response:
        return html(self._pages.index(self._daemon.store.snapshot(), self._daemon.config, self._daemon.status()))

    def _monitor(self, _request: Request, name: str) -> Response:
        monitor = self._daemon.config.monitors.get(name)
        if monitor is None:
            return say("there is no such monitor", HTTPStatus.NOT_FOUND)
        store = self._daemon.store
        run = store.snapshot().judged_runs.get(name)
        judged = None if run is None else store.result(run)
        reports = {int(path.stem) for path in self._daemon.reports.glob("*.html") if path.stem.isdigit()}
        return html(
            self._pages.monitor(
                name,
                monitor,
                judged,
                store.results(name, 50),
                store.episodes(name, 20),
                reports,
                store.retrainings.newest(name, 20),
            )
        )

    def _style(self, _request: Request) -> Response:
        return Response(self._pages.style, "text/css; charset=utf-8", headers={"Cache-Control": "max-age=3600"})

    def _report(self, _request: Request, run: str) -> Response:
        try:
            body = (self._daemon.reports / f"{int(run)}.html").read_bytes()
        except FileNotFoundError:
            return say(
                "there is no report of this run (yet); the log tells whether it failed", HTTPStatus.NOT_FOUND
            )
        return html(body, **{"Content-Security-Policy": _REPORT_POLICY})

    def _status(self, _request: Request) -> Response:
        return as_json(self._daemon.status())

    def _run(self, _request: Request, run: str) -> Response:
        found = stored_run(self._daemon.store, int(run))
        if found is None:
            return as_json({"error": f"no finished run {run}"}, HTTPStatus.NOT_FOUND)
        return Response(found.model_dump_json().encode() + b"\n", "application/json")

    def _run_at(self, request: Request, monitor: str, end: str) -> Response:
        try:
            moment = None if end == "latest" else datetime.fromisoformat(end)
        except ValueError:
            return as_json({"error": "name `latest`, or the window's end in ISO 8601"}, HTTPStatus.BAD_REQUEST)
        if moment is not None and moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        run = find_run(self._daemon.store, monitor, moment)
        if run is None:
            return as_json({"error": "no finished run of this window"}, HTTPStatus.NOT_FOUND)
        return self._run(request, str(run))

    def _outbox(self, request: Request) -> Response:
        match = re.fullmatch(r"(?:state=(pending|delivered|dead))?", request.query)
        if match is None:
            return say("the query may be state=pending, state=delivered or state=dead", HTTPStatus.BAD_REQUEST)
        deliveries = self._daemon.store.outbox.deliveries(match[1], _MOST_ROWS)
        return as_json({"deliveries": [d.model_dump(mode="json", exclude={"body"}) for d in deliveries]})

    def _act(self, _request: Request, delivery: str, verb: str) -> Response:
        done = (self._daemon.retry if verb == "retry" else self._daemon.drop)(int(delivery))
        if not done:
            return as_json({"error": f"no pending or dead message {delivery}"}, HTTPStatus.NOT_FOUND)
        return as_json({"id": int(delivery), "done": verb})


class Server:
    """The application behind a socket, in threads of its own.

    Args:
        host, port: where to listen; port 0 takes a free one.
        application: WSGI.

    Raises:
        OSError: the address cannot be had.
    """

    def __init__(self, host: str, port: int, application: Application) -> None:
        self._map: dict[int, Any] = {}
        self._stopping = threading.Event()
        listener = _listen(host, port)
        self.port: int = listener.getsockname()[1]
        self._server = create_server(
            application,
            map=self._map,
            sockets=[listener],
            threads=4 + MOST_REQUESTS,  # so that the pages are served while rows wait
            recv_bytes=65_536,
            ident="drift-monitor",
            connection_limit=100,
            channel_timeout=30,
            cleanup_interval=10,
            max_request_header_size=16_384,
            max_request_body_size=_LARGEST_BODY,
            clear_untrusted_proxy_headers=True,
        )
        self._server.channel_class = _channel(application)  # type: ignore[union-attr]  # one socket, one server
        self._thread = threading.Thread(target=self._loop, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the answers under way, and take no more requests."""
        self._stopping.set()
        self._server.pull_trigger()  # type: ignore[union-attr]  # one socket, one server
        if self._thread.is_alive():
            self._thread.join()
        self._server.task_dispatcher.shutdown(timeout=2)
        wasyncore.close_all(self._map)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            wasyncore.loop(timeout=5, map=self._map, count=1)


class _Nowhere:
    """A buffer for a body that nobody is going to read, so that the client gets to read the answer."""

    def __init__(self) -> None:
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        self._size += len(data)

    def getfile(self) -> IO[bytes]:
        return BytesIO()

    def close(self) -> None:
        pass


def _channel(application: Application) -> type[HTTPChannel]:
    """Connections on which those who may send rows can send a large body."""

    class Parser(HTTPRequestParser):
        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            path = str(self.path).encode("latin-1").decode("utf-8", "replace")  # type: ignore[attr-defined]
            headers = {key.replace("_", "-").lower(): value for key, value in self.headers.items()}
            request = Request(str(self.command), path, "", headers)
            if takes_records(request):
                self.adj = copy(self.adj)
                self.adj.max_request_body_size = LARGEST_BODY + 1  # a body of that size is refused
                if self.body_rcv is not None and not application.wants_body(request):
                    self.body_rcv.buf = _Nowhere()  # type: ignore[assignment]

    class Channel(HTTPChannel):
        parser_class = Parser

    return Channel


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener
