"""Files on disk or in a bucket: a path, a folder or a glob of Parquet, CSV and JSONL; hive folders as columns."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from secrets import token_bytes
from typing import Final
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from drift_monitor.config.sources import FilesSource
from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing
from drift_monitor.core.columns import Flat, is_text
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.types import Kind, Window
from drift_monitor.sources import captures, parquet_files, text_files
from drift_monitor.sources.event_time import UTC_TYPE, to_utc
from drift_monitor.sources.object_store import SCHEME, ObjectStore
from drift_monitor.sources.places import DISK, ENDINGS, Format, Place, Status, ending
from drift_monitor.sources.row_groups import choose, rows_in

SPLIT_ROWS: Final = 1_000_000
"""Rows of a split: row groups of a Parquet file are put together up to it."""
_LABELS: Final = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class FileSplit:
    """A part of one file.

    Attributes:
        path: of the file.
        form: its format.
        size, changed, inode: bytes, modification time (ns) and inode when the source was opened; a file that is
            not the same when it is read is refused.
        window: rows outside it are left out.
        row_groups: which, for Parquet.
        rows: in them; None for text.
        partition: columns that the folder names give, with their values.
        salt: of a file that may be written again without a sign of it; so nothing that is known of it counts.
    """

    path: str
    form: Format
    size: int
    changed: int
    inode: int
    window: Window | None = None
    row_groups: tuple[int, ...] = ()
    rows: int | None = None
    partition: tuple[tuple[str, str | int | None], ...] = ()
    salt: bytes = b""

    @property
    def file(self) -> bytes:
        """A hash that another file, or the same one rewritten, does not have."""
        text = "\0".join((self.form, str(self.size), str(self.changed), str(self.inode), self.path))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    @property
    def identity(self) -> bytes:
        """The same for the rows of the split, whatever the window."""
        return hashlib.sha256(self.file + self.salt + repr((self.row_groups, self.partition)).encode()).digest()


def open_files(config: FilesSource, kinds: Mapping[str, Kind]) -> Files:
    """A source over files.

    Args:
        config: which files, and which column holds the event time.
        kinds: kinds of the features, by which text is read.

    Raises:
        SourceError: nothing is there; a path that leads nowhere is no empty window.
    """
    return Files(config, kinds)


class Files:
    """Source over files; it lists them once, when it is opened.

    Args:
        config: which files.
        kinds: of columns, by which text is read.
        sizes: just these files, of which text is read up to so many bytes; None for all that are found.
        nested: whether structs and vectors are taken apart.
    """

    def __init__(
        self,
        config: FilesSource,
        kinds: Mapping[str, Kind],
        sizes: Mapping[str, int] | None = None,
        *,
        nested: bool = True,
    ) -> None:
        self._config, self._nested = config, nested
        self._kinds = dict(kinds)
        if config.timestamp is not None:
            self._kinds[config.timestamp] = "datetime"
        self._place = _place(config)
        self._naming = captures.Naming.of(config)
        self._flats: dict[str, Flat] = {}
        self._distinct: list[tuple[pa.Schema, tuple[tuple[str, pa.DataType], ...], Flat]] = []
        self.known: Mapping[bytes, parquet_files.Footer] = {}
        self.footers: dict[bytes, parquet_files.Footer] = {}
        if sizes is None:
            found = self._place.find(config.path)
            self._files = {path: self._split(path, status) for path, status in found.items()}
        else:
            self._files = {path: replace(self._split(path), size=size) for path, size in sizes.items()}

    @property
    def paths(self) -> list[str]:
        """The files, in order."""
        return list(self._files)

    def only(self, sizes: Mapping[str, int]) -> Files:
        """The same source with just these files, of which text is read up to so many bytes."""
        return Files(self._config, self._kinds, sizes, nested=self._nested)

    def whole(self) -> Files:
        """The same source with its columns as they are stored: structs and vectors are not taken apart."""
        return Files(self._config, self._kinds, self.sizes, nested=False)

    def typed(self, kinds: Mapping[str, Kind]) -> Files:
        """The same source, with these kinds by which text is read."""
        return Files(self._config, kinds, self.sizes, nested=self._nested)

    def at(self, path: str) -> Files:
        """The same source with one Parquet file instead."""
        config = self._config.model_copy(update={"path": path, "format": "parquet"})
        return Files(config, {}, nested=self._nested)

    def flats(self) -> list[Flat]:
        """How each file's columns are named and made."""
        return [self._flat(path) for path in self._files]

    @property
    def sizes(self) -> dict[str, int]:
        """Path -> bytes that are read."""
        return {path: file.size for path, file in self._files.items()}

    @property
    def formats(self) -> dict[str, Format]:
        """Path -> format."""
        return {path: file.form for path, file in self._files.items()}

    def columns(self, window: Window | None = None, only: Collection[str] | None = None) -> pa.Schema:
        """See `Source`. Where no file may hold rows of the window, the last file's columns."""
        found = self.splits(window) or list(self._files.values())[-1:]
        first, *others = dict.fromkeys(split.path for split in found)
        merged = {f.name: f for f in self._schema(first)}
        for path in others:
            schema = self._schema(path)
            if schema.equals(self._schema(first)):
                continue
            for name in list(dict.fromkeys([*merged, *schema.names])):
                if only is not None and name not in only:
                    merged[name] = merged.get(name) or schema.field(name)
                    continue
                if name not in merged or schema.get_field_index(name) < 0:
                    there, lacking = (path, first) if name not in merged else (first, path)
                    raise SchemaError(
                        f"column {name!r} is in {there!r} ({self._schema(there).field(name).type}) but not in "
                        f"{lacking!r}: the files of a window need the same columns"
                    )
                common = _common(merged[name].type, schema.field(name).type)
                if common is None:
                    raise SchemaError(
                        f"column {name!r} is {schema.field(name).type} in {path!r} but {merged[name].type} in "
                        f"{first!r}: the files of a window need the same types"
                    )
                merged[name] = pa.field(name, common)
        return pa.schema(list(merged.values()))

    def splits(self, window: Window | None) -> Sequence[FileSplit]:
        """See `Source`. Parquet is pruned by the times in its footers; text has none and is read whole."""
        found, chosen = list[FileSplit](), self._chosen(window)
        for file in self._files.values():
            if file.form == "parquet":
                found += self._parquet_splits(file, window, None if chosen is None else chosen[file.file])
            elif file.size or file.form == "csv":  # an empty CSV lacks its header, an empty JSONL lacks nothing
                found.append(replace(file, window=window))
        return found

    def units(self, window: Window, columns: Sequence[str], bucket: timedelta) -> Sequence[FileSplit]:  # noqa: ARG002
        """See `Remembered`."""
        found, chosen = list[FileSplit](), self._chosen(window)
        for file in self._files.values():
            if file.form != "parquet":
                found += [file] if file.size or file.form == "csv" else []
                continue
            footer = self._footer(file.path)
            runs = (
                footer.runs(window)
                if chosen is None
                else [
                    (i,) for i in sorted(chosen[file.file]) if parquet_files.overlaps(footer.row_groups[i], window)
                ]
            )
            found += [replace(file, row_groups=run, rows=footer.rows(run)) for run in runs]
        return found

    def fraction(self, window: Window | None) -> float | None:
        """The share of the window's rows that a sample reads, by the footers; None when no sample is asked for."""
        chosen = self._chosen(window)
        if chosen is None:
            return None
        read = sum(rows_in((f.row_groups[i] for i in chosen[file]), window) for file, f in self._parquet.items())
        there = sum(rows_in(f.row_groups, window) for f in self._parquet.values())
        return read / there if there else 1.0

    def batches(self, split: FileSplit, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        timestamp = self._config.timestamp
        # a row without columns could not be counted
        names = list(dict.fromkeys([*columns, *([timestamp] if timestamp is not None else [])]))
        _check_unchanged(split, self._place)
        for raw in self._read(split, names):
            batch = raw
            if timestamp is not None:
                times = to_utc(batch.column(timestamp), timestamp, self._config.timezone)
                batch = batch.set_column(batch.schema.get_field_index(timestamp), timestamp, times)
                if split.window is not None:
                    batch = _within(batch, times, split.window)
            if batch.num_rows:
                yield batch
        _check_unchanged(split, self._place)

    def _read(self, split: FileSplit, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        partition = dict(split.partition)
        own = [name for name in names if name not in partition]
        flat = self._flat(split.path)
        schema = flat.schema
        for name in names:
            if schema.get_field_index(name) < 0:
                raise SchemaError(f"{split.path!r} has no column {name!r}; it has {_listed(schema.names)}")
        if split.form == "parquet":
            text = flat.texts([name for name in own if name != self._config.timestamp])
            batches = parquet_files.read_rows(
                split.path, split.row_groups, flat.dotted(own), text, place=self._place
            )
        else:
            size = _whole_rows(split, self._place)
            stored, zone = flat.stored(own), self._config.timezone
            if split.form == "sagemaker":
                batches = captures.read_rows(
                    split.path, self._naming, stored, size=size, timezone=zone, place=self._place
                )
            else:
                batches = text_files.read_rows(
                    split.path, split.form, stored, size=size, timezone=zone, place=self._place
                )
        for batch in batches:
            yield _with_partition(flat.pick(batch, own), names, partition)
        if split.form != "parquet" and size < split.size:
            yield self._unfinished(split, names)

    def _unfinished(self, split: FileSplit, names: Sequence[str]) -> pa.RecordBatch:
        """One row that cannot be read."""
        if self._config.timestamp is None:
            raise SourceError(f"{split.path!r} ends within a row: it is still being written, or was cut short")
        schema = self._schema(split.path)
        types = [_LABELS if is_text(schema.field(name).type) else schema.field(name).type for name in names]
        return pa.RecordBatch.from_arrays([pa.nulls(1, dtype) for dtype in types], names=list(names))

    def _parquet_splits(
        self, file: FileSplit, window: Window | None, chosen: Collection[int] | None
    ) -> list[FileSplit]:
        found: list[FileSplit] = []
        numbers: list[int] = []
        rows = 0
        for number, group in enumerate(self._footer(file.path).row_groups):
            if not parquet_files.overlaps(group, window) or not group.rows:
                continue
            if chosen is not None and number not in chosen:
                continue
            if numbers and rows + group.rows > SPLIT_ROWS:
                found.append(replace(file, window=window, row_groups=tuple(numbers), rows=rows))
                numbers, rows = [], 0
            numbers.append(number)
            rows += group.rows
        if numbers:
            found.append(replace(file, window=window, row_groups=tuple(numbers), rows=rows))
        return found

    def _chosen(self, window: Window | None) -> Mapping[bytes, frozenset[int]] | None:
        """The row groups of a sample, by file; None without one. A window in which none lies is read whole."""
        if self._config.sample is None:
            return None
        if any(
            parquet_files.overlaps(self._parquet[f].row_groups[i], window)
            for f, chosen in self._sample.items()
            for i in chosen
        ):
            return self._sample
        return {file: frozenset(range(len(footer.row_groups))) for file, footer in self._parquet.items()}

    @cached_property
    def _sample(self) -> Mapping[bytes, frozenset[int]]:
        return choose(self._parquet, self._config.sample or 100.0)

    @cached_property
    def _parquet(self) -> dict[bytes, parquet_files.Footer]:
        return {file.file: self._footer(path) for path, file in self._files.items()}

    def _footer(self, path: str) -> parquet_files.Footer:
        """What the footer says, read when it is first asked for, unless it is `known` from an earlier time."""
        times = repr((self._config.timestamp, self._config.timezone)).encode("utf-8", "surrogatepass")
        file = self._files[path]
        key = hashlib.sha256(file.file + file.salt + times).digest()
        if key not in self.footers:
            self.footers[key] = self.known.get(key) or parquet_files.read_footer(
                path, self._config.timestamp, self._config.timezone, place=self._place
            )
        return self.footers[key]

    def _schema(self, path: str) -> pa.Schema:
        """The columns of a file."""
        return self._flat(path).schema

    def _flat(self, path: str) -> Flat:
        """The same with how they are stored, read when it is first asked for."""
        if path not in self._flats:
            self._flats[path] = self._read_flat(self._files[path])
        return self._flats[path]

    def _read_flat(self, file: FileSplit) -> Flat:
        if file.form == "parquet":
            schema = self._footer(file.path).schema
        elif file.form == "sagemaker":
            size = _whole_rows(file, self._place)
            schema = captures.read_header(file.path, self._naming, self._kinds, size=size, place=self._place)
        else:
            size = _whole_rows(file, self._place)
            schema = text_files.read_header(file.path, file.form, self._kinds, size=size, place=self._place)
        parts = tuple(
            (name, pa.int32() if isinstance(value, int) else pa.string()) for name, value in file.partition
        )
        for known, its_parts, flat in self._distinct:  # the files of a window are mostly alike
            if its_parts == parts and known.equals(schema, check_metadata=True):
                return flat
        flat = self._named(schema, parts, file.path)
        self._distinct.append((schema, parts, flat))
        return flat

    def _named(self, stored: pa.Schema, parts: Sequence[tuple[str, pa.DataType]], path: str) -> Flat:
        _refuse_repeated(stored.names, path)
        schema = stored
        for name, kind in parts:
            at = schema.get_field_index(name)
            schema = schema if at < 0 else schema.remove(at)
            schema = schema.append(pa.field(name, kind))
        flat = Flat(schema, nested=self._nested)
        _refuse_repeated(flat.schema.names, path)
        return flat

    def _split(self, path: str, status: Status | None = None) -> FileSplit:
        status = status or self._place.status(path)
        form = self._config.format if self._config.format != "auto" else _guess(path)
        if form != "parquet" and self._config.sample is not None:
            raise SourceError(
                f"`sample` chooses row groups of Parquet files, and {path!r} is text, which has none: name only "
                "Parquet files in the source's path, or leave `sample` out"
            )
        partition = _partition(path) if self._config.hive else ()
        salt = b"" if status.settled else token_bytes(16)
        return FileSplit(path, form, status.size, status.changed, status.inode, partition=partition, salt=salt)


def _whole_rows(file: FileSplit, place: Place) -> int:
    return text_files.whole_rows(file.path, "csv" if file.form == "csv" else "jsonl", file.size, place=place)


def _refuse_repeated(names: Sequence[str], path: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise SchemaError(f"{path!r} has more than one column named {repeated[0]!r}: give each its own name")


def _guess(path: str) -> Format:
    form = ending(path)
    if form is None:
        raise SourceError(
            f"cannot tell the format of {path!r} by its name: end it in {', '.join(ENDINGS)}, or set the "
            "source's format"
        )
    return form


def _partition(path: str) -> tuple[tuple[str, str | int | None], ...]:
    """The key=value folders of a path; whole numbers as numbers, as Arrow, Spark and Hive read them."""
    pairs = [part.split("=", 1) for part in Path(path).parent.parts if "=" in part]
    return tuple((unquote(key), _partition_value(unquote(value))) for key, value in pairs)


def _partition_value(text: str) -> str | int | None:
    if text == "__HIVE_DEFAULT_PARTITION__":
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _within(batch: pa.RecordBatch, times: pa.Array, window: Window) -> pa.RecordBatch:
    """The rows of the window; also those without a readable time, unless all the others are outside it."""
    start, end = parquet_files.micros(window)
    missing, raw = is_missing(times), as_numpy(times)
    inside = (raw >= start) & (raw < end) & ~missing
    keep = inside | missing if inside.any() or missing.all() else inside
    if keep.all():
        return batch
    if not keep.any():
        return batch.slice(0, 0)
    first, last = np.flatnonzero(keep)[[0, -1]]
    if keep[first : last + 1].all():
        return batch.slice(first, last - first + 1)
    return batch.filter(as_arrow(keep))


def _with_partition(
    batch: pa.RecordBatch, names: Sequence[str], partition: Mapping[str, str | int | None]
) -> pa.RecordBatch:
    if not any(name in partition for name in names):
        return batch.select(list(names))
    arrays = []
    for name in names:
        if name not in partition:
            arrays.append(batch.column(name))
            continue
        value = partition[name]
        dtype = pa.int32() if isinstance(value, int) else pa.string()
        constant = pa.repeat(pa.scalar(value, dtype), batch.num_rows)
        arrays.append(constant.dictionary_encode() if dtype == pa.string() else constant)
    return pa.RecordBatch.from_arrays(arrays, names=list(names))


def _common(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The type for both; None when they do not go together."""
    a, b = (t.value_type if isinstance(t, pa.DictionaryType) else t for t in (a, b))
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    for same, whole in (
        (_is_number, pa.float64()),
        (is_text, pa.string()),
        (lambda t: pa.types.is_timestamp(t) or pa.types.is_date(t), UTC_TYPE),
    ):
        if same(a) and same(b):
            return pa.int64() if pa.types.is_integer(a) and pa.types.is_integer(b) else whole
    return None


def _is_number(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype))


def _check_unchanged(split: FileSplit, place: Place) -> None:
    """Text on disk may grow while it is read; anything else means that the rows are not those of one moment."""
    try:
        status = place.status(split.path)
    except OSError as error:
        raise SourceError(f"{split.path!r} was there when the check began: {error.strerror or error}") from error
    may_grow = place.appends and split.form != "parquet" and not text_files.is_compressed(split.path)
    same = (status.size, status.changed) == (split.size, split.changed)
    if status.inode != split.inode or not (same or (may_grow and status.size >= split.size)):
        raise SourceError(
            f"{split.path!r} changed while it was being read: write to a temporary name (starting with a dot) and "
            "rename it when it is complete"
        )


def _place(config: FilesSource) -> Place:
    if not config.path.startswith(SCHEME):
        return DISK
    bucket = config.path.removeprefix(SCHEME).partition("/")[0]
    return ObjectStore(bucket, config.endpoint, config.region)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
