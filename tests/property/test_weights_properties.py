"""What holds for any weights: their bound, their sign, the margins of raking, indifference to scale."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from drift_monitor.core.classifier import Encoding
from drift_monitor.core.design import Design
from drift_monitor.core.profile import CategoricalSpec, Floats, NumericSpec
from drift_monitor.core.raking import TOLERANCE, Margin, rake
from drift_monitor.core.weights import effective_sample_size, relative
from drift_monitor.core.weights_model import WeightsModel, folds_of

POSITIVE = st.floats(0, 1e12)
MIX = st.floats(0.001, 0.999)


@given(arrays(np.float64, st.integers(1, 30), elements=POSITIVE), MIX)
def test_relative_weights_are_bounded_rise_with_the_ratio_and_are_one_at_one(ratio: Floats, mix: float) -> None:
    w = relative(ratio, mix)
    assert (w >= 0).all()
    assert (w <= 1 / mix * (1 + 1e-12)).all()
    assert (np.diff(w[np.argsort(ratio)]) >= -1e-12 / mix).all()
    np.testing.assert_allclose(relative(np.ones(1), mix), 1)


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(1e-6, 1e6)), st.floats(1e-3, 1e3))
def test_effective_rows_lie_between_one_and_all_and_have_no_scale(w: Floats, scale: float) -> None:
    found = effective_sample_size(w)
    assert 1 - 1e-9 <= found <= len(w) * (1 + 1e-9)
    np.testing.assert_allclose(effective_sample_size(scale * w), found, rtol=1e-9)


@st.composite
def tables(draw: st.DrawFn) -> tuple[Floats, Floats, list[int]]:
    """Training and live rows of categories; every combination is in training, so that all shares can be had."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))
    every = np.array(np.meshgrid(*[np.arange(s) for s in sizes])).reshape(len(sizes), -1).T
    counts = draw(st.lists(st.integers(1, 20), min_size=len(every), max_size=len(every)))
    rows = st.tuples(*[st.integers(0, s - 1) for s in sizes])
    live = draw(st.lists(rows, min_size=1, max_size=60))
    return np.repeat(every, counts, axis=0).astype(float), np.array(live, float), sizes


@settings(deadline=None)
@given(tables())
def test_raked_rows_have_the_live_shares_in_every_column(table: tuple[Floats, Floats, list[int]]) -> None:
    training, live, sizes = table
    specs = [CategoricalSpec.fit(f"c{j}", {f"v{k}": 9 - k for k in range(s)}) for j, s in enumerate(sizes)]
    margins = [Margin.fit(j, spec, training[:, j], live[:, j]) for j, spec in enumerate(specs)]
    found = rake(margins, training, rounds=5000)
    assume(found.converged)  # with shares of 0 it may take for ever; then it says so
    w = found.weights(training)
    assert (w >= 0).all()
    np.testing.assert_allclose(w.mean(), 1, rtol=1e-6)
    for j, margin in enumerate(margins):
        shares = np.bincount(margin.place(training[:, j]), w, len(margin.labels)) / w.sum()
        np.testing.assert_allclose(shares, margin.live, atol=2 * TOLERANCE)
    for factors, shares in zip(found.factors, found.training, strict=True):
        np.testing.assert_allclose(factors @ shares, 1, rtol=1e-9)


def test_shares_that_can_be_had_are_had_in_practice() -> None:
    rng = np.random.default_rng(0)
    training, live = (
        rng.integers(0, 4, size=(2000, 3)).astype(float),
        rng.integers(0, 4, size=(500, 3)).astype(float),
    )
    specs = [CategoricalSpec.fit(f"c{j}", {f"v{k}": 9 - k for k in range(4)}) for j in range(3)]
    found = rake([Margin.fit(j, s, training[:, j], live[:, j]) for j, s in enumerate(specs)], training)
    assert found.converged
    assert found.rounds < 20


def ratios(training: Floats, live: Floats, seed: int = 0) -> Floats:
    encoding = Encoding(tuple(NumericSpec.fit(f"x{j}", training[:, j]) for j in range(training.shape[1])))
    folds = folds_of(np.arange(len(training)), seed=seed)
    design = Design.fit(encoding, training, live)
    return WeightsModel.fit(design, training, live, folds, seed=seed).ratios(training, folds)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.floats(0.4, 1.5), st.booleans())
def test_the_weighted_mean_moves_to_the_live_mean(seed: int, shift: float, falls: bool) -> None:
    rng = np.random.default_rng(seed)
    training, live = rng.normal(size=(400, 2)), rng.normal(size=(300, 2))
    live[:, 1] += -shift if falls else shift
    w = relative(ratios(training, live), 0.01)
    before, now = training[:, 1].mean(), live[:, 1].mean()
    assert abs(w @ training[:, 1] / w.sum() - now) < 0.7 * abs(before - now)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000), st.integers(-20, 20), st.integers(-3, 3))
def test_the_unit_of_a_feature_does_not_matter(seed: int, power: int, origin: int) -> None:
    rng = np.random.default_rng(seed)
    training, live = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 0.5
    unit = 2.0**power
    a, b = ratios(training, live), ratios(unit * (training + origin), unit * (live + origin))
    np.testing.assert_allclose(a, b, rtol=1e-3)
