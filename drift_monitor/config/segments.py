"""Slices of the rows that are watched by themselves. No I/O."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Discriminator, Field, Tag

MOST_SEGMENTS = 20
"""Of one column."""


def _as_text(value: object) -> object:
    """A category as results name it: `true` and `7` are values of columns of truth values and whole numbers."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


SegmentValue = Annotated[str, BeforeValidator(_as_text)]


Segments = Annotated[
    Annotated[str, Tag("column")]
    | Annotated[
        dict[str, Annotated[tuple[SegmentValue, ...], Field(min_length=1, max_length=MOST_SEGMENTS)]],
        Tag("values"),
    ],
    Discriminator(lambda item: "values" if isinstance(item, dict) else "column"),
]


def segmented(items: tuple[Segments, ...]) -> list[tuple[str, tuple[str, ...] | None]]:
    """Columns with their values; None for those that are frequent."""
    sections = [{item: None} if isinstance(item, str) else item for item in items]
    return [(column, values) for section in sections for column, values in section.items()]


def all_different(items: tuple[Segments, ...]) -> tuple[Segments, ...]:
    """The same, if no column and no value of one is named twice."""
    if not all(items):
        raise ValueError("has an item that names no column")
    seen: set[str] = set()
    for column, values in segmented(items):
        if column in seen or len(set(values or ())) < len(values or ()):
            raise ValueError(f"names {column!r} or one of its values twice")
        seen.add(column)
    return items
