"""The request for a SageMaker pipeline, whose signature is checked by AWS's published algorithm."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
from pathlib import Path

import pytest
from retraining_event import DATA, FLAT, ID, NOW, answer, make, message
from scripted_server import Request, serving

from drift_monitor.core.cloudevents import render
from drift_monitor.core.errors import DeliveryError
from drift_monitor.receivers import probe, send
from drift_monitor.receivers.receipt import Receipt

AWS = {"type": "sagemaker-pipeline", "region": "eu-central-1", "pipeline": "retrain"}


def sigv4_of(request: Request, secret_key: str) -> str:
    """The signature that a request should carry, by the algorithm of AWS's documentation (SigV4, steps 1 to 4)."""
    fields = dict(
        part.strip().split("=", 1) for part in request.headers["authorization"].partition(" ")[2].split(",")
    )
    _, day, region, service, end = fields["Credential"].split("/")
    signed = fields["SignedHeaders"].split(";")
    method, target, _ = request.line.split(" ")
    path, _, query = target.partition("?")
    canonical = "\n".join(
        [method, path, query, *(f"{name}:{request.headers[name]}" for name in signed), "", ";".join(signed),
         hashlib.sha256(request.body).hexdigest()]
    )  # fmt: skip
    text = "\n".join(
        ["AWS4-HMAC-SHA256", request.headers["x-amz-date"], f"{day}/{region}/{service}/{end}",
         hashlib.sha256(canonical.encode()).hexdigest()]
    )  # fmt: skip
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, service, end):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Credentials in the environment, and no others."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    return "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def test_sagemaker_is_asked_with_a_signature(aws: str, tmp_path: Path) -> None:
    arn = "arn:aws:sagemaker:eu-central-1:123456789012:pipeline/retrain/execution/abc"
    with serving(answer({"PipelineExecutionArn": arn})) as server:
        outcome = send(
            make(AWS, server.url.removesuffix("/hook?x=1"), tmp_path), "e-1", render(message(DATA)), NOW
        )
    (request,) = server.requests
    assert outcome == Receipt("delivered", arn)
    assert request.line == "POST / HTTP/1.1"
    assert json.loads(request.body) == {
        "PipelineName": "retrain",
        "ClientRequestToken": f"drift-monitor-retraining-{ID}",
        "PipelineExecutionDisplayName": f"drift-{ID}",
        "PipelineExecutionDescription": DATA["summary"],
        "PipelineParameters": [{"Name": name, "Value": value} for name, value in FLAT.items()],
    }
    assert request.headers["content-type"] == "application/x-amz-json-1.1"
    assert request.headers["x-amz-target"] == "SageMaker.StartPipelineExecution"
    authorization = request.headers["authorization"]
    day = request.headers["x-amz-date"][:8]
    assert authorization.startswith(
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{day}/eu-central-1/sagemaker/aws4_request, "
    )
    signed = re.search(r"SignedHeaders=([^,]*)", authorization)
    assert signed is not None
    assert {"content-type", "host", "x-amz-date", "x-amz-target"} <= {*signed[1].split(";")}
    assert authorization.endswith(f"Signature={sigv4_of(request, aws)}")
    assert aws not in authorization


def test_a_session_token_is_sent_and_signed(aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    with serving(answer({"PipelineExecutionArn": "arn"})) as server:
        send(make(AWS, server.url.removesuffix("/hook?x=1"), tmp_path), "e-1", render(message(DATA)), NOW)
    (request,) = server.requests
    assert request.headers["x-amz-security-token"] == "session"
    assert request.headers["authorization"].endswith(f"Signature={sigv4_of(request, aws)}")


def test_the_check_of_signatures_knows_the_example_of_the_documentation() -> None:
    # AWS's documented example of a signed request (IAM ListUsers, 2015-08-30)
    request = Request(
        "GET /?Action=ListUsers&Version=2010-05-08 HTTP/1.1",
        {
            "content-type": "application/x-www-form-urlencoded; charset=utf-8",
            "host": "iam.amazonaws.com",
            "x-amz-date": "20150830T123600Z",
            "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
            "SignedHeaders=content-type;host;x-amz-date, Signature=?",
        },
        b"",
    )
    assert sigv4_of(request, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY") == (
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


@pytest.mark.parametrize("case", ["refused", "no credentials", "no botocore", "no profile"])
def test_sagemaker_says_what_is_wrong(
    case: str, aws: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = AWS | ({"profile": "nobody"} if case == "no profile" else {})
    said, reason = {
        "refused": ("ValidationException", "status_4xx"),
        "no credentials": ("no AWS credentials found", "config"),
        "no botocore": (re.escape("botocore is not installed: pip install 'drift-monitor[sagemaker]'"), "config"),
        "no profile": (r"the AWS credentials cannot be used: .*nobody", "config"),
    }[case]
    if case == "no credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    if case == "no botocore":
        monkeypatch.setitem(sys.modules, "botocore", None)
    with serving(answer({"__type": "ValidationException"}, "400 Bad Request")) as server:
        receiver = make(section, server.url.removesuffix("/hook?x=1"), tmp_path)
        with pytest.raises(DeliveryError, match=said) as caught:
            send(receiver, "e-1", render(message(DATA)), NOW)
        assert ("botocore is not installed" in (probe(receiver) or "")) == (case == "no botocore")
    assert caught.value.reason == reason
    assert len(server.requests) == (case == "refused")
