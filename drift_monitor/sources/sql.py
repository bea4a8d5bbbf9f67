"""A database: a table, a view or a query, whose rows come as Arrow batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from secrets import token_bytes
from typing import Final, Protocol

import pyarrow as pa

from drift_monitor.config.tables import SqlSource, scheme, table_parts, without_password
from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources.adbc import open_driver, open_postgres
from drift_monitor.sources.duck import open_duckdb
from drift_monitor.sources.explained import Explained
from drift_monitor.sources.lite import open_sqlite
from drift_monitor.sources.parquet_files import Footer, micros
from drift_monitor.sources.secrets import Secrets
from drift_monitor.sources.sql_text import quoted
from drift_monitor.sources.table_rows import Bounds, bounds, check_columns, finished, is_time

_ALIAS: Final = "drift_monitor_rows"


@dataclass(frozen=True)
class SqlSplit:
    """The rows of a window: a database reads them as one.

    Attributes:
        window: of event time; None for all rows.
        rows: not known before they are read.
        identity: of a bucket that is read once: of the rows' place, of the columns, and of the time.
    """

    window: Window | None
    rows: int | None = None
    identity: bytes = b""


class Database(Protocol):
    """A connection that is being used."""

    def schema(self, relation: str) -> pa.Schema:
        """The columns of a relation, with the types that `read` gives them."""

    def read(
        self, relation: str, schema: pa.Schema, timestamp: str | None, between: Bounds | None
    ) -> Iterator[pa.RecordBatch]:
        """Rows of a relation.

        Args:
            relation: what to put after FROM.
            schema: the columns to read, a part of what `schema` returns.
            timestamp: the column that `between` is about.
            between: only rows at or after the first of them and before the second.
        """


def open_sql(config: SqlSource, kinds: Mapping[str, Kind]) -> Sql:
    """A source over a database; no connection is made before something is asked.

    Args:
        config: which rows.
        kinds: kinds of the features, by which SQLite's values are read.

    Raises:
        SourceError: a variable, the password's file or a library is missing.
    """
    if config.pushdown is not None:
        from drift_monitor.sources.pushdown import PushedSql  # noqa: PLC0415 - it is a source of this kind

        return PushedSql(config, kinds)
    return Sql(config, kinds) if config.lateness is None else SettledSql(config, kinds)


class Sql:
    """Source over a database."""

    def __init__(self, config: SqlSource, kinds: Mapping[str, Kind]) -> None:
        self._config = config
        self._secrets = Secrets()
        uri = self._secrets.uri(config.uri, config.password_file)
        self._where = _described(config, uri)
        self._explained = Explained(self._where, self._secrets)
        self._relation = _relation(config)
        self._place = without_password(uri)
        with self._explained:
            self._connect = self._connector(uri, dict(kinds))

    def columns(self, window: Window | None = None, only: Collection[str] | None = None) -> pa.Schema:  # noqa: ARG002
        """See `Source`. A table has the same columns in every window."""
        schema = self._flat.schema
        check_columns(schema, schema.names, self._where)
        return schema

    def splits(self, window: Window | None) -> Sequence[SqlSplit]:
        """See `Source`."""
        return [SqlSplit(window)]

    def batches(self, split: SqlSplit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Source`. The database leaves out rows outside the window, and in a window those without a time."""
        timestamp, timezone = self._config.timestamp, self._config.timezone
        names = list(dict.fromkeys([*columns, *([timestamp] if timestamp is not None else [])]))
        flat = self._flat
        check_columns(flat.schema, names, self._where)
        between = None
        if timestamp is not None and flat.is_stored(timestamp):
            between = bounds(split.window, flat.schema.field(timestamp).type, timezone)
        part = pa.schema([self._stored.field(root) for root in flat.roots(names)])
        with self._explained, self._connect() as database:
            rows = database.read(self._relation, part, timestamp, between)
            yield from finished(rows, flat, names, timestamp, timezone, split.window, timed=bool(split.identity))

    @cached_property
    def _stored(self) -> pa.Schema:
        """As it was at the first look."""
        with self._explained, self._connect() as database:
            return database.schema(self._relation)

    @cached_property
    def _flat(self) -> Flat:
        return Flat(self._stored)

    def _connector(self, uri: str, kinds: dict[str, Kind]) -> Callable[[], AbstractContextManager[Database]]:
        config = self._config
        if config.driver is not None:
            return open_driver(config.driver, uri, self._secrets.options(config.options))
        found, path = scheme(uri), uri.partition("://")[2]
        if found == "duckdb":
            return open_duckdb(path)
        if found == "sqlite":
            return open_sqlite(path, kinds, config.timestamp, config.timezone)
        if found in ("postgresql", "postgres"):
            return open_postgres(uri)
        raise SourceError("the uri begins with none of postgresql://, duckdb:// and sqlite://")


class SettledSql(Sql):
    """A database whose rows of long ago are taken to change no more: `lateness` says when."""

    def __init__(self, config: SqlSource, kinds: Mapping[str, Kind]) -> None:
        super().__init__(config, kinds)
        self._settled = datetime.now(UTC) - (config.lateness or timedelta(0))
        self._salt = token_bytes(16)
        self.known: Mapping[bytes, Footer] = {}
        self.footers: dict[bytes, Footer] = {}

    def units(self, window: Window, columns: Sequence[str], bucket: timedelta) -> Sequence[SqlSplit]:
        """See `Remembered`. A part is a bucket; one that may still change is another at every look.

        Raises:
            SchemaError: the database does not understand the times, so it cannot be asked for a bucket.
        """
        config, schema = self._config, self._flat.schema
        check_columns(schema, [config.timestamp or ""], self._where)
        dtype = schema.field(config.timestamp).type
        inside = "" if self._flat.is_stored(config.timestamp or "") else " within a struct"
        if inside or not is_time(dtype):
            raise SchemaError(
                f"{self._where}: `lateness` needs times, and {config.timestamp!r} is {dtype}{inside}: cast it in "
                "a `query`"
            )
        meaning = [(name, str(schema.field(name).type)) for name in sorted(columns) if name in schema.names]
        place = (
            self._place,
            config.driver,
            sorted(config.options.items()),
            self._relation,
            config.lateness,
            meaning,
        )
        text = repr(place).encode("utf-8", "surrogatepass")
        found, start = [], window.start
        while start < window.end:
            end = start + bucket
            salt = b"" if end <= self._settled else self._salt
            identity = hashlib.sha256(text + repr((start, end)).encode() + salt).digest()
            found.append(SqlSplit(Window(start=start, end=end), identity=identity))
            start = end
        return found

    def joined(self, units: Sequence[SqlSplit], most: int) -> Iterator[tuple[SqlSplit, Mapping[int, SqlSplit]]]:
        """Neighbours as one statement, so that a table without an index is not searched for each of them.

        Args:
            units: buckets in the order of time.
            most: of them in one statement.

        Returns:
            What to read, and the units in it by the start of their buckets, in microseconds since 1970.
        """
        left = [unit.window for unit in units if unit.window is not None]
        by_start = {window.start: unit for window, unit in zip(left, units, strict=True)}
        while left:
            n = 1
            while n < min(most, len(left)) and left[n - 1].end == left[n].start:
                n += 1
            run, left = left[:n], left[n:]
            whole = replace(by_start[run[0].start], window=Window(start=run[0].start, end=run[-1].end))
            yield whole, {micros(window)[0]: by_start[window.start] for window in run}


def _described(config: SqlSource, uri: str) -> str:
    """The rows and where they are, without user, password and options."""
    head, colon, rest = uri.partition("://")
    place = f"{head}://{rest.partition('?')[0].rpartition('@')[2]}" if colon else "the database"
    return f"{f'table {config.table}' if config.table is not None else 'the query'} of {place}"


def _relation(config: SqlSource) -> str:
    if config.query is not None:
        # on lines of its own, so that a comment at its end does not swallow the parenthesis
        return f"(\n{config.query.rstrip().rstrip(';')}\n) AS {_ALIAS}"
    relation = ".".join(quoted(part) for part in table_parts(config.table or "") or ())
    if config.sample is None:
        return relation
    # the same pages at every look, so that a check that is repeated says the same
    return f"{relation} TABLESAMPLE SYSTEM ({config.sample!r}) REPEATABLE (0)"
