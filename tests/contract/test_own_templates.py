"""A user's own template: a receiver without code, and errors that name file, line and field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from retraining_event import DATA, ID, NOW, answer, episode, event, make, message
from scripted_server import serving, status

from drift_monitor.cli.layers import examine_layers
from drift_monitor.config.file import parse as parse_config
from drift_monitor.config.receivers import RECEIVER_TYPES
from drift_monitor.core.cloudevents import render
from drift_monitor.core.errors import ConfigError, DeliveryError
from drift_monitor.receivers import is_repeatable, probe, send
from drift_monitor.receivers.receipt import Receipt
from drift_monitor.receivers.template_file import parse
from drift_monitor.receivers.templated import preview

OWN = """\
about: our own pipeline
parameters:
  queue: {about: where it waits}
  rows: {about: how many, default: "${data.training.rows?}"}
  extra: {about: more of what it needs, default: {}}
auth: [token]
token_header: X-Api-Key
steps:
  - method: GET
    path: /sessions
    query: {of: "${subject}"}
    keep: {session: session.id}
  - method: PUT
    path: /queues/${parameters.queue}/${data.retraining.id}
    headers: {X-Session: "${answers.session}", X-Rows: "${parameters.rows?}"}
    body:
      rows: ${parameters.rows?}
      features: ${data.features}
      extra: ${parameters.extra}
      note: "${data.monitor}: ${data.reason|cut 5}"
    delivered: {status: [202], equals: {accepted: true}}
    already: {status: [200, 409], equals: {accepted: false}}
    run: ticket
    link: ${url}/tickets/${run}
"""


def own(folder: Path, text: str, **section: Any) -> dict[str, Any]:
    path = folder / "pipeline.yaml"
    path.write_text(text)
    return {
        "type": "template",
        "template": str(path),
        "token_file": "token",
        "parameters": {"queue": "q"},
    } | section


def test_a_template_is_a_receiver(tmp_path: Path) -> None:
    extra = {"who": "${data.retraining.decided_by}", "n": [1, "${data.weights.adopt}"]}
    section = own(tmp_path, OWN, parameters={"queue": "a/b ü", "extra": extra})
    replies = [answer({"session": {"id": "s 1"}}), answer({"accepted": True, "ticket": 5}, "202 Accepted")]
    with serving(*replies) as server:
        url = server.url.removesuffix("/hook?x=1")
        receiver = make(section, url + "/base?key=k", tmp_path)
        outcome = send(receiver, "e-1", render(message(DATA)), NOW)
    first, second = server.requests
    assert outcome == Receipt("delivered", "5", f"{url}/base/tickets/5")
    assert first.line == "GET /base/sessions?key=k&of=flights HTTP/1.1"
    assert first.body == b""
    assert first.headers["x-api-key"] == "s3cret"
    assert second.line == f"PUT /base/queues/a%2Fb%20%C3%BC/{ID}?key=k HTTP/1.1"
    assert second.headers["x-session"] == "s 1"
    assert second.headers["x-rows"] == "10"
    assert json.loads(second.body) == {
        "rows": 10,
        "features": DATA["features"],
        "extra": {"who": "drift-monitor", "n": [1, True]},
        "note": "flights: naïve",
    }


def test_a_template_knows_what_was_done_before(tmp_path: Path) -> None:
    replies = [answer({"session": {"id": "s"}}), answer({"accepted": False, "ticket": 5}, "409 Conflict")]
    with serving(*replies) as server:
        receiver = make(own(tmp_path, OWN), server.url, tmp_path)
        assert send(receiver, "e-1", render(message(DATA)), NOW).kind == "already delivered"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (answer({"accepted": False}, "202 Accepted"), "not what success looks like"),
        (answer({"accepted": True}), "not what success looks like"),
        (status("202 Accepted", body="yes"), "which is not JSON; is `url` the address of the API?: yes"),
        (answer({"accepted": 1}, "202 Accepted"), "not what success looks like"),
    ],
)
def test_anything_else_is_no_success(reply: bytes, said: str, tmp_path: Path) -> None:
    with serving(answer({"session": {"id": "s"}}), reply) as server:
        receiver = make(own(tmp_path, OWN), server.url, tmp_path)
        with pytest.raises(DeliveryError) as caught:
            send(receiver, "e-1", render(message(DATA)), NOW)
    assert said in str(caught.value)
    assert caught.value.reason == "refused"


def test_an_answer_without_what_is_kept_ends_it(tmp_path: Path) -> None:
    with serving(answer({})) as server:
        receiver = make(own(tmp_path, OWN), server.url, tmp_path)
        with pytest.raises(DeliveryError, match=r"there is no answers\.session"):
            send(receiver, "e-1", render(message(DATA)), NOW)
    assert server.connections == 1


LOGIN = """\
about: a login of one's own
auth: [login, none]
token_header: X-Session
login: {path: /login, form: {user: "${username}", secret: "${password}"}, token: [no, deep.token]}
steps: [{path: /run, body: 1}]
"""


def test_a_password_may_be_exchanged_for_a_token(tmp_path: Path) -> None:
    section = {"type": "template", "template": own(tmp_path, LOGIN)["template"]}
    known = {"username": "drift", "password_file": "password"}
    with serving(answer({"deep": {"token": "t0ken"}}), status("200 OK")) as server:
        send(
            make(section | known, server.url.removesuffix("/hook?x=1"), tmp_path), "e", render(message(DATA)), NOW
        )
    login, run = server.requests
    assert login.line == "POST /login HTTP/1.1"
    assert login.body == b"user=drift&secret=s3cret"
    assert "authorization" not in login.headers | run.headers
    assert run.headers["x-session"] == "t0ken"
    with serving(status("200 OK")) as server:  # nobody to log in as
        send(make(section, server.url.removesuffix("/hook?x=1"), tmp_path), "e", render(message(DATA)), NOW)
    assert [request.line for request in server.requests] == ["POST /run HTTP/1.1"]


CHAT = """\
about: a line in a chat
takes: ["drift_monitor.drift.*", drift_monitor.test]
steps:
  - body: {text: "${data.summary}", color: "${type|map *.resolved=good *=bad}"}
"""


def test_a_template_may_be_for_people(tmp_path: Path) -> None:
    section = {"type": "template", "template": own(tmp_path, CHAT)["template"]}
    with serving(status("200 OK")) as server:
        receiver = make(section, server.url, tmp_path)
        for kind in ("drift.opened", "drift.resolved", "data_quality.opened"):
            send(receiver, "e", render(episode(f"drift_monitor.{kind}", "drift", NOW, NOW)), NOW)
    assert [request.line for request in server.requests] == ["POST /hook?x=1 HTTP/1.1"] * 2
    assert [json.loads(request.body)["color"] for request in server.requests] == ["bad", "good"]


def test_a_change_of_the_file_counts_at_once(tmp_path: Path) -> None:
    with serving(status("204 No Content")) as server:
        receiver = make(own(tmp_path, "about: a\nsteps: [{body: 1}]\n", parameters={}), server.url, tmp_path)
        send(receiver, "e", render(message(DATA)), NOW)
        own(tmp_path, 'about: a\nsteps: [{body: "${event}"}]\n')
        send(receiver, "e", render(message(DATA)), NOW)
    assert [json.loads(request.body) for request in server.requests] == [1, event()]


GOLDEN = Path(__file__).parents[1] / "golden" / "templates"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda p: p.stem)
def test_each_rule_has_a_wrong_template_and_its_exact_message(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    with pytest.raises(ConfigError) as caught:
        parse(text, path.name)
    assert str(caught.value) + "\n" == path.with_suffix(".txt").read_text()
    receiver = make(own(tmp_path, text), "http://127.0.0.1:1", tmp_path)
    with pytest.raises(DeliveryError) as failed:
        send(receiver, "e", render(message(DATA)), NOW)
    assert failed.value.reason == "config"
    assert str(tmp_path / "pipeline.yaml") in str(failed.value)


@pytest.mark.parametrize(
    ("text", "section", "said"),
    [
        (OWN, {"parameters": {}}, "parameters.queue is required but missing: where it waits"),
        (OWN, {"parameters": {"quue": "q"}}, "parameters.quue: unknown parameter, did you mean `queue`?"),
        (OWN, {"parameters": {"queue": ".."}}, "pipeline.yaml:14:11: steps[1].path: `.` and `..` cannot be"),
        (OWN, {"parameters": {"queue": ""}}, "an empty value cannot be a part of a path"),
        (OWN, {"parameters": {"queue": "${data.no}"}}, "queue: there is no data.no: write `data.no?`"),
        (OWN, {"parameters": {"queue": "${data.x"}}, "queue: `${` without its `}`"),
        (OWN.replace("data.reason|", "data.raeson|"), {}, ":20:13: steps[1].body.note: there is no data.raeson"),
        (OWN.replace("${parameters.rows?}", "${data.training.rows}"), {}, "there is no data.training.rows"),
        (OWN, {"token_file": None}, "the template logs in with token_file"),
        (CHAT.replace("takes", "auth: [password]\ntakes"), {}, "logs in with username and password_file"),
    ],
)
def test_probe_finds_what_would_go_wrong(text: str, section: dict[str, Any], said: str, tmp_path: Path) -> None:
    written = {key: value for key, value in own(tmp_path, text, **section).items() if value is not None}
    assert said in (probe(make(written, "http://127.0.0.1:1", tmp_path)) or "")


def test_a_template_that_is_not_there_is_named(tmp_path: Path) -> None:
    receiver = make(own(tmp_path, OWN), "http://127.0.0.1:1", tmp_path)
    (tmp_path / "pipeline.yaml").unlink()
    assert f"{tmp_path / 'pipeline.yaml'}:1:1: the template cannot be read: No such file" in (
        probe(receiver) or ""
    )


CONFIG = """\
receivers:
  own: {{type: template, url: "{url}", template: pipeline.yaml, {section}}}
monitors:
  flights:
    reference: reference
    source: {{path: live.parquet}}
    schedule: {{every: 1h}}
    columns: {{label: is_late}}
    {use}
"""


@pytest.mark.parametrize(
    ("text", "use", "said"),
    [
        (OWN, "notify: [own]", "takes only drift_monitor.retraining.requested: it belongs in `retrain.receiver`"),
        (
            CHAT,
            "retrain: {receiver: own}",
            "does not take drift_monitor.retraining.requested: name",
        ),
        (CHAT, "notify: [own]", None),
        (OWN, "retrain: {receiver: own}", None),
        ("about: x\n", "retrain: {receiver: own}", "pipeline.yaml:1:1: steps: is required but missing"),
    ],
)
def test_check_config_knows_where_a_template_belongs(
    text: str, use: str, said: str | None, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.yaml").write_text(text)
    (tmp_path / "token").write_text("s3cret")
    with serving(status("200 OK")) as server:
        section = "token_file: token, parameters: {queue: q}" if text == OWN else ""
        written = CONFIG.format(url=server.url, section=section, use=use)
        found = examine_layers(written, tmp_path / "drift-monitor.yaml")
    problems = [str(p) for p in found.problems if "own" in str(p)]
    assert len(problems) == (said is not None)
    assert said is None or said in problems[0]
    assert server.requests == []


DOCS = (Path(__file__).parents[2] / "docs" / "receivers.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


def test_the_documentation_shows_one_receiver_of_each_type() -> None:
    monitor = "\nmonitors: {m: {reference: r, source: {path: p}, schedule: {every: 1h}}}\n"
    config = parse_config(BLOCKS[0] + monitor, Path("/etc/drift-monitor.yaml"))
    assert {receiver.type for receiver in config.receivers.values()} == {*RECEIVER_TYPES}


@pytest.mark.parametrize("text", BLOCKS[1:], ids=["pipeline", "chat"])
def test_the_templates_of_the_documentation_work(text: str, tmp_path: Path) -> None:
    section = own(tmp_path, text)
    if "token" not in text:
        section = {"type": "template", "template": section["template"]}
    assert preview(make(section, "http://127.0.0.1:1", tmp_path))


def test_the_error_of_the_documentation_is_what_is_said() -> None:
    wrong = BLOCKS[1].replace("parameters.queue", "parameters.qeue")
    (shown,) = re.findall(r"```text\n(pipeline\.yaml.*)\n```", DOCS)
    with pytest.raises(ConfigError) as caught:
        parse(wrong, "pipeline.yaml")
    assert caught.value.problems == [shown]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("about: x\nsteps: [{}]\n", False),
        ("about: x\nsteps: [{already: {status: [409]}}]\n", True),
        ("about: x\nrepeatable: true\nsteps: [{}]\n", True),
        ("about: x\nrepeatable: false\nsteps: [{already: {status: [409]}}]\n", False),
        ("about: x\ntakes: [drift_monitor.drift.*]\nsteps: [{}]\n", True),
        ("about: x\n", False),
    ],
)
def test_what_is_not_known_to_be_harmless_is_not_repeated(text: str, expected: bool, tmp_path: Path) -> None:
    assert is_repeatable(make(own(tmp_path, text), "http://127.0.0.1:1", tmp_path)) == expected
