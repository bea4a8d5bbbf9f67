"""Which columns the rows of a monitor have in its spool, and as what: the same in each of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pyarrow as pa

from drift_monitor.config.intake import SpooledSource
from drift_monitor.core.types import Kind, Value
from drift_monitor.sources.event_time import UTC_TYPE

TYPES: Final[dict[Kind, pa.DataType]] = {
    "numeric": pa.float64(),
    "categorical": pa.string(),
    "boolean": pa.bool_(),
    "datetime": UTC_TYPE,
}


class LiveColumn(Value):
    """A column that is kept.

    Attributes:
        feature: whether the model reads it, so that it may come in a list without names.
        path: where it may lie in a row instead, such as `payload`, `age`; see `core.columns`.
    """

    name: str
    kind: Kind
    feature: bool = False
    path: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """Of the vector that lies there; empty where it is no vector's."""
        return self.name[len(".".join(self.path)) + 1 :] if self.path else ""


@dataclass(frozen=True)
class Layout:
    """The columns of a spool.

    Attributes:
        columns: without the timestamp.
        timestamp, timezone, arrival: as configured.
        positions: names of the values in a list without names.
    """

    columns: tuple[LiveColumn, ...]
    timestamp: str
    timezone: str = "UTC"
    arrival: bool = False
    positions: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: SpooledSource, columns: Sequence[LiveColumn]) -> Layout:
        """The layout of a configured source."""
        features = dict.fromkeys(".".join(c.path) if c.part else c.name for c in columns if c.feature)
        named = getattr(source, "positions", ()) or tuple(features)
        kept = tuple(c for c in columns if c.name != source.timestamp)
        return cls(kept, source.timestamp, source.timezone, source.arrival, named)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns as Arrow types, the event time first."""
        fields = [pa.field(c.name, TYPES[c.kind]) for c in self.columns]
        return pa.schema([pa.field(self.timestamp, UTC_TYPE), *fields])

    @cached_property
    def nested(self) -> dict[str, LiveColumn]:
        """The columns that may also come within another, by name."""
        return {c.name: c for c in self.columns if c.path}

    @cached_property
    def vectors(self) -> frozenset[str]:
        """Names of the vectors of which parts are kept."""
        return frozenset(".".join(c.path) for c in self.columns if c.part)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """Column -> kind, the timestamp first."""
        return {self.timestamp: "datetime", **{c.name: c.kind for c in self.columns}}
