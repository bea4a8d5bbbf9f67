"""One CSV or JSONL file: its columns, and its rows in batches of bounded size.

Text carries no types, so the kinds that the reference has say how a column is to be read. A column whose first
rows do not fit its kind keeps the type that they suggest: the quality checks then name it as retyped.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing
from drift_monitor.core.columns import leaves
from drift_monitor.core.errors import DriftMonitorError, SchemaError, SourceError
from drift_monitor.core.types import Kind
from drift_monitor.core.vectors import is_vector
from drift_monitor.sources.event_time import UTC_TYPE, to_utc
from drift_monitor.sources.places import DISK, Place

TextFormat = Literal["csv", "jsonl"]
BLOCK: Final = 1 << 22
"""Bytes read at a time; no row may be longer."""
_LINES_A_ROW: Final = 100
_LABELS: Final = pa.dictionary(pa.int32(), pa.string())
_NAMES: Final = {
    pa.float64(): "a number",
    pa.bool_(): "true or false",
    pa.string(): "text",
    pa.int64(): "whole",
    pa.list_(pa.float64()): "a list of numbers",
}


def read_header(
    path: str, form: TextFormat, kinds: Mapping[str, Kind], *, size: int | None = None, place: Place = DISK
) -> pa.Schema:
    """The columns of a text file, with the types that `read_rows` gives them.

    Args:
        path: of the file.
        form: csv or jsonl.
        kinds: how to read the columns that are known; the others are read as their first rows suggest.
        size: read no further than this many bytes.
        place: where the file is.

    Raises:
        SourceError: the file cannot be read.
    """
    with open_text(path, size, place) as stream:
        if form == "jsonl" and not stream.peek(1):
            return pa.schema([])
        try:
            raw = (_csv(stream, {}, None) if form == "csv" else _json(stream, None)).schema
        except MemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise explained(path, form, None, error, place) from error
    names = raw.names
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(f"{path!r} has {names.count(name)} columns named {name!r}: give each its own name")
    return pa.schema([(f.name, type_below(form, f.type, f.name, kinds)) for f in raw])


def read_rows(
    path: str,
    form: TextFormat,
    schema: pa.Schema,
    *,
    size: int | None = None,
    timezone: str = "UTC",
    place: Place = DISK,
) -> Iterator[pa.RecordBatch]:
    """The rows of a text file.

    Args:
        path: of the file.
        form: csv or jsonl.
        schema: which columns to read and as what, a part of `read_header`'s; of structs just some fields.
        size: read no further than this many bytes, and not an unterminated last line that is still being
            written; None reads to the end.
        timezone: of times that carry no offset.
        place: where the file is.

    Raises:
        SourceError: a row cannot be read; the message names file and row.
        SchemaError: a value does not fit its column's type; the message names file, row, column and value.
    """
    raw = pa.schema([(f.name, raw_type(f.type)) for f in schema])
    rows = _opened(path, None if is_compressed(path) else size, place)
    with io.BufferedReader(rows, BLOCK) as stream:
        if form == "jsonl" and not stream.peek(1):
            return
        try:
            if form == "csv":
                types = {f.name: _LABELS if pa.types.is_string(f.type) else f.type for f in raw}
                batches = _csv(stream, types, raw.names)
            else:
                batches = _json(stream, raw)
            for batch in batches:
                columns = [finish(form, batch.column(f.name), f, timezone) for f in schema]
                yield pa.RecordBatch.from_arrays(columns, names=schema.names)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise explained(path, form, raw, error, place) from error
    if form == "csv" and rows.quotes % 2 and _ends_in_quotes(path, size, place):
        raise SourceError(f"{path!r} ends within a quoted field: a quote in it is never closed")


def _ends_in_quotes(path: str, size: int | None, place: Place) -> bool:
    """Whether an unclosed quote has swallowed the rows after it, which Arrow takes for one long field.

    In another field than the last, the row would lack columns. An odd number of quotes alone proves nothing, since
    one may stand in a field that is not quoted.
    """
    with open_text(path, size, place) as stream:
        name = _csv(stream, {}, None).schema.names[-1]
    last = b""
    with open_text(path, size, place) as stream:
        for batch in _csv(stream, {name: pa.binary()}, [name]):
            last = batch.column(name)[-1].as_py() or b"" if batch.num_rows else last
    return b"\n" in last


def is_compressed(path: str) -> bool:
    """Whether the name says that the text is gzipped."""
    return path.endswith(".gz")


def whole_rows(path: str, form: TextFormat, size: int, *, place: Place = DISK) -> int:
    """How many of the first `size` bytes are whole rows.

    An unterminated last line counts when it can be read as a row; otherwise it is one that is still being written.
    """
    if not size or is_compressed(path):
        return size
    with io.BufferedReader(cast("io.RawIOBase", place.stream(path))) as file:
        start = max(0, size - BLOCK)
        file.seek(start)
        tail = file.read(size - start)
        last = tail[tail.rfind(b"\n") + 1 :]
        if not last or len(last) == size:
            return size
        file.seek(0)
        header = file.readline(BLOCK)
    unfinished = not _is_json_row(last) if form == "jsonl" else not _ends_with_csv_row(tail, header)
    return size - len(last) if unfinished else size


def _is_json_row(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _ends_with_csv_row(tail: bytes, header: bytes) -> bool:
    """Whether the last line, or it and some before it, is a row: a quoted field may hold line ends."""
    fields = len(next(csv.reader([header.decode("utf-8", "replace")])))
    lines = tail.decode("utf-8", "replace").split("\n")
    for count in range(1, min(len(lines), _LINES_A_ROW) + 1):
        try:
            rows = list(csv.reader(io.StringIO("\n".join(lines[-count:])), strict=True))
        except csv.Error:
            continue
        if rows and (len(rows) > 1 or len(rows[0]) >= fields):
            return len(rows) == 1 and len(rows[0]) == fields
    return False


class _Rows(io.RawIOBase):
    """The first bytes of a file, however long it has grown, and how many of those read were quotes."""

    def __init__(self, file: IO[bytes], size: int | None) -> None:
        self._file = file
        self._left = size
        self.quotes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))[: self._left]
        data = self._file.read(len(view))
        view[: len(data)] = data
        self.quotes += data.count(b'"')
        if self._left is not None:
            self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_text(path: str, size: int | None = None, place: Place = DISK) -> io.BufferedReader:
    """The first bytes of a file, or all of it; gzip is undone."""
    return io.BufferedReader(_opened(path, None if is_compressed(path) else size, place), BLOCK)


def _opened(path: str, size: int | None, place: Place) -> _Rows:
    try:
        raw = place.stream(path)
        return _Rows(pa.CompressedInputStream(pa.PythonFile(raw), "gzip") if is_compressed(path) else raw, size)
    except OSError as error:
        raise SourceError(f"{path!r} cannot be read: {error.strerror or error}") from error


def _csv(
    stream: IO[bytes], types: Mapping[str, pa.DataType], names: Sequence[str] | None
) -> pacsv.CSVStreamingReader:
    return pacsv.open_csv(
        stream,
        # with one thread, errors carry the number of the row
        read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK),
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(column_types=dict(types), include_columns=names, check_utf8=False),
    )


def _json(stream: IO[bytes], schema: pa.Schema | None) -> pajson.JSONStreamingReader:
    return pajson.open_json(
        stream,
        read_options=pajson.ReadOptions(use_threads=False, block_size=BLOCK),
        parse_options=pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
        ),
    )


def type_below(form: TextFormat, first: pa.DataType, name: str, kinds: Mapping[str, Kind]) -> pa.DataType:
    """How to read a column, or what lies in it: fields of objects, numbers of lists."""
    if pa.types.is_struct(first):
        return pa.struct([(f.name, type_below(form, f.type, f"{name}.{f.name}", kinds)) for f in first])
    empty = pa.types.is_null(first) or (pa.types.is_list(first) and pa.types.is_null(first.value_type))
    if is_vector(first) or (form == "jsonl" and empty and kinds.get(f"{name}.norm") == "numeric"):
        return pa.list_(pa.float64())
    return _type(form, first, kinds.get(name))


def raw_type(dtype: pa.DataType) -> pa.DataType:
    """What is to be parsed: times are read from their text."""
    if pa.types.is_struct(dtype):
        return pa.struct([(field.name, raw_type(field.type)) for field in dtype])
    return pa.string() if dtype == UTC_TYPE else dtype


def _type(form: TextFormat, first: pa.DataType, kind: Kind | None) -> pa.DataType:
    """How to read a column, from the type that its first rows suggest and the kind it should have."""
    number = pa.types.is_integer(first) or pa.types.is_floating(first)
    boolean = pa.types.is_boolean(first)
    unknown = pa.types.is_null(first)
    if pa.types.is_nested(first):
        return first
    if kind is None:
        moment = pa.types.is_date(first) or pa.types.is_timestamp(first)
        kind = "numeric" if number else "boolean" if boolean else "datetime" if moment else "categorical"
    wanted = {
        "numeric": (pa.float64(), number or unknown),
        "boolean": (pa.bool_(), boolean or unknown or (number and form == "csv")),
        "datetime": (UTC_TYPE, not number and not boolean),
        "categorical": (pa.string(), form == "csv" or not (number or boolean)),
    }
    dtype, fits = wanted[kind]
    if fits:
        return dtype
    return first if number or boolean else pa.string()


def finish(form: TextFormat, column: pa.Array, field: pa.Field, timezone: str) -> pa.Array:
    """What was parsed as `raw_type` says, as the column that it is: times in UTC, texts as dictionaries."""
    if isinstance(column.type, pa.DictionaryType):
        column = _empty_as_null(column)
    if pa.types.is_struct(field.type) and field.type.num_fields:
        inside = [finish(form, column.field(i), f, timezone) for i, f in enumerate(field.type)]
        return pa.StructArray.from_arrays(inside, names=[f.name for f in field.type], mask=column.is_null())
    if field.type == UTC_TYPE:
        return to_utc(column, field.name, timezone)
    if pa.types.is_string(column.type) and form == "jsonl":
        return column.dictionary_encode()
    return column


def _empty_as_null(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """An empty CSV field is a missing text, as it is a missing number."""
    at = pc.index(column.dictionary.cast(pa.binary()), b"").as_py()
    if at < 0:
        return column
    codes = as_numpy(column.indices)
    return pa.DictionaryArray.from_arrays(
        as_arrow(codes, missing=is_missing(column.indices) | (codes == at)), column.dictionary
    )


def explained(
    path: str, form: TextFormat, raw_schema: pa.Schema | None, error: Exception, place: Place = DISK
) -> DriftMonitorError:
    """Arrow's message with the file, the row and the column's name."""
    said = " ".join(str(error).split())
    if "straddling object" in said:
        return SourceError(f"{path!r} has a row longer than {BLOCK >> 20} MiB, or a quote that is never closed")
    if "Empty CSV" in said:
        return SourceError(f"{path!r} is empty: not even a header line")
    if form == "jsonl" and not is_compressed(path):
        return _bad_json_line(path, raw_schema, place) or SourceError(
            f"{path!r} cannot be read as JSON lines: {said[:300]}"
        )
    row = re.search(r"Row #(\d+)", said)
    column = re.search(r"In CSV column #(\d+)", said)
    where = repr(path) + (f", row {row[1]} (the header is row 1)" if row else "")
    if column:
        with open_text(path, place=place) as stream:
            names = _csv(stream, {}, None).schema.names
        where += f", column {names[int(column[1])]!r}"
    problem = re.sub(r"^(In CSV column #\d+: )?(CSV parse error: )?(Row #\d+: )?", "", said)[:300]
    return (SchemaError if column else SourceError)(f"{where}: {problem}")


def _bad_json_line(path: str, schema: pa.Schema | None, place: Place) -> DriftMonitorError | None:
    """Find what Arrow refused; its own row numbers start anew with each block."""
    with open_text(path, place=place) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json_value(line)
            except ValueError as error:
                return SourceError(f"{path!r}, line {number} is not a JSON object: {error}")
            if not isinstance(row, dict):
                return SourceError(f"{path!r}, line {number} is not a JSON object but {line[:80]!r}")
            if said := misfit(row, schema or pa.schema([])):
                return SchemaError(f"{path!r}, line {number}, {said}")
    return None


def json_value(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or an object has a key twice.
    """
    return json.loads(text, object_pairs_hook=_pairs)


def misfit(row: dict[str, Any], schema: pa.Schema) -> str | None:
    """The first value that does not fit its column; None where all do."""
    for at, field in leaves(schema):
        where, value = _value(row, at)
        wanted = field.type if where == at else None
        if value is not None and (wanted is None or not _fits(value, wanted)):
            expected = "an object" if wanted is None else _NAMES.get(wanted, str(wanted))
            return f"column {'.'.join(where)!r}: {value!r:.100} is not {expected}"
    return None


def _value(row: dict[str, Any], path: tuple[str, ...]) -> tuple[tuple[str, ...], Any]:
    """What is at a path; where something on the way is no object, that and its path."""
    value: Any = row
    for depth, name in enumerate(path):
        if not isinstance(value, dict):
            return path[:depth], value
        value = value.get(name)
    return path, value


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} stands there twice")
    return row


def _fits(value: object, dtype: pa.DataType) -> bool:
    try:
        pa.array([value], dtype)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False
    return not (isinstance(value, bool) and not pa.types.is_boolean(dtype)) and bool(
        not isinstance(value, float) or np.isfinite(value) or pa.types.is_floating(dtype)
    )
