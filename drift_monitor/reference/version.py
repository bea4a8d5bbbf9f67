"""A version of a reference: opened, listed, put in place. What is opened is what was built, or it is refused."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.history import Grid, History, grid_of
from drift_monitor.core.products import PairSpec, Products
from drift_monitor.core.products_io import COLUMNS, pairs_of, products_from_table
from drift_monitor.core.profile import Ints, NumericProfile, NumericSpec, Profile, Spec
from drift_monitor.core.profile_io import (
    PROFILES,
    history_from_table,
    profiles_from_tables,
    profiles_to_table,
    specs_from_table,
)
from drift_monitor.core.types import ReferenceId
from drift_monitor.reference.manifest import NAME, FileHash, Manifest, read_manifest

CURRENT: Final = "CURRENT"
CELLS, WHOLE, BUCKETS, SAMPLE = "cells.parquet", "profile.parquet", "buckets.parquet", "sample.parquet"
PAIRS: Final = "pairs.parquet"
FILES: Final = (CELLS, WHOLE, BUCKETS, PAIRS, SAMPLE)
MEMORY: Final = 1 << 28
"""Bytes of opened versions that a process keeps; the one opened last is kept whatever its size."""
SETTLED: Final = 2_000_000_000
"""Nanoseconds since the last change of a file after which another would show in its times."""
_VERSION: Final = re.compile(r"\d{4}-\d\d-\d\d-[0-9a-f]{12}", re.ASCII)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, eq=False)
class Reference:
    """An opened version.

    Attributes:
        folder: of the version.
        manifest: what it is.
        specs: the cells of each feature.
        profile: the whole training data on these cells.
    """

    folder: Path
    manifest: Manifest
    specs: tuple[Spec, ...]
    profile: Profile

    @property
    def id(self) -> ReferenceId:
        """What results say of it."""
        return self.manifest.id

    def sample(self) -> pa.Table:
        """A bounded sample of the training rows: features, prediction, label and timestamp.

        Raises:
            BadReferenceError: the file is damaged.
        """
        return _read(self.folder, SAMPLE, self.manifest)

    def buckets(self, features: Collection[str] | None = None) -> dict[int, Profile]:
        """The profiles of the buckets of event time, by start in microseconds since 1970.

        A dense profile takes about 32 kB a bucket and numeric feature: ask for few features of a long reference.

        Args:
            features: only these; None for all.

        Raises:
            BadReferenceError: the file is damaged.
        """
        return self._merged(self.names if features is None else features)

    @cached_property
    def pairs(self) -> PairSpec | None:
        """The features whose products are kept; None when there are fewer than two numeric ones.

        Raises:
            BadReferenceError: the file is damaged.
        """
        _verify(self.folder, PAIRS, self.manifest)
        with _readable(self.folder / PAIRS) as file:
            return pairs_of(file.schema_arrow)

    def products(self) -> dict[int, Products]:
        """The products of these features in the buckets of event time, by start in microseconds since 1970.

        At most 17 kB a bucket.

        Raises:
            BadReferenceError: the file is damaged.
        """
        return products_from_table(_read(self.folder, PAIRS, self.manifest))

    def windows(self, length: timedelta, *, at_most: int, cache: Path | None = None) -> dict[int, Profile]:
        """The reference cut into windows of the live length, aligned to 1970.

        Unfinished windows at both ends and windows without rows are left out. All have their rows and their
        oldest and newest event; when there are more than `at_most`, only that many, evenly spaced, have features.

        Args:
            length: of the windows, a whole number of buckets.
            at_most: windows with features.
            cache: a folder to keep them in, since to put a long reference together takes seconds.

        Raises:
            BadReferenceError: the file is damaged.
        """
        bucket = self.manifest.bucket_length
        if self.manifest.timestamp is None or length % bucket:
            return {}
        width = length // _MICROSECOND
        kept = None if cache is None else cache / f"windows-{self.manifest.sha256[:24]}-{width}-{at_most}.parquet"
        if kept is not None and kept.is_file():
            try:
                return profiles_from_tables(_row_groups(kept, self.names), self.specs)
            except BadReferenceError:
                kept.unlink()
        present = list(self._merged(()))
        first, last = min(present), max(present) + bucket // _MICROSECOND
        starts = sorted({start // width * width for start in present})
        starts = [start for start in starts if first <= start and start + width <= last]
        step = -(-len(starts) // at_most) if starts else 1
        found = self._merged(self.names, width, starts[::step])
        found = {start: found[start] for start in starts if found[start].rows}
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
            with parquet_writer(temporary, PROFILES) as writer:
                writer.write_table(profiles_to_table(found, self.specs))
            temporary.replace(kept)
        return found

    @property
    def grid(self) -> Grid:
        """The buckets of event time from the first row to the last.

        Raises:
            BadReferenceError: the file is damaged.
        """
        return grid_of(list(self._merged(())), self.manifest.bucket_length // _MICROSECOND)

    def rows_by_bucket(self) -> Ints:
        """Rows in each bucket of `grid`, shape (buckets,)."""
        grid = self.grid
        rows = np.zeros(grid.size, np.int64)
        for start, profile in self._merged(()).items():
            rows[(start - grid.start) // grid.width] = profile.rows
        return rows

    def histories(self, features: Collection[str] | None = None) -> Iterator[tuple[Spec, History]]:
        """The counts of each feature over time, on `grid`, one after the other.

        Args:
            features: only these; None for all.

        Raises:
            BadReferenceError: the file is damaged.
        """
        grid = self.grid
        _verify(self.folder, BUCKETS, self.manifest)
        by_name = {spec.name: spec for spec in self.specs}
        wanted = by_name.keys() if features is None else set(features)
        parts = _row_groups(self.folder / BUCKETS, wanted)
        seen: set[str] = set()
        for name, tables in groupby(parts, key=lambda table: table["feature"][0].as_py() if len(table) else None):
            if name is not None and name in wanted:
                seen.add(name)
                yield by_name[name], history_from_table(by_name[name], pa.concat_tables(tables), grid)
        if missing := sorted(wanted - seen):
            raise BadReferenceError(f"{self.folder / BUCKETS} has no buckets of {missing[0]!r}")

    @cached_property
    def memory(self) -> int:
        """Bytes that the cells and the profile take."""
        cells = sum(spec.edges.nbytes for spec in self.specs if isinstance(spec, NumericSpec))
        whole = self.profile
        numeric = [p for p in whole.features.values() if isinstance(p, NumericProfile)]
        arrays = [*(p.counts for p in whole.features.values()), *(p.sums for p in numeric)]
        ids = [] if whole.ids is None else [whole.ids.hashes, whole.ids.counts]
        return cells + sum(array.nbytes for array in (*arrays, *ids))

    @property
    def names(self) -> list[str]:
        """The features."""
        return [spec.name for spec in self.specs]

    def _merged(
        self, names: Collection[str], width: int | None = None, only: Collection[int] | None = None
    ) -> dict[int, Profile]:
        """Buckets merged to a width; feature by feature, since a long reference is large in one piece."""
        _verify(self.folder, BUCKETS, self.manifest)
        return profiles_from_tables(_row_groups(self.folder / BUCKETS, names), self.specs, width=width, only=only)


def open_reference(path: Path, version: str | None = None, *, thorough: bool = True) -> Reference:
    """Open a version and check that nothing in it has changed.

    A process that opens the same version again, as a worker does for each window, gets the same object, as long as
    no file of it was touched in between.

    Args:
        path: a reference folder, or a version folder in it.
        version: which; None for the one that CURRENT names.
        thorough: check the hash of every file now; else that of the others when they are read.

    Raises:
        BadReferenceError: there is none, it is damaged (the message names the file), or its format is unknown.
    """
    folder = _version_folder(path, version)
    state = _state_of(folder)
    found = None if thorough else _known.get(folder, state)
    if found is None:
        found = _opened(folder, thorough=thorough)
        _known.keep(folder, state, found)
    return found


def _opened(folder: Path, *, thorough: bool) -> Reference:
    manifest = read_manifest(folder)
    if _VERSION.fullmatch(folder.name) and not folder.name.endswith(manifest.sha256[:12]):
        raise BadReferenceError(f"{folder} holds version {manifest.version}: its folder was renamed or swapped")
    missing = sorted(set(FILES) - manifest.files.keys())
    if missing:
        raise BadReferenceError(f"{folder / NAME} does not list {missing[0]}")
    if thorough:
        for name in FILES:
            _verify(folder, name, manifest)
    specs = specs_from_table(_read(folder, CELLS, manifest))
    profiles = profiles_from_tables([_read(folder, WHOLE, manifest)], specs)
    return Reference(folder, manifest, specs, profiles[0])


_State = tuple[tuple[int, int, int, int], ...]
"""Inode, size, and times of the last changes (content, status), in ns, of each file of a version."""


class _Known:
    """The versions that were opened last, as far as there is memory for them."""

    def __init__(self) -> None:
        self._opened: OrderedDict[Path, tuple[_State, Reference]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, folder: Path, state: _State | None) -> Reference | None:
        """A version whose files are as they were."""
        with self._lock:
            before, reference = self._opened.get(folder, (None, None))
            if state is None or before != state:
                return None
            self._opened.move_to_end(folder)
            return reference

    def keep(self, folder: Path, state: _State | None, reference: Reference) -> None:
        """Remember a version, and forget those that were not asked for longest."""
        newest = max((change for *_, change in state or ()), default=0)
        if state is None or newest > time.time_ns() - SETTLED:
            return
        with self._lock:
            self._opened[folder] = state, reference
            self._opened.move_to_end(folder)
            while sum(kept.memory for _, kept in self._opened.values()) > MEMORY and len(self._opened) > 1:
                self._opened.popitem(last=False)


_known: Final = _Known()


def _state_of(folder: Path) -> _State | None:
    """What tells that a file of a version was touched; None where one is missing."""
    try:
        found = [os.stat(folder / name) for name in (NAME, *FILES)]
    except OSError:
        return None
    return tuple((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found)


def list_references(folder: Path) -> list[Manifest]:
    """The manifests of the versions in a reference folder, oldest first.

    Raises:
        BadReferenceError: it is no folder, or one of its manifests is damaged.
    """
    if not folder.is_dir():
        raise BadReferenceError(f"{folder} is no folder")
    found = [read_manifest(path) for path in folder.iterdir() if _VERSION.fullmatch(path.name)]
    return sorted(found, key=lambda manifest: (manifest.created, manifest.version))


def is_reference(path: Path) -> bool:
    """Whether a path is a reference folder or a version folder."""
    return (path / CURRENT).is_file() or (path / NAME).is_file()


def find_version(folder: Path, sha256: str) -> Path | None:
    """The version folder with this content, whenever it was created."""
    found = [p for p in folder.glob(f"*-{sha256[:12]}") if _VERSION.fullmatch(p.name)] if folder.is_dir() else []
    return found[0] if found else None


def make_current(folder: Path, version: str) -> None:
    """Let CURRENT name a version, in one step."""
    temporary = folder / f".{CURRENT}.{os.getpid()}"
    write_durably(temporary, version.encode() + b"\n")
    temporary.replace(folder / CURRENT)
    sync_folder(folder)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hash_file(path: Path) -> FileHash:
    """Length and sha256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileHash(bytes=file.tell(), sha256=digest)


def _version_folder(path: Path, version: str | None) -> Path:
    if version is None and (path / NAME).is_file():
        return path
    if not path.is_dir():
        raise BadReferenceError(f"{path} is no reference folder" + ("" if path.exists() else ": there is nothing"))
    if version is None:
        try:
            version = (path / CURRENT).read_text("utf-8").strip()
        except FileNotFoundError:
            raise BadReferenceError(
                f"{path} is no reference folder: it has no file {CURRENT}; make one with "
                "`drift-monitor reference build`"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadReferenceError(f"{path / CURRENT} cannot be read: {error}") from error
    if not _VERSION.fullmatch(version) or not (path / version).is_dir():
        known = ", ".join(sorted(p.name for p in path.iterdir() if _VERSION.fullmatch(p.name))) or "none"
        raise BadReferenceError(f"{path} has no version {version!r} (it has: {known})")
    return path / version


def _verify(folder: Path, name: str, manifest: Manifest) -> None:
    path, wanted = folder / name, manifest.files[name]
    try:
        found = hash_file(path)
    except OSError as error:
        raise BadReferenceError(
            f"{path} cannot be read: {error.strerror}; restore it, or build the version again"
        ) from error
    if found != wanted:
        raise BadReferenceError(
            f"{path} is damaged: it has {found.bytes} bytes with sha256 {found.sha256[:12]}..., the manifest says "
            f"{wanted.bytes} bytes with {wanted.sha256[:12]}...; restore it, or build the version again"
        )


def _read(folder: Path, name: str, manifest: Manifest) -> pa.Table:
    """Read a file that is what the manifest says."""
    _verify(folder, name, manifest)
    with _readable(folder / name) as file:
        return file.read(use_threads=False)


def _row_groups(path: Path, features: Collection[str]) -> Iterator[pa.Table]:
    """The row groups of a file of profiles, but those that hold other features only."""
    with _readable(path) as file:
        for i in range(file.num_row_groups):
            found = file.metadata.row_group(i).column(0).statistics
            one = found is not None and found.has_min_max and found.min == found.max and not found.null_count
            if not (one and found.min not in features):
                yield file.read_row_group(i, use_threads=False)


@contextmanager
def _readable(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise BadReferenceError(f"{path} cannot be read: {error}") from error


@contextmanager
def parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A file on disk, with encodings that suit sparse counts and sums where it holds profiles or products."""
    sparse = {"cells": "DELTA_BINARY_PACKED", "counts": "DELTA_BINARY_PACKED", "sums": "BYTE_STREAM_SPLIT"}
    dense = {"sums": "BYTE_STREAM_SPLIT", "products": "BYTE_STREAM_SPLIT"}
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    for known, dictionary, chosen in ((PROFILES, ["feature"], sparse), (COLUMNS, False, dense)):
        if schema == known:
            encodings = {f"{name}.list.element": encoding for name, encoding in chosen.items()}
            options |= {"use_dictionary": dictionary, "column_encoding": encodings}
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, **options) as writer:
            yield writer
        file.flush()
        os.fsync(file.fileno())
