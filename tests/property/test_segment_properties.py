"""A segment's features are those of its rows alone, bit for bit, however the rows are cut and packed."""

from __future__ import annotations

import dataclasses
import math
import pickle
from datetime import timedelta
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_values import plain

from drift_monitor.core.fold import category_name, profile_buckets, segment_rows
from drift_monitor.core.folding import Folding
from drift_monitor.core.packed import Layout, Packed, pack, unpack
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Profile, Spec, columns_read, empty
from drift_monitor.core.types import Segment, segment_feature

REFERENCE = np.random.default_rng(1).normal(size=300)
VALUES = ["UA", "a = b", '"', "\u202e", "q" * 300, ""]
COLUMNS: list[Spec] = [
    NumericSpec.fit("x", REFERENCE, edges=20),
    NumericSpec.fit("x where carrier = UA", np.round(REFERENCE * 3)),
    CategoricalSpec.fit("carrier", {v: 9 - i for i, v in enumerate(VALUES)}),
    CategoricalSpec.fit("c", {"a": 5, "b": 3}),
]
MICROSECOND = timedelta(microseconds=1)


def sliced(spec: Spec, value: str, name: str | None = None) -> Spec:
    segment = Segment(column="carrier", value=value)
    name = name or segment_feature(spec.column, segment) + "~"
    return dataclasses.replace(spec, name=name, column=spec.column, segment=segment)


SLICED = [sliced(spec, value) for value in VALUES[:4] for spec in COLUMNS if spec.name != "carrier"]
SPECS = [*COLUMNS, *SLICED]
LAYOUT = Layout(tuple(SPECS))
NUMBERS = st.one_of(
    st.none(), st.floats(width=32), st.floats(-4, 4), st.sampled_from([0.0, -0.0, math.nan, math.inf, -1e308])
)
ROW = st.tuples(
    st.integers(0, 5),
    NUMBERS,
    st.floats(-9, 9),
    st.sampled_from([*VALUES, None]),
    st.sampled_from(["a", "z", None]),
)
ROWS = st.lists(ROW, min_size=1, max_size=40)


def table(rows: list[Any], *, encoded: bool = False) -> pa.Table:
    t, x, y, carrier, c = zip(*rows, strict=True)
    names = pa.array(carrier, pa.string())
    return pa.table(
        {
            "t": pa.array(t, pa.timestamp("us", "UTC")),
            "x": pa.array(x, pa.float64()),
            "x where carrier = UA": pa.array(y, pa.float64()),
            "carrier": names.dictionary_encode() if encoded else names,
            "c": pa.array(c, pa.string()),
        }
    )


def fold(specs: list[Spec], rows: pa.Table, size: int = 1 << 17) -> dict[int, Profile]:
    batches = rows.to_batches(max_chunksize=size)
    return profile_buckets(specs, batches, timestamp="t", bucket=MICROSECOND)


@settings(max_examples=60)
@given(ROWS, st.integers(1, 7), st.booleans())
def test_a_segment_counts_what_its_rows_alone_count(rows: list[Any], size: int, encoded: bool) -> None:
    whole = table(rows, encoded=encoded)
    found = fold(SPECS, whole, size)
    for value in VALUES[:4]:
        mine = whole.filter(pc.equal(whole["carrier"], value).combine_chunks())
        alone = fold(COLUMNS, mine)
        for spec in SLICED:
            if spec.segment is not None and spec.segment.value == value:
                for start, profile in found.items():
                    expected = alone[start].features[spec.column] if start in alone else empty(spec)
                    assert plain(profile.features[spec.name]) == plain(expected)


@settings(max_examples=60)
@given(ROWS, st.integers(1, 7), st.randoms(use_true_random=False))
def test_neither_the_cuts_nor_the_order_change_a_bit(rows: list[Any], size: int, random: Any) -> None:
    expected = plain(dict(sorted(fold(SPECS, table(rows)).items())))
    random.shuffle(rows)
    assert plain(dict(sorted(fold(SPECS, table(rows), size).items()))) == expected


def test_a_fold_of_segments_can_be_sent_to_another_machine() -> None:
    folding = Folding(LAYOUT, tuple(columns_read(SPECS)), None, None)
    sent = pickle.loads(pickle.dumps(folding))
    rows = [(0, 1.0, 2.0, "UA", "a"), (1, None, 1.0, "a = b", "z"), (2, 3.0, 0.0, None, None)]
    assert sent(table(rows).to_batches()).to_bytes() == folding(table(rows).to_batches()).to_bytes()
    assert sent.layout.key == LAYOUT.key


@settings(max_examples=40)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_packed_segments_merge_and_come_back(parts: list[Any]) -> None:
    profiles = [profile_buckets(SPECS, table(rows).to_batches())[0] for rows in parts]
    packed = [Packed.from_bytes(pack(p, LAYOUT).to_bytes(), LAYOUT) for p in profiles]
    assert plain(unpack(reduce(Packed.merge, packed), LAYOUT)) == plain(reduce(Profile.merge, profiles))


@settings(max_examples=40)
@given(st.lists(ROW.filter(lambda row: row[3] is not None), min_size=1, max_size=40))
def test_all_values_of_a_complete_column_sum_to_the_whole(rows: list[Any]) -> None:
    values = sorted({category_name(row[3].encode()) for row in rows})
    whole = NumericSpec.fit("x", REFERENCE, edges=20)
    specs = [sliced(whole, value, name=f"{i}") for i, value in enumerate(values)]
    [profile] = profile_buckets([whole, *specs], table(rows).to_batches()).values()
    parts = [profile.features[spec.name] for spec in specs]
    assert plain(reduce(lambda a, b: a.merge(b), parts)) == plain(profile.features["x"])  # type: ignore[arg-type]


@settings(max_examples=60)
@given(
    st.one_of(
        st.lists(st.sampled_from(["a", "b", "é", None, "x" * 201]), max_size=20).map(
            lambda v: pa.array(v, pa.string())
        ),
        st.lists(st.sampled_from([1, 0, None]), max_size=20).map(lambda v: pa.array(v, pa.int8())),
        st.lists(st.sampled_from([True, False, None]), max_size=20).map(lambda v: pa.array(v, pa.bool_())),
    ),
    st.booleans(),
    st.integers(0, 3),
)
def test_rows_of_values_are_those_that_have_them(column: pa.Array, encoded: bool, skipped: int) -> None:
    column = (column.dictionary_encode() if encoded else column).slice(skipped)
    values = ["a", "é", "1", "0", "true", "false", "nowhere"]
    texts = [v if v is None or isinstance(v, str) else str(v).lower() for v in column.to_pylist()]
    found = segment_rows(column, values)
    assert [rows.tolist() for rows in found] == [[i for i, t in enumerate(texts) if t == v] for v in values]
