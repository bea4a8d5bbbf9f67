"""YAML text -> a small tree that knows the line and column of every key and value.

Only what a configuration needs is let in: one document of mappings, lists and scalars, typed by the core
schema of YAML 1.2 (so `no` is text, not false). Aliases are refused because 250 bytes of them can expand
to megabytes, tags and directives because they change what a value means.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError

from drift_monitor.config.problem import SHOWN, Location, Problem, dotted, printable, quoted

MAX_BYTES = 1_000_000
MAX_DEPTH = 20  # the deepest section of a real configuration is 6 down

_INT = re.compile(r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}

Scalar = str | int | float | bool | None


@dataclass
class Node:
    """A value of the document and where it begins.

    Attributes:
        value: a scalar, a mapping or a list; of children, not of plain values.
        text: a scalar as written.
        keys: of a mapping: where each key begins.
        refused: a problem was already reported for it, so nothing more should be said.
    """

    line: int
    column: int
    value: Scalar | dict[str, Node] | list[Node] = None
    text: str = ""
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: bool = False

    @property
    def mapping(self) -> dict[str, Node]:
        """The children of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The children of a list; none for anything else."""
        return self.value if isinstance(self.value, list) else []

    def data(self) -> object:
        """The plain value, ready for `json.dumps`."""
        if isinstance(self.value, dict):
            return {key: child.data() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.data() for child in self.value]
        return self.value

    def shown(self) -> str:
        """The value as an error message shows it: short and printable."""
        if isinstance(self.value, dict):
            return f"a section with {_count(len(self.value), 'key')}"
        if isinstance(self.value, list):
            return f"a list of {_count(len(self.value), 'item')}"
        if self.value is None:
            return "nothing"
        return printable(self.text, SHOWN) if not isinstance(self.value, str) else quoted(self.value)


@dataclass(frozen=True)
class Document:
    """A parsed file: its root and its name."""

    file: str
    root: Node

    def find(self, location: Location) -> tuple[Node, list[str | int], tuple[int, int]]:
        """Follow a location as far as the document has it.

        Args:
            location: keys and list indices; pydantic's own additions to it (the tag of a union) are skipped.

        Returns:
            The deepest node found, the location of that node, and where its key begins.
        """
        node, found, key_at = self.root, list[str | int](), (self.root.line, self.root.column)
        for step in location:
            if isinstance(node.value, dict) and step in node.value:
                name = str(step)
                key_at, node = node.keys[name], node.value[name]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                key_at = (node.line, node.column)
            else:
                continue
            found.append(step)
        return node, found, key_at

    def problem(self, location: Location, message: str, *, key: bool = False, warning: bool = False) -> Problem:
        """A problem with the setting at a location.

        Args:
            location: of the setting; when the document does not have it, of the closest section that it has.
            message: what is wrong.
            key: point at the key and show no value.
            warning: see `Problem`.
        """
        node, found, key_at = self.find(location)
        key = key or isinstance(node.value, dict) or len(found) < len(location)
        line, column = key_at if key else (node.line, node.column)
        got = "" if key else node.shown()
        return Problem(self.file, line, column, dotted(location), message, got, warning)

    def is_refused(self, location: Location) -> bool:
        """Whether a problem with this setting, or a section around it, is known already."""
        return any(self.find(location[:n])[0].refused for n in range(len(location) + 1))


def decode(raw: bytes, file: str) -> str | Problem:
    """Bytes of a file -> text, or what is wrong with them."""
    if len(raw) > MAX_BYTES:
        return Problem(
            file, 1, 1, "", f"the file has {len(raw):,} bytes; a configuration may have {MAX_BYTES:,} at most"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _place(raw[: error.start].decode("utf-8", "replace"))
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8"
        return Problem(file, line, column, "", message)


def compose(text: str, file: str) -> tuple[Document | None, list[Problem]]:
    """YAML text -> a document and the problems with its form.

    After a syntax error there is no document. After other problems (a duplicate key, an alias) there is
    one, with those places marked as refused, so that the rest of it can still be checked.
    """
    builder = _Builder(file)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            if not builder.take(event):
                return None, builder.problems
    except ReaderError as error:
        line, column = _place(text[: error.position])
        message = f"character U+{ord(text[error.position]):04X} is not allowed: remove it"
        return None, [*builder.problems, Problem(file, line, column, "", message)]
    except MarkedYAMLError as error:
        return None, [*builder.problems, _syntax_problem(error, file)]
    if builder.root is None:
        return None, [Problem(file, 1, 1, "", "the file is empty: `drift-monitor init TRAINING_FILE` writes one")]
    if not isinstance(builder.root.value, dict):
        node = builder.root
        message = "a configuration is a mapping of `key: value` lines"
        return None, [*builder.problems, Problem(file, node.line, node.column, "", message, node.shown())]
    return Document(file, builder.root), builder.problems


def _place(before: str) -> tuple[int, int]:
    lines = re.split(r"\r\n|\r|\n", before)
    return len(lines), len(lines[-1]) + 1


def _syntax_problem(error: MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    opened = error.context_mark.line + 1 if error.context_mark else 1
    problem = str(error.problem or error.context or "not YAML")
    hints = (
        ("character '\\t'", "a tab cannot indent or separate: use spaces"),
        ("mapping values are not allowed", "a second `:` on this line, or wrong indentation"),
        ("<block end>", "this line's indentation does not fit the lines above it"),
        ("could not find expected ':'", "a key without `:`; write `key: value`"),
        ("that cannot start any token", "this character cannot begin a value: put the value in quotes"),
        ("expected ',' or", f"the `[` or `{{` opened on line {opened} is not closed"),
        ("while scanning a quoted scalar", f"the quote opened on line {opened} is not closed"),
    )
    context = str(error.context or "")
    hint = next((text for sign, text in hints if sign in problem or sign in context), None)
    message = f"not valid YAML: {printable(problem, 120)}" + (f" ({hint})" if hint else "")
    return Problem(file, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, "", message)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


class _Builder:
    """Turns parser events into nodes without recursion, so that depth can be bounded."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._open: list[_Open] = []

    def take(self, event: Event) -> bool:
        """Add one event; False when nothing sensible can follow."""
        if isinstance(event, DocumentStartEvent):
            return self._start_document(event)
        if isinstance(event, CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, NodeEvent):
            if self._open and self._open[-1].wants_key:
                return self._key(event)
            return self._value(event)
        return True

    def _say(self, event: Event, location: Location, message: str, got: str = "") -> None:
        mark = event.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, dotted(location), message, got))

    def _start_document(self, event: DocumentStartEvent) -> bool:
        if self.root is not None:
            self._say(event, (), "a second document: a configuration is one document, remove this `---`")
            return False
        if event.version is not None or event.tags:
            self._say(event, (), "a `%` directive before `---`: remove it, the file is read as YAML 1.2")
        return True

    def _key(self, event: NodeEvent) -> bool:
        parent = self._open[-1]
        if not isinstance(event, ScalarEvent) or (event.value == "" and event.style is None):
            self._say(event, parent.location, "a key must be plain text")
            return False
        key, location = event.value, (*parent.location, event.value)
        self._check_form(event, location)
        if not _is_unicode(key):
            self._say(
                event, location, "a key holds half of a surrogate pair, which is not a character", quoted(key)
            )
            key = key.encode("unicode_escape", "surrogatepass").decode()
        if key in parent.node.keys:
            first = parent.node.keys[key][0]
            self._say(event, location, f"this key was given before, on line {first}: keep one of them")
        else:
            parent.node.keys[key] = (event.start_mark.line + 1, event.start_mark.column + 1)
        parent.key = key
        return True

    def _value(self, event: NodeEvent) -> bool:
        location = self._open[-1].next_location() if self._open else ()
        node = Node(event.start_mark.line + 1, event.start_mark.column + 1)
        node.refused = not self._check_form(event, location)
        if isinstance(event, ScalarEvent):
            self._scalar(event, location, node)
        elif isinstance(event, CollectionStartEvent):
            node.value = {} if isinstance(event, MappingStartEvent) else []
        if self._open:
            self._open[-1].attach(node)
        else:
            self.root = node
        if isinstance(event, CollectionStartEvent):
            if len(self._open) >= MAX_DEPTH:
                self._say(event, location, f"nested more than {MAX_DEPTH} deep")
                return False
            self._open.append(_Open(node, location))
        return True

    def _check_form(self, event: NodeEvent, location: Location) -> bool:
        known = len(self.problems)
        if event.anchor is not None:
            name = printable(event.anchor, SHOWN)
            is_alias = isinstance(event, AliasEvent)
            advice = f"write the value out instead of `*{name}`" if is_alias else f"remove `&{name}`"
            self._say(event, location, f"anchors and aliases are not allowed: {advice}")
        if getattr(event, "ctag", None) is not None:
            self._say(event, location, "tags (`!...`) are not allowed: remove it")
        return len(self.problems) == known

    def _scalar(self, event: ScalarEvent, location: Location, node: Node) -> None:
        node.text = node.value = event.value
        if not _is_unicode(event.value):
            self._say(event, location, "half of a surrogate pair, which is not a character", quoted(event.value))
            node.value, node.refused = "", True
        elif event.style is None and not node.refused:
            node.value = _typed(event.value)
            if isinstance(node.value, float) and not math.isfinite(node.value):
                self._say(event, location, "a number must be finite", printable(event.value, SHOWN))
                node.value, node.refused = None, True


@dataclass
class _Open:
    """A mapping or list whose end has not come yet."""

    node: Node
    location: Location
    key: str | None = None  # of a mapping: the key that waits for its value

    @property
    def wants_key(self) -> bool:
        return isinstance(self.node.value, dict) and self.key is None

    def next_location(self) -> Location:
        step = self.key if self.key is not None else len(self.node.items)
        return (*self.location, step)

    def attach(self, node: Node) -> None:
        if isinstance(self.node.value, list):
            self.node.value.append(node)
        elif self.key is not None:
            self.node.mapping.setdefault(self.key, node)  # of duplicate keys the first is checked
            self.key = None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _typed(text: str) -> Scalar:
    """A plain scalar by the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return math.inf if _NOT_FINITE.fullmatch(text) else text
