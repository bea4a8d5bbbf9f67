"""Profiles against brute force, and merging in any order and any split."""

import datetime as dt
import itertools
import math
import struct
from collections import Counter
from functools import reduce

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from drift_monitor.core import profile as profile_module
from drift_monitor.core.fold import (
    accepts,
    category_counts,
    category_name,
    hash_ids,
    microseconds,
    profile_buckets,
)
from drift_monitor.core.profile import (
    CategoricalProfile,
    CategoricalSpec,
    Ids,
    NumericProfile,
    NumericSpec,
    Profile,
    empty,
    merge,
)

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    5e-324,
    -2.2e-308,
    1e308,
    -1.7e308,
    0.1,
    2.0**53 + 2,
    math.inf,
    -math.inf,
    math.nan,
    None,
]
DECIMALS = st.decimals(min_value=-(10**20), max_value=10**20, places=6)
COLUMNS = {
    "float64": (pa.float64(), st.one_of(st.sampled_from(SPECIAL), st.floats())),
    "few": (pa.float64(), st.sampled_from([None, 1.0, 2.0, 2.5, 3.0, math.nan])),
    "float32": (pa.float32(), st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.5, 1.5]))),
    "float16": (pa.float16(), st.one_of(st.none(), st.floats(width=16).map(np.float16))),
    "int64": (pa.int64(), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3))),
    "uint64": (pa.uint64(), st.one_of(st.none(), st.integers(2**53, 2**64 - 1))),
    "int8": (pa.int8(), st.one_of(st.none(), st.integers(-128, 127))),
    "bool": (pa.bool_(), st.sampled_from([None, True, False])),
    "decimal": (pa.decimal128(38, 6), st.one_of(st.none(), DECIMALS)),
    "decimal256": (pa.decimal256(60, 6), st.one_of(st.none(), DECIMALS)),
}
_YEARS = st.integers(-2_208_988_800_000_000, 9_214_646_399_999_999)  # 1900 to 2262, in microseconds
TIMES = {
    "s": (pa.timestamp("s"), _YEARS.map(lambda t: t // 1_000_000)),
    "ms": (pa.timestamp("ms", "UTC"), _YEARS.map(lambda t: t // 1000)),
    "us": (pa.timestamp("us", "Europe/Berlin"), _YEARS),
    "ns": (pa.timestamp("ns"), _YEARS.map(lambda t: t * 1000 + 999)),
    "date32": (pa.date32(), st.integers(-25567, 106650)),
    "date64": (pa.date64(), st.integers(-25567, 106650).map(lambda d: d * 86_400_000)),
}


def column(kind: str, min_size: int = 0) -> st.SearchStrategy[pa.Array]:
    if kind in COLUMNS:
        dtype, values = COLUMNS[kind]
        return st.lists(values, min_size=min_size, max_size=60).map(lambda v: pa.array(v, dtype))
    dtype, values = TIMES[kind]
    storage = pa.int32() if kind == "date32" else pa.int64()
    nullable = st.one_of(st.none(), values)
    return st.lists(nullable, min_size=min_size, max_size=60).map(lambda v: pa.array(v, storage).cast(dtype))


def floats(values: pa.Array) -> list[float]:
    """Every non-null value as the nearest float64; times as seconds. Not by the code under test."""
    if pa.types.is_temporal(values.type):
        storage = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
        raw = [v for v in values.cast(storage).to_pylist() if v is not None]
        if pa.types.is_date32(values.type):
            return [v * 86400.0 for v in raw]
        unit = getattr(values.type, "unit", "ms")
        return [v // 1000 / 1e6 if unit == "ns" else v / {"s": 1, "ms": 1e3, "us": 1e6}[unit] for v in raw]
    return [float(v) for v in values.to_pylist() if v is not None]


def fit(values: pa.Array, edges: int = 1000) -> NumericSpec:
    kind = "datetime" if pa.types.is_temporal(values.type) else "numeric"
    return NumericSpec.fit("x", np.array(floats(values), np.float64), kind=kind, edges=edges)


def fold(spec: NumericSpec | CategoricalSpec, values: pa.Array) -> Profile:
    return profile_buckets([spec], [pa.record_batch({"x": values})])[0]


def bits(value: float) -> bytes:
    return b"nan" if math.isnan(value) else struct.pack("<d", value)


def same(a: NumericProfile, b: NumericProfile) -> bool:
    plain = ("squares", "saturated", "nulls", "nans", "pos_inf", "neg_inf")
    return (
        np.array_equal(a.counts, b.counts)
        and np.array_equal(a.sums, b.sums)
        and all(getattr(a, name) == getattr(b, name) for name in plain)
        and bits(a.minimum) == bits(b.minimum)
        and bits(a.maximum) == bits(b.maximum)
    )


def pieces(values: pa.Array, data: st.DataObject) -> list[pa.Array]:
    """The column cut anywhere, the pieces in any order."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=5)))
    bounds = [0, *cuts, len(values)]
    parts = [values.slice(a, b - a) for a, b in itertools.pairwise(bounds) if b > a]
    return data.draw(st.permutations(parts))


@pytest.mark.parametrize("kind", [*COLUMNS, *TIMES])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_counts_are_those_of_brute_force(kind: str, data: st.DataObject) -> None:
    reference, live = data.draw(column(kind, 1)), data.draw(column(kind, 1))
    assume(any(math.isfinite(v) for v in floats(reference)))
    spec = fit(reference, data.draw(st.sampled_from([1, 3, 1000])))
    found = fold(spec, live).features["x"]
    assert isinstance(found, NumericProfile)

    values = [v for v in floats(live) if math.isfinite(v)]
    expected = np.zeros(2 * len(spec.edges) + 1, np.int64)
    for value in values:
        below = sum(edge < value for edge in spec.edges)
        at = any(edge == value for edge in spec.edges)
        expected[2 * below + at] += 1
    assert found.counts.tolist() == expected.tolist()
    assert found.n == len(values)
    assert found.rows == len(live)
    assert found.nulls == live.null_count
    assert found.nans == sum(math.isnan(v) for v in floats(live))
    assert found.pos_inf == sum(v == math.inf for v in floats(live))
    assert found.neg_inf == sum(v == -math.inf for v in floats(live))
    if values:
        assert (found.minimum, found.maximum) == (min(values), max(values))
    assert found.out_of_range == sum(v < spec.edges[0] or v > spec.edges[-1] for v in values)


@pytest.mark.parametrize("kind", [*COLUMNS, *TIMES])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_merging_any_split_in_any_order_gives_the_same_bits(kind: str, data: st.DataObject) -> None:
    reference, live = data.draw(column(kind, 1)), data.draw(column(kind, 1))
    assume(any(math.isfinite(v) for v in floats(reference)))
    spec = fit(reference, data.draw(st.sampled_from([1, 3, 1000])))
    whole = fold(spec, live).features["x"]
    parts = [fold(spec, part) for part in pieces(live, data)]
    merged = merge(parts)
    assert merged is not None
    assert isinstance(whole, NumericProfile)
    assert isinstance(merged.features["x"], NumericProfile)
    assert same(whole, merged.features["x"])
    neutral = empty(spec)
    assert isinstance(neutral, NumericProfile)
    assert same(whole, neutral.merge(whole))
    assert same(whole, whole.merge(neutral))


@settings(max_examples=200, deadline=None)
@given(
    reference=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    live=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50),
)
def test_sums_are_those_of_the_values_in_whole_units(reference: list[float], live: list[float]) -> None:
    spec = fit(pa.array(reference, pa.float64()))
    found = fold(spec, pa.array(live, pa.float64())).features["x"]
    assert isinstance(found, NumericProfile)
    far = [(x - spec.origin) / spec.unit for x in live]
    assume(all(abs(u) < 2**35 for u in far))
    units = [round(u) for u in far]
    assert int(found.sums.sum()) == sum(units)
    assert found.squares == sum(u * u for u in units)
    moments = found.moments(spec)
    assert moments is not None
    assert moments[0] == pytest.approx(np.mean(live), abs=spec.unit + 1e-9)
    spread = np.std(live, ddof=1)
    assert math.sqrt(moments[1]) == pytest.approx(spread, rel=1e-9, abs=max(2 * spec.unit, 1e-150))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60), st.integers(1, 20))
def test_edges_leave_at_most_their_share_between_them(values: list[float], edges: int) -> None:
    a = pa.array(values, pa.float64())
    spec = fit(a, edges)
    counts = fold(spec, a).features["x"].counts
    assert spec.edges[0] == min(values)
    assert spec.edges[-1] == max(values)
    assert (spec.edges[:-1] < spec.edges[1:]).all()
    assert counts[0] == counts[-1] == 0
    assert counts[::2].max() <= len(values) / edges
    assert spec.exact == (len(set(values)) <= edges)
    if spec.exact:
        assert counts[::2].sum() == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), st.floats(0.001, 1), st.integers(1, 20))
def test_a_quantile_lies_in_the_cell_of_the_true_one(values: list[float], q: float, edges: int) -> None:
    a = pa.array(values, pa.float64())
    spec = fit(a, edges)
    found = fold(spec, a).features["x"]
    assert isinstance(found, NumericProfile)
    true = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    estimate = found.quantile(spec, q)
    below, above = (np.searchsorted(spec.edges, (true, estimate), side) for side in ("left", "right"))
    assert abs(below[0] - below[1]) <= 1
    assert abs(above[0] - above[1]) <= 1
    if true in spec.edges:
        assert estimate == true


# -- what merging must not confuse -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [1.7e308, -1.7e308, 1.7e308],
        [5e-324, 0.0, 1e-310],
        [7.0],
        [0.0, 0.0],
        [1e308],
        [2.0**60, 2.0**60 + 256],
    ],
)
def test_extreme_references_fit_and_fold_without_a_warning(values: list[float]) -> None:
    spec = fit(pa.array(values))
    live = pa.array([*values, 0.0, 1e308, -1e308, 5e-324])
    found = fold(spec, live).features["x"]
    assert found.n == len(live)
    for dtype in (pa.float32(), pa.float16()):
        narrow = pa.array(np.array([0.0, 1.0]), pa.float64()).cast(dtype)
        assert fold(spec, narrow).features["x"].n == 2


def test_live_values_far_from_a_constant_reference_still_have_a_mean() -> None:
    for constant, live in ((5.0, [6.0, 1000.0]), (0.0, [1.0, 200.0]), (-3e9, [0.0, 1e12])):
        spec = fit(pa.array([constant, constant]))
        found = fold(spec, pa.array(live)).features["x"]
        assert isinstance(found, NumericProfile)
        moments = found.moments(spec)
        assert moments is not None
        assert moments[0] == pytest.approx(np.mean(live), rel=1e-4)


def test_a_float32_value_meets_the_edge_of_the_same_decimal_number() -> None:
    spec = fit(pa.array([0.1, 0.2, 0.3]))
    found = fold(spec, pa.array([0.1, 0.2, 0.3], pa.float32())).features["x"]
    assert found.counts.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_values_in_a_dictionary_count_like_plain_ones() -> None:
    spec = fit(pa.array([1.0, 2.0]))
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, None, 2]), pa.array([1.0, 2.0, None]))
    found = fold(spec, column).features["x"]
    assert isinstance(found, NumericProfile)
    assert found.counts.tolist() == [0, 1, 0, 2, 0]
    assert found.nulls == 2


def test_times_beyond_the_calendar_become_the_farthest_that_fit() -> None:
    far = pa.array([2**62, -(2**62)], pa.int64())
    assert microseconds(far.cast(pa.timestamp("s"))).tolist() == [
        9_223_372_036_854 * 1_000_000,
        -9_223_372_036_854 * 1_000_000,
    ]
    assert microseconds(pa.array([2**31 - 1], pa.int32()).cast(pa.date32()))[0] > 2**62


# -- categories ------------------------------------------------------------------------------------------

RAW = st.one_of(
    st.sampled_from(
        [b"a", b"b", b"", b"\xed\xa0\x80", b"</script>", b'"\n', "é".encode(), b"x" * 300, b"x" * 299 + b"y"]
    ),
    st.binary(max_size=4),
)


def texts(values: list[bytes | None], kind: str) -> pa.Array:
    plain = pa.array(values, pa.binary())
    length = pa.large_string() if kind.startswith("large") else pa.string()
    column = plain.cast(pa.large_binary() if length == pa.large_string() else pa.binary()).cast(length, safe=False)
    return column.dictionary_encode() if kind.endswith("dictionary") else column


@pytest.mark.parametrize("kind", ["plain", "large", "dictionary", "large dictionary"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_category_counts_survive_any_split_and_order(kind: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.one_of(st.none(), RAW), min_size=1, max_size=40))
    known = data.draw(st.lists(RAW, min_size=1, max_size=6))
    spec = CategoricalSpec.fit("x", Counter(category_name(k) for k in known), limit=data.draw(st.integers(1, 6)))
    live = texts(values, kind)
    whole = fold(spec, live).features["x"]
    merged = merge([fold(spec, part) for part in pieces(live, data)])
    assert merged is not None
    parts = merged.features["x"]
    assert isinstance(whole, CategoricalProfile)
    assert isinstance(parts, CategoricalProfile)

    expected = Counter(category_name(v) for v in values if v is not None)
    for found in (whole, parts):
        assert found.counts.tolist() == [expected[c] for c in spec.categories]
        assert dict(found.unseen) == {k: v for k, v in expected.items() if k not in spec.categories}
        assert found.other == sum(found.unseen.values())
        assert found.nulls == values.count(None)
        assert found.rows == len(values)
    assert len({category_name(v) for v in {v for v in values if v is not None}}) <= len(set(values))
    for name in expected:
        name.encode("utf-8")


@pytest.mark.parametrize(
    ("column", "counts"),
    [
        (pa.array([True, False, None, True]), {"true": 2, "false": 1}),
        (pa.array([1, 2, None, 2], pa.int16()), {"1": 1, "2": 2}),
        (pa.array(["a", None, "a"], pa.string_view()), {"a": 2}),
        (pa.nulls(3), {}),
        (pa.array([], pa.string()), {}),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1, 1], pa.uint64()), pa.array(["a", "b"])), {"a": 1, "b": 2}),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1, 1]), pa.array(["a", "a"])), {"a": 3}),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None])), {"a": 1}),
        (pa.DictionaryArray.from_arrays(pa.array([0, 0, 1]), pa.array([7, 8])), {"7": 2, "8": 1}),
    ],
)
def test_category_counts_of_other_types(column: pa.Array, counts: dict[str, int]) -> None:
    assert category_counts(column) == counts
    found = fold(CategoricalSpec.fit("x", {"a": 1}), column) if len(column) else None
    if found is not None:
        assert found.features["x"].missing == len(column) - sum(counts.values())


def test_a_hundred_thousand_categories_keep_their_rows_and_a_bounded_number_of_names() -> None:
    names = [f"user {i}" for i in range(100_000)]
    column = pa.array(names + names[:500])
    spec = CategoricalSpec.fit("x", category_counts(column))
    assert len(spec.categories) == 10_000
    assert not spec.complete
    assert spec.categories[:500] == tuple(sorted(names[:500]))
    found = fold(spec, column).features["x"]
    assert isinstance(found, CategoricalProfile)
    assert (found.n, found.other) == (100_500, 90_000)
    assert len(found.unseen) == profile_module.UNSEEN_KEPT
    halves = merge([fold(spec, column.slice(60_000)), fold(spec, column.slice(0, 60_000))])
    assert halves is not None
    again = halves.features["x"]
    assert isinstance(again, CategoricalProfile)
    assert dict(again.unseen) == dict(found.unseen)
    assert np.array_equal(again.counts, found.counts)


def test_kinds_accept_the_types_that_they_can_read() -> None:
    assert accepts("numeric", pa.null())
    assert accepts("categorical", pa.dictionary(pa.int32(), pa.large_string()))
    assert accepts("datetime", pa.date32())
    assert not accepts("datetime", pa.string())
    assert not accepts("categorical", pa.float64())
    assert not accepts("boolean", pa.int8())
    assert accepts("boolean", pa.bool_())


# -- buckets of time -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(st.integers(-10_000_000_000, 10_000_000_000), min_size=1, max_size=60),
    data=st.data(),
)
def test_every_row_lands_in_the_bucket_of_its_time(times: list[int], data: st.DataObject) -> None:
    values = [float(t % 7) for t in times]
    spec = fit(pa.array(values))
    table = pa.table({"t": pa.array(times).cast(pa.timestamp("us")), "x": values})
    size = data.draw(st.integers(1, len(times)))
    buckets = profile_buckets([spec], table.to_batches(size), timestamp="t")
    hour = 3_600_000_000
    expected = Counter(t // hour * hour for t in times)
    assert {start: p.rows for start, p in buckets.items()} == expected
    for start, found in buckets.items():
        inside = [(t, x) for t, x in zip(times, values, strict=True) if t // hour * hour == start]
        assert (found.oldest, found.newest) == (min(inside)[0], max(inside)[0])
        assert found.features["x"].n == len(inside)
    whole = merge(buckets.values())
    assert whole is not None
    one = profile_buckets([spec], [pa.record_batch({"x": pa.array(values)})])[0]
    assert isinstance(whole.features["x"], NumericProfile)
    assert isinstance(one.features["x"], NumericProfile)
    assert same(whole.features["x"], one.features["x"])


def test_a_feature_that_some_batches_lack_is_left_out_of_the_merge() -> None:
    spec = fit(pa.array([1.0]))
    with_x = fold(spec, pa.array([1.0]))
    without = profile_buckets([spec], [pa.record_batch({"y": pa.array([1])})])[0]
    assert with_x.merge(without).features == {}
    assert with_x.merge(without).rows == 2
    assert merge([]) is None


# -- ids -------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 200), min_size=1, max_size=120), data=st.data())
def test_ids_do_not_depend_on_order_or_split(ids: list[int], data: st.DataObject) -> None:
    kept = data.draw(st.sampled_from([4, 32, 1000]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_module, "IDS_KEPT", kept)
        column = pa.array(ids, pa.int64())
        whole = Ids.of(hash_ids(column))
        merged = reduce(Ids.merge, [Ids.of(hash_ids(part)) for part in pieces(column, data)])
    assert np.array_equal(whole.hashes, merged.hashes)
    assert np.array_equal(whole.counts, merged.counts)
    assert (whole.level, whole.rows) == (merged.level, merged.rows) == (whole.level, len(ids))
    assert len(whole.hashes) <= kept
    if not whole.level:
        assert whole.duplicate_share == pytest.approx(1 - len(set(ids)) / len(ids))
    assert 0 <= whole.duplicate_share <= 1


def test_above_the_limit_duplicates_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "IDS_KEPT", 10_000)
    distinct = np.arange(200_000)
    assert Ids.of(hash_ids(pa.array(distinct))).duplicate_share == 0
    twice = Ids.of(hash_ids(pa.array(np.concatenate((distinct, distinct[:100_000])))))
    assert twice.level > 0
    assert twice.duplicate_share == pytest.approx(1 / 3, abs=0.02)
    one_id = Ids.of(hash_ids(pa.array(np.concatenate((distinct, np.full(300_000, -1))))))
    assert one_id.duplicate_share == pytest.approx(0.6, abs=0.05)
    assert Ids.of(hash_ids(pa.array(np.full(300_000, 7)))).duplicate_share > 0.99


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([1, 2, 2, None]),
        pa.array([2**64 - 1, 1, 1], pa.uint64()),
        pa.array(["a", "b", "b"]),
        pa.array(["a", "b", "b"], pa.string_view()),
        pa.array(["a", "b", "b"], pa.large_string()).dictionary_encode(),
        pa.array([b"a", b"b", b"b"], pa.binary(1)),
        pa.array([1.5, 2.0, 2.0]),
        pa.array([True, False, False]),
        pa.array([dt.datetime(2020, 1, 1), dt.datetime(2021, 1, 1), dt.datetime(2021, 1, 1)]),
    ],
)
def test_ids_of_any_type_are_told_apart(ids: pa.Array) -> None:
    hashes = hash_ids(ids)
    assert len(hashes) == 3
    assert hashes[0] != hashes[1]
    assert hashes[1] == hashes[2]
    assert Ids.of(hashes).duplicate_share == pytest.approx(1 / 3)


def test_no_ids_have_no_duplicates() -> None:
    none = Ids.of(hash_ids(pa.nulls(3)))
    assert none.duplicate_share == 0
    assert none.merge(none).rows == 0
