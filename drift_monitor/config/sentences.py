"""What pydantic found wrong -> problems with a place and a sentence that a newcomer understands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drift_monitor.config.daemon import LISTEN_PATTERN
from drift_monitor.config.describe import format_size
from drift_monitor.config.document import Document
from drift_monitor.config.models import Config
from drift_monitor.config.names import NAME_PATTERN
from drift_monitor.config.problem import Problem, dotted, printable
from drift_monitor.config.receivers import USERNAME_PATTERN
from drift_monitor.config.sources import ENDPOINT_PATTERN

_PATTERNS = {
    NAME_PATTERN: "a name has 1 to 63 letters, digits, `_`, `.` or `-` and begins with a letter or digit",
    ENDPOINT_PATTERN: "an endpoint is scheme and host, such as https://minio.example:9000",
    LISTEN_PATTERN: "an address is host:port, such as 127.0.0.1:9877",
    USERNAME_PATTERN: "a user name has no `:`, which would end it (RFC 7617)",
}
_TYPES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a section of `key: value` lines",
    "model_type": "must be a section of `key: value` lines",
    "model_attributes_type": "must be a section of `key: value` lines",
    "path_type": "must be a path",
    "timezone_aware": "a time needs its zone: end it with Z for UTC, or with an offset such as +01:00",
    "finite_number": "must be a finite number",
    **dict.fromkeys(("too_short", "string_too_short"), "must not be empty"),
    **dict.fromkeys(
        ("url_type", "url_parsing", "url_syntax_violation", "url_too_long", "url_scheme"),
        "must be an address such as https://host.example/path",
    ),
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "datetime_object_invalid"),
        "must be a time such as 2013-03-01T00:00Z",
    ),
}
_LIMITS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}
_COLLECTIONS = (dict, list)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody who wrote `name` probably meant."""
    by_fold = {k.casefold(): k for k in known}
    found = get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found else None


def unknown(noun: str, name: str, known: Sequence[str]) -> str:
    """Say that a name is unknown, with the one that was probably meant or with all there are.

    Example:
        >>> unknown("key", "windw", ["window", "source"])
        'unknown key, did you mean `window`?'
        >>> unknown("receiver", "x", [])
        'unknown receiver (there are none)'
    """
    close = closest(name, known)
    if close is not None:
        return f"unknown {noun}, did you mean `{printable(close, 60)}`?"
    shown = ", ".join(printable(k, 60) for k in known[:20]) + (", ..." if len(known) > 20 else "")
    return f"unknown {noun} (known: {shown})" if known else f"unknown {noun} (there are none)"


def problems(
    error: ValidationError, document: Document, *, model: type[BaseModel] = Config, ignore: Sequence[str] = ()
) -> list[Problem]:
    """All that a validation found, in the order of the file, without what is known already.

    Args:
        error: of a validation of the document.
        document: the file.
        model: what it was validated as.
        ignore: pydantic's names of errors that are reported elsewhere.
    """
    return [
        _problem(detail, document, model)
        for detail in error.errors(include_url=False, include_input=False)
        if detail["type"] not in ignore
        and not document.is_refused(_untagged(detail["loc"], document))
        and not _is_echo(detail, document)
    ]


def _is_echo(detail: ErrorDetails, document: Document) -> bool:
    """Whether a list is said to be empty only because what is in it is wrong."""
    items = document.find(_untagged(detail["loc"], document))[0].items
    return detail["type"] == "too_short" and len(items) >= detail["ctx"]["min_length"]


_SECTIONS: Final = ("dict_type", "model_type", "model_attributes_type")
_EXAMPLES: Final = {"executor": '{type: dask, address: "tcp://host:8786"}'}
"""Section -> how to write it, where one word in its place is a likely mistake."""
_DEFAULT_TAGS: Final = {"source": "files", "executor": "threads"}
"""Section -> its type where none is written."""


def _untagged(location: Sequence[str | int], document: Document) -> list[str | int]:
    """A location without the tags of unions, which pydantic puts in and no file has."""
    found: list[str | int] = []
    tagged: list[str | int] | None = None  # the section whose tag was just left out
    for step in location:
        kind = document.find(found)[0].mapping.get("type")
        tag: object
        if found[-2:-1] == ["segments"]:
            tag = "values" if document.find(found)[0].mapping else "column"
        else:
            tag = kind.value if kind is not None else _DEFAULT_TAGS.get(str(found[-1])) if found else None
        if tag is not None and tag == step and found != tagged:
            tagged = list(found)
        else:
            found.append(step)
    return found


def _problem(detail: ErrorDetails, document: Document, model: type[BaseModel]) -> Problem:
    kind, location = detail["type"], _untagged(detail["loc"], document)
    if location and location[-1] == "[key]":
        location.pop()
        return document.problem(location, _sentence(detail, str(location[-1])), key=True)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        location.append("type")
        kind = "literal_error" if kind == "union_tag_invalid" else "missing"
    node = document.find(location)[0]
    if kind == "extra_forbidden":
        return document.problem(location, _unknown_key(location, detail["loc"][:-1], model), key=True)
    if kind == "missing":
        return document.problem(location, "is required but missing", key=True)
    if node.value is None and (kind in _TYPES or kind in _WRITERS):
        return document.problem(location, "has no value: give it one or remove the key", key=True)
    sentence = _sentence(detail, node.value)
    if kind in _SECTIONS and location and (example := _EXAMPLES.get(str(location[-1]))):
        sentence += f", such as `{example}`"
    return document.problem(location, sentence)


def _sentence(detail: ErrorDetails, value: object) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"{words} {_limit(context[name])}"
    if kind in _WRITERS:
        return _WRITERS[kind](context, value)
    # what no writer knows is said in pydantic's own words, without its preamble
    return _TYPES.get(kind) or detail["msg"].removeprefix("Input should be ").strip()


def _choice(context: dict[str, Any], value: object) -> str:
    choices = re.findall(r"'([^']*)'", context.get("expected") or context["expected_tags"])
    close = closest(value, choices) if isinstance(value, str) else None
    if len(choices) == 1:
        return f"must be {choices[0]}"
    return f"must be one of {', '.join(choices)}" + (f": did you mean `{close}`?" if close else "")


def _boolean(_: dict[str, Any], value: object) -> str:
    word = value.lower() if isinstance(value, str) else ""
    hint = f": write {'true' if word in ('yes', 'on') else 'false'}" if word in ("yes", "no", "on", "off") else ""
    return f"must be true or false{hint}"


def _text(_: dict[str, Any], value: object) -> str:
    return "must be text" if isinstance(value, _COLLECTIONS) else "must be text: put it in quotes"


_WRITERS: dict[str, Callable[[dict[str, Any], object], str]] = {
    "value_error": lambda context, _: str(context["error"]),
    "string_pattern_mismatch": lambda context, _: _PATTERNS.get(
        context["pattern"], f"must match the pattern {context['pattern']}"
    ),
    "literal_error": _choice,
    "union_tag_invalid": _choice,
    "bool_type": _boolean,
    "too_long": lambda context, _: f"must have {context['max_length']} items at most",
    "string_type": _text,
}


def _limit(value: object) -> str:
    if value in ("datetime.timedelta(0)", timedelta(0)):  # pydantic hands over the repr
        return "0s"
    if isinstance(value, int):
        return format_size(value) if value and value % 2**20 == 0 else f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unknown_key(location: list[str | int], section: Sequence[str | int], model: type[BaseModel]) -> str:
    """Say that a key is unknown; `section` is where it stands, in pydantic's words."""
    name, known = str(location[-1]), _known_keys(section, model)
    homes = [key for key in known if name in _known_keys([*section, key], model)]
    if homes and name not in known:
        return f"unknown key here: it belongs in `{dotted([*location[:-1], homes[0]])}`"
    return unknown("key", name, known)


def _known_keys(location: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """The keys that the section at a location may have; none where any name goes."""
    schema = _schema(model)
    nodes = [schema]
    for step in location:
        tagged = [node for node in nodes if node.get("properties", {}).get("type", {}).get("const") == step]
        if len(nodes) > 1 and tagged:  # the tag of a union, which pydantic puts in
            nodes = tagged
        else:
            nodes = [child for node in nodes for child in _children(node, step, schema)]
    return [key for node in nodes for key in node.get("properties", {})]


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _children(node: dict[str, Any], step: str | int, schema: dict[str, Any]) -> list[dict[str, Any]]:
    """What a step leads to; one that leads nowhere stays where it is."""
    if isinstance(step, int):
        found = [node["items"]] if isinstance(node.get("items"), dict) else []
    elif step in node.get("properties", {}):
        found = [node["properties"][step]]
    else:  # a mapping with names of the user's own
        named = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
        found = [child for child in named if isinstance(child, dict)]
    return [resolved for child in found for resolved in _resolved(child, schema)] or ([] if found else [node])


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _resolved(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    choices = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    return [resolved for choice in choices for resolved in _resolved(choice, schema)] if choices else [node]
