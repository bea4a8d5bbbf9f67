"""`drift-monitor test-alert`, against scripted servers."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from scripted_server import OK, Server, serving, status

from drift_monitor.cli import main

CONFIG = """\
server: {{public_url: "https://drift.example/"}}
receivers:
  hook: {{type: webhook, url: "{url}/secret-path?key=secret", secret_file: whsec}}
  pager: {{type: alertmanager, url: "{url}"}}
  pipeline: {{type: airflow3, url: "{url}", dag: retrain, username: drift, password_file: password}}
  own: {{type: template, url: "{url}/secret-path", template: own.yaml}}
monitors:
  flights:
    reference: training.parquet
    source: {{path: live.parquet}}
    schedule: {{every: 1h}}
"""


def run(folder: Path, server: Server, *arguments: str) -> int:
    config = folder / "drift-monitor.yaml"
    config.write_text(CONFIG.format(url=server.url.removesuffix("/hook?x=1")))
    (folder / "whsec").write_text("whsec_" + "c2VjcmV0" * 5)
    (folder / "password").write_text("hunter2")
    (folder / "own.yaml").write_text('about: x\nsteps: [{path: "/${parameters.a}"}]\n')
    return main(["test-alert", "--config", str(config), *arguments])


def test_a_webhook_gets_a_marked_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(OK) as server:
        assert run(tmp_path, server, "--receiver", "hook") == 0
    (request,) = server.requests
    event = json.loads(request.body)
    assert event["type"] == "drift_monitor.test"
    assert event["data"]["test"] is True
    assert event["data"]["links"]["page"] == "https://drift.example/"
    assert request.headers["webhook-id"] == event["id"]
    host = server.url.split("/")[2]
    assert capsys.readouterr().out.splitlines() == [
        f"hook (webhook) is sent drift_monitor.test {event['id']}:",
        f"  POST http://{host}/...",
        "    204 No Content",
        "delivered",
    ]
    assert not (tmp_path / "state").exists()


def test_an_alert_ends_within_minutes(tmp_path: Path) -> None:
    with serving(status("200 OK")) as server:
        assert run(tmp_path, server, "--receiver", "pager") == 0
    (alert,) = json.loads(server.requests[0].body)
    assert alert["labels"]["alertname"] == "DriftMonitorTest"
    lasts = datetime.fromisoformat(alert["endsAt"]) - datetime.fromisoformat(alert["startsAt"])
    assert lasts == timedelta(minutes=5)


def test_a_pipeline_is_only_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(OK) as server:
        assert run(tmp_path, server, "--receiver", "pipeline") == 0
        assert server.wait_for_connection() == 1
    assert server.requests == []
    out = capsys.readouterr().out
    assert "pipeline (airflow3) starts a run for each message, so nothing is sent. It would be:" in out
    assert f"  POST http://{server.url.split('/')[2]}/api/v2/dags/retrain/dagRuns\n" in out
    assert '"dag_run_id": "drift__' in out
    assert "it can be reached; --start-a-run sends it" in out
    assert "hunter2" not in out


def test_a_pipeline_runs_when_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [
        status("201 Created", body='{"access_token": "t0ken"}'),
        status("200 OK", body='{"dag_run_id": "drift__1"}'),
    ]
    with serving(*answers) as server:
        assert run(tmp_path, server, "--receiver", "pipeline", "--start-a-run") == 0
    conf = json.loads(server.requests[1].body)["conf"]
    assert conf["test"] is True
    assert conf["retraining"]["mode"] == "test"
    assert conf["report_back"]["url"] == f"https://drift.example/api/v1/retrainings/{conf['retraining']['id']}"
    host = server.url.split("/")[2]
    out = capsys.readouterr().out
    assert out.splitlines()[1:] == [
        f"  POST http://{host}/auth/token",
        "    201 Created",
        f"  POST http://{host}/api/v2/dags/retrain/dagRuns",
        "    200 OK",
        f"delivered, run drift__1, http://{host}/dags/retrain/runs/drift__1",
    ]
    assert "hunter2" not in out
    assert "t0ken" not in out


@pytest.mark.parametrize("flags", [[], ["--start-a-run"]])
def test_a_receiver_that_fails_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    with serving(status("500 Oops", body="no room")) as server:
        assert run(tmp_path, server, "--receiver", "hook", *flags) == 1
    seen = capsys.readouterr()
    assert "500 Oops: no room" in seen.err
    assert "secret" not in seen.out + seen.err


def test_a_receiver_that_cannot_be_reached_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(OK) as server:
        pass
    assert run(tmp_path, server, "--receiver", "pipeline") == 1
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one of the receivers with --receiver: hook, pager, pipeline, own"),
        (["--receiver", "hok"], "'hok': unknown receiver, did you mean `hook`?"),
        (["--receiver", "pager", "--start-a-run"], "receiver pager (alertmanager) starts no runs"),
    ],
)
def test_a_wrong_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with serving(OK) as server:
        assert run(tmp_path, server, *arguments) == 64
    assert said in capsys.readouterr().err
    assert server.connections == 0


def test_a_wrong_template_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(OK) as server:
        assert run(tmp_path, server, "--receiver", "own") == 1
    assert "own.yaml:2:16: steps[0].path: `${parameters.a}`: unknown parameter" in capsys.readouterr().err
