"""Bytes that were sent -> one record batch in the layout of the spool, or what does not fit and where."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from math import inf
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from drift_monitor.core.arrow import as_arrow, is_missing, numbers_by_row
from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.types import Kind
from drift_monitor.core.vectors import vector_parts
from drift_monitor.intake.layout import TYPES, Layout
from drift_monitor.intake.refused import RefusedError, TooLargeError
from drift_monitor.sources.event_time import UTC_TYPE, to_utc

MOST_ROWS: Final = 1_000_000
"""Rows of a request: a column of nulls takes no bytes, whatever its length."""
LARGEST_BATCH: Final = 256 * 2**20
"""Bytes of the rows of a request in memory: a dictionary can stand for much more than it takes."""
_NUMBERS: Final = pa.list_(pa.float64())
_SMALL_BODY: Final = 8192
"""Bytes below which lines are read one by one: to set up Arrow's parser takes 2 ms."""
_NOTED: Final = 20  # names of columns that are not kept, in an answer
_EXPECTED: Final[dict[Kind, str]] = {
    "numeric": "a number",
    "categorical": "text, a whole number, true or false",
    "boolean": "true or false",
    "datetime": "a time in ISO 8601",
}
_BARE: Final = "a bare number does not say whether it counts seconds or milliseconds: send ISO 8601 text"


@dataclass(frozen=True)
class Rows:
    """What was sent.

    Attributes:
        batch: in the layout of the spool.
        ignored: columns that are not kept, some of them.
    """

    batch: pa.RecordBatch
    ignored: tuple[str, ...] = ()


def from_json_lines(body: bytes, layout: Layout, now: datetime) -> Rows:
    """Read JSON Lines: an object a row, one a line; a column that a row does not have is null there.

    Raises:
        RefusedError: the first row that is no object, or does not fit.
    """
    first = _first_line(body)
    if first is None:
        return Rows(_empty(layout))
    known = layout.kinds
    if first and len(body) > _SMALL_BODY:
        try:
            flat = pa.schema([(n, _raw_type(kind, first.get(n))) for n, kind in known.items()])
            table = _parsed(body, _with_nested(flat, layout, first))
            columns = {name: _converted(table.column(name), name, kind, layout) for name, kind in known.items()}
            if layout.nested:
                columns = _with_inner(columns, table.drop_columns(flat.names), layout)
            return Rows(_batch(columns, table.num_rows, layout, now), _ignored(list(first), layout))
        except TooLargeError:
            raise
        except (pa.ArrowException, UnicodeDecodeError, RefusedError):
            pass  # line by line, it is either read or found
    numbers, records = read_lines(body)
    return from_records(records, layout, now, numbers=numbers)


def from_records(
    records: Sequence[Mapping[str, Any]], layout: Layout, now: datetime, *, numbers: Sequence[int] | None = None
) -> Rows:
    """Rows as mappings of JSON values.

    Args:
        records: column -> value.
        layout: of the spool.
        now: time of arrival.
        numbers: what to call the rows in errors; 1, 2, ... if None.

    Raises:
        RefusedError: the first value of a column that does not fit.
    """
    numbers = range(1, len(records) + 1) if numbers is None else numbers
    columns: dict[str, pa.Array | None] = {}
    for name, kind in layout.kinds.items():
        values = []
        nested = layout.nested.get(name)
        for number, record in zip(numbers, records, strict=True):
            value = record.get(name)
            if value is None and nested is not None and not nested.part:
                value = _inner(record, nested.path, number)
            try:
                values.append(None if value is None else _READERS[kind](value))
            except (ValueError, TypeError) as error:
                message = str(error) if kind == "datetime" else f"{_shown(value)} is not {_EXPECTED[kind]}"
                raise RefusedError(message, number, name, value) from None
        if kind == "datetime":
            columns[name] = _times(pa.array(values, pa.string()), name, layout, numbers)
        else:
            columns[name] = pa.array(values, TYPES[kind])
    if layout.vectors:
        columns |= _parts(columns, _vectors(records, layout, numbers), layout)
    ignored = _ignored(list(records[0]), layout) if records else ()
    return Rows(_batch(columns, len(records), layout, now, numbers), ignored)


def from_arrow_stream(body: bytes, layout: Layout, now: datetime) -> Rows:
    """Read an Arrow IPC stream. A column that it does not have is null.

    Raises:
        RefusedError: it is none, is damaged, or a column or value does not fit.
        TooLargeError: it would take too much memory.
    """
    try:
        reader = pa.ipc.open_stream(pa.BufferReader(body))
    except (pa.ArrowException, OSError) as error:
        raise RefusedError(f"the body is no Arrow stream: {_brief(error)}") from None
    flat = Flat(reader.schema)
    names = flat.schema.names
    for name in names:
        if names.count(name) > 1:
            raise RefusedError("more than one column has this name", None, name)
    known, batches, rows = layout.kinds, [], 0
    there = [name for name in known if name in names]
    for whole in _whole_batches(reader):
        batch = flat.pick(whole, there)
        numbers = range(rows + 1, rows + whole.num_rows + 1)
        columns = {
            name: _converted(batch.column(name), name, kind, layout, numbers) if name in there else None
            for name, kind in known.items()
        }
        batches.append(_batch(columns, whole.num_rows, layout, now, numbers))
        rows += whole.num_rows
        if sum(b.get_total_buffer_size() for b in batches) > LARGEST_BATCH:
            raise TooLargeError("the rows take too much memory: send them in several requests")
    return Rows(joined(batches) if batches else _empty(layout), _ignored(names, layout))


def _whole_batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Batches that can be worked with: a hostile one can point anywhere."""
    rows = 0
    while True:
        try:
            batch = reader.read_next_batch()
            rows += batch.num_rows
            if rows > MOST_ROWS:
                raise TooLargeError(f"more than {MOST_ROWS:,} rows in a request: send them in several")
            batch.validate(full=True)
        except StopIteration:
            return
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise RefusedError(f"the Arrow stream is damaged: {_brief(error)}") from None
        yield batch


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one layout as one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def read_lines(body: bytes) -> tuple[list[int], list[dict[str, Any]]]:
    """The numbers of the lines that are not blank, and the objects there.

    Raises:
        RefusedError: a line is no JSON object, or has a key twice.
    """
    numbers, records = [], []
    for number, line in enumerate(body.split(b"\n"), 1):
        if line and not line.isspace():
            numbers.append(number)
            records.append(read_object(line, number))
            if len(records) > MOST_ROWS:
                raise TooLargeError(f"more than {MOST_ROWS:,} rows in a request: send them in several")
    return numbers, records


def read_object(text: bytes, number: int | None = None) -> dict[str, Any]:
    """One JSON object.

    Raises:
        RefusedError: it is none, or has a key twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_pairs)
    except RecursionError:
        raise RefusedError("the JSON is nested too deeply", number) from None
    except ValueError as error:
        raise RefusedError(f"this is not JSON: {_brief(error)}", number, None, _start(text)) from None
    if not isinstance(value, dict):
        raise RefusedError("this is JSON, but no object", number, None, _start(text))
    return value


def _first_line(body: bytes) -> dict[str, Any] | None:
    """The object in the first line; empty where it cannot be told; None where there is no line."""
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        line = body[start : end if end >= 0 else None].strip()
        if line:
            try:
                return read_object(line)
            except RefusedError:
                return {}
        if end < 0:
            break
        start = end + 1
    return None


def _parsed(body: bytes, schema: pa.Schema) -> pa.Table:
    table = pajson.read_json(
        io.BytesIO(body),
        read_options=pajson.ReadOptions(use_threads=False, block_size=len(body) + 1),
        parse_options=pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    ).combine_chunks()
    if table.num_rows > MOST_ROWS:
        raise TooLargeError(f"more than {MOST_ROWS:,} rows in a request: send them in several")
    table.validate(full=True)  # Arrow's parser lets broken UTF-8 through
    return table


def _with_nested(flat: pa.Schema, layout: Layout, first: Mapping[str, Any]) -> pa.Schema:
    """The same with the objects and lists in which columns may come.

    Raises:
        RefusedError: these cannot be told from columns.
    """
    tree: dict[str, Any] = {}
    for name, column in layout.nested.items():
        inside = tree
        for step in column.path[:-1]:
            inside = inside.setdefault(step, {})
            if not isinstance(inside, dict):
                raise RefusedError("a column lies within another", None, name)
        raw = _NUMBERS if column.part else _raw_type(layout.kinds[name], _inner(first, column.path, 1))
        if inside.setdefault(column.path[-1], raw) != raw:
            raise RefusedError("a column lies within another", None, name)
    if set(tree) & set(flat.names):
        raise RefusedError("a column lies within another")
    return pa.schema([*flat, *_struct(tree)])


def _struct(tree: Mapping[str, Any]) -> list[pa.Field]:
    return [pa.field(n, pa.struct(_struct(t)) if isinstance(t, dict) else t) for n, t in tree.items()]


def _with_inner(columns: Mapping[str, pa.Array], found: pa.Table, layout: Layout) -> dict[str, pa.Array]:
    """Columns, with what lies in objects and lists where a row does not have them by name."""
    flat, names = Flat(found.schema), list(layout.nested)
    inner = flat.pick(found.to_batches()[0], names)
    whole = dict(columns)
    for name in names:
        own = _converted(inner.column(name), name, layout.kinds[name], layout)
        whole[name] = pc.coalesce(columns[name], own) if columns[name].null_count < len(own) else own
    return whole


def _inner(record: Mapping[str, Any], path: Sequence[str], number: int) -> Any:
    """What lies at a path; None where it does not lead anywhere.

    Raises:
        RefusedError: something on the way is no object.
    """
    value: Any = record
    for depth, name in enumerate(path):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise RefusedError(f"{_shown(value)} is not an object", number, ".".join(path[:depth]), value)
        value = value.get(name)
    return value


def _vectors(
    records: Sequence[Mapping[str, Any]], layout: Layout, numbers: Sequence[int]
) -> dict[tuple[str, ...], pa.Array]:
    """Vectors of all rows by their path."""
    found = {}
    for path in {column.path for column in layout.nested.values() if column.part}:
        name, values = ".".join(path), []
        for number, record in zip(numbers, records, strict=True):
            value = record.get(name)
            value = _inner(record, path, number) if value is None else value
            try:
                values.append(None if value is None else _list(value))
            except TypeError:
                raise RefusedError(f"{_shown(value)} is not a list of numbers", number, name, value) from None
        found[path] = pa.array(values, _NUMBERS)
    return found


def _parts(
    columns: Mapping[str, pa.Array | None], vectors: Mapping[tuple[str, ...], pa.Array], layout: Layout
) -> dict[str, pa.Array]:
    """Parts of vectors, where a row does not have them by name."""
    wanted = [column for column in layout.nested.values() if column.part]
    made = {
        path: vector_parts(vector, [c.part for c in wanted if c.path == path]) for path, vector in vectors.items()
    }
    inner = {c.name: _converted(made[c.path][c.part], c.name, c.kind, layout) for c in wanted}
    return {name: pc.coalesce(columns[name], array) for name, array in inner.items()}


def _raw_type(kind: Kind, first: object) -> pa.DataType:
    """How Arrow is to parse a column, by its first value where there is a choice."""
    if kind == "categorical" and isinstance(first, bool):
        return pa.bool_()
    if kind == "categorical" and isinstance(first, int):
        return pa.int64()
    return pa.string() if kind == "datetime" else TYPES[kind]


def _converted(
    column: pa.Array | pa.ChunkedArray, name: str, kind: Kind, layout: Layout, numbers: Sequence[int] | None = None
) -> pa.Array:
    """A column in the type that the spool has.

    Raises:
        RefusedError: it cannot be read as that kind.
        TooLargeError: a dictionary stands for too much.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column.type, pa.DictionaryType):
        column = _decoded(column, name)
    t = column.type
    if pa.types.is_null(t):
        return pa.nulls(len(column), TYPES[kind])
    is_a = pa.types
    text = is_a.is_string(t) or is_a.is_large_string(t) or is_a.is_string_view(t)
    whole = is_a.is_integer(t) or is_a.is_boolean(t)
    fits = {
        "numeric": whole or is_a.is_floating(t) or is_a.is_decimal(t),
        "categorical": text or whole,
        "boolean": is_a.is_boolean(t),
        "datetime": text or is_a.is_timestamp(t) or is_a.is_date(t),
    }
    if not fits[kind]:
        hint = f": {_BARE}" if kind == "datetime" and (whole or is_a.is_floating(t)) else ""
        raise RefusedError(f"the column is {t}, which is not {_EXPECTED[kind]}{hint}", None, name)
    if kind == "datetime":
        return _times(column, name, layout, range(1, len(column) + 1) if numbers is None else numbers)
    if is_a.is_decimal(t):
        return as_arrow(numbers_by_row(column), missing=is_missing(column))
    return column if t == TYPES[kind] else column.cast(TYPES[kind], safe=False)


def _decoded(column: pa.DictionaryArray, name: str) -> pa.Array:
    values = column.dictionary
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        lengths = pc.binary_length(values).take(column.indices)
        if (pc.sum(lengths).as_py() or 0) > LARGEST_BATCH:
            raise TooLargeError("the dictionary stands for too much text: send fewer rows", None, name)
    elif not pa.types.is_primitive(values.type):
        raise RefusedError(f"the column is {column.type}: send text or numbers", None, name)
    return column.dictionary_decode()


def _times(column: pa.Array, name: str, layout: Layout, numbers: Sequence[int]) -> pa.Array:
    """Event times; one that cannot be read is refused."""
    try:
        times = to_utc(column, name, layout.timezone)
    except SchemaError as error:
        raise RefusedError(str(error), None, name) from None
    if times.null_count > column.null_count:
        at = pc.index(pc.and_(times.is_null(), column.is_valid()), value=True).as_py()
        message = f"{_shown(column[at].as_py())} is no time in the years 1970 to 2199: send ISO 8601"
        raise RefusedError(message, numbers[at], name, str(column[at].as_py()))
    return times


def _batch(
    columns: Mapping[str, pa.Array | None],
    rows: int,
    layout: Layout,
    now: datetime,
    numbers: Sequence[int] | None = None,
) -> pa.RecordBatch:
    """Columns in the order of the layout; those that are missing are null, and every row has a time."""
    arrays = [
        pa.nulls(rows, field.type) if (column := columns[field.name]) is None else column
        for field in layout.schema
    ]
    times = arrays[0]
    if times.null_count and layout.arrival:
        arrays[0] = times.fill_null(pa.scalar(now, UTC_TYPE))
    elif times.null_count:
        at = pc.index(times.is_null(), value=True).as_py()
        raise RefusedError(
            "the row has no event time: send it, or set `arrival: true` in the monitor's source",
            at + 1 if numbers is None else numbers[at],
            layout.timestamp,
        )
    batch = pa.RecordBatch.from_arrays(arrays, schema=layout.schema)
    if batch.get_total_buffer_size() > LARGEST_BATCH:
        raise TooLargeError("the rows take too much memory: send them in several requests")
    return batch


def _empty(layout: Layout) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in layout.schema], schema=layout.schema)


def _list(value: object) -> list[float | None]:
    if not isinstance(value, list):
        raise TypeError
    return [None if each is None else _number(each) for each in value]


def _number(value: object) -> float:
    if isinstance(value, time):  # from Avro, as decimals are
        return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    if not isinstance(value, int | float | Decimal):  # true is 1, as it is in files
        raise TypeError
    try:
        return float(value)
    except OverflowError:  # as 1e400 is
        return inf if value > 0 else -inf


def _category(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate is refused
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _time_text(value: object) -> str:
    if isinstance(value, datetime):  # from Avro
        return value.isoformat()
    if isinstance(value, int | float):
        raise TypeError(_BARE)
    if not isinstance(value, str):
        raise TypeError("this is no time: send ISO 8601 text")
    value.encode()
    return value


_READERS: Final[Mapping[Kind, Callable[[object], object]]] = {
    "numeric": _number,
    "categorical": _category,
    "boolean": _truth,
    "datetime": _time_text,
}


def _ignored(found: Sequence[str], layout: Layout) -> tuple[str, ...]:
    known = {*layout.kinds, *layout.vectors, *(column.path[0] for column in layout.nested.values())}
    return tuple(name for name in found if name not in known)[:_NOTED]


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!a} stands there twice")
    return row


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _start(text: bytes) -> str:
    return text[:200].decode("utf-8", "backslashreplace")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
