"""Rows that are pushed to the real daemon: every answer, and what kill -9 and clients that are too fast leave."""

import http.client
import json
import os
import random
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from daemon_harness import Process, until
from push_harness import (
    ARROW,
    JSON_LINES,
    RUN,
    START,
    Client,
    arrow,
    configure,
    count,
    journals,
    kept,
    lines,
    rows,
)

from drift_monitor.service.intake import MOST_REQUESTS

KILLS = int(os.environ.get("DRIFT_MONITOR_KILLS", "3"))
MB = 2**20


@contextmanager
def running(config):
    """A daemon that takes rows; yields it, its API and a client."""
    daemon = Process(config, command=(sys.executable, *RUN))
    try:
        api = daemon.wait_until_ready()
        until(lambda: "m" in api.status()["intake"]["monitors"], "the intake")
        with Client(api.address) as client:
            yield daemon, api, client
    finally:
        daemon.end()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """One daemon for all answers: nobody depends on what another test has sent."""
    folder = tmp_path_factory.mktemp("push")
    with running(configure(folder, source={"max_body": "1MiB"})) as (process, api, client):
        yield process, api, client, folder / "state" / "spool" / "m"


def intake_children(daemon):
    """Those that take rows; others, which live for a moment only, may end while they are looked at."""
    found = []
    for child in psutil.Process(daemon.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "drift_monitor.intake" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.parametrize("kind", [JSON_LINES, "application/jsonl; charset=utf-8", ARROW])
def test_202_says_how_many_rows_are_durable(daemon, kind):
    _, _, client, folder = daemon
    first = {JSON_LINES: 1000, ARROW: 2000}.get(kind, 3000)
    sent = rows(first, 5)
    status, _, told = client.send(arrow(sent) if kind == ARROW else lines(sent), kind)
    assert (status, told["rows"]) == (202, 5)
    assert told["id"]
    if journals(folder):  # else they are in a file already
        assert sum(path.stat().st_size for path in journals(folder)) > 500


def test_202_names_columns_that_nobody_keeps(daemon):
    _, _, client, _ = daemon
    status, _, told = client.send(lines([rows(1, 1)[0] | {"more": 1}]))
    assert (status, told["ignored"]) == (202, ["more"])


def test_202_for_a_repetition_counts_nothing(daemon):
    _, _, client, _ = daemon
    body = lines(rows(100, 3))
    assert [client.send(body, Idempotency_Key="same")[2].get("repeated") for _ in range(2)] == [None, True]


def test_202_for_an_event_of_kserve_in_binary_mode(daemon):
    _, _, client, _ = daemon
    headers = {"ce-specversion": "1.0", "ce-id": "e1", "ce-source": "kserve", "ce-time": START.isoformat()}
    inference = "org.kubeflow.serving.inference."
    ask = json.dumps({"instances": [[1.0, "AA", True]]}).encode()
    answer = json.dumps({"predictions": [0.5]}).encode()
    assert client.send(ask, "application/json", **headers, **{"ce-type": inference + "request"})[2]["waiting"] == 1
    status, _, told = client.send(answer, "application/json", **headers, **{"ce-type": inference + "response"})
    assert (status, told["rows"], told["events"]) == (202, 1, ["e1"])


@pytest.mark.parametrize("monitor", ["unknown", "files", "%FF"])
def test_404_for_what_takes_no_rows(daemon, monitor):
    _, _, client, _ = daemon
    assert client.send(lines(rows(0, 1)), path=f"/api/v1/monitors/{monitor}/records")[0] == 404


def test_405_for_another_method(daemon):
    _, api, _, _ = daemon
    status, headers, _ = api.get("/api/v1/monitors/m/records")
    assert (status, headers["Allow"]) == (405, "POST")


def test_413_for_a_body_that_is_too_large(daemon):
    _, _, client, _ = daemon
    status, _, told = client.send(b" " * (MB + 1))
    assert status == 413
    assert told["error"] == "the body has 1048577 bytes and source.max_body allows 1048576"
    assert client.send(b" " * MB)[0] == 202


def test_413_on_every_other_path_stays_as_it_was(daemon):
    _, _, client, _ = daemon
    status, *_ = client.send(b" " * 65_536, path="/api/v1/outbox/1/retry")
    assert status == 413


def test_413_for_rows_that_would_take_too_much_memory(daemon):
    """One text of 100 kB a hundred thousand times."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int8()), pa.array(["x" * 100_000]))
    table = pa.table({"t": pa.array([START] * 100_000), "carrier": column})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    _, _, client, _ = daemon
    assert client.send(sink.getvalue().to_pybytes(), ARROW)[0] == 413
    assert client.send(lines(rows(50, 1)))[0] == 202


@pytest.mark.parametrize("headers", [{"Content_Encoding": "gzip"}, {"kind": "text/plain"}, {"kind": "text/csv"}])
def test_415_for_a_type_that_is_not_read(daemon, headers):
    _, _, client, _ = daemon
    assert client.send(lines(rows(0, 1)), **headers)[0] == 415


def test_422_names_the_row_the_field_and_the_value_cut_short(daemon):
    _, _, client, _ = daemon
    status, _, told = client.send(lines([*rows(0, 2), rows(2, 1)[0] | {"x": "<script>" * 1000}]))
    assert status == 422
    assert (told["row"], told["field"]) == (3, "x")
    assert told["value"] == ("<script>" * 1000)[:100] + "..."
    assert len(json.dumps(told)) < 1000


def ids(folder):
    return [row["id"] for row in kept(folder)]


def test_rows_and_refusals_are_counted(daemon):
    _, api, client, _ = daemon
    client.send(lines(rows(0, 1)))
    client.send(b"x", "text/plain")
    name = 'drift_monitor_intake_refused_total{monitor="m",reason="type"}'
    found = until(
        lambda: (m := api.metrics()).get('drift_monitor_intake_rows_total{monitor="m"}') and m, "the count"
    )
    assert found[name] >= 0
    until(lambda: api.metrics()[name] >= 1, "the refusal")
    assert found['drift_monitor_spool_files{monitor="m"}'] >= 1


def test_the_process_of_the_daemon_loads_no_numeric_library(daemon):
    process, *_ = daemon
    maps = Path(f"/proc/{process.process.pid}/maps").read_text()
    assert not [name for name in ("numpy", "pyarrow", "pandas", "confluent_kafka") if f"/{name}" in maps]


def test_503_says_why_when_there_is_no_reference(daemon):
    _, api, _, _ = daemon
    with Client(api.address, "missing") as client:
        until(lambda: "missing.parquet" in str(client.send(lines(rows(0, 1)))[2]), "the reason")
        status, headers, _ = client.send(lines(rows(0, 1)))
    assert (status, headers["Retry-After"]) == (503, "30")


def test_an_intake_that_is_killed_is_started_again_with_all_that_was_taken_and_nothing_that_was_not(daemon):
    process, _, client, folder = daemon
    assert client.send(lines([*rows(9000, 1), rows(9001, 1)[0] | {"x": "no"}]))[0] == 422
    assert client.send(lines(rows(5000, 3)))[0] == 202
    [child] = intake_children(process)
    child.kill()
    until(lambda: client.send(lines(rows(6000, 1)))[0] == 202, "the new intake")
    until(lambda: {"5000", "5001", "5002"} <= set(ids(folder)), "the rows of before")
    assert not {"9000", "9001"} & set(ids(folder))


def test_401_without_the_token_and_202_with_it(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    config = configure(tmp_path, server={"token_file": str(tmp_path / "token")})
    daemon = Process(config, command=(sys.executable, *RUN))
    try:
        basic = "Basic dXNlcjpzZWNyZXQ="  # user:secret
        with Client(daemon.wait_until_ready().address) as client:
            for size in (10, 2 * MB):
                assert client.send(b" " * size)[0] == 401
                assert client.send(b" " * size, Authorization="Bearer wrong")[0] == 401
                assert client.send(b" " * size, Authorization="Basic dXNlcjp4")[0] == 401
            for shown in ("Bearer secret", basic):
                until(
                    lambda shown=shown: client.send(lines(rows(0, 1)), Authorization=shown)[0] == 202, "the intake"
                )
            path = "/-/reload"
            assert client.send(b"", path=path, Authorization=basic)[0] == 401  # a browser might send it by itself
    finally:
        daemon.end()


def test_a_check_sees_every_row_that_was_acknowledged_before_it_and_a_stop_leaves_files(tmp_path):
    """A window of two hours is due every second: the newest rows are in it, whatever is still a journal."""
    config = configure(tmp_path, schedule={"every": "1s"}, window={"length": "2h", "bucket": "10m"})
    folder, now = tmp_path / "state" / "spool" / "m", time.time()
    with running(config) as (daemon, api, client):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 1500))
        assert client.send(lines([row | {"t": stamp} for row in rows(0, 50)]))[0] == 202
        until(lambda: api.metrics().get('drift_monitor_window_rows{monitor="m"}') == 50, "a check of 50 rows", 30)
        assert client.send(lines([row | {"t": stamp} for row in rows(50, 10)]))[0] == 202
    assert daemon.process.returncode == 0
    assert sorted(map(int, ids(folder))) == list(range(60))
    assert journals(folder) == []


class Clients:
    """Threads that send ten rows after another, each until it is told that they are durable."""

    def __init__(self, number):
        self.acknowledged, self.stop, self.address = [], threading.Event(), None
        self.threads = [threading.Thread(target=self.send, args=(n,)) for n in range(number)]

    def send_to(self, address):
        begun, self.address = self.address is not None, address
        if not begun:
            for thread in self.threads:
                thread.start()

    def send(self, number):
        sequence = 0
        while not self.stop.is_set():
            first = number * 10**6 + sequence * 10
            self.insist(rows(first, 10), f"{number}-{sequence}", as_arrow=sequence % 2 == 1)
            self.acknowledged.extend(range(first, first + 10))
            sequence += 1

    def insist(self, records, key, *, as_arrow):
        """Also after the stop: what was begun is finished."""
        body, kind = (arrow(records), ARROW) if as_arrow else (lines(records), JSON_LINES)
        while True:
            try:
                with Client(self.address, timeout=10) as sender:
                    if sender.send(body, kind, Idempotency_Key=key)[0] == 202:
                        return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)

    def wait_for_answers(self, rng):
        before = len(self.acknowledged)
        until(lambda: len(self.acknowledged) > before + 50, "rows")
        time.sleep(rng.uniform(0, 0.5))

    def finish(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.timeout(300 + 30 * KILLS)
def test_kill_9_while_rows_come_loses_none_and_counts_none_twice(tmp_path):
    """Clients retry with the same key until they are answered, whoever is killed: the daemon or its intake."""
    seed = int(os.environ.get("DRIFT_MONITOR_SEED", str(time.time_ns() % 10**6)))
    rng = random.Random(seed)
    config, folder = configure(tmp_path), tmp_path / "state" / "spool" / "m"
    clients = Clients(4)
    daemon = None
    try:
        for kill in range(KILLS + 1):
            daemon = Process(config, command=(sys.executable, *RUN))
            clients.send_to(daemon.api.address)
            clients.wait_for_answers(rng)
            if kill % 3 == 1:
                for child in intake_children(daemon):
                    child.kill()
                clients.wait_for_answers(rng)
            if kill < KILLS:
                daemon.end(signal.SIGKILL)
        clients.finish()
    finally:
        clients.stop.set()
        assert daemon is not None
        assert daemon.end() == 0
    found = sorted(map(int, ids(folder)))
    print(f"\n{KILLS} kills (seed {seed}), {len(clients.acknowledged)} rows acknowledged, {len(found)} kept")
    assert len(found) == len(set(found))
    assert found == sorted(clients.acknowledged)


@pytest.mark.slow
def test_clients_that_are_too_fast_meet_429_and_memory_stays_bounded(tmp_path):
    """Many more at once than the daemon lets in, with as much as it takes of each."""
    config = configure(tmp_path, source={"max_body": "16MiB"})
    body = arrow(rows(0, 20_000) * 8)
    assert 5 * MB < len(body) < 16 * MB
    statuses, waits = [], []
    with running(config) as (daemon, api, _):
        end = time.monotonic() + 2

        def client():
            with Client(api.address) as sender:
                while time.monotonic() < end:
                    status, headers, _ = sender.send(body, ARROW)
                    statuses.append(status)
                    waits.append(headers["Retry-After"])

        threads = [threading.Thread(target=client) for _ in range(3 * MOST_REQUESTS)]
        for thread in threads:
            thread.start()
        peak = 0
        while any(thread.is_alive() for thread in threads):
            peak = max(
                peak,
                sum(p.memory_info().rss for p in (psutil.Process(daemon.process.pid), *intake_children(daemon))),
            )
            assert api.get("/-/healthy")[0] == 200  # the pages are served all the while
            time.sleep(0.1)
        for thread in threads:
            thread.join()
    assert set(statuses) == {202, 429}
    assert {wait for status, wait in zip(statuses, waits, strict=True) if status == 429} == {"1"}
    print(f"\n{statuses.count(202)} taken, {statuses.count(429)} sent back; peak {peak / MB:.0f} MB")
    assert peak < 1000 * MB
    assert count(tmp_path / "state" / "spool" / "m") == statuses.count(202) * 160_000
