from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.config.clusters import ThreadsExecutor
from drift_monitor.executors import Threads
from drift_monitor.sources.sample import hash_rows, sample_batches

SCHEMA = pa.schema([("x", pa.float64()), ("name", pa.string())])


def batches(table: pa.Table, order: np.ndarray[Any, Any], size: int) -> list[pa.RecordBatch]:
    return table.take(pa.array(order)).combine_chunks().to_batches(size)


def mixed(n: int, distinct: int) -> pa.Table:
    rng = np.random.default_rng(n)
    x = rng.integers(0, distinct, n) / 8
    return pa.table({"x": x, "name": [f"n{int(v * 8) % 7}" for v in x]}, SCHEMA)


@settings(deadline=None)
@given(st.integers(1, 400), st.sampled_from([1, 5, 100, 10**6]), st.integers(1, 60), st.randoms())
def test_order_and_split_do_not_matter(n: int, distinct: int, limit: int, random: Any) -> None:
    table = mixed(n, distinct)
    shuffled = list(range(n))
    random.shuffle(shuffled)
    one = sample_batches(batches(table, np.arange(n), n), SCHEMA, limit)
    other = sample_batches(batches(table, np.array(shuffled), random.randint(1, 50)), SCHEMA, limit)
    assert one == other
    assert one.num_rows == min(n, limit)
    left = Counter(map(str, table.to_pylist()))
    left.subtract(map(str, one.to_pylist()))
    assert min(left.values()) >= 0  # no row more often than it is there


def test_rows_that_are_there_often_stay_often() -> None:
    table = pa.table({"x": [0.0] * 9000 + [1.0] * 900 + [2.0] * 100, "name": ["n"] * 10_000}, SCHEMA)
    found = Counter(sample_batches([table.combine_chunks().to_batches()[0]], SCHEMA, 1000)["x"].to_pylist())
    assert (found[0.0], found[1.0], found[2.0]) == pytest.approx((900, 90, 10), abs=1)


@pytest.mark.parametrize("last", range(8))
def test_few_different_rows_leave_room_for_those_that_come_later(last: int) -> None:
    first = pa.record_batch({"x": [100.0] * 900, "name": ["n"] * 900}, SCHEMA)
    then = pa.record_batch({"x": [float(last)] * 100, "name": ["n"] * 100}, SCHEMA)
    found = Counter(sample_batches([first, then], SCHEMA, 100)["x"].to_pylist())
    assert (found[100.0], found[float(last)]) == pytest.approx((90, 10), abs=1)


def test_the_sample_is_like_the_whole() -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {"x": rng.normal(size=200_000), "name": rng.choice(["a", "b"], 200_000, p=[0.9, 0.1])}, SCHEMA
    )
    sample = sample_batches(table.to_batches(10_000), SCHEMA, 20_000)
    x = np.array(sample["x"].to_pylist())
    assert abs(x.mean()) < 4 / np.sqrt(20_000)
    assert abs(x.std() - 1) < 4 / np.sqrt(40_000)
    assert sample["name"].to_pylist().count("b") == pytest.approx(2000, abs=4 * np.sqrt(1800))


def test_another_seed_is_another_sample() -> None:
    table = mixed(1000, 10**6)
    assert sample_batches(table.to_batches(), SCHEMA, 50) != sample_batches(table.to_batches(), SCHEMA, 50, seed=1)


def test_rows_without_a_time_are_left_out() -> None:
    batch = pa.record_batch(
        {"x": [1.0, 2.0], "name": ["a", "b"], "t": pa.array([None, 1], pa.timestamp("us", "UTC"))}
    )
    assert sample_batches([batch], SCHEMA, 10, timestamp="t").to_pylist() == [{"x": 2.0, "name": "b"}]


def test_nothing() -> None:
    assert sample_batches([], SCHEMA, 10).num_rows == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([1, None], pa.int8()), pa.array([1.0, None], pa.float64())),
        (pa.array([0.0, float("nan")]), pa.array([-0.0, -float("nan")])),
        (pa.array(["a", None]), pa.array(["a", None]).dictionary_encode()),
        (pa.array(["a", "b"]), pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(["b", "a"]))),
        (pa.array(["a", "b"]), pa.array(["a", "b"], pa.large_string())),
        (pa.array([5], pa.timestamp("s", "UTC")), pa.array([5_000_000], pa.timestamp("us", "UTC"))),
    ],
)
def test_the_hash_is_of_values_and_not_of_types(one: pa.Array, other: pa.Array) -> None:
    hashes = [hash_rows(pa.record_batch({"c": column}), ["c"], 0).tolist() for column in (one, other)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True, False, None]),
        pa.array([[1], [2], None]),
        pa.array([0, 1, None]),
        pa.array(["", "1", None]),
        pa.array([b"", b"1", None]),
    ],
)
def test_different_values_have_different_hashes(column: pa.Array) -> None:
    assert len(set(hash_rows(pa.record_batch({"c": column}), ["c"], 0).tolist())) == 3


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 20])
def test_every_split_is_mapped_once(workers: int, n: int) -> None:
    found = list(Threads(ThreadsExecutor(workers=workers)).each(range(n), lambda split: (split, split**2), most=8))
    assert found == [(split, (split, split**2)) for split in range(n)]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_split_ends_the_whole(workers: int) -> None:
    def fold(split: int) -> int:
        if split == 2:
            raise ValueError("split 2 is bad")
        return split

    with pytest.raises(ValueError, match="split 2 is bad"):
        list(Threads(ThreadsExecutor(workers=workers)).each(range(10), fold, most=8))
