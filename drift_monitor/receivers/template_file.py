"""Where templates come from: those that ship with the package, and files of the user's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from drift_monitor.config import sentences
from drift_monitor.config.document import MAX_BYTES, Document, compose, decode
from drift_monitor.config.problem import Problem
from drift_monitor.config.receivers import HttpReceiver, TemplateReceiver
from drift_monitor.core.errors import ConfigError
from drift_monitor.core.policy import parse_duration
from drift_monitor.receivers.placeholders import At, Placeholder, PlaceholderError, placeholders
from drift_monitor.receivers.template import Template

_EVENT = frozenset({"event", "id", "type", "source", "subject", "time", "data", "now", "in"})
_NOT_PARAMETERS = {*HttpReceiver.model_fields, "token_file", "username", "password_file"}


@dataclass(frozen=True)
class TemplateFile:
    """A template and the file it came from, to name places in it."""

    template: Template
    document: Document

    def problem(self, error: PlaceholderError) -> str:
        """What is wrong with a placeholder, as a line with its place."""
        return str(self.document.problem(error.at, str(error)))


def template_of(receiver: HttpReceiver) -> TemplateFile:
    """The template of a receiver; a user's own is read anew each time, so that a change counts at once.

    Raises:
        ConfigError: the user's own cannot be read, or is wrong.
    """
    return own(receiver.template) if isinstance(receiver, TemplateReceiver) else shipped(receiver.type)


@cache
def shipped(kind: str) -> TemplateFile:
    """The template of a type that ships with the package."""
    text = files("drift_monitor.receivers").joinpath(f"templates/{kind}.yaml").read_text("utf-8")
    return parse(text, f"{kind}.yaml")


def own(path: Path) -> TemplateFile:
    """A template of the user's.

    Raises:
        ConfigError: it cannot be read or used; holds every problem found, each with its line.
    """
    try:
        with path.open("rb") as file:
            text = decode(file.read(MAX_BYTES + 1), str(path))
    except OSError as error:
        text = Problem(str(path), 1, 1, "", f"the template cannot be read: {error.strerror}")
    if isinstance(text, Problem):
        raise ConfigError([str(text)])
    return parse(text, str(path))


def parse(text: str, file: str) -> TemplateFile:
    """Read the text of a template.

    Args:
        text: YAML 1.2, read as a configuration is.
        file: its name, for problems.

    Raises:
        ConfigError: holds every problem found.
    """
    if not text.strip():
        raise ConfigError(
            [str(Problem(file, 1, 1, "", "the file is empty: docs/receivers.md shows what a template says"))]
        )
    document, problems = compose(text, file)
    if document is None:
        raise ConfigError([str(p) for p in problems])
    template = None
    try:
        template = Template.model_validate_json(json.dumps(document.root.data()))
    except ValidationError as error:
        problems += sentences.problems(error, document, model=Template)
    if template is not None:
        problems += [document.problem(at, message) for at, message in _misuses(template)]
    if template is None or problems:
        raise ConfigError([str(p) for p in sorted(problems, key=lambda p: (p.line, p.column))])
    return TemplateFile(template, document)


def given_parameters(receiver: HttpReceiver, template: Template) -> dict[str, object]:
    """The parameters that a receiver's section gives.

    Raises:
        ValueError: it lacks one that its template needs, or has one that the template does not know.
    """
    if isinstance(receiver, TemplateReceiver):
        given: dict[str, object] = dict(receiver.parameters)
    else:
        fields = receiver.model_dump(exclude=_NOT_PARAMETERS)
        given = {name: value for name, value in fields.items() if value is not None}
    for name in given:
        if name not in template.parameters:
            raise ValueError(
                f"parameters.{name}: {sentences.unknown('parameter', name, list(template.parameters))}"
            )
    for name, parameter in template.parameters.items():
        if name not in given and parameter.required:
            raise ValueError(f"parameters.{name} is required but missing: {parameter.about}")
    return given


def _misuses(template: Template) -> Iterator[tuple[At, str]]:
    """Placeholders of a template that are not well formed, or whose value never exists where they stand."""
    known = _EVENT | {"parameters"}
    for name, parameter in template.parameters.items():
        yield from _misused(parameter.default, ("parameters", name, "default"), _EVENT, template, ())
    if template.login is not None:
        for key in ("path", "headers", "body", "form"):
            roots = known | ({"username", "password"} if key in ("body", "form") else set())
            yield from _misused(getattr(template.login, key), ("login", key), roots, template, ())
    kept: list[str] = []
    for number, step in enumerate(template.steps):
        at: At = ("steps", number)
        for key in ("path", "query", "headers", "body", "form"):
            yield from _misused(getattr(step, key), (*at, key), known | {"answers"}, template, kept)
        yield from _misused(
            step.link, (*at, "link"), known | {"answers", "answer", "headers", "run", "url"}, template, kept
        )
        kept += step.keep


def _misused(
    text: object, at: At, roots: AbstractSet[str], template: Template, kept: Sequence[str]
) -> Iterator[tuple[At, str]]:
    try:
        for place, placeholder in placeholders(text, at):
            for path in placeholder.paths:
                if message := _misuse(placeholder, path, roots, template, kept):
                    yield place, message
    except PlaceholderError as error:
        yield error.at, str(error)


def _misuse(
    placeholder: Placeholder,
    path: tuple[str, ...],
    roots: AbstractSet[str],
    template: Template,
    kept: Sequence[str],
) -> str | None:
    root, name = path[0], path[1] if len(path) > 1 else ""
    if root not in roots:
        return f"`{placeholder.written}`: {sentences.unknown('value', root, sorted(roots))}"
    if root == "parameters" and name not in template.parameters:
        return f"`{placeholder.written}`: {sentences.unknown('parameter', name, list(template.parameters))}"
    if root == "answers" and name not in kept:
        return f"`{placeholder.written}`: no earlier step has {name!r} in its `keep`"
    if root == "in":
        try:
            parse_duration(name)
        except ValueError as error:
            return f"`{placeholder.written}`: {error}"
    return None
