"""What each field means, in the words that stand beside it in the code: for editors and for the documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from drift_monitor.config.models import Config

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
    """The JSON Schema of the configuration file, every key with its meaning."""
    schema = Config.model_json_schema()
    for section in sections(Config):
        properties = (schema if section is Config else schema["$defs"][section.__name__])["properties"]
        for name, text in descriptions(section).items():
            properties[name].setdefault("description", text)
    return {
        **schema,
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "drift-monitor configuration",
    }


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)
