"""The SQLite file under the store: opened once, checked, migrated; transactions; errors as sentences."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Self
from urllib.parse import quote

from drift_monitor.core.errors import StoreError
from drift_monitor.service.lock import explain_os_error

# script n brings a database from version n to n + 1
MIGRATIONS = ("schema.sql", "schema2.sql", "schema3.sql", "schema4.sql")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
APPLICATION_ID = 0x44724D6F  # marks the file as ours: "DrMo"
_NAMED = re.compile(r"^-- name: (\w+)\n-- (.+)\n((?:(?!-- name: ).*\n?)+)", re.MULTILINE)
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space; what was not stored was rolled back",
    sqlite3.SQLITE_IOERR: "cannot be read or written: check the disk, its space, quotas and file-size limits; "
    "what was not stored was rolled back",
    sqlite3.SQLITE_READONLY: "is read-only: let this user write it and its folder, or set another `state` folder",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that it is a file and that its folder can be written",
    sqlite3.SQLITE_PERM: "cannot be opened: let this user read and write it",
    sqlite3.SQLITE_BUSY: "is locked by another program: close whatever has it open",
    sqlite3.SQLITE_LOCKED: "is locked by another program: close whatever has it open",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def load_queries() -> dict[str, str]:
    """The statements of queries.sql by name."""
    text = files(__package__).joinpath("queries.sql").read_text("utf-8")
    return {name: sql.strip() for name, _, sql in _NAMED.findall(text)}


class Database:
    """One connection that any thread may use, one transaction at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._lock = threading.RLock()
        self._open = True
        self._queries: Mapping[str, str] = load_queries()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the database, make it when it is not there, bring it to this program's version.

        The check comes first and over a read-only connection, so that a damaged file stays as it was found.

        Raises:
            StoreError: not a database of ours, damaged, newer than this program, or it cannot be written.
        """
        if not path.exists():
            _create(path)
        with _as_store_errors(path):
            version = _check(path)
            connection = _connect(path)
            try:
                _migrate(connection, path, version)
                connection.execute("PRAGMA journal_size_limit = 16777216")
            except BaseException:
                connection.close()
                raise
        return cls(path, connection)

    def close(self) -> bool:
        """Close the connection; further use is a StoreError. False when it was closed already."""
        with self._lock:
            was_open, self._open = self._open, False
            self._connection.close()
        return was_open

    @property
    def changes(self) -> int:
        """Rows changed since the connection was made."""
        return self._connection.total_changes

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[Self]:
        """All or nothing. Nothing else happens in between.

        Raises:
            StoreError: the database cannot be used, the disk is full, and the like; nothing was stored.
        """
        with self._lock, _as_store_errors(self._path):
            if not self._open:
                raise StoreError(f"{self._path} is closed")
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield self
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself rolls back after some errors
                    self._connection.execute("ROLLBACK")
                raise

    def run(self, query: str, /, **values: str | bytes | float | None) -> sqlite3.Cursor:
        """Execute a named query inside a transaction."""
        return self._connection.execute(self._queries[query], values)


def _create(path: Path) -> None:
    """Make a new database beside its place and move it there: a half-made one is never taken for a damaged one."""
    for stray in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-journal")):
        if stray.exists() and stray.stat().st_size:  # SQLite would replay it into the new file
            raise StoreError(
                f"{stray} is there, but {path} is not: put the database back, or move this file away too "
                "to start with an empty state"
            )
    draft = path.with_name(path.name + ".new")
    try:
        for leftover in (draft, *(draft.with_name(draft.name + end) for end in ("-journal", "-wal", "-shm"))):
            leftover.unlink(missing_ok=True)
        with _as_store_errors(draft):
            connection = _connect(draft)
            with closing(connection):
                _migrate(connection, draft, 0)
        draft.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(explain_os_error(path, error)) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def inspect(path: Path) -> int:
    """Check a database without changing it; the version it has.

    Raises:
        StoreError: not a database of ours, damaged, newer than this program, or it cannot be read.
    """
    with _as_store_errors(path):
        return _check(path)


def _check(path: Path) -> int:
    """Refuse what is damaged, foreign or too new; the version of what is left."""
    with closing(
        sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5)
    ) as connection:
        application: int = connection.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION_ID:
            what = "is empty" if path.stat().st_size == 0 else "is not a database of drift-monitor"
            raise StoreError(f"{path} {what}: {_REMEDY}")
        found = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        if found != ["ok"]:
            raise StoreError(_corrupt(path, "; ".join(found)))
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} has version {version}, and this drift-monitor knows versions up to {len(MIGRATIONS)}: "
            "run the newer drift-monitor that wrote it"
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        sql = files(__package__).joinpath(script).read_text("utf-8")
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error as error:
            error.add_note(f"while bringing {path} to version {number}")
            raise


_REMEDY = (
    "restore it from a backup, or move it away (with its -wal and -shm files) to start with an empty state; "
    "it was left as it is"
)


def _corrupt(path: Path, detail: str) -> str:
    return f"{path} is damaged ({detail}): {_REMEDY}"


@contextmanager
def _as_store_errors(path: Path) -> Iterator[None]:
    """Turn what a person can act on into a StoreError; a mistake in our SQL stays what it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        sentence = _explain(path, error)
        if sentence is None:
            raise
        raise StoreError(sentence) from error


def _explain(path: Path, error: sqlite3.DatabaseError) -> str | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the low byte is the primary code
    if code in _BROKEN:
        return _corrupt(path, str(error))
    advice = _ADVICE.get(code)
    return advice and f"{path}: {advice} ({error})"


def stamp_of(when: datetime) -> int:
    """A time as the database has it: microseconds since 1970-01-01 UTC."""
    return (when - _EPOCH) // _MICROSECOND


def time_of(stamp: int) -> datetime:
    """The inverse of `stamp_of`."""
    return _EPOCH + stamp * _MICROSECOND
