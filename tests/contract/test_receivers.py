"""What every receiver must do, against real servers that misbehave."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import HttpUrl
from scripted_server import OK, Request, Server, drips, hangs, resets, serving, status
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from drift_monitor import __version__
from drift_monitor.config.receivers import ArgoEventsReceiver, WebhookReceiver
from drift_monitor.core.cloudevents import render
from drift_monitor.core.errors import DeliveryError
from drift_monitor.core.types import Message
from drift_monitor.receivers import RECEIVERS, probe, send
from drift_monitor.receivers.address import why_blocked
from drift_monitor.receivers.http import MAX_ANSWER, Target, post, retry_after
from drift_monitor.receivers.webhook import read_secrets

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MESSAGE = Message(
    id="e-1",
    type="drift_monitor.retraining.requested",
    source="/drift-monitor",
    subject="flights",
    time=NOW,
    group="episode-1",
    data={"features": ["distance", "naïve\n</script>", "lone \ud800 surrogate"], "score": 2.5},
)
BODY = render(MESSAGE)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SOON = timedelta(seconds=1.5)  # a deadline that is meant to pass


# -- one suite for every receiver ------------------------------------------------------------------


def webhook(url: str, folder: Path, **options: Any) -> WebhookReceiver:
    secret = folder / "secret"
    if not secret.exists():
        secret.write_text(SECRET + "\n")
    options = {"timeout": timedelta(seconds=60), "allow_private": True} | options
    return WebhookReceiver(type="webhook", url=HttpUrl(url), secret_file=secret, **options)


def templated(url: str, folder: Path, **options: Any) -> ArgoEventsReceiver:
    """The simplest of all templates: one request, whose body is the event."""
    options = {"timeout": timedelta(seconds=60), "allow_private": True} | options
    return ArgoEventsReceiver(type="argo-events", url=HttpUrl(url), **options)


CASES: dict[str, Callable[..., Any]] = {"webhook": webhook, "argo-events": templated}


def test_every_way_to_send_is_in_the_suite() -> None:
    assert {RECEIVERS[name] for name in CASES} == set(RECEIVERS.values())


@pytest.fixture(params=sorted(CASES))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    return lambda url, **options: CASES[request.param](url, tmp_path, **options)


@pytest.mark.parametrize("answer", [OK, status("200 OK", body="fine"), status("202 Accepted")])
def test_2xx_is_delivered(make: Callable[..., Any], answer: bytes) -> None:
    with serving(answer) as server:
        send(make(server.url), MESSAGE.id, BODY, NOW)
    (request,) = server.requests
    assert request.line == "POST /hook?x=1 HTTP/1.1"
    assert request.headers["user-agent"] == f"drift-monitor/{__version__}"
    assert request.headers["host"] == server.url.split("/")[2]


@pytest.mark.parametrize(
    ("answer", "reason", "said"),
    [
        (status("301 Moved", "Location: http://127.0.0.1:1/\r\n"), "redirect", "redirects are not followed"),
        (
            status("307 Temporary", "Location: http://127.0.0.1:1/\r\n"),
            "redirect",
            "set `url` to the final address",
        ),
        (status("304 Not Modified"), "redirect", "304"),
        (
            status("404 Not Found", body="no\x1b[31m such \n hook"),
            "status_4xx",
            "404 Not Found: no [31m such hook",
        ),
        (status("410 Gone"), "gone", "wants no more messages"),
        (status("429 Too Many Requests"), "status_4xx", "429"),
        (status("500 Oops"), "status_5xx", "500 Oops"),
        (status("600 What"), "protocol", "600"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "protocol", "did not answer in HTTP"),
        (b"", "connect", "the connection failed"),
    ],
)
def test_anything_else_is_a_failure_with_a_reason(
    make: Callable[..., Any], answer: bytes, reason: str, said: str
) -> None:
    with serving(answer) as server, pytest.raises(DeliveryError) as caught:
        send(make(server.url), MESSAGE.id, BODY, NOW)
    assert caught.value.reason == reason
    assert said in str(caught.value)
    assert "/hook" not in str(caught.value)  # a path may hold a secret
    assert server.connections == 1


@pytest.mark.parametrize(
    ("code", "value", "expected"),
    [
        (429, "7", timedelta(seconds=7)),
        (503, format_datetime(NOW + timedelta(seconds=90), usegmt=True), timedelta(seconds=90)),
        (502, format_datetime(NOW - timedelta(hours=1), usegmt=True), timedelta(0)),
        (504, "999999999999999999999999", timedelta(hours=24)),
        (503, format_datetime(NOW + timedelta(days=300), usegmt=True), timedelta(hours=24)),
        (429, "soon", None),
        (429, "-5", None),
        (500, "7", None),
    ],
)
def test_retry_after_is_read_and_capped(
    make: Callable[..., Any], code: int, value: str, expected: timedelta | None
) -> None:
    with (
        serving(status(f"{code} Wait", f"Retry-After: {value}\r\n")) as server,
        pytest.raises(DeliveryError) as caught,
    ):
        send(make(server.url), MESSAGE.id, BODY, NOW)
    assert caught.value.retry_after == expected


@pytest.mark.parametrize(
    "script",
    [
        hangs,
        drips(b"HTTP/1.1 ", b"2"),
        drips(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        drips(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["hangs", "status line", "one header", "headers", "100 Continue"],
)
def test_the_deadline_cuts_an_answer_that_never_ends(
    make: Callable[..., Any], script: Callable[[socket.socket], None]
) -> None:
    with serving(script) as server:
        with pytest.raises(DeliveryError, match=r"within 1\.5s") as caught:
            send(make(server.url, timeout=SOON), MESSAGE.id, BODY, NOW)
        assert server.left.wait(60)
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize(
    "script",
    [
        drips(b"HTTP/1.1 500 Oops\r\nContent-Length: 99999\r\n\r\n", b"x"),
        drips(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        drips(b"HTTP/1.1 500 Oops\r\n\r\n", b"x" * 100_000),
    ],
    ids=["by a byte", "by a chunk", "in floods"],
)
def test_a_body_that_never_ends_is_cut_and_the_status_counts(
    make: Callable[..., Any], script: Callable[[socket.socket], None]
) -> None:
    with serving(script) as server:
        with pytest.raises(DeliveryError, match="500 Oops: x") as caught:
            send(make(server.url, timeout=SOON), MESSAGE.id, BODY, NOW)
        assert server.left.wait(60)
    assert caught.value.reason == "status_5xx"
    assert len(str(caught.value)) < 300


def test_a_2xx_whose_body_never_ends_was_delivered(make: Callable[..., Any]) -> None:
    with serving(drips(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"x")) as server:
        send(make(server.url, timeout=SOON), MESSAGE.id, BODY, NOW)
        assert server.left.wait(60)


def test_a_reset_connection_is_a_failure(make: Callable[..., Any]) -> None:
    with serving(resets) as server, pytest.raises(DeliveryError) as caught:
        send(make(server.url), MESSAGE.id, BODY, NOW)
    assert caught.value.reason == "connect"


def test_nobody_listening_is_a_failure_and_a_finding(make: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
    with pytest.raises(DeliveryError, match="Connection refused") as caught:
        send(make(url), MESSAGE.id, BODY, NOW)
    assert caught.value.reason == "connect"
    assert "Connection refused" in (probe(make(url)) or "")


def test_a_name_that_does_not_resolve(make: Callable[..., Any]) -> None:
    receiver = make("http://no-such-host.invalid/hook")
    with pytest.raises(DeliveryError, match=r"no-such-host\.invalid") as caught:
        send(receiver, MESSAGE.id, BODY, NOW)
    assert caught.value.reason in {"connect", "timeout"}


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("http://169.254.169.254/latest/meta-data", {"allow_private": True}, "clouds serve credentials"),
        ("http://[::ffff:169.254.169.254]/", {"allow_private": True}, "clouds serve credentials"),
        ("http://[fd00:ec2::254]/", {"allow_private": True}, "AWS"),
        ("http://0.0.0.0:1/", {"allow_private": True}, "unspecified"),
        ("http://2852039166/", {"allow_private": True}, "clouds serve credentials"),  # 169.254.169.254 as a number
        ("http://127.0.0.1:1/", {"allow_private": False}, "allow_private is off"),
        ("http://localhost:1/", {"allow_private": False}, "allow_private is off"),
        ("http://[::1]:1/", {"allow_private": False}, "allow_private is off"),
        ("http://127.0.0.1:1/", {"allow_hosts": ("hooks.example",)}, "not in allow_hosts (hooks.example)"),
    ],
)
def test_forbidden_places_are_never_reached(
    make: Callable[..., Any], url: str, options: dict[str, Any], said: str
) -> None:
    receiver = make(url, **options)
    with pytest.raises(DeliveryError) as caught:
        send(receiver, MESSAGE.id, BODY, NOW)
    assert caught.value.reason == "blocked"
    assert said in str(caught.value)
    assert said in (probe(receiver) or "")


def test_a_name_is_refused_when_any_of_its_addresses_is_forbidden(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(OK) as server:
        port = int(server.url.split(":")[2].split("/")[0])
        answers = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.1", "169.254.1.1")
        ]
        # the resolver is the one thing that cannot be had for real without a name server of one's own
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
        with pytest.raises(DeliveryError) as caught:
            send(make(f"http://two-faced.example:{port}/"), MESSAGE.id, BODY, NOW)
    assert caught.value.reason == "blocked"
    assert not server.connections


def test_the_environment_names_no_proxy(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(OK) as server:
        send(make(server.url), MESSAGE.id, BODY, NOW)
    assert len(server.requests) == 1


def test_a_password_in_the_url_is_refused_and_not_repeated(make: Callable[..., Any]) -> None:
    with pytest.raises(DeliveryError, match="remove it") as caught:
        send(make("http://user:hunter2@127.0.0.1:1/"), MESSAGE.id, BODY, NOW)
    assert caught.value.reason == "config"
    assert "hunter2" not in str(caught.value)


def test_probe_connects_and_sends_nothing(make: Callable[..., Any]) -> None:
    with serving(OK) as server:
        assert probe(make(server.url)) is None
        assert server.wait_for_connection() == 1
    assert server.requests == []


def certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context, and the file that makes a client trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "drift-monitor tests")])
    names: list[x509.GeneralName] = [x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)]
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, keys = folder / "certificate.pem", folder / "key.pem"
    file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    keys.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, keys)
    return context, file


@pytest.mark.parametrize("case", ["trusted", "unknown", "other host"])
def test_certificates_are_checked(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    context, file = certificate(tmp_path, "hooks.example" if case == "other host" else "127.0.0.1")
    if case != "unknown":
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with serving(OK, tls=context) as server:
        receiver = make(server.url)
        if case == "trusted":
            send(receiver, MESSAGE.id, BODY, NOW)
            assert probe(receiver) is None
            return
        with pytest.raises(DeliveryError, match="certificate is not trusted") as caught:
            send(receiver, MESSAGE.id, BODY, NOW)
        assert caught.value.reason == "tls"
        assert "certificate is not trusted" in (probe(receiver) or "")
    assert server.requests == []


def test_the_deadline_cuts_a_dripping_answer_over_tls(
    make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, file = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with serving(drips(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"), tls=context) as server:
        with pytest.raises(DeliveryError) as caught:
            send(make(server.url, timeout=SOON), MESSAGE.id, BODY, NOW)
        assert server.left.wait(60)
    assert caught.value.reason == "timeout"


def test_the_deadline_cuts_a_handshake_that_nobody_answers(make: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(DeliveryError) as caught:
            send(make(url, timeout=SOON), MESSAGE.id, BODY, NOW)
    assert caught.value.reason == "timeout"


def test_plain_http_where_tls_is_expected(make: Callable[..., Any]) -> None:
    def plain(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(status("400 Bad Request"))

    with serving(plain) as server, pytest.raises(DeliveryError) as caught:
        send(make(server.url.replace("http:", "https:"), timeout=SOON), MESSAGE.id, BODY, NOW)
    assert caught.value.reason in {"tls", "timeout"}  # a server that waits for a line gives no answer at all


# -- the sender alone ------------------------------------------------------------------------------


def test_at_most_64_kb_of_an_answer_are_read() -> None:
    with serving(status("200 OK", body="x" * 3_000_000)) as server:
        target = Target(HttpUrl(server.url), timedelta(seconds=30), allow_private=True)
        assert len(post(target, b"", {}).body) == MAX_ANSWER


def test_an_address_in_brackets_keeps_them_in_the_host_header() -> None:
    assert (
        Target(HttpUrl("https://[2001:DB8::1]:8443/x"), timedelta(seconds=1)).host_header == "[2001:db8::1]:8443"
    )
    assert Target(HttpUrl("https://Hooks.Example./x"), timedelta(seconds=1)).host_header == "hooks.example"


@pytest.mark.parametrize(
    "address",
    ["169.254.0.1", "fe80::1%1", "fd00:ec2::23", "224.0.0.251", "ff02::1", "0.0.0.0", "::", "::ffff:0.0.0.0",
     "::ffff:a9fe:a9fe", "2002:a9fe:a9fe::1", "64:ff9b::a9fe:a9fe", "::a9fe:a9fe", "255.255.255.255"],
)  # fmt: skip
def test_addresses_that_are_always_blocked(address: str) -> None:
    assert why_blocked(address, allow_private=True)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fc00::1", "fec0::1",
     "::ffff:10.0.0.1", "2002:7f00:1::1", "64:ff9b::7f00:1", "::127.0.0.1", "192.0.2.1", "240.0.0.1"],
)  # fmt: skip
def test_private_addresses_are_blocked_unless_allowed(address: str) -> None:
    assert why_blocked(address, allow_private=False)
    assert why_blocked(address, allow_private=True) is None


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_global_addresses_are_not_blocked(address: str) -> None:
    assert why_blocked(address, allow_private=False) is None


def test_a_date_without_a_zone_is_utc() -> None:
    assert retry_after("Sun, 01 Mar 2026 12:00:30", NOW) == timedelta(seconds=30)


# -- webhooks alone --------------------------------------------------------------------------------


def sent(receiver: WebhookReceiver, server: Server, now: datetime) -> Request:
    send(receiver, MESSAGE.id, BODY, now)
    return server.requests[-1]


def test_the_signature_verifies_with_the_standard_library_of_the_standard(tmp_path: Path) -> None:
    with serving(OK) as server:
        request = sent(webhook(server.url, tmp_path), server, datetime.now(UTC))
    event = Webhook(SECRET).verify(request.body, request.headers)
    assert request.body == BODY
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["webhook-id"] == event["id"] == MESSAGE.id
    assert event["specversion"] == "1.0"
    assert event["data"]["features"] == ["distance", "naïve\n</script>", "lone \ufffd surrogate"]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body.replace(b"2.5", b"2.6"), request.headers)


def test_every_secret_signs_and_a_changed_file_counts_at_once(tmp_path: Path) -> None:
    new = "whsec_" + base64.b64encode(b"n" * 24).decode().rstrip("=")
    with serving(OK) as server:
        receiver = webhook(server.url, tmp_path)
        receiver.secret_file.write_text(f"# the new one comes first\n{new}\r\n\n{SECRET}\n")
        both = sent(receiver, server, datetime.now(UTC))
        receiver.secret_file.write_text(new)
        rotated = sent(receiver, server, datetime.now(UTC))
    for secret, request in ((SECRET, both), (new, both), (new, rotated)):
        Webhook(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(rotated.body, rotated.headers)


def test_each_attempt_has_its_own_time_and_the_same_id(tmp_path: Path) -> None:
    with serving(OK) as server:
        receiver = webhook(server.url, tmp_path)
        first, second = (sent(receiver, server, NOW + timedelta(hours=h)) for h in (0, 1))
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 3600
    assert second.headers["webhook-id"] == first.headers["webhook-id"]
    assert second.headers["webhook-signature"] != first.headers["webhook-signature"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\n\n", "holds no secret"),
        (SECRET.encode() + b"\nhunter2-no-prefix\n", ":2: the line does not begin with whsec_"),
        (b"whsec_hunter2!hunter2!hunter2!hunter2!", ":1: the secret is not base64"),
        (b"whsec_" + base64.b64encode(b"hunter2"), ":1: the secret has 7 bytes"),
        (b"whsec_" + base64.b64encode(b"h" * 65), ":1: the secret has 65 bytes"),
        (b"whsec_\xff\xfe", ":1: the secret is not base64"),
    ],
)
def test_a_bad_secret_is_named_by_line_and_never_shown(tmp_path: Path, text: bytes, said: str) -> None:
    receiver = webhook("http://127.0.0.1:1/", tmp_path)
    receiver.secret_file.write_bytes(text)
    with pytest.raises(DeliveryError) as caught:
        send(receiver, MESSAGE.id, BODY, NOW)
    assert caught.value.reason == "config"
    assert f"{receiver.secret_file}" in str(caught.value)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert base64.b64encode(b"hunter2").decode() not in str(caught.value)
    assert caught.value.__cause__ is None
    assert said in (probe(receiver) or "")


def test_a_missing_secret_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match=r"nowhere: the secret file cannot be read: No such file"):
        read_secrets(tmp_path / "nowhere")


def test_secrets_of_24_and_64_bytes_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    keys = [b"a" * 24, b"b" * 64]
    path.write_text("".join(f"whsec_{base64.b64encode(key).decode()}\n" for key in keys))
    assert read_secrets(path) == keys


# -- the event -------------------------------------------------------------------------------------


def event(data: dict[str, object], **changes: Any) -> Message:
    return MESSAGE.model_copy(update={"data": data, **changes})


def test_an_event_is_cloudevents_json() -> None:
    assert json.loads(BODY).keys() == {
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"
    }  # fmt: skip
    assert json.loads(BODY)["time"] == "2026-03-01T12:00:00Z"


def test_odd_values_become_json_that_every_parser_takes() -> None:
    body = render(event({"a\udfff": [float("nan"), float("inf"), "\x00\x1b", NOW, {"t": (1, None, True)}]}))
    assert json.loads(body)["data"] == {
        "a\ufffd": ["nan", "inf", "\x00\x1b", "2026-03-01T12:00:00+00:00", {"t": [1, None, True]}]
    }


@pytest.mark.parametrize(
    "data",
    [
        {"features": [{"name": f"f{i}", "effect": "x" * 50} for i in range(5000)]},
        {"features": ["😀" * 100_000]},
        {"features": {f"f{i}": "x" * 500 for i in range(5000)}},
        {"x" * 50_000: 1},
        {"deep": [[["y" * 300] * 30] * 30] * 30},
    ],
)
def test_an_event_that_is_too_big_is_cut_and_says_so(data: dict[str, object]) -> None:
    body = render(event({"monitor": "flights", **data}))
    assert len(body) < 20_000
    assert json.loads(body)["data"]["truncated"] is True


def test_a_cut_event_keeps_the_first_of_its_features() -> None:
    body = render(event({"monitor": "flights", "features": [f"feature number {i}" for i in range(5000)]}))
    data: dict[str, Any] = json.loads(body)["data"]
    assert data["monitor"] == "flights"
    assert data["features"] == [f"feature number {i}" for i in range(100)]


@pytest.mark.parametrize("bad", ["", "two words", "a\r\nX-Evil: 1", "é", "x" * 201])
def test_an_id_that_cannot_be_a_header_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        render(event({}, id=bad))


def test_an_envelope_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="leave no room"):
        render(event({"features": ["x"] * 10_000}, subject="s" * 20_000))
