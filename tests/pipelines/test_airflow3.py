"""A real Airflow 3: a DAG runs once for a retraining, however often it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pipeline_server import PROJECTS, ask, free_port, marks, program, running, wait_for
from pydantic import HttpUrl
from requested import HOSTILE, requested

from drift_monitor.config.receivers import Airflow3Receiver
from drift_monitor.core.errors import DeliveryError
from drift_monitor.receivers import probe, send

pytestmark = marks("airflow3")
USER = "drift"


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of the API server, and the file with its user's password."""
    home = tmp_path_factory.mktemp("airflow")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECTS / "airflow3"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "1",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    passwords = home / "simple_auth_manager_passwords.json.generated"
    with running([program("airflow3", "airflow"), "standalone"], home / "server.log", environment):
        wait_for("the API server", lambda: ask(f"{url}/api/v2/version"))
        (home / "password").write_text(json.loads(passwords.read_text())[USER])
        wait_for("the DAG", lambda: look(url, home / "password", "/api/v2/dags")["dags"])
        yield url, home / "password"


def look(url: str, password: Path, path: str) -> Any:
    login = {"username": USER, "password": password.read_text()}
    token = ask(f"{url}/auth/token", login)["access_token"]
    return ask(f"{url}{path}", headers={"Authorization": f"Bearer {token}"})


def receiver_at(url: str, password: Path, dag: str = "retrain") -> Airflow3Receiver:
    return Airflow3Receiver(
        type="airflow3",
        url=HttpUrl(url),
        timeout=timedelta(minutes=1),
        dag=dag,
        username=USER,
        password_file=password,
    )


def test_one_run_for_one_retraining(airflow: tuple[str, Path]) -> None:
    url, password = airflow
    receiver = receiver_at(url, password)
    assert probe(receiver) is None
    ident, body = requested()
    first, second = (send(receiver, "e", body, datetime.now(UTC)) for _ in range(2))
    assert (first.kind, second.kind) == ("delivered", "already delivered")
    assert first.run == f"drift__{ident}"
    assert first.link == f"{url}/dags/retrain/runs/drift__{ident}"

    def succeeded() -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = look(url, password, "/api/v2/dags/retrain/dagRuns")["dag_runs"]
        assert runs[0]["state"] != "failed"
        return runs if runs[0]["state"] == "success" else []

    (run,) = wait_for("the run", succeeded)
    data = json.loads(body)["data"]
    assert run["dag_run_id"] == first.run
    assert run["conf"] == data
    assert run["note"] == HOSTILE
    seen = look(
        url, password, f"/api/v2/dags/retrain/dagRuns/{first.run}/taskInstances/train/xcomEntries/return_value"
    )
    assert (json.loads(seen["value"]) if isinstance(seen["value"], str) else seen["value"]) == data


def test_a_dag_that_is_not_there_is_a_failure(airflow: tuple[str, Path]) -> None:
    url, password = airflow
    with pytest.raises(DeliveryError, match="404 Not Found") as caught:
        send(receiver_at(url, password, "other"), "e", requested()[1], datetime.now(UTC))
    assert caught.value.reason == "status_4xx"


def test_a_wrong_password_is_a_failure(airflow: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2")
    with pytest.raises(DeliveryError, match="401 Unauthorized") as caught:
        send(receiver_at(airflow[0], tmp_path / "password"), "e", requested()[1], datetime.now(UTC))
    assert "hunter2" not in str(caught.value)
