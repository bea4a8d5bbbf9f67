"""Parts of the way from files to weights: the sample, labels as targets, weighted profiles, the picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift_monitor.actions.weights_labels import classes_of, is_class, target_of
from drift_monitor.actions.weights_manifest import Balance
from drift_monitor.actions.weights_method import Sides
from drift_monitor.actions.weights_picture import SHOWN, draw
from drift_monitor.actions.weights_rows import TrainingRows
from drift_monitor.config.models import Columns
from drift_monitor.core.classifier import Encoding
from drift_monitor.core.fold import profile_buckets
from drift_monitor.core.profile import CategoricalSpec, NumericProfile, NumericSpec
from drift_monitor.core.weights_profile import weighted_profile

# -- the sample ------------------------------------------------------------------------------------------


def opened(path: Path) -> TrainingRows:
    return TrainingRows.open(path, Columns(), "UTC", path.parent)


def test_the_sample_is_the_same_however_the_rows_are_stored(tmp_path: Path) -> None:
    table = pa.table({"n": np.arange(5000), "text": [f"t{i % 7}" for i in range(5000)]})
    pq.write_table(table, tmp_path / "one.parquet")
    pq.write_table(table, tmp_path / "many.parquet", row_group_size=333)
    (one, numbers), (many, others) = (
        opened(tmp_path / f"{name}.parquet").sample(["n", "text"], 100, 0, lambda: None)
        for name in ("one", "many")
    )
    assert one.equals(many)
    assert numbers.tolist() == others.tolist() == one["n"].to_pylist() == sorted(numbers.tolist())
    assert one["text"].to_pylist() == [f"t{i % 7}" for i in numbers]
    assert one.num_rows == 100


def test_the_sample_is_spread_over_all_rows_and_another_seed_gives_another(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": np.arange(20_000)}), tmp_path / "rows.parquet", row_group_size=1000)
    rows = opened(tmp_path / "rows.parquet")
    first, _ = rows.sample(["n"], 2000, 0, lambda: None)
    tenths = np.bincount(first["n"].to_numpy() // 2000, minlength=10)
    assert tenths.min() > 140  # 200 each, with a standard deviation of 13
    assert first["n"].to_pylist() != rows.sample(["n"], 2000, 1, lambda: None)[0]["n"].to_pylist()


def test_fewer_rows_than_asked_for_are_all_taken(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": np.arange(30)}), tmp_path / "rows.parquet")
    steps: list[int] = []
    table, numbers = opened(tmp_path / "rows.parquet").sample(["n"], 100, 0, lambda: steps.append(1))
    assert table["n"].to_pylist() == numbers.tolist() == list(range(30))
    assert len(steps) == 1


# -- labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([True, False]), True),
        (pa.array(["a", "b"]), True),
        (pa.array([0, 1, 1]), True),
        (pa.array(list(range(11))), False),
        (pa.array([0.5, 1.0]), False),
    ],
)
def test_what_a_label_is_by_its_looks(column: pa.Array, expected: bool) -> None:
    assert is_class(column) == expected


def test_classes_are_numbered_in_order_and_rows_without_one_are_left_out() -> None:
    column = pa.array(["late", None, "early", "late"])
    classes = classes_of(column)
    assert classes.to_pylist() == ["early", "late"]
    target, rows = target_of(column, classes)
    assert (target.y.tolist(), rows.tolist(), target.classes) == ([1, 0, 1], [0, 2, 3], 2)
    # a class that training never had is no label that the learner could predict
    assert target_of(pa.array(["new", "late"]), classes)[1].tolist() == [1]


def test_truth_values_are_classes_or_numbers_as_the_learner_wants() -> None:
    column = pa.array([True, False, None])
    assert classes_of(column).to_pylist() == [False, True]
    assert target_of(column, classes_of(column))[0].y.tolist() == [1, 0]
    assert target_of(column, None)[0].y.tolist() == [1.0, 0.0]


def test_numbers_that_are_not_finite_are_no_labels() -> None:
    target, rows = target_of(pa.array([1.5, np.nan, None, np.inf, -2.0]), None)
    assert (target.y.tolist(), rows.tolist(), target.classes) == ([1.5, -2.0], [0, 4], 0)


def test_a_text_is_no_number() -> None:
    with pytest.raises(pa.ArrowException):
        target_of(pa.array(["a"]), None)


# -- weighted profiles -----------------------------------------------------------------------------------


def test_equal_weights_give_the_profile_of_the_rows_themselves() -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {"x": pa.array(rng.normal(size=300), mask=rng.random(300) < 0.1), "c": rng.choice(["a", "b", "zz"], 300)}
    )
    specs = (NumericSpec.fit("x", rng.normal(size=200)), CategoricalSpec.fit("c", {"a": 2, "b": 1}))
    plain = profile_buckets(specs, table.combine_chunks().to_batches())[0]
    found = weighted_profile(specs, table, np.full(300, 0.25))
    assert found.rows == 300
    for name in ("x", "c"):
        np.testing.assert_array_equal(found.features[name].counts, plain.features[name].counts)
        assert found.features[name].missing == plain.features[name].missing


def test_a_weighted_profile_is_within_a_row_of_the_weighted_distribution() -> None:
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=2000), rng.gamma(0.5, 1, 2000)
    spec = NumericSpec.fit("x", x)
    found = weighted_profile((spec,), pa.table({"x": x}), w).features["x"]
    assert isinstance(found, NumericProfile)
    assert found.n == round(w.sum() ** 2 / (w**2).sum())
    below = np.cumsum(found.counts)[1::2] / found.n
    expected = np.array([w[x <= edge].sum() for edge in spec.edges]) / w.sum()
    assert np.abs(below - expected).max() <= 1 / found.n


def test_a_row_without_weight_is_not_drawn() -> None:
    table = pa.table({"c": ["a"] * 50 + ["b"] * 50})
    spec = CategoricalSpec.fit("c", {"a": 2, "b": 1})
    found = weighted_profile((spec,), table, np.repeat([0.0, 2.0], 50)).features["c"]
    assert found.counts.tolist() == [0, 50]


# -- the picture -----------------------------------------------------------------------------------------


def test_the_picture_keeps_to_the_most_shifted_features_and_says_so() -> None:
    rng = np.random.default_rng(2)
    count = SHOWN + 5
    rows = rng.normal(size=(60, count))
    rows[:, 0] = np.nan
    encoding = Encoding(tuple(NumericSpec.fit(f"x{j}", np.arange(9.0)) for j in range(count)))
    empty = pa.table({})
    sides = Sides(encoding, empty, empty, np.arange(60), rows, rows + 1)
    balance = [Balance(feature="x7", column="x7", before=-1.0, column_after="x7", after=0.03)]
    root = ET.fromstring(draw("m", sides, np.ones(60), balance))
    texts = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[4:6] == ["x7", "1.00 sd off, 0.03 weighted"]
    assert "missing 100.0%, 100.0%, live 100.0%" in texts
    assert texts[-1] == "and 5 features that are shifted less"
    assert f"x{count - 1}" not in texts
