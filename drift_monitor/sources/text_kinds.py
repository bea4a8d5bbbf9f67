"""What the columns of a whole CSV or JSONL file hold: for training data, which no reference describes yet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from drift_monitor.core.columns import Flat
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.types import Kind
from drift_monitor.sources import text_files
from drift_monitor.sources.event_time import to_utc
from drift_monitor.sources.text_files import TextFormat

MISSING: Final = ("", "NA", "N/A", "NULL", "null", "NaN", "nan", "#N/A", "n/a", "-nan", "-NaN")
_BOOLEAN: Final = ("true", "True", "TRUE", "false", "False", "FALSE")


def text_kinds(path: str, form: TextFormat) -> dict[str, Kind | None]:
    """The kind of every column, by all of its values; None for a column without any.

    Raises:
        SourceError: a row cannot be read.
    """
    kinds: dict[str, Kind | None] = {}
    for name, kind in _csv_kinds(path) if form == "csv" else _json_kinds(path):
        known = kinds.get(name)
        kinds[name] = kind if known is None else known if kind in {None, known} else "categorical"
    return kinds


def _csv_kinds(path: str) -> Iterator[tuple[str, Kind | None]]:
    names = text_files.read_header(path, "csv", {}).names
    texts = pa.schema([(name, pa.string()) for name in names])
    for name in names:
        yield name, None
    for batch in text_files.read_rows(path, "csv", texts):
        for name in names:
            yield name, kind_of_texts(batch.column(name).dictionary)


def kind_of_texts(texts: pa.Array) -> Kind | None:
    """What a set of texts can all be read as; None where all of them are missing."""
    texts = pc.utf8_trim_whitespace(texts.filter(pc.invert(pc.is_in(texts, pa.array(MISSING)))))
    if not len(texts):
        return None
    if pc.all(pc.is_in(texts, pa.array(_BOOLEAN))).as_py():
        return "boolean"
    try:
        pc.cast(texts, pa.float64())
    except pa.ArrowInvalid:
        return "datetime" if _are_times(texts) else "categorical"
    return "numeric"


def _are_times(texts: pa.Array) -> bool:
    try:
        return not to_utc(texts, "", "UTC").null_count
    except SchemaError:  # numbers are no times
        return False


def _json_kinds(path: str) -> Iterator[tuple[str, Kind | None]]:
    with text_files.open_text(path) as file:
        while block := file.read(text_files.BLOCK):
            rows = block + file.readline()
            if not rows.strip():
                continue
            try:
                table = pajson.read_json(io.BytesIO(rows))
            except pa.ArrowInvalid as error:
                raise text_files.explained(path, "jsonl", None, error) from error
            flat = Flat(table.schema)
            names = [column.field.name for column in flat.columns if not column.part]
            for batch in table.to_batches():
                for name, values in zip(names, flat.pick(batch, names).columns, strict=True):
                    yield name, _json_kind(values, values.type)


def _json_kind(column: pa.Array, dtype: pa.DataType) -> Kind | None:
    if pa.types.is_null(dtype) or pa.types.is_nested(dtype):
        return None
    if pa.types.is_boolean(dtype):
        return "boolean"
    if pa.types.is_timestamp(dtype):
        return "datetime"
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "numeric"
    texts = pc.unique(column)
    return "datetime" if _are_times(texts.drop_null()) else "categorical"
