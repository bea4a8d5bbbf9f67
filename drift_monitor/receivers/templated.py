"""Receivers whose requests a template describes: fills it in, sends it, and tells what the answers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from drift_monitor.config.problem import dotted, printable
from drift_monitor.config.receivers import HttpReceiver
from drift_monitor.core.errors import ConfigError, DeliveryError
from drift_monitor.receivers import sigv4
from drift_monitor.receivers.credentials import basic, read_password, read_token
from drift_monitor.receivers.http import Answer, Deadline, Target, connect, exchange, require_success
from drift_monitor.receivers.placeholders import NOTHING, PlaceholderError, as_text, look_up, render, render_text
from drift_monitor.receivers.prepare import Prepared, Values, event_values, prepare
from drift_monitor.receivers.receipt import Kind, Receipt, Tell, nobody
from drift_monitor.receivers.samples import samples
from drift_monitor.receivers.template import Condition, Request, Template
from drift_monitor.receivers.template_file import TemplateFile, given_parameters, template_of

MAX_JSON = 1_000_000  # bytes of an answer that are read: some repeat the whole run that was started


def send(receiver: HttpReceiver, event_id: str, body: bytes, now: datetime, tell: Tell = nobody) -> Receipt:
    """Make the requests of a receiver's template for one event.

    Args:
        receiver: where to; secrets, and a template of the user's, are read anew.
        event_id: the same over all attempts; the body has it too.
        body: the event as it was rendered.
        now: the wall clock.
        tell: is told of each request and each answer.

    Raises:
        DeliveryError: no answer that the template takes for success, or none in time, or the template, its
            parameters or the secrets are not as they have to be.
    """
    del event_id
    event = json.loads(body)
    file = _template(receiver)
    if not file.template.takes_type(event["type"]):
        return Receipt("not for it")
    values = _values(receiver, file, event, now)
    return _Conversation(receiver, file, values, now, tell).hold()


def probe(receiver: HttpReceiver) -> str | None:
    """Look whether a receiver could be sent to, without sending anything; a sentence when it could not."""
    try:
        preview(receiver)
        connect(_target(receiver))
    except DeliveryError as error:
        return str(error)
    return None


def is_repeatable(receiver: HttpReceiver) -> bool:
    """Whether a repeated request starts nothing new. Of a template that cannot be read it is not known."""
    try:
        return template_of(receiver).template.knows_repeats
    except ConfigError:
        return False


def takes(receiver: HttpReceiver, kind: str) -> bool:
    """Whether events of a type are anything to a receiver; DeliveryError when its template cannot be read."""
    return _template(receiver).template.takes_type(kind)


def preview(receiver: HttpReceiver) -> list[tuple[str, str | None]]:
    """The requests that a sample event would lead to, without one that logs in.

    Every kind of event that the template takes is tried, with and without what it may lack, so that a wrong
    placeholder is found before an event is lost to it.

    Returns:
        For each request what it is, such as `POST https://host/path`, and its body, if any.

    Raises:
        DeliveryError: reason `config`: as `send`, as far as that can be known without asking anybody.
    """
    file, now = _template(receiver), datetime.now(UTC)
    template = file.template
    _read_secrets(receiver, template)
    if template.aws is not None and (why := sigv4.why_unavailable()):
        raise DeliveryError(why, "config")
    shown: list[tuple[str, str | None]] = []
    for event in samples(now):
        if template.takes_type(event["type"]):
            values = _values(receiver, file, event, now)
            values["answers"] = {name: f"({name})" for step in template.steps for name in step.keep}
            requests = [_prepared(file, step, values, "steps", n) for n, step in enumerate(template.steps)]
            shown = shown or [
                (_line(receiver, r), r.body.decode() if r.body is not None else None) for r in requests
            ]
    return shown


class _Conversation:
    """The requests of one delivery, under one deadline."""

    def __init__(
        self, receiver: HttpReceiver, file: TemplateFile, values: Values, now: datetime, tell: Tell
    ) -> None:
        self._receiver = receiver
        self._file = file
        self._values = values
        self._now = now
        self._tell = tell
        self._target = _target(receiver)
        self._deadline = Deadline(self._target)

    def hold(self) -> Receipt:
        """Make the requests in order, until the work is done or turns out to have been done before."""
        secret = self._log_in()
        answers: dict[str, object] = {}
        self._values["answers"] = answers
        receipt = Receipt("delivered")
        for number, step in enumerate(self._file.template.steps):
            answer = self._ask(_prepared(self._file, step, self._values, "steps", number), secret)
            if step.already is not None and _holds(step.already, answer):
                return self._receipt("already delivered", step, answer)
            if not _holds(step.delivered, answer):
                require_success(self._target, answer, self._now)
                raise self._refused(answer, "which is not what success looks like here")
            for name, path in step.keep.items():
                answers[name] = look_up(_json(answer), path.split("."))
            receipt = self._receipt("delivered", step, answer)
        return receipt

    def _log_in(self) -> dict[str, str]:
        """The headers that prove who asks; perhaps after an exchange of a password for a token."""
        secrets, login = _read_secrets(self._receiver, self._file.template), self._file.template.login
        if login is None or not secrets.username:
            return secrets.headers
        values = {**self._values, "username": secrets.username, "password": secrets.password}
        prepared = _prepared(self._file, login.request(), values, "login")
        answer = self._ask(
            prepared, {"Authorization": basic(secrets.username, secrets.password)} if login.basic else {}
        )
        require_success(self._target, answer, self._now)
        found = [look_up(_json(answer), path.split(".")) for path in login.token]
        token = next((t for t in found if isinstance(t, str) and t.isascii() and t.isprintable() and t), None)
        if token is None:
            raise DeliveryError(f"{self._target} answered {answer} to the login, without a token", "refused")
        return _with_token(self._file.template, token)

    def _ask(self, prepared: Prepared, secret: dict[str, str]) -> Answer:
        path, headers, aws = _below(self._receiver, prepared), prepared.headers | secret, self._file.template.aws
        if aws is not None:
            headers |= sigv4.sign(
                prepared.method,
                f"{self._target}{path}",
                headers,
                prepared.body or b"",
                service=aws,
                region=as_text(self._values["parameters"].get("region")),
                profile=self._values["parameters"].get("profile"),
            )
        self._tell(_line(self._receiver, prepared))
        answer = exchange(
            self._target, self._deadline, prepared.method, path, prepared.body, headers, most=MAX_JSON
        )
        self._tell(f"  {answer}")
        return answer

    def _refused(self, answer: Answer, why: str) -> DeliveryError:
        if _json(answer) is NOTHING and answer.body:
            why = "which is not JSON; is `url` the address of the API?"
        return DeliveryError(
            f"{self._target} answered {answer}, {why}: {answer.excerpt}".rstrip(": "), "refused", uncertain=True
        )

    def _receipt(self, kind: Kind, step: Request, answer: Answer) -> Receipt:
        """What was started, and where it can be seen, as far as the answer says; raises nothing."""
        found = look_up(_json(answer), step.run.split(".")) if step.run is not None else NOTHING
        run, link = printable(as_text(found), 200), ""
        if step.link is not None:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            url = f"{self._target}{(self._receiver.url.path or '').rstrip('/')}"
            values = self._values | {"run": found, "url": url, "answer": _json(answer), "headers": headers}
            try:
                link = render_text(step.link, values, lambda value: printable(value, 500))
            except PlaceholderError:
                link = ""  # an answer without it was success too
        return Receipt(kind, run, link)


@dataclass(frozen=True)
class _Secrets:
    """What was read from the secret files.

    Attributes:
        headers: that can be sent as they are.
        username, password: to exchange for such headers; else empty.
    """

    headers: dict[str, str] = field(default_factory=dict)
    username: str = ""
    password: str = ""


def _read_secrets(receiver: HttpReceiver, template: Template) -> _Secrets:
    """The secrets that a receiver's section names, in the way in which its template sends them."""
    token_file: Path | None = getattr(receiver, "token_file", None)
    password_file: Path | None = getattr(receiver, "password_file", None)
    username: str = getattr(receiver, "username", None) or ""
    way = "token" if token_file is not None else "password" if password_file is not None else "none"
    if way == "password" and "login" in template.auth:
        way = "login"
    if way not in template.auth and not (way == "none" and template.aws is not None):
        known = {"token": "token_file", "none": "neither", "aws": "neither"}
        ways = sorted({known.get(each, "username and password_file") for each in template.auth})
        raise DeliveryError(f"the template logs in with {' or '.join(ways)}", "config")
    if token_file is not None:
        return _Secrets(_with_token(template, read_token(token_file)))
    if password_file is not None:
        password = read_password(password_file)
        if way == "login":
            return _Secrets({}, username, password)
        return _Secrets({"Authorization": basic(username, password)})
    return _Secrets()


def _with_token(template: Template, token: str) -> dict[str, str]:
    """The header that carries a token."""
    name = template.token_header
    return {name: f"Bearer {token}" if name.lower() == "authorization" else token}


def _values(receiver: HttpReceiver, file: TemplateFile, event: Mapping[str, Any], now: datetime) -> Values:
    """What the placeholders of a receiver's template find; the parameters may have placeholders themselves."""
    values = event_values(event, now)
    parameters: dict[str, object] = {}
    try:
        given = given_parameters(receiver, file.template)
    except ValueError as error:
        raise DeliveryError(str(error), "config") from error
    for name, parameter in file.template.parameters.items():
        try:
            if name in given:
                parameters[name] = render(given[name], values, (name,))
            else:
                parameters[name] = render(parameter.default, values, ("parameters", name, "default"))
        except PlaceholderError as error:
            said = f"{dotted(error.at)}: {error}" if name in given else file.problem(error)
            raise DeliveryError(said, "config") from error
    return values | {"parameters": parameters}


def _prepared(file: TemplateFile, step: Request, values: Values, *at: str | int) -> Prepared:
    try:
        return prepare(step, values, at)
    except PlaceholderError as error:
        raise DeliveryError(file.problem(error), "config") from error


def _template(receiver: HttpReceiver) -> TemplateFile:
    try:
        return template_of(receiver)
    except ConfigError as error:
        raise DeliveryError("\n".join(error.problems[:5]), "config") from error


def _holds(condition: Condition, answer: Answer) -> bool:
    """Whether an answer is as a template describes it."""
    if not (answer.status in condition.status if condition.status else 200 <= answer.status < 300):
        return False
    content = _json(answer) if condition.has or condition.equals else NOTHING
    present = (look_up(content, path.split(".")) for path in condition.has)
    same = ((look_up(content, path.split(".")), value) for path, value in condition.equals.items())
    return all(found not in (None, NOTHING) for found in present) and all(
        found == value and isinstance(found, bool) == isinstance(value, bool)  # in Python 1 is True
        for found, value in same
    )


def _json(answer: Answer) -> object:
    """The content of an answer; NOTHING where it is not JSON, or was cut."""
    try:
        content: object = json.loads(answer.body)
    except (ValueError, RecursionError):
        return NOTHING
    return content


def _target(receiver: HttpReceiver) -> Target:
    return Target(receiver.url, receiver.timeout, receiver.allow_hosts, receiver.allow_private)


def _below(receiver: HttpReceiver, prepared: Prepared) -> str:
    """Path and query of a request: the url's own, then the template's."""
    path = (receiver.url.path or "").rstrip("/") + prepared.path if prepared.path else receiver.url.path
    query = "&".join(filter(None, (receiver.url.query, prepared.query)))
    return (path or "/") + (f"?{query}" if query else "")


def _line(receiver: HttpReceiver, prepared: Prepared) -> str:
    """A request for people; the url's own path and query may hold a secret."""
    hidden = "/..." if (receiver.url.path or "/") != "/" or receiver.url.query else ""
    query = f"?{prepared.query}" if prepared.query else ""
    return f"{prepared.method} {_target(receiver)}{hidden}{prepared.path}{query}"
