"""Prometheus and Alertmanager of several versions, each a pair of real servers on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from ruamel.yaml import YAML

ROOT: Final = Path(__file__).parents[3]
ALERTS: Final = ROOT / "alerts"
PATIENCE: Final = 60.0  # seconds until something that must happen is given up
SYSTEM: Final = "system"
SUITES: Final = ("trixie", "sid")
_T = TypeVar("_T")


def until(probe: Callable[[], _T], what: str, patience: float = PATIENCE) -> _T:
    """Repeat `probe` until it returns something true, which is returned."""
    give_up = time.monotonic() + patience
    while not (found := probe()):
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {patience:g} s for {what}")
        time.sleep(0.1)
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def ask(url: str, body: object = None, **headers: str) -> Any:
    """The JSON of an answer: of a GET, or of a POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urlopen(request, timeout=15) as answer:
            return json.load(answer)
    except HTTPError as error:
        with error:
            raise AssertionError(f"{url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None


def answers(url: str) -> bool:
    """Whether it says 200."""
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


# -- which servers there are ----------------------------------------------------------------------


@dataclass(frozen=True)
class Programs:
    """Where the servers of one version are; None for those that are missing."""

    name: str
    prometheus: str | None
    alertmanager: str | None

    @property
    def complete(self) -> bool:
        """Whether both can be started."""
        return self.prometheus is not None and self.alertmanager is not None

    def version(self) -> str:
        """Of Prometheus, such as `2.42.0`."""
        done = subprocess.run([str(self.prometheus), "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"version ([\d.]+)", done.stdout + done.stderr)
        return found[1] if found else "unknown"


def programs(name: str) -> Programs:
    """Those that are installed (`system`), or those of a suite that `fetch_servers.sh` has unpacked."""
    if name == SYSTEM:
        found = filter(shutil.which, ("alertmanager", "prometheus-alertmanager"))
        return Programs(name, shutil.which("prometheus"), next(found, None))
    default = Path.home() / ".cache" / "drift-monitor" / "servers"
    folder = Path(os.environ.get("DRIFT_MONITOR_SERVERS", default)) / name / "usr" / "bin"
    return Programs(
        name, shutil.which(str(folder / "prometheus")), shutil.which(str(folder / "prometheus-alertmanager"))
    )


# -- what Alertmanager tells ----------------------------------------------------------------------


@dataclass(frozen=True)
class Notice:
    """One alert in one notification.

    Attributes:
        at: unix seconds when it came.
        receiver: of Alertmanager's configuration.
        status: `firing` or `resolved`.
        subject: the monitor or receiver that it is about; empty for neither.
    """

    at: float
    receiver: str
    status: str
    alert: str
    subject: str
    annotations: Mapping[str, str]


def subject(labels: Mapping[str, str]) -> str:
    """What an alert is about: a monitor, a receiver, or the daemon as a whole (empty)."""
    return labels.get("monitor") or labels.get("receiver") or ""


class Inbox:
    """The webhook receiver of every Alertmanager: keeps what comes, by the last part of the path."""

    def __init__(self) -> None:
        self._notices: dict[str, list[Notice]] = {}
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                inbox.take(self.path.strip("/"), body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, name: str, body: Mapping[str, Any]) -> None:
        """Keep a notification."""
        now = time.time()
        for alert in body["alerts"]:
            labels = alert["labels"]
            told = Notice(
                now,
                body["receiver"],
                alert["status"],
                labels["alertname"],
                subject(labels),
                alert["annotations"],
            )
            self._notices.setdefault(name, []).append(told)
            self.heard(name, told)

    def heard(self, name: str, notice: Notice) -> None:
        """Called with each alert of each notification; does nothing here."""

    def notices(self, name: str) -> list[Notice]:
        """What one Alertmanager sent, oldest first."""
        return list(self._notices.get(name, ()))

    def url(self, name: str) -> str:
        """Where it has to send."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


# -- a pair of servers ----------------------------------------------------------------------------

# The committed rules, on a clock that runs faster: (text, what takes its place, how often it occurs).
QUICK: Final = (
    ("keep_firing_for: 10m", "keep_firing_for: 20s", 13),
    ("for: 5m\n", "for: 4s\n", 3),
    ("for: 15m", "for: 2s", 1),
    ("_interval_seconds, 60)", "_interval_seconds, 16)", 3),
    ("86400", "12", 3),
    ("> 3600", "> 10", 1),
    ("[1h]", "[30s]", 2),
)
# The same of the Alertmanager example.
QUICK_ROUTES: Final = (
    ("group_wait: 30s", "group_wait: 1s", 1),
    ("group_interval: 5m", "group_interval: 1s", 1),
    ("group_interval: 1m", "group_interval: 1s", 1),
    ("repeat_interval: 1m", "repeat_interval: 5s", 1),
)


def quicken(text: str, replacements: Iterable[tuple[str, str, int]]) -> str:
    """The text on a faster clock.

    Raises:
        AssertionError: it does not say a duration as often as expected, so it has changed.
    """
    for old, new, count in replacements:
        assert text.count(old) == count, f"{old!r} occurs {text.count(old)} times, not {count}"
        text = text.replace(old, new)
    return text


class Pair:
    """A Prometheus that scrapes the daemon every second and an Alertmanager behind it, in a `with` block.

    Args:
        programs: of one version.
        folder: for their files.
        target: host:port of the daemon.
        inbox: whom Alertmanager notifies.
        prometheus_port, alertmanager_port: free ones when 0.
    """

    def __init__(
        self,
        programs: Programs,
        folder: Path,
        target: str,
        inbox: Inbox,
        *,
        prometheus_port: int = 0,
        alertmanager_port: int = 0,
    ) -> None:
        self.name = programs.name
        self._programs, self._folder, self._target, self._inbox = programs, folder, target, inbox
        self._at = f"127.0.0.1:{prometheus_port or free_port()}"
        self._alertmanager_at = f"127.0.0.1:{alertmanager_port or free_port()}"
        self.url, self.alertmanager_url = f"http://{self._at}", f"http://{self._alertmanager_at}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._configure()
        try:
            self._start(
                "alertmanager",
                [
                    str(self._programs.alertmanager),
                    f"--config.file={self._folder}/alertmanager.yml",
                    f"--storage.path={self._folder}/alertmanager",
                    f"--web.listen-address={self._alertmanager_at}",
                    f"--web.external-url={self.alertmanager_url}/",
                    "--cluster.listen-address=",
                    "--log.level=warn",
                ],
            )
            self._start(
                "prometheus",
                [
                    str(self._programs.prometheus),
                    f"--config.file={self._folder}/prometheus.yml",
                    f"--storage.tsdb.path={self._folder}/prometheus",
                    f"--web.listen-address={self._at}",
                    f"--web.external-url={self.url}/",
                    "--rules.alert.resend-delay=5s",
                    "--log.level=warn",
                ],
            )
            for url in (self.url, self.alertmanager_url):
                until(
                    lambda url=url: self._alive() and answers(f"{url}/-/ready"), f"{url}; logs in {self._folder}"
                )
            # Only then the rules: a quick one about a missing target would fire before the first scrape.
            until(lambda: self.instant("up == 1"), f"the first scrape; logs in {self._folder}")
            self._write_config(rules=True)
            self._processes[-1].send_signal(signal.SIGHUP)
            until(lambda: self.get("rules")["groups"], f"the rules; logs in {self._folder}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(20)

    def _alive(self) -> bool:
        for process in self._processes:
            assert process.poll() is None, f"a server ended; its log is in {self._folder}"
        return True

    def _start(self, name: str, command: list[str]) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def _configure(self) -> None:
        rules = quicken((ALERTS / "drift-monitor.rules.yml").read_text("utf-8"), QUICK)
        routes = quicken((ALERTS / "alertmanager.yml").read_text("utf-8"), QUICK_ROUTES)
        (self._folder / "rules.yml").write_text(rules, "utf-8")
        routing = YAML(typ="safe").load(routes)
        for receiver in routing["receivers"]:
            for webhook in receiver["webhook_configs"]:
                webhook["url"] = self._inbox.url(self.name)
        (self._folder / "alertmanager.yml").write_text(json.dumps(routing), "utf-8")  # JSON is YAML
        self._write_config(rules=False)

    def _write_config(self, *, rules: bool) -> None:
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self._folder / "rules.yml")] if rules else [],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [self._alertmanager_at]}]}]},
            "scrape_configs": [{"job_name": "drift-monitor", "static_configs": [{"targets": [self._target]}]}],
        }
        (self._folder / "prometheus.yml").write_text(json.dumps(config), "utf-8")

    # -- what they say -------------------------------------------------------------------------

    def get(self, path: str, **parameters: object) -> Any:
        """The `data` of an answer of Prometheus.

        Raises:
            AssertionError: it refuses; the message is its own.
        """
        return ask(f"{self.url}/api/v1/{path}?{urlencode(parameters, doseq=True)}")["data"]

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """The answer to a query now."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def over_time(self, expr: str, start: float, step: float = 1) -> list[dict[str, Any]]:
        """The answer to a query from `start` (unix seconds) until now."""
        answer = self.get("query_range", query=expr, start=start, end=time.time(), step=step)
        found: list[dict[str, Any]] = answer["result"]
        return found

    def firing(self) -> set[tuple[str, str]]:
        """(alert, subject) of everything that fires in Prometheus now."""
        return {
            (alert["labels"]["alertname"], subject(alert["labels"]))
            for alert in self.get("alerts")["alerts"]
            if alert["state"] == "firing"
        }

    def inhibited(self) -> set[tuple[str, str]]:
        """(alert, subject) of everything that Alertmanager holds back because of another alert."""
        return {
            (alert["labels"]["alertname"], subject(alert["labels"]))
            for alert in ask(f"{self.alertmanager_url}/api/v2/alerts")
            if alert["status"]["inhibitedBy"]
        }

    @property
    def notices(self) -> list[Notice]:
        """What Alertmanager has sent so far, oldest first."""
        return self._inbox.notices(self.name)
