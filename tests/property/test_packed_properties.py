"""Packed profiles merge to the bits of the profiles themselves, and survive the way through bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_values import plain

from drift_monitor.core.errors import DamagedError
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.packed import Layout, Packed, pack, unpack
from drift_monitor.core.products import PairSpec
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Profile
from drift_monitor.core.types import Segment

REFERENCE = np.random.default_rng(1).normal(size=500)
LAYOUT = Layout(
    (
        NumericSpec.fit("x", REFERENCE, edges=20),
        NumericSpec.fit("y\n", np.round(REFERENCE * 3)),
        CategoricalSpec.fit("c", {"a": 5, "b": 3, "\u202e": 1}),
    ),
    PairSpec(("x", "y\n"), np.zeros(2), np.ones(2)),
)
NUMBERS = st.one_of(
    st.none(),
    st.floats(width=64, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 1e300, -1e308, float("nan"), float("inf")]),
    st.floats(-4, 4),
)
ROWS = st.lists(
    st.tuples(NUMBERS, st.floats(-9, 9), st.sampled_from(["a", "b", None, "z", "é", "q" * 500])), max_size=12
)


def fold(rows: list[tuple[Any, Any, Any]], *, without: str | None = None, ids: bool = True) -> Profile:
    x, y, c = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {"x": pa.array(x, pa.float64()), "y\n": pa.array(y, pa.float64()), "c": pa.array(c, pa.string())}
    columns["id"] = pa.array(range(len(rows)), pa.int64())
    columns["t"] = pa.array(range(len(rows)), pa.timestamp("us", "UTC"))
    if without is not None:
        del columns[without]
    found = profile_buckets(
        LAYOUT.specs,
        pa.table(columns).to_batches(),
        timestamp="t",
        id_column="id" if ids else None,
        pairs=None if without in {"x", "y\n"} else LAYOUT.pairs,
    )
    return found.get(0, Profile(0, {}))


@given(st.lists(ROWS.filter(bool), min_size=1, max_size=4), st.sampled_from([None, "x", "c"]), st.booleans())
def test_packed_profiles_merge_as_profiles_do(parts: list[Any], lacking: str | None, ids: bool) -> None:
    profiles = [fold(rows, without=lacking if i == 1 else None, ids=ids) for i, rows in enumerate(parts)]
    merged = reduce(Profile.merge, profiles)
    through = [Packed.from_bytes(pack(p, LAYOUT).to_bytes(), LAYOUT) for p in profiles]
    assert plain(unpack(reduce(Packed.merge, through), LAYOUT)) == plain(merged)
    assert plain(unpack(reduce(Packed.merge, through[::-1]), LAYOUT)) == plain(merged)
    again = reduce(Packed.merge, through)
    assert again.to_bytes() == Packed.from_bytes(again.to_bytes(), LAYOUT).to_bytes()


def test_a_layout_has_another_key_when_the_numbers_mean_something_else() -> None:
    other = NumericSpec.fit("x", REFERENCE + 1e-9, edges=20)
    keys = {
        LAYOUT.key,
        Layout(LAYOUT.specs).key,
        Layout(LAYOUT.specs[::-1], LAYOUT.pairs).key,
        Layout((other, *LAYOUT.specs[1:]), LAYOUT.pairs).key,
    }
    assert len(keys) == 4
    assert Layout(LAYOUT.specs, LAYOUT.pairs).key == LAYOUT.key


def test_the_segment_of_a_feature_is_in_the_key_whatever_its_name() -> None:
    def key(column: str, value: str) -> str:
        segment = Segment(column=column, value=value)
        return Layout((replace(LAYOUT.specs[0], segment=segment, column="x"),)).key

    whole = Layout(LAYOUT.specs[:1]).key
    assert len({whole, key("c", "a"), key("c", "b"), key("d", "a")}) == 4
    assert key("c", "a") == key("c", "a")


def test_sums_are_of_what_lies_above_the_lower_edge_of_each_cell() -> None:
    spec = LAYOUT.specs[0]
    assert isinstance(spec, NumericSpec)
    edges = spec.edges.tolist()
    at_edges = pack(fold([(x, 0.0, "a") for x in edges]), LAYOUT)
    assert not at_edges.sums.any()
    value = edges[3] + 0.25 * (edges[4] - edges[3])
    between = pack(fold([(value, 0.0, "a"), (value, 0.0, "a")]), LAYOUT)
    assert between.counts[: LAYOUT.cells[1]].tolist() == [0] * 8 + [2] + [0] * (LAYOUT.cells[1] - 9)
    assert between.sums[8] * spec.unit == pytest.approx(2 * (value - edges[3]), rel=1e-6)


@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    blob = pack(fold([(1.0, 2.0, "a"), (None, 3.0, "new")]), LAYOUT).to_bytes()
    at = data.draw(st.integers(0, len(blob) - 1))
    for broken in (blob[:at], b"", b"x" + blob[1:]):
        with pytest.raises(DamagedError):
            Packed.from_bytes(broken, LAYOUT)
