"""The rows of training data, column by column: one column at a time is in memory, or one batch of some columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from drift_monitor.config.sources import FilesSource
from drift_monitor.core.arrow import as_arrow
from drift_monitor.core.fold import hash_ids, profile_buckets
from drift_monitor.core.products import PairSpec, Products
from drift_monitor.core.profile import FeatureProfile, Ids, Ints, Profile, Spec
from drift_monitor.core.types import Kind
from drift_monitor.sources.files import Files, open_files
from drift_monitor.sources.sample import sample_rows
from drift_monitor.sources.text_kinds import text_kinds

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_IDS_STORED: Final = 1 << 14  # enough to estimate the share of duplicates, and a version stays small
_ROW_GROUP: Final = 1 << 17
_TIME: Final = "\0event time"  # no Parquet column has such a name, so none is covered


@dataclass(frozen=True, eq=False)
class Rows:
    """Training data that can be read by column.

    Attributes:
        paths: of the training data, as it was given.
        files: to read from: Parquet, with text rewritten, and with numbers instead of vectors.
        stored: where the columns lie that are not stored under their names; see `core.columns`.
        bucket: length of the buckets of event time.
        times: event times of the rows that have one, by bucket, in microseconds; None without a timestamp column.
        keep: which rows these are, in the order in which columns are given; None when it is all, as they come.
        invalid: rows without a readable event time.
    """

    paths: list[str]
    files: Files
    stored: dict[str, tuple[str, ...]]
    schema: pa.Schema
    timestamp: str | None
    bucket: timedelta
    times: pa.Array | None
    keep: pa.Array | None
    invalid: int

    @classmethod
    def open(cls, source: FilesSource, kinds: Mapping[str, Kind], bucket: timedelta, temporary: Path) -> Self:
        """Look at the columns, and read the event times.

        Args:
            source: the files.
            kinds: of columns, where their types would imply another.
            bucket: length of the buckets of event time.
            temporary: a folder, in which text is rewritten as Parquet.
        """
        given = open_files(source, kinds)
        files = as_parquet(given, kinds, temporary / "training.parquet")
        schema = files.columns()
        stored = {
            column.field.name: column.path
            for flat in given.flats()
            for column in flat.columns
            if column.path != (column.field.name,)
        }
        if source.timestamp is None or source.timestamp not in schema.names:
            return cls(given.paths, files, stored, schema, source.timestamp, bucket, None, None, 0)
        times = _read(files, source.timestamp)
        raw = times.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        valid = times.is_valid().to_numpy(zero_copy_only=False)
        keep = np.flatnonzero(valid)
        buckets = raw[keep] // (bucket // timedelta(microseconds=1))
        if (buckets[1:] < buckets[:-1]).any():
            keep = keep[np.argsort(buckets, kind="stable")]
        elif len(keep) == len(raw):
            return cls(given.paths, files, stored, schema, source.timestamp, bucket, times, None, 0)
        rows = pa.array(keep)
        invalid = len(raw) - len(keep)
        return cls(given.paths, files, stored, schema, source.timestamp, bucket, times.take(rows), rows, invalid)

    def column(self, name: str, *, categorical: bool = False) -> pa.Array:
        """All values of a column, by bucket; on request as a dictionary of its categories."""
        column = _read(self.files, name)
        if categorical and not isinstance(column.type, pa.DictionaryType):
            column = column.dictionary_encode()
        return column if self.keep is None else column.take(self.keep)

    def span(self) -> tuple[datetime, datetime] | tuple[None, None]:
        """The first and the last event time; None where there are none."""
        if self.times is None or not len(self.times):
            return None, None
        found = pc.min_max(self.times.cast(pa.int64()))
        low, high = (_EPOCH + timedelta(microseconds=found[end].as_py()) for end in ("min", "max"))
        return low, high

    def buckets(self) -> dict[int, Profile]:
        """Rows and times of each bucket, without features."""
        return self._profiles((), {})

    def profiles(self, spec: Spec, column: pa.Array, at: Ints | None = None) -> dict[int, FeatureProfile]:
        """The profile of a feature in each bucket that has rows.

        Args:
            spec: of a whole column.
            column: its values, as `column` gives them.
            at: places of the rows that these are, rising; None for all.
        """
        found = self._profiles((spec,), {spec.name: column}, at)
        return {start: profile.features[spec.name] for start, profile in found.items()}

    def products(self, pairs: PairSpec) -> dict[int, Products]:
        """The products of these features in each bucket, batch by batch."""
        timestamp = None if self.times is None else self.timestamp
        batches = self._batches([*pairs.names, *([] if timestamp is None else [timestamp])], timestamp)
        found = profile_buckets((), batches, timestamp=timestamp, bucket=self.bucket, pairs=pairs)
        return {start: profile.products for start, profile in found.items() if profile.products is not None}

    def ids(self, name: str | None) -> Ids | None:
        """What is kept of the row ids; None when the training data has none."""
        if name is None or name not in self.schema.names:
            return None
        ids = Ids.of(hash_ids(self.column(name)))
        level, kept = ids.level, len(ids.hashes)
        while kept > _IDS_STORED and level < 63:
            level += 1
            kept = int(np.searchsorted(ids.hashes, np.uint64(1 << (64 - level))))
        return Ids(ids.hashes[:kept], ids.counts[:kept], level, ids.rows)

    def sample(self, columns: list[str], limit: int, seed: int) -> pa.Table:
        """A bounded sample of whole rows."""
        return sample_rows(self.files, None, columns, limit, timestamp=self.timestamp, seed=seed)

    def _batches(self, columns: list[str], timestamp: str | None) -> Iterator[pa.RecordBatch]:
        """Some columns of the rows that have an event time, as they come."""
        for split in self.files.splits(None):
            for batch in self.files.batches(split, columns):
                if timestamp is not None and batch.column(timestamp).null_count:
                    yield batch.filter(batch.column(timestamp).is_valid())
                else:
                    yield batch

    def _profiles(
        self, specs: tuple[Spec, ...], columns: Mapping[str, pa.Array], at: Ints | None = None
    ) -> dict[int, Profile]:
        if self.times is None:
            batch = pa.RecordBatch.from_pydict(dict(columns or {"": _read(self.files, self.schema.names[0])}))
            return profile_buckets(specs, [batch], bucket=self.bucket) if batch.num_rows else {}
        times = self.times if at is None else self.times.take(as_arrow(at))
        batch = pa.RecordBatch.from_pydict({_TIME: times, **columns})
        return profile_buckets(specs, [batch], timestamp=_TIME, bucket=self.bucket)


def as_parquet(files: Files, kinds: Mapping[str, Kind], target: Path) -> Files:
    """The same rows with types. Text has none; it and vectors would be read anew for every column."""
    if set(files.formats.values()) == {"parquet"} and not any(flat.has_vectors for flat in files.flats()):
        return files
    found: dict[str, Kind | None] = {}
    for path, form in files.formats.items():
        if form != "csv" and form != "jsonl":  # noqa: PLR1714 - mypy narrows this form only
            continue
        for name, kind in text_kinds(path, form).items():
            known = found.get(name)
            found[name] = kind if known is None or known == kind else known if kind is None else "categorical"
    known_kinds = {name: kind for name, kind in found.items() if kind is not None}
    typed = files.typed(known_kinds | dict(kinds))
    schema = typed.columns()
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as writer:
        for split in typed.splits(None):
            for batch in typed.batches(split, schema.names):
                writer.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=_ROW_GROUP)
    return files.at(str(target))


def _read(files: Files, name: str) -> pa.Array:
    """A whole column as one array."""
    dtype = files.columns().field(name).type
    chunks = [batch.column(name) for split in files.splits(None) for batch in files.batches(split, [name])]
    if not chunks:
        return pa.array([], dtype)
    if isinstance(chunks[0].type, pa.DictionaryType):
        return pa.chunked_array(chunks).unify_dictionaries().combine_chunks()
    if any(chunk.type != chunks[0].type for chunk in chunks):
        chunks = [chunk.cast(dtype) for chunk in chunks]
    return pa.chunked_array(chunks).combine_chunks()
