"""What a request to a pipeline or a service looks like, as data. Pure."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from drift_monitor.core.policy import Model

REQUESTED = "drift_monitor.retraining.requested"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
_OURS = {"host", "content-length", "connection", "transfer-encoding", "authorization"}


def _path(text: str) -> str:
    if not re.fullmatch(r"(/[^\s?#]*)?", text):
        raise ValueError("a path begins with `/` and has no blanks, `?` or `#`")
    return text


def _event_type(text: str) -> str:
    if not re.fullmatch(r"drift_monitor\.[a-z_.]*\*?", text):
        raise ValueError("a type of event begins with `drift_monitor.`, such as drift_monitor.drift.*")
    return text


_Path = Annotated[str, AfterValidator(_path)]
_EventType = Annotated[str, AfterValidator(_event_type)]


class Parameter(Model):
    """What a user says in the configuration.

    Attributes:
        about: what it means.
        default: its value where the user gives none, perhaps with placeholders; without one it is required.
    """

    about: str
    default: JsonValue = None

    @property
    def required(self) -> bool:
        """Whether the user has to give it."""
        return "default" not in self.model_fields_set


class Condition(Model):
    """What an answer has to be like; all of it has to hold.

    Attributes:
        status: one of these; any 2xx when empty.
        has: paths into the answer's JSON that lead to something other than null.
        equals: paths into the answer's JSON, and the value at their end.
    """

    status: tuple[Annotated[int, Field(ge=200, le=599)], ...] = ()
    has: tuple[str, ...] = ()
    equals: dict[str, JsonValue] = {}


class Request(Model):
    """One request and what its answer means.

    Attributes:
        method: of HTTP.
        path: added to the receiver's `url`; each value in it is percent-encoded.
        query: names and values, added to it in the same way; what is not text becomes JSON.
        headers: more headers; what is not printable ASCII in a value is percent-encoded.
        body: sent as JSON; a text that is one placeholder becomes the value itself.
        form: sent as a form, in place of a body: a mapping, or a placeholder that stands for one.
        delivered: an answer that means success.
        already: an answer that means that an earlier attempt succeeded; no further request is made.
        keep: name -> path into the answer's JSON, for later requests as `${answers.NAME}`.
        run: path into the answer's JSON that leads to the id of what was started.
        link: where a person can look at it; may use `${run}`, `${url}`, `${answer.PATH}`, `${headers.location}`.
    """

    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    path: _Path = ""
    query: dict[str, JsonValue] = {}
    headers: dict[str, str] = {}
    body: JsonValue = None
    form: dict[str, JsonValue] | str | None = None
    delivered: Condition = Condition()
    already: Condition | None = None
    keep: dict[str, str] = {}
    run: str | None = None
    link: str | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.has_body and self.form is not None:
            raise ValueError("a request has a `body` or a `form`, not both")
        if self.method == "GET" and (self.has_body or self.form is not None):
            raise ValueError("a GET has neither `body` nor `form`")
        for name in self.headers:
            if not _HEADER.fullmatch(name) or name.lower() in _OURS:
                raise ValueError(f"headers: {name!r} cannot be set here")
        return self

    @property
    def has_body(self) -> bool:
        """Whether JSON is sent; it may be null."""
        return "body" in self.model_fields_set


class Login(Model):
    """A request that exchanges user name and password for a token.

    Attributes:
        path: added to the receiver's `url`.
        headers: more headers.
        basic: send user name and password as HTTP Basic, as OAuth's client credentials are.
        body: sent as JSON; `${username}` and `${password}` have a value here, and only here.
        form: sent as a form, in place of a body.
        token: paths into the answer's JSON; the first that leads somewhere leads to the token.
    """

    path: _Path
    headers: dict[str, str] = {}
    basic: bool = False
    body: JsonValue = None
    form: dict[str, JsonValue] | None = None
    token: Annotated[tuple[str, ...], Field(min_length=1)] = ("access_token",)

    def request(self) -> Request:
        """As a request like any other."""
        fields = self.model_dump(include=self.model_fields_set - {"basic", "token"})
        return Request.model_validate(fields)


class Template(Model):
    """All that is particular about one kind of receiver.

    Attributes:
        about: what it starts or tells, for people.
        takes: types of events; `drift_monitor.drift.*` is all that begin so. Others are left out without a word.
        repeats: what keeps a repeated attempt from doing the work twice, for people.
        repeatable: whether something does; if not, an attempt whose outcome is not known is not repeated. Where it
            is left out: whether a step knows what was done `already`, or no run is started.
        parameters: what a user says in the configuration, as `${parameters.NAME}`.
        auth: the ways to log in that it knows: `token` from a file; `password` as HTTP Basic; `login`, a password
            that is exchanged for a token; `aws`, Signature Version 4; `none`.
        token_header: the header that carries a token; as `Bearer` where it is Authorization.
        login: the exchange.
        aws: the service that a signature is for; needs the parameter `region`, may have `profile`.
        steps: the requests, in order; the last one does what is asked for.
    """

    about: Annotated[str, Field(min_length=1)]
    takes: Annotated[tuple[_EventType, ...], Field(min_length=1)] = (REQUESTED,)
    repeats: str = ""
    repeatable: bool | None = None
    parameters: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Parameter] = {}
    auth: Annotated[tuple[Literal["token", "password", "login", "aws", "none"], ...], Field(min_length=1)] = (
        "token",
        "password",
        "none",
    )
    token_header: Annotated[str, Field(pattern=f"^{_HEADER.pattern}$")] = "Authorization"  # noqa: S105
    login: Login | None = None
    aws: str | None = None
    steps: Annotated[tuple[Request, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if ("login" in self.auth) != (self.login is not None):
            raise ValueError("`login` in `auth` and a section `login` go together")
        if "login" in self.auth and "password" in self.auth:
            raise ValueError("auth: a password is either sent (`password`) or exchanged (`login`)")
        if ("aws" in self.auth) != (self.aws is not None):
            raise ValueError("`aws` in `auth` and the name of the service in `aws` go together")
        if self.aws is not None and (self.auth != ("aws",) or "region" not in self.parameters):
            raise ValueError("`aws` is the only way to log in where it is one, and needs a parameter `region`")
        return self

    def takes_type(self, kind: str) -> bool:
        """Whether events of a type are meant for it."""
        return any(fnmatchcase(kind, pattern) for pattern in self.takes)

    @property
    def knows_repeats(self) -> bool:
        """Whether a repeated attempt does no harm."""
        if self.repeatable is None:
            return not self.starts_runs or any(step.already is not None for step in self.steps)
        return self.repeatable

    @property
    def starts_runs(self) -> bool:
        """Whether it is for a pipeline."""
        return self.takes_type(REQUESTED)
