"""The exact requests of each shipped template, and what it makes of the answers, against scripted servers."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from retraining_event import DATA, FLAT, ID, NOW, answer, event, make, message
from scripted_server import Request, drips, serving, status

from drift_monitor import __version__
from drift_monitor.config.receivers import RECEIVER_TYPES, SECTIONS, HttpReceiver, misplaced
from drift_monitor.core.cloudevents import render
from drift_monitor.core.errors import DeliveryError
from drift_monitor.receivers import probe, send
from drift_monitor.receivers.receipt import Receipt
from drift_monitor.receivers.template_file import shipped

BEARER = {"authorization": "Bearer s3cret"}
JSON = {"content-type": "application/json"}
GRAPHQL_RUN = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@dataclass
class Wanted:
    """A request as it has to be."""

    line: str
    headers: dict[str, str]
    body: object = None
    form: dict[str, str] | None = None


@dataclass
class Case:
    """A receiver, the requests for one event, and answers with what they mean."""

    section: dict[str, Any]
    wanted: list[Wanted]
    answers: list[bytes]
    outcome: Receipt
    again: list[bytes] | None = None  # answers to a repeated attempt
    known: Receipt | None = None  # None: cannot be told from the first
    failing: list[tuple[list[bytes], str]] = field(default_factory=list)  # answers, reason
    base: str = ""  # path of the url


def airflow(version: str, *logins: Wanted, link: str) -> Case:
    body = {"dag_run_id": f"drift__{ID}", "conf": DATA, "note": DATA["summary"]}
    if version == "v2":
        body["logical_date"] = None
    run = f"drift__{ID}"
    token = [answer({"access_token": "s3cret"}, "201 Created")] if logins else []
    auth = BEARER if logins else {"authorization": "Basic " + base64.b64encode(b"drift:s3cret").decode()}
    return Case(
        {
            "type": f"airflow{3 if logins else 2}",
            "dag": "retrain",
            "username": "drift",
            "password_file": "password",
        },
        [*logins, Wanted(f"POST /air/api/{version}/dags/retrain/dagRuns", JSON | auth, body)],
        [*token, answer({"dag_run_id": run, "state": "queued"})],
        Receipt("delivered", run, link),
        [*token, answer({"title": "Conflict", "status": 409}, "409 CONFLICT")],
        Receipt("already delivered"),
        [
            ([*token, answer({"detail": "no such DAG"}, "404 Not Found")], "status_4xx"),
            ([*token, status("200 OK", body="<html>log in</html>")], "refused"),
            ([*token, answer({})], "refused"),
        ],
        base="/air",
    )


def graphql(field_: str, content: object) -> bytes:
    return answer({"data": {field_: content}})


DAGSTER_NONE = graphql("runsOrError", {"__typename": "Runs", "results": []})
CASES: dict[str, Case] = {
    "airflow2": airflow("v1", link="{url}/air/dags/retrain/grid?dag_run_id=drift__" + ID),
    "airflow3": airflow(
        "v2",
        Wanted("POST /air/auth/token", JSON, {"username": "drift", "password": "s3cret"}),
        link="{url}/air/dags/retrain/runs/drift__" + ID,
    ),
    "github": Case(
        {"type": "github", "owner": "acme", "repository": "models", "token_file": "token"},
        [
            Wanted(
                "POST /repos/acme/models/dispatches",
                JSON | BEARER | {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"},
                {"event_type": "drift-retraining", "client_payload": {"event": event()}},
            )
        ],
        [status("204 No Content")],
        Receipt("delivered", "", "https://github.com/acme/models/actions"),
        failing=[
            ([answer({"message": "Bad credentials"}, "401 Unauthorized")], "status_4xx"),
            ([status("202 Accepted")], "refused"),
        ],
    ),
    "argo-events": Case(
        {"type": "argo-events", "token_file": "token"},
        [Wanted("POST /drift", JSON | BEARER, event())],
        [status("200 OK", body="success")],
        Receipt("delivered"),
        failing=[([status("400 Bad Request")], "status_4xx")],
        base="/drift",
    ),
    "argo-workflows": Case(
        {"type": "argo-workflows", "namespace": "ml", "token_file": "token"},
        [
            Wanted(
                "POST /api/v1/events/ml/drift-monitor",
                JSON | BEARER | {"x-drift-monitor-event": "drift_monitor.retraining.requested"},
                event(),
            )
        ],
        [answer({})],
        Receipt("delivered"),
        failing=[([answer({"message": "operation queue full"}, "503 Service Unavailable")], "status_5xx")],
    ),
    "kubeflow": Case(
        {"type": "kubeflow", "pipeline": "p-1", "version": "v-1", "experiment": "x-1", "token_file": "token"},
        [
            Wanted(
                "GET /pipeline/apis/v2beta1/runs?experiment_id=x-1&page_size=1&filter=%7B%22predicates%22%3A%5B%7B"
                "%22operation%22%3A%22EQUALS%22%2C%22key%22%3A%22display_name%22%2C%22string_value%22%3A%22drift__"
                f"{ID}%22%7D%5D%7D",
                BEARER,
            ),
            Wanted(
                "POST /pipeline/apis/v2beta1/runs",
                JSON | BEARER,
                {
                    "display_name": f"drift__{ID}",
                    "description": DATA["summary"],
                    "experiment_id": "x-1",
                    "pipeline_version_reference": {"pipeline_id": "p-1", "pipeline_version_id": "v-1"},
                    "runtime_config": {"parameters": {"retraining": DATA}},
                },
            ),
        ],
        [answer({}), answer({"run_id": "r-1", "state": "PENDING"})],
        Receipt("delivered", "r-1", "{url}/pipeline/#/runs/details/r-1"),
        [answer({"runs": [{"run_id": "r-1"}], "total_size": 1})],
        Receipt("already delivered", "r-1"),
        [
            ([answer({"error": "Invalid input"}, "400 Bad Request")], "status_4xx"),
            ([answer({}), answer({"error": "Failed"}, "500 Internal Server Error")], "status_5xx"),
            ([answer({}), status("200 OK", body="<html>dex</html>")], "refused"),
        ],
        base="/pipeline",
    ),
    "prefect3": Case(
        {"type": "prefect3", "deployment": GRAPHQL_RUN, "token_file": "token"},
        [
            Wanted(
                f"POST /api/deployments/{GRAPHQL_RUN}/create_flow_run",
                JSON | BEARER,
                {
                    "name": f"drift__{ID}",
                    "idempotency_key": f"drift__{ID}",
                    "parameters": {"retraining": DATA},
                    "tags": ["drift-monitor"],
                },
            )
        ],
        [answer({"id": "f-1"}, "201 Created")],
        Receipt("delivered", "f-1"),
        [answer({"id": "f-1"})],
        Receipt("already delivered", "f-1"),
        [
            ([answer({"detail": "parameters"}, "409 Conflict")], "status_4xx"),
            ([status("200 OK", body="<html>")], "refused"),
        ],
        base="/api",
    ),
    "dagster": Case(
        {
            "type": "dagster",
            "job": "retrain",
            "location": "models",
            "token_file": "token",
            "inputs": {
                "ops": {"train": {"config": {"rows": "${data.training.rows?}", "id": "x-${data.retraining.id}"}}}
            },
        },
        [
            Wanted(
                "POST /graphql",
                JSON | {"dagster-cloud-api-token": "s3cret"},
                {
                    "query": "query Existing",
                    "variables": {"filter": {"tags": [{"key": "drift_monitor/retraining", "value": ID}]}},
                },
            ),
            Wanted(
                "POST /graphql",
                JSON | {"dagster-cloud-api-token": "s3cret"},
                {
                    "query": "mutation Launch",
                    "variables": {
                        "params": {
                            "selector": {
                                "jobName": "retrain",
                                "repositoryLocationName": "models",
                                "repositoryName": "__repository__",
                            },
                            "runConfigData": {"ops": {"train": {"config": {"rows": 10, "id": f"x-{ID}"}}}},
                            "executionMetadata": {
                                "tags": [
                                    {"key": "drift_monitor/retraining", "value": ID},
                                    {"key": "drift_monitor/monitor", "value": "flights"},
                                    {"key": "drift_monitor/report_back", "value": DATA["report_back"]["url"]},
                                ]
                            },
                        }
                    },
                },
            ),
        ],
        [DAGSTER_NONE, graphql("launchRun", {"__typename": "LaunchRunSuccess", "run": {"runId": GRAPHQL_RUN}})],
        Receipt("delivered", GRAPHQL_RUN, "{url}/runs/" + GRAPHQL_RUN),
        [graphql("runsOrError", {"__typename": "Runs", "results": [{"runId": GRAPHQL_RUN}]})],
        Receipt("already delivered", GRAPHQL_RUN, "{url}/runs/" + GRAPHQL_RUN),
        [
            ([graphql("runsOrError", {"__typename": "PythonError", "message": "locked"})], "refused"),
            ([answer({"errors": [{"message": "syntax"}], "data": None})], "refused"),
            (
                [
                    DAGSTER_NONE,
                    graphql("launchRun", {"__typename": "PipelineNotFoundError", "message": "no such job"}),
                ],
                "refused",
            ),
            (
                [DAGSTER_NONE, graphql("launchRun", {"__typename": "RunConflict", "message": "conflict"})],
                "refused",
            ),
            ([DAGSTER_NONE, answer({"data": {"launchRun": None}})], "refused"),
            ([DAGSTER_NONE, status("500 Internal Server Error")], "status_5xx"),
        ],
    ),
    "databricks": Case(
        {"type": "databricks", "job": 11223344, "username": "client", "password_file": "password"},
        [
            Wanted(
                "POST /oidc/v1/token",
                {
                    "content-type": "application/x-www-form-urlencoded",
                    "authorization": "Basic " + base64.b64encode(b"client:s3cret").decode(),
                },
                form={"grant_type": "client_credentials", "scope": "all-apis"},
            ),
            Wanted(
                "POST /api/2.1/jobs/run-now",
                JSON | BEARER,
                {"job_id": 11223344, "idempotency_token": f"drift__{ID}", "job_parameters": FLAT},
            ),
        ],
        [answer({"access_token": "s3cret", "token_type": "Bearer"}), answer({"run_id": 77, "number_in_job": 77})],
        Receipt("delivered", "77", "{url}/jobs/11223344/runs/77"),
        failing=[
            ([answer({"error": "invalid_client"}, "401 Unauthorized")], "status_4xx"),
            ([answer({"token_type": "Bearer"})], "refused"),
            (
                [answer({"access_token": "s3cret"}), answer({"error_code": "INVALID_PARAMETER_VALUE"}, "400 Bad")],
                "status_4xx",
            ),
        ],
    ),
    "jenkins": Case(
        {"type": "jenkins", "job": "retrain", "username": "drift", "password_file": "password"},
        [
            Wanted(
                "POST /job/team/job/retrain/buildWithParameters",
                {
                    "content-type": "application/x-www-form-urlencoded",
                    "authorization": "Basic " + base64.b64encode(b"drift:s3cret").decode(),
                },
                form=FLAT,
            )
        ],
        [status("201 Created", "Location: https://jenkins.example/queue/item/12/\r\n")],
        Receipt("delivered", "", "https://jenkins.example/queue/item/12/"),
        [status("303 See Other", "Location: https://jenkins.example/queue/item/12/\r\n")],
        Receipt("already delivered", "", "https://jenkins.example/queue/item/12/"),
        [
            ([status("302 Found", "Location: https://jenkins.example/login\r\n")], "redirect"),
            ([status("403 Forbidden")], "status_4xx"),
            ([status("200 OK", body="<html>")], "refused"),
        ],
        base="/job/team",
    ),
}


def without_transport(request: Request) -> dict[str, str]:
    """The headers that a template decides on."""
    mine = {"host", "connection", "content-length", "accept-encoding"}
    return {name: value for name, value in request.headers.items() if name not in mine}


def check(request: Request, wanted: Wanted) -> None:
    assert request.line == f"{wanted.line} HTTP/1.1"
    expected = {"accept": "application/json", "user-agent": f"drift-monitor/{__version__}"} | wanted.headers
    assert without_transport(request) == expected
    if wanted.form is not None:
        assert (
            dict(parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True))
            == wanted.form
        )
    elif wanted.body is None:
        assert request.body == b""
    else:
        body = json.loads(request.body)
        if (
            isinstance(body, dict) and "query" in body
        ):  # GraphQL: which operation is enough, its text is the template's
            body["query"] = " ".join(body["query"].split("(")[0].split())
        assert body == wanted.body


def test_every_template_is_tried_here() -> None:
    assert {*CASES, "sagemaker-pipeline", "alertmanager"} == {*RECEIVER_TYPES} - {"webhook", "template"}
    shipping = {
        file.name.removesuffix(".yaml")
        for file in files("drift_monitor.receivers").joinpath("templates").iterdir()
    }
    assert shipping == {*RECEIVER_TYPES} - {"webhook", "template"}


@pytest.mark.parametrize("name", CASES)
def test_the_requests_are_exactly_these(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    told: list[str] = []
    with serving(*case.answers) as server:
        url = server.url.removesuffix("/hook?x=1")
        receiver = make(case.section, url + case.base, tmp_path)
        outcome = send(receiver, "e-1", render(message(DATA)), NOW, told.append)
    assert len(server.requests) == len(case.wanted)
    for request, wanted in zip(server.requests, case.wanted, strict=True):
        check(request, wanted)
    assert outcome == Receipt(case.outcome.kind, case.outcome.run, case.outcome.link.replace("{url}", url))
    assert "s3cret" not in "".join(told) + str(outcome)
    assert len(told) == 2 * len(case.wanted)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.known is not None])
def test_a_repeated_attempt_is_known(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert case.again is not None
    assert case.known is not None
    with serving(*case.again) as server:
        url = server.url.removesuffix("/hook?x=1")
        outcome = send(make(case.section, url + case.base, tmp_path), "e-1", render(message(DATA)), NOW)
    assert outcome == Receipt(case.known.kind, case.known.run, case.known.link.replace("{url}", url))
    assert len(server.requests) == len(case.again)


@pytest.mark.parametrize(
    ("name", "answers", "reason"), [(name, *each) for name, case in CASES.items() for each in case.failing]
)
def test_what_is_no_success_is_a_failure(name: str, answers: list[bytes], reason: str, tmp_path: Path) -> None:
    case = CASES[name]
    with serving(*answers) as server:
        receiver = make(case.section, server.url.removesuffix("/hook?x=1") + case.base, tmp_path)
        with pytest.raises(DeliveryError) as caught:
            send(receiver, "e-1", render(message(DATA)), NOW)
    assert caught.value.reason == reason
    assert "s3cret" not in str(caught.value)
    assert server.connections == len(answers)


@pytest.mark.parametrize("name", CASES)
def test_a_repeated_attempt_makes_the_same_requests(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with serving(*case.answers, *case.answers) as server:
        receiver = make(case.section, server.url.removesuffix("/hook?x=1") + case.base, tmp_path)
        for hours in (0, 30):
            send(receiver, "e-1", render(message(DATA)), NOW + timedelta(hours=hours))
    half = len(case.wanted)
    assert [r.body for r in server.requests[:half]] == [r.body for r in server.requests[half:]]
    assert [r.line for r in server.requests[:half]] == [r.line for r in server.requests[half:]]


@pytest.mark.parametrize("name", CASES)
def test_an_event_without_attachments_is_delivered_too(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    section = {key: value for key, value in case.section.items() if key != "inputs"}
    bare = DATA | {"episode": None, "reference": None, "training": None, "weights": None}
    with serving(*case.answers) as server:
        receiver = make(section, server.url.removesuffix("/hook?x=1") + case.base, tmp_path)
        assert send(receiver, "e-1", render(message(bare)), NOW).kind == "delivered"
    last = server.requests[-1]
    if name in ("databricks", "jenkins"):
        given = (
            json.loads(last.body)["job_parameters"]
            if name == "databricks"
            else dict(parse_qsl(last.body.decode()))
        )
        assert given == {key: FLAT[key] for key in ("retraining_id", "monitor", "reason", "report_back")}


@pytest.mark.parametrize(
    "kind", ["drift_monitor.drift.opened", "drift_monitor.weights.ready", "drift_monitor.test"]
)
@pytest.mark.parametrize("name", CASES)
def test_no_other_event_starts_a_run(name: str, kind: str, tmp_path: Path) -> None:
    case = CASES[name]
    with serving(*case.answers) as server:
        receiver = make(case.section, server.url.removesuffix("/hook?x=1") + case.base, tmp_path)
        assert send(receiver, "e-1", render(message(DATA, kind)), NOW) == Receipt("not for it")
    assert server.connections == 0


@pytest.mark.parametrize("name", CASES)
def test_probe_sends_nothing_and_misses_a_secret(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with serving(*case.answers) as server:
        receiver = make(case.section, server.url.removesuffix("/hook?x=1") + case.base, tmp_path)
        assert probe(receiver) is None
        for secret in tmp_path.iterdir():
            secret.unlink()
            assert f"{secret}: the secret file cannot be read" in (probe(receiver) or "")
    assert server.requests == []


@pytest.mark.parametrize("kind", [k for k in RECEIVER_TYPES if k not in ("webhook", "template")])
def test_a_template_and_its_section_of_the_configuration_agree(kind: str) -> None:
    template = shipped(kind).template
    section = SECTIONS[kind]
    own = {
        name: field_
        for name, field_ in section.model_fields.items()
        if name not in {*HttpReceiver.model_fields, "token_file", "username", "password_file"}
    }
    assert own.keys() == template.parameters.keys()
    for name, parameter in template.parameters.items():
        assert own[name].is_required() == parameter.required, name
        if not parameter.required and own[name].default is not None:
            assert own[name].default == parameter.default, name
    text = files("drift_monitor.receivers").joinpath(f"templates/{kind}.yaml").read_text()
    for name in template.parameters.keys() - {"region", "profile"}:
        assert re.search(rf"\$\{{(\S+ or )?parameters\.{name}\b", text), f"{name} is used nowhere"
    assert template.repeats
    assert ("token_file" in section.model_fields) == ("token" in template.auth)
    assert ("password_file" in section.model_fields) == bool({"password", "login"} & {*template.auth})
    can_be_anonymous = "none" in template.auth or template.aws is not None
    must = any(
        section.model_fields[f].is_required() for f in ("token_file", "password_file") if f in section.model_fields
    )
    assert can_be_anonymous == (not must and not getattr(section, "must_log_in", False))
    assert template.starts_runs == (misplaced("notify", kind) is not None)


# -- the deadline is one for all requests ----------------------------------------------------------


def test_a_login_and_a_request_share_one_deadline(tmp_path: Path) -> None:
    def slowly(connection: socket.socket) -> None:
        time.sleep(1)
        connection.sendall(answer({"access_token": "s3cret"}))

    section = CASES["airflow3"].section | {"timeout": "1.5s"}
    with serving(slowly, drips(b"HTTP/1.1 200 OK\r\nX: ", b"x")) as server, pytest.raises(DeliveryError) as caught:
        send(make(section, server.url, tmp_path), "e-1", render(message(DATA)), NOW)
    assert caught.value.reason == "timeout"
    assert len(server.requests) == 2


def test_retry_after_of_a_pipeline_counts(tmp_path: Path) -> None:
    with serving(status("503 Busy", "Retry-After: 7\r\n")) as server, pytest.raises(DeliveryError) as caught:
        send(make(CASES["argo-workflows"].section, server.url, tmp_path), "e-1", render(message(DATA)), NOW)
    assert caught.value.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize("secret", ["two words", "", "new\nline", "naïve", "nul\x00"])
def test_a_token_that_could_break_a_header_is_refused_and_not_shown(secret: str, tmp_path: Path) -> None:
    with serving(status("204 No Content")) as server:
        receiver = make(CASES["github"].section, server.url, tmp_path)
        (tmp_path / "token").write_text(secret)
        with pytest.raises(DeliveryError, match="a token is one word") as caught:
            send(receiver, "e-1", render(message(DATA)), NOW)
    assert caught.value.reason == "config"
    assert not secret or secret not in str(caught.value)
    assert server.connections == 0


def test_a_token_from_a_login_that_could_break_a_header_is_refused(tmp_path: Path) -> None:
    for token in ("a\r\nX-Evil: 1", "naïve", 5, None):
        with (
            serving(answer({"access_token": token})) as server,
            pytest.raises(DeliveryError, match="without a token"),
        ):
            send(make(CASES["airflow3"].section, server.url, tmp_path), "e-1", render(message(DATA)), NOW)
        assert server.connections == 1
