"""HTTP: who may ask, what is answered, and requests that nobody should send."""

import gzip
import http.client
import os
import re
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from drift_monitor.config.models import Config
from drift_monitor.core.errors import StoreError
from drift_monitor.core.types import CheckResult, Episode, FeatureResult, Histogram, Outcome, Signal, Window
from drift_monitor.service.metrics import Exposition
from drift_monitor.service.pages import bars
from drift_monitor.service.server import Application, Server
from drift_monitor.service.store import Store
from drift_monitor.service.stored import StoredRun

END = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'&"
PATIENCE = 60  # seconds until an answer that must come is given up


class Daemon:
    """What the application shows, without the daemon around it."""

    def __init__(self, folder, server):
        self.folder, self.exposition, self.store = folder, Exposition(), Store.open(folder / "state")
        self.reports, self.reasons, self.problems, self.asked = folder / "reports", [], [], []
        self.reports.mkdir()
        self.configure(server)

    def configure(self, server):
        monitor = {
            "reference": "r",
            "source": {"path": "p"},
            "schedule": {"every": "1h"},
            "model": {"name": HOSTILE},
        }
        self.config = Config.model_validate({"server": server, "monitors": {"m": monitor}}, strict=False)

    def not_ready(self):
        return self.reasons

    def status(self):
        return {
            "not_ready": self.reasons,
            "reload": {"successful": True, "problems": []},
            "replay": None,
            "monitors": {"m": {"next_run": "2026-03-04T13:00:00+00:00"}},
        }

    def reload(self):
        self.asked.append("reload")
        return self.problems

    def retry(self, delivery):
        self.asked.append(("retry", delivery))
        return delivery == 7

    def drop(self, delivery):
        self.asked.append(("drop", delivery))
        return delivery == 7


@pytest.fixture
def serve(tmp_path):
    """Starts servers; `ask` sends one request and returns (status, headers, body)."""
    open_servers = []

    def start(**server):
        daemon = Daemon(tmp_path, {"listen": "127.0.0.1:0", **server})
        http_server = Server("127.0.0.1", 0, Application(daemon))
        http_server.start()
        open_servers.append((daemon, http_server))

        def ask(path, method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", http_server.port, timeout=PATIENCE)
            try:
                connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()
            finally:
                connection.close()

        return SimpleNamespace(daemon=daemon, ask=ask, port=http_server.port)

    yield start
    for daemon, http_server in open_servers:
        http_server.stop()
        daemon.store.close()


def raw(port, data):
    """Send bytes as they are and return all that comes back until the other side closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(data)
        with suppress(ConnectionResetError):  # closed with some of what we sent unread
            while chunk := connection.recv(65536):
                answer += chunk
    return answer


def judge(daemon, name=HOSTILE):
    window = Window(start=END - timedelta(hours=1), end=END)
    daemon.store.enqueue("m", [window])
    [run] = daemon.store.due()
    features = (
        FeatureResult(
            name=name,
            kind="categorical",
            drifted=True,
            method="js",
            score=2.0,
            threshold=1.0,
            window=3600,
            effect=f"{HOSTILE} 1% -> 9%",
            histogram=Histogram(labels=(HOSTILE, "b"), reference=(0.5, 0.5), current=(0.1, 0.9)),
        ),
    )
    result = CheckResult(
        monitor="m",
        window=window,
        rows=5,
        verdict=Outcome.DRIFT,
        reason=HOSTILE,
        promise=HOSTILE,
        features=features,
        score=2.0,
        threshold=1.0,
        promise_basis="extrapolated",
        signals=(Signal(channel="pairs", window=7200, score=2.0, over=True, detail=HOSTILE),),
    )
    episode = Episode(
        id="e",
        monitor="m",
        lane="drift",
        opened=END,
        updated=END,
        reminded=END,
        worst=2.0,
        features=(name,),
        since={name: END - timedelta(hours=5)},
    )
    daemon.store.finish(run.id, result, now=END, episodes=[episode])
    return run.id


def test_health_and_readiness(serve):
    s = serve()
    assert s.ask("/-/healthy")[0] == 200
    assert s.ask("/-/ready")[0] == 200
    s.daemon.reasons = ["the scheduler is not running"]
    status, _, body = s.ask("/-/ready")
    assert (status, body) == (503, b"not ready: the scheduler is not running\n")
    assert s.ask("/-/healthy")[0] == 200


def test_pages_escape_and_run_no_script(serve):
    s = serve()
    assert s.ask("/monitors/m")[0] == 200  # nothing judged yet
    judge(s.daemon)
    for path in ("/", "/monitors/m"):
        status, headers, body = s.ask(path)
        assert status == 200
        assert b"&lt;script&gt;" in body
        assert b"<script" not in body
        assert b" style=" not in body
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert s.ask("/style.css")[1]["Content-Type"] == "text/css; charset=utf-8"


def test_the_list_says_when_the_next_window_is_due(serve):
    assert b"<td>2026-03-04 13:00Z</td>" in serve().ask("/")[2]


def test_a_page_of_a_name_with_a_lone_surrogate_is_served(serve):
    s = serve()
    s.daemon.status = lambda: {
        "not_ready": ["a\ud800b"],
        "reload": {"successful": True, "problems": []},
        "replay": None,
        "monitors": {"m": {"next_run": None}},
    }
    assert b"a?b" in s.ask("/")[2]


def test_histogram_bars_fit_their_box():
    drawn = bars(Histogram(labels=("a", "b", "c"), reference=(0.0, 0.0, 0.0), current=(0.2, 0.3, 0.5)))
    heights = {(title[0], side): height for title, rects in drawn for side, _, _, _, height in rects}
    assert heights["c", "current"] == 36
    assert heights["a", "reference"] == 0
    assert all(0 <= x <= 180 and 0 <= y <= 36 for _, rects in drawn for _, x, y, _, _ in rects)


def test_metrics_are_served_in_the_format_asked_for(serve):
    s = serve()
    status, headers, body = s.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["Content-Encoding"] is None
    assert b"# TYPE drift_monitor_runs_total counter" in body
    _, headers, body = s.ask("/metrics", Accept_Encoding="deflate, gzip;q=0.5")
    assert headers["Content-Encoding"] == "gzip"
    assert b"drift_monitor_runs_total" in gzip.decompress(body)
    assert s.ask("/metrics", Accept_Encoding="gzip;q=0")[1]["Content-Encoding"] is None
    assert s.ask("/metrics", Accept="application/openmetrics-text")[2].endswith(b"# EOF\n")
    junk = "application/openmetrics-text;version=1.0.0;escaping=x, text/plain;version=zzz"
    assert s.ask("/metrics", Accept=junk)[0] == 200


def test_head_has_no_body(serve):
    s = serve()
    status, headers, body = s.ask("/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/metrics", 405, "GET, HEAD"),
        ("DELETE", "/", 405, "GET, HEAD"),
        ("GET", "/-/reload", 405, "POST"),
        ("GET", "/api/v1/outbox/7/retry", 405, "POST"),
        ("GET", "/nothing", 404, None),
        ("GET", "/monitors/unknown", 404, None),
        ("GET", "/monitors/%00%ff", 404, None),
        ("GET", "/monitors/m/", 404, None),
    ],
)
def test_wrong_methods_and_paths(serve, method, path, status, allow):
    s = serve()
    answer, headers, _ = s.ask(path, method, X_Requested_By="drift-monitor")
    assert (answer, headers["Allow"]) == (status, allow)


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "..%2fsecret",
        "%2e%2e/secret.html",
        "1.html/../../secret",
        "1.html%00",
        "-1.html",
        "x.html",
        "1.htm",
    ],
)
def test_reports_are_reached_by_number_only(serve, path):
    s = serve()
    (s.daemon.folder / "secret").write_text("secret")
    (s.daemon.reports / "x.html").write_text("secret")
    (s.daemon.reports / "1.html").write_text("the report")
    assert s.ask("/reports/1.html")[2] == b"the report"
    answer = raw(s.port, f"GET /reports/{path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    assert b" 404 " in answer.split(b"\r\n")[0]
    assert b"secret" not in answer


def test_a_report_runs_in_an_origin_of_its_own(serve):
    s = serve()
    (s.daemon.reports / "1.html").write_text("x")
    directives = s.ask("/reports/1.html")[1]["Content-Security-Policy"].split("; ")
    assert directives[0] == "sandbox allow-scripts"
    assert "default-src 'none'" in directives


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9877", "127.0.0.1.evil.example", "", "[", "10.0.0.1"]
)
def test_a_foreign_host_is_refused_on_loopback(serve, host):
    s = serve()
    assert s.ask("/api/v1/status", Host=host)[0] == 421
    assert s.ask("/-/ready", Host=host)[0] == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9877", "[::1]:9877", "drift.example"])
def test_our_own_hosts_are_served(serve, host):
    s = serve(public_url="https://drift.example/")
    assert s.ask("/api/v1/status", Host=host)[0] == 200


def test_our_own_host_may_be_an_address(serve):
    s = serve(public_url="http://[fd00::7]:9877/")
    assert s.ask("/api/v1/status", Host="[fd00::7]:9877")[0] == 200
    assert s.ask("/api/v1/status", Host="[fd00::8]:9877")[0] == 421


def test_the_token_guards_all_but_health(serve, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    s = serve(token_file=str(token), reload_endpoint=True)
    assert s.ask("/-/healthy")[0] == s.ask("/-/ready")[0] == 200
    for path in ("/", "/metrics", "/api/v1/status", "/reports/1.html", "/nothing", "/style.css"):
        status, headers, _ = s.ask(path)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    for wrong in ("Bearer wrong", "Bearer ", "Basic s3cret", "s3cret", "Bearer s3cret2", "Bearer \xe9"):
        assert s.ask("/metrics", Authorization=wrong)[0] == 401
    assert s.ask("/metrics", Authorization="Bearer s3cret")[0] == 200
    assert s.ask("/-/reload", "POST", X_Requested_By="drift-monitor")[0] == 401
    assert s.ask("/-/reload", "POST", Authorization="bearer s3cret")[0] == 200


def test_the_page_of_a_monitor_tells_the_promise_the_signals_and_since_when(serve):
    s = serve()
    run = judge(s.daemon, name="distance")
    page = s.ask("/monitors/m")[2].decode()
    assert "2 against 1, 200% of it" in page
    assert '<span class="promise extrapolated">extrapolated</span>' in page
    assert '<td>pairs</td><td>2h</td><td class="n">2</td><td class="n">200%</td>' in page
    assert "<td>js</td>\n<td>1h</td>" in page
    assert f"<td>{END - timedelta(hours=5):%Y-%m-%d %H:%M}Z</td>" in page
    assert f'<tr>\n<td class="n">{run}</td>' in page
    assert ">extrapolated</span>" in s.ask("/")[2].decode()


def test_a_run_is_told_with_what_was_before_it(serve):
    s = serve()
    run = judge(s.daemon, name="distance")
    end = END.isoformat().replace("+00:00", "Z")
    for path in (f"runs/{run}", "monitors/m/runs/latest", f"monitors/m/runs/{end}"):
        status, headers, body = s.ask(f"/api/v1/{path}")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        found = StoredRun.model_validate_json(body)
        assert (found.run, found.result.rows, found.history) == (run, 5, ())
        assert [e.id for e in found.episodes] == ["e"]
    assert s.ask("/api/v1/monitors/m/runs/soon")[0] == 400
    for path in ("runs/99", "monitors/m/runs/2013-01-01", "monitors/other/runs/latest"):
        assert s.ask(f"/api/v1/{path}")[0] == 404


def test_a_probe_without_a_token_does_not_learn_why(serve, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    s = serve(token_file=str(token))
    s.daemon.reasons = ["/var/lib/secret-project is full"]
    status, _, body = s.ask("/-/ready")
    assert (status, body) == (503, b"not ready: the log tells why\n")
    assert b"secret-project" in s.ask("/-/ready", Authorization="Bearer s3cret")[2]


def test_the_token_is_read_again_when_it_changes(serve, tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    s = serve(token_file=str(token))
    assert s.ask("/metrics", Authorization="Bearer old")[0] == 200
    token.with_name("new").write_text("new")
    os.replace(token.with_name("new"), token)
    assert s.ask("/metrics", Authorization="Bearer old")[0] == 401
    assert s.ask("/metrics", Authorization="Bearer new")[0] == 200
    token.write_text("")
    assert s.ask("/metrics", Authorization="Bearer ")[0] == 503
    token.unlink()
    assert s.ask("/metrics", Authorization="Bearer new")[0] == 503


def test_posts_need_a_header_that_a_page_elsewhere_cannot_send(serve):
    s = serve(reload_endpoint=True)
    assert s.ask("/-/reload", "POST")[0] == 403
    assert s.ask("/-/reload", "POST", X_Requested_By="a form")[0] == 403
    assert s.daemon.asked == []
    assert s.ask("/-/reload", "POST", X_Requested_By="drift-monitor")[0] == 200
    assert s.daemon.asked == ["reload"]


def test_reload_is_off_unless_asked_for(serve):
    s = serve()
    status, _, body = s.ask("/-/reload", "POST", X_Requested_By="drift-monitor")
    assert status == 403
    assert b"server.reload_endpoint" in body
    s.daemon.configure({"listen": "127.0.0.1:0", "reload_endpoint": True})
    s.daemon.problems = ["x.yaml:3:1: monitors: wrong"]
    status, _, body = s.ask("/-/reload", "POST", X_Requested_By="drift-monitor")
    assert (status, body.splitlines()[1:]) == (400, [b"x.yaml:3:1: monitors: wrong"])


def test_the_outbox_api(serve):
    s = serve()
    post = {"method": "POST", "X_Requested_By": "drift-monitor"}
    assert s.ask("/api/v1/outbox")[2] == b'{"deliveries": []}\n'
    assert s.ask("/api/v1/outbox?state=lost")[0] == 400
    assert s.ask("/api/v1/outbox/7/retry", **post)[0] == 200
    assert s.ask("/api/v1/outbox/8/retry", **post)[0] == 404
    assert s.ask("/api/v1/outbox/7/drop", **post)[0] == 200
    assert s.ask("/api/v1/outbox/7/burn", **post)[0] == 404
    assert s.ask("/api/v1/outbox/99999999999999999999/drop", **post)[0] == 404
    assert s.daemon.asked == [("retry", 7), ("retry", 8), ("drop", 7)]


def test_a_store_that_fails_is_told_and_the_server_goes_on(serve):
    s = serve()

    def fail():
        raise StoreError("the disk is full")

    s.daemon.status = fail
    status, _, body = s.ask("/api/v1/status")
    assert (status, body) == (503, b"the state cannot be read: the disk is full\n")
    s.daemon.status = lambda: 1 / 0
    assert s.ask("/api/v1/status")[0] == 500
    assert s.ask("/metrics")[0] == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"431"),
        (b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHo st: localhost\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    ],
)
def test_requests_that_are_not_http_are_answered_and_closed(serve, data, status):
    s = serve()
    answer = raw(s.port, data)
    assert not answer or answer.split(b" ")[1] == status, answer[:200]
    assert answer or len(data) > 16_384  # a reset can overtake the answer
    assert s.ask("/-/healthy")[0] == 200


def test_a_slow_client_does_not_hold_the_others_up(serve):
    s = serve()
    slow = [socket.create_connection(("127.0.0.1", s.port), timeout=PATIENCE) for _ in range(20)]
    try:
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: local")
        assert s.ask("/metrics")[0] == 200
        for connection in slow:
            connection.sendall(b"host\r\nConnection: close\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for connection in slow:
            connection.close()


def test_many_parameters_are_no_way_to_stop_it(serve):
    s = serve()
    query = "&".join(f"a{i}=1" for i in range(1000))
    status, _, body = s.ask(f"/api/v1/outbox?{query}")
    assert status == 400
    assert b"query" in body


def test_stop_lets_an_answer_finish(serve, tmp_path):
    daemon = Daemon(tmp_path, {"listen": "127.0.0.1:0"})
    asked = []

    def slow_status():
        asked.append(True)
        time.sleep(0.3)
        return {}

    daemon.status = slow_status
    server = Server("127.0.0.1", 0, Application(daemon))
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request("GET", "/api/v1/status")
    while not asked:
        time.sleep(0.01)
    server.stop()
    daemon.store.close()
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    connection.close()


def test_listening_on_a_name(tmp_path):
    server = Server("localhost", 0, Application(Daemon(tmp_path, {"listen": "localhost:0"})))
    server.start()
    assert re.fullmatch(r"\d+", str(server.port))
    server.stop()
