"""SQL that we write: names are quoted, values are bound or written by us from times."""

from __future__ import annotations

from collections.abc import Sequence


def quoted(name: str) -> str:
    """An identifier as SQL writes any.

    Example:
        >>> print(quoted('say "hi"; drop'))
        "say ""hi""; drop"
    """
    return '"' + name.replace('"', '""') + '"'


def select(
    relation: str, expressions: Sequence[str], timestamp: str | None = None, between: Sequence[str] | None = None
) -> str:
    """A SELECT.

    Args:
        relation: what to put after FROM.
        expressions: what to select.
        timestamp: the column of event time.
        between: two expressions: rows at or after the first and before the second.

    Example:
        >>> select('"t"', ['"a"'], "at", ["?", "?"])
        'SELECT "a" FROM "t" WHERE "at" >= ? AND "at" < ?'
    """
    text = f"SELECT {', '.join(expressions)} FROM {relation}"  # noqa: S608 - of quoted names and of the configuration
    if timestamp is None or between is None:
        return text
    name = quoted(timestamp)
    return f"{text} WHERE {name} >= {between[0]} AND {name} < {between[1]}"
