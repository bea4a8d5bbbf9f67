"""Kill the process that finishes runs and delivers their messages, again and again: nothing is lost."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from drift_monitor.service.store import Store

KILLS = int(os.environ.get("DRIFT_MONITOR_KILLS", "8"))
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
RECEIVERS = ("steady", "shaky")
T0 = datetime(2013, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

# Finishes one window after the other and says so. A message gets a fresh id whenever it is made: were a run
# finished twice, or a message rendered twice, its window would be told of under two ids or in two bodies.
CHILD = """
import json, sys, time, uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from drift_monitor.config.receivers import WebhookReceiver
from drift_monitor.core.types import CheckResult, Episode, Message, Window
from drift_monitor.receivers import send
from drift_monitor.service.outbox import Outbox, wall_clock
from drift_monitor.service.store import Store

state, url, secret, last = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "last"
T0 = datetime(2013, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
names = ("steady", "shaky")
receivers = {
    name: WebhookReceiver.model_validate_json(json.dumps(
        {"type": "webhook", "url": f"{url}/{name}", "secret_file": secret, "allow_private": True}))
    for name in names
}
store = Store.open(state)
assert store.recover(max_attempts=10**6) == []
outbox = Outbox(store.outbox, receivers, wall_clock, send, retries=(timedelta(milliseconds=20),) * 9)
outbox.start()
print("ready", flush=True)

def finish(run):
    store.start(run.id, wall_clock())
    n = (run.window.start - T0) // HOUR
    time.sleep(0.002)
    result = CheckResult(monitor="m", window=run.window, rows=1, verdict="drift", reason="r", promise="p")
    episode = Episode(id=f"episode-{n // 5}", monitor="m", lane="drift", opened=run.window.start,
                      updated=run.window.end, reminded=run.window.end, worst=n, features=())
    messages = [(name, Message(id=uuid.uuid4().hex, type="t", source="/s", subject="m", time=wall_clock(),
                               group=episode.id, data={"window": n, "made": uuid.uuid4().hex})) for name in names]
    store.finish(run.id, result, now=wall_clock(), episodes=[episode], messages=messages)
    print("done", n, flush=True)
    outbox.kick()

while True:
    for run in store.due():
        finish(run)
    if last:
        break
    newest = store.newest_window("m")
    start = newest.end if newest else T0
    store.enqueue("m", [Window(start=start, end=start + HOUR)])
while store.outbox.deliveries("pending"):
    time.sleep(0.01)
assert outbox.stop(timedelta(seconds=60))
store.close()
"""


class Inbox(ThreadingHTTPServer):
    """The receivers: everything that arrived, in order. `shaky` refuses every third event at first sight."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.arrived: dict[str, list[tuple[int, str, bytes]]] = defaultdict(list)  # window, event id, body
        self.taken: set[tuple[str, int]] = set()
        self.guard = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Inbox

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = self.path.strip("/")
        event = Webhook(SECRET).verify(body, dict(self.headers.items()))
        window = event["data"]["window"]
        with self.server.guard:
            refuse = (
                name == "shaky"
                and window % 3 == 0
                and all(window != seen for seen, _, _ in self.server.arrived[name])
            )
            self.server.arrived[name].append((window, self.headers["webhook-id"], body))
            if not refuse:
                self.server.taken.add((name, window))
        self.send_response(503 if refuse else 204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * KILLS)
def test_no_message_is_lost_and_no_event_told_under_two_ids(tmp_path: Path, inbox: Inbox) -> None:
    state, secret = tmp_path / "state", tmp_path / "secret"
    secret.write_text(SECRET)
    url = f"http://127.0.0.1:{inbox.server_address[1]}"
    rng = random.Random(KILLS)
    promised: set[int] = set()  # windows whose `finish` was seen to return

    def child(how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(state), url, str(secret), how]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def read(lines: str) -> None:
        promised.update(int(line.split()[1]) for line in lines.splitlines() if line.startswith("done "))

    for number in range(KILLS):
        with child("go on") as process:
            assert process.stdout
            if number % 5:  # otherwise it dies while it starts
                assert process.stdout.readline() == "ready\n"
            threading.Event().wait(rng.uniform(0, 0.4))
            process.kill()
            read(process.stdout.read().rpartition("\n")[0])

        if not state.exists():
            continue
        copy = tmp_path / f"copy-{number}"  # so that the next child finds what the kill left
        shutil.copytree(state, copy)
        store = Store.open(copy)  # checks the database
        done = {(result.window.start - T0) // HOUR for _, result in store.results("m", 10**6)}
        assert len(store.outbox.deliveries(limit=10**6)) == len(RECEIVERS) * len(done)
        store.close()
        shutil.rmtree(copy)
        assert promised <= done

    with child("last") as process:
        assert process.stdout
        read(process.stdout.read())
        assert process.wait() == 0

    store = Store.open(state)
    rows = store.outbox.deliveries(limit=10**6)
    windows = {json.loads(row.body)["data"]["window"] for row in rows}
    assert {row.state for row in rows} == {"delivered"}
    assert promised <= windows
    assert len(windows) >= KILLS // 4  # the kills did not only hit idle processes
    assert len(store.episodes("m", 10**6)) == len({n // 5 for n in windows})
    counters = store.snapshot().counters
    assert counters["runs_total", (("monitor", "m"),)] == len(windows)
    store.close()

    for name in RECEIVERS:
        ids, bodies = defaultdict(set), defaultdict(set)
        for window, event_id, body in inbox.arrived[name]:
            ids[window].add(event_id)
            bodies[window].add(body)
        assert ids.keys() == windows  # nothing lost, nothing from a run that was not stored
        assert {window for who, window in inbox.taken if who == name} == windows
        assert all(len(found) == 1 for found in ids.values())
        assert all(len(found) == 1 for found in bodies.values())
        first_sight = list(dict.fromkeys(window for window, _, _ in inbox.arrived[name]))
        for group in {n // 5 for n in windows}:
            order = [window for window in first_sight if window // 5 == group]
            assert order == sorted(order)
