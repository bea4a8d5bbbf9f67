"""A SQLite file, by Python's own library.

SQLite has no types but those of each value, no times, and no NaN. What a column was declared as says how it is
read; where nothing was declared, as in a query's expressions, the reference's kind does, or else the first value.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.types import Kind
from drift_monitor.sources.event_time import UTC_TYPE, to_utc
from drift_monitor.sources.sql_text import quoted, select
from drift_monitor.sources.table_rows import Bounds

_ROWS: Final = 1 << 14  # as Python's objects they take ten times what they take in Arrow
_FARTHEST: Final = timedelta(hours=14)  # no clock on Earth is farther from UTC
_VIEW: Final = "drift_monitor_rows"
_DECLARED: Final = (
    (("BOOL",), pa.bool_()),
    (("DATE", "TIME"), UTC_TYPE),
    (("INT",), pa.int64()),
    (("CHAR", "CLOB", "TEXT", "UUID"), pa.string()),
    (("REAL", "FLOA", "DOUB", "DEC", "NUM"), pa.float64()),
)
_KINDS: Final[Mapping[Kind, pa.DataType]] = {
    "numeric": pa.float64(),
    "boolean": pa.bool_(),
    "categorical": pa.string(),
    "datetime": UTC_TYPE,
}
_READ_AS: Final[Mapping[tuple[Kind | None, pa.DataType], pa.DataType]] = {
    ("datetime", pa.string()): UTC_TYPE,
    ("numeric", pa.int64()): pa.float64(),  # an INT column may hold 1.5
}
_FIRST: Final = {"integer": pa.int64(), "real": pa.float64(), "text": pa.string(), "blob": pa.binary()}
_NAMES: Final = {
    pa.bool_(): "true or false (1 or 0)",
    pa.int64(): "a whole number",
    pa.float64(): "a number",
    pa.string(): "text",
    UTC_TYPE: "a time as text, YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS",
    pa.binary(): "bytes",
}


def open_sqlite(
    path: str, kinds: Mapping[str, Kind], timestamp: str | None, timezone: str
) -> Callable[[], AbstractContextManager[Lite]]:
    """A way to open a SQLite file.

    Args:
        path: of the file.
        kinds: of the reference's features.
        timestamp: the column of event times.
        timezone: of times that carry none.
    """

    @contextmanager
    def connected() -> Iterator[Lite]:
        if not Path(path).is_file():  # SQLite says the same of every file that it cannot open
            raise SourceError(f"there is no file {path!r}")
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            yield Lite(connection, kinds, timestamp, timezone)

    return connected


class Lite:
    """A connection to SQLite."""

    def __init__(
        self, connection: sqlite3.Connection, kinds: Mapping[str, Kind], timestamp: str | None, timezone: str
    ) -> None:
        self._connection, self._kinds = connection, kinds
        self._timestamp, self._timezone = timestamp, timezone

    def schema(self, relation: str) -> pa.Schema:
        """See `Database`."""
        self._connection.execute(f"CREATE TEMP VIEW {_VIEW} AS {select(relation, ['*'])}")
        with closing(self._connection.execute(f"PRAGMA temp.table_info({_VIEW})")) as rows:
            declared = [(str(row[1]), str(row[2]).upper()) for row in rows]
        schema = pa.schema([(name, self._type(name, words)) for name, words in declared])
        self._connection.execute(f"DROP VIEW temp.{_VIEW}")
        return schema

    def read(
        self, relation: str, schema: pa.Schema, timestamp: str | None, between: Bounds | None
    ) -> Iterator[pa.RecordBatch]:
        """See `Database`. A window is asked for by days, since texts with other offsets are in another order."""
        names = [quoted(name) for name in schema.names]
        values: tuple[str, ...] = ()
        if between is not None:
            first, last = (between[0] - _FARTHEST).date(), (between[1] + _FARTHEST).date()
            values = (first.isoformat(), (last + timedelta(days=1)).isoformat())
        text = select(relation, names, timestamp, "??" if values else None)
        with closing(self._connection.execute(text, values)) as cursor:
            while rows := cursor.fetchmany(_ROWS):
                columns = [self._array(v, f) for v, f in zip(zip(*rows, strict=True), schema, strict=True)]
                yield pa.RecordBatch.from_arrays(columns, names=schema.names)

    def _type(self, name: str, words: str) -> pa.DataType:
        if name == self._timestamp:
            self._refuse_numbers(name)
            return UTC_TYPE
        kind = self._kinds.get(name)
        for parts, dtype in _DECLARED:
            if any(part in words for part in parts):
                return _READ_AS.get((kind, dtype), dtype)
        if kind is not None:
            return _KINDS[kind]
        return _FIRST.get(self._first(name), pa.null())

    def _first(self, name: str) -> str:
        """SQLite's name of the type of a column's first value."""
        column = quoted(name)
        text = f"SELECT typeof({column}) FROM {_VIEW} WHERE {column} IS NOT NULL LIMIT 1"  # noqa: S608 - quoted
        with closing(self._connection.execute(text)) as rows:
            return str(next(rows, ("null",))[0])

    def _refuse_numbers(self, name: str) -> None:
        found = _FIRST.get(self._first(name), pa.null())
        if not pa.types.is_string(found):
            to_utc(pa.nulls(0, found), name, self._timezone)

    def _array(self, values: Sequence[Any], field: pa.Field) -> pa.Array:
        convert = _CONVERT.get(field.type)
        try:
            if field.type == UTC_TYPE:
                return to_utc(pa.array(values, pa.string()), field.name, self._timezone)
            if convert is not None:
                values = [None if value is None else convert(value) for value in values]
            return pa.array(values, field.type)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            bad = next((value for value in values if not self._fits(value, field)), None)
            raise SchemaError(f"column {field.name!r}: {bad!r:.100} is not {_NAMES[field.type]}") from error

    def _fits(self, value: Any, field: pa.Field) -> bool:
        try:
            pa.array([_CONVERT.get(field.type, lambda v: v)(value)], _STORED.get(field.type, field.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return value is None
        return True


def _number(value: Any) -> float:
    if isinstance(value, str) and "_" in value:  # which Python would take for 1000 in 1_000
        raise ValueError(value)
    return float(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int) and not (isinstance(value, float) and value.is_integer()):
        raise ValueError(value)
    return int(value)


def _truth(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError(value)
    return bool(value)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


_CONVERT: Final[Mapping[pa.DataType, Callable[[Any], Any]]] = {
    pa.float64(): _number,
    pa.int64(): _whole,
    pa.bool_(): _truth,
    pa.string(): _text,
}
_STORED: Final = {UTC_TYPE: pa.string()}
