"""What a real Alertmanager makes of our messages."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from pydantic import HttpUrl
from retraining_event import HOSTILE, NOW, OPENED, episode

from drift_monitor.config.receivers import AlertmanagerReceiver
from drift_monitor.core.cloudevents import render
from drift_monitor.core.errors import DeliveryError
from drift_monitor.receivers import probe, send
from drift_monitor.receivers.samples import samples, trial

PROGRAM = next(filter(shutil.which, ("alertmanager", "prometheus-alertmanager")), None)
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(PROGRAM is None, reason="alertmanager is not installed"),
]


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    """The URL of a real one that notifies nobody."""
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        str(PROGRAM),
        f"--config.file={config}",
        f"--storage.path={tmp_path / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            give_up = time.monotonic() + 25
            while not answers(f"{url}/-/ready"):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < give_up, (tmp_path / "log").read_text()
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except URLError:
        return False


def alerts(url: str) -> dict[str, dict[str, Any]]:
    """The alerts that fire, by name."""
    with urlopen(f"{url}/api/v2/alerts", timeout=10) as answer:
        return {alert["labels"]["alertname"]: alert for alert in json.load(answer)}


def receiver_at(url: str) -> AlertmanagerReceiver:
    return AlertmanagerReceiver(type="alertmanager", url=HttpUrl(url), timeout=timedelta(seconds=60))


def test_an_episode_fires_and_resolves(alertmanager: str) -> None:
    receiver, now = receiver_at(alertmanager), datetime.now(UTC)
    opened = now - timedelta(days=2)
    assert probe(receiver) is None
    for kind in ("opened", "escalated", "reminded", "reminded"):  # the last twice, as a repeated attempt
        send(receiver, "e", render(episode(f"drift_monitor.drift.{kind}", "drift", opened, None)), now)
    found = alerts(alertmanager)
    assert found.keys() == {"DriftMonitorDrift"}
    alert = found["DriftMonitorDrift"]
    assert alert["status"]["state"] == "active"
    assert alert["annotations"]["reason"] == HOSTILE
    assert datetime.fromisoformat(alert["endsAt"]) > now + timedelta(days=300)
    assert alert["generatorURL"] == "http://drift.example/monitors/flights"
    send(receiver, "e", render(episode("drift_monitor.drift.resolved", "drift", opened, now)), now)
    assert alerts(alertmanager) == {}


def test_every_kind_of_message_is_taken(alertmanager: str) -> None:
    receiver, now = receiver_at(alertmanager), datetime.now(UTC)
    sent = [
        event["type"]
        for event in samples(now)
        if send(receiver, event["id"], json.dumps(event).encode(), now).kind == "delivered"
    ]
    assert len(sent) == 11
    assert alerts(alertmanager).keys() == {"DriftMonitorGivenUp", "DriftMonitorTest"}  # the others resolved


def test_a_test_alert_ends_by_itself(alertmanager: str) -> None:
    now = datetime.now(UTC)
    send(receiver_at(alertmanager), "e", render(trial(now)), now)
    alert = alerts(alertmanager)["DriftMonitorTest"]
    assert now < datetime.fromisoformat(alert["endsAt"]) < now + timedelta(minutes=6)


def test_what_it_does_not_take_is_a_failure(alertmanager: str) -> None:
    message = episode("drift_monitor.drift.resolved", "drift", OPENED, OPENED - timedelta(days=1))
    with pytest.raises(DeliveryError, match="400 Bad Request"):
        send(receiver_at(alertmanager), "e", render(message), NOW)
