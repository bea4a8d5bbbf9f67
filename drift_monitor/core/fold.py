"""Record batches -> profiles, one a bucket of event time."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final, assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drift_monitor.core.arrow import as_arrow, as_numpy, is_missing, microseconds, numbers
from drift_monitor.core.products import PairSpec, Products, fold_products
from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    FeatureProfile,
    Floats,
    Ids,
    Ints,
    NumericProfile,
    NumericSpec,
    Profile,
    Spec,
    bounded,
    empty,
    whole_columns,
)
from drift_monitor.core.splitmix import mixed
from drift_monitor.core.types import Kind

_CHUNK = 1 << 17
LIMIT: Final = float(1 << 35)
"""Units from the origin, past which a number is cut; see `_sum_of_squares`."""
LONGEST_NAME: Final = 200
"""Characters of a category that are kept."""
_SMALL: Final[Mapping[pa.DataType, str]] = {pa.float16(): "float16", pa.float32(): "float32"}


def accepts(kind: Kind, dtype: pa.DataType) -> bool:
    """Whether a column of this Arrow type can be read as this kind.

    Example:
        >>> accepts("numeric", pa.string()), accepts("categorical", pa.int64())
        (False, True)
    """
    if isinstance(dtype, pa.DictionaryType):
        dtype = dtype.value_type
    t = pa.types
    if t.is_null(dtype):
        return True
    if kind == "numeric":
        return bool(t.is_integer(dtype) or t.is_floating(dtype) or t.is_decimal(dtype) or t.is_boolean(dtype))
    if kind == "datetime":
        return bool(t.is_timestamp(dtype) or t.is_date(dtype))
    text = t.is_string(dtype) or t.is_large_string(dtype) or t.is_string_view(dtype)
    if kind == "categorical":
        return bool(text or t.is_boolean(dtype) or t.is_integer(dtype))
    if kind == "boolean":
        return bool(t.is_boolean(dtype))
    assert_never(kind)


def profile_buckets(
    specs: Sequence[Spec],
    batches: Iterable[pa.RecordBatch],
    *,
    timestamp: str | None = None,
    bucket: timedelta = timedelta(hours=1),
    id_column: str | None = None,
    pairs: PairSpec | None = None,
    starts: Ints | None = None,
) -> dict[int, Profile]:
    """Summarise batches by bucket of event time.

    Args:
        specs: one a feature; a column that a batch does not have is left out of the profile, and so are the
            features of its segments. A segment without rows in a batch is there, with no rows.
        batches: any split of the rows, in any order.
        timestamp: the column of event time (an Arrow timestamp, no nulls); None puts all rows in bucket 0.
        bucket: its length; buckets are aligned to 1970-01-01 UTC.
        id_column: counts duplicates.
        pairs: features whose products are kept; a batch that lacks one of them leaves its buckets without.
        starts: of buckets of any lengths, in microseconds since 1970, rising, used instead of `bucket`; the last
            one has no end. Every row lies in one of them.

    Returns:
        Profile by start of bucket, in microseconds since 1970.
    """
    width = bucket // timedelta(microseconds=1)
    buckets: dict[int, Profile] = {}
    columns, segments = whole_columns(specs), _by_segment(specs)
    for whole in batches:
        for offset in range(0, whole.num_rows, _CHUNK):
            batch, times, begins, cuts = _by_bucket(whole.slice(offset, _CHUNK), timestamp, width, starts)
            products = None if pairs is None else fold_products(pairs, batch, cuts)
            sliced = _fold_segments(segments, batch, cuts)
            for i, (low, high) in enumerate(itertools.pairwise(cuts.tolist())):
                part = batch.slice(low, high - low)
                own = None if times is None else times[low:high]
                profile = _fold(
                    columns, part, own, id_column, None if products is None else products[i], sliced[i]
                )
                start = 0 if begins is None else int(begins[low])
                buckets[start] = buckets[start].merge(profile) if start in buckets else profile
    return buckets


def _by_bucket(
    batch: pa.RecordBatch, timestamp: str | None, width: int, limits: Ints | None
) -> tuple[pa.RecordBatch, Ints | None, Ints | None, Ints]:
    """Rows in the order of their buckets, their times and buckets' starts, and the rows at which buckets meet."""
    ends = np.array([0, batch.num_rows])
    if timestamp is None:
        return batch, None, None, ends
    times = microseconds(batch.column(timestamp))
    if limits is None:
        starts = times // width * width
    else:
        starts = limits[np.maximum(np.searchsorted(limits, times, "right") - 1, 0)]
    if (starts == starts[0]).all():
        return batch, times, starts, ends
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        batch, times, starts = batch.take(order), times[order], starts[order]
    return batch, times, starts, np.flatnonzero(np.diff(starts, prepend=starts[0] - 1, append=starts[-1] + 1))


def _fold(
    specs: Sequence[Spec],
    batch: pa.RecordBatch,
    times: Ints | None,
    id_column: str | None,
    products: Products | None,
    features: dict[str, FeatureProfile],
) -> Profile:
    """The profile of a part of a batch, of which `features` are there already."""
    names = set(batch.schema.names)
    for spec in specs:
        if spec.column in names:
            features[spec.name] = _fold_feature(spec, batch.column(spec.column))
    ids = Ids.of(hash_ids(batch.column(id_column))) if id_column in names else None
    if times is None:
        return Profile(batch.num_rows, features, ids=ids, products=products)
    return Profile(batch.num_rows, features, int(times.min()), int(times.max()), ids, products)


def _by_segment(specs: Sequence[Spec]) -> dict[str, dict[str, list[Spec]]]:
    """The features of segments: by the column and the value that a segment is."""
    found: dict[str, dict[str, list[Spec]]] = {}
    for spec in specs:
        if spec.segment is not None:
            found.setdefault(spec.segment.column, {}).setdefault(spec.segment.value, []).append(spec)
    return found


def _fold_segments(
    segments: Mapping[str, Mapping[str, Sequence[Spec]]], batch: pa.RecordBatch, cuts: Ints
) -> list[dict[str, FeatureProfile]]:
    """The features of segments in each part of a batch: a segment's rows are taken once, for all its features.

    Args:
        segments: of `_by_segment`.
        batch: rows, in the order of their buckets.
        cuts: where the parts meet, shape (parts + 1,).
    """
    found: list[dict[str, FeatureProfile]] = [{} for _ in cuts[1:]]
    names = set(batch.schema.names)
    for column, by_value in segments.items():
        if column not in names:
            continue
        for specs, rows in zip(by_value.values(), segment_rows(batch.column(column), list(by_value)), strict=True):
            there = [spec for spec in specs if spec.column in names]
            own = batch.select(list(dict.fromkeys(spec.column for spec in there)))
            own = own if len(rows) == own.num_rows else own.take(as_arrow(rows))
            limits = np.searchsorted(rows, cuts).tolist()
            for features, (low, high) in zip(found, itertools.pairwise(limits), strict=True):
                part = own.slice(low, high - low)
                for spec in there:
                    features[spec.name] = (
                        _fold_feature(spec, part.column(spec.column)) if high > low else empty(spec)
                    )
    return found


def segment_rows(column: pa.Array, values: Sequence[str]) -> list[Ints]:
    """The rows of each of some categories, rising.

    Args:
        column: text, boolean or integer; a dictionary of these is quicker.
        values: categories as text, as `category_name` writes them; all different.

    Example:
        >>> segment_rows(pa.array(["eu", "us", None, "eu"]), ["us", "eu"])
        [array([1]), array([0, 3])]
    """
    if pa.types.is_null(column.type) or not len(column):
        return [np.zeros(0, np.int64) for _ in values]
    if not isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_encode()
    codes = as_numpy(column.indices).astype(np.int64)
    codes = np.where(is_missing(column.indices), len(column.dictionary), codes)
    used = np.flatnonzero(np.bincount(codes, minlength=len(column.dictionary) + 1)[: len(column.dictionary)])
    place = {value: i for i, value in enumerate(values)}
    places = np.full(len(column.dictionary) + 1, len(values), np.int16)
    places[used] = [len(values) if name is None else place.get(name, len(values)) for name in _names(column, used)]
    mine = places[codes]
    order = np.argsort(mine, kind="stable")
    return np.split(order, np.searchsorted(mine[order], np.arange(1, len(values) + 1)))[: len(values)]


def _fold_feature(spec: Spec, column: pa.Array) -> FeatureProfile:
    return _fold_numeric(spec, column) if isinstance(spec, NumericSpec) else _fold_categorical(spec, column)


def _fold_numeric(spec: NumericSpec, column: pa.Array) -> NumericProfile:
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    a = np.sort(numbers(column))
    neg_inf = pos_inf = nans = 0
    if len(a) and not (a[0] > -math.inf and a[-1] < math.inf):
        neg_inf = int(np.searchsorted(a, -math.inf, "right"))
        high, nan = np.searchsorted(a, (math.inf, math.nan), "left").tolist()
        pos_inf, nans = nan - high, len(a) - nan
        a = a[neg_inf:high]
    edges = edges_of(spec, column.type)
    bounds = np.empty(2 * len(edges) + 2, np.int64)
    bounds[0], bounds[-1] = 0, len(a)
    left = bounds[1:-1:2] = np.searchsorted(a, edges, "left")
    bounds[2:-1:2] = left
    hit = np.flatnonzero(a[np.minimum(left, len(a) - 1)] == edges) if len(a) else left[:0]
    bounds[2 * hit + 2] = np.searchsorted(a, edges[hit], "right")
    if column.type in _SMALL:  # edges may have become equal: the first of them keeps the rows
        np.maximum.accumulate(bounds, out=bounds)
    counts = np.diff(bounds)
    if not len(a):
        return NumericProfile(counts, np.zeros_like(counts), 0, 0, column.null_count, nans, pos_inf, neg_inf)
    units = spec.units(a)
    saturated = 0
    if not (units[0] >= -LIMIT and units[-1] <= LIMIT):
        outside = np.searchsorted(units, -LIMIT, "left"), np.searchsorted(units, LIMIT, "right")
        saturated = int(outside[0] + len(units) - outside[1])
        units = np.clip(units, -LIMIT, LIMIT)
    q = units.astype(np.int64)
    sums = np.zeros_like(counts)
    filled = counts > 0
    sums[filled] = np.add.reduceat(q, bounds[:-1][filled])
    # adding 0.0 turns -0.0 into 0.0, so that the bits do not depend on which of the two came first
    extremes = float(a[0]) + 0.0, float(a[-1]) + 0.0
    return NumericProfile(
        counts, sums, _sum_of_squares(units, q), saturated, column.null_count, nans, pos_inf, neg_inf, *extremes
    )


def edges_of(spec: NumericSpec, dtype: pa.DataType) -> Floats:
    """The edges as a column's type writes them, shape (k,): in a small type some may be equal, or infinite.

    The same decimal number, written as a float32, must still meet its edge.
    """
    small = _SMALL.get(dtype)
    if small is None:
        return spec.edges
    with np.errstate(over="ignore"):  # an edge past the largest float32 is past every value
        return spec.edges.astype(small).astype(np.float64)


def _sum_of_squares(units: Floats, q: Ints) -> int:
    """Exact: whole numbers give it modulo 2**64, floats give it to within far less than that.

    At most 2**17 squares of at most 2**70 sum to 2**87, and floats are off by less than 2**17 * 2**-53 of that.

    Args:
        units: whole numbers as floats, |units| <= 2**35, shape (n,), n <= 2**17.
        q: the same as integers.
    """
    low = int(np.einsum("i,i->", q, q)) % 2**64
    near = int(np.einsum("i,i->", units, units))
    return near + (low - near + 2**63) % 2**64 - 2**63


def _fold_categorical(spec: CategoricalSpec, column: pa.Array) -> CategoricalProfile:
    counts = np.zeros(len(spec.categories), np.int64)
    unseen: dict[str, int] = {}
    other = 0
    for name, count in category_counts(column).items():
        at = spec.index.get(name)
        if at is None:
            other += count
            unseen[name] = count
        else:
            counts[at] += count
    # not column.null_count, which misses a null that stands in a dictionary
    return CategoricalProfile(counts, other, bounded(unseen), len(column) - int(counts.sum()) - other)


def category_counts(column: pa.Array) -> dict[str, int]:
    """Rows by category of a text, boolean or integer column; nulls are left out."""
    if pa.types.is_null(column.type) or not len(column):
        return {}
    if not isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_encode()
    codes = column.indices.drop_null() if column.null_count else column.indices
    counts = np.bincount(as_numpy(codes).astype(np.int64), minlength=len(column.dictionary))
    used = np.flatnonzero(counts)
    found: dict[str, int] = {}
    for name, count in zip(_names(column, used), counts[used].tolist(), strict=True):
        if name is not None:
            found[name] = found.get(name, 0) + count
    return found


def _names(column: pa.DictionaryArray, used: Ints) -> list[str | None]:
    """Some of the categories of a dictionary as text; None for a null that stands in it."""
    values = column.dictionary
    if not pa.types.is_large_string(values.type):  # integers and booleans as text; views have no take
        values = pc.cast(values, pa.string())
    raw = values.take(as_arrow(used)).cast(pa.large_binary()).to_pylist()
    return [None if each is None else category_name(each) for each in raw]


def category_name(raw: bytes) -> str:
    r"""A category as text: broken UTF-8 is escaped, and a very long name is cut and told apart by a hash.

    Example:
        >>> category_name(b"caf\xc3\xa9"), category_name(b"\xed\xa0\x80")
        ('café', '\\xed\\xa0\\x80')
    """
    name = raw.decode("utf-8", "backslashreplace")
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}...{hashlib.blake2b(raw, digest_size=6).hexdigest()}"


def hash_ids(column: pa.Array) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each non-null id, the same on every machine."""
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    column = column.drop_null()
    if pa.types.is_integer(column.type):
        return mixed(as_numpy(pc.cast(column, pa.int64(), safe=False)).astype(np.uint64))
    t = pa.types
    binary = t.is_binary(column.type) or t.is_large_binary(column.type) or t.is_fixed_size_binary(column.type)
    return hash_bytes(column if binary else pc.cast(pc.cast(column, pa.large_string()), pa.large_binary()))


def hash_bytes(texts: pa.Array) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each text, given as bytes, none of them null; the same on every machine."""
    from pandas.util import hash_array  # noqa: PLC0415  only logs with text ids pay for the import

    distinct = texts.dictionary_encode()  # one long id on every row is held once, and not once a row
    hashes = np.asarray(
        hash_array(distinct.dictionary.to_numpy(zero_copy_only=False), categorize=False), np.uint64
    )
    return np.asarray(hashes[as_numpy(distinct.indices)])
