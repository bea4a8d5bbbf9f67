"""The columns of a table as they can be named: what lies in structs by dotted paths, vectors as numbers.

    stored                                    named
    payload: struct<age, geo: struct<city>>   payload.age, payload.geo.city
    emb: list<float>                          emb.norm, emb.length, emb.p0 ... emb.p7
    took: duration, time of day               the same name, in seconds
    name: string_view, an extension type      the same name, as string, as what it is stored as

Whatever else there is keeps its name and its type. A column whose own name is `payload.age` is that column, and
what lies in a struct under the same name cannot be named. Two that lie in structs under one name are both there,
so that whoever looks for names that occur twice finds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.vectors import PARTS, is_vector, part_type, vector_parts

Path = tuple[str, ...]
_PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True)
class Column:
    """A column that can be named.

    Attributes:
        field: its name and type.
        path: of what is stored: a column, then fields of structs.
        stored: the type there.
        part: of a vector; empty for all else.
    """

    field: pa.Field
    path: Path
    stored: pa.DataType
    part: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether it is stored under its name, and as what it is."""
        return self.path == (self.field.name,) and self.field.type == self.stored


def leaves(schema: pa.Schema | pa.StructType, above: Path = ()) -> Iterator[tuple[Path, pa.Field]]:
    """What is stored, structs taken apart.

    Example:
        >>> payload = pa.struct({"age": pa.int8(), "geo": pa.struct({"city": pa.string()})})
        >>> [".".join(path) for path, _ in leaves(pa.schema({"id": pa.int8(), "payload": payload}))]
        ['id', 'payload.age', 'payload.geo.city']
    """
    for field in schema:
        path, dtype = (*above, field.name), _storage(field.type)
        if pa.types.is_struct(dtype) and dtype.num_fields:
            yield from leaves(dtype, path)
        else:
            yield path, field


class Flat:
    """How the columns of a table are named and made.

    Args:
        stored: the columns of the table.
        nested: whether structs, vectors and the like are taken apart; if not, every column is as it is stored.

    Attributes:
        columns: those that can be named.
        schema: their names and types.
    """

    def __init__(self, stored: pa.Schema, *, nested: bool = True) -> None:
        found = [c for path, field in leaves(stored) for c in _named(path, field)] if nested else _whole(stored)
        own = {column.path[0] for column in found if len(column.path) == 1 and not column.part}
        self.columns = [c for c in found if c.path == (c.field.name,) or c.field.name not in own]
        self.schema = pa.schema([column.field for column in self.columns])
        self._by_name = {column.field.name: column for column in self.columns}
        self._stored = stored
        self._plain = {column.field.name for column in self.columns if column.is_plain}

    @property
    def has_vectors(self) -> bool:
        """Whether some are parts of vectors."""
        return any(column.part for column in self.columns)

    def roots(self, names: Sequence[str]) -> list[str]:
        """The stored columns in which these are."""
        return list(dict.fromkeys(self._by_name[name].path[0] for name in names))

    def dotted(self, names: Sequence[str]) -> list[str]:
        """The same with the way into structs, as Parquet files write it."""
        return list(dict.fromkeys(".".join(self._by_name[name].path) for name in names))

    def texts(self, names: Sequence[str]) -> list[str]:
        """Those of them that are stored as text, as `dotted` has them."""
        columns = [self._by_name[name] for name in names]
        return self.dotted([c.field.name for c in columns if not c.part and is_text(c.stored)])

    def stored(self, names: Sequence[str]) -> pa.Schema:
        """As much of what is stored as these need."""
        wanted, roots = {self._by_name[name].path for name in names}, set(self.roots(names))
        return pa.schema([_pruned(f, (f.name,), wanted) for f in self._stored if f.name in roots])

    def is_stored(self, name: str) -> bool:
        """Whether a column is stored under its name, and as what it is."""
        return name in self._plain

    def pick(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
        """Make columns.

        Args:
            batch: that has at least what `roots`, `dotted` or `stored` says is needed.
            names: of the columns.

        Returns:
            These, in this order. A null struct has null fields.
        """
        if self._plain.issuperset(names):
            return batch.select(list(names))
        parts: dict[Path, list[str]] = {}
        for name in names:
            if self._by_name[name].part:
                parts.setdefault(self._by_name[name].path, []).append(self._by_name[name].part)
        vectors = {path: vector_parts(_find(batch, path), wanted) for path, wanted in parts.items()}
        arrays = []
        for column in (self._by_name[name] for name in names):
            if column.part:
                arrays.append(vectors[column.path][column.part])
            else:
                arrays.append(_made(_find(batch, column.path)))
        return pa.RecordBatch.from_arrays(arrays, names=list(names))


def _whole(stored: pa.Schema) -> list[Column]:
    return [Column(field, (field.name,), field.type) for field in stored]


def is_text(dtype: pa.DataType) -> bool:
    """Whether a type is one of those for text that can be read as a dictionary."""
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))


def _named(path: Path, field: pa.Field) -> Iterator[Column]:
    name, dtype = ".".join(path), _storage(field.type)
    if is_vector(dtype):
        for part in PARTS:
            yield Column(pa.field(f"{name}.{part}", part_type(part)), path, field.type, part)
    else:
        dtype = _made_type(dtype)
        yield Column(
            field if (name, dtype) == (field.name, field.type) else pa.field(name, dtype), path, field.type
        )


def _storage(dtype: pa.DataType) -> pa.DataType:
    while isinstance(dtype, pa.BaseExtensionType):
        dtype = dtype.storage_type
    return dtype


def _find(batch: pa.RecordBatch, path: Path) -> pa.Array:
    array = _unwrapped(batch.column(path[0]))
    for name in path[1:]:
        array = _unwrapped(pc.struct_field(array, [array.type.get_field_index(name)]))
    return array


def _unwrapped(array: pa.Array) -> pa.Array:
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array


def _made_type(dtype: pa.DataType) -> pa.DataType:
    """What `_made` makes of a type."""
    if isinstance(dtype, pa.DictionaryType) and (made := _made_type(dtype.value_type)) != dtype.value_type:
        return made
    if pa.types.is_duration(dtype) or pa.types.is_time(dtype):
        return pa.float64()
    return pa.string() if pa.types.is_string_view(dtype) else dtype


def _made(array: pa.Array) -> pa.Array:
    if (made := _made_type(array.type)) == array.type:
        return array
    if isinstance(array.type, pa.DictionaryType):
        return _made(array.dictionary_decode())
    if pa.types.is_string_view(array.type):
        return pc.cast(array, made)
    whole = array.view(pa.int32() if pa.types.is_time32(array.type) else pa.int64())
    return pc.divide(pc.cast(whole, made, safe=False), _PER_SECOND[array.type.unit])


def _pruned(field: pa.Field, path: Path, wanted: set[Path]) -> pa.Field:
    if path in wanted or not pa.types.is_struct(field.type):
        return field
    below = [(*path, each.name) for each in field.type]
    inside = [_pruned(f, p, wanted) for f, p in zip(field.type, below, strict=True) if _leads(p, wanted)]
    return pa.field(field.name, pa.struct(inside))


def _leads(path: Path, wanted: set[Path]) -> bool:
    return any(each[: len(path)] == path for each in wanted)
