"""Training data -> a version of a reference."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from drift_monitor.config.models import Columns
from drift_monitor.config.sources import FilesSource
from drift_monitor.core.arrow import as_arrow
from drift_monitor.core.errors import BadReferenceError, SchemaError, SourceError
from drift_monitor.core.policy import format_duration
from drift_monitor.core.products import PairSpec
from drift_monitor.core.products_io import products_to_table, schema_of
from drift_monitor.core.profile import (
    FeatureProfile,
    Profile,
    Spec,
    empty,
    merge_features,
    whole_columns,
)
from drift_monitor.core.profile_io import PROFILES, features_to_table, profiles_to_table, specs_to_table
from drift_monitor.core.types import Kind, segment_feature
from drift_monitor.reference.features import doubt, fit, plan
from drift_monitor.reference.manifest import NAME, Feature, Manifest, Training
from drift_monitor.reference.rows import Rows
from drift_monitor.reference.segments import EDGES, Slice, choose, free_name
from drift_monitor.reference.version import (
    BUCKETS,
    CELLS,
    FILES,
    PAIRS,
    SAMPLE,
    WHOLE,
    Reference,
    find_version,
    hash_file,
    make_current,
    open_reference,
    parquet_writer,
    sync_folder,
    write_durably,
)

_BUCKETS_WRITTEN: Final = 1000  # at once: 17 MB
_MOST_BYTES: Final = 1 << 31
"""Of one number's counts in all buckets, which a calibration holds at once: as much as a worker may have."""
_WIDTHS: Final = tuple(timedelta(seconds=s) for s in (10, 60, 300, 900, 3600, 4 * 3600, 86_400))


def build_reference(
    training: Path,
    folder: Path,
    *,
    columns: Columns,
    timestamp: str | None,
    bucket: timedelta,
    segments: Mapping[str, Sequence[str] | None] | None = None,
    timezone: str = "UTC",
    format: Literal["auto", "parquet", "csv", "jsonl"] = "auto",  # noqa: A002 - the name it has in the configuration
    created: datetime,
    seed: int = 0,
    sample_rows: int = 20_000,
    split: str = "",
    model_version: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Reference:
    """Build a version and make it the current one. The same data gives the same version again, not another.

    Args:
        training: a file, a folder or a glob: Parquet, CSV or JSONL.
        folder: of the reference; made if need be.
        columns: what the columns mean.
        timestamp: column of event time; None when there is none.
        bucket: length of the profiles that are kept.
        segments: whose features are watched apart: values by column, None for the frequent ones.
        timezone: of times that carry none.
        format: of the files; `auto` goes by their names.
        created: the time of the build.
        seed: of the row sample.
        sample_rows: rows in it at most.
        split: how the training rows were chosen, in words.
        model_version: of the model that was trained on the data.
        progress: called with (steps done, steps in all).

    Raises:
        BadReferenceError: the data cannot be read or used; the message names file and column.
    """
    source = FilesSource(path=str(training), format=format, timestamp=timestamp, timezone=timezone)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as temporary:
            target = Path(temporary) / "version"
            target.mkdir()
            texts: dict[str, Kind] = {} if columns.id is None else {columns.id: "categorical"}
            rows = Rows.open(source, {**texts, **columns.kinds}, bucket, Path(temporary))
            content = _write(
                rows, target, columns, segments or {}, seed, sample_rows, progress or (lambda _done, _all: None)
            )
            manifest = Manifest(
                version="",
                sha256="",
                created=created,
                training=_training(rows.paths),
                columns=columns,
                timestamp=timestamp,
                timezone=timezone,
                bucket=bucket.total_seconds(),
                split=split,
                seed=seed,
                model_version=model_version,
                packages=_packages(),
                files={name: hash_file(target / name) for name in FILES},
                **content,
            ).sealed()
            write_durably(target / NAME, manifest.to_json())
            version = _put_in_place(target, folder, manifest)
        make_current(folder, version)
    except (SourceError, SchemaError) as error:
        raise BadReferenceError(f"no reference can be built: {error}") from error
    except OSError as error:
        raise BadReferenceError(f"no reference can be built in {folder}: {error.strerror or error}") from error
    return open_reference(folder, version)


def _put_in_place(target: Path, folder: Path, manifest: Manifest) -> str:
    """Rename the finished version to its name, unless its content is there already and intact."""
    existing = find_version(folder, manifest.sha256)
    if existing is not None:
        try:
            open_reference(existing)
        except BadReferenceError:
            existing.rename(target.with_name("damaged"))
        else:
            return existing.name
    sync_folder(target)
    target.rename(folder / manifest.version)
    sync_folder(folder)
    return manifest.version


def _training(paths: Sequence[str]) -> Training:
    hashes = [hash_file(Path(path)) for path in paths]
    joined = hashlib.sha256("".join(h.sha256 for h in hashes).encode()).hexdigest()
    return Training(
        files=tuple(Path(path).name for path in paths),
        bytes=sum(h.bytes for h in hashes),
        sha256=hashes[0].sha256 if len(hashes) == 1 else joined,
    )


def _packages() -> dict[str, str]:
    names = ("drift-monitor", "numpy", "pyarrow", "scipy")
    return {"python": platform.python_version()} | {name: package_version(name) for name in names}


def _write(
    rows: Rows,
    target: Path,
    columns: Columns,
    segments: Mapping[str, Sequence[str] | None],
    seed: int,
    sample_rows: int,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write all files of a version but the manifest; returns what the manifest says of them."""
    planned, warnings = plan(rows.schema, columns, rows.timestamp)
    steps = len(planned) + 3
    _refuse_many(rows, columns.edges)
    buckets = rows.buckets()
    if not buckets:
        raise BadReferenceError(
            "no reference can be built: the training data has no rows with a readable event time"
        )
    slices, segmented, left_out = choose(segments, planned, rows)
    warnings += left_out
    with parquet_writer(target / BUCKETS, PROFILES) as writer:
        writer.write_table(profiles_to_table(buckets, ()))
        progress(1, steps)
        features = _Features(rows, slices, writer, columns.edges, warnings)
        for done, feature in enumerate(planned, 2):
            features.add(feature)
            progress(done, steps)
    specs, whole = features.specs, features.whole
    if not specs:
        raise BadReferenceError(
            "no reference can be built: no column of the training data is left to watch"
            + "".join(f"; {warning}" for warning in warnings)
        )
    if rows.invalid:
        warnings.append(f"{rows.invalid} rows were left out: column {rows.timestamp!r} has no usable time there")
    profile = replace(reduce(Profile.merge, buckets.values()), features=whole, ids=rows.ids(columns.id))
    _write_products(rows, target / PAIRS, PairSpec.fit(whole_columns(specs), whole))
    progress(steps - 1, steps)
    apart = [name for name in (columns.label, rows.timestamp) if name is not None and name in rows.schema.names]
    wanted = dict.fromkeys([*(feature.name for feature in features.watched), *apart])
    sample = rows.sample(list(wanted), sample_rows, seed)
    for name, table in (
        (CELLS, specs_to_table(specs)),
        (WHOLE, profiles_to_table({0: profile}, specs)),
        (SAMPLE, sample),
    ):
        with parquet_writer(target / name, table.schema) as writer:
            writer.write_table(table)
    progress(steps, steps)
    return {
        "rows": profile.rows,
        "invalid_rows": rows.invalid,
        "start": _moment(profile.oldest),
        "end": _moment(profile.newest),
        "schema_": {field.name: str(field.type) for field in rows.schema},
        "stored": {name: path for name, path in rows.stored.items() if name in rows.schema.names},
        "features": tuple(features.watched),
        "segments": tuple(segmented),
        "sample_rows": sample.num_rows,
        "warnings": tuple(warnings),
    }


def _refuse_many(rows: Rows, edges: int) -> None:
    """Refuse buckets so short that nothing can be calibrated on them."""
    oldest, newest = rows.span()
    if oldest is None or newest is None:
        return
    room = _MOST_BYTES // (8 * (2 * edges + 1))  # buckets
    spanned = (newest - oldest) // rows.bucket + 1
    if spanned <= room:
        return
    longer = next((width for width in _WIDTHS if (newest - oldest) // width < room), None)
    advice = "" if longer is None else f"set `window.bucket` to {format_duration(longer)} or more; "
    raise BadReferenceError(
        f"no reference can be built: from {oldest:%Y-%m-%dT%H:%M:%SZ} to {newest:%Y-%m-%dT%H:%M:%SZ} there are "
        f"{spanned:,} buckets of {format_duration(rows.bucket)}, and of numbers with {edges} edges at most "
        f"{room:,} fit in memory: {advice}if these times are wrong, correct column {rows.timestamp!r}"
    )


class _Features:
    """The features of a version, written one after the other; what is kept of them is small.

    Args:
        rows: the training data.
        slices: the segments in which each column is watched too.
        writer: of their profiles by bucket.
        edges: quantile edges of a numeric feature.
        warnings: about what cannot be watched; more are put there.
    """

    def __init__(
        self, rows: Rows, slices: Sequence[Slice], writer: pq.ParquetWriter, edges: int, warnings: list[str]
    ) -> None:
        self._rows, self._slices, self._writer, self._edges = rows, slices, writer, edges
        self._warnings = warnings
        self._taken = set(rows.schema.names)
        self._columns: list[Spec] = []
        self._sliced: list[Spec] = []
        self.whole: dict[str, FeatureProfile] = {}
        self.watched: list[Feature] = []

    @property
    def specs(self) -> list[Spec]:
        """Columns, and then columns in segments."""
        return [*self._columns, *self._sliced]

    def add(self, feature: Feature) -> None:
        """Fit a column, in all rows and in each segment, and write its profiles."""
        column = self._rows.column(feature.name, categorical=feature.kind in {"categorical", "boolean"})
        try:
            spec = fit(feature, column, self._edges)
        except SchemaError as error:
            self._warnings.append(f"{error}: it is not watched")
            return
        self._write(spec, self._rows.profiles(spec, column))
        self._columns.append(spec)
        warning = doubt(spec, self.whole[spec.name], column.type)
        self.watched.append(feature.model_copy(update={"warning": warning}))
        for each in self._slices:
            if each.segment.column != feature.name:
                self._add_slice(feature, column, each)

    def _add_slice(self, feature: Feature, column: pa.Array, each: Slice) -> None:
        part = column.take(as_arrow(each.rows))
        try:
            spec = fit(feature, part, min(EDGES, self._edges))
        except SchemaError as error:
            self._warnings.append(f"{error} where {each.segment}: it is not watched there")
            return
        parts = self._rows.profiles(spec, part, each.rows)
        name = free_name(segment_feature(feature.name, each.segment), self._taken)
        spec = replace(spec, name=name, column=feature.name, segment=each.segment)
        self._write(spec, parts)
        self._sliced.append(spec)

    def _write(self, spec: Spec, parts: Mapping[int, FeatureProfile]) -> None:
        self._writer.write_table(features_to_table(spec, parts))
        self.whole[spec.name] = reduce(merge_features, parts.values(), empty(spec))


def _write_products(rows: Rows, path: Path, pairs: PairSpec | None) -> None:
    """Write the products of the numeric features; without two of these, a file without rows."""
    products = {} if pairs is None else rows.products(pairs)
    starts = sorted(products)
    with parquet_writer(path, schema_of(pairs)) as writer:
        for i in range(0, len(starts), _BUCKETS_WRITTEN):
            part = {start: products[start] for start in starts[i : i + _BUCKETS_WRITTEN]}
            writer.write_table(products_to_table(part, pairs))


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
