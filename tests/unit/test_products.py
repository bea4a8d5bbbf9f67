"""Products of features: closed forms, the file of a reference, and what a check asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from drift_monitor.config.models import Columns, Monitor
from drift_monitor.core import folding
from drift_monitor.core.errors import BadReferenceError
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.products import PAIRED, PairSpec, Products, fold_products
from drift_monitor.core.products_io import (
    pairs_of,
    products_from_table,
    products_to_table,
    schema_of,
)
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Profile, Spec, merge
from drift_monitor.core.types import Outcome, Role, Window
from drift_monitor.reference import Reference, build_reference
from drift_monitor.service.evaluate import CheckRequest, evaluate

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
UNIT = PairSpec(("x", "y"), np.zeros(2), np.ones(2))


def only(found: list[Products] | None) -> Products:
    assert found is not None
    (products,) = found
    return products


def fold(pairs: PairSpec, **columns: Any) -> Products:
    return only(fold_products(pairs, pa.record_batch(columns)))


def bits(products: Products) -> tuple[int, list[int], list[int]]:
    return products.rows, products.sums.tolist(), products.products.tolist()


def fit(columns: Mapping[str, Any], roles: Mapping[str, Role] | None = None) -> PairSpec | None:
    given = roles or {}
    specs: list[Spec] = [
        NumericSpec.fit(name, np.asarray(values, np.float64), role=given.get(name, "feature"))
        for name, values in columns.items()
    ]
    batch = pa.record_batch({name: pa.array(values, pa.float64()) for name, values in columns.items()})
    return PairSpec.fit(specs, profile_buckets(specs, [batch])[0].features)


# -- sums ------------------------------------------------------------------------------------------------


def test_sums_and_products_of_two_rows() -> None:
    found = fold(UNIT, x=[1.0, 2.0], y=[3.0, -1.0])
    assert bits(found) == (2, [96, 64], [5 * 1024, 1 * 1024, 10 * 1024])
    assert found.means().tolist() == [1.5, 1.0]
    assert found.mean_products().tolist() == [[2.5, 0.5], [0.5, 5.0]]


def test_values_are_counted_in_scales_from_the_centre() -> None:
    pairs = PairSpec(("x", "y"), np.array([10.0, -1.0]), np.array([4.0, 0.5]))
    found = fold(pairs, x=[14.0, 8.0], y=[0.0, -1.0])
    assert found.mean_products().tolist() == [[0.625, 1.0], [1.0, 2.0]]


def test_what_is_no_number_is_at_the_centre_and_what_is_far_is_cut() -> None:
    column = pa.array([1.0, None, np.nan, np.inf, -np.inf, 1e308, -9.0])
    found = fold(UNIT, x=column, y=[1.0] * 7)
    steps = [32, 0, 0, 256, -256, 256, -256]
    assert bits(found) == (7, [sum(steps), 7 * 32], [sum(s * s for s in steps), 32 * sum(steps), 7 * 1024])


def test_half_steps_go_to_the_even_side() -> None:
    assert fold(UNIT, x=[1 / 64, 3 / 64, -1 / 64], y=[0.0] * 3).sums.tolist() == [2, 0]


def test_a_missing_column_gives_no_products() -> None:
    assert fold_products(UNIT, pa.record_batch({"x": [1.0]})) is None


def test_stretches_are_summed_apart() -> None:
    x = np.arange(40_000) % 7
    batch = pa.record_batch({"x": x, "y": x[::-1]})
    cuts = [0, 1, 1, 20_000, 40_000]
    found = fold_products(UNIT, batch, cuts)
    assert found is not None
    expected = [only(fold_products(UNIT, batch.slice(a, b - a))) for a, b in pairwise(cuts)]
    assert [bits(f) for f in found] == [bits(f) for f in expected]
    assert bits(reduce(Products.merge, found)) == bits(only(fold_products(UNIT, batch)))


def test_the_farthest_values_of_many_rows_are_exact() -> None:
    n = 200_001
    found = fold(UNIT, x=np.full(n, 1e9), y=np.full(n, -1e9))
    assert bits(found) == (n, [256 * n, -256 * n], [65536 * n, -65536 * n, 65536 * n])


def test_without_rows_there_are_no_means() -> None:
    none = fold(UNIT, x=pa.array([], pa.float64()), y=pa.array([], pa.float64()))
    assert bits(none) == (0, [0, 0], [0, 0, 0])
    assert np.isnan(none.means()).all()
    assert np.isnan(none.mean_products()).all()


def test_correlation_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=50_000)
    y = 0.6 * x + 0.8 * rng.normal(size=50_000)
    found = fold(UNIT, x=x, y=y)
    covariance = found.mean_products() - np.outer(found.means(), found.means())
    correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-3)


# -- features --------------------------------------------------------------------------------------------


def test_the_centre_is_the_median_and_the_scale_that_of_a_normal_distribution() -> None:
    rng = np.random.default_rng(2)
    pairs = fit({"x": rng.normal(100, 7, 100_000), "y": np.arange(100_000) % 101})
    assert pairs is not None
    assert pairs.centre == pytest.approx([100, 50], abs=0.1)
    assert pairs.scale == pytest.approx([7, 50 / 1.349], rel=0.01)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.0] * 90 + [5.0] * 10, 5 / (2 * 2.3263)),  # the quartiles are equal
        ([0.0] * 999 + [4.0], 2.0),  # so are the 1% and 99% quantiles
        ([-1.7e308, 0.0, 1.7e308], 2.0**1020),
        ([0.0, 5e-324], 2.0**-990),
    ],
)
def test_scales_of_other_shapes_are_finite_and_above_zero(values: list[float], scale: float) -> None:
    pairs = fit({"x": values, "y": values})
    assert pairs is not None
    assert pairs.scale == pytest.approx([scale, scale])
    fold(pairs, x=[0.0, 1e308, -1e308, 5e-324], y=[np.nan, np.inf, -np.inf, 1.0])  # warns of nothing


def test_the_prediction_comes_first_and_what_has_no_correlation_is_left_out() -> None:
    values = np.arange(10.0)
    specs: list[Spec] = [
        NumericSpec.fit("a", values),
        NumericSpec.fit("constant", np.ones(10)),
        CategoricalSpec.fit("text", {"u": 10}),
        NumericSpec.fit("time", values, kind="datetime"),
        NumericSpec.fit("lacking", values),
        NumericSpec.fit("score", values, role="prediction"),
    ]
    batch = pa.record_batch(
        {
            "a": values,
            "constant": np.ones(10),
            "text": ["u"] * 10,
            "score": values,
            "time": pa.array(range(10)).cast(pa.timestamp("s")),
        }
    )
    pairs = PairSpec.fit(specs, profile_buckets(specs, [batch])[0].features)
    assert pairs is not None
    assert pairs.names == ("score", "a")


def test_at_most_so_many_features_are_paired() -> None:
    names = [f"x{i}" for i in range(PAIRED + 5)]
    pairs = fit({name: [1.0, 2.0] for name in names}, {names[-1]: "prediction"})
    assert pairs is not None
    assert pairs.names == (names[-1], *names[: PAIRED - 1])
    assert fit({"x": [1.0, 2.0]}) is None
    assert fit({"x": [1.0, 2.0], "y": [1.0, 1.0]}) is None


def test_some_of_the_features() -> None:
    pairs = PairSpec(("a", "b", "c"), np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    rng = np.random.default_rng(3)
    columns = {name: rng.normal(size=50) for name in "abc"}
    some = pairs.only({"c", "a", "other"})
    assert some is not None
    assert (some.names, some.centre.tolist(), some.scale.tolist()) == (("a", "c"), [1, 3], [1, 4])
    assert bits(fold(pairs, **columns).only(pairs, ["c", "a"])) == bits(fold(some, **columns))
    assert pairs.only(["b"]) is None


# -- profiles --------------------------------------------------------------------------------------------


def test_profiles_merge_products_unless_rows_lack_them() -> None:
    products = fold(UNIT, x=[1.0], y=[1.0])
    having, nothing, lacking = Profile(1, {}, products=products), Profile(0, {}), Profile(1, {})
    none = Profile(0, {}, products=fold(UNIT, x=pa.array([], pa.float64()), y=pa.array([], pa.float64())))
    for a, b in ((having, nothing), (nothing, having), (having, none), (none, having)):
        merged = a.merge(b).products
        assert merged is not None
        assert bits(merged) == bits(products)
    both = having.merge(having).products
    assert both is not None
    assert both.rows == 2
    for a, b in ((having, lacking), (lacking, having), (lacking, none), (none, lacking), (nothing, nothing)):
        assert a.merge(b).products is None
    assert none.merge(nothing).products is not None
    assert nothing.merge(none).products is not None


def test_a_batch_that_lacks_a_column_leaves_the_whole_without_products() -> None:
    batches = [pa.record_batch({"x": [1.0], "y": [1.0]}), pa.record_batch({"x": [1.0]})]
    assert profile_buckets((), batches, pairs=UNIT)[0].products is None
    assert profile_buckets((), batches[:1])[0].products is None


# -- on disk ---------------------------------------------------------------------------------------------


def test_products_survive_the_format_bit_for_bit(tmp_path: Path) -> None:
    pairs = PairSpec(("naïve", 'quo"te'), np.array([0.1, -1e300]), np.array([1 / 3, 5e-300]))
    products = {
        3_600_000_000 * i: Products(i, np.array([i, -i]), np.array([2**62, -(2**62), i])) for i in (5, -2, 0)
    }
    pq.write_table(products_to_table(products, pairs), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    kept = pairs_of(table.schema)
    assert kept is not None
    assert (kept.names, kept.centre.tobytes(), kept.scale.tobytes()) == (
        pairs.names,
        pairs.centre.tobytes(),
        pairs.scale.tobytes(),
    )
    found = products_from_table(table)
    assert list(found) == sorted(products)
    assert {start: bits(p) for start, p in found.items()} == {start: bits(p) for start, p in products.items()}
    empty = products_to_table({}, None)
    assert (pairs_of(empty.schema), products_from_table(empty)) == (None, {})


def test_another_format_is_refused() -> None:
    schema = schema_of(UNIT)
    with pytest.raises(BadReferenceError, match=r"products of format none cannot be read: .* reads format 1"):
        pairs_of(schema.remove_metadata())
    with pytest.raises(BadReferenceError, match="have the columns"):
        pairs_of(schema.remove(0))


def training(n: int = 3000) -> pa.Table:
    """Ten days, shuffled in time."""
    rng = np.random.default_rng(5)
    minutes = rng.permutation(n) * (14_400 // n)
    x = rng.normal(size=n)
    return pa.table(
        {
            "time": pa.array([START + timedelta(minutes=int(m)) for m in minutes], pa.timestamp("us", "UTC")),
            "x": np.round(x, 3),
            "y": pa.array(np.round(100 + 10 * x + rng.normal(size=n)).astype(np.int64), mask=rng.random(n) < 0.1),
            "carrier": rng.choice(["UA", "AA"], n),
            "score": np.round(rng.random(n), 4),
        }
    )


def build(path: Path, **settings: Any) -> Reference:
    given: dict[str, Any] = {
        "columns": Columns(prediction="score"),
        "timestamp": "time",
        "bucket": HOUR,
        "created": START,
    }
    return build_reference(path, path.parent / f"reference-{path.name}", **given | settings)


def test_a_reference_keeps_the_products_of_its_buckets(tmp_path: Path) -> None:
    table = training()
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=700)
    found = build(tmp_path / "t.parquet")
    assert found.pairs is not None
    assert found.pairs.names == ("score", "x", "y")
    expected = profile_buckets((), table.to_batches(), timestamp="time", bucket=HOUR, pairs=found.pairs)
    products = found.products()
    assert products.keys() == expected.keys() == found.buckets().keys()
    for start, profile in expected.items():
        assert profile.products is not None
        assert bits(products[start]) == bits(profile.products)
    whole = reduce(Products.merge, products.values())
    assert whole.rows == found.profile.rows
    covariance = whole.mean_products() - np.outer(whole.means(), whole.means())
    assert covariance[1, 2] > 0.8

    pacsv.write_csv(table, tmp_path / "t.csv")
    text = build(tmp_path / "t.csv")
    assert {start: bits(p) for start, p in text.products().items()} == {
        start: bits(p) for start, p in products.items()
    }


def test_rows_without_a_time_have_no_products(tmp_path: Path) -> None:
    table = training(300)
    times = [None if i % 100 == 7 else t for i, t in enumerate(table["time"].to_pylist())]
    pq.write_table(table.set_column(0, "time", pa.array(times, pa.timestamp("us", "UTC"))), tmp_path / "t.parquet")
    found = build(tmp_path / "t.parquet")
    assert sum(products.rows for products in found.products().values()) == found.profile.rows == 297


def test_without_a_timestamp_there_is_one_bucket_of_products(tmp_path: Path) -> None:
    pq.write_table(training(300).drop_columns(["time"]), tmp_path / "t.parquet")
    found = build(tmp_path / "t.parquet", timestamp=None)
    assert {start: products.rows for start, products in found.products().items()} == {0: 300}


def test_with_one_numeric_feature_the_file_is_empty(tmp_path: Path) -> None:
    pq.write_table(training(300).select(["time", "carrier", "score"]), tmp_path / "t.parquet")
    found = build(tmp_path / "t.parquet")
    assert (found.pairs, found.products()) == (None, {})
    assert "pairs.parquet" in found.manifest.files


# -- a check ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ignored", "lacking", "names"),
    [
        ((), (), ("score", "x", "y")),
        (("x",), (), ("score", "y")),
        ((), ("y",), ("score", "x")),
        (("x", "y"), (), ()),
    ],
)
def test_a_check_counts_the_features_that_it_watches_and_can_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ignored: tuple[str, ...],
    lacking: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    seen: list[tuple[PairSpec | None, dict[int, Profile]]] = []

    def spy(*args: Any, **settings: Any) -> dict[int, Profile]:
        found = profile_buckets(*args, **settings)
        seen.append((settings["pairs"], found))
        return found

    table = training()
    pq.write_table(table, tmp_path / "t.parquet")
    reference = build(tmp_path / "t.parquet")
    pq.write_table(table.drop_columns(list(lacking)), tmp_path / "live.parquet")
    monkeypatch.setattr(folding, "profile_buckets", spy)
    monitor = {
        "reference": str(reference.folder),
        "source": {"path": str(tmp_path / "live.parquet"), "timestamp": "time"},
        "schedule": {"every": "1d"},
        "columns": {"prediction": "score", "ignore": list(ignored)},
        "window": {"incremental": False},  # just the window's rows are folded
    }
    result = evaluate(
        CheckRequest(
            name="m",
            monitor=Monitor.model_validate_json(json.dumps(monitor)),
            state=tmp_path / "state",
            window=Window(start=START, end=START + DAY),
        )
    )
    assert result.verdict != Outcome.CANNOT_JUDGE or lacking, result.reason
    pairs, found = seen[0]
    whole = merge(found.values())
    assert whole is not None
    if not names:
        assert (pairs, whole.products) == (None, None)
        return
    assert pairs is not None
    assert reference.pairs is not None
    assert pairs.names == names
    assert whole.products is not None
    day = [p for start, p in reference.products().items() if start < (START + DAY).timestamp() * 1e6]
    assert bits(whole.products) == bits(reduce(Products.merge, day).only(reference.pairs, names))
