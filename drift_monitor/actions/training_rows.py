"""The rows of a training set, old and live, with the columns and the types of the training file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.config.models import Columns
from drift_monitor.config.sources import FilesSource
from drift_monitor.config.sources import Source as SourceConfig
from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing, numbers_by_row
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.split import Ints
from drift_monitor.core.types import Kind, Window
from drift_monitor.reference.rows import as_parquet
from drift_monitor.sources import SOURCES, Source
from drift_monitor.sources.event_time import to_utc
from drift_monitor.sources.files import Files, open_files

NO_TIME: Final = np.iinfo(np.int64).min
"""Stands for the time of a row without one."""
_EARLIEST: Final = {"ambiguous": "earliest", "nonexistent": "earliest"}


@dataclass(frozen=True, eq=False)
class Side:
    """The old training rows, or the live ones.

    Attributes:
        source: of the rows; the training file's has no event time, so that its column stays as it is.
        splits: of it, in the order in which they are read.
        schema: the columns of the training file.
        timestamp: column of event time in this side's rows; None when there is none.
        timezone: of times that carry none.
        live: whether `source` gives the event times in UTC.
    """

    source: Source[Any]
    splits: Sequence[Any]
    schema: pa.Schema
    timestamp: str | None
    timezone: str
    live: bool

    @property
    def name(self) -> str:
        """For messages."""
        return "live data" if self.live else "training file"

    def batches(self, split: Any, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, Ints | None]]:
        """Rows of a split as batches of the training file's types, texts also as dictionaries, and their times.

        Raises:
            SourceError: something cannot be read.
            SchemaError: a value does not fit the training file's type; the message names the column.
        """
        apart = [self.timestamp] if self.timestamp is not None else []
        for raw in self.source.batches(split, list(dict.fromkeys([*columns, *apart]))):
            times = None
            if self.timestamp is not None:
                times = raw.column(self.timestamp)
                times = times if self.live else to_utc(times, self.timestamp, self.timezone)
            arrays = [self._typed(raw, name, times) for name in columns]
            yield (
                pa.RecordBatch.from_arrays(arrays, names=list(columns)),
                None if times is None else np.where(is_missing(times), NO_TIME, as_numpy(times)),
            )

    def _typed(self, raw: pa.RecordBatch, name: str, times: pa.Array | None) -> pa.Array:
        target = self.schema.field(name).type
        try:
            if self.live and name == self.timestamp:  # came in microseconds, which the training file may not have
                return typed(times, target, self.timezone, safe=False)
            return typed(raw.column(name), target, self.timezone)
        except (pa.ArrowException, ValueError) as error:
            was, said = _plain(raw.column(name).type), " ".join(str(error).split())[:200]
            raise SchemaError(
                f"column {name!r} of the {self.name} is {was}, which cannot become the {target} of the training "
                f"file: {said}"
            ) from error


def open_training(
    path: str,
    columns: Columns,
    timezone: str,
    temporary: Path,
    sizes: Mapping[str, int] | None = None,
    *,
    nested: bool = True,
) -> tuple[Files, Files, pa.Schema]:
    """Look at the training rows.

    Args:
        path: a file, a folder or a glob.
        columns: what they mean.
        timezone: of times that carry none.
        temporary: a folder, in which text is rewritten as Parquet.
        sizes: read only these files, and only so many bytes of them.
        nested: whether structs and vectors are taken apart.

    Returns:
        The files as they are, the files to read from, and their columns: no dictionaries, all nullable.
    """
    config = FilesSource(path=path, timezone=timezone)
    ids: dict[str, Kind] = {} if columns.id is None else {columns.id: "categorical"}
    kinds = {**ids, **columns.kinds}
    given = open_files(config, kinds)
    if sizes is not None:
        given = given.only(sizes)
    if not nested:
        given = given.whole()
    files = as_parquet(given, kinds, temporary / "training.parquet")
    return given, files, pa.schema([pa.field(f.name, _plain(f.type)) for f in files.columns()])


def open_live(config: SourceConfig, schema: pa.Schema, id_column: str) -> Source[Any]:
    """The live rows as they are stored; text is read as what the training file has, ids as they are written."""
    kinds = {field.name: kind for field in schema if (kind := kind_of_type(field.type)) is not None}
    source: Source[Any] = SOURCES[config.type](config, kinds | {id_column: "categorical"})
    return source.whole() if isinstance(source, Files) else source


def other_columns(source: Source[Any], window: Window | None, schema: pa.Schema) -> list[str]:
    """The columns that the live rows have beside the training file's.

    Types are not looked at: a file of others may lie in a window that is left out.

    Raises:
        SchemaError: they lack one of the training file's.
    """
    found = source.columns(window, ()).names
    missing = [name for name in schema.names if name not in found]
    if missing:
        listed = ", ".join(repr(name) for name in missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise SchemaError(
            f"the live data lacks {listed}, which the training file has: log it with the live rows, or take it "
            "out of the training file"
        )
    return [name for name in found if name not in schema.names]


def typed(column: pa.Array, target: pa.DataType, timezone: str, *, safe: bool = True) -> pa.Array:
    """A column as another type; a dictionary stays one, with values of that type.

    Args:
        column: of any type.
        target: no dictionary.
        timezone: of times that carry none.
        safe: refuse what would lose more than digits of a fraction.

    Raises:
        ArrowException: a value does not fit; the message has it.
    """
    if isinstance(column.type, pa.DictionaryType):
        return pa.DictionaryArray.from_arrays(
            column.indices, typed(column.dictionary, target, timezone, safe=safe)
        )
    t, of = column.type, pa.types
    if t == target:
        return column
    if of.is_null(t):
        return pa.nulls(len(column), target)
    if of.is_boolean(target) and not is_text(t):
        other = pc.invert(pc.is_in(column.drop_null(), pc.cast(pa.array([0, 1]), t)))
        if pc.any(other).as_py():
            raise pa.ArrowInvalid("numbers other than 0 and 1 are neither true nor false")
    elif of.is_decimal(t) and of.is_floating(target):
        column = as_arrow(numbers_by_row(column), missing=is_missing(column))
    elif of.is_timestamp(t):
        return _moments(column, target, timezone, safe=safe)
    elif is_text(target) and not (is_text(t) or of.is_integer(t) or of.is_boolean(t)):
        raise pa.ArrowNotImplementedError(f"{t} can be written in more than one way")
    return pc.cast(column, target, safe=safe)


def _moments(column: pa.Array, target: pa.DataType, timezone: str, *, safe: bool) -> pa.Array:
    t = column.type
    aware = pa.types.is_timestamp(target) and target.tz is not None
    if is_text(target):
        moments = column if t.tz else pc.assume_timezone(column, timezone, **_EARLIEST)
        return pc.cast(pc.strftime(pc.cast(moments, pa.timestamp(t.unit, "UTC")), "%Y-%m-%dT%H:%M:%SZ"), target)
    if aware and not t.tz:
        column = pc.assume_timezone(column, timezone, **_EARLIEST)
    elif not aware and t.tz:
        column = pc.local_timestamp(pc.cast(column, pa.timestamp(t.unit, timezone)))
    return pc.cast(column, target, safe=safe)


def decoded(column: pa.Array) -> pa.Array:
    """Without a dictionary."""
    return column.dictionary_decode() if isinstance(column.type, pa.DictionaryType) else column


def is_text(t: pa.DataType) -> bool:
    """Whether a type is one of those for text."""
    return bool(pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_string_view(t))


def _plain(t: pa.DataType) -> pa.DataType:
    return t.value_type if isinstance(t, pa.DictionaryType) else t


def kind_of_type(t: pa.DataType) -> Kind | None:
    """The kind that values of a type are read as; None for what is no column of a training set."""
    of = pa.types
    if of.is_boolean(t):
        return "boolean"
    if of.is_integer(t) or of.is_floating(t) or of.is_decimal(t):
        return "numeric"
    if of.is_timestamp(t) or of.is_date(t):
        return "datetime"
    return "categorical" if is_text(t) else None
