"""A real Dagster: a job runs once for a retraining, however often it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pipeline_server import PROJECTS, ask, free_port, marks, program, running, wait_for
from pydantic import HttpUrl
from requested import requested

from drift_monitor.config.receivers import DagsterReceiver
from drift_monitor.core.errors import DeliveryError
from drift_monitor.receivers import probe, send

pytestmark = marks("dagster")
CONFIG = {"retraining": "${data}", "rows": "${data.training.rows?}"}
INPUTS = {"ops": {"train": {"config": CONFIG}}}
RUNS = """
query($f: RunsFilter!) { runsOrError(filter: $f) { ... on Runs { results { runId status tags { key value } } } } }
"""


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The webserver's URL, and the folder where its job writes."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}\n"
    )  # that coordinator needs no daemon
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [program("dagster", "dagster-webserver"), "-h", "127.0.0.1", "-p", str(port)]
    code = ["-f", PROJECTS / "dagster_job.py"]
    with running([*command, *code], home / "server.log", {"DAGSTER_HOME": str(home), "TOLD": str(home)}):
        wait_for("the webserver", lambda: ask(f"{url}/server_info"))
        yield url, home


def receiver_at(url: str, **changes: Any) -> DagsterReceiver:
    fields: dict[str, Any] = {"job": "retrain", "location": "dagster_job.py", "inputs": INPUTS} | changes
    return DagsterReceiver(type="dagster", url=HttpUrl(url), timeout=timedelta(minutes=1), **fields)


def test_one_run_for_one_retraining(dagster: tuple[str, Path]) -> None:
    url, home = dagster
    assert probe(receiver_at(url)) is None
    ident, body = requested()
    first, second = (send(receiver_at(url), "e", body, datetime.now(UTC)) for _ in range(2))
    assert (first.kind, second.kind) == ("delivered", "already delivered")
    assert first.run == second.run
    assert first.link == f"{url}/runs/{first.run}"

    def succeeded() -> list[dict[str, Any]]:
        chosen = {"f": {"tags": [{"key": "drift_monitor/retraining", "value": ident}]}}
        runs: list[dict[str, Any]] = ask(f"{url}/graphql", {"query": RUNS, "variables": chosen})["data"][
            "runsOrError"
        ]["results"]
        assert runs[0]["status"] != "FAILURE"
        return runs if runs[0]["status"] == "SUCCESS" else []

    (run,) = wait_for("the run", succeeded)
    event = json.loads(body)
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert run["runId"] == first.run
    assert tags["drift_monitor/monitor"] == event["data"]["monitor"]
    assert tags["drift_monitor/report_back"] == event["data"]["report_back"]["url"]
    told, rows = json.loads((home / f"{ident}.json").read_text())
    assert told == event["data"]
    assert rows == told["training"]["rows"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"job": "other"}, "PipelineNotFoundError"),
        ({"location": "other"}, "Could not find Pipeline other"),
        ({"inputs": {"ops": {"train": {"config": {"rows": "many"}}}}}, "RunConfigValidationInvalid"),
    ],
)
def test_what_dagster_refuses_is_a_failure(dagster: tuple[str, Path], changes: dict[str, Any], said: str) -> None:
    _, body = requested()
    for _ in range(2):  # a refused attempt leaves nothing behind that looks like a run
        with pytest.raises(DeliveryError, match=said) as caught:
            send(receiver_at(dagster[0], **changes), "e", body, datetime.now(UTC))
        assert caught.value.reason == "refused"
