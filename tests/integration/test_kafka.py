"""The real daemon reads from librdkafka's mock cluster, and is killed -9 in between."""

import json
import os
import random
import signal
import sys
import time
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer
from daemon_harness import Process, until
from push_harness import RUN, configure, kept, rows

KILLS = int(os.environ.get("DRIFT_MONITOR_KILLS", "2"))
PARTITIONS = 4


class Cluster:
    """Three mock brokers in this process, and who produces to them."""

    def __init__(self):
        self.producer = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 3, "log_level": 0})
        brokers = self.producer.list_topics(timeout=30).brokers.values()
        self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def produce(self, values):
        for number, value in enumerate(values):
            self.producer.produce("rows", value, partition=number % PARTITIONS)
        assert self.producer.flush(30) == 0


@pytest.fixture
def cluster():
    return Cluster()


def as_messages(first, count):
    return [json.dumps(row).encode() for row in rows(first, count)]


def ids(folder):
    return sorted(int(row["id"]) for row in kept(folder))


def source(cluster, **settings):
    return {"type": "kafka", "bootstrap": cluster.bootstrap, "topic": "rows", **settings}


@contextmanager
def running(config):
    daemon = Process(config, command=(sys.executable, *RUN))
    try:
        yield daemon.api
    finally:
        assert daemon.end() == 0


@contextmanager
def killed(config):
    """A daemon that ends by kill -9; its child may go on for a moment, until it finds itself alone."""
    daemon = Process(config, command=(sys.executable, *RUN))
    try:
        yield daemon.api
    finally:
        daemon.end(signal.SIGKILL)


def is_read(api):
    """Whether every partition is known to have been read to its end."""
    lag = api.status()["intake"]["monitors"].get("m", {}).get("lag", {})
    return len(lag) == PARTITIONS and not any(lag.values())


@pytest.mark.slow
def test_kill_9_loses_no_message_and_counts_none_twice(tmp_path, cluster):
    seed = int(os.environ.get("DRIFT_MONITOR_SEED", str(time.time_ns() % 10**6)))
    rng = random.Random(seed)
    config, folder = configure(tmp_path, source=source(cluster)), tmp_path / "state" / "spool" / "m"
    produced = 0

    def produce(count):
        nonlocal produced
        cluster.produce(as_messages(produced, count))
        produced += count

    produce(500)
    for _ in range(KILLS):
        with killed(config) as api:
            until(lambda api=api: is_read(api), "the start")
            produce(300)
            time.sleep(rng.uniform(0, 0.7))
        produce(100)
    with running(config) as api:
        cluster.produce([b"no json", None, json.dumps({"x": 1}).encode()])
        refused = 'drift_monitor_intake_refused_total{monitor="m",reason="unfit"}'
        until(lambda: api.metrics().get(refused) == 2 and is_read(api), "all of it")
        assert api.metrics()['drift_monitor_kafka_lag_messages{monitor="m",partition="3"}'] == 0
    print(f"\n{KILLS} kills (seed {seed}), {produced} messages")
    assert ids(folder) == list(range(produced))


@pytest.mark.slow
def test_latest_begins_at_the_end_and_no_restart_begins_anew(tmp_path, cluster):
    config, folder = (
        configure(tmp_path, source=source(cluster, start="latest")),
        tmp_path / "state" / "spool" / "m",
    )
    cluster.produce(as_messages(0, 20))
    with killed(config) as api:
        until(lambda: is_read(api), "the start")
    cluster.produce(as_messages(20, 20))  # while nobody reads
    with running(config) as api:
        until(lambda: is_read(api), "all of it")
    assert ids(folder) == list(range(20, 40))
