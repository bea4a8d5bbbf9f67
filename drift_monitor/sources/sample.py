"""A bounded sample of a source's rows that does not depend on their order or their split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing
from drift_monitor.core.splitmix import GOLDEN, mixed
from drift_monitor.core.types import Window
from drift_monitor.sources import S, Source

_Hashes = npt.NDArray[np.uint64]
_MISSING: Final = np.uint64(1)
_SLAB: Final = 1 << 14  # rows hashed at once: what they need stays in the processor's cache


def sample_rows(
    source: Source[S],
    window: Window | None,
    columns: Sequence[str],
    limit: int,
    *,
    timestamp: str | None = None,
    seed: int = 0,
) -> pa.Table:
    """Rows of a window, chosen by a hash of their content.

    The `limit` distinct rows with the smallest hashes are kept while streaming, with how often each occurs; from
    those, if that is more than `limit` rows, evenly spaced ones are taken, so that a row that is there twice as
    often as another stays so. The same rows in another order, or in other files, give the same sample.

    Args:
        source: the rows.
        window: of event time; None for all.
        columns: of the sample; `timestamp` among them or not.
        limit: rows of the sample, > 0.
        timestamp: rows in which it is null are left out.
        seed: another seed, another sample.

    Returns:
        At most `limit` rows, exactly `limit` when there are as many, in the order of their hashes.
    """
    wanted = sample_schema(source.columns(window, columns), columns)
    read = list(dict.fromkeys([*columns, *([timestamp] if timestamp else [])]))
    batches = (batch for split in source.splits(window) for batch in source.batches(split, read))
    return sample_batches(batches, wanted, limit, timestamp=timestamp, seed=seed)


def sample_batches(
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    limit: int,
    *,
    timestamp: str | None = None,
    seed: int = 0,
) -> pa.Table:
    """The same, of batches that are at hand; the sample has the columns of `schema`."""
    sampler = Sampler(schema, limit, timestamp=timestamp, seed=seed)
    for batch in batches:
        sampler.add(batch)
    return sampler.rows()


class Sampler:
    """The same, of batches that come by.

    Args:
        schema: the columns of the sample.
        limit, timestamp, seed: see `sample_rows`.
    """

    def __init__(self, schema: pa.Schema, limit: int, *, timestamp: str | None = None, seed: int = 0) -> None:
        self._schema, self._limit, self._timestamp, self._seed = schema, limit, timestamp, seed
        self._kept = pa.Table.from_batches([], schema)  # `empty_table` imports pandas
        self._hashes = np.empty(0, np.uint64)
        self._counts = np.empty(0, np.int64)
        self._bound = np.uint64(2**64 - 1)

    def add(self, batch: pa.RecordBatch) -> None:
        """Look at some rows; those without a time are left out."""
        if self._timestamp is not None and batch.column(self._timestamp).null_count:
            batch = batch.filter(pc.is_valid(batch.column(self._timestamp)))
        found = hash_rows(batch, self._schema.names, self._seed)
        small = found[found <= self._bound]
        if len(small) > 4 * self._limit:  # none past the limit-th distinct one of these is among the smallest
            distinct = np.unique(small)
            if len(distinct) >= self._limit:  # of fewer, none is out yet: the next rows may be others
                self._bound = distinct[self._limit - 1]
        low = np.flatnonzero(found <= self._bound)
        part = pa.Table.from_batches([batch.select(self._schema.names).take(as_arrow(low))])
        self._kept = pa.concat_tables([self._kept, _as(part, self._schema)])
        self._hashes = np.concatenate((self._hashes, found[low]))
        self._counts = np.concatenate((self._counts, np.ones(len(low), np.int64)))
        if len(self._hashes) > 4 * self._limit:
            self._shrink()

    def rows(self) -> pa.Table:
        """The sample of what was added."""
        self._shrink()
        total = int(self._counts.sum())
        if total <= self._limit:
            return self._kept.take(as_arrow(np.repeat(np.arange(len(self._counts)), self._counts)))
        shares = np.array([int(c) * self._limit // total for c in np.cumsum(self._counts).tolist()])
        return self._kept.take(as_arrow(np.repeat(np.arange(len(self._counts)), np.diff(shares, prepend=0))))

    def _shrink(self) -> None:
        """Keep one row for each of the smallest hashes, and how often it occurred."""
        distinct, first, where = np.unique(self._hashes, return_index=True, return_inverse=True)
        totals = np.bincount(where, weights=self._counts, minlength=len(distinct)).astype(np.int64)
        self._kept = self._kept.take(as_arrow(first[: self._limit])).combine_chunks()
        self._hashes, self._counts = distinct[: self._limit], totals[: self._limit]
        if len(self._hashes) == self._limit:
            self._bound = self._hashes[-1]


def hash_rows(batch: pa.RecordBatch, columns: Sequence[str], seed: int) -> _Hashes:
    """A 64-bit hash of each row: of its values, not of the types or the dictionaries that hold them."""
    found = np.full(batch.num_rows, seed * int(GOLDEN) % 2**64, np.uint64)
    dictionaries = {
        name: _hash(batch.column(name).dictionary)
        for name in columns
        if isinstance(batch.schema.field(name).type, pa.DictionaryType)
    }
    for offset in range(0, batch.num_rows, _SLAB):
        rows, whole = batch.slice(offset, _SLAB), found[offset : offset + _SLAB]
        for name in columns:
            column = rows.column(name)
            hashes = _looked_up(dictionaries[name], column) if name in dictionaries else _hash(column)
            whole[:] = mixed(whole ^ (hashes + GOLDEN))
    return found


def _looked_up(entries: _Hashes, column: pa.DictionaryArray) -> _Hashes:
    codes = column.indices.fill_null(0) if column.indices.null_count else column.indices
    found = (entries if len(entries) else np.zeros(1, np.uint64))[as_numpy(codes)]
    missing = column.is_null()  # a null may stand in the dictionary
    return np.where(as_numpy(missing), _MISSING, found) if missing.true_count else found


def _hash(column: pa.Array) -> _Hashes:
    missing = is_missing(column) if column.null_count else None
    if isinstance(column.type, pa.DictionaryType):
        return _looked_up(_hash(column.dictionary), column)
    if pa.types.is_null(column.type):
        found = np.zeros(len(column), np.uint64)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        numbers = as_numpy(column.cast(pa.float64(), safe=False)) + 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # infinities of both signs, and the largest
            whole = numbers.sum()
        if math.isnan(whole):
            numbers[np.isnan(numbers)] = np.nan
        found = mixed(numbers.view(np.uint64))
    elif pa.types.is_boolean(column.type):
        found = mixed(as_numpy(column).astype(np.uint64))
    elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        micros = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
        found = mixed(as_numpy(micros).view(np.uint64))
    elif pa.types.is_nested(column.type):
        found = _hash_texts([repr(value).encode() for value in column.to_pylist()])
    else:
        distinct = column.dictionary_encode()
        entries = _hash_texts([v or b"" for v in distinct.dictionary.cast(pa.large_binary()).to_pylist()])
        return _looked_up(entries, distinct)
    return found if missing is None else np.where(missing, _MISSING, found)


def _hash_texts(texts: Sequence[bytes]) -> _Hashes:
    return np.frombuffer(b"".join(hashlib.blake2b(t, digest_size=8).digest() for t in texts), "<u8").astype(
        np.uint64
    )


def sample_schema(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """The columns of a sample of rows that have these."""
    return pa.schema([_plain(schema.field(name)) for name in columns])


def _plain(field: pa.Field) -> pa.Field:
    """Without the dictionary: a sample is small, and dictionaries differ from batch to batch."""
    return pa.field(field.name, field.type.value_type if isinstance(field.type, pa.DictionaryType) else field.type)


def _as(part: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        pa.chunked_array(
            [c.dictionary_decode() if isinstance(c.type, pa.DictionaryType) else c for c in column.chunks], None
        )
        if column.num_chunks
        else column
        for column in part.columns
    ]
    return pa.Table.from_arrays(
        [c.cast(f.type, safe=False) for c, f in zip(columns, schema, strict=True)], schema=schema
    )
