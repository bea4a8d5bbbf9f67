"""An Iceberg table, as it is when it is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import pyarrow as pa

from drift_monitor.config.tables import IcebergSource
from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import SourceError
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources.explained import Explained
from drift_monitor.sources.extras import load
from drift_monitor.sources.parquet_files import Footer
from drift_monitor.sources.secrets import Secrets
from drift_monitor.sources.table_rows import bounds, check_columns, days, finished, is_time


@dataclass(frozen=True)
class IcebergSplit:
    """One data file of a snapshot of the table.

    Attributes:
        snapshot: of the table.
        path: of the file.
        rows: in it, before deletes.
        window: rows outside it are left out, unless the whole file is read once.
        identity: of a file that is read once: of it, of what was deleted from it, and of what its columns mean.
    """

    snapshot: int
    path: str
    rows: int
    window: Window | None
    identity: bytes = b""


def open_iceberg(config: IcebergSource, kinds: Mapping[str, Kind]) -> Iceberg:  # noqa: ARG001 - the table has types
    """A source over an Iceberg table; its current snapshot is found now.

    Raises:
        SourceError: there is no catalogue or table, or it cannot be read.
    """
    return Iceberg(config)


class Iceberg:
    """Source over one snapshot of an Iceberg table."""

    def __init__(self, config: IcebergSource) -> None:
        self._config = config
        self._secrets = Secrets()
        self._where = f"Iceberg table {config.table!r}"
        catalogs = load("pyiceberg.catalog", "iceberg")
        properties = {name: self._secrets.uri(value) for name, value in config.catalog.items()}
        self._explained = Explained(self._where, self._secrets)
        with self._explained:
            self._table = catalogs.load_catalog(config.name, **properties).load_table(config.table)
            current = self._table.current_snapshot()
        self.snapshot: int | None = None if current is None else current.snapshot_id
        self.known: Mapping[bytes, Footer] = {}
        self.footers: dict[bytes, Footer] = {}
        self._plan: tuple[Window | None, Sequence[Any]] | None = None

    def columns(self, window: Window | None = None, only: Collection[str] | None = None) -> pa.Schema:  # noqa: ARG002
        """See `Source`. A snapshot has the same columns in every window."""
        return self._flat.schema

    def splits(self, window: Window | None) -> Sequence[IcebergSplit]:
        """See `Source`. Files are pruned by the partitions and the times in the table's manifests."""
        if self.snapshot is None:
            return []
        found = [
            IcebergSplit(self.snapshot, task.file.file_path, task.file.record_count, window)
            for task in self._tasks(window)
        ]
        return sorted(found, key=lambda split: split.path)

    def units(self, window: Window, columns: Sequence[str], bucket: timedelta) -> Sequence[IcebergSplit]:  # noqa: ARG002
        """See `Remembered`. A data file is read whole, less what the snapshot's delete files take from it."""
        if self.snapshot is None:
            return []
        roots = self._flat.roots([name for name in columns if name in self._flat.schema.names])
        with self._explained:
            metadata = self._table.metadata
            meaning = [
                (field.name, field.field_id, str(field.field_type), field.required, repr(field.initial_default))
                for field in sorted(self._table.schema().fields, key=lambda field: str(field.name))
                if field.name in roots
            ]
            mapping = metadata.name_mapping()
        found = []
        for task in self._tasks(window):
            file = task.file
            deleted = sorted((d.file_path, d.file_size_in_bytes, d.record_count) for d in task.delete_files)
            origin = (file.file_path, file.file_size_in_bytes, file.spec_id, str(file.partition))
            text = repr((str(metadata.table_uuid), origin, deleted, meaning, mapping))
            identity = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            found.append(IcebergSplit(self.snapshot, file.file_path, file.record_count, window, identity))
        return sorted(found, key=lambda split: split.path)

    def batches(self, split: IcebergSplit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Source`. In a window, rows without an event time are left out by the table, and so in a unit."""
        timestamp = self._config.timestamp
        names = list(dict.fromkeys([*columns, *([timestamp] if timestamp is not None else [])]))
        check_columns(self._flat.schema, names, self._where)
        if split.snapshot != self.snapshot:
            raise SourceError(f"{self._where} is at snapshot {self.snapshot} now, and was at {split.snapshot}")
        once = bool(split.identity)
        yield from finished(
            self._read(split, self._flat.roots(names)),
            self._flat,
            names,
            timestamp,
            self._config.timezone,
            None if once else split.window,
            timed=once and timestamp is not None and self._is_asked_for(timestamp),
        )

    def _read(self, split: IcebergSplit, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        arrow = load("pyiceberg.io.pyarrow", "iceberg")
        task = next(task for task in self._tasks(split.window) if task.file.file_path == split.path)
        with self._explained:
            scan = self._scan(None if split.identity else split.window, tuple(names))
            reader = arrow.ArrowScan(scan.table_metadata, scan.io, scan.projection(), scan.row_filter)
            if task.delete_files:
                yield from reader.to_record_batches([task])
            else:  # the public method has all the rows of a file in memory at once
                yield from reader._record_batches_from_scan_tasks_and_deletes([task], {})  # noqa: SLF001

    def _tasks(self, window: Window | None) -> Sequence[Any]:
        """The plan of a window; the newest is kept, since its splits are read one after another."""
        if self._plan is None or self._plan[0] != window:
            with self._explained:
                self._plan = window, list(self._scan(window, ("*",)).plan_files())
        return self._plan[1]

    def _scan(self, window: Window | None, names: tuple[str, ...]) -> Any:
        # of the snapshot that was current when the table was loaded; naming it would mean the columns of its time
        return self._table.scan(row_filter=self._filter(window), selected_fields=names)

    def _filter(self, window: Window | None) -> Any:
        expressions = load("pyiceberg.expressions", "iceberg")
        name = self._config.timestamp
        if name is None or not self._is_asked_for(name):
            return expressions.AlwaysTrue()
        dtype = self._flat.schema.field(name).type
        between: Sequence[Any] | None = bounds(window, dtype, self._config.timezone)
        if between is None:
            return expressions.AlwaysTrue()
        if pa.types.is_date(dtype):
            between = days((between[0], between[1]))
        low, high = (value.isoformat() for value in between)
        return expressions.And(expressions.GreaterThanOrEqual(name, low), expressions.LessThan(name, high))

    def _is_asked_for(self, timestamp: str) -> bool:
        """Whether the table itself can leave out rows by this column."""
        return self._flat.is_stored(timestamp) and is_time(self._flat.schema.field(timestamp).type)

    @cached_property
    def _flat(self) -> Flat:
        with self._explained:
            found = self._table.schema().as_arrow()
        return Flat(pa.schema([pa.field(field.name, field.type) for field in found]))
