"""The whole daemon, with a stand-in for the evaluation: schedule, episodes, messages, metrics, pages, signals."""

import json
import re
import signal
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from daemon_harness import PATIENCE, STAND_IN, Process, Receiver, configure, in_thread, until

from drift_monitor.core.errors import ConfigError, StoreError
from drift_monitor.core.types import Window
from drift_monitor.service.app import App, StartError
from drift_monitor.service.clock import ReplayClock
from drift_monitor.service.store import Store

HOUR = timedelta(hours=1)


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def processes():
    started = []

    def start(*arguments):
        started.append(Process(*arguments))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()


def day(speed=1e5, end="2026-03-04T23:00"):
    """A replay of one day."""
    return ReplayClock(at("2026-03-04T00:00"), speed, at(end))


def replayed(api):
    return until(lambda: (s := api.status())["replay"]["finished"] and not any(
        r["pending"] for r in s["outbox"].values()) and s, "the end of the replay")  # fmt: skip


def test_a_day_from_schedule_to_message(tmp_path, receiver):
    deeds = {"04T08": "drift", "04T09": "drift", "04T12": "broken", "04T15": "die"}
    (tmp_path / "script.json").write_text(json.dumps(deeds))
    config = configure(tmp_path, {"a": {}, "b": {"source": {"path": "none", "timestamp": "t"}}}, receiver=receiver)
    with in_thread(config, day()) as (app, api):
        status = replayed(api)
        results = {name: app.store.results(name, 100) for name in ("a", "b")}
        assert {name: len(found) for name, found in results.items()} == {"a": 24, "b": 24}
        ends = [r.window.end for _, r in results["a"]]
        assert ends == sorted(ends, reverse=True)
        verdicts = {f"{r.window.end:%dT%H}": r.verdict.value for _, r in results["a"] if r.verdict != "ok"}
        assert verdicts == deeds | {"04T15": "cannot_judge"}
        assert {r.verdict for _, r in results["b"]} == {"ok"}
        assert status["monitors"]["a"]["verdict"] == "ok"

        said = [(e["type"].removeprefix("drift_monitor."), e["time"][8:13]) for e in receiver.events]
        assert said == [
            ("drift.opened", "04T08"), ("drift.resolved", "04T10"),
            ("data_quality.opened", "04T12"), ("data_quality.resolved", "04T13"),
        ]  # fmt: skip
        opened = receiver.events[0]
        assert opened["source"] == "/drift-monitor/drift-monitor/monitors/a"
        assert opened["data"]["summary"] == "a has drifted: by script: drift"
        assert opened["data"]["features"][0]["effect"] == "median 1 -> 2"
        assert opened["data"]["links"] == {"page": f"{api.address}/monitors/a"}

        metrics = until(lambda: _settled(api.metrics(), requests=4))
        assert metrics['drift_monitor_runs_total{monitor="a"}'] == 24
        assert metrics['drift_monitor_run_failures_total{monitor="a",reason="internal"}'] == 1
        assert metrics['drift_monitor_run_failures_total{monitor="a",reason="timeout"}'] == 0
        assert metrics['drift_monitor_alerts_total{monitor="a",severity="warning"}'] == 2
        assert metrics['drift_monitor_webhook_requests_total{receiver="hook"}'] == 4
        assert metrics['drift_monitor_episode_open{lane="drift",monitor="a"}'] == 0
        assert metrics['drift_monitor_run_duration_seconds_count{monitor="a",phase="judge"}'] == 23
        assert "drift_monitor_scheduler_next_run_timestamp_seconds" not in " ".join(metrics)

        code, _, page = api.get("/monitors/a")
        assert code == 200
        assert b"dist&lt;script&gt;&#34;" in page
        assert b"<script" not in page
        assert b"<rect class=" in page
        code, _, page = api.get("/")
        assert code == 200
        assert b'<a href="/monitors/b">' in page


def test_a_report_is_made_when_drift_opens_and_linked(tmp_path, receiver):
    (tmp_path / "script.json").write_text('{"04T08": "drift", "04T09": "drift", "04T11": "drift"}')
    config = configure(tmp_path, {"a": {"report": {"enabled": True}}}, receiver=receiver)
    made = []

    def make(request, deadline):
        made.append(request)
        if request.window.end.hour == 11:
            raise StoreError("no rows")
        request.output.write_text(f"<html>{request.run}<script>1</script>")

    with in_thread(config, day(), make_report=make) as (_, api):
        replayed(api)
        status = until(lambda: (s := api.status())["reports"]["waiting"] == 0 and s)
        assert [r.window.end.hour for r in made] == [8, 11]
        opened = [e["data"]["links"] for e in receiver.events if e["type"].endswith("drift.opened")]
        assert [link["report"] for link in opened] == [f"{api.address}/reports/{r.run}.html" for r in made]
        code, headers, body = api.get(f"/reports/{made[0].run}.html")
        assert (code, body.decode()) == (200, f"<html>{made[0].run}<script>1</script>")
        assert headers["Content-Security-Policy"].startswith("sandbox allow-scripts")
        assert "same-origin" not in headers["Content-Security-Policy"]
        assert api.get(f"/reports/{made[1].run}.html")[0] == 404
        assert status["reports"]["failed"] == {str(made[1].run): "no rows"}
        assert f"/reports/{made[0].run}.html".encode() in api.get("/monitors/a")[2]


def test_a_report_promised_before_a_crash_is_made_after_it(tmp_path):
    (tmp_path / "script.json").write_text('{"04T23": "drift"}')
    config = configure(tmp_path, {"a": {"report": {"enabled": True}}})
    made = []

    def fail(request, deadline):
        raise StoreError("killed before it was made")

    with in_thread(config, day(), make_report=fail) as (_, api):
        until(lambda: api.status()["reports"]["failed"])
    with in_thread(config, day(), make_report=lambda request, _: made.append(request)):
        until(lambda: made)
    assert made[0].window.end == at("2026-03-04T23:00")


def test_a_hung_window_costs_its_own_run_and_the_other_monitor_keeps_its_time(tmp_path):
    (tmp_path / "script.json").write_text('{"04T08": "hang"}')
    config = configure(
        tmp_path,
        {"a": {}, "b": {"source": {"path": "none", "timestamp": "t"}}},
        workers={"deadline": "2s", "count": 2},
    )
    with in_thread(config, day(end="2026-03-04T12:00")) as (app, api):
        until(lambda: (api.status()["monitors"]["a"]["running"] or "").endswith("2026-03-04T08:00Z"))
        until(lambda: len(app.store.results("b", 100)) == 13)
        replayed(api)
        failures = [r for _, r in app.store.results("a", 100) if r.failure]
        assert [(r.failure, r.window.end.hour) for r in failures] == [("timeout", 8)]
        assert len(app.store.results("a", 100)) == 13


def test_a_long_backlog_does_not_starve_the_others(tmp_path):
    config = configure(tmp_path, {"a": {"schedule": {"every": "1h", "catch_up": "all"}}, "b": {}})
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with closing(Store.open(tmp_path / "state")) as store:
        store.enqueue("a", [Window(start=now - (k + 1) * HOUR, end=now - k * HOUR) for k in range(300, 0, -1)])
    with in_thread(config) as (app, _):
        until(lambda: app.store.results("b", 1))
        assert len(app.store.results("a", 300)) < 100


def test_downtime_evaluates_the_latest_window_and_counts_the_missed(tmp_path):
    config = configure(tmp_path, {"a": {}, "b": {"schedule": {"every": "1h", "catch_up": "all"}}})
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    with closing(Store.open(tmp_path / "state")) as store:
        for name in ("a", "b"):
            store.enqueue(name, [Window(start=hour - 6 * HOUR, end=hour - 5 * HOUR)])
    with in_thread(config) as (app, api):
        until(lambda: len(app.store.results("a", 9)) >= 2 and len(app.store.results("b", 9)) >= 6)
        assert len(app.store.results("a", 9)) - 2 == len(app.store.results("b", 9)) - 6  # 1 if the hour turned
        assert until(lambda: api.metrics()['drift_monitor_runs_missed_total{monitor="a"}']) == 4
        assert api.metrics()['drift_monitor_runs_missed_total{monitor="b"}'] == 0


def test_a_window_that_killed_the_daemon_three_times_is_given_up(tmp_path):
    config = configure(tmp_path, {"a": {}})
    window = Window(start=at("2026-03-04T00:00"), end=at("2026-03-04T01:00"))
    for _ in range(3):
        with closing(Store.open(tmp_path / "state")) as store:
            store.recover()
            store.enqueue("a", [window])
            store.start(store.due()[0].id, at("2026-03-04T01:00"))
    with in_thread(config) as (app, _):
        [(_, result)] = until(lambda: [r for r in app.store.results("a", 9) if r[1].window == window])
        assert (result.verdict, result.failure) == ("cannot_judge", "internal")
        assert "died 3 times" in result.reason


def test_a_full_disk_loses_nothing(tmp_path, receiver, monkeypatch):
    monkeypatch.setattr("drift_monitor.service.runs.STORE_PAUSE", 0.2)
    monkeypatch.setattr("drift_monitor.service.app.RETRY", 0.2)
    (tmp_path / "script.json").write_text('{"04T08": "drift"}')
    config = configure(tmp_path, {"a": {}}, receiver=receiver)
    with in_thread(config, day(1e4)) as (app, api):
        until(lambda: app.store.results("a", 1))
        connection = app.store._database._connection
        pages = connection.execute("PRAGMA max_page_count").fetchone()[0]
        with app.store._database._lock:
            connection.execute("PRAGMA max_page_count = 1")  # SQLite says the disk is full
        _, _, body = until(lambda: (a := api.get("/-/ready"))[0] == 503 and a)
        assert b"full" in body
        assert api.get("/-/healthy")[0] == 200
        with app.store._database._lock:
            connection.execute(f"PRAGMA max_page_count = {pages}")
        replayed(api)
        assert api.ready()
        assert len(app.store.results("a", 100)) == 24
        assert [e["type"] for e in receiver.events] == [
            "drift_monitor.drift.opened",
            "drift_monitor.drift.resolved",
        ]


def test_reload_over_http(tmp_path):
    config = configure(tmp_path, {"a": {}}, server={"listen": "127.0.0.1:0", "reload_endpoint": True})
    with in_thread(config) as (app, api):
        configure(tmp_path, {"a": {}, "new": {}}, server={"listen": "127.0.0.1:0", "reload_endpoint": True})
        assert api.post("/-/reload")[0] == 200
        until(lambda: app.store.results("new", 1))
        config.write_text("monitors: [")
        code, _, body = api.post("/-/reload")
        assert code == 400
        assert str(config).encode() in body
        metrics = until(lambda: (m := api.metrics())["drift_monitor_config_last_reload_successful"] == 0 and m)
        assert metrics['drift_monitor_monitor_info{model="",model_version="",monitor="new",owner=""}'] == 1
        assert b"The configuration on disk is not the one that runs" in api.get("/")[2]
        configure(tmp_path, {"a": {}}, server={"listen": "127.0.0.1:1", "reload_endpoint": True}, state="other")
        code, _, body = api.post("/-/reload")
        assert code == 400
        assert body.count(b"takes a restart") == 2
        configure(tmp_path, {"a": {}}, server={"listen": "127.0.0.1:0"})
        assert api.post("/-/reload")[0] == 200
        assert api.post("/-/reload")[0] == 403
        until(lambda: api.metrics()["drift_monitor_config_last_reload_successful"] == 1)


def test_an_alarm_clock_that_never_rings_loses_no_window(tmp_path, monkeypatch):
    """As after the machine was suspended, when the clock that the alarm sleeps by stood still."""
    monkeypatch.setattr("drift_monitor.service.app.LOOK", 0.05)
    monkeypatch.setattr(BackgroundScheduler, "_process_jobs", lambda _: None)
    with in_thread(configure(tmp_path, {"a": {}})) as (app, _):
        until(lambda: app.store.results("a", 1))


def test_a_thread_that_ends_by_surprise_ends_the_daemon(tmp_path, monkeypatch, caplog):
    def fall(_scheduler):
        raise ZeroDivisionError

    monkeypatch.setattr(BackgroundScheduler, "_process_jobs", fall)
    assert App(configure(tmp_path, {"a": {}}), worker=STAND_IN).run() == 1
    assert "a thread ended by surprise" in caplog.text
    with closing(Store.open(tmp_path / "state")):  # it ended in good order
        pass


def test_the_longest_durations_do_not_leave_the_calendar(tmp_path):
    long = "36500d"
    config = configure(
        tmp_path,
        {
            "a": {
                "schedule": {"every": long},
                "window": {"length": long, "delay": long},
                "alarm": {"cooldown": long, "remind": long},
                "source": {"path": "none", "timestamp": "t"},
            }
        },
        retention=dict.fromkeys(("results", "runs", "reports", "delivered"), long),
    )
    with in_thread(config) as (app, api):
        until(lambda: app.store.results("a", 1))
        assert api.metrics()['drift_monitor_run_interval_seconds{monitor="a"}'] == 36_500 * 86_400


def test_sighup_reloads_and_sigterm_ends(tmp_path, processes):
    config = configure(tmp_path, {"a": {}})
    daemon = processes(config)
    api = daemon.wait_until_ready()
    configure(tmp_path, {"b": {}})
    daemon.send(signal.SIGHUP)
    until(lambda: list(api.status()["monitors"]) == ["b"])
    config.write_text('{"monitors": {"b": {"refrence": "x"}}}')
    daemon.send(signal.SIGHUP)
    problems = until(lambda: api.status()["reload"]["problems"])
    assert any("refrence" in problem for problem in problems)
    assert list(api.status()["monitors"]) == ["b"]
    assert api.ready()
    assert daemon.end() == 0
    log = daemon.log.read_text()
    assert 'event="configuration loaded"' in log
    assert "refrence" in log
    assert log.splitlines()[-1].endswith("event=stopped")


def test_sigterm_lets_a_run_in_progress_finish(tmp_path, processes):
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    (tmp_path / "script.json").write_text(json.dumps({f"{hour + k * HOUR:%dT%H}": "slow" for k in (0, 1)}))
    daemon = processes(configure(tmp_path, {"a": {}}))
    api = daemon.wait_until_ready()
    until(lambda: api.status()["monitors"]["a"]["running"])
    assert daemon.end() == 0
    with closing(Store.open(tmp_path / "state")) as store:
        assert len(store.results("a", 9)) == 1
        assert store.due() == []


@pytest.mark.parametrize("second", [False, True])
def test_sigterm_gives_a_hung_run_up_after_the_grace_or_at_a_second_one(tmp_path, processes, second):
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    (tmp_path / "script.json").write_text(json.dumps({f"{hour + k * HOUR:%dT%H}": "hang" for k in (0, 1)}))
    grace = "1h" if second else "300s"
    config = configure(tmp_path, {"a": {}}, workers={"deadline": "1h", "grace": grace if second else "1s"})
    daemon = processes(config)
    api = daemon.wait_until_ready()
    until(lambda: api.status()["monitors"]["a"]["running"])
    [child] = until(lambda: api.status()["workers"])
    daemon.send(signal.SIGTERM)
    if second:
        until(lambda: "stopping" in daemon.log.read_text())
        daemon.send(signal.SIGTERM)
    assert daemon.process.wait(PATIENCE) == 0
    until(lambda: not psutil.pid_exists(child))
    with closing(Store.open(tmp_path / "state")) as store:
        assert store.results("a", 9) == []
        assert [run.attempts for run in store.due()] == [0]


def test_children_die_with_a_daemon_that_is_killed(tmp_path, processes):
    (tmp_path / "script.json").write_text('{"04T00": "hang"}')
    daemon = processes(configure(tmp_path, {"a": {}}), "2026-03-04T00:00+00:00", 1, "2026-03-05T00:00+00:00")
    api = daemon.wait_until_ready()
    [child] = until(lambda: api.status()["workers"])
    daemon.end(signal.SIGKILL)
    until(lambda: not psutil.pid_exists(child))


def test_a_second_daemon_is_refused_and_names_the_first(tmp_path, processes):
    config = configure(tmp_path, {"a": {}})
    daemon = processes(config)
    daemon.wait_until_ready()
    with pytest.raises(StoreError, match=f"pid {daemon.process.pid}"):
        App(config).run()
    assert daemon.end() == 0


def test_an_address_that_is_taken(tmp_path, receiver):
    port = receiver.server.server_port
    config = configure(tmp_path, {"a": {}}, server={"listen": f"127.0.0.1:{port}"})
    with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
        App(config).run()
    with closing(Store.open(tmp_path / "state")):  # the lock was given back
        pass


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"listen": "0.0.0.0:0"}, "can be reached from other machines"),
        ({"listen": "127.0.0.1:0", "token_file": "missing"}, "No such file"),
    ],
)
def test_what_would_be_open_to_all_does_not_start(tmp_path, server, said):
    with pytest.raises(ConfigError, match=said):
        App(configure(tmp_path, {"a": {}}, server=server)).run()
    assert not (tmp_path / "state").exists()


def test_messages_that_nobody_took_are_sent_again_by_hand(tmp_path, receiver):
    receiver.status = 410
    (tmp_path / "script.json").write_text('{"04T08": "drift"}')
    with in_thread(configure(tmp_path, {"a": {}}, receiver=receiver), day()) as (_, api):
        replayed(api)
        dead = json.loads(api.get("/api/v1/outbox?state=dead")[2])["deliveries"]
        assert [d["type"] for d in dead] == ["drift_monitor.drift.opened", "drift_monitor.drift.resolved"]
        assert b"it wants no more messages" in api.get("/")[2]
        receiver.status = 200
        first, second = (d["id"] for d in dead)
        assert api.get(f"/api/v1/outbox/{first}/retry", method="POST")[0] == 403
        assert api.post(f"/api/v1/outbox/{first}/retry")[0] == 200
        assert api.post(f"/api/v1/outbox/{second}/drop")[0] == 200
        assert api.post(f"/api/v1/outbox/{second}/drop")[0] == 404
        until(lambda: json.loads(api.get("/api/v1/outbox?state=delivered")[2])["deliveries"])
        assert api.get("/api/v1/outbox?state=lost")[0] == 400
        assert len({identifier for identifier, _ in receiver.received}) == 1


def test_systemd_is_told(tmp_path, processes, monkeypatch):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager:
        service_manager.bind(str(path))
        service_manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        daemon = processes(configure(tmp_path, {"a": {}}))

        def hear(wanted):
            while not re.fullmatch(wanted, said := service_manager.recv(1000).decode()):
                assert said == "WATCHDOG=1"

        hear("READY=1")
        hear("WATCHDOG=1")
        daemon.send(signal.SIGHUP)
        hear(r"RELOADING=1\nMONOTONIC_USEC=\d+")
        hear("READY=1")
        daemon.send(signal.SIGTERM)
        hear(r"STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000")  # the grace and some last words
    daemon.end()


def test_the_database_is_what_metrics_and_pages_are_drawn_from_after_a_restart(tmp_path, receiver):
    (tmp_path / "script.json").write_text('{"04T23": "drift"}')
    config = configure(tmp_path, {"a": {}}, receiver=receiver)
    metrics = []
    for _ in range(2):
        with in_thread(config, day()) as (_, api):
            replayed(api)
            metrics.append(until(lambda: _settled(api.metrics(), requests=1)))
    before, after = metrics
    moving = ("process_", "drift_monitor_config_last_reload_success_timestamp")
    assert {k: v for k, v in after.items() if not k.startswith(moving)} == {
        k: v for k, v in before.items() if not k.startswith(moving)
    }
    assert [e["type"] for e in receiver.events] == ["drift_monitor.drift.opened"]


def _settled(metrics, requests):
    done = metrics['drift_monitor_runs_total{monitor="a"}'] == 24
    told = metrics['drift_monitor_webhook_requests_total{receiver="hook"}'] == requests
    at_the_end = 'drift_monitor_scheduler_next_run_timestamp_seconds{monitor="a"}' not in metrics
    return metrics if done and told and at_the_end else None
