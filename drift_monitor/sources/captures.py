"""Files that a SageMaker endpoint captures: a line for each request, with what went in and what came out.

    {"captureData": {"endpointInput": {"observedContentType": "text/csv", "data": "1.5,a", "encoding": "CSV"},
                     "endpointOutput": {...}},
     "eventMetadata": {"eventId": "...", "inferenceTime": "2024-03-01T12:00:00Z"}, "eventVersion": "0"}

A request may hold several rows, and CSV has no names: the configuration gives them.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from drift_monitor.config.sources import FilesSource
from drift_monitor.core.errors import SchemaError, SourceError
from drift_monitor.core.types import Kind
from drift_monitor.sources import text_files
from drift_monitor.sources.event_time import UTC_TYPE
from drift_monitor.sources.places import DISK, Place
from drift_monitor.sources.text_kinds import MISSING, kind_of_texts

_ROWS: Final = 1 << 13  # as Python's objects they take ten times what they take in Arrow
_HEAD: Final = 1 << 22
"""Bytes of lines by which the columns are told."""
_LISTS: Final = ("instances", "predictions", "inputs", "outputs")
_SIDES: Final = (("endpointInput", "inputs"), ("endpointOutput", "outputs"))
_TYPES: Final[Mapping[Kind, pa.DataType]] = {
    "numeric": pa.float64(),
    "boolean": pa.bool_(),
    "datetime": UTC_TYPE,
    "categorical": pa.string(),
}
_TRUTH: Final = {"true": True, "false": False, "1": True, "0": False}

Row = dict[str, Any]


class BadCaptureError(ValueError):
    """A line is no capture, or its payload cannot be read."""


class _Text(str):
    """A field of CSV, which may stand for anything."""

    __slots__ = ()


@dataclass(frozen=True)
class Naming:
    """What the configuration says of the columns.

    Attributes:
        inputs, outputs: names of values without names.
        timestamp: column that gets the time of the request, where the payload has none of this name.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    timestamp: str

    @classmethod
    def of(cls, config: FilesSource) -> Naming:
        """That of a source."""
        return cls(config.inputs, config.outputs, config.timestamp or "inferenceTime")


def read_header(
    path: str, naming: Naming, kinds: Mapping[str, Kind], *, size: int | None = None, place: Place = DISK
) -> pa.Schema:
    """The columns of a capture file, by its first rows and the kinds that are known.

    Raises:
        SourceError: a line cannot be read; the message names file and line.
    """
    rows: list[Row] = []
    read = 0
    for _, found, length in _lines(path, naming, size, place):
        rows += found
        read += length
        if read > _HEAD:
            break
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, _type(path, name, [row.get(name) for row in rows], kinds)) for name in names])


def read_rows(
    path: str,
    naming: Naming,
    schema: pa.Schema,
    *,
    size: int | None = None,
    timezone: str = "UTC",
    place: Place = DISK,
) -> Iterator[pa.RecordBatch]:
    """The rows of a capture file.

    Args:
        path: of the file.
        naming: of the columns.
        schema: some of what `read_header` found.
        size: bytes that are looked at; None for all.
        timezone: where times carry none.
        place: where the file is.

    Raises:
        SourceError: a line cannot be read.
        SchemaError: a value does not fit its column's type. Both messages name file and line.
    """
    rows: list[Row] = []
    lines: list[int] = []
    for number, found, _ in _lines(path, naming, size, place):
        rows += found
        lines += [number] * len(found)
        if len(rows) >= _ROWS:
            yield _batch(path, rows, lines, schema, timezone)
            rows, lines = [], []
    if rows:
        yield _batch(path, rows, lines, schema, timezone)


def _lines(path: str, naming: Naming, size: int | None, place: Place) -> Iterator[tuple[int, list[Row], int]]:
    """Number, rows and bytes of each line."""
    with text_files.open_text(path, size, place) as file:
        number = 0
        while line := file.readline(text_files.BLOCK + 1):
            number += 1
            if len(line) > text_files.BLOCK:
                raise SourceError(f"{path!r}, line {number} is longer than {text_files.BLOCK >> 20} MiB")
            if line.isspace():
                continue
            try:
                yield number, rows_of(line, naming), len(line)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{path!r}, line {number}: {error}") from error


def rows_of(line: bytes, naming: Naming) -> list[Row]:
    """The rows of a request.

    Raises:
        BadCaptureError: the line is no capture, or its payload cannot be read.
    """
    record = text_files.json_value(line)
    if not isinstance(record, dict):
        raise BadCaptureError("this is no JSON object")
    capture, metadata = (_object(record, name) for name in ("captureData", "eventMetadata"))
    sides: list[list[Row]] = []
    for side, setting in _SIDES:
        if capture.get(side) is not None:
            names = naming.inputs if setting == "inputs" else naming.outputs
            before = len(sides[0]) if sides else None
            sides.append(_payload(_object(capture, side), side, setting, names, before))
    if not sides:
        raise BadCaptureError("captureData has neither endpointInput nor endpointOutput")
    if len({len(rows) for rows in sides}) > 1:
        raise BadCaptureError(f"{len(sides[0])} rows went in, and {len(sides[1])} came out")
    event = {"eventId": metadata.get("eventId"), "inferenceId": metadata.get("inferenceId")}
    shared = {naming.timestamp: metadata.get("inferenceTime")} | {n: v for n, v in event.items() if v is not None}
    rows = []
    for number, parts in enumerate(zip(*sides, strict=True)):
        row = dict(shared)
        if len(sides[0]) > 1 and "eventId" in row:
            row["eventId"] = f"{row['eventId']}-{number}"
        for part in parts:
            row |= part
        rows.append(row)
    return rows


def _object(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    if not isinstance(value, dict):
        raise BadCaptureError(
            f"this is no capture of SageMaker's: {name!r} is {'missing' if value is None else 'no object'}"
        )
    return value


def _payload(
    part: Mapping[str, Any], side: str, setting: str, names: Sequence[str], before: int | None
) -> list[Row]:
    """The rows of one side."""
    text, encoding = part.get("data"), part.get("encoding")
    content = str(part.get("observedContentType") or "").partition(";")[0].strip().lower()
    if not isinstance(text, str):
        raise BadCaptureError(f"{side}.data is no text")
    if encoding == "BASE64":
        try:
            text = base64.b64decode(text, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise BadCaptureError(f"{side}.data is no text in BASE64 ({error}): capture CSV or JSON") from None
        encoding = "CSV" if content.endswith("csv") else "JSON" if "json" in content else content
    if encoding == "CSV":
        return _csv_rows(text, side, setting, names, before)
    if encoding == "JSON":
        values = [
            text_files.json_value(each)
            for each in (text.splitlines() if content.endswith("lines") else [text])
            if each.strip()
        ]
        return [row for value in values for row in _json_rows(value, side, setting, names)]
    raise BadCaptureError(f"{side}.data is {str(encoding)[:80]!r}, which is not read: capture CSV or JSON")


def _csv_rows(text: str, side: str, setting: str, names: Sequence[str], before: int | None) -> list[Row]:
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise BadCaptureError(f"{side}.data is no CSV: {error}") from None
    if len(names) == 1 and len(rows) == 1 and len(rows[0]) == before:
        rows = [[value] for value in rows[0]]  # some models answer all rows on one line
    return [_zipped([_Text(value) for value in row], side, setting, names) for row in rows]


def _json_rows(value: Any, side: str, setting: str, names: Sequence[str]) -> list[Row]:
    if isinstance(value, dict):
        inner = next((value[name] for name in _LISTS if isinstance(value.get(name), list)), None)
        if inner is None:
            return [value]
        return [_json_row(each, side, setting, names) for each in inner]
    if isinstance(value, list) and (len(names) == 1 or any(isinstance(each, dict | list) for each in value)):
        return [_json_row(each, side, setting, names) for each in value]
    return [_json_row(value, side, setting, names)]


def _json_row(value: Any, side: str, setting: str, names: Sequence[str]) -> Row:
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and not (len(names) == 1 and len(value) != 1):
        return _zipped(value, side, setting, names)
    return _zipped([value], side, setting, names)


def _zipped(values: Sequence[Any], side: str, setting: str, names: Sequence[str]) -> Row:
    if len(values) != len(names):
        known = f"names {len(names)}" if names else "is not set"
        raise BadCaptureError(
            f"{side} has a row of {len(values)} values without names, but the source's `{setting}` {known}"
        )
    return dict(zip(names, values, strict=True))


def _type(path: str, name: str, values: Sequence[Any], kinds: Mapping[str, Kind]) -> pa.DataType:
    """How to read a column."""
    there = [value for value in values if value is not None]
    if all(isinstance(value, _Text) for value in there):
        kind = kinds.get(name) or kind_of_texts(pa.array([str(v) for v in there], pa.string())) or "categorical"
        return _TYPES[kind]
    try:
        first = pa.array([_read(v, pa.float64()) if isinstance(v, _Text) else v for v in there]).type
    except (pa.ArrowException, OverflowError) as error:
        said = " ".join(str(error).split())[:200]
        raise SchemaError(f"{path!r}, column {name!r} has values that do not go together: {said}") from error
    return text_files.type_below("jsonl", first, name, kinds)


def _batch(
    path: str, rows: Sequence[Row], lines: Sequence[int], schema: pa.Schema, timezone: str
) -> pa.RecordBatch:
    columns = []
    for field in schema:
        wanted = pa.field(field.name, text_files.raw_type(field.type))
        values = [_read(row.get(field.name), wanted.type) for row in rows]
        try:
            array = pa.array(values, wanted.type)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise _unfit(path, values, lines, wanted, error) from error
        columns.append(text_files.finish("jsonl", array, field, timezone))
    return pa.RecordBatch.from_arrays(columns, names=schema.names)


def _read(value: Any, dtype: pa.DataType) -> Any:
    """A value as it is to become part of a column; one that does not fit stays what it is."""
    if not isinstance(value, _Text):
        # Arrow would take true for 1, and cut 1.5 to 1
        unfit = isinstance(value, bool) and not pa.types.is_boolean(dtype)
        unfit = unfit or (isinstance(value, float) and pa.types.is_integer(dtype))
        return _Text(value) if unfit else value
    if value in MISSING if not pa.types.is_string(dtype) else not value:
        return None
    if pa.types.is_boolean(dtype):
        return _TRUTH.get(value.strip().lower(), value)
    if pa.types.is_floating(dtype) and "_" not in value:  # which Python would take for 1000 in 1_000
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _unfit(
    path: str, values: Sequence[Any], lines: Sequence[int], wanted: pa.Field, error: Exception
) -> SchemaError:
    schema = pa.schema([wanted])
    for value, line in zip(values, lines, strict=True):
        if said := text_files.misfit({wanted.name: value}, schema):
            return SchemaError(f"{path!r}, line {line}, {said}")
    return SchemaError(f"{path!r}, column {wanted.name!r}: {' '.join(str(error).split())[:200]}")
