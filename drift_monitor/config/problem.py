"""One thing that is wrong with a configuration, where, and how it is shown to people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 60  # characters of a value in a message
Location = Sequence[str | int]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, with its place.

    Attributes:
        file: as the user named it.
        line, column: counted from 1.
        path: of the setting, such as `monitors.flights.alarm.alpha`; empty for the whole file.
        message: what is wrong and what would be right.
        got: the value as people should see it; empty when there is none to show.
        warning: a warning does not make the configuration unusable.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    got: str = ""
    warning: bool = False

    def __str__(self) -> str:
        parts = [f"{printable(self.file, 4096)}:{self.line}:{self.column}", self.path, self.message]
        return ": ".join(p for p in parts if p) + (f" (got {self.got})" if self.got else "")


def printable(text: str, limit: int) -> str:
    """Escape what a terminal or a log must not see, and cut.

    Example:
        >>> printable("bell" + chr(7), 12) == "bell" + chr(92) + "x07", printable("abcdef", 4)
        (True, 'abcd...')
    """
    cut = text[:limit] + "..." if len(text) > limit else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)


def quoted(text: str) -> str:
    """A text value in single quotes, short and printable."""
    return f"'{printable(text, SHOWN)}'"


def dotted(location: Location) -> str:
    """Write a location the way people read it.

    Example:
        >>> dotted(("monitors", "flights.v2", "maintenance", 0, "end"))
        'monitors."flights.v2".maintenance[0].end'
    """
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
            continue
        plain = re.fullmatch(r"[\w-]+", step) is not None
        text += ("." if text else "") + (printable(step, SHOWN) if plain else f'"{printable(step, SHOWN)}"')
    return text
