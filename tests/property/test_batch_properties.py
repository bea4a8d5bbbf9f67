"""Many features at once give what one at a time gives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_monitor.core.fold import category_counts, profile_buckets
from drift_monitor.core.profile import CategoricalSpec, FeatureProfile, NumericSpec, Spec
from drift_monitor.core.stattests import STATTESTS, effect, effect_size
from drift_monitor.core.stattests import batch as batches
from drift_monitor.core.stattests.batch import Batch, Spans, parts
from drift_monitor.core.stattests.effects import effect_sizes, effects
from drift_monitor.core.stattests.tables import largest_z, table_z

Triple = tuple[Spec, FeatureProfile, FeatureProfile]
DRAWN = {"psi", "jensen_shannon", "hellinger", "total_variation", "wasserstein"}  # critical values by simulation


def feature(spec: Spec, columns: list[pa.Array]) -> Triple:
    before, now = (profile_buckets([spec], [pa.record_batch({"x": c})])[0].features["x"] for c in columns)
    return spec, before, now


@st.composite
def numeric(draw: st.DrawFn) -> Triple:
    """Few or many cells, tied rows, constant features, live values out of range."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["normal", "whole", "constant", "wide"]))
    m, n = draw(st.integers(2, 400)), draw(st.integers(2, 400))
    scale = {"normal": 1.0, "whole": 3.0, "constant": 0.0, "wide": 1e12}[kind]
    values = [rng.normal(0.0, 1.0, m) * scale, rng.normal(draw(st.floats(0, 2)), 1.0, n) * scale]
    if kind == "whole":
        values = [np.round(x) for x in values]
    spec = NumericSpec.fit("x", values[0], edges=draw(st.sampled_from([1, 4, 50, 1000])))
    return feature(spec, [pa.array(x) for x in values])


@st.composite
def categories(draw: st.DrawFn) -> Triple:
    """Some names that the reference lacks."""
    names = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60)
    columns = [pa.array(draw(names)) for _ in range(2)]
    limit = draw(st.sampled_from([2, 10]))
    return feature(CategoricalSpec.fit("x", category_counts(columns[0]), limit=limit), columns)


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_batch_gives_what_its_features_give(kind: str, data: st.DataObject) -> None:
    triples = data.draw(st.lists(numeric() if kind == "numeric" else categories(), min_size=2, max_size=5))
    batch = Batch(*([*x] for x in zip(*triples, strict=True)))
    for name, test in STATTESTS.items():
        if kind not in test.kinds:
            continue
        for found, triple in zip(test.compute(batch), triples, strict=True):
            alone = test.function(*triple)
            assert (found is None) == (alone is None)
            if found is not None and alone is not None:
                numbers = {field: x for field, x in alone.model_dump().items() if x is not None}
                assert found.model_dump(exclude_none=True) == pytest.approx(numbers, rel=1e-9, abs=1e-12)
        if name not in DRAWN:
            alone_limits = [test.critical(*triple, 1e-3) for triple in triples]
            assert test.limits(batch, 1e-3).tolist() == pytest.approx(alone_limits, rel=1e-6)
    assert effect_sizes(batch).tolist() == pytest.approx([effect_size(*triple) for triple in triples], rel=1e-12)
    assert effects(batch) == [effect(*triple) for triple in triples]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=8), min_size=1))
def test_the_largest_z_is_that_of_all(features: list[list[tuple[int, int]]]) -> None:
    spans = Spans(np.array([len(cells) for cells in features]))
    p, q = np.array([cell for cells in features for cell in cells], np.int64).T
    m, n = (np.maximum(spans.sums(x), 1).astype(np.float64) for x in (p, q))
    every = table_z(p, q, spans.each(m), spans.each(n))
    assert largest_z(spans, p, q, m, n).tolist() == pytest.approx(spans.largest(every).tolist(), rel=1e-12)


def test_a_part_may_be_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CELLS", 10)
    specs = [NumericSpec(f"x{k}", np.arange(float(k)), 0.0, 1.0, exact=True) for k in (1, 3, 2, 2, 1)]
    assert [[spec.name for spec in part] for part in parts(specs)] == [["x1", "x3"], ["x2", "x2"], ["x1"]]


def test_the_place_where_running_sums_reach_a_number_is_the_first() -> None:
    spans = Spans(np.array([4, 3, 2]))
    values = np.array([1, 2, 0, 3, 0, 5, 0, 4, 4])
    for wanted, places in (([3, 5, 8], [1, 5, 8]), ([1, 1, 1], [0, 5, 7]), ([6, 4, 5], [3, 5, 8])):
        assert spans.reached(values, np.array(wanted)).tolist() == places


def test_parts_hold_so_many_cells_and_lose_no_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CELLS", 20)
    specs = [NumericSpec(f"x{k}", np.arange(float(k)), 0.0, 1.0, exact=True) for k in (1, 3, 2, 30, 4)]
    found = list(parts(specs))
    assert [spec.name for part in found for spec in part] == [spec.name for spec in specs]
    assert [[spec.name for spec in part] for part in found] == [["x1", "x3", "x2"], ["x30"], ["x4"]]
