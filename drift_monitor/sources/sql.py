"""A database: a table, a view or a query, whose rows come as Arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import pyarrow as pa

from drift_monitor.config.tables import SqlSource, scheme, table_parts
from drift_monitor.core.errors import SourceError
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources.adbc import open_driver, open_postgres
from drift_monitor.sources.duck import open_duckdb
from drift_monitor.sources.explained import Explained
from drift_monitor.sources.lite import open_sqlite
from drift_monitor.sources.secrets import Secrets
from drift_monitor.sources.sql_text import quoted
from drift_monitor.sources.table_rows import Bounds, bounds, check_columns, finished

_ALIAS: Final = "drift_monitor_rows"


@dataclass(frozen=True)
class SqlSplit:
    """The rows of a window: a database reads them as one.

    Attributes:
        window: of event time; None for all rows.
        rows: not known before they are read.
    """

    window: Window | None
    rows: int | None = None


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
    return Sql(config, kinds)


class Sql:
    """Source over a database."""

    def __init__(self, config: SqlSource, kinds: Mapping[str, Kind]) -> None:
        self._config = config
        self._secrets = Secrets()
        uri = self._secrets.uri(config.uri, config.password_file)
        self._where = _described(config, uri)
        self._explained = Explained(self._where, self._secrets)
        self._relation = _relation(config)
        with self._explained:
            self._connect = self._connector(uri, dict(kinds))

    def columns(self, window: Window | None = None, only: Collection[str] | None = None) -> pa.Schema:  # noqa: ARG002
        """See `Source`. A table has the same columns in every window."""
        check_columns(self._schema, self._schema.names, self._where)
        return self._schema

    def splits(self, window: Window | None) -> Sequence[SqlSplit]:
        """See `Source`."""
        return [SqlSplit(window)]

    def batches(self, split: SqlSplit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Source`. The database leaves out rows outside the window, and in a window those without a time."""
        timestamp, timezone = self._config.timestamp, self._config.timezone
        names = list(dict.fromkeys([*columns, *([timestamp] if timestamp is not None else [])]))
        schema = self._schema
        check_columns(schema, names, self._where)
        part = pa.schema([schema.field(name) for name in names])
        between = None
        if timestamp is not None:
            between = bounds(split.window, schema.field(timestamp).type, timezone)
        with self._explained, self._connect() as database:
            rows = database.read(self._relation, part, timestamp, between)
            yield from finished(rows, names, timestamp, timezone, split.window)

    @cached_property
    def _schema(self) -> pa.Schema:
        """As it was at the first look."""
        with self._explained, self._connect() as database:
            return database.schema(self._relation)

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
