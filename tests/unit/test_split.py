"""Which rows a training set keeps, and where they fall. Digests come from coreutils' `b2sum -l 192`."""

from __future__ import annotations

import math
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_monitor.core.errors import SchemaError
from drift_monitor.core.split import (
    Fate,
    Hashes,
    Keys,
    arrange,
    decide,
    hash_contents,
    hash_ids,
    id_texts,
    parts_of,
    share_out,
)

# printf '0:7' | b2sum -l 192; printf '5:flug-\xc3\xa9' | b2sum -l 192
SEVEN = "711ebe9223d6a35b94de994ccda6497776fb50ea8d9ef367"
FLIGHT = "12444783a1fe4e67901d2ba3bef9078e882da17b455013b9"


def words(hashes: Hashes, row: int = 0) -> str:
    return "".join(f"{int(each[row]):016x}" for each in (hashes.identity, hashes.place, hashes.rank))


@pytest.mark.parametrize(
    ("ids", "seed", "digest"),
    [
        (pa.array([7]), 0, SEVEN),
        (pa.array([7], pa.uint8()), 0, SEVEN),
        (pa.array(["7"]), 0, SEVEN),
        (pa.array(["7"], pa.large_string()), 0, SEVEN),
        (pa.array(["7"], pa.string_view()), 0, SEVEN),
        (pa.array([b"7"]), 0, SEVEN),
        (pa.array([7.0]), 0, SEVEN),
        (pa.array([7.0], pa.float32()), 0, SEVEN),
        (pa.array([Decimal("7.00")]), 0, SEVEN),
        (pa.array([Decimal(7)], pa.decimal256(50, 0)), 0, SEVEN),
        (pa.array(["6", "7"]).dictionary_encode()[1:], 0, SEVEN),
        (pa.array(["flug-é"]), 5, FLIGHT),
    ],
    ids=lambda v: str(v.type) if isinstance(v, pa.Array) else "",
)
def test_an_id_has_one_digest_whatever_its_type(ids: pa.Array, seed: int, digest: str) -> None:
    assert words(hash_ids(ids, seed)) == digest


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (["007", "7 ", "", "é", "e\u0301"], [b"007", b"7 ", b"", b"\xc3\xa9", b"e\xcc\x81"]),
        ([0, -5, 2**63 - 1], [b"0", b"-5", b"9223372036854775807"]),
        ([-0.0, 0.1, 1e16, math.inf], [b"0", b"0.1", b"10000000000000000", b"inf"]),
        ([Decimal("-0.00"), Decimal("1.50"), Decimal("100.00")], [b"0", b"1.5", b"100"]),
        ([True, False], [b"true", b"false"]),
    ],
)
def test_texts_of_ids(ids: list[Any], texts: list[bytes]) -> None:
    assert id_texts(pa.array(ids)) == texts


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([None, "a"]),
        pa.array([None, 1]),
        pa.array([math.nan, 1.5]),
        pa.array([None, Decimal("1.5")]),
        pa.array([None, "a"]).dictionary_encode(),
        pa.array([None, "a"]).dictionary_encode(null_encoding="encode"),
    ],
    ids=lambda v: str(v.type),
)
def test_null_and_nan_are_no_ids(ids: pa.Array) -> None:
    assert hash_ids(ids, 0).valid.tolist() == [False, True]


def test_a_column_of_nulls_has_no_ids() -> None:
    assert hash_ids(pa.nulls(3), 0).valid.tolist() == [False] * 3
    assert hash_ids(pa.nulls(2, pa.dictionary(pa.int32(), pa.string())), 0).valid.tolist() == [False] * 2


def test_bytes_that_are_no_text_are_ids_too() -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    assert id_texts(broken) == [b"\xff\xfe"]


def test_uuids_are_their_bytes() -> None:
    raw = bytes(range(16))
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([raw], pa.binary(16)))
    assert id_texts(column) == [raw]


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([1], pa.timestamp("s"))])
def test_what_cannot_be_an_id_is_refused(column: pa.Array) -> None:
    with pytest.raises(SchemaError, match="ids cannot be"):
        hash_ids(column, 0)


@pytest.mark.parametrize("size", [1_000_000])
def test_a_long_id_differs_from_one_that_ends_otherwise(size: int) -> None:
    found = hash_ids(pa.array(["x" * size + "a", "x" * size + "b"]), 0)
    expected = blake2b(b"0:" + b"x" * size + b"a", digest_size=24).hexdigest()
    assert words(found) == expected
    assert found.identity[0] != found.identity[1]


def test_one_long_id_on_every_row_is_hashed_once() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array(["x" * 1_000_000]))
    found = hash_ids(column, 0)  # 100 GB of text, were it hashed row by row
    assert len(np.unique(found.identity)) == 1


def test_parts_have_their_shares() -> None:
    place = hash_ids(pa.array(np.arange(40_000)), 3).place
    counts = np.bincount(parts_of(place, [0.7, 0.2, 0.1]))
    for count, share in zip(counts, [0.7, 0.2, 0.1], strict=True):
        assert abs(count - 40_000 * share) < 4 * math.sqrt(40_000 * share * (1 - share))


def test_place_and_rank_are_independent() -> None:
    """A cap that keeps the lowest ranks must not empty a part."""
    found = hash_ids(pa.array(np.arange(40_000)), 0)
    low = found.rank < np.uint64(2**62)  # a quarter
    train = parts_of(found.place[low], [0.8, 0.2]) == 0
    assert abs(train.mean() - 0.8) < 4 * math.sqrt(0.16 / low.sum())


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_a_part_is_the_first_whose_cumulated_share_is_above(place: int, weights: list[int]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    cumulated = [math.fsum(shares[: i + 1]) for i in range(len(shares))]
    # comparing a whole number with a float is exact
    expected = next((i for i, c in enumerate(cumulated[:-1]) if place < c * 2**64), len(shares) - 1)
    assert parts_of(np.array([place], np.uint64), shares)[0] == expected


SIZES = st.lists(st.integers(0, 200), min_size=1, max_size=12).map(lambda sizes: np.array(sizes, np.int64))


@given(SIZES, st.integers(1, 3000))
def test_shares_are_fair(sizes: np.ndarray[Any, Any], most: int) -> None:
    quotas = share_out(sizes, most)
    assert (quotas <= sizes).all()
    assert quotas.sum() == min(most, sizes.sum())
    limited = quotas < sizes
    if limited.any():
        assert quotas[limited].max() - quotas[limited].min() <= 1
        assert quotas.max() <= quotas[limited].min() + 1  # nobody has more than one that could have had more


@given(SIZES, st.integers(1, 1000), st.integers(0, 1000))
def test_a_larger_total_takes_from_no_group(sizes: np.ndarray[Any, Any], most: int, more: int) -> None:
    assert (share_out(sizes, most) <= share_out(sizes, most + more)).all()


def keys(rows: list[tuple[str, int, int]], trained: int, groups: list[int] | None = None) -> Keys:
    """Keys of rows (id, time, content), all of them usable."""
    found = hash_ids(pa.array([row[0] for row in rows], pa.string()), 0)
    return Keys(
        trained,
        np.zeros(len(rows), np.uint8),
        found.identity,
        found.rank,
        np.array([row[1] for row in rows], np.int64),
        parts_of(found.place, [0.5, 0.5]),
        None if groups is None else np.array(groups, np.int32),
    )


def fates(rows: list[tuple[str, int, int]], trained: int, **options: Any) -> list[str]:
    found = keys(rows, trained, options.pop("groups", None))
    content = np.array([row[2] for row in rows], np.uint64)
    decide(found, lambda wanted: content[wanted], **options)
    return [Fate(fate).name.lower() for fate in found.fate]


def test_a_live_row_replaces_a_training_row_even_a_later_one() -> None:
    assert fates([("a", 9, 0), ("b", 1, 0), ("a", 5, 0)], 2) == ["replaced", "taken", "taken"]


def test_of_one_side_the_newest_stays() -> None:
    rows = [("a", 5, 0), ("a", 7, 0), ("b", 2, 0), ("b", 1, 0), ("b", 2, 0), ("a", 6, 0)]
    assert fates(rows[:2], 2) == ["duplicate", "taken"]
    assert fates(rows, 2) == ["replaced", "replaced", "duplicate", "duplicate", "taken", "taken"]


def test_of_rows_at_the_same_time_the_content_decides() -> None:
    assert fates([("a", 5, 8), ("a", 5, 9), ("a", 5, 1)], 0) == ["duplicate", "taken", "duplicate"]


def test_contents_are_asked_for_only_where_they_decide() -> None:
    asked: list[list[int]] = []

    def contents(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        asked.append(rows.tolist())
        return np.zeros(len(rows), np.uint64)

    decide(keys([("a", 5, 0), ("b", 1, 0), ("a", 6, 0), ("a", 6, 0), ("c", 0, 0), ("c", 1, 0)], 0), contents)
    assert asked == [[2, 3]]
    decide(keys([("a", 5, 0), ("b", 1, 0)], 1), contents)
    assert asked == [[2, 3]]


def test_a_span_is_counted_back_from_the_newest_row_and_is_open_at_its_start() -> None:
    rows = [("a", 10, 0), ("b", 11, 0), ("c", 20, 0), ("d", 15, 0)]
    assert fates(rows, 2, span=10) == ["before_span", "taken", "taken", "taken"]


def test_a_cap_keeps_the_lowest_ranks() -> None:
    rows = [(f"id-{i}", i, 0) for i in range(100)]
    ranks = [blake2b(f"0:id-{i}".encode(), digest_size=24).digest()[16:] for i in range(100)]
    found = fates(rows, 50, max_rows=30)
    lowest = sorted(range(100), key=lambda i: ranks[i])[:30]
    assert [i for i in range(100) if found[i] == "taken"] == sorted(lowest)
    assert found.count("over_cap") == 70


def test_a_cap_is_shared_out_over_groups() -> None:
    rows = [(f"id-{i}", i, 0) for i in range(100)]
    groups = [0] * 3 + [1] * 47 + [2] * 50
    found = fates(rows, 50, max_rows=20, groups=groups)
    taken = [groups[i] for i in range(100) if found[i] == "taken"]
    assert [taken.count(group) for group in range(3)] == [3, 9, 8]


def test_nothing_is_decided_of_nothing() -> None:
    found = keys([], 0)
    decide(found, lambda rows: rows.astype(np.uint64), span=5, max_rows=3)
    assert arrange(found, 2)[1] == [0, 0]
    assert found.counts() == ({}, {})


def test_positions_are_by_time_and_then_by_identity() -> None:
    rows = [(f"id-{i}", i % 3, 0) for i in range(20)]
    found = keys(rows, 10)
    found.fate[4] = Fate.NO_LABEL
    position, counts = arrange(found, 2)
    assert position[4] == -1
    assert sum(counts) == 19
    for part in (0, 1):
        mine = [i for i in range(20) if found.part[i] == part and i != 4]
        expected = sorted(mine, key=lambda i: (rows[i][1], int(found.identity[i])))
        assert sorted(mine, key=lambda i: position[i]) == expected
        assert sorted(position[mine].tolist()) == list(range(counts[part]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([2**60]), pa.array([2**60 + 1])),
        (pa.array([0.0]), pa.array([-0.0])),
        (pa.array([None], pa.int64()), pa.array([0])),
        (pa.array([None], pa.string()), pa.array([""])),
        (pa.array([Decimal("0.1")], pa.decimal128(38, 20)), pa.array([Decimal("0.10000000000000000001")])),
        (pa.array(["a"]), pa.array(["b"])),
        (pa.array([True]), pa.array([False])),
        (pa.array([[1, None]]), pa.array([[1]])),
        (pa.array([10**15], pa.timestamp("ns")), pa.array([10**15 + 1], pa.timestamp("ns"))),
    ],
    ids=lambda v: str(v.type),
)
def test_contents_that_differ_have_other_hashes(one: pa.Array, other: pa.Array) -> None:
    hashes = [hash_contents(pa.record_batch({"x": column.cast(one.type)})) for column in (one, other)]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("encoding", ["mask", "encode"])
def test_contents_do_not_depend_on_dictionaries(encoding: str) -> None:
    plain = pa.array(["b", None, "a", "b"])
    coded = plain.dictionary_encode(null_encoding=encoding)
    one, other = (hash_contents(pa.record_batch({"x": column})) for column in (plain, coded))
    assert one.tolist() == other.tolist()
