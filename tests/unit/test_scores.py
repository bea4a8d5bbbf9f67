"""The alarm's statistics against scipy, brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from drift_monitor.core.profile import CategoricalSpec, NumericSpec
from drift_monitor.core.scores import STATISTICS, Layout, layout, root_z, scores

RNG = np.random.default_rng(5)


def counts(edges: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1)


def fine(spec: NumericSpec, x: np.ndarray) -> np.ndarray:
    """Counts at and between the edges."""
    left, right = np.searchsorted(spec.edges, x, "left"), np.searchsorted(spec.edges, x, "right")
    return np.bincount(left + right, minlength=2 * len(spec.edges) + 1)


def whole(x: np.ndarray) -> tuple[NumericSpec, Layout, np.ndarray]:
    spec = NumericSpec.fit("x", x)
    return spec, layout(spec, fine(spec, x)), fine(spec, x)


def test_anderson_darling_is_the_one_sample_statistic_when_the_baseline_is_endless() -> None:
    edges = np.linspace(0, 1, 2001)[1:-1]
    cells = Layout("numeric", np.arange(2000), 1000)
    x = RNG.random(500)
    found = scores(cells, counts(edges, x)[None], np.full(2000, 10**9))
    # A^2 of Anderson & Darling (1954) for a fully specified law
    u = np.sort(x)
    i = np.arange(1, 501)
    exact = -500 - np.mean((2 * i - 1) * (np.log(u) + np.log1p(-u[::-1])))
    assert found.values["anderson_darling"][0] == pytest.approx(exact, rel=0.02)


def test_the_largest_cell_and_half_line_are_those_of_brute_force() -> None:
    cells = Layout("numeric", np.arange(6), 3)
    x, y = np.array([5, 9, 30, 8, 2, 6]), np.array([50, 100, 150, 100, 60, 40])
    n, m = x.sum(), y.sum()
    found = scores(cells, x[None], y)

    def z(a: int, b: int) -> float:
        p = b / m
        return abs(2 * (np.sqrt((a + 3 / 8) / n) - np.sqrt((b + 3 / 8) / m)) / np.sqrt((1 / n + 1 / m) * (1 - p)))

    assert found.values["max_bin_z"][0] == pytest.approx(max(map(z, x, y)))
    lines = [z(x[:k].sum(), y[:k].sum()) for k in (1, 2, 3)] + [z(x[k:].sum(), y[k:].sum()) for k in (4, 5)]
    assert found.values["weighted_supremum"][0] == pytest.approx(max(lines))


def test_the_effect_is_the_ks_distance_at_the_cells() -> None:
    reference, current = RNG.normal(size=20_000), RNG.normal(0.3, 1, 2000)
    spec, cells, base = whole(reference)
    found = scores(cells, cells.group(fine(spec, current))[None], cells.group(base))
    assert found.effect[0] == pytest.approx(stats.ks_2samp(reference, current).statistic, abs=0.006)


def test_chi2_is_close_to_pearsons() -> None:
    x, y = RNG.multinomial(900, [0.5, 0.3, 0.2]), RNG.multinomial(9000, [0.45, 0.35, 0.2])
    spec = CategoricalSpec.fit("c", {"a": 3, "b": 2, "c": 1})
    cells = layout(spec, np.append(y, 0))
    found = scores(cells, np.append(x, 0)[None], np.append(y, 0))
    pearson = stats.chi2_contingency(np.stack((x, y)), correction=False).statistic
    # roots of the shares, each with its own variance: sum of squares over (1 - p), here about 1.5 of Pearson's
    assert pearson < found.values["chi2"][0] < 2.2 * pearson


@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_equal_shares_are_no_distance(kind: str) -> None:
    cells = Layout(kind, np.arange(4), 2)  # type: ignore[arg-type]
    found = scores(cells, np.array([[10, 20, 30, 40]]), np.array([100, 200, 300, 400]))
    assert found.effect[0] == 0
    assert all(value[0] < 0.6 for value in found.values.values())


def test_windows_do_not_depend_on_their_neighbours() -> None:
    cells = Layout("numeric", np.arange(30), 15)
    table, base = RNG.poisson(20, (100, 30)), RNG.poisson(400, 30)
    together = scores(cells, table, base)
    for i in (0, 17, 99):
        alone = scores(cells, table[i : i + 1], base)
        for name, value in together.values.items():
            assert value[i] == alone.values[name][0]


def test_a_window_without_rows_has_no_score() -> None:
    cells = Layout("numeric", np.arange(3), 1)
    found = scores(cells, np.array([[0, 0, 0], [1, 2, 3]]), np.array([5, 5, 5]))
    assert np.isnan(found.effect[0])
    assert not np.isnan(found.effect[1])
    assert all(np.isnan(value[0]) for value in found.values.values())


def test_a_larger_window_counts_as_one_of_the_cap() -> None:
    cells = Layout("numeric", np.arange(3), 1)
    small, large = np.array([[30, 30, 40]]), np.array([[300, 300, 400]])
    base = np.array([2000, 4000, 4000])
    capped, plain = scores(cells, large, base, cap=100), scores(cells, small, base)
    for name in STATISTICS["numeric"]:
        assert capped.values[name][0] == pytest.approx(plain.values[name][0])
    assert scores(cells, large, base).values["anderson_darling"][0] > 5 * plain.values["anderson_darling"][0]


def test_a_spike_a_tail_and_a_new_category_are_each_seen() -> None:
    reference = RNG.normal(size=50_000)
    spec, cells, base = whole(reference)
    base = cells.group(base)
    sound = scores(cells, cells.group(fine(spec, RNG.normal(size=5000)))[None], base).values
    spike = RNG.normal(size=5000)
    spike[:50] = 0.3
    tail = RNG.normal(size=5000)
    tail[:100] *= 4
    assert sound["max_bin_z"][0] < 5
    for x in (spike, tail):
        assert scores(cells, cells.group(fine(spec, x))[None], base).values["max_bin_z"][0] > 5
    words = CategoricalSpec.fit("c", {"a": 600, "b": 400})
    cells = layout(words, np.array([600, 400, 0]))
    assert scores(cells, np.array([[570, 380, 50]]), np.array([600, 400, 0])).values["max_bin_z"][0] > 5


def test_root_z_of_independent_rows_has_the_spread_of_a_normal_variable() -> None:
    n, m, p = 1000, 5000, 0.02
    x, y = RNG.binomial(n, p, (4000, 1)), RNG.binomial(m, p, (4000, 1))
    one = np.ones((4000, 1))
    z = root_z(x.astype(float), n * one, y.astype(float), m * one)
    assert z.std() == pytest.approx(1, abs=0.05)
    assert abs(z.mean()) < 0.06


def test_layouts_give_heavy_values_and_both_outsides_a_cell() -> None:
    x = np.concatenate((np.zeros(500), RNG.normal(size=9500)))
    spec, cells, base = whole(x)
    zero = 2 * int(np.flatnonzero(spec.edges == 0)[0]) + 1
    assert zero in cells.starts
    assert zero + 1 in cells.starts
    assert {0, 1, len(base) - 1} <= set(cells.starts.tolist())
    assert 150 < len(cells.starts) < 260
