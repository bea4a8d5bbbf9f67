"""A Delta Lake table, as it is when it is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from drift_monitor.config.tables import DeltaSource
from drift_monitor.core.arrow import as_arrow, as_numpy
from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import SourceError
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources.explained import Explained
from drift_monitor.sources.extras import load
from drift_monitor.sources.parquet_files import BATCH_ROWS, UNIT_ROWS, Footer, footer_of
from drift_monitor.sources.secrets import Secrets
from drift_monitor.sources.table_rows import BATCH_BYTES, bounds, check_columns, days, finished, is_time

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_LOGGED: Final = ("path", "size_bytes", "num_records", "modification_time")
_VECTORS: Final = "deletionVectors"
_HINTS: Final = {
    "columnMapping": "read the table by a query of DuckDB (delta_scan)",
}


@dataclass(frozen=True)
class DeltaSplit:
    """One file of a version of the table, or some of its row groups.

    Attributes:
        version: of the table.
        path: of the file, below the table.
        size: in bytes.
        rows: in it; None when the log does not say.
        window: rows outside it are left out.
        row_groups: which; None for all.
        identity: of a part that is read once: of the file, which is never changed, and of what its columns mean.
    """

    version: int
    path: str
    size: int
    rows: int | None
    window: Window | None
    row_groups: tuple[int, ...] | None = None
    identity: bytes = b""


def open_delta(config: DeltaSource, kinds: Mapping[str, Kind]) -> Delta:  # noqa: ARG001 - the table has types
    """A source over a Delta table; its newest version is found now.

    Raises:
        SourceError: there is no table, it cannot be read, or its rows need a feature that is not supported.
    """
    return Delta(config)


class Delta:
    """Source over one version of a Delta table."""

    def __init__(self, config: DeltaSource) -> None:
        self._config = config
        self._secrets = Secrets()
        self._where = f"Delta table {config.path!r}"
        self.known: Mapping[bytes, Footer] = {}
        self.footers: dict[bytes, Footer] = {}
        library = load("deltalake", "delta")
        path, options = self._secrets.fill(config.path), self._secrets.options(config.storage_options)
        self._explained = Explained(self._where, self._secrets, _HINTS)
        with self._explained:
            self._table = _readable(library)(path, storage_options=options)
            self.version: int = self._table.version()

    def columns(self, window: Window | None = None, only: Collection[str] | None = None) -> pa.Schema:  # noqa: ARG002
        """See `Source`. A version has the same columns in every window."""
        schema = self._flat.schema
        check_columns(schema, schema.names, self._where)
        return schema

    def splits(self, window: Window | None) -> Sequence[DeltaSplit]:
        """See `Source`. Files are pruned by the times and the partitions in the table's log."""
        with self._explained:
            fragments = list(self._dataset.get_fragments(filter=self._filter(window)))
        paths = sorted(fragment.path for fragment in fragments)
        log = self._log
        return [
            DeltaSplit(self.version, path, log[path]["size_bytes"], log[path]["num_records"], window)
            for path in paths
        ]

    def units(self, window: Window, columns: Sequence[str], bucket: timedelta) -> Sequence[DeltaSplit]:  # noqa: ARG002
        """See `Remembered`. Files of many rows are cut by their row groups, from footers that are read once."""
        schema = self._flat.schema
        meaning = [(name, str(schema.field(name).type)) for name in sorted(columns) if name in schema.names]
        with self._explained:
            table = self._table.metadata().id
        found = []
        for split in self.splits(window):
            entry = self._log[split.path]
            values = {name: value for name, value in entry.items() if name.startswith("partition.")}
            facts = (table, split.path, split.size, entry["modification_time"], values)
            deleted = self._deleted.get(split.path)
            file = repr(facts if deleted is None else (*facts, _hash(deleted.tobytes())))
            whole = replace(split, window=None)
            if split.rows is not None and split.rows <= UNIT_ROWS:
                found.append(replace(whole, identity=_hash(file, meaning)))
                continue
            footer = self._footer(split.path, file)
            rows = max(1, footer.rows(range(len(footer.row_groups))))
            for run in footer.runs(window):
                part = replace(whole, row_groups=run, rows=footer.rows(run), identity=_hash(file, meaning, run))
                found.append(replace(part, size=split.size * footer.rows(run) // rows))
        return found

    def batches(self, split: DeltaSplit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Source`. In a window, rows without an event time are left out by the table, and so in a unit."""
        timestamp = self._config.timestamp
        names = list(dict.fromkeys([*columns, *([timestamp] if timestamp is not None else [])]))
        check_columns(self._flat.schema, names, self._where)
        if split.version != self.version:
            raise SourceError(f"{self._where} is at version {self.version} now, and was at {split.version}")
        rows = self._read(split, names)
        itself = bool(split.identity) or (split.window is not None and split.path in self._deleted)
        timed = itself and timestamp is not None and self._is_asked_for(timestamp)
        yield from finished(rows, self._flat, names, timestamp, self._config.timezone, split.window, timed=timed)

    def _read(self, split: DeltaSplit, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.dataset as ds  # noqa: PLC0415

        width = split.size / split.rows if split.rows else 1
        with self._explained:
            fragment = self._fragments[split.path]
            deleted, kept = self._deleted.get(split.path), None
            if deleted is not None:  # it is of the file's rows by their places, so none may be left out before
                kept = _of_row_groups(deleted, fragment, split.row_groups)
            if split.row_groups is not None:
                fragment = fragment.subset(row_group_ids=list(split.row_groups))
            scanner = fragment.scanner(
                schema=self._dataset.schema,
                columns=self._flat.roots(names),
                filter=self._filter(split.window) if kept is None else None,
                batch_size=int(min(max(BATCH_BYTES / max(width, 1), 1024), BATCH_ROWS)),
                batch_readahead=1,
                fragment_readahead=1,
                use_threads=False,
                fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=False),
            )
            if kept is None:
                yield from scanner.to_batches()
                return
            at = 0
            for batch in scanner.to_batches():
                yield batch.filter(as_arrow(kept[at : at + batch.num_rows]))
                at += batch.num_rows

    def _filter(self, window: Window | None) -> ds.Expression | None:
        import pyarrow.dataset as ds  # noqa: PLC0415

        name = self._config.timestamp
        if name is None or not self._is_asked_for(name):
            return None
        dtype = self._dataset.schema.field(name).type
        between: Sequence[Any] | None = bounds(window, dtype, self._config.timezone)
        if between is None:
            return None
        if pa.types.is_date(dtype):
            between = days((between[0], between[1]))
        low, high = (pa.scalar(value, dtype) for value in between)
        return (ds.field(name) >= low) & (ds.field(name) < high)

    def _is_asked_for(self, timestamp: str) -> bool:
        """Whether the table itself can leave out rows by this column."""
        return self._flat.is_stored(timestamp) and is_time(self._flat.schema.field(timestamp).type)

    @cached_property
    def _flat(self) -> Flat:
        return Flat(self._dataset.schema)

    @cached_property
    def _dataset(self) -> ds.Dataset:
        with self._explained:
            return self._table.to_pyarrow_dataset()

    @cached_property
    def _fragments(self) -> dict[str, ds.Fragment]:
        return {fragment.path: fragment for fragment in self._dataset.get_fragments()}

    @cached_property
    def _deleted(self) -> dict[str, npt.NDArray[np.uint8]]:
        """By path of each file that has a deletion vector: which of its rows are deleted, packed into bits."""
        if _VECTORS not in self._table.features:
            return {}
        deleted = dict[str, npt.NDArray[np.uint8]]()
        with self._explained:
            for batch in pa.RecordBatchReader.from_stream(self._table.deletion_vectors()):
                rows = batch.column("selection_vector")
                places = as_numpy(rows.offsets).tolist()
                for uri, (first, last) in zip(batch.column("filepath").to_pylist(), pairwise(places), strict=True):
                    path = unquote(uri.removeprefix(self._table.table_uri))
                    deleted[path] = np.packbits(~as_numpy(rows.values.slice(first, last - first)))
        if strange := sorted(deleted.keys() - self._log.keys()):
            raise SourceError(f"{self._where} has a deletion vector for {strange[0]!r}, which is no file of it")
        return deleted

    @cached_property
    def _log(self) -> dict[str, dict[str, Any]]:
        """What the log says of each file, by its path."""
        with self._explained:
            rows = pa.table(self._table.get_add_actions(flatten=True))
            names = [n for n in rows.column_names if n in _LOGGED or n.startswith("partition.")]
            return {unquote(row["path"]): row for row in rows.select(names).to_pylist()}  # the log escapes them

    def _footer(self, path: str, file: str) -> Footer:
        timestamp, timezone = self._config.timestamp, self._config.timezone
        key = _hash(file, (timestamp, timezone))
        if key not in self.footers:
            with self._explained:
                fragment = self._fragments[path]
                self.footers[key] = self.known.get(key) or footer_of(
                    fragment.metadata, fragment.physical_schema, timestamp, timezone
                )
        return self.footers[key]


def _hash(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()


def _readable(library: Any) -> Any:
    """The library's table, which gives its files also where rows of them are deleted: `Delta` leaves those out."""

    class Table(library.DeltaTable):  # type: ignore[misc]  # it is known at run time
        @property
        def features(self) -> Sequence[str]:
            """What a reader of the table has to know."""
            return super().protocol().reader_features or ()

        def protocol(self) -> Any:
            found = super().protocol()
            others = [each for each in self.features if each != _VECTORS]
            return found if found.reader_features is None else found._replace(reader_features=others)

    return Table


def _of_row_groups(
    deleted: npt.NDArray[np.uint8], fragment: Any, row_groups: Sequence[int] | None
) -> npt.NDArray[np.bool_]:
    """Which rows of some row groups of a file are there, of all of them where none are named."""
    ends = np.cumsum([group.num_rows for group in fragment.row_groups])
    whole: npt.NDArray[np.bool_] = np.unpackbits(deleted, count=int(ends[-1])) == 0  # rows past its end are there
    if row_groups is None:
        return whole
    parts = np.split(whole, ends[:-1])
    return np.concatenate([parts[i] for i in row_groups])
