"""Writes the generated parts of the documentation: `python docs/generate.py`. A test fails when they are stale."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from drift_monitor.cli import command
from drift_monitor.config.describe import SIZE_PATTERN, definition, descriptions, json_schema, sections
from drift_monitor.config.models import Config
from drift_monitor.config.receivers import SECTIONS as RECEIVERS
from drift_monitor.core.retraining import NEXT, Event
from drift_monitor.core.types import CheckResult
from drift_monitor.receivers.template import Template
from drift_monitor.receivers.template_file import shipped
from drift_monitor.service.metrics import METRICS, PREFIX

DOCS = Path(__file__).parent
_PATTERNS = {
    json_schema()["$defs"]["Retention"]["properties"]["runs"]["pattern"]: "duration",
    SIZE_PATTERN: "size",
}
_HELP_OPTIONS = command.context_settings["help_option_names"]
_WAYS = {
    "token": "`token_file`",
    "password": "`username`, `password_file`",
    "login": "`username`, `password_file`",
    "aws": "AWS credentials",
    "none": "nothing",
}
_WORDS = {"boolean": "true or false", "integer": "whole number", "number": "number", "string": "text"}


def configuration() -> str:
    """A table for every section of the configuration file."""
    schema = json_schema()
    parts = []
    for section in sections(Config):
        own = definition(schema, section)
        title = "The whole file" if section is Config else section.__name__
        rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        meanings = descriptions(section)
        for name, prop in own["properties"].items():
            default = "required" if name in own.get("required", ()) else _default(prop)
            rows.append(f"| `{name}` | {_type(prop, schema)} | {default} | {_cell(meanings[name])} |")
        parts.append(f"## {title}\n\n{_summary(section)}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def result_fields() -> str:
    """A table for every part of the result of a check."""
    schema = CheckResult.model_json_schema(mode="serialization")
    parts = []
    for section in sections(CheckResult):
        own = definition(schema, section)
        rows = ["| field | value | meaning |", "| --- | --- | --- |"]
        meanings = descriptions(section)
        for name, prop in own["properties"].items():
            nullable = " or null" if {"type": "null"} in prop.get("anyOf", ()) else ""
            meaning = re.sub(r"\bNone\b", "null", _cell(meanings[name]))
            rows.append(f"| `{name}` | {_type(prop, schema)}{nullable} | {meaning} |")
        title = "The object" if section is CheckResult else section.__name__
        parts.append(f"### {title}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def receivers() -> str:
    """What ships, from the templates, and the keys of a template."""
    rows = [
        "| type | what it is | logs in with | asks for | an attempt whose outcome is not known is |",
        "| --- | --- | --- | --- | --- |",
        "| [`webhook`](webhooks.md) | a signed CloudEvent | a signature | `POST` | repeated: its id stays |",
    ]
    for kind, section in RECEIVERS.items():
        if kind in ("webhook", "template"):
            continue
        template = shipped(kind).template
        asked = [f"`{step.method} {step.path}`".replace(" `", "`") for step in template.steps]
        if template.login is not None:
            asked.insert(0, f"`POST {template.login.path}` where there is a password")
        cells = (
            f"[`{kind}`](configuration.md#{section.__name__.lower()})",
            template.about,
            " or ".join(dict.fromkeys(_WAYS[way] for way in template.auth)),
            ", ".join(dict.fromkeys(asked)),
            f"{'repeated' if template.knows_repeats else 'not repeated'}: {template.repeats}",
        )
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    parts = ["### Types\n\n" + "\n".join(rows)]
    schema = Template.model_json_schema()
    for section in sections(Template):
        own = definition(schema, section)
        meanings = descriptions(section)
        title = "The whole template" if section is Template else section.__name__
        keys = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        for name, prop in own["properties"].items():
            default = "required" if name in own.get("required", ()) else _default(prop)
            keys.append(f"| `{name}` | {_type(prop, schema)} | {default} | {_cell(meanings[name])} |")
        parts.append(f"### {title}\n\n{_summary(section)}\n\n" + "\n".join(keys))
    return "\n\n".join(parts)


def commands() -> str:
    """The help of every command."""
    context = click.Context(
        command,
        info_name="drift-monitor",
        help_option_names=_HELP_OPTIONS,
        max_content_width=100,
        terminal_width=100,
    )
    return "\n\n".join(_help(command, context))


def states() -> str:
    """What may follow what: a row for each state of a retraining, a column for each event."""
    events = [event for event in Event if any(event in row for row in NEXT.values())]
    rows = ["| | " + " | ".join(event.value for event in events) + " |", "| --- " * (len(events) + 1) + "|"]
    for state, row in NEXT.items():
        cells = [f"*{row[event].value}*" if event in row else "" for event in events]
        rows.append(f"| **{state.value}** | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def metrics() -> str:
    """A row for each metric of /metrics."""
    rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for spec in METRICS:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        rows.append(f"| `{PREFIX}{spec.name}` | {spec.type} | {labels} | {_cell(spec.help)} |")
    return "\n".join(rows)


def _help(each: click.Command, context: click.Context) -> list[str]:
    text = re.sub(r"[ \t]+$", "", each.get_help(context), flags=re.MULTILINE)
    parts = [f"## {context.command_path}\n\n```text\n{text}\n```"]
    if isinstance(each, click.Group):
        for name in each.list_commands(context):
            child = each.get_command(context, name)
            if child is not None:
                inner = click.Context(child, context, info_name=name, max_content_width=100, terminal_width=100)
                parts += _help(child, inner)
    return parts


def _summary(section: type[BaseModel]) -> str:
    text = inspect.cleandoc(section.__doc__ or "").partition("\nAttributes:\n")[0]
    return " ".join(text.split())


def _type(prop: dict[str, Any], schema: dict[str, Any]) -> str:
    inner = [prop.get("additionalProperties"), *prop.get("patternProperties", {}).values()]
    named = next((p for p in inner if isinstance(p, dict)), None)
    match prop:
        case {"$ref": str(reference)}:
            target = reference.rpartition("/")[2]
            found = schema["$defs"][target]
            words = _choices(found["enum"]) if "enum" in found else f"[{target}](#{target.lower()})"
            words = words if found else "any value"
        case {"anyOf": list(choices)} | {"oneOf": list(choices)}:
            words = " or ".join(_type(p, schema) for p in choices if p.get("type") != "null")
        case {"const": value}:
            words = f"`{value}`"
        case {"enum": list(values)}:
            words = _choices(values)
        case {"type": "array", "items": items}:
            words = f"list of {_type(items, schema)}"
        case {"type": "object"} if named:
            words = f"name: {_type(named, schema)}"
        case {"type": "string", "pattern": pattern} if pattern in _PATTERNS:
            words = _PATTERNS[pattern]
        case {"type": "string", "format": format_}:
            words = {"path": "path", "uri": "URL", "date-time": "time"}[format_]
        case {"type": kind}:
            words = _WORDS[kind]
        case _:
            raise ValueError(f"no words for the type of {prop}")
    return words


def _choices(values: list[str]) -> str:
    return ", ".join(f"`{v}`" for v in values)


def _default(prop: dict[str, Any]) -> str:
    value = prop.get("default")
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, dict):
        return "see there"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


GENERATED: dict[str, tuple[str, Callable[[], str]]] = {
    "configuration.md": ("sections", configuration),
    "json.md": ("fields", result_fields),
    "receivers.md": ("types", receivers),
    "cli.md": ("commands", commands),
    "retraining.md": ("states", states),
    "metrics.md": ("metrics", metrics),
}


def render(name: str) -> str:
    """A page with its generated part as it should be now."""
    marker, write = GENERATED[name]
    text = (DOCS / name).read_text("utf-8")
    begin, end = f"<!-- begin {marker}, written by docs/generate.py -->", f"<!-- end {marker} -->"
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{name} lacks {begin} or {end}")
    return f"{head}{begin}\n\n{write()}\n\n{end}{tail}"


if __name__ == "__main__":
    for each in GENERATED:
        (DOCS / each).write_text(render(each), "utf-8")
