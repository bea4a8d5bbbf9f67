"""The writer of a spool: rows into a journal, full journals into Parquet files, small files into larger ones.

What a crash interrupts is done again at the next start: a journal is deleted only when its rows are in a file, and
a file only when its rows are in another.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.core.errors import DriftMonitorError
from drift_monitor.intake.compaction import next_merge, to_delete
from drift_monitor.intake.journal import Journal, read_frames
from drift_monitor.intake.layout import Layout
from drift_monitor.intake.rows import joined
from drift_monitor.intake.seen import Keys, Seen, keep
from drift_monitor.reference.version import sync_folder
from drift_monitor.sources.spool import Piece, all_pieces, current, piece_name

ROLL_BYTES: Final = 64 * 2**20
"""Bytes of a journal that becomes a file."""
ROLL_AGE: Final = 15.0
"""Seconds after its first rows a journal becomes a file, if nobody asks before."""
MOST_SEALING: Final = 3
"""Full journals that may wait to become files; then nothing more is taken until there is room."""
GRACE: Final = timedelta(minutes=15)
"""How long a file stays after its rows are in another, for checks that have begun to read it."""
_GROUP_ROWS: Final = 1 << 17
_GROUP_BYTES: Final = 64 * 2**20
_JOURNAL: Final = ".journal-"
_NEW: Final = ".new-"
_OFFSETS: Final = b"drift_monitor.offsets"
_LOCK_PATIENCE: Final = 10.0  # seconds; a writer that lost its daemon is killed at once
Offsets = dict[str, dict[str, int]]  # topic -> partition -> the next message to read


class SpoolError(DriftMonitorError):
    """A spool cannot be used."""


class Spool:
    """One monitor's rows.

    Args:
        folder: made if it is not there.
        layout: of the rows.
        keep: how long after their arrival rows are kept.

    Attributes:
        keys: of what was taken before.
        waiting: JSON documents that wait, by id: they are put in each new journal, until they are resolved.
        offsets: where Kafka was read to.

    Raises:
        SpoolError: another process writes there.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder: Path, layout: Layout, keep: timedelta) -> None:
        self.folder, self.layout, self.keep = folder, layout, keep
        self.waiting: dict[str, dict[str, Any]] = {}
        self.offsets: Offsets = {}
        self._journal: Journal | None = None
        self._since: float | None = None
        self._sealing = 0
        self._count = threading.Lock()
        self._laid_out: set[Path] = set()  # files that are known to have the columns of now
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder)
        try:
            for path in folder.glob(f"{_NEW}*"):
                path.unlink()
            self.keys = Keys(folder)
            self._number = self._recover()
        except BaseException:
            os.close(self._lock)
            raise

    # -- taking rows -------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether so much waits to become files that no more is to be taken now."""
        return self._sealing >= MOST_SEALING

    def append(
        self,
        batch: pa.RecordBatch | None,
        *,
        keys: Sequence[tuple[bytes, Seen]] = (),
        resolved: Sequence[str] = (),
        waits: Mapping[str, dict[str, Any]] | None = None,
        offsets: Offsets | None = None,
    ) -> str:
        """Put rows and what goes with them in the journal, together: they are durable after `sync`.

        Args:
            batch: in the layout; None for none.
            keys: under which they were sent.
            resolved: ids of what waits no more.
            waits: what waits from now on, by id.
            offsets: where Kafka was read to with these rows.

        Returns:
            An id of what was appended.

        Raises:
            OSError: it cannot be written; nothing of it was taken.
        """
        header: dict[str, Any] = {"kind": "rows" if batch is not None and batch.num_rows else "other"}
        header["keys"] = [[key.hex(), seen.body.hex(), seen.rows, seen.until] for key, seen in keys]
        header |= {"resolved": list(resolved), "waits": dict(waits or {})}
        if offsets is not None:
            header["offsets"] = offsets
        journal = self._journal or self._begin()
        rows = batch.num_rows if batch is not None else 0
        journal.append(header, batch.serialize() if batch is not None and rows else b"")
        for key, seen in keys:
            self.keys.add(key, seen)
        for identifier in resolved:
            self.waiting.pop(identifier, None)
        self.waiting |= waits or {}
        if offsets is not None:
            self.offsets = offsets
        if self._since is None:
            self._since = time.monotonic()
        return f"{self._number}-{journal.size}"

    def sync(self) -> None:
        """Wait until all that was appended is on disk.

        Raises:
            OSError: it is not, and whether it will be is not known.
        """
        if self._journal is not None:
            self._journal.sync()

    @property
    def is_due(self) -> bool:
        """Whether the journal should become a file."""
        if self._journal is None or self._since is None:
            return False
        return self._journal.size >= ROLL_BYTES or time.monotonic() - self._since >= ROLL_AGE

    def roll(self) -> Callable[[], None] | None:
        """Begin a new journal.

        Returns:
            What makes a file of the old one, to be called once, from any thread, in the order of the journals;
            None if there is nothing to make one of.

        Raises:
            OSError: no journal can be begun.
        """
        if self._journal is None or self._since is None:
            return None
        old, number = self._journal, self._number
        old.sync()
        old.close()
        self._journal = self._since = None
        self._number += 1
        if self.waiting:
            self._begin()
        with self._count:
            self._sealing += 1

        def make_file() -> None:
            self._seal(number)
            with self._count:
                self._sealing -= 1

        return make_file

    def close(self) -> None:
        """Make a file of what is in the journal, and give up the folder.

        Raises:
            OSError: a file cannot be written; the journal stays, for the next start.
        """
        try:
            seal = self.roll()
            if seal is not None:
                seal()
            if self._journal is not None:
                self._journal.sync()
                self._journal.close()
        finally:
            os.close(self._lock)

    def _begin(self) -> Journal:
        path = self._path(self._number)
        try:
            journal = Journal(path, self.layout.schema)
            if self.waiting:
                journal.append({"kind": "other", "waits": self.waiting})
            journal.sync()
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._journal = journal
        return journal

    def _path(self, number: int) -> Path:
        return self.folder / f"{_JOURNAL}{number:012d}"

    # -- at the start ------------------------------------------------------------------------------

    def _recover(self) -> int:
        """Make files of journals that a crash left, and see what was taken; the number of the next journal."""
        pieces = current(all_pieces(self.folder))
        if not pieces:
            self._write_empty()
            pieces = current(all_pieces(self.folder))
        self.offsets = _offsets(pieces[-1].path)
        left = {int(path.name.removeprefix(_JOURNAL)): path for path in self.folder.glob(f"{_JOURNAL}*")}
        for number in sorted(left):
            for header, _ in read_frames(left[number]):
                for identifier in header.get("resolved", ()):
                    self.waiting.pop(identifier, None)
                self.waiting |= header.get("waits", {})
                for key, seen in _keys_of(header):
                    self.keys.add(key, seen)
                self.offsets = header.get("offsets", self.offsets)
        following = max([pieces[-1].last, *left]) + 1
        if self.waiting and left:  # into a journal that stays, before those that held them go
            self._number = following
            self._begin()
        for number in sorted(left):
            if any(piece.first <= number <= piece.last for piece in pieces):
                left[number].unlink()  # its file got its name just before the crash
            else:
                self._seal(number)
        return following

    def _write_empty(self) -> None:
        """A file without rows, from which readers know the columns."""
        hour = _hour(datetime.now(UTC))
        with self._new_file(piece_name(0, 0, hour), {}):
            pass

    # -- files -------------------------------------------------------------------------------------

    def _seal(self, number: int) -> None:
        """Make a file of a journal, and delete that."""
        path = self._path(number)
        hour = _hour(datetime.fromtimestamp(path.stat().st_mtime, UTC)) if path.stat().st_size else None
        keys: list[tuple[bytes, Seen]] = []
        offsets: Offsets | None = None
        rows = 0
        for header, _ in read_frames(path):
            keys += _keys_of(header)
            offsets = header.get("offsets", offsets)
            rows += header["kind"] == "rows"
        keep(self.folder, keys)
        if hour is not None and (rows or offsets is not None):
            metadata = {} if offsets is None else {_OFFSETS: json.dumps(offsets).encode()}
            with self._new_file(piece_name(number, number, hour), metadata) as write:
                schema: pa.Schema | None = None
                for header, body in read_frames(path):
                    if header["kind"] == "schema":
                        schema = pa.ipc.read_schema(pa.py_buffer(body))
                    elif header["kind"] == "rows":
                        write(pa.ipc.read_record_batch(body, schema))
        path.unlink()

    def tidy(self, now: datetime) -> bool:
        """Do one thing that is to be done about the files; whether there was any.

        Not at the same time as another call or a journal becoming a file.

        Raises:
            OSError: files cannot be read or written.
        """
        everything = all_pieces(self.folder)
        if doomed := to_delete(everything, now, self.keep, GRACE):
            for piece in doomed:
                piece.path.unlink(missing_ok=True)
            return True
        counting = current(everything)
        merge = next_merge(counting, now, self.keep)
        if not merge:
            merge = next(([p] for p in counting if not self._is_in_layout(p)), [])
        if merge:
            self._merge(merge)
            return True
        return False

    def _is_in_layout(self, piece: Piece) -> bool:
        if piece.path not in self._laid_out:
            with pq.ParquetFile(piece.path) as file:
                if not file.schema_arrow.equals(self.layout.schema):
                    return False
            self._laid_out.add(piece.path)
        return True

    def _merge(self, pieces: Sequence[Piece]) -> None:
        """Put files together; those whose columns were others get the columns of now."""
        offsets = _offsets(pieces[-1].path)
        metadata = {_OFFSETS: json.dumps(offsets).encode()} if offsets else {}
        name = piece_name(pieces[0].first, pieces[-1].last, pieces[-1].hour)
        with self._new_file(name, metadata) as write:
            for piece in pieces:
                with pq.ParquetFile(piece.path) as file:
                    for batch in file.iter_batches(_GROUP_ROWS, use_threads=False):
                        write(batch)

    @contextmanager
    def _new_file(self, name: str, metadata: Mapping[bytes, bytes]) -> Iterator[Callable[[pa.RecordBatch], None]]:
        """A file that gets its name when it is whole and on disk."""
        schema = self.layout.schema
        temporary = self.folder / f"{_NEW}{name}"
        text = [each.name for each in schema if pa.types.is_string(each.type)]
        held: list[pa.RecordBatch] = []
        rows = size = 0
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=text) as writer:

                def flush() -> None:
                    nonlocal rows, size
                    if held:  # put together first: many small chunks are slow to write
                        writer.write_batch(joined(held), row_group_size=_GROUP_ROWS)
                        held.clear()
                        rows = size = 0

                def write(batch: pa.RecordBatch) -> None:
                    nonlocal rows, size
                    held.append(_in_layout(batch, schema))
                    rows, size = rows + batch.num_rows, size + held[-1].get_total_buffer_size()
                    if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
                        flush()

                yield write
                flush()
                writer.add_key_value_metadata(metadata)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / name)
        sync_folder(self.folder)
        self._laid_out.add(self.folder / name)


def _keys_of(header: Mapping[str, Any]) -> list[tuple[bytes, Seen]]:
    found = header.get("keys", ())
    return [(bytes.fromhex(key), Seen(bytes.fromhex(body), rows, until)) for key, body, rows, until in found]


def _in_layout(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the columns of a schema: what it lacks, or what cannot be cast, is null."""
    if batch.schema.equals(schema):
        return batch
    arrays = []
    for each in schema:
        at = batch.schema.get_field_index(each.name)
        column = pa.nulls(batch.num_rows, each.type) if at < 0 else batch.column(at)
        try:
            arrays.append(column.cast(each.type))
        except pa.ArrowException:
            arrays.append(pa.nulls(batch.num_rows, each.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _offsets(path: Path) -> Offsets:
    with pq.ParquetFile(path) as file:
        found: Offsets = json.loads((file.metadata.metadata or {}).get(_OFFSETS, b"{}"))
    return found


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _locked(folder: Path) -> int:
    """A lock on a folder that the kernel drops when the process dies."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    give_up = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                os.close(lock)
                raise SpoolError(f"another process writes in the spool {folder}: no two may") from None
            time.sleep(0.05)
        else:
            return lock
