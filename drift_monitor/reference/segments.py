"""Which rows of the training data are watched by themselves: the segments of a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from drift_monitor.config.segments import MOST_SEGMENTS
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.fold import category_counts, segment_rows
from drift_monitor.core.profile import Ints
from drift_monitor.core.types import Kind, Segment
from drift_monitor.reference.manifest import Feature, Manifest, Segmented
from drift_monitor.reference.rows import Rows

LEAST_ROWS: Final = 1000
"""Training rows that a segment needs: fewer do not tell what is usual."""
MOST_FEATURES: Final = 1000
"""Features that all segments of a reference have at most, 8 kB each in every profile that is kept."""
EDGES: Final = 250
"""Quantile edges of a numeric feature of a segment: alarms look at 200 cells."""
_NAMED: Final = 5


@dataclass(frozen=True, eq=False)
class Slice:
    """A segment's rows.

    Attributes:
        segment: which.
        rows: their places in the training data, rising.
    """

    segment: Segment
    rows: Ints


def choose(
    asked: Mapping[str, Sequence[str] | None], features: Sequence[Feature], rows: Rows
) -> tuple[list[Slice], list[Segmented], list[str]]:
    """Find the segments that are asked for.

    Args:
        asked: values by column; None for those that have `LEAST_ROWS`, the most frequent `MOST_SEGMENTS` of them.
        features: the columns that are watched.
        rows: the training data.

    Returns:
        The segments with their rows, what the manifest says of them, and sentences about what was left out.

    Raises:
        BadReferenceError: a column or a value cannot be had; all are named.
    """
    kinds = {feature.name: feature.kind for feature in features}
    slices: list[Slice] = []
    told: list[Segmented] = []
    warnings: list[str] = []
    problems: list[str] = []
    for name, values in asked.items():
        if why := unfit(name, kinds, rows.schema.names):
            problems.append(f"{name!r} {why}")
            continue
        column = rows.column(name, categorical=True)
        counts = category_counts(column)
        if values is None:
            ordered = sorted(counts, key=lambda value: (-counts[value], value))
            chosen = [value for value in ordered if counts[value] >= LEAST_ROWS][:MOST_SEGMENTS]
            if not chosen:
                problems.append(f"no value of {name!r} has {LEAST_ROWS:,} training rows: take it out")
            elif left := ordered[len(chosen) :]:
                warnings.append(
                    f"segments of {name!r}: {_listed(left)} left out: a segment needs {LEAST_ROWS:,} training "
                    f"rows, and a column has {MOST_SEGMENTS} segments at most"
                )
        else:
            chosen = list(values)
            problems += [_rare(name, value, counts) for value in chosen if counts.get(value, 0) < LEAST_ROWS]
        slices += [
            Slice(Segment(column=name, value=value), found)
            for value, found in zip(chosen, segment_rows(column, chosen), strict=True)
        ]
        told.append(
            Segmented(column=name, frequent=values is None, rows={value: counts.get(value, 0) for value in chosen})
        )
    many = sum(sum(name != each.segment.column for name in kinds) for each in slices)
    if many > MOST_FEATURES:
        problems.append(
            f"{len(slices)} segments of {len(kinds)} columns make {many:,} features, {MOST_FEATURES:,} are the "
            "most: name fewer values, or fewer columns in columns.features"
        )
    if problems:
        raise BadReferenceError("no reference can be built: segments: " + "; ".join(problems))
    return slices, told, warnings


def free_name(name: str, taken: set[str]) -> str:
    """A name that nothing has, noted in `taken`: a column may be called like a segment's feature."""
    while name in taken:
        name += "~"
    taken.add(name)
    return name


def unfit(name: str, kinds: Mapping[str, Kind], columns: Sequence[str]) -> str | None:
    """Why a column has no segments; None when it may have some.

    Args:
        name: of the column.
        kinds: of the columns that are watched.
        columns: of the training data.
    """
    kind = kinds.get(name)
    if kind in {"categorical", "boolean"}:
        return None
    if kind is not None:
        return f"is {kind}, and segments are values of a categorical column: see columns.kinds if it has names"
    if name in columns:
        return "is not watched, but the share of each segment has to be: see columns.ignore and columns.features"
    close = get_close_matches(name, columns, n=1)
    return "is no column of the training data" + (f"; did you mean {close[0]!r}?" if close else "")


def refuse_unbuilt(asked: Mapping[str, Sequence[str] | None], manifest: Manifest) -> None:
    """See to it that a version has the segments that are asked for.

    Args:
        asked: values by column, None for the frequent ones.
        manifest: of the version.

    Raises:
        BadReferenceError: it was built without some.
    """
    built = {each.column: each for each in manifest.segments}
    for column, values in asked.items():
        there = built.get(column)
        if there is None or not (there.frequent if values is None else there.rows.keys() >= set(values)):
            raise BadReferenceError(
                f"reference {manifest.version} was built without the segments of {column!r} that the monitor has: "
                "build a new version of it with `drift-monitor reference build`"
            )


def _rare(name: str, value: str, counts: Mapping[str, int]) -> str:
    segment = Segment(column=name, value=value)
    if value in counts:
        return f"{segment} has {counts[value]:,} training rows, {LEAST_ROWS:,} are needed: take it out"
    close = get_close_matches(value, counts, n=1)
    return f"{segment} has no training rows" + (f"; did you mean {close[0]!r}?" if close else "")


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - _NAMED:,} more are" if len(values) > _NAMED else " are" if values[1:] else " is"
    return ", ".join(repr(value) for value in values[:_NAMED]) + more
