"""The database beside the store in which a monitor's buckets are kept: opened, closed, thrown away; footers.

It can be deleted while nobody uses it, at the cost of reading again.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Final

import pyarrow as pa

from drift_monitor.core.errors import DamagedError, StoreError
from drift_monitor.sources.parquet_files import Footer, RowGroup

FOLDER: Final = "buckets"
VERSION: Final = 3
# blobs of megabytes: in pages of 4 kB half of the time would go into their chains
PRAGMAS: Final = (
    "page_size = 65536",
    "journal_mode = WAL",
    "wal_autocheckpoint = 256",
    "synchronous = NORMAL",
    "foreign_keys = ON",
)


class BucketStore:
    """The database of one monitor; any number of processes may have it open, and one writes at a time.

    Raises:
        StoreError: it cannot be opened.
        DamagedError: it is not what this version writes.
        sqlite3.Error: SQLite refuses it.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock_of(path).open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path} cannot be opened ({error})") from error
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        for pragma in PRAGMAS:
            self._db.execute(f"PRAGMA {pragma}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:  # two processes may both find it so: the script makes what is not there
            script = resources.files(__package__).joinpath("buckets.sql").read_text("utf-8")
            self._db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {VERSION};\nCOMMIT;")
        elif version != VERSION:
            raise DamagedError(f"it has version {version}, and this drift-monitor writes {VERSION}")

    def close(self) -> None:
        """Let it be thrown away."""
        self._db.close()
        self._lock.close()

    def read(self, query: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """What a query finds now."""
        return self._db.execute(query, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, one process at a time."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself rolls back after some errors
                self._db.execute("ROLLBACK")
            raise

    def footers(self) -> dict[bytes, Footer]:
        """The Parquet footers that are known, by file."""
        rows = self.read("SELECT file, schema, row_groups FROM footers").fetchall()
        contents = self.read("SELECT id, content FROM schemas").fetchall()
        try:
            schemas = {number: pa.ipc.read_schema(pa.py_buffer(content)) for number, content in contents}
            return {
                file: Footer(schemas[schema], tuple(RowGroup(*group) for group in json.loads(groups)))
                for file, schema, groups in rows
            }
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"a kept footer is damaged ({type(error).__name__})") from error

    def keep_footers(self, found: Mapping[bytes, Footer]) -> None:
        """Remember these and forget all others."""
        known = {file for (file,) in self.read("SELECT file FROM footers")}
        if known == found.keys():
            return
        with self.transaction() as db:
            for file in found.keys() - known:
                content = found[file].schema.serialize().to_pybytes()
                db.execute("INSERT OR IGNORE INTO schemas (content) VALUES (?)", (content,))
                (schema,) = db.execute("SELECT id FROM schemas WHERE content = ?", (content,)).fetchone()
                groups = json.dumps([[g.rows, g.oldest, g.newest] for g in found[file].row_groups])
                db.execute("INSERT OR REPLACE INTO footers VALUES (?, ?, ?)", (file, schema, groups))
            db.executemany("DELETE FROM footers WHERE file = ?", [(file,) for file in known - found.keys()])
            db.execute("DELETE FROM schemas WHERE id NOT IN (SELECT schema FROM footers)")


def path_of(state: Path, monitor: str) -> Path:
    """Where a monitor's database is."""
    return state / FOLDER / f"{monitor}.db"


def is_damaged(error: Exception) -> bool:
    """Whether a database has to go: what it holds is not what was written."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, DamagedError) or (
        code is not None and code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
    )


def discard(path: Path) -> None:
    """Delete a damaged database, unless a process has it open; the next check makes another."""
    with suppress(OSError), _lock_of(path).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)


def _lock_of(path: Path) -> Path:
    """Held shared by who uses the database, and alone by who deletes it."""
    return path.with_suffix(".lock")
