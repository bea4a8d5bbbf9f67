"""What each field means, in the words that stand beside it in the code: for editors and for the documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args

from pydantic import BaseModel

from drift_monitor.config.models import Config
from drift_monitor.core.policy import format_duration

SIZE_PATTERN = r"^[0-9]+(\.[0-9]{1,3})? ?(KB|MB|GB|KiB|MiB|GiB)$"
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.+(?:\n {8}.+)*)", re.MULTILINE)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Field -> what it means, from its `description` or from the `Attributes:` of the class.

    Example:
        >>> from drift_monitor.core.types import StatResult
        >>> descriptions(StatResult)["statistic"]
        'larger is always further apart.'
    """
    _, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("\nAttributes:\n")
    found = {
        name: " ".join(text.split()) for names, text in _ENTRY.findall(attributes) for name in names.split(", ")
    }
    found |= {name: field.description for name, field in model.model_fields.items() if field.description}
    return {name: found[name] for name in model.model_fields if name in found}


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model and every model inside it, each once, in the order in which they appear."""
    seen: dict[type[BaseModel], None] = {}
    waiting = [model]
    while waiting:
        section = waiting.pop(0)
        if section in seen:
            continue
        seen[section] = None
        yield section
        for field in section.model_fields.values():
            waiting += [part for part in _parts(field.annotation) if part not in seen]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the configuration file: every key with its meaning, and defaults as one writes them."""
    schema = Config.model_json_schema()
    for section in sections(Config):
        own = definition(schema, section)
        meanings = descriptions(section)
        for name, field in section.model_fields.items():
            prop = own["properties"][name]
            if name in meanings:
                prop.setdefault("description", meanings[name])
            if isinstance(field.default, timedelta):
                prop["default"] = format_duration(field.default)
            elif prop.get("type") == "string" and isinstance(field.default, int):
                prop |= {"default": format_size(field.default), "pattern": SIZE_PATTERN}
            for part in _inside(prop):
                if part.get("type") == "string":
                    for keyword in ("gt", "ge"):  # pydantic's own, of the value that the text stands for
                        part.pop(keyword, None)
                    if "pattern" in part:
                        part["pattern"] = f"^{part['pattern'].removeprefix('^').removesuffix('$')}$"
    short = {"type": "string", "pattern": "^[0-9]+ of [0-9]+$"}
    schema["$defs"]["Persistence"] = {"anyOf": [short, schema["$defs"]["Persistence"]]}
    return {
        **schema,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "drift-monitor configuration",
    }


def _inside(prop: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A property, its alternatives, and the items of its lists."""
    yield prop
    for part in (*prop.get("anyOf", ()), *([prop["items"]] if "items" in prop else ())):
        yield from _inside(part)


def definition(schema: dict[str, Any], section: type[BaseModel]) -> dict[str, Any]:
    """The part of a schema that lists a section's keys."""
    found: dict[str, Any] = schema["$defs"].get(section.__name__, schema)
    return found["anyOf"][-1] if "anyOf" in found else found


def format_size(value: int) -> str:
    """Write bytes the way a config file does.

    Example:
        >>> format_size(2 * 2**30)
        '2GiB'
    """
    unit, name = (2**30, "GiB") if value % 2**30 == 0 else (2**20, "MiB")
    return f"{value / unit:g}{name}"


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)
