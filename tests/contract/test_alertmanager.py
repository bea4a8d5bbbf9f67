"""Alerts of episodes: the exact request."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from retraining_event import HOSTILE, NOW, OPENED, episode, make
from scripted_server import serving, status

from drift_monitor.core.cloudevents import render
from drift_monitor.core.errors import DeliveryError
from drift_monitor.receivers import send
from drift_monitor.receivers.receipt import Receipt


@pytest.mark.parametrize(
    ("kind", "lane", "name"),
    [
        ("drift_monitor.drift.opened", "drift", "DriftMonitorDrift"),
        ("drift_monitor.drift.escalated", "drift", "DriftMonitorDrift"),
        ("drift_monitor.drift.reminded", "drift", "DriftMonitorDrift"),
        ("drift_monitor.data_quality.opened", "quality", "DriftMonitorDataQuality"),
        ("drift_monitor.retraining.given_up", "drift", "DriftMonitorGivenUp"),
    ],
)
def test_an_open_episode_is_an_alert_without_an_end_in_sight(
    kind: str, lane: str, name: str, tmp_path: Path
) -> None:
    with serving(status("200 OK")) as server:
        receiver = make({"type": "alertmanager"}, server.url.removesuffix("/hook?x=1") + "/am", tmp_path)
        outcome = send(receiver, "e-1", render(episode(kind, lane, OPENED, None)), NOW)
    (request,) = server.requests
    assert outcome == Receipt("delivered")
    assert request.line == "POST /am/api/v2/alerts HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    assert json.loads(request.body) == [
        {
            "labels": {"alertname": name, "monitor": "flights", "lane": lane, "severity": "warning"},
            "annotations": {
                "summary": f"flights has drifted: {HOSTILE}",
                "reason": HOSTILE,
                "model": "arrival-delay",
                "score": "223.6",
                "threshold": "7.32",
            },
            "startsAt": "2026-03-01T00:00:00+00:00",
            "endsAt": "2027-03-01T12:00:00Z",
            "generatorURL": "http://drift.example/monitors/flights",
        }
    ]


def test_a_resolved_episode_ends_its_alert(tmp_path: Path) -> None:
    closed = OPENED + timedelta(hours=6)
    with serving(status("200 OK")) as server:
        receiver = make({"type": "alertmanager", "severity": "page", "token_file": "t"}, server.url, tmp_path)
        for kind, end in (("drift_monitor.drift.opened", None), ("drift_monitor.drift.resolved", closed)):
            send(receiver, "e-1", render(episode(kind, "drift", OPENED, end)), NOW)
    opened, resolved = (json.loads(request.body)[0] for request in server.requests)
    assert resolved["endsAt"] == "2026-03-01T06:00:00+00:00"
    assert resolved["labels"] == opened["labels"]  # else the alert would stay
    assert opened["labels"]["severity"] == "page"
    assert server.requests[0].headers["authorization"] == "Bearer s3cret"


def test_a_retraining_that_was_given_up_may_be_worse_than_the_drift(tmp_path: Path) -> None:
    message = episode("drift_monitor.retraining.given_up", "drift", OPENED, None, severity="critical")
    with serving(status("200 OK")) as server:
        send(make({"type": "alertmanager"}, server.url, tmp_path), "e-1", render(message), NOW)
    assert json.loads(server.requests[0].body)[0]["labels"]["severity"] == "critical"


@pytest.mark.parametrize("kind", ["drift_monitor.retraining.requested", "drift_monitor.weights.ready"])
def test_other_events_are_no_alerts(kind: str, tmp_path: Path) -> None:
    with serving(status("200 OK")) as server:
        receiver = make({"type": "alertmanager"}, server.url, tmp_path)
        assert send(receiver, "e-1", render(episode(kind, "drift", OPENED, None)), NOW) == Receipt("not for it")
    assert server.connections == 0


@pytest.mark.parametrize(("line", "reason"), [("400 Bad Request", "status_4xx"), ("500 Oops", "status_5xx")])
def test_a_refusal_is_a_failure(line: str, reason: str, tmp_path: Path) -> None:
    message = render(episode("drift_monitor.drift.opened", "drift", OPENED, None))
    with serving(status(line)) as server:
        receiver = make({"type": "alertmanager"}, server.url, tmp_path)
        with pytest.raises(DeliveryError) as caught:
            send(receiver, "e-1", message, NOW)
    assert caught.value.reason == reason
