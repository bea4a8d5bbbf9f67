"""Every stattest against scipy on the raw rows or a closed form written anew, and the invariants it declares."""

import itertools
import math
import warnings
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import spatial, stats

from drift_monitor.core.fold import category_counts, profile_buckets
from drift_monitor.core.profile import CategoricalSpec, FeatureProfile, NumericProfile, NumericSpec, Spec
from drift_monitor.core.stattests import STATTESTS, StatTest, groups
from drift_monitor.core.stattests.cells import LEAST, Cells, compare, expected_rows, near_constant, pooled
from drift_monitor.core.stattests.ranks import anderson_darling_sigma
from drift_monitor.core.stattests.shares import PSEUDOCOUNT
from drift_monitor.core.types import Kind, StatResult

Floats = npt.NDArray[np.float64]
ORDERED = [name for name, test in STATTESTS.items() if "numeric" in test.kinds]
BY_RANK = ["ks", "anderson_darling", "cramer_von_mises", "mann_whitney", "wasserstein"]
BY_SHARE = ["psi", "jensen_shannon", "hellinger", "total_variation", "chi2", "g", "max_bin_z"]


@dataclass(frozen=True)
class Pair:
    """Two samples and their profiles."""

    spec: Spec
    reference: FeatureProfile
    current: FeatureProfile
    a: Floats
    b: Floats

    def __call__(self, name: str) -> StatResult | None:
        return STATTESTS[name].function(self.spec, self.reference, self.current)


def fold(spec: Spec, column: pa.Array) -> FeatureProfile:
    return profile_buckets([spec], [pa.record_batch({"x": column})])[0].features["x"]


def numeric_pair(a: Floats, b: Floats, edges: int = 1000, kind: str = "numeric") -> Pair:
    spec = NumericSpec.fit("x", a, edges=edges)
    if kind == "datetime":
        spec = replace(spec, kind="datetime")
        columns = [pa.array((x * 1e6).astype(np.int64)).cast(pa.timestamp("us")) for x in (a, b)]
    else:
        columns = [pa.array(x) for x in (a, b)]
    return Pair(spec, fold(spec, columns[0]), fold(spec, columns[1]), a, b)


def categorical_pair(a: list[str], b: list[str], kind: Kind = "categorical") -> Pair:
    columns = [pa.array(x) for x in (a, b)]
    spec = CategoricalSpec.fit("x", category_counts(columns[0]), kind=kind)
    return Pair(spec, fold(spec, columns[0]), fold(spec, columns[1]), np.array([]), np.array([]))


SHAPES = {
    "normal": lambda r, n: r.normal(size=n),
    "shifted": lambda r, n: r.normal(0.3, 1.2, size=n),
    "lognormal": lambda r, n: np.exp(1.5 * r.normal(size=n)),
    "whole": lambda r, n: r.poisson(4, n).astype(float),
    "decimal": lambda r, n: np.round(r.normal(size=n), 1),
    "mostly zero": lambda r, n: np.where(r.random(n) < 0.6, 0.0, r.exponential(size=n)),
    "huge": lambda r, n: r.normal(size=n) * 1e300,
    "tiny": lambda r, n: r.normal(size=n) * 1e-300,
    "far away": lambda r, n: 1e9 + r.normal(size=n),
    "two values": lambda r, n: (r.random(n) < 0.4).astype(float),
    "outliers": lambda r, n: np.where(r.random(n) < 0.02, 100.0, 1.0) * r.normal(size=n),
    "negative": lambda r, n: -(r.poisson(2, n) ** 2).astype(float),
}
shapes = st.sampled_from(list(SHAPES))
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 300)


@st.composite
def numeric_pairs(draw: st.DrawFn, *, least: int = 1, edges: int | None = None, same: bool = False) -> Pair:
    """Samples of one or two of the shapes, on few or many edges."""
    rng = np.random.default_rng(draw(seeds))
    first = draw(shapes)
    second = first if same else draw(shapes)
    a = SHAPES[first](rng, draw(sizes.filter(lambda n: n >= least)))
    b = SHAPES[second](rng, draw(sizes.filter(lambda n: n >= least)))
    return numeric_pair(a, b, edges or draw(st.sampled_from([1, 5, 20, 1000])))


@st.composite
def small_pairs(draw: st.DrawFn) -> Pair:
    """Shrinkable samples, full of ties and of gaps between edges."""
    value = st.one_of(st.integers(-5, 5).map(float), st.floats(-1e3, 1e3).map(lambda x: round(x, 3) + 0.0))
    a = draw(st.lists(value, min_size=4, max_size=40))
    b = draw(st.lists(value, min_size=4, max_size=40))
    return numeric_pair(np.array(a), np.array(b), draw(st.sampled_from([1, 3, 1000])))


any_pairs = st.one_of(small_pairs(), numeric_pairs(least=4))
CATEGORIES = ["a", "b", "c", "d", "</script>", "\U0001f600", ""]


@st.composite
def categorical_pairs(draw: st.DrawFn) -> Pair:
    rng = np.random.default_rng(draw(seeds))
    names = np.array([*CATEGORIES, *(f"n{i}" for i in range(draw(st.sampled_from([0, 30]))))], dtype=object)
    samples = []
    for _ in range(2):
        weights = rng.random(len(names)) ** draw(st.sampled_from([0.5, 8.0]))
        picked = rng.choice(len(names), draw(sizes), p=weights / weights.sum())
        samples.append([str(names[i]) for i in picked])
    return categorical_pair(*samples)


@st.composite
def boolean_pairs(draw: st.DrawFn) -> Pair:
    rng = np.random.default_rng(draw(seeds))
    a, b = (rng.random(draw(sizes)) < draw(st.floats(0, 1)) for _ in range(2))
    spec = CategoricalSpec.fit("x", category_counts(pa.array(a)), kind="boolean")
    return Pair(spec, fold(spec, pa.array(a)), fold(spec, pa.array(b)), np.array([]), np.array([]))


PAIRS: dict[Kind, st.SearchStrategy[Pair]] = {
    "numeric": any_pairs,
    "datetime": st.builds(
        lambda s, k: numeric_pair(
            np.random.default_rng(s).integers(-(10**9), 10**9, 200) * 1.0,
            np.random.default_rng(s + 1).integers(-(10**9), 2 * 10**9, 100) * 1.0,
            k,
            "datetime",
        ),
        seeds,
        st.sampled_from([5, 1000]),
    ),
    "categorical": categorical_pairs(),
    "boolean": boolean_pairs(),
}


def assert_holds(found: StatResult, value: float, rel: float = 1e-9) -> None:
    """The bracket contains the value; without a bracket the statistic is the value."""
    slack = rel * max(1.0, abs(value))
    if found.low is None or found.high is None:
        assert found.statistic == pytest.approx(value, rel=rel, abs=slack)
    else:
        assert found.low - slack <= value <= found.high + slack
        assert found.low <= found.statistic <= found.high


# -- ranks: the bracket contains what scipy finds in the raw rows -------------------------------------------


@settings(max_examples=300, deadline=None)
@given(any_pairs)
def test_ks_contains_scipy_and_keeps_its_bound(pair: Pair) -> None:
    found = pair("ks")
    assert found is not None
    value = stats.ks_2samp(pair.a, pair.b, method="asymp").statistic
    assert_holds(found, value)
    p, q = (x.counts[::2] / x.n for x in (pair.reference, pair.current))
    assert -1e-12 <= value - found.statistic <= np.minimum(p, q).max() + 1e-12


@settings(max_examples=100, deadline=None)
@given(numeric_pairs(least=100, edges=1000))
def test_ks_on_a_thousand_edges_is_within_a_thousandth(pair: Pair) -> None:
    found = pair("ks")
    assert found is not None
    value = stats.ks_2samp(pair.a, pair.b, method="asymp").statistic
    assert abs(value - found.statistic) <= 1 / 1000 + 1e-12


@settings(max_examples=300, deadline=None)
@given(any_pairs)
def test_anderson_darling_contains_scipy(pair: Pair) -> None:
    assume(len(set(pair.a) | set(pair.b)) > 1)
    found = pair("anderson_darling")
    assert found is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # p-values outside scipy's table
        normed = stats.anderson_ksamp([pair.a, pair.b], variant="midrank").statistic
    sigma = anderson_darling_sigma(len(pair.a), len(pair.b))
    assert_holds(found, normed * sigma + 1, rel=1e-7)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200))
def test_anderson_darling_sigma_is_the_double_sum_of_the_paper(m: int, n: int) -> None:
    rows = m + n
    h = sum(1 / i for i in range(1, rows))
    g = sum(1 / ((rows - i) * j) for i in range(1, rows - 1) for j in range(i + 1, rows))
    inverse, k = 1 / m + 1 / n, 2
    a = (4 * g - 6) * (k - 1) + (10 - 6 * g) * inverse
    b = (2 * g - 4) * k**2 + 8 * h * k + (2 * g - 14 * h - 4) * inverse - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * k**2 + (4 * h - 4 * g + 6) * k + (2 * h - 6) * inverse + 4 * h
    d = (2 * h + 6) * k**2 - 4 * h * k
    variance = (a * rows**3 + b * rows**2 + c * rows + d) / ((rows - 1) * (rows - 2) * (rows - 3))
    assert anderson_darling_sigma(m, n) == pytest.approx(math.sqrt(variance), rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(numeric_pairs(least=2))
def test_cramer_von_mises_contains_scipy_where_no_rows_are_tied(pair: Pair) -> None:
    assume(len(set(pair.a) | set(pair.b)) == len(pair.a) + len(pair.b))
    found = pair("cramer_von_mises")
    assert found is not None
    assert_holds(found, stats.cramervonmises_2samp(pair.a, pair.b, method="asymptotic").statistic)


@settings(max_examples=200, deadline=None)
@given(any_pairs)
def test_cramer_von_mises_contains_its_definition(pair: Pair) -> None:
    found = pair("cramer_von_mises")
    assert found is not None
    both = np.concatenate((pair.a, pair.b))
    f = (pair.a[:, None] <= both).mean(axis=0)
    g = (pair.b[:, None] <= both).mean(axis=0)
    m, n = len(pair.a), len(pair.b)
    assert_holds(found, m * n / (m + n) ** 2 * float(((f - g) ** 2).sum()))


@settings(max_examples=300, deadline=None)
@given(any_pairs)
def test_mann_whitney_contains_scipy(pair: Pair) -> None:
    found = pair("mann_whitney")
    assert isinstance(pair.reference, NumericProfile)
    assert isinstance(pair.current, NumericProfile)
    if near_constant(pair.reference, pair.current):
        assert found is None
        return
    assert found is not None
    m, n = len(pair.a), len(pair.b)
    test = stats.mannwhitneyu(pair.a, pair.b, method="asymptotic")
    _, ties = np.unique(np.concatenate((pair.a, pair.b)), return_counts=True)
    sigma = math.sqrt(m * n / 12 * (m + n + 1 - float((ties**3 - ties).sum()) / ((m + n) * (m + n - 1))))
    assume(sigma > 0)
    z = max(0.0, abs(test.statistic - m * n / 2) - 0.5) / sigma
    assert_holds(found, z, rel=1e-8)
    if found.low is None:
        assert found.p_value == pytest.approx(min(1.0, test.pvalue), rel=1e-7)


@settings(max_examples=300, deadline=None)
@given(any_pairs)
def test_wasserstein_contains_scipy(pair: Pair) -> None:
    found = pair("wasserstein")
    assert isinstance(pair.reference, NumericProfile)
    assert isinstance(pair.current, NumericProfile)
    if pair.reference.saturated or pair.current.saturated:
        assert found is None
        return
    assert found is not None
    # scipy multiplies widths by shares, which overflows or loses digits near the ends of the floats
    scale = max(np.abs(pair.a).max(), np.abs(pair.b).max()) or 1.0
    value = float(stats.wasserstein_distance(pair.a / scale, pair.b / scale))
    scaled = StatResult(
        statistic=found.statistic / scale,
        low=None if found.low is None else found.low / scale,
        high=None if found.high is None else found.high / scale,
    )
    assert_holds(scaled, value, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from(["normal", "lognormal", "mostly zero"]))
def test_wasserstein_on_a_thousand_edges_is_close(seed: int, shape: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = SHAPES[shape](rng, 5000), SHAPES[shape](rng, 1000)
    found = numeric_pair(a, b)("wasserstein")
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    spread = float(np.std(a))
    assert found.statistic == pytest.approx(stats.wasserstein_distance(a, b), abs=0.05 * spread)
    assert found.high - found.low <= 0.2 * spread


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=4, max_size=60), st.data())
def test_ranks_are_exact_where_live_values_lie_on_the_edges(values: list[int], data: st.DataObject) -> None:
    a = np.array(values, np.float64)
    b = np.array(data.draw(st.lists(st.sampled_from(values), min_size=4, max_size=60)), np.float64)
    pair = numeric_pair(a, b)
    assert isinstance(pair.spec, NumericSpec)
    assert pair.spec.exact
    for name in BY_RANK:
        found = pair(name)
        assert found is None or (found.low is None and found.high is None)


# -- shares and moments: equal to scipy on the same cells ---------------------------------------------------


def shares_of(cells: Cells) -> tuple[Floats, Floats]:
    return cells.reference / cells.m, cells.current / cells.n


@settings(max_examples=200, deadline=None)
@given(st.one_of(any_pairs, *(PAIRS[k] for k in ("categorical", "boolean"))))
def test_distances_equal_scipy_on_the_same_cells(pair: Pair) -> None:
    cells = compare(pair.spec, pair.reference, pair.current)
    cells = pooled(cells, least=expected_rows(cells), rest=True)
    p, q = shares_of(cells)
    smooth_p, smooth_q = cells.reference + PSEUDOCOUNT, cells.current + PSEUDOCOUNT
    expected = {
        "psi": stats.entropy(smooth_p, smooth_q) + stats.entropy(smooth_q, smooth_p),
        "jensen_shannon": spatial.distance.jensenshannon(p, q, base=2) if len(p) > 1 else 0.0,
        "hellinger": np.linalg.norm(np.sqrt(p) - np.sqrt(q)) / math.sqrt(2),
        "total_variation": spatial.distance.cityblock(p, q) / 2,
    }
    for name, value in expected.items():
        found = pair(name)
        assert found is not None
        # a root near zero doubles what rounding leaves of the sum: 1e-16 becomes 1e-8
        tolerance = 3e-8 if name in {"jensen_shannon", "hellinger"} else 1e-12
        assert found.statistic == pytest.approx(value, rel=1e-9, abs=tolerance), name


@settings(max_examples=200, deadline=None)
@given(st.one_of(any_pairs, *(PAIRS[k] for k in ("categorical", "boolean"))))
def test_chi2_and_g_equal_scipy_on_the_same_cells(pair: Pair) -> None:
    cells = compare(pair.spec, pair.reference, pair.current)
    cells = pooled(cells, least=expected_rows(cells), rest=False)
    chi2, g = pair("chi2"), pair("g")
    assert chi2 is not None
    assert g is not None
    if len(cells.reference) == 1:
        assert (chi2.statistic, chi2.p_value, g.p_value) == (0.0, 1.0, 1.0)
        return
    table = np.stack((cells.reference, cells.current))
    pearson = stats.chi2_contingency(table, correction=False)
    likelihood = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    assert chi2.statistic == pytest.approx(pearson.statistic, rel=1e-9, abs=1e-9)
    assert chi2.p_value == pytest.approx(pearson.pvalue, rel=1e-9)
    assert g.statistic == pytest.approx(likelihood.statistic, rel=1e-9, abs=1e-9)
    assert g.p_value is not None
    assert g.p_value >= likelihood.pvalue - 1e-6  # Williams' factor is above 1


@settings(max_examples=200, deadline=None)
@given(any_pairs)
def test_t_equals_scipy_on_values_in_whole_units(pair: Pair) -> None:
    found = pair("t")
    spec = pair.spec
    assert isinstance(spec, NumericSpec)
    assume(found is not None)
    assert found is not None
    a, b = (np.rint(x / spec.unit - spec.origin / spec.unit) for x in (pair.a, pair.b))
    assume(len(set(a)) > 1 and len(set(b)) > 1)  # scipy warns otherwise
    value = stats.ttest_ind(a, b, equal_var=False)
    assert found.statistic == pytest.approx(abs(value.statistic), rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(value.pvalue, rel=1e-7)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_t_equals_scipy_on_raw_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = numeric_pair(rng.integers(-1000, 1000, 300) * 1.0, rng.integers(-900, 1000, 200) * 1.0)
    found = whole("t")
    assert found is not None
    expected = stats.ttest_ind(whole.a, whole.b, equal_var=False)
    assert found.statistic == pytest.approx(abs(expected.statistic), rel=1e-9)
    real = numeric_pair(rng.normal(size=300), rng.normal(0.2, 2, size=200))
    found = real("t")
    assert found is not None
    assert found.statistic == pytest.approx(
        abs(stats.ttest_ind(real.a, real.b, equal_var=False).statistic), rel=1e-7, abs=1e-7
    )


def z_of_table(o: int, r: int, n: int, m: int) -> float:
    """The corrected root of the likelihood ratio of one 2x2 table, term by term."""
    expected = (o + r) * n / (m + n)
    if abs(o - expected) <= 0.5:
        return 0.0
    moved = o - 0.5 if o > expected else o + 0.5
    seen = [moved, o + r - moved, n - moved, m - (o + r - moved)]
    fair = [expected, o + r - expected, n - expected, m - (o + r - expected)]
    return math.sqrt(max(0.0, 2 * sum(s * math.log(s / f) for s, f in zip(seen, fair, strict=True) if s > 0)))


@settings(max_examples=150, deadline=None)
@given(st.one_of(any_pairs, *(PAIRS[k] for k in ("categorical", "boolean"))))
def test_max_bin_z_is_the_largest_z_of_a_cell(pair: Pair) -> None:
    bins = min(1000, max(2, pair.reference.n // 20))  # a group has at least 20 reference rows
    cells = pooled(compare(pair.spec, pair.reference, pair.current, bins), least=10, rest=True)
    found = pair("max_bin_z")
    assert found is not None
    z = [z_of_table(int(o), int(r), cells.n, cells.m) for o, r in zip(cells.current, cells.reference, strict=True)]
    assert found.statistic == pytest.approx(max(z), rel=1e-6, abs=1e-6)
    assert found.p_value == pytest.approx(min(1.0, len(z) * 2 * stats.norm.sf(found.statistic)), rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(any_pairs)
def test_weighted_supremum_is_the_largest_z_of_a_half_line(pair: Pair) -> None:
    assert isinstance(pair.spec, NumericSpec)
    m, n = len(pair.a), len(pair.b)
    z = [
        z_of_table(int(cut(pair.b).sum()), int(cut(pair.a).sum()), n, m)
        for e in pair.spec.edges
        for cut in (lambda x, e=e: x < e, lambda x, e=e: x <= e)
    ]
    found = pair("weighted_supremum")
    assert found is not None
    assert found.statistic * math.sqrt(m * n / (m + n)) == pytest.approx(max(z), rel=1e-6, abs=1e-6)


def test_weighted_supremum_is_the_classic_ratio_for_many_rows() -> None:
    rng = np.random.default_rng(0)
    pair = numeric_pair(rng.normal(size=100_000), rng.normal(0.3, 1, size=100_000), edges=50)
    found = pair("weighted_supremum")
    assert isinstance(pair.spec, NumericSpec)
    f, g = (np.array([(x <= e).mean() for e in pair.spec.edges[1:-1]]) for x in (pair.a, pair.b))
    h = (f + g) / 2
    assert found is not None
    assert found.statistic == pytest.approx((np.abs(f - g) / np.sqrt(h * (1 - h))).max(), rel=0.02)


# -- cells -------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(numeric_pairs(), st.integers(1, 30))
def test_groups_hold_about_equal_reference_mass_and_heavy_values_alone(pair: Pair, bins: int) -> None:
    reference = pair.reference
    assert isinstance(reference, NumericProfile)
    starts = groups(reference, bins)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    mass = np.add.reduceat(reference.counts, starts)
    assert mass.sum() == reference.n
    assert len(starts) <= 3 * bins
    ends = [*starts[1:].tolist(), len(reference.counts)]
    finest = reference.counts.max()
    for first, end, count in zip(starts.tolist(), ends, mass.tolist(), strict=True):
        heavy = [c for c in range(first, end) if c % 2 and reference.counts[c] * bins >= reference.n]
        assert not heavy or end - first == 1
        assert heavy or count <= reference.n / bins + finest


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_pooling_keeps_the_rows_and_only_cells_with_enough(
    counts: list[tuple[int, int]], rest: bool, mixed: bool
) -> None:
    p, q = np.array(counts, np.int64).T
    assume(p.sum() and q.sum())
    cells = Cells(p, q, mixed=mixed)
    found = pooled(cells, least=expected_rows(cells), rest=rest)
    assert (found.m, found.n) == (cells.m, cells.n)
    expected = (found.reference + found.current) * min(cells.m, cells.n) / (cells.m + cells.n)
    sparse = expected < LEAST - 1e-9
    if rest:
        assert not sparse[:-1].any()
        assert found.sparse == bool(sparse[-1])
    else:
        assert not sparse.any() or len(expected) == 1
    swapped = pooled(Cells(q, p, mixed=mixed), least=expected_rows(cells), rest=rest)
    assert np.array_equal(swapped.reference, found.current)


def test_a_category_that_the_reference_has_not_seen_is_a_cell_of_its_own() -> None:
    pair = categorical_pair(["a"] * 900 + ["b"] * 100, ["a"] * 700 + ["b"] * 100 + ["new"] * 200)
    for name in BY_SHARE:
        found = pair(name)
        assert found is not None
        assert found.statistic > STATTESTS[name].critical(pair.spec, pair.reference, pair.current, 1e-6), name
    assert pair("total_variation").statistic == pytest.approx(0.2)


def test_one_unseen_category_in_eight_hundred_rows_is_no_drift() -> None:
    reference = ["a"] * 12_000 + ["b"] * 6_000 + ["c"] * 2_000
    pair = categorical_pair(reference, ["a"] * 480 + ["b"] * 240 + ["c"] * 79 + ["new"])
    for name in ("chi2", "g", "max_bin_z"):
        found = pair(name)
        assert found is not None
        assert found.p_value is not None
        assert found.p_value > 0.05, name


# -- invariants --------------------------------------------------------------------------------------------

CASES = [(name, kind) for name, test in STATTESTS.items() for kind in sorted(test.kinds)]


@pytest.mark.parametrize(("name", "kind"), CASES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_results_are_finite_and_within_their_bounds(name: str, kind: Kind, data: st.DataObject) -> None:
    pair = data.draw(PAIRS[kind])
    test = STATTESTS[name]
    found = pair(name)
    if found is None:
        return
    low, high = test.bounded
    assert low <= found.statistic
    assert high is None or found.statistic <= high + 1e-12
    assert found.p_value is None or 0 <= found.p_value <= 1
    assert (found.low is None) == (found.high is None)
    if found.low is not None and found.high is not None:
        assert low <= found.low <= found.statistic <= found.high
    critical = [test.critical(pair.spec, pair.reference, pair.current, alpha) for alpha in (0.05, 1e-3, 1e-6)]
    assert critical == sorted(critical)
    assert critical[0] > 0


@pytest.mark.parametrize(
    ("name", "kind"), [case for case in CASES if STATTESTS[case[0]].zero_on_identical], ids=str
)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_identical_samples_are_not_apart(name: str, kind: Kind, data: st.DataObject) -> None:
    pair = data.draw(PAIRS[kind])
    found = STATTESTS[name].function(pair.spec, pair.reference, pair.reference)
    assert found is None or found.statistic == pytest.approx(STATTESTS[name].bounded[0], abs=1e-7)


@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if STATTESTS[case[0]].symmetric], ids=str)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_swapping_the_samples_changes_nothing(name: str, kind: Kind, data: st.DataObject) -> None:
    pair = data.draw(PAIRS[kind])
    if name in BY_SHARE and kind in {"numeric", "datetime"}:
        # the groups come from the reference: take samples from which either side gives the same ones
        values = np.repeat([0.0, 1.0, 2.0, 3.0], 50)
        pair = numeric_pair(
            values, np.array([*values, *data.draw(st.lists(st.sampled_from([0.0, 3.0]), max_size=40))])
        )
    function = STATTESTS[name].function
    there = function(pair.spec, pair.reference, pair.current)
    back = function(pair.spec, pair.current, pair.reference)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert there.statistic == pytest.approx(back.statistic, rel=1e-9, abs=1e-9)
        assert (there.p_value is None) == (back.p_value is None)
        if there.p_value is not None:
            assert there.p_value == pytest.approx(back.p_value, rel=1e-6)


@pytest.mark.parametrize("name", ORDERED)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_rising_transformation_changes_nothing_where_declared(name: str, data: st.DataObject) -> None:
    values = st.lists(st.integers(-50, 50), min_size=40, max_size=80)
    a, b = (np.array(data.draw(values), np.float64) for _ in range(2))
    edges = data.draw(st.sampled_from([7, 1000]))
    plain, cubed = numeric_pair(a, b, edges)(name), numeric_pair(a**3, b**3, edges)(name)
    assert (plain is None) == (cubed is None)
    if STATTESTS[name].monotone_invariant:
        assert plain == cubed


@pytest.mark.parametrize("name", [name for name in ORDERED if not STATTESTS[name].monotone_invariant])
def test_what_is_not_declared_invariant_is_not(name: str) -> None:
    a, b = np.arange(1.0, 200.0), np.arange(2.0, 260.0)
    plain, cubed = numeric_pair(a, b)(name), numeric_pair(a**3, b**3)(name)
    assert plain is not None
    assert cubed is not None
    assert plain.statistic != pytest.approx(cubed.statistic, rel=0.01)


# -- merging -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(numeric_pairs(), st.data())
def test_any_split_and_order_of_the_rows_gives_the_same_bits(pair: Pair, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pair.b)), max_size=5)))
    bounds = [0, *cuts, len(pair.b)]
    rows = np.array(data.draw(st.permutations(range(len(pair.b)))))
    batches = [pa.record_batch({"x": pa.array(pair.b[rows[a:b]])}) for a, b in itertools.pairwise(bounds) if b > a]
    merged: FeatureProfile | None = None
    for batch in batches:
        part = profile_buckets([pair.spec], [batch])[0].features["x"]
        assert isinstance(part, NumericProfile)
        merged = part.merge(merged) if isinstance(merged, NumericProfile) else part
    assert merged is not None
    for name in ORDERED:
        whole = pair(name)
        again = STATTESTS[name].function(pair.spec, pair.reference, merged)
        assert (whole and whole.model_dump_json()) == (again and again.model_dump_json()), name


# -- odd values --------------------------------------------------------------------------------------------

ODD = [0.0, -0.0, 1.0, 2.5, 5e-324, 2.2e-308, 1e308, -1e308, math.inf, -math.inf, math.nan, 2.0**53 + 2, None]


@settings(max_examples=200, deadline=None)
@given(
    a=st.lists(st.one_of(st.sampled_from(ODD), st.floats()), min_size=1, max_size=60),
    b=st.lists(st.one_of(st.sampled_from(ODD), st.floats()), min_size=1, max_size=60),
    edges=st.sampled_from([2, 1000]),
)
def test_any_floats_give_a_finite_answer_or_none(a: list[float | None], b: list[float | None], edges: int) -> None:
    finite = [x for x in a if x is not None and math.isfinite(x)]
    assume(finite and any(x is not None and math.isfinite(x) for x in b))
    spec = NumericSpec.fit("x", np.array(finite), edges=edges)
    reference, current = (fold(spec, pa.array(x, pa.float64())) for x in (a, b))
    for name in ORDERED:
        test: StatTest = STATTESTS[name]
        found = test.function(spec, reference, current)
        assert found is None or math.isfinite(found.statistic)
        assert test.critical(spec, reference, current, 1e-3) > 0


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from(["bool", "int64", "uint64", "decimal", "float32"]))
def test_other_column_types_compare_like_their_values(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    columns = []
    for _ in range(2):
        if kind == "bool":
            columns.append(pa.array(rng.random(80) < 0.5))
        elif kind == "int64":
            columns.append(pa.array(rng.integers(2**60, 2**60 + 10**6, 80)))
        elif kind == "uint64":
            columns.append(pa.array(rng.integers(0, 2**64 - 1, 80, dtype=np.uint64)))
        elif kind == "decimal":
            columns.append(pa.array(rng.integers(-(10**9), 10**9, 80)).cast(pa.decimal128(38, 4)))
        else:
            columns.append(pa.array(rng.normal(size=80).astype(np.float32)))
    raw = [np.array([float(v) for v in c.to_pylist()]) for c in columns]
    spec = NumericSpec.fit("x", raw[0])
    reference, current = (fold(spec, c) for c in columns)
    found = STATTESTS["ks"].function(spec, reference, current)
    assert found is not None
    assert_holds(found, stats.ks_2samp(*raw, method="asymp").statistic)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_from_1900_to_2262_compare_in_seconds(unit: str) -> None:
    start, end = np.datetime64("1900-01-01", "s").astype(int), np.datetime64("2262-04-01", "s").astype(int)
    seconds = np.random.default_rng(1).integers(start, end, 500)
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    columns = [pa.array(x * factor).cast(pa.timestamp(unit)) for x in (seconds[:300], seconds[300:])]
    spec = NumericSpec.fit("x", seconds[:300] * 1.0, kind="datetime")
    profiles = [fold(spec, c) for c in columns]
    found = STATTESTS["wasserstein"].function(spec, *profiles)
    assert found is not None
    assert_holds(found, float(stats.wasserstein_distance(seconds[:300], seconds[300:])))


def test_a_hundred_thousand_categories_score() -> None:
    rng = np.random.default_rng(2)
    drawn = [[f"user {i}" for i in rng.zipf(1.3, n) % 100_000] for n in (150_000, 20_000)]
    counts = [Counter(x) for x in drawn]
    assert len(counts[0]) > 10_000
    pair = categorical_pair(*drawn)
    for name in BY_SHARE:
        found = pair(name)
        assert found is not None
        critical = STATTESTS[name].critical(pair.spec, pair.reference, pair.current, 1e-4)
        assert found.statistic <= critical, name


def test_lone_surrogates_score_like_any_category() -> None:
    raw = [
        pa.array([b"\xed\xa0\x80"] * k + [b"a"] * 100, pa.binary()).cast(pa.string(), safe=False)
        for k in (50, 250)
    ]
    spec = CategoricalSpec.fit("x", category_counts(raw[0]))
    found = STATTESTS["total_variation"].function(spec, *(fold(spec, x) for x in raw))
    assert found is not None
    assert found.statistic == pytest.approx(250 / 350 - 50 / 150)
