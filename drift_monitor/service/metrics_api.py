"""What Prometheus asks for: the main page, a page with all features of a monitor, and the list of those pages."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

from drift_monitor.config.models import Config
from drift_monitor.service.exchange import Request, Response, as_json, say
from drift_monitor.service.exposition import Compressed, render
from drift_monitor.service.feature_series import all_of
from drift_monitor.service.metrics import FEATURE_METRICS, Exposition, content_type
from drift_monitor.service.retraining_api import Handler
from drift_monitor.service.store import Store

FEATURES = "/metrics/features"
_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


class Source(Protocol):
    """What this part of the API asks of the daemon."""

    store: Store
    config: Config
    exposition: Exposition


class FeaturePages:
    """Pages with everything about the features of one monitor, rendered once a judged window.

    They are drawn from the whole result in the store, so what is on them takes memory only as compressed text.

    Args:
        store: where the results are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pages: dict[tuple[str, bool], tuple[tuple[int, int] | None, bytes]] = {}

    def page(self, monitor: str, *, openmetrics: bool) -> bytes:
        """A page in gzip.

        Raises:
            StoreError: the store cannot be read.
        """
        run = self._store.judged_run(monitor)
        known = self._pages.get((monitor, openmetrics))
        if known is None or known[0] != run:
            result = None if run is None else self._store.result(run[0])
            drawn = {} if result is None else all_of(monitor, result)
            text = render(FEATURE_METRICS, drawn, {}, openmetrics=openmetrics)
            known = run, Compressed(text).whole(b"# EOF\n" if openmetrics else b"")
            self._pages[monitor, openmetrics] = known
        return known[1]

    def keep(self, monitors: Iterable[str]) -> None:
        """Forget the pages of all others."""
        watched = set(monitors)
        self._pages = {key: page for key, page in self._pages.copy().items() if key[0] in watched}


class MetricsApi:
    """Answers scrapes.

    Args:
        daemon: what to show.
    """

    def __init__(self, daemon: Source) -> None:
        self._daemon = daemon
        self._pages = FeaturePages(daemon.store)
        self._config: Config | None = None
        self.routes: tuple[tuple[str, dict[str, Handler]], ...] = (
            (r"/metrics", {"GET": self._metrics}),
            (FEATURES, {"GET": self._features}),
            (r"/-/sd/prometheus", {"GET": self._targets}),
        )

    def _metrics(self, request: Request) -> Response:
        accept, compressed = request.headers.get("accept", ""), _takes_gzip(request)
        body, kind = self._daemon.exposition.render(accept, compressed=compressed)
        return _page(body, kind, compressed=compressed)

    def _features(self, request: Request) -> Response:
        names = parse_qs(request.query, keep_blank_values=True).get("monitor", [])
        if len(names) != 1:
            return say(f"name one monitor: {FEATURES}?monitor=NAME", HTTPStatus.BAD_REQUEST)
        watched = _watched(self._daemon.config)
        if names[0] not in watched:
            return say("there is no such monitor, or it is disabled", HTTPStatus.NOT_FOUND)
        if self._daemon.config is not self._config:
            self._config = self._daemon.config
            self._pages.keep(watched)
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        body, compressed = self._pages.page(names[0], openmetrics=openmetrics), _takes_gzip(request)
        return _page(
            body if compressed else gzip.decompress(body),
            content_type(openmetrics=openmetrics),
            compressed=compressed,
        )

    def _targets(self, request: Request) -> Response:
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            return say("the Host header is no address that could be scraped", HTTPStatus.BAD_REQUEST)
        return as_json(targets(_watched(self._daemon.config), host))


def targets(monitors: Iterable[str], address: str) -> list[Mapping[str, object]]:
    """The feature pages of monitors, as Prometheus' http_sd_configs reads them.

    The label `monitor` is there to keep `up` and its kin of one page apart from those of another.

    Args:
        monitors: by name.
        address: host and port at which Prometheus reaches this server: those it just used.
    """
    return [
        {
            "targets": [address],
            "labels": {"__metrics_path__": FEATURES, "__param_monitor": name, "monitor": name},
        }
        for name in monitors
    ]


def _watched(config: Config) -> list[str]:
    return [name for name, monitor in config.monitors.items() if monitor.enabled]


def _takes_gzip(request: Request) -> bool:
    return bool(_GZIP.search(request.headers.get("accept-encoding", "")))


def _page(body: bytes, kind: str, *, compressed: bool) -> Response:
    headers = {"Vary": "Accept, Accept-Encoding"} | ({"Content-Encoding": "gzip"} if compressed else {})
    return Response(body, kind, headers=headers)
