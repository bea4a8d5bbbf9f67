"""Rows in any order -> Parquet files in a given order, in bounded memory.

Rows are first spilled to one file for each stretch of the order, and then each stretch is sorted on its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing

GROUP_ROWS: Final = 1 << 17
"""Rows of a row group at most."""
GROUP_BYTES: Final = 1 << 27
"""Bytes of a row group's values, but for a row that is longer."""
_OPEN: Final = 256  # stretches, and so files that are open at once
_POSITION: Final = "\0position"  # no Parquet column has such a name, so none is covered
_Ints = npt.NDArray[np.int64]


class SortedFiles:
    """The rows of some Parquet files, on their way there.

    Args:
        folder: for what is spilled; as large as the rows, uncompressed.
        schema: of the files.
        rows: of each file, to the last of which `add` will be called.
    """

    def __init__(self, folder: Path, schema: pa.Schema, rows: Sequence[int]) -> None:
        self._folder, self._schema = folder, schema
        groups = sum(-(-n // GROUP_ROWS) for n in rows)
        self._width = GROUP_ROWS * max(1, -(-groups // _OPEN))
        self._spilled = pa.schema([*(pa.field(f.name, _long(f.type)) for f in schema), (_POSITION, pa.int64())])
        self._writers: dict[tuple[int, int], tuple[pa.OSFile, pa.ipc.RecordBatchStreamWriter]] = {}

    def add(self, batch: pa.RecordBatch, file: npt.NDArray[np.integer[Any]], position: _Ints) -> None:
        """Spill rows.

        Args:
            batch: with the columns of the schema, texts also as dictionaries.
            file: number of the file that each row goes to, shape (n,).
            position: of each row in its file, shape (n,).
        """
        order = np.lexsort((position, file))
        batch, file, position = batch.take(as_arrow(order)), file[order], position[order]
        stretch = position // self._width
        for start, end in _stretches(_sizes(batch.columns, batch.num_rows)):
            part = self._plain(batch.slice(start, end - start), position[start:end])
            moves = (np.diff(file[start:end]) != 0) | (np.diff(stretch[start:end]) != 0)
            cuts = [0, *(np.flatnonzero(moves) + 1).tolist(), end - start]
            for low, high in itertools.pairwise(cuts):
                key = int(file[start + low]), int(stretch[start + low])
                self._writer(key).write_batch(part.slice(low, high - low))

    def write(self, file: int, path: Path) -> None:
        """Write a file, after all rows were added, and give up what was spilled of it.

        Args:
            file: its number.
            path: where to.
        """
        with self._parquet(path) as writer:
            for key in sorted(key for key in self._writers if key[0] == file):
                sink, stream = self._writers.pop(key)
                stream.close()
                sink.close()
                spill = self._path(key)
                with pa.memory_map(os.fsencode(spill)) as memory:
                    for table in _sorted(pa.ipc.open_stream(memory).read_all()):
                        writer.write_table(table.cast(self._schema), row_group_size=GROUP_ROWS)
                spill.unlink()

    @contextmanager
    def _parquet(self, path: Path) -> Iterator[pq.ParquetWriter]:
        # floats are hardly ever repeated: dictionaries of them take three times as long and more room
        repeated = [field.name for field in self._schema if not pa.types.is_floating(field.type)]
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": repeated, "write_page_checksum": True}
        with path.open("wb") as file:
            with pq.ParquetWriter(file, self._schema, **options) as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())

    def _plain(self, batch: pa.RecordBatch, position: _Ints) -> pa.RecordBatch:
        arrays = []
        for column, field in zip(batch.columns, self._spilled, strict=False):
            values = column.dictionary_decode() if isinstance(column.type, pa.DictionaryType) else column
            arrays.append(pc.cast(values, field.type))
        return pa.RecordBatch.from_arrays([*arrays, as_arrow(position)], schema=self._spilled)

    def _writer(self, key: tuple[int, int]) -> pa.ipc.RecordBatchStreamWriter:
        if key not in self._writers:
            sink = pa.OSFile(os.fsencode(self._path(key)), "wb")
            self._writers[key] = sink, pa.ipc.new_stream(sink, self._spilled)
        return self._writers[key][1]

    def _path(self, key: tuple[int, int]) -> Path:
        return self._folder / f"{key[0]}-{key[1]}.arrow"


def _sorted(table: pa.Table) -> Iterator[pa.Table]:
    """The rows in order, as many at a time as make a row group."""
    position = np.concatenate([as_numpy(chunk) for chunk in table.column(_POSITION).chunks])
    table = table.drop_columns(_POSITION)
    sizes = np.concatenate([_sizes(batch.columns, batch.num_rows) for batch in table.to_batches()])
    order = np.argsort(position)
    for start, end in _stretches(sizes[order]):
        yield table.take(as_arrow(order[start:end])).combine_chunks()


def _stretches(sizes: _Ints) -> Iterator[tuple[int, int]]:
    """Rows that go together: as many as fit."""
    total = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(total[start - 1]) if start else 0
        end = int(np.searchsorted(total, before + GROUP_BYTES, "right"))
        end = max(start + 1, min(end, start + GROUP_ROWS))
        yield start, end
        start = end


def _sizes(columns: Sequence[pa.Array], rows: int) -> _Ints:
    """Bytes of each row, as far as it matters: the lengths of texts, and eight for every value."""
    sizes = np.full(rows, 8 * len(columns), np.int64)
    for column in columns:
        sizes += _lengths(column)
    return sizes


def _lengths(column: pa.Array) -> _Ints | int:
    t = column.type
    if isinstance(t, pa.DictionaryType):
        entries = np.append(_lengths(column.dictionary), 0)
        return np.asarray(
            entries[np.where(is_missing(column.indices), len(entries) - 1, as_numpy(column.indices))]
        )
    of = pa.types
    if of.is_string(t) or of.is_large_string(t) or of.is_binary(t) or of.is_large_binary(t):
        return np.asarray(as_numpy(pc.fill_null(pc.binary_length(column), 0)), np.int64)
    return np.zeros(len(column), np.int64)


def _long(t: pa.DataType) -> pa.DataType:
    """A type with 64-bit offsets, so that rows can be gathered however long their texts are."""
    if pa.types.is_string(t):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary(t) else t
