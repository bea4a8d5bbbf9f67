"""A real Prefect 3: a flow runs once for a retraining, however often it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pipeline_server import PROJECTS, ask, free_port, marks, program, running, wait_for
from pydantic import HttpUrl
from requested import requested

from drift_monitor.config.receivers import Prefect3Receiver
from drift_monitor.core.errors import DeliveryError
from drift_monitor.receivers import probe, send

pytestmark = marks("prefect3")
MINUTE = timedelta(minutes=1)
INPUTS = {"retraining": "${data}", "rows": "${data.training.rows?}"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """The API's URL, a deployment's id, and the folder where its flow writes."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    server = [
        program("prefect3", "prefect"),
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    flow = [program("prefect3", "python"), PROJECTS / "prefect_flow.py", home]
    with running(server, home / "server.log", environment):
        wait_for("the API", lambda: ask(f"{url}/health"))
        with running(flow, home / "flow.log", environment):
            (deployment,) = wait_for("the deployment", lambda: ask(f"{url}/deployments/filter", {}))
            yield url, deployment["id"], home


def test_one_run_for_one_retraining(api: tuple[str, str, Path]) -> None:
    url, deployment, home = api
    receiver = Prefect3Receiver(
        type="prefect3", url=HttpUrl(url), timeout=MINUTE, deployment=deployment, inputs=INPUTS
    )
    assert probe(receiver) is None
    ident, body = requested()
    first, second = (send(receiver, "e", body, datetime.now(UTC)) for _ in range(2))
    assert (first.kind, second.kind) == ("delivered", "already delivered")
    assert first.run == second.run

    def completed() -> list[dict[str, str]]:
        runs: list[dict[str, str]] = ask(f"{url}/flow_runs/filter", {"flow_runs": {"name": {"like_": ident}}})
        return runs if runs[0]["state_type"] == "COMPLETED" else []

    (run,) = wait_for("the run", completed)
    assert run["id"] == first.run
    assert run["tags"] == ["drift-monitor"]
    told, rows = json.loads((home / f"{ident}.json").read_text())
    assert told == json.loads(body)["data"]
    assert rows == told["training"]["rows"]


def test_what_the_flow_does_not_take_is_a_failure(api: tuple[str, str, Path]) -> None:
    url, deployment, _ = api
    receiver = Prefect3Receiver(type="prefect3", url=HttpUrl(url), timeout=MINUTE, deployment=deployment)
    with pytest.raises(DeliveryError, match="409 Conflict") as caught:  # the flow asks for `rows` too
        send(receiver, "e", requested()[1], datetime.now(UTC))
    assert caught.value.reason == "status_4xx"


def test_a_deployment_that_is_not_there_is_a_failure(api: tuple[str, str, Path]) -> None:
    other = "00000000-0000-4000-8000-000000000000"
    receiver = Prefect3Receiver(type="prefect3", url=HttpUrl(api[0]), timeout=MINUTE, deployment=other)
    with pytest.raises(DeliveryError, match=r"404 Not Found: .*Deployment not found"):
        send(receiver, "e", requested()[1], datetime.now(UTC))
