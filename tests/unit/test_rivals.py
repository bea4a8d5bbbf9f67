"""The usual alarm rules, against scipy on raw rows, closed forms and Evidently itself."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from drift_monitor.core.fold import category_counts, profile_buckets
from drift_monitor.core.profile import CategoricalSpec, NumericSpec, Profile, Spec
from drift_monitor.core.rivals import RIVALS, Comparison, compared, fit

Columns = Mapping[str, object]
RNG = np.random.default_rng(11)


def specs_of(columns: Columns) -> list[Spec]:
    """Text is categorical, bool boolean, a timestamp a datetime, and the rest numeric."""
    specs: list[Spec] = []
    for name, raw in columns.items():
        values = pa.array(raw)
        if pa.types.is_timestamp(values.type):
            seconds = values.cast(pa.int64()).to_numpy() / 1e6
            specs.append(NumericSpec.fit(name, seconds, kind="datetime"))
        elif pa.types.is_string(values.type) or pa.types.is_boolean(values.type):
            specs.append(
                CategoricalSpec.fit(
                    name,
                    category_counts(values),
                    kind="boolean" if pa.types.is_boolean(values.type) else "categorical",
                )
            )
        else:
            specs.append(NumericSpec.fit(name, values.drop_null().to_numpy()))
    return specs


def profile(specs: Sequence[Spec], columns: Columns) -> Profile:
    return profile_buckets(specs, [pa.record_batch({k: pa.array(v) for k, v in columns.items()})])[0]


def comparison(reference: object, current: object) -> Comparison:
    specs = specs_of({"x": reference})
    return compared(specs, profile(specs, {"x": reference}), profile(specs, {"x": current}))["x"]


def texts(**counts: int) -> list[str]:
    return [name for name, count in counts.items() for _ in range(count)]


# -- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n", "shift"), [(1000, 100, 0.3), (5000, 2000, 0.05), (700, 800, 0.0)])
def test_the_p_value_of_ks_is_near_scipys(m: int, n: int, shift: float) -> None:
    a, b = RNG.normal(size=m), RNG.normal(shift, 1, n)
    expected = stats.ks_2samp(np.round(a, 1), np.round(b, 1), method="asymp")
    found = comparison(np.round(a, 1), np.round(b, 1))
    assert found.distance == pytest.approx(expected.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.03)


@pytest.mark.parametrize(
    ("reference", "current"),
    [
        ({"a": 500, "b": 300, "c": 200}, {"a": 45, "b": 40, "c": 15}),
        ({"a": 500, "b": 300}, {"a": 45, "c": 40}),
        ({"a": 60, "b": 40}, {"a": 40, "b": 30}),  # two categories: Yates
    ],
)
def test_the_p_value_of_categories_is_scipys_of_the_contingency_table(
    reference: dict[str, int], current: dict[str, int]
) -> None:
    names = sorted(reference | current)
    table = [[side.get(name, 0) for name in names] for side in (reference, current)]
    found = comparison(texts(**reference), texts(**current))
    assert found.p_value == pytest.approx(stats.chi2_contingency(table).pvalue, rel=1e-9)
    p, q = (np.array(row) / sum(row) for row in table)
    assert found.distance == pytest.approx(np.abs(p - q).sum() / 2)


def test_one_category_on_both_sides_is_no_drift() -> None:
    found = comparison(texts(a=50), texts(a=20))
    assert (found.p_value, found.distance, found.psi) == (1.0, 0.0, 0.0)
    assert found.evidently is not None
    assert (found.evidently.test, found.evidently.score, found.evidently.drifted) == ("z", 1.0, False)


def test_psi_of_two_categories_is_its_closed_form() -> None:
    assert comparison(texts(a=50, b=50), texts(a=80, b=20)).psi == pytest.approx(0.3 * math.log(4))
    # an empty bin counts as 0.0001
    unseen = comparison(texts(a=100), texts(a=90, b=10)).psi
    assert unseen == pytest.approx(-0.1 * math.log(0.9) + 0.0999 * math.log(1000))


@pytest.mark.parametrize("shape", ["normal", "mostly zero", "few"])
def test_psi_of_numbers_is_that_of_ten_bins_between_the_deciles(shape: str) -> None:
    drawn = {
        "normal": RNG.normal(size=3400),
        "mostly zero": np.where(RNG.random(3400) < 0.6, 0.0, RNG.exponential(size=3400)),
        "few": RNG.poisson(1.0, 3400) * 1.0,
    }[shape]
    a, b = np.round(drawn[:3000], 2), np.round(1.5 * drawn[3000:] - 0.2, 2)
    deciles = np.unique(np.quantile(a, np.arange(1, 10) / 10, method="inverted_cdf"))
    bins = np.concatenate(([-np.inf], deciles, [np.inf]))
    p, q = (np.histogram(-x, np.sort(-bins))[0] / len(x) for x in (a, b))  # negated: a bin holds its upper limit
    used = p + q > 0
    p, q = (np.where(x[used] > 0, x[used], 1e-4) for x in (p, q))
    assert comparison(a, b).psi == pytest.approx(((q - p) * np.log(q / p)).sum())


# -- Evidently -------------------------------------------------------------------------------------------


def samples(rows: int, current: int) -> dict[str, tuple[pd.Series, pd.Series]]:
    def both(draw: object, moved: object) -> tuple[pd.Series, pd.Series]:
        return pd.Series(draw), pd.Series(moved)

    r = np.random.default_rng(rows + current)
    names, flags = np.array(["red", "green", "blue"], object), np.array(["yes", "no"], object)
    return {
        "normal": both(r.normal(size=rows), r.normal(size=current)),
        "shifted": both(r.normal(size=rows), r.normal(0.4, 1.1, current)),
        "lognormal": both(np.exp(r.normal(size=rows)), np.exp(1.2 * r.normal(size=current))),
        "whole": both(r.poisson(6, rows) * 1.0, r.poisson(6.3, current) * 1.0),
        "far away": both(1e9 + r.normal(size=rows), 1e9 + r.normal(size=current)),
        "tiny": both(1e-6 * r.normal(size=rows), 1e-6 * r.normal(0.5, 1, current)),
        "constant": both(np.full(rows, 2.5), np.full(current, 2.5)),
        "two numbers": both((r.random(rows) < 0.3) * 1.0, (r.random(current) < 0.34) * 1.0),
        "four numbers": both(r.integers(0, 4, rows) * 1.0, r.integers(0, 4, current) * 1.0),
        "a new code": both(r.integers(0, 3, rows) * 2.0, r.choice([0.0, 2.0, 3.0, 4.0], current)),
        "a new code outside": both(r.integers(0, 3, rows) * 1.0, r.integers(0, 4, current) * 1.0),
        "codes become shares": both(r.integers(0, 3, rows) * 1.0, r.random(current) * 2),
        "colours": both(r.choice(names, rows), r.choice(names, current, p=[0.4, 0.3, 0.3])),
        "an unseen colour": both(r.choice(names[:2], rows), r.choice(names, current, p=[0.49, 0.49, 0.02])),
        "yes and no": both(r.choice(flags, rows), r.choice(flags, current, p=[0.54, 0.46])),
        "flags": both(r.random(rows) < 0.3, r.random(current) < 0.45),
    }


def test_the_default_test_of_a_column_is_evidentlys_own() -> None:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    seen: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently's own imports, and its divisions by zero
        from evidently.legacy.calculations.stattests.registry import get_stattest  # noqa: PLC0415 - heavy

        for sizes in [(900, 300), (1000, 150), (3000, 500), (1001, 2000)]:
            for name, (a, b) in samples(*sizes).items():
                kind = "num" if a.dtype == np.float64 else "cat"
                chosen = get_stattest(a, b, kind, None)
                theirs = chosen(a, b, kind, None)
                ours = comparison(a.to_numpy(), b.to_numpy()).evidently
                assert ours is not None, name
                seen.add(ours.test)
                assert ours.test == chosen.name, (name, sizes)
                assert ours.drifted == theirs.drifted, (name, sizes)
                # the exact p-value of KS for small samples, the crossings of F - G for the Wasserstein distance
                rel, least = {"ks": (0.06, 1e-5), "wasserstein": (0.05, 1e-9)}.get(ours.test, (1e-6, 1e-12))
                assert ours.score == pytest.approx(theirs.drift_score, rel=rel, abs=least), (name, sizes)
    assert seen == {"ks", "chisquare", "z", "wasserstein", "jensenshannon"}


def test_a_value_too_far_out_for_the_sums_is_drift_to_evidently() -> None:
    found = comparison(RNG.normal(size=2000), [*RNG.normal(size=500), 1e300]).evidently
    assert found is not None
    assert (found.test, found.score, found.drifted) == ("wasserstein", math.inf, True)


# -- rules -----------------------------------------------------------------------------------------------


def verdicts(reference: Columns, current: Columns, windows: Sequence[Columns] = ()) -> dict[str, bool]:
    specs = specs_of(reference)
    sides = profile(specs, reference), [profile(specs, w) for w in windows], profile(specs, current)
    return fit(specs, *sides[:2])(sides[2])


def test_bonferroni_shares_the_level_among_the_features_that_are_compared() -> None:
    reference, moved = texts(a=5000, b=5000), texts(a=215, b=265)
    assert 0.05 / 2 < comparison(reference, moved).p_value < 0.05 / 1
    same = {"y": texts(a=5000, b=5000)}
    assert verdicts({"x": reference}, {"x": moved})["ks_bonferroni"]
    assert not verdicts({"x": reference, **same}, {"x": moved, "y": texts(a=240, b=240)})["ks_bonferroni"]
    # a feature that is missing, or has only nulls, takes no part
    assert verdicts({"x": reference, **same}, {"x": moved})["ks_bonferroni"]
    assert verdicts({"x": reference, **same}, {"x": moved, "y": pa.nulls(480, pa.string())})["ks_bonferroni"]


def test_psi_alarms_above_a_fifth() -> None:
    def psi(a: int) -> bool:
        return verdicts({"x": texts(a=500, b=500)}, {"x": texts(a=a, b=1000 - a)})["psi"]

    # (q - 1/2) ln(q / (1 - q)) is 0.2 at q = 0.7161
    assert (psi(715), psi(717)) == (False, True)


def test_mean_and_three_sd_are_of_the_references_own_windows() -> None:
    # shares of b in the windows 0.4, 0.5, 0.6 of 0.5 in all: distances 0.1, 0, 0.1
    windows = [{"x": texts(a=100 - b, b=b)} for b in (40, 50, 60)]
    limit = 0.2 / 3 + 3 * math.sqrt(0.02 / 9)  # 0.2081
    assert limit == pytest.approx(np.mean([0.1, 0, 0.1]) + 3 * np.std([0.1, 0, 0.1]))
    reference = {"x": texts(a=150, b=150)}
    for b, alarm in ((700, False), (708, False), (709, True), (290, True)):
        assert verdicts(reference, {"x": texts(a=1000 - b, b=b)}, windows)["mean_3sd"] == alarm, b
    assert not verdicts(reference, {"x": texts(b=1000)})["mean_3sd"]  # nothing to fit


def test_mean_and_three_sd_of_numbers_is_of_the_ks_distance() -> None:
    reference = np.arange(100.0)
    windows = [{"x": reference[i::2]} for i in range(2)]  # the even and the odd ones: 0.01 off both
    found = {k: verdicts({"x": reference}, {"x": reference[k:]}, windows)["mean_3sd"] for k in (0, 1, 2)}
    assert found == {0: False, 1: False, 2: True}


def test_evidentlys_share_needs_half_of_the_columns() -> None:
    reference = {name: texts(a=5000, b=5000) for name in "uvwx"}
    moved, same = texts(a=800, b=200), texts(a=500, b=500)
    one = verdicts(reference, {"u": moved, "v": same, "w": same, "x": same})
    assert (one["evidently_any"], one["evidently_share"]) == (True, False)
    two = verdicts(reference, {"u": moved, "v": moved, "w": same, "x": same})
    assert (two["evidently_any"], two["evidently_share"]) == (True, True)
    three = verdicts(reference, {"u": moved, "v": same})
    assert three["evidently_share"]


def test_evidently_passes_datetimes_over() -> None:
    times = np.arange("2024-01-01", "2024-03-01", np.timedelta64(1, "h"), dtype="datetime64[us]")
    found = verdicts({"t": times}, {"t": times[1000:]})
    assert found["ks_bonferroni"]
    assert found["psi"]
    assert not found["evidently_any"]
    assert not found["evidently_share"]


def test_a_window_without_features_alarms_nowhere() -> None:
    reference = {"x": RNG.normal(size=500)}
    assert verdicts(reference, {"other": [1.0]}, [reference]) == dict.fromkeys(RIVALS, False)
    assert verdicts(reference, {"x": [math.nan, math.inf]}, [reference]) == dict.fromkeys(RIVALS, False)


def test_only_the_rules_that_are_asked_for_are_set_up() -> None:
    specs = specs_of({"x": [1.0, 2.0]})
    whole = profile(specs, {"x": [1.0, 2.0]})
    assert set(fit(specs, whole, [], names=("psi",))(whole)) == {"psi"}
    with pytest.raises(KeyError, match="sigma"):
        fit(specs, whole, [], names=("sigma",))
