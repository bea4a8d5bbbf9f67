"""The training rows of weights: sampled once, streamed once, in the order of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from drift_monitor.actions.training_rows import decoded, open_training
from drift_monitor.actions.weights_manifest import File
from drift_monitor.config.models import Columns
from drift_monitor.core.arrow import as_arrow
from drift_monitor.core.errors import SchemaError
from drift_monitor.core.profile import Ints
from drift_monitor.core.weights_model import Words, places_of
from drift_monitor.reference.version import hash_file
from drift_monitor.sources.files import Files

Progress = Callable[[], None]


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Rows in the order of the files' names, and in these in the order of the file.

    Attributes:
        files: to read from; text has been rewritten as Parquet.
        schema: of the columns.
        given: the files as they are, with their hashes.
        splits: of `files`.
    """

    files: Files
    schema: pa.Schema
    given: tuple[File, ...]
    splits: Sequence[Any]

    @classmethod
    def open(cls, path: Path, columns: Columns, timezone: str, temporary: Path) -> Self:
        """Look at the training rows.

        Args:
            path: a file, a folder or a glob.
            columns: what they mean.
            timezone: of times that carry none.
            temporary: a folder, in which text is rewritten as Parquet.

        Raises:
            SourceError: something cannot be read.
            SchemaError: the files do not go together.
        """
        given, files, schema = open_training(str(path), columns, timezone, temporary)
        hashes = {each: hash_file(Path(each)) for each in given.paths}
        found = tuple(File(name=Path(p).name, bytes=h.bytes, sha256=h.sha256) for p, h in hashes.items())
        return cls(files, schema, found, files.splits(None))

    def batches(self, columns: Sequence[str], done: Progress) -> Iterator[tuple[int, pa.RecordBatch]]:
        """All rows, with the number of each batch's first row.

        Args:
            columns: to read; with none of them the rows are counted.
            done: called after each split.
        """
        start = 0
        names = list(columns) or self.schema.names[:1]
        for split in self.splits:
            for batch in self.files.batches(split, names):
                yield start, batch
                start += batch.num_rows
            done()

    def sample(self, columns: Sequence[str], limit: int, seed: int, done: Progress) -> tuple[pa.Table, Ints]:
        """Rows chosen by a hash of their number, in their order.

        Args:
            columns: of the sample.
            limit: rows at most.
            seed: another seed, another sample.
            done: called after each split.

        Returns:
            The rows, without dictionaries, and their numbers.

        Raises:
            SchemaError: there are no rows.
        """
        schema = pa.schema([self.schema.field(name) for name in columns])
        kept = schema.empty_table()
        numbers, places = np.empty(0, np.int64), np.empty(0, np.uint64)
        bound = np.uint64(2**64 - 1)
        for start, batch in self.batches(columns, done):
            own = np.arange(start, start + batch.num_rows)
            hashes = places_of(own, seed=seed)
            low = np.flatnonzero(hashes <= bound)
            if not len(low):
                continue
            part = batch.take(as_arrow(low))
            arrays = [decoded(part.column(f.name)).cast(f.type) for f in schema]
            kept = pa.concat_tables([kept, pa.Table.from_arrays(arrays, schema=schema)])
            numbers, places = np.concatenate((numbers, own[low])), np.concatenate((places, hashes[low]))
            if len(numbers) > 2 * limit:
                kept, numbers, places = _lowest(kept, numbers, places, limit)
                bound = places.max()
        if not len(numbers):
            raise SchemaError("the training file has no rows")
        kept, numbers, places = _lowest(kept, numbers, places, limit)
        return kept, numbers


def _lowest(kept: pa.Table, numbers: Ints, places: Words, limit: int) -> tuple[pa.Table, Ints, Words]:
    """The rows of the lowest hashes, in their order."""
    if len(numbers) > limit:
        chosen = np.sort(np.argpartition(places, limit - 1)[:limit])
        kept, numbers, places = kept.take(as_arrow(chosen)), numbers[chosen], places[chosen]
    return kept.combine_chunks(), numbers, places
