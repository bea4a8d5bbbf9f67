"""`${data.retraining.id}` and the like: places in a template that a value is put into. Pure.

A text that is one placeholder becomes the value itself, whatever its type; in a longer text the value becomes part
of the text. A value is only ever put in: nothing in it is read as a placeholder, and JSON, paths and headers are
escaped by whoever writes them (`render`, `render_text`).

    ${data.summary}                 a value of the event; a missing one is an error
    ${data.training.url?}           ... or nothing: a key or an item that is nothing is left out
    ${data.episode.closed or now}   the second where the first is missing or null
    ${data.summary|cut 900}         through a filter, or several; nothing passes all of them
    $${                             the characters ${
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

At = tuple[str | int, ...]  # where in the template

_TOKEN = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_EXPRESSION = re.compile(
    r"\s*(?P<path>\w[\w.-]*)(?:\s+or\s+(?P<otherwise>\w[\w.-]*))?\s*(?P<optional>\?)?\s*(?P<filters>(?:\|[^|]*)*)"
)


class PlaceholderError(ValueError):
    """A placeholder that cannot be read, or for which there is no value.

    Attributes:
        at: where it stands in the template.
    """

    def __init__(self, message: str, at: At = ()) -> None:
        super().__init__(message)
        self.at = at


class _Nothing:
    """What an optional placeholder without a value becomes."""


NOTHING: Final = _Nothing()


@dataclass(frozen=True)
class Placeholder:
    """One placeholder, read.

    Attributes:
        written: as in the template.
        path: steps from a named value inwards.
        otherwise: the path that is taken where the first has no value.
        optional: no value at all is no error.
        filters: name and arguments of each, in order.
    """

    written: str
    path: tuple[str, ...]
    otherwise: tuple[str, ...] = ()
    optional: bool = False
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Every path that it may take."""
        return (self.path, self.otherwise) if self.otherwise else (self.path,)

    def value(self, values: Mapping[str, object]) -> object:
        """What it stands for; NOTHING where it is optional and there is nothing.

        Raises:
            PlaceholderError: there is no such value, or a filter cannot take it.
        """
        found = next((v for path in self.paths if (v := look_up(values, path)) not in (None, NOTHING)), NOTHING)
        if found is NOTHING and not self.optional:
            found = look_up(values, self.paths[-1])
            if found is NOTHING:
                where = " or ".join(".".join(path) for path in self.paths)
                raise PlaceholderError(f"there is no {where}: write `{where}?` if that is no mistake")
        for name, arguments in self.filters if found is not NOTHING else ():
            try:
                found = _FILTERS[name].apply(found, arguments)
            except ValueError as error:
                raise PlaceholderError(f"`{self.written}`: {error}") from None
        return found


Parts = tuple[str | Placeholder, ...]


def parse(text: str) -> Parts:
    """Read a text of a template.

    Raises:
        PlaceholderError: a placeholder in it is not well formed.

    Example:
        >>> [part if isinstance(part, str) else part.path for part in parse("drift__${data.retraining.id}")]
        ['drift__', ('data', 'retraining', 'id')]
        >>> parse("costs $5, or $${5}")
        ('costs $5, or ${5}',)
    """
    parts: list[str | Placeholder] = []
    done = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[done : token.start()])
        done = token.end()
        if token[0] == "$${":
            parts.append("${")
        elif token[1] is None:
            raise PlaceholderError("`${` without its `}`: close it, or write `$${` for these characters")
        else:
            parts.append(_placeholder(token[0], token[1]))
    parts.append(text[done:])
    joined: list[str | Placeholder] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return tuple(joined)


def _placeholder(written: str, inside: str) -> Placeholder:
    match = _EXPRESSION.fullmatch(inside)
    if match is None:
        raise PlaceholderError(f"`{written}` is not a placeholder such as `${{data.summary|cut 900}}`")
    filters = []
    for text in match["filters"].split("|")[1:]:
        name, *arguments = text.split() or [""]
        if name not in _FILTERS:
            raise PlaceholderError(f"`{written}`: unknown filter {name!r} (known: {', '.join(_FILTERS)})")
        if not _FILTERS[name].accepts(arguments):
            raise PlaceholderError(f"`{written}`: the filter is written `{_FILTERS[name].usage}`")
        filters.append((name, tuple(arguments)))
    return Placeholder(
        written,
        tuple(match["path"].split(".")),
        tuple(match["otherwise"].split(".")) if match["otherwise"] else (),
        match["optional"] is not None,
        tuple(filters),
    )


def look_up(values: object, path: Sequence[str]) -> object:
    """Follow a path into mappings and, by numbers, into lists; NOTHING where it leads nowhere."""
    for step in path:
        if isinstance(values, Mapping) and step in values:
            values = values[step]
        elif isinstance(values, list) and step.isdecimal() and int(step) < len(values):
            values = values[int(step)]
        else:
            return NOTHING
    return values


def placeholders(template: object, at: At = ()) -> Iterator[tuple[At, Placeholder]]:
    """Every placeholder in a value of a template, with its place.

    Raises:
        PlaceholderError: one is not well formed.
    """
    if isinstance(template, str):
        try:
            yield from ((at, part) for part in parse(template) if isinstance(part, Placeholder))
        except PlaceholderError as error:
            raise PlaceholderError(str(error), at) from None
    for step, child in _children(template):
        yield from placeholders(child, (*at, step))


def render(template: object, values: Mapping[str, object], at: At = ()) -> object:
    """A value of a template with all placeholders filled in; NOTHING where it is one without a value.

    Args:
        template: text, or mappings and lists of it; other values stay as they are.
        values: by the first step of a path.
        at: where the value stands, for errors.

    Raises:
        PlaceholderError: a placeholder is not well formed or has no value.

    Example:
        >>> render({"run": "drift__${id}", "rows": "${rows}", "note": "${note?}"}, {"id": "a1", "rows": 3})
        {'run': 'drift__a1', 'rows': 3}
    """
    if isinstance(template, str):
        try:
            parts = parse(template)
            if len(parts) == 1 and isinstance(parts[0], Placeholder):
                return parts[0].value(values)
            return "".join(_filled(part, values, str) for part in parts)
        except PlaceholderError as error:
            raise PlaceholderError(str(error), at) from None
    filled = [(step, render(child, values, (*at, step))) for step, child in _children(template)]
    if isinstance(template, Mapping):
        return {step: value for step, value in filled if value is not NOTHING}
    if isinstance(template, list | tuple):
        return [value for _, value in filled if value is not NOTHING]
    return template


def render_text(text: str, values: Mapping[str, object], quote: Callable[[str], str], at: At = ()) -> str:
    """A text with its placeholders filled in, each value escaped by `quote`; what the template says itself is not.

    Raises:
        PlaceholderError: a placeholder is not well formed or has no value.
    """
    try:
        return "".join(_filled(part, values, quote) for part in parse(text))
    except PlaceholderError as error:
        raise PlaceholderError(str(error), at) from None


def as_text(value: object) -> str:
    """Text as it is; no value and null as the empty text; everything else as JSON writes it.

    Example:
        >>> as_text("a"), as_text(None), as_text(True), as_text({"n": 1})
        ('a', '', 'true', '{"n":1}')
    """
    if value is None or value is NOTHING:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _children(template: object) -> list[tuple[str | int, object]]:
    if isinstance(template, Mapping):
        return list(template.items())
    return list(enumerate(template)) if isinstance(template, list | tuple) else []


def _filled(part: str | Placeholder, values: Mapping[str, object], quote: Callable[[str], str]) -> str:
    if isinstance(part, str):
        return part
    value = part.value(values)
    if value is None:
        raise PlaceholderError(f"`{part.written}` is null, which is no text: end the path with `?` if it may be")
    return quote(as_text(value))


@dataclass(frozen=True)
class _Filter:
    usage: str
    accepts: Callable[[Sequence[str]], bool]
    apply: Callable[[object, tuple[str, ...]], str | object]


def _cut(value: object, arguments: tuple[str, ...]) -> object:
    return as_text(value)[: int(arguments[0])]


def _pairs(value: object, arguments: tuple[str, ...]) -> object:
    if not isinstance(value, Mapping):
        raise PlaceholderError(f"`pairs` takes a mapping, got {type(value).__name__}")
    name, content = arguments
    return [{name: key, content: each} for key, each in value.items()]


def _map(value: object, arguments: tuple[str, ...]) -> object:
    for argument in arguments:
        pattern, _, meaning = argument.partition("=")
        if fnmatchcase(as_text(value), pattern):
            return meaning
    return value


_FILTERS = {
    "text": _Filter("text", lambda a: not a, lambda value, _: as_text(value)),
    "cut": _Filter("cut CHARACTERS", lambda a: len(a) == 1 and a[0].isdecimal() and a[0].isascii(), _cut),
    "pairs": _Filter("pairs NAME VALUE", lambda a: len(a) == 2, _pairs),
    "map": _Filter("map PATTERN=TEXT ...", lambda a: bool(a) and all("=" in each for each in a), _map),
}
