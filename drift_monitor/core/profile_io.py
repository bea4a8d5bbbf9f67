"""Profiles and their cells as Arrow tables: a versioned format that any reader of Parquet can look into.

Cells without rows are left out. Sums are stored as what is left after each row of a cell has been counted at the
cell's lower edge, which is nothing for values that lie on an edge and little for the others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.history import Grid, History
from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    Ids,
    Ints,
    NumericProfile,
    NumericSpec,
    Profile,
    Spec,
    bounded,
    merge_features,
)
from drift_monitor.core.types import Segment

FORMAT: Final = 1
_VERSION: Final = b"drift-monitor profile format"

SPECS: Final = pa.schema(
    [
        ("name", pa.string()),
        ("kind", pa.string()),
        ("role", pa.string()),
        ("edges", pa.list_(pa.float64())),
        ("origin", pa.float64()),
        ("unit", pa.float64()),
        ("exact", pa.bool_()),
        ("categories", pa.list_(pa.string())),
        ("complete", pa.bool_()),
    ],
    metadata={_VERSION: str(FORMAT).encode()},
)
_SEGMENT: Final = ("column", "segment_column", "segment_value")  # only where there are segments
PROFILES: Final = pa.schema(
    [
        ("feature", pa.string()),  # null: the bucket as a whole
        ("bucket", pa.int64()),
        ("rows", pa.int64()),
        ("oldest", pa.int64()),
        ("newest", pa.int64()),
        ("ids", pa.list_(pa.uint64())),
        ("ids_counts", pa.list_(pa.int64())),
        ("ids_level", pa.int32()),
        ("ids_rows", pa.int64()),
        ("cells", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.int64())),
        ("sums", pa.list_(pa.int64())),
        ("squares", pa.decimal128(38, 0)),
        ("saturated", pa.int64()),
        ("nulls", pa.int64()),
        ("nans", pa.int64()),
        ("pos_inf", pa.int64()),
        ("neg_inf", pa.int64()),
        ("minimum", pa.float64()),
        ("maximum", pa.float64()),
        ("other", pa.int64()),
        ("unseen", pa.list_(pa.string())),
        ("unseen_counts", pa.list_(pa.int64())),
    ],
    metadata={_VERSION: str(FORMAT).encode()},
)
_NUMBERS: Final = ("saturated", "nulls", "nans", "pos_inf", "neg_inf")


def specs_to_table(specs: Sequence[Spec]) -> pa.Table:
    """One row a feature, with its cells."""
    rows, schema = [], SPECS
    if any(spec.segment is not None for spec in specs):
        schema = pa.schema([*SPECS, *((name, pa.string()) for name in _SEGMENT)], SPECS.metadata)
    for spec in specs:
        row: dict[str, Any] = {"name": spec.name, "kind": spec.kind, "role": spec.role}
        if isinstance(spec, NumericSpec):
            row |= {"edges": spec.edges, "origin": spec.origin, "unit": spec.unit, "exact": spec.exact}
        else:
            row |= {"categories": spec.categories, "complete": spec.complete}
        if spec.segment is not None:
            row |= dict(zip(_SEGMENT, (spec.column, spec.segment.column, spec.segment.value), strict=True))
        rows.append(row)
    return pa.Table.from_pylist(rows, schema)


def specs_from_table(table: pa.Table) -> tuple[Spec, ...]:
    """The inverse of `specs_to_table`.

    Raises:
        BadReferenceError: it is of another version of the format.
    """
    _check(table.schema, SPECS, _SEGMENT)
    return tuple(map(_spec, table.to_pylist()))


def _spec(row: Mapping[str, Any]) -> Spec:
    name, *slice_of = (row.get(field) for field in _SEGMENT)
    segment = None if name is None else Segment(column=slice_of[0], value=slice_of[1])
    rest = row["kind"], row["role"], segment, row["name"] if name is None else name
    if row["edges"] is None:
        return CategoricalSpec(row["name"], tuple(row["categories"]), row["complete"], *rest)
    edges = np.array(row["edges"], np.float64)
    return NumericSpec(row["name"], edges, row["origin"], row["unit"], row["exact"], *rest)


def profiles_to_table(profiles: Mapping[int, Profile], specs: Sequence[Spec]) -> pa.Table:
    """One row a bucket and feature, after one row a bucket.

    Args:
        profiles: by start of bucket.
        specs: the cells they were counted on.
    """
    whole = [_bucket_row(bucket, profiles[bucket]) for bucket in sorted(profiles)]
    return pa.concat_tables(
        [
            pa.Table.from_pylist(whole, PROFILES),
            *(
                features_to_table(
                    spec,
                    {b: profiles[b].features[spec.name] for b in profiles if spec.name in profiles[b].features},
                )
                for spec in specs
            ),
        ]
    )


def features_to_table(spec: Spec, profiles: Mapping[int, FeatureProfile]) -> pa.Table:
    """The rows of one feature, by bucket."""
    base = _base(spec)
    rows = [_feature_row(spec.name, bucket, profiles[bucket], base) for bucket in sorted(profiles)]
    return pa.Table.from_pylist(rows, PROFILES)


def profiles_from_tables(
    tables: Iterable[pa.Table],
    specs: Iterable[Spec],
    *,
    width: int | None = None,
    only: Collection[int] | None = None,
) -> dict[int, Profile]:
    """The inverse of `profiles_to_table`; on request, merged into longer buckets.

    Args:
        tables: of profiles; what stands of a bucket in more than one of them is merged.
        specs: the features wanted, with the cells they were counted on.
        width: length of the buckets wanted, in microseconds; None for those of the tables.
        only: starts of the buckets that get features; the others are without. None: all do.

    Raises:
        BadReferenceError: a table is of another version of the format.
    """
    by_name = {spec.name: spec for spec in specs}
    buckets: dict[int, Profile] = {}
    features: dict[int, dict[str, FeatureProfile]] = {}
    for table in tables:
        _check(table.schema, PROFILES)
        starts = as_numpy(table["bucket"].combine_chunks())
        if width is not None:
            starts = starts // width * width
        wanted = (
            np.isin(starts, np.array(sorted(only), np.int64)) if only is not None else np.full(len(starts), True)
        )
        names = table["feature"].combine_chunks().dictionary_encode()
        codes = np.where(is_missing(names.indices), -1, as_numpy(names.indices))
        columns = _Columns(table)
        for code, name in enumerate(names.dictionary.to_pylist()):
            if name in by_name:
                rows = np.flatnonzero((codes == code) & wanted)
                for start, profile in _features(by_name[name], columns, rows, starts[rows]).items():
                    mine = features.setdefault(start, {})
                    mine[name] = merge_features(mine[name], profile) if name in mine else profile
        whole = np.flatnonzero(codes == -1)
        for start, row in zip(starts[whole].tolist(), table.take(as_arrow(whole)).to_pylist(), strict=True):
            part = Profile(row["rows"], {}, row["oldest"], row["newest"], _ids(row))
            buckets[start] = buckets[start].merge(part) if start in buckets else part
    return {start: replace(bucket, features=features.get(start, {})) for start, bucket in buckets.items()}


def history_from_table(spec: Spec, table: pa.Table, grid: Grid) -> History:
    """The counts of one feature over time, from its rows of such a table; much faster than profiles.

    Args:
        spec: of the feature, with the cells it was counted on.
        table: rows of this feature only.
        grid: of the buckets, all of which lie on it.

    Raises:
        BadReferenceError: the table is of another version of the format.
    """
    _check(table.schema, PROFILES)
    columns = {
        name: table[name].combine_chunks() for name in ("bucket", "cells", "counts", *_NUMBERS[1:], "other")
    }
    at = (as_numpy(columns["bucket"]) - grid.start) // grid.width
    categorical = isinstance(spec, CategoricalSpec)
    cells = len(spec.categories) + 1 if isinstance(spec, CategoricalSpec) else 2 * len(spec.edges) + 1
    fine = np.zeros((grid.size, cells), np.int64)
    rows = np.repeat(at, np.diff(as_numpy(columns["cells"].offsets)))
    np.add.at(fine, (rows, as_numpy(columns["cells"].flatten())), as_numpy(columns["counts"].flatten()))
    missing = np.zeros(grid.size, np.int64)
    for name in _NUMBERS[1:]:  # nulls, NaN, infinities
        np.add.at(missing, at, np.where(is_missing(columns[name]), 0, as_numpy(columns[name])))
    if categorical:
        np.add.at(fine[:, -1], at, np.where(is_missing(columns["other"]), 0, as_numpy(columns["other"])))
    return History(fine, missing)


def _check(found: pa.Schema, wanted: pa.Schema, optional: Sequence[str] = ()) -> None:
    version = (found.metadata or {}).get(_VERSION, b"none").decode("utf-8", "replace")
    if version != str(FORMAT):
        raise BadReferenceError(
            f"profiles of format {version} cannot be read: this version of drift-monitor reads format {FORMAT}"
        )
    if found.names not in (wanted.names, [*wanted.names, *optional]):
        raise BadReferenceError(f"profiles have the columns {found.names} and not {wanted.names}")


def _base(spec: Spec) -> Ints:
    """What is taken from the sums of each cell for every row."""
    return spec.lower_units if isinstance(spec, NumericSpec) else np.zeros(0, np.int64)


def _ids(row: Mapping[str, Any]) -> Ids | None:
    if row["ids"] is None:
        return None
    hashes, counts = np.array(row["ids"], np.uint64), np.array(row["ids_counts"], np.int64)
    return Ids(hashes, counts, row["ids_level"], row["ids_rows"])


def _bucket_row(bucket: int, profile: Profile) -> dict[str, Any]:
    row: dict[str, Any] = {
        "bucket": bucket,
        "rows": profile.rows,
        "oldest": profile.oldest,
        "newest": profile.newest,
    }
    ids = profile.ids
    if ids is None:
        return row
    return row | {"ids": ids.hashes, "ids_counts": ids.counts, "ids_level": ids.level, "ids_rows": ids.rows}


def _feature_row(name: str, bucket: int, profile: FeatureProfile, base: Ints) -> dict[str, Any]:
    cells = np.flatnonzero(profile.counts)
    row: dict[str, Any] = {
        "feature": name,
        "bucket": bucket,
        "cells": cells.astype(np.int32),
        "counts": profile.counts[cells],
        "nulls": profile.nulls,
    }
    if isinstance(profile, NumericProfile):
        row |= {field: getattr(profile, field) for field in _NUMBERS}
        row["sums"] = profile.sums[cells] - profile.counts[cells] * base[cells]
        row["squares"] = profile.squares
        row["minimum"] = None if math.isnan(profile.minimum) else profile.minimum
        row["maximum"] = None if math.isnan(profile.maximum) else profile.maximum
    else:
        names = sorted(profile.unseen)
        row |= {"other": profile.other, "unseen": names, "unseen_counts": [profile.unseen[n] for n in names]}
    return row


class _Columns:
    """The columns of a table of profiles as arrays, of which a feature has some rows.

    Attributes:
        numbers: `_NUMBERS` and `other`; what is missing counts nothing, shape (rows, 6).
        minimum, maximum: NaN where there are none, shape (rows,).
        squares: exact integers.
    """

    def __init__(self, table: pa.Table) -> None:
        self._columns = {name: table[name].combine_chunks() for name in PROFILES.names}
        columns = self._columns
        self.numbers = np.stack(
            [
                np.where(is_missing(columns[name]), 0, as_numpy(columns[name])).astype(np.int64)
                for name in (*_NUMBERS, "other")
            ],
            axis=1,
        )
        self.minimum, self.maximum = (
            np.where(is_missing(columns[name]), np.nan, as_numpy(columns[name])) for name in ("minimum", "maximum")
        )
        self.squares = [int(square or 0) for square in columns["squares"].to_pylist()]
        self._lists = {
            name: (as_numpy(columns[name].offsets), as_numpy(columns[name].values))
            for name in ("cells", "counts", "sums")
        }

    def lengths(self, rows: Ints) -> Ints:
        """How many cells some rows have, shape (k,)."""
        offsets, _ = self._lists["cells"]
        return np.asarray(offsets[rows + 1] - offsets[rows], np.int64)

    def listed(self, name: str, rows: Ints) -> Ints:
        """The lists in some rows, one after the other."""
        offsets, values = self._lists[name]
        starts = offsets[rows]
        lengths = offsets[rows + 1] - starts
        before = np.cumsum(lengths) - lengths
        return np.asarray(values[np.repeat(starts - before, lengths) + np.arange(lengths.sum())], np.int64)

    def unseen(self, rows: Ints) -> Iterable[tuple[list[str], list[int]]]:
        """Names and counts of unseen categories in some rows."""
        taken = (self._columns[name].take(as_arrow(rows)).to_pylist() for name in ("unseen", "unseen_counts"))
        return zip(*taken, strict=True)


def _features(spec: Spec, columns: _Columns, rows: Ints, starts: Ints) -> dict[int, FeatureProfile]:
    """The profiles of one feature by bucket; `starts` has the bucket of each of its rows."""
    distinct, group = np.unique(starts, return_inverse=True)
    cells, found = columns.listed("cells", rows), columns.listed("counts", rows)
    width = len(spec.categories) if isinstance(spec, CategoricalSpec) else 2 * len(spec.edges) + 1
    at = np.repeat(group, columns.lengths(rows)), cells
    counts = np.zeros((len(distinct), width), np.int64)
    np.add.at(counts, at, found)
    numbers = np.zeros((len(distinct), columns.numbers.shape[1]), np.int64)
    np.add.at(numbers, group, columns.numbers[rows])
    totals = numbers.tolist()
    if isinstance(spec, CategoricalSpec):
        unseen: list[dict[str, int]] = [{} for _ in distinct]
        for i, (names, seen) in zip(group.tolist(), columns.unseen(rows), strict=True):
            for name, count in zip(names, seen, strict=True):
                unseen[i][name] = unseen[i].get(name, 0) + count
        place = _NUMBERS.index("nulls")
        return {
            start: CategoricalProfile(counts[i], totals[i][-1], bounded(unseen[i]), totals[i][place])
            for i, start in enumerate(distinct.tolist())
        }
    sums = np.zeros_like(counts)
    np.add.at(sums, at, columns.listed("sums", rows) + found * _base(spec)[cells])
    squares = [0] * len(distinct)
    for i, row in zip(group.tolist(), rows.tolist(), strict=True):
        squares[i] += columns.squares[row]
    low, high = np.full((2, len(distinct)), np.nan)
    np.fmin.at(low, group, columns.minimum[rows])
    np.fmax.at(high, group, columns.maximum[rows])
    return {
        start: NumericProfile(
            counts[i],
            sums[i],
            squares[i],
            **dict(zip(_NUMBERS, totals[i], strict=False)),
            minimum=float(low[i]),
            maximum=float(high[i]),
        )
        for i, start in enumerate(distinct.tolist())
    }
