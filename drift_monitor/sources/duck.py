"""A DuckDB file, or whatever DuckDB itself can read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import pyarrow as pa

from drift_monitor.sources.extras import load
from drift_monitor.sources.parquet_files import BATCH_ROWS
from drift_monitor.sources.sql_text import quoted, select
from drift_monitor.sources.table_rows import Bounds, days


def open_duckdb(path: str) -> Callable[[], AbstractContextManager[Duck]]:
    """A way to open a DuckDB file.

    Args:
        path: of the file; empty for a database in memory, in which a query can read what DuckDB reads.
    """
    duckdb = load("duckdb", "sql")

    @contextmanager
    def connected() -> Iterator[Duck]:
        memory = not path
        with closing(
            duckdb.connect(path or ":memory:", read_only=not memory, config={"threads": "1"})
        ) as connection:
            yield Duck(connection)

    return connected


class Duck:
    """A connection to DuckDB."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def schema(self, relation: str) -> pa.Schema:
        """See `Database`."""
        found: pa.Schema = self._connection.sql(f"{select(relation, ['*'])} LIMIT 0").to_arrow_table().schema
        return found

    def run(self, text: str) -> Iterator[pa.RecordBatch]:
        """The rows of a statement's result."""
        yield from self._connection.sql(text).to_arrow_table().to_batches()

    def read(
        self, relation: str, schema: pa.Schema, timestamp: str | None, between: Bounds | None
    ) -> Iterator[pa.RecordBatch]:
        """See `Database`."""
        names = [quoted(name) for name in schema.names]
        if between is None or timestamp is None:
            rows = self._connection.sql(select(relation, names))
        else:
            values = days(between) if pa.types.is_date(schema.field(timestamp).type) else between
            rows = self._connection.sql(select(relation, names, timestamp, "??"), params=list(values))
        with closing(rows.to_arrow_reader(BATCH_ROWS)) as reader:
            yield from reader
