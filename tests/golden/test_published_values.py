"""Stattests and null laws against published tables, closed forms and worked examples from outside this project."""

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from drift_monitor.core.fold import category_counts, profile_buckets
from drift_monitor.core.profile import CategoricalSpec, NumericSpec
from drift_monitor.core.stattests import STATTESTS, null
from drift_monitor.core.stattests.ranks import anderson_darling_sigma
from drift_monitor.core.types import StatResult


def numeric(name: str, a: list[float], b: list[float]) -> StatResult:
    spec = NumericSpec.fit("x", np.array(a, np.float64))
    profiles = [profile_buckets([spec], [pa.record_batch({"x": pa.array(x, pa.float64())})])[0] for x in (a, b)]
    found = STATTESTS[name].function(spec, *(p.features["x"] for p in profiles))
    assert found is not None
    return found


def shares(name: str, a: dict[str, int], b: dict[str, int]) -> StatResult:
    columns = [pa.array([c for c, k in counts.items() for _ in range(k)]) for counts in (a, b)]
    spec = CategoricalSpec.fit("x", category_counts(columns[0]))
    profiles = [profile_buckets([spec], [pa.record_batch({"x": c})])[0].features["x"] for c in columns]
    found = STATTESTS[name].function(spec, *profiles)
    assert found is not None
    return found


# -- limiting laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "alpha"), [(0.34730, 0.10), (0.46136, 0.05), (0.74346, 0.01), (1.16786, 0.001)])
def test_cramer_von_mises_law_is_the_published_table(value: float, alpha: float) -> None:
    """Anderson & Darling (1952), Annals of Mathematical Statistics 23, table 1."""
    assert null.cramer_von_mises_law().sf(value) == pytest.approx(alpha, rel=5e-5)
    assert null.cramer_von_mises_law().isf(alpha) == pytest.approx(value, abs=6e-6)


@pytest.mark.parametrize(("value", "alpha"), [(1.933, 0.10), (2.492, 0.05)])
def test_anderson_darling_law_is_the_published_table(value: float, alpha: float) -> None:
    """Anderson & Darling (1954); Stephens (1974), JASA 69, table 1, case 0."""
    assert null.anderson_darling_law().isf(alpha) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize("z", [0.4, 0.7, 1.0, 1.5, 2.1, 2.5, 3.0, 4.0, 6.0])
def test_anderson_darling_law_is_the_inverse_of_its_characteristic_function(z: float) -> None:
    """Anderson & Darling (1952): phi(t) = sqrt(-2 pi i t / cos(pi/2 sqrt(1 + 8 i t))); Gil-Pelaez (1951)."""

    def integrand(t: float) -> float:
        phi = 1.0 + 0.0j
        for j in range(1, 2000):
            phi *= 1 - 2j * t / (j * (j + 1))
        # the root of the product, followed continuously from t = 0, times what the product leaves out
        angle = sum(math.atan(2 * t / (j * (j + 1))) for j in range(1, 2000)) / 2 + t / 2000
        return math.sin(angle - z * t) * abs(phi) ** -0.5 / t

    nodes, weights = np.polynomial.legendre.leggauss(60)
    total = 0.0
    for low in range(0, 60, 6):
        total += sum(w * 3 * integrand(low + 3 + 3 * x) for x, w in zip(nodes, weights, strict=True))
    assert null.anderson_darling_law().sf(z) == pytest.approx(0.5 + total / math.pi, abs=2e-5)


def test_a_mixture_of_equal_weights_is_a_chi_square() -> None:
    law = null.mixture(np.full(4, 0.5))
    for x in (2.0, 5.0, 10.0, 20.0):
        assert law.sf(x) == pytest.approx(stats.chi2.sf(2 * x, 4), rel=1e-3)


def test_a_mixture_of_one_weight_errs_upwards_by_at_most_three_percent() -> None:
    law = null.mixture(np.array([2.0]))
    for x in (2.0, 10.0, 40.0):
        exact = stats.chi2.sf(x / 2, 1)
        assert exact <= law.sf(x) <= 1.03 * exact


def test_kolmogorovs_law_is_smirnovs_table() -> None:
    """Smirnov (1948), Annals of Mathematical Statistics 19: 1.3581 at 5%, 1.6276 at 1%, 1.9495 at 0.1%."""
    spec = NumericSpec.fit("x", np.arange(200.0))
    a = profile_buckets([spec], [pa.record_batch({"x": np.arange(200.0)})])[0].features["x"]
    for alpha, value in ((0.05, 1.3581), (0.01, 1.6276), (0.001, 1.9495)):
        critical = STATTESTS["ks"].critical(spec, a, a, alpha)
        assert critical * 10 == pytest.approx(value, abs=1e-4)


def test_the_variance_of_anderson_darling_tends_to_its_limit() -> None:
    """2 * (pi^2 - 9) / 3: Anderson & Darling (1952)."""
    assert anderson_darling_sigma(10**6, 10**6) ** 2 == pytest.approx(2 * (math.pi**2 - 9) / 3, rel=1e-4)


# -- closed forms ------------------------------------------------------------------------------------------

KULLBACK = {"a": 360_000, "b": 480_000, "c": 160_000}
UNIFORM = {"a": 400_000, "b": 400_000, "c": 400_000}


def test_psi_of_one_half_against_four_fifths_is_three_tenths_of_log_four() -> None:
    found = shares("psi", {"a": 500_000, "b": 500_000}, {"a": 800_000, "b": 200_000})
    assert found.statistic == pytest.approx(0.3 * math.log(4), abs=2e-6)


def test_psi_is_the_sum_of_both_divergences_of_the_textbook_example() -> None:
    """Kullback (1959), table 2.1: binomial (0.36, 0.48, 0.16) against uniform: 0.0852996 and 0.097455 nats."""
    assert shares("psi", KULLBACK, UNIFORM).statistic == pytest.approx(0.0852996 + 0.097455, abs=3e-6)


def test_hellinger_and_total_variation_of_the_textbook_example() -> None:
    affinity = sum(math.sqrt(p / 3) for p in (0.36, 0.48, 0.16))
    assert shares("hellinger", KULLBACK, UNIFORM).statistic == pytest.approx(math.sqrt(1 - affinity), rel=1e-9)
    assert shares("total_variation", KULLBACK, UNIFORM).statistic == pytest.approx(1 / 3 - 0.16, rel=1e-9)


@pytest.mark.parametrize("name", ["jensen_shannon", "hellinger", "total_variation"])
def test_disjoint_samples_are_one_apart(name: str) -> None:
    assert shares(name, {"a": 200}, {"b": 300}).statistic == pytest.approx(1.0, rel=1e-12)
    assert numeric(name, [0.0] * 200, [1.0] * 300).statistic == pytest.approx(1.0, rel=1e-12)


def test_chi2_of_scipys_own_example() -> None:
    """The documentation of scipy.stats.chi2_contingency: [[10, 10, 20], [20, 20, 20]]."""
    found = shares("chi2", {"a": 10, "b": 10, "c": 20}, {"a": 20, "b": 20, "c": 20})
    assert found.statistic == pytest.approx(2.7777777777777777, rel=1e-12)
    assert found.p_value == pytest.approx(0.24935220877729619, rel=1e-12)


def test_chi2_and_g_of_a_two_by_two_table() -> None:
    table = np.array([[60, 40], [45, 55]])
    a, b = ({"a": int(x), "b": int(y)} for x, y in table)
    assert shares("chi2", a, b).statistic == pytest.approx(200 * (60 * 55 - 40 * 45) ** 2 / (105 * 95 * 100 * 100))
    expected = 2 * float((table * np.log(table / np.array([52.5, 47.5]))).sum())
    assert shares("g", a, b).statistic == pytest.approx(expected, rel=1e-12)


def test_wasserstein_of_a_shift_is_the_shift_and_of_points_their_distance() -> None:
    values = np.random.default_rng(0).lognormal(size=3000)
    found = numeric("wasserstein", values.tolist(), (values + 7.5).tolist())
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 7.5 <= found.high
    assert found.statistic == pytest.approx(7.5, rel=1e-3)
    assert numeric("wasserstein", [2.0] * 10, [5.0] * 3).statistic == pytest.approx(3.0, rel=1e-5)
    assert numeric("wasserstein", [0.0, 1.0], [0.0, 1.0, 1.0, 1.0]).statistic == pytest.approx(0.25)


def test_welchs_t_of_his_example() -> None:
    """Wikipedia, Welch's t-test, example 1 (after Ruxton 2006): t = -2.46, nu = 25.0, p = 0.021."""
    a = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    b = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]
    found = numeric("t", a, b)
    assert found.statistic == pytest.approx(2.46, abs=5e-3)
    assert found.p_value == pytest.approx(0.021, abs=5e-4)


def test_ks_of_two_shifted_uniforms_is_the_shift() -> None:
    a = np.arange(1000.0)
    found = numeric("ks", a.tolist(), (a + 200).tolist())
    assert found.statistic == pytest.approx(0.2, rel=1e-12)


def test_mann_whitney_of_separate_samples() -> None:
    """U = 0: z = (mn/2 - 1/2) / sqrt(mn(N + 1)/12)."""
    found = numeric("mann_whitney", [float(i) for i in range(40)], [1000.0 + i for i in range(50)])
    m, n = 40, 50
    assert found.high is not None
    assert found.statistic == pytest.approx((m * n / 2 - 0.5) / math.sqrt(m * n * (m + n + 1) / 12), rel=1e-9)


def test_cramer_von_mises_of_alternating_samples() -> None:
    """x1 < y1 < x2 < y2 < ...: F - G is 1/n at each x and 0 at each y, so T = n^2 / (2n)^2 * n / n^2 = 1/(4n)."""
    n = 50
    a, b = [2.0 * i for i in range(n)], [2.0 * i + 1 for i in range(n)]
    found = numeric("cramer_von_mises", a, b)
    assert found.statistic == pytest.approx(1 / (4 * n), rel=1e-9)


def test_max_bin_z_matches_the_binomial_tail_where_the_usual_z_does_not() -> None:
    """One row of a category that 20,000 reference rows lack is not 5 standard deviations away."""
    found = shares("max_bin_z", {"a": 10_000, "b": 10_000}, {"a": 390, "b": 390, "new": 20})
    exact = stats.binom.sf(19, 20, 800 / 20_800)
    assert stats.norm.sf(found.statistic) == pytest.approx(exact, rel=10)
    assert math.log(stats.norm.sf(found.statistic)) == pytest.approx(math.log(exact), rel=0.1)
