"""PostgreSQL, and every database for which there is an ADBC driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.sources.extras import load
from drift_monitor.sources.sql_text import quoted, select
from drift_monitor.sources.table_rows import Bounds, days

_DEADLINE: Final = "connect_timeout=10"
"""In which PostgreSQL has to answer, where the uri does not say; else a silent firewall holds a check up."""
_SETTINGS: Final = {
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "repeatable read",  # all statements of a connection see the same rows
    "TimeZone": "UTC",
}
_SESSION: Final = "SELECT " + ", ".join(f"set_config('{name}', '{to}', false)" for name, to in _SETTINGS.items())
_KIND: Final = b"kind"
_NUMBER, _TEXT = {_KIND: b"number"}, {_KIND: b"text"}


def open_postgres(uri: str) -> Callable[[], AbstractContextManager[Postgres]]:
    """A way to connect to PostgreSQL.

    Args:
        uri: of libpq.
    """
    dbapi = load("adbc_driver_postgresql.dbapi", "sql")
    if "connect_timeout=" not in uri:
        uri += ("&" if "?" in uri else "?") + _DEADLINE

    @contextmanager
    def connected() -> Iterator[Postgres]:
        with closing(dbapi.connect(uri)) as connection:
            with closing(connection.cursor()) as cursor:
                cursor.execute(_SESSION)
                cursor.fetchall()
            connection.commit()
            yield Postgres(connection)

    return connected


def open_driver(name: str, uri: str, options: dict[str, str]) -> Callable[[], AbstractContextManager[Driver]]:
    """A way to connect through an ADBC driver.

    Args:
        name: of the driver, such as `snowflake`, or the path of its shared library.
        uri: what it takes as `uri`.
        options: what else it takes, by name.
    """
    dbapi = load("adbc_driver_manager.dbapi", "sql")
    package = f"adbc_driver_{name}"
    found = name.isidentifier() and find_spec(package) is not None
    path = import_module(package)._driver_path() if found else name  # noqa: SLF001 - how the drivers are found

    @contextmanager
    def connected() -> Iterator[Driver]:
        try:
            connection = dbapi.connect(driver=path, db_kwargs={"uri": uri, **options}, autocommit=True)
        except dbapi.Error as error:
            if found or "NOT_FOUND" not in str(error):
                raise
            raise SourceError(
                f"there is no ADBC driver {name!r}: `pip install adbc-driver-{name}`, or name its library's path"
            ) from error
        with closing(connection):
            yield Driver(connection)

    return connected


class Driver:
    """A connection through ADBC."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def schema(self, relation: str) -> pa.Schema:
        """See `Database`."""
        dbapi = load("adbc_driver_manager.dbapi", "sql")
        with closing(self._connection.cursor()) as cursor:
            try:
                found = cursor.adbc_execute_schema(select(relation, ["*"]))
            except dbapi.NotSupportedError:  # the first rows say it
                cursor.execute(select(relation, ["*"]))
                with closing(cursor.fetch_record_batch()) as reader:
                    found = reader.schema
        return pa.schema([pa.field(f.name, _storage(f.type)) for f in found])

    def read(
        self, relation: str, schema: pa.Schema, timestamp: str | None, between: Bounds | None
    ) -> Iterator[pa.RecordBatch]:
        """See `Database`."""
        text = select(relation, [quoted(n) for n in schema.names], timestamp, None if between is None else "??")
        values = None
        if between is not None and timestamp is not None:
            values = list(days(between) if pa.types.is_date(schema.field(timestamp).type) else between)
        yield from self.run(text, values)

    def run(self, text: str, values: list[Any] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of a statement's result."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(text, values)
            with closing(cursor.fetch_record_batch()) as reader:
                for batch in reader:
                    columns = [c.storage if isinstance(c.type, pa.BaseExtensionType) else c for c in batch.columns]
                    yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


class Postgres(Driver):
    """A connection to PostgreSQL."""

    def schema(self, relation: str) -> pa.Schema:
        """See `Database`. Numbers of any precision are read as float64, and what Arrow has no type for as text."""
        with closing(self._connection.cursor()) as cursor:
            return pa.schema([_read_as(f) for f in cursor.adbc_execute_schema(select(relation, ["*"]))])

    def read(
        self, relation: str, schema: pa.Schema, timestamp: str | None, between: Bounds | None
    ) -> Iterator[pa.RecordBatch]:
        """See `Database`."""
        texts = [
            f"{quoted(f.name)}::text AS {quoted(f.name)}" if f.metadata == _TEXT else quoted(f.name)
            for f in schema
        ]
        # not bound: the driver streams a statement without parameters and holds the result of one with them
        literals = None if between is None else [f"'{t.isoformat(' ')}'::{_cast(t.tzinfo)}" for t in between]
        for batch in self.run(select(relation, texts, timestamp, literals)):
            columns = [
                _floats(column, field.name) if field.metadata == _NUMBER else column
                for column, field in zip(batch.columns, schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, names=schema.names)


def _cast(zone: object) -> str:
    return "timestamp" if zone is None else "timestamptz"


def _storage(dtype: pa.DataType) -> pa.DataType:
    return dtype.storage_type if isinstance(dtype, pa.BaseExtensionType) else dtype


def _read_as(field: pa.Field) -> pa.Field:
    if not isinstance(field.type, pa.BaseExtensionType):
        return pa.field(field.name, field.type)
    if getattr(field.type, "type_name", "") == "numeric":
        return pa.field(field.name, pa.float64(), metadata=_NUMBER)
    return pa.field(field.name, pa.string(), metadata=_TEXT)


def _floats(texts: pa.Array, name: str) -> pa.Array:
    try:
        return pc.cast(texts, pa.float64())
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column {name!r} holds a number that is none here: {error}") from error
