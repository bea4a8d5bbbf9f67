"""A real daemon to test against: its configuration, its process or thread, and a receiver that remembers."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.service.app import App
from drift_monitor.service.lock import read_lock

HERE = Path(__file__).parent
LABEL = re.compile(r'\w+="(?:[^"\\]|\\.)*"')
STAND_IN = (sys.executable, str(HERE / "daemon_stand_in.py"))
PATIENCE = 60  # seconds until something that must happen is given up
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def until(probe, what="it", patience=PATIENCE):
    """Repeat `probe` until it returns something true."""
    give_up = time.monotonic() + patience
    while not (found := probe()):
        assert time.monotonic() < give_up, f"{what() if callable(what) else what} did not happen in {patience} s"
        time.sleep(0.02)
    return found


class Receiver:
    """A webhook receiver that verifies signatures and remembers (webhook-id, body)."""

    def __init__(self):
        received, self.status, self.torn = [], 200, 0
        self.received = received
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:  # the sender was killed while it sent: nobody was told anything
                    outer.torn += 1
                    self.close_connection = True
                    return
                try:
                    Webhook(SECRET).verify(body, {k.lower(): v for k, v in self.headers.items()})
                except WebhookVerificationError as error:
                    received.append((self.headers["webhook-id"], f"BAD SIGNATURE: {error!r}".encode()))
                else:
                    received.append((self.headers["webhook-id"], body))
                self.send_response(outer.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/hook"

    @property
    def events(self):
        return [json.loads(body) for _, body in self.received]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def configure(folder, monitors, *, receiver=None, **sections):
    """Write a configuration file (JSON is YAML) and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "state": "state",
        "server": {"listen": "127.0.0.1:0"},
        "workers": {"deadline": "20s", "grace": "10s"},
        "monitors": {
            name: {
                "reference": "reference",
                "source": {"path": "script.json", "timestamp": "t"},
                "schedule": {"every": "1h"},
                "window": {"length": "1h"},
                "report": {"enabled": False},
                "notify": ["hook"] if receiver else [],
                **monitor,
            }
            for name, monitor in monitors.items()
        },
        **sections,
    }
    if receiver is not None:
        (folder / "secret").write_text(SECRET + "\n")
        config["receivers"] = {"hook": {"type": "webhook", "url": receiver.url, "secret_file": "secret"}}
    path = folder / "drift-monitor.yaml"
    path.write_text(json.dumps(config, indent=1))
    return path


def _sorted(series):
    name, brace, labels = series.partition("{")
    return name + brace + ",".join(sorted(LABEL.findall(labels))) + "}" * bool(brace)


class Api:
    """What a client sees of a daemon."""

    def __init__(self, address):
        self.address = address

    def get(self, path, *, method="GET", **headers):
        """Status, headers and body."""
        request = urllib.request.Request(
            self.address + path, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def post(self, path, **headers):
        return self.get(path, method="POST", X_Requested_By="drift-monitor", **headers)

    def status(self):
        code, _, body = self.get("/api/v1/status")
        assert code == 200, body
        return json.loads(body)

    def metrics(self):
        """Series, their labels in the order of the alphabet, and their values."""
        code, _, body = self.get("/metrics")
        assert code == 200, body
        lines = (line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))
        return {_sorted(name): float(value) for name, value in lines}

    def ready(self):
        try:
            return self.get("/-/ready")[0] == 200
        except OSError:
            return False


@contextmanager
def in_thread(config, clock=None, worker=STAND_IN, **arguments):
    """A daemon in this process. Yields the App and its Api."""
    app = App(config, clock, worker=worker, **arguments)
    failure = []

    def run():
        try:
            app.run()
        except DriftMonitorError as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: failure or not app.not_ready(), "the start")
        if failure:
            raise failure[0]
        yield app, Api(app.address)
    finally:
        app.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it did not stop"


class Process:
    """A daemon in a process of its own."""

    def __init__(self, config, *arguments, command=(sys.executable, str(HERE / "daemon_process.py"))):
        self.state, self.log = config.parent / "state", config.parent / "log"
        with self.log.open("ab") as log_file:
            self.process = subprocess.Popen(
                [*command, str(config), *map(str, arguments)],
                stdout=log_file,
                stderr=log_file,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def api(self):
        info = until(self._announced, "the start")
        return Api(info.address)

    def _announced(self):
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log.read_text()}"
        info = read_lock(self.state) if self.state.exists() else None
        return info if info is not None and info.address and info.pid == self.process.pid else None

    def wait_until_ready(self):
        api = self.api
        until(api.ready, "readiness")
        return api

    def send(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM):
        """Send a signal and wait; the exit code."""
        if self.process.poll() is None:
            self.send(number)
        return self.process.wait(PATIENCE)
