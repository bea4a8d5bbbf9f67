"""Products against numpy on whole numbers, and merging in any order and any split."""

from __future__ import annotations

import itertools
import math
from functools import reduce

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.core import products as products_module
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.products import PairSpec, Products, fold_products
from drift_monitor.core.profile import merge

FLOATS = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 5e-324, 1e308, -1.7e308, math.nan, math.inf, -math.inf]),
    st.floats(-20, 20),
    st.floats(),
)
KINDS = {
    "float64": (pa.float64(), FLOATS),
    "float32": (pa.float32(), st.one_of(st.none(), st.floats(width=32))),
    "int64": (pa.int64(), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-9, 9))),
    "uint64": (pa.uint64(), st.one_of(st.none(), st.integers(2**53, 2**64 - 1))),
    "bool": (pa.bool_(), st.sampled_from([None, True, False])),
    "decimal": (
        pa.decimal128(38, 6),
        st.one_of(st.none(), st.decimals(min_value=-(10**6), max_value=10**6, places=6)),
    ),
    "null": (pa.null(), st.none()),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[PairSpec, pa.RecordBatch]:
    """Rows of several types, some in dictionaries, and what to count them in."""
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=5))
    n = draw(st.integers(1, 40))
    columns = {}
    for i, kind in enumerate(kinds):
        dtype, values = KINDS[kind]
        column = pa.array(draw(st.lists(values, min_size=n, max_size=n)), dtype)
        if kind != "null" and draw(st.booleans()):
            column = column.dictionary_encode(null_encoding=draw(st.sampled_from(["mask", "encode"])))
        columns[f"c{i}"] = column
    centre = [draw(st.floats(-1e6, 1e6)) for _ in kinds]
    scale = [draw(st.one_of(st.floats(0.01, 100), st.sampled_from([2.0**-990, 2.0**1020]))) for _ in kinds]
    return PairSpec(tuple(columns), np.array(centre), np.array(scale)), pa.record_batch(columns)


def steps(pairs: PairSpec, batch: pa.RecordBatch) -> list[list[int]]:
    """Each value as a whole number, one at a time. Not by the code under test."""
    found = []
    for name, centre, scale in zip(pairs.names, pairs.centre.tolist(), pairs.scale.tolist(), strict=True):
        row = []
        for value in batch.column(name).to_pylist():
            far = 0.0 if value is None else (float(value) - centre) * (32 / scale)
            row.append(0 if math.isnan(far) else round(min(max(far, -256.0), 256.0)))
        found.append(row)
    return found


def fold(pairs: PairSpec, batch: pa.RecordBatch) -> Products:
    found = fold_products(pairs, batch)
    assert found is not None
    return found[0]


def bits(products: Products) -> tuple[int, list[int], list[int]]:
    assert products.sums.dtype == products.products.dtype == np.int64
    return products.rows, products.sums.tolist(), products.products.tolist()


@settings(max_examples=200, deadline=None)
@given(tables())
def test_sums_are_those_of_the_whole_numbers(table: tuple[PairSpec, pa.RecordBatch]) -> None:
    pairs, batch = table
    x = np.array(steps(pairs, batch), np.int64).T
    upper = np.triu_indices(x.shape[1])
    found = fold(pairs, batch)
    assert bits(found) == (len(x), x.sum(axis=0).tolist(), (x.T @ x)[upper].tolist())
    assert found.mean_products() == pytest.approx(x.T @ x / (1024 * len(x)))


@settings(max_examples=200, deadline=None)
@given(table=tables(), data=st.data())
def test_any_split_in_any_order_gives_the_same_bits(
    table: tuple[PairSpec, pa.RecordBatch], data: st.DataObject
) -> None:
    pairs, batch = table
    n = batch.num_rows
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=5))), n]
    whole = bits(fold(pairs, batch))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products_module, "_SLAB", data.draw(st.integers(1, n + 1)))
        patch.setattr(products_module, "_ALONE", data.draw(st.sampled_from([25, 100, 1 << 18])))
        at_once = fold_products(pairs, batch, cuts)
    assert at_once is not None
    assert bits(reduce(Products.merge, at_once)) == whole
    parts = [batch.slice(a, b - a) for a, b in itertools.pairwise(cuts)]
    parts = data.draw(st.permutations(parts))
    assert bits(reduce(Products.merge, [fold(pairs, part) for part in parts])) == whole
    order = data.draw(st.permutations(range(n)))
    assert bits(fold(pairs, batch.take(pa.array(order, pa.int64())))) == whole


@settings(max_examples=100, deadline=None)
@given(table=tables(), data=st.data())
def test_every_row_counts_in_the_bucket_of_its_time(
    table: tuple[PairSpec, pa.RecordBatch], data: st.DataObject
) -> None:
    pairs, batch = table
    hour = 3_600_000_000
    n = batch.num_rows
    times = data.draw(st.lists(st.integers(-3 * hour, 3 * hour), min_size=n, max_size=n))
    timed = batch.append_column("t", pa.array(times).cast(pa.timestamp("us")))
    buckets = profile_buckets((), [timed], timestamp="t", pairs=pairs)
    for start, profile in buckets.items():
        inside = [i for i, t in enumerate(times) if t // hour * hour == start]
        assert profile.products is not None
        assert bits(profile.products) == bits(fold(pairs, batch.take(pa.array(inside, pa.int64()))))
    whole = merge(buckets.values())
    assert whole is not None
    assert whole.products is not None
    assert bits(whole.products) == bits(fold(pairs, batch))


@settings(max_examples=100, deadline=None)
@given(table=tables(), data=st.data())
def test_some_features_are_cut_out_as_if_counted_alone(
    table: tuple[PairSpec, pa.RecordBatch], data: st.DataObject
) -> None:
    pairs, batch = table
    names = data.draw(st.sets(st.sampled_from(pairs.names), min_size=2))
    some = pairs.only(names)
    assert some is not None
    assert bits(fold(pairs, batch).only(pairs, names)) == bits(fold(some, batch))
